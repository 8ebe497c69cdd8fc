"""Messages: writing, reading, editing and deleting them."""

from __future__ import annotations

import time
from typing import Any

from shardlib.testing.channel import Channel, Message
from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.errors import (
    NOT_IN_DM,
    NOT_THE_AUTHOR,
    TOO_OLD_TO_BULK_DELETE,
    WRONG_NUMBER_TO_DELETE,
    ApiError,
    invalid_form,
)
from shardlib.testing.rest.forms import Field, Integer, ListOf, Object, Snowflake
from shardlib.testing.rest.messageforms import CREATE_MESSAGE, edit_form
from shardlib.testing.rest.messagewriter import MessageWriter
from shardlib.testing.rest.pages import page
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.router import Call, Route
from shardlib.testing.snowflakes import DISCORD_EPOCH

_CREATE_LIMIT = RateLimit("messages created", 5, 5.0)
_EDIT_LIMIT = RateLimit("messages edited", 5, 5.0)
_DELETE_LIMIT = RateLimit("messages deleted", 5, 1.0)
_BULK_LIMIT = RateLimit("messages deleted in bulk", 1, 3.0)
_READ_LIMIT = RateLimit("messages read", 5, 1.0)

# Seconds for which a nonce is unique.
_NONCE_LIFETIME = 300.0

# Milliseconds after which a message is too old to be deleted in bulk.
_TWO_WEEKS = 14 * 24 * 3600 * 1000

# The message type of a reply, and the reference type of a forward.
_REPLY = 19
_FORWARD = 1

# The fields of a message that a forward takes along (Message, "Message Snapshot Object").
_SNAPSHOT = (
    "type",
    "content",
    "embeds",
    "attachments",
    "timestamp",
    "edited_timestamp",
    "flags",
    "mentions",
    "mention_roles",
    "components",
)

_BULK_DELETE = Object({"messages": Field(ListOf(Snowflake()), required=True)})


