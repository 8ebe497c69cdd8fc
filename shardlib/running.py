"""Running: what one thread runs of the user's functions, since when, and what they have cost.

The thread writes, others read without a lock: what belongs together is one tuple, replaced as a
whole. A call pays for no lock and no clock but two looks at ``time.perf_counter()``.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Callable
from threading import get_ident
from time import perf_counter
from typing import Any, NamedTuple

Callback = Callable[..., object]

_Moment = tuple[float, Callback | str | None, str | None, float]
"""The seconds in functions that have returned; the function that has not (or what it is to the
user, in words; or None); what it was called for, an event or a name, or None; and when it was
called, by ``perf_counter()``. A plain tuple, since two are made for each call."""


class CallCount:
    """The calls under one name that have ended: how many, their seconds, the longest one's."""

    __slots__ = ("count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.longest = 0.0


class Call(NamedTuple):
    """A call that has taken long.

    :param function: of the user's, or what it is to the user, in words.
    :param occasion: what it was called for, an event or its own name, or None.
    :param seconds: that it has taken so far.
    :param stack: where the thread is, from the user's function on; empty if that is not known.
    """

    function: Callback | str
    occasion: str | None
    seconds: float
    stack: traceback.StackSummary


class LeftToParent(BaseException):
    """A callback has forked the process, and came back in the child: the thread leaves at once."""


class Running:
    """What one thread runs of the user's functions.

    :param meanwhile: what cannot happen while one of them runs, in words for the log.
    :param on_begin: called on the thread at the beginning of a call that no other thread is going
        to look at, with the function; returns True if another thread does so from now on.
    :param on_raise: called on the thread with a function that has raised, and what; returns False
        to raise that.
    :param on_return: called on the thread when a call has ended that the log has told of.
    """

    def __init__(
        self,
        meanwhile: str,
        *,
        on_begin: Callable[[Callback | str], bool],
        on_raise: Callable[[Callback | str, BaseException], bool],
        on_return: Callable[[Call], object],
    ) -> None:
        self.meanwhile = meanwhile
        self.calls: dict[str, CallCount] = {}
        self._on_begin = on_begin
        self._on_raise = on_raise
        self._on_return = on_return
        self._thread: int | None = None
        self._moment: _Moment = (0.0, None, None, 0.0)
        self._is_forked = False
        # False if no other thread is going to look: the next call asks for one. True also between
        # two lives, in which no thread is to look.
        self._is_watched = True
        # Of the thread that looks: what it found the last time, and the call that it has judged.
        self._seen: _Moment | None = None
        self._judged: _Moment | None = None
        self._told: _Moment | None = None  # the call whose end the log is to tell, too
        self._end_matters = False  # True if the end of the call under way is not like any other

    # The thread

    def use_this_thread(self) -> None:
        """Note that the functions are called on the calling thread from now on."""
        self._thread = get_ident()

    @property
    def is_inside(self) -> bool:
        """True while a function runs."""
        return self._moment[1] is not None

    def call(
        self,
        what: Callback | str,
        function: Callback,
        arguments: tuple[Any, ...],
        name: str,
        occasion: str | None,
    ) -> Any:
        """Call a function, and count its time. The hot path.

        :param what: the function of the user's, or what it is to the user, in words.
        :param function: to call, the user's or one that calls it.
        :param arguments: of the function.
        :param name: to count the call under.
        :param occasion: what it is called for, an event or its own name, or None.
        :returns: what the function returns.
        :raises LeftToParent: if it has returned in a forked child, whatever else it has raised.
        :raises BaseException: what the function raises, unless `on_raise` has taken care of it.
        """
        seconds = self._moment[0]
        since = perf_counter()
        self._moment = moment = (seconds, what, occasion, since)
        try:
            try:
                if not self._is_watched:
                    self._begin_watched(what)
                return function(*arguments)
            finally:
                taken = perf_counter() - since
                self._moment = (seconds + taken, None, None, 0.0)
                try:
                    calls = self.calls[name]
                except KeyError:
                    calls = self.calls[name] = CallCount()
                calls.count += 1
                calls.total += taken
                if taken > calls.longest:
                    calls.longest = taken
                if self._end_matters:
                    self._end(moment, taken)
        except BaseException as error:
            if self._is_forked or not self._on_raise(what, error):
                raise

    def _end(self, moment: _Moment, taken: float) -> None:
        if self._is_forked:
            raise LeftToParent
        self._end_matters = False
        told, self._told = self._told, None
        if told is moment:
            _, what, occasion, _ = moment
            assert what is not None
            self._on_return(Call(what, occasion, taken, traceback.StackSummary()))

    def _begin_watched(self, function: Callback | str) -> None:
        self._is_watched = True  # first: what the other thread may change meanwhile counts
        try:
            is_watched = self._on_begin(function)
        except Exception:  # memory is short, say: the call matters more than its watching
            is_watched = False
        if not is_watched:
            self._is_watched = False

    def leave_to_parent(self) -> None:
        """In a forked child: the call that is running is the last one of the child's."""
        self._is_forked = self._end_matters = True

    # Any thread

    @property
    def seconds(self) -> float:
        """Time spent in the user's functions, a running one included."""
        now = perf_counter()  # first: if it returns meanwhile, its time is not exceeded
        seconds, function, _, since = self._moment
        return seconds + (0.0 if function is None else max(0.0, now - since))

    # The thread that looks

    def look(self, limit: float) -> float:
        """Look how long the call under way has taken.

        :param limit: seconds.
        :returns: the seconds after which to look again; 0.0 if a call has reached the limit that
            was not judged yet; endless if none has begun since the last look: the next one asks to
            be looked at.
        """
        moment = self._moment
        if moment is not self._judged:
            self._judged = None
            if moment[1] is not None:
                self._seen = moment
                return max(0.0, moment[3] + limit - perf_counter())
        if moment is self._seen:
            self._is_watched = False
            if self._moment is moment:
                return math.inf
            self._is_watched = True  # a call has begun, and may have asked before that was noted
        self._seen = moment
        return limit

    def judge(self, tell: Callable[[Call], bool]) -> None:
        """Judge the call under way, once.

        :param tell: called with it unless it was judged before; returns True if the log tells of
            the call, and is to tell of its end.
        """
        moment = self._moment
        _, function, occasion, since = moment
        if function is None or moment is self._judged:
            return
        stack = _stack_of(self._thread)
        call = Call(function, occasion, perf_counter() - since, stack)
        if self._moment is not moment:
            return  # it has returned meanwhile: the stack is not its own
        self._judged = moment
        # First: the call may return as soon as the log has told of it.
        self._told = moment
        self._end_matters = True
        if not tell(call):
            self._told = None

    def watch_again(self) -> None:
        """Ask for another thread to look, as the one that did so does not any more."""
        self._is_watched = False
        function = self._moment[1]
        if function is not None and self._moment is not self._judged:
            self._begin_watched(function)


# Frames of these files stand between call() and the user's function. They are named as in code
# objects: PyInstaller leaves paths like shardlib/running.py there, unlike in __file__.
_THIS_FILE = Running.call.__code__.co_filename
_CALLING = (_THIS_FILE, os.path.join(os.path.dirname(_THIS_FILE), "callbacks.py"))


def _stack_of(thread: int | None) -> traceback.StackSummary:
    """Where a thread is, from the user's function on, without reading any source file."""
    if thread is None or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return traceback.StackSummary()  # without a GIL the frames of a running thread may change
    frame = sys._current_frames().get(thread)
    if frame is None:  # it has ended meanwhile
        return traceback.StackSummary()
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
    stack.reverse()
    start = next((index for index, each in enumerate(stack) if each.filename == _THIS_FILE), 0)
    # No further than to the user's function, which may have come back to these files, by logging.
    while start < len(stack) and stack[start].filename in _CALLING:
        start += 1
    del stack[:start]
    return stack
