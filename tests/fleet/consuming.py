"""What the tests of consumers ask a consumer for."""

from __future__ import annotations

from collections.abc import Callable

from shardlib.fleet.consumer import Consumer
from tests.support import not_none

MakeConsumer = Callable[..., Consumer]
"""Makes a consumer of the number of shards that is given, and with the options that are given."""


def consume(consumer: Consumer, count: int) -> list[str]:
    """The ids of the next events, in a loop that then asks for one more and is stopped."""
    ids: list[str] = []
    for event in consumer:
        ids.append(event.id)
        if len(ids) == count:
            consumer.stop()
    return ids


def get(consumer: Consumer, count: int) -> list[str]:
    """The ids of the next events, of which none is acknowledged."""
    return [not_none(consumer.get(10)).id for _ in range(count)]
