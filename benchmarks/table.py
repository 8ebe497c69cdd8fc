"""How figures are printed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.clients import BARE_LOOP, FLOOR, OURS, versions
from benchmarks.measure import Client

_WIDTH = 9  # of a column


def show_versions(*more: str) -> None:
    """Print the versions of what is measured.

    :param more: of other programs that take part.
    """
    print(", ".join([*(f"{name} {number}" for name, number in versions().items()), *more]))


def show_table(
    title: str,
    figures: Mapping[Client, float],
    more: Mapping[str, Mapping[Client, float]] | None = None,
) -> None:
    """Print a figure for each client, and its ratios to those of three clients.

    These are the floor, the bare loop and shardlib, with the same JSON module.

    :param figures: less is better.
    :param more: further columns, by their titles.
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
    """The value that so many percent of the values are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
