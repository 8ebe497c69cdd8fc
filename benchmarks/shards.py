"""The cost of several busy shards in one process: ``python -m benchmarks.shards``.

Each connection has a thread of its own, and all connections receive the same events in bulk at the
same time. The table shows the median processor time for an event, and the ratio to the time of one
connection alone, which is the cost of threads that compete for the interpreter.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.clients import BARE_LOOP, OURS, add_arguments, chosen
from benchmarks.measure import Client, bench
from benchmarks.stream import record
from benchmarks.table import show_versions


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The cost of several shards in one process.")
    parser.add_argument("--events", type=int, default=20_000, metavar="N", help="of each")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4], metavar="N")
    add_arguments(parser)
    arguments = parser.parse_args()
    show_versions()
    clients = [each for each in chosen(arguments) if each.peer in (OURS, BARE_LOOP)]
    with bench(record(arguments.events)) as runner:
        for compression in arguments.compression:
            print(f"\nmicroseconds of processor time for an event, {compression}")
            print(" " * 36, *(f"{number} busy".rjust(16) for number in arguments.shards))
            spent: dict[tuple[Client, int], list[float]] = {}
            for _ in range(arguments.rounds):
                for client in clients:
                    for number in arguments.shards:
                        result = runner.run(client, compression, connections=number)
                        each = result.processor / (number * arguments.events) * 1e6
                        spent.setdefault((client, number), []).append(each)
            for client in clients:
                medians = [statistics.median(spent[client, each]) for each in arguments.shards]
                cells = (f"{each:.1f} ({each / medians[0]:.2f} x)" for each in medians)
                print(f"{client!s:36}", *(cell.rjust(16) for cell in cells), flush=True)


if __name__ == "__main__":
    main()
