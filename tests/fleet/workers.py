"""Workers for tests, in this process and in others, and what their streams have to hold."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import redis

from shardlib import Intents
from shardlib.fleet import Fleet, Worker
from shardlib.fleet.connecting import Client
from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import FIELD, GAP
from shardlib.testing import GatewaySession, LocalGateway
from tests.managers import make_gateway
from tests.redis_server import RedisServer
from tests.support import send_signal, wait_until

SHARDS = 4
LEASE = 3.0
"""Seconds, so that no worker loses its leases on a busy machine."""

PATIENCE = 60.0

_PROCESS = """
import signal, sys
from shardlib import Intents
from shardlib.fleet import Fleet
redis_url, gateway_url, token, lease = sys.argv[1:]
with Fleet(redis_url, "mybot", lease=float(lease)) as fleet:
    worker = fleet.worker(token, Intents.all())
    signal.signal(signal.SIGTERM, lambda number, frame: worker.drain())
    signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(0))  # without stop()
    worker.run_forever(gateway_url)
"""


def make_fleet_gateway(shards: int = SHARDS, **options: Any) -> LocalGateway:
    return make_gateway(shards, keep_history=True, max_concurrency=shards, **options)


@contextmanager
def make_fleet(
    server: RedisServer, *, lease: float = LEASE, shards: int = SHARDS, client: Client | None = None
) -> Iterator[Fleet]:
    """A fleet whose shards may be claimed at once."""
    with Fleet(client or server.url, "mybot", lease=lease) as fleet:
        fleet.init(shards, max_concurrency=shards, identify_interval=0.01)
        client = client or server.client()
        for shard_id in range(shards):  # as if a lease had passed since the first who asked
            client.hset(Keys("mybot").shard(shard_id).state, "born", 1)
        yield fleet


@contextmanager
def running(
    fleet: Fleet, gateway: LocalGateway, most_shards: int | None = None, **options: Any
) -> Iterator[Worker]:
    """A worker that was started, and is stopped in the end."""
    worker = fleet.worker(gateway.token, Intents.all(), most_shards, **options)
    worker.start(gateway.url)
    try:
        yield worker
    finally:
        worker.stop()


def wait_for_shards(worker: Worker, number: int) -> None:
    """Wait until a worker has so many shards, and all are READY."""

    def has_them() -> bool:
        shards = worker.shards
        return len(shards) == number and all(each.is_ready for each in shards.values())  # type: ignore[attr-defined]

    wait_until(has_them, PATIENCE, f"{number} shards of {worker!r}")


class WorkerProcess:
    """A worker in a process of its own.

    :param preamble: what the process does before all else, in Python.
    """

    def __init__(
        self,
        server: RedisServer,
        gateway: LocalGateway,
        *,
        lease: float = LEASE,
        preamble: str = "",
    ) -> None:
        arguments = [server.url, gateway.url, gateway.token, str(lease)]
        self._process = subprocess.Popen([sys.executable, "-c", preamble + _PROCESS, *arguments])

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        send_signal(self._process, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self, number: signal.Signals) -> int:
        """End it: SIGINT stops the worker, SIGTERM drains it, SIGUSR1 ends the interpreter.

        :returns: its exit code.
        """
        self.send(number)
        return self._process.wait(PATIENCE)

    def owns(self, fleet: Fleet) -> list[int]:
        """The shards that it has."""
        return owned_by(fleet, self.pid)


def owned_by(fleet: Fleet, pid: int) -> list[int]:
    """The shards of the worker in a process."""
    return [each.shard_id for each in fleet.shards() if each.owner and f"-{pid}-" in each.owner]


def sessions_of(gateway: LocalGateway, number: int = SHARDS) -> list[GatewaySession]:
    """The session of each shard; fails if there were more, so that one was lost."""
    sessions = sorted(gateway.all_sessions, key=lambda session: session.shard)
    assert [session.shard[0] for session in sessions] == list(range(number))
    return sessions


def dispatch(gateway: LocalGateway, count: int = 1) -> None:
    """Issue events to each session, whether or not a client is connected."""
    for _ in range(count):
        for session in gateway.all_sessions:
            session.dispatch("MESSAGE_CREATE", {"number": session.sequence + 1})


def wait_until_written(fleet: Fleet, gateway: LocalGateway) -> None:
    """Wait until Redis has all events that were issued, READY of each shard at least."""

    def are_written() -> bool:
        issued = {session.shard[0]: session.sequence for session in gateway.all_sessions}
        return issued == {info.shard_id: info.sequence for info in fleet.shards()}

    wait_until(are_written, PATIENCE, "all events to be written")


def wait_for_all(
    client: redis.Redis, gateway: LocalGateway, wanted: Callable[[str], bool] = lambda name: True
) -> None:
    """Wait until the streams hold each event that the gateway has issued once, in order."""
    for session in gateway.all_sessions:
        shard_id = session.shard[0]

        def issued(session: GatewaySession = session) -> list[tuple[int, str, Any]]:
            return [
                (event.sequence, event.name, event.data)
                for event in session.history
                # No Resume repeats RESUMED, so it is not forwarded.
                if event.name != "RESUMED" and wanted(event.name)
            ]

        def is_complete(session: GatewaySession = session, shard_id: int = shard_id) -> bool:
            return appended(client, session) == issued(session)

        try:
            wait_until(is_complete, PATIENCE)
        except AssertionError:
            assert appended(client, session) == issued()


def appended(client: redis.Redis, session: GatewaySession) -> list[tuple[int, str, Any]]:
    """The sequence, name and data of what a stream holds of a session."""
    keys = Keys("mybot").shard(session.shard[0])
    try:
        entries = stream(client, session.shard[0])
        epochs = {
            id.partition("-")[0]
            for id, payload in entries
            if payload["t"] == "READY" and payload["d"]["session_id"] == session.session_id
        }
        if not epochs:  # nothing is written yet, or READY is not forwarded
            known: Any = client.hget(keys.state, "epoch")
            epochs = {(known or b"none").decode()}
    except (redis.ConnectionError, redis.TimeoutError):
        return []
    (epoch,) = epochs
    found = []
    for id, payload in entries:
        if id.partition("-")[0] == epoch and payload["t"] != json.loads(GAP)["t"]:
            assert id == f"{epoch}-{payload['s']}"
            found.append((payload["s"], payload["t"], payload["d"]))
    return found


def stream(client: redis.Redis, shard_id: int) -> list[tuple[str, Any]]:
    """The ids and payloads of a stream."""
    entries: Any = client.xrange(Keys("mybot").shard(shard_id).events)
    return [(id.decode(), json.loads(fields[FIELD])) for id, fields in entries]


def wait_for_renewals(client: redis.Redis, number: int) -> None:
    """Wait until the lease of shard 0 was renewed so often."""
    left = [client.pttl(Keys("mybot").shard(0).lease)]

    def is_renewed() -> bool:
        left.append(client.pttl(Keys("mybot").shard(0).lease))
        return sum(later > earlier for earlier, later in pairwise(left)) >= number

    wait_until(is_renewed, PATIENCE)
