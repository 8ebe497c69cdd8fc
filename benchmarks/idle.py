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

# The number of connections before the first measurement of the memory, and the number added before
# the second. The first connections also allocate the memory that all connections share.
FIRST, MORE = 20, 100


def main() -> None:
    """Do the job on the command line."""
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
