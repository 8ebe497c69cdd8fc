"""A consumer that tries an event again, and puts aside what it cannot handle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import redis

from shardlib.fleet import FleetEvent
from tests.fleet.consuming import MakeConsumer
from tests.fleet.feed import Feed


# begin: dead letters
def handle_or_put_aside(
    event: FleetEvent,
    handle: Callable[[FleetEvent], object],
    letters: redis.Redis,
    pauses: tuple[float, ...] = (0, 1, 5),  # seconds before each try
) -> None:
    for pause in pauses:
        time.sleep(pause)
        try:
            handle(event)
        except Exception as error:
            why = repr(error)
        else:
            return
    letters.rpush("mybot-dead-letters", json.dumps([event.id, why, event.raw]))


# end: dead letters


def test_an_event_that_cannot_be_handled_is_put_aside(
    make_consumer: MakeConsumer, client: redis.Redis, feed: Feed
) -> None:
    ids = feed.append(3)
    tries: list[str] = []
    consumer = make_consumer()

    def handle(event: FleetEvent) -> None:
        tries.append(event.id)
        if event.id == ids[1] or len(tries) == 1:  # the first event fails once, the second always
            raise OSError("the data base is away")
        if event.id == ids[2]:
            consumer.stop()

    for event in consumer:
        handle_or_put_aside(event, handle, client, pauses=(0, 0, 0))
    assert tries == [ids[0]] * 2 + [ids[1]] * 3 + [ids[2]]
    letters: Any = client.lrange("mybot-dead-letters", 0, -1)
    event_id, why, raw = json.loads(letters[0])
    assert len(letters) == 1 and event_id == ids[1] and "data base" in why
    assert json.loads(raw)["t"] == "MESSAGE_CREATE"
    consumer.close()
    assert consumer.lag() == {0: 0}
