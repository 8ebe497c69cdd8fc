"""A consumer of a fleet: ``python -m benchmarks.fleet_consumer``.

A process appends events of Discord's size to the streams of 16 shards of a Redis of its own, so
many a second, and this one consumes them. The table shows the processor time of the consumer for
each event: the redis-server and the process that appends have theirs. The last line is that of a
group that catches up with what has piled up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.kept import Run, add_output
from benchmarks.plot import plot_bars
from benchmarks.stream import record
from benchmarks.table import show_versions
from shardlib.fleet.connecting import connect
from shardlib.fleet.consumer import Consumer
from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import Batch, ClaimRequest, FleetSession, ShardScripts, new_token
from tests.redis_server import RedisServer, executables

_SHARDS = 16
_NAME = "benchmark"

# Seconds between two batches, as a worker that lingers has them.
_LINGER = 0.05

# How many events each shard has to catch up with.
_BACKLOG = 2000


class Feeder:
    """The owner of all shards, who appends events to their streams.

    :param url: of Redis.
    """

    def __init__(self, url: str) -> None:
        keys = Keys(_NAME)
        client = connect(url)
        self._scripts = ShardScripts(client, keys, lease=60.0, keep_events=100_000)
        self._token = new_token()
        self._sessions = {
            shard_id: FleetSession(f"S{shard_id}", None, _SHARDS) for shard_id in range(_SHARDS)
        }
        self._texts = record(500)
        self._next = 0
        claims = {shard_id: ClaimRequest(self._token, "feeder") for shard_id in range(_SHARDS)}
        self._scripts.claim(claims)  # Redis waits for one who remembers the shards
        for shard_id in range(_SHARDS):
            client.delete(keys.shard(shard_id).lease)
        self._scripts.claim(claims)

    def append(self, counts: dict[int, int]) -> None:
        """Append events, so many for each shard."""
        batches = {}
        for shard_id, count in counts.items():
            session = self._sessions[shard_id]
            events = []
            for sequence in range(session.sequence + 1, session.sequence + count + 1):
                self._next += 1
                events.append((sequence, self._texts[self._next % len(self._texts)]))
            batches[shard_id] = Batch(self._token, session, events, 0)
        for shard_id, answer in self._scripts.append(batches).items():
            if isinstance(answer, Exception):
                raise answer
            self._sessions[shard_id] = self._sessions[shard_id]._replace(
                epoch=answer.epoch, sequence=answer.sequence
            )

    def feed(self, rate: float) -> None:
        """Append events until the process is killed, so many a second to all shards together."""
        began, appended = time.monotonic(), 0
        while True:
            time.sleep(_LINGER)
            due = int((time.monotonic() - began) * rate) - appended
            counts: dict[int, int] = {}
            for number in range(appended, appended + due):
                counts[number % _SHARDS] = counts.get(number % _SHARDS, 0) + 1
            self.append(counts)
            appended += due


def measure(
    url: str, group: str, seconds: float, *, ordered: bool = True, backlog: int | None = None
) -> tuple[int, float]:
    """Consume for a while.

    :param url: of Redis.
    :param group: of the consumer.
    :param seconds: for which to consume at most.
    :param ordered: as the consumer has it.
    :param backlog: how many events wait, after which to end; None if events come meanwhile.
    :returns: how many events came, and the microseconds of processor time of each.
    """
    consumer = Consumer(
        connect(url), Keys(_NAME), group, shard_count=lambda: _SHARDS, ordered=ordered
    )
    with consumer:
        first = consumer.get(0)  # claims the streams
        if backlog is None:
            while consumer.get(0) is not None:
                pass
        elif first is not None:
            backlog -= 1
        end, before = time.monotonic() + seconds, time.process_time()
        count = 0
        for _ in consumer:
            count += 1
            if time.monotonic() > end or count == backlog:
                consumer.stop()
        return count, (time.process_time() - before) / max(count, 1) * 1e6


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="A consumer of a fleet.")
    parser.add_argument("--rates", type=float, nargs="+", default=[100, 800, 3000], metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="for each line")
    add_output(parser)
    parser.add_argument("--feed", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.feed:
        url, rate = arguments.feed
        Feeder(url).feed(float(rate))
    show_versions()
    run = Run("fleet_consumer")
    costs: dict[str, float] = {}
    version, program = list(executables().items())[-1]
    print(f"\nRedis {version}\n\nevents/s            us an event   events")
    for rate in arguments.rates:
        for ordered in (True, False):
            with tempfile.TemporaryDirectory() as place, RedisServer(program, Path(place)) as redis:
                command = [sys.executable, "-m", "benchmarks.fleet_consumer"]
                feeder = subprocess.Popen([*command, "--feed", redis.url, str(rate)])
                try:
                    count, cost = measure(redis.url, "web", arguments.seconds, ordered=ordered)
                finally:
                    feeder.kill()
                    feeder.wait()
            title = f"{rate:.0f} {'ordered' if ordered else 'unordered'}"
            show(title, count, cost)
            costs[title] = cost
    with tempfile.TemporaryDirectory() as place, RedisServer(program, Path(place)) as redis:
        feeder_here = Feeder(redis.url)
        for _ in range(_BACKLOG // 100):
            feeder_here.append(dict.fromkeys(range(_SHARDS), 100))
        waiting = _BACKLOG * _SHARDS
        count, cost = measure(redis.url, "backlog", 60.0, backlog=waiting)
    show("a backlog", count, cost)
    costs["a backlog"] = cost
    table = {"microseconds of processor time for an event, events a second": costs}
    run.finish(arguments, "fleet_consumer", table, plot_bars)


def show(title: str, count: int, cost: float) -> None:
    """Print a line of the table."""
    print(f"{title:20} {cost:10.1f} {count:8}", flush=True)


if __name__ == "__main__":
    main()
