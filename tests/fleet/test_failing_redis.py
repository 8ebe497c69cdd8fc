"""A Redis that answers, but not what a fleet needs: for a while, and then again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from shardlib.fleet import FleetEvent
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
from tests.support import Thread, not_none, wait_until

resource = pytest.importorskip("resource", reason="Windows limits no files")

PATIENCE = 60.0


@pytest.fixture
def server(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    """With appendfsync always, Redis ends itself when its disk is full."""
    options = ("--appendfsync", "everysec")
    with RedisServer(redis_program, tmp_path / "redis", *options) as server:
        yield server


@contextlib.contextmanager
def full_disk(server: RedisServer) -> Iterator[None]:
    server.limit_files(server.size_of_log() + 10)
    try:
        yield
    finally:
        server.limit_files(resource.RLIM_INFINITY)


@contextlib.contextmanager
def replica(server: RedisServer) -> Iterator[None]:
    client = server.client()
    client.replicaof(HOST, 1)
    try:
        yield
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def slow_script(server: RedisServer) -> Iterator[None]:
    client = server.client()
    client.config_set("lua-time-limit", 1)
    other = server.client()

    def run_endlessly() -> None:
        with pytest.raises(redis.ResponseError):  # the script is killed
            other.eval("while true do end", 0)

    def is_busy() -> bool:
        try:
            client.get("key")
        except redis.ResponseError as error:
            return "BUSY" in str(error)
        return False

    thread = Thread(run_endlessly)
    try:
        wait_until(is_busy)
        yield
    finally:
        client.script_kill()
        thread.finish()


@contextlib.contextmanager
def no_memory(server: RedisServer) -> Iterator[None]:
    client = server.client()
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@contextlib.contextmanager
def password(server: RedisServer) -> Iterator[None]:
    """Connections that are open stay as they are; so they are cut."""
    client = server.client()
    client.config_set("requirepass", "pa55word")
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    try:
        yield
    finally:
        client.config_set("requirepass", "")


@contextlib.contextmanager
def too_few_replicas(server: RedisServer) -> Iterator[None]:
    client = server.client()
    client.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        client.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize(
    "failing, words",
    [
        (full_disk, "disk is full"),
        (replica, "this Redis is a replica"),
        (slow_script, "script of another program"),
        (no_memory, "maxmemory"),
        (password, "wants one"),
        (too_few_replicas, "min-replicas-to-write"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_redis_refuses_for_longer_than_a_lease_costs_nothing(
    server: RedisServer,
    gateway: LocalGateway,
    caplog: pytest.LogCaptureFixture,
    failing: Callable[[RedisServer], contextlib.AbstractContextManager[None]],
    words: str,
) -> None:
    client = server.client()
    with make_fleet(server, lease=1.0) as fleet, running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        shards = worker.shards
        with failing(server):
            dispatch(gateway, 5)
            wait_until(lambda: words in caplog.text, PATIENCE)
            dispatch(gateway, 5)  # the first ones may be in the memory of Redis
            threading.Event().wait(2.5)  # the experiment: leases end meanwhile
            assert worker.stats.waiting >= 5 * SHARDS
        dispatch(gateway, 5)
        wait_for_all(client, gateway)
        assert worker.shards is shards  # none was lost, or closed
        assert len(gateway.identifies) == SHARDS
        assert gateway.all_sessions[0].resumes == 0
        assert "CRITICAL" not in {each.levelname for each in caplog.records}


@pytest.mark.parametrize(
    "failing",
    [full_disk, replica, slow_script, no_memory, too_few_replicas],
    ids=lambda each: each.__name__,
)
def test_a_consumer_waits_while_redis_refuses_and_loses_nothing(
    server: RedisServer,
    gateway: LocalGateway,
    failing: Callable[[RedisServer], contextlib.AbstractContextManager[None]],
) -> None:
    found: list[FleetEvent] = []
    with (
        make_fleet(server) as fleet,
        running(fleet, gateway) as worker,
        fleet.consumer("web") as consumer,
    ):
        wait_for_shards(worker, SHARDS)

        def has_all() -> bool:
            while (event := consumer.get(0.05)) is not None:
                found.append(event)
                consumer.ack(event)
            return len(found) == sum(session.sequence for session in gateway.all_sessions)

        wait_until(has_all, PATIENCE)
        dispatch(gateway, 1)
        event = not_none(consumer.get(PATIENCE))
        with failing(server):
            # Without memory Redis still lets a consumer read: it has to have something to write.
            found.append(event)
            consumer.ack(event)

            def is_away() -> bool:
                dispatch(gateway, 1)
                return has_all() is False and consumer.stats.outages > 0

            wait_until(is_away, PATIENCE)
        wait_until(has_all, PATIENCE)
        assert len({event.id for event in found}) == len(found)
