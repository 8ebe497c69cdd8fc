"""Resolved data: the objects that the ids in interaction data stand for."""

from __future__ import annotations

from typing import Any

from shardlib.testing.channel import Channel
from shardlib.testing.guild import PERMISSIONS
from shardlib.testing.rest.commandforms import (
    ATTACHMENT,
    CHANNEL,
    MENTIONABLE,
    ROLE,
    USER,
    USER_OPTION,
)
from shardlib.testing.world import World

# The fields of a member that resolved data leaves out, and the fields of a channel in it.
_NOT_IN_MEMBER = ("user", "deaf", "mute")
_CHANNEL_FIELDS = ("id", "name", "type", "guild_id", "parent_id", "position", "topic", "nsfw")

# What the id of an option stands for, by option type.
_KINDS = {
    USER_OPTION: "user",
    CHANNEL: "channel",
    ROLE: "role",
    MENTIONABLE: "user or role",
    ATTACHMENT: "attachment",
}


class Resolved:
    """Collects the objects that ids in interaction data stand for.

    :param world: the users and messages.
    :param channel: the channel in which the user acts.
    """

    def __init__(self, world: World, channel: Channel) -> None:
        self._world = world
        self._guild = world.guilds.get(channel.get("guild_id", ""))
        self._channel = channel
        self._objects: dict[str, dict[str, Any]] = {}

    def add_to(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return interaction data with the resolved data, if there is any.

        :param data: the interaction data.
        """
        return {**data, "resolved": self._objects} if self._objects else data

    def add(self, kind: int, found_id: str, what: str) -> None:
        """Add the object of an id.

        :param kind: the option type.
        :param found_id: the id.
        :param what: a name of the value, for the message of the error.
        :raises ValueError: if there is no such object where the user acts.
        """
        if kind in (USER_OPTION, MENTIONABLE) and self._add_user(found_id):
            return
        if kind in (ROLE, MENTIONABLE) and self._guild is not None:
            for role in self._guild.roles:
                if role["id"] == found_id:
                    self._put("roles", found_id, role)
                    return
        if kind == CHANNEL and self._guild is not None and found_id in self._guild.channels:
            channel = self._guild.channels[found_id]
            partial = {key: channel[key] for key in _CHANNEL_FIELDS if key in channel}
            self._put("channels", found_id, {**partial, "permissions": PERMISSIONS})
            return
        raise ValueError(f"{what}: there is no {_KINDS[kind]} {found_id} where the user acts")

    def add_target(self, kind: int, target_id: str) -> None:
        """Add the user or the message of a command of a context menu.

        :param kind: the command type.
        :param target_id: the id.
        :raises ValueError: if there is no such user or message.
        """
        if kind == USER:
            self.add(USER_OPTION, target_id, "target_id")
            return
        message = self._channel.find(target_id)
        if message is None:
            raise ValueError(f"target_id: there is no message {target_id} in the channel")
        self._put("messages", target_id, message)

    def _add_user(self, user_id: str) -> bool:
        user = self._world.find_user(user_id)
        if user is None:
            return False
        self._put("users", user_id, user)
        if self._guild is not None and user_id in self._guild.members:
            member = self._guild.members[user_id]
            partial = {key: value for key, value in member.items() if key not in _NOT_IN_MEMBER}
            self._put("members", user_id, {**partial, "permissions": PERMISSIONS})
        return True

    def _put(self, kind: str, found_id: str, found: Any) -> None:
        self._objects.setdefault(kind, {})[found_id] = found
