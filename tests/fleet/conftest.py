"""Real Redis servers for the tests of a fleet: each test of them runs on each version there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from shardlib.fleet import Fleet
from shardlib.fleet.consumer import Consumer
from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import ShardScripts
from shardlib.testing import LocalGateway
from tests.fleet.consuming import MakeConsumer
from tests.fleet.feed import Feed
from tests.fleet.owner import KEEP_EVENTS, LEASE
from tests.fleet.workers import make_fleet, make_fleet_gateway
from tests.redis_server import RedisServer, executables


def _versions() -> list[Any]:
    """The newest Redis of this machine, and for a run of all tests the older ones."""
    *older, newest = list(executables()) or ["none"]
    return [newest, *(pytest.param(version, marks=pytest.mark.slow) for version in older)]


@pytest.fixture(params=_versions())
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
def forgetful_server(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    """A server that loses everything when it ends."""
    with RedisServer(redis_program, tmp_path / "forgetful", persistent=False) as server:
        yield server


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    """A gateway for the shards of a fleet."""
    with make_fleet_gateway() as gateway:
        yield gateway


@pytest.fixture
def fleet(redis_server: RedisServer) -> Iterator[Fleet]:
    """A fleet that was begun in the server."""
    with make_fleet(redis_server) as fleet:
        yield fleet


@pytest.fixture
def keys() -> Keys:
    return Keys("mybot")


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of the server, as the fixture of a user's tests gives it."""
    return redis_server.url


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


@pytest.fixture
def scripts(client: redis.Redis, keys: Keys) -> ShardScripts:
    return ShardScripts(client, keys, lease=LEASE, keep_events=KEEP_EVENTS)


@pytest.fixture
def make_consumer(redis_server: RedisServer, keys: Keys) -> Iterator[MakeConsumer]:
    made = []

    def make(shard_count: int = 1, *, group: str = "web", **options: Any) -> Consumer:
        options.setdefault("lease", LEASE)
        client = redis_server.client()
        consumer = Consumer(client, keys, group, shard_count=lambda: shard_count, **options)
        made.append(consumer)
        return consumer

    yield make
    for consumer in made:
        consumer.close()


@pytest.fixture
def feed(client: redis.Redis, keys: Keys) -> Feed:
    return Feed(client, keys)
