"""Which sessions get an event."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shardlib.testing.events import Event
from shardlib.testing.session import Session
from shardlib.testing.sessions import Sessions
from shardlib.testing.world import World


class Dispatcher:
    """Issues events to the sessions that should get them. The callers hold the gateway's lock.

    :param world: the bot's user, to whom other rules apply than to other users.
    :param sessions: the gateway's sessions.
    """

    def __init__(self, world: World, sessions: Sessions) -> None:
        self._world = world
        self._sessions = sessions
        #: Number of events issued to connected clients, counted once for each session. Events kept
        #: for the Resume of a disconnected client are not counted.
        self.count = 0

    def dispatch(self, name: str, data: Any) -> int:
        """Issue an event to every session that should get it.

        :param name: the event's name.
        :param data: the event's ``d``.
        :returns: how many sessions get the event.
        """
        return self.issue(Event(name, data, self._world.user["id"]), self._sessions.alive())

    def issue(self, event: Event, sessions: Iterable[Session]) -> int:
        """Issue an event to each given session whose intents and shard the event belongs to.

        :param event: the event.
        :param sessions: the sessions to choose from.
        :returns: how many sessions get the event.
        """
        reached = 0
        for session in sessions:
            if session.wants(event):
                session.issue_event(event)
                reached += 1
                self.count += session.carrier is not None
        return reached
