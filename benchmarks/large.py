"""The memory that a large message takes: ``python -m benchmarks.large``.

A client receives and decodes one plain message of 20 MB, a guild with very many members. The table
shows the peak memory of the client's process, with the interpreter and the library.
"""

from __future__ import annotations

import argparse
import json

from benchmarks.clients import add_peers, chosen
from benchmarks.kept import Run, add_output
from benchmarks.measure import bench
from benchmarks.plot import plot_bars
from benchmarks.stream import PLAIN, record
from benchmarks.table import show_table, show_versions


def large_event(events: list[bytes], size: int) -> bytes:
    """Return a GUILD_CREATE of a given size, made by repeating the members of a smaller guild.

    :param events: the events that :func:`benchmarks.stream.record` returns, of which one must be a
        GUILD_CREATE.
    :param size: the approximate size of the JSON in bytes.
    """
    guild = next(each for each in map(json.loads, events) if each["t"] == "GUILD_CREATE")
    members = guild["d"]["members"]
    members_size = len(json.dumps(members, separators=(",", ":")))
    guild["d"]["members"] = members * (size // members_size)
    return json.dumps(guild, separators=(",", ":")).encode()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The memory for a large message.")
    parser.add_argument("--megabytes", type=int, default=20, metavar="N")
    add_output(parser)
    add_peers(parser)
    arguments = parser.parse_args()
    show_versions()
    run = Run("large")
    events = record(100)
    large = large_event(events, arguments.megabytes * 1_000_000)
    with bench([events[0], large]) as runner:
        peaks = {
            client: runner.run(client, PLAIN).peak / 1024
            for client in chosen(arguments)
            if client.listens
        }
    title = f"MB at most, a plain message of {arguments.megabytes} MB"
    show_table(title, peaks)
    run.finish(arguments, "large", {title: peaks}, plot_bars)


if __name__ == "__main__":
    main()
