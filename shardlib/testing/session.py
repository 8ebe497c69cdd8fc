"""A session at the gateway, with the events that the session keeps for a replay."""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from shardlib.gateway import Intents
from shardlib.testing.clock import Clock
from shardlib.testing.events import Event
from shardlib.testing.payloads import encode
from shardlib.testing.rules import Rules


class IssuedEvent(NamedTuple):
    """An event that the gateway issued to a session, whether or not a client got the event."""

    #: The event's sequence in the session.
    sequence: int
    #: The event's name.
    name: str
    #: The event's ``d``, as JSON.
    text: bytes

    @property
    def data(self) -> Any:
        """The event's ``d``, decoded."""
        return json.loads(self.text)


class Carrier(Protocol):
    """The methods and attributes of a connection that the connection's session uses.

    The callers hold the gateway's lock.
    """

    @property
    def handle(self) -> Any:
        """The :class:`GatewayConnection` through which tests see the connection."""

    @property
    def is_read(self) -> bool:
        """Whether the WebSocket is open and the gateway reads from it."""

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent, because the client reads slowly or a fault slows sending."""

    def send_event(self, name: str, sequence: int, data: bytes) -> None:
        """Send one event, if the WebSocket is open.

        :param name: the event's name.
        :param sequence: the event's sequence in the session.
        :param data: the event's ``d``, as JSON.
        """

    def send_op(self, opcode: int, data: Any) -> None:
        """Send a payload that is no event, if the WebSocket is open.

        :param opcode: the payload's ``op``.
        :param data: the payload's ``d``.
        """

    def release(self, code: int, reason: str) -> None:
        """Stop carrying the session, and close the connection.

        :param code: the close code.
        :param reason: the reason in the CLOSE frame.
        """


class Session:
    """One session: begun by an Identify, continued by any number of Resumes.

    The session keeps the newest events for a replay. The callers hold the gateway's lock.

    :param identify: the ``d`` of the Identify that begins the session.
    :param intents: the intents that the session gets events by. In older API versions an Identify
        need not name them all.
    :param carrier: the connection that the Identify arrived on.
    :param rules: the gateway's rules.
    :param clock: the gateway's clock.
    :param make_handle: makes the :class:`GatewaySession` of a session.
    """

    def __init__(
        self,
        identify: dict[str, Any],
        intents: Intents,
        carrier: Carrier,
        *,
        rules: Rules,
        clock: Clock,
        make_handle: Callable[[Session], Any],
    ) -> None:
        self.session_id = uuid.uuid4().hex
        self.identify = identify
        self.intents = intents
        self.shard: tuple[int, int] = tuple(identify.get("shard") or (0, 1))
        self.presence: dict[str, Any] | None = identify.get("presence")
        #: The connection that carries the session; None while the client is disconnected.
        self.carrier: Carrier | None = carrier
        #: The sequence of the last event issued.
        self.sequence = 0
        #: The highest sequence that a heartbeat or Resume of the client has named.
        self.acknowledged = 0
        #: How often the client has resumed the session.
        self.resumes = 0
        #: Whether the session only lasts until its client disconnects, and no Resume can succeed.
        self.is_lost = False
        #: Why the session has ended; None while the session is connected or a Resume may succeed.
        self.ended: str | None = None
        self._clock = clock
        # An int, since arithmetic on flags is slow.
        self._intent_bits = int(self.intents)
        # When the client disconnected, by the gateway's clock; None while the client is connected.
        self._left_at: float | None = None
        # The events that a Resume can replay. Bounded, so that a gateway that runs for days does
        # not fill the memory.
        self._kept: deque[IssuedEvent] = deque(maxlen=rules.replay_limit)
        #: All events issued; None if the gateway keeps no history.
        self.history: list[IssuedEvent] | None = [] if rules.keep_history else None
        #: The :class:`GatewaySession` through which tests see this session.
        self.handle = make_handle(self)

    def wants(self, event: Event) -> bool:
        """Return whether an event belongs to the session's intents and to its shard.

        :param event: the event.
        """
        if event.intents and not event.intents & self._intent_bits:
            return False
        if event.guild_id is None:
            return self.shard[0] == 0
        return self.has_guild(event.guild_id)

    def has_guild(self, guild_id: int) -> bool:
        """Return whether a guild belongs to the session's shard (Gateway, "Sharding Formula").

        :param guild_id: the guild's id.
        """
        shard_id, shard_count = self.shard
        return (guild_id >> 22) % shard_count == shard_id

    def issue_event(self, event: Event) -> None:
        """Issue an event, without the content that the session's intents do not include.

        :param event: the event.
        """
        self.issue(event.name, event.text(self._intent_bits))

    def issue(self, name: str, data: bytes, *, keep: bool = True) -> int:
        """Give an event its sequence, keep the event for a replay, and send the event if possible.

        :param name: the event's name.
        :param data: the event's ``d``, as JSON.
        :param keep: False for an event that a Resume must not replay.
        :returns: the event's sequence.
        """
        self.sequence += 1
        event = IssuedEvent(self.sequence, name, data)
        if keep:
            self._kept.append(event)
        if self.history is not None:
            self.history.append(event)
        if self.carrier is not None:
            self.carrier.send_event(name, self.sequence, data)
        return self.sequence

    def can_replay(self, sequence: int) -> bool:
        """Return whether the session keeps every event after a sequence.

        :param sequence: the sequence of the last event that the client has received.
        """
        return not self._kept or sequence + 1 >= self._kept[0][0] or sequence >= self.sequence

    def resume(self, carrier: Carrier, sequence: int) -> None:
        """Continue on another connection: send the missed events, then RESUMED.

        :param carrier: the connection that the Resume arrived on.
        :param sequence: the sequence of the last event that the client has received.
        """
        self.carrier = carrier
        self._left_at = None
        self.acknowledge(sequence)
        self.resumes += 1
        for number, name, data in self._kept:
            if number > sequence:
                carrier.send_event(name, number, data)
        # RESUMED has a sequence as every event has. But no later Resume must replay RESUMED, which
        # would tell the client that the later replay is complete.
        self.issue("RESUMED", encode({"_trace": ["local-gateway"]}), keep=False)

    def acknowledge(self, sequence: int) -> None:
        """Record that the client has received an event, and all before.

        :param sequence: the event's sequence.
        """
        self.acknowledged = max(self.acknowledged, min(sequence, self.sequence))

    def set_presence(self, presence: dict[str, Any]) -> None:
        """Remember the presence that the client has set.

        :param presence: the ``d`` of Presence Update.
        """
        self.presence = presence

    def leave(self) -> None:
        """Record that the client has disconnected, so that a Resume may continue the session."""
        self.carrier = None
        self._left_at = self._clock()
        if self.is_lost:
            self.end("lost")

    def lose(self) -> None:
        """Let no later Resume succeed. The session ends when its client disconnects."""
        self.is_lost = True
        if self.carrier is None:
            self.end("lost")

    def end(self, reason: str) -> None:
        """End the session, so that no Resume can continue it.

        :param reason: why the session ends. The reason of the first call stays.
        """
        if self.ended is None:
            self.ended = reason
        self.carrier = None
        self._kept.clear()

    def away_for(self) -> float:
        """Return the seconds since the client disconnected; 0.0 while the client is connected."""
        return 0.0 if self._left_at is None else self._clock() - self._left_at
