"""Which sessions get an event."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shardlib.testing.events import Event
from shardlib.testing.session import Session
from shardlib.testing.sessions import Sessions
from shardlib.testing.world import World


class Dispatcher:
    """Hands events to the sessions that should get them. The gateway's lock guards it.

    :param world: has the bot's user, to whom other rules apply than to other users.
    :param sessions: the gateway's sessions.
    """

    def __init__(self, world: World, sessions: Sessions) -> None:
        self._world = world
        self._sessions = sessions
        #: Events sent as they were issued, counted once for each session. What is kept for the
        #: replay of a client that is away is not among them.
        self.count = 0

    def dispatch(self, name: str, data: Any) -> int:
        """Issue an event to every session that should get it.

        :param name: the event's name.
        :param data: the event's ``d``.
        :returns: how many sessions get the event.
        """
        return self.issue(Event(name, data, self._world.user["id"]), self._sessions.alive())

    def issue(self, event: Event, sessions: Iterable[Session]) -> int:
        """Issue an event to each of some sessions whose intents and shard let the event through.

        :param event: the event.
        :param sessions: the sessions to ask.
        :returns: how many sessions get the event.
        """
        reached = 0
        for session in sessions:
            if session.wants(event):
                session.issue_event(event)
                reached += 1
                self.count += session.carrier is not None
        return reached
