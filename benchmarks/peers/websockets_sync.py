"""websockets with threads: its recv(), then inflating and decoding as in the bare loop."""

from __future__ import annotations

from websockets.sync.client import connect

from benchmarks.client import Job, Meter
from benchmarks.peers.inflating import hand_over


def receive(job: Job, meter: Meter) -> None:
    client = connect(
        job.url,
        ssl=job.ssl_context(),
        compression=None,
        max_size=None,
        proxy=None,
        ping_interval=None,  # a client of Discord's has heartbeats of another kind
    )
    hand_over(iter(lambda: client.recv(decode=False), object()), job, meter)
