"""Connections to Redis that are cut in the midst of an answer, or on which no answer comes."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from shardlib import Intents
from shardlib.fleet import Fleet, FleetEvent, RedisAway
from shardlib.testing import LocalGateway
from tests.fleet.workers import (
    SHARDS,
    dispatch,
    make_fleet,
    running,
    wait_for_all,
    wait_for_shards,
)
from tests.redis_server import HOST, RedisServer
from tests.support import wait_until

PATIENCE = 60.0


class Relay:
    """Passes connections on to a server, and cuts each of them after some bytes of its answers.

    :param port: of the server.
    :param seed: of the number of bytes.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.cuts = 0
        self.most: int | None = None  # bytes after which a connection is cut; None for never
        self._port = port
        self._random = random.Random(seed)
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._left: dict[socket.socket, int | None] = {}
        self._is_ending = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._is_ending = True
        self._thread.join()

    def _run(self) -> None:
        while not self._is_ending:
            for key, _ in self._selector.select(0.05):
                source: Any = key.fileobj
                if source is self._listener:
                    self._accept()
                elif source in self._peers:
                    self._pass_on(source)
        for each in [*self._peers]:
            if each in self._peers:
                self._cut(each)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection((HOST, self._port))
        self._peers.update({client: server, server: client})
        self._left[server] = None if self.most is None else self._random.randint(1, self.most)
        for each in (client, server):
            self._selector.register(each, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        try:
            found = source.recv(65536)
            left = self._left.get(source)
            if left is not None:
                found, self._left[source] = found[:left], left - len(found)
            if found:
                self._peers[source].sendall(found)
        except OSError:
            found = b""
        if not found or (self._left.get(source) or 1) <= 0:
            self.cuts += 1
            self._cut(source)

    def _cut(self, source: socket.socket) -> None:
        other = self._peers.pop(source)
        del self._peers[other]
        for each in (source, other):
            self._left.pop(each, None)
            self._selector.unregister(each)
            each.close()


@pytest.mark.parametrize("ordered, most", [(True, 100), (False, 3_000)])
def test_connections_that_are_cut_in_the_midst_of_answers_lose_nothing(
    redis_server: RedisServer,
    gateway: LocalGateway,
    client: redis.Redis,
    ordered: bool,
    most: int,
) -> None:
    relay = Relay(redis_server.port, seed=most)
    found: dict[str, FleetEvent] = {}
    try:
        with (
            make_fleet(redis_server),
            Fleet(f"redis://{HOST}:{relay.port}", "mybot", lease=3.0) as fleet,
            running(fleet, gateway) as worker,
            fleet.consumer("web", ordered=ordered, retry_after=2.0) as consumer,
        ):
            wait_for_shards(worker, SHARDS)
            relay.most = most
            client.client_kill_filter(_type="normal", skipme=True)
            began = time.monotonic()
            while time.monotonic() < began + 2 or relay.cuts <= 3:
                assert time.monotonic() < began + PATIENCE
                dispatch(gateway, 2)
                event = consumer.get(0.05)
                if event is not None:
                    found[event.id] = event
                    consumer.ack(event)
            relay.most = None
            client.client_kill_filter(_type="normal", skipme=True)
            wait_for_all(client, gateway)

            def has_all() -> bool:
                while (event := consumer.get(0.05)) is not None:
                    found[event.id] = event
                    consumer.ack(event)
                return len(found) >= sum(each.sequence for each in gateway.all_sessions)

            wait_until(has_all, PATIENCE)
            assert len(gateway.identifies) == SHARDS
    finally:
        relay.close()


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections, and never answers."""
    with socket.create_server((HOST, 0), backlog=100) as listener:
        yield f"redis://{HOST}:{listener.getsockname()[1]}"


def test_each_call_ends_though_redis_never_answers(gateway: LocalGateway) -> None:
    with silent_server() as url, Fleet(url, "mybot") as fleet:
        worker = fleet.worker(gateway.token, Intents.default())
        worker.start(gateway.url)
        consumer = fleet.consumer("web")
        calls: list[tuple[Callable[[], object], float, type[Exception] | None]] = [
            (lambda: fleet.init(1), 6, RedisAway),
            (fleet.shards, 6, RedisAway),
            (consumer.lag, 6, RedisAway),
            (lambda: consumer.get(0.5), 6, None),
            (consumer.close, 6, None),
            (lambda: worker.stop(2), 3, None),
        ]
        for call, most, error in calls:
            began = time.monotonic()
            with contextlib.nullcontext() if error is None else pytest.raises(error):
                call()
            assert time.monotonic() - began < most + 5, (call, time.monotonic() - began)
        worker.join(20)
