"""Resharding under traffic: no event may be lost, none delivered twice, none out of order.

::

    python -m benchmarks.reshard --from 4 --to 8 --rate 500

A :class:`~shardlib.ShardManager` runs the shards of a local gateway. Several threads dispatch
numbered events, each for guilds of its own, and note what they have dispatched, while the manager
changes the number of shards. The command prints how many events were lost, delivered twice, and out
of order within their guild.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shardlib import GatewayBot, IdentifyGate, Intents, ShardManager
from shardlib.testing import LocalGateway

EVENT = "MESSAGE_CREATE"
GUILDS = 24
THREADS = 4

# Seconds that the rest may take to arrive when nothing is dispatched any more.
_TIME_TO_ARRIVE = 20.0


@dataclass
class Figures:
    """What has become of the events.

    :ivar issued: how many were dispatched to a session at least.
    :ivar received: how many came to listeners, those that came twice included.
    :ivar unreachable: how many were dispatched while no session had their guild.
    """

    issued: int
    received: int
    unreachable: int
    lost: int
    doubled: int
    out_of_order: int


class Ledger:
    """What the gateway has dispatched, and what listeners have got, by guild.

    :param gateway: that dispatches the events.
    :param event: the name of the events.
    """

    def __init__(self, gateway: LocalGateway, event: str = EVENT) -> None:
        self._gateway = gateway
        self._event = event
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        # The numbers, in their order.
        self._issued: dict[str, list[int]] = {}
        self._received: dict[str, list[int]] = {}
        self._unreachable = 0

    def issue(self, guild_id: str) -> None:
        """Dispatch the next event of a guild. One thread at a time for each guild."""
        number = next(self._numbers)
        data = {"id": str(number), "guild_id": guild_id, "content": f"number {number}"}
        with self._lock:
            self._issued.setdefault(guild_id, []).append(number)
        if not self._gateway.dispatch(self._event, data):
            with self._lock:
                self._issued[guild_id].remove(number)
                self._unreachable += 1

    @contextlib.contextmanager
    def traffic(
        self, rate: float, guild_ids: Sequence[str], threads: int = THREADS
    ) -> Iterator[None]:
        """Dispatch events from several threads while the block runs.

        :param rate: events a second, of all threads together.
        :param guild_ids: the guilds of the events.
        """
        stop = threading.Event()

        def run(own: Sequence[str]) -> None:
            guilds = itertools.cycle(own)
            due = time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                self.issue(next(guilds))
                due += threads / rate

        running = [
            threading.Thread(target=run, args=(guild_ids[index::threads],), name=f"issuer-{index}")
            for index in range(threads)
        ]
        for thread in running:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in running:
                thread.join()

    def receive(self, data: dict[str, Any]) -> None:
        """Note that a listener has got an event. Any thread."""
        with self._lock:
            self._received.setdefault(data["guild_id"], []).append(int(data["id"]))

    def listener(self, shard: Any, data: dict[str, Any]) -> None:
        """:meth:`receive`, for :meth:`ShardManager.on`."""
        self.receive(data)

    def figures(self) -> Figures:
        """Compare what was dispatched with what listeners have got."""
        with self._lock:
            issued = {guild: list(numbers) for guild, numbers in self._issued.items()}
            received = {guild: list(numbers) for guild, numbers in self._received.items()}
        lost = doubled = out_of_order = 0
        for guild, numbers in issued.items():
            counts = Counter(received.get(guild, ()))
            lost += sum(number not in counts for number in numbers)
            doubled += counts.total() - len(counts)
            first_times = list(dict.fromkeys(received.get(guild, ())))
            out_of_order += sum(later < sooner for sooner, later in itertools.pairwise(first_times))
        total = sum(map(len, issued.values()))
        seen = sum(map(len, received.values()))
        return Figures(total, seen, self._unreachable, lost, doubled, out_of_order)

    def await_all(self, timeout: float = _TIME_TO_ARRIVE) -> Figures:
        """Wait until all events have come, and return the figures; those at the end, if not."""
        deadline = time.monotonic() + timeout
        while (figures := self.figures()).lost and time.monotonic() < deadline:
            time.sleep(0.02)
        return figures


def make_gateway(**options: Any) -> LocalGateway:
    """A gateway whose guilds reach all shards, at which many may identify at once."""
    return LocalGateway(
        **{
            "guilds": GUILDS,
            "members": 1,
            "max_concurrency": 16,
            "identify_interval": 0,
            "session_start_limit": 10_000,
            **options,
        }
    )


def make_manager(
    gateway: LocalGateway, shard_count: int, intents: int = Intents.all(), **options: Any
) -> ShardManager:
    """A manager of the gateway's shards that identifies and connects again at once."""
    return ShardManager(
        gateway.token,
        intents,
        shard_count,
        **{
            "gateway_bot": GatewayBot(gateway.url, shard_count, 10_000, 10_000, 0.0, 16),
            "identify_gate": IdentifyGate(16, 0.001, slack=0, daily_limit=10**9),
            **options,
        },
    )


def guild_ids(gateway: LocalGateway) -> list[str]:
    """The ids of the gateway's guilds."""
    return list(gateway.world.guilds)


def run(old: int, new: int, rate: float) -> tuple[Figures, float]:
    """Change the number of shards under traffic. Returns the figures, and the seconds it took."""
    with make_gateway() as gateway, make_manager(gateway, old) as manager:
        ledger = Ledger(gateway)
        manager.on(EVENT, ledger.listener)
        manager.connect()
        manager.wait_until_ready(60)
        with ledger.traffic(rate, guild_ids(gateway)):
            time.sleep(1)
            began = time.monotonic()
            manager.reshard(new, timeout=120)
            seconds = time.monotonic() - began
            time.sleep(1)
        return ledger.await_all(), seconds


def main() -> int:
    """Run the command; return its exit status, 1 if an event was lost, doubled or out of order."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reshard", description=__doc__)
    parser.add_argument("--from", dest="old", type=int, default=4, metavar="N")
    parser.add_argument("--to", dest="new", type=int, default=8, metavar="N")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    options = parser.parse_args()
    figures, seconds = run(options.old, options.new, options.rate)
    print(
        f"from {options.old} to {options.new} shards in {seconds:.2f} seconds: "
        f"issued {figures.issued}, lost {figures.lost}, doubled {figures.doubled}, "
        f"out of order {figures.out_of_order}"
    )
    return 1 if figures.lost or figures.doubled or figures.out_of_order else 0


if __name__ == "__main__":
    sys.exit(main())
