"""Writer: what takes the events of all shards of a worker to Redis.

It has no thread of its own. The worker's thread calls it, which alone renews, claims and releases,
too: so no answer of Redis about a shard can overtake another.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from shardlib.fleet.errors import FleetError
from shardlib.fleet.fleetshard import FleetShard
from shardlib.fleet.scripts import Appended, Outcome, ShardScripts

# Seconds from one write to the next, unless so many events wait: a batch costs as much processor
# time as several events in it, here and in Redis, and so does a read of a consumer.
_LINGER = 0.05
_WORTH_A_WRITE = 200


class Writer:
    """Appends what is in the outboxes of shards.

    :param scripts: to append with.
    :param shards: returns the shards of the worker, by number.
    :param log: called as :meth:`logging.Logger.log` is.
    """

    def __init__(
        self,
        scripts: ShardScripts,
        shards: Callable[[], Mapping[int, FleetShard]],
        log: Callable[..., object],
    ) -> None:
        self._scripts = scripts
        self._shards = shards
        self._log = log
        self.written = 0  # events
        self.batches = 0
        self.refused = 0  # batches, since another worker has claimed the shard
        self.regressions = 0  # how often Redis had lost newest events of a shard
        self._next_write = 0.0  # unless many events wait

    @property
    def waiting(self) -> int:
        """How many events wait. Any thread."""
        return sum(shard.outbox.waiting for shard in self._shards().values())

    @property
    def has_some(self) -> bool:
        """True if there are events that can be appended now."""
        return any(
            shard.takes_appends and not shard.outbox.is_empty for shard in self._shards().values()
        )

    @property
    def wait(self) -> float:
        """Seconds to wait for more events before the next write."""
        linger = self._next_write - time.monotonic()
        return 0.0 if linger <= 0 or self.waiting >= _WORTH_A_WRITE else linger

    def write(self) -> bool:
        """Append one batch of each shard, all in one pipeline.

        :returns: False if there was nothing to append.
        :raises RedisAway: if Redis does not answer, or takes no writes.
        :raises FleetError: if Redis refuses a batch; those of other shards were appended.
        """
        shards = self._shards()
        batches = {
            shard_id: batch
            for shard_id, shard in shards.items()
            if shard.takes_appends
            and (batch := shard.outbox.next_batch(shard.lease_token)) is not None
        }
        if not batches:
            return False
        now = time.monotonic()
        self._next_write = now + _LINGER
        failure: FleetError | None = None
        for shard_id, answer in self._scripts.append(batches).items():
            if isinstance(answer, FleetError):
                failure = answer
            else:
                self.batches += 1
                self._take_in(shards[shard_id], answer, len(batches[shard_id].events), now)
        if failure is not None:
            raise failure
        return True

    def _take_in(self, shard: FleetShard, answer: Appended, count: int, now: float) -> None:
        if answer.outcome is Outcome.APPENDED:
            self.written += count
            shard.note_appended(answer, now)
        elif answer.outcome is Outcome.REGRESSED:
            self.regressions += 1
            repeats = shard.outbox.repeat(answer.epoch)
            self._log(
                logging.WARNING,
                "Redis has lost the newest events of shard %d, as in a crash or a failover: %s",
                shard.shard_id,
                "they are written again" if repeats else "the Gateway is asked for them",
            )
            if not repeats:
                shard.rewind_to(answer.sequence)
        elif answer.outcome is Outcome.LOST:
            shard.is_lost = True
        else:
            self.refused += 1
            shard.is_fenced = True
