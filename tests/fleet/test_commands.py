"""Commands of any process to the workers, with a real Redis and a real gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from shardlib import NotReady, ShardState
from shardlib.fleet import Fleet, FleetError
from shardlib.fleet.commandscripts import BEGINNING, CommandScripts
from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import ShardScripts
from shardlib.testing import LocalGateway
from tests.fleet.owner import owner_of_new_shard, take
from tests.fleet.workers import (
    PATIENCE,
    SHARDS,
    WorkerProcess,
    dispatch,
    make_fleet,
    make_fleet_gateway,
    running,
    sessions_of,
    stream,
    wait_for_all,
    wait_for_shards,
)
from tests.redis_server import RedisServer, make_cluster
from tests.support import wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_fleet_gateway() as gateway:
        yield gateway


@pytest.fixture
def fleet(redis_server: RedisServer) -> Iterator[Fleet]:
    with make_fleet(redis_server) as fleet:
        yield fleet


@pytest.fixture
def command_scripts(client: redis.Redis, keys: Keys) -> CommandScripts:
    return CommandScripts(client, keys)


def sent(gateway: LocalGateway, opcode: int) -> list[tuple[int, Any]]:
    """The shard and the data of each payload of an opcode that the gateway got."""
    return [
        (session.shard[0], payload["d"])
        for connection in gateway.all_connections
        if (session := connection.session) is not None
        for payload in connection.received
        if payload.get("op") == opcode
    ]


def guild_of(shard_id: int) -> int:
    return (SHARDS * 7 + shard_id) << 22


def test_smoke(fleet: Fleet, gateway: LocalGateway, client: redis.Redis) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        began = time.monotonic()
        nonce = fleet.commands.request_guild_members(guild_of(2), query="a", limit=5)
        wait_until(lambda: sent(gateway, 8))
        print("TOOK", time.monotonic() - began)
        assert sent(gateway, 8)[0][0] == 2
        print(fleet.shards())
        fleet.commands.update_presence(status="idle")
        wait_until(lambda: len(sent(gateway, 3)) == SHARDS)
        fleet.commands.drain(worker.name)
        worker.join(10)
