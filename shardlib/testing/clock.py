"""The clock a local gateway lives by."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """A monotonic clock that a test can move forward.

    It runs as :func:`time.monotonic` does. :meth:`advance` adds to it, so that what takes minutes
    at Discord (a session that expires, a limit that resets) takes no time in a test::

        gateway.clock.advance(300)

    One clock may serve several gateways, and anything else that takes a callable returning
    seconds. Every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._offset = 0.0
        self._listeners: set[Callable[[], None]] = set()

    def __call__(self) -> float:
        """Return the time in seconds; only differences mean anything."""
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        """Move the clock forward; whatever is due by then happens at once.

        :param seconds: how far.
        :raises ValueError: if ``seconds`` is negative: a monotonic clock never goes back.
        """
        if seconds < 0:
            raise ValueError(
                f"seconds must be 0 or more, not {seconds}: a monotonic clock cannot go back"
            )
        self._offset += seconds
        for listener in tuple(self._listeners):
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call a function after every :meth:`advance`, in the thread that advanced the clock.

        :param listener: the function, called without arguments.
        """
        self._listeners.add(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Stop calling a function; nothing happens if the clock does not know it.

        :param listener: what :meth:`subscribe` was given.
        """
        self._listeners.discard(listener)
