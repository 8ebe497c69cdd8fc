"""A shard for tests, quick to identify and to reconnect, with its callbacks recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from shardlib import Backoff, IdentifyGate, Intents, Shard
from shardlib.testing import LocalGateway
from tests.support import TOKEN, wait_until

CALLBACKS = (
    "on_socket_connected",
    "on_socket_reconnected",
    "on_socket_disconnected",
    "on_socket_heartbeat",
    "on_socket_dispatch",
    "on_socket_raw_message",
    "on_socket_ready",
    "on_socket_error",
    "on_socket_closed",
)


class Recorder:
    """Keeps what a shard's callbacks were called with, in order, and on which threads."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def callback(self, name: str) -> Callable[..., None]:
        short = name.removeprefix("on_socket_")

        def record(shard: Shard, *arguments: Any) -> None:
            assert isinstance(shard, Shard)
            self.threads.add(threading.current_thread().name)
            self.calls.append((short, *arguments))

        return record

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {name: self.callback(name) for name in CALLBACKS}

    def of(self, *names: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] in names]

    def life(self) -> list[tuple[Any, ...]]:
        """The calls that tell of connections."""
        return self.of("connected", "reconnected", "disconnected", "ready", "closed")

    def data(self, event: str) -> list[Any]:
        """The data of each event of a name."""
        return [call[1]["d"] for call in self.of("dispatch") if call[1].get("t") == event]

    def wait_for(self, *names: str, count: int = 1, timeout: float = 10.0) -> None:
        wait_until(lambda: len(self.of(*names)) >= count, timeout, f"{count} of {names}")


def make_gateway(**options: Any) -> LocalGateway:
    return LocalGateway(**{"token": TOKEN, "guilds": 1, "identify_interval": 0, **options})


def make_shard(recorder: Recorder | None = None, **options: Any) -> Shard:
    options = {
        "token": TOKEN,
        "intents": Intents.all(),
        "identify_gate": IdentifyGate(interval=0.001),
        "backoff": Backoff(base=0.01, cap=0.05),
        **(recorder.callbacks() if recorder else {}),
        **options,
    }
    return Shard(options.pop("token"), options.pop("intents"), **options)
