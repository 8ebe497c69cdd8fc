"""Checks of the payloads that clients send, with the close codes that Discord documents."""

from __future__ import annotations

import json
from typing import Any

from shardlib.gateway import MAX_SEND_SIZE, CloseCode, Intents

#: API versions that are available or deprecated, but not discontinued (Reference, "API Versions").
VERSIONS = (6, 7, 8, 9, 10)

# An intent that Discord takes and does not document. interactions.py has it among its defaults.
_UNDOCUMENTED_INTENT = 1 << 17

_STATUSES = ("online", "dnd", "idle", "invisible", "offline")


class Refused(Exception):
    """The client broke a rule, for which the gateway closes the connection.

    :param code: the close code.
    :param reason: the reason in the CLOSE frame, at most 123 bytes of UTF-8.
    """

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def shorten(value: object) -> str:
    """Return the first 20 characters of a value that the client sent.

    A refusal that names a longer value might not fit into a CLOSE frame.

    :param value: the value.
    """
    return str(value)[:20]


def require(condition: bool, problem: str) -> None:
    """Refuse a payload that is not as Discord documents its opcode.

    The close code is 4001, Discord's code for an invalid payload as well as for an invalid opcode.

    :param condition: whether the payload is as documented.
    :param problem: what is wrong with the payload if the condition is false.
    :raises Refused: if the condition is false.
    """
    if not condition:
        raise Refused(CloseCode.UNKNOWN_OPCODE, f"invalid payload: {problem}")


def decode(message: bytes) -> dict[str, Any]:
    """Decode the payload in a client's message, and return the payload.

    :param message: the content of a WebSocket message.
    :raises Refused: if the message is too large, or is no JSON object with an integer ``op``.
    """
    if len(message) > MAX_SEND_SIZE:
        raise Refused(
            CloseCode.DECODE_ERROR,
            f"a payload of {len(message)} bytes; the limit is {MAX_SEND_SIZE}",
        )
    try:
        payload = json.loads(message)
    except (ValueError, RecursionError):
        raise Refused(CloseCode.DECODE_ERROR, "not JSON") from None
    if not isinstance(payload, dict):
        raise Refused(CloseCode.DECODE_ERROR, "not a JSON object")
    if not is_int(payload.get("op")):
        raise Refused(CloseCode.DECODE_ERROR, "op is not an integer")
    return payload


def is_int(value: Any) -> bool:
    """Return whether a decoded JSON value is an integer, and not true or false.

    :param value: the value.
    """
    return isinstance(value, int) and not isinstance(value, bool)


def check_snowflake(value: Any, problem: str) -> str:
    """Check a snowflake, and return the snowflake as a string of digits.

    :param value: the value that the client sent.
    :param problem: what is wrong with the payload if the value is no snowflake.
    :raises Refused: if the value is no snowflake.
    """
    require(is_int(value) or (isinstance(value, str) and value.isdecimal()), problem)
    return str(value)


def check_identify(data: dict[str, Any]) -> None:
    """Check those fields of Identify that do not depend on the gateway's rules.

    :param data: the ``d`` of the Identify.
    :raises Refused: if a field is not as documented.
    """
    require(isinstance(data.get("properties"), dict), "properties is not an object")
    require(isinstance(data.get("compress", False), bool), "compress is not a boolean")
    threshold = data.get("large_threshold", 50)
    require(is_int(threshold) and 50 <= threshold <= 250, "large_threshold is not 50 to 250")
    if data.get("presence") is not None:
        check_presence(data["presence"])


def check_shard(shard: Any) -> tuple[int, int]:
    """Check the ``shard`` of Identify, and return ``(shard_id, num_shards)``.

    :param shard: the value that the client sent.
    :raises Refused: if the value is not two integers, the first 0 or more and less than the second.
    """
    valid = isinstance(shard, list) and len(shard) == 2 and all(map(is_int, shard))
    if not valid or not 0 <= shard[0] < shard[1]:
        raise Refused(CloseCode.INVALID_SHARD, "shard is not [shard_id, num_shards]")
    return shard[0], shard[1]


def check_shard_count(shard_count: int, *, least: int, multiple: int) -> None:
    """Check the number of shards against what the gateway demands of the bot.

    :param shard_count: the number of shards that the client sent.
    :param least: the least number of shards that the bot must have.
    :param multiple: the number of which the bot's number of shards must be a multiple.
    :raises Refused: if the bot must have more shards, or a multiple of another number (Gateway,
        "Sharding for Large Bots").
    """
    if shard_count < least:
        raise Refused(
            CloseCode.SHARDING_REQUIRED,
            f"{shard_count} shards; this bot needs {least} or more",
        )
    if shard_count % multiple != 0:
        raise Refused(
            CloseCode.INVALID_SHARD,
            f"{shorten(shard_count)} shards; the number must be a multiple of {multiple}",
        )


def check_intents(intents: Any, forbidden: Intents) -> None:
    """Check the ``intents`` of Identify.

    :param intents: the value that the client sent.
    :param forbidden: the privileged intents that are not switched on for the bot.
    :raises Refused: if the value is no sum of intents, or includes a forbidden intent.
    """
    known = int(Intents.all()) | _UNDOCUMENTED_INTENT
    if not is_int(intents) or intents < 0 or intents & ~known:
        raise Refused(CloseCode.INVALID_INTENTS, "intents is not a sum of known intents")
    refused = Intents(intents) & forbidden
    if refused:
        names = ", ".join(str(intent.name) for intent in Intents if intent & refused)
        raise Refused(CloseCode.DISALLOWED_INTENTS, f"not switched on for this bot: {names}")


def check_presence(presence: Any) -> None:
    """Check a Presence Update.

    :param presence: the payload's ``d``, or the ``presence`` of Identify.
    :raises Refused: if the presence is not as documented.
    """
    require(isinstance(presence, dict), "presence is not an object")
    require(
        presence.get("status") in _STATUSES,
        f"status is not one of {', '.join(_STATUSES)}",
    )
    require(isinstance(presence.get("afk", False), bool), "afk is not a boolean")
    since = presence.get("since")
    # discord.py and py-cord write the integer 0 as 0.0.
    is_whole = is_int(since) or (isinstance(since, float) and since.is_integer())
    require(since is None or is_whole, "since is not milliseconds or null")
    # The documentation demands an array. eris sends null for no activities.
    activities = presence.get("activities")
    require(activities is None or isinstance(activities, list), "activities is not an array")
    for activity in activities or ():
        require(
            isinstance(activity, dict)
            and isinstance(activity.get("name"), str)
            and is_int(activity.get("type")),
            "an activity has a name and a type",
        )
