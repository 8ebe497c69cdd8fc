"""Alarm and Waiters: waits end at once, miss no notification, and can be interrupted anywhere."""

from __future__ import annotations

import signal
import threading
import time
from functools import partial

import pytest

from shardlib.deadline import Deadline
from shardlib.waiting import Alarm, Waiters
from tests.support import Thread


def test_an_alarm_that_has_rung_ends_the_next_wait_once() -> None:
    alarm = Alarm()
    for _ in range(3):
        alarm.ring()
    assert alarm.wait(10)
    assert not alarm.wait(0.001)


def test_an_alarm_ends_the_wait_that_is_under_way() -> None:
    alarm = Alarm()
    waiting = Thread(lambda: alarm.wait(None))
    alarm.ring()
    assert waiting.finish() is True


@pytest.mark.parametrize("timeout", [0.0, 0.01])
def test_the_wait_for_an_alarm_ends_at_its_timeout(timeout: float) -> None:
    since = time.monotonic()
    assert not Alarm().wait(timeout)
    assert timeout <= time.monotonic() - since < 5


def test_a_timeout_longer_than_the_system_can_wait_is_accepted() -> None:
    alarm = Alarm()
    alarm.ring()
    assert alarm.wait(1e300)


def test_waiters_return_at_once_if_the_condition_holds() -> None:
    assert Waiters().wait(lambda: True, Deadline(0))


def test_waiters_return_false_at_the_deadline() -> None:
    assert not Waiters().wait(lambda: False, Deadline(0.01))


def test_every_waiter_looks_at_its_own_condition() -> None:
    waiters = Waiters()
    values: set[int] = set()

    def wait_for(number: int) -> bool:
        return waiters.wait(lambda: number in values, Deadline(10))

    threads = [Thread(partial(wait_for, number)) for number in range(8)]
    for number, thread in reversed(list(enumerate(threads))):
        values.add(number)
        waiters.notify()
        assert thread.finish() is True
        assert sum(other.is_alive() for other in threads) <= number


def test_a_change_just_before_the_wait_is_not_missed() -> None:
    """The waiter looks at the condition again after it has registered for notifications."""
    waiters = Waiters()
    looks = 0

    def changes_after_the_first_look() -> bool:
        nonlocal looks
        looks += 1
        return looks > 1

    assert waiters.wait(changes_after_the_first_look, Deadline(0))


def test_no_notification_is_lost_among_thousands() -> None:
    waiters = Waiters()
    count = 0

    def follow() -> int:
        seen = 0
        while seen < 5000:
            assert waiters.wait(lambda: count > seen, Deadline(10))
            seen = count
        return seen

    threads = [Thread(follow) for _ in range(3)]
    for _ in range(5000):
        count += 1
        waiters.notify()
    assert [thread.finish() for thread in threads] == [5000] * 3


def test_an_exception_of_a_condition_is_raised_by_the_wait_and_leaves_no_alarm() -> None:
    waiters = Waiters()
    looks = 0

    def fail_at_the_second_look() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:  # by now the waiter has an alarm
            raise LookupError("mine")
        return False

    with pytest.raises(LookupError):
        waiters.wait(fail_at_the_second_look, Deadline(None))
    assert waiters._alarms == {}


def press_ctrl_c_when(waiting: threading.Event) -> Thread:
    """Raise SIGINT on another thread; Python handles it on the main thread."""
    return Thread(lambda: waiting.wait(10) and signal.raise_signal(signal.SIGINT))


def test_ctrl_c_ends_a_wait_without_end_and_the_next_one_works() -> None:
    waiters = Waiters()
    waiting = threading.Event()
    pressing = press_ctrl_c_when(waiting)
    with pytest.raises(KeyboardInterrupt):
        waiters.wait(lambda: bool(waiting.set()), Deadline(None))
    pressing.finish()
    done: list[int] = []
    changing = Thread(lambda: (done.append(1), waiters.notify()))
    assert waiters.wait(lambda: bool(done), Deadline(10))
    changing.finish()


def test_a_signal_handler_may_notify_the_wait_that_it_has_interrupted() -> None:
    waiters = Waiters()
    handled, waiting = threading.Event(), threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: (handled.set(), waiters.notify()))
    try:
        pressing = press_ctrl_c_when(waiting)
        assert waiters.wait(lambda: bool(waiting.set()) or handled.is_set(), Deadline(10))
        pressing.finish()
    finally:
        signal.signal(signal.SIGINT, before)
