"""The memory that a large message takes: ``python -m benchmarks.large``.

A client receives and decodes one plain message of 20 MB, a guild with very many members. The table
has the most memory that the client's process has had, with the interpreter and the library.
"""

from __future__ import annotations

import argparse
import json

from benchmarks.clients import add_peers, chosen
from benchmarks.measure import bench
from benchmarks.stream import PLAIN, record
from benchmarks.table import show_table, show_versions


def large_event(events: list[bytes], size: int) -> bytes:
    """Return a GUILD_CREATE of a given size, with the members of a smaller one repeated.

    :param events: the events, as :func:`benchmarks.stream.record` returns them, with a GUILD_CREATE
        among them.
    :param size: bytes of JSON, about.
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
