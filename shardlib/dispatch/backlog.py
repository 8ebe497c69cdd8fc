"""Backlog: deliveries that wait to be called, a bounded number, oldest first."""

from __future__ import annotations

import threading
from collections import deque

from shardlib.dispatch.room import Room
from shardlib.dispatcher import Delivery

OVERFLOWS = ("block", "drop_oldest", "drop_newest")


class Backlog:
    """Deliveries in order, from any number of readers to the one thread that takes them out.

    What cannot be dropped is added even if the backlog is full: it is rare, and says how a shard's
    connections come and go.

    :param maxsize: deliveries that the backlog holds, see :class:`shardlib.dispatch.room.Room`.
    :param overflow: what happens to one more, see :class:`shardlib.dispatch.Mailbox`.
    """

    def __init__(self, maxsize: int, overflow: str = "block") -> None:
        self._room = Room(maxsize, lambda: len(self._deliveries))
        self._overflow = overflow
        self.renew()

    def renew(self) -> None:
        """Begin anew, in a forked child: what waits is the parent's, which may hold the lock."""
        # Lets one reader after the other add, so that the first of several sees that the backlog
        # was empty. The thread that takes out needs no lock, which Ctrl-C could leave taken.
        self._lock = threading.Lock()
        self._deliveries: deque[Delivery] = deque()

    def __len__(self) -> int:
        return len(self._deliveries)

    def put(self, delivery: Delivery) -> bool:
        """Add a delivery, or drop one, or wait for room, as `overflow` says. Called by a reader.

        :returns: True if the backlog was empty before.
        """
        dropped = None
        if delivery.can_be_dropped and self._room.is_full:
            if self._overflow == "drop_newest":
                delivery.drop()
                return False
            if self._overflow == "drop_oldest":
                dropped = self._take_oldest_that_can_be_dropped()
            else:
                self._room.wait(delivery)
        with self._lock:
            self._deliveries.append(delivery)
            was_empty = len(self._deliveries) == 1
        if dropped is not None:
            dropped.drop()
        return was_empty

    def oldest(self) -> Delivery | None:
        """Return the oldest delivery, which stays in the backlog; None if there is none."""
        try:
            return self._deliveries[0]
        except IndexError:
            return None

    def take_out(self, delivery: Delivery) -> bool:
        """Take out the oldest delivery. False if a reader has dropped it since."""
        try:
            self._deliveries.remove(delivery)
        except ValueError:
            return False
        self._room.made()
        return True

    def take(self) -> Delivery | None:
        """Take the oldest delivery out, or return None if there is none."""
        while (delivery := self.oldest()) is not None:
            if self.take_out(delivery):
                return delivery
        return None

    def _take_oldest_that_can_be_dropped(self) -> Delivery | None:
        for index in range(len(self._deliveries)):
            try:
                delivery = self._deliveries[index]
            except IndexError:  # the other thread takes out meanwhile
                break
            if delivery.can_be_dropped and self.take_out(delivery):
                return delivery
        return None
