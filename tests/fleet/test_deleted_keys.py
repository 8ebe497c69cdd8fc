"""Somebody deletes one key of a fleet, or Redis evicts it, while workers and consumers run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from shardlib.fleet import Consumer, Fleet, FleetEvent
from shardlib.fleet.keys import Keys
from shardlib.testing import LocalGateway
from tests.fleet.workers import (
    SHARDS,
    dispatch,
    make_fleet,
    running,
    wait_for_shards,
)
from tests.redis_server import RedisServer
from tests.support import wait_until

KEYS = Keys("mybot")
SHARD, GROUP = KEYS.shard(1), KEYS.group(1, "web")
PATIENCE = 60.0
FLEETS = [SHARD.lease, SHARD.state, SHARD.events, KEYS.config, KEYS.workers, KEYS.starts]
GROUPS = [GROUP.lease, GROUP.state, KEYS.groups, KEYS.consumers("web")]


@pytest.fixture
def fleet(redis_server: RedisServer) -> Iterator[Fleet]:
    with make_fleet(redis_server, lease=1.0) as fleet:
        yield fleet


def take(consumer: Consumer, found: list[FleetEvent]) -> None:
    while (event := consumer.get(0.01)) is not None:
        found.append(event)
        consumer.ack(event)


@pytest.mark.parametrize("key", [*FLEETS, *GROUPS])
def test_a_key_that_is_deleted_costs_no_event_that_the_gateway_sends_then(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, key: str
) -> None:
    found: list[FleetEvent] = []

    def has_all() -> bool:
        take(consumer, found)
        got = {(each.shard_id, each.sequence) for each in found if each.name != "SHARDLIB_GAP"}
        return got == {
            (session.shard[0], number)
            for session in gateway.all_sessions
            for number in range(1, session.sequence + 1)
        }

    with running(fleet, gateway) as worker, fleet.consumer("web") as consumer:
        wait_for_shards(worker, SHARDS)
        dispatch(gateway, 5)
        wait_until(has_all, PATIENCE)
        client.delete(key)
        dispatch(gateway, 5)
        wait_until(has_all, PATIENCE)
        ids = [each.id for each in found if each.name != "SHARDLIB_GAP"]
        assert len(ids) == len(set(ids))  # the watermarks drop repeats
        wait_until(lambda: len(fleet.shards()) == SHARDS if client.exists(KEYS.config) else False)
        assert len(gateway.identifies) == SHARDS


@pytest.mark.parametrize("forwarded", ["all", "some"])
@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_that_is_deleted_unread_is_told_as_a_gap(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, ordered: bool, forwarded: str
) -> None:
    forward = None if forwarded == "all" else {"MESSAGE_CREATE"}
    with (
        running(fleet, gateway, forward=forward) as worker,
        fleet.consumer("web", ordered=ordered, retry_after=5.0) as consumer,
    ):
        wait_for_shards(worker, SHARDS)
        found: list[FleetEvent] = []
        dispatch(gateway, 1)
        wait_until(lambda: take(consumer, found) or len({each.shard_id for each in found}) == 4)
        wait_until(lambda: worker.stats.waiting == 0)
        take(consumer, found)
        session = next(each for each in gateway.all_sessions if each.shard[0] == 1)
        session.dispatch("MESSAGE_CREATE", {})
        wait_until(lambda: fleet.shards()[1].sequence == session.sequence)
        client.delete(SHARD.events)  # with an event that nobody has read
        last = session.dispatch("MESSAGE_CREATE", {})
        del found[:]
        wait_until(
            lambda: take(consumer, found) or any(each.sequence == last for each in found), PATIENCE
        )
        assert [each.name for each in found] == ["SHARDLIB_GAP", "MESSAGE_CREATE"]
        assert found[0].data.reason == "data lost"


def test_a_redis_that_evicts_keys_while_workers_run_gets_the_rest_and_no_gap_is_silent(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    found: list[FleetEvent] = []
    with (
        running(fleet, gateway, replay_memory=0.2) as worker,
        fleet.consumer("web") as consumer,
    ):
        wait_for_shards(worker, SHARDS)
        client.config_set("maxmemory-policy", "allkeys-random")
        evicted = 0
        for _ in range(40):
            used: dict[str, int] = client.info("memory")
            client.config_set("maxmemory", used["used_memory"] - 4_000)
            dispatch(gateway, 3)
            take(consumer, found)
        client.config_set("maxmemory", 0)
        statistics: dict[str, int] = client.info("stats")
        evicted = statistics["evicted_keys"]
        assert evicted > 10
        dispatch(gateway, 3)
        last = {each.shard[0]: each.sequence for each in gateway.all_sessions}

        def has_last() -> bool:
            take(consumer, found)
            sessions = {each.shard[0]: each.sequence for each in gateway.all_sessions}
            newest = {each.shard_id: each.sequence for each in found}
            return newest == sessions

        wait_until(has_last, 40, f"{last}")
        for shard_id in range(SHARDS):
            before = None
            for event in [each for each in found if each.shard_id == shard_id]:
                if event.name == "SHARDLIB_GAP":
                    before = None
                    continue
                epoch, sequence = map(int, event.id.partition(":")[2].split("-"))
                if before is not None:
                    # Each event follows the one before, or is a repeat of it, or a gap is told.
                    assert before[0] < epoch or sequence <= before[1] + 1, (before, event.id)
                before = epoch, sequence
