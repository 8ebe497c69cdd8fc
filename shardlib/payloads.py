"""JSON in and out, and the payloads that a client sends.

Each builder checks its arguments against Discord's documentation (*Gateway Events: Send Events*)
and returns a whole payload; :exc:`TypeError` and :exc:`ValueError` say which argument is wrong.
Snowflakes may be given as int or as str of digits.
"""

from __future__ import annotations

import json as standard_json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Protocol, TypedDict

from shardlib.errors import UnreadableMessage
from shardlib.gateway import MAX_SEND_SIZE, Opcode

Payload = dict[str, Any]


class GatewayPayload(TypedDict):
    """What the Gateway sends, for type checkers: every payload is a plain dict.

    https://docs.discord.com/developers/events/gateway-events#payload-structure

    :ivar op: the opcode, an int of :class:`shardlib.Opcode`.
    :ivar d: the data, any JSON value.
    :ivar s: the sequence, an int, of events; else None.
    :ivar t: the name, a str, of events; else None.
    """

    op: int
    d: Any
    s: int | None
    t: str | None


Snowflake = int | str

STATUSES = ("online", "dnd", "idle", "invisible", "offline")
CHANNEL_INFO_FIELDS = ("status", "voice_start_time")

_ACTIVITY_TYPES = range(6)  # Gateway Events: Activity Types
_MAX_MEMBERS = 100  # that Request Guild Members returns for a prefix or for user_ids
_MAX_NONCE_SIZE = 32
# Characters of a token's beginning that are hidden at the end of a text. Fewer may be any word.
_TELLING = 8

# How Discord's own dispatches begin. Anything else, even a space, is left to the decoder.
_match_header = re.compile(rb'\{"t":"([A-Z][A-Z0-9_]*)","s":(0|[1-9][0-9]{0,17}),"op":0,"d":').match


class JSONModule(Protocol):
    """A module such as :mod:`json`, ujson or orjson."""

    def loads(self, data: Any, /) -> Any:
        """Decode a message, which is given as bytes."""

    def dumps(self, value: Any, /) -> Any:
        """Return str, or bytes of UTF-8."""


def check_payload(message: bytes, decoded: Any) -> Payload:
    """The payload that a message holds.

    What the JSON module refuses is tried with the standard library's: it takes integers of any
    size, and other things that Discord sends in odd moments.

    :param message: JSON.
    :param decoded: what the JSON module made of it, or None.
    :raises UnreadableMessage: if it holds no JSON object with an ``op``
    """
    payload = _decode(message) if decoded is None else decoded
    if not isinstance(payload, dict):
        raise UnreadableMessage("a message was skipped: it is not a JSON object", _text_of(message))
    if type(payload.get("op")) is not int:
        raise UnreadableMessage("a message was skipped: it has no opcode", _text_of(message))
    return payload


def _decode(message: bytes) -> Any:
    try:
        text = message.decode()
    except UnicodeDecodeError as error:
        raise UnreadableMessage(
            f"a message was skipped: it is not UTF-8 ({error})", message
        ) from error
    try:
        return standard_json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableMessage(f"a message was skipped: it is not JSON ({error})", text) from error


def _text_of(message: bytes) -> str | bytes:
    """A message as the text that it is, unless it is none."""
    try:
        return message.decode()
    except UnicodeDecodeError:
        return message


def encode(payload: Any, json: JSONModule) -> str:
    """The JSON text of a payload.

    :raises TypeError: if the payload holds a type that ``json`` cannot encode
    :raises ValueError: if ``json`` cannot encode it for another reason
    """
    try:
        text = json.dumps(payload)
    except TypeError as error:
        raise TypeError(f"a payload cannot be written as JSON: {error}") from error
    except Exception as error:  # OverflowError, RecursionError: each module has errors of its own
        raise ValueError(f"a payload cannot be written as JSON: {error}") from error
    return text.decode() if isinstance(text, bytes) else str(text)


def read_dispatch_header(message: bytes) -> tuple[str, int] | None:
    """The event's name and sequence of a dispatch, without decoding it.

    None if they do not stand in front exactly as Discord writes them, or if the message does not
    end like an object: then the JSON module has to find out.
    """
    header = _match_header(message)
    if header is None or message[-1:] != b"}":
        return None
    event, sequence = header.groups()
    return event.decode(), int(sequence)


