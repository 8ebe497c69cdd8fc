"""A bot in a process of its own, and what it tells."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shardlib.testing import LocalGateway


class Bot:
    """One of the programs in ``clients``, running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._told: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_events),
            threading.Thread(target=self._read_errors),
        ]
        for reader in self._readers:
            reader.start()

    def expect(self, event: str, timeout: float = 30.0) -> dict[str, Any]:
        """Return the next event of this name; others before it are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                told = self._told.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event!r} in {timeout} s\n{self._said()}") from None
            if told is None:
                raise AssertionError(f"the bot ended before {event!r}\n{self._said()}")
            if told["event"] == event:
                return told

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()

    def _said(self) -> str:
        return "".join(self._errors[-60:])

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                if line.startswith("{"):
                    self._told.put(json.loads(line))
                else:
                    self._errors.append(line)
        self._told.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr:
            self._errors.extend(self._process.stderr)


@contextmanager
def running(
    gateway: LocalGateway, command: list[str], environment: dict[str, str]
) -> Iterator[Bot]:
    """Run a bot, and end it."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DISCORD_TOKEN": gateway.token, **environment},
    )
    bot = Bot(process)
    try:
        yield bot
    finally:
        bot.end()
