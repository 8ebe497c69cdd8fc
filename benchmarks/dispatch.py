"""What an event costs where it is handled: ``python -m benchmarks.dispatch``.

The same shard calls an empty callback on its reader thread, or has a dispatcher call it, or gives
its events to a loop over ``events()``. The table shows the median processor time for an event.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.clients import OURS
from benchmarks.kept import Run, add_output
from benchmarks.measure import Client, bench
from benchmarks.plot import plot_bars
from benchmarks.stream import record
from benchmarks.table import show_table, show_versions

PLACES = ("reader", "Mailbox", "Worker", "Pool", "Pool with a key", "events()")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The cost of dispatchers and of events().")
    parser.add_argument("--events", type=int, default=10_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--json", choices=("ujson", "orjson"), default="ujson")
    parser.add_argument("--compression", default="zlib-stream")
    add_output(parser)
    arguments = parser.parse_args()
    show_versions()
    run = Run("dispatch")
    clients = [Client(OURS, arguments.json, place=place) for place in PLACES]
    tables: dict[str, dict[Client, float]] = {}
    with bench(record(arguments.events)) as runner:
        for pace, words in (("bulk", "in bulk"), ("single", "one at a time")):
            spent: dict[Client, list[float]] = {client: [] for client in clients}
            for _ in range(arguments.rounds):
                for client in clients:
                    result = runner.run(client, arguments.compression, pace=pace)
                    spent[client].append(result.processor / arguments.events * 1e6)
            title = f"microseconds of processor time for an event, {words}, {arguments.compression}"
            tables[title] = {client: statistics.median(spent[client]) for client in clients}
            show_table(title, tables[title])
    run.finish(arguments, "dispatch", tables, plot_bars)


if __name__ == "__main__":
    main()
