"""websockets with threads: its recv(), then inflating and decoding as in the bare loop."""

from __future__ import annotations

from websockets.sync.client import connect

from benchmarks.client import Job, Meter
from benchmarks.peers.inflating import inflater
from benchmarks.stream import LAST


def receive(job: Job, meter: Meter) -> None:
    inflate, loads = inflater(job.compression), job.codec().loads
    client = connect(
        job.url,
        ssl=job.ssl_context(),
        compression=None,
        max_size=None,
        proxy=None,
        ping_interval=None,  # a client of Discord's has heartbeats of another kind
    )
    while True:
        text = inflate(client.recv(decode=False))
        if text is None:
            continue
        payload = loads(text)
        meter.on_event(payload)
        if payload["t"] == LAST:
            meter.finish()
            return
