"""The memory of one more idle shard: ``python -m benchmarks.memory``.

A process opens 20 connections, then 100 more, each with Hello and READY, and measures its own
memory in between and at the end.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.clients import BARE_LOOP, OURS, add_compression
from benchmarks.kept import Run, add_output
from benchmarks.measure import Client, bench
from benchmarks.plot import plot_bars
from benchmarks.stream import record
from benchmarks.table import show_table, show_versions

# Each peer only once, because a JSON module takes no memory for a connection.
_CLIENTS = (Client(BARE_LOOP, "ujson"), Client(OURS, "ujson"), Client("hikari", "ujson"))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The memory of one more idle shard.")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    add_output(parser)
    add_compression(parser)
    arguments = parser.parse_args()
    show_versions()
    run = Run("memory")
    tables: dict[str, dict[Client, float]] = {}
    with bench(record(1)) as runner:
        for compression in arguments.compression:
            for secure in (False, True):
                title = f"kB for one more idle shard, {'wss' if secure else 'ws'}, {compression}"
                tables[title] = {
                    client: statistics.median(
                        runner.idle(client, compression, secure) for _ in range(arguments.rounds)
                    )
                    for client in _CLIENTS
                }
                show_table(title, tables[title])
    run.finish(arguments, "memory", tables, plot_bars)


if __name__ == "__main__":
    main()
