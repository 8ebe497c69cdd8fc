"""Commands of any process to the workers, with a real Redis and a real gateway."""

from __future__ import annotations

import json
import logging
import signal
import socket
import time
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import redis

from shardlib import ShardState
from shardlib.fleet import Fleet, FleetError, RedisAway
from shardlib.fleet.commandscripts import BEGINNING, CommandScripts
from shardlib.fleet.fleetevents import GAP_EVENT
from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import Outcome, Reported, ShardScripts
from shardlib.testing import LocalGateway
from tests.fleet.owner import owner_of_new_shard, take
from tests.fleet.workers import (
    PATIENCE,
    SHARDS,
    WorkerProcess,
    dispatch,
    make_fleet,
    running,
    sessions_of,
    stream,
    wait_for_all,
    wait_for_shards,
)
from tests.redis_server import RedisServer, make_cluster
from tests.support import wait_until


@pytest.fixture
def commands(client: redis.Redis, keys: Keys) -> CommandScripts:
    return CommandScripts(client, keys)


def sent(gateway: LocalGateway, opcode: int) -> list[tuple[int, Any]]:
    """The shard and the data of each payload with an opcode that the gateway got."""
    return [
        (session.shard[0], payload["d"])
        for connection in gateway.all_connections
        if (session := connection.session) is not None
        for payload in connection.received
        if payload["op"] == opcode
    ]


def guild_of(shard_id: int, number: int = 7) -> int:
    return (number * SHARDS + shard_id) << 22


def forge(client: redis.Redis, shard_id: int, content: object, left: object = None) -> None:
    """Put something into the stream of a shard's commands, and tell the workers."""
    seconds, _ = client.time()
    until = (seconds + 60) * 1000 if left is None else left
    text = content if isinstance(content, bytes) else json.dumps(content)
    client.xadd(Keys("mybot").shard(shard_id).commands, {"p": text, "until": str(until)})
    CommandScripts(client, Keys("mybot")).announce({"shards": [shard_id]}, 60.0)


# What they do


def test_each_request_goes_to_the_shard_of_its_guild(fleet: Fleet, gateway: LocalGateway) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        guild_id = guild_of(2)
        nonce = fleet.commands.request_guild_members(guild_id, query="a", limit=5, presences=True)
        fleet.commands.request_guild_members(guild_of(1), user_ids=[1, "2"], nonce="mine")
        fleet.commands.update_voice_state(guild_of(3), 5, self_deaf=True)
        fleet.commands.request_soundboard_sounds([guild_of(0), str(guild_of(1)), guild_of(0, 8)])
        fleet.commands.request_channel_info(guild_id, ["status"])
        wait_until(lambda: len(sent(gateway, 8)) == 2 and len(sent(gateway, 31)) == 2, PATIENCE)
        wait_until(lambda: sent(gateway, 4) and sent(gateway, 43), PATIENCE)
    by_query = {"query": "a", "limit": 5, "presences": True, "nonce": nonce}
    by_ids = {"user_ids": ["1", "2"], "presences": False, "nonce": "mine"}
    assert sorted(sent(gateway, 8), key=lambda each: each[0]) == [
        (1, {"guild_id": str(guild_of(1)), **by_ids}),
        (2, {"guild_id": str(guild_id), **by_query}),
    ]
    voice = {"guild_id": str(guild_of(3)), "channel_id": "5"}
    assert sent(gateway, 4) == [(3, {**voice, "self_mute": False, "self_deaf": True})]
    assert sorted(sent(gateway, 31), key=lambda each: each[0]) == [
        (0, {"guild_ids": [str(guild_of(0)), str(guild_of(0, 8))]}),
        (1, {"guild_ids": [str(guild_of(1))]}),
    ]
    assert sent(gateway, 43) == [(2, {"guild_id": str(guild_id), "fields": ["status"]})]


def test_the_answer_comes_to_consumers_with_the_nonce(fleet: Fleet, gateway: LocalGateway) -> None:
    with running(fleet, gateway) as worker, fleet.consumer("web") as consumer:
        wait_for_shards(worker, SHARDS)
        guild_id = sessions_of(gateway)[1].history[1].data["id"]
        nonce = fleet.commands.request_guild_members(guild_id)
        for event in consumer:
            if event.name == "GUILD_MEMBERS_CHUNK":
                break
    assert (event.shard_id, event.data["nonce"]) == (1, nonce)


