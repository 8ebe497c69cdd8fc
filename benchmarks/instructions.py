"""Instructions for each event: ``python -m benchmarks.instructions [bulk] [single]``.

Each client runs under valgrind, which counts the instructions of the whole process, once with
1,000 events and once with 3,000. The difference is the cost of 2,000 events, without starting up
and connecting, and without the instructions of the operating system. The figures are nearly the
same on any machine, whatever the machine's other work, so that a change of one percent shows.

bulk     the sender writes as fast as the client reads
single   the sender writes an event after the client has handled the previous event and sleeps, as
         most bots do before each event

``instructions.json`` keeps ratios of shardlib's instructions to those of the floor or of the bare
loop. The ratios depend on the version of Python, so the file has a set for each version.
``--check`` measures the ratios again, and fails if a ratio is more than 3 % above the kept ratio.
``--save`` measures, and writes the set of the Python that runs the command.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.clients import (
    BARE_LOOP,
    FLOOR,
    OURS,
    add_arguments,
    chosen,
    versions,
)
from benchmarks.kept import Run, add_output
from benchmarks.measure import PACES, Bench, Client, bench
from benchmarks.plot import plot_bars
from benchmarks.stream import COMPRESSIONS, record
from benchmarks.table import show_table, show_versions

_FEW, _MANY = 1000, 3000

_KEPT = Path(__file__).with_suffix(".json")
_TOLERANCE = 1.03

# The cases of --check: pace, compression and the client to compare shardlib with, all with _JSON.
_JSON = "ujson"
_CHECKS = [
    *(("bulk", compression, FLOOR) for compression in COMPRESSIONS),
    ("single", "zlib-stream", BARE_LOOP),
]

Case = tuple[Client, str, str]

# The paces, as titles name them.
_WORDS = {"bulk": "in bulk", "single": "one at a time"}


def count(bench: Bench, client: Client, pace: str, compression: str) -> float:
    """Return the instructions that a client executes for an event.

    :param bench: runs the client.
    :param client: the client.
    :param pace: one of PACES.
    :param compression: one of COMPRESSIONS.
    """
    few, many = (_instructions(bench, client, pace, compression, each) for each in (_FEW, _MANY))
    return (many - few) / (_MANY - _FEW)


def _instructions(bench: Bench, client: Client, pace: str, compression: str, events: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "cachegrind.out")
        valgrind = [
            "valgrind",
            "--tool=cachegrind",
            "--cache-sim=no",
            f"--cachegrind-out-file={output}",
            f"--log-file={os.devnull}",
        ]
        bench.run(client, compression, pace=pace, count=events, under=valgrind)
        summary = re.search(r"^summary: (\d+)", output.read_text(), re.MULTILINE)
    assert summary is not None
    return int(summary[1])


def count_all(cases: Iterable[Case]) -> dict[Case, float]:
    """Count the instructions for an event in several cases, as many at once as processors.

    :param cases: for each case a client, one of PACES and one of COMPRESSIONS.
    """
    cases = list(dict.fromkeys(cases))
    with bench(record(_MANY)) as runner, ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = pool.map(lambda case: count(runner, *case), cases)
        return dict(zip(cases, counts, strict=True))


def compare(arguments: argparse.Namespace) -> None:
    """Print the instructions of the clients that the command line selects.

    :param arguments: the parsed arguments.
    """
    run = Run("instructions")
    paces = arguments.pace or PACES
    clients = chosen(arguments)
    tables = {}
    for pace, compression in itertools.product(paces, arguments.compression):
        counts = count_all((client, pace, compression) for client in clients)
        figures = {client: counts[client, pace, compression] / 1000 for client in clients}
        title = f"thousands of instructions for an event, {_WORDS[pace]}, {compression}"
        show_table(title, figures)
        tables[title] = figures
    run.finish(arguments, "instructions", tables, plot_bars)


def measure_ratios() -> dict[str, float]:
    """Return the ratios of shardlib's instructions to another client's, by the name of the case."""
    ours = Client(OURS, _JSON)
    cases = {
        f"{pace}, {compression}, x {Client(peer, _JSON)}": (
            (ours, pace, compression),
            (Client(peer, _JSON), pace, compression),
        )
        for pace, compression, peer in _CHECKS
    }
    counts = count_all(itertools.chain.from_iterable(cases.values()))
    return {
        name: round(counts[our_case] / counts[other_case], 3)
        for name, (our_case, other_case) in cases.items()
    }


def too_much(ratios: Mapping[str, float], kept: Mapping[str, float]) -> list[str]:
    """Return the names of the ratios that exceed the kept ratios by more than the tolerance.

    :param ratios: the measured ratios, by name.
    :param kept: the ratios in the file, by name.
    """
    return [name for name, ratio in ratios.items() if ratio > kept[name] * _TOLERANCE]


def check() -> bool:
    """Measure the ratios, and print the ratios beside the kept ratios.

    :returns: False if a ratio exceeds the kept ratio by more than the tolerance.
    """
    kept = _kept().get(_python())
    if kept is None:
        print(f"{_KEPT.name} has no figures for {_python()}; --save writes them")
        return True
    if kept["versions"] != _versions():
        print(f"the figures in {_KEPT.name} are of", kept["versions"])
    ratios = measure_ratios()
    above = too_much(ratios, kept["ratios"])
    for name, ratio in ratios.items():
        verdict = "TOO MUCH" if name in above else "good"
        print(f"{name:44} {ratio:6.3f}   kept {kept['ratios'][name]:6.3f}   {verdict}")
    if above:
        print(
            f"shardlib spends over {_TOLERANCE - 1:.0%} more than the figures in {_KEPT.name}. "
            "Make shardlib cheaper, or write new figures with python -m benchmarks.instructions "
            "--save, and say in the commit what justifies the cost"
        )
    return not above


def save() -> None:
    """Measure, and write the ratios of this version of Python to the file."""
    kept = _kept()
    kept[_python()] = {"versions": _versions(), "ratios": measure_ratios()}
    _KEPT.write_text(json.dumps(kept, indent=2) + "\n")


def _kept() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(_KEPT.read_text())
    return kept


def _python() -> str:
    major, minor, _ = platform.python_version_tuple()
    return f"{platform.python_implementation()} {major}.{minor}"


def _versions() -> dict[str, str]:
    """Return the versions that the checked ratios depend on."""
    names = (platform.python_implementation(), "zlib", "ujson", "backports.zstd")
    return {name: number for name, number in versions().items() if name in names}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Instructions for each event.")
    parser.add_argument("pace", nargs="*", choices=[*PACES, []], help="both by default")
    parser.add_argument("--check", action="store_true", help=f"against {_KEPT.name}")
    parser.add_argument("--save", action="store_true", help=f"to {_KEPT.name}")
    add_output(parser)
    add_arguments(parser)
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind, which counts the instructions, is not installed")
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True)
    show_versions(valgrind.stdout.strip())
    if arguments.save:
        save()
    elif arguments.check:
        sys.exit(0 if check() else 1)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