def check_send(data: str) -> Payload:
    """Check what a user wants to send against *Gateway: Sending Events*, and decode it.

    :raises TypeError: if ``data`` is not a str
    :raises ValueError: if it is no JSON object with an ``op``, or larger than 4096 bytes
    """
    if not isinstance(data, str):
        raise TypeError(f"data must be a mapping or a str of JSON, not {type(data).__name__}")
    try:
        size = len(data.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"data cannot be sent as UTF-8: {error.reason}") from None
    if size > MAX_SEND_SIZE:
        raise ValueError(f"data has {size} bytes; the Gateway takes at most {MAX_SEND_SIZE}")
    try:
        payload = standard_json.loads(data, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"data is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise ValueError("data is not a JSON object")
    if type(payload.get("op")) is not int:
        raise ValueError('data has no opcode: "op" is missing, or not an integer')
    return payload


def refuse_constant(name: str) -> NoReturn:
    """The ``parse_constant`` of a decoder that takes no NaN and no Infinity.

    :raises ValueError: always.
    """
    raise ValueError(f"{name} is not a JSON value")


def default_properties() -> dict[str, str]:
    """The connection properties that Identify sends unless told otherwise."""
    system = "windows" if sys.platform == "win32" else sys.platform
    return {"os": system, "browser": "shardlib", "device": "shardlib"}


def identify(
    *,
    token: str,
    intents: int,
    shard_id: int,
    shard_count: int,
    properties: Mapping[str, Any],
    large_threshold: int | None,
    compress: bool,
) -> Payload:
    """Identify: start a session.

    :param compress: whether to ask for payload compression
    """
    _check_int("intents", intents, 0)
    _check_int("shard_count", shard_count, 1)
    _check_int("shard_id", shard_id, 0, shard_count - 1)
    if not isinstance(properties, Mapping):
        raise TypeError(f"properties must be a dict, not {type(properties).__name__}")
    data: Payload = {
        "token": check_token(token),
        "properties": dict(properties),
        "shard": [shard_id, shard_count],
        "intents": int(intents),
    }
    if compress:
        data["compress"] = True
    if large_threshold is not None:
        data["large_threshold"] = _check_int("large_threshold", large_threshold, 50, 250)
    return _payload(Opcode.IDENTIFY, data)


def check_token(token: str) -> str:
    """The token, if it can be one; no error ever shows it."""
    if not isinstance(token, str):
        raise TypeError(f"token must be a str, not {type(token).__name__}")
    if not token:
        raise ValueError("token must be the bot's token, not an empty str")
    if token.startswith("Bot "):
        raise ValueError('token must be given without "Bot " in front, which is for the HTTP API')
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            "token holds a space, a line break or another character that no bot token has; "
            "was it read from a file with the end of the line?"
        )
    return token


def hide_token(text: str, token: str) -> str:
    """A text without the token, for logs and errors. At its end the token may be cut off."""
    escaped = standard_json.dumps(token)[1:-1]
    text = text.replace(escaped, "***").replace(token, "***")
    for length in range(len(token) - 1, _TELLING - 1, -1):
        if text.endswith(token[:length]):
            return text[:-length] + "***"
    return text


def resume(*, token: str, session_id: str, sequence: int | None) -> Payload:
    """Resume: replay what was missed since an event.

    :param sequence: of the last event received
    """
    return _payload(Opcode.RESUME, {"token": token, "session_id": session_id, "seq": sequence})


def heartbeat(sequence: int | None) -> str:
    """Heartbeat, as it is sent: written without a JSON module, which may be the user's.

    :param sequence: of the last event received, None before the first
    """
    return f'{{"op":1,"d":{"null" if sequence is None else sequence}}}'


def presence_update(
    *,
    status: str = "online",
    activities: Iterable[Mapping[str, Any]] = (),
    since: int | None = None,
    afk: bool = False,
) -> Payload:
    """Update Presence.

    :param status: one of :data:`STATUSES`
    :param activities: activity objects; a bot may set ``name``, ``type``, ``state`` and ``url``
    :param since: Unix time in milliseconds since when the client is idle, None if it is not
    :param afk: whether it is away
    """
    if status not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {status!r}")
    if isinstance(activities, (str, bytes, Mapping)) or not isinstance(activities, Iterable):
        raise TypeError(f"activities must be a list of dicts, not {type(activities).__name__}")
    if since is not None:
        _check_int("since", since, 0)
    _check_bool("afk", afk)
    data = {
        "since": since,
        "activities": [_activity(activity) for activity in activities],
        "status": status,
        "afk": afk,
    }
    return _payload(Opcode.PRESENCE_UPDATE, data)


def check_presence(presence: Mapping[str, Any]) -> Payload:
    """The complete data of a presence update, from some of its fields."""
    if not isinstance(presence, Mapping):
        raise TypeError(f"presence must be a dict, not {type(presence).__name__}")
    unknown = [key for key in presence if key not in ("since", "activities", "status", "afk")]
    if unknown:
        raise ValueError(
            f"presence has no field {unknown[0]!r}; it has since, activities, status and afk"
        )
    data: Payload = presence_update(**presence)["d"]
    return data


def _activity(activity: Mapping[str, Any]) -> Payload:
    if not isinstance(activity, Mapping):
        raise TypeError(f"activities must hold dicts, not {type(activity).__name__}")
    name = activity.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("activities: each must have a name, a str that is not empty")
    _check_int("activities: type", activity.get("type"), _ACTIVITY_TYPES[0], _ACTIVITY_TYPES[-1])
    return dict(activity)


