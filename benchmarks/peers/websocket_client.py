"""websocket-client: its recv(), then inflating and decoding as in the bare loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import websocket

from benchmarks.client import Job, Meter
from benchmarks.peers.inflating import hand_over


def receive(job: Job, meter: Meter) -> None:
    client = websocket.create_connection(job.url, sslopt={"context": job.ssl_context()})
    messages: Iterator[Any] = iter(client.recv, object())  # str, if it is plain text
    hand_over(messages, job, meter)
