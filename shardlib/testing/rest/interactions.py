"""Answers to interactions: the callback, and the messages by the interaction's token."""

from __future__ import annotations

from typing import Any

from shardlib.testing.channel import Message
from shardlib.testing.interactions import (
    AUTOCOMPLETE,
    COMMAND,
    COMPONENT,
    MODAL,
    UPDATES,
    CallbackType,
    Interaction,
    Interactions,
)
from shardlib.testing.mentions import ONLY_USERS
from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.components import MODAL_COMPONENT, check_modal, number
from shardlib.testing.rest.errors import (
    ALREADY_ACKNOWLEDGED,
    INVALID_WEBHOOK_TOKEN,
    UNKNOWN_INTERACTION,
    UNKNOWN_MESSAGE,
    UNKNOWN_WEBHOOK,
    ApiError,
)
from shardlib.testing.rest.forms import (
    Anything,
    Boolean,
    Field,
    Integer,
    Kind,
    ListOf,
    Object,
    OneOf,
    Text,
)
from shardlib.testing.rest.messageforms import (
    EPHEMERAL,
    EXECUTE_WEBHOOK,
    LOADING,
    edit_form,
)
from shardlib.testing.rest.messagewriter import MessageWriter
from shardlib.testing.rest.multipart import File
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.router import Call, Route

_CALLBACK_LIMIT = RateLimit("callbacks", 30, 1.0)
_WEBHOOK_LIMIT = RateLimit("webhooks", 5, 2.0)

_ANSWERS = (CallbackType.MESSAGE, CallbackType.DEFERRED_MESSAGE)
_OTHERS = (CallbackType.PREMIUM_REQUIRED, CallbackType.LAUNCH_ACTIVITY)

# The callback types that the interactions of each type take.
_ALLOWED: dict[int, tuple[CallbackType, ...]] = {
    COMMAND: (*_ANSWERS, CallbackType.MODAL, *_OTHERS),
    COMPONENT: (*_ANSWERS, *UPDATES, CallbackType.MODAL, *_OTHERS),
    AUTOCOMPLETE: (CallbackType.CHOICES,),
    MODAL: (*_ANSWERS, *UPDATES),
}

# By callback type, what the data looks like.
_DATA: dict[int, Field | Kind] = {
    CallbackType.MESSAGE: Field(EXECUTE_WEBHOOK, required=True),
    CallbackType.DEFERRED_MESSAGE: Object({"flags": Integer(0)}),
    CallbackType.CHOICES: Field(
        Object(
            {
                "choices": Field(
                    ListOf(
                        Object(
                            {
                                "name": Field(Text(1, 100), required=True),
                                "name_localizations": Anything(),
                                "value": Field(Anything(), required=True),
                            }
                        ),
                        most=25,
                    ),
                    required=True,
                )
            }
        ),
        required=True,
    ),
    CallbackType.MODAL: Field(
        Object(
            {
                "custom_id": Field(Text(1, 100), required=True),
                "title": Field(Text(1, 45), required=True),
                "components": Field(ListOf(MODAL_COMPONENT, 1, 5), required=True),
            },
            rule=check_modal,
        ),
        required=True,
    ),
}


