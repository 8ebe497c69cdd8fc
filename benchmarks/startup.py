"""The cost of an import: ``python -m benchmarks.startup``.

Each program runs in a process of its own, all in turns. What is printed is the median processor
time of the whole process, and then without what an empty program takes; each is compared with
importing the two packages that shardlib needs.

All modules are compiled before, as an installer compiles them: a checkout whose modules Python may
not keep compiled (PYTHONDONTWRITEBYTECODE) would be compared with packages that pip has compiled.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from benchmarks.table import show_versions

_NOTHING = "pass"
_NEEDED = "import websocket, ujson"  # the floor: shardlib imports these two
_PROGRAMS = (
    _NOTHING,
    _NEEDED,
    "import shardlib; shardlib.Shard",
    "import websockets.sync.client",
    "import aiohttp",
    "import hikari",
    "import discord",
)


def processor_time(program: str, environment: Mapping[str, str]) -> float:
    """The seconds of processor time of a process that runs a program.

    :param program: in Python.
    :param environment: of the process.
    :raises subprocess.CalledProcessError: if the program fails.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return usage.ru_utime + usage.ru_stime


def measure(rounds: int, compiled: str) -> dict[str, list[float]]:
    """The seconds of each program that can run here, once a round.

    :param rounds: how often each program runs.
    :param compiled: the folder for the compiled modules.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for program in _PROGRAMS:
            try:
                spent = processor_time(program, environment)
            except subprocess.CalledProcessError:
                continue  # it is not installed
            if number:  # the first time files are read from the disk, and compiled
                times.setdefault(program, []).append(spent)
    return times


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The time for importing.")
    parser.add_argument("--rounds", type=int, default=31, metavar="N")
    arguments = parser.parse_args()
    show_versions()
    with tempfile.TemporaryDirectory() as compiled:
        times = measure(arguments.rounds, compiled)
    medians = {program: statistics.median(spent) * 1000 for program, spent in times.items()}
    empty, needed = medians[_NOTHING], medians[_NEEDED]
    print("\nmilliseconds of processor time")
    print(" " * 36, *(each.rjust(9) for each in ("whole", "x needed", "import", "x needed")))
    for program, whole in medians.items():
        own = whole - empty
        ratio, own_ratio = whole / needed, own / (needed - empty)
        print(f"{program:36} {whole:9.1f} {ratio:9.2f} {own:9.1f} {own_ratio:9.2f}")


if __name__ == "__main__":
    main()
