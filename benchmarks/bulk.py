"""The cost of an event in bulk: ``python -m benchmarks.bulk``.

The sender writes as fast as the client reads. In each round every client runs once. The table shows
medians of all rounds: the processor time for an event, which is the figure to compare, and the
events a second, which also depend on the sender and on the machine's other work.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.clients import add_arguments, chosen
from benchmarks.kept import Run, add_output
from benchmarks.measure import Client, Result, bench
from benchmarks.plot import plot_bars
from benchmarks.stream import record
from benchmarks.table import show_table, show_versions


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The speed of receiving in bulk.")
    parser.add_argument("--events", type=int, default=30_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--secure", action="store_true", help="wss instead of ws")
    add_output(parser)
    add_arguments(parser)
    arguments = parser.parse_args()
    show_versions()
    run = Run("bulk")
    clients = chosen(arguments)
    scheme = "wss" if arguments.secure else "ws"
    tables = {}
    with bench(record(arguments.events)) as runner:
        for compression in arguments.compression:
            results: dict[Client, list[Result]] = {client: [] for client in clients}
            for _ in range(arguments.rounds):
                for client in clients:
                    result = runner.run(client, compression, secure=arguments.secure)
                    results[client].append(result)
            rates = {
                client: arguments.events
                / statistics.median(each.seconds for each in results[client])
                for client in clients
            }
            title = f"microseconds of processor time for an event, in bulk, {scheme}, {compression}"
            costs = {
                client: statistics.median(each.processor for each in results[client])
                / arguments.events
                * 1e6
                for client in clients
            }
            show_table(title, costs, {"events/s": rates})
            tables[title] = costs
    run.finish(arguments, "bulk", tables, plot_bars)


if __name__ == "__main__":
    main()
