"""Replay: plays a recording to each client that identifies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from shardlib.gateway import Opcode
from shardlib.testing.dispatcher import Dispatcher
from shardlib.testing.events import Event
from shardlib.testing.payloads import encode
from shardlib.testing.recording import RecordedEvent, Recording, RecordingDamaged
from shardlib.testing.rules import Rules
from shardlib.testing.session import Carrier, Session
from shardlib.testing.thread import GatewayThread

# The most events that are sent before other connections get their turn.
_MAX_BATCH = 400

# Bytes that may wait to be sent to a client, and seconds between two looks at a client that is
# behind or away.
_MAX_UNSENT = 1 << 20
_PAUSE = 0.01

# The events that the gateway makes itself, for each session of a replay anew.
_OWN_EVENTS = frozenset({"READY", "RESUMED"})


class Replay:
    """A recording that a gateway plays. The gateway makes the object, as ``gateway.replay``.

    Each session gets READY of the recording and then the events after it, from the first on, at the
    times at which they were recorded, counted from READY. Any thread may use the object.
    """

    def __init__(
        self,
        recording: Recording,
        ready: RecordedEvent,
        speed: float | None,
        *,
        thread: GatewayThread,
        rules: Rules,
        dispatcher: Dispatcher,
        resume_url: Callable[[], str],
    ) -> None:
        #: The recording.
        self.recording = recording
        self._speed = speed
        self._thread = thread
        self._rules = rules
        self._dispatcher = dispatcher
        self._resume_url = resume_url
        self._ready = ready
        self._players: list[_Player] = []

    def __repr__(self) -> str:
        state = "finished" if self.finished else "playing"
        return f"<Replay {self.recording.path!r} {state}>"

    @property
    def finished(self) -> bool:
        """Whether the last event was sent to each session that has not ended, and to one at least.

        The connections stay open. If the client of a session is disconnected, the gateway keeps the
        last events for its Resume.
        """
        with self._thread.lock:
            return any(player.is_at_end for player in self._players) and all(
                player.is_at_end or player.session.ended is not None for player in self._players
            )

    @property
    def error(self) -> RecordingDamaged | OSError | None:
        """Why the recording could not be played to its end; None if it was, or may still be."""
        with self._thread.lock:
            errors = (player.error for player in self._players)
            return next((error for error in errors if error is not None), None)

    def wait(self, timeout: float = 60.0) -> None:
        """Wait until the replay is :attr:`finished`.

        :param timeout: seconds to wait.
        :raises TimeoutError: if the replay was not finished in time.
        :raises RecordingDamaged: if the recording is cut or damaged. What could be read was played.
        :raises OSError: if the file could not be read any more.
        """
        self._thread.wait(lambda: self.finished, timeout, "the end of the replay")
        if self.error is not None:
            raise self.error

    # Called by the gateway, which holds the lock.

    def begin(self, session: Session, version: int) -> None:
        """Send READY to a session that has just begun, and begin to play.

        :param session: the session.
        :param version: the API version of its connection.
        """
        data = self._ready.data
        ready = {
            **data,
            "v": version,
            "session_id": session.session_id,
            "resume_gateway_url": self._resume_url(),
            "guilds": [each for each in data["guilds"] if session.has_guild(int(each["id"]))],
        }
        ready.pop("shard", None)
        if "shard" in session.identify:
            ready["shard"] = list(session.shard)
        session.issue("READY", encode(ready))
        player = _Player(
            self.recording,
            session,
            None if self._speed is None else (self._ready.time, self._speed),
            thread=self._thread,
            rules=self._rules,
            dispatcher=self._dispatcher,
            user_id=data["user"]["id"],
        )
        self._players.append(player)
        self._thread.call_soon(player.play)

    def stop(self) -> None:
        """Close the file, of which no session gets more."""
        for player in self._players:
            player.release()


class _Player:
    """Plays a recording to one session.

    :param recording: the recording.
    :param session: the session, which has got READY.
    :param pace: the time of READY in the recording, and how many recorded seconds pass in one; None
        to play as fast as the client reads.
    :param thread: the gateway's thread.
    :param rules: the gateway's rules.
    :param dispatcher: issues the events.
    :param user_id: the id of the bot that was recorded.
    """

    def __init__(
        self,
        recording: Recording,
        session: Session,
        pace: tuple[float, float] | None,
        *,
        thread: GatewayThread,
        rules: Rules,
        dispatcher: Dispatcher,
        user_id: str,
    ) -> None:
        self.session = session
        #: Whether the last event that can be read was issued.
        self.is_at_end = False
        #: Why the recording cannot be read any further.
        self.error: RecordingDamaged | OSError | None = None
        self._pace = pace
        self._thread = thread
        self._rules = rules
        self._dispatcher = dispatcher
        self._user_id = user_id
        self._began_at = thread.clock()
        self._events = _events_from_ready(recording)
        self._next: RecordedEvent | None = None
        # The connection on which the client was last asked for a heartbeat, and the sequence then.
        self._asked: Carrier | None = None
        self._asked_at = 0

    def play(self) -> None:
        """Issue the events that are due, and schedule the next call, on the gateway's thread."""
        with self._thread.lock:
            pause = self._issue_due()
            if pause is None:
                self.release()
                self._thread.notify()
                return
        self._thread.call_later(pause, self.play)

    def release(self) -> None:
        """Close the file, from which the player reads no more."""
        # The file belongs to the iterator, and is closed with it.
        self._events = iter(())

    def _issue_due(self) -> float | None:
        """Issue the events that are due.

        :returns: seconds until the next look; None if there is nothing more to do.
        """
        for _ in range(_MAX_BATCH):
            if self.session.ended is not None:
                return None
            if self._must_wait():
                return _PAUSE
            event = self._peek()
            if event is None:
                self.is_at_end = True
                return None
            wait = self._seconds_until(event)
            if wait > 0:
                return wait
            self._next = None
            issued = Event(event.name, event.data, self._user_id, text=event.text)
            self._dispatcher.issue(issued, (self.session,))
        return 0.0

    def _peek(self) -> RecordedEvent | None:
        """Return the next event; None if there is none."""
        try:
            while self._next is None or self._next.name in _OWN_EVENTS:
                self._next = next(self._events)
        except StopIteration:
            self._next = None
        except (RecordingDamaged, OSError) as error:
            self.error = error
            self._next = None
        return self._next

    def _seconds_until(self, event: RecordedEvent) -> float:
        if self._pace is None:
            return 0.0
        started, speed = self._pace
        return self._began_at + (event.time - started) / speed - self._thread.clock()

    def _must_wait(self) -> bool:
        """Return whether the client is so far behind that more events would only pile up.

        The buffers of the operating system take many more events than the gateway keeps for a
        Resume. Only a heartbeat tells which events the client has read, so the gateway asks for a
        heartbeat before the client is too far behind.
        """
        carrier = self.session.carrier
        if carrier is None:
            return self._pace is None
        if carrier.unsent > _MAX_UNSENT:
            return True
        limit = self._rules.replay_limit
        if limit == 0:
            return False
        sequence, acknowledged = self.session.sequence, self.session.acknowledged
        told = acknowledged if carrier is not self._asked else max(acknowledged, self._asked_at)
        if sequence - told >= limit // 2:
            self._asked, self._asked_at = carrier, sequence
            carrier.send_op(Opcode.HEARTBEAT, None)
        return sequence - acknowledged >= limit


