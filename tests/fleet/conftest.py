"""Real Redis servers for the tests of a fleet: each test of them runs on each version there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import ShardScripts
from tests.fleet.owner import KEEP_EVENTS, LEASE
from tests.redis_server import RedisServer, executables


@pytest.fixture(params=executables() or ["none"])
def redis_program(request: pytest.FixtureRequest) -> str:
    """The redis-server programs of this machine, one after the other."""
    if not executables():
        pytest.skip(
            "no redis-server on the PATH; install the package redis-server, or "
            'pip install "shardlib[test-redis]"'
        )
    return executables()[request.param]


@pytest.fixture
def redis_server(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(redis_program, tmp_path / "redis") as server:
        yield server


@pytest.fixture
def keys() -> Keys:
    return Keys("mybot")


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


@pytest.fixture
def scripts(client: redis.Redis, keys: Keys) -> ShardScripts:
    return ShardScripts(client, keys, lease=LEASE, keep_events=KEEP_EVENTS)
