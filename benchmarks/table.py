"""Tables of figures, printed on standard output."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.clients import BARE_LOOP, FLOOR, OURS, versions
from benchmarks.measure import Client

# Width of a column, in characters.
_WIDTH = 9


def show_versions(*more: str) -> None:
    """Print the versions of Python and of the installed libraries.

    :param more: names and versions of other programs that the measurement uses.
    """
    print(", ".join([*(f"{name} {number}" for name, number in versions().items()), *more]))


def show_table(
    title: str,
    figures: Mapping[Client, float],
    more: Mapping[str, Mapping[Client, float]] | None = None,
) -> None:
    """Print a figure for each client, and its ratios to the figures of three clients.

    The three clients are the floor, the bare loop and shardlib, with the same JSON module.

    :param title: the title of the table, which names the unit.
    :param figures: the figure of each client; less is better.
    :param more: the figures of further columns, by the column's title.
    """
    columns: dict[str, Callable[[Client], str]] = {}
    for name, peer in (("x floor", FLOOR), ("x bare", BARE_LOOP), ("x ours", OURS)):
        if any(client.peer == peer for client in figures):
            columns[name] = functools.partial(_ratio, figures, peer)
    for name, column in (more or {}).items():
        columns[name] = functools.partial(_figure, column)
    print(f"\n{title}")
    print(" " * 36, *(each.rjust(_WIDTH) for each in ["", *columns]))
    for client, figure in figures.items():
        cells = [f"{figure:,.1f}", *(cell(client) for cell in columns.values())]
        print(f"{client!s:36}", *(each.rjust(_WIDTH) for each in cells), flush=True)


def _ratio(figures: Mapping[Client, float], peer: str, client: Client) -> str:
    other = figures.get(Client(peer, client.json))
    return "" if other is None else f"{figures[client] / other:.2f}"


def _figure(figures: Mapping[Client, float], client: Client) -> str:
    return f"{figures[client]:,.1f}" if client in figures else ""


def percentile(values: list[Any], percent: float) -> Any:
    """Return a percentile of some values.

    :param values: the values, in any order.
    :param percent: the percentage of the values that are at most the percentile, 0 to 100.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
