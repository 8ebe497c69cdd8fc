"""websocket-client: its recv(), then inflating and decoding as in the bare loop."""

from __future__ import annotations

from typing import Any

import websocket

from benchmarks.client import Job, Meter
from benchmarks.peers.inflating import inflater
from benchmarks.stream import LAST


def receive(job: Job, meter: Meter) -> None:
    inflate, loads = inflater(job.compression), job.codec().loads
    client = websocket.create_connection(job.url, sslopt={"context": job.ssl_context()})
    while True:
        message: Any = client.recv()  # str, if it is plain text
        text = inflate(message)
        if text is None:
            continue
        payload = loads(text)
        meter.on_event(payload)
        if payload["t"] == LAST:
            meter.finish()
            return
