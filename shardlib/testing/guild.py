"""One guild of a local gateway's world, with its channels, roles, members, presences and voice."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from shardlib.testing.channel import Channel
from shardlib.testing.names import COLOURS, GAMES, NOUNS, STATUSES
from shardlib.testing.snowflakes import DISCORD_EPOCH, timestamp

#: The permissions of each role, and of the bot and the users in an interaction.
PERMISSIONS = "2248473465835073"

# Guild number n gets an id for which (id >> 22) % shards is n % shards, for up to 16 shards, and
# for 32 and 64, so that a few guilds reach every shard.
_SHARD_STRIDE = math.lcm(*range(1, 17), 64)

# Channel types (Channel, "Channel Types").
_TEXT, _VOICE, _CATEGORY = 0, 2, 4


class Guild:
    """One guild, with its channels, roles, members, presences and voice states.

    :class:`World` makes the object. Ids are strings of digits, as in payloads.

    :param seed: the seed of the world that the guild belongs to.
    :param number: the guild's number in the world, counted from 0, which decides the guild's id.
    :param members: how many members the guild has, beside the bot.
    :param bot_user: the user object of the bot.
    :param make_user: makes the user objects of the members.
    """

    def __init__(
        self,
        seed: int,
        number: int,
        members: int,
        *,
        bot_user: dict[str, Any],
        make_user: Callable[[random.Random], dict[str, Any]],
    ) -> None:
        rng = random.Random(f"{seed}/guild/{number}")
        self.rng = rng
        self._make_user = make_user
        # Milliseconds from Discord's epoch to the guild's creation, a day from 2016 to 2025.
        age = rng.randrange(50_000_000_000, 330_000_000_000)
        self._first_id = (age // _SHARD_STRIDE * _SHARD_STRIDE + number) << 22
        self._ids_made = 0
        #: The guild's id.
        self.id = str(self._first_id)
        #: The guild's name.
        self.name = f"The {rng.choice(COLOURS)} {rng.choice(NOUNS)}".title()
        self.bot_user = bot_user
        self.joined_at = timestamp(DISCORD_EPOCH + age + 86_400_000)
        #: The role objects; the first is @everyone.
        self.roles = self._make_roles()
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
        self._store(self.member(self.bot_user, roles=[self.roles[1]["id"]]))
        for index in range(members):
            user = make_user(rng)
            self._store(self.member(user, roles=self._some_roles(), nick=rng.random() < 0.2))
            # The first member always has a presence, so that every guild with members has one.
            if index == 0 or rng.random() < 0.6:
                self.presences[user["id"]] = self.presence(user["id"], rng)
        others = [user_id for user_id in self.members if user_id != self.bot_user["id"]]
        #: The user id of the owner; the bot's if the guild has no other member.
        self.owner_id = others[0] if others else self.bot_user["id"]
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

    def add_member(self, rng: random.Random) -> dict[str, Any]:
        """Add a new member to the guild; return the data of ``GUILD_MEMBER_ADD``.

        :param rng: decides the user's name and id.
        """
        member = self.member(self._make_user(rng))
        member["joined_at"] = timestamp()
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

    def _make_roles(self) -> list[dict[str, Any]]:
        roles = []
        # The first role is @everyone, which has the guild's own id. The second is the bot's.
        for position, name in enumerate(
            ["@everyone", self.bot_user["username"], "Crew", "Friends"]
        ):
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
                role["tags"] = {"bot_id": self.bot_user["id"]}
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
