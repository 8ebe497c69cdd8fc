"""The floor: the same messages, inflated and decoded in memory, without a socket.

No client can be cheaper with the same modules.
"""

from __future__ import annotations

import pickle

from benchmarks.client import Job, Meter
from benchmarks.peers.inflating import inflater
from benchmarks.stream import LAST


def receive(job: Job, meter: Meter) -> None:
    with open(job.url, "rb") as file:
        messages = pickle.load(file)
    inflate, loads = inflater(job.compression), job.codec().loads
    for message in messages:
        payload = loads(inflate(message))
        meter.on_event(payload)
        if payload["t"] == LAST:
            meter.finish()
