"""Callbacks: none of them, whatever it does, ends or blocks a thread of the shard."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from shardlib import Shard, ShardState, limits
from shardlib.frames import BINARY
from shardlib.testing import LocalGateway
from tests.recorder import dispatch_numbers
from tests.reliability.conftest import MakeGateway, WatchShard
from tests.reliability.support import StuckCallback, talk_on
from tests.support import AT_ONCE, NEVER, owner, wait_until

# The shard calls each at least once in a life with a heartbeat, an unreadable message and a loss.
CALLBACKS = (
    "on_socket_connected",
    "on_socket_raw_message",
    "on_socket_text",
    "on_socket_batch",
    "on_socket_ready",
    "on_socket_dispatch",
    "on_socket_heartbeat",
    "on_socket_error",
    "on_socket_state",
    "on_socket_disconnected",
    "on_socket_reconnected",
    "on_socket_closed",
    "a listener",
)


def _set(shard: Shard, name: str, function: Callable[..., object]) -> None:
    if name == "a listener":
        shard.on("TYPING_START")(function)
    else:
        setattr(shard, name, function)


def _live(gateway: LocalGateway, shard: Shard) -> None:
    """Have the shard live a life in which it calls every callback."""
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    shard.heartbeat()
    gateway.connections[-1].send_compressed("not JSON")
    dispatch_numbers(gateway, range(1))
    wait_until(lambda: shard.heartbeat_ping is not None and shard.stats.events["TYPING_START"])
    gateway.connections[-1].reset()
    wait_until(lambda: shard.stats.resumes == 1 and shard.state is ShardState.READY)
    shard.disconnect()


def _locks(shard: Shard) -> dict[str, Any]:
    """Return every lock that a shard has or shares, by name."""
    connection = shard._reader.connection
    locks: dict[str, Any] = {
        "lives": shard._lifecycle._lock,
        "this life": shard._lifecycle.life._lock,
        "listeners": shard._callbacks._lock,
        "the end of the connection": connection._failing,
        "inflater": owner(connection.inflate[BINARY])._lock,
        "identify gates": limits._gates_lock,
    }
    if connection._transport is not None:
        locks["socket"] = connection._transport._io_lock
        locks["whole frames"] = connection._transport._send_lock
    if shard._reader.heartbeat is not None:
        locks["heartbeat"] = shard._reader.heartbeat._lock
    return locks


@pytest.mark.parametrize("name", CALLBACKS)
def test_another_thread_can_take_every_lock_while_a_callback_runs(
    name: str, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 6: the shard holds no lock while it runs code of the user."""
    shard, recorder = watch_shard(gateway, connect=False)
    held: list[str] = []
    calls: list[str] = []

    def look() -> None:
        for lock_name, lock in _locks(shard).items():
            if lock.acquire(timeout=10):
                lock.release()
            else:
                held.append(lock_name)

    def callback(*_: Any) -> None:
        calls.append(name)
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    _set(shard, name, callback)
    _live(gateway, shard)

    assert calls
    assert held == []
    recorder.calls.clear()  # incomplete: another callback stood in place of the recorder's


class _Unprintable(Exception):
    """An exception whose str() and repr() raise."""

    def __str__(self) -> str:
        raise RuntimeError("no words for it")

    __repr__ = __str__


class _Raising:
    """A callback that is no function, and whose repr() raises."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *_: Any) -> None:
        self.calls += 1
        raise _Unprintable

    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


@pytest.mark.parametrize("name", CALLBACKS)
def test_an_unprintable_exception_of_a_callback_is_reported_once_and_ends_nothing(
    name: str, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 19: the life goes on as without it; on_socket_error is called once for each exception."""
    shard, recorder = watch_shard(gateway, connect=False)
    callback = _Raising()
    _set(shard, name, callback)

    _live(gateway, shard)

    assert callback.calls
    assert shard.stats.reconnects == shard.stats.resumes == 1
    told = [error for error in recorder.errors if isinstance(error, _Unprintable)]
    assert len(told) == (0 if name == "on_socket_error" else callback.calls)
    recorder.calls.clear()  # incomplete: another callback stood in place of the recorder's


