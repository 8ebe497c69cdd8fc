"""How the gateway checks and carries out the payloads that clients send.

The checks and the close codes follow Discord's documentation: pages *Gateway*, *Gateway Events*
("Send Events") and *Opcodes and Status Codes*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from shardlib.gateway import SEND_PERIOD, CloseCode, Intents, Opcode
from shardlib.testing.clock import Clock
from shardlib.testing.dispatcher import Dispatcher
from shardlib.testing.driver import ConnectionDriver
from shardlib.testing.guild import Guild
from shardlib.testing.identify import Identification
from shardlib.testing.payloads import encode, opcode_name
from shardlib.testing.rules import Rules
from shardlib.testing.session import Session
from shardlib.testing.validation import (
    Refused,
    check_presence,
    check_snowflake,
    decode,
    is_int,
    require,
    shorten,
)
from shardlib.testing.world import World

# The most members in one GUILD_MEMBERS_CHUNK, the most ids in ``user_ids``, and the most members
# that a ``query`` finds.
_MAX_CHUNK_MEMBERS = 1000
_MAX_USER_IDS = 100
_MAX_FOUND = 100

# The least seconds between two requests for all members of one guild (change log, "Introducing
#: Rate Limit When Requesting All Guild Members").
_ALL_MEMBERS_INTERVAL = 30.0

# Seconds after op 9 in which the gateway ignores payloads that need a session. A client waits as
#: long at most before it identifies again (Gateway Events, "Invalid Session").
_OVERTAKEN_FOR = 5.0


class Commands:
    """Checks and carries out the payloads of clients. The callers hold the gateway's lock.

    :param rules: the gateway's rules.
    :param clock: the gateway's clock.
    :param world: the guilds that commands read and change.
    :param dispatcher: sends the events that a command causes to the sessions.
    :param identification: answers Identify and Resume.
    :param remember: called with the connection and the payload, for each payload that arrives.
    """

    def __init__(
        self,
        rules: Rules,
        clock: Clock,
        world: World,
        dispatcher: Dispatcher,
        identification: Identification,
        remember: Callable[[ConnectionDriver, dict[str, Any]], None],
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._world = world
        self._dispatcher = dispatcher
        self._remember = remember
        # By guild id, the time by the clock of the last request for all members of the guild.
        self._all_members_requested_at: dict[str, float] = {}
        # The opcodes that need no session.
        self._connection_handlers: dict[int, Callable[[ConnectionDriver, Any], None]] = {
            Opcode.HEARTBEAT: self._heartbeat,
            Opcode.IDENTIFY: identification.identify,
            Opcode.RESUME: identification.resume,
        }
        # The opcodes that a client may send only after READY or RESUMED.
        self._session_handlers: dict[int, Callable[[Session, Any], None]] = {
            Opcode.PRESENCE_UPDATE: self._presence_update,
            Opcode.VOICE_STATE_UPDATE: self._voice_state_update,
            Opcode.REQUEST_GUILD_MEMBERS: self._request_guild_members,
            Opcode.REQUEST_SOUNDBOARD_SOUNDS: self._request_soundboard_sounds,
            Opcode.REQUEST_CHANNEL_INFO: self._request_channel_info,
        }

    def receive(self, connection: ConnectionDriver, message: bytes) -> None:
        """Check, remember and carry out one message of a client.

        If the message breaks a rule, close the connection.

        :param connection: the connection that the message arrived on.
        :param message: the content of the WebSocket message.
        """
        try:
            self._check_rate(connection)
            payload = decode(message)
            self._remember(connection, payload)
            self._carry_out(connection, payload["op"], payload.get("d"))
        except Refused as refusal:
            connection.close(refusal.code, str(refusal))

    def _check_rate(self, connection: ConnectionDriver) -> None:
        """Count a payload, and refuse a payload above the limit (Gateway, "Rate Limiting").

        :raises Refused: if the client has sent too many payloads in 60 seconds.
        """
        limit = self._rules.send_limit
        if limit is None:
            return
        # Heartbeats count, too. Discord's interval asks for one or two a minute. A test's shorter
        # interval may ask for hundreds, which would use up the client's limit; so the gateway
        # raises the limit by the heartbeats that the interval asks for.
        heartbeats = SEND_PERIOD * 1000 / self._rules.heartbeat_interval
        if connection.count_payload() > limit + max(0, int(heartbeats * 1.1) - 2):
            raise Refused(CloseCode.RATE_LIMITED, f"more than {limit} payloads in 60 s")

    def _carry_out(self, connection: ConnectionDriver, opcode: int, data: Any) -> None:
        if opcode in self._connection_handlers:
            self._connection_handlers[opcode](connection, data)
        elif opcode not in self._session_handlers:
            raise Refused(CloseCode.UNKNOWN_OPCODE, f"clients do not send op {shorten(opcode)}")
        elif connection.session is None:
            since_op_9 = connection.seconds_since_invalid_session
            if since_op_9 is None:
                raise Refused(CloseCode.NOT_AUTHENTICATED, f"{opcode_name(opcode)} before Identify")
            # What the client sent before it read op 9 is no mistake of the client.
            if since_op_9 >= _OVERTAKEN_FOR:
                raise Refused(CloseCode.NOT_AUTHENTICATED, f"{opcode_name(opcode)} after op 9")
        else:
            require(isinstance(data, dict), "d is not an object")
            self._session_handlers[opcode](connection.session, data)

    def _heartbeat(self, connection: ConnectionDriver, data: Any) -> None:
        require(data is None or is_int(data), "the d of a heartbeat is a sequence or null")
        connection.record_heartbeat()
        if connection.session is not None and data is not None:
            connection.session.acknowledge(data)
        if connection.acknowledges and connection.is_open:
            connection.step("ack", lambda: connection.send_op(Opcode.HEARTBEAT_ACK, None))

    def _guild(self, session: Session, guild_id: str) -> Guild | None:
        """Return a guild; None if the world has no such guild, or on another shard only.

        :param session: the session that asks for the guild.
        :param guild_id: the guild's id.
        """
        guild = self._world.guilds.get(guild_id)
        return guild if guild is not None and session.has_guild(int(guild.id)) else None

    def _presence_update(self, session: Session, data: Any) -> None:
        check_presence(data)
        session.set_presence(data)
        user_id = self._world.user["id"]
        for guild in self._world.guilds.values():
            if not session.has_guild(int(guild.id)):
                continue
            status = "offline" if data["status"] == "invisible" else data["status"]
            presence = {
                "user": {"id": user_id},
                "status": status,
                "activities": data.get("activities") or [],
                "client_status": {} if status == "offline" else {"web": status},
            }
            guild.presences[user_id] = presence
            self._dispatcher.dispatch("PRESENCE_UPDATE", {**presence, "guild_id": guild.id})

    def _voice_state_update(self, session: Session, data: Any) -> None:
        guild_id = check_snowflake(data.get("guild_id"), "guild_id is not a snowflake")
        channel_id = data.get("channel_id")
        if channel_id is not None:
            channel_id = check_snowflake(channel_id, "channel_id is not a snowflake")
        flags = {name: data.get(name, False) for name in ("self_mute", "self_deaf")}
        require(
            all(isinstance(flag, bool) for flag in flags.values()),
            "self_mute or self_deaf is not a boolean",
        )
        guild = self._guild(session, guild_id)
        channels = [] if guild is None else [channel["id"] for channel in guild.voice_channels]
        if guild is None or (channel_id is not None and channel_id not in channels):
            return  # as Discord ignores a request to join a channel that the bot cannot join
        state = guild.join_voice(
            self._world.user["id"], channel_id, session_id=session.session_id, **flags
        )
        self._dispatcher.dispatch("VOICE_STATE_UPDATE", state)
        if channel_id is not None:
            server = {
                "token": "local-voice",
                "guild_id": guild_id,
                "endpoint": "voice.invalid:443",
            }
            session.issue("VOICE_SERVER_UPDATE", encode(server))

    def _request_guild_members(self, session: Session, data: Any) -> None:
        guild_id = check_snowflake(data.get("guild_id"), "guild_id is not a snowflake")
        query, user_ids = data.get("query"), data.get("user_ids")
        require((query is None) != (user_ids is None), "one of query and user_ids is required")
        presences = data.get("presences", False)
        require(isinstance(presences, bool), "presences is not a boolean")
        nonce = data.get("nonce")
        # Discord documents that the gateway ignores an invalid nonce.
        extra: dict[str, Any] = (
            {"nonce": nonce} if isinstance(nonce, str) and len(nonce.encode()) <= 32 else {}
        )
        guild = self._guild(session, guild_id)
        if user_ids is not None:
            wanted = user_ids if isinstance(user_ids, list) else [user_ids]
            problem = "user_ids holds something that is not a snowflake"
            wanted = [check_snowflake(each, problem) for each in wanted[:_MAX_USER_IDS]]
            known = {} if guild is None else guild.members
            members = [known[user_id] for user_id in wanted if user_id in known]
            not_found = [user_id for user_id in wanted if user_id not in known]
            if not_found:
                extra["not_found"] = not_found
        else:
            limit = data.get("limit")
            require(isinstance(query, str), "query is not a string")
            require(is_int(limit) and limit >= 0, "limit, required with query, is not 0 or more")
            if guild is None:
                return
            wants_all = query == "" and limit == 0
            retry_after = self._admit_all_members_request(guild_id) if wants_all else 0.0
            if retry_after > 0:
                limited = {
                    "opcode": Opcode.REQUEST_GUILD_MEMBERS,
                    "retry_after": retry_after,
                    "meta": {"guild_id": guild_id, **extra},
                }
                session.issue("RATE_LIMITED", encode(limited))
                return
            if wants_all:
                members = self._all_members(session, guild)
            else:
                members = guild.search(query, min(limit or _MAX_FOUND, _MAX_FOUND))
        known_presences = None
        if guild is not None and presences and session.intents & Intents.GUILD_PRESENCES:
            known_presences = guild.presences
        for chunk in _chunks(members, known_presences):
            session.issue("GUILD_MEMBERS_CHUNK", encode({"guild_id": guild_id, **chunk, **extra}))

    def _admit_all_members_request(self, guild_id: str) -> float:
        """Apply the rate limit to a request for all members of a guild.

        :param guild_id: the guild's id.
        :returns: 0.0 if the rate limit admits the request, or else the seconds until the rate limit
            would admit one.
        """
        now = self._clock()
        last = self._all_members_requested_at.get(guild_id)
        if last is not None and now - last < _ALL_MEMBERS_INTERVAL:
            return last + _ALL_MEMBERS_INTERVAL - now
        self._all_members_requested_at[guild_id] = now
        return 0.0

    def _all_members(self, session: Session, guild: Guild) -> list[dict[str, Any]]:
        if session.intents & Intents.GUILD_MEMBERS:
            return list(guild.members.values())
        # Discord documents that this request needs the intent, but not its answer to a client
        # without the intent. The gateway answers with the bot, whom every client knows.
        return [guild.members[self._world.user["id"]]]

    def _request_soundboard_sounds(self, session: Session, data: Any) -> None:
        guild_ids = data.get("guild_ids")
        require(isinstance(guild_ids, list), "guild_ids is not an array")
        for guild_id in guild_ids or ():
            guild = self._guild(
                session,
                check_snowflake(guild_id, "guild_ids holds something that is not a snowflake"),
            )
            if guild is not None:
                sounds = {"guild_id": guild.id, "soundboard_sounds": guild.sounds}
                session.issue("SOUNDBOARD_SOUNDS", encode(sounds))

    def _request_channel_info(self, session: Session, data: Any) -> None:
        guild_id = check_snowflake(data.get("guild_id"), "guild_id is not a snowflake")
        fields = data.get("fields")
        require(
            isinstance(fields, list) and set(map(str, fields)) <= {"status", "voice_start_time"},
            "fields is not an array of status and voice_start_time",
        )
        guild = self._guild(session, guild_id)
        if guild is not None:
            info = {"guild_id": guild_id, "channels": guild.channel_info(fields)}
            session.issue("CHANNEL_INFO", encode(info))


def _chunks(
    members: list[dict[str, Any]], presences: dict[str, dict[str, Any]] | None
) -> Iterator[dict[str, Any]]:
    """Return the fields of each GUILD_MEMBERS_CHUNK that describe the members.

    :param members: all members that the client gets; if none, there is one empty chunk.
    :param presences: presences by user id; None for chunks without presences.
    """
    count = max(1, math.ceil(len(members) / _MAX_CHUNK_MEMBERS))
    for index in range(count):
        start = index * _MAX_CHUNK_MEMBERS
        chunk = members[start : start + _MAX_CHUNK_MEMBERS]
        fields: dict[str, Any] = {"members": chunk, "chunk_index": index, "chunk_count": count}
        if presences is not None:
            user_ids = (member["user"]["id"] for member in chunk)
            fields["presences"] = [presences[each] for each in user_ids if each in presences]
        yield fields
