"""Keeper: a thread that renews what would expire while the user's function takes its time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from shardlib.fleet.errors import FleetError
from shardlib.interrupts import run_uninterrupted
from shardlib.waiting import Alarm


class Keeper:
    """Calls a function again and again on a daemon thread of its own.

    A function that raises :class:`FleetError` is called again: the thread that uses Redis for more
    than this meets the same error, and tells of it.

    :param function: to call.
    :param interval: seconds between two calls.
    :param name: of the thread.
    """

    def __init__(self, function: Callable[[], object], interval: float, name: str) -> None:
        self._function = function
        self._interval = interval
        self._name = name
        self._alarm: Alarm | None = None  # of the thread, which goes on until the alarm rings
        self._thread: threading.Thread | None = None  # the last one

    def start(self) -> None:
        """Begin, unless it has begun. Only one thread may call this and :meth:`stop` at a time."""
        if self._alarm is None:
            alarm = self._alarm = Alarm()
            thread = threading.Thread(target=self._run, args=(alarm,), name=self._name, daemon=True)
            self._thread = thread
            run_uninterrupted(thread.start)

    def stop(self) -> None:
        """Make no more calls; one that is under way goes on."""
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.ring()

    def join(self, timeout: float) -> None:
        """After :meth:`stop`, wait for the call that is under way.

        :param timeout: seconds.
        """
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self, alarm: Alarm) -> None:
        while not alarm.wait(self._interval):
            try:
                self._function()
            except FleetError:
                pass
