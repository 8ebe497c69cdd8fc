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
        self._ended: Alarm | None = None  # rung by the last thread when it ends

    def start(self) -> None:
        """Begin, unless it has begun. Only one thread may call this and :meth:`stop` at a time."""
        if self._alarm is None:
            alarm, ended = self._alarm, self._ended = Alarm(), Alarm()
            thread = threading.Thread(
                target=self._run, args=(alarm, ended), name=self._name, daemon=True
            )
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
        # Not by Thread.join(): the thread may not have been started yet, see run_uninterrupted().
        if self._ended is not None:
            self._ended.wait(timeout)

    def _run(self, alarm: Alarm, ended: Alarm) -> None:
        try:
            while not alarm.wait(self._interval):
                try:
                    self._function()
                except FleetError:
                    pass
        finally:
            ended.ring()
