"""The cost of an event that comes alone: ``python -m benchmarks.single``.

The sender writes an event after the client has handled the previous event and sleeps, because most
bots sleep before each event. The table shows the median processor time for an event, with the time
of the operating system, and, if strace is installed, the system calls over ws and over wss.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.clients import FLOOR, add_arguments, chosen
from benchmarks.kept import Run, add_output
from benchmarks.measure import Bench, Client, bench
from benchmarks.plot import plot_bars
from benchmarks.stream import record
from benchmarks.table import show_table, show_versions

# The numbers of events for two counts of system calls. The difference of the counts is the cost of
# the additional events, without connecting.
_FEW, MANY = 200, 600

# The most seconds that strace may take to write its summary.
_SUMMARY_TIMEOUT = 30.0


def system_calls(runner: Bench, client: Client, compression: str, secure: bool) -> float:
    """Return the system calls that all threads of a client make for an event.

    :param runner: runs the client.
    :param client: the client.
    :param compression: one of COMPRESSIONS.
    :param secure: True for wss, False for ws.
    """
    few, many = (
        _system_calls(runner, client, compression, secure, events) for events in (_FEW, MANY)
    )
    return (many - few) / (MANY - _FEW)


def _system_calls(
    runner: Bench, client: Client, compression: str, secure: bool, events: int
) -> int:
    with tempfile.NamedTemporaryFile("r") as summary:
        # With -D the client, and not strace, is the child of this process, so that the sender has
        # the id of the process for whose sleep the sender waits.
        strace = ["strace", "-D", "-f", "-c", "-U", "calls,name", "-o", summary.name]
        runner.run(client, compression, pace="single", count=events, secure=secure, under=strace)
        # With -D strace is a detached process, which may still be writing.
        deadline = time.monotonic() + _SUMMARY_TIMEOUT
        while (total := re.search(r"(\d+) total$", Path(summary.name).read_text().strip())) is None:
            if time.monotonic() > deadline:
                raise TimeoutError("strace wrote no summary")
            time.sleep(0.01)
    return int(total[1])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The cost of events that come one at a time.")
    parser.add_argument("--events", type=int, default=5_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--secure", action="store_true", help="time wss instead of ws")
    add_output(parser)
    add_arguments(parser)
    arguments = parser.parse_args()
    show_versions()
    run = Run("single")
    clients = chosen(arguments)
    scheme = "wss" if arguments.secure else "ws"
    tables: dict[str, dict[Client, float]] = {}
    with bench(record(max(arguments.events, MANY))) as runner:
        for compression in arguments.compression:
            spent: dict[Client, list[float]] = {client: [] for client in clients}
            for _ in range(arguments.rounds):
                for client in clients:
                    result = runner.run(
                        client,
                        compression,
                        pace="single",
                        count=arguments.events,
                        secure=arguments.secure,
                    )
                    spent[client].append(result.processor / arguments.events * 1e6)
            calls: dict[str, dict[Client, float]] = {}
            if shutil.which("strace") is not None:
                calls = {
                    f"calls {name}": {
                        client: system_calls(runner, client, compression, secure)
                        for client in clients
                        if client.peer != FLOOR
                    }
                    for name, secure in (("ws", False), ("wss", True))
                }
            title = (
                f"microseconds of processor time for an event, one at a time, {scheme}, "
                f"{compression}"
            )
            tables[title] = {client: statistics.median(spent[client]) for client in clients}
            show_table(title, tables[title], calls)
    run.finish(arguments, "single", tables, plot_bars)


if __name__ == "__main__":
    main()
