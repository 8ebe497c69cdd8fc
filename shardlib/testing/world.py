"""The world of a local gateway: guilds, channels, roles, members, presences and voice.

One seed makes the whole world, and the objects refer to each other: the author of a message is a
member of the guild, and writes in a channel of that guild. Objects are dicts with the fields of
Discord's documented resources; snowflakes are strings of digits.
"""

from __future__ import annotations

import base64
import math
import random
import string
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from shardlib.testing.channel import DIRECT, Channel, Message
from shardlib.testing.mentions import ALL, find_mentions
from shardlib.testing.names import COLOURS, GAMES, NAMES, NOUNS, STATUSES, sentence

#: The time, in milliseconds since 1970, from which snowflakes count (Reference, "Snowflakes").
DISCORD_EPOCH = 1_420_070_400_000

#: The permissions of each role, and of the bot and the users in an interaction.
PERMISSIONS = "2248473465835073"

# Guild number n gets an id for which (id >> 22) % shards is n % shards, for up to 16 shards, and
# for 32 and 64, so that a few guilds reach every shard.
_SHARD_STRIDE = math.lcm(*range(1, 17), 64)

# Channel types (Channel, "Channel Types").
_TEXT, _VOICE, _CATEGORY = 0, 2, 4

# The most messages that all channels keep, so that traffic for days does not fill the memory.
_MAX_MESSAGES = 10_000

_TOKEN_CHARACTERS = string.ascii_letters + string.digits + "-_"


def timestamp(milliseconds: float) -> str:
    """Return an ISO 8601 timestamp as Discord writes it.

    :param milliseconds: the moment, in milliseconds since 1970.
    """
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.isoformat(timespec="microseconds")


