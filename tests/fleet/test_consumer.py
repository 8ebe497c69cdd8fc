"""A consumer that reads the events of each shard in order, against real servers."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis
import ujson

from shardlib import ForkedProcess
from shardlib.fleet import Fleet
from shardlib.fleet.calling import call_all
from shardlib.fleet.consumer import Consumer
from shardlib.fleet.errors import FleetError
from shardlib.fleet.fleetevents import BEGINNING, Gap, Position, position_of
from shardlib.fleet.groupscripts import (
    GroupOutcome,
    GroupScripts,
    StreamClaim,
    StreamRequest,
    lags,
)
from shardlib.fleet.keys import Keys
from shardlib.fleet.orderedstreams import FLUSH_INTERVAL, POLL_INTERVAL, OrderedStreams
from shardlib.fleet.scripts import new_token
from tests.fleet.consuming import MakeConsumer, consume, get
from tests.fleet.feed import Feed
from tests.fleet.owner import LEASE
from tests.redis_server import RedisServer, make_cluster
from tests.support import Thread, in_background, not_none, wait_until


def watermark(client: redis.Redis, keys: Keys, shard_id: int = 0) -> bytes | None:
    found: bytes | None = client.hget(keys.group(shard_id, "web").state, "watermark")  # type: ignore[assignment]
    return found


def owner(client: redis.Redis, keys: Keys, shard_id: int = 0) -> bytes | None:
    found: bytes | None = client.hget(keys.group(shard_id, "web").state, "owner")  # type: ignore[assignment]
    return found


def redis_time(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1_000_000)


def end_lease(client: redis.Redis, keys: Keys, shard_id: int = 0) -> None:
    client.pexpire(keys.group(shard_id, "web").lease, 0)


# What comes


def test_the_events_of_each_shard_come_in_order_and_with_all_that_they_hold(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys
) -> None:
    feed = Feed(client, keys, 3)
    ids = feed.append_everywhere(250)
    consumer = make_consumer(3)
    seen: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for event in consumer:
        seen[event.shard_id].append(event.id)
        assert event.name == "MESSAGE_CREATE"
        assert event.data == {"content": str(event.sequence)}
        assert ujson.loads(event.raw)["d"] == event.data
        assert event.id.endswith(f"-{event.sequence}")
        if consumer.stats.events == 750:
            consumer.stop()
    assert seen == ids


def test_each_group_gets_all_events_and_goes_on_where_it_was(
    make_consumer: MakeConsumer, feed: Feed
) -> None:
    ids = feed.append(10)
    assert consume(make_consumer(), 4) == ids[:4]
    assert consume(make_consumer(group="other"), 10) == ids
    assert consume(make_consumer(), 6) == ids[4:]


def test_only_the_events_that_are_wanted_are_decoded(
    make_consumer: MakeConsumer, feed: Feed
) -> None:
    class CountingJSON:
        calls = 0

        def loads(self, text: bytes) -> Any:
            self.calls += 1
            return ujson.loads(text)

        def dumps(self, value: Any) -> str:
            return ujson.dumps(value)

    feed.append(20, name="TYPING_START")
    (wanted,) = feed.append(1)
    feed.append(20, name="TYPING_START")
    json = CountingJSON()
    consumer = make_consumer(events={"MESSAGE_CREATE"}, json=json)
    assert consume(consumer, 1) == [wanted]
    assert json.calls == 1
    consumer = make_consumer(events={"MESSAGE_CREATE"}, json=json)
    assert consumer.get(0.1) is None
    assert json.calls == 1
    consumer.close()
    assert consumer.lag() == {0: 0}  # those that were not wanted are handled, too


def test_an_event_that_is_no_json_is_passed_and_told_of(
    make_consumer: MakeConsumer,
    client: redis.Redis,
    keys: Keys,
    feed: Feed,
    caplog: pytest.LogCaptureFixture,
) -> None:
    feed.append(1)
    client.xadd(keys.shard(0).events, {"p": b"{nonsense"}, id="9999999999999-1")
    client.xadd(keys.shard(0).events, {"p": b'{"op":0,"s":2,"t":"X","d":1}'}, id="9999999999999-2")
    consumer = make_consumer()
    assert [not_none(consumer.get(10)).name for _ in range(2)] == ["MESSAGE_CREATE", "X"]
    assert consumer.stats.unreadable == 1
    assert "the event was 0:9999999999999-1" in caplog.text


def test_a_new_group_may_begin_with_the_newest_events(
    make_consumer: MakeConsumer, feed: Feed
) -> None:
    feed.append(10)
    consumer = make_consumer(start="newest")
    assert consumer.get(0) is None
    ids = feed.append(3)
    assert get(consumer, 3) == ids


def test_events_come_soon_after_they_were_appended(make_consumer: MakeConsumer, feed: Feed) -> None:
    consumer = make_consumer()
    assert consumer.get(0) is None
    waiting = Thread(lambda: consumer.get(20))
    (entry_id,) = feed.append(1)
    assert waiting.finish().id == entry_id  # type: ignore[attr-defined]


# What is acknowledged


def test_an_event_is_acknowledged_when_the_loop_asks_for_the_next(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    ids = feed.append(3)
    consumer = make_consumer()
    for event in consumer:
        if event.id == ids[0]:
            assert watermark(client, keys) != ids[0].partition(":")[2].encode()
        else:
            break
    assert watermark(client, keys) == ids[0].partition(":")[2].encode()
    assert consume(consumer, 2) == ids[1:]  # the one in hand at the break comes again


def test_an_event_whose_handling_fails_comes_again(make_consumer: MakeConsumer, feed: Feed) -> None:
    ids = feed.append(3)
    with pytest.raises(ZeroDivisionError), make_consumer() as consumer:
        for event in consumer:
            if event.id == ids[1]:
                raise ZeroDivisionError
    assert consume(make_consumer(), 2) == ids[1:]


def test_many_events_are_acknowledged_at_once(make_consumer: MakeConsumer, feed: Feed) -> None:
    ids = feed.append(10)
    consumer = make_consumer()
    events = [not_none(consumer.get(10)) for _ in range(10)]
    assert [event.id for event in events] == ids
    assert consumer.ack(events[6])
    assert not consumer.ack(events[6])
    assert not consumer.ack(events[3])
    consumer.close()
    assert consume(make_consumer(), 3) == ids[7:]


def test_a_late_acknowledgement_moves_nothing_back(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    ids = feed.append(10)
    late = make_consumer()
    events = [not_none(late.get(10)) for _ in range(10)]
    late.ack(events[1])
    end_lease(client, keys)
    assert consume(make_consumer(), 10) == ids
    end = watermark(client, keys)
    assert late.ack(events[3])  # it cannot know yet
    wait_until(lambda: late.get(0) is None and owner(client, keys) == late.name.encode())
    assert not late.ack(events[4])  # since it has claimed the stream anew
    late.close()
    assert watermark(client, keys) == end


def test_a_consumer_that_was_paused_drops_what_it_had_read_ahead(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    ids = feed.append(10)
    paused = make_consumer()
    event = not_none(paused.get(10))
    assert event.id == ids[0]
    end_lease(client, keys)
    other = make_consumer()
    assert get(other, 10) == ids
    assert paused.ack(event)  # it cannot know yet
    acknowledged = time.monotonic()
    wait_until(lambda: time.monotonic() > acknowledged + 2 * FLUSH_INTERVAL)
    assert paused.get(0) is None
    assert not paused.ack(event)
    assert owner(client, keys) == other.name.encode()


def test_an_event_is_delivered_only_while_the_stream_is_held(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    lease = 0.3
    scripts = GroupScripts(client, keys, "web", "paused", lease=lease, ordered=True)
    streams = OrderedStreams(scripts, client, keys, lambda: 1, lease=lease, newest=False, seen=None)
    feed.append(5)
    streams.work()
    streams.keeper.stop()  # as if the process was stopped
    streams.fill(10)
    claimed = time.monotonic()
    wait_until(lambda: time.monotonic() > claimed + lease)
    assert streams.may_deliver(streams.buffer[0])  # nobody has claimed the stream
    streams.delivered(streams.buffer[0])
    other = make_consumer()
    wait_until(lambda: other.get(0) is not None)
    assert not streams.may_deliver(streams.buffer[0])
    assert not streams.buffer


def test_two_claims_of_a_stream_exclude_each_other(client: redis.Redis, keys: Keys) -> None:
    def group(name: str) -> GroupScripts:
        return GroupScripts(client, keys, "web", name, lease=LEASE, ordered=True)

    def claim(scripts: GroupScripts, watermark: Position = BEGINNING) -> tuple[str, Any]:
        token = new_token()
        request = StreamRequest(token, watermark, newest=False, patient=False)
        answer = scripts.claim({0: request})[0]
        assert isinstance(answer, StreamClaim)
        return token, answer

    one, two = group("one"), group("two")
    token, answer = claim(one)
    assert answer == (GroupOutcome.CLAIMED, Position(0, 0), True, 0)
    assert claim(two)[1].outcome is GroupOutcome.HELD
    assert one.acknowledge({0: (token, Position(5, 7))}) == {0: GroupOutcome.ACKNOWLEDGED}
    end_lease(client, keys)
    new_owner, answer = claim(two)
    assert answer == (GroupOutcome.CLAIMED, Position(5, 7), False, 0)
    for call in (
        one.renew({0: token}),
        one.release({0: token}),
        one.acknowledge({0: (token, Position(6, 0))}),
    ):
        assert call == {0: GroupOutcome.FENCED}
    assert two.acknowledge({0: (new_owner, Position(5, 6))}) == {0: GroupOutcome.ACKNOWLEDGED}
    assert watermark(client, keys) == b"5-7"
    # Who knows of more that was handled brings it along, and who knows of less does not.
    two.release({0: new_owner})
    token, answer = claim(one, Position(5, 10))
    assert answer.watermark == Position(5, 10)
    one.release({0: token})
    assert claim(two, Position(5, 9))[1].watermark == Position(5, 10)
    client.flushall()
    assert one.renew({0: token}) == {0: GroupOutcome.LOST}


# Sharing


def test_consumers_share_the_streams_as_they_come_and_go(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys
) -> None:
    feed = Feed(client, keys, 6)
    consumers = [make_consumer(6) for _ in range(3)]

    def shares() -> list[int]:
        owners = [owner(client, keys, shard_id) for shard_id in range(6)]
        return [owners.count(consumer.name.encode()) for consumer in consumers]

    def are_shared(expected: list[int], asking: list[Consumer]) -> None:
        def look() -> bool:
            for consumer in asking:
                assert consumer.get(0) is None
            return shares() == expected

        wait_until(look)

    are_shared([6, 0, 0], consumers[:1])
    are_shared([3, 3, 0], consumers[:2])
    are_shared([2, 2, 2], consumers)
    consumers[1].close()
    are_shared([3, 0, 3], [consumers[0], consumers[2]])
    ids = feed.append_everywhere(3)
    first = get(consumers[0], 9)
    assert sorted(first + get(consumers[2], 9)) == sorted(
        entry_id for shard_ids in ids.values() for entry_id in shard_ids
    )


def test_a_stream_with_an_event_in_hand_is_not_given_away(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys
) -> None:
    feed = Feed(client, keys, 2)
    feed.append_everywhere(1)
    one, two = make_consumer(2), make_consumer(2)
    events = [not_none(one.get(10)) for _ in range(2)]
    assert two.get(0) is None  # which asks for a share
    assert one.get(2 * POLL_INTERVAL) is None
    assert two.get(0) is None
    assert owner(client, keys, 0) == owner(client, keys, 1) == one.name.encode()
    one.ack(events[0])
    one.ack(events[1])

    def is_shared() -> bool:
        event = one.get(0)
        if event is not None:
            one.ack(event)
        return owner(client, keys, 0) != owner(client, keys, 1) and two.get(0) is None

    wait_until(is_shared)


def test_a_stream_is_kept_while_an_event_is_handled_for_longer_than_the_lease(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    feed.append(2)
    consumer = make_consumer(lease=0.3)
    event = not_none(consumer.get(10))
    lease = keys.group(0, "web").lease
    renewals, before = 0, client.pttl(lease)

    def is_renewed() -> bool:
        nonlocal renewals, before
        left = client.pttl(lease)
        renewals, before = renewals + (left > before), left
        return renewals >= 5

    wait_until(is_renewed)
    assert consumer.ack(event)
    assert consumer.get(10) is not None


def test_ordered_and_unordered_consumers_do_not_mix(
    make_consumer: MakeConsumer, feed: Feed
) -> None:
    make_consumer().get(0)
    with pytest.raises(FleetError, match="same value of ordered="):
        make_consumer(ordered=False).get(0)


# Gaps


def test_a_lost_session_is_told_as_a_gap(
    make_consumer: MakeConsumer, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    ids = feed.append(1)
    feed.begin_session("S2")
    ids += feed.append(1)
    gap = Gap(0, "session lost", None)

    told: list[Gap] = []
    consumer = make_consumer(on_gap=told.append)
    assert get(consumer, 2) == ids
    assert told == [gap]
    assert consumer.stats.gaps == 1

    events = [not_none(make_consumer(group="all").get(10)) for _ in range(1)]
    consumer = make_consumer(group="named", events=["SHARDLIB_GAP"])
    event = not_none(consumer.get(10))
    assert (event.name, event.data, event.sequence) == ("SHARDLIB_GAP", gap, 0)
    assert len(events) == 1

    consumer = make_consumer(group="others", events=["MESSAGE_CREATE"])
    assert get(consumer, 2) == ids
    assert "events of shard 0 may be missing (session lost)" in caplog.text


def test_events_that_were_trimmed_unread_are_told_and_counted(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys
) -> None:
    feed = Feed(client, keys, keep_events=100)
    first = feed.append(1)
    assert consume(make_consumer(), 1) == first
    ids = first + feed.append(500)
    ids += feed.append(1)  # each batch is trimmed as a whole
    entries: Any = client.xrange(keys.shard(0).events, count=1)
    missing = ids.index(f"0:{entries[0][0].decode()}") - 1
    assert missing > 0
    told: list[Gap] = []
    consumer = make_consumer(on_gap=told.append)
    assert get(consumer, 1) == [ids[missing + 1]]
    assert told == [Gap(0, "trimmed", missing)]
    assert get(consumer, 100) == ids[missing + 2 : missing + 102]
    assert len(told) == 1
    # A group that is new has missed nothing.
    assert get(make_consumer(group="new", on_gap=told.append), 1) == [ids[missing + 1]]
    assert len(told) == 1


def test_a_group_older_than_the_stream_misses_what_was_trimmed(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys
) -> None:
    told: list[Gap] = []
    make_consumer(on_gap=told.append).get(0)
    feed = Feed(client, keys, keep_events=100)
    consumer = make_consumer(group="other", on_gap=told.append)
    consumer.get(0)
    consumer.close()
    feed.append(300)
    feed.append(300)
    make_consumer(group="other", on_gap=told.append).get(10)
    assert [gap.reason for gap in told] == ["trimmed"]


def test_sequences_that_are_not_forwarded_are_no_gap(
    make_consumer: MakeConsumer, feed: Feed
) -> None:
    told: list[Gap] = []
    ids = feed.append(450, step=3)
    consumer = make_consumer(on_gap=told.append)
    assert get(consumer, 450) == ids
    assert told == []


# When Redis is away, or forgets


def test_a_consumer_waits_for_redis_and_goes_on_with_the_next_event(
    make_consumer: MakeConsumer,
    redis_server: RedisServer,
    feed: Feed,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = feed.append(3)
    consumer = make_consumer()
    assert not_none(consumer.get(10)).id == ids[0]
    redis_server.kill()
    assert not_none(consumer.get(10)).id == ids[1]  # read ahead
    assert not_none(consumer.get(10)).id == ids[2]
    with caplog.at_level(logging.WARNING):
        assert consumer.get(0.5) is None
        waiting = Thread(lambda: consumer.get(20))
        redis_server.start()
        (entry_id,) = feed.append(1)
        assert waiting.finish().id == entry_id  # type: ignore[attr-defined]
    assert caplog.text.count("Redis cannot be reached") == 1
    assert caplog.text.count("Redis is back") == 1
    assert consumer.stats.outages == 1


def test_a_timeout_ends_the_wait_for_redis_though_events_were_read_ahead(
    make_consumer: MakeConsumer, redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    Feed(client, keys, 5).append_everywhere(100)
    consumer = make_consumer(5)
    assert consumer.get(10) is not None
    redis_server.kill()
    # Until it is time to ask Redis, which takes less than the events last.
    asking = Thread(lambda: wait_until(lambda: consumer.get(0) is None))
    asking.finish()
    assert consumer.stats.outages == 1
    assert consumer.stats.events < 500


def test_repeats_are_dropped_after_redis_has_lost_its_newest_writes(
    make_consumer: MakeConsumer, redis_server: RedisServer, client: redis.Redis, feed: Feed
) -> None:
    feed.append(5)
    consumer = make_consumer()
    for event in [not_none(consumer.get(10)) for _ in range(5)]:
        consumer.ack(event)
    size = redis_server.size_of_log()
    ids = feed.append(5)
    events = [not_none(consumer.get(10)) for _ in range(5)]
    assert [event.id for event in events] == ids
    consumer.ack(events[-1])
    assert consumer.get(0.3) is None
    redis_server.restart_without_tail(redis_server.size_of_log() - size)
    wait_until(lambda: client.ping())
    feed.go_back(5)
    assert feed.append(5) == ids  # by the worker, from its memory
    (entry_id,) = feed.append(1)
    assert not_none(consumer.get(10)).id == entry_id
    assert consumer.stats.gaps == 0


def test_repeats_are_dropped_and_losses_told_after_redis_has_lost_everything(
    forgetful_server: RedisServer, keys: Keys
) -> None:
    client = forgetful_server.client()
    feed = Feed(client, keys)
    told: list[Gap] = []
    consumer = Consumer(
        *(forgetful_server.client(), keys, "web"),
        shard_count=lambda: 1,
        lease=LEASE,
        on_gap=told.append,
    )
    with consumer:
        feed.append(10)
        for event in [not_none(consumer.get(10)) for _ in range(10)]:
            consumer.ack(event)
        forgetful_server.restart()
        feed.remember()
        feed.go_back(5)
        feed.append(5)  # the worker remembers these
        ids = feed.append(2)
        events = [not_none(consumer.get(10)) for _ in range(2)]
        assert [event.id for event in events] == ids
        consumer.ack(events[-1])
        assert told == []

        feed.append(4)  # the worker does not remember these
        forgetful_server.restart()
        feed.remember()
        ids = feed.append(1)
        assert get(consumer, 1) == ids
        assert told == [Gap(0, "data lost", 4)]


def test_who_does_not_remember_a_stream_waits_for_who_does(
    forgetful_server: RedisServer, keys: Keys
) -> None:
    def make() -> Consumer:
        client = forgetful_server.client()
        return Consumer(client, keys, "web", shard_count=lambda: 2, lease=LEASE)

    client = forgetful_server.client()
    feed = Feed(client, keys, 2)

    def owners() -> list[bytes | None]:
        return [owner(client, keys, shard_id) for shard_id in range(2)]

    def ask() -> list[bytes | None]:
        for consumer in consumers:
            assert consumer.get(0) is None
        return owners()

    with make() as one, make() as two:
        consumers = [one, two]
        wait_until(lambda: set(ask()) == {one.name.encode(), two.name.encode()})
        before = owners()
        feed.append_everywhere(1)
        for consumer in consumers:
            assert consumer.ack(not_none(consumer.get(10)))
        forgetful_server.restart()
        for shard_id in range(2):
            feed.go_back(-1, shard_id)  # an event that nobody remembers
            feed.remember(shard_id)
        feed.append_everywhere(1)
        # The first to notice has its own stream again, and cannot have the other one.
        assert not_none(one.get(10)).name == "SHARDLIB_GAP"
        assert None in owners()
        assert one.get(1) is not None
        assert one.get(1) is None
        assert not_none(two.get(10)).name == "SHARDLIB_GAP"
        assert owners() == before


class Restarted:
    """A Redis that has lost all, and whose clock has lost time; and consumers that remember more.

    :param server: which forgets everything when it is restarted.
    :param keys: of the fleet.
    """

    def __init__(self, server: RedisServer, keys: Keys) -> None:
        self.client = server.client()
        self._server = server
        self._keys = keys
        self.told: list[Gap] = []
        self.ahead = round((time.time() + 3600) * 1000)

    def begin(self, session_id: str, epoch: int = 0) -> list[str]:
        """Have a new owner, who knows nothing, append the first two events of a session."""
        feed = Feed(self.client, self._keys)
        feed.begin_session(session_id, epoch=epoch)
        return feed.append(2)

    def consumer(self, **options: Any) -> Consumer:
        return Consumer(
            *(self._server.client(), self._keys, "web"),
            shard_count=lambda: 1,
            lease=LEASE,
            on_gap=self.told.append,
            **options,
        )

    def restart(self) -> None:
        self._server.restart()


@pytest.fixture
def restarted(forgetful_server: RedisServer, keys: Keys) -> Restarted:
    return Restarted(forgetful_server, keys)


def test_new_ids_are_above_those_that_consumers_know_though_the_clock_has_lost_time(
    restarted: Restarted,
) -> None:
    restarted.begin("S1", restarted.ahead)
    with restarted.consumer() as consumer:
        for event in [not_none(consumer.get(10)) for _ in range(2)]:
            consumer.ack(event)
        restarted.restart()
        assert consumer.get(2 * POLL_INTERVAL) is None  # it claims the stream again, of nothing
        ids = restarted.begin("S2")
        assert position_of(ids[0]).epoch > restarted.ahead
        assert get(consumer, 2) == ids


@pytest.mark.parametrize("has_store", [False, True])
def test_events_below_those_that_a_consumer_knows_come_if_the_clock_has_lost_time(
    restarted: Restarted, keys: Keys, has_store: bool
) -> None:
    class Store:
        def get(self, shard_id: int) -> str | None:
            return last

    last: str | None = None
    options = {"seen": Store()} if has_store else {}
    restarted.begin("S1", restarted.ahead)
    with restarted.consumer(**options) as consumer:
        for event in [not_none(consumer.get(10)) for _ in range(2)]:
            last = event.id
            consumer.ack(event)
        restarted.restart()
        ids = restarted.begin("S2")
        assert position_of(ids[0]).epoch < restarted.ahead
        # The worker might have to give back yet what the consumer knows.
        assert consumer.get(2 * POLL_INTERVAL) is None
        end_lease(restarted.client, keys)
        assert get(consumer, 2) == ids
        assert [gap.reason for gap in restarted.told] == ["data lost"]


def test_a_store_that_is_ahead_of_a_new_redis_does_not_hide_its_events(
    restarted: Restarted, keys: Keys
) -> None:
    class Store:
        def get(self, shard_id: int) -> str:
            return f"0:{restarted.ahead}-7"

    ids = restarted.begin("S2")
    with restarted.consumer(seen=Store()) as consumer:  # in a process that knows nothing else
        assert consumer.get(2 * POLL_INTERVAL) is None
        end_lease(restarted.client, keys)
        assert get(consumer, 2) == ids
        assert [gap.reason for gap in restarted.told] == ["data lost"]


def test_a_consumer_waits_while_redis_takes_no_writes(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    ids = feed.append(3)
    consumer = make_consumer()
    consumer.ack(not_none(consumer.get(10)))
    client.config_set("maxmemory", 1)
    while consumer.get(0.3) is not None:
        pass
    assert consumer.stats.outages == 1
    client.config_set("maxmemory", 0)
    consumer.close()
    assert consume(make_consumer(), 2) == ids[1:]


def test_what_redis_refuses_for_good_is_raised(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    client.set(keys.group(0, "web").state, "something else")
    with pytest.raises(FleetError, match="holds something else"):
        make_consumer().get(10)


# Exactly once


def test_the_users_own_watermark_counts_more_than_that_of_redis(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    class Store:
        last: str | None = None

        def get(self, shard_id: int) -> str | None:
            return self.last

    store = Store()
    ids = feed.append(10)
    consumer = make_consumer(seen=store)
    for event in [not_none(consumer.get(10)) for _ in range(6)]:
        store.last = event.id
    consumer.close()  # Redis was told nothing
    assert get(make_consumer(seen=store), 4) == ids[6:]
    end_lease(client, keys)
    assert consume(make_consumer(), 10) == ids  # without the store, Redis' own counts
    store.last = ids[7]  # the user's data base was restored from a copy
    assert get(make_consumer(seen=store), 2) == ids[8:]


@pytest.mark.parametrize("seen", ["yesterday", 7])
def test_a_watermark_that_is_no_id_is_refused(
    make_consumer: MakeConsumer, feed: Feed, seen: Any
) -> None:
    class Store:
        def get(self, shard_id: int) -> Any:
            return seen

    with pytest.raises(ValueError, match=r"seen.get\(0\) must return the id of an event"):
        make_consumer(seen=Store()).get(0)


# Threads, signals, processes


def test_a_consumer_is_stopped_by_another_thread(make_consumer: MakeConsumer, feed: Feed) -> None:
    consumer = make_consumer()
    waiting = Thread(lambda: list(consumer))
    consumer.stop()
    assert waiting.finish() == []


def test_a_consumer_is_stopped_by_a_signal_handler(make_consumer: MakeConsumer, feed: Feed) -> None:
    consumer = make_consumer()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: consumer.stop())
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        assert list(consumer) == []
    finally:
        signal.signal(signal.SIGUSR1, before)
        timer.join()


def test_a_second_thread_is_refused(make_consumer: MakeConsumer, feed: Feed) -> None:
    consumer = make_consumer()
    waiting = in_background(consumer.get, 30)

    def is_refused() -> bool:
        try:
            return consumer.get(0) is not None
        except RuntimeError as error:
            return "Make a consumer for each thread" in str(error)

    wait_until(is_refused)
    feed.append(1)
    assert waiting.result(20) is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork()")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("use", ["get", "loop"])
def test_a_consumer_is_closed_by_another_thread(
    make_consumer: MakeConsumer,
    client: redis.Redis,
    feed: Feed,
    keys: Keys,
    ordered: bool,
    use: str,
) -> None:
    ids = feed.append(2)
    consumer = make_consumer(ordered=ordered, retry_after=60.0)
    found: list[str] = []

    def run() -> None:
        if use == "get":
            while (event := consumer.get(30)) is not None:
                found.append(event.id)
                consumer.ack(event)
        else:
            found.extend(event.id for event in consumer)

    thread = Thread(run)
    wait_until(lambda: found == ids)
    consumer.close()
    thread.finish()
    # Another consumer has the stream at once, and all events from there on.
    other = make_consumer(ordered=ordered)
    ids = feed.append(1)
    assert not_none(other.get(5)).id == ids[0]


def test_a_consumer_is_closed_by_a_signal_handler(make_consumer: MakeConsumer, feed: Feed) -> None:
    consumer = make_consumer()
    ids = feed.append(3)
    found: list[str] = []
    old = signal.signal(signal.SIGUSR1, lambda number, frame: consumer.close())
    try:
        for event in consumer:
            found.append(event.id)
            if len(found) == 3:
                timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
                timer.start()
    finally:
        signal.signal(signal.SIGUSR1, old)
    timer.join()
    assert found == ids
    more = feed.append(1)
    assert get(make_consumer(), 1) == more


def test_a_forked_child_is_refused_and_closes_nothing_of_the_parents(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    consumer = make_consumer()
    consumer.get(0)
    child = os.fork()
    if child == 0:
        try:
            with consumer:
                consumer.get(0)
        except ForkedProcess:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert client.zcard(keys.consumers("web")) == 1


# Lag


def test_the_lag_is_counted_and_a_large_one_reckoned(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys
) -> None:
    feed = Feed(client, keys, 2)
    consumer = make_consumer(2)
    assert consumer.lag() == {0: None, 1: None} or consumer.lag() == {0: 0, 1: 0}
    consumer.get(0)
    feed.append(700)
    assert consumer.lag() == {0: 700, 1: 0}
    for _ in range(300):
        consumer.ack(not_none(consumer.get(10)))
    consumer.close()
    assert consumer.lag() == {0: 400, 1: 0}
    feed.append(4000, step=2)
    lag = not_none(consumer.lag()[0])
    assert 4400 <= lag <= 4700


def test_the_lag_of_all_groups_is_told(
    make_consumer: MakeConsumer, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    feed.append(5)
    assert lags(client, keys, [0]) == {}
    consume(make_consumer(group="ordered"), 2)
    consume(make_consumer(group="unordered", ordered=False), 1)
    assert lags(client, keys, [0, 7]) == {
        "ordered": {0: 3, 7: 0},
        "unordered": {0: 4, 7: 0},
    }


@pytest.mark.parametrize("ordered", [True, False])
def test_a_group_that_was_deleted_begins_anew_at_the_oldest_event(
    ordered: bool,
    redis_server: RedisServer,
    make_consumer: MakeConsumer,
    client: redis.Redis,
    keys: Keys,
    feed: Feed,
) -> None:
    ids = feed.append(3)
    with Fleet(redis_server.url, "mybot") as fleet:
        fleet.init(1)
        before = set(client.scan_iter())
        with make_consumer(group="misspelt", ordered=ordered) as consumer:
            assert get(consumer, 3) == ids
            with pytest.raises(FleetError, match="1 consumer, .* end the group's consumers first"):
                fleet.delete_group("misspelt")
        assert "misspelt" in lags(client, keys, [0])
        fleet.delete_group("misspelt")
        assert lags(client, keys, [0]) == {}
        assert set(client.scan_iter()) == before
        assert client.xinfo_groups(keys.shard(0).events) == []
        with make_consumer(group="misspelt", ordered=ordered) as consumer:
            assert get(consumer, 3) == ids


def test_a_group_is_not_deleted_while_a_consumer_without_order_handles_an_event(
    redis_server: RedisServer, make_consumer: MakeConsumer, client: redis.Redis, feed: Feed
) -> None:
    feed.append(2)
    with Fleet(redis_server.url, "mybot") as fleet:
        fleet.init(1)
        consumer = make_consumer(ordered=False, lease=0.1)
        in_hand = not_none(consumer.get(10))
        asked_at = redis_time(client)
        wait_until(lambda: redis_time(client) > asked_at + 0.2)  # the handling takes long
        with pytest.raises(FleetError, match="1 consumer, .* end the group's consumers first"):
            fleet.delete_group("web")
        consumer.ack(in_hand)
        assert not_none(consumer.get(10)).id != in_hand.id


@pytest.mark.parametrize("ordered", [True, False])
def test_a_group_that_a_consumer_joins_while_it_is_deleted_can_be_deleted_again(
    ordered: bool,
    redis_server: RedisServer,
    make_consumer: MakeConsumer,
    client: redis.Redis,
    keys: Keys,
    feed: Feed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = feed.append(3)
    consume(make_consumer(ordered=ordered), 1)
    joined: list[Consumer] = []

    def join_after(*arguments: Any) -> Any:
        monkeypatch.undo()
        answers = call_all(*arguments)
        joined.append(make_consumer(ordered=ordered))
        assert get(joined[0], 1) == ids[:1]
        return answers

    with Fleet(redis_server.url, "mybot") as fleet:
        fleet.init(1)
        monkeypatch.setattr("shardlib.fleet.groupscripts.call_all", join_after)
        fleet.delete_group("web")
        joined[0].close()
        assert "web" in lags(client, keys, [0])
        fleet.delete_group("web")
    assert get(make_consumer(ordered=ordered), 3) == ids


def test_a_group_that_nobody_knows_is_not_deleted(fleet: Fleet) -> None:
    with pytest.raises(FleetError, match="no group 'wbe'"):
        fleet.delete_group("wbe")
    with pytest.raises(ValueError, match="group must be"):
        fleet.delete_group("a:b")


def test_the_log_warns_before_events_are_trimmed_unread(
    make_consumer: MakeConsumer, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    feed.append(80)
    with make_consumer(keep_events=100) as consumer:
        consumer.get(10)
    assert "behind" not in caplog.text
    feed.append(1)
    make_consumer(group="other", keep_events=100).get(10)
    assert "the group 'other' is 81 events of shard 0 behind" in caplog.text


# A cluster


def test_consumers_read_from_a_cluster(redis_program: str, keys: Keys, tmp_path: Path) -> None:
    with RedisServer(redis_program, tmp_path, "--cluster-enabled", "yes") as server:
        make_cluster(server)
        feed = Feed(server.client(), keys, 3)
        ids = feed.append_everywhere(150)
        for group, ordered in (("web", True), ("other", False)):
            client = server.cluster_client()
            with Consumer(client, keys, group, shard_count=lambda: 3, ordered=ordered) as consumer:
                events = [not_none(consumer.get(10)) for _ in range(450)]
                assert consumer.get(0.2) is None
            for shard_id in range(3):
                assert [event.id for event in events if event.shard_id == shard_id] == ids[shard_id]


# Arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"group": "a:b"}, ValueError, "group must be 1 to 100 letters"),
        ({"events": "MESSAGE_CREATE"}, TypeError, "events must be a set of str"),
        ({"events": []}, ValueError, "events must name one event"),
        ({"events": [1]}, TypeError, "each of events must be of type str"),
        ({"events": ["message create"]}, ValueError, "no event .* did you mean MESSAGE_CREATE"),
        ({"start": "0"}, ValueError, "start must be one of"),
        ({"seen": {}}, None, ""),
        ({"seen": 1}, TypeError, "seen must have a method get"),
        ({"seen": {}, "ordered": False}, ValueError, "seen goes with ordered=True"),
        ({"on_gap": 1}, TypeError, "on_gap must be a function"),
        ({"retry_after": 0}, ValueError, "retry_after must be a number above 0"),
        ({"lease": -1}, ValueError, "lease must be a number above 0"),
        ({"keep_events": 0}, ValueError, "keep_events must be at least 1"),
        ({"name": "a b"}, ValueError, "name must be 1 to 100 letters"),
        ({"json": None}, TypeError, "json must have a method loads"),
    ],
)
def test_bad_arguments_are_refused_at_once(
    keys: Keys, options: dict[str, Any], error: type[Exception] | None, message: str
) -> None:
    arguments: dict[str, Any] = {"group": "web", **options}
    client = redis.Redis(port=1)
    if error is None:
        Consumer(client, keys, shard_count=lambda: 1, **arguments)
        return
    with pytest.raises(error, match=message):
        Consumer(client, keys, shard_count=lambda: 1, **arguments)


def test_the_names_of_events_may_be_in_lower_case(make_consumer: MakeConsumer, feed: Feed) -> None:
    ids = feed.append(1)
    assert get(make_consumer(events=["message_create"]), 1) == ids


def test_a_misspelt_event_is_told(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    Consumer(redis.Redis(port=1), keys, "web", shard_count=lambda: 1, events={"MESSAGE_CRAETE"})
    assert "did you mean MESSAGE_CREATE?" in caplog.text


def test_a_consumer_of_a_fleet_closes_its_connections(
    client: redis.Redis, redis_server: RedisServer
) -> None:
    with Fleet(redis_server.url, "mybot") as fleet:
        fleet.init(1)
        before = len(client.client_list())
        with fleet.consumer("web") as consumer:
            assert consumer.get(0.01) is None
            assert len(client.client_list()) > before
        wait_until(lambda: len(client.client_list()) == before)
