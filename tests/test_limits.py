from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardlib import Shard, limits
from shardlib.errors import ShardClosed
from shardlib.limits import Backoff, IdentifyGate, SendWindow, default_gate, heartbeat_reserve
from tests.support import Clock

steps = st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=80)


def most_in_any(period: float, times: list[float]) -> int:
    # Half open: what happened exactly a period ago counts no longer.
    return max(sum(start <= time < start + period for time in times) for start in times)


@given(steps=steps, reserve=st.integers(0, 3), ahead=st.integers(0, 3))
def test_no_period_ever_holds_more_sends_than_the_limit(steps, reserve, ahead) -> None:
    clock = Clock()
    window = SendWindow(limit=7, period=60.0, clock=clock)
    window.reserve = reserve
    times = []
    for _ in range(ahead):
        window.record()
        times.append(clock.now)
    for step in steps:
        clock.now += step
        if window.try_acquire() == 0.0:
            times.append(clock.now)
    assert most_in_any(60.0, times) <= 7 - reserve or len(times) == ahead


@given(steps=steps)
@example(steps=[0.0, 0.0, 0.0, 0.0, 30.0, 1.5, 0.5, 0.0, 2.0, 28.0])  # a wait of 0.0000000000002
def test_a_full_window_says_exactly_how_long_to_wait(steps) -> None:
    clock = Clock()
    window = SendWindow(limit=3, period=60.0, clock=clock)
    for step in steps:
        clock.now += step
        wait = window.try_acquire()
        if wait > 1e-6:  # less is lost where the clock is rounded
            clock.now += wait * 0.99
            assert window.try_acquire() > 0.0
            clock.now += wait * 0.01 + 1e-6
            assert window.try_acquire() == 0.0


def test_the_reserve_is_kept_and_what_passes_ahead_counts() -> None:
    clock = Clock()
    window = SendWindow(limit=120, clock=clock)
    window.record()
    window.reserve = 4
    granted = 0
    while window.try_acquire() == 0.0:
        granted += 1
    assert granted == 120 - 4 - 1
    assert window.try_acquire() == 60.0


