"""Realistic events that a gateway sends in the background."""

from __future__ import annotations

import time
from collections.abc import Mapping

from shardlib.testing.dispatcher import Dispatcher
from shardlib.testing.event_maker import EventMaker
from shardlib.testing.events import Event
from shardlib.testing.interactions import Interactions
from shardlib.testing.session import Session
from shardlib.testing.sessions import Sessions
from shardlib.testing.thread import GatewayThread
from shardlib.testing.world import World

#: By event, how often traffic has the event, relative to the others, unless a test passes a mix.
TRAFFIC_MIX: dict[str, float] = {
    "MESSAGE_CREATE": 30,
    "TYPING_START": 20,
    "PRESENCE_UPDATE": 25,
    "MESSAGE_UPDATE": 4,
    "MESSAGE_DELETE": 2,
    "MESSAGE_REACTION_ADD": 8,
    "MESSAGE_REACTION_REMOVE": 1,
    "VOICE_STATE_UPDATE": 5,
    "GUILD_MEMBER_ADD": 1,
    "GUILD_MEMBER_UPDATE": 2,
    "GUILD_MEMBER_REMOVE": 1,
    "GUILD_CREATE": 0.2,
    "GUILD_UPDATE": 0.3,
    "GUILD_ROLE_UPDATE": 0.5,
    "CHANNEL_UPDATE": 0.5,
    "INTERACTION_CREATE": 1,
}

# Seconds between two batches, and the most events of a batch.
_BATCH_INTERVAL = 0.01
_MAX_BATCH = 400

# Number of unsent bytes of one connection above which the traffic pauses.
_MAX_UNSENT = 1 << 20

# Making an event takes longer than sending the event. So traffic without a rate makes only this
# many events, and then repeats the same events.
_REPEATED_EVENTS = 2000


class Traffic:
    """A source of events in the background. :meth:`LocalGateway.traffic` makes the object.

    The events change the gateway's world accordingly: a user who joins becomes a member, and a
    reaction belongs to a message sent before. The same seed makes the same events, except for new
    ids and times, which follow the real time.
    """

    def __init__(
        self,
        rate: float | None,
        mix: Mapping[str, float] | None,
        *,
        world: World,
        interactions: Interactions,
        sessions: Sessions,
        dispatcher: Dispatcher,
        thread: GatewayThread,
    ) -> None:
        if rate is not None and not rate > 0:
            raise ValueError(f"rate must be a number of events a second above 0, not {rate}")
        #: Number of events issued so far, whether or not a session got them.
        self.events = 0
        self._rate = rate
        self._maker = EventMaker(world, interactions, TRAFFIC_MIX if mix is None else mix)
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._thread = thread
        self._running = True
        # Without a rate: the events to repeat, and the index of the next one.
        self._repeated: list[Event] = []
        self._next = 0
        # The number of events still to be sent to keep the rate, by real time: by the gateway's
        # clock, which a test may advance by hours, the number would be huge.
        self._due = 0.0
        self._last_batch_at = time.monotonic()
        thread.call_soon(self._send_batch)

    def stop(self) -> None:
        """Send no more events."""
        self._running = False

    def _send_batch(self) -> None:
        """Send the events that are due, and schedule the next batch, on the gateway's thread."""
        if not self._running:
            return
        now = time.monotonic()
        with self._thread.lock:
            if self._rate is not None:
                self._due += (now - self._last_batch_at) * self._rate
            self._last_batch_at = now
            sessions = self._sessions.alive()
            must_wait = any(map(_is_behind, sessions))
            if must_wait:
                # Otherwise the gateway would flood the client after the client has caught up.
                self._due = 0.0
            else:
                size = _MAX_BATCH if self._rate is None else min(_MAX_BATCH, int(self._due))
                self._due -= size
                for event in self._next_events(size):
                    self._dispatcher.issue(event, sessions)
                    self.events += 1
        more_is_due = (self._rate is None or self._due >= 1) and not must_wait
        self._thread.call_later(0 if more_is_due else _BATCH_INTERVAL, self._send_batch)

    def _next_events(self, count: int) -> list[Event]:
        """Return the next events.

        :param count: how many; a few more if some come in pairs, fewer at the end of the events
            that are repeated.
        """
        if self._rate is not None:
            return self._maker.make(count)
        if len(self._repeated) < _REPEATED_EVENTS:
            made = self._maker.make(count)
            self._repeated += made
            return made
        events = self._repeated[self._next : self._next + count]
        self._next = self._next + count if self._next + count < len(self._repeated) else 0
        return events


def _is_behind(session: Session) -> bool:
    """Return whether a session's client reads more slowly than the gateway sends."""
    return session.carrier is not None and session.carrier.unsent > _MAX_UNSENT
