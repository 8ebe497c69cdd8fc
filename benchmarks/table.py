"""How figures are printed."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.clients import BARE_LOOP, FLOOR, versions
from benchmarks.measure import Client


def show_versions(*more: str) -> None:
    """Print the versions of what is measured.

    :param more: of other programs that take part.
    """
    print(", ".join([*(f"{name} {number}" for name, number in versions().items()), *more]))


def show_table(title: str, figures: Mapping[Client, float]) -> None:
    """Print a figure for each client, and its ratios.

    The floor and the bare loop that a client is compared with use the same JSON module.

    :param figures: less is better.
    """
    print(f"\n{title:50} {'':10} {'x floor':>9} {'x bare':>9} {'x ours':>9}")
    for client, figure in figures.items():
        others = (
            Client(FLOOR, client.json),
            Client(BARE_LOOP, client.json),
            Client("shardlib", client.json),
        )
        ratios = [
            f"{figure / figures[each]:9.2f}" if each in figures else " " * 9 for each in others
        ]
        print(f"{client!s:50} {figure:10.1f} {' '.join(ratios)}")
