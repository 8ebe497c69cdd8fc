"""The limits of the Gateway (SendWindow, IdentifyGate), and Backoff."""

from __future__ import annotations

import bisect
import os
import signal
import sys
from collections.abc import Callable
from decimal import Decimal
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardlib import Shard, limits
from shardlib.backoff import Backoff
from shardlib.errors import ShardClosed
from shardlib.limits import IdentifyGate, SendWindow, default_gate
from shardlib.liveness import Evidence, Liveness
from tests.support import Clock

steps = st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=80)


def most_in_any(period: float, times: list[float]) -> int:
    # The period is half open: a send exactly one period ago no longer counts.
    return max(sum(start <= time < start + period for time in times) for start in times)


def granted(window: SendWindow, now: float) -> int:
    """Send as many payloads as the window allows at a moment; return how many."""
    count = 0
    while window.wait(now) == 0.0:
        window.record(now)
        count += 1
    return count


@given(steps=steps, ahead=st.integers(0, 3))
def test_no_period_ever_holds_more_sends_than_the_limit(steps: list[float], ahead: int) -> None:
    window = SendWindow(limit=7, period=60.0)
    now = 1000.0
    times = [now] * ahead
    for _ in times:
        window.record(now)  # a send that did not ask counts as well
    for step in steps:
        now += step
        if window.wait(now) == 0.0:
            window.record(now)
            times.append(now)
    assert not times or most_in_any(60.0, times) <= 7


@given(
    interval=st.floats(600, 120_000),
    pace=st.none() | st.floats(100, 120_000),
    late=st.lists(st.floats(0, 2), min_size=1),
    steps=steps,
)
@example(interval=20_020.0, pace=None, late=[0.15, 0.0, 0.0], steps=[0.2, 30.0, 30.0])
def test_no_minute_has_more_than_120_sends_with_scheduled_heartbeats(
    interval: float, pace: float | None, late: list[float], steps: list[float]
) -> None:
    """Heartbeats are sent when they are due; other payloads use all the room that is left."""
    window = SendWindow()
    liveness = Liveness(interval, 0.0, 0.0)
    window.reserve_heartbeats(liveness.least_interval)
    if pace is not None:
        liveness.change_pace(pace, 0.0)
    times: list[float] = []
    now = 0.0
    for number, step in enumerate(steps * 3):
        now += step
        while (beat := liveness.next_due() + late[number % len(late)]) <= now:
            liveness.due(beat)
            if guaranteed := liveness.is_guaranteed(beat):
                times.append(beat)
            elif window.wait(beat) == 0.0:
                window.record(beat)
                times.append(beat)
            liveness.send_scheduled(beat, Evidence(0, 0.0, True), guaranteed=guaranteed)
        times.extend([now] * granted(window, now))
    times.sort()
    for start, time in enumerate(times):
        assert bisect.bisect_left(times, time + 60.0) - start <= 120


@given(steps=steps)
@example(steps=[0.0, 0.0, 0.0, 0.0, 30.0, 1.5, 0.5, 0.0, 2.0, 28.0])  # a wait of 0.0000000000002
def test_a_full_send_window_tells_exactly_how_long_to_wait(steps: list[float]) -> None:
    window = SendWindow(limit=3, period=60.0)
    now = 1000.0
    for step in steps:
        now += step
        wait = window.wait(now)
        if wait > 1e-6:  # less is lost where the clock is rounded
            assert window.wait(now + wait * 0.99) > 0.0
            now += wait + 1e-6
            assert window.wait(now) == 0.0
        window.record(now)


def test_sends_beyond_the_limit_lengthen_the_wait() -> None:
    """A window with more sends than its limit waits until enough of them are a period old."""
    window = SendWindow(limit=5)
    for now in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0):
        window.record(now)
    assert window.wait(10.0) == 56.0  # the room is 2: the sixth send must be a period old
    assert window.wait(66.0) == 0.0


