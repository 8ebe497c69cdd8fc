"""Pictures of the tables, drawn with matplotlib, which the extra ``bench`` installs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.clients import OURS
from benchmarks.measure import Client

_OUR_COLOUR, _OTHER_COLOUR = "tab:blue", "silver"


def plot_bars(file: Path, tables: Mapping[str, Mapping[Client, float]]) -> None:
    """Draw a bar for each figure of some tables, one table below the other.

    :param file: the file to write, whose suffix decides the format, for instance ``.svg``.
    :param tables: by title, the figure of each client.
    """
    figure, axes = _subplots(tables)
    for axis, (title, figures) in zip(axes, tables.items(), strict=True):
        clients = [*figures][::-1]
        colours = [_OUR_COLOUR if each.peer == OURS else _OTHER_COLOUR for each in clients]
        bars = axis.barh([str(each) for each in clients], [*figures.values()][::-1], color=colours)
        axis.bar_label(bars, fmt="%.1f", padding=3)
        axis.margins(x=0.1)  # room for the labels
        axis.set_title(title)
    figure.savefig(file)


def plot_curves(file: Path, tables: Mapping[str, Mapping[Client, Sequence[float]]]) -> None:
    """Draw the cumulative distribution of each client's values, one table below the other.

    :param file: the file to write, whose suffix decides the format, for instance ``.svg``.
    :param tables: by title, the values of each client.
    """
    figure, axes = _subplots(tables)
    for axis, (title, samples) in zip(axes, tables.items(), strict=True):
        for client, values in samples.items():
            ordered = sorted(values)
            percents = [100 * (index + 1) / len(ordered) for index in range(len(ordered))]
            width = 2.5 if client.peer == OURS else 1.0
            axis.plot(ordered, percents, label=str(client), linewidth=width)
        axis.set_xscale("log")
        axis.set_ylabel("% of events")
        axis.set_title(title)
        axis.legend()
    figure.savefig(file)


def _subplots(tables: Mapping[str, Any]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4 * len(tables)), layout="constrained")
    return figure, figure.subplots(len(tables), squeeze=False)[:, 0]
