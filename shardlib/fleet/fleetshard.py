"""FleetShard: a shard that a worker of a fleet has claimed."""

from __future__ import annotations

import contextlib
from collections.abc import Container
from typing import Any

from shardlib.deadline import Deadline
from shardlib.errors import NotReady
from shardlib.fleet.errors import FleetError
from shardlib.fleet.outbox import Outbox
from shardlib.fleet.scripts import Appended, Claim, Outcome, Report, Reported, ShardScripts
from shardlib.gateway import RESUMABLE_CLOSE_CODE
from shardlib.limits import Gate
from shardlib.managedshard import ManagedShard
from shardlib.session import Session

# Seconds after which Redis is asked again that could not say whose the shard is.
_RETRY = 1.0


class FleetShard(ManagedShard):
    """A shard of a worker, which puts its events into an outbox. Users see a Shard.

    :param token: of the bot, as are `intents` and `shard_count`.
    :param shard_id: number of the shard.
    :param session: to resume, or None.
    :param lease_token: with which the worker has claimed the shard.
    :param claim: what Redis has answered to that.
    :param outbox: for its events.
    :param forward: the names of the events that are forwarded, None for all.
    :param scripts: to ask whose the shard is.
    :param identify_gate: which the shard passes before it identifies.
    :param options: of the Shard.
    """

    def __init__(
        self,
        token: str,
        intents: int,
        shard_id: int,
        shard_count: int,
        *,
        session: Session | None,
        lease_token: str,
        claim: Claim,
        outbox: Outbox,
        forward: Container[str] | None,
        scripts: ShardScripts,
        identify_gate: Gate,
        **options: Any,
    ) -> None:
        super().__init__(
            token,
            intents,
            shard_id,
            shard_count,
            session=session,
            acknowledge="manual",
            session_gate=self,
            identify_gate=self,
            **options,
        )
        self.outbox = outbox
        self.lease_token = lease_token
        self.fence = claim.fence
        #: True once Redis has said that another worker has claimed the shard. The reader and the
        #: worker's thread set it, and nothing clears it.
        self.is_fenced = False
        #: True while Redis has lost the shard's state, and it is to be claimed again.
        self.is_lost = False
        #: True once the worker hands the shard over to another.
        self.is_leaving = False
        #: True once the log has told that the shard was closed by an error of its own.
        self.has_failed = False
        #: True if there may be commands for the shard in Redis. The worker's thread sets it, the
        #: thread of the commands clears it before it looks.
        self.has_commands = True
        self._told_state = ""
        self._forward = forward
        self._scripts = scripts
        self._identify_gate = identify_gate

    # The reader

    def on_socket_text(self, event: str, sequence: int | None, text: bytes) -> None:
        """Put an event into the outbox; wait if that is full."""
        session = self._reader.protocol.session
        session_id = session.session_id
        if session_id is None or sequence is None:
            return  # from another server than Discord's: no Resume could name the event
        # RESUMED is about the connection, and no Resume repeats it: the next owner has its own.
        forward = event != "RESUMED" and (self._forward is None or event in self._forward)
        outbox = self.outbox
        if not outbox.has_room:
            self._lifecycle.wait_for_room(lambda: outbox.has_room, lambda thread: False)
        outbox.put(session_id, session.resume_gateway_url, sequence, text if forward else None)

    def may_resume(self, shard_id: int, session_id: str) -> bool:
        """Ask Redis whether the shard is still ours, until it answers: its session gate.

        If the life ends meanwhile, the reader does not resume, whatever the answer.
        """
        life = self._lifecycle.life
        while not self._is_known_as_ours():
            if self.is_fenced:
                return False
            if self._lifecycle.wait(lambda: life.is_over, Deadline(_RETRY)):
                break
        self.outbox.resume_begins()
        return True

    def try_acquire(self, shard_id: int) -> float:
        """Ask Redis whether the shard is still ours, and may identify: its identify gate."""
        wait = self._identify_gate.try_acquire(shard_id) if self._is_known_as_ours() else _RETRY
        if wait == 0:
            self.outbox.session_begins()
        return wait

    def _is_known_as_ours(self) -> bool:
        """False if another worker has claimed the shard, or Redis cannot say.

        A shard of which Redis knows nothing is ours: we are the first to claim it again.
        """
        shard_id = self.shard_id
        try:
            answer = self._scripts.renew({shard_id: self.lease_token})[shard_id]
        except FleetError:
            return False
        if answer is Outcome.FENCED:
            self.is_fenced = True
        return answer in (Outcome.RENEWED, Outcome.LOST)

    # The worker's thread

    @property
    def takes_appends(self) -> bool:
        """True if Redis would take events of the shard from this worker, as far as is known."""
        return not (self.is_lost or self.is_fenced)

    @property
    def has_news(self) -> bool:
        """True if Redis does not know the shard's state."""
        return self.state.value != self._told_state

    def make_report(self) -> Report:
        """What Redis is told of the shard."""
        return Report(self.lease_token, self.state.value, self.heartbeat_ping)

    def take_in(self, report: Report, answer: Reported) -> None:
        """Note what Redis has answered to a report."""
        if answer.outcome is Outcome.FENCED:
            self.is_fenced = True
        elif answer.outcome is Outcome.LOST:
            self.is_lost = True
        else:
            self._told_state = report.state
            if answer.commands:
                self.has_commands = True

    def note_appended(self, answer: Appended, now: float) -> None:
        """Note that a batch is in Redis, which makes room for others.

        :param answer: of Redis.
        :param now: seconds of a monotonic clock.
        """
        session_id, sequence = self.outbox.appended(answer.epoch, answer.sequence, now)
        # The session may have ended meanwhile, and the next one have the same id.
        with contextlib.suppress(ValueError):
            self.acknowledge(session_id, sequence)
        self.wake()

    def rewind_to(self, sequence: int) -> None:
        """After REGRESSED, when the Gateway alone has the events that Redis has lost."""
        # The session may have ended meanwhile. Then the next one begins with a gap.
        with contextlib.suppress(NotReady, ValueError):
            self.outbox.rewind(sequence, self.rewind)

    def start_anew(self, socket_url: str, *, new_session: bool) -> None:
        """Connect again, also after an error has closed the shard. Any thread.

        :param socket_url: where to connect if the shard is closed.
        :param new_session: True to begin a new session.
        """
        # A shard whose turn to start comes yet is about to connect anyway.
        if self.was_begun:
            self.has_failed = False
            self.request_restart(socket_url, new_session=new_session)

    def leave(self) -> None:
        """Close the shard such that another worker can resume its session."""
        self.is_leaving = True
        self.disconnect(RESUMABLE_CLOSE_CODE, wait=False)

    def drop(self) -> None:
        """Close the shard, which another worker has claimed: what it has is not written."""
        self.leave()
        self.outbox.clear()

    @property
    def is_handed_over(self) -> bool:
        """True if the shard is closed, and Redis has all its events."""
        return self.is_leaving and self.has_ended and self.outbox.is_empty
