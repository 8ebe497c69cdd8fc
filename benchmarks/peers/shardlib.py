"""shardlib: a Shard with on_socket_dispatch, or with a listener to an event that never comes."""

from __future__ import annotations

from benchmarks.client import Job, Meter
from benchmarks.stream import LAST
from shardlib import IdentifyGate, Shard


def receive(job: Job, meter: Meter) -> None:
    shard = Shard(
        "benchmark",
        0,
        compression=job.compression,
        json=job.codec(),
        ssl_context=job.ssl_context(),
        identify_gate=IdentifyGate(interval=0.001),
    )
    if job.listens:
        shard.on_socket_dispatch = meter.on_event
    shard.on(LAST, meter.finish)
    shard.connect(job.url)
    shard.join()
