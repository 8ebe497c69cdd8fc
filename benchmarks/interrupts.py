"""Interrupts every method of a shard at every point, each point once.

``tests.reliability.storms`` finds and tries the points::

    python -m benchmarks.interrupts --output interrupts.txt
    python -m benchmarks.interrupts --shard 1/2 --output first.txt & \\
    python -m benchmarks.interrupts --shard 2/2 --output second.txt

The library and the version of Python decide the points; ``--seed`` decides their order. The report
of a finding begins with its point. To try a point again, pass the point's text, or a part of the
text, to ``--match``. The exit status is 1 if a call hung, or raised an error that the method does
not document.
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

# Number of points between two lines that report the progress.
_PROGRESS_INTERVAL = 2_000


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
    # Distributed by the point's text and not by its index, because the lists of two processes may
    # differ in the points of a wait.
    points = [each for each in points if zlib.crc32(str(each).encode()) % count == number - 1]
    points = [each for each in points if options.match in str(each)]
    if not options.draw:
        random.Random(options.seed).shuffle(points)
    return points


def _try(points: Sequence[Point], most: int) -> Summary:
    """Try points until ``most`` findings, and report the progress on standard error."""
    total = Summary()
    for start in range(0, len(points), _PROGRESS_INTERVAL):
        batch = points[start : start + _PROGRESS_INTERVAL]
        total.add(try_points(batch, most - len(total.findings)))
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
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.interrupts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="K/N", help="the K-th of N")
    parser.add_argument("--seed", type=int, default=0, help="decides the order, and what is drawn")
    parser.add_argument("--draw", type=int, metavar="COUNT", help="so many points instead of all")
    parser.add_argument("--match", default="", metavar="TEXT", help="only points with this text")
    parser.add_argument("--rounds", type=int, metavar="COUNT", help="interleave, instead of points")
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
