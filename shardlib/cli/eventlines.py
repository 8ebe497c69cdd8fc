"""EventLines: a bot's events on standard output, one line each."""

from __future__ import annotations

import json
import logging
import threading
import time
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from shardlib.cli.shutdown import Shutdown
from shardlib.cli.summary import Places, summarize
from shardlib.cli.terminal import BOLD, DIM, Lines, clip, clock, columns, terminal_columns
from shardlib.gateway import misspelling_warning
from shardlib.shard import Shard
from shardlib.text import printable

# Columns of a line that goes into a pipe or a file. In a terminal, a line takes the whole width.
FILE_COLUMNS = 160

_logger = logging.getLogger("shardlib.cli")


class EventLines:
    """Prints the events of a shard, or of several, until there are enough.

    :param arguments: the parsed arguments of ``shardlib tail``.
    :param output: standard output.
    :param shutdown: ends the command.
    :param with_shard: True to tell with each event whose it is.
    """

    def __init__(
        self, arguments: Namespace, output: Lines, shutdown: Shutdown, *, with_shard: bool
    ) -> None:
        self._output = output
        self._events: frozenset[str] | None = arguments.events
        # How many more events to print; None: all.
        self._left: int | None = arguments.count
        self._json: bool = arguments.json
        self._with_shard = with_shard
        self._shutdown = shutdown
        self._places = Places()
        # The readers of several shards print. The interpreter does not ask for this lock at its
        # exit, so a reader may hold it while it is stuck in a full pipe.
        self._lock = threading.Lock()

    def warn_of_misspelt_events(self) -> None:
        """Log a warning for each name in ``--events`` that looks misspelt."""
        warn_of_misspelt(self._events or ())

    def print(self, shard: Shard, payload: dict[str, Any]) -> None:
        """Print an event, if it is to be printed. The callback on_socket_dispatch of each shard.

        If the output goes into a pipe that is read slowly, the reader blocks here. No event is
        lost: heartbeats go on, and TCP holds the gateway's events back.

        :param shard: whose the event is.
        :param payload: the event.
        """
        with self._lock:
            self._print(shard, payload)

    def _print(self, shard: Shard, payload: dict[str, Any]) -> None:
        event = str(payload.get("t"))
        data = payload.get("d")
        self._places.learn(event, data)
        if self._left == 0 or (self._events is not None and event not in self._events):
            return
        try:
            self._output.write(self._format(event, shard, payload) + "\n")
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

    def _format(self, event: str, shard: Shard, payload: dict[str, Any]) -> str:
        if self._json:
            extra = {"shard": shard.shard_id} if self._with_shard else {}
            return to_json_or_without_data({**payload, **extra})
        try:
            return self._format_line(event, shard, payload)
        except RecursionError:
            warn_of_depth(event)
            return self._format_line(event, shard, {**payload, "d": None})

    def _format_line(self, event: str, shard: Shard, payload: dict[str, Any]) -> str:
        data = payload.get("d")
        sequence = payload.get("s")
        width = terminal_columns(FILE_COLUMNS)
        when = clock(time.time())
        if self._with_shard:
            widest = len(f"{shard.shard_count - 1}/{shard.shard_count}")
            when += f"  {shard.shard_id}/{shard.shard_count}".rjust(2 + widest)
        when += f"  {'-' if sequence is None else printable(str(sequence)):>6}"
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


def warn_of_misspelt(events: Iterable[str]) -> None:
    """Log a warning for each name of an event that looks misspelt.

    :param events: the names.
    """
    for event in sorted(events):
        warning = misspelling_warning(event)
        if warning is not None:
            _logger.warning("%s", warning)


def to_json_or_without_data(payload: dict[str, Any]) -> str:
    """Return a payload as :func:`to_json` does, without its data if that is nested too deeply.

    :param payload: the decoded payload.
    """
    try:
        return to_json(payload)
    except RecursionError:
        warn_of_depth(str(payload.get("t")))
        return to_json({**payload, "d": None})


def warn_of_depth(event: str) -> None:
    """Log that an event is shown without its data.

    :param event: its name.
    """
    _logger.warning(
        "%s is nested too deeply to be shown, and stands here without its data", printable(event)
    )


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
