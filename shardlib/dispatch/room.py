"""Room: the bound of a queue of deliveries, at which readers wait."""

from __future__ import annotations

from collections.abc import Callable

from shardlib.checks import check_at_least_one
from shardlib.dispatcher import Delivery


class Room:
    """Tells whether a queue has room, and lets readers wait for it. Any thread.

    :param maxsize: deliveries that may wait, an int from 1. Each of several readers may add one
        more at the same moment.
    :param length: returns how many wait.
    :raises TypeError: if `maxsize` is not an int.
    :raises ValueError: if `maxsize` is below 1.
    """

    def __init__(self, maxsize: int, length: Callable[[], int]) -> None:
        self._maxsize = check_at_least_one("maxsize", maxsize)
        self._length = length
        # Those whose readers wait. Each change is one step of C code, and needs no lock.
        self._blocked: dict[Delivery, None] = {}

    @property
    def is_full(self) -> bool:
        """True if as many wait as may."""
        return self._length() >= self._maxsize

    def wait(self, delivery: Delivery) -> None:
        """Block the reader of a delivery until there is room, or no waiting for it."""
        self._blocked[delivery] = None
        try:
            delivery.wait_for_room(self._is_half_empty)
        finally:
            self._blocked.pop(delivery, None)

    def made(self) -> None:
        """Wake the readers that wait, if there is room for them. Called after each removal."""
        if self._blocked and self._is_half_empty():
            for delivery in list(self._blocked):
                delivery.wake()

    def _is_half_empty(self) -> bool:
        # A reader that was awakened for each place would change threads for each event.
        return self._length() <= self._maxsize // 2