def test_a_window_counts_right_from_many_threads() -> None:
    window = SendWindow(limit=100, clock=Clock())
    granted = []

    def acquire() -> None:
        granted.extend(1 for _ in range(100) if window.try_acquire() == 0.0)

    threads = [threading.Thread(target=acquire) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 100


def test_the_reserve_covers_the_heartbeats_of_a_period() -> None:
    assert heartbeat_reserve(41250) == 4
    assert heartbeat_reserve(60000) == 3
    assert heartbeat_reserve(10) == 60


@given(steps=steps, shards=st.lists(st.integers(0, 9), min_size=1), concurrency=st.integers(1, 4))
def test_no_bucket_identifies_more_often_than_documented(steps, shards, concurrency) -> None:
    clock = Clock()
    gate = IdentifyGate(concurrency, 5.0, clock=clock)
    times: dict[int, list[float]] = {}
    for number, step in enumerate(steps):
        clock.now += step
        shard_id = shards[number % len(shards)]
        if gate.try_acquire(shard_id) == 0.0:
            times.setdefault(shard_id % concurrency, []).append(clock.now)
    for granted in times.values():
        assert most_in_any(5.0 - 1e-6, granted) == 1


def test_each_bucket_has_its_own_slot() -> None:
    clock = Clock()
    gate = IdentifyGate(max_concurrency=2, clock=clock)
    assert gate.try_acquire(0) == 0.0
    assert gate.try_acquire(1) == 0.0
    assert gate.try_acquire(2) == 5.0
    clock.now += 3.0
    assert gate.try_acquire(2) == 2.0
    clock.now += 2.0
    assert gate.try_acquire(2) == 0.0


def test_the_daily_budget_ends_before_discord_resets_the_token() -> None:
    clock = Clock()
    gate = IdentifyGate(clock=clock)
    start = clock.now
    for _ in range(950):
        assert gate.try_acquire(0) == 0.0
        clock.now += 5.0
    with pytest.raises(ShardClosed, match="950 sessions") as caught:
        gate.try_acquire(0)
    assert caught.value.code is None
    clock.now = start + 24 * 60 * 60 - 1
    with pytest.raises(ShardClosed, match="in 1 minutes"):
        gate.try_acquire(0)
    clock.now += 1
    assert gate.try_acquire(0) == 0.0
    clock.now += 1
    with pytest.raises(ShardClosed):
        gate.try_acquire(0)


def test_one_gate_serves_a_token_in_the_process(token: str) -> None:
    assert default_gate(token) is default_gate(token)
    assert default_gate(token) is not default_gate(token + "x")
    assert token not in repr(limits._default_gates)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_while_a_gate_is_in_use_can_use_it(token: str) -> None:
    gate = default_gate(token)
    with limits._gates_lock:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                # A lock held for ever would stop the child, not fail it; the signal ends it.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(10)
                default_gate(token)
                gate.try_acquire(0)
                status = 0
            finally:
                os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    gate.try_acquire(0)


def interrupt_at_each_line(call: Callable[[], object], handler: Callable[[], object]) -> int:
    """Make a call again and again, with a signal at one line more of the gates' code each time.

    :return: how many lines there were, each interrupted once
    """
    codes = [function.__code__ for function in (default_gate, IdentifyGate.try_acquire)]
    codes.append(limits._has_interrupted_itself.__code__)
    lines = interrupted = 0

    def trace_call(frame: FrameType, event: str, argument: object) -> Any:
        return trace_line if frame.f_code in codes else None

    def trace_line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            if lines == interrupted:
                signal.raise_signal(signal.SIGINT)
        return trace_line

    before, tracer = signal.signal(signal.SIGINT, lambda *_: handler()), sys.gettrace()
    try:
        while lines == interrupted:
            lines, interrupted = 0, interrupted + 1
            sys.settrace(trace_call)
            try:
                call()
            finally:
                sys.settrace(tracer)
            lines = min(lines, interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    return lines


def test_a_signal_handler_may_use_the_gate_that_it_has_interrupted() -> None:
    """The slot is taken once, by either of them, and neither of them waits for the other."""
    clock = Clock()
    gate = IdentifyGate(clock=clock)
    waits: list[float] = []

    def ask() -> None:
        waits.append(gate.try_acquire(0))

    def ask_anew() -> None:
        clock.now += 5.0
        waits.clear()
        ask()
        assert waits.count(0.0) == 1
        assert len(waits) == 1 or max(waits) in (limits._INTERRUPTED_WAIT, 5.0)

    assert interrupt_at_each_line(ask_anew, ask) > 10


def test_a_signal_handler_may_make_a_shard_while_one_is_made(token: str) -> None:
    gates: list[IdentifyGate] = []

    def make() -> None:
        Shard(token, 0)
        gates.append(default_gate(token))

    def make_anew() -> None:
        limits._default_gates.clear()
        gates.clear()
        make()
        assert len(set(gates)) == 1

    assert interrupt_at_each_line(make_anew, make) > 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_concurrency": 0},
        {"interval": 0},
        {"interval": float("nan")},
        {"interval": float("inf")},
        {"interval": 10**400},
        {"daily_limit": 0},
        {"daily_limit": 10**400},
    ],
)
def test_a_gate_that_could_never_open_is_refused(arguments) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        IdentifyGate(**arguments)


@pytest.mark.parametrize("name", ["max_concurrency", "interval", "daily_limit"])
@pytest.mark.parametrize("value", [None, "1", True, Decimal("nan")])
def test_a_gate_takes_numbers(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name):
        IdentifyGate(**{name: value})


def test_the_first_attempt_is_immediate_and_delays_grow_to_the_cap() -> None:
    backoff = Backoff(1.0, 60.0, random=lambda: 1.0)
    delays = [backoff.next_delay() for _ in range(9)]
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    backoff.reset()
    assert [backoff.next_delay() for _ in range(2)] == [0.0, 1.0]


def test_a_delay_is_at_least_half_of_what_it_may_be() -> None:
    backoff = Backoff(3.0, 4.0, random=lambda: 0.0)
    assert [backoff.next_delay() for _ in range(4)] == [0.0, 1.5, 2.0, 2.0]


@given(
    base=st.floats(0.001, 100),
    factor=st.floats(1, 1000),
    random=st.floats(0, 1, exclude_max=True),
    attempts=st.integers(2, 3000),
)
def test_delays_stay_within_bounds_however_long_it_fails(base, factor, random, attempts) -> None:
    backoff = Backoff(base, base * factor, random=lambda: random)
    delays = [backoff.next_delay() for _ in range(attempts)]
    assert delays[0] == 0.0
    assert all(base / 2 <= delay <= backoff.cap for delay in delays[1:])


@pytest.mark.parametrize(
    ("base", "cap"),
    [
        (0, 60),
        (-1, 60),
        (float("nan"), 60),
        (1, float("inf")),
        (1, float("nan")),
        (2, 1),
        (1, 10**400),
    ],
)
def test_a_backoff_without_sense_is_refused(base: float, cap: float) -> None:
    with pytest.raises(ValueError, match="base|cap"):
        Backoff(base, cap)


@pytest.mark.parametrize("name", ["base", "cap"])
@pytest.mark.parametrize("value", [None, "1", True, Decimal("nan")])
def test_a_backoff_takes_numbers(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=name):
        Backoff(**{name: value})
