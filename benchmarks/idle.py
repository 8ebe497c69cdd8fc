"""The process whose memory is measured: one peer with many idle connections.

``python -m benchmarks.idle JOB`` is run by :mod:`benchmarks.measure`. It prints the kB of memory
that one more connection takes.
"""

from __future__ import annotations

import gc
import json
import os
import sys

from benchmarks.client import Job, load, memory

# Connections before the first look, which fill what all share, and from there to the second.
FIRST, MORE = 20, 100


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    connections = load(job).idle(job)
    looks = []
    for number in (FIRST, MORE):
        for _ in range(number):
            next(connections)
        gc.collect()
        looks.append(memory())
    before, after = looks
    print(json.dumps((after - before) / MORE), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
