"""The latency of an event: ``python -m benchmarks.latency``.

The latency is the time from just before the sender writes an event, while the client sleeps, to the
client's callback. The latency includes the time that the system takes to deliver the event and to
wake the client, which is the same for all clients. In each round every client runs once. The table
summarizes the latencies of all rounds.
"""

from __future__ import annotations

import argparse

from benchmarks.clients import FLOOR, add_arguments, chosen
from benchmarks.kept import Run, add_output
from benchmarks.measure import Client, bench
from benchmarks.plot import PERCENTS, curve, plot_curves
from benchmarks.stream import record
from benchmarks.table import percentile, show_table, show_versions

# Number of events at the beginning of each connection that are not counted.
_WARM_UP = 50

_PERCENTS = (50, 90, 99)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The latency of events that come one at a time.")
    parser.add_argument("--events", type=int, default=3_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--secure", action="store_true", help="wss instead of ws")
    add_output(parser)
    add_arguments(parser)
    arguments = parser.parse_args()
    show_versions()
    run = Run("latency")
    clients = [each for each in chosen(arguments) if each.peer != FLOOR and each.listens]
    scheme = "wss" if arguments.secure else "ws"
    curves: dict[str, dict[Client, list[float]]] = {}
    with bench(record(arguments.events)) as runner:
        for compression in arguments.compression:
            delays: dict[Client, list[float]] = {client: [] for client in clients}
            for _ in range(arguments.rounds):
                for client in clients:
                    result = runner.run(
                        client, compression, pace="single", secure=arguments.secure, stamps=True
                    )
                    # Some clients call the callback for Hello, too, which is the first message.
                    sent = result.sent[-len(result.stamps) :]
                    pairs = [*zip(sent, result.stamps, strict=True)][_WARM_UP:]
                    delays[client] += [
                        (received_at - sent_at) * 1e6 for sent_at, received_at in pairs
                    ]
            columns = {
                f"{percent} %": {each: percentile(delays[each], percent) for each in clients}
                for percent in _PERCENTS
            }
            median = columns.pop("50 %")
            title = f"microseconds to the callback, {scheme}, {compression}"
            show_table(f"{title}, median", median, columns)
            curves[title] = {client: curve(delays[client], PERCENTS) for client in clients}
    run.finish(arguments, "latency", curves, plot_curves)


if __name__ == "__main__":
    main()
