"""The clock that a local gateway's limits and timeouts go by."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """A monotonic clock that a test can move forward.

    The clock runs as :func:`time.monotonic` does. :meth:`advance` moves it forward, so that a test
    need not wait the minutes until a session expires or a limit resets::

        gateway.clock.advance(300)

    One clock may serve several gateways, and any code that takes a callable returning seconds.
    Every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._offset = 0.0
        self._listeners: set[Callable[[], None]] = set()

    def __call__(self) -> float:
        """Return the time in seconds; only the difference of two times has a meaning."""
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        """Move the clock forward; the gateway does at once what is due by the new time.

        :param seconds: how far to move the clock, 0 or more.
        :raises ValueError: if ``seconds`` is negative, since a monotonic clock never goes back.
        """
        if seconds < 0:
            raise ValueError(
                f"seconds must be 0 or more, not {seconds}: a monotonic clock cannot go back"
            )
        self._offset += seconds
        for listener in tuple(self._listeners):
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call a function after every :meth:`advance`, on the thread that advanced the clock.

        :param listener: the function; the clock calls it without arguments.
        """
        self._listeners.add(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Stop calling a function; do nothing if the function is not subscribed.

        :param listener: the function that :meth:`subscribe` was given.
        """
        self._listeners.discard(listener)
