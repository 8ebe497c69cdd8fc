"""Consumers that share single events, without order, against real servers."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from shardlib.fleet.consumer import Consumer
from shardlib.fleet.fleetevents import FleetEvent, Gap
from shardlib.fleet.keys import Keys
from tests.fleet.consuming import MakeConsumer, consume
from tests.fleet.feed import Feed
from tests.redis_server import RedisServer
from tests.support import NEVER, not_none, wait_until


def pending(client: redis.Redis, keys: Keys) -> int:
    found: Any = client.xpending(keys.shard(0).events, "web")
    count: int = found["pending"]
    return count


def get_all(consumer: Consumer, count: int) -> list[FleetEvent]:
    return [not_none(consumer.get(10)) for _ in range(count)]


def ids_of(events: list[FleetEvent]) -> list[str]:
    return [event.id for event in events]


def test_consumers_share_the_events_of_a_shard(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    ids = feed.append(150)
    one, two = (make_consumer(ordered=False) for _ in range(2))
    events = [not_none(one.get(10))]
    events += get_all(two, 50)
    events += get_all(one, 99)
    assert sorted(ids_of(events)) == sorted(ids)
    assert one.lag() == {0: 150}
    assert all(one.ack(event) or two.ack(event) for event in events)
    assert not one.ack(events[0])
    one.close()
    two.close()
    assert pending(client, keys) == 0
    assert one.lag() == {0: 0}


def test_a_loop_acknowledges_and_hands_the_rest_back(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    ids = feed.append(20)
    assert consume(make_consumer(ordered=False, retry_after=1000), 5) == ids[:5]
    assert pending(client, keys) == 15  # read ahead
    other = make_consumer(ordered=False, retry_after=1000)
    assert sorted(consume(other, 15)) == sorted(ids[5:])
    assert pending(client, keys) == 0


def test_events_of_a_dead_consumer_go_to_another(make_consumer: MakeConsumer, feed: Feed) -> None:
    ids = feed.append(3)
    dead = make_consumer(ordered=False)
    assert ids_of(get_all(dead, 3)) == ids
    assert dead.ack(FleetEvent(ids[0], 0, "", 0, None, ""))
    wait_until(lambda: dead.get(0.05) is None and dead.lag() == {0: 2})
    other = make_consumer(ordered=False, retry_after=0.3)
    assert ids_of(get_all(other, 2)) == ids[1:]


def test_redis_forgets_consumers_that_have_ended(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    def names() -> set[str]:
        consumers: Any = client.xinfo_consumers(keys.shard(0).events, "web")
        return {each["name"].decode() for each in consumers}

    feed.append(3)
    with make_consumer(ordered=False, name="ended") as ended:
        for event in get_all(ended, 3):
            ended.ack(event)
    (held,) = feed.append(1)
    get_all(make_consumer(ordered=False, name="killed"), 1)
    assert names() == {"ended", "killed"}

    def is_forgotten() -> bool:
        with make_consumer(ordered=False, retry_after=0.1, name="next") as consumer:
            consumer.get(0)
        return "ended" not in names()

    wait_until(is_forgotten)
    assert not_none(make_consumer(ordered=False, retry_after=0.1).get(10)).id == held


def test_a_consumer_gets_its_own_events_first_when_it_begins_again(
    make_consumer: MakeConsumer, feed: Feed
) -> None:
    ids = feed.append(3)
    assert ids_of(get_all(make_consumer(ordered=False, name="me"), 3)) == ids
    ids += feed.append(2)
    again = make_consumer(ordered=False, name="me")
    assert ids_of(get_all(again, 5)) == ids


def test_a_consumer_does_not_get_again_what_it_has_in_hand(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    """It might still be at it; another consumer gets the event, or whoever comes after this one."""
    ids = feed.append(1)
    consumer = make_consumer(ordered=False, retry_after=0.2)
    assert ids_of(get_all(consumer, 1)) == ids

    def was_claimed_again() -> bool:
        assert consumer.get(0.05) is None
        found: Any = client.xpending_range(keys.shard(0).events, "web", "-", "+", 1)
        return bool(found[0]["times_delivered"] > 2)

    wait_until(was_claimed_again, 30)
    consumer.close()
    assert ids_of(get_all(make_consumer(ordered=False, retry_after=0.2), 1)) == ids


def test_what_was_read_ahead_for_too_long_goes_to_others(
    make_consumer: MakeConsumer, feed: Feed
) -> None:
    feed.append(10)
    slow = make_consumer(ordered=False, retry_after=1.0)
    event = not_none(slow.get(10))
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + 0.6)
    assert slow.ack(event)
    rest = get_all(slow, 9)  # handed back, and taken over again
    assert event.id not in ids_of(rest)
    assert len({*ids_of(rest)}) == 9


def test_an_event_that_takes_longer_than_retry_after_is_told(
    make_consumer: MakeConsumer, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    feed.append(2)
    slow = make_consumer(ordered=False, retry_after=0.2)
    first, _ = get_all(slow, 2)
    other = make_consumer(ordered=False, retry_after=0.2)
    assert first.id in ids_of(get_all(other, 2))  # the time is over
    assert slow.ack(first)
    assert "the group web acknowledged an event" in caplog.text
    assert "retry_after is 0.2" in caplog.text


def test_an_event_that_is_handled_in_time_is_not_told(
    make_consumer: MakeConsumer, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    feed.append(1)
    consumer = make_consumer(ordered=False)
    assert consumer.ack(not_none(consumer.get(10)))
    assert "retry_after" not in caplog.text


def test_a_group_that_redis_has_lost_is_made_again(
    make_consumer: MakeConsumer, client: redis.Redis, feed: Feed
) -> None:
    told: list[Gap] = []
    feed.append(3)
    consumer = make_consumer(ordered=False, on_gap=told.append, start="newest")
    assert consumer.get(0) is None
    feed.append(2)
    for event in get_all(consumer, 2):
        consumer.ack(event)
    client.flushall()
    feed.remember()
    ids = feed.append(2)
    assert ids_of(get_all(consumer, 2)) == ids
    assert told == [Gap(0, "data lost", None)]


def test_a_gap_is_told_again_if_the_function_that_is_told_raises(
    make_consumer: MakeConsumer, client: redis.Redis, feed: Feed
) -> None:
    told: list[Gap] = []

    def fail_at_first(gap: Gap) -> None:
        told.append(gap)
        if len(told) == 1:
            raise OSError

    feed.append(1)
    consumer = make_consumer(ordered=False, on_gap=fail_at_first)
    consumer.ack(not_none(consumer.get(10)))
    client.flushall()
    feed.remember()
    ids = feed.append(2)
    with pytest.raises(OSError):
        consumer.get(10)
    assert ids_of(get_all(consumer, 2)) == ids
    assert told == [Gap(0, "data lost", None)] * 2


def test_a_group_that_redis_has_lost_delays_the_events_of_no_other_shard(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What others have left is looked for too late to help.
    monkeypatch.setattr("shardlib.fleet.sharedstreams._LONGEST_TAKE_OVER", NEVER)
    ids = Feed(client, keys, 2).append_everywhere(4)
    consumer = make_consumer(2, ordered=False, on_gap=lambda gap: None, retry_after=4 * NEVER)
    for _ in consumer:
        break  # what was read ahead is to be read again
    client.delete(keys.shard(1).events)
    found: set[str] = set()

    def has_all() -> bool:
        event = consumer.get(0)
        found.update([] if event is None else [event.id])
        return found == set(ids[0])

    wait_until(has_all, 15)


def test_events_that_were_trimmed_unread_are_told(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys
) -> None:
    feed = Feed(client, keys, keep_events=100)
    told: list[Gap] = []
    consumer = make_consumer(ordered=False, on_gap=told.append)
    feed.append(1)
    consumer.ack(not_none(consumer.get(10)))
    for _ in range(3):
        feed.append(200)
    event = not_none(consumer.get(10))
    assert event.sequence > 200
    assert told == [Gap(0, "trimmed", None)]
    get_all(consumer, 99)
    assert len(told) == 1
    new = make_consumer(group="new", ordered=False, on_gap=told.append)
    get_all(new, 100)
    assert len(told) == 1


def test_events_that_were_trimmed_while_in_hand_are_told_and_counted(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    told: list[Gap] = []
    ids = feed.append(5)
    get_all(make_consumer(ordered=False, name="me"), 5)
    client.xtrim(keys.shard(0).events, maxlen=1, approximate=False)
    again = make_consumer(ordered=False, name="me", on_gap=told.append)
    assert ids_of(get_all(again, 1)) == ids[4:]
    assert sum(not_none(gap.events) for gap in told) == 4
    wait_until(lambda: again.get(0.05) is None and pending(client, keys) == 1)


def test_a_dead_consumers_events_that_were_trimmed_are_told_and_counted(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    told: list[Gap] = []
    ids = feed.append(5)
    get_all(make_consumer(ordered=False), 5)
    client.xtrim(keys.shard(0).events, maxlen=1, approximate=False)
    other = make_consumer(ordered=False, retry_after=0.2, on_gap=told.append)
    assert ids_of(get_all(other, 1)) == ids[4:]
    assert told == [Gap(0, "trimmed", 4)]


def test_events_are_read_on_after_redis_was_away(
    make_consumer: MakeConsumer,
    redis_server: RedisServer,
    client: redis.Redis,
    keys: Keys,
    feed: Feed,
) -> None:
    ids = feed.append(4)
    consumer = make_consumer(ordered=False)
    event = not_none(consumer.get(10))
    redis_server.kill()
    consumer.ack(event)
    assert ids_of(get_all(consumer, 3)) == ids[1:]  # read ahead
    assert consumer.get(0.3) is None
    assert consumer.stats.outages == 1
    redis_server.start()
    ids = feed.append(4)
    assert ids_of(get_all(consumer, 4)) == ids
    consumer.close()
    assert pending(client, keys) == 7


def test_events_whose_delivery_was_lost_on_its_way_are_read_again(
    redis_server: RedisServer, keys: Keys, feed: Feed
) -> None:
    client = redis_server.client(timeout=0.3)
    with Consumer(client, keys, "web", shard_count=lambda: 1, ordered=False) as consumer:
        assert consumer.get(0) is None
        ids = feed.append(3)
        redis_server.stop_answering()
        # Redis gets the command, and its answer finds nobody.
        assert consumer.get(0.5) is None
        assert consumer.stats.outages == 1
        redis_server.answer_again()
        assert ids_of(get_all(consumer, 3)) == ids
