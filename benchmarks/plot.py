"""Pictures of figures, drawn with matplotlib, which the extra ``bench`` installs.

This module owns what pictures look like: colours, sizes, fonts. A picture has a white background
and dark text, so that a dark page shows the picture as well as a light one does. The pictures are
narrow and their letters large, so that a phone shows letters that can be read. In an SVG the text
stays text, which keeps the file small, and the same figures make the same file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.clients import OURS
from benchmarks.kept import Kept
from benchmarks.table import percentile
from benchmarks.takeovers import Takeover, by_title

_OUR_COLOUR, _OTHER_COLOUR, _QUIET_COLOUR = "#1668b8", "#b4bcc6", "#5b6470"
# Of lines and points in one picture. No two of them differ only as red and green do.
_COLOURS = ("#d9730d", "#7a5195", "#2a9d8f", "#8a6d3b", "#c2417c", "#5b6470", "#111827")
_OUR_COLOURS = (_OUR_COLOUR, "#5fa8ea", "#0b3d73")

# Inches, as are the heights below. A page is 7.7 wide, a phone shows it at two thirds.
_WIDTH = 5.8
_PAD = 0.08
_BAR_HEIGHT, _TABLE_HEIGHT = 0.27, 0.65
_CURVES_HEIGHT, _CURVE_NAME_HEIGHT, _TIMELINE_HEIGHT, _REMARK_HEIGHT = 3.0, 0.2, 1.35, 0.45

_FONT_SIZE, _SMALL = 11.0, 9.0
# Characters of a line of a title, and of the remark below the picture.
_TITLE_WIDTH, _REMARK_WIDTH = 60, 84

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shardlib",
    "font.size": _FONT_SIZE,
    "axes.titlesize": _FONT_SIZE,
    "axes.titleweight": "bold",
    "figure.titlesize": _FONT_SIZE,
    "figure.titleweight": "bold",
    "legend.fontsize": _SMALL,
    "xtick.labelsize": _SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

# The percentiles that a curve of latencies connects. The last percent of the events took as long as
# the system let the client wait, and would make the curves narrow.
PERCENTS = range(100)
# Those of a curve whose longest value counts.
ALL_PERCENTS = range(101)


def curve(values: Sequence[float], percents: Sequence[int]) -> list[float]:
    """Return the percentiles of some values; none for no values.

    :param values: the values, in any order.
    :param percents: PERCENTS or ALL_PERCENTS.
    """
    return [percentile([*values], percent) for percent in percents] if values else []


def plot_bars(file: Path, runs: Sequence[Kept]) -> None:
    """Draw a bar for each figure of some tables, one table below the other.

    :param file: the file to write, whose suffix decides the format, for instance ``.svg``.
    :param runs: one, whose figures are, by title of a table, the figure of each row. The bars of
        rows that name shardlib have a colour of their own, if others do not name it.
    """
    (run,) = runs
    heights = [_TABLE_HEIGHT + _BAR_HEIGHT * len(each) for each in run.figures.values()]
    with _picture(file, runs, heights) as parts:
        for (title, figures), part in zip(run.figures.items(), parts, strict=True):
            axis = _axis(part, title)
            names = [*figures]
            ours = [name for name in names if OURS in name] or names
            colours = [_OUR_COLOUR if name in ours else _OTHER_COLOUR for name in names]
            bars = axis.barh(names, [*figures.values()], color=colours)
            axis.invert_yaxis()  # the first row above
            axis.bar_label(bars, fmt="{:,.4g}", padding=3, fontsize=_SMALL)
            axis.margins(x=0.14, y=0.02)  # room for the labels
            axis.tick_params(axis="y", length=0)
            axis.locator_params(axis="x", nbins=5)
            axis.xaxis.set_major_formatter("{x:,g}")


def plot_curves(file: Path, runs: Sequence[Kept]) -> None:
    """Draw the cumulative distribution of each client's values, one table below the other.

    :param file: the file to write, whose suffix decides the format, for instance ``.svg``.
    :param runs: one, whose figures are, by title, the PERCENTS of each client.
    """
    (run,) = runs
    heights = [_curves_height(each) for each in run.figures.values()]
    with _picture(file, runs, heights) as parts:
        for (title, curves), part in zip(run.figures.items(), parts, strict=True):
            axis = _axis(part, title)
            _draw_curves(axis, curves, PERCENTS)
            axis.set_ylabel("% of events")


def plot_chaos(file: Path, runs: Sequence[Kept]) -> None:
    """Draw what happened in runs of :mod:`benchmarks.chaos`, over time, and how long shards took.

    :param file: the file to write, whose suffix decides the format, for instance ``.svg``.
    :param runs: the runs.
    """
    panels = {
        "events received so far, in millions": ("received", 1e6),
        "faults so far, in thousands": ("faults", 1e3),
        "events lost, doubled or out of order so far": ("wrong", 1),
    }
    waits = {f"seed {run.figures['seed']}": run.figures["without_connection"] for run in runs}
    heights = [_TIMELINE_HEIGHT * len(panels), _curves_height(waits)]
    with _picture(file, runs, heights) as parts:
        first, last = parts
        axes = first.subplots(len(panels), sharex=True)
        for (title, (field, unit)), axis in zip(panels.items(), axes, strict=True):
            axis.set_title(title, loc="left")
            for run, colour in zip(runs, itertools.cycle(_COLOURS), strict=False):
                over_time = run.figures["over_time"]
                values = [each / unit for each in over_time[field]]
                axis.plot([0, *over_time["minutes"]], [0, *values], color=colour)
            if field == "wrong":  # so that a line along zero is seen as one
                axis.set_ylim(-0.5, max(10, *axis.get_ylim()))
            else:
                axis.set_ylim(bottom=0)
        axes[-1].set_xlabel("minutes", fontsize=_SMALL)
        axes[-1].set_xlim(left=0)
        axis = _axis(last, "seconds without a connection, after each loss")
        _draw_curves(axis, waits, ALL_PERCENTS)
        axis.set_ylabel("% of losses")


def plot_takeovers(file: Path, runs: Sequence[Kept]) -> None:
    """Draw how long shards were without a worker in runs of :mod:`benchmarks.fleet_chaos`.

    :param file: the file to write, whose suffix decides the format, for instance ``.svg``.
    :param runs: the runs, whose times are drawn together.
    """
    groups = by_title([Takeover(*each) for run in runs for each in run.figures["takeovers"]])
    curves = {
        f"{title} ({len(group)})": curve([each.seconds for each in group], ALL_PERCENTS)
        for title, group in groups.items()
    }
    heights = [_curves_height(curves), _CURVES_HEIGHT]
    with _picture(file, runs, heights) as parts:
        above, below = parts
        axis = _axis(above, "seconds until a shard was READY or RESUMED elsewhere")
        _draw_curves(axis, curves, ALL_PERCENTS)
        axis.set_ylabel("% of shards")
        axis = _axis(below, "the same, each shard a point, over the time of the run")
        for group, colour in zip(groups.values(), itertools.cycle(_COLOURS), strict=False):
            minutes, seconds = [each.minute for each in group], [each.seconds for each in group]
            axis.scatter(minutes, seconds, s=9, color=colour, alpha=0.7)
        axis.set_xlabel("minutes", fontsize=_SMALL)
        axis.set_ylabel("seconds")
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)


def only(plot: Callable[[Path, Sequence[Kept]], None], *titles: str) -> Callable[..., None]:
    """Return a function that draws some tables of a run as another function draws all.

    :param plot: the other function, plot_bars or plot_curves.
    :param titles: a part of the title of each table that is to be drawn.
    """

    def plot_some(file: Path, runs: Sequence[Kept]) -> None:
        (run,) = runs
        figures = {
            title: table
            for title, table in run.figures.items()
            if any(part in title for part in titles)
        }
        plot(file, [dataclasses.replace(run, figures=figures)])

    return plot_some


@contextlib.contextmanager
def _picture(file: Path, runs: Sequence[Kept], heights: Sequence[float]) -> Iterator[list[Any]]:
    """Begin a picture, yield its parts, which lie below each other, and save it at the end.

    :param file: the file to write.
    :param runs: whose figures are drawn; what they ran on is said below the parts.
    :param heights: of the parts.
    """
    import matplotlib
    from matplotlib.figure import Figure

    heights = [*heights, _REMARK_HEIGHT]
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
        figure.get_layout_engine().set(w_pad=_PAD, h_pad=_PAD)
        *parts, last = figure.subfigures(len(heights), height_ratios=heights)
        remark = textwrap.fill(circumstances(runs), _REMARK_WIDTH, break_on_hyphens=False)
        last.text(0.01, 0.5, remark, fontsize=_SMALL, color=_QUIET_COLOUR, va="center")
        yield parts
        without_date = {"Date": None} if file.suffix == ".svg" else {}
        figure.savefig(file, metadata=without_date)


def circumstances(runs: Sequence[Kept]) -> str:
    """Say when and on what some runs ran, with how much other work.

    :param runs: the runs.
    """
    first = runs[0]
    loads = [f"{each:g}" for each in sorted(run.load for run in runs if run.load is not None)]
    load = f", load {' to '.join(dict.fromkeys([*loads[:1], *loads[-1:]]))}" if loads else ""
    revisions = " and ".join(dict.fromkeys(run.revision for run in runs))
    python = next(iter(first.versions.items()))
    return (
        f"{first.processors} processors, shared with other work{load}; "
        f"{' '.join(python)}; revision {revisions}, {max(run.date for run in runs)}"
    )


def _axis(part: Any, title: str) -> Any:
    part.suptitle(textwrap.fill(title, _TITLE_WIDTH, break_on_hyphens=False), x=0.01, ha="left")
    return part.subplots()


def _curves_height(curves: Mapping[str, object]) -> float:
    return _CURVES_HEIGHT + _CURVE_NAME_HEIGHT * len(curves)


def _label_logarithms(axis: Any) -> None:
    """Put as many numbers below a logarithmic axis as do not overlap."""
    from matplotlib.ticker import LogLocator

    least, most = axis.get_xlim()
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}" if most < 8 * least else "")
    if 8 * least < most < 300 * least:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))


def _draw_curves(axis: Any, curves: Mapping[str, Sequence[float]], percents: range) -> None:
    """Draw cumulative distributions, with the names below them."""
    ours, others = itertools.cycle(_OUR_COLOURS), itertools.cycle(_COLOURS)
    for name, values in curves.items():
        colour, width = (next(ours), 2.8) if OURS in name else (next(others), 1.5)
        if values:
            axis.plot(values, percents, label=name, linewidth=width, color=colour)
    axis.set_xscale("log")
    _label_logarithms(axis)
    axis.set_ylim(0, 100)
    axis.grid(color="#e3e6ea")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False, ncols=1)
