"""What users do with a bot's commands, components and modals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shardlib.testing.channel import Channel, Message
from shardlib.testing.dispatcher import Dispatcher
from shardlib.testing.interaction import GatewayInteraction
from shardlib.testing.interactiondata import command_data, component_data, modal_data
from shardlib.testing.interactions import (
    AUTOCOMPLETE,
    COMMAND,
    COMPONENT,
    MODAL,
    CallbackType,
    Interactions,
)
from shardlib.testing.resolved import Resolved
from shardlib.testing.rest.commandforms import CHAT_INPUT, MESSAGE, USER
from shardlib.testing.rest.registry import CommandRegistry
from shardlib.testing.thread import GatewayThread
from shardlib.testing.world import World

# By command type, how a command is written.
_WRITTEN = {CHAT_INPUT: "/{}", USER: "user command {!r}", MESSAGE: "message command {!r}"}


class UserSide:
    """Makes the interactions of users, and issues them. The callers hold the gateway's lock.

    :param world: the users and channels.
    :param registry: the commands that the bot has registered.
    :param interactions: makes and remembers interactions.
    :param dispatcher: issues the events.
    :param thread: the gateway's thread, on which tests wait for answers.
    """

    def __init__(
        self,
        world: World,
        registry: CommandRegistry,
        interactions: Interactions,
        dispatcher: Dispatcher,
        thread: GatewayThread,
    ) -> None:
        self._world = world
        self._registry = registry
        self._interactions = interactions
        self._dispatcher = dispatcher
        self._thread = thread

    def invoke_command(
        self,
        name: str,
        options: Mapping[str, Any],
        *,
        kind: int,
        channel_id: str | None,
        user_id: str | None,
        target_id: str | None = None,
        focused: str | None = None,
    ) -> GatewayInteraction:
        """See :meth:`LocalGateway.invoke_command`.

        :param name: the command's name.
        :param options: the value of each option.
        :param kind: the command type.
        :param channel_id: the channel; None for the first text channel of the first guild.
        :param user_id: the user; None for the owner of the guild.
        :param target_id: the user or message for a command of a context menu.
        :param focused: the option that the user is typing, for autocompletion.
        :raises ValueError: if a user could not do so.
        """
        channel = self._channel(channel_id)
        scopes = [channel["guild_id"], None] if "guild_id" in channel else [None]
        commands = [self._registry.find(scope, name, kind) for scope in scopes]
        command = next((each for each in commands if each is not None), None)
        if command is None:
            wanted = _WRITTEN.get(kind, f"command {{!r}} of type {kind}").format(name)
            known = {
                _WRITTEN[each["type"]].format(each["name"])
                for scope in scopes
                for each in self._registry.all(scope)
            }
            raise ValueError(
                f"the bot has registered no {wanted} there; it has registered "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        resolved = Resolved(self._world, channel)
        data = command_data(command, options, resolved, target_id=target_id, focused=focused)
        return self._issue(COMMAND if focused is None else AUTOCOMPLETE, data, channel, user_id)

    def use_component(
        self,
        message: Message,
        custom_id: str,
        values: Iterable[str] | None,
        user_id: str | None,
    ) -> GatewayInteraction:
        """See :meth:`LocalGateway.use_component`.

        :param message: the message that has the component.
        :param custom_id: the component's ``custom_id``.
        :param values: what the user selects.
        :param user_id: the user; None for the owner of the guild.
        :raises ValueError: if a user could not do so.
        :raises TypeError: if ``message`` is not a message of the gateway's.
        """
        if not isinstance(message, Message):
            raise TypeError(
                "message must be one of gateway.world.channel(...).messages or of an interaction, "
                f"not a plain {type(message).__name__}, from which the channel cannot be told"
            )
        channel = message.channel
        data = component_data(message, custom_id, values, Resolved(self._world, channel))
        return self._issue(COMPONENT, data, channel, user_id, source=message)

    def submit_modal(
        self, opener: GatewayInteraction, values: Mapping[str, Any]
    ) -> GatewayInteraction:
        """See :meth:`LocalGateway.submit_modal`.

        :param opener: the interaction that the bot answered with a modal.
        :param values: the value of each component.
        :raises ValueError: if a user could not do so.
        """
        callback = opener.callback
        if callback is None or callback["type"] != CallbackType.MODAL:
            raise ValueError(f"the bot has not answered {opener!r} with a modal")
        channel = self._world.channel(opener.payload["channel_id"])
        user = opener.payload.get("user") or opener.payload["member"]["user"]
        data = modal_data(callback["data"], values, Resolved(self._world, channel))
        source = opener.payload.get("message")
        return self._issue(MODAL, data, channel, user["id"], source=source)

    def _channel(self, channel_id: str | None) -> Channel:
        if channel_id is not None:
            return self._world.channel(channel_id)
        for guild in self._world.guilds.values():
            return guild.text_channels[0]
        raise ValueError("the bot is in no guild: give channel_id")

    def _issue(
        self,
        kind: int,
        data: dict[str, Any],
        channel: Channel,
        user_id: str | None,
        source: Message | None = None,
    ) -> GatewayInteraction:
        if user_id is None:
            user_id = (
                channel["recipients"][0]["id"]
                if channel.is_direct
                else self._world.guilds[channel["guild_id"]].owner_id
            )
        made = self._interactions.make(kind, data, channel, user_id, source=source)
        sessions = self._dispatcher.dispatch("INTERACTION_CREATE", made.payload)
        return GatewayInteraction(made, self._thread, sessions)
