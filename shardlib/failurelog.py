"""FailureLog: what the log tells of what fails again and again, so that nothing floods it."""

from __future__ import annotations

import time
from collections.abc import Callable

# Failures of one source that are logged in full, and seconds between the lines about later ones.
IN_FULL = 3
SUMMARY_INTERVAL = 60.0

# Functions whose failures are counted. A program may make new functions all the time; at this
# number all counts are forgotten.
_MOST_FUNCTIONS = 1000


class _Failures:
    """The failures of one function."""

    def __init__(self) -> None:
        self.count = 0
        self._since_summary = 0
        self._next_summary = 0.0

    def add(self, now: float) -> int:
        """Count one failure.

        :returns: how many failures the log should tell of now, 0 for none.
        """
        self.count += 1
        self._since_summary += 1
        if self.count > IN_FULL and now < self._next_summary:
            return 0
        self._next_summary = now + SUMMARY_INTERVAL
        count, self._since_summary = self._since_summary, 0
        return count


class FailureLog:
    """Decides what the log tells of a failure.

    Needs no lock: of failures on several threads at the same moment, one may go uncounted.

    :param clock: returns seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By id(), since a function of the user's may not be hashable; with the source, since the
        # number could become another one's.
        self._sources: dict[int, tuple[object, _Failures]] = {}

    def add(self, source: object) -> tuple[int, bool]:
        """Count a failure.

        :param source: the function that failed, or the type of error that a message brings about.
        :returns: how many failures the log should tell of now, 0 for none; and whether with the
            traceback.
        """
        if len(self._sources) >= _MOST_FUNCTIONS:
            self._sources.clear()
        _, failures = self._sources.setdefault(id(source), (source, _Failures()))
        count = failures.add(self._clock())
        return count, failures.count <= IN_FULL