def test_asking_the_send_window_takes_no_room() -> None:
    window = SendWindow(limit=1)
    assert [window.wait(0.0) for _ in range(3)] == [0.0] * 3


@pytest.mark.parametrize(
    "interval, room",
    [
        (41_250, 118),
        (60_000, 118),
        (60_001, 119),
        (3_600_000, 119),
        (10_000, 113),
        (1000, 59),
        (510, 2),
        (500, 60),  # such a gateway cannot count its own heartbeats
        (1, 60),
        (5e-324, 60),
    ],
)
def test_the_send_window_keeps_room_for_the_heartbeats_of_a_period(
    interval: float, room: int
) -> None:
    window = SendWindow()
    assert granted(window, 0.0) == 117  # Identify, and the first heartbeats, have room as well
    window.reserve_heartbeats(interval)
    assert granted(window, 60.0) == room


def test_heartbeats_sent_before_a_slower_pace_still_count() -> None:
    """A second Hello frees room at once, but heartbeats of the last minute still use theirs."""
    window = SendWindow()
    window.reserve_heartbeats(520)
    for number in range(16):
        window.record(number * 0.52, heartbeat=True)
    window.reserve_heartbeats(60_000)
    assert granted(window, 9.0) == 120 - 16


def test_a_second_hello_changes_the_room_kept_for_heartbeats() -> None:
    window = SendWindow()
    window.reserve_heartbeats(1000)
    window.reserve_heartbeats(41_250)
    assert granted(window, 0.0) == 118


@given(steps=steps, shards=st.lists(st.integers(0, 9), min_size=1), concurrency=st.integers(1, 4))
def test_no_rate_limit_key_identifies_more_often_than_documented(
    steps: list[float], shards: list[int], concurrency: int
) -> None:
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


def test_each_rate_limit_key_of_an_identify_gate_has_its_own_slot() -> None:
    clock = Clock()
    gate = IdentifyGate(max_concurrency=2, clock=clock)
    assert gate.try_acquire(0) == 0.0
    assert gate.try_acquire(1) == 0.0
    assert gate.try_acquire(2) == 5.25
    clock.now += 3.0
    assert gate.try_acquire(2) == 2.25
    clock.now += 2.25
    assert gate.try_acquire(2) == 0.0


def test_identifies_of_one_key_are_sent_further_apart_than_they_may_arrive() -> None:
    """Of two, the second may arrive sooner after it was sent than the first."""
    for slack in (0, 0.25, 1.5):
        clock = Clock()
        gate = IdentifyGate(clock=clock, slack=slack)
        assert gate.try_acquire(0) == 0.0
        assert gate.try_acquire(0) == 5.0 + slack


def test_expected_wait_tells_when_the_slot_is_free_and_takes_none() -> None:
    clock = Clock()
    gate = IdentifyGate(2, clock=clock)
    assert gate.expected_wait(0) == gate.expected_wait(0) == 0.0
    assert gate.try_acquire(0) == 0.0
    assert gate.expected_wait(2) == 5.25
    assert gate.expected_wait(1) == 0.0
    clock.now += 5.0
    assert gate.expected_wait(2) == 0.25
    clock.now += 50.0
    assert gate.expected_wait(2) == 0.0
    assert gate.try_acquire(2) == 0.0


def starts(gate: IdentifyGate, clock: Clock) -> int:
    """Start as many sessions as the gate allows, one after the other; return how many."""
    count = 0
    try:
        while True:
            wait = gate.try_acquire(0)
            clock.now += wait
            count += wait == 0.0
    except ShardClosed:
        return count


def test_identifies_that_others_have_sent_count_for_a_day() -> None:
    clock = Clock()
    start = clock.now
    gate = IdentifyGate(1, 0.001, slack=0, clock=clock, used=940)
    clock.now += 3600.0
    assert starts(gate, clock) == 10
    assert gate.expected_wait(0) == start + 24 * 60 * 60 - clock.now
    clock.now = start + 24 * 60 * 60
    assert starts(gate, clock) == 940  # its own ten are younger