class SnowflakeFactory:
    """Makes snowflakes that grow with time and never repeat."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> str:
        """Return a new snowflake for the present moment, as a string of digits."""
        snowflake = int(time.time() * 1000 - DISCORD_EPOCH) << 22
        self._last = max(snowflake, self._last + 1)
        return str(self._last)


class Guild:
    """One guild, with its channels, roles, members, presences and voice states.

    :class:`World` makes the object. Ids are strings of digits, as in payloads.

    :param world: the world that the guild belongs to.
    :param number: the guild's number in the world, counted from 0, which decides the guild's id.
    :param members: how many members the guild has, beside the bot.
    """

    def __init__(self, world: World, number: int, members: int) -> None:
        rng = random.Random(f"{world.seed}/guild/{number}")
        self.rng = rng
        # Milliseconds from Discord's epoch to the guild's creation, a day from 2016 to 2025.
        age = rng.randrange(50_000_000_000, 330_000_000_000)
        self._first_id = (age // _SHARD_STRIDE * _SHARD_STRIDE + number) << 22
        self._ids_made = 0
        #: The guild's id.
        self.id = str(self._first_id)
        #: The guild's name.
        self.name = f"The {rng.choice(COLOURS)} {rng.choice(NOUNS)}".title()
        self.bot_user: dict[str, Any] = world.user
        self.joined_at = timestamp(DISCORD_EPOCH + age + 86_400_000)
        #: The role objects; the first is @everyone.
        self.roles = self._make_roles(world)
        self.emojis = [self._make_emoji(name) for name in ("party", "wave", "thinking")]
        self.sounds = [self._make_sound(name) for name in ("airhorn", "quack")]
        #: The channel objects, by their ids.
        self.channels: dict[str, Channel] = {
            channel["id"]: channel for channel in self._make_channels()
        }
        #: The member objects, the bot's too, by the ids of the users.
        self.members: dict[str, dict[str, Any]] = {}
        self.presences: dict[str, dict[str, Any]] = {}
        self.voice_states: dict[str, dict[str, Any]] = {}
        self._store(self.member(world.user, roles=[self.roles[1]["id"]]))
        for index in range(members):
            user = world.make_user(rng)
            self._store(self.member(user, roles=self._some_roles(), nick=rng.random() < 0.2))
            # The first member always has a presence, so that every guild with members has one.
            if index == 0 or rng.random() < 0.6:
                self.presences[user["id"]] = self.presence(user["id"], rng)
        others = [user_id for user_id in self.members if user_id != world.user["id"]]
        #: The user id of the owner; the bot's if the guild has no other member.
        self.owner_id = others[0] if others else world.user["id"]
        for user_id in others[1:3]:
            self.join_voice(user_id, self.voice_channels[0]["id"])

    def __repr__(self) -> str:
        return f"<Guild {self.id} {self.name!r} members={len(self.members)}>"

    @property
    def text_channels(self) -> list[Channel]:
        """The text channels, as channel objects."""
        return [channel for channel in self.channels.values() if channel["type"] == _TEXT]

    @property
    def voice_channels(self) -> list[Channel]:
        """The voice channels, as channel objects."""
        return [channel for channel in self.channels.values() if channel["type"] == _VOICE]

    def shard_id(self, shards: int) -> int:
        """Return the id of the shard that gets this guild's events (Gateway, "Sharding Formula").

        :param shards: how many shards the bot has, 1 or more.
        """
        return (int(self.id) >> 22) % shards

    def new_id(self) -> str:
        """Return a new snowflake for an object of the guild, counted up from the guild's id."""
        self._ids_made += 1
        return str(self._first_id + self._ids_made)

    def member(
        self,
        user: dict[str, Any],
        *,
        roles: list[str] | None = None,
        nick: bool = False,
    ) -> dict[str, Any]:
        """Return a new guild member object, without adding the member to the guild.

        :param user: the user object.
        :param roles: the ids of the member's roles; None for no role.
        :param nick: whether the member gets a random nickname.
        """
        return {
            "user": user,
            "nick": self.rng.choice(NOUNS).title() if nick else None,
            "avatar": None,
            "banner": None,
            "roles": roles or [],
            "joined_at": self.joined_at,
            "premium_since": None,
            "deaf": False,
            "mute": False,
            "flags": 0,
            "pending": False,
            "communication_disabled_until": None,
            "avatar_decoration_data": None,
            "collectibles": None,
        }

    def add_member(self, world: World, rng: random.Random) -> dict[str, Any]:
        """Add a new member to the guild; return the data of ``GUILD_MEMBER_ADD``.

        :param world: makes the user.
        :param rng: decides the user's name and id.
        """
        member = self.member(world.make_user(rng))
        member["joined_at"] = timestamp(time.time() * 1000)
        self._store(member)
        return {**member, "guild_id": self.id}

    def remove_member(self, user_id: str) -> dict[str, Any]:
        """Remove a member from the guild; return the member object.

        :param user_id: the user id of a member.
        :raises KeyError: if the guild has no such member.
        """
        self.presences.pop(user_id, None)
        self.voice_states.pop(user_id, None)
        return self.members.pop(user_id)

    def search(self, prefix: str, limit: int) -> list[dict[str, Any]]:
        """Return the members whose user name or nickname begins with a prefix.

        :param prefix: the prefix; upper and lower case are the same.
        :param limit: the most members to return.
        """
        prefix = prefix.casefold()
        found = [
            member
            for member in self.members.values()
            if member["user"]["username"].casefold().startswith(prefix)
            or (member["nick"] or "").casefold().startswith(prefix)
        ]
        return found[:limit]

    def presence(self, user_id: str, rng: random.Random) -> dict[str, Any]:
        """Return a random presence of a user, without ``guild_id``.

        :param user_id: the user's id.
        :param rng: decides the user's status and activities.
        """
        status = rng.choice(STATUSES)
        activities = []
        if status != "offline" and rng.random() < 0.5:
            name = rng.choice(GAMES)
            created = int(DISCORD_EPOCH + (int(self.id) >> 22))
            activities.append(
                {
                    "name": name,
                    "type": 0,
                    "created_at": created,
                    "id": f"{rng.getrandbits(52):x}",
                }
            )
        platform = rng.choice(("desktop", "mobile", "web"))
        return {
            "user": {"id": user_id},
            "status": status,
            "activities": activities,
            "client_status": {} if status == "offline" else {platform: status},
        }

    def join_voice(
        self,
        user_id: str,
        channel_id: str | None,
        *,
        session_id: str | None = None,
        **flags: bool,
    ) -> dict[str, Any]:
        """Move a member to a voice channel, or out of voice; return the voice state object.

        :param user_id: the user id of a member.
        :param channel_id: the id of a voice channel of this guild; None to leave voice.
        :param session_id: the id of the voice session, a bot's being that of its session with the
            Gateway; None makes one up.
        :param flags: boolean fields of the voice state, for instance ``self_mute=True``.
        :raises KeyError: if the guild has no such member.
        """
        state: dict[str, Any] = {
            "channel_id": channel_id,
            "user_id": user_id,
            "member": self.members[user_id],
            "session_id": session_id or f"{self.rng.getrandbits(128):032x}",
            "deaf": False,
            "mute": False,
            "self_deaf": False,
            "self_mute": False,
            "self_video": False,
            "suppress": False,
            "request_to_speak_timestamp": None,
            **flags,
        }
        if channel_id is None:
            self.voice_states.pop(user_id, None)
        else:
            self.voice_states[user_id] = state
        return {"guild_id": self.id, **state}

    def channel_info(self, fields: list[str]) -> list[dict[str, Any]]:
        """Return the ``channels`` of ``CHANNEL_INFO``: the voice channels with members in them.

        :param fields: the fields to return: ``status``, ``voice_start_time``, or both.
        :raises KeyError: if there is no such field.
        """
        in_use = {state["channel_id"] for state in self.voice_states.values()}
        known = {"status": None, "voice_start_time": int(time.time())}
        return [
            {"id": channel["id"], **{field: known[field] for field in fields}}
            for channel in self.voice_channels
            if channel["id"] in in_use
        ]

    def guild_object(self) -> dict[str, Any]:
        """Return the guild object, which is the data of ``GUILD_UPDATE``."""
        text = self.text_channels
        return {
            "id": self.id,
            "name": self.name,
            "icon": None,
            "splash": None,
            "discovery_splash": None,
            "owner_id": self.owner_id,
            "region": "deprecated",
            "afk_channel_id": None,
            "afk_timeout": 300,
            "widget_enabled": False,
            "widget_channel_id": None,
            "verification_level": 1,
            "default_message_notifications": 0,
            "explicit_content_filter": 2,
            "roles": self.roles,
            "emojis": self.emojis,
            "features": ["COMMUNITY", "NEWS"],
            "mfa_level": 0,
            "application_id": None,
            "system_channel_id": text[0]["id"] if text else None,
            "system_channel_flags": 0,
            "rules_channel_id": None,
            "max_presences": None,
            "max_members": 500_000,
            "vanity_url_code": None,
            "description": None,
            "banner": None,
            "premium_tier": 1,
            "premium_subscription_count": 2,
            "preferred_locale": "en-US",
            "public_updates_channel_id": None,
            "max_video_channel_users": 25,
            "max_stage_video_channel_users": 50,
            "nsfw": False,
            "nsfw_level": 0,
            "stickers": [],
            "premium_progress_bar_enabled": False,
            "safety_alerts_channel_id": None,
            "incidents_data": None,
            "hub_type": None,
        }

    def counts(self) -> dict[str, int]:
        """Return the fields that a guild object has ``with_counts``."""
        online = [each for each in self.presences.values() if each["status"] != "offline"]
        return {
            "approximate_member_count": len(self.members),
            "approximate_presence_count": len(online),
        }

    def create_object(
        self, *, with_presences: bool = True, large_threshold: int = 50
    ) -> dict[str, Any]:
        """Return the data of ``GUILD_CREATE``.

        Without the intent ``GUILD_PRESENCES``, ``members`` has only the bot and the members in
        voice. With the intent, ``members`` has every member of a small guild; of a large guild, the
        members who are online or have a role or a nickname, too (Gateway Events, "Guild Create" and
        "Request Guild Members").

        :param with_presences: whether the session has the intent ``GUILD_PRESENCES``.
        :param large_threshold: the number of members above which a guild is large.
        """
        large = len(self.members) > large_threshold
        online = {
            user_id: presence
            for user_id, presence in self.presences.items()
            if presence["status"] != "offline"
        }
        if not with_presences:
            online = {}
        members = [
            member
            for user_id, member in self.members.items()
            if user_id in self.voice_states
            or user_id == self.bot_user["id"]
            or (
                with_presences
                and (not large or member["roles"] or member["nick"] or user_id in online)
            )
        ]
        without_guild = [
            {key: value for key, value in channel.items() if key != "guild_id"}
            for channel in self.channels.values()
        ]
        return {
            **self.guild_object(),
            "joined_at": self.joined_at,
            "large": large,
            "unavailable": False,
            "member_count": len(self.members),
            "lazy": True,
            "voice_states": list(self.voice_states.values()),
            "members": members,
            "channels": without_guild,
            "threads": [],
            "presences": list(online.values()),
            "stage_instances": [],
            "guild_scheduled_events": [],
            "soundboard_sounds": self.sounds,
        }

    def _store(self, member: dict[str, Any]) -> None:
        self.members[member["user"]["id"]] = member

    def _some_roles(self) -> list[str]:
        return [role["id"] for role in self.roles[2:] if self.rng.random() < 0.3]

    def _make_roles(self, world: World) -> list[dict[str, Any]]:
        roles = []
        # The first role is @everyone, which has the guild's own id. The second is the bot's.
        for position, name in enumerate(["@everyone", world.user["username"], "Crew", "Friends"]):
            colour = 0 if position == 0 else self.rng.randrange(1 << 24)
            role: dict[str, Any] = {
                "id": self.id if position == 0 else self.new_id(),
                "name": name,
                "color": colour,
                "colors": {
                    "primary_color": colour,
                    "secondary_color": None,
                    "tertiary_color": None,
                },
                "hoist": position > 1,
                "icon": None,
                "unicode_emoji": None,
                "position": position,
                "permissions": PERMISSIONS,
                "managed": position == 1,
                "mentionable": position > 1,
                "flags": 0,
            }
            if position == 1:
                role["tags"] = {"bot_id": world.user["id"]}
            roles.append(role)
        return roles

    def _make_channels(self) -> Iterator[Channel]:
        position = 0
        for category, kind, names in (
            ("Text Channels", _TEXT, ["general", "off-topic", "help", "music", "bots"]),
            ("Voice Channels", _VOICE, ["Lounge", "Games"]),
        ):
            parent = self._make_channel(_CATEGORY, category, None, position)
            yield parent
            for name in names:
                position += 1
                yield self._make_channel(kind, name, parent["id"], position)

    def _make_channel(self, kind: int, name: str, parent_id: str | None, position: int) -> Channel:
        channel: dict[str, Any] = {
            "id": self.new_id(),
            "type": kind,
            "guild_id": self.id,
            "name": name,
            "position": position,
            "parent_id": parent_id,
            "permission_overwrites": [],
            "flags": 0,
        }
        if kind == _TEXT:
            channel.update(topic=None, nsfw=False, last_message_id=None, rate_limit_per_user=0)
        if kind == _VOICE:
            channel.update(
                bitrate=64000,
                user_limit=0,
                rtc_region=None,
                nsfw=False,
                last_message_id=None,
                rate_limit_per_user=0,
            )
        return Channel(channel)

    def _make_emoji(self, name: str) -> dict[str, Any]:
        return {
            "id": self.new_id(),
            "name": name,
            "roles": [],
            "require_colons": True,
            "managed": False,
            "animated": False,
            "available": True,
        }

    def _make_sound(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "sound_id": self.new_id(),
            "volume": 1.0,
            "emoji_id": None,
            "emoji_name": None,
            "guild_id": self.id,
            "available": True,
        }


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
        made = [Guild(self, number, members) for number in range(guilds)]
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
        for channel in self.direct_channels.values():
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
                "timestamp": timestamp(time.time() * 1000),
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
