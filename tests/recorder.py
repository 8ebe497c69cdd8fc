"""Recorder: the calls of a shard's callbacks, in order; and events with numbers."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

from shardlib import Shard
from shardlib.testing import LocalGateway
from tests.support import wait_until

CALLBACKS = (
    "on_socket_connected",
    "on_socket_reconnected",
    "on_socket_disconnected",
    "on_socket_heartbeat",
    "on_socket_dispatch",
    "on_socket_raw_message",
    "on_socket_text",
    "on_socket_batch",
    "on_socket_ready",
    "on_socket_error",
    "on_socket_state",
    "on_socket_closed",
)

# The callbacks for each message, which are recorded if a test asks for them.
_FOR_EACH_MESSAGE = {"on_socket_raw_message", "on_socket_text", "on_socket_batch"}

# The callbacks about connections, each with its letter in the grammar below.
_LETTERS = {"connected": "c", "ready": "y", "reconnected": "r", "disconnected": "d", "closed": "x"}
# Connected, then READY or RESUMED, then disconnected, again and again; closed once a life.
_GRAMMAR = re.compile(r"((c(yr?|r)?d)+x)*(c(yr?|r)?d)*(c(yr?|r)?)?x?")


class Recorder:
    """Keeps the calls of a shard's callbacks, in order, and the names of their threads.

    Each call is a tuple: ``("connected",)``, ``("disconnected", code, closed_by_self)``.

    :param raw: True to record on_socket_raw_message, on_socket_text and on_socket_batch, too. A
        shard with these callbacks takes another way through its code for each event.
    """

    def __init__(self, *, raw: bool = False) -> None:
        self._raw = raw
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """The callbacks to give to the shard."""
        names = [name for name in CALLBACKS if self._raw or name not in _FOR_EACH_MESSAGE]
        return {name: self._callback(name.removeprefix("on_socket_")) for name in names}

    def _callback(self, name: str) -> Callable[..., None]:
        def record(shard: Shard, *arguments: Any) -> None:
            assert isinstance(shard, Shard)
            self.threads.add(threading.current_thread().name)
            self.calls.append((name, *arguments))

        return record

    def of(self, *names: str, since: int = 0) -> list[tuple[Any, ...]]:
        """The calls of some callbacks.

        :param since: how many calls, of whichever callbacks, came before the first that counts.
        """
        return [call for call in self.calls[since:] if call[0] in names]

    @property
    def besides_states(self) -> list[tuple[Any, ...]]:
        """All calls but those of on_socket_state."""
        return [call for call in self.calls if call[0] != "state"]

    def life_since(self, since: int) -> list[tuple[Any, ...]]:
        """The calls of the callbacks about connections.

        :param since: how many calls, of whichever callbacks, came before the first that counts.
        """
        return self.of(*_LETTERS, since=since)

    def count(self, name: str, *arguments: Any) -> int:
        """How often a callback was called with arguments that begin with these."""
        wanted = (name, *arguments)
        return sum(call[: len(wanted)] == wanted for call in list(self.calls))

    def wait_for(self, *names: str, count: int = 1, timeout: float = 30.0) -> None:
        """Wait until some callbacks together have been called ``count`` times."""
        wait_until(lambda: len(self.of(*names)) >= count, timeout, f"{count} of {names}")

    @property
    def life(self) -> list[tuple[Any, ...]]:
        """All calls of the callbacks about connections."""
        return self.life_since(0)

    @property
    def errors(self) -> list[Exception]:
        """The errors that ``on_socket_error`` was called with."""
        return [error for _, error in self.of("error")]

    @property
    def beats(self) -> list[float]:
        """The seconds that each acknowledged heartbeat took."""
        return [ping for _, ping in self.of("heartbeat")]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The payloads of the events."""
        return [payload for _, payload in self.of("dispatch")]

    def data(self, event: str) -> list[Any]:
        """The data of each event of a name."""
        return [payload["d"] for payload in self.events if payload.get("t") == event]

    def numbers(self) -> list[int]:
        """The numbers of the events of :func:`dispatch_numbers` so far."""
        return [data["n"] for data in self.data("TYPING_START")]

    def check_order(self) -> None:
        """Fail if the callbacks about connections were called in an order that is not allowed."""
        word = "".join(_LETTERS[call[0]] for call in self.life)
        assert _GRAMMAR.fullmatch(word), self.life


def dispatch_numbers(gateway: LocalGateway, numbers: Iterable[int]) -> None:
    """Have the gateway dispatch an event for each number, for :meth:`Recorder.numbers`."""
    for number in numbers:
        gateway.dispatch("TYPING_START", {"n": number, "guild_id": None})
