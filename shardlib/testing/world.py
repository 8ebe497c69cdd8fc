"""The world of a local gateway: the bot, its guilds, and the messages of all channels.

One seed makes the whole world, and the objects refer to each other: the author of a message is a
member of the guild, and writes in a channel of that guild. Objects are dicts with the fields of
Discord's documented resources; snowflakes are strings of digits.
"""

from __future__ import annotations

import base64
import random
import string
from collections import deque
from typing import Any

from shardlib.testing.channel import DIRECT, Channel, Message
from shardlib.testing.guild import Guild
from shardlib.testing.mentions import ALL, find_mentions
from shardlib.testing.names import NAMES, sentence
from shardlib.testing.snowflakes import SnowflakeFactory, timestamp

# The most messages that all channels keep, so that traffic for days does not fill the memory.
_MAX_MESSAGES = 10_000

_TOKEN_CHARACTERS = string.ascii_letters + string.digits + "-_"


class World:
    """The guilds that a bot is in, and all objects in them, made from a seed.

    :param seed: the number from which the world is made: the same seed makes the same guilds,
        channels, roles and members.
    :param guilds: how many guilds the bot is in.
    :param members: how many members each guild has, beside the bot.
    """

    def __init__(self, seed: int = 0, guilds: int = 3, members: int = 20) -> None:
        self.seed = seed
        self._users_made = 0
        self.new_id = SnowflakeFactory()
        rng = random.Random(f"{seed}/world")
        #: The user object of the bot.
        self.user: dict[str, Any] = {**self.make_user(rng), "bot": True}
        self.user.update(username="local-bot", global_name=None, discriminator="0001")
        #: The application object of the bot.
        self.application: dict[str, Any] = {"id": self.user["id"], "flags": 8953856}
        made = [
            Guild(seed, number, members, bot_user=self.user, make_user=self.make_user)
            for number in range(guilds)
        ]
        #: The guilds that the bot is in, by their ids.
        self.guilds: dict[str, Guild] = {guild.id: guild for guild in made}
        #: The direct messages, by the id of the other user.
        self.direct_channels: dict[str, Channel] = {}
        # All messages in the channels, in the order in which they were written.
        self._messages: deque[Message] = deque()

    def become(self, user: dict[str, Any], application: dict[str, Any] | None) -> None:
        """Make the bot another one, in a world that has no guilds yet.

        :param user: the user object of the bot.
        :param application: its application object; None for one with the id of the user.
        """
        self.user.update(user)
        self.application = {**self.application, "id": user["id"], **(application or {})}

    def channel(self, channel_id: str) -> Channel:
        """Return a channel object, whose attribute ``messages`` has the messages in the channel.

        :param channel_id: the channel's id.
        :raises ValueError: if there is no such channel, in a guild or of direct messages.
        :raises TypeError: if ``channel_id`` is not a string.
        """
        if not isinstance(channel_id, str):
            raise TypeError(
                f"channel_id must be a string of digits, as in payloads, not the "
                f"{type(channel_id).__name__} {channel_id!r}"
            )
        channel = self.find_channel(channel_id)
        if channel is None:
            raise ValueError(f"there is no channel {channel_id} in the local gateway's world")
        return channel

    def find_channel(self, channel_id: str) -> Channel | None:
        """Return a channel object; None if there is none with the id.

        :param channel_id: the channel's id.
        """
        for guild in self.guilds.values():
            if channel_id in guild.channels:
                return guild.channels[channel_id]
        # A copy, because a test may call this while the gateway's thread opens another channel.
        for channel in tuple(self.direct_channels.values()):
            if channel["id"] == channel_id:
                return channel
        return None

    def find_user(self, user_id: str) -> dict[str, Any] | None:
        """Return a user object; None if the user is neither the bot nor in one of its guilds.

        :param user_id: the user's id.
        """
        if user_id == self.user["id"]:
            return self.user
        for guild in self.guilds.values():
            if user_id in guild.members:
                user: dict[str, Any] = guild.members[user_id]["user"]
                return user
        channel = self.direct_channels.get(user_id)
        return channel["recipients"][0] if channel is not None else None

    def direct_channel(self, user_id: str) -> Channel:
        """Return the channel of the direct messages between the bot and a user.

        :param user_id: the id of a user in one of the bot's guilds.
        :raises ValueError: if there is no such user, or if the user is the bot.
        """
        user = self.find_user(user_id)
        if user is None or user_id == self.user["id"]:
            raise ValueError(f"user {user_id} shares no guild with the bot")
        if user_id not in self.direct_channels:
            self.direct_channels[user_id] = Channel(
                {
                    "id": self.new_id(),
                    "type": DIRECT,
                    "last_message_id": None,
                    "flags": 0,
                    "recipients": [user],
                }
            )
        return self.direct_channels[user_id]

    def make_user(self, rng: random.Random) -> dict[str, Any]:
        """Return a new user object.

        :param rng: decides the user's name and id.
        """
        self._users_made += 1
        name = rng.choice(NAMES)
        age = rng.randrange(1_000_000_000, 49_000_000_000)
        return {
            "id": str(age << 22 | self._users_made),
            "username": f"{name.lower()}.{rng.randrange(10_000)}",
            "discriminator": "0",
            "global_name": name,
            "avatar": f"{rng.getrandbits(128):032x}",
            "bot": False,
            "public_flags": 0,
            "avatar_decoration_data": None,
            "collectibles": None,
            "primary_guild": None,
        }

    def make_token(self, seed: int | None = None) -> str:
        """Return a token in Discord's form: the user's id in base64, then two random parts.

        :param seed: a number, which always makes the same token; None for a token that no other
            gateway has. Clients limit Identifies by token, so with a shared token one test would
            delay the next.
        """
        rng = random.SystemRandom() if seed is None else random.Random(seed)
        user = base64.urlsafe_b64encode(self.user["id"].encode()).decode().rstrip("=")
        parts = ("".join(rng.choices(_TOKEN_CHARACTERS, k=length)) for length in (6, 38))
        return ".".join((user, *parts))

    def make_message(
        self, channel: Channel, author_id: str, content: str | None = None
    ) -> dict[str, Any]:
        """Return the data of ``MESSAGE_CREATE`` for a message that a user writes now.

        :param channel: the channel object.
        :param author_id: the id of a member of the channel's guild, or of a user to whom the
            channel of direct messages belongs.
        :param content: the text of the message; None for a random sentence.
        :raises ValueError: if the author does not belong to the channel.
        """
        if channel.is_direct:
            users = [self.user, *channel["recipients"]]
            author = next((user for user in users if user["id"] == author_id), None)
            if author is None:
                raise ValueError(f"user {author_id} has no part in the channel {channel['id']}")
            rng = random.Random()
        else:
            guild = self.guilds[channel["guild_id"]]
            if author_id not in guild.members:
                raise ValueError(f"user {author_id} is no member of {guild.name!r}")
            author = guild.members[author_id]["user"]
            rng = guild.rng
        message = self.write_message(channel, author, sentence(rng) if content is None else content)
        return {**self.message_event(message), "nonce": message["id"]}

    def write_message(
        self,
        channel: Channel,
        author: dict[str, Any],
        content: str,
        *,
        store: bool = True,
        **fields: Any,
    ) -> Message:
        """Write a message into a channel now, and return the message object.

        :param channel: the channel object.
        :param author: the user object of the author.
        :param content: the text of the message.
        :param store: False for a message that only one user sees, which the channel does not keep.
        :param fields: further fields of the message, or other values than those of a plain one.
        """
        message = Message(
            {
                "type": 0,
                "tts": False,
                "timestamp": timestamp(),
                "pinned": False,
                "id": self.new_id(),
                "flags": 0,
                "embeds": [],
                "edited_timestamp": None,
                "content": content,
                "components": [],
                "channel_id": channel["id"],
                "author": author,
                "attachments": [],
                **self.mentions(channel, content, ALL),
                **fields,
            },
            channel,
        )
        if store:
            channel.add(message)
            self._messages.append(message)
            if len(self._messages) > _MAX_MESSAGES:
                oldest = self._messages.popleft()
                oldest.channel.remove(oldest["id"])
        return message

    def mentions(
        self, channel: Channel, content: str, allowed_mentions: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the fields of a message object that say whom its text mentions.

        :param channel: the channel object.
        :param content: the text of the message.
        :param allowed_mentions: whom the text may mention.
        """
        found = find_mentions(content, allowed_mentions)
        users = [self.find_user(user_id) for user_id in found.users]
        guild = self.guilds.get(channel.get("guild_id", ""))
        roles = [] if guild is None else [role["id"] for role in guild.roles]
        return {
            "mentions": [user for user in users if user is not None],
            "mention_roles": [role_id for role_id in found.roles if role_id in roles],
            "mention_everyone": found.everyone and guild is not None,
        }

    def message_event(self, message: Message) -> dict[str, Any]:
        """Return the data of ``MESSAGE_CREATE`` or ``MESSAGE_UPDATE`` for a message.

        An event has the guild and the members beside the fields of the message object (Gateway
        Events, "Message Create").

        :param message: the message object.
        """
        channel = message.channel
        event = {**message, "channel_type": channel["type"]}
        guild = self.guilds.get(channel.get("guild_id", ""))
        if guild is None:
            return event
        event["guild_id"] = guild.id
        author = guild.members.get(message["author"]["id"])
        if author is not None:
            event["member"] = _without_user(author)
        event["mentions"] = [
            {**user, "member": _without_user(guild.members[user["id"]])}
            if user["id"] in guild.members
            else user
            for user in message["mentions"]
        ]
        return event

    def reaction_event(
        self, message: Message, user_id: str, emoji: dict[str, Any], *, added: bool
    ) -> dict[str, Any]:
        """Return the data of ``MESSAGE_REACTION_ADD`` or ``MESSAGE_REACTION_REMOVE``.

        :param message: the message object.
        :param user_id: the id of the user who reacts.
        :param emoji: the partial emoji object.
        :param added: whether the user adds the reaction.
        """
        channel = message.channel
        event: dict[str, Any] = {
            "user_id": user_id,
            "type": 0,
            "message_id": message["id"],
            "emoji": emoji,
            "channel_id": channel["id"],
            "burst": False,
        }
        if added:
            event["message_author_id"] = message["author"]["id"]
        guild = self.guilds.get(channel.get("guild_id", ""))
        if guild is not None:
            event["guild_id"] = guild.id
            if added and user_id in guild.members:
                event["member"] = guild.members[user_id]
        return event


def _without_user(member: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in member.items() if key != "user"}
