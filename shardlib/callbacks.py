"""Callbacks: the user's functions, and the one place where they are called.

All of them run on the reader thread, one after the other, in the order of the wire, while no lock
of the library's is held.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, Union

from shardlib.control import Control

Callback = Callable[..., object]
Predicate = Callable[[Any], object]
Logger = Union[logging.Logger, "logging.LoggerAdapter[Any]"]


class Running(NamedTuple):
    """A function of the user's that has not returned yet."""

    function: Callback
    since: float  # time.perf_counter()


class Spent(NamedTuple):
    """The reader's time in the user's functions, replaced as a whole: others look at any moment."""

    seconds: float  # in those that have returned
    running: Running | None = None


class Waiter:
    """One caller of wait_for(), blocked on another thread until its event comes."""

    def __init__(self, predicate: Predicate | None) -> None:
        self._predicate = predicate
        self.data: Any = None
        self.error: BaseException | None = None
        self.done = False

    def offer(self, data: Any) -> bool:
        """Look at an event, on the reader thread. True: it, or an error, is what was awaited."""
        try:
            if self._predicate is not None and not self._predicate(data):
                return False
            self.data = data
        except BaseException as error:  # the predicate is the waiter's: so is its failure
            self.error = error
        return True


class Callbacks:
    """The ``on_socket_*`` functions, listeners and waiters of a shard, and its logger.

    What any of them raises is told and ends nothing, but for what is meant to end the program.
    The reader looks listeners up without a lock: a change replaces the tuple, it never alters it.

    :param shard: whose attributes the ``on_socket_*`` functions are; their first argument.
    :param logger: the user's.
    :param control: told where a function raises SystemExit or the like.
    """

    def __init__(self, shard: Any, logger: Logger, control: Control) -> None:
        self._shard = shard
        self._logger = logger
        self._control = control
        # Guards changes of the two tables. Reentrant: a signal handler may come in between.
        self._lock = threading.RLock()
        self._listeners: dict[str, tuple[Callback, ...]] = {}
        self._waiters: dict[str, tuple[Waiter, ...]] = {}
        self._spent = Spent(0.0)  # written by the reader only

    def add_listener(self, event: str, function: Callback) -> None:
        """Call `function` for each `event` from now on. Any thread."""
        with self._lock:
            self._listeners[event] = (*self._listeners.get(event, ()), function)

    def remove_listener(self, event: str, function: Callback) -> None:
        """Undo one add_listener(). Any thread.

        :raises ValueError: where the function does not listen to the event.
        """
        with self._lock:
            left = list(self._listeners.get(event, ()))
            if function not in left:
                raise ValueError(f"{function!r} does not listen to {event}")
            left.remove(function)
            _replace(self._listeners, event, left)

    def add_waiter(self, event: str, waiter: Waiter) -> None:
        """Offer each `event` to a waiter from now on. Any thread."""
        with self._lock:
            self._waiters[event] = (*self._waiters.get(event, ()), waiter)

    def remove_waiter(self, event: str, waiter: Waiter) -> None:
        """Forget a waiter, if it is still there. Any thread."""
        with self._lock:
            left = [other for other in self._waiters.get(event, ()) if other is not waiter]
            _replace(self._waiters, event, left)

    # For the reader

    def wants_payloads(self) -> bool:
        """Whether anybody looks at whole payloads."""
        shard = self._shard
        return not (shard.on_socket_dispatch is None and shard.on_socket_raw_message is None)

    def wants(self, event: str) -> bool:
        """Whether anybody listens to or waits for an event."""
        return event in self._listeners or event in self._waiters

    def notify(self, name: str, *arguments: Any) -> None:
        """Call the shard's ``on_socket_*`` function of a name, if there is one."""
        function = getattr(self._shard, name)
        if function is not None:
            self._call(function, *arguments)

    def dispatch(self, event: str, data: Any) -> None:
        """Call who listens to an event, and wake who waits for it."""
        for function in self._listeners.get(event, ()):
            self._call(function, data)
        for waiter in self._waiters.get(event, ()):
            if waiter.offer(data):
                self.remove_waiter(event, waiter)
                with self._control.changed:
                    waiter.done = True
                    self._control.changed.notify_all()

    def _call(self, function: Callback, *arguments: Any) -> None:
        since = time.perf_counter()
        before = self._spent.seconds
        self._spent = Spent(before, Running(function, since))
        try:
            try:
                function(self._shard, *arguments)
            finally:
                self._spent = Spent(before + time.perf_counter() - since)
        except Exception as error:
            self.log(logging.ERROR, "the callback %s failed", _name(function), exc_info=error)
            if function is not self._shard.on_socket_error:
                self.notify("on_socket_error", error)
        except BaseException as error:  # SystemExit, KeyboardInterrupt: for join() to raise
            self._control.stop(error)

    def report(self, error: Exception) -> None:
        """Log what went wrong outside the user's functions, and tell on_socket_error."""
        self.log(logging.WARNING, "%s", error)
        self.notify("on_socket_error", error)

    def log(self, level: int, message: str, *arguments: Any, exc_info: Any = None) -> None:
        """Log, with the user's logger: if that fails, it ends nothing. Any thread."""
        try:
            self._logger.log(level, message, *arguments, exc_info=exc_info)
        except Exception:
            pass

    # For the heartbeat thread, and for stats

    @property
    def running(self) -> Running | None:
        """The function the reader is inside of, or None."""
        return self._spent.running

    @property
    def seconds(self) -> float:
        """Time spent in the user's functions, a running one included."""
        now = time.perf_counter()  # first: where it returns meanwhile, its time is not exceeded
        seconds, running = self._spent
        return seconds + (0.0 if running is None else max(0.0, now - running.since))

    def warn(self, running: Running) -> None:
        """Log that a function keeps the reader from reading, and where it is."""
        thread = self._control.thread
        frame = sys._current_frames().get(thread.ident) if thread and thread.ident else None
        self.log(
            logging.WARNING,
            "the callback %s has been running for %.1f seconds, and no event can be received "
            "meanwhile; long work belongs on another thread. It is here:\n%s",
            _name(running.function),
            time.perf_counter() - running.since,
            "".join(traceback.format_stack(frame)).rstrip(),
        )


def _replace(table: dict[str, tuple[Any, ...]], event: str, left: list[Any]) -> None:
    if left:
        table[event] = tuple(left)
    else:
        table.pop(event, None)


def _name(function: Callback) -> str:
    try:
        return getattr(function, "__qualname__", None) or repr(function)
    except Exception:  # an object of the user's with a __repr__ that fails: no reason to go deaf
        return type(function).__qualname__
