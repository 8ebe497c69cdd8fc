"""Which intents bring which event to a session.

The table is that of Discord's documentation, page Gateway, "List of Intents".
"""

from __future__ import annotations

from typing import Any

from shardlib.gateway import Intents

_MESSAGES = ("MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE")
_REACTIONS = (
    "MESSAGE_REACTION_ADD",
    "MESSAGE_REACTION_REMOVE",
    "MESSAGE_REACTION_REMOVE_ALL",
    "MESSAGE_REACTION_REMOVE_EMOJI",
)
_POLLS = ("MESSAGE_POLL_VOTE_ADD", "MESSAGE_POLL_VOTE_REMOVE")

#: Events in guilds, by the intent that brings them.
GUILD_EVENTS: dict[Intents, tuple[str, ...]] = {
    Intents.GUILDS: (
        "GUILD_CREATE",
        "GUILD_UPDATE",
        "GUILD_DELETE",
        "GUILD_ROLE_CREATE",
        "GUILD_ROLE_UPDATE",
        "GUILD_ROLE_DELETE",
        "CHANNEL_CREATE",
        "CHANNEL_UPDATE",
        "CHANNEL_DELETE",
        "CHANNEL_PINS_UPDATE",
        "THREAD_CREATE",
        "THREAD_UPDATE",
        "THREAD_DELETE",
        "THREAD_LIST_SYNC",
        "THREAD_MEMBER_UPDATE",
        "THREAD_MEMBERS_UPDATE",
        "STAGE_INSTANCE_CREATE",
        "STAGE_INSTANCE_UPDATE",
        "STAGE_INSTANCE_DELETE",
        "VOICE_CHANNEL_STATUS_UPDATE",
        "VOICE_CHANNEL_START_TIME_UPDATE",
    ),
    Intents.GUILD_MEMBERS: (
        "GUILD_MEMBER_ADD",
        "GUILD_MEMBER_UPDATE",
        "GUILD_MEMBER_REMOVE",
        "THREAD_MEMBERS_UPDATE",
    ),
    Intents.GUILD_MODERATION: (
        "GUILD_AUDIT_LOG_ENTRY_CREATE",
        "GUILD_BAN_ADD",
        "GUILD_BAN_REMOVE",
    ),
    Intents.GUILD_EXPRESSIONS: (
        "GUILD_EMOJIS_UPDATE",
        "GUILD_STICKERS_UPDATE",
        "GUILD_SOUNDBOARD_SOUND_CREATE",
        "GUILD_SOUNDBOARD_SOUND_UPDATE",
        "GUILD_SOUNDBOARD_SOUND_DELETE",
        "GUILD_SOUNDBOARD_SOUNDS_UPDATE",
    ),
    Intents.GUILD_INTEGRATIONS: (
        "GUILD_INTEGRATIONS_UPDATE",
        "INTEGRATION_CREATE",
        "INTEGRATION_UPDATE",
        "INTEGRATION_DELETE",
    ),
    Intents.GUILD_WEBHOOKS: ("WEBHOOKS_UPDATE",),
    Intents.GUILD_INVITES: ("INVITE_CREATE", "INVITE_DELETE"),
    Intents.GUILD_VOICE_STATES: ("VOICE_CHANNEL_EFFECT_SEND", "VOICE_STATE_UPDATE"),
    Intents.GUILD_PRESENCES: ("PRESENCE_UPDATE",),
    Intents.GUILD_MESSAGES: (*_MESSAGES, "MESSAGE_DELETE_BULK"),
    Intents.GUILD_MESSAGE_REACTIONS: _REACTIONS,
    Intents.GUILD_MESSAGE_TYPING: ("TYPING_START",),
    Intents.GUILD_SCHEDULED_EVENTS: (
        "GUILD_SCHEDULED_EVENT_CREATE",
        "GUILD_SCHEDULED_EVENT_UPDATE",
        "GUILD_SCHEDULED_EVENT_DELETE",
        "GUILD_SCHEDULED_EVENT_USER_ADD",
        "GUILD_SCHEDULED_EVENT_USER_REMOVE",
    ),
    Intents.AUTO_MODERATION_CONFIGURATION: (
        "AUTO_MODERATION_RULE_CREATE",
        "AUTO_MODERATION_RULE_UPDATE",
        "AUTO_MODERATION_RULE_DELETE",
    ),
    Intents.AUTO_MODERATION_EXECUTION: ("AUTO_MODERATION_ACTION_EXECUTION",),
    Intents.GUILD_MESSAGE_POLLS: _POLLS,
}

