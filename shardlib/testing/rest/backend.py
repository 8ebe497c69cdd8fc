"""The parts of a gateway that the HTTP API reads and changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shardlib.gateway import Intents
from shardlib.testing.channel import Channel, Message
from shardlib.testing.clock import Clock
from shardlib.testing.guild import Guild
from shardlib.testing.intents import without_content
from shardlib.testing.rest.errors import (
    NOT_YOUR_APPLICATION,
    UNKNOWN_CHANNEL,
    UNKNOWN_GUILD,
    UNKNOWN_MESSAGE,
    ApiError,
)
from shardlib.testing.rules import Rules
from shardlib.testing.world import World


@dataclass(frozen=True)
class Backend:
    """The parts of one gateway that all resources share. The callers hold the gateway's lock."""

    rules: Rules
    world: World
    clock: Clock
    #: Issues an event, by name and ``d``, to the sessions that should get the event.
    dispatch: Callable[[str, Any], object]
    #: Returns the gateway's URL.
    url: Callable[[], str]
    #: Returns the base of the HTTP API, with the version.
    http_url: Callable[[], str]
    #: Returns the session start limit object.
    session_starts: Callable[[], dict[str, int]]

    def guild(self, guild_id: str) -> Guild:
        """Return a guild of the bot.

        :param guild_id: the guild's id.
        :raises ApiError: if the bot is in no such guild.
        """
        guild = self.world.guilds.get(guild_id)
        if guild is None:
            raise ApiError(UNKNOWN_GUILD)
        return guild

    def channel(self, channel_id: str) -> Channel:
        """Return a channel.

        :param channel_id: the channel's id.
        :raises ApiError: if there is no such channel.
        """
        channel = self.world.find_channel(channel_id)
        if channel is None:
            raise ApiError(UNKNOWN_CHANNEL)
        return channel

    def message(self, channel_id: str, message_id: str) -> Message:
        """Return a message of a channel.

        :param channel_id: the channel's id.
        :param message_id: the message's id.
        :raises ApiError: if there is no such channel, or no such message in it.
        """
        message = self.channel(channel_id).find(message_id)
        if message is None:
            raise ApiError(UNKNOWN_MESSAGE)
        return message

    def visible(self, message: Message) -> dict[str, Any]:
        """Return a message object as the bot may read it.

        Without ``MESSAGE_CONTENT`` in the settings of the bot, messages of others have no content,
        whatever the intents of its sessions (Gateway, "Message Content Intent").

        :param message: the message object.
        """
        if Intents.MESSAGE_CONTENT in self.rules.allowed_intents or message.channel.is_direct:
            return message
        placed = {**message, "guild_id": message.channel["guild_id"]}
        shown: dict[str, Any] = without_content("MESSAGE_CREATE", placed, self.world.user["id"])
        del shown["guild_id"]
        return shown

    def check_application(self, application_id: str) -> None:
        """Check that an application is the bot's own.

        :param application_id: the application's id.
        :raises ApiError: if the application is another bot's.
        """
        if application_id != self.world.application["id"]:
            raise ApiError(NOT_YOUR_APPLICATION)

    def place(self, channel: Channel) -> dict[str, str]:
        """Return the fields by which events name a channel, and its guild if it is in one.

        :param channel: the channel object.
        """
        ids = {"channel_id": channel["id"]}
        if not channel.is_direct:
            ids["guild_id"] = channel["guild_id"]
        return ids
