"""What the body of a message looks like, with its documented limits (Message, "Create Message")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from shardlib.testing.rest.components import COMPONENT, check_layout
from shardlib.testing.rest.errors import Problems
from shardlib.testing.rest.forms import (
    Anything,
    Boolean,
    Field,
    Integer,
    Kind,
    ListOf,
    Number,
    Object,
    OneOf,
    Path,
    Snowflake,
    Text,
    Timestamp,
    Url,
)
from shardlib.testing.validation import is_int

#: Message flags (Message, "Message Flags").
SUPPRESS_EMBEDS = 1 << 2
EPHEMERAL = 1 << 6
LOADING = 1 << 7
SUPPRESS_NOTIFICATIONS = 1 << 12
IS_VOICE_MESSAGE = 1 << 13
IS_COMPONENTS_V2 = 1 << 15

# The most characters of all embeds of a message together.
_MAX_EMBEDS_SIZE = 6000


@dataclass(frozen=True)
class _Nonce:
    """A string or an integer of up to 25 characters, which comes back as it was sent."""

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        Text(0, 25).check(value, path, problems)
        return value if is_int(value) else str(value)


def _check_embed(embed: dict[str, Any], path: Path, problems: Problems) -> None:
    if not any(embed.get(key) for key in embed if key not in ("type", "color", "timestamp")):
        problems.add((*path, "description"), "BASE_TYPE_REQUIRED", "This field is required")


_ICON = Url(2048, ("http", "https", "attachment"))
_IMAGE = Object({"url": Field(_ICON, required=True)})

EMBED = Object(
    {
        "title": Text(0, 256, strip=True),
        "type": Text(),
        "description": Text(0, 4096, strip=True),
        "url": Url(2048),
        "timestamp": Timestamp(),
        "color": Integer(0, 0xFFFFFF),
        "footer": Object(
            {
                "text": Field(Text(0, 2048, strip=True), required=True),
                "icon_url": _ICON,
            }
        ),
        "image": _IMAGE,
        "thumbnail": _IMAGE,
        "author": Object(
            {
                "name": Field(Text(0, 256, strip=True), required=True),
                "url": Url(2048),
                "icon_url": _ICON,
            }
        ),
        "fields": ListOf(
            Object(
                {
                    "name": Field(Text(1, 256, strip=True), required=True),
                    "value": Field(Text(1, 1024, strip=True), required=True),
                    "inline": Boolean(),
                }
            ),
            most=25,
        ),
    },
    rule=_check_embed,
)


def _check_allowed_mentions(allowed: dict[str, Any], path: Path, problems: Problems) -> None:
    for kind in ("users", "roles"):
        if kind in (allowed.get("parse") or ()) and allowed.get(kind):
            problems.add(
                path,
                "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE",
                f'parse:["{kind}"] and {kind}: [ids...] are mutually exclusive.',
            )


ALLOWED_MENTIONS = Object(
    {
        "parse": ListOf(OneOf(("users", "roles", "everyone"))),
        "users": ListOf(Snowflake(), most=100),
        "roles": ListOf(Snowflake(), most=100),
        "replied_user": Boolean(),
    },
    rule=_check_allowed_mentions,
)

_ATTACHMENT = Object(
    {
        "id": Field(Snowflake(), required=True),
        "filename": Text(0, 260),
        "title": Text(0, 1024),
        "description": Text(0, 1024),
        "duration_secs": Number(),
        "waveform": Text(),
        "is_spoiler": Boolean(),
    }
)

# The fields that new and edited messages have.
_CONTENT: dict[str, Field | Kind] = {
    "content": Text(0, 2000, strip=True),
    "embeds": ListOf(EMBED, most=10),
    "allowed_mentions": ALLOWED_MENTIONS,
    "components": ListOf(COMPONENT),
    "attachments": ListOf(_ATTACHMENT, most=10),
    "flags": Integer(0),
    "poll": Anything(),
}


def _embed_size(embed: dict[str, Any]) -> int:
    texts = [embed.get("title"), embed.get("description")]
    texts.append((embed.get("footer") or {}).get("text"))
    texts.append((embed.get("author") or {}).get("name"))
    for field in embed.get("fields") or ():
        texts += [field.get("name"), field.get("value")]
    return sum(len(text) for text in texts if text)


def _check_message(
    body: dict[str, Any], path: Path, problems: Problems, *, version_2: bool = False
) -> None:
    if sum(map(_embed_size, body.get("embeds") or ())) > _MAX_EMBEDS_SIZE:
        problem = f"Embed size exceeds maximum size of {_MAX_EMBEDS_SIZE}"
        problems.add((*path, "embeds"), "MAX_EMBED_SIZE_EXCEEDED", problem)
    version_2 = version_2 or bool((body.get("flags") or 0) & IS_COMPONENTS_V2)
    if version_2:
        for name in ("content", "embeds", "sticker_ids", "poll"):
            if body.get(name):
                problems.add(
                    (*path, name),
                    "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2",
                    f"The '{name}' field cannot be used when using MessageFlags.IS_COMPONENTS_V2",
                )
    components = body.get("components") or []
    check_layout(components, (*path, "components"), problems, version_2=version_2)


_EDIT_MESSAGE = Object(_CONTENT, rule=_check_message)
_EDIT_COMPONENTS_V2 = Object(_CONTENT, rule=partial(_check_message, version_2=True))


def edit_form(message: dict[str, Any]) -> Object:
    """Return what the body of Edit Message looks like.

    :param message: the message. If it has the flag IS_COMPONENTS_V2, it keeps the flag.
    """
    return _EDIT_COMPONENTS_V2 if message["flags"] & IS_COMPONENTS_V2 else _EDIT_MESSAGE


#: The body of Create Message.
CREATE_MESSAGE = Object(
    {
        **_CONTENT,
        "nonce": _Nonce(),
        "tts": Boolean(),
        "sticker_ids": ListOf(Snowflake(), most=3),
        "enforce_nonce": Boolean(),
        "message_reference": Object(
            {
                "type": OneOf((0, 1)),
                "message_id": Snowflake(),
                "channel_id": Snowflake(),
                "guild_id": Snowflake(),
                "fail_if_not_exists": Boolean(),
            }
        ),
    },
    rule=_check_message,
)

#: The body of Execute Webhook, and the data of a response to an interaction.
EXECUTE_WEBHOOK = Object({**_CONTENT, "tts": Boolean()}, rule=_check_message)
