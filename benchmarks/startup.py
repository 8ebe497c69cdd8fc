"""The cost of an import: ``python -m benchmarks.startup``.

Each program runs in a process of its own, and in each round every program runs once. The table
shows the median processor time of the whole process, and that time less the time of an empty
program, each with the ratio to importing the two packages that shardlib needs.

An extra round at first compiles all modules, as an installer does. Otherwise a checkout whose
modules Python may not keep compiled (PYTHONDONTWRITEBYTECODE) would be compared with packages that
pip has compiled.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping

from benchmarks.kept import Run, add_output
from benchmarks.plot import plot_bars
from benchmarks.table import show_versions

_NOTHING = "pass"
_NEEDED = "import websocket, ujson"  # the packages that shardlib imports
_PROGRAMS = (
    _NOTHING,
    _NEEDED,
    "import shardlib; shardlib.Shard",
    "import websockets.sync.client",
    "import aiohttp",
    "import hikari",
    "import discord",
)

# The most seconds that a program may take.
_TIMEOUT = 60.0


def processor_time(program: str, environment: Mapping[str, str]) -> float:
    """Run a program in a process, and return the processor time of the process in seconds.

    :param program: the program, in Python.
    :param environment: the environment variables of the process.
    :raises subprocess.CalledProcessError: if the program fails, or takes too long.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL
    )
    timer = threading.Timer(_TIMEOUT, process.kill)
    timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return usage.ru_utime + usage.ru_stime


def measure(rounds: int, compiled: str) -> dict[str, list[float]]:
    """Return by program the processor times in seconds, one for each round.

    Programs whose packages are not installed are left out.

    :param rounds: how often to measure each program.
    :param compiled: the directory for the compiled modules.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for program in _PROGRAMS:
            try:
                spent = processor_time(program, environment)
            except subprocess.CalledProcessError:
                continue  # the package is not installed
            if number:  # round 0 reads the files from the disk, and compiles the modules
                times.setdefault(program, []).append(spent)
    return times


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The time for importing.")
    parser.add_argument("--rounds", type=int, default=31, metavar="N")
    add_output(parser)
    arguments = parser.parse_args()
    show_versions()
    run = Run("startup")
    with tempfile.TemporaryDirectory() as compiled:
        times = measure(arguments.rounds, compiled)
    medians = {program: statistics.median(spent) * 1000 for program, spent in times.items()}
    empty, needed = medians[_NOTHING], medians[_NEEDED]
    title = "milliseconds of processor time"
    print(f"\n{title}")
    print(" " * 36, *(each.rjust(9) for each in ("whole", "x needed", "import", "x needed")))
    for program, whole in medians.items():
        own = whole - empty
        ratio, own_ratio = whole / needed, own / (needed - empty)
        print(f"{program:36} {whole:9.1f} {ratio:9.2f} {own:9.1f} {own_ratio:9.2f}")
    run.finish(arguments, "startup", {title: medians}, plot_bars)


if __name__ == "__main__":
    main()
