"""A manager with many shards: ``python -m benchmarks.manager``.

The shards connect to a local gateway in a process of its own, which refuses an Identify that comes
less than 5 seconds after the one before of its bucket. The table shows how long the start took, and
how long it takes at least; the Identifies that the gateway has counted; the threads of the process;
what a shard adds to its memory; the processor time while nothing comes, and while 10 events a
second come to each shard; and how long closing takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import threading
import time

from benchmarks.client import memory
from benchmarks.kept import Run, add_output
from benchmarks.plot import only, plot_bars
from benchmarks.table import show_versions
from shardlib import GatewayBot, IdentifyGate, Intents, ShardManager, fetch_gateway_bot
from shardlib.gateway import IDENTIFY_INTERVAL, IDENTIFY_SLACK
from shardlib.testing import LocalGateway

# Events a second to each shard, while the cost of events is measured.
_RATE = 10.0


_HEADING = (
    "shards  ready s  least s identifies  threads  kB/shard     idle     busy events/s  close s"
)

# The titles under which the figures are kept.
_TITLES = {
    "start": "seconds until all shards are READY",
    "least": "seconds that Discord's pace takes at least",
    "identifies": "Identifies",
    "threads": "threads",
    "kilobytes": "kB for a shard",
    "idle": "% of a core, idle",
    "busy": "% of a core, busy",
    "rate": "events a second to each busy shard",
    "close": "seconds to close",
}


@dataclasses.dataclass
class Figures:
    """What was measured of one manager.

    :ivar shards: the number of shards.
    :ivar start: seconds from connect() until all were READY.
    :ivar least: seconds that this takes at least, by the distance of Identifies alone.
    :ivar identifies: the Identifies that the gateway has accepted.
    :ivar threads: the threads of the process but the main one.
    :ivar kilobytes: kB that the memory of the process has grown by, for each shard.
    :ivar idle: processor time while nothing came, as a part of the time.
    :ivar busy: likewise, while events came.
    :ivar rate: the events a second that each shard has received meanwhile.
    :ivar close: seconds that close() took.
    """

    shards: int
    start: float
    least: float
    identifies: int
    threads: int
    kilobytes: float
    idle: float
    busy: float
    rate: float
    close: float


class Gateway:
    """A local gateway in a process of its own.

    :param shards: the number of shards that it recommends.
    :param max_concurrency: how many may identify at once.
    """

    def __init__(self, shards: int, max_concurrency: int) -> None:
        command = [sys.executable, "-m", "benchmarks.manager", "--serve"]
        command += ["--shards", str(shards), "--max-concurrency", str(max_concurrency)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._api_url, self.token = self._process.stdout.readline().split()

    def recommend(self) -> GatewayBot:
        """Ask what the gateway recommends, and how many Identifies are left."""
        return fetch_gateway_bot(self.token, api_url=self._api_url)

    def send(self, rate: float) -> None:
        """Begin to send events, so many a second."""
        assert self._process.stdin is not None
        print(rate, file=self._process.stdin, flush=True)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def serve(shards: int, max_concurrency: int) -> None:
    """Run the gateway's process."""
    with LocalGateway(shards=shards, max_concurrency=max_concurrency) as gateway:
        print(gateway.http_url, gateway.token, flush=True)
        for line in sys.stdin:
            gateway.traffic(float(line))


def measure(shards: int, max_concurrency: int, seconds: float) -> Figures:
    """Start a manager, and measure it.

    :param shards: the number of shards.
    :param max_concurrency: how many may identify at once.
    :param seconds: for which the idle manager is watched, and then the busy one.
    """
    gateway = Gateway(shards, max_concurrency)
    try:
        recommended = gateway.recommend()
        bot = ShardManager(
            gateway.token,
            Intents.default(),
            gateway_bot=recommended,
            identify_gate=IdentifyGate(max_concurrency),
        )
        bot.on("MESSAGE_CREATE", lambda shard, message: None)
        memory_before = memory()
        began = time.perf_counter()
        bot.connect()
        bot.wait_until_ready()
        start = time.perf_counter() - began
        kilobytes = (memory() - memory_before) / shards
        threads = threading.active_count() - 1
        idle = _processor_share(seconds)
        gateway.send(_RATE * shards)
        messages_before = bot.stats.messages
        busy = _processor_share(seconds)
        rate = (bot.stats.messages - messages_before) / seconds / shards
        left = gateway.recommend().remaining
        began = time.perf_counter()
        bot.close()
        close = time.perf_counter() - began
    finally:
        gateway.stop()
    buckets = math.ceil(shards / max_concurrency)
    return Figures(
        shards=shards,
        start=start,
        least=(buckets - 1) * (IDENTIFY_INTERVAL + IDENTIFY_SLACK),
        identifies=recommended.remaining - left,
        threads=threads,
        kilobytes=kilobytes,
        idle=idle,
        busy=busy,
        rate=rate,
        close=close,
    )


def _processor_share(seconds: float) -> float:
    before = time.process_time()
    time.sleep(seconds)
    return (time.process_time() - before) / seconds


def show(figures: Figures) -> None:
    """Print a line of the table."""
    print(
        f"{figures.shards:6} {figures.start:8.2f} {figures.least:8.2f} {figures.identifies:10} "
        f"{figures.threads:8} {figures.kilobytes:9.0f} {figures.idle:8.2%} {figures.busy:8.2%} "
        f"{figures.rate:8.1f} {figures.close:8.3f}",
        flush=True,
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="A manager with many shards.")
    parser.add_argument("--shards", type=int, nargs="+", default=[16, 64, 256], metavar="N")
    parser.add_argument("--max-concurrency", type=int, default=16, metavar="N")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="to watch it")
    add_output(parser)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.shards[0], arguments.max_concurrency)
    elif arguments.measure:
        figures = measure(arguments.shards[0], arguments.max_concurrency, arguments.seconds)
        print(json.dumps(dataclasses.asdict(figures)))
    else:
        show_versions()
        run = Run("manager")
        print(f"\nmax_concurrency {arguments.max_concurrency}; busy: events/s to each shard")
        print(_HEADING)
        tables: dict[str, dict[str, float]] = {title: {} for title in _TITLES.values()}
        for shards in arguments.shards:  # each in a process of its own, for its memory
            command = [sys.executable, "-m", "benchmarks.manager", "--measure"]
            command += ["--shards", str(shards), "--seconds", str(arguments.seconds)]
            command += ["--max-concurrency", str(arguments.max_concurrency)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            figures = Figures(**json.loads(output))
            show(figures)
            for field, title in _TITLES.items():
                unit = 100 if title.startswith("%") else 1
                tables[title][f"{shards} shards"] = getattr(figures, field) * unit
        plot = only(plot_bars, _TITLES["start"], _TITLES["kilobytes"], _TITLES["close"])
        run.finish(arguments, "manager", tables, plot)


if __name__ == "__main__":
    main()
