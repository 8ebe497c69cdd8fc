"""Realistic events in the background."""

from __future__ import annotations

import time
from collections.abc import Mapping

from shardlib.testing.dispatcher import Dispatcher
from shardlib.testing.event_maker import EventMaker
from shardlib.testing.events import Event
from shardlib.testing.session import Session
from shardlib.testing.sessions import Sessions
from shardlib.testing.thread import GatewayThread
from shardlib.testing.world import World

#: How often each event comes, relative to the others, in default traffic.
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

# Seconds between two batches, the most of one batch, and how many unsent bytes on any one
# connection make the traffic wait.
_TICK = 0.01
_BATCH = 400
_ENOUGH = 1 << 20

# Without a rate, making events up would take longer than sending them: so many are made, and
# then repeated.
_ROUND = 2000


class Traffic:
    """A source of events; :meth:`LocalGateway.traffic` makes it.

    What it sends changes the gateway's world, so that it all stays consistent: who joins is a
    member from then on, who reacts does so to a message that was sent. The same seed gives
    the same events; the ids and times of what is new are those of the moment.
    """

    def __init__(
        self,
        rate: float | None,
        mix: Mapping[str, float] | None,
        *,
        world: World,
        sessions: Sessions,
        dispatcher: Dispatcher,
        thread: GatewayThread,
    ) -> None:
        if rate is not None and not rate > 0:
            raise ValueError(f"rate must be a number of events a second above 0, not {rate}")
        #: How many events it has made, whether or not a session was there to get them.
        self.events = 0
        self._rate = rate
        self._maker = EventMaker(world, TRAFFIC_MIX if mix is None else mix)
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._thread = thread
        self._running = True
        # With no rate: the events to repeat, and which is next.
        self._round: list[Event] = []
        self._next = 0
        # Events owed since the last tick; real time, since the gateway's clock may leap.
        self._owed = 0.0
        self._ticked_at = time.monotonic()
        thread.call_soon(self._tick)

    def stop(self) -> None:
        """Send no more."""
        self._running = False

    def _tick(self) -> None:
        """Send what is due; on the gateway's thread."""
        if not self._running:
            return
        now = time.monotonic()
        with self._thread.lock:
            if self._rate is not None:
                self._owed += (now - self._ticked_at) * self._rate
            self._ticked_at = now
            sessions = self._sessions.alive()
            held_up = _any_is_slow(sessions)
            if held_up:
                self._owed = 0.0
            else:
                due = _BATCH if self._rate is None else min(_BATCH, int(self._owed))
                self._owed -= due
                for event in self._events(due):
                    self._dispatcher.issue(event, sessions)
                    self.events += 1
        behind = (self._rate is None or self._owed >= 1) and not held_up
        self._thread.call_later(0 if behind else _TICK, self._tick)

    def _events(self, count: int) -> list[Event]:
        """Return the next events, about ``count``."""
        if self._rate is not None:
            return self._maker.make(count)
        if len(self._round) < _ROUND:
            made = self._maker.make(count)
            self._round += made
            return made
        events = self._round[self._next : self._next + count]
        self._next = self._next + count if self._next + count < len(self._round) else 0
        return events


def _any_is_slow(sessions: list[Session]) -> bool:
    """Return whether some client takes its events too slowly: then all wait, and none is owed."""
    return any(each.carrier is not None and each.carrier.unsent > _ENOUGH for each in sessions)
