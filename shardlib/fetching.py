"""Asking the Gateway, and having the whole answer: a request, and the events that answer it.

An exchange listens before it asks, on the reader thread; the thread that asks takes the answers and
puts them together. A request that a lost connection may have taken with it is sent again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from shardlib import payloads
from shardlib.callbacks import Callbacks
from shardlib.checks import check_callback, check_timeout
from shardlib.currentsession import CurrentSession
from shardlib.deadline import LONGEST_WAIT, Deadline
from shardlib.errors import NotReady, SendTimeout
from shardlib.lifecycle import Life, Lifecycle
from shardlib.payloads import Payload, Snowflake
from shardlib.protocol import PROTOCOL_EVENTS
from shardlib.text import count

Progress = Callable[[int, int], object]
Belongs = Callable[[str, dict[str, Any]], bool]

# Seconds, if a RATE_LIMITED event does not say how long to wait.
_DEFAULT_RETRY_AFTER = 1.0
_MOST_IDS_SHOWN = 5


class GuildMembers(list[dict[str, Any]]):
    """The members that :meth:`Shard.fetch_guild_members` returns: a list of member objects.

    :ivar presences: the members' presences, a list of presence objects; empty unless they were
        asked for, and the bot has the intent GUILD_PRESENCES.
    :ivar not_found: the ids of `user_ids` that are none of a member's, a list.
    """

    def __init__(self, chunks: Iterable[dict[str, Any]]) -> None:
        super().__init__()
        self.presences: list[dict[str, Any]] = []
        self.not_found: list[str] = []
        for chunk in chunks:
            self.extend(chunk.get("members") or ())
            self.presences.extend(chunk.get("presences") or ())
            self.not_found.extend(chunk.get("not_found") or ())


class VoiceUpdates(NamedTuple):
    """What a voice library needs to connect, as :meth:`Shard.join_voice` returns it.

    :param state: the data of VOICE_STATE_UPDATE, a dict; has the ``session_id``.
    :param server: the data of VOICE_SERVER_UPDATE, a dict; has the ``token`` and the ``endpoint``.
    """

    state: dict[str, Any]
    server: dict[str, Any]


class Line(NamedTuple):
    """What an exchange needs of its shard.

    :param callbacks: of the shard.
    :param lifecycle: of the shard.
    :param life: the current one when the user called.
    :param session: returns the session under way.
    :param connection: returns the connection under way.
    :param send: sends a payload, within as many seconds, and returns the connection that took it.
    """

    callbacks: Callbacks
    lifecycle: Lifecycle
    life: Life
    session: Callable[[], CurrentSession]
    connection: Callable[[], object]
    send: Callable[[Payload, float], object]


class _Inbox:
    """The events that answer, from the reader to the thread that asks."""

    what = "the look at an answer"  # no function of the user's

    def __init__(self, line: Line, belongs: Belongs) -> None:
        self._lifecycle = line.lifecycle
        self._belongs = belongs
        self.events: deque[tuple[str, dict[str, Any]]] = deque()

    def offer(self, event: str, payload: Any) -> bool:
        data = payload.get("d")
        if not isinstance(data, dict):
            data = {}
        if event in PROTOCOL_EVENTS or self._belongs(event, data):
            self.events.append((event, data))
            self._lifecycle.notify()
        return False


class Exchange:
    """One request, and its answers. A context manager that listens inside its block.

    :param line: to the shard.
    :param request: the payload to send.
    :param events: names of the events that may answer it.
    :param belongs: called with the name and the data of such an event, on the reader thread: True
        if it answers this request.
    :param timeout: seconds for everything, or None.
    """

    def __init__(
        self,
        line: Line,
        request: Payload,
        events: Sequence[str],
        belongs: Belongs,
        timeout: float | None,
    ) -> None:
        self._line = line
        self._request = request
        self._events = events
        self._inbox = _Inbox(line, belongs)
        self._timeout = timeout
        self._deadline = Deadline(timeout)
        self._connection: object = None  # that took the request
        self._was_answered = False  # by an event at least
        self._was_repeated = False
        self._ask_at: Deadline | None = None  # when RATE_LIMITED lets the request be sent again

    def __enter__(self) -> Exchange:
        self._line.callbacks.subscribe(self._inbox, (*self._events, *PROTOCOL_EVENTS))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.callbacks.unsubscribe(self._inbox)

    def ask(self) -> None:
        """Send the request.

        :raises NotReady: if the shard is not READY in time.
        :raises SendTimeout: if the request could not be sent in time.
        """
        left = self._deadline.remaining()
        try:
            self._connection = self._line.send(
                self._request, LONGEST_WAIT if left is None else left
            )
        except NotReady:
            if self._deadline.remaining() == 0:
                raise
            # The connection was lost meanwhile. After the next READY or RESUMED it is sent again.

    def answer(self) -> tuple[str, dict[str, Any]] | None:
        """Wait for the next event that answers, and send the request again if it may be lost.

        :returns: the name and the data of the event; READY if a new session has begun, in which
            the request was sent again, so that former answers may not be followed by the rest; None
            if the time is up.
        """
        while True:
            if not self._wait():
                if self._deadline.remaining() == 0:
                    return None
                self._ask_at = None
                self._ask_again()
                continue
            event, data = self._inbox.events.popleft()
            if event == "RATE_LIMITED":
                if not self._put_off(data.get("retry_after")):
                    return None
            elif event not in PROTOCOL_EVENTS:
                self._was_answered = True
                return event, data
            elif self._connection is not self._line.connection():
                # What was on its way when the connection was lost may never have arrived. If it
                # was answered in part, and the session resumed, the rest is replayed.
                if event == "READY":
                    self._was_answered = False
                if not self._was_answered:
                    self._ask_again()
                if event == "READY":
                    return event, data

    def _wait(self) -> bool:
        """Wait for an event. False if the time is up, for good or until the request is repeated."""
        line = self._line
        deadline = self._deadline
        if self._ask_at is not None:
            deadline = deadline.earlier(self._ask_at)
        events = self._inbox.events
        if not line.lifecycle.wait_in(line.life, lambda: bool(events), deadline):
            return False
        if not events:
            raise line.life.closed_error()
        return True

    def _ask_again(self) -> None:
        self._was_repeated = True
        try:
            self.ask()
        except (NotReady, SendTimeout):
            pass  # the time is up, or will be before there is room among the sends

    def _put_off(self, seconds: Any) -> bool:
        """Send the request again when the Gateway allows it. False if that is too late."""
        try:
            seconds = check_timeout("retry_after", seconds)
        except (TypeError, ValueError):
            seconds = None
        self._ask_at = Deadline(_DEFAULT_RETRY_AFTER if seconds is None else seconds)
        # If the request was sent before, the answer to that one may still come.
        in_time = self._deadline.earlier(self._ask_at) is self._ask_at
        return in_time or self._was_repeated or self._was_answered

    def timeout_error(self, missing: str) -> TimeoutError:
        """The error for a time that is up.

        :param missing: what has not come, in words.
        """
        message = f"{missing} within {count(self._timeout or 0, 'second')}"
        if self._ask_at is not None:
            wait = count(round(self._ask_at.remaining() or 0, 1), "second")
            message += (
                f"; the Gateway takes the request in {wait} at the earliest (RATE_LIMITED), since "
                "another one came shortly before"
            )
        if not self._line.life.is_ready:
            message += f"; the shard is {self._line.life.progress()}"
        return TimeoutError(message)


def fetch_guild_members(
    line: Line,
    guild_id: Snowflake,
    *,
    query: str | None,
    limit: int,
    presences: bool,
    user_ids: Snowflake | Iterable[Snowflake] | None,
    timeout: float | None,
    progress: Progress | None,
) -> GuildMembers:
    """Ask for members, and put the chunks together. See :meth:`Shard.fetch_guild_members`."""
    nonce = os.urandom(8).hex()
    request = payloads.request_guild_members(
        guild_id, query=query, limit=limit, presences=presences, user_ids=user_ids, nonce=nonce
    )
    check_callback("progress", progress, 2)

    def belongs(event: str, data: dict[str, Any]) -> bool:
        if event == "RATE_LIMITED":
            meta = data.get("meta")
            return isinstance(meta, dict) and meta.get("nonce") == nonce
        return data.get("nonce") == nonce

    chunks: dict[Any, dict[str, Any]] = {}
    total = None
    events = ("GUILD_MEMBERS_CHUNK", "RATE_LIMITED")
    with Exchange(line, request, events, belongs, timeout) as exchange:
        exchange.ask()
        while total is None or len(chunks) < total:
            answer = exchange.answer()
            if answer is None:
                came = f"{len(chunks)} of {total} chunks" if total else "no chunk"
                raise exchange.timeout_error(
                    f"{came} of the members of guild {request['d']['guild_id']} came"
                )
            event, data = answer
            if event == "READY":
                chunks.clear()
                total = None
                continue
            # A request that was sent twice may be answered twice, too.
            chunks[data.get("chunk_index")] = data
            total = data.get("chunk_count") or 1
            if progress is not None:
                progress(len(chunks), total)
    return GuildMembers(chunks[index] for index in sorted(chunks))


def fetch_soundboard_sounds(
    line: Line, guild_ids: Iterable[Snowflake], timeout: float | None
) -> dict[Snowflake, list[dict[str, Any]]]:
    """Ask for sounds, and collect them. See :meth:`Shard.fetch_soundboard_sounds`."""
    given = guild_ids if isinstance(guild_ids, str) else list(guild_ids)
    request = payloads.request_soundboard_sounds(given)
    missing = dict.fromkeys(request["d"]["guild_ids"])
    sounds: dict[str, list[dict[str, Any]]] = {}

    def belongs(event: str, data: dict[str, Any]) -> bool:
        return str(data.get("guild_id")) in missing

    with Exchange(line, request, ("SOUNDBOARD_SOUNDS",), belongs, timeout) as exchange:
        exchange.ask()
        while len(sounds) < len(missing):
            answer = exchange.answer()
            if answer is None:
                left = [guild_id for guild_id in missing if guild_id not in sounds]
                shown = ", ".join(left[:_MOST_IDS_SHOWN])
                more = ", ..." if len(left) > _MOST_IDS_SHOWN else ""
                raise exchange.timeout_error(
                    f"the sounds of {count(len(left), 'guild')} of {len(missing)} ({shown}{more}) "
                    "did not come"
                )
            event, data = answer
            if event != "READY":
                sounds[str(data["guild_id"])] = data.get("soundboard_sounds") or []
    return {guild_id: sounds[str(guild_id)] for guild_id in given}


def fetch_channel_info(
    line: Line, guild_id: Snowflake, fields: Iterable[str], timeout: float | None
) -> list[dict[str, Any]]:
    """Ask about a guild's channels. See :meth:`Shard.fetch_channel_info`."""
    request = payloads.request_channel_info(guild_id, fields)
    wanted: str = request["d"]["guild_id"]

    def belongs(event: str, data: dict[str, Any]) -> bool:
        return str(data.get("guild_id")) == wanted

    with Exchange(line, request, ("CHANNEL_INFO",), belongs, timeout) as exchange:
        exchange.ask()
        while True:
            answer = exchange.answer()
            if answer is None:
                raise exchange.timeout_error(f"no CHANNEL_INFO of guild {wanted} came")
            event, data = answer
            if event != "READY":
                channels: list[dict[str, Any]] = data.get("channels") or []
                return channels


