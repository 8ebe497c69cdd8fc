"""What the gateway does with each payload a client sends.

Every function here runs on the gateway's thread with its lock held.  What is checked, and the
close code that answers a failure, is from Discord's documentation: pages *Gateway*, *Gateway
Events* ("Send Events") and *Opcodes and Status Codes*.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shardlib.gateway import (
    MAX_SEND_SIZE,
    SEND_PERIOD,
    CloseCode,
    Intents,
    Opcode,
)

from .sessions import GatewaySession, encode

if TYPE_CHECKING:
    from .connection import GatewayConnection
    from .server import LocalGateway
    from .world import Guild

_STATUSES = ("online", "dnd", "idle", "invisible", "offline")

#: Members in one GUILD_MEMBERS_CHUNK, and the most that ``user_ids`` brings.
_CHUNK = 1000
_FEW = 100


class Refused(Exception):
    """The payload breaks a rule: the connection is closed with this code and reason."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def name_of(opcode: int) -> str:
    """Return an opcode's documented name, with its number."""
    try:
        return f"{Opcode(opcode).name} (op {int(opcode)})"
    except ValueError:
        return f"op {opcode}"


def receive(connection: GatewayConnection, message: bytes) -> None:
    """Take one message from a client: check it, remember it, carry it out."""
    try:
        _check_rate(connection)
        payload = _decode(message)
        connection._gateway._remember(payload, connection)
        _carry_out(connection, payload["op"], payload.get("d"))
    except Refused as refusal:
        connection._close(refusal.code, str(refusal))


def _check_rate(connection: GatewayConnection) -> None:
    """Count a payload; more than 120 in 60 seconds are refused (Gateway, "Rate Limiting")."""
    gateway = connection._gateway
    if gateway.send_limit is None:
        return
    now = gateway.clock()
    sends = connection._sends
    while sends and now - sends[0] >= SEND_PERIOD:
        sends.popleft()
    sends.append(now)
    # Heartbeats count too.  Discord's interval asks for one or two a minute; a test's interval
    # may ask for hundreds, and these must not use up what the client may send.
    asked_for = SEND_PERIOD * 1000 / gateway.heartbeat_interval
    if len(sends) > gateway.send_limit + max(0, int(asked_for * 1.1) - 2):
        raise Refused(CloseCode.RATE_LIMITED, f"more than {gateway.send_limit} payloads in 60 s")


def _decode(message: bytes) -> dict[str, Any]:
    if len(message) > MAX_SEND_SIZE:
        raise Refused(
            CloseCode.DECODE_ERROR,
            f"a payload of {len(message)} bytes; {MAX_SEND_SIZE} may be",
        )
    try:
        payload = json.loads(message)
    except (ValueError, RecursionError):
        raise Refused(CloseCode.DECODE_ERROR, "not JSON") from None
    if not isinstance(payload, dict):
        raise Refused(CloseCode.DECODE_ERROR, "not a JSON object")
    if not _is_int(payload.get("op")):
        raise Refused(CloseCode.DECODE_ERROR, "op is not an integer")
    return payload


def _carry_out(connection: GatewayConnection, opcode: int, data: Any) -> None:
    command = _COMMANDS.get(opcode)
    if command is None:
        raise Refused(CloseCode.UNKNOWN_OPCODE, f"clients do not send op {opcode}")
    session = connection.session
    if command in (_heartbeat, _identify, _resume):
        command(connection, data)
    elif session is None:
        raise Refused(CloseCode.NOT_AUTHENTICATED, f"{name_of(opcode)} came before Identify")
    else:
        _require(isinstance(data, dict), "d is not an object")
        command(session, data)


