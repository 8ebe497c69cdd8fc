"""What others have written to a fleet's keys, by mistake or malice: no shard but theirs stops."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import redis

from shardlib import Shard, ShardState
from shardlib.fleet import Fleet, FleetError
from shardlib.fleet.keys import Keys
from shardlib.testing import LocalGateway
from tests.fleet.consuming import MakeConsumer, get
from tests.fleet.feed import Feed
from tests.fleet.workers import (
    SHARDS,
    dispatch,
    make_fleet,
    make_fleet_gateway,
    running,
    stream,
    wait_for_all,
    wait_for_shards,
    wait_until_written,
)
from tests.redis_server import RedisServer
from tests.support import not_none, wait_until

KEYS = Keys("mybot")

PATIENCE = 60.0

# What a forger, or a bug, leaves in the states of shards.
FORGED: list[dict[Any, Any]] = [
    {"session": b"\xff\xfe"},
    {"session": "x" * 100_000},
    {"url": b"ws://\xff"},
    {"url": "http://elsewhere"},
    {"url": "ws://[::1"},
    {"url": "ws://elsewhere.example"},
    {"sequence": "many"},
    {"sequence": "-5"},
    {"sequence": "1e3"},
    {"sequence": "99999999999999999999"},
    {"sequence": "nan"},
    {"epoch": ""},
    {"epoch": "-1"},
    {"epoch": "99999999999999999999999"},
    {"count": "x"},
    {"fence": "x"},
    {"owner": b"\xff"},
    {"born": "x"},
]


def is_ready(shard: Shard) -> bool:
    return shard.state is ShardState.READY


def test_a_forged_state_costs_a_new_session_at_most(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    shards = len(FORGED)
    known: dict[Any, Any] = {"token": "", "fence": 1, "owner": "", "session": "S1", "count": shards}
    known |= {"url": "", "epoch": 1700000000000, "sequence": 5}
    with (
        make_fleet_gateway(shards) as gateway,
        make_fleet(redis_server, shards=shards) as fleet,
    ):
        for shard_id, forged in enumerate(FORGED):
            client.hset(KEYS.shard(shard_id).state, mapping=known | forged)
        assert len(fleet.shards()) == shards
        with running(fleet, gateway) as worker:
            wait_for_shards(worker, shards)
            dispatch(gateway)
            wait_until_written(fleet, gateway)
            # No one session is on two shards, and none was begun twice.
            assert len(gateway.identifies) == shards
        for shard_id in range(shards):  # as after a session that was lost
            (gap_id, gap), (_, ready), *_ = stream(client, shard_id)
            assert gap_id.endswith("-0") and gap["t"] == "SHARDLIB_GAP"
            assert ready["t"] == "READY"


def test_numbers_that_are_forged_while_a_shard_runs_lose_no_event(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    forged: list[dict[Any, Any]] = [
        {"sequence": "many"},
        {"epoch": "x"},
        {"epoch": "99999999999999999999999"},
        {"fence": "x"},
        {"trimmed": "x"},
    ]
    shards = len(forged)
    with (
        make_fleet_gateway(shards) as gateway,
        make_fleet(redis_server, shards=shards) as fleet,
        running(fleet, gateway, replay_memory=60.0) as worker,
    ):
        wait_for_shards(worker, shards)
        dispatch(gateway, 5)
        wait_until_written(fleet, gateway)
        for shard_id, mapping in enumerate(forged):
            client.hset(KEYS.shard(shard_id).state, mapping=mapping)
        dispatch(gateway, 5)
        wait_until_written(fleet, gateway)
        for session in gateway.all_sessions:
            found = [payload["s"] for _, payload in stream(client, session.shard[0])]
            assert found == list(range(1, session.sequence + 1))
        assert len(gateway.identifies) == shards


@pytest.mark.parametrize("name", ["lease", "state", "events"])
def test_a_key_that_holds_something_else_stops_its_shard_only(
    fleet: Fleet,
    gateway: LocalGateway,
    client: redis.Redis,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = getattr(KEYS.shard(0), name)
    client.delete(key)
    client.sadd(key, "not of a fleet")
    with running(fleet, gateway) as worker:
        others = set(range(1, SHARDS))
        wait_until(
            lambda: others <= {i for i, each in worker.shards.items() if is_ready(each)}, PATIENCE
        )
        dispatch(gateway, 5)

        def are_written() -> bool:
            return all(
                client.hget(KEYS.shard(session.shard[0]).state, "sequence")
                == str(session.sequence).encode()
                for session in gateway.all_sessions
                if session.shard[0]
            )

        wait_until(are_written, PATIENCE)

        def errors() -> list[str]:
            return [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]

        wait_until(errors, PATIENCE)
        (told,) = errors()
        assert key in told
        client.delete(key)  # a person has mended it
        wait_for_shards(worker, SHARDS)
        wait_until_written(fleet, gateway)
    assert len(gateway.identifies) == SHARDS


def test_a_lease_without_an_end_keeps_nobody_out(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    client.set(KEYS.shard(1).lease, "a token of nobody's")
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)


def test_what_a_forger_has_noted_keeps_no_shard_from_identifying(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    for bucket in range(SHARDS):
        client.hset(KEYS.identify(bucket), mapping={"free_at": "x", "y": "z", "-1": "9e99"})
    client.hset(KEYS.starts, mapping={"used": "x", "resets_at": "9e15"})
    for entry in (b"\xff", b"no worker", b"-5:x"):
        client.zadd(KEYS.workers, {entry: 9e15})
    with running(fleet, gateway) as worker:
        wait_until(lambda: len(worker.shards) > 0, PATIENCE)
        client.delete(KEYS.workers)  # the shares of workers that do not live are nobody's
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)


@pytest.mark.parametrize(
    "settings",
    [
        {"shard_count": "x"},
        {"shard_count": 0},
        {"max_concurrency": -1},
        {"identify_interval": "nan"},
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_name_of_their_key(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, settings: dict[Any, Any]
) -> None:
    client.hset(KEYS.config, mapping=settings)
    worker = fleet.worker(gateway.token, 0)
    with pytest.raises(FleetError, match="mybot:config"):
        worker.run_forever(gateway.url)
    with pytest.raises(FleetError, match="mybot:config"):
        fleet.shards()


@pytest.mark.parametrize("watermark", ["x", "9-", b"\xff", "1-1-1"])
def test_a_forged_watermark_brings_events_again_at_most(
    make_consumer: MakeConsumer, client: redis.Redis, feed: Feed, watermark: str
) -> None:
    ids = feed.append(3)
    group = KEYS.group(0, "web").state
    client.hset(group, mapping={"token": "", "watermark": watermark})
    with make_consumer() as consumer:
        assert get(consumer, 3) == ids
    with make_consumer() as consumer:
        client.hset(group, "watermark", watermark)
        found = [not_none(consumer.get(10)) for _ in range(3)]
        client.hset(group, "watermark", watermark)
        for event in found:
            assert consumer.ack(event)
        wait_until(
            lambda: (
                consumer.get(0.1) is None
                and client.hget(group, "watermark") == ids[-1].partition(":")[2].encode()
            )
        )
