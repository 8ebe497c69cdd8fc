"""``shardlib shards --name``: the shards of a fleet, as Redis knows them."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shardlib.cli.fleets import find_fleet
from shardlib.cli.shardtable import word
from shardlib.cli.terminal import BOLD, DIM, RED, YELLOW, Output, clip, clock
from shardlib.state import ShardState
from shardlib.text import count, duration, printable

if TYPE_CHECKING:
    from shardlib.fleet import Fleet, FleetShardInfo

# Seconds between two looks.
_INTERVAL = 1.0

_FREE = "no worker"
_STYLES = {"ready": "", _FREE: RED, "closed": RED}


def run(arguments: Namespace) -> None:
    """Print the shards, once or every second. Ctrl-C ends the process, see ``cli.main``.

    :param arguments: the parsed arguments of ``shardlib shards``.
    :raises UsageError: if there is no URL of Redis.
    :raises Failure: if a package that a fleet needs is missing.
    :raises ShardError: if Redis does not answer, or refuses, or has no such fleet.
    :raises OSError: if standard output cannot be written.
    """
    output = Output(sys.stdout)
    with find_fleet(arguments) as fleet:
        try:
            if arguments.watch:
                _watch(fleet, output, as_json=arguments.json)
            infos = fleet.shards()
            output.write(_json(infos) if arguments.json else _text(_table(infos, output)))
        except BrokenPipeError:
            pass  # the pipe has no reader any more, which is a usual end of the command


def _watch(fleet: Fleet, output: Output, *, as_json: bool) -> None:
    """Print the shards every second, on a terminal in place."""
    from shardlib.fleet import RedisAway

    redraws = output.has_cursor and not as_json
    if redraws:
        output.write("\x1b[H\x1b[2J")
    is_first = True
    while True:
        try:
            infos = fleet.shards()
        except RedisAway as error:
            if is_first:
                raise
            lines = [output.style(f"{clock(time.time())}  {printable(str(error))}", YELLOW)]
        else:
            if as_json:
                output.write(_json(infos))
            lines = _table(infos, output, at=f"{clock(time.time())}  ")
        if redraws:
            output.write(in_place(lines, output.size[1]))
        elif not as_json:
            output.write(("" if is_first else "\n") + _text(lines))
        is_first = False
        time.sleep(_INTERVAL)


def in_place(lines: list[str], rows: int) -> str:
    """What draws lines at the top of a terminal, as many as there is room for.

    :param lines: a sum, heads, and a line for each shard.
    :param rows: of the terminal.
    """
    room = max(2, rows - 1)
    if len(lines) > room:
        hidden = len(lines) - room + 1
        lines = [*lines[: room - 1], f"and {count(hidden, 'shard')} more, see --json"]
    return "\x1b[H" + "".join(line + "\x1b[K\n" for line in lines) + "\x1b[J"


def _json(infos: Sequence[FleetShardInfo]) -> str:
    shards: list[dict[str, Any]] = [
        {
            **info._asdict(),
            "state": None if info.state is None else info.state.value,
            "lag": dict(info.lag),
        }
        for info in infos
    ]
    return json.dumps(shards) + "\n"


def _text(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _table(infos: Sequence[FleetShardInfo], output: Output, *, at: str = "") -> list[str]:
    """A line that sums up, and one for each shard."""
    groups = list(infos[0].lag) if infos else []
    heads = ["Shard", "State", "Ping", "Session", "Sequence", "Kept", *groups, "Worker"]
    rows = [
        [
            str(info.shard_id),
            _state(info),
            "-" if info.ping is None or info.owner is None else f"{info.ping * 1000:.0f} ms",
            "-" if info.session_age is None else duration(info.session_age),
            str(info.sequence),
            str(info.events),
            *("-" if lag is None else str(lag) for lag in info.lag.values()),
            info.owner or "-",
        ]
        for info in infos
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    width = output.size[0] if output.is_terminal else sys.maxsize

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(each) if index in (1, len(cells) - 1) else cell.rjust(each)
            for index, (cell, each) in enumerate(zip(cells, widths, strict=True))
        ]
        return clip(printable("  ".join(padded).rstrip()), width)

    return [
        output.style(clip(at + _sum(infos), width), BOLD),
        output.style(line(heads), DIM),
        *(output.style(line(row), _STYLES.get(row[1], YELLOW)) for row in rows),
    ]


def _state(info: FleetShardInfo) -> str:
    if info.owner is None:
        return _FREE
    return "claimed" if info.state is None else word(info.state)


def _sum(infos: Sequence[FleetShardInfo]) -> str:
    numbers = Counter(map(_state, infos))
    ready = numbers.pop(ShardState.READY.value, 0)
    free = numbers.pop(_FREE, 0)
    parts = [f"{ready} ready", *(f"{number} {state}" for state, number in numbers.items())]
    if free:
        parts.append(f"{free} without a worker")
    workers = len({info.owner for info in infos} - {None})
    return f"{count(len(infos), 'shard')}: {', '.join(parts)}; {count(workers, 'worker')}"
