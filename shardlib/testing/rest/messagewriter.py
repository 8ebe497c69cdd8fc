"""Writes and edits messages from checked bodies, for channels and for webhooks alike."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from shardlib.testing.channel import MAX_FILE_SIZE, Channel, Message
from shardlib.testing.mentions import ALL
from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.components import number, texts
from shardlib.testing.rest.errors import (
    EMPTY_MESSAGE,
    FILE_TOO_LARGE,
    NOT_A_TEXT_CHANNEL,
    ApiError,
    invalid_form,
)
from shardlib.testing.rest.files import Files
from shardlib.testing.rest.messageforms import (
    IS_COMPONENTS_V2,
    IS_VOICE_MESSAGE,
    LOADING,
    SUPPRESS_EMBEDS,
    SUPPRESS_NOTIFICATIONS,
)
from shardlib.testing.rest.multipart import File
from shardlib.testing.snowflakes import timestamp

# The flags that a client may set on a new message.
_CREATE_FLAGS = SUPPRESS_EMBEDS | SUPPRESS_NOTIFICATIONS | IS_VOICE_MESSAGE | IS_COMPONENTS_V2

# The channel types without messages: categories and forums (Channel, "Channel Types").
_WITHOUT_MESSAGES = (4, 14, 15, 16)

_FILE_FIELD = re.compile(r"files?\[?([0-9]*)\]?")

# The attachment flag of a spoiler (Message, "Attachment Flags").
_IS_SPOILER = 1 << 3


class MessageWriter:
    """Writes messages into channels, and edits them. The callers issue the events.

    :param backend: the parts of the gateway.
    :param files: keeps uploaded files.
    """

    def __init__(self, backend: Backend, files: Files) -> None:
        self._backend = backend
        self._files = files

    def write(
        self,
        channel: Channel,
        body: dict[str, Any],
        files: list[File],
        *,
        allowed_mentions: dict[str, Any] = ALL,
        store: bool = True,
        **fields: Any,
    ) -> Message:
        """Write a message of the bot into a channel.

        :param channel: the channel object.
        :param body: the checked body.
        :param files: the files to attach.
        :param allowed_mentions: whom the text may mention if the body does not say.
        :param store: False for an ephemeral message, which the channel does not keep.
        :param fields: further fields of the message object. With ``referenced_message`` the message
            is a reply, and mentions the author of that message unless the body forbids it.
        :raises ApiError: if the message would be empty, if the channel takes no messages, if a file
            is too large, or if the body names a file that is not there.
        """
        if channel["type"] in _WITHOUT_MESSAGES:
            raise ApiError(NOT_A_TEXT_CHANNEL)
        shown = ("content", "embeds", "components", "sticker_ids", "poll")
        if not (files or any(body.get(key) for key in shown) or "message_snapshots" in fields):
            raise ApiError(EMPTY_MESSAGE)
        if body.get("poll"):
            fields["poll"] = body["poll"]
        flags = (body.get("flags") or 0) & _CREATE_FLAGS | fields.pop("flags", 0)
        allowed = body.get("allowed_mentions")
        mentions = self._mentions(channel, body, allowed or allowed_mentions)
        original = fields.get("referenced_message")
        if original is not None and (allowed is None or allowed.get("replied_user")):
            if original["author"]["id"] not in [user["id"] for user in mentions["mentions"]]:
                mentions["mentions"].append(original["author"])
        return self._backend.world.write_message(
            channel,
            self._backend.world.user,
            body.get("content") or "",
            store=store,
            embeds=[_embed(each) for each in body.get("embeds") or ()],
            components=number(body.get("components") or []),
            attachments=self._attach(channel, body, files),
            tts=bool(body.get("tts")),
            flags=flags,
            **mentions,
            **fields,
        )

    def edit(
        self,
        message: Message,
        body: dict[str, Any],
        files: list[File],
        *,
        allowed_mentions: dict[str, Any] = ALL,
    ) -> None:
        """Edit a message of the bot.

        :param message: the message object.
        :param body: the checked body. The message keeps each field that the body lacks.
        :param files: the files to attach.
        :param allowed_mentions: whom the text may mention if the body does not say.
        :raises ApiError: if the message would be empty, if a file is too large, or if the body
            names a file that is not there.
        """
        channel = message.channel
        changes: dict[str, Any] = {}
        if "content" in body:
            changes["content"] = body["content"] or ""
        if "embeds" in body:
            changes["embeds"] = [_embed(each) for each in body["embeds"] or ()]
        if "components" in body:
            changes["components"] = number(body["components"] or [])
        if "attachments" in body or files:
            kept = message["attachments"]
            if body.get("attachments") is not None:
                wanted = {each["id"] for each in body["attachments"]}
                kept = [each for each in kept if each["id"] in wanted]
            changes["attachments"] = kept + self._attach(channel, body, files)
        if body.get("flags") is not None:
            suppressed = message["flags"] & ~SUPPRESS_EMBEDS | body["flags"] & SUPPRESS_EMBEDS
            changes["flags"] = suppressed | body["flags"] & IS_COMPONENTS_V2
        edited = {**message, **changes}
        if "content" in body or ("components" in body and edited["flags"] & IS_COMPONENTS_V2):
            allowed = body.get("allowed_mentions") or allowed_mentions
            changes.update(self._mentions(channel, edited, allowed))
        shown = ("content", "embeds", "components", "attachments", "poll", "sticker_items")
        if not any(edited.get(key) for key in shown):
            raise ApiError(EMPTY_MESSAGE)
        # A response that was deferred is no longer loading once it has content.
        changes["flags"] = edited["flags"] & ~LOADING
        if not message["flags"] & LOADING:
            changes["edited_timestamp"] = timestamp()
        message.update(changes)

    def _mentions(
        self, channel: Channel, message: dict[str, Any], allowed: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the fields that say whom a message mentions, by its content or text displays."""
        shown = [message.get("content") or "", *texts(message.get("components") or [])]
        return self._backend.world.mentions(channel, "\n".join(shown), allowed)

    def _attach(
        self, channel: Channel, body: dict[str, Any], files: list[File]
    ) -> list[dict[str, Any]]:
        """Keep files; return their attachment objects.

        :raises ApiError: if a file is too large, or if the body names a file that is not there.
        """
        described = {each["id"]: each for each in body.get("attachments") or ()}
        attachments = []
        numbers = []
        for file in files:
            if len(file.content) > MAX_FILE_SIZE:
                raise ApiError(FILE_TOO_LARGE)
            match = _FILE_FIELD.fullmatch(file.field)
            numbers.append(match[1] if match else file.field)
            metadata = described.get(numbers[-1], {})
            attachments.append(self._attachment(channel, file, metadata))
        for index, attachment_id in enumerate(described):
            # A body names a new file by the number of its field, below ten, and an attachment that
            # the message has already by its snowflake.
            if len(attachment_id) <= 2 and attachment_id not in numbers:
                raise invalid_form(
                    "INVALID_ATTACHMENT", "This attachment does not exist", "attachments", index
                )
        return attachments

    def _attachment(self, channel: Channel, file: File, metadata: dict[str, Any]) -> dict[str, Any]:
        attachment_id = self._backend.world.new_id()
        filename = metadata.get("filename") or file.filename
        self._files.add(attachment_id, file)
        quoted = quote(filename, safe="", errors="replace")
        place = f"/attachments/{channel['id']}/{attachment_id}/{quoted}"
        url = self._backend.http_url() + place
        attachment = {
            "id": attachment_id,
            "filename": filename,
            "size": len(file.content),
            "url": url,
            "proxy_url": url,
            "flags": _IS_SPOILER if metadata.get("is_spoiler") else 0,
        }
        if file.content_type is not None:
            attachment["content_type"] = file.content_type
        optional = ("title", "description", "duration_secs", "waveform")
        return attachment | {key: metadata[key] for key in optional if metadata.get(key)}


def _embed(embed: dict[str, Any]) -> dict[str, Any]:
    """Return an embed as a message object has it."""
    present = {key: value for key, value in embed.items() if value is not None}
    present["type"] = "rich"
    if "fields" in present:
        present["fields"] = [
            {**field, "inline": bool(field.get("inline"))} for field in present["fields"]
        ]
    return present
