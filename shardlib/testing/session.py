"""A session as the gateway sees it: what was issued to it, and what it keeps for a replay."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from shardlib.gateway import Intents
from shardlib.testing.clock import Clock
from shardlib.testing.events import Event
from shardlib.testing.payloads import encode
from shardlib.testing.rules import Rules


class Carrier(Protocol):
    """What a session needs of the connection that carries it; the gateway's lock is held."""

    @property
    def handle(self) -> Any:
        """The connection as tests know it."""

    @property
    def is_read(self) -> bool:
        """Whether the WebSocket is open and the gateway reads from it."""

    @property
    def unsent(self) -> int:
        """Bytes that wait because the client, or a fault, is slow."""

    def send_event(self, name: str, sequence: int, data: bytes) -> None:
        """Send one event, or nothing if the connection is over."""

    def release(self, code: int, reason: str) -> None:
        """Carry the session no longer, and close the connection with this code."""


class Session:
    """Begun by Identify, carried on by Resume, replayed from what it keeps.

    The gateway's lock guards it.

    :param identify: the data of the Identify that begins it.
    :param carrier: the connection that Identify came on.
    :param rules: the gateway's rules.
    :param clock: the gateway's clock.
    :param represent: makes the handle by which tests know the session.
    """

    def __init__(
        self,
        identify: dict[str, Any],
        carrier: Carrier,
        *,
        rules: Rules,
        clock: Clock,
        represent: Callable[[Session], Any],
    ) -> None:
        self.session_id = uuid.uuid4().hex
        self.identify = identify
        self.intents = Intents(identify["intents"])
        self.shard: tuple[int, int] = tuple(identify.get("shard") or (0, 1))
        self.presence: dict[str, Any] | None = identify.get("presence")
        #: None while its client is away.
        self.carrier: Carrier | None = carrier
        self.sequence = 0
        self.resumes = 0
        #: Why it is over; None while it may be resumed.
        self.ended: str | None = None
        self._clock = clock
        self._mask = int(self.intents)
        # When its client went away, by the gateway's clock.
        self._left_at: float | None = None
        # What can be replayed: sequence, name and data. Bounded, so that a gateway may run for
        # days.
        self._kept: deque[tuple[int, str, bytes]] = deque(maxlen=rules.replay_limit)
        #: The session as tests know it.
        self.handle = represent(self)

    def wants(self, event: Event) -> bool:
        """Return whether intents and shard let an event through."""
        if event.intents and not event.intents & self._mask:
            return False
        shard_id, shards = self.shard
        if event.guild_id is None:
            return shard_id == 0
        return (event.guild_id >> 22) % shards == shard_id

    def issue_event(self, event: Event) -> None:
        """Issue an event as far as the session's intents let it see."""
        self.issue(event.name, event.text(self._mask))

    def issue(self, name: str, data: bytes, *, keep: bool = True) -> int:
        """Number an event, keep it for a replay, and send it.

        :param name: the event's name.
        :param data: its ``d``, as JSON.
        :param keep: False for an event that is never replayed.
        :returns: its sequence.
        """
        self.sequence += 1
        if keep:
            self._kept.append((self.sequence, name, data))
        if self.carrier is not None:
            self.carrier.send_event(name, self.sequence, data)
        return self.sequence

    def can_replay(self, sequence: int) -> bool:
        """Return whether everything after this sequence is still kept."""
        return not self._kept or sequence + 1 >= self._kept[0][0] or sequence >= self.sequence

    def resume(self, carrier: Carrier, sequence: int) -> None:
        """Carry on with another connection: replay, then RESUMED.

        :param carrier: the connection that Resume came on.
        :param sequence: the last sequence that the client has seen.
        """
        self.carrier = carrier
        self._left_at = None
        self.resumes += 1
        for number, name, data in self._kept:
            if number > sequence:
                carrier.send_event(name, number, data)
        # RESUMED takes a number as every dispatch does, but is never replayed itself: in the
        # middle of a later replay it would seem to be its end.
        self.issue("RESUMED", encode({"_trace": ["local-gateway"]}), keep=False)

    def set_presence(self, presence: dict[str, Any]) -> None:
        """Remember the presence that the client has set."""
        self.presence = presence

    def leave(self) -> None:
        """Wait for a Resume: the client is away."""
        self.carrier = None
        self._left_at = self._clock()

    def end(self, reason: str) -> None:
        """End for good; a session that has ended keeps its first reason."""
        if self.ended is None:
            self.ended = reason
        self.carrier = None
        self._kept.clear()

    def away_for(self) -> float:
        """Return for how many seconds its client has been away; 0.0 while it is connected."""
        return 0.0 if self._left_at is None else self._clock() - self._left_at
