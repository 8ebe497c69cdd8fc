"""An event to dispatch, with the intents that bring the event to a session."""

from __future__ import annotations

from typing import Any

from shardlib.gateway import Intents
from shardlib.testing.intents import guild_id_of, required_intents, without_content
from shardlib.testing.payloads import encode

_MESSAGE_CONTENT = int(Intents.MESSAGE_CONTENT)


class Event:
    """One event: the intents that bring it, and its JSON, encoded once for all sessions.

    :param name: the event's name, for instance ``MESSAGE_CREATE``.
    :param data: the event's ``d``.
    :param user_id: the bot's user id. Some events about the bot need no intent.
    :param text: ``data`` as JSON, if the caller has it; else it is encoded.
    :raises TypeError: if ``data`` holds something that JSON cannot express.
    :raises ValueError: if ``data`` holds NaN or an infinity.
    """

    __slots__ = (
        "_data",
        "_text",
        "_text_without_content",
        "_user_id",
        "guild_id",
        "intents",
        "name",
    )

    def __init__(self, name: str, data: Any, user_id: str, *, text: bytes | None = None) -> None:
        self.name = name
        self.guild_id = guild_id_of(name, data)
        #: The intents of which any one brings this event; 0 if every session gets the event. An
        #: int, because the dispatcher tests each session, and arithmetic on flags is slow.
        self.intents = int(required_intents(name, data, user_id))
        self._data = data
        self._user_id = user_id
        self._text = encode(data) if text is None else text
        # None until the first session without MESSAGE_CONTENT gets the event.
        self._text_without_content: bytes | None = None

    def text(self, intents: int) -> bytes:
        """Return the event's ``d`` as JSON, without the content that the intents do not include.

        :param intents: the session's intents.
        """
        if intents & _MESSAGE_CONTENT:
            return self._text
        if self._text_without_content is None:
            data = without_content(self.name, self._data, self._user_id)
            self._text_without_content = self._text if data is self._data else encode(data)
        return self._text_without_content
