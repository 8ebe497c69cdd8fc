"""``shardlib record``: a shard's events in a file, which a local gateway can play."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from argparse import Namespace
from typing import Any

from shardlib.cli.environment import Address, bot_token, gateway_address
from shardlib.cli.errors import Failure, UsageError, gateway_class
from shardlib.cli.gateway import size
from shardlib.cli.shutdown import Shutdown
from shardlib.cli.tail import OneShard
from shardlib.cli.terminal import Output
from shardlib.recording import Recorder
from shardlib.shard import Shard
from shardlib.text import count, duration

# Seconds after which an event is in the file, whatever happens to the command.
_FLUSH_INTERVAL = 1.0


def run(arguments: Namespace) -> None:
    """Record until Ctrl-C, an error, or as long as was asked for.

    :param arguments: the parsed arguments of ``shardlib record``.
    :raises UsageError: if the file exists, if the shard refuses the arguments, if DISCORD_TOKEN is
        not set, or if DISCORD_GATEWAY is no URL.
    :raises Failure: if the file cannot be written, or a package that ``--local`` needs is missing.
    :raises ShardError: the error that ended the shard.
    """
    gateway = gateway_class()() if arguments.local else None
    token = bot_token() if gateway is None else gateway.token
    named = None if arguments.local else gateway_address(arguments)
    shutdown = Shutdown()
    with _Recording(arguments, shutdown) as recording, gateway or contextlib.nullcontext():
        shard = OneShard(arguments, token, shutdown, recording.add)
        if gateway is not None:
            gateway.traffic()
        shard.connect(named if gateway is None else Address(gateway.url))
        try:
            recording.wait()
        finally:
            shard.disconnect()


class _Recording:
    """The file, and what ends the command.

    :param arguments: the parsed arguments.
    :param shutdown: ends the command.
    :raises UsageError: if the file exists.
    :raises Failure: if the file cannot be made.
    """

    def __init__(self, arguments: Namespace, shutdown: Shutdown) -> None:
        self._path: str = arguments.file
        self._count: int | None = arguments.count
        self._shutdown = shutdown
        self._began_at = time.monotonic()
        self._seconds = None if arguments.minutes is None else arguments.minutes * 60
        # Held while the recorder is used: an event that comes when the file is closed is dropped.
        self._lock = threading.Lock()
        self._is_closed = False
        try:
            self._recorder = Recorder(self._path, redact=arguments.redact)
        except FileExistsError:
            raise UsageError(f"{self._path} exists, and is not overwritten") from None
        except OSError as error:
            raise self._failure(error) from error

    def add(self, shard: Shard, payload: dict[str, Any]) -> None:
        """Record an event, and end the command after the last one.

        The shard calls this method, also while the command ends.

        :param shard: the shard.
        :param payload: the event.
        :raises ValueError: if the event holds what JSON cannot express.
        """
        with self._lock:
            if self._is_closed or self._recorder.events == self._count:
                return
            try:
                self._recorder.record(shard, payload)
            except OSError as error:
                self._is_closed = True
                self._shutdown.come(self._failure(error))
        if self._recorder.events == self._count:
            self._shutdown.come()

    def wait(self) -> None:
        """Wait until the recording is to end; meanwhile write to the file what was recorded.

        :raises Failure: if the file cannot be written.
        :raises ShardError: the error that ended the shard.
        """
        ends_at = None if self._seconds is None else self._began_at + self._seconds
        pause = _FLUSH_INTERVAL
        while not self._shutdown.wait(pause):
            with self._lock:
                if self._is_closed:
                    continue  # add() has just failed, and the shutdown has the error
                try:
                    self._recorder.flush()
                except OSError as error:
                    self._is_closed = True
                    raise self._failure(error) from error
            now = time.monotonic()
            if ends_at is not None:
                if now >= ends_at:
                    break
                pause = min(_FLUSH_INTERVAL, ends_at - now)

    def __enter__(self) -> _Recording:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_closed = True
            try:
                self._recorder.close()
            except OSError as error:
                raise self._failure(error) from error
        if self._recorder.events == 0:
            os.unlink(self._path)  # so that the next attempt does not find it in its way
        self._tell()

    def _tell(self) -> None:
        events = self._recorder.events
        text = f"{count(events, 'event')} in {duration(time.monotonic() - self._began_at)}"
        if events:
            text += f": {self._path}, {size(os.path.getsize(self._path))}"
        with contextlib.suppress(OSError):  # standard error is closed, or no file
            Output(sys.stderr).write_last(text + "\n")

    def _failure(self, error: OSError) -> Failure:
        return Failure(f"{self._path} cannot be written: {error.strerror}")
