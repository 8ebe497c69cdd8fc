"""The process whose memory is measured: one peer with many idle connections.

:mod:`benchmarks.measure` runs ``python -m benchmarks.idle JOB``. The process prints the kB of
memory that one more connection takes.
"""

from __future__ import annotations

import gc
import json
import os
import sys

from benchmarks.client import Job, load, memory

# How many connections are open when the memory is measured first, and how many are opened until it
# is measured again. The first connections also pay for the memory that all connections share.
FIRST, MORE = 20, 100


def main() -> None:
    """Do the job that the command line names."""
    job = Job(**json.loads(sys.argv[1]))
    connections = load(job).idle(job)
    measured = []
    for number in (FIRST, MORE):
        for _ in range(number):
            next(connections)
        gc.collect()
        measured.append(memory())
    before, after = measured
    print(json.dumps((after - before) / MORE), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
