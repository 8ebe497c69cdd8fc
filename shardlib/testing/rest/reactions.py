"""Reactions to messages."""

from __future__ import annotations

import unicodedata
from typing import Any

from shardlib.testing.channel import Message
from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.errors import NOT_IN_DM, TOO_MANY_REACTIONS, UNKNOWN_EMOJI, ApiError
from shardlib.testing.rest.forms import Integer, Snowflake
from shardlib.testing.rest.pages import page
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.router import Call, Route

_LIMIT = RateLimit("reactions", 1, 0.25)
_READ_LIMIT = RateLimit("reactions read", 5, 5.0)


class Reactions:
    """The reactions of the resource Message.

    :param backend: the parts of the gateway.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the routes."""
        reactions = "/channels/{channel_id}/messages/{message_id}/reactions"
        return [
            Route("PUT", f"{reactions}/{{emoji}}/@me", self._add, _LIMIT),
            Route("DELETE", f"{reactions}/{{emoji}}/@me", self._remove_own, _LIMIT),
            Route("DELETE", f"{reactions}/{{emoji}}/{{user_id}}", self._remove, _LIMIT),
            Route("GET", f"{reactions}/{{emoji}}", self._list, _READ_LIMIT),
            Route("DELETE", reactions, self._clear, _LIMIT),
            Route("DELETE", f"{reactions}/{{emoji}}", self._clear_emoji, _LIMIT),
        ]

    def _message(self, call: Call) -> Message:
        return self._backend.message(call["channel_id"], call["message_id"])

    @property
    def _bot_id(self) -> str:
        return str(self._backend.world.user["id"])

    def _emoji(self, call: Call) -> dict[str, Any]:
        """Return the partial emoji object of a path.

        :raises ApiError: if the path has neither an emoji's text nor name and id of a custom emoji
            in one of the bot's guilds.
        """
        text = call["emoji"]
        emoji_id = text.rpartition(":")[2]
        if emoji_id == text:
            if text.isascii() or any(map(_is_letter, text)):
                raise ApiError(UNKNOWN_EMOJI)
            return {"id": None, "name": text}
        for guild in self._backend.world.guilds.values():
            for emoji in guild.emojis:
                if emoji["id"] == emoji_id:
                    return {"id": emoji_id, "name": emoji["name"], "animated": emoji["animated"]}
        raise ApiError(UNKNOWN_EMOJI)

    def _add(self, call: Call) -> None:
        message, emoji = self._message(call), self._emoji(call)
        if not message.can_take(emoji):
            raise ApiError(TOO_MANY_REACTIONS)
        if message.add_reaction(self._bot_id, emoji, self._bot_id):
            event = self._backend.world.reaction_event(message, self._bot_id, emoji, added=True)
            self._backend.dispatch("MESSAGE_REACTION_ADD", event)

    def _remove_own(self, call: Call) -> None:
        self._remove_of(call, self._bot_id)

    def _remove(self, call: Call) -> None:
        if call["user_id"] != self._bot_id:
            self._require_guild(call)
        self._remove_of(call, call["user_id"])

    def _require_guild(self, call: Call) -> None:
        """Check that the bot may remove the reactions of others.

        :raises ApiError: if the channel is a direct message.
        """
        if self._message(call).channel.is_direct:
            raise ApiError(NOT_IN_DM)

    def _remove_of(self, call: Call, user_id: str) -> None:
        message, emoji = self._message(call), self._emoji(call)
        if message.remove_reaction(user_id, emoji, self._bot_id):
            event = self._backend.world.reaction_event(message, user_id, emoji, added=False)
            self._backend.dispatch("MESSAGE_REACTION_REMOVE", event)

    def _list(self, call: Call) -> list[dict[str, Any]]:
        query = call.query(type=Integer(0, 1), after=Snowflake(), limit=Integer(1, 100))
        message, emoji = self._message(call), self._emoji(call)
        if query.get("type"):
            return []
        reactors = sorted(message.reactors(emoji), key=int)
        users = map(self._backend.world.find_user, page(reactors, str, query, default=25))
        return [user for user in users if user is not None]

    def _clear(self, call: Call) -> None:
        self._require_guild(call)
        message = self._message(call)
        message.clear_reactions(self._bot_id)
        self._backend.dispatch("MESSAGE_REACTION_REMOVE_ALL", self._ids(message))

    def _clear_emoji(self, call: Call) -> None:
        self._require_guild(call)
        message, emoji = self._message(call), self._emoji(call)
        message.clear_reactions(self._bot_id, emoji)
        event = {**self._ids(message), "emoji": emoji}
        self._backend.dispatch("MESSAGE_REACTION_REMOVE_EMOJI", event)

    def _ids(self, message: Message) -> dict[str, Any]:
        channel = message.channel
        return {**self._backend.place(channel), "message_id": message["id"]}


def _is_letter(character: str) -> bool:
    # One emoji, "information", is a letter to Unicode.
    return unicodedata.category(character)[0] == "L" and character != "\N{INFORMATION SOURCE}"
