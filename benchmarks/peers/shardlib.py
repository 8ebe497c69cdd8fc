"""shardlib: a Shard with on_socket_dispatch, or with a listener to an event that never comes."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.client import Job, Meter
from benchmarks.stream import LAST, PLAIN
from shardlib import IdentifyGate, Shard


def receive(job: Job, meter: Meter) -> None:
    shard = _create(job)
    if job.listens:
        shard.on_socket_dispatch = meter.on_event
    shard.on(LAST, meter.finish)
    shard.connect(job.url)
    shard.join()


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
_GATE = IdentifyGate(interval=0.001)


def _create(job: Job) -> Shard:
    return Shard(
        "benchmark",
        0,
        compression=None if job.compression == PLAIN else job.compression,
        json=job.codec(),
        ssl_context=job.ssl_context(),
        identify_gate=_GATE,
    )
