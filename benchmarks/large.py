"""The memory that a large message takes: ``python -m benchmarks.large``.

One plain message of 20 MB, a guild with very many members, is received and decoded. What is printed
is the most memory that the process has had, all of it: the interpreter and the library, too.
"""

from __future__ import annotations

import argparse
import json

from benchmarks.clients import add_peers, chosen
from benchmarks.measure import bench
from benchmarks.stream import PLAIN, record
from benchmarks.table import show_table, show_versions


def large_event(events: list[bytes], size: int) -> bytes:
    """A GUILD_CREATE with so many bytes of JSON, made of one among some events.

    :param events: of :func:`benchmarks.stream.record`.
    """
    guild = next(each for each in map(json.loads, events) if each["t"] == "GUILD_CREATE")
    members = guild["d"]["members"]
    one = len(json.dumps(members, separators=(",", ":")))
    guild["d"]["members"] = members * (size // one)
    return json.dumps(guild, separators=(",", ":")).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description="The memory for a large message.")
    parser.add_argument("--megabytes", type=int, default=20, metavar="N")
    add_peers(parser)
    arguments = parser.parse_args()
    show_versions()
    events = record(100)
    large = large_event(events, arguments.megabytes * 1_000_000)
    with bench([events[0], large]) as place:
        peaks = {
            client: place.run(client, PLAIN).peak / 1024
            for client in chosen(arguments)
            if client.listens
        }
    show_table(f"MB at most, a plain message of {arguments.megabytes} MB", peaks)


if __name__ == "__main__":
    main()
