"""The plots and tables of the documentation, made of the figures in ``benchmarks/figures``.

A table stands in a page between two comments, the first of which names it::

    .. figures: memory

    .. end of figures
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.kept import Kept, read_all
from benchmarks.plot import (
    circumstances,
    only,
    plot_bars,
    plot_chaos,
    plot_curves,
    plot_takeovers,
)
from benchmarks.takeovers import Takeover, summary

DOCS = Path(__file__).parents[1] / "docs"

_BLOCK = re.compile(r"(?<=^\.\. figures: )(\S+)\n.*?(?=^\.\. end of figures$)", re.M | re.S)

# Characters of a line of prose.
_WIDTH = 100

# Rows of the benchmarks' tables.
_OURS, _BARE = "shardlib, ujson", "bare loop, ujson"


class Missing(Exception):
    """No run has kept the figures that a page needs."""


def find(pattern: str) -> list[Kept]:
    """Read the figures whose file names match a pattern.

    :param pattern: as :func:`benchmarks.kept.read_all` takes it.
    :raises Missing: if there are none.
    """
    runs = read_all(pattern)
    if not runs:
        raise Missing(
            f"benchmarks/figures has no {pattern}.json: run the benchmark of that name with --keep"
        )
    return runs


# Plots


class Picture(NamedTuple):
    """A plot of the documentation.

    :param pattern: of the files with its figures.
    :param plot: draws it.
    """

    pattern: str
    plot: Callable[[Path, list[Kept]], None]


PICTURES = {
    "instructions": Picture("instructions", only(plot_bars, "zlib-stream")),
    "latency": Picture("latency", only(plot_curves, "zlib-stream")),
    "memory": Picture("memory", only(plot_bars, "zlib-stream")),
    "startup": Picture("startup", plot_bars),
    "shards": Picture("shards", only(plot_bars, "time for an event, zlib-stream")),
    "dispatch": Picture("dispatch", plot_bars),
    "fleet": Picture("fleet", only(plot_bars, "for an event, at", "elsewhere")),
    "chaos": Picture("chaos-one-shard-*", plot_chaos),
    "chaos_shards": Picture("chaos-8-shards-*", plot_chaos),
    "fleet_chaos": Picture("fleet_chaos-[0-9]*", plot_takeovers),
}


def draw(folder: Path) -> None:
    """Draw all plots of the documentation, as SVG.

    :param folder: for the files.
    :raises Missing: if no run has kept the figures of one.
    """
    for name, picture in PICTURES.items():
        picture.plot(folder / f"{name}.svg", find(picture.pattern))


# Tables

Tables = Mapping[str, Mapping[str, float]]


def table(caption: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in reStructuredText.

    :param caption: of the table.
    :param heading: of the columns.
    :param rows: the cells of each row.
    """
    columns = [*zip(heading, *rows, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    line = "  ".join("=" * width for width in widths)

    def cells(row: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    lines = [line, cells(heading), line, *map(cells, rows), line]
    body = textwrap.indent("\n".join(lines), "   ")
    return f".. table:: {caption}\n   :class: figures\n\n{body}"


def pivot(
    caption: str, corner: str, figures: Tables, titles: Mapping[str, str], digits: int = 1
) -> str:
    """Write a table whose columns are tables of a benchmark.

    :param caption: of the table.
    :param corner: the heading of the first column.
    :param figures: the tables of the benchmark.
    :param titles: by heading of a column, the title of the benchmark's table.
    :param digits: of the numbers, after the point.
    """
    columns = {heading: figures[title] for heading, title in titles.items() if title in figures}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [
        [name, *(_number(column.get(name), digits) for column in columns.values())]
        for name in names
    ]
    return table(caption, [corner, *columns], rows)


def _number(figure: float | None, digits: int | None) -> str:
    """Write a number, with four digits in all if None says how many come after the point."""
    if figure is None:
        return ""
    if digits is None:
        return f"{figure:,.4g}" if figure < 1000 else f"{figure:,.0f}"
    return f"{figure:,.{0 if isinstance(figure, int) or figure >= 1000 else digits}f}"


def origin(runs: Sequence[Kept], with_versions: bool = False) -> str:
    """Say by which commands, when and on what some figures came about.

    :param runs: whose figures they are.
    :param with_versions: True to name the versions of all libraries.
    """
    text = f"Measured on {circumstances(runs)}"
    if with_versions:
        text += ": " + ", ".join(f"{name} {number}" for name, number in runs[0].versions.items())
    commands = textwrap.indent("\n".join(run.command for run in runs), "    ")
    return f"{textwrap.fill(text, _WIDTH, break_on_hyphens=False)}::\n\n{commands}"


def _in_short() -> Iterator[str]:
    (instructions,), (latency,), (memory,) = map(find, ("instructions", "latency", "memory"))
    bulk, single = (
        instructions.figures[f"thousands of instructions for an event, {words}, zlib-stream"]
        for words in ("in bulk", "one at a time")
    )
    times = latency.figures["microseconds to the callback, ws, zlib-stream"]
    plain, secure = (
        memory.figures[f"kB for one more idle shard, {scheme}, zlib-stream"][_OURS]
        for scheme in ("ws", "wss")
    )
    text = (
        f"In short: with ujson and zlib-stream shardlib costs {bulk[_OURS] / bulk[_BARE]:.2f} "
        f"times the bare loop in bulk, and {single[_OURS] / single[_BARE]:.2f} times one event at "
        f"a time. An event is in your function {times[_OURS][50]:.0f} microseconds after it was "
        f"sent, with the bare loop after {times[_BARE][50]:.0f} (medians). One more idle shard "
        f"takes {plain:.0f} kB, {secure:.0f} with TLS."
    )
    yield textwrap.fill(text, _WIDTH)


def _instructions() -> Iterator[str]:
    (run,) = find("instructions")
    for words in ("in bulk", "one at a time"):
        caption = f"thousands of instructions for an event, {words}"
        titles = {
            compression: f"{caption}, {compression}"
            for compression in ("zlib-stream", "zstd-stream", "plain")
        }
        yield pivot(caption, "client", run.figures, titles)
    yield origin([run], with_versions=True)


def _latency() -> Iterator[str]:
    (run,) = find("latency")
    curves = run.figures["microseconds to the callback, ws, zlib-stream"]
    figures = {
        str(percent): {client: values[percent] for client, values in curves.items()}
        for percent in (50, 90, 99)
    }
    titles = {"median": "50", "90 %": "90", "99 %": "99"}
    yield pivot("microseconds from the sender to the callback", "client", figures, titles)
    yield origin([run])


def _memory() -> Iterator[str]:
    (run,) = find("memory")
    titles = {
        scheme: f"kB for one more idle shard, {scheme}, zlib-stream" for scheme in ("ws", "wss")
    }
    yield pivot("kB for one more idle shard, zlib-stream", "client", run.figures, titles, 0)
    yield origin([run])


def _single_column(name: str, corner: str, heading: str) -> Iterator[str]:
    (run,) = find(name)
    ((title, _),) = run.figures.items()
    yield pivot(title, corner, run.figures, {heading: title})
    yield origin([run])


def _shards() -> Iterator[str]:
    (run,) = find("shards")
    for title, digits in (
        ("microseconds of processor time for an event, zlib-stream", 1),
        ("events a second, all shards together, zlib-stream", 0),
    ):
        figures: dict[str, dict[str, float]] = {}
        for name, figure in run.figures[title].items():
            row, _, busy = name.rpartition(", ")
            if "ujson" in row:
                figures.setdefault(busy, {})[row] = figure
        yield pivot(
            title, "shards that receive at once", figures, {busy: busy for busy in figures}, digits
        )
    yield origin([run])


def _manager() -> Iterator[str]:
    (run,) = find("manager")
    names = [*next(iter(run.figures.values()))]
    rows = [
        [title, *(_number(each, None) for each in figures.values())]
        for title, figures in run.figures.items()
    ]
    yield table("one manager", ["manager of", *names], rows)
    yield origin([run])


def _dispatch() -> Iterator[str]:
    (run,) = find("dispatch")
    title = "microseconds of processor time for an event"
    titles = {words: f"{title}, {words}, zlib-stream" for words in ("in bulk", "one at a time")}
    yield pivot(f"{title}, zlib-stream, an empty callback", "called by", run.figures, titles)
    yield origin([run])


def _fleet() -> Iterator[str]:
    (run,) = find("fleet")
    cost = "microseconds of processor time for an event"
    yield pivot(
        f"{cost}; Redis beside it",
        "process",
        run.figures,
        {
            "events/s in bulk": "events a second, in bulk",
            "in bulk": f"{cost}, in bulk",
            "Redis": f"{cost} in Redis, in bulk",
            "at 800/s": f"{cost}, at 800 a second",
            "Redis, at 800/s": f"{cost} in Redis, at 800 a second",
        },
    )
    idle = ("% of a core", "commands a second in Redis")
    yield pivot(
        "while nothing comes",
        "process",
        run.figures,
        {heading: f"{heading}, while nothing comes" for heading in idle},
        2,
    )
    title = "seconds until a shard is RESUMED elsewhere"
    yield pivot(title, "what happens", run.figures, {"seconds": title}, 2)
    yield origin([run])


# Of the runs of the chaos: what a row is called, and how it is found in the figures of a run.
_CHAOS_ROWS: dict[str, Callable[[Any], float]] = {
    "minutes": lambda figures: round(figures["over_time"]["minutes"][-1]),
    "rounds": lambda figures: figures["rounds"],
    "kinds of faults": lambda figures: len(figures["faults"]),
    "faults": lambda figures: sum(figures["faults"].values()),
    "connections": lambda figures: figures["connections"],
    "resumes": lambda figures: figures["resumes"],
    "events issued": lambda figures: figures["issued"],
    "events received": lambda figures: figures["received"],
    "of which replayed": lambda figures: figures["replayed"],
    "lost": lambda figures: figures["lost"],
    "doubled": lambda figures: figures["duplicated"],
    "out of order": lambda figures: figures["out_of_order"],
    "losses of a connection in use": lambda figures: figures["losses"],
    "seconds without one, median": lambda figures: figures["without_connection"][50],
    "seconds without one, 99 %": lambda figures: figures["without_connection"][99],
    "seconds without one, longest": lambda figures: figures["without_connection"][100],
}

_FLEET_CHAOS_ROWS: dict[str, Callable[[Any], float]] = {
    "minutes": lambda figures: round(figures["setting"]["seconds"] / 60),
    "kinds of faults": lambda figures: len(figures["faults"]),
    "faults": lambda figures: sum(figures["faults"].values()),
    "sessions begun": lambda figures: figures["sessions"],
    "sessions lost by the gateway": lambda figures: figures["lost_sessions"],
    "events issued": lambda figures: figures["verdict"]["issued"],
    "events handled": lambda figures: figures["verdict"]["effects"],
    "gone with lost sessions": lambda figures: sum(figures["verdict"]["gone"].values()),
    "repeated, same id": lambda figures: figures["verdict"]["repeats"],
    "lost": lambda figures: figures["verdict"]["lost"],
    "out of order": lambda figures: figures["verdict"]["out_of_order"],
}


def _by_seed(
    caption: str,
    runs: Sequence[Kept],
    rows: Mapping[str, Callable[[Any], float]],
    seed: Callable[[Any], int],
) -> str:
    heading = ["run", *(f"seed {seed(run.figures)}" for run in runs)]
    cells = [
        [name, *(_number(value(run.figures), 3) for run in runs)] for name, value in rows.items()
    ]
    return table(caption, heading, cells)


def _chaos(shards: str) -> Iterator[str]:
    runs = find(f"chaos-{shards.replace(' ', '-')}-*")
    yield _by_seed(f"chaos, {shards}", runs, _CHAOS_ROWS, lambda figures: figures["seed"])
    yield origin(runs)


def _fleet_chaos() -> Iterator[str]:
    runs = find("fleet_chaos-[0-9]*")
    yield _by_seed(
        "chaos of a fleet", runs, _FLEET_CHAOS_ROWS, lambda figures: figures["setting"]["seed"]
    )
    takeovers = [Takeover(*each) for run in runs for each in run.figures["takeovers"]]
    rows = [
        [title, f"{number:,}", *(f"{each:.2f}" for each in seconds)]
        for title, (number, seconds) in summary(takeovers).items()
    ]
    heading = ["what happened", "number", "median", "95 %", "99 %", "longest"]
    yield table("seconds until a shard was READY or RESUMED elsewhere", heading, rows)
    yield origin(runs)


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "in-short": _in_short,
    "instructions": _instructions,
    "latency": _latency,
    "memory": _memory,
    "large": partial(_single_column, "large", "client", "MB"),
    "startup": partial(_single_column, "startup", "program", "milliseconds"),
    "shards": _shards,
    "manager": _manager,
    "dispatch": _dispatch,
    "fleet": _fleet,
    "chaos": partial(_chaos, "one shard"),
    "chaos-8-shards": partial(_chaos, "8 shards"),
    "fleet-chaos": _fleet_chaos,
}


def with_tables(page: str) -> str:
    """Return the text of a page with its tables made anew.

    :param page: the text.
    :raises KeyError: if no table has a name that the page has.
    :raises Missing: if no run has kept the figures of a table.
    """

    def write(match: re.Match[str]) -> str:
        name = match[1]
        return "\n\n".join([name, *TABLES[name](), ""])

    return _BLOCK.sub(write, page)


def write_tables() -> None:
    """Make the tables of all pages anew."""
    for path in sorted(DOCS.glob("*.rst")):
        before = path.read_text()
        after = with_tables(before)
        if after != before:
            path.write_text(after)
