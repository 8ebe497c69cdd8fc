"""Events on their way to the sessions that should get them."""

from __future__ import annotations

from typing import Any

from shardlib.gateway import Intents
from shardlib.testing.intents import guild_of, required, without_content
from shardlib.testing.payloads import encode

_MESSAGE_CONTENT = int(Intents.MESSAGE_CONTENT)


class Event:
    """One event about to be dispatched: who may get it, and its JSON, encoded once for all.

    :param name: its name, as ``MESSAGE_CREATE``.
    :param data: its ``d``.
    :param user_id: the bot's own id: events about the bot come more freely.
    :raises TypeError: if ``data`` holds something that JSON cannot express.
    :raises ValueError: if ``data`` holds NaN or an infinity.
    """

    __slots__ = ("_blank", "_data", "_text", "_user_id", "guild_id", "intents", "name")

    def __init__(self, name: str, data: Any, user_id: str) -> None:
        self.name = name
        self.guild_id = guild_of(name, data)
        # A plain number: arithmetic on flags is slow, and this is done for every session.
        self.intents = int(required(name, data, user_id))
        self._data = data
        self._user_id = user_id
        self._text = encode(data)
        self._blank: bytes | None = None

    def text(self, intents: int) -> bytes:
        """Return the event's data as a session gets it.

        :param intents: the session's intents.
        """
        if intents & _MESSAGE_CONTENT:
            return self._text
        if self._blank is None:
            hidden = without_content(self.name, self._data, self._user_id)
            self._blank = self._text if hidden is self._data else encode(hidden)
        return self._blank
