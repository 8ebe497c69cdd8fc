"""What an event says, in a few words: who did what, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from shardlib.text import count

# Fields shown of an event that has no summary function.
MAX_FIELDS = 6

_UNAVAILABLE = "unavailable, Discord has an outage"


class Places:
    """The names of guilds and channels, learnt from the events that carry them."""

    def __init__(self) -> None:
        self._guilds: dict[str, str] = {}
        self._channels: dict[str, str] = {}

    def learn(self, event: str, data: Any) -> None:
        """Remember the names in an event, and forget the name of a channel that it deletes.

        :param event: the event's name.
        :param data: the event's ``d``, of any shape.
        """
        if event in ("GUILD_CREATE", "GUILD_UPDATE"):
            self._note(self._guilds, data)
            for kind in ("channels", "threads"):
                for channel in _list(data, kind):
                    self._note(self._channels, channel)
        elif event in ("CHANNEL_CREATE", "CHANNEL_UPDATE", "THREAD_CREATE", "THREAD_UPDATE"):
            self._note(self._channels, data)
        elif event in ("CHANNEL_DELETE", "THREAD_DELETE"):
            self._channels.pop(_text(data, "id"), None)

    def where(self, event: str, data: Any) -> str:
        """Return the names of an event's guild and channel; "" if the event has neither.

        :param event: the event's name.
        :param data: the event's ``d``, of any shape.
        """
        kind = event.rpartition("_")[0]
        guild_id = _text(data, "id" if kind == "GUILD" else "guild_id")
        channel_id = _text(data, "id" if kind in ("CHANNEL", "THREAD") else "channel_id")
        places = []
        if guild_id:
            places.append(self._guilds.get(guild_id) or f"guild {guild_id}")
        if channel_id:
            places.append(self.channel(channel_id))
        return " ".join(places)

    def channel(self, channel_id: str) -> str:
        """Return a channel's name, or the channel's id if the name is not known.

        :param channel_id: the channel's id.
        """
        name = self._channels.get(channel_id)
        return f"#{name}" if name else f"channel {channel_id}"

    @staticmethod
    def _note(names: dict[str, str], data: Any) -> None:
        if (identity := _text(data, "id")) and (name := _text(data, "name")):
            names[identity] = name


def summarize(event: str, data: Any, places: Places) -> str:
    """Return what an event says, in a few words.

    :param event: the event's name.
    :param data: the event's ``d``, of any shape, since a server may send anything.
    :param places: the names of guilds and channels.
    """
    if event in _SUMMARIES:
        return _SUMMARIES[event](data, places)
    # GUILD_MEMBER_ADD, GUILD_ROLE_DELETE ...: the user or the object that the event is about.
    return _user(data) or _named(data) or ", ".join(_fields(data))


# These functions read data of any shape. For a missing field they return "", None or [].


def _at(data: Any, *path: str) -> Any:
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _text(data: Any, *path: str) -> str:
    value = _at(data, *path)
    return "" if value is None or isinstance(value, (dict, list)) else str(value)


def _list(data: Any, *path: str) -> list[Any]:
    value = _at(data, *path)
    return value if isinstance(value, list) else []


def _user(data: Any) -> str:
    for path in (("author",), ("member", "user"), ("user",)):
        for key in ("global_name", "username"):
            if name := _text(data, *path, key):
                return name
    user_id = _text(data, "user_id") or _text(data, "user", "id") or _text(data, "author", "id")
    return f"user {user_id}" if user_id else ""


def _named(data: Any) -> str:
    """Return the name of the role, emoji, sticker ... that an event is about; "" for none."""
    for value in (data, *(data.values() if isinstance(data, dict) else ())):
        if name := _text(value, "name"):
            return name
    return ""


def _fields(data: Any) -> Iterator[str]:
    if not isinstance(data, dict):
        yield "" if data is None else str(data)
        return
    for key, value in list(data.items())[:MAX_FIELDS]:
        if isinstance(value, list):
            yield f"{len(value)} {key}"
        elif value is not None and not isinstance(value, dict):
            yield f"{key}={value}"


def _ready(data: Any, _: Places) -> str:
    guilds = count(len(_list(data, "guilds")), "guild")
    return f"{_user(data)}, {guilds}, session {_text(data, 'session_id')}"


def _guild_create(data: Any, _: Places) -> str:
    if _at(data, "unavailable"):
        return _UNAVAILABLE
    channels = count(len(_list(data, "channels")), "channel")
    members = _at(data, "member_count")
    return f"{count(members, 'member')}, {channels}" if isinstance(members, int) else channels


def _guild_delete(data: Any, _: Places) -> str:
    return _UNAVAILABLE if _at(data, "unavailable") else "the bot is no longer in it"


def _message(data: Any, _: Places) -> str:
    parts = [_text(data, "content")]
    for kind in ("attachment", "embed", "sticker_item"):
        if items := _list(data, f"{kind}s"):
            parts.append(f"[{count(len(items), kind.replace('_', ' '))}]")
    return f"{_user(data)}: " + (" ".join(filter(None, parts)) or "(no content)")


def _message_delete(data: Any, _: Places) -> str:
    return f"message {_text(data, 'id')}"


def _typing(data: Any, _: Places) -> str:
    return f"{_user(data)} is typing"


def _presence(data: Any, _: Places) -> str:
    names = [name for activity in _list(data, "activities") if (name := _text(activity, "name"))]
    return ", ".join([f"{_user(data)} is {_text(data, 'status')}", *names])


def _voice_state(data: Any, _: Places) -> str:
    channel_id = _text(data, "channel_id")
    return f"{_user(data)} " + ("is in the voice channel" if channel_id else "has left voice")


def _reaction(data: Any, _: Places) -> str:
    return f"{_user(data)} {_text(data, 'emoji', 'name')} on message {_text(data, 'message_id')}"


def _interaction(data: Any, _: Places) -> str:
    what = _text(data, "data", "name") or _text(data, "data", "custom_id")
    slash = "/" if _at(data, "type") == 2 and _at(data, "data", "type") == 1 else ""
    return f"{_user(data)} {slash}{what}"


_SUMMARIES: dict[str, Callable[[Any, Places], str]] = {
    "READY": _ready,
    "RESUMED": lambda data, places: "all missed events were replayed",
    "GUILD_CREATE": _guild_create,
    "GUILD_DELETE": _guild_delete,
    "MESSAGE_CREATE": _message,
    "MESSAGE_UPDATE": _message,
    "MESSAGE_DELETE": _message_delete,
    "MESSAGE_REACTION_ADD": _reaction,
    "MESSAGE_REACTION_REMOVE": _reaction,
    "TYPING_START": _typing,
    "PRESENCE_UPDATE": _presence,
    "VOICE_STATE_UPDATE": _voice_state,
    "INTERACTION_CREATE": _interaction,
}
