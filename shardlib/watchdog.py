"""Watchdog: tells in the log which function of the user's has been running for too long.

The thread that looks never runs a function of the user's: another one writes the report, since a
log handler may be what stands still. While a heartbeat thread lives, that thread looks; it sleeps
until its next heartbeat if no function has been called for a while, and the next call wakes it. If
a callback is called while there is no heartbeat thread, another thread looks, until there is one,
or until nothing is called any more.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

from shardlib.deadline import Deadline
from shardlib.failurelog import SUMMARY_INTERVAL, FailureLog
from shardlib.running import Call, Callback, Running
from shardlib.text import count, name_of, printable
from shardlib.waiting import Alarm

# What a shard runs that waits on purpose, as the library calls it: it is slow for no fault.
AWAITED_SWITCH = "the wait for the shards before to deliver the rest"

# Seconds that the end of a life waits for threads that look, or write a report.
_TIME_TO_END = 1.0


class Watchdog:
    """Watches over the user's functions that a shard calls, on whichever thread.

    :param limit: seconds after which the log tells of a call; None looks at none.
    :param log: writes into the user's log, as ``logging.Logger.log`` does.
    :param thread_prefix: how the names of the threads begin.
    """

    def __init__(
        self, limit: float | None, *, log: Callable[..., object], thread_prefix: str
    ) -> None:
        self._limit = limit
        self._log = log
        self._thread_prefix = thread_prefix
        self._runnings: tuple[Running, ...] = ()
        self._slow_calls = FailureLog()
        # Guards what follows and _slow_calls. Reentrant: a signal handler may call a callback.
        self._lock = threading.RLock()
        self._in_life = False
        self._alarm: Alarm | None = None  # of the thread that looks
        self._threads: tuple[threading.Thread, ...] = ()  # reports, and the one that stands in

    # Any thread

    def add(
        self, meanwhile: str, on_raise: Callable[[Callback | str, BaseException], bool]
    ) -> Running:
        """Watch over one more thread that calls the user's functions.

        :param meanwhile: what cannot happen while one of them runs, in words for the log.
        :param on_raise: as :class:`shardlib.running.Running` has it.
        """
        running = Running(
            meanwhile, on_begin=self._on_begin, on_raise=on_raise, on_return=self._on_return
        )
        with self._lock:
            self._runnings = (*self._runnings, running)
            if self._in_life and self._limit is not None:
                running.watch_again()
        return running

    @property
    def seconds(self) -> float:
        """Time spent in the user's functions on all threads, running ones included."""
        return sum(running.seconds for running in self._runnings)

    def calls(self) -> dict[str, tuple[int, float, float]]:
        """By name: how many calls on all threads have ended, their seconds, the longest one's."""
        all_calls: dict[str, tuple[int, float, float]] = {}
        for running in self._runnings:
            for name, calls in dict(running.calls).items():
                count, total, longest = all_calls.get(name, (0, 0.0, 0.0))
                all_calls[name] = (
                    count + calls.count,
                    total + calls.total,
                    max(longest, calls.longest),
                )
        return all_calls

    def leave_to_parent(self) -> None:
        """In a forked child: a call that is running is the last one of the child's."""
        for running in self._runnings:
            running.leave_to_parent()

    # The reader

    def begin(self) -> None:
        """Watch from now on."""
        with self._lock:
            self._in_life = True
        if self._limit is not None:
            for running in self._runnings:
                running.watch_again()

    def end(self) -> None:
        """Watch no more, and wait a second at most for the threads that look or write a report."""
        with self._lock:
            self._in_life = False
            alarm, self._alarm = self._alarm, None
            threads, self._threads = self._threads, ()
        if alarm is not None:
            alarm.ring()
        deadline = Deadline(_TIME_TO_END)
        for thread in threads:
            thread.join(deadline.remaining())

    # The thread that looks

    def attach(self, alarm: Alarm) -> None:
        """Note that the calling thread looks from now on, instead of any other.

        :param alarm: to ring when the thread is to :meth:`look`.
        """
        with self._lock:
            before, self._alarm = self._alarm, alarm
        if before is not None:
            before.ring()  # a thread that stands in ends

    def detach(self, alarm: Alarm) -> None:
        """Note that the thread of an alarm looks no more."""
        with self._lock:
            if self._alarm is not alarm:
                return
            self._alarm = None
        if self._limit is not None:
            for running in self._runnings:
                running.watch_again()

    def look(self) -> float:
        """Tell of each call that has reached the limit.

        :returns: the seconds after which to look again; endless if the alarm will ring instead.
        """
        if self._limit is None:
            return math.inf
        wait = math.inf
        for running in self._runnings:
            left = running.look(self._limit)
            if left == 0.0:
                self.judge(running)
                left = self._limit
            wait = min(wait, left)
        return wait

    def judge(self, running: Running) -> None:
        """Tell of the call under way, unless the log has told of it."""
        running.judge(lambda call: self._tell(call, running.meanwhile))

    def _tell(self, call: Call, meanwhile: str) -> bool:
        if call.function is AWAITED_SWITCH:
            return False
        with self._lock:
            calls, in_full = self._slow_calls.add(call.function)
        return bool(calls) and self._start("report", self._report, call, meanwhile, calls, in_full)

    def _start(self, name: str, function: Callable[..., object], *arguments: Any) -> bool:
        """Start a thread. False if the system has none to give."""
        thread = threading.Thread(
            target=function, args=arguments, name=f"{self._thread_prefix}-{name}", daemon=True
        )
        try:
            thread.start()
        except Exception:
            return False  # heartbeats, and the callback itself, matter more
        with self._lock:
            self._threads = (*(each for each in self._threads if each.is_alive()), thread)
        return True

    # The thread that stands in while no heartbeat thread lives

    def _stand_in(self, alarm: Alarm) -> None:
        try:
            while self._alarm is alarm:
                wait = self.look()
                if wait == math.inf:
                    self.detach(alarm)
                else:
                    alarm.wait(wait)
        except Exception:  # memory is short, say: the next call asks for another thread
            self.detach(alarm)

    # A thread that calls the user's functions

    def _on_begin(self, function: Callback | str) -> bool:
        stands_in = None
        with self._lock:
            if self._in_life and self._alarm is None:
                # No thread for these: the library logs at each connection, mostly to no handler.
                if isinstance(function, str):
                    return False
                self._alarm = stands_in = Alarm()
            alarm = self._alarm
        if stands_in is not None:
            if not self._start("watchdog", self._stand_in, stands_in):
                with self._lock:
                    if self._alarm is stands_in:
                        self._alarm = None
        elif alarm is not None:
            alarm.ring()
        return True

    def _on_return(self, call: Call) -> None:
        self._log(
            logging.INFO,
            "%s has returned after %s%s",
            _what(call),
            count(round(call.seconds, 1), "second"),
            _where(call),
        )

    # The report's thread

    def _report(self, call: Call, meanwhile: str, calls: int, in_full: bool) -> None:
        """Write a report.

        A function's __repr__ is user code, and formatting a stack reads source files: both may
        take long.
        """
        more = ""
        try:
            if not in_full:
                more = (
                    f" It has been slow {count(calls, 'time')} since the log told so last; the log "
                    f"tells so again after {count(SUMMARY_INTERVAL, 'second')} at the earliest."
                )
            elif call.stack:
                more = " It is here:\n" + "".join(call.stack.format()).rstrip()
            self._log(
                logging.WARNING,
                "%s has been running for %s%s, and %s; long work belongs on another thread.%s",
                _what(call),
                count(round(call.seconds, 1), "second"),
                _where(call),
                meanwhile,
                more,
            )
        except BaseException:
            pass  # SystemExit of a log handler would end this thread, and no more than that


def _what(call: Call) -> str:
    function = call.function
    return function if isinstance(function, str) else f"the callback {name_of(function)}"


def _where(call: Call) -> str:
    occasion = call.occasion
    if occasion is None:
        return ""
    return f" as {occasion}" if occasion.startswith("on_") else f" on {printable(occasion, 100)}"
