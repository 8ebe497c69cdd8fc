"""Resharding: from one group of shards to another, without a gap and without delivering twice.

Sessions of two shard counts may run side by side
(https://docs.discord.com/developers/events/gateway#sharding). The new shards connect while the old
ones go on, and hold the events that come to them; what an old shard delivers, too, they drop. When
all are READY, the old ones have caught up, and close; then the new ones deliver what is left. A new
shard that loses its connection or its session meanwhile gets it back as ever, while the old ones
still deliver. Guilds change shards, so all shards are replaced at once.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable

from shardlib.deadline import Deadline
from shardlib.errors import ShardsFailed
from shardlib.gateway import Intents
from shardlib.lifecycle import Life
from shardlib.managedshard import ManagedShard
from shardlib.managerlifecycle import ManagerLifecycle
from shardlib.reshardedevents import Holder, Recorder, ReshardedEvents
from shardlib.shardgroup import ShardGroup
from shardlib.text import count

# Seconds that a shard may be behind with what it has received. A connection that brings nothing any
# more is found out within Hello's interval, some 41 seconds, and then what it has missed comes.
_LONGEST_LAG = 60.0

# Seconds that a GUILD_CREATE may come after READY. A guild that takes longer has an outage.
_LONGEST_SNAPSHOT = 5.0

# Seconds for which events that are alike may come so quickly that it cannot be told which of them a
# new shard has got, too.
_LONGEST_SETTLING = 2.0

# Seconds between two looks at them: each takes a heartbeat, which has to fit into the send limit.
_SETTLING_INTERVAL = 0.1

# Seconds between two looks whether shards have caught up, of which nothing tells.
_POLL_INTERVAL = 0.02


class Resharding:
    """Moves from an old group of shards to a new one, on one thread.

    :param lifecycle: of the manager.
    :param old: the group that runs.
    :param new: the group that is to take its place, not begun.
    :param publish: called with the group that users see, and the groups that all threads are to see
        instead, of which users see the first; returns False if users see another one meanwhile.
    :param is_seen: returns True if users see the shards of a group.
    :param stop: closes the manager because of an error that is meant to end the program.
    :param log: called as :meth:`logging.Logger.log` is.
    :param close_timeout: seconds that a shard may take to close.
    """

    def __init__(
        self,
        lifecycle: ManagerLifecycle,
        old: ShardGroup,
        new: ShardGroup,
        *,
        publish: Callable[..., bool],
        is_seen: Callable[[ShardGroup], bool],
        stop: Callable[[BaseException], object],
        log: Callable[..., object],
        close_timeout: float,
    ) -> None:
        self._lifecycle = lifecycle
        self._old = old
        self._new = new
        self._publish = publish
        self._is_seen = is_seen
        self._stop = stop
        self._log = log
        self._close_timeout = close_timeout
        self._delivered = ReshardedEvents()
        self._is_settled = False  # True once one group goes on, and the other is closed
        self._holders = {
            shard: Holder(
                self._delivered,
                wait=shard.hold,
                wake=shard.wake,
                is_known=self._is_known,
                remove=functools.partial(shard.set_screen, None),
            )
            for shard in new.shards.values()
        }

    def run(self, life: Life, deadline: Deadline) -> None:
        """Move from the old group to the new one. Blocks the calling thread.

        :param life: the manager's.
        :param deadline: until when all new shards have to be READY; else the old ones go on.
        :raises TimeoutError: if they are not.
        :raises ShardsFailed: if an error has closed one of them.
        :raises ShardError: if the manager is closed meanwhile.
        """
        try:
            try:
                self._move(life, deadline)
            finally:
                self._settle()
        finally:
            if not self._is_settled:  # Ctrl-C may come at any time, and has split the call above
                self._settle()
        try:
            # What comes behind these answers was issued when the old shards were closed.
            self._await_answers(life, self._new)
        finally:
            self._delivered.forget(math.inf)
            for holder in self._holders.values():
                holder.finish()

    def _move(self, life: Life, deadline: Deadline) -> None:
        for shard, holder in self._holders.items():
            shard.set_screen(holder)
        for shard in self._old.shards.values():
            shard.set_screen(Recorder(self._delivered, self._is_awaited))
        self._take_place(self._old, self._new)
        self._new.begin()
        self._prepare(life, deadline)
        self._take_place(self._new, self._old)
        self._close(self._old)

    def _settle(self) -> None:
        """Have the group go on that users see, and no other."""
        if self._is_seen(self._new):
            self._go_on_with_new()
        else:
            self._go_on_with_old()
        self._is_settled = True

    @property
    def repeats(self) -> int:
        """How many events came to an old shard and to a new one, and were delivered once."""
        return self._delivered.repeats

    def _is_known(self, guild_id: int) -> bool:
        """True if an old shard has told of a guild. One that is over may never have been READY."""
        shard = self._old.shard_for(guild_id)
        return shard is not None and shard.session_id is not None and not shard.is_over

    def _is_awaited(self, guild_id: int) -> bool:
        """True if the events of a guild come to a new shard, or are about to."""
        shard = self._new.shard_for(guild_id)
        return shard is not None and shard.has_identified

    def _prepare(self, life: Life, deadline: Deadline) -> None:
        """Wait until the new shards can take over: all that they do not have is delivered."""
        settling: Deadline | None = None
        answered: list[str | None] = []
        caught_up_at = math.inf
        is_prepared = False
        while not is_prepared:
            self._await_ready(life, deadline)
            self._await_snapshots(life)
            sessions, asked_at = self._new_sessions(), time.monotonic()
            late = self._await_answers(life, self._old, self._new)
            if life.is_over:
                raise life.closed_error()
            if sessions != answered:
                answered, caught_up_at = sessions, time.monotonic()
            settling = settling or Deadline(_LONGEST_SETTLING)
            self._delivered.forget(asked_at)
            is_certain = self._delivered.is_certain(caught_up_at)
            is_settled = bool(late) or is_certain or settling.remaining() == 0
            if not is_settled:
                self._wait(life, lambda: False, Deadline(_SETTLING_INTERVAL))
            all_ready = self._new.ready == len(self._new.shards)
            is_prepared = is_settled and all_ready and sessions == self._new_sessions()
        if late:
            self._log(
                logging.WARNING,
                "some shards are behind by more than %s, and what those of the old ones have not "
                "delivered is lost: %s",
                count(_LONGEST_LAG, "second"),
                ", ".join(f"{shard.shard_id} of {shard.shard_count}" for shard in late),
            )

    def _new_sessions(self) -> list[str | None]:
        return [shard.session_id for shard in self._new.shards.values()]

    def _await_ready(self, life: Life, deadline: Deadline) -> None:
        new = self._new
        while True:
            seen = new.progress  # first: what comes while the rest is looked at ends the wait, too
            if new.ready == len(new.shards):
                return
            if life.is_over:
                raise life.closed_error()
            errors = new.errors
            for error in errors.values():
                if not isinstance(error, Exception):  # a callback raised SystemExit, or its like
                    self._stop(error)
                    raise life.closed_error()
            if errors:
                raise ShardsFailed(errors)
            if deadline.remaining() == 0:
                raise TimeoutError(
                    f"{new.ready} of {count(len(new.shards), 'new shard')} were ready in time; "
                    f"they are closed again, and the {len(self._old.shards)} old ones go on"
                )
            wait = new.start_due()
            until = deadline if wait is None else Deadline(wait).earlier(deadline)
            self._await_progress(life, seen, until)

    def _await_progress(self, life: Life, seen: object, until: Deadline) -> None:
        self._wait(life, lambda: self._new.progress != seen, until)

    def _wait(self, life: Life, condition: Callable[[], bool], deadline: Deadline) -> None:
        """Wait until a condition holds, or the manager is closed.

        Not for the end of its life, which may need the calling thread.
        """
        self._lifecycle.wait_in(life, lambda: life.is_over or condition(), deadline)

    def _await_snapshots(self, life: Life) -> None:
        """Wait for the guilds that READY listed. Without the intent, none would come."""
        holders = self._holders
        if Intents.GUILDS & next(iter(holders)).intents:
            deadline = Deadline(_LONGEST_SNAPSHOT)
            while not all(holder.is_complete for holder in holders.values()):
                if deadline.remaining() == 0 or life.is_over:
                    break
                self._wait(life, lambda: False, Deadline(_POLL_INTERVAL))
        for holder in holders.values():
            holder.expect_no_more()

    def _await_answers(self, life: Life, *groups: ShardGroup) -> list[ManagedShard]:
        """Wait until the shards of groups have handled what was issued to them before.

        :returns: those that have not, as they are too far behind.
        """
        shards = [shard for group in groups for shard in group.shards.values()]
        waiting = {shard: shard.ask_for_answer() for shard in shards}
        deadline = Deadline(_LONGEST_LAG)
        while not life.is_over:
            waiting = {shard: ask for shard, ask in waiting.items() if not ask()}
            if not waiting or deadline.remaining() == 0:
                break
            self._wait(life, lambda: False, Deadline(_POLL_INTERVAL))
        return list(waiting)

    def _go_on_with_old(self) -> None:
        for shard in self._old.shards.values():
            shard.set_screen(None)
        try:
            self._close(self._new)
        finally:
            self._publish(self._old, self._old)

    def _go_on_with_new(self) -> None:
        for shard in self._old.shards.values():  # again, if Ctrl-C came before
            shard.retire()
        self._delivered.switch()
        self._publish(self._new, self._new)

    def _take_place(self, *groups: ShardGroup) -> None:
        """Let all threads see groups instead of the old one alone.

        :raises ShardError: if that is not theirs to see any more: the manager was closed meanwhile.
        """
        if not self._publish(self._old, *groups):
            raise self._old.life.closed_error()

    def _close(self, group: ShardGroup) -> None:
        shards = list(group.shards.values())
        for shard in shards:
            shard.retire()
        # The callbacks, too: a pool may keep events back until others have returned, and must get
        # no later ones of their guilds meanwhile.
        self._lifecycle.wait(
            lambda: all(
                shard.has_ended and shard.are_callbacks_done(self._lifecycle.is_waited_for_by)
                for shard in shards
            ),
            Deadline(self._close_timeout),
        )
