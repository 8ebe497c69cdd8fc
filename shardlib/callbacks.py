"""Callbacks: the user's functions, and the one place where they are called.

All of them run on the reader thread, one after the other, in the order of the wire, while no lock
of the library's is held. The time that they take is counted: a connection is no zombie if its
acknowledgement is unread because a callback runs.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar, Union

from shardlib.failurelog import SUMMARY_INTERVAL, FailureLog
from shardlib.text import count, describe, printable

Callback = Callable[..., object]
Predicate = Callable[[Any], object]
Logger = Union[logging.Logger, "logging.LoggerAdapter[Any]"]

_Result = TypeVar("_Result")

# Characters of a payload that a DEBUG line shows.
_MOST_SHOWN = 2000


CallbackTime = tuple[float, Callback | str | None, float]
"""The reader's time in the user's functions: the seconds in those that have returned, the function
that has not (or what it is to the user, in words; or None), and ``time.perf_counter()`` when that
was called. Replaced as a whole, since other threads read it; a plain tuple, since one is made for
each call."""


class Shown:
    """A payload in a DEBUG line: nothing is formatted unless the line is printed.

    :param text: as it was sent or received.
    :param hide: returns a text without the token.
    """

    def __init__(self, text: str | bytes, hide: Callable[[str], str]) -> None:
        self._text = text
        self._hide = hide

    def __repr__(self) -> str:
        text = self._text
        if isinstance(text, bytes):
            text = text[: 4 * _MOST_SHOWN].decode(errors="replace")
        return printable(self._hide(text), _MOST_SHOWN)


class Waiter:
    """One caller of wait_for(), blocked on another thread until its event comes."""

    def __init__(self, predicate: Predicate | None) -> None:
        self._predicate = predicate
        self.data: Any = None
        self.error: BaseException | None = None
        self.done = False

    def offer(self, data: Any) -> bool:
        """Look at an event, on the reader thread. True if it, or an error, was awaited."""
        try:
            if self._predicate is not None and not self._predicate(data):
                return False
            self.data = data
        except BaseException as error:  # wait_for() raises what its predicate has raised
            self.error = error
        self.done = True
        return True


class LeftToParent(BaseException):
    """A callback has forked the process, and came back in the child: the reader leaves at once."""


class Callbacks:
    """The ``on_socket_*`` functions, listeners and waiters of a shard, and its logger.

    An Exception that a function raises is logged and told to on_socket_error, and the shard goes
    on; SystemExit and its like close the shard. The reader looks listeners up without a lock: a
    change replaces the tuple, and never alters it.

    :param shard: the first argument of each function.
    :param logger: the user's.
    :param hide_token: returns a text without the token.
    :param in_reader_thread: True on the reader thread.
    :param stop: called with what is meant to end the program (SystemExit and the like).
    :param notify: called after a waiter got its event.
    """

    def __init__(
        self,
        shard: Any,
        logger: Logger,
        *,
        hide_token: Callable[[str], str],
        in_reader_thread: Callable[[], bool],
        stop: Callable[[BaseException], object],
        notify: Callable[[], object],
    ) -> None:
        self._shard = shard
        self._logger = logger
        self._is_enabled_for = getattr(logger, "isEnabledFor", None)
        self._hide_token = hide_token
        self._in_reader_thread = in_reader_thread
        self._stop = stop
        self._notify = notify
        # Guards changes of the three tables. Reentrant: a signal handler may interrupt a change.
        self._lock = threading.RLock()
        # The on_socket_* functions, each with its first arguments: the shard, or none for a method
        # of a subclass, which is bound to it.
        self._functions: dict[str, tuple[Callback, tuple[Any, ...]]] = {}
        # What the reader asks for each event, derived from that table.
        self._on_dispatch: tuple[Callback, tuple[Any, ...]] | None = None
        self.wants_payloads = False  # True if one of the functions looks at whole payloads
        self.wants_raw_payloads = False
        self._listeners: dict[str, tuple[Callback, ...]] = {}
        self._waiters: dict[str, tuple[Waiter, ...]] = {}
        self._time: CallbackTime = (0.0, None, 0.0)  # written by the reader only
        self.is_forked = False  # in a forked child: only the parent's reader goes on
        self._failures = FailureLog()
        self._warned_of: CallbackTime | None = None
        self._report_thread: threading.Thread | None = None

    # Any thread

    def renew_lock(self) -> None:
        """In a forked child: a thread that it does not have may have held the lock."""
        self._lock = threading.RLock()

    def leave_to_parent(self) -> None:
        """In a forked child: a callback that is running is the last one of the child's."""
        self.is_forked = True

    def assign(self, name: str, function: Callback | None, *, is_method: bool) -> None:
        """Set an ``on_socket_*`` function.

        :param name: of the function.
        :param function: to call from now on; None calls nothing.
        :param is_method: True for a method of a subclass, whose self is the shard.
        """
        with self._lock:
            functions = dict(self._functions)
            if function is None:
                functions.pop(name, None)
            else:
                functions[name] = (function, () if is_method else (self._shard,))
            self._functions = functions
            self._on_dispatch = functions.get("on_socket_dispatch")
            self.wants_raw_payloads = "on_socket_raw_message" in functions
            self.wants_payloads = self.wants_raw_payloads or "on_socket_dispatch" in functions

    def add_listener(
        self, event: str, function: Callback, is_replaced: Callable[[Callback], bool]
    ) -> bool:
        """Call `function` for each `event` from now on.

        :param is_replaced: True for a listener whose place the function takes.
        :returns: True if there was one.
        """
        with self._lock:
            listeners = self._listeners.get(event, ())
            left = [each for each in listeners if not is_replaced(each)]
            replaced = [place for place, each in enumerate(listeners) if is_replaced(each)]
            left.insert(replaced[0] if replaced else len(left), function)
            self._listeners[event] = tuple(left)
        return bool(replaced)

    def remove_listener(self, event: str, function: Callback) -> None:
        """Undo one add_listener().

        :raises ValueError: if the function does not listen to the event.
        """
        with self._lock:
            left = list(self._listeners.get(event, ()))
            if function not in left:
                raise ValueError(f"{function!r} does not listen to {event}")
            left.remove(function)
            _replace(self._listeners, event, left)

    def add_waiter(self, event: str, waiter: Waiter) -> None:
        """Offer each `event` to a waiter from now on."""
        with self._lock:
            self._waiters[event] = (*self._waiters.get(event, ()), waiter)

    def remove_waiter(self, event: str, waiter: Waiter) -> None:
        """Forget a waiter, if it is still there."""
        with self._lock:
            left = [other for other in self._waiters.get(event, ()) if other is not waiter]
            _replace(self._waiters, event, left)

    # The reader

    def wants(self, event: str) -> bool:
        """True if a function listens to an event, or a thread waits for it."""
        return event in self._listeners or event in self._waiters

    def notify(self, name: str, *arguments: Any) -> None:
        """Call the shard's ``on_socket_*`` function of a name, if there is one."""
        functions = self._functions
        if name in functions:
            function, first = functions[name]
            self._call(function, (*first, *arguments))

    def dispatch(self, event: str | None, payload: Any) -> None:
        """Hand an event to on_socket_dispatch, to its listeners, and to the threads that wait.

        :param event: its name, as the payload had it before any callback saw it; None for none.
        :param payload: the whole of it.
        """
        on_dispatch = self._on_dispatch
        if on_dispatch is not None:
            function, first = on_dispatch
            self._call(function, (*first, payload))
        if event in self._listeners:
            for function in self._listeners.get(event, ()):
                self._call(function, (self._shard, payload.get("d")))
        if event in self._waiters:
            for waiter in self._waiters.get(event, ()):
                if self.run("the predicate of a wait_for()", waiter.offer, payload.get("d")):
                    self.remove_waiter(event, waiter)
                    self._notify()

    def run(self, what: str, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run a function that is the user's, or calls one, on the reader thread; count its time.

        :param what: what the user's function is, in words that the user knows, for the warning
            that it takes long.
        :param function: to run.
        :param arguments: of the function.
        :raises Exception: what the function raises.
        """
        seconds, running, _ = self._time
        if running is not None:  # inside another one, a log handler inside a callback for example
            return function(*arguments)
        since = perf_counter()
        self._time = (seconds, what, since)
        try:
            result = function(*arguments)
        finally:
            self._time = (seconds + perf_counter() - since, None, 0.0)
            if self.is_forked:
                raise LeftToParent  # whatever else was raised in the child
        return result

    def _call(self, function: Callback, arguments: tuple[Any, ...]) -> None:
        seconds = self._time[0]
        since = perf_counter()
        self._time = (seconds, function, since)
        try:
            try:
                function(*arguments)
            finally:
                self._time = (seconds + perf_counter() - since, None, 0.0)
                if self.is_forked:
                    raise LeftToParent  # whatever else was raised in the child
        except Exception as error:
            self._tell_failure(function, error)
            if function is not self._functions.get("on_socket_error", (None,))[0]:
                self.notify("on_socket_error", error)
        except BaseException as error:  # SystemExit, KeyboardInterrupt: for join() to raise
            if self.is_forked:
                raise
            self._stop(error)

    def _tell_failure(self, function: Callback, error: Exception) -> None:
        failures, in_full = self._failures.add(_underlying(function))
        if in_full:
            self.log(
                logging.ERROR,
                "the callback %s failed; the shard goes on",
                name_of(function),
                exc_info=error,
            )
        elif failures:
            self.log(
                logging.ERROR,
                "the callback %s failed %s more, the last time with %r; the log tells of later "
                "failures after %s at the earliest",
                name_of(function),
                count(failures, "time"),
                error,
                count(SUMMARY_INTERVAL, "second"),
            )

    def report(self, error: BaseException, context: str = "") -> None:
        """Log what went wrong outside the user's functions, and tell on_socket_error.

        :param error: what went wrong.
        :param context: what the log says before the error's own message.
        """
        failures, in_full = self._failures.add(type(error))  # a peer may send as much as it likes
        message = f"{context}{_message_of(error)}"
        if in_full:
            self.log(logging.WARNING, "%s", message)
        elif failures:
            self.log(
                logging.WARNING,
                "%s; the same has happened %s more; the log tells of later ones after %s at the "
                "earliest",
                message,
                count(failures, "time"),
                count(SUMMARY_INTERVAL, "second"),
            )
        self.notify("on_socket_error", error)

    def join(self) -> None:
        """Wait for a report that is being written on a thread of its own, a second at most."""
        if self._report_thread is not None:
            self._report_thread.join(1.0)
            self._report_thread = None

    # The log

    @property
    def debugging(self) -> bool:
        """True if the traffic is to be logged."""
        enabled = self._is_enabled_for
        try:
            return enabled is not None and bool(enabled(logging.DEBUG))
        except Exception:
            return False
        except BaseException as error:
            if not self._in_reader_thread() or self.is_forked:
                raise
            self._stop(error)
            return False

    def log(self, level: int, message: str, *arguments: Any, exc_info: Any = None) -> None:
        """Log with the user's logger, whose handlers are user code. Any thread but the heartbeat's.

        A logger that fails ends nothing; one that raises SystemExit or the like is a callback.
        """
        own = self._in_reader_thread()
        # A peer may repeat the token, in the reason of a close frame for example.
        arguments = tuple(
            self._hide_token(each) if isinstance(each, str) else each for each in arguments
        )
        try:
            if own:
                self.run("a handler of the logger", self._log, level, message, arguments, exc_info)
            else:
                self._log(level, message, arguments, exc_info)
        except Exception:
            pass
        except BaseException as error:
            if not own or self.is_forked:
                raise
            self._stop(error)

    def log_traffic(self, message: str, text: str | bytes) -> None:
        """Log a payload, if the traffic is to be logged.

        :param message: with one ``%r`` for the payload.
        :param text: as it was sent or received.
        """
        if self.debugging:
            self.log(logging.DEBUG, message, Shown(text, self._hide_token))

    def _log(self, level: int, message: str, arguments: tuple[Any, ...], exc_info: Any) -> None:
        self._logger.log(level, message, *arguments, exc_info=exc_info)

    # The heartbeat thread, and stats

    @property
    def seconds(self) -> float:
        """Time spent in the user's functions, a running one included."""
        now = perf_counter()  # first: if it returns meanwhile, its time is not exceeded
        seconds, running, since = self._time
        return seconds + (0.0 if running is None else max(0.0, now - since))

    def warn_of_running(self, reader: threading.Thread | None, name: str) -> None:
        """Log once that a function keeps the reader from reading, and where it is.

        The log is written on a thread of its own: the heartbeat thread calls this, and a log
        handler may be what stands still.

        :param reader: the thread that runs the function.
        :param name: of the thread to write the log on.
        """
        running = self._time
        _, function, since = running
        if function is None or running is self._warned_of or reader is None or not reader.ident:
            return
        stack = _stack_of(reader.ident)
        if self._time is not running:
            return  # it has returned meanwhile: the stack is not its own
        self._warned_of = running
        report = threading.Thread(
            target=self._report_running,
            args=(function, perf_counter() - since, stack),
            name=name,
            daemon=True,
        )
        try:
            report.start()
        except RuntimeError:
            return  # the system has no thread to give: heartbeats matter more
        self._report_thread = report

    def _report_running(
        self, function: Callback | str, seconds: float, stack: traceback.StackSummary
    ) -> None:
        """Write the report, on its own thread.

        A function's __repr__ is user code, and formatting a stack reads source files: both may
        take long.
        """
        try:
            self.log(
                logging.WARNING,
                "%s has been running for %s, and no event can be received meanwhile; long work "
                "belongs on another thread.%s",
                function if isinstance(function, str) else f"the callback {name_of(function)}",
                count(round(seconds, 1), "second"),
                " It is here:\n" + "".join(stack.format()).rstrip() if stack else "",
            )
        except BaseException:
            pass  # SystemExit of a log handler would end this thread, and no more than that


def _stack_of(thread: int) -> traceback.StackSummary:
    """Where a thread is: from the user's function on, without reading any source file."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return traceback.StackSummary()  # without a GIL the frames of a running thread may change
    frame = sys._current_frames().get(thread)
    if frame is None:  # it has ended meanwhile
        return traceback.StackSummary()
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
    stack.reverse()
    # From the first frame beyond this file on: a callback may have come back here, by logging.
    start = next((index for index, each in enumerate(stack) if each.filename == __file__), 0)
    while start < len(stack) and stack[start].filename == __file__:
        start += 1
    del stack[:start]
    return stack


def _underlying(function: Callback) -> object:
    """The function of a bound method, of which each look-up makes a new object."""
    try:
        return getattr(function, "__func__", function)
    except Exception:  # an object of the user's whose __getattr__ fails
        return function


def _message_of(error: BaseException) -> str:
    try:
        return str(error) or describe(error)
    except Exception:  # one of the user's that fails to say anything
        return describe(error)


def _replace(table: dict[str, tuple[Any, ...]], event: str, left: list[Any]) -> None:
    if left:
        table[event] = tuple(left)
    else:
        table.pop(event, None)


def name_of(function: Callback) -> str:
    """A function's name for the log.

    :param function: of the user's; its attributes, too, are user code.
    """
    try:
        return getattr(function, "__qualname__", None) or describe(function)
    except Exception:  # an object of the user's whose __getattr__ fails
        return type(function).__qualname__
