"""Callbacks: the user's functions, and the one place where they are called.

All of them run on the reader thread, one after the other, in the order of the wire, while no lock
of the library's is held.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

Listener = Callable[[Any, Any], object]
Predicate = Callable[[Any], object]


class Running(NamedTuple):
    """A function of the user's that has not returned yet."""

    function: Callable[..., object]
    since: float  # time.perf_counter()


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
    """Listeners and waiters by event, and the clock that runs while one of them does.

    The reader looks listeners up without a lock: a change replaces the tuple, it never alters it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards changes of the two tables
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self._waiters: dict[str, tuple[Waiter, ...]] = {}
        self._running: Running | None = None  # written by the reader only
        self._seconds = 0.0

    def add_listener(self, event: str, function: Listener) -> None:
        """Call `function` for each `event` from now on. Any thread."""
        with self._lock:
            self._listeners[event] = (*self._listeners.get(event, ()), function)

    def remove_listener(self, event: str, function: Listener) -> None:
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

    def wanted(self, event: str) -> bool:
        """Whether anybody listens to or waits for an event. The reader's hot path."""
        return event in self._listeners or event in self._waiters

    def listeners(self, event: str) -> tuple[Listener, ...]:
        """Who listens to an event. The reader's hot path."""
        return self._listeners.get(event, ())

    def waiters(self, event: str) -> tuple[Waiter, ...]:
        """Who waits for an event. The reader's hot path."""
        return self._waiters.get(event, ())

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function of the user's, on the reader thread. Its exceptions pass."""
        outer = self._running  # a callback may call a method that calls a callback
        since = time.perf_counter()
        self._running = Running(function, since)
        try:
            function(*arguments)
        finally:
            self._running = outer
            if outer is None:
                self._seconds += time.perf_counter() - since

    @property
    def running(self) -> Running | None:
        """The function the reader is inside of, or None. Any thread."""
        return self._running

    @property
    def seconds(self) -> float:
        """Time spent in the user's functions, a running one included. Any thread."""
        running = self._running
        now = 0.0 if running is None else time.perf_counter() - running.since
        return self._seconds + now


def _replace(table: dict[str, tuple[Any, ...]], event: str, left: list[Any]) -> None:
    if left:
        table[event] = tuple(left)
    else:
        table.pop(event, None)