def _require(condition: bool, what: str) -> None:
    """Refuse an invalid payload for an opcode."""
    if not condition:
        raise Refused(CloseCode.UNKNOWN_OPCODE, f"invalid payload: {what}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _snowflake(value: Any, what: str) -> str:
    _require(_is_int(value) or (isinstance(value, str) and value.isdecimal()), what)
    return str(value)


# What may come before a session.


def _heartbeat(connection: GatewayConnection, data: Any) -> None:
    _require(data is None or _is_int(data), "the d of a heartbeat is a sequence or null")
    connection._beat_at = connection._gateway.clock()
    if connection.acknowledge:
        connection._step("ack", lambda: connection._send_op(Opcode.HEARTBEAT_ACK, None))


def _identify(connection: GatewayConnection, data: Any) -> None:
    if connection.session is not None:
        raise Refused(CloseCode.ALREADY_AUTHENTICATED, "this connection has identified already")
    _require(isinstance(data, dict), "d is not an object")
    gateway = connection._gateway
    if not _is_token(gateway, data.get("token")):
        raise Refused(CloseCode.AUTHENTICATION_FAILED, "the token is wrong")
    _require(isinstance(data.get("properties"), dict), "properties is not an object")
    _require(isinstance(data.get("compress", False), bool), "compress is not a boolean")
    threshold = data.get("large_threshold", 50)
    _require(
        _is_int(threshold) and 50 <= threshold <= 250,
        "large_threshold is not 50 to 250",
    )
    if data.get("presence") is not None:
        _check_presence(data["presence"])
    shard_id, shards = _check_shard(data.get("shard", [0, 1]))
    _check_intents(data.get("intents"), gateway.allowed_intents)
    handled = sum(guild.shard_id(shards) == shard_id for guild in gateway.world.guilds.values())
    if handled > gateway.max_guilds_per_shard:
        raise Refused(
            CloseCode.SHARDING_REQUIRED,
            f"{handled} guilds, and a shard takes {gateway.max_guilds_per_shard}",
        )
    if gateway._sessions.starts_left() == 0:
        gateway._reset_token()
        raise Refused(CloseCode.AUTHENTICATION_FAILED, "too many Identifies: the token was reset")
    if gateway._sessions.take_slot(shard_id):
        connection._step("ready", lambda: _start(connection, data))
    else:
        connection._send_op(Opcode.INVALID_SESSION, False)


def _is_token(gateway: LocalGateway, token: Any) -> bool:
    # Undocumented, but eris has always sent it with the prefix of HTTP's Authorization header.
    return isinstance(token, str) and token.removeprefix("Bot ") == gateway.token


def _check_shard(shard: Any) -> tuple[int, int]:
    valid = isinstance(shard, list) and len(shard) == 2 and all(map(_is_int, shard))
    if not valid or not 0 <= shard[0] < shard[1]:
        raise Refused(CloseCode.INVALID_SHARD, "shard is not [shard_id, num_shards]")
    return shard[0], shard[1]


def _check_intents(intents: Any, allowed: Intents) -> None:
    if not _is_int(intents) or intents < 0 or intents & ~int(Intents.all()):
        raise Refused(CloseCode.INVALID_INTENTS, "intents has bits that mean nothing, or none")
    missing = Intents(intents) & Intents.privileged() & ~allowed
    if missing:
        names = ", ".join(str(intent.name) for intent in Intents if intent & missing)
        raise Refused(CloseCode.DISALLOWED_INTENTS, f"not switched on for this bot: {names}")


def _check_presence(presence: Any) -> None:
    _require(isinstance(presence, dict), "presence is not an object")
    _require(
        presence.get("status") in _STATUSES,
        f"status is not one of {', '.join(_STATUSES)}",
    )
    _require(isinstance(presence.get("afk", False), bool), "afk is not a boolean")
    since = presence.get("since")
    _require(since is None or _is_int(since), "since is not milliseconds or null")
    # The documentation has an array; eris sends null where there are none.
    activities = presence.get("activities")
    _require(activities is None or isinstance(activities, list), "activities is not an array")
    for activity in activities or ():
        _require(
            isinstance(activity, dict)
            and isinstance(activity.get("name"), str)
            and _is_int(activity.get("type")),
            "an activity has a name and a type",
        )


def _start(connection: GatewayConnection, identify: dict[str, Any]) -> None:
    gateway = connection._gateway
    if identify.get("compress") and connection.compression is None:
        connection._compress_payloads()
    session = gateway._sessions.start(connection, identify)
    shard_id, shards = session.shard
    guilds = [
        guild for guild in gateway.world.guilds.values() if guild.shard_id(shards) == shard_id
    ]
    ready: dict[str, Any] = {
        "v": connection.version,
        "user_settings": {},
        "user": {
            **gateway.world.user,
            "mfa_enabled": False,
            "verified": True,
            "email": None,
            "flags": 0,
        },
        "session_type": "normal",
        "session_id": session.session_id,
        "resume_gateway_url": gateway.resume_url,
        "relationships": [],
        "private_channels": [],
        "presences": [],
        "guilds": [{"unavailable": True, "id": guild.id} for guild in guilds],
        "guild_join_requests": [],
        "geo_ordered_rtc_regions": ["local"],
        "application": gateway.world.application,
        "_trace": ["local-gateway"],
    }
    if "shard" in identify:
        ready["shard"] = [shard_id, shards]
    session._issue("READY", encode(ready))
    if session.intents & Intents.GUILDS:
        for guild in guilds:
            session._issue("GUILD_CREATE", encode(_guild_create(session, guild)))
    # Only now: whoever waits for the session finds READY and the guilds sent.
    connection._attach(session)


def _guild_create(session: GatewaySession, guild: Guild) -> dict[str, Any]:
    """Return a guild's GUILD_CREATE as this session gets it."""
    return guild.create_object(
        with_presences=bool(session.intents & Intents.GUILD_PRESENCES),
        large_threshold=session.identify.get("large_threshold", 50),
    )


def _resume(connection: GatewayConnection, data: Any) -> None:
    if connection.session is not None:
        raise Refused(CloseCode.ALREADY_AUTHENTICATED, "this connection has a session already")
    _require(isinstance(data, dict), "d is not an object")
    gateway = connection._gateway
    if not _is_token(gateway, data.get("token")):
        raise Refused(CloseCode.AUTHENTICATION_FAILED, "the token is wrong")
    sequence = data.get("seq")
    _require(_is_int(sequence), "seq is not an integer")
    session = gateway._sessions.find(data.get("session_id"))
    if session is None:
        connection._step("ready", lambda: connection._send_op(Opcode.INVALID_SESSION, False))
    elif not 0 <= sequence <= session.sequence:
        session._end("resumed with a sequence never issued")
        raise Refused(CloseCode.INVALID_SEQ, f"seq {sequence} was never issued")
    elif not session._can_replay(sequence):
        session._end("resumed too late: what it missed is no longer kept")
        connection._step("ready", lambda: connection._send_op(Opcode.INVALID_SESSION, False))
    else:
        connection._step("ready", lambda: _carry_on(connection, session, sequence))


def _carry_on(connection: GatewayConnection, session: GatewaySession, sequence: int) -> None:
    former = session.connection
    if former is not None:
        # A client may come back before the gateway has noticed that it was gone.
        former.session = None
        former._close(CloseCode.UNKNOWN_ERROR, "the session was resumed on another connection")
    if session.identify.get("compress") and connection.compression is None:
        connection._compress_payloads()
    session._resume(connection, sequence)
    connection._attach(session)


# What needs a session.


def _presence_update(session: GatewaySession, data: Any) -> None:
    _check_presence(data)
    session.presence = data
    gateway = session._gateway
    for guild in gateway.world.guilds.values():
        status = "offline" if data["status"] == "invisible" else data["status"]
        presence = {
            "user": {"id": gateway.world.user["id"]},
            "status": status,
            "activities": data.get("activities") or [],
            "client_status": {} if status == "offline" else {"web": status},
        }
        guild.presences[gateway.world.user["id"]] = presence
        gateway.dispatch("PRESENCE_UPDATE", {**presence, "guild_id": guild.id})


def _voice_state_update(session: GatewaySession, data: Any) -> None:
    guild_id = _snowflake(data.get("guild_id"), "guild_id is not a snowflake")
    channel_id = data.get("channel_id")
    if channel_id is not None:
        channel_id = _snowflake(channel_id, "channel_id is not a snowflake")
    flags = {name: data.get(name, False) for name in ("self_mute", "self_deaf")}
    _require(
        all(isinstance(flag, bool) for flag in flags.values()),
        "self_mute is not a boolean",
    )
    gateway = session._gateway
    guild = gateway.world.guilds.get(guild_id)
    channels = [] if guild is None else [channel["id"] for channel in guild.voice_channels]
    if guild is None or (channel_id is not None and channel_id not in channels):
        return  # as with any channel the bot may not join: nothing happens
    state = guild.join_voice(gateway.world.user["id"], channel_id, **flags)
    gateway.dispatch("VOICE_STATE_UPDATE", state)
    if channel_id is not None:
        server = {
            "token": "local-voice",
            "guild_id": guild_id,
            "endpoint": "voice.invalid:443",
        }
        session._issue("VOICE_SERVER_UPDATE", encode(server))


def _request_guild_members(session: GatewaySession, data: Any) -> None:
    guild_id = _snowflake(data.get("guild_id"), "guild_id is not a snowflake")
    query, user_ids = data.get("query"), data.get("user_ids")
    _require((query is None) != (user_ids is None), "one of query and user_ids is required")
    presences = data.get("presences", False)
    _require(isinstance(presences, bool), "presences is not a boolean")
    nonce = data.get("nonce")
    # An invalid nonce is ignored, says the documentation.
    extra: dict[str, Any] = (
        {"nonce": nonce} if isinstance(nonce, str) and len(nonce.encode()) <= 32 else {}
    )
    guild = session._gateway.world.guilds.get(guild_id)
    if user_ids is not None:
        wanted = user_ids if isinstance(user_ids, list) else [user_ids]
        wanted = [_snowflake(each, "user_ids has something else in it") for each in wanted[:_FEW]]
        known = {} if guild is None else guild.members
        members = [known[user_id] for user_id in wanted if user_id in known]
        not_found = [user_id for user_id in wanted if user_id not in known]
        if not_found:
            extra["not_found"] = not_found
    else:
        limit = data.get("limit")
        _require(isinstance(query, str), "query is not a string")
        _require(_is_int(limit) and limit >= 0, "limit is required with query, and 0 or more")
        if guild is None:
            return
        everyone = query == "" and limit == 0
        wait = session._gateway._take_all_members(guild_id) if everyone else 0.0
        if wait > 0:
            limited = {
                "opcode": Opcode.REQUEST_GUILD_MEMBERS,
                "retry_after": wait,
                "meta": {"guild_id": guild_id, **extra},
            }
            session._issue("RATE_LIMITED", encode(limited))
            return
        members = _everyone(session, guild) if everyone else guild.search(query, limit)
    with_presences = presences and bool(session.intents & Intents.GUILD_PRESENCES)
    chunks = [members[at : at + _CHUNK] for at in range(0, len(members), _CHUNK)] or [[]]
    for index, chunk in enumerate(chunks):
        content: dict[str, Any] = {
            "guild_id": guild_id,
            "members": chunk,
            "chunk_index": index,
            "chunk_count": len(chunks),
            **extra,
        }
        if with_presences and guild is not None:
            ids = (member["user"]["id"] for member in chunk)
            content["presences"] = [
                guild.presences[each] for each in ids if each in guild.presences
            ]
        session._issue("GUILD_MEMBERS_CHUNK", encode(content))


def _everyone(session: GatewaySession, guild: Guild) -> list[dict[str, Any]]:
    if session.intents & Intents.GUILD_MEMBERS:
        return list(guild.members.values())
    # The documentation says that this needs the intent, but not what happens without it.
    return [guild.members[session._gateway.world.user["id"]]]


def _request_soundboard_sounds(session: GatewaySession, data: Any) -> None:
    guild_ids = data.get("guild_ids")
    _require(isinstance(guild_ids, list), "guild_ids is not an array")
    for guild_id in guild_ids or ():
        guild = session._gateway.world.guilds.get(
            _snowflake(guild_id, "guild_ids holds something that is no snowflake")
        )
        if guild is not None:
            sounds = {"guild_id": guild.id, "soundboard_sounds": guild.sounds}
            session._issue("SOUNDBOARD_SOUNDS", encode(sounds))


def _request_channel_info(session: GatewaySession, data: Any) -> None:
    guild_id = _snowflake(data.get("guild_id"), "guild_id is not a snowflake")
    fields = data.get("fields")
    _require(
        isinstance(fields, list) and set(map(str, fields)) <= {"status", "voice_start_time"},
        "fields is an array of status and voice_start_time",
    )
    guild = session._gateway.world.guilds.get(guild_id)
    if guild is not None:
        info = {"guild_id": guild_id, "channels": guild.channel_info(fields)}
        session._issue("CHANNEL_INFO", encode(info))


_COMMANDS: dict[int, Callable[[Any, Any], None]] = {
    Opcode.HEARTBEAT: _heartbeat,
    Opcode.IDENTIFY: _identify,
    Opcode.PRESENCE_UPDATE: _presence_update,
    Opcode.VOICE_STATE_UPDATE: _voice_state_update,
    Opcode.RESUME: _resume,
    Opcode.REQUEST_GUILD_MEMBERS: _request_guild_members,
    Opcode.REQUEST_SOUNDBOARD_SOUNDS: _request_soundboard_sounds,
    Opcode.REQUEST_CHANNEL_INFO: _request_channel_info,
}
