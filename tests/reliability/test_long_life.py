"""A program that runs for months: each reconnect gives back what it has used."""

from __future__ import annotations

import gc
import json
import logging
import os
import sysconfig
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from shardlib import Shard, reader
from shardlib.connection import Connection
from shardlib.testing import LocalGateway
from tests.reliability.conftest import WatchShard
from tests.reliability.support import Child
from tests.support import wait_until

RECONNECTS = 2000

# Prints what the process holds after some reconnects, and after many more, each as a line of JSON.
PROGRAM = """
import gc, json, tracemalloc
from shardlib import Backoff
from shardlib.connection import Connection

depths = set()

def depth(*_):
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    depths.add(count)

shard = make(backoff=Backoff(base=0.001, cap=0.001))
shard.on("RESUMED")(depth)
shard.connect(sys.argv[1])
shard.wait_until_ready()
done = 0
tracemalloc.start()
for goal in map(int, sys.argv[2:]):
    while done < goal:
        shard.reconnect()
        shard.wait_until_ready()
        done += 1
    deadline = time.monotonic() + 10
    while threading.active_count() > 3 and time.monotonic() < deadline:
        time.sleep(0.001)  # the heartbeat thread of the last connection is about to end
    gc.collect()
    gc.collect()  # without a GIL the first call may leave objects to the threads that own them
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    tell(json.dumps({
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "connections": sum(isinstance(each, Connection) for each in gc.get_objects()),
        "traced": tracemalloc.get_traced_memory()[0],
        "resident": resident,
        "depths": sorted(depths),
    }))
shard.disconnect(4000)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc")
@pytest.mark.timeout(600)
def test_two_thousand_reconnects_use_up_no_thread_descriptor_or_memory(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 44: nor do connections or frames of the stack pile up.

    A ResourceWarning would be an error in the program, and so a line on its standard error.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # memory of coverage grows
    with Child(PROGRAM, gateway.url, "200", str(RECONNECTS), patience=500) as child:
        assert child.wait(500) == 0
        early, late = map(json.loads, child.lines)
        assert child.stderr == ""

    assert late["threads"] == early["threads"] == 3
    assert late["descriptors"] == early["descriptors"]
    # A connection that is freed frees its socket, inflater, heartbeat and buffers.
    assert late["connections"] == early["connections"] == 1
    # 50 bytes for each reconnect; without a GIL some objects wait for their thread, which makes the
    # sum go up and down by a quarter of a megabyte, however many reconnects there are.
    bound = 600_000 if sysconfig.get_config_var("Py_GIL_DISABLED") else 100_000
    assert late["traced"] - early["traced"] < bound
    assert late["resident"] - early["resident"] < 4_000_000
    assert len(late["depths"]) == 1
    assert gateway.sessions[0].resumes == RECONNECTS


# Keeps no record: a record of an error holds its traceback, and that holds the connection.
QUIET = logging.Logger("quiet", logging.CRITICAL)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Connection]]:
    """Weak references to the connections that shards make, oldest first."""
    connections: list[weakref.ref[Connection]] = []

    class Watched(Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            connections.append(weakref.ref(self))

    monkeypatch.setattr(reader, "Connection", Watched)
    return connections


def _wait_until_only_the_last_is_left(connections: list[weakref.ref[Connection]]) -> None:
    def left() -> list[int]:
        return [number for number, each in enumerate(connections) if each() is not None]

    wait_until(lambda: left() == [len(connections) - 1], what="the end of all but the last")


def _refuse_the_next_handshake(gateway: LocalGateway) -> None:
    gateway.inject(lambda connection: connection.refuse(502), instead_of="upgrade")
    gateway.connections[-1].reset()


def _refuse_connections(shard: Shard, gateway: LocalGateway) -> None:
    before = shard._lifecycle.life.ends
    gateway.outage()
    wait_until(lambda: (ends := shard._lifecycle.life.ends) is not before and "refused" in ends[-1])
    gateway.restore()


BROKEN = b"\xff" * 8 + b"\0\0\xff\xff"  # no block of a zlib stream begins like this
ENDS: dict[str, Callable[[Shard, LocalGateway], object]] = {
    "reconnect()": lambda shard, _: shard.reconnect(),
    "a close frame": lambda _, gateway: gateway.connections[-1].close(4000),
    "a reset": lambda _, gateway: gateway.connections[-1].reset(),
    "a broken stream": lambda _, gateway: gateway.connections[-1].send_frame(2, BROKEN),
    "a connection refused": _refuse_connections,
    "a handshake refused": lambda _, gateway: _refuse_the_next_handshake(gateway),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_connection_that_has_ended_is_freed_without_the_garbage_collector(
    end: str,
    gateway: LocalGateway,
    watch_shard: WatchShard,
    connections: list[weakref.ref[Connection]],
) -> None:
    """Row 44: each holds some 50 kB, and the collector may not run for a long time."""
    shard, _ = watch_shard(gateway, logger=QUIET)
    shard.on_socket_error = None  # the recorder would keep the errors
    gc.disable()
    try:
        for reconnects in range(1, 4):
            ENDS[end](shard, gateway)
            wait_until(lambda: shard.stats.reconnects == reconnects)
            shard.wait_until_ready(10)  # which comes after the count; before it reconnect() is idle
        _wait_until_only_the_last_is_left(connections)
    finally:
        gc.enable()


def test_a_life_that_has_ended_is_freed_without_the_garbage_collector(
    gateway: LocalGateway, watch_shard: WatchShard, connections: list[weakref.ref[Connection]]
) -> None:
    """Row 44: even if no method has raised the error that ended the life."""
    shard, _ = watch_shard(gateway, logger=QUIET)
    shard.on_socket_closed = None  # the recorder would keep the error
    gc.disable()
    try:
        for _ in range(3):
            gateway.connections[-1].close(4010)
            wait_until(lambda: shard.socket_thread is None)
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
        _wait_until_only_the_last_is_left(connections)
    finally:
        gc.enable()
