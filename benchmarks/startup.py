"""The cost of an import: ``python -m benchmarks.startup``.

Each program runs in a process of its own, all in turns. The table has the median processor time of
the whole process, and the same less that of an empty program, each with its ratio to importing the
two packages that shardlib needs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

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


def processor_time(program: str) -> float:
    """Return the seconds of processor time of a process that runs a program.

    :param program: Python code.
    :raises subprocess.CalledProcessError: if the program fails.
    """
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The time for importing.")
    parser.add_argument("--rounds", type=int, default=31, metavar="N")
    arguments = parser.parse_args()
    show_versions()
    times: dict[str, list[float]] = {}
    for number in range(arguments.rounds + 1):
        for program in _PROGRAMS:
            try:
                spent = processor_time(program)
            except subprocess.CalledProcessError:
                continue  # the package is not installed
            if number:  # the first time, Python reads files from the disk and compiles them
                times.setdefault(program, []).append(spent)
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