def test_more_identifies_than_the_budget_leave_none() -> None:
    clock = Clock()
    gate = IdentifyGate(clock=clock, used=10**12)
    with pytest.raises(ShardClosed, match="may start in 1440 minutes"):
        gate.try_acquire(0)


@pytest.mark.parametrize("sent", [0, 100])
def test_update_takes_what_discord_has_counted(sent: int) -> None:
    """Discord's number has in it what this gate let through."""
    clock = Clock()
    gate = IdentifyGate(clock=clock)
    for _ in range(sent):
        clock.now += gate.try_acquire(0) or 5.25
    gate.update(1, remaining=60, reset_after=3600.0)
    reset = clock.now + 3600
    assert starts(gate, clock) == 10
    with pytest.raises(ShardClosed, match="950 sessions"):
        gate.try_acquire(0)
    assert gate.expected_wait(0) == reset - clock.now
    clock.now = reset
    assert starts(gate, clock) == 950  # Discord counts anew


def test_a_bot_that_discord_allows_more_may_use_it() -> None:
    clock = Clock()
    gate = IdentifyGate(clock=clock)
    gate.update(1, remaining=2000, reset_after=80_000.0)
    reset = clock.now + 80_000
    assert starts(gate, clock) == 1950
    clock.now = reset
    assert starts(gate, clock) == 950


@pytest.mark.parametrize(
    "total, remaining, allowed",
    [(2000, 2000, 1900), (2000, 60, 0), (20, 20, 19), (100, 50, 45), (1000, 500, 450)],
)
def test_what_is_kept_back_goes_by_what_discord_allows_in_a_day(
    total: int, remaining: int, allowed: int
) -> None:
    """Discord answers 0 for reset_after before a day has begun, not when one has just ended."""
    clock = Clock()
    gate = IdentifyGate(clock=clock)
    gate.update(1, remaining, 0.0, total)
    reset = clock.now + 24 * 60 * 60
    assert starts(gate, clock) == allowed
    clock.now = reset
    assert starts(gate, clock) == total * 95 // 100


def test_the_error_tells_of_the_limit_that_discord_has_told() -> None:
    gate = IdentifyGate(clock=Clock())
    gate.update(1, 1, 60.0, 20)
    with pytest.raises(ShardClosed, match="19 sessions of the 20 that Discord allows in 24 hours"):
        gate.try_acquire(0)


def test_no_shard_identifies_sooner_after_update_has_given_it_another_key() -> None:
    clock = Clock()
    gate = IdentifyGate(2, clock=clock)
    assert gate.try_acquire(1) == 0.0
    gate.update(2, 1000, 0.0)
    assert gate.expected_wait(0) == 0.0
    gate.update(3, 1000, 0.0)
    assert [gate.try_acquire(shard) for shard in range(3)] == [5.25] * 3
    clock.now += 5.25
    assert [gate.try_acquire(shard) for shard in range(4)] == [0.0, 0.0, 0.0, 5.25]


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ((0, 1, 1.0), ValueError, "max_concurrency"),
        ((1, -1, 1.0), ValueError, "remaining"),
        ((1, 1, -1.0), ValueError, "reset_after"),
        ((1, 1, float("nan")), ValueError, "reset_after"),
        ((1.0, 1, 1.0), TypeError, "max_concurrency"),
        ((1, "1", 1.0), TypeError, "remaining"),
        ((1, 1, None), TypeError, "reset_after"),
        ((1, 1, 1.0, 0), ValueError, "total"),
        ((1, 1, 1.0, 20.0), TypeError, "total"),
    ],
)
def test_update_refuses_what_discord_cannot_say(
    arguments: Any, error: type[Exception], name: str
) -> None:
    gate = IdentifyGate()
    with pytest.raises(error, match=name):
        gate.update(*arguments)
    assert gate.try_acquire(0) == 0.0


