"""GatewayInteraction, the object through which a test sees how a bot answers an interaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from shardlib.testing.channel import Message
from shardlib.testing.interactions import Interaction
from shardlib.testing.rest.messageforms import LOADING
from shardlib.testing.thread import GatewayThread

_T = TypeVar("_T")


class GatewayInteraction:
    """What a user did with the bot, and how the bot answers.

    :meth:`LocalGateway.invoke_command <shardlib.testing.LocalGateway.invoke_command>` and its
    siblings make the object.
    """

    def __init__(self, interaction: Interaction, thread: GatewayThread, sessions: int) -> None:
        self._interaction = interaction
        self._thread = thread
        # How many sessions get the event. Without any, no answer can come.
        self._sessions = sessions

    def __repr__(self) -> str:
        return f"<GatewayInteraction {self.id} type={self._interaction.type}>"

    @property
    def id(self) -> str:
        """The interaction's id."""
        return self._interaction.id

    @property
    def token(self) -> str:
        """The token by which the bot answers."""
        return self._interaction.token

    @property
    def payload(self) -> dict[str, Any]:
        """The interaction object, which is the data of ``INTERACTION_CREATE``."""
        return self._interaction.payload

    @property
    def callback(self) -> dict[str, Any] | None:
        """The bot's callback, ``type`` and ``data``; None until the bot has answered."""
        with self._thread.lock:
            return self._interaction.callback

    @property
    def message(self) -> Message | None:
        """The response, ``@original``, as a message object.

        None if there is none: the bot has not answered with a message, or has deleted it.
        """
        with self._thread.lock:
            return self._interaction.original

    @property
    def messages(self) -> list[Message]:
        """The response and the follow-ups that the bot has not deleted, oldest first.

        Ephemeral messages, which only the user sees, are here and in no channel.
        """
        with self._thread.lock:
            return self._interaction.messages

    def wait_for_callback(self, timeout: float = 10.0) -> dict[str, Any]:
        """Wait until the bot has answered, and return its callback.

        :param timeout: seconds to wait.
        :raises TimeoutError: if the bot did not answer in time.
        """
        return self._wait(lambda: self._interaction.callback, timeout, f"an answer to {self!r}")

    def wait_for_message(self, timeout: float = 10.0) -> Message:
        """Wait for the response, and return it as a message object.

        A deferred response counts when the bot has given it its content.

        :param timeout: seconds to wait.
        :raises TimeoutError: if the bot did not respond with a message in time.
        """
        return self._wait(self._find_response, timeout, f"a response to {self!r}")

    def wait_for_messages(self, number: int, timeout: float = 10.0) -> list[Message]:
        """Wait until the bot has sent a number of messages, and return them, oldest first.

        The response and the follow-ups count, a deferred response once it has content.

        :param number: how many messages, 1 or more.
        :param timeout: seconds to wait.
        :raises TimeoutError: if the bot did not send so many in time.
        """

        def find() -> list[Message] | None:
            found = [each for each in self._interaction.messages if not each["flags"] & LOADING]
            return found if len(found) >= number else None

        return self._wait(find, timeout, f"{number} messages for {self!r}")

    def _wait(self, predicate: Callable[[], _T | None], timeout: float, what: str) -> _T:
        if not self._sessions:
            what += ", which no bot has got: none was READY when the user acted"
        return self._thread.wait(predicate, timeout, what)

    def _find_response(self) -> Message | None:
        message = self._interaction.original
        return message if message is not None and not message["flags"] & LOADING else None
