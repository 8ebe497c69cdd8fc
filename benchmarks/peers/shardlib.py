"""shardlib: a Shard with on_socket_dispatch, or with a listener to an event that never comes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.client import Job, Meter
from benchmarks.stream import LAST, PLAIN
from shardlib import IdentifyGate, Shard
from shardlib.dispatch import Dispatcher, Mailbox, Pool, Worker
from shardlib.waiting import Alarm

# Where callbacks are called, by the name of the place.
DISPATCHERS: dict[str, Callable[[], Dispatcher | None]] = {
    "": lambda: None,
    "reader": lambda: None,
    "Mailbox": Mailbox,
    "Worker": Worker,
    "Pool": lambda: Pool(workers=4),
    "Pool with a key": lambda: Pool(workers=4, key=lambda event, data: event),
}
EVENTS = "events()"


def receive(job: Job, meter: Meter) -> None:
    if job.place == EVENTS:
        _pull(_create(job), job, meter)
    dispatcher = DISPATCHERS[job.place]()
    shard = _create(job, dispatcher=dispatcher)
    if job.listens:
        shard.on_socket_dispatch = meter.on_event
    shard.on(LAST, meter.finish)
    shard.connect(job.url)
    if isinstance(dispatcher, Mailbox):
        _run(dispatcher)
    shard.join()


def _pull(shard: Shard, job: Job, meter: Meter) -> None:
    with shard.events() as events:
        shard.connect(job.url)
        for event in events:
            meter.on_event(event)
            if event.name == LAST:
                meter.finish()


def _run(mailbox: Mailbox) -> None:
    """Run a mailbox whenever it wakes this thread, as a GUI's loop does."""
    alarm = Alarm()
    mailbox.on_wake = alarm.ring
    while True:
        alarm.wait(None)
        mailbox.run_pending()


def idle(job: Job) -> Iterator[None]:
    """Yield whenever one more shard is ready."""
    shards = []
    while True:
        shard = _create(job)
        shard.connect(job.url)
        shard.wait_until_ready()
        shards.append(shard)
        yield


# Of all shards, as by default for those of a token; but it lets them identify at once.
_GATE = IdentifyGate(interval=0.001, slack=0)
# Each shard of the process has an id of its own, as the shards of a bot have.
_SHARD_IDS = itertools.count()
_MOST_SHARDS = 1000


def _create(job: Job, **options: Any) -> Shard:
    return Shard(
        "benchmark",
        0,
        shard_id=next(_SHARD_IDS),
        shard_count=_MOST_SHARDS,
        compression=None if job.compression == PLAIN else job.compression,
        json=job.codec(),
        ssl_context=job.ssl_context(),
        identify_gate=_GATE,
        **options,
    )
