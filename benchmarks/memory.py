"""The memory of one more idle shard: ``python -m benchmarks.memory``.

A process opens 20 connections, then 100 more, each with Hello and READY, and measures its own
memory in between and at the end.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.clients import BARE_LOOP, OURS, add_compression, add_plot
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
    add_plot(parser)
    add_compression(parser)
    arguments = parser.parse_args()
    show_versions()
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
    if arguments.plot is not None:
        plot_bars(arguments.plot, tables)


if __name__ == "__main__":
    main()
