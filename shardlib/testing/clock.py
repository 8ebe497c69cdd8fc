"""The clock of a local gateway's limits and timeouts."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """A monotonic clock that a test can move forward.

    The clock runs as :func:`time.monotonic` does. :meth:`advance` moves the clock forward, so that
    a test need not wait minutes until a session expires or a limit resets::

        gateway.clock.advance(300)

    Several gateways may share one clock, and any code that takes a callable returning seconds may
    use the clock. Any thread may call the methods.
    """

    def __init__(self) -> None:
        self._offset = 0.0
        self._listeners: set[Callable[[], None]] = set()

    def __call__(self) -> float:
        """Return the time in seconds. Only differences of two times are meaningful."""
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        """Move the clock forward. The gateway acts at once on each timeout that is now due.

        :param seconds: how many seconds to move the clock, 0 or more.
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

        :param listener: the function passed to :meth:`subscribe`.
        """
        self._listeners.discard(listener)
