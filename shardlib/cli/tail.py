"""``shardlib tail``: one line for each event of a bot."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
import threading
import time
from argparse import Namespace
from typing import Any

from shardlib.cli.environment import bot_token
from shardlib.cli.errors import UsageError, gateway_class
from shardlib.cli.shutdown import Shutdown
from shardlib.cli.summary import Places, summarize
from shardlib.cli.terminal import (
    BOLD,
    DIM,
    LogLines,
    Output,
    clip,
    clock,
    columns,
    terminal_columns,
)
from shardlib.gateway import GATEWAY_URL, Intents, misspelling_warning
from shardlib.shard import Shard
from shardlib.state import ShardState
from shardlib.text import printable

# Seconds that disconnect() may take. Whatever the gateway does, Ctrl-C then ends the command within
# a second, in which the interpreter may also wait for a reader thread that is stuck in a full pipe.
CLOSE_TIMEOUT = 0.3

# Columns of a line that goes into a pipe or a file. In a terminal, a line takes the whole width.
FILE_COLUMNS = 160

_logger = logging.getLogger("shardlib.cli")


def run(arguments: Namespace) -> None:
    """Connect, and print events until Ctrl-C, an error, or the last event that was asked for.

    :param arguments: the parsed arguments of ``shardlib tail``.
    :raises UsageError: if the shard refuses the arguments, or DISCORD_TOKEN is not set.
    :raises Failure: if a package that ``--local`` needs is missing.
    :raises ShardError: the error that ended the shard.
    :raises OSError: if standard output cannot be written.
    """
    gateway = gateway_class()() if arguments.local else None
    token = bot_token() if gateway is None else gateway.token
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
    """A shard, and the callbacks that print the shard's events.

    :param arguments: the parsed arguments of ``shardlib tail``.
    :param token: the bot's token.
    :param shutdown: ends the command.
    :raises UsageError: if the shard refuses the arguments.
    """

    def __init__(self, arguments: Namespace, token: str, shutdown: Shutdown) -> None:
        self._output = Output(sys.stdout)
        self._events: frozenset[str] | None = arguments.events
        # How many more events to print; None: all.
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
            # The shard's log tells what happens to the connection. The filter drops the last line,
            # since the program prints the error that closed the shard.
            lines = LogLines(Output(sys.stderr), details=arguments.verbose)
            lines.addFilter(lambda record: self._shard.state is not ShardState.CLOSED)
            # Not the local gateway's thread: stuck in a full pipe, it would keep the command alive.
            for logger in (logging.getLogger("shardlib.shard"), _logger):
                logger.addHandler(lines)
                logger.setLevel(logging.DEBUG if arguments.verbose else logging.INFO)

    def warn_of_misspelt_events(self) -> None:
        """Log a warning for each name in ``--events`` that looks misspelt."""
        for event in sorted(self._events or ()):
            warning = misspelling_warning(event)
            if warning is not None:
                _logger.warning("%s", warning)

    def connect(self, url: str) -> None:
        """Begin to connect, on a new thread, so that the main thread can wait for the shutdown.

        :param url: the gateway's URL.
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
        """Close the shard. Blocks for twice the close timeout at most."""
        self._shard.disconnect()
        if self._connecting.is_alive():
            # Shard.connect() may not have begun before disconnect(), and would go on.
            self._connecting.join(CLOSE_TIMEOUT)
            self._shard.disconnect()

    # Callbacks, on the reader thread. If the output goes into a pipe that is read slowly, this
    # thread blocks. No event is lost: heartbeats go on, and TCP holds the gateway's events back.

    def _print(self, shard: Shard, payload: dict[str, Any]) -> None:
        event = str(payload.get("t"))
        data = payload.get("d")
        self._places.learn(event, data)
        if self._left == 0 or (self._events is not None and event not in self._events):
            return
        try:
            self._output.write(self._format(event, payload) + "\n")
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

    def _format(self, event: str, payload: dict[str, Any]) -> str:
        format_payload = to_json if self._json else functools.partial(self._format_line, event)
        try:
            return format_payload(payload)
        except RecursionError:
            _logger.warning(
                "%s is nested too deeply to be shown, and stands here without its data",
                printable(event),
            )
            return format_payload({**payload, "d": None})

    def _format_line(self, event: str, payload: dict[str, Any]) -> str:
        data = payload.get("d")
        sequence = payload.get("s")
        width = terminal_columns(FILE_COLUMNS)
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
    """Return a payload as JSON in ASCII, which holds no control character of a terminal.

    NaN and the infinities become null: Python reads and writes them, but JSON has no such numbers.

    :param payload: the decoded payload.
    :raises RecursionError: if the payload is nested too deeply.
    """
    try:
        return json.dumps(payload, allow_nan=False)
    except ValueError:
        plain = json.loads(json.dumps(payload), parse_constant=lambda _: None)
        return json.dumps(plain)