def find_ready(recording: Recording) -> RecordedEvent:
    """Return the READY with which clients begin: the first that has all that the gateway needs.

    :param recording: the recording.
    :raises ValueError: if there is none with the ids of the bot's user and guilds.
    :raises RecordingDamaged: if the recording cannot be read so far.
    """
    ready = next(_events_from_ready(recording), None)
    if ready is None:
        raise ValueError(
            f"{recording.path} has no READY, so no client can begin with it: the session that was "
            "recorded had begun before the recording did. Record one from its beginning"
        )
    return ready


def _events_from_ready(recording: Recording) -> Iterator[RecordedEvent]:
    return itertools.dropwhile(lambda event: not _is_ready(event), recording)


def _is_ready(event: RecordedEvent) -> bool:
    """Return whether an event is a READY that has what the gateway needs to play it."""
    data = event.data
    if event.name != "READY" or not isinstance(data, dict):
        return False
    user, guilds, application = data.get("user"), data.get("guilds"), data.get("application")
    return (
        _has_id(user)
        and isinstance(guilds, list)
        and all(_has_id(guild) for guild in guilds)
        and (application is None or _has_id(application))
    )


def _has_id(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    snowflake = value.get("id")
    return isinstance(snowflake, str) and snowflake.isascii() and snowflake.isdecimal()
