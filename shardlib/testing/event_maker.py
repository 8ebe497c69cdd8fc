"""Random, realistic events, which change the guilds of a world."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from shardlib.testing.channel import Message
from shardlib.testing.events import Event
from shardlib.testing.guild import Guild
from shardlib.testing.interactions import COMMAND, Interactions
from shardlib.testing.names import EMOJIS, sentence
from shardlib.testing.snowflakes import timestamp
from shardlib.testing.world import World

#: Events as name and ``d``, in the order in which the gateway sends them.
Events: TypeAlias = "list[tuple[str, Any]]"


class EventMaker:
    """Makes random events, and changes the world accordingly. The callers hold the gateway's lock.

    :param world: the guilds that the events are about, and the seed that decides the events.
    :param interactions: makes interactions that a bot can answer.
    :param mix: by the name of each event to make, how often the maker makes the event, relative to
        the others.
    :raises ValueError: if ``mix`` names an event that the class cannot make, or if its shares are
        negative or all 0.
    """

    def __init__(self, world: World, interactions: Interactions, mix: Mapping[str, float]) -> None:
        self._makers: dict[str, Callable[[Guild], Events]] = {
            "MESSAGE_CREATE": self._message_create,
            "MESSAGE_UPDATE": self._message_update,
            "MESSAGE_DELETE": self._message_delete,
            "MESSAGE_REACTION_ADD": self._reaction_add,
            "MESSAGE_REACTION_REMOVE": self._reaction_remove,
            "TYPING_START": self._typing_start,
            "PRESENCE_UPDATE": self._presence_update,
            "VOICE_STATE_UPDATE": self._voice_state_update,
            "GUILD_MEMBER_ADD": self._guild_member_add,
            "GUILD_MEMBER_UPDATE": self._guild_member_update,
            "GUILD_MEMBER_REMOVE": self._guild_member_remove,
            "GUILD_CREATE": self._guild_create,
            "GUILD_UPDATE": self._guild_update,
            "GUILD_ROLE_UPDATE": self._guild_role_update,
            "CHANNEL_UPDATE": self._channel_update,
            "INTERACTION_CREATE": self._interaction_create,
        }
        unknown = sorted(set(mix) - set(self._makers))
        if unknown:
            known = ", ".join(self._makers)
            raise ValueError(
                f"the gateway cannot make up {', '.join(unknown)}; it can make up {known}"
            )
        if not any(mix.values()) or any(share < 0 for share in mix.values()):
            raise ValueError("the shares of a mix must be 0 or more, and not all 0")
        self._world = world
        self._interactions = interactions
        self._names = list(mix)
        self._shares = list(mix.values())
        self._rng = random.Random(f"{world.seed}/traffic")

    def make(self, count: int) -> list[Event]:
        """Return the next events; no events if the world has no guild.

        :param count: how many times to choose from the mix. The list may be longer, because one
            choice may make two events.
        """
        guilds = list(self._world.guilds.values())
        if not guilds:
            return []
        user_id = self._world.user["id"]
        return [
            Event(name, data, user_id)
            for kind in self._rng.choices(self._names, self._shares, k=count)
            for name, data in self._makers[kind](self._rng.choice(guilds))
        ]

    def _random_member_id(self, guild: Guild) -> str:
        """Return the user id of a member other than the bot, which alone decides what it does.

        :param guild: the guild; if it has no other member, the bot's user id is returned.
        """
        user_ids = [*guild.members]
        user_id = self._rng.choice(user_ids)
        while user_id == self._world.user["id"] and len(user_ids) > 1:
            user_id = self._rng.choice(user_ids)
        return user_id

    def _message_create(self, guild: Guild) -> Events:
        channel = self._rng.choice(guild.text_channels)
        message = self._world.make_message(channel, self._random_member_id(guild))
        return [("MESSAGE_CREATE", message)]

    def _random_message(self, guild: Guild) -> Message | None:
        """Return the last message of a random text channel; None if the channel is empty."""
        return self._rng.choice(guild.text_channels).last_message

    def _is_of_a_member(self, message: Message) -> bool:
        return bool(message["author"]["id"] != self._world.user["id"])

    def _message_update(self, guild: Guild) -> Events:
        message = self._random_message(guild)
        if message is None or not self._is_of_a_member(message):
            return self._message_create(guild)
        message["content"] = sentence(self._rng)
        message["edited_timestamp"] = timestamp()
        return [("MESSAGE_UPDATE", self._world.message_event(message))]

    def _message_delete(self, guild: Guild) -> Events:
        message = self._random_message(guild)
        if message is None or not self._is_of_a_member(message):
            return self._message_create(guild)
        message.channel.remove(message["id"])
        ids = {"id": message["id"], "channel_id": message["channel_id"], "guild_id": guild.id}
        return [("MESSAGE_DELETE", ids)]

    def _reaction_add(self, guild: Guild) -> Events:
        return self._reaction("MESSAGE_REACTION_ADD", guild)

    def _reaction_remove(self, guild: Guild) -> Events:
        return self._reaction("MESSAGE_REACTION_REMOVE", guild)

    def _reaction(self, event: str, guild: Guild) -> Events:
        message = self._random_message(guild)
        if message is None:
            return self._message_create(guild)
        user_id = self._random_member_id(guild)
        emoji = {"name": self._rng.choice(EMOJIS), "id": None}
        added = event == "MESSAGE_REACTION_ADD"
        change = message.add_reaction if added else message.remove_reaction
        change(user_id, emoji, self._world.user["id"])
        return [(event, self._world.reaction_event(message, user_id, emoji, added=added))]

    def _typing_start(self, guild: Guild) -> Events:
        user_id = self._random_member_id(guild)
        typing = {
            "user_id": user_id,
            "timestamp": int(time.time()),
            "member": guild.members[user_id],
            "channel_id": self._rng.choice(guild.text_channels)["id"],
            "guild_id": guild.id,
        }
        return [("TYPING_START", typing)]

    def _presence_update(self, guild: Guild) -> Events:
        user_id = self._random_member_id(guild)
        presence = guild.presence(user_id, self._rng)
        guild.presences[user_id] = presence
        return [("PRESENCE_UPDATE", {**presence, "guild_id": guild.id})]

    def _voice_state_update(self, guild: Guild) -> Events:
        user_id = self._random_member_id(guild)
        leaves = user_id in guild.voice_states and self._rng.random() < 0.7
        channel_id = None if leaves else self._rng.choice(guild.voice_channels)["id"]
        return [("VOICE_STATE_UPDATE", guild.join_voice(user_id, channel_id))]

    def _guild_member_add(self, guild: Guild) -> Events:
        return [("GUILD_MEMBER_ADD", guild.add_member(self._rng))]

    def _guild_member_update(self, guild: Guild) -> Events:
        member = guild.members[self._random_member_id(guild)]
        member["nick"] = sentence(self._rng)[:32]
        return [("GUILD_MEMBER_UPDATE", {**member, "guild_id": guild.id})]

    def _guild_member_remove(self, guild: Guild) -> Events:
        user_id = self._random_member_id(guild)
        if user_id in (guild.owner_id, self._world.user["id"]):
            return self._guild_member_update(guild)
        member = guild.remove_member(user_id)
        return [("GUILD_MEMBER_REMOVE", {"guild_id": guild.id, "user": member["user"]})]

    def _guild_create(self, guild: Guild) -> Events:
        # The bot is in the guild already, so the guild must become unavailable first.
        unavailable = {"id": guild.id, "unavailable": True}
        return [("GUILD_DELETE", unavailable), ("GUILD_CREATE", guild.create_object())]

    def _guild_update(self, guild: Guild) -> Events:
        return [("GUILD_UPDATE", guild.guild_object())]

    def _guild_role_update(self, guild: Guild) -> Events:
        role = self._rng.choice(guild.roles[1:])
        role["hoist"] = not role["hoist"]
        return [("GUILD_ROLE_UPDATE", {"guild_id": guild.id, "role": role})]

    def _channel_update(self, guild: Guild) -> Events:
        channel = self._rng.choice(guild.text_channels)
        channel["topic"] = sentence(self._rng)
        return [("CHANNEL_UPDATE", channel)]

    def _interaction_create(self, guild: Guild) -> Events:
        channel = self._rng.choice(guild.text_channels)
        data = {"type": 1, "name": "ping", "id": self._world.application["id"]}
        user_id = self._random_member_id(guild)
        made = self._interactions.make(COMMAND, data, channel, user_id)
        return [("INTERACTION_CREATE", made.payload)]
