"""Lives, each from connect() to on_socket_closed: calls for one life do not touch another."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from shardlib import (
    ConnectionFailed,
    Opcode,
    Shard,
    ShardClosed,
    ShardError,
    ShardingRequired,
    ShardState,
)
from tests.peers import Peer, well_behaved
from tests.reliability.conftest import MakeScripted, WatchShard
from tests.reliability.support import NotedBackoff, closing_with
from tests.support import AT_ONCE, NEVER, in_background, wait_until


def test_disconnect_does_not_end_the_life_that_on_socket_closed_begins(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 49: disconnect() waits for the end of its own life only."""
    gateway = make_scripted()
    shard, recorder = watch_shard(gateway, close_timeout=NEVER)
    note = shard.on_socket_closed

    def begin_anew(shard: Shard, error: Any) -> None:
        assert note is not None
        note(shard, error)
        if recorder.count("closed") == 1:
            shard.connect(gateway.url)

    shard.on_socket_closed = begin_anew

    began = time.monotonic()
    shard.disconnect()
    assert time.monotonic() - began < AT_ONCE

    wait_until(lambda: recorder.count("ready") == 2)
    shard.disconnect()
    assert [peer.close_code for peer in gateway.peers] == [1000, 1000]
    assert recorder.count("closed", None) == 2


def test_concurrent_connects_and_disconnects_abort_no_open_connection(
    make_scripted: MakeScripted, watch_shard: WatchShard, eager_threads: None
) -> None:
    """Row 49: each opened connection ends with a close frame, and each disconnect() is quick."""
    gateway = make_scripted()
    shard, recorder = watch_shard(gateway, close_timeout=NEVER, connect_timeout=10.0)
    slowest = 0.0

    def connect() -> None:
        with contextlib.suppress(ShardError):  # another thread was faster
            shard.connect(gateway.url)

    def disconnect() -> None:
        nonlocal slowest
        began = time.monotonic()
        shard.disconnect()
        slowest = max(slowest, time.monotonic() - began)

    def opened() -> list[Peer]:
        return [peer for peer in gateway.peers if peer.received]

    # How many connections are opened depends on how the threads happen to run.
    rounds = itertools.count()
    while (number := next(rounds)) < 60 or len(opened()) < 10:
        assert number < 600
        threads = [threading.Thread(target=each) for each in (disconnect, connect) * 2]
        for thread in threads if number % 2 else reversed(threads):
            thread.start()
        for thread in threads:
            thread.join()
        assert slowest < AT_ONCE
    shard.disconnect()
    recorder.calls.clear()  # the recorder takes a life without a connection for a fault

    wait_until(lambda: all(peer.close_code is not None for peer in opened()), 15, "close frames")


@pytest.mark.parametrize("beginner", ["another thread", "a callback"])
def test_a_wait_ends_with_its_life_though_the_next_one_begins_at_once(
    beginner: str, make_scripted: MakeScripted, watch_shard: WatchShard, eager_threads: None
) -> None:
    """Row 50: join() and wait_for() end with the life in which they were called."""
    gateway = make_scripted()
    shard, recorder = watch_shard(gateway)

    @shard.on("AGAIN")
    def again(shard: Shard, data: object) -> None:
        shard.disconnect()
        shard.connect(gateway.url)

    for number in range(1, 31):
        joining = in_background(shard.join)
        waiting = in_background(shard.wait_for, "NEVER")
        wait_until(lambda: len(shard._lifecycle._waiters._alarms) == 2, what="both waits")
        if beginner == "a callback":
            gateway.peers[-1].dispatch("AGAIN")
        else:
            shard.disconnect()
            shard.connect(gateway.url)

        assert joining.exception(10) is None
        assert type(waiting.exception(10)) is ShardClosed
        wait_until(lambda: recorder.count("ready") == number + 1)


