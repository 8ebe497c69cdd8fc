"""The states of many shards, as a table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from shardlib.cli.terminal import BOLD, DIM, RED, YELLOW
from shardlib.state import ShardState
from shardlib.text import count, ranges

# Between two columns.
_GAP = 2

_STYLES = {ShardState.WAITING: YELLOW, ShardState.RESUMING: YELLOW, ShardState.CLOSED: RED}

# In the order in which they are counted: what goes well comes first.
_ORDER = (
    ShardState.READY,
    ShardState.RESUMING,
    ShardState.IDENTIFYING,
    ShardState.CONNECTED,
    ShardState.CONNECTING,
    ShardState.DISCONNECTED,
    ShardState.WAITING,
    ShardState.CLOSING,
    ShardState.CLOSED,
)


class Row(NamedTuple):
    """What the table tells of a shard.

    :param state: where in its life the shard is.
    :param ping: seconds of the last heartbeat's round trip, or None before the first.
    """

    state: ShardState
    ping: float | None


def table(
    shards: Mapping[int, Row], columns: int, rows: int, style: Callable[[str, str], str]
) -> list[str]:
    """Return the lines: each shard in its place, or if there are too many, each state's shards.

    :param shards: by number; none for no lines.
    :param columns: how wide a line may be, 1 or more.
    :param rows: how many lines there may be, 1 or more.
    :param style: returns a text in a style.
    """
    if not shards:
        return []
    by_state: dict[ShardState, list[int]] = {state: [] for state in _ORDER}
    for shard_id, row in shards.items():
        by_state[row.state].append(shard_id)
    by_state = {state: shard_ids for state, shard_ids in by_state.items() if shard_ids}
    sums = ", ".join(f"{len(shard_ids)} {word(state)}" for state, shard_ids in by_state.items())
    lines = [style(_cut(f"{count(len(shards), 'shard')}: {sums}", columns), BOLD)]
    details = _cells(shards, columns, rows - 1, style)
    if details is None:
        details = [
            _in_style(state, _cut(f"{word(state):<11}  {ranges(shard_ids)}", columns), style)
            for state, shard_ids in by_state.items()
        ]
    if len(details) < rows:
        lines += details
    return lines


def word(state: ShardState) -> str:
    """A state as people are told of it.

    :param state: of a manager's shard; one that is disconnected waits for its turn to connect.
    """
    return "queued" if state is ShardState.DISCONNECTED else state.value


def _cells(
    shards: Mapping[int, Row], columns: int, rows: int, style: Callable[[str, str], str]
) -> list[str] | None:
    """Each shard in a cell, the numbers running down the columns; None if that takes more rows."""
    digits = len(str(max(shards)))
    cells = [
        (row.state, f"{shard_id:>{digits}} {_describe(row)}")
        for shard_id, row in sorted(shards.items())
    ]
    width = digits + 1 + len("ready 9999 ms")
    across = (columns + _GAP) // (width + _GAP)
    if across == 0 or (needed := math.ceil(len(cells) / across)) > rows:
        return None
    return [
        (" " * _GAP)
        .join(
            _in_style(state, text[:width].ljust(width), style) for state, text in cells[row::needed]
        )
        .rstrip()
        for row in range(needed)
    ]


def _describe(row: Row) -> str:
    text = word(row.state)
    if row.state is ShardState.READY and row.ping is not None:
        text += f" {min(9999, round(row.ping * 1000))} ms"
    return text


def _in_style(state: ShardState, text: str, style: Callable[[str, str], str]) -> str:
    if state is ShardState.READY:
        return text
    return style(text, _STYLES.get(state, DIM))


def _cut(text: str, columns: int) -> str:
    """A text in ASCII, or as much of its beginning as fits."""
    return text if len(text) <= columns else (text[: max(0, columns - 3)] + "...")[:columns]
