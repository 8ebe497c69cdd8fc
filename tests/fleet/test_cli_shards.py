"""``shardlib shards --name`` and ``shardlib drain``, run as users run them."""

from __future__ import annotations

import json
import re

import pytest
import redis

from shardlib.cli.drain import wait_for_hand_over
from shardlib.cli.errors import Failure
from shardlib.cli.fleetshards import in_place
from shardlib.fleet import Fleet
from shardlib.fleet.keys import Keys
from shardlib.testing import LocalGateway
from tests.command import PATIENCE, Command, run_to_end, wait_for
from tests.fleet.feed import Feed
from tests.fleet.workers import (
    SHARDS,
    running,
    sessions_of,
    wait_for_shards,
)
from tests.redis_server import RedisServer
from tests.support import wait_until


def shards(server: RedisServer, *others: str) -> tuple[str, ...]:
    return ("shards", "--redis", server.url, "--name", "mybot", *others)


def drain(server: RedisServer, *others: str) -> Command:
    return run_to_end("drain", *others, "--redis", server.url, "--name", "mybot")


# shards


def test_a_fleet_without_a_worker_is_a_table_that_says_so(
    fleet: Fleet, redis_server: RedisServer
) -> None:
    command = run_to_end(*shards(redis_server))
    assert command.status == 0
    total, heads, *rows = command.out
    assert total == "4 shards: 0 ready, 4 without a worker; 0 workers"
    assert heads.split() == ["Shard", "State", "Ping", "Session", "Sequence", "Kept", "Worker"]
    assert [row.split() for row in rows] == [
        [str(shard_id), "no", "worker", "-", "-", "0", "0", "-"] for shard_id in range(SHARDS)
    ]


def test_the_table_tells_the_state_of_each_shard_and_how_far_each_group_is_behind(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        wait_until(lambda: all(each.state for each in fleet.shards()), PATIENCE)
        wait_until(lambda: all(each.events == 2 for each in fleet.shards()), PATIENCE)
        with fleet.consumer("web") as consumer:
            event = consumer.get(10)
            assert event is not None
            consumer.ack(event)
        command = run_to_end(*shards(redis_server))
        total, heads, *rows = command.out
        assert total == "4 shards: 4 ready; 1 worker"
        assert heads.split()[-2:] == ["web", "Worker"]
        assert len(rows) == SHARDS
        assert all(row.split()[1] == "ready" for row in rows)
        assert all(row.endswith(f"  {worker.name}") for row in rows)
        assert rows[event.shard_id].split()[-2] == "1"
        found = json.loads(run_to_end(*shards(redis_server, "--json")).out[0])
    assert [each["shard_id"] for each in found] == list(range(SHARDS))
    assert found[event.shard_id]["lag"] == {"web": 1}
    assert {each["owner"] for each in found} == {worker.name}
    assert {each["state"] for each in found} == {"ready"}


def test_watch_looks_again_and_again_also_while_redis_is_away(
    fleet: Fleet, redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    with Command(*shards(redis_server, "--watch")) as command:
        command.read()
        wait_for(command.out, "0 ready")
        client.hset(keys.shard(0).state, "sequence", "4711")
        wait_for(command.out, "4711")
        redis_server.kill()
        wait_for(command.out, "Redis cannot be reached")
        redis_server.start()
        seen = len(command.out)
        wait_until(lambda: any("4 shards" in line for line in command.out[seen:]), PATIENCE)
        command.interrupt()
        assert command.finish() == 0
    assert command.err == []
    assert re.match(r"\d\d:\d\d:\d\d  4 shards: ", command.out[0])


def test_watch_with_json_prints_an_array_a_line(fleet: Fleet, redis_server: RedisServer) -> None:
    with Command(*shards(redis_server, "--watch", "--json")) as command:
        command.read()
        wait_until(lambda: len(command.out) >= 2, PATIENCE)
    assert all(len(json.loads(line)) == SHARDS for line in command.out[:2])


def test_watch_on_a_terminal_takes_no_more_rows_than_there_are() -> None:
    lines = [f"line {number}" for number in range(10)]
    drawn = in_place(lines, 6)
    assert drawn.startswith("\x1b[H") and drawn.endswith("\x1b[J")
    shown = [line.removesuffix("\x1b[K") for line in drawn[3:-3].splitlines()]
    assert shown == [*lines[:4], "and 6 shards more, see --json"]
    assert in_place(lines, 11).count("\n") == 10


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--redis", "redis://h"), "--redis and --watch go with --name"),
        (("--watch",), "--redis and --watch go with --name"),
        (("--redis", "redis://h", "--name", "m", "--local"), "do not go with --name"),
        (("--name", "m", "--api-url", "https://h/api"), "do not go with --name"),
        (("--name", "m"), "SHARDLIB_REDIS"),
    ],
)
def test_the_two_forms_of_shards_are_told_apart(arguments: tuple[str, ...], says: str) -> None:
    command = run_to_end("shards", *arguments)
    assert command.status == 2
    (line,) = command.err
    assert says in line


# drain


def test_drain_hands_the_shards_of_a_worker_over_to_the_others(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    with running(fleet, gateway) as leaving:
        wait_for_shards(leaving, SHARDS)
        with running(fleet, gateway, most_shards=SHARDS) as staying:
            wait_for_shards(leaving, SHARDS // 2)
            wait_for_shards(staying, SHARDS // 2)
            command = drain(redis_server, leaving.name)
            assert command.status == 0
            assert command.err[-1].endswith(" -- it has handed all its shards over")
            leaving.join(PATIENCE)
            wait_for_shards(staying, SHARDS)
            sessions_of(gateway)
            command = drain(redis_server, leaving.name)
            assert command.status == 1
            assert f"no worker '{leaving.name}'" in command.err[-1]
            assert staying.name in command.err[-1]


def test_the_host_is_name_enough_for_its_only_worker(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    with running(fleet, gateway) as one:
        host = one.name.rsplit("-", 2)[0]
        wait_for_shards(one, SHARDS)
        with running(fleet, gateway) as two:
            wait_for_shards(two, SHARDS // 2)
            command = drain(redis_server, host)
            assert command.status == 2
            assert one.name in command.err[-1] and two.name in command.err[-1]
            two.stop()
        wait_for_shards(one, SHARDS)
        command = drain(redis_server, host)
        assert command.status == 0
        one.join(PATIENCE)
    told = [line.partition(" -- ")[2] for line in command.err]
    assert told[0] == f"the worker {one.name} is asked to hand its shards over"
    assert told[-2] == "it has handed all its shards over"
    assert told[-1].startswith("4 shards are without a worker: 0-3")


def test_a_worker_that_does_not_hand_its_shards_over_is_reported(
    client: redis.Redis, keys: Keys, redis_server: RedisServer
) -> None:
    with Fleet(redis_server.url, "mybot") as fleet:
        fleet.init(1)
        Feed(client, keys)  # an owner that does nothing
        (info,) = fleet.shards()
        assert info.owner is not None
        with pytest.raises(Failure, match=f"{info.owner} still has 1 shard, 0 seconds later"):
            wait_for_hand_over(fleet, info.owner, 0.2)
