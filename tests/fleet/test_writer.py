"""When the events of a worker's shards are written: few writes of many events are cheaper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from shardlib import Intents
from shardlib.fleet.fleetgate import FleetGate
from shardlib.fleet.fleetshard import FleetShard
from shardlib.fleet.keys import Keys
from shardlib.fleet.outbox import Outbox
from shardlib.fleet.scripts import ClaimRequest, ShardScripts, new_token
from shardlib.fleet.writer import Writer
from tests.support import wait_until

Put = Callable[[int], None]


@pytest.fixture
def shard(client: redis.Redis, keys: Keys, scripts: ShardScripts) -> FleetShard:
    """A shard that is claimed, and never connects."""
    client.hset(keys.shard(0).state, "born", 1)
    request = ClaimRequest(new_token(), "owner")
    claim: Any = scripts.claim({0: request})[0]
    gate: FleetGate | Any = None  # which only a shard that connects asks
    outbox = Outbox(None, shard_count=1, buffer=5000, replay_memory=5.0, ring=lambda: None)
    return FleetShard(
        *("token", Intents.default(), 0, 1),
        session=None,
        lease_token=request.token,
        claim=claim,
        outbox=outbox,
        forward=None,
        scripts=scripts,
        identify_gate=gate,
    )


@pytest.fixture
def writer(scripts: ShardScripts, shard: FleetShard) -> Writer:
    return Writer(scripts, lambda: {0: shard}, lambda *arguments: None)


@pytest.fixture
def put(shard: FleetShard) -> Put:
    sequences = iter(range(1, 10_000))

    def put(count: int) -> None:
        for _ in range(count):
            shard.outbox.put("session", None, next(sequences), b"{}")

    return put


def test_an_event_that_comes_alone_does_not_wait(writer: Writer, put: Put) -> None:
    put(1)
    assert writer.has_some
    assert writer.wait == 0


def test_after_a_write_more_events_are_waited_for(writer: Writer, put: Put) -> None:
    waits = []

    def has_to_wait() -> bool:  # unless the write itself has taken longer
        put(1)
        assert writer.write()
        waits.append(writer.wait)
        return waits[-1] > 0

    wait_until(has_to_wait, 20.0)
    assert waits[-1] <= 0.05
    wait_until(lambda: writer.wait == 0, 20.0)


def test_many_events_do_not_wait_for_more(writer: Writer, put: Put) -> None:
    put(1)
    assert writer.write()
    put(200)
    assert writer.wait == 0


def test_looking_for_events_delays_none(writer: Writer, put: Put) -> None:
    assert not writer.write()
    put(1)
    assert writer.wait == 0
