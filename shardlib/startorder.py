"""Which shards of many are to start when: buckets in order, a socket only when its slot is near.

No thread, lock or clock is in here.
https://docs.discord.com/developers/events/gateway#sharding-max-concurrency
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

# Seconds before its identify slot that the socket of a shard is opened: name, TCP, TLS and Hello
# take about one. A socket that is opened much sooner is closed by the Gateway before its turn.
LEAD = 1.0


class Due(NamedTuple):
    """What to do now.

    :param shard_ids: of the shards to start, in order.
    :param wait: seconds after which to ask again, None if only a shard can change anything.
    """

    shard_ids: list[int]
    wait: float | None


class StartOrder:
    """The shards that are still to start with an Identify.

    Discord calls `max_concurrency` shards a bucket: 0 to 15, then 16 to 31, if it is 16. The shards
    of a bucket may start at once, and the buckets have to start in order. A bucket counts as
    started when each of its shards has identified, or has failed to: one that cannot connect holds
    up no other.

    :param shard_ids: of the shards, in any order.
    :param max_concurrency: as Get Gateway Bot gives it.
    """

    def __init__(self, shard_ids: Iterable[int], max_concurrency: int) -> None:
        self._max_concurrency = max_concurrency
        self._waiting = sorted(shard_ids)
        self._begun: list[int] = []  # of the current bucket

    @property
    def waiting(self) -> tuple[int, ...]:
        """The shards that have not started."""
        return tuple(self._waiting)

    def take_due(
        self, is_under_way: Callable[[int], bool], expected_wait: Callable[[int], float]
    ) -> Due:
        """Take the shards out that are to start now.

        :param is_under_way: True for the number of a shard that was started, and has neither
            identified nor failed to.
        :param expected_wait: seconds until a shard may identify.
        """
        self._begun = [shard_id for shard_id in self._begun if is_under_way(shard_id)]
        if not self._waiting or (self._begun and self._bucket(self._begun[0]) != self._next_bucket):
            return Due([], None)
        waits = {
            shard_id: expected_wait(shard_id) - LEAD
            for shard_id in self._waiting
            if self._bucket(shard_id) == self._next_bucket
        }
        due = [shard_id for shard_id, wait in waits.items() if wait <= 0]
        self._waiting = [shard_id for shard_id in self._waiting if shard_id not in due]
        self._begun += due
        return Due(due, min((wait for wait in waits.values() if wait > 0), default=None))

    @property
    def _next_bucket(self) -> int:
        return self._bucket(self._waiting[0])

    def _bucket(self, shard_id: int) -> int:
        return shard_id // self._max_concurrency