def voice_state_update(
    guild_id: Snowflake,
    channel_id: Snowflake | None,
    *,
    self_mute: bool = False,
    self_deaf: bool = False,
) -> Payload:
    """Update Voice State: join, move, or leave.

    :param channel_id: None to leave
    """
    data = {
        "guild_id": check_snowflake("guild_id", guild_id),
        "channel_id": None if channel_id is None else check_snowflake("channel_id", channel_id),
        "self_mute": _check_bool("self_mute", self_mute),
        "self_deaf": _check_bool("self_deaf", self_deaf),
    }
    return _payload(Opcode.VOICE_STATE_UPDATE, data)


def request_guild_members(
    guild_id: Snowflake,
    *,
    query: str | None = None,
    limit: int = 0,
    presences: bool = False,
    user_ids: Snowflake | Iterable[Snowflake] | None = None,
    nonce: str | None = None,
) -> Payload:
    """Request Guild Members: by the beginning of their name, by id, or all.

    :param query: what the user name begins with; empty, the default, for all members
    :param limit: at most so many members for ``query``: 1 to 100, or 0 for all of an empty query
    :param presences: whether to send their presences too
    :param user_ids: one id, or up to 100, instead of ``query``
    :param nonce: comes back with the answer; up to 32 bytes
    """
    data: Payload = {"guild_id": check_snowflake("guild_id", guild_id)}
    _check_int("limit", limit, 0)
    if user_ids is None:
        query = "" if query is None else query
        if not isinstance(query, str):
            raise TypeError(f"query must be a str, not {type(query).__name__}")
        if query and not 1 <= limit <= _MAX_MEMBERS:
            raise ValueError(
                f"limit must be from 1 to {_MAX_MEMBERS} for a query that is not empty, not {limit}"
            )
        data.update(query=query, limit=limit)
    elif query is not None:
        raise ValueError("give query or user_ids, not both")
    elif limit:
        raise ValueError("limit goes with query, not with user_ids")
    else:
        ids = [user_ids] if isinstance(user_ids, (int, str)) else user_ids
        data["user_ids"] = _snowflakes("user_ids", ids)
        if len(data["user_ids"]) > _MAX_MEMBERS:
            raise ValueError(
                f"user_ids must be at most {_MAX_MEMBERS}, not {len(data['user_ids'])}"
            )
    data["presences"] = _check_bool("presences", presences)
    if nonce is not None:
        if not isinstance(nonce, str):
            raise TypeError(f"nonce must be a str, not {type(nonce).__name__}")
        if len(nonce.encode()) > _MAX_NONCE_SIZE:
            raise ValueError(f"nonce must have at most {_MAX_NONCE_SIZE} bytes of UTF-8")
        data["nonce"] = nonce
    return _payload(Opcode.REQUEST_GUILD_MEMBERS, data)


def request_soundboard_sounds(guild_ids: Iterable[Snowflake]) -> Payload:
    """Request Soundboard Sounds of some guilds."""
    return _payload(
        Opcode.REQUEST_SOUNDBOARD_SOUNDS, {"guild_ids": _snowflakes("guild_ids", guild_ids)}
    )


def request_channel_info(
    guild_id: Snowflake, fields: Iterable[str] = CHANNEL_INFO_FIELDS
) -> Payload:
    """Request Channel Info: what is known of a guild's channels for the moment only.

    :param fields: some of :data:`CHANNEL_INFO_FIELDS`
    """
    if isinstance(fields, (str, bytes)) or not isinstance(fields, Iterable):
        raise TypeError(f"fields must be a list of str, not {type(fields).__name__}")
    names = list(fields)
    unknown = [name for name in names if name not in CHANNEL_INFO_FIELDS]
    if unknown or not names:
        raise ValueError(f"fields must be one or more of {CHANNEL_INFO_FIELDS}, not {names!r}")
    data = {"guild_id": check_snowflake("guild_id", guild_id), "fields": names}
    return _payload(Opcode.REQUEST_CHANNEL_INFO, data)


def _payload(opcode: Opcode, data: Any) -> Payload:
    # int(): a JSON module need not know enumerations.
    return {"op": int(opcode), "d": data}


def check_snowflake(name: str, value: Any) -> str:
    """Check an id, and return its digits.

    :param name: of the argument, as the error names it.
    :param value: of the argument.
    :raises TypeError: if the value is neither an int nor a str.
    :raises ValueError: if it is not the number of a snowflake.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"{name} must be an int or a str of digits, not {type(value).__name__}")
    text = str(value)
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) >= 1 << 64:
        raise ValueError(f"{name} must be a snowflake, an id of up to 20 digits, not {value!r}")
    return text


def _snowflakes(name: str, values: Any) -> list[str]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of snowflakes, not {type(values).__name__}")
    snowflakes = [check_snowflake(name, value) for value in values]
    if not snowflakes:
        raise ValueError(f"{name} must have an id at least")
    return snowflakes


def _check_int(name: str, value: Any, least: int, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < least or (most is not None and value > most):
        allowed = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be {allowed}, not {value}")
    return int(value)


def _check_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
    return value