class InteractionResponses:
    """The endpoints of Receiving and Responding, which need no token of the bot.

    :param backend: the parts of the gateway.
    :param interactions: the interactions.
    :param writer: writes and edits messages.
    """

    def __init__(self, backend: Backend, interactions: Interactions, writer: MessageWriter) -> None:
        self._backend = backend
        self._interactions = interactions
        self._writer = writer

    def routes(self) -> list[Route]:
        """Return the routes."""
        webhook = "/webhooks/{application_id}/{token}"
        callback = "/interactions/{interaction_id}/{token}/callback"
        found = [
            ("POST", callback, self._callback, _CALLBACK_LIMIT),
            ("POST", webhook, self._follow_up, _WEBHOOK_LIMIT),
        ]
        # A literal part goes before a parameter, and @original is no id.
        for message in (f"{webhook}/messages/@original", f"{webhook}/messages/{{message_id}}"):
            found += [
                ("GET", message, self._get, _WEBHOOK_LIMIT),
                ("PATCH", message, self._edit, _WEBHOOK_LIMIT),
                ("DELETE", message, self._delete, _WEBHOOK_LIMIT),
            ]
        return [
            Route(method, template, handler, limit, needs_token=False, counts_globally=False)
            for method, template, handler, limit in found
        ]

    # The callback.

    def _callback(self, call: Call) -> dict[str, Any] | None:
        interaction = self._interactions.find(call["token"])
        if interaction is None or interaction.id != call["interaction_id"]:
            raise ApiError(UNKNOWN_INTERACTION)
        if interaction.callback is not None:
            raise ApiError(ALREADY_ACKNOWLEDGED)
        if interaction.is_late(self._backend.clock()):
            raise ApiError(UNKNOWN_INTERACTION)
        allowed = [
            int(each)
            for each in _ALLOWED[interaction.type]
            if interaction.source is not None or each not in UPDATES
        ]
        kind: int = call.body(Object({"type": Field(OneOf(allowed), required=True)}))["type"]
        table = _DATA.get(kind, Anything())
        if kind == CallbackType.UPDATE and interaction.source is not None:
            table = edit_form(interaction.source)
        body = call.body(Object({"type": Anything(), "data": table}))
        self._carry_out(interaction, kind, body.get("data") or {}, call.files())
        interaction.acknowledge(body)
        if call.query(with_response=Boolean()).get("with_response"):
            return self._describe(interaction, kind)
        return None

    def _carry_out(
        self, interaction: Interaction, kind: int, data: dict[str, Any], files: list[File]
    ) -> None:
        if kind == CallbackType.MESSAGE:
            self._respond(interaction, data, files)
        elif kind == CallbackType.DEFERRED_MESSAGE:
            ephemeral = (data.get("flags") or 0) & EPHEMERAL
            message = self._backend.world.write_message(
                interaction.channel,
                self._backend.world.user,
                "",
                store=not ephemeral,
                flags=LOADING | ephemeral,
                **interaction.response_fields(),
            )
            interaction.add(message, is_original=True)
            self._tell("MESSAGE_CREATE", message)
        elif kind == CallbackType.UPDATE and interaction.source is not None:
            if _is_deleted(interaction.source):
                raise ApiError(UNKNOWN_MESSAGE)
            self._writer.edit(interaction.source, data, files, allowed_mentions=ONLY_USERS)
            self._tell("MESSAGE_UPDATE", interaction.source)
        elif kind == CallbackType.MODAL:
            number(data["components"])

    def _respond(
        self, interaction: Interaction, data: dict[str, Any], files: list[File]
    ) -> Message:
        message = self._write(interaction, data, files, interaction.response_fields())
        interaction.add(message, is_original=True)
        self._tell("MESSAGE_CREATE", message)
        return message

    def _write(
        self,
        interaction: Interaction,
        data: dict[str, Any],
        files: list[File],
        fields: dict[str, Any],
    ) -> Message:
        ephemeral = (data.get("flags") or 0) & EPHEMERAL
        return self._writer.write(
            interaction.channel,
            data,
            files,
            allowed_mentions=ONLY_USERS,
            store=not ephemeral,
            flags=ephemeral,
            **fields,
        )

    def _describe(self, interaction: Interaction, kind: int) -> dict[str, Any]:
        """Return the interaction callback response object."""
        described: dict[str, Any] = {"id": interaction.id, "type": interaction.type}
        resource: dict[str, Any] = {"type": kind}
        message = interaction.original
        if message is not None:
            described["response_message_id"] = message["id"]
            described["response_message_loading"] = bool(message["flags"] & LOADING)
            described["response_message_ephemeral"] = bool(message["flags"] & EPHEMERAL)
            if kind in (CallbackType.MESSAGE, CallbackType.UPDATE):
                resource["message"] = message
        return {"interaction": described, "resource": resource}

    # Messages by the token.

    def _interaction(self, call: Call) -> Interaction:
        interaction = self._interactions.find(call["token"])
        known = call["application_id"] == self._backend.world.application["id"]
        if interaction is None or not known or interaction.callback is None:
            raise ApiError(UNKNOWN_WEBHOOK)
        if interaction.is_over(self._backend.clock()):
            raise ApiError(INVALID_WEBHOOK_TOKEN)
        return interaction

    def _message(self, call: Call) -> tuple[Interaction, Message]:
        interaction = self._interaction(call)
        message = interaction.find(call.parameters.get("message_id", "@original"))
        if message is None or _is_deleted(message):
            raise ApiError(UNKNOWN_MESSAGE)
        return interaction, message

    def _follow_up(self, call: Call) -> Message:
        interaction = self._interaction(call)
        if interaction.type == AUTOCOMPLETE:
            raise ApiError(UNKNOWN_WEBHOOK)
        body, files = call.body(EXECUTE_WEBHOOK), call.files()
        original = interaction.original
        if original is not None and original["flags"] & LOADING and not _is_deleted(original):
            # The first message after a deferred response is that response.
            return self._change(original, body, files)
        fields = interaction.response_fields()
        fields.pop("interaction", None)
        fields["type"] = 0
        if original is not None:
            fields["message_reference"] = interaction.reference(original)
        message = self._write(interaction, body, files, fields)
        interaction.add(message)
        self._tell("MESSAGE_CREATE", message)
        return message

    def _get(self, call: Call) -> Message:
        return self._message(call)[1]

    def _edit(self, call: Call) -> Message:
        _, message = self._message(call)
        return self._change(message, call.body(edit_form(message)), call.files())

    def _change(self, message: Message, body: dict[str, Any], files: list[File]) -> Message:
        self._writer.edit(message, body, files, allowed_mentions=ONLY_USERS)
        self._tell("MESSAGE_UPDATE", message)
        return message

    def _delete(self, call: Call) -> None:
        interaction, message = self._message(call)
        interaction.remove(message)
        channel = interaction.channel
        if channel.remove(message["id"]) is not None:
            ids = {"id": message["id"], **self._backend.place(channel)}
            self._backend.dispatch("MESSAGE_DELETE", ids)

    def _tell(self, event: str, message: Message) -> None:
        """Issue the event of a message, unless only the user sees the message."""
        if not message["flags"] & EPHEMERAL:
            self._backend.dispatch(event, self._backend.world.message_event(message))


def _is_deleted(message: Message) -> bool:
    """Return whether a message was deleted as a message of its channel.

    An ephemeral message is in no channel.
    """
    return not message["flags"] & EPHEMERAL and message.channel.find(message["id"]) is None
