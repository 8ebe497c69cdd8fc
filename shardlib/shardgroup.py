"""ShardGroup: the shards of a manager among which the bot's guilds are divided at one time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from shardlib.lifecycle import Life
from shardlib.managedshard import ManagedShard
from shardlib.patientgate import PatientGate
from shardlib.startorder import StartOrder
from shardlib.text import duration

# The bits of a snowflake below its time (https://docs.discord.com/developers/reference#snowflakes).
_TIME_SHIFT = 22


def shard_id_for(guild_id: int, shard_count: int) -> int:
    """The number of the shard that receives a guild's events.

    https://docs.discord.com/developers/events/gateway#sharding
    """
    return (guild_id >> _TIME_SHIFT) % shard_count


class ShardGroup:
    """Shards of one shard_count, and their start.

    :param shards: by number.
    :param shard_count: the number of the bot's shards, of which these may be a part.
    :param life: of the manager's, in which they run.
    :param socket_url: where they connect.
    :param gate: which they ask before they identify.
    :param max_concurrency: how many may identify at once.
    """

    def __init__(
        self,
        shards: Mapping[int, ManagedShard],
        shard_count: int,
        *,
        life: Life,
        socket_url: str,
        gate: PatientGate,
        max_concurrency: int,
    ) -> None:
        self.shards = shards
        self.shard_count = shard_count
        self.life = life
        self.socket_url = socket_url
        self._gate = gate
        self._max_concurrency = max_concurrency
        self._order = StartOrder((), max_concurrency)
        self.began_at = time.monotonic()
        #: What the manager's callbacks were told of the group, each once.
        self.is_ready_told = False
        self.is_division_told = False
        for shard in shards.values():  # of the life before, perhaps
            shard.await_turn()

    def begin(self) -> None:
        """Start the shards that have a session to resume; the others wait for :meth:`start_due`."""
        identifying = [each for each, shard in self.shards.items() if shard.session_id is None]
        self._order = StartOrder(identifying, self._max_concurrency)
        for shard_id, shard in self.shards.items():
            if shard_id not in identifying:
                shard.take_turn(self.socket_url)

    def start_due(self) -> float | None:
        """Start the shards whose turn to identify is near.

        :returns: seconds after which to call this again, None if a shard has to change before.
        """
        while True:
            due = self._order.take_due(
                lambda shard_id: self.shards[shard_id].is_under_way, self._gate.expected_wait
            )
            if not due.shard_ids:
                return due.wait
            # Again after these: one that the user has closed, or has started by hand, may never
            # change, and must not hold up the next bucket.
            for shard_id in due.shard_ids:
                self.shards[shard_id].take_turn(self.socket_url)

    def progress_of(self, shard_id: int) -> str:
        """Where the life of a shard is, in words."""
        shard = self.shards[shard_id]
        if not shard.was_begun and (wait := self._gate.expected_wait(shard_id)) > 0:
            return f"{shard.progress}, in {duration(math.ceil(wait))} at the earliest"
        return shard.progress

    def shard_id_for(self, guild_id: int) -> int:
        """The number of the shard that receives a guild's events, which may run elsewhere."""
        return shard_id_for(guild_id, self.shard_count)

    def shard_for(self, guild_id: int) -> ManagedShard | None:
        """The shard that receives a guild's events, None if it runs elsewhere."""
        return self.shards.get(self.shard_id_for(guild_id))

    @property
    def age(self) -> float:
        """Seconds since the group was made."""
        return time.monotonic() - self.began_at

    def note_ready_told(self) -> None:
        """Note that on_all_ready is about to be called, or was."""
        self.is_ready_told = True

    def note_division_told(self) -> None:
        """Note that on_resharding_needed was called."""
        self.is_division_told = True

    def is_older(self, other: ShardGroup) -> bool:
        """True if another group was made after this one, to replace it."""
        return self.began_at < other.began_at

    @property
    def expected(self) -> int:
        """How many shards are to be READY: all that the user has not closed by hand."""
        return sum(not shard.was_closed_by_hand for shard in self.shards.values())

    @property
    def needed(self) -> int:
        """How many shards have no session to resume, and so need an Identify."""
        return sum(shard.session_id is None for shard in self.shards.values())

    @property
    def ready(self) -> int:
        """How many shards are READY."""
        return sum(shard.is_ready for shard in self.shards.values())

    @property
    def progress(self) -> tuple[tuple[bool, bool, bool], ...]:
        """What there is to act on: which shards are under way, READY, or have ended."""
        return tuple(
            (shard.is_under_way, shard.is_ready, shard.is_over) for shard in self.shards.values()
        )

    @property
    def is_over(self) -> bool:
        """True if no shard runs, and none is to be started."""
        return not self._order.waiting and all(shard.is_over for shard in self.shards.values())

    @property
    def errors(self) -> dict[int, BaseException]:
        """What has closed shards for good, by their number."""
        return {
            shard_id: error
            for shard_id, shard in self.shards.items()
            if (error := shard.error) is not None
        }
