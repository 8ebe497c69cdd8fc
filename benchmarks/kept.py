"""The figures of a run, kept in ``benchmarks/figures`` as JSON.

The plots and tables of the documentation are made of these files, without measuring again. A run
writes its file if it is told to, with ``--keep``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.clients import versions

FOLDER = Path(__file__).parent / "figures"

# The digits that a figure keeps after the point.
_DIGITS = 4

# The periods, in seconds, over which the system averages the load.
_LOAD_PERIODS = (60, 300, 900)

# A list of plain values, which json.dumps() would spread over as many lines.
_LIST = re.compile(r"\[\s+([^\[\]{}]*?)\s+\]")


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a command has measured, and under which circumstances.

    :ivar command: the command, as it was typed.
    :ivar date: the day on which it ended, as YYYY-MM-DD.
    :ivar revision: the commit of the checkout, with a plus sign if ``shardlib`` was changed since.
    :ivar processors: how many the machine has.
    :ivar load_before: the load average of the minute before the run.
    :ivar load: the load average of the run, its own load included; of a run shorter than a minute,
        that of the last minute, and of one longer than 15 minutes, that of the last 15. None, as is
        load_before, if nothing noted them, as before figures were kept.
    :ivar versions: of Python and of the libraries, by name.
    :ivar figures: as the command defines them, of what JSON has.
    """

    command: str
    date: str
    revision: str
    processors: int
    load_before: float | None
    load: float | None
    versions: dict[str, str]
    figures: Any

    def write(self, name: str) -> None:
        """Write the file of a name.

        :param name: the file's name, without its suffix.
        """
        text = json.dumps(dataclasses.asdict(self), indent=1)
        text = _LIST.sub(lambda match: f"[{' '.join(match[1].split())}]", text)
        (FOLDER / f"{name}.json").write_text(text + "\n")


def read(name: str) -> Kept:
    """Read the file of a name.

    :param name: the file's name, without its suffix.
    :raises FileNotFoundError: if no run has written one.
    """
    return Kept(**json.loads((FOLDER / f"{name}.json").read_text()))


def read_all(pattern: str) -> list[Kept]:
    """Read all files whose name, without the suffix, matches a pattern, in the order of the names.

    :param pattern: as :meth:`pathlib.Path.glob` takes it.
    """
    return [read(path.stem) for path in sorted(FOLDER.glob(f"{pattern}.json"))]


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options that draw and keep the figures.

    :param parser: the command's parser.
    """
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the figures, as .svg or .png for instance"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the figures in benchmarks/figures, for the documentation",
    )


class Run:
    """A run of a command, from its beginning on.

    :param command: the name of the command's module in ``benchmarks``.
    """

    def __init__(self, command: str) -> None:
        self._command = shlex.join(["python", "-m", f"benchmarks.{command}", *_without_plot()])
        self._revision = _revision()
        self._load_before = os.getloadavg()[0]
        self._began = time.monotonic()

    def finish(
        self,
        arguments: argparse.Namespace,
        name: str,
        figures: Any,
        plot: Callable[[Path, list[Kept]], None],
    ) -> None:
        """Draw and keep the figures, as the command line asks for.

        :param arguments: the parsed arguments.
        :param name: under which the figures are kept.
        :param figures: of numbers, strings, sequences, and mappings, whose keys become strings.
        :param plot: draws the figures of runs.
        """
        took = time.monotonic() - self._began
        averages = zip(_LOAD_PERIODS, os.getloadavg(), strict=True)
        fitting = [load for period, load in averages if period <= max(took, _LOAD_PERIODS[0])]
        kept = Kept(
            command=self._command,
            date=time.strftime("%Y-%m-%d"),
            revision=self._revision,
            processors=os.cpu_count() or 1,
            load_before=round(self._load_before, 1),
            load=round(fitting[-1], 1),
            versions=versions(),
            figures=_plain(figures),
        )
        if arguments.plot is not None:
            plot(arguments.plot, [kept])
        if arguments.keep:
            kept.write(name)


def _without_plot() -> list[str]:
    """The arguments of the command, without a file that is of no concern to others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plot")
    _, others = parser.parse_known_args()
    return others


def _revision() -> str:
    """The commit of the checkout; empty outside of a repository."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=FOLDER.parent.parent
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "shardlib")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _plain(figures: Any) -> Any:
    if isinstance(figures, Mapping):
        return {str(key): _plain(value) for key, value in figures.items()}
    if isinstance(figures, (list, tuple)):
        return [_plain(each) for each in figures]
    return round(figures, _DIGITS) if isinstance(figures, float) else figures