@pytest.mark.parametrize(
    "name", ["on_socket_disconnected", "on_socket_reconnected", "on_socket_closed"]
)
def test_disconnect_and_connect_inside_the_callbacks_of_a_loss_begin_a_new_life(
    name: str, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 3: both calls return within a second, and the shard becomes READY again."""
    shard, recorder = watch_shard(gateway)
    seconds: list[float] = []
    connections: list[int] = []

    def again(*_: Any) -> None:
        if not seconds:
            began = time.monotonic()
            connections.append(shard.stats.connections)
            shard.disconnect()
            shard.connect(gateway.url)
            seconds.append(time.monotonic() - began)

    _set(shard, name, again)
    gateway.connections[-1].close(4004 if name == "on_socket_closed" else 4000)

    wait_until(lambda: seconds)
    wait_until(lambda: shard.stats.connections > connections[0])
    shard.wait_until_ready(10)
    assert seconds[0] < AT_ONCE
    assert recorder.errors == []
    assert gateway.connections[-1].session is not None
    shard.disconnect()
    recorder.calls.clear()  # incomplete: another callback stood in place of the recorder's


def test_disconnect_in_a_log_filter_called_for_a_slow_callback_returns(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 3: the filter runs on the thread that warns, which cannot wait for its own end."""
    release = threading.Event()
    outcome: list[BaseException | None] = []

    def close(record: logging.LogRecord) -> bool:
        if "wait_for_release has been running for" in record.getMessage():
            release.set()
            try:
                shard.disconnect()
            except BaseException as error:
                outcome.append(error)
            else:
                outcome.append(None)
        return True

    logger = logging.getLogger("tests.closing")
    logger.addFilter(close)
    shard, recorder = watch_shard(gateway, logger=logger, slow_callback=0.5, close_timeout=NEVER)

    @shard.on("TYPING_START")
    def wait_for_release(shard: Shard, data: Any) -> None:
        release.wait(10)

    dispatch_numbers(gateway, range(1))

    wait_until(lambda: outcome, 15, "the return of disconnect(), before its close_timeout")
    logger.removeFilter(close)
    assert outcome == [None]
    assert recorder.life[-2:] == [("disconnected", 1000, True), ("closed", None)]


def test_disconnect_inside_a_callback_does_not_wait_for_a_peer_that_keeps_talking(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 8: the reader waits for the peer's close frame; events do not prolong the wait."""
    gateway = make_gateway()
    gateway.inject(talk_on, instead_of="close")
    shard, recorder = watch_shard(gateway, close_timeout=0.5)
    shard.on("TYPING_START")(lambda shard, data: shard.disconnect())

    dispatch_numbers(gateway, range(1))

    # Not join(), which itself waits for close_timeout at most.
    wait_until(lambda: recorder.life[-1] == ("closed", None))


def test_events_that_wait_for_a_callback_are_not_read_into_memory(
    stuck: StuckCallback, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 2: they stay in the buffers of TCP, so a flood slows the sender down."""
    shard, recorder = watch_shard(gateway, compression=None)
    shard.heartbeat_in(200)  # not by Hello: a busy machine may be slow to acknowledge
    connection = gateway.connections[-1]
    shard.on("SLOW")(stuck)
    gateway.sessions[0].dispatch("SLOW", None)
    assert stuck.entered.wait(10)
    before = shard.stats.bytes_received
    for _ in range(64):
        gateway.sessions[0].dispatch("LARGE", "x" * 500_000)
    beats = len(connection.received)
    wait_until(lambda: len(connection.received) >= beats + 3, what="three heartbeats")
    kept = shard.stats.bytes_received - before
    stuck.release.set()
    wait_until(lambda: shard.stats.events["LARGE"] == 64, what="the events")

    assert kept < 1_000_000
    assert len(gateway.all_connections) == 1
