"""Instructions for each event: ``python -m benchmarks.instructions [bulk] [single]``.

Each client runs under valgrind, which counts the instructions of the whole process, once with
1,000 events and once with 3,000; the difference is what 2,000 events cost, without starting up and
connecting. What the system does for the process is not among them. The figures are nearly the same
on any machine and whatever else it does, so that a change of a percent can be told.

bulk     the sender writes as fast as the client reads
single   the sender writes an event when the client has done with the one before, and sleeps: this
         is how a bot usually sees them

``--check`` compares shardlib with ujson against the figures in ``instructions.json``, and fails if
one is more than 3 % above; ``--save`` writes that file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.clients import (
    BARE_LOOP,
    FLOOR,
    add_arguments,
    chosen,
    compressions,
    versions,
)
from benchmarks.measure import PACES, Bench, Client, bench
from benchmarks.stream import COMPRESSIONS, record
from benchmarks.table import show_table, show_versions

_FEW, _MANY = 1000, 3000

_KEPT = Path(__file__).with_suffix(".json")
_TOLERANCE = 1.03

# What is checked: shardlib's ratio to another client.
_CHECKS = [
    *(("bulk", compression, FLOOR) for compression in COMPRESSIONS),
    ("single", "zlib-stream", BARE_LOOP),
]

Case = tuple[Client, str, "str | None"]


def count(bench: Bench, client: Client, pace: str, compression: str | None) -> float:
    """The instructions that a client spends on an event."""
    few, many = (_instructions(bench, client, pace, compression, each) for each in (_FEW, _MANY))
    return (many - few) / (_MANY - _FEW)


def _instructions(
    bench: Bench, client: Client, pace: str, compression: str | None, events: int
) -> int:
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
    clients, kinds = chosen(arguments), compressions(arguments)
    counts = count_all(itertools.product(clients, paces, kinds))
    for pace in paces:
        for kind in kinds:
            show_table(
                f"thousands of instructions for an event, {pace}, {kind}",
                {client: counts[client, pace, kind] / 1000 for client in clients},
            )


def ratios() -> dict[str, float]:
    """What is kept in the file: for each check, shardlib's instructions by the other's."""
    ours = Client("shardlib", "ujson")
    cases = [
        ((ours, pace, kind), (Client(peer, "ujson"), pace, kind)) for pace, kind, peer in _CHECKS
    ]
    counts = count_all(itertools.chain.from_iterable(cases))
    names = [f"{pace}, {kind}, against the {peer}" for pace, kind, peer in _CHECKS]
    return {
        name: round(counts[our] / counts[other], 3)
        for name, (our, other) in zip(names, cases, strict=True)
    }


def check() -> bool:
    """Compare with the figures in the file, and print both. False if one is too far above."""
    kept = json.loads(_KEPT.read_text())
    good = True
    for name, ratio in ratios().items():
        verdict = "good" if ratio <= kept["ratios"][name] * _TOLERANCE else "TOO MUCH"
        good = good and verdict == "good"
        print(f"{name:50} {ratio:6.3f}   kept {kept['ratios'][name]:6.3f}   {verdict}")
    if kept["versions"] != versions():
        measured = ", ".join(f"{name} {number}" for name, number in kept["versions"].items())
        print(f"The figures in {_KEPT.name} are of {measured}.")
    if not good:
        print(
            f"shardlib spends over {_TOLERANCE - 1:.0%} more than the figures in {_KEPT.name}. "
            "Make it cheaper, or say in the commit why that is its price, and write the new "
            "figures: python -m benchmarks.instructions --save"
        )
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions for each event.")
    parser.add_argument("pace", nargs="*", choices=[*PACES, []], help="both by default")
    parser.add_argument("--check", action="store_true", help=f"against {_KEPT.name}")
    parser.add_argument("--save", action="store_true", help=f"to {_KEPT.name}")
    add_arguments(parser)
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed; it is what counts the instructions")
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True)
    show_versions(valgrind.stdout.strip())
    if arguments.save:
        figures = {"versions": versions(), "ratios": ratios()}
        _KEPT.write_text(json.dumps(figures, indent=2) + "\n")
    elif arguments.check:
        sys.exit(0 if check() else 1)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