def test_a_presence_goes_to_all_shards_or_to_one(fleet: Fleet, gateway: LocalGateway) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        fleet.commands.update_presence(status="idle", activities=[{"name": "chess", "type": 0}])
        wait_until(lambda: len(sent(gateway, 3)) == SHARDS, PATIENCE)
        fleet.commands.update_presence(status="dnd", shard_id=3)
        wait_until(lambda: len(sent(gateway, 3)) == SHARDS + 1, PATIENCE)
        presences = [session.presence for session in sessions_of(gateway)]
        assert [(each or {})["status"] for each in presences] == ["idle"] * (SHARDS - 1) + ["dnd"]


def test_commands_to_a_shard_are_carried_out_in_order_and_go(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, keys: Keys
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        nonces = [fleet.commands.request_guild_members(guild_of(1)) for _ in range(20)]
        wait_until(lambda: len(sent(gateway, 8)) == 20, PATIENCE)
        wait_until(lambda: client.xlen(keys.shard(1).commands) == 0, PATIENCE)
    assert [data["nonce"] for _, data in sent(gateway, 8)] == nonces


@pytest.mark.parametrize("new_session", [False, True])
def test_restart_connects_a_shard_again(
    new_session: bool,
    fleet: Fleet,
    gateway: LocalGateway,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "shardlib.fleet")
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        connections = len(gateway.all_connections)
        fleet.commands.restart(2, new_session=new_session)
        wait_until(lambda: len(gateway.all_connections) == connections + 1, PATIENCE)
        wait_for_shards(worker, SHARDS)
        for session in gateway.all_sessions:
            if session.connection is not None:
                session.dispatch("MESSAGE_CREATE", {})
        resumed = next(each for each in gateway.all_sessions if each.shard[0] == 2)
        assert len(gateway.identifies) == SHARDS + new_session
        assert resumed.resumes == (not new_session)
        wait_for_all(client, gateway)
    gaps = [payload for _, payload in stream(client, 2) if payload["t"] == GAP_EVENT]
    assert len(gaps) == new_session
    how = "with a new session" if new_session else "and to resume"
    assert f"shard 2 is told to connect again, {how}" in caplog.text


def test_restart_brings_a_shard_back_that_an_error_has_closed(
    fleet: Fleet, gateway: LocalGateway
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        connection = sessions_of(gateway)[1].connection
        assert connection is not None
        connection.close(4010)
        wait_until(lambda: worker.shards[1].state is ShardState.CLOSED, PATIENCE)
        wait_until(lambda: fleet.shards()[1].state is ShardState.CLOSED, PATIENCE)
        fleet.commands.restart(1)
        wait_for_shards(worker, SHARDS)


def test_drain_ends_that_worker_and_the_other_has_its_shards(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway) as leaving:
        wait_for_shards(leaving, SHARDS)
        with running(fleet, gateway) as staying:
            wait_for_shards(staying, SHARDS // 2)
            fleet.commands.drain(leaving.name)
            leaving.join(PATIENCE)
            wait_for_shards(staying, SHARDS)
            assert {info.owner for info in fleet.shards()} == {staying.name}
            with pytest.raises(FleetError, match=f"no worker '{leaving.name}'.* {staying.name}"):
                fleet.commands.drain(leaving.name)
    assert len(gateway.identifies) == SHARDS


def test_a_command_takes_a_moment(redis_server: RedisServer, gateway: LocalGateway) -> None:
    # A worker that is not told of a command finds it when it renews its leases.
    with make_fleet(redis_server, lease=90.0) as fleet, running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        moments = []
        for number in range(1, 6):
            fleet.commands.request_guild_members(guild_of(0))
            began = time.monotonic()
            wait_until(lambda: len(sent(gateway, 8)) == number, PATIENCE)
            moments.append(time.monotonic() - began)
    assert max(moments) < 10  # a lease is renewed each 30 seconds


# Shards that are not there, or not ready


def test_a_command_waits_for_an_owner(fleet: Fleet, gateway: LocalGateway) -> None:
    nonce = fleet.commands.request_guild_members(guild_of(3))
    with running(fleet, gateway):
        wait_until(lambda: sent(gateway, 8), PATIENCE)
    ((shard_id, data),) = sent(gateway, 8)
    assert (shard_id, data["nonce"]) == (3, nonce)


def test_a_command_waits_for_the_shard_to_be_ready_and_holds_up_no_other(
    fleet: Fleet, gateway: LocalGateway
) -> None:
    held: list[Any] = []
    gateway.inject(held.append, instead_of="ready", shard_id=1)
    with running(fleet, gateway) as worker:
        wait_until(lambda: held and len(worker.shards) == SHARDS, PATIENCE)
        fleet.commands.request_guild_members(guild_of(1))
        fleet.commands.request_guild_members(guild_of(2))
        wait_until(lambda: sent(gateway, 8), PATIENCE)
        assert [shard_id for shard_id, _ in sent(gateway, 8)] == [2]
        held[0].proceed()
        wait_until(lambda: len(sent(gateway, 8)) == 2, PATIENCE)


def test_a_command_that_comes_too_late_is_not_carried_out_and_is_told(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    errors: list[tuple[Any, Exception]] = []
    forge(client, 1, {"method": "update_presence", "arguments": {}}, left=1)
    with running(
        fleet, gateway, on_socket_error=lambda shard, error: errors.append((shard, error))
    ) as worker:
        wait_until(lambda: errors, PATIENCE)
        fleet.commands.update_presence(shard_id=1, status="idle")
        wait_until(lambda: sent(gateway, 3), PATIENCE)
        ((shard, error),) = errors
        assert shard is worker.shards[1]
    assert isinstance(error, TimeoutError)
    assert [data["status"] for _, data in sent(gateway, 3)] == ["idle"]


def test_commands_survive_the_worker_that_is_killed_while_it_carries_them_out(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    killed = WorkerProcess(redis_server, gateway)
    try:
        wait_until(lambda: len(killed.owns(fleet)) == SHARDS, PATIENCE)
        nonces = [
            fleet.commands.request_guild_members(guild_of(1), timeout=3600.0) for _ in range(100)
        ]
        wait_until(lambda: len(sent(gateway, 8)) > 50, PATIENCE)
        killed.kill()
    finally:
        killed.kill()
    other = WorkerProcess(redis_server, gateway)
    try:
        wait_until(lambda: len({data["nonce"] for _, data in sent(gateway, 8)}) == 100, PATIENCE)
        wait_until(lambda: client.xlen(Keys("mybot").shard(1).commands) == 0, PATIENCE)
    finally:
        other.kill()
    carried_out = [data["nonce"] for _, data in sent(gateway, 8)]
    assert list(dict.fromkeys(carried_out)) == nonces  # in order
    assert len(carried_out) <= 101


def test_a_shard_that_is_handed_over_leaves_its_commands_to_the_next_owner(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, keys: Keys
) -> None:
    errors: list[Exception] = []
    options: Any = {"on_socket_error": lambda shard, error: errors.append(error)}
    with running(fleet, gateway, **options) as first, running(fleet, gateway, **options):
        wait_until(lambda: all(each.owner for each in fleet.shards()), PATIENCE)
        nonces = []
        for number in range(80):
            nonces.append(fleet.commands.request_guild_members(guild_of(2)))
            if number == 20:
                first.drain(PATIENCE)
            elif number == 50:
                first.start(gateway.url)
        wait_until(lambda: len(sent(gateway, 8)) >= 80, PATIENCE)
        wait_until(lambda: client.xlen(keys.shard(2).commands) == 0, PATIENCE)
    assert [data["nonce"] for _, data in sent(gateway, 8)] == nonces
    assert errors == []


def test_a_shard_that_leaves_is_restarted_by_the_next_owner_and_not_by_the_old_one(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, keys: Keys
) -> None:
    errors: list[Exception] = []
    options: Any = {"on_socket_error": lambda shard, error: errors.append(error)}
    gateway.inject(instead_of="close", shard_id=SHARDS - 1)  # its owner waits for that
    with running(fleet, gateway, close_timeout=2.0, **options) as first:
        wait_for_shards(first, SHARDS)
        leaving = first.shards[SHARDS - 1]
        with running(fleet, gateway, **options) as second:
            wait_until(lambda: leaving.state is ShardState.CLOSING, PATIENCE)
            fleet.commands.restart(SHARDS - 1)
            wait_for_shards(second, SHARDS // 2)
            wait_until(lambda: not client.xlen(keys.shard(SHARDS - 1).commands), PATIENCE)
    assert leaving.stats.connections == 1
    assert errors == []


def test_commands_wait_when_the_sends_are_used_up_and_a_restart_does_not(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, keys: Keys
) -> None:
    errors: list[Exception] = []
    with running(
        fleet, gateway, on_socket_error=lambda shard, error: errors.append(error)
    ) as worker:
        wait_for_shards(worker, SHARDS)
        nonces = [fleet.commands.request_guild_members(guild_of(1)) for _ in range(130)]
        wait_until(lambda: client.xlen(keys.shard(1).commands) < 20, PATIENCE)
        fleet.commands.request_guild_members(guild_of(2))
        wait_until(lambda: 2 in dict(sent(gateway, 8)), PATIENCE)
        assert client.xlen(keys.shard(1).commands) > 5
        fleet.commands.restart(1)  # the next connection may send as much again
        wait_until(lambda: client.xlen(keys.shard(1).commands) == 0, PATIENCE)
    assert [data["nonce"] for shard_id, data in sent(gateway, 8) if shard_id == 1] == nonces
    assert errors == []


def test_a_worker_that_was_stopped_carries_nothing_out_that_another_has_taken(
    redis_server: RedisServer, gateway: LocalGateway
) -> None:
    with make_fleet(redis_server) as fleet:
        stopped = WorkerProcess(redis_server, gateway)
        other = None
        try:
            wait_until(lambda: len(stopped.owns(fleet)) == SHARDS, PATIENCE)
            stopped.send(signal.SIGSTOP)
            fleet.commands.update_presence(status="idle")
            other = WorkerProcess(redis_server, gateway)
            wait_until(lambda: len(sent(gateway, 3)) == SHARDS, PATIENCE)
            stopped.send(signal.SIGCONT)
            wait_until(lambda: stopped.owns(fleet) != [], PATIENCE)  # one is given to it
            fleet.commands.update_presence(status="dnd")
            wait_until(lambda: len(sent(gateway, 3)) == 2 * SHARDS, PATIENCE)
            statuses = sorted((shard_id, data["status"]) for shard_id, data in sent(gateway, 3))
            assert statuses == [
                (shard_id, status) for shard_id in range(SHARDS) for status in ("dnd", "idle")
            ]
        finally:
            stopped.kill()
            if other is not None:
                other.kill()


# What may go wrong


def test_forged_commands_harm_nobody(
    fleet: Fleet,
    gateway: LocalGateway,
    client: redis.Redis,
    keys: Keys,
    commands: CommandScripts,
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors: list[Exception] = []
    with running(
        fleet, gateway, on_socket_error=lambda shard, error: errors.append(error)
    ) as worker:
        wait_for_shards(worker, SHARDS)
        forged: list[object] = [
            b"no JSON \xff",
            b"[" * 100_000,
            ["a list"],
            {"method": "send", "arguments": {"data": '{"op": 2, "d": {}}'}},
            {"method": "disconnect", "arguments": {}},
            {"method": ["update_presence"], "arguments": {}},
            {"method": "update_presence", "arguments": []},
            {"method": "update_presence", "arguments": {"status": "away"}},
            {"method": "update_presence", "arguments": {"timeout": 1e9}},
            {"method": "update_voice_state", "arguments": {"guild_id": {}, "channel_id": None}},
            {"method": "restart", "arguments": {"new_session": "yes"}},
            {"method": "restart", "arguments": {"socket_url": "ws://127.0.0.1:1"}},
        ]
        for content in forged:
            forge(client, 1, content)
        for left in ("nan", "inf", "-1", "soon", ""):
            forge(client, 1, {"method": "update_presence", "arguments": {}}, left)
        client.xadd(keys.shard(1).commands, {"nothing": ""})
        client.xadd(keys.commands, {"p": '{"shards": [true, "1", -1, 99], "drain": []}'})
        for timeout in ("NaN", float("nan"), -1, True, None, 10**400):
            commands.announce({"drain": worker.name, "timeout": timeout}, 60.0)
        client.set(keys.shard(2).commands, "not a stream")
        fleet.commands.request_guild_members(guild_of(1))
        wait_until(lambda: sent(gateway, 8), PATIENCE)
        assert len(errors) == len(forged) + 6
        assert sent(gateway, 3) == []
        wait_for_shards(worker, SHARDS)
        worker.shards[2].heartbeat()
        for _ in range(2):  # its lease is renewed, and the worker goes on with the next
            wait_until(lambda: fleet.shards()[2].ping is not None, PATIENCE)
            client.hset(keys.shard(2).state, "ping", "")
    assert "events wait here" not in caplog.text  # as if Redis was away
    assert len(gateway.identifies) == SHARDS


def test_news_that_are_lost_delay_a_command_and_no_more(
    redis_server: RedisServer, gateway: LocalGateway, client: redis.Redis, keys: Keys
) -> None:
    with make_fleet(redis_server, lease=1.5) as fleet, running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        client.xadd(keys.commands, {"p": "{}"}, id="99999999999999-0")  # a clock far ahead
        wait_until(lambda: fleet.shards()[0].state is ShardState.READY)
        client.delete(keys.commands)
        fleet.commands.update_presence(status="idle")
        wait_until(lambda: len(sent(gateway, 3)) == SHARDS, PATIENCE)
        client.delete(keys.commands)
        client.set(keys.commands, "not a stream")
        with pytest.raises(FleetError, match="another program must have written"):
            fleet.commands.update_presence(status="dnd")
        wait_until(lambda: len(sent(gateway, 3)) == 2 * SHARDS, PATIENCE)


def test_a_callback_that_ends_the_program_ends_the_worker(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    def end(shard: object, error: Exception) -> None:
        raise SystemExit(3)

    with running(fleet, gateway, on_socket_error=end) as worker:
        wait_for_shards(worker, SHARDS)
        forge(client, 1, b"no JSON")
        with pytest.raises(SystemExit):
            worker.join(PATIENCE)


def test_commands_go_on_after_redis_was_away(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        redis_server.kill()
        with pytest.raises(RedisAway):
            fleet.commands.update_presence(status="dnd")
        redis_server.start()
        fleet.commands.update_presence(status="idle")
        wait_until(lambda: len(sent(gateway, 3)) == SHARDS, PATIENCE)


@pytest.mark.parametrize(
    "name, arguments, options, error",
    [
        ("update_presence", [], {"status": "away"}, ValueError),
        ("update_presence", [], {"activities": "chess"}, TypeError),
        ("update_presence", [], {"activities": [{"name": "x" * 5000, "type": 0}]}, ValueError),
        ("update_presence", [], {"activities": [{"name": "x", "type": 0, "y": {1}}]}, TypeError),
        ("update_presence", [], {"shard_id": SHARDS}, ValueError),
        ("update_presence", [], {"shard_id": "1"}, TypeError),
        ("update_presence", [], {"timeout": 0}, ValueError),
        ("update_presence", [], {"timeout": 86_401}, ValueError),
        ("update_presence", [], {"timeout": None}, TypeError),
        ("update_voice_state", ["x", 1], {}, ValueError),
        ("update_voice_state", [1, 2], {"self_mute": 1}, TypeError),
        ("request_guild_members", [1], {"query": "a"}, ValueError),
        ("request_guild_members", [1.5], {}, TypeError),
        ("request_guild_members", [1], {"nonce": "x" * 33}, ValueError),
        ("request_soundboard_sounds", [[]], {}, ValueError),
        ("request_soundboard_sounds", [[1]], {"timeout": -1}, ValueError),
        ("request_channel_info", [1, ["name"]], {}, ValueError),
        ("restart", [-1], {}, ValueError),
        ("restart", [True], {}, TypeError),
        ("restart", [0], {"new_session": 1}, TypeError),
        ("drain", [3], {}, TypeError),
        ("drain", ["x"], {"timeout": -1}, ValueError),
    ],
)
def test_arguments_are_checked_before_anything_is_written(
    name: str,
    arguments: list[Any],
    options: dict[str, Any],
    error: type[Exception],
    fleet: Fleet,
    client: redis.Redis,
    keys: Keys,
) -> None:
    with pytest.raises(error):
        getattr(fleet.commands, name)(*arguments, **options)
    assert not client.exists(keys.commands)
    assert not any(client.exists(keys.shard(shard_id).commands) for shard_id in range(SHARDS))


def test_a_fleet_that_was_not_begun_has_no_shards_to_command(redis_server: RedisServer) -> None:
    with Fleet(redis_server.url, "mybot") as fleet:
        with pytest.raises(FleetError, match=r"Call Fleet\.init\(\)"):
            fleet.commands.restart(0)


# The streams


def test_a_command_stays_until_its_owner_has_carried_it_out(
    commands: CommandScripts, scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owner = owner_of_new_shard(scripts, client, keys)
    commands.send({0: {"number": 1}}, 60.0)
    commands.send({0: {"number": 2}}, 60.0)
    first, second = take(commands, owner.token)
    assert [first.content, second.content] == [{"number": 1}, {"number": 2}]
    assert 50 < first.left <= 60
    assert take(commands, "another") == []
    assert owner.tell() == Reported(Outcome.RENEWED, 2)
    assert take(commands, owner.token, 0, first.id) == [second._replace(left=ANY)]
    assert owner.tell() == Reported(Outcome.RENEWED, 1)


def test_a_stream_has_a_thousand_commands_at_most_and_goes_with_the_last(
    commands: CommandScripts, client: redis.Redis, keys: Keys
) -> None:
    key = keys.shard(0).commands
    for number in range(1200):
        commands.send({0: {"number": number}}, 60.0)
    assert 1000 <= client.xlen(key) < 1150
    assert 55_000 < client.pttl(key) <= 60_000
    commands.send({0: {}}, 1.0)
    assert client.pttl(key) > 50_000


def test_news_are_read_once_and_again_after_redis_has_lost_them(
    commands: CommandScripts, client: redis.Redis, keys: Keys
) -> None:
    assert commands.read_news(BEGINNING) == (BEGINNING, [])
    commands.announce({"shards": [1]}, 60.0)
    place, (entry,) = commands.read_news(BEGINNING)
    assert entry.content == {"shards": [1]}
    assert commands.read_news(place) == (place, [])
    client.delete(keys.commands)
    client.xadd(keys.commands, {"p": "{}"}, id="5-0")  # the clock of Redis was put back
    assert [each.id for each in commands.read_news(place)[1]] == [b"5-0"]


def test_commands_work_on_a_cluster(
    redis_program: str, tmp_path: Path, gateway: LocalGateway
) -> None:
    options = ("--cluster-enabled", "yes")
    with RedisServer(redis_program, tmp_path / "cluster", *options) as server:
        make_cluster(server)
        client = server.cluster_client()
        with make_fleet(server, client=client) as fleet, running(fleet, gateway) as worker:
            wait_for_shards(worker, SHARDS)
            fleet.commands.update_presence(status="idle")
            wait_until(lambda: len(sent(gateway, 3)) == SHARDS, PATIENCE)
            wait_until(lambda: fleet.shards()[3].state is ShardState.READY, PATIENCE)
            fleet.commands.drain(worker.name)
            worker.join(PATIENCE)


# What is known of shards


def test_shards_tells_the_state_the_ping_and_the_machine(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        wait_until(lambda: all(each.state is ShardState.READY for each in fleet.shards()))
        worker.shards[1].heartbeat()
        wait_until(lambda: fleet.shards()[1].ping is not None, PATIENCE)
        info = fleet.shards()[1]
        assert info.ping in worker.shards[1].latency.recent
        assert (info.owner, info.machine) == (worker.name, socket.gethostname())
        assert 0 <= (info.session_age or 0) < 60
        gateway.outage()
        wait_until(lambda: fleet.shards()[1].state is not ShardState.READY, PATIENCE)
        gateway.restore()
    info = fleet.shards()[1]
    assert (info.owner, info.machine, info.state, info.ping) == (None, None, None, None)
    assert info.session_age is not None


def test_shards_tells_how_far_each_group_is_behind(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        with fleet.consumer("web") as consumer:
            assert consumer.get(PATIENCE) is not None
        dispatch(gateway, 3)
        wait_for_all(client, gateway)
    for info in fleet.shards():
        lag = info.lag["web"]
        assert lag is None or info.events - 2 <= lag <= info.events
