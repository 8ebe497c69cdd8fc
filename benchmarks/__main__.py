"""All measurements, one after the other: ``python -m benchmarks``, in three quarters of an hour.

::

    python -m benchmarks --keep           # keep the figures for the documentation
    python -m benchmarks --plot --tables  # make the documentation's plots and tables of them

The last command measures nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.pages import DOCS, Missing, draw, write_tables

# Each command, with the minutes that it takes on a machine with two processors.
_COMMANDS = {
    "instructions": 10,
    "bulk": 5,
    "single": 5,
    "latency": 5,
    "memory": 2,
    "large": 1,
    "startup": 1,
    "shards": 5,
    "manager": 3,
    "fleet": 6,
    "fleet_consumer": 2,
    "dispatch": 1,
}


def measure(keeps: bool) -> None:
    """Run the measurements; exit with an error that names the measurements that failed.

    :param keeps: True to keep the figures.
    """
    failed = []
    for name, minutes in _COMMANDS.items():
        print(f"\n== python -m benchmarks.{name}, about {minutes} min", flush=True)
        started = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--keep"] if keeps else [])]
        if subprocess.run(command).returncode:
            failed.append(name)
        print(f"\n{name} took {time.monotonic() - started:.0f} seconds", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="All benchmarks.")
    parser.add_argument("--keep", action="store_true", help="keep the figures")
    parser.add_argument(
        "--plot",
        type=Path,
        nargs="?",
        const=DOCS / "pictures",
        metavar="FOLDER",
        help="draw the kept figures, in docs/pictures by default; alone, measure nothing",
    )
    parser.add_argument(
        "--tables",
        action="store_true",
        help="write the kept figures into the tables of docs; alone, measure nothing",
    )
    arguments = parser.parse_args()
    if arguments.keep or not (arguments.plot or arguments.tables):
        measure(arguments.keep)
    try:
        if arguments.plot is not None:
            draw(arguments.plot)
        if arguments.tables:
            write_tables()
    except Missing as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
