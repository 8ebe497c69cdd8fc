"""How figures are printed."""

from __future__ import annotations

from collections.abc import Mapping
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
    columns = dict(more or {})
    references = {"x floor": FLOOR, "x bare": BARE_LOOP, "x ours": OURS}
    print(f"\n{title}")
    print(" " * 36, *(each.rjust(_WIDTH) for each in ["", *references, *columns]))
    for client, figure in figures.items():
        cells = [f"{figure:,.1f}"]
        for peer in references.values():
            other = figures.get(Client(peer, client.json))
            cells.append("" if other is None else f"{figure / other:.2f}")
        for column in columns.values():
            cells.append(f"{column[client]:,.1f}" if client in column else "")
        print(f"{client!s:36}", *(each.rjust(_WIDTH) for each in cells), flush=True)


def percentile(values: list[Any], percent: float) -> Any:
    """The value that so many percent of the values are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
