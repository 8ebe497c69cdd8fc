"""Users of Redis with the permissions that the documentation lists, one for each role."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from shardlib import Intents
from shardlib.fleet import Consumer, Fleet, FleetError
from shardlib.fleet.keys import Keys
from shardlib.testing import LocalGateway
from tests.command import run_to_end
from tests.fleet.consuming import consume, get
from tests.fleet.workers import dispatch, make_fleet_gateway, running, wait_for_shards
from tests.managers import opcodes
from tests.redis_server import HOST, RedisServer
from tests.support import not_none, wait_until

KEYS = Keys("mybot")

PASSWORD = "pa55word"

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "fleet.rst"


def documented_rules(role: str) -> list[str]:
    """The rules for a role, as the documentation has them."""
    text = re.sub(r"\\\n\s+", "", DOCUMENTATION.read_text())
    (rules,) = re.findall(rf"ACL SETUSER {role} (.*)", text)
    return [f">{PASSWORD}" if each == ">secret" else each for each in rules.split()]


def documented_commands(role: str) -> set[str]:
    commands = {each[1:] for each in documented_rules(role) if each[0] == "+"}
    return commands - {"info", "config|get"}


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_fleet_gateway(2) as gateway:
        yield gateway


@pytest.fixture
def admin(redis_server: RedisServer, client: redis.Redis) -> redis.Redis:
    """Who makes the users."""
    for role in ("worker", "consumer", "commander"):
        client.execute_command("ACL", "SETUSER", role, *documented_rules(role))
    return client


def connect(server: RedisServer, role: str, **options: Any) -> Fleet:
    return Fleet(f"redis://{role}:{PASSWORD}@{HOST}:{server.port}/0", "mybot", **options)


def commands_used(admin: redis.Redis) -> set[str]:
    """The commands that anybody, and any script, has called since the last time."""
    stats: dict[str, Any] = admin.info("commandstats")
    names = {name.removeprefix("cmdstat_") for name in stats}
    admin.config_resetstat()
    # Those of connections need no permission, and those of the administrator are not counted.
    ignored = {"client", "hello", "auth", "acl", "info", "config", "ping"}
    return {name.partition("|")[0] for name in names} - ignored


def denied(admin: redis.Redis) -> list[Any]:
    # redis-py tells the server its own name, and does without if it may not.
    return [each for each in admin.acl_log() if each["object"] != "client"]


def is_recovered(consumer: Consumer, admin: redis.Redis, group: str) -> bool:
    consumer.get(0.01)
    return bool(admin.hget(KEYS.group(0, group).state, "owner"))


def test_workers_need_the_documented_permissions(
    redis_server: RedisServer, admin: redis.Redis, gateway: LocalGateway
) -> None:
    admin.config_resetstat()
    with connect(redis_server, "worker", lease=1.0, keep_events=1) as fleet:
        fleet.init(2, max_concurrency=2, identify_interval=0.01)
        with running(fleet, gateway) as worker:
            wait_for_shards(worker, 2)
            dispatch(gateway, 300)  # of which some are trimmed
            wait_until(lambda: worker.stats.written >= 600)
            assert fleet.shards()[0].events < 300
            fleet.commands.update_presence(status="idle")
            wait_until(lambda: opcodes(gateway, 3) == 2)
            fleet.commands.drain(worker.name)
            worker.join(20)
        for session in gateway.all_sessions:
            gateway.lose_session(session)
        with running(fleet, gateway) as worker:
            wait_for_shards(worker, 2)
            wait_until(lambda: worker.stats.waiting == 0)
    assert denied(admin) == []
    # Fleet.shards() asks for one more if a group of consumers is far behind.
    assert commands_used(admin) | {"xrevrange"} == documented_commands("worker")


def test_consumers_need_the_documented_permissions(
    redis_server: RedisServer, admin: redis.Redis, gateway: LocalGateway
) -> None:
    with connect(redis_server, "worker", lease=1.0) as fleet:
        fleet.init(2, max_concurrency=2, identify_interval=0.01)
        with running(fleet, gateway) as worker:
            wait_for_shards(worker, 2)
            dispatch(gateway, 1500)
            wait_until(lambda: worker.stats.written >= 3000, 15)
    admin.config_resetstat()
    with connect(redis_server, "consumer", lease=1.0) as fleet:
        for ordered in (True, False):
            group = "ordered" if ordered else "unordered"
            with fleet.consumer(group, ordered=ordered, retry_after=0.1) as consumer:
                get(consumer, 1)
                assert max(map(not_none, consumer.lag().values())) > 1000
                consume(consumer, 50)
            if ordered:  # a group that another program has deleted
                with fleet.consumer(group) as consumer:
                    get(consumer, 1)
                    lease = KEYS.group(0, group).lease
                    wait_until(lambda: 0 < admin.pttl(lease) < 800)
                    wait_until(lambda: admin.pttl(lease) > 800)  # the consumer has renewed it
                    for shard_id in range(2):
                        admin.delete(*KEYS.group(shard_id, group))
                    wait_until(lambda: is_recovered(consumer, admin, group))
            with fleet.consumer(group, ordered=ordered, retry_after=0.1) as consumer:
                consume(consumer, 50)
    assert denied(admin) == []
    assert commands_used(admin) == documented_commands("consumer")


def test_shardlib_events_needs_what_a_consumer_needs(
    redis_server: RedisServer, admin: redis.Redis, gateway: LocalGateway
) -> None:
    with connect(redis_server, "worker") as fleet:
        fleet.init(2, max_concurrency=2, identify_interval=0.01)
        with running(fleet, gateway) as worker:
            wait_for_shards(worker, 2)
            wait_until(lambda: worker.stats.written >= 2)
    url = f"redis://consumer:{PASSWORD}@{HOST}:{redis_server.port}/0"
    for _ in range(2):  # for a new group, and for one that there is
        command = run_to_end("events", "web", "--redis", url, "--name", "mybot", "--count", "1")
        assert command.status == 0, command.err
    assert denied(admin) == []


def test_commands_need_the_documented_permissions(
    redis_server: RedisServer, admin: redis.Redis, gateway: LocalGateway
) -> None:
    with connect(redis_server, "worker") as fleet:
        fleet.init(2, max_concurrency=2, identify_interval=0.01)
        with running(fleet, gateway) as worker, connect(redis_server, "commander") as other:
            wait_for_shards(worker, 2)
            other.commands.update_presence(status="idle")
            wait_until(lambda: opcodes(gateway, 3) == 2)
            other.commands.request_guild_members(
                next(iter(gateway.world.guilds)), query="a", limit=1
            )
            wait_until(lambda: opcodes(gateway, 8) == 1)
            other.commands.drain(worker.name)
            worker.join(20)
    assert denied(admin) == []
    admin.config_resetstat()
    with connect(redis_server, "commander") as other:
        other.commands.update_presence(status="idle")
        with pytest.raises(FleetError, match="takes shards"):
            other.commands.drain("nobody")
        # EVAL loads a script that Redis does not know yet; Redis knows all by now.
        assert commands_used(admin) | {"eval"} == documented_commands("commander")
        with other.consumer("web") as consumer, pytest.raises(FleetError, match="ACL SETUSER"):
            consumer.get(1)


def test_a_consumers_user_can_touch_neither_leases_nor_commands_of_shards(
    redis_server: RedisServer, admin: redis.Redis, gateway: LocalGateway
) -> None:
    with connect(redis_server, "worker") as fleet:
        fleet.init(2)
    with connect(redis_server, "consumer") as fleet:
        worker = fleet.worker(gateway.token, Intents.all())
        with pytest.raises(FleetError, match="ACL SETUSER"):
            worker.run_forever(gateway.url)
