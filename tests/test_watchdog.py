"""The watchdog, with made-up calls: what it tells, what it counts, and who looks."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib.running import Running
from shardlib.waiting import Alarm
from shardlib.watchdog import Watchdog
from tests.support import NEVER, Thread, wait_until

FOREVER = 1000.0  # seconds


class Log:
    """Keeps the lines that a watchdog writes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, level: int, message: str, *arguments: Any) -> None:
        self.lines.append(message % arguments)


class Caller:
    """A thread of its own that a watchdog watches over, and a function that is stuck there."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.running: Running = watchdog.add("the events behind it wait", lambda *_: False)
        self._function = self._stuck  # one object, as a shard keeps it
        self._entered = threading.Event()
        self._release = threading.Event()
        self._thread: Thread | None = None

    def _stuck(self) -> None:
        self._entered.set()
        self._release.wait(20)

    def begin(self) -> None:
        """Call the function; return when the thread is inside."""

        def run() -> None:
            self.running.use_this_thread()
            self.running.call(self._function, self._function, (), "TYPING_START", "TYPING_START")

        self._entered.clear()
        self._release.clear()
        self._thread = Thread(run)
        assert self._entered.wait(10)

    def end(self) -> None:
        """Let the function return."""
        self._release.set()
        if self._thread is not None:
            self._thread.finish()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a watchdog waits until a report is written, however busy the machine is."""
    monkeypatch.setattr("shardlib.watchdog._TIME_TO_END", NEVER)


def make(limit: float | None) -> tuple[Watchdog, Log]:
    log = Log()
    return Watchdog(limit, log=log, thread_prefix="shard-0"), log


@pytest.fixture
def call_on() -> Iterator[Callable[[Watchdog], Caller]]:
    callers: list[Caller] = []

    def call(watchdog: Watchdog) -> Caller:
        callers.append(Caller(watchdog))
        return callers[-1]

    yield call
    for caller in callers:
        caller.end()


MakeCaller = Callable[[Watchdog], Caller]


def test_a_call_below_the_limit_is_not_told_and_looked_at_again_when_it_reaches_it(
    call_on: MakeCaller,
) -> None:
    watchdog, log = make(FOREVER)
    caller = call_on(watchdog)
    caller.begin()
    assert FOREVER / 2 < watchdog.look() < FOREVER
    caller.end()
    watchdog.end()
    assert log.lines == []


def test_a_call_on_any_thread_is_told_with_what_waits_for_it(call_on: MakeCaller) -> None:
    watchdog, log = make(1e-9)
    caller = call_on(watchdog)
    caller.begin()
    watchdog.look()
    watchdog.look()
    watchdog.end()
    (line,) = log.lines
    assert line.startswith("the callback Caller._stuck has been running for ")
    assert " on TYPING_START, and the events behind it wait; " in line
    caller.end()
    assert log.lines[1].startswith("the callback Caller._stuck has returned after ")


def test_without_a_limit_nothing_is_looked_at(call_on: MakeCaller) -> None:
    watchdog, log = make(None)
    watchdog.begin()
    caller = call_on(watchdog)
    caller.begin()
    assert watchdog.look() == math.inf
    watchdog.judge(caller.running)
    watchdog.end()
    assert len(log.lines) == 1  # an unanswered heartbeat tells of it all the same


def test_a_function_that_is_always_slow_is_told_three_times_and_then_once_a_minute(
    call_on: MakeCaller,
) -> None:
    watchdog, log = make(1e-9)
    caller = call_on(watchdog)
    for _ in range(6):
        caller.begin()
        watchdog.look()
        watchdog.end()  # the report has been written
        caller.end()
    assert ["has returned" in line for line in log.lines] == [False, True] * 3


def test_the_thread_that_looks_may_rest_until_the_next_call_rings(call_on: MakeCaller) -> None:
    watchdog, _ = make(FOREVER)
    caller = call_on(watchdog)
    alarm = Alarm()
    watchdog.attach(alarm)
    watchdog.begin()
    watchdog.look()
    assert watchdog.look() == math.inf
    assert not alarm.wait(0)
    caller.begin()
    assert alarm.wait(0)
    assert watchdog.look() < FOREVER
    caller.end()
    assert watchdog.look() == FOREVER  # another call may have begun and ended since
    assert watchdog.look() == math.inf
    watchdog.end()


def test_a_call_that_has_been_told_lets_the_thread_that_looks_rest(call_on: MakeCaller) -> None:
    watchdog, _ = make(1e-9)
    call_on(watchdog).begin()
    watchdog.look()
    watchdog.look()
    assert watchdog.look() == math.inf
    watchdog.end()


def standing_in() -> bool:
    return any(thread.name == "shard-0-watchdog" for thread in threading.enumerate())


def test_a_thread_stands_in_from_a_call_until_another_thread_looks(call_on: MakeCaller) -> None:
    watchdog, _ = make(FOREVER)
    watchdog.begin()
    caller = call_on(watchdog)
    assert not standing_in()
    caller.begin()
    assert standing_in()
    watchdog.attach(Alarm())
    wait_until(lambda: not standing_in())
    caller.end()
    watchdog.end()


def test_a_thread_stands_in_if_the_one_that_looks_ends_during_a_call(call_on: MakeCaller) -> None:
    watchdog, log = make(0.05)
    watchdog.begin()
    alarm = Alarm()
    watchdog.attach(alarm)
    caller = call_on(watchdog)
    caller.begin()
    assert log.lines == []
    watchdog.detach(alarm)
    wait_until(lambda: log.lines)
    wait_until(lambda: not standing_in())  # nothing else is to be told
    caller.end()
    watchdog.end()


def test_a_thread_that_stands_in_ends_with_the_life(call_on: MakeCaller) -> None:
    watchdog, _ = make(FOREVER)
    watchdog.begin()
    caller = call_on(watchdog)
    caller.begin()
    assert standing_in()
    watchdog.end()
    assert not standing_in()
    caller.end()
    caller.begin()
    assert not standing_in()


def test_the_calls_of_all_threads_are_counted_together(call_on: MakeCaller) -> None:
    watchdog, _ = make(None)
    callers = [call_on(watchdog), call_on(watchdog)]
    for caller, seconds in zip(callers, (0.05, 0.01), strict=True):
        caller.begin()
        wait_until(lambda: caller.running.seconds > seconds)
        caller.end()
    callers[0].running.call("a handler", dict, (), "a handler", None)
    calls = watchdog.calls()
    count, total, longest = calls["TYPING_START"]
    assert count == 2
    assert longest == max(caller.running.calls["TYPING_START"].longest for caller in callers)
    assert 0.05 < longest < total < watchdog.seconds
    assert calls["a handler"][0] == 1