class Messages:
    """The resource Message.

    :param backend: the parts of the gateway.
    :param writer: writes and edits messages.
    """

    def __init__(self, backend: Backend, writer: MessageWriter) -> None:
        self._backend = backend
        self._writer = writer
        # By channel and nonce, when a message was created, and the message, oldest first.
        self._nonces: dict[tuple[str, str], tuple[float, Message]] = {}

    def routes(self) -> list[Route]:
        """Return the routes."""
        messages = "/channels/{channel_id}/messages"
        message = f"{messages}/{{message_id}}"
        return [
            Route("GET", messages, self._list, _READ_LIMIT),
            Route("POST", messages, self._create, _CREATE_LIMIT),
            Route("POST", f"{messages}/bulk-delete", self._bulk_delete, _BULK_LIMIT),
            Route("GET", message, self._get, _READ_LIMIT),
            Route("PATCH", message, self._edit, _EDIT_LIMIT),
            Route("DELETE", message, self._delete, _DELETE_LIMIT),
        ]

    def _message(self, call: Call) -> Message:
        return self._backend.message(call["channel_id"], call["message_id"])

    # Reading.

    def _get(self, call: Call) -> dict[str, Any]:
        return self._backend.visible(self._message(call))

    def _list(self, call: Call) -> list[dict[str, Any]]:
        query = call.query(
            around=Snowflake(), before=Snowflake(), after=Snowflake(), limit=Integer(1, 100)
        )
        given = [name for name in ("around", "before", "after") if query.get(name) is not None]
        if len(given) > 1:
            raise invalid_form(
                "MUTUALLY_EXCLUSIVE", f"Only one of {', '.join(given)} may be given.", given[0]
            )
        messages = self._backend.channel(call["channel_id"]).messages
        if given == ["around"]:
            limit = query.get("limit", 50)
            at = int(query["around"])
            # Half of the messages are older, the message itself counted as newer.
            newer = [each for each in messages if int(each["id"]) >= at]
            older = messages[: len(messages) - len(newer)]
            after = newer[: limit - min(limit // 2, len(older))]
            found = older[len(older) - min(limit - len(after), len(older)) :] + after
        else:
            found = page(messages, lambda each: str(each["id"]), query, default=50, newest=True)
        return [self._backend.visible(message) for message in reversed(found)]

    # Writing.

    def _create(self, call: Call) -> dict[str, Any]:
        channel = self._backend.channel(call["channel_id"])
        body, files = call.body(CREATE_MESSAGE), call.files()
        nonce = body.get("nonce")
        key = channel["id"], str(nonce)
        self._forget_old_nonces()
        if nonce is not None and body.get("enforce_nonce") and key in self._nonces:
            return {**self._nonces[key][1], "nonce": nonce}
        message = self._writer.write(channel, body, files, **self._reference(channel, body))
        said = {} if nonce is None else {"nonce": nonce}
        if nonce is not None:
            self._nonces.pop(key, None)
            self._nonces[key] = self._backend.clock(), message
        event = {**self._backend.world.message_event(message), **said}
        self._backend.dispatch("MESSAGE_CREATE", event)
        return {**self._backend.visible(message), **said}

    def _forget_old_nonces(self) -> None:
        oldest = self._backend.clock() - _NONCE_LIFETIME
        while self._nonces:
            key = next(iter(self._nonces))
            if self._nonces[key][0] > oldest:
                break
            del self._nonces[key]

    def _reference(self, channel: Channel, body: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a message object that a reply or a forward has.

        :raises ApiError: if the message to reply to, or to forward, does not exist.
        """
        reference = body.get("message_reference")
        if reference is None:
            return {}
        is_forward = reference.get("type") == _FORWARD
        source = channel
        if is_forward and reference.get("channel_id") is not None:
            source = self._backend.channel(reference["channel_id"])
        original = source.find(reference.get("message_id") or "")
        if original is None:
            if reference.get("fail_if_not_exists") is False and not is_forward:
                return {}
            raise invalid_form("REPLIES_UNKNOWN_MESSAGE", "Unknown message", "message_reference")
        fields: dict[str, Any] = {
            "message_reference": {
                "type": reference.get("type") or 0,
                "message_id": original["id"],
                **self._backend.place(source),
            }
        }
        if is_forward:
            snapshot = {key: original[key] for key in _SNAPSHOT}
            return {**fields, "message_snapshots": [{"message": snapshot}]}
        fields["type"] = _REPLY
        fields["referenced_message"] = {
            key: value for key, value in original.items() if key != "referenced_message"
        }
        return fields

    def _edit(self, call: Call) -> dict[str, Any]:
        message = self._message(call)
        body, files = call.body(edit_form(message)), call.files()
        is_own = message["author"]["id"] == self._backend.world.user["id"]
        if not is_own and (files or set(body) - {"flags"}):
            raise ApiError(NOT_THE_AUTHOR)
        self._writer.edit(message, body, files)
        self._backend.dispatch("MESSAGE_UPDATE", self._backend.world.message_event(message))
        return self._backend.visible(message)

    # Deleting.

    def _delete(self, call: Call) -> None:
        message = self._message(call)
        channel = self._backend.channel(call["channel_id"])
        is_own = message["author"]["id"] == self._backend.world.user["id"]
        if channel.is_direct and not is_own:
            raise ApiError(NOT_IN_DM)
        channel.remove(message["id"])
        self._backend.dispatch(
            "MESSAGE_DELETE", {"id": message["id"], **self._backend.place(channel)}
        )

    def _bulk_delete(self, call: Call) -> None:
        channel = self._backend.channel(call["channel_id"])
        if channel.is_direct:
            raise ApiError(NOT_IN_DM)
        ids: list[str] = call.body(_BULK_DELETE)["messages"]
        if not 2 <= len(ids) <= 100:
            raise ApiError(WRONG_NUMBER_TO_DELETE)
        if len(set(ids)) < len(ids):
            raise invalid_form("SET_TYPE_ALREADY_CONTAINS_VALUE", "Duplicate ids.", "messages")
        oldest = int(time.time() * 1000 - DISCORD_EPOCH) - _TWO_WEEKS
        if any(int(message_id) >> 22 < oldest for message_id in ids):
            raise ApiError(TOO_OLD_TO_BULK_DELETE)
        deleted = [message_id for message_id in ids if channel.remove(message_id) is not None]
        if deleted:
            self._backend.dispatch(
                "MESSAGE_DELETE_BULK", {"ids": deleted, **self._backend.place(channel)}
            )
