"""FailureLog: what the log says of a callback that fails again and again."""

from __future__ import annotations

import pytest

from shardlib.failurelog import IN_FULL, SUMMARY_INTERVAL, FailureLog
from tests.support import Clock


def fail() -> None: ...


def fail_too() -> None: ...


@pytest.mark.parametrize(
    "times, told",
    [
        ([0.0], [(1, True)]),
        ([0.0, 0.0, 0.0], [(1, True)] * 3),
        ([0.0, 0.0, 0.0, 0.0, 1.0, 59.9], [(1, True)] * 3 + [(0, False)] * 3),
        ([0.0, 0.0, 0.0, 1.0, 60.0], [(1, True)] * 3 + [(0, False), (2, False)]),
        (
            [0.0, 0.0, 0.0, 60.0, 61.0, 119.0, 120.0],
            [(1, True)] * 3 + [(1, False), (0, False), (0, False), (3, False)],
        ),
        ([0.0, 0.0, 0.0, 86400.0], [(1, True)] * 3 + [(1, False)]),
        ([0.0, 3600.0, 7200.0, 7200.0], [(1, True)] * 3 + [(0, False)]),
    ],
)
def test_three_failures_are_logged_in_full_and_then_one_line_a_minute(
    times: list[float], told: list[tuple[int, bool]]
) -> None:
    assert (IN_FULL, SUMMARY_INTERVAL) == (3, 60.0)
    clock = Clock()
    start = clock.now
    log = FailureLog(clock)
    found = []
    for time in times:
        clock.now = start + time
        found.append(log.add(fail))
    assert found == told


def test_the_lines_of_the_log_together_count_every_failure() -> None:
    """Only the failures since the last line are not counted yet."""
    clock = Clock()
    log = FailureLog(clock)
    total = lines = 0
    for _ in range(10_000):
        count, _ = log.add(fail)
        total += count
        lines += count > 0
        clock.now += 0.1
    assert 10_000 - 600 <= total <= 10_000
    assert lines == IN_FULL + 16


def test_each_function_has_its_own_count_of_failures() -> None:
    log = FailureLog(Clock())
    for _ in range(4):
        log.add(fail)
    assert log.add(fail_too) == (1, True)
    assert log.add(fail) == (0, False)


def test_the_oldest_failing_functions_are_forgotten() -> None:
    """Otherwise ever new functions that fail would fill the memory."""
    log = FailureLog(Clock())
    for _ in range(4):
        log.add(fail)
    functions = [lambda: None for _ in range(3000)]
    assert all(log.add(function) == (1, True) for function in functions)
    assert log.add(fail) == (1, True)


def test_a_new_function_at_a_reused_address_has_its_own_count() -> None:
    """The log finds functions by id(), and keeps them so that no other gets the same id."""
    log = FailureLog(Clock())
    for _ in range(IN_FULL):
        log.add(object())
        assert log.add(object()) == (1, True)