#: Events in direct messages, by the intent that brings them.
DIRECT_EVENTS: dict[Intents, tuple[str, ...]] = {
    Intents.DIRECT_MESSAGES: (*_MESSAGES, "CHANNEL_PINS_UPDATE"),
    Intents.DIRECT_MESSAGE_REACTIONS: _REACTIONS,
    Intents.DIRECT_MESSAGE_TYPING: ("TYPING_START",),
    Intents.DIRECT_MESSAGE_POLLS: _POLLS,
}


def _by_event(table: dict[Intents, tuple[str, ...]]) -> dict[str, Intents]:
    """Invert a table: return, by event, the intents of which any one brings the event."""
    masks: dict[str, Intents] = {}
    for intent, events in table.items():
        for event in events:
            masks[event] = masks.get(event, Intents(0)) | intent
    return masks


_GUILD_MASKS = _by_event(GUILD_EVENTS)
_DIRECT_MASKS = _by_event(DIRECT_EVENTS)

# By event, the fields that hold message content, each with the value for a session without
# MESSAGE_CONTENT.
_BLANK_CONTENT: dict[str, dict[str, Any]] = {
    event: {"content": "", "embeds": [], "attachments": [], "components": []}
    for event in ("MESSAGE_CREATE", "MESSAGE_UPDATE")
}
_BLANK_CONTENT["AUTO_MODERATION_ACTION_EXECUTION"] = {"content": "", "matched_content": ""}


def guild_id_of(event: str, data: Any) -> int | None:
    """Return the id of the guild that an event is about.

    :param event: the event's name.
    :param data: the event's ``d``, of any type.
    :returns: the id; None for an event outside guilds, for instance about a direct message.
    """
    if not isinstance(data, dict):
        return None
    key = "id" if event in ("GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE") else "guild_id"
    guild_id = data.get(key)
    try:
        return int(guild_id) if guild_id is not None else None
    except (TypeError, ValueError):
        return None


def required_intents(event: str, data: Any, user_id: str) -> Intents:
    """Return the intents of which any one brings an event.

    :param event: the event's name.
    :param data: the event's ``d``, of any type.
    :param user_id: the bot's user id. Some events about the bot need no intent.
    :returns: the intents; ``Intents(0)`` if every session gets the event.
    """
    if guild_id_of(event, data) is None:
        # An event that only the guilds' table lists needs its intent even without a guild id.
        return _DIRECT_MASKS.get(event) or _GUILD_MASKS.get(event, Intents(0))
    if event == "GUILD_MEMBER_UPDATE" and _field(data.get("user"), "id") == user_id:
        return Intents(0)
    if event == "THREAD_MEMBERS_UPDATE" and not _joins_or_leaves(data, user_id):
        return Intents.GUILD_MEMBERS
    return _GUILD_MASKS.get(event, Intents(0))


def _joins_or_leaves(data: dict[str, Any], user_id: str) -> bool:
    """Return whether a user joins or leaves a thread, by a ``THREAD_MEMBERS_UPDATE``."""
    added = [_field(member, "user_id") for member in _items(data.get("added_members"))]
    return user_id in [*added, *_items(data.get("removed_member_ids"))]


def without_content(event: str, data: Any, user_id: str) -> Any:
    """Return an event's data without the message content that needs ``MESSAGE_CONTENT``.

    A message by the bot, a message that mentions the bot, and a direct message keep their content.
    The same goes for the message that a reply answers.

    :param event: the event's name.
    :param data: the event's ``d``, of any type.
    :param user_id: the bot's user id.
    :returns: the data to send; ``data`` itself if the event keeps its content.
    """
    blanks = _BLANK_CONTENT.get(event)
    if blanks is None or not isinstance(data, dict):
        return data
    if guild_id_of(event, data) is None:
        return data
    shown = _blank(data, blanks, user_id)
    answered = data.get("referenced_message")
    if isinstance(answered, dict):
        answered_shown = _blank(answered, blanks, user_id)
        if answered_shown is not answered:
            shown = {**shown, "referenced_message": answered_shown}
    return shown


def _blank(message: dict[str, Any], blanks: dict[str, Any], user_id: str) -> dict[str, Any]:
    mentioned = [_field(user, "id") for user in _items(message.get("mentions"))]
    if _field(message.get("author"), "id") == user_id or user_id in mentioned:
        return message
    blanked = {key: blanks.get(key, value) for key, value in message.items()}
    blanked.pop("poll", None)
    return blanked


# A test may dispatch, and a recording may hold, an event in which any field is of any type.


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
