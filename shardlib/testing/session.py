"""A session at the gateway: the events issued to it, and those that it keeps for a replay."""

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
    """What a session needs of the connection that carries it.

    The callers hold the gateway's lock.
    """

    @property
    def handle(self) -> Any:
        """The handle by which tests know the connection."""

    @property
    def is_read(self) -> bool:
        """Whether the WebSocket is open and the gateway reads from it."""

    @property
    def unsent(self) -> int:
        """Bytes that are not sent yet, because the client reads slowly or a fault slows sending."""

    def send_event(self, name: str, sequence: int, data: bytes) -> None:
        """Send one event, if the WebSocket is open.

        :param name: the event's name.
        :param sequence: the event's sequence in the session.
        :param data: the event's ``d``, as JSON.
        """

    def release(self, code: int, reason: str) -> None:
        """Stop carrying the session, and close the connection.

        :param code: the close code.
        :param reason: the reason in the CLOSE frame.
        """


class Session:
    """One session: begun by an Identify, continued by any number of Resumes.

    The session keeps the last events for a replay. The gateway's lock guards it.

    :param identify: the ``d`` of the Identify that begins the session.
    :param carrier: the connection that the Identify arrived on.
    :param rules: the gateway's rules.
    :param clock: the gateway's clock.
    :param make_handle: makes the handle by which tests know the session.
    """

    def __init__(
        self,
        identify: dict[str, Any],
        carrier: Carrier,
        *,
        rules: Rules,
        clock: Clock,
        make_handle: Callable[[Session], Any],
    ) -> None:
        self.session_id = uuid.uuid4().hex
        self.identify = identify
        self.intents = Intents(identify["intents"])
        self.shard: tuple[int, int] = tuple(identify.get("shard") or (0, 1))
        self.presence: dict[str, Any] | None = identify.get("presence")
        #: The connection that carries the session; None while the client is away.
        self.carrier: Carrier | None = carrier
        #: The sequence of the last event issued.
        self.sequence = 0
        #: How often the client has resumed the session.
        self.resumes = 0
        #: Why the session has ended; None while a Resume may succeed.
        self.ended: str | None = None
        self._clock = clock
        # An int, since arithmetic on flags is slow.
        self._intent_bits = int(self.intents)
        # When the client went away, by the gateway's clock; None while the client is connected.
        self._left_at: float | None = None
        # Sequence, name and data of the events that a Resume can replay. Bounded, so that the
        # memory of a gateway that runs for days stays flat.
        self._kept: deque[tuple[int, str, bytes]] = deque(maxlen=rules.replay_limit)
        #: The handle by which tests know the session.
        self.handle = make_handle(self)

    def wants(self, event: Event) -> bool:
        """Return whether the session's intents and shard let an event through.

        :param event: the event.
        """
        if event.intents and not event.intents & self._intent_bits:
            return False
        shard_id, shards = self.shard
        if event.guild_id is None:
            return shard_id == 0
        return (event.guild_id >> 22) % shards == shard_id

    def issue_event(self, event: Event) -> None:
        """Issue an event, without message content if the session's intents demand that.

        :param event: the event.
        """
        self.issue(event.name, event.text(self._intent_bits))

    def issue(self, name: str, data: bytes, *, keep: bool = True) -> int:
        """Give an event its sequence, keep the event for a replay, and send the event.

        :param name: the event's name.
        :param data: the event's ``d``, as JSON.
        :param keep: False for an event that no Resume shall replay.
        :returns: the event's sequence.
        """
        self.sequence += 1
        if keep:
            self._kept.append((self.sequence, name, data))
        if self.carrier is not None:
            self.carrier.send_event(name, self.sequence, data)
        return self.sequence

    def can_replay(self, sequence: int) -> bool:
        """Return whether the session still keeps every event after a sequence.

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
        self.resumes += 1
        for number, name, data in self._kept:
            if number > sequence:
                carrier.send_event(name, number, data)
        # RESUMED has a sequence as every event does, but no later Resume replays it: the client
        # would take it for the end of that replay.
        self.issue("RESUMED", encode({"_trace": ["local-gateway"]}), keep=False)

    def set_presence(self, presence: dict[str, Any]) -> None:
        """Remember the presence that the client has set.

        :param presence: the ``d`` of Presence Update.
        """
        self.presence = presence

    def leave(self) -> None:
        """Note that the client is away: the session waits for a Resume from now on."""
        self.carrier = None
        self._left_at = self._clock()

    def end(self, reason: str) -> None:
        """End the session for good. A session that has ended already keeps its first reason.

        :param reason: why the session ends, for people.
        """
        if self.ended is None:
            self.ended = reason
        self.carrier = None
        self._kept.clear()

    def away_for(self) -> float:
        """Return for how many seconds the client has been away; 0.0 while it is connected."""
        return 0.0 if self._left_at is None else self._clock() - self._left_at