def join_voice(
    line: Line,
    guild_id: Snowflake,
    channel_id: Snowflake,
    *,
    self_mute: bool,
    self_deaf: bool,
    timeout: float | None,
) -> VoiceUpdates:
    """Join a voice channel, and collect what comes of it. See :meth:`Shard.join_voice`."""
    request = payloads.voice_state_update(
        guild_id, channel_id, self_mute=self_mute, self_deaf=self_deaf
    )
    wanted = request["d"]

    def belongs(event: str, data: dict[str, Any]) -> bool:
        if str(data.get("guild_id")) != wanted["guild_id"]:
            return False
        if event == "VOICE_SERVER_UPDATE":
            # Without an endpoint, another event follows once Discord has found a server.
            return bool(data.get("endpoint"))
        # The ids of voice sessions are those of the Gateway's sessions. That tells the bot from
        # others in a session that another process has begun, of which READY is not known here.
        session = line.session()
        if session.user_id is None:
            is_own = str(data.get("session_id")) == session.session_id
        else:
            is_own = str(data.get("user_id")) == session.user_id
        return is_own and str(data.get("channel_id")) == str(wanted["channel_id"])

    came: dict[str, dict[str, Any]] = {}
    awaited = ("VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE")
    with Exchange(line, request, awaited, belongs, timeout) as exchange:
        exchange.ask()
        while len(came) < len(awaited):
            answer = exchange.answer()
            if answer is None:
                missing = " and no ".join(event for event in awaited if event not in came)
                raise exchange.timeout_error(
                    f"no {missing} for channel {wanted['channel_id']} came (the bot needs the "
                    "permission to connect to it, and the shard the intent GUILD_VOICE_STATES)"
                )
            event, data = answer
            if event == "READY":
                came.clear()
            else:
                came[event] = data
    return VoiceUpdates(*(came[event] for event in awaited))
