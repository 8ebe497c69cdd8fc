"""A process that consumes, for tests that kill, stop and interrupt it.

It writes the id of each event that it has handled into a file, with its own name in front.
"""

from __future__ import annotations

import argparse
import os
import signal
import time

from shardlib.fleet.connecting import connect
from shardlib.fleet.consumer import Consumer
from shardlib.fleet.keys import Keys


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("url", "path", "name"):
        parser.add_argument(name)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--lease", type=float, required=True)
    parser.add_argument("--pace", type=float, required=True, help="seconds for each event")
    parser.add_argument("--unordered", action="store_true")
    parser.add_argument("--interrupted", action="store_true", help="go on after Ctrl-C")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(arguments.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    consumer = Consumer(
        connect(arguments.url),
        Keys("mybot"),
        "web",
        shard_count=lambda: arguments.shards,
        lease=arguments.lease,
        ordered=not arguments.unordered,
        retry_after=arguments.lease,
        name=arguments.name,
    )
    signal.signal(signal.SIGTERM, lambda number, frame: consumer.stop())
    with consumer:
        while True:
            try:
                for event in consumer:
                    os.write(log, f"{arguments.name} {event.id}\n".encode())
                    time.sleep(arguments.pace)
                return
            except KeyboardInterrupt:
                if not arguments.interrupted:
                    raise
                os.write(log, f"{arguments.name} interrupted\n".encode())


if __name__ == "__main__":
    main()