def test_a_new_life_does_not_inherit_the_back_off_of_the_last(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 55: the pause after its first failure is short, even after six failures before it."""
    fail = closing_with(4000)

    def script(peer: Peer) -> None:
        if peer.number <= 7:
            fail(peer)
        else:
            well_behaved(peer)

    gateway = make_scripted(script)
    backoff = NotedBackoff(base=0.05, cap=60.0)
    shard, _ = watch_shard(gateway, ready=False, backoff=backoff)
    gateway.peer(6)
    wait_until(lambda: shard.state is ShardState.WAITING)
    shard.disconnect()
    backoff.delays.clear()

    shard.connect(gateway.url)

    gateway.peer(8)
    shard.wait_until_ready(10)
    assert max(backoff.delays) <= 0.05  # inherited, it would be 1.6 or longer


@pytest.mark.parametrize("where", ["on_socket_closed", "an event"])
@pytest.mark.parametrize("should_reconnect", [True, False])
def test_a_failed_first_attempt_of_connect_in_a_callback_is_retried_or_reported(
    should_reconnect: bool,
    where: str,
    make_scripted: MakeScripted,
    watch_shard: WatchShard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a callback connect() does not wait, so it cannot raise the error of the first attempt."""
    down = threading.Event()

    def script(peer: Peer) -> None:
        if not down.is_set():
            well_behaved(peer)

    gateway = make_scripted(script)
    shard, recorder = watch_shard(gateway, should_reconnect=should_reconnect)
    note = shard.on_socket_closed

    def closed(shard: Shard, error: Any) -> None:
        assert note is not None
        note(shard, error)
        if where == "on_socket_closed" and recorder.count("closed") == 1:
            down.set()
            shard.connect(gateway.url)

    shard.on_socket_closed = closed

    @shard.on("AGAIN")
    def begin_again(shard: Shard, data: object) -> None:
        down.set()
        shard.disconnect()
        shard.connect(gateway.url)

    if where == "an event":
        gateway.peers[0].dispatch("AGAIN")
    else:
        shard.disconnect()

    if should_reconnect:
        gateway.peer(4)
        down.clear()
        wait_until(lambda: recorder.count("ready") == 2)
        assert recorder.count("closed") == 1
        return
    wait_until(lambda: recorder.count("closed") == 2)
    assert recorder.life[-2] == ("closed", None)
    error = recorder.life[-1][1]
    assert isinstance(error, ConnectionFailed)
    [told] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert str(error) in told.getMessage()


def test_a_refused_reinstantiate_keeps_the_session(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """The refused call has begun no life, and the next connect() resumes."""
    gateway = make_scripted()
    shard, recorder = watch_shard(gateway)
    shard.disconnect(4000)
    session_id = shard.session_id
    assert session_id is not None
    other, _ = watch_shard(gateway)
    errors: list[Exception] = []

    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code.co_name == "wait" and "shardlib" in frame.f_code.co_filename and not errors:
            try:
                shard.reinstantiate()
            except ShardError as error:
                errors.append(error)

    sys.settrace(interrupt)  # calls reinstantiate() inside a wait, as a signal handler would
    try:
        with pytest.raises(TimeoutError):
            other.wait_for("NEVER", timeout=0.1)
    finally:
        sys.settrace(None)

    assert len(errors) == 1
    assert shard.session_id == session_id
    shard.connect(gateway.url)
    wait_until(lambda: recorder.count("reconnected", True) == 1)


def test_no_fail_of_reinstantiate_lasts_beyond_the_connection_that_it_replaces(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """RESUMED on the old connection does not end no_fail; two failed attempts follow."""

    def script(peer: Peer) -> None:
        if peer.number not in (3, 4):  # these connections end before the handshake
            well_behaved(peer)

    def ask(shard: Shard, payload: dict[str, Any]) -> None:
        if payload.get("t") == "RESUMED":
            shard.reinstantiate(no_fail=True)

    gateway = make_scripted(script)
    shard, recorder = watch_shard(gateway, should_reconnect=False)
    shard.disconnect(4000)
    shard.on_socket_raw_message = ask

    shard.connect(gateway.url)

    gateway.peer(5)
    wait_until(lambda: recorder.count("ready") == 2)
    opening = gateway.peers[4].opening
    assert opening is not None
    assert opening["op"] == Opcode.IDENTIFY


def test_waits_raise_the_fatal_close_code_before_the_callbacks_have_returned(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 11: no wait may raise ShardClosed as if the program had called disconnect()."""
    inside, release, go_on = threading.Event(), threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.begin()
        go_on.wait(10)
        peer.close(4011)
        peer.serve()

    shard, _ = watch_shard(make_scripted(script), ready=False)
    shard.on_socket_disconnected = lambda *_: (inside.set(), release.wait(10))
    go_on.set()
    assert inside.wait(10)
    try:
        with pytest.raises(ShardingRequired):
            shard.wait_until_ready(10)
        with pytest.raises(ShardingRequired):
            shard.wait_for("TYPING_START", timeout=5)
    finally:
        release.set()


def test_a_callback_of_one_shard_can_connect_and_disconnect_another(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """The callback may wait for the other shard, whose threads it does not hold up."""
    gateway = make_scripted()
    shard, _ = watch_shard(gateway)
    other, _ = watch_shard(gateway, connect=False)
    states: list[Any] = []

    def use_the_other(_: Shard, data: Any) -> None:
        other.connect(gateway.url)
        other.wait_until_ready(10)
        states.append(other.state)
        other.disconnect()
        states.append((other.state, other.socket_thread))

    shard.on("TYPING_START", use_the_other)
    gateway.peers[0].dispatch("TYPING_START")
    wait_until(lambda: len(states) == 2)
    assert states == [ShardState.READY, (ShardState.CLOSED, None)]
