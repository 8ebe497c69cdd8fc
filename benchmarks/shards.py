"""The cost of several busy shards: ``python -m benchmarks.shards``.

Each connection has a thread of its own, and all connections receive the same events in bulk at the
same time. The tables show the median processor time for an event, with the ratio to the time of one
connection alone, which is the cost of threads that compete for the interpreter; and the events a
second of all connections together.

shardlib runs in three arrangements: in one process; in one process that the system keeps on one
processor (``taskset``); and in two processes, which share the connections.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.clients import BARE_LOOP, OURS, add_arguments, chosen
from benchmarks.kept import Run, add_output
from benchmarks.measure import Bench, Client, Result, bench
from benchmarks.plot import plot_bars
from benchmarks.stream import record
from benchmarks.table import show_versions

_ONE_PROCESS, _ONE_PROCESSOR, _TWO_PROCESSES = "one process", "one processor", "two processes"

# The width of a table's first column, in characters.
_WIDTH = 48

# A row of a table: a client and its arrangement.
Row = tuple[Client, str]


def rows(clients: Sequence[Client]) -> list[Row]:
    """Return the rows of a table: each client in one process, and shardlib in all arrangements.

    :param clients: the clients.
    """
    found = []
    for client in clients:
        found.append((client, _ONE_PROCESS))
        if client.peer == OURS:
            if shutil.which("taskset") is not None:
                found.append((client, _ONE_PROCESSOR))
            found.append((client, _TWO_PROCESSES))
    return found


def run(runner: Bench, row: Row, compression: str, connections: int) -> list[Result]:
    """Run the processes of a row at the same time, and return the figures of each.

    :param runner: runs the processes.
    :param row: the client and its arrangement.
    :param compression: one of COMPRESSIONS.
    :param connections: the number of connections of all processes together.
    """
    client, arrangement = row
    under: Sequence[str] = ()
    if arrangement == _ONE_PROCESSOR:
        under = ("taskset", "--cpu-list", str(max(os.sched_getaffinity(0))))
    shares = [connections]
    if arrangement == _TWO_PROCESSES and connections > 1:
        shares = [connections // 2, connections - connections // 2]
    with ThreadPoolExecutor(len(shares)) as pool:
        runs = [
            pool.submit(runner.run, client, compression, connections=share, under=under)
            for share in shares
        ]
        return [each.result() for each in runs]


def show(title: str, cells: Mapping[tuple[Row, int], str]) -> None:
    """Print a table.

    :param title: the title of the table.
    :param cells: the content of the table, by row and number of busy shards.
    """
    numbers = list(dict.fromkeys(number for _, number in cells))
    print(f"\n{title}")
    print(" " * _WIDTH, *(f"{number} busy".rjust(16) for number in numbers))
    for row in dict.fromkeys(row for row, _ in cells):
        client, arrangement = row
        columns = (cells[row, number].rjust(16) for number in numbers)
        print(f"{client}, {arrangement}".ljust(_WIDTH), *columns, flush=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The cost of several busy shards.")
    parser.add_argument("--events", type=int, default=20_000, metavar="N", help="of each")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4], metavar="N")
    add_output(parser)
    add_arguments(parser)
    arguments = parser.parse_args()
    show_versions()
    kept_run = Run("shards")
    table = rows([each for each in chosen(arguments) if each.peer in (OURS, BARE_LOOP)])
    tables: dict[str, dict[str, float]] = {}
    with bench(record(arguments.events)) as runner:
        for compression in arguments.compression:
            costs: dict[tuple[Row, int], list[float]] = {}
            rates: dict[tuple[Row, int], list[float]] = {}
            for _ in range(arguments.rounds):
                for case in itertools.product(table, arguments.shards):
                    row, number = case
                    results = run(runner, row, compression, number)
                    events = number * arguments.events
                    cost = sum(each.processor for each in results) / events * 1e6
                    costs.setdefault(case, []).append(cost)
                    rate = events / max(each.seconds for each in results)
                    rates.setdefault(case, []).append(rate)
            title = f"microseconds of processor time for an event, {compression}"
            medians = {case: statistics.median(each) for case, each in costs.items()}
            alone = {row: medians[row, arguments.shards[0]] for row in table}
            show(
                title,
                {
                    (row, number): f"{cost:.1f} ({cost / alone[row]:.2f} x)"
                    for (row, number), cost in medians.items()
                },
            )
            tables[title] = _name(medians)
            title = f"events a second, all shards together, {compression}"
            medians = {case: statistics.median(each) for case, each in rates.items()}
            show(title, {case: f"{rate:,.0f}" for case, rate in medians.items()})
            tables[title] = _name(medians)
    kept_run.finish(arguments, "shards", tables, plot_bars)


def _name(figures: Mapping[tuple[Row, int], float]) -> dict[str, float]:
    return {
        f"{client}, {arrangement}, {number} busy": figure
        for ((client, arrangement), number), figure in figures.items()
    }


if __name__ == "__main__":
    main()