def test_the_daily_limit_stops_before_discord_resets_the_token() -> None:
    clock = Clock()
    gate = IdentifyGate(clock=clock)
    start = clock.now
    for _ in range(950):
        assert gate.try_acquire(0) == 0.0
        clock.now += 5.25
    with pytest.raises(ShardClosed, match="950 sessions") as caught:
        gate.try_acquire(0)
    assert caught.value.code is None
    clock.now = start + 24 * 60 * 60 - 1
    with pytest.raises(ShardClosed, match="in 1 minute"):
        gate.try_acquire(0)
    clock.now += 1
    assert gate.try_acquire(0) == 0.0
    clock.now += 1
    with pytest.raises(ShardClosed):
        gate.try_acquire(0)


def test_each_token_has_one_identify_gate_in_the_process(token: str) -> None:
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
                # If the child waited for a lock for ever, the alarm would end it.
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
    """Make a call repeatedly, each time with a signal at the next line of the gates' code.

    :return: the number of lines, each interrupted once
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


@pytest.mark.parametrize("first", [False, True])
def test_a_signal_handler_may_use_the_identify_gate_it_interrupts(
    first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler or the interrupted call takes the slot; neither waits for the other.

    `first` is True if the thread that is interrupted calls the gate for the first time.
    """
    clock = Clock()
    gate = IdentifyGate(clock=clock)
    waits: list[float] = []

    def ask() -> None:
        waits.append(gate.try_acquire(0))

    def ask_anew() -> None:
        clock.now += 5.25
        waits.clear()
        if first:
            monkeypatch.setattr(limits, "_gates_thread", None)
        ask()
        assert waits.count(0.0) == 1
        assert len(waits) == 1 or max(waits) in (limits._INTERRUPTED_WAIT, 5.25)

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
        {"slack": -0.1},
        {"slack": float("inf")},
        {"used": -1},
    ],
)
def test_identify_gate_refuses_numbers_with_which_it_never_opens(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        IdentifyGate(**arguments)


@pytest.mark.parametrize("name", ["max_concurrency", "interval", "daily_limit", "slack", "used"])
@pytest.mark.parametrize("value", [None, "1", True, Decimal("nan")])
def test_identify_gate_refuses_arguments_that_are_no_numbers(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        IdentifyGate(**{name: value})


def test_the_first_backoff_delay_is_zero_and_the_next_grow_to_the_cap() -> None:
    backoff = Backoff(1.0, 60.0, random=lambda: 1.0)
    delays = [backoff.next_delay() for _ in range(9)]
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    backoff.reset()
    assert [backoff.next_delay() for _ in range(2)] == [0.0, 1.0]


def test_jitter_takes_at_most_half_of_a_backoff_delay() -> None:
    backoff = Backoff(3.0, 4.0, random=lambda: 0.0)
    assert [backoff.next_delay() for _ in range(4)] == [0.0, 1.5, 2.0, 2.0]


@given(
    base=st.floats(0.001, 100),
    factor=st.floats(1, 1000),
    random=st.floats(0, 1, exclude_max=True),
    attempts=st.integers(2, 3000),
)
def test_backoff_delays_stay_within_base_and_cap_after_thousands_of_failures(
    base: float, factor: float, random: float, attempts: int
) -> None:
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
def test_backoff_refuses_a_base_or_cap_out_of_range(base: float, cap: float) -> None:
    with pytest.raises(ValueError, match="base|cap"):
        Backoff(base, cap)


@pytest.mark.parametrize("name", ["base", "cap"])
@pytest.mark.parametrize("value", [None, "1", True, Decimal("nan")])
def test_backoff_refuses_arguments_that_are_no_numbers(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        Backoff(**{name: value})
