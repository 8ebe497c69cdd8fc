"""Every point at which a signal can meet a method of a shard, once (``reliability.storms``).

::

    python -m benchmarks.interrupts --output interrupts.txt
    python -m benchmarks.interrupts --shard 1/2 --output first.txt & \\
    python -m benchmarks.interrupts --shard 2/2 --output second.txt

The points follow from the library and the version of Python; ``--seed`` gives their order. What
stands before a finding, or a part of that, is what ``--match`` takes to try the point again.
The status is 1 if anything hung, or raised what is not documented.
"""

from __future__ import annotations

import argparse
import platform
import random
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.reliability.storms import (
    CTRL_C,
    Point,
    Summary,
    draw_points,
    interleave,
    list_points,
    try_points,
)

_TOLD_EVERY = 2_000  # points


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not 1 <= int(number) <= int(count):
        raise ValueError(text)
    return int(number), int(count)


def _choose(options: argparse.Namespace) -> list[Point]:
    points = list_points()
    if options.draw:
        points = draw_points(points, options.draw, options.seed)
    number, count = options.shard
    # By what a point is, not by its place in the list: two processes may list a wait differently.
    points = [each for each in points if zlib.crc32(str(each).encode()) % count == number - 1]
    points = [each for each in points if options.match in str(each)]
    if not options.draw:
        random.Random(options.seed).shuffle(points)
    return points


def _try(points: Sequence[Point], most: int) -> Summary:
    """Try all, and tell now and then how far that is."""
    total = Summary()
    for start in range(0, len(points), _TOLD_EVERY):
        total.add(try_points(points[start : start + _TOLD_EVERY], most - len(total.findings)))
        print(
            f"{total.tried} of {len(points)} points in {total.seconds:.0f} s, "
            f"{len(total.findings)} findings",
            file=sys.stderr,
            flush=True,
        )
        if len(total.findings) >= most:
            break
    return total


def _revision() -> str:
    command = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.interrupts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="K/N", help="the K-th of N")
    parser.add_argument("--seed", type=int, default=0, help="of the order, and of what is drawn")
    parser.add_argument("--draw", type=int, metavar="COUNT", help="so many points instead of all")
    parser.add_argument("--match", default="", metavar="TEXT", help="only points with this text")
    parser.add_argument("--rounds", type=int, metavar="COUNT", help="interleavings, no points")
    parser.add_argument("--most", type=int, default=100, help="findings after which to stop")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the summary")
    options = parser.parse_args()

    heading = f"revision {_revision()}, Python {platform.python_version()}, {platform.system()}"
    if options.rounds:
        summary = interleave(options.seed, options.rounds, options.most)
        what = f"{options.rounds} rounds of interleavings, seed {options.seed}"
    else:
        points = _choose(options)
        summary = _try(points, options.most)
        by_operation = Counter(point.operation for point in points)
        what = "\n".join(
            (
                f"shard {'/'.join(map(str, options.shard))}, seed {options.seed}: {len(points)} "
                f"points, {sum(point.interrupt == CTRL_C for point in points)} of them Ctrl-C",
                *(f"{count:7} {name}" for name, count in by_operation.most_common()),
            )
        )
    report = f"{heading}\n{what}\n{summary}\n"
    print(report, end="")
    if options.output:
        options.output.write_text(report)
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
