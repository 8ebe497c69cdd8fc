"""All sessions of a gateway, and the limits on starting them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from shardlib.gateway import Intents
from shardlib.testing.clock import Clock
from shardlib.testing.rules import Rules
from shardlib.testing.session import Carrier, Session

_DAY = 24 * 60 * 60.0

#: Number of Identifies that the gateway remembers.
_MAX_REMEMBERED = 20_000


class ReceivedIdentify(NamedTuple):
    """An Identify that arrived, with the right token and a possible shard."""

    #: When the Identify arrived, in seconds of the gateway's clock.
    time: float
    #: The id of the shard that identified.
    shard_id: int
    #: The number of shards that the Identify named; 1 if the Identify has no ``shard``.
    shard_count: int
    #: Whether the Identify kept the gateway's rules. If not, the gateway answered with op 9 or
    #: closed the connection.
    accepted: bool


class Sessions:
    """The sessions of a gateway. The callers hold the gateway's lock.

    :param rules: the gateway's rules.
    :param clock: the gateway's clock.
    :param make_handle: makes the :class:`GatewaySession` of a session.
    """

    def __init__(self, rules: Rules, clock: Clock, make_handle: Callable[[Session], Any]) -> None:
        self._rules = rules
        self._clock = clock
        self._make_handle = make_handle
        self._by_id: dict[str, Session] = {}
        self._all: list[Session] = []

    def alive(self) -> list[Session]:
        """Return the sessions that are connected or that a Resume can continue, oldest first."""
        self._drop_ended()
        return list(self._by_id.values())

    def all(self) -> list[Session]:
        """Return all sessions so far, oldest first."""
        self._drop_ended()
        return list(self._all)

    def _drop_ended(self) -> None:
        """End the sessions whose time for a Resume is over, and drop all that have ended."""
        for session in list(self._by_id.values()):
            if session.away_for() > self._rules.session_timeout:
                session.end("timed out")
            if session.ended is not None:
                del self._by_id[session.session_id]

    def find(self, session_id: Any) -> Session | None:
        """Return the session that a Resume asks for; None if no Resume can continue that session.

        :param session_id: the ``session_id`` that the client sent, of any type.
        """
        for session in self.alive():
            if session.session_id == session_id and not session.is_lost:
                return session
        return None

    def start(self, carrier: Carrier, identify: dict[str, Any], intents: Intents) -> Session:
        """Begin a session, and return it.

        :param carrier: the connection that the Identify arrived on.
        :param identify: the ``d`` of the Identify.
        :param intents: what the session gets.
        """
        self._drop_ended()  # so that a client that identifies for days does not fill the memory
        session = Session(
            identify,
            intents,
            carrier,
            rules=self._rules,
            clock=self._clock,
            make_handle=self._make_handle,
        )
        self._by_id[session.session_id] = session
        self._all.append(session)
        return session


class SessionStarts:
    """The limits on Identifies with the token. The callers hold the gateway's lock.

    :param rules: the gateway's rules.
    :param clock: the gateway's clock.
    """

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        # By rate limit key, the time of the last Identify that was accepted.
        self._identified_at: dict[int, float] = {}
        # How many Identifies were accepted since the limit was reset, and when the first of these
        # arrived; None if none has.
        self._started = 0
        self._first_at: float | None = None
        #: The newest Identifies, oldest first.
        self.received: deque[ReceivedIdentify] = deque(maxlen=_MAX_REMEMBERED)

    def remaining(self) -> int:
        """Return how many sessions the token may start until the limit resets."""
        self._reset_if_due(self._clock())
        return max(0, self._rules.session_start_limit - self._started)

    def reset_after(self) -> int:
        """Return the milliseconds until the limit resets, 24 hours after the first session.

        0 if no session was started since the last reset.
        """
        now = self._clock()
        self._reset_if_due(now)
        if self._first_at is None:
            return 0
        return math.ceil((self._first_at + _DAY - now) * 1000)

    def _reset_if_due(self, now: float) -> None:
        if self._first_at is not None and now - self._first_at >= _DAY:
            self._started = 0
            self._first_at = None

    def take_slot(self, shard_id: int, now: float) -> bool:
        """Take the slot of an Identify, if the slot of the shard's rate limit key is free.

        :param shard_id: the id of the shard that identifies.
        :param now: when the Identify arrived, by the gateway's clock.
        :returns: False if one of the same key was accepted less than ``identify_interval`` ago.
        """
        rate_limit_key = shard_id % self._rules.max_concurrency
        last = self._identified_at.get(rate_limit_key)
        if last is not None and now - last < self._rules.identify_interval:
            return False
        self._identified_at[rate_limit_key] = now
        self._reset_if_due(now)
        if self._first_at is None:
            self._first_at = now
        self._started += 1
        return True
