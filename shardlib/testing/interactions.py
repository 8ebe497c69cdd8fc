"""Interactions: a user invokes a command, uses a component or sends a modal, and the bot answers.

An interaction is made here, with the object that ``INTERACTION_CREATE`` carries; the HTTP API
records here how the bot answers.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from enum import IntEnum
from typing import Any

from shardlib.testing.channel import MAX_FILE_SIZE, Channel, Message
from shardlib.testing.clock import Clock
from shardlib.testing.guild import PERMISSIONS
from shardlib.testing.world import World

#: Interaction types (Receiving and Responding, "Interaction Type").
COMMAND, COMPONENT, AUTOCOMPLETE, MODAL = 2, 3, 4, 5


class CallbackType(IntEnum):
    """What a bot does with an interaction (same page, "Interaction Callback Type")."""

    MESSAGE = 4
    DEFERRED_MESSAGE = 5
    DEFERRED_UPDATE = 6
    UPDATE = 7
    CHOICES = 8
    MODAL = 9
    PREMIUM_REQUIRED = 10
    LAUNCH_ACTIVITY = 12


#: The callback types that refer to the message of a component.
UPDATES = (CallbackType.DEFERRED_UPDATE, CallbackType.UPDATE)

#: Seconds after which an interaction that was not answered has failed, and seconds after which its
#: token is invalid (Receiving and Responding, "Interaction Callback").
ANSWER_WITHIN = 3.0
TOKEN_LIFETIME = 15 * 60.0

# The most interactions that the gateway remembers, so that traffic for days does not fill the
# memory.
_MAX_REMEMBERED = 1000

# Message types of a response to a slash command and to a command of a context menu (Message,
# "Message Types").
_CHAT_INPUT_RESPONSE, _CONTEXT_MENU_RESPONSE = 20, 23


class Interaction:
    """One interaction, and the bot's answer so far. The callers hold the gateway's lock.

    :param payload: the interaction object, which is the data of ``INTERACTION_CREATE``.
    :param channel: the channel in which the user acts.
    :param user: the user object of the user who acts.
    :param now: the present moment by the gateway's clock.
    :param source: the message of the component, or of the component that opened the modal.
    """

    def __init__(
        self,
        payload: dict[str, Any],
        channel: Channel,
        user: dict[str, Any],
        now: float,
        source: Message | None,
    ) -> None:
        self.payload = payload
        self.id: str = payload["id"]
        self.token: str = payload["token"]
        self.type: int = payload["type"]
        self.channel = channel
        self.source = source
        #: The callback as the bot sent it, ``type`` and ``data``; None before.
        self.callback: dict[str, Any] | None = None
        #: The response, ``@original``; None if there is none, or if the bot has deleted it.
        self.original: Message | None = None
        # The response and the follow-ups that exist, by id.
        self._messages: dict[str, Message] = {}
        self._user = user
        self._created_at = now

    @property
    def messages(self) -> list[Message]:
        """The response and the follow-ups that the bot has not deleted, oldest first."""
        return list(self._messages.values())

    def is_late(self, now: float) -> bool:
        """Return whether the time for the callback has passed.

        :param now: the present moment by the gateway's clock.
        """
        return now - self._created_at > ANSWER_WITHIN

    def is_over(self, now: float) -> bool:
        """Return whether the token is no longer valid.

        :param now: the present moment by the gateway's clock.
        """
        return now - self._created_at > TOKEN_LIFETIME

    def acknowledge(self, callback: dict[str, Any]) -> None:
        """Record the callback.

        :param callback: the body of the callback.
        """
        self.callback = callback
        # A component has a message already, to which @original refers.
        if self.source is not None and callback["type"] in UPDATES:
            self.original = self.source

    def add(self, message: Message, *, is_original: bool = False) -> None:
        """Record a response or a follow-up.

        :param message: the message object.
        :param is_original: whether the message is the response.
        """
        self._messages[message["id"]] = message
        if is_original:
            self.original = message

    def find(self, message_id: str) -> Message | None:
        """Return the response or a follow-up; None if there is none with the id.

        :param message_id: the message's id, or ``@original``.
        """
        return self.original if message_id == "@original" else self._messages.get(message_id)

    def remove(self, message: Message) -> None:
        """Record that the bot has deleted a message.

        :param message: the message object.
        """
        self._messages.pop(message["id"], None)
        if message is self.original:
            self.original = None

    def response_fields(self) -> dict[str, Any]:
        """Return the fields of a message object that tell which interaction it answers."""
        application_id = self.payload["application_id"]
        metadata: dict[str, Any] = {
            "id": self.id,
            "type": self.type,
            "user": self._user,
            "authorizing_integration_owners": self.payload["authorizing_integration_owners"],
        }
        fields: dict[str, Any] = {
            "webhook_id": application_id,
            "application_id": application_id,
            "interaction_metadata": metadata,
        }
        data = self.payload["data"]
        if self.type == COMMAND:
            names = [data["name"], *_subcommands(data)]
            metadata["name"] = " ".join(names)
            metadata["command_type"] = data["type"]
            is_slash_command = data["type"] == 1
            fields["type"] = _CHAT_INPUT_RESPONSE if is_slash_command else _CONTEXT_MENU_RESPONSE
            fields["interaction"] = {
                "id": self.id,
                "type": self.type,
                "name": " ".join(names),
                "user": self._user,
            }
        elif self.source is not None:
            metadata["interacted_message_id"] = self.source["id"]
            fields["message_reference"] = self.reference(self.source)
        return fields

    def reference(self, message: Message) -> dict[str, Any]:
        """Return the message reference object for a message of the channel.

        :param message: the message object.
        """
        reference = {"type": 0, "message_id": message["id"], "channel_id": self.channel["id"]}
        if not self.channel.is_direct:
            reference["guild_id"] = self.channel["guild_id"]
        return reference


def _subcommands(data: dict[str, Any]) -> list[str]:
    """Return the names of the subcommand group and the subcommand that a user chose."""
    for option in data.get("options", ()):
        if option["type"] in (1, 2):
            return [option["name"], *_subcommands(option)]
    return []


class Interactions:
    """Makes interactions, and remembers the newest ones. The callers hold the gateway's lock.

    :param world: the users, the channels and the bot's application.
    :param clock: the gateway's clock.
    """

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._by_token: OrderedDict[str, Interaction] = OrderedDict()

    def find(self, token: str) -> Interaction | None:
        """Return an interaction; None if the gateway remembers none with the token.

        :param token: the interaction's token.
        """
        return self._by_token.get(token)

    def make(
        self,
        kind: int,
        data: dict[str, Any],
        channel: Channel,
        user_id: str,
        *,
        source: Message | None = None,
        locale: str = "en-US",
    ) -> Interaction:
        """Return a new interaction. The caller issues ``INTERACTION_CREATE``.

        :param kind: the interaction type.
        :param data: the interaction data.
        :param channel: the channel in which the user acts.
        :param user_id: the id of the user who acts.
        :param source: the message of the component, or of the component that opened the modal;
            None for an interaction without one.
        :param locale: the language of the user.
        :raises ValueError: if the user has no part in the channel.
        """
        guild = self._world.guilds.get(channel.get("guild_id", ""))
        application_id = self._world.application["id"]
        payload: dict[str, Any] = {
            "version": 1,
            "type": kind,
            "token": secrets.token_urlsafe(48),
            "locale": locale,
            "id": self._world.new_id(),
            "entitlements": [],
            "data": data,
            "channel_id": channel["id"],
            "channel": channel,
            "attachment_size_limit": MAX_FILE_SIZE,
            "application_id": application_id,
            "app_permissions": PERMISSIONS,
        }
        if guild is not None:
            member = guild.members.get(user_id)
            if member is None:
                raise ValueError(f"user {user_id} is no member of {guild.name!r}")
            user: dict[str, Any] = member["user"]
            payload.update(
                member={**member, "permissions": PERMISSIONS},
                guild_id=guild.id,
                guild_locale="en-US",
                guild={"id": guild.id, "locale": "en-US", "features": ["COMMUNITY", "NEWS"]},
                context=0,
                authorizing_integration_owners={"0": guild.id},
            )
        else:
            users = {each["id"]: each for each in channel["recipients"]}
            if user_id not in users:
                raise ValueError(f"user {user_id} has no part in the channel {channel['id']}")
            user = users[user_id]
            payload.update(user=user, context=1, authorizing_integration_owners={"0": "0"})
        if source is not None:
            payload["message"] = source
        interaction = Interaction(payload, channel, user, self._clock(), source)
        self._by_token[interaction.token] = interaction
        if len(self._by_token) > _MAX_REMEMBERED:
            self._by_token.popitem(last=False)
        return interaction
