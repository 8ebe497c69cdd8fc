"""``shardlib tail``: one line for each event of a bot."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import sys
import threading
import time
from argparse import Namespace
from typing import Any

from shardlib.cli.errors import UsageError, gateway_class
from shardlib.cli.shutdown import Shutdown
from shardlib.cli.summary import Places, summarize
from shardlib.cli.terminal import BOLD, DIM, LogLines, Output, clip, clock, columns
from shardlib.gateway import GATEWAY_URL, Intents, misspelling_warning
from shardlib.shard import Shard
from shardlib.state import ShardState
from shardlib.text import printable

# Seconds that disconnect() may take, so that Ctrl-C ends the command within one, whatever the
# gateway does. At exit the interpreter waits for a reader thread that is stuck in a full pipe, too.
CLOSE_TIMEOUT = 0.3

# Columns of a line that goes into a pipe or a file. A terminal's are as many as it has.
FILE_COLUMNS = 160

_logger = logging.getLogger("shardlib.cli")


def run(arguments: Namespace) -> None:
    """Connect, and print events until Ctrl-C, an error, or the last event that was asked for.

    :param arguments: of ``shardlib tail``.
    :raises UsageError: if the arguments, or DISCORD_TOKEN, cannot be used.
    :raises Exception: the error that ended the shard.
    """
    gateway = gateway_class()() if arguments.local else None
    token = _token() if gateway is None else gateway.token
    shutdown = Shutdown()
    tail = Tail(arguments, token, shutdown)
    with gateway or contextlib.nullcontext():
        if gateway is not None:
            gateway.traffic()
        tail.warn_of_misspelt_events()
        tail.connect(arguments.url or GATEWAY_URL if gateway is None else gateway.url)
        try:
            shutdown.wait()
        finally:
            tail.disconnect()


class Tail:
    """A shard whose events are printed.

    :param arguments: of ``shardlib tail``.
    :param token: of the bot.
    :param shutdown: told when the command is to end.
    :raises UsageError: if no shard can be made with these arguments.
    """

    def __init__(self, arguments: Namespace, token: str, shutdown: Shutdown) -> None:
        self._output = Output(sys.stdout)
        self._events: frozenset[str] | None = arguments.events
        self._left: int | None = arguments.count
        self._json: bool = arguments.json
        self._shutdown = shutdown
        self._places = Places()
        intents = arguments.intents
        if intents is None:
            intents = Intents.all() if arguments.local else Intents.default()
        shard_id, shard_count = arguments.shard
        try:
            self._shard = Shard(
                token,
                intents,
                shard_id,
                shard_count,
                compression=arguments.compression,
                close_timeout=CLOSE_TIMEOUT,
                on_socket_dispatch=self._print,
                on_socket_heartbeat=self._note_heartbeat,
                on_socket_closed=self._note_closed,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        if sys.stderr is not None:
            # The shard's log tells what happens to the connection. Its last line is left out: the
            # program prints the error that closed the shard.
            lines = LogLines(Output(sys.stderr), details=arguments.verbose)
            lines.addFilter(lambda record: self._shard.state is not ShardState.CLOSED)
            logger = logging.getLogger("shardlib")
            logger.addHandler(lines)
            logger.setLevel(logging.DEBUG if arguments.verbose else logging.INFO)

    def warn_of_misspelt_events(self) -> None:
        """Tell of each name in ``--events`` that looks misspelt: its event may never come."""
        for event in sorted(self._events or ()):
            warning = misspelling_warning(event)
            if warning is not None:
                _logger.warning("%s", warning)

    def connect(self, url: str) -> None:
        """Begin to connect, on a thread of its own: the main thread waits for the end only.

        :param url: where to connect.
        """
        _logger.info("connecting to %s", url)

        def connect() -> None:
            try:
                self._shard.connect(url)
            except Exception as error:
                self._shutdown.come(error)

        self._connecting = threading.Thread(target=connect, name="connecting", daemon=True)
        self._connecting.start()

    def disconnect(self) -> None:
        """End the connection. Blocks for a moment, and for twice the close timeout at most."""
        self._shard.disconnect()
        if self._connecting.is_alive():  # perhaps the shard's connect() had not even begun
            self._connecting.join(CLOSE_TIMEOUT)
            self._shard.disconnect()

    # Callbacks, on the reader thread. A slow reader of a pipe slows this thread down: no event is
    # lost, the heartbeats go on, and the gateway holds back what the shard has not read yet.

    def _print(self, shard: Shard, payload: dict[str, Any]) -> None:
        event = str(payload.get("t"))
        data = payload.get("d")
        self._places.learn(event, data)
        if self._left == 0 or (self._events is not None and event not in self._events):
            return
        try:
            self._output.write(self._written(event, payload) + "\n")
        except BrokenPipeError:
            self._left = 0
            self._shutdown.come()
        except OSError as error:
            self._left = 0
            self._shutdown.come(OSError(f"standard output cannot be written: {error.strerror}"))
        if self._left:
            self._left -= 1
            if self._left == 0:
                self._shutdown.come()

    def _written(self, event: str, payload: dict[str, Any]) -> str:
        write = to_json if self._json else functools.partial(self._line, event)
        try:
            return write(payload)
        except RecursionError:
            _logger.warning(
                "%s is nested too deeply to be shown, and stands here without its data",
                printable(event),
            )
            return write({**payload, "d": None})

    def _line(self, event: str, payload: dict[str, Any]) -> str:
        data = payload.get("d")
        sequence = payload.get("s")
        width = shutil.get_terminal_size((FILE_COLUMNS, 0)).columns
        when = f"{clock(time.time())}  {'-' if sequence is None else printable(str(sequence)):>6}"
        name = printable(event)
        line = columns(
            [
                (when, 0),
                (name, 20),
                (printable(self._places.where(event, data)), width // 5),
                (printable(summarize(event, data, self._places)), 0),
            ]
        )
        line = clip(line, width)
        start = len(when)
        stop = start + len("  ") + len(name)
        style = self._output.style
        return style(line[:start], DIM) + style(line[start:stop], BOLD) + line[stop:]

    def _note_heartbeat(self, shard: Shard, ping: float) -> None:
        _logger.debug("heartbeat acknowledged after %.1f ms", ping * 1000)

    def _note_closed(self, shard: Shard, error: BaseException | None) -> None:
        self._shutdown.come(error)


def to_json(payload: dict[str, Any]) -> str:
    """A payload as JSON in ASCII, so that no character in it can do anything to a terminal.

    NaN and the infinities become null: Python reads and writes them, but JSON has no such numbers.
    """
    try:
        return json.dumps(payload, allow_nan=False)
    except ValueError:
        plain = json.loads(json.dumps(payload), parse_constant=lambda _: None)
        return json.dumps(plain)


def _token() -> str:
    token = os.environ.get("DISCORD_TOKEN")
    if not token:
        raise UsageError(
            "the bot's token is taken from the environment variable DISCORD_TOKEN, which is not "
            "set; --local needs none"
        )
    return token
