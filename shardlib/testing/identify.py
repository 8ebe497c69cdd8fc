"""Identify and Resume, which give a connection its session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardlib.gateway import CloseCode, Intents
from shardlib.testing.clock import Clock
from shardlib.testing.driver import ConnectionDriver
from shardlib.testing.guild import Guild
from shardlib.testing.payloads import encode
from shardlib.testing.replay import Replay
from shardlib.testing.rules import Rules
from shardlib.testing.session import Session
from shardlib.testing.sessions import ReceivedIdentify, Sessions, SessionStarts
from shardlib.testing.validation import (
    Refused,
    check_identify,
    check_intents,
    check_shard,
    check_shard_count,
    is_int,
    require,
    shorten,
)
from shardlib.testing.world import World

# The API versions from which on Identify must have intents, and message content needs an intent
# (change log, "API v8" and "API v10"). Below, the switch of the bot's settings decides on content.
_INTENTS_REQUIRED_FROM = 8
_CONTENT_NEEDS_INTENT_FROM = 10


class Identification:
    """Answers Identify and Resume. The callers hold the gateway's lock.

    :param rules: the gateway's rules.
    :param clock: the gateway's clock.
    :param world: the guilds for READY and GUILD_CREATE.
    :param sessions: the gateway's sessions.
    :param starts: the limits on Identifies.
    :param resume_url: returns the ``resume_gateway_url`` of READY.
    :param replay: plays a recording to each session, in place of READY and the guilds of the world;
        None to play none.
    """

    def __init__(
        self,
        rules: Rules,
        clock: Clock,
        world: World,
        sessions: Sessions,
        starts: SessionStarts,
        resume_url: Callable[[], str],
        replay: Replay | None,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._world = world
        self._sessions = sessions
        self._starts = starts
        self._resume_url = resume_url
        self._playback = replay

    def identify(self, connection: ConnectionDriver, data: Any) -> None:
        """Answer Identify.

        :param connection: the connection that the Identify arrived on.
        :param data: the payload's ``d``, of any type.
        :raises Refused: if the Identify breaks a rule.
        """
        if connection.session is not None:
            raise Refused(CloseCode.ALREADY_AUTHENTICATED, "this connection has identified already")
        self._check_token(data)
        check_identify(data)
        shard_id, shard_count = check_shard(data.get("shard", [0, 1]))
        now = self._clock()
        intents = data.get("intents")
        if intents is None and connection.version < _INTENTS_REQUIRED_FROM:
            intents = int(Intents.all() & ~self._forbidden_intents)
        accepted = False
        try:
            accepted = self._admit(shard_id, shard_count, intents, now)
        finally:
            self._starts.received.append(ReceivedIdentify(now, shard_id, shard_count, accepted))
        if accepted:
            connection.take_faults_of_shard(shard_id)
            granted = Intents(intents) & Intents.all()
            if connection.version < _CONTENT_NEEDS_INTENT_FROM:
                granted |= Intents.MESSAGE_CONTENT & ~self._forbidden_intents
            connection.step("ready", lambda: self._start(connection, data, granted))
        else:
            connection.invalidate(resumable=False)

    @property
    def _forbidden_intents(self) -> Intents:
        """The privileged intents that are not switched on for the bot."""
        return Intents.privileged() & ~self._rules.allowed_intents

    def _admit(self, shard_id: int, shard_count: int, intents: Any, now: float) -> bool:
        """Apply the rules on shards, intents and session starts to an Identify.

        :param shard_id: the id of the shard that identifies.
        :param shard_count: the number of shards that the Identify names.
        :param intents: the ``intents`` that the Identify names, of any type.
        :param now: when the Identify arrived, by the gateway's clock.
        :returns: False if the Identify came too early after another of its rate limit key.
        :raises Refused: if the Identify breaks another rule.
        """
        check_shard_count(
            shard_count, least=self._rules.min_shards, multiple=self._rules.shard_multiple
        )
        check_intents(intents, self._forbidden_intents)
        guild_count = len(self._guilds(shard_id, shard_count))
        if guild_count > self._rules.max_guilds_per_shard:
            raise Refused(
                CloseCode.SHARDING_REQUIRED,
                f"{guild_count} guilds; a shard may have {self._rules.max_guilds_per_shard}",
            )
        if self._starts.remaining() == 0:
            self._reset_token()
            raise Refused(
                CloseCode.AUTHENTICATION_FAILED, "too many Identifies: the token was reset"
            )
        return self._starts.take_slot(shard_id, now)

    def resume(self, connection: ConnectionDriver, data: Any) -> None:
        """Answer Resume.

        :param connection: the connection that the Resume arrived on.
        :param data: the payload's ``d``, of any type.
        :raises Refused: if the Resume breaks a rule.
        """
        if connection.session is not None:
            raise Refused(CloseCode.ALREADY_AUTHENTICATED, "this connection has a session already")
        self._check_token(data)
        sequence = data.get("seq")
        require(is_int(sequence), "seq is not an integer")
        session = self._sessions.find(data.get("session_id"))
        if session is not None and not 0 <= sequence <= session.sequence:
            session.end("resumed with a sequence never issued")
            raise Refused(CloseCode.INVALID_SEQ, f"seq {shorten(sequence)} was never issued")
        if session is not None and self._rules.resume_after_close:
            _end_if_connected(session)
        if session is not None:
            connection.take_faults_of_shard(session.shard[0])
        connection.step("ready", lambda: self._answer_resume(connection, session, sequence))

    def _check_token(self, data: Any) -> None:
        require(isinstance(data, dict), "d is not an object")
        token = data.get("token")
        # Undocumented: eris has always sent the prefix of HTTP's Authorization header.
        if not isinstance(token, str) or token.removeprefix("Bot ") != self._rules.token:
            raise Refused(CloseCode.AUTHENTICATION_FAILED, "the token is wrong")

    def _guilds(self, shard_id: int, shards: int) -> list[Guild]:
        return [
            guild for guild in self._world.guilds.values() if guild.shard_id(shards) == shard_id
        ]

    def _reset_token(self) -> None:
        """Reset the token, and end all sessions (Gateway, "Identifying")."""
        self._rules.reset_token()
        for session in self._sessions.alive():
            carrier = session.carrier
            session.end("the token was reset")
            if carrier is not None:
                carrier.release(CloseCode.AUTHENTICATION_FAILED, "the token was reset")

    def _start(
        self, connection: ConnectionDriver, identify: dict[str, Any], intents: Intents
    ) -> None:
        if identify.get("compress") and connection.compression is None:
            connection.compress_payloads()
        session = self._sessions.start(connection, identify, intents)
        if self._playback is not None:
            self._playback.begin(session, connection.version)
        else:
            self._greet(connection, session)
        # Last, because attach() lets wait_until_ready() return, which promises that READY and the
        # guilds have been sent.
        connection.attach(session)

    def _greet(self, connection: ConnectionDriver, session: Session) -> None:
        guilds = self._guilds(*session.shard)
        session.issue("READY", encode(self._ready(connection, session, guilds)))
        if session.intents & Intents.GUILDS:
            for guild in guilds:
                session.issue("GUILD_CREATE", encode(_guild_create(session, guild)))

    def _ready(
        self, connection: ConnectionDriver, session: Session, guilds: list[Guild]
    ) -> dict[str, Any]:
        user = self._world.user
        ready: dict[str, Any] = {
            "v": connection.version,
            "user_settings": {},
            "user": {**user, "mfa_enabled": False, "verified": True, "email": None, "flags": 0},
            "session_type": "normal",
            "session_id": session.session_id,
            "resume_gateway_url": self._resume_url(),
            "relationships": [],
            "private_channels": [],
            "presences": [],
            "guilds": [{"unavailable": True, "id": guild.id} for guild in guilds],
            "guild_join_requests": [],
            "geo_ordered_rtc_regions": ["local"],
            "application": self._world.application,
            "_trace": ["local-gateway"],
        }
        if "shard" in session.identify:
            ready["shard"] = list(session.shard)
        return ready

    def _answer_resume(
        self, connection: ConnectionDriver, session: Session | None, sequence: int
    ) -> None:
        if session is not None and _is_resumable(session, sequence):
            connection.step("replay", lambda: self._replay(connection, session, sequence))
        else:
            connection.invalidate(resumable=False)

    def _replay(self, connection: ConnectionDriver, session: Session, sequence: int) -> None:
        # A fault may have delayed the replay, and the session may have ended meanwhile.
        if not _is_resumable(session, sequence):
            connection.invalidate(resumable=False)
            return
        former = session.carrier
        if former is not None:
            # A client may resume before the gateway has noticed the end of the former connection.
            former.release(CloseCode.UNKNOWN_ERROR, "the session was resumed on another connection")
        if session.identify.get("compress") and connection.compression is None:
            connection.compress_payloads()
        session.resume(connection, sequence)
        connection.attach(session)


def _end_if_connected(session: Session) -> None:
    """End a session if the gateway still reads from the connection that carries the session."""
    carrier = session.carrier
    if carrier is not None and carrier.is_read:
        session.end("resumed before its connection was closed")
        carrier.release(CloseCode.UNKNOWN_ERROR, "the session was resumed too early")


def _is_resumable(session: Session, sequence: int) -> bool:
    """Return whether a session can be resumed; end a session that has dropped a missed event.

    :param session: the session.
    :param sequence: the sequence of the last event that the client has received.
    """
    if not session.can_replay(sequence):
        session.end("resumed too late: the session no longer keeps an event that it would replay")
    return session.ended is None


def _guild_create(session: Session, guild: Guild) -> dict[str, Any]:
    """Return the ``d`` of a guild's GUILD_CREATE, as the session's Identify asks for it."""
    return guild.create_object(
        with_presences=bool(session.intents & Intents.GUILD_PRESENCES),
        large_threshold=session.identify.get("large_threshold", 50),
    )
