"""Deadline: one budget of time, carried through several waits."""

from __future__ import annotations

import time

# Seconds, 23 days: the system's waits take no more. Each wait is repeated until its deadline.
LONGEST_WAIT = 2_000_000.0

# Seconds, the longest single wait of the main thread, which handles signals; longer waits are made
# of several. On Windows no Ctrl-C ends a wait. Elsewhere, too, Python handles a signal only after
# the wait if the signal comes just as the wait begins, or if another thread receives it.
SIGNAL_POLL_INTERVAL = 0.5


class Deadline:
    """A moment on the monotonic clock by which something must be done.

    A timeout given to each of several waits in turn would add up, and a peer that sends a byte now
    and then could stretch them for ever. A deadline is made once and asked before each wait.

    :param timeout: seconds from now; None means that there is no end.
    """

    __slots__ = ("_end",)

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """The seconds left, never below 0 nor over LONGEST_WAIT; None if there is no end."""
        if self._end is None:
            return None
        return min(max(0.0, self._end - time.monotonic()), LONGEST_WAIT)

    def earlier(self, other: Deadline) -> Deadline:
        """The one of two deadlines that comes first."""
        if other._end is None or (self._end is not None and self._end <= other._end):
            return self
        return other
