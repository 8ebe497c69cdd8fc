"""Instructions for each event: ``python -m benchmarks.instructions [bulk] [single]``.

Each client runs under valgrind, which counts the instructions of the whole process, once with
1,000 events and once with 3,000; the difference is what 2,000 events cost, without starting up and
connecting. What the system does for the process is not among them. The figures are nearly the same
on any machine and whatever else it does, so that a change of a percent can be told.

bulk     the sender writes as fast as the client reads
single   the sender writes an event when the client has done with the one before, and sleeps: this
         is how a bot usually sees them

``--check`` compares shardlib with the figures in ``instructions.json``, which are ratios to the
floor or to the bare loop, and fails if one is more than 3 % above. They depend on the version of
Python, so there is a set for each; ``--save`` writes that of the one it runs on.
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
from benchmarks.measure import PACES, Bench, Client, bench
from benchmarks.plot import plot_bars
from benchmarks.stream import COMPRESSIONS, record
from benchmarks.table import show_table, show_versions

_FEW, _MANY = 1000, 3000

_KEPT = Path(__file__).with_suffix(".json")
_TOLERANCE = 1.03

# What is checked: shardlib's ratio to another client, with this JSON module.
_JSON = "ujson"
_CHECKS = [
    *(("bulk", compression, FLOOR) for compression in COMPRESSIONS),
    ("single", "zlib-stream", BARE_LOOP),
]

Case = tuple[Client, str, str]


def count(bench: Bench, client: Client, pace: str, compression: str) -> float:
    """The instructions that a client spends on an event."""
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
    """Count for many cases, as many at once as there are processors."""
    cases = list(dict.fromkeys(cases))
    with bench(record(_MANY)) as place, ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = pool.map(lambda case: count(place, *case), cases)
        return dict(zip(cases, counts, strict=True))


def compare(arguments: argparse.Namespace) -> None:
    """Print what all clients spend."""
    paces = arguments.pace or PACES
    clients, kinds = chosen(arguments), arguments.compression
    tables = {}
    for pace, kind in itertools.product(paces, kinds):
        counts = count_all((client, pace, kind) for client in clients)
        figures = {client: counts[client, pace, kind] / 1000 for client in clients}
        title = f"thousands of instructions for an event, {pace}, {kind}"
        show_table(title, figures)
        tables[title] = figures
    if arguments.plot is not None:
        plot_bars(arguments.plot, tables)


def measure_ratios() -> dict[str, float]:
    """What is kept in the file: for each check, shardlib's instructions by the other's."""
    ours = Client(OURS, _JSON)
    cases = [
        ((ours, pace, kind), (Client(peer, _JSON), pace, kind)) for pace, kind, peer in _CHECKS
    ]
    counts = count_all(itertools.chain.from_iterable(cases))
    names = [f"{pace}, {kind}, x {Client(peer, _JSON)}" for pace, kind, peer in _CHECKS]
    return {
        name: round(counts[our] / counts[other], 3)
        for name, (our, other) in zip(names, cases, strict=True)
    }


def too_much(ratios: Mapping[str, float], kept: Mapping[str, float]) -> list[str]:
    """The names of the ratios that are too far above what they were."""
    return [name for name, ratio in ratios.items() if ratio > kept[name] * _TOLERANCE]


def check() -> bool:
    """Compare with the figures in the file, and print both. False if one is too far above."""
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
            "Make it cheaper, or say in the commit what the price is paid for, and write the new "
            "figures: python -m benchmarks.instructions --save"
        )
    return not above


def save() -> None:
    """Write the figures of this Python to the file."""
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
    """Those that the checked ratios depend on."""
    names = (platform.python_implementation(), "zlib", "ujson", "backports.zstd")
    return {name: number for name, number in versions().items() if name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions for each event.")
    parser.add_argument("pace", nargs="*", choices=[*PACES, []], help="both by default")
    parser.add_argument("--check", action="store_true", help=f"against {_KEPT.name}")
    parser.add_argument("--save", action="store_true", help=f"to {_KEPT.name}")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the tables")
    add_arguments(parser)
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed; it is what counts the instructions")
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
