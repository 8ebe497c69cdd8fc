"""Pictures of the tables, drawn with matplotlib, which the extra ``bench`` installs.

A picture has a white background and dark text, so that a dark page shows the picture as well as a
light one does. In an SVG the text stays text, which keeps the file small, and the same figures make
the same file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.clients import OURS
from benchmarks.measure import Client
from benchmarks.table import percentile

_OUR_COLOUR, _OTHER_COLOUR = "tab:blue", "silver"

_WIDTH = 9.0  # inches, as are the next three
_BAR_HEIGHT, _TABLE_HEIGHT = 0.24, 0.7
_CURVES_HEIGHT = 4.0

_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "shardlib"}

# The percentiles that a curve connects. The last percent of the events took as long as the system
# let the client wait, and would make the curves narrow.
_PERCENTS = range(100)


def plot_bars(file: Path, tables: Mapping[str, Mapping[Any, float]]) -> None:
    """Draw a bar for each figure of some tables, one table below the other.

    :param file: the file to write, whose suffix decides the format, for instance ``.svg``.
    :param tables: by title, the figure of each row. The bars of rows that name shardlib have a
        colour of their own.
    """
    heights = [_TABLE_HEIGHT + _BAR_HEIGHT * len(figures) for figures in tables.values()]
    figure, axes = _subplots(heights)
    for axis, (title, figures) in zip(axes, tables.items(), strict=True):
        names = [str(row) for row in figures]
        colours = [_OUR_COLOUR if OURS in name else _OTHER_COLOUR for name in names]
        bars = axis.barh(names, [*figures.values()], color=colours)
        axis.invert_yaxis()  # the first row above
        axis.bar_label(bars, fmt="%.1f", padding=3)
        axis.margins(x=0.1, y=0.02)  # room for the labels
        axis.set_title(title, loc="left")
    _save(figure, file)


def plot_curves(file: Path, tables: Mapping[str, Mapping[Client, Sequence[float]]]) -> None:
    """Draw the cumulative distribution of each client's values, one table below the other.

    :param file: the file to write, whose suffix decides the format, for instance ``.svg``.
    :param tables: by title, the values of each client.
    """
    figure, axes = _subplots([_CURVES_HEIGHT] * len(tables))
    for axis, (title, samples) in zip(axes, tables.items(), strict=True):
        for client, values in samples.items():
            curve = [percentile([*values], percent) for percent in _PERCENTS]
            width = 2.5 if client.peer == OURS else 1.0
            axis.plot(curve, _PERCENTS, label=str(client), linewidth=width)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_ylabel("% of events")
        axis.set_title(title, loc="left")
        axis.legend()
    _save(figure, file)


def _subplots(heights: Sequence[float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), squeeze=False, height_ratios=heights)
    return figure, axes[:, 0]


def _save(figure: Any, file: Path) -> None:
    import matplotlib

    without_date = {"Date": None} if file.suffix == ".svg" else {}
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(file, metadata=without_date)
