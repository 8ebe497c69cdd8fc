"""Sessions as the gateway sees them: what was issued to each, and how long it is kept."""

from __future__ import annotations

import json
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

import ujson

from shardlib.gateway import Intents

from .intents import guild_of, required, without_content

if TYPE_CHECKING:
    from .connection import GatewayConnection
    from .server import LocalGateway


def encode(data: Any) -> bytes:
    """Return ``data`` as JSON the way Discord writes it: compact, characters unescaped.

    :raises TypeError: ``data`` holds something JSON has no word for
    :raises ValueError: ``data`` holds NaN or an infinity
    """
    try:
        text = ujson.dumps(data, ensure_ascii=False, escape_forward_slashes=False, allow_nan=False)
        return text.encode()
    except (UnicodeEncodeError, OverflowError):
        # Lone surrogates, which JSON can say only escaped, and integers of more than 64 bits.
        return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()


_MESSAGE_CONTENT = int(Intents.MESSAGE_CONTENT)


class Event:
    """One event about to be dispatched: who may get it, and its JSON, encoded once for all."""

    __slots__ = ("_blank", "_data", "_text", "_user_id", "guild_id", "intents", "name")

    def __init__(self, name: str, data: Any, user_id: str) -> None:
        self.name = name
        self.guild_id = guild_of(name, data)
        # A plain number: arithmetic on flags is slow, and this is done for every session.
        self.intents = int(required(name, data, user_id))
        self._data = data
        self._user_id = user_id
        self._text = encode(data)
        self._blank: bytes | None = None

    def text(self, intents: int) -> bytes:
        """Return the event's data as a session with these intents gets it."""
        if intents & _MESSAGE_CONTENT:
            return self._text
        if self._blank is None:
            hidden = without_content(self.name, self._data, self._user_id)
            self._blank = self._text if hidden is self._data else encode(hidden)
        return self._blank


class GatewaySession:
    """One session: begun by Identify, carried on by Resume, replayed from what it keeps.

    Made by the gateway; read its attributes freely.
    """

    def __init__(
        self,
        gateway: LocalGateway,
        connection: GatewayConnection,
        identify: dict[str, Any],
    ) -> None:
        self._gateway = gateway
        #: What READY calls ``session_id``.
        self.session_id = uuid.uuid4().hex
        #: The data of the Identify that began it.
        self.identify = identify
        self.intents = Intents(identify["intents"])
        self._mask = int(self.intents)
        #: ``(shard_id, num_shards)``; ``(0, 1)`` where Identify named none.
        self.shard: tuple[int, int] = tuple(identify.get("shard") or (0, 1))
        #: The connection it lives on now; None while its client is away.
        self.connection: GatewayConnection | None = connection
        #: The sequence of the last event issued.
        self.sequence = 0
        #: How often it was resumed.
        self.resumes = 0
        #: The last presence its client set, by Identify or Presence Update; or None.
        self.presence: dict[str, Any] | None = identify.get("presence")
        #: Why it is over ("closed with 1000", ...); None while it may be resumed.
        self.ended: str | None = None
        # When its client went away, by the gateway's clock.
        self._left_at: float | None = None
        # What can be replayed: sequence, name and data.  Bounded, so that a gateway may run
        # for days.
        self._kept: deque[tuple[int, str, bytes]] = deque(maxlen=gateway.replay_limit)

    def __repr__(self) -> str:
        state = self.ended or ("connected" if self.connection else "away")
        return f"<GatewaySession {self.session_id} shard={self.shard} s={self.sequence} {state}>"

    def dispatch(self, event: str, data: Any) -> int:
        """Send an event to this session alone, whatever its intents; return its sequence.

        While its client is away, the event waits for the replay.

        :raises TypeError, ValueError: ``data`` cannot be written as JSON
        """
        text = encode(data)
        with self._gateway._lock:
            return self._issue(event, text)

    def wants(self, event: Event) -> bool:
        """Say whether intents and shard let this event through."""
        if event.intents and not event.intents & self._mask:
            return False
        shard_id, shards = self.shard
        if event.guild_id is None:
            return shard_id == 0
        return (event.guild_id >> 22) % shards == shard_id

    def _issue(self, name: str, data: bytes, *, keep: bool = True) -> int:
        """Number an event, keep it for a replay, send it; the gateway's lock is held."""
        self.sequence += 1
        if keep:
            self._kept.append((self.sequence, name, data))
        if self.connection is not None:
            self.connection._send_event(name, self.sequence, data)
        return self.sequence

    def _can_replay(self, sequence: int) -> bool:
        """Say whether everything after ``sequence`` is still kept."""
        return not self._kept or sequence + 1 >= self._kept[0][0] or sequence >= self.sequence

    def _resume(self, connection: GatewayConnection, sequence: int) -> None:
        """Carry on with another connection: replay, then RESUMED."""
        self.connection = connection
        self._left_at = None
        self.resumes += 1
        for number, name, data in self._kept:
            if number > sequence:
                connection._send_event(name, number, data)
        # RESUMED takes a number as every dispatch does, but is never replayed itself: in the
        # middle of a later replay it would seem to be its end.
        self._issue("RESUMED", encode({"_trace": ["local-gateway"]}), keep=False)

    def _leave(self) -> None:
        self.connection = None
        self._left_at = self._gateway.clock()

    def _end(self, reason: str) -> None:
        if self.ended is None:
            self.ended = reason
        self.connection = None
        self._kept.clear()


class Sessions:
    """All sessions of a gateway, and the limits on starting them; the lock guards it."""

    def __init__(self, gateway: LocalGateway) -> None:
        self._gateway = gateway
        self._by_id: dict[str, GatewaySession] = {}
        # When each concurrency bucket last had its Identify, and when each of the last 24
        # hours' Identifies came, by the gateway's clock.
        self._identified_at: dict[int, float] = {}
        self._starts: deque[float] = deque()

    def alive(self) -> list[GatewaySession]:
        """Return the sessions that are connected or may still be resumed, oldest first."""
        now = self._gateway.clock()
        for session in list(self._by_id.values()):
            left = session._left_at
            if left is not None and now - left > self._gateway.session_timeout:
                session._end("timed out")
            if session.ended is not None:
                del self._by_id[session.session_id]
        return list(self._by_id.values())

    def find(self, session_id: Any) -> GatewaySession | None:
        """Return the session that may be resumed by this id."""
        return next((each for each in self.alive() if each.session_id == session_id), None)

    def starts_left(self) -> int:
        """Return how many sessions the token may start until the limit resets."""
        now = self._gateway.clock()
        while self._starts and now - self._starts[0] >= 86_400:
            self._starts.popleft()
        return max(0, self._gateway.session_start_limit - len(self._starts))

    def resets_after(self) -> int:
        """Return after how many milliseconds the limit on session starts resets."""
        if not self._starts:
            return 0
        return int((self._starts[0] + 86_400 - self._gateway.clock()) * 1000)

    def take_slot(self, shard_id: int) -> bool:
        """Count an Identify; False where its bucket had one less than five seconds ago."""
        now = self._gateway.clock()
        self._starts.append(now)
        bucket = shard_id % self._gateway.max_concurrency
        last = self._identified_at.get(bucket)
        if last is not None and now - last < self._gateway.identify_interval:
            return False
        self._identified_at[bucket] = now
        return True

    def start(self, connection: GatewayConnection, identify: dict[str, Any]) -> GatewaySession:
        """Begin a session."""
        self.alive()  # forgets those that are over
        session = GatewaySession(self._gateway, connection, identify)
        self._by_id[session.session_id] = session
        return session
