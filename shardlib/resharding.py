"""Resharding: from one group of shards to another, without a gap and without delivering twice.

Sessions of two shard counts may run side by side
(https://docs.discord.com/developers/events/gateway#sharding). The new shards connect while the old
ones go on. Each is held at its READY: its reader waits there, so that what follows stays in the
network. When all are READY, the old shards deliver what they have received, and close; then the new
ones go on, and leave out what an old one has delivered. Guilds change shards, so all shards are
replaced at once.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from shardlib.deadline import Deadline
from shardlib.delivered import Delivered, Holder, Recorder
from shardlib.errors import NotReady, ShardsFailed
from shardlib.gateway import NORMAL_CLOSURE
from shardlib.lifecycle import Life
from shardlib.managedshard import ManagedShard
from shardlib.managerlifecycle import ManagerLifecycle
from shardlib.patientgate import PatientGate
from shardlib.shardgroup import ShardGroup
from shardlib.text import count

# Seconds that an old shard may be behind with what it has received.
_LONGEST_LAG = 10.0

# Seconds between two looks whether it has caught up, of which nothing tells.
_POLL_INTERVAL = 0.02


class Resharding:
    """The way from an old group of shards to a new one. One thread goes it.

    :param lifecycle: of the manager.
    :param old: the group that runs.
    :param new: the group that is to take its place, not begun.
    :param gate: which the new shards ask before they identify.
    :param publish: lets all threads see groups; the first is the one that users see.
    :param log: called as :meth:`logging.Logger.log` is.
    :param close_timeout: seconds that a shard may take to close.
    """

    def __init__(
        self,
        lifecycle: ManagerLifecycle,
        old: ShardGroup,
        new: ShardGroup,
        *,
        gate: PatientGate,
        publish: Callable[..., object],
        log: Callable[..., object],
        close_timeout: float,
    ) -> None:
        self._lifecycle = lifecycle
        self._old = old
        self._new = new
        self._publish = publish
        self._log = log
        self._close_timeout = close_timeout
        self._delivered = Delivered()
        self._holders = {
            shard: Holder(
                self._delivered,
                wait=shard.hold,
                identified_at=functools.partial(gate.passed_at, shard_id),
                remove=functools.partial(shard.set_screen, None),
            )
            for shard_id, shard in new.shards.items()
        }

    def run(self, life: Life, deadline: Deadline) -> None:
        """Go it. Blocks the calling thread.

        :param life: the manager's.
        :param deadline: until when all new shards have to be READY; else the old ones go on.
        :raises TimeoutError: if they are not.
        :raises ShardsFailed: if an error has closed one of them.
        :raises ShardError: if the manager is closed meanwhile.
        """
        for shard, holder in self._holders.items():
            shard.set_screen(holder)
        recorder = Recorder(self._delivered)
        for shard in self._old.shards.values():
            shard.set_screen(recorder)
        self._publish(self._old, self._new)
        try:
            self._new.begin()
            self._await_ready(life, deadline)
            self._let_catch_up(life)
        except BaseException:
            for shard in self._old.shards.values():
                shard.set_screen(None)
            self._close(self._new)
            self._publish(self._old)
            raise
        self._publish(self._new, self._old)
        self._close(self._old)
        for shard, holder in self._holders.items():
            holder.release()
            shard.wake()
        self._publish(self._new)

    @property
    def repeats(self) -> int:
        """How many events came to an old shard and to a new one, and were delivered once."""
        return self._delivered.repeats

    def _await_ready(self, life: Life, deadline: Deadline) -> None:
        new = self._new
        while new.ready < len(new.shards):
            if new.errors:
                raise ShardsFailed(new.errors)
            wait = new.start_due()
            until = deadline if wait is None else Deadline(wait).earlier(deadline)
            self._await_progress(life, new.progress, until)
            if life.is_over:
                raise life.closed_error()
            if deadline.remaining() == 0:
                raise TimeoutError(
                    f"{new.ready} of {count(len(new.shards), 'new shard')} were ready in time; "
                    f"they are closed again, and the {len(self._old.shards)} old ones go on"
                )

    def _await_progress(self, life: Life, seen: object, until: Deadline) -> None:
        self._lifecycle.wait_in(life, lambda: self._new.progress != seen, until)

    def _let_catch_up(self, life: Life) -> None:
        """Wait until the old shards have delivered what came before the new ones were READY.

        The answer to a heartbeat comes behind all that.
        """
        waiting: dict[ManagedShard, float | None] = {}
        for shard in self._old.shards.values():
            if not shard.is_over:
                waiting[shard] = shard.heartbeat_clock_time
                try:
                    shard.heartbeat()
                except NotReady:
                    pass  # the connection is lost: a Resume brings the rest
        deadline = Deadline(_LONGEST_LAG)
        while waiting and deadline.remaining() and not life.is_over:
            waiting = {
                shard: before for shard, before in waiting.items() if not shard.is_answered(before)
            }
            if waiting:
                self._lifecycle.wait(lambda: life.is_over, Deadline(_POLL_INTERVAL))
        if waiting and not life.is_over:
            self._log(
                logging.WARNING,
                "of the old shards, some are behind by more than %s, and what they have not "
                "delivered is lost: %s",
                count(_LONGEST_LAG, "second"),
                ", ".join(str(shard.shard_id) for shard in waiting),
            )

    def _close(self, group: ShardGroup) -> None:
        shards = list(group.shards.values())
        for shard in shards:
            shard.disconnect(NORMAL_CLOSURE, wait=False)
        self._lifecycle.wait(
            lambda: all(shard.has_ended for shard in shards), Deadline(self._close_timeout)
        )
