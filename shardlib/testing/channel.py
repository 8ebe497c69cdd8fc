"""Channels, the messages in a channel, and the reactions to a message.

Objects are dicts with the fields of Discord's documented resources. What an object knows beside
these fields is an attribute.
"""

from __future__ import annotations

from typing import Any

#: The most different emoji by which people can react to one message (JSON error code 30010).
MAX_REACTIONS = 20

#: The most bytes of a file in a message (API Reference, "Uploading Files").
MAX_FILE_SIZE = 10 * 1024 * 1024

#: The channel type of a direct message (Channel, "Channel Types").
DIRECT = 1


class Message(dict[str, Any]):
    """A message object, its channel, and who reacted to the message.

    The dict is what Discord's HTTP API returns. An event has more fields, see
    :meth:`World.message_event`.

    :param fields: the fields of the message object.
    :param channel: the channel in which the message is, or would be if others could see it.
    """

    def __init__(self, fields: dict[str, Any], channel: Channel) -> None:
        super().__init__(fields)
        self.channel = channel
        # By the key of each emoji, its partial emoji object.
        self._emojis: dict[str, dict[str, Any]] = {}
        # By the key of each emoji, the ids of the users who reacted with it, in their order.
        self._reactors: dict[str, list[str]] = {}

    def reactors(self, emoji: dict[str, Any]) -> list[str]:
        """Return the ids of the users who reacted with an emoji.

        :param emoji: the partial emoji object.
        """
        return list(self._reactors.get(emoji_key(emoji), ()))

    def can_take(self, emoji: dict[str, Any]) -> bool:
        """Return whether a reaction does not exceed the number of different emoji.

        :param emoji: the partial emoji object.
        """
        return emoji_key(emoji) in self._reactors or len(self._reactors) < MAX_REACTIONS

    def add_reaction(self, user_id: str, emoji: dict[str, Any], bot_id: str) -> bool:
        """Add a user's reaction.

        :param user_id: the user's id.
        :param emoji: the partial emoji object.
        :param bot_id: the bot's user id, for ``me``.
        :returns: False if the user had reacted with this emoji before.
        """
        users = self._reactors.setdefault(emoji_key(emoji), [])
        if user_id in users:
            return False
        self._emojis[emoji_key(emoji)] = emoji
        users.append(user_id)
        self._count_reactions(bot_id)
        return True

    def remove_reaction(self, user_id: str, emoji: dict[str, Any], bot_id: str) -> bool:
        """Remove a user's reaction.

        :param user_id: the user's id.
        :param emoji: the partial emoji object.
        :param bot_id: the bot's user id, for ``me``.
        :returns: False if the user had not reacted with this emoji.
        """
        users = self._reactors.get(emoji_key(emoji), [])
        if user_id not in users:
            return False
        users.remove(user_id)
        self._count_reactions(bot_id)
        return True

    def clear_reactions(self, bot_id: str, emoji: dict[str, Any] | None = None) -> None:
        """Remove all reactions.

        :param bot_id: the bot's user id, for ``me``.
        :param emoji: the partial emoji object of the reactions to remove; None for all.
        """
        keys = list(self._reactors) if emoji is None else [emoji_key(emoji)]
        for key in keys:
            self._reactors.pop(key, None)
        self._count_reactions(bot_id)

    def _count_reactions(self, bot_id: str) -> None:
        self._reactors = {key: users for key, users in self._reactors.items() if users}
        if not self._reactors:
            self.pop("reactions", None)
            return
        self["reactions"] = [
            {
                "emoji": self._emojis[key],
                "count": len(users),
                "count_details": {"burst": 0, "normal": len(users)},
                "burst_colors": [],
                "me_burst": False,
                "burst_me": False,
                "me": bot_id in users,
                "burst_count": 0,
            }
            for key, users in self._reactors.items()
        ]


class Channel(dict[str, Any]):
    """A channel object, and the messages in the channel.

    :param fields: the fields of the channel object.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        # By id, oldest first.
        self._messages: dict[str, Message] = {}
        # Never changed, but replaced, because a test may read while the gateway's thread writes.
        self._pins: tuple[tuple[Message, str], ...] = ()

    @property
    def messages(self) -> list[Message]:
        """The messages in the channel, as message objects, oldest first.

        The gateway keeps the newest 10,000 of all channels together.
        """
        return list(self._messages.values())

    @property
    def last_message(self) -> Message | None:
        """The newest message that was not deleted; None if there is none."""
        return next(reversed(self._messages.values()), None)

    @property
    def is_direct(self) -> bool:
        """Whether the channel is a direct message."""
        return bool(self["type"] == DIRECT)

    @property
    def pins(self) -> list[tuple[Message, str]]:
        """The pinned messages, each with the time it was pinned at, newest pin first."""
        return list(self._pins)

    def find(self, message_id: str) -> Message | None:
        """Return a message; None if there is none with the id.

        :param message_id: the message's id.
        """
        return self._messages.get(message_id)

    def add(self, message: Message) -> None:
        """Add a new message.

        :param message: the message object.
        """
        self._messages[message["id"]] = message
        self["last_message_id"] = message["id"]

    def remove(self, message_id: str) -> Message | None:
        """Remove a message, and return it; None if there is none with the id.

        :param message_id: the message's id.
        """
        message = self._messages.pop(message_id, None)
        if message is not None:
            self._drop_pin(message)
        return message

    def pin(self, message: Message, at: str) -> None:
        """Pin a message of the channel.

        :param message: the message object.
        :param at: the ISO 8601 timestamp of the present moment.
        """
        if not message["pinned"]:
            message["pinned"] = True
            self._pins = ((message, at), *self._pins)

    def unpin(self, message: Message) -> None:
        """Unpin a message of the channel.

        :param message: the message object.
        """
        message["pinned"] = False
        self._drop_pin(message)

    def _drop_pin(self, message: Message) -> None:
        self._pins = tuple(pin for pin in self._pins if pin[0] is not message)


def emoji_key(emoji: dict[str, Any]) -> str:
    """Return what tells an emoji from others: the id of a custom emoji, else its text.

    :param emoji: the partial emoji object.
    """
    return str(emoji["id"] or emoji["name"])
