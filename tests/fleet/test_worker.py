"""Workers in this process, with a real Redis and a real gateway."""

from __future__ import annotations

import contextlib
import gc
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis

from shardlib import AuthenticationFailed, Intents
from shardlib.fleet import Fleet, FleetError, Worker
from shardlib.fleet.keys import Keys
from shardlib.fleet.resuming import ResumeHosts
from shardlib.fleet.scripts import FIELD
from shardlib.testing import LocalGateway
from tests.fleet.workers import (
    SHARDS,
    dispatch,
    make_fleet,
    make_fleet_gateway,
    running,
    sessions_of,
    stream,
    wait_for_all,
    wait_for_renewals,
    wait_for_shards,
)
from tests.managers import identified, opcodes
from tests.redis_server import RedisServer, make_cluster
from tests.support import Thread, not_none, wait_until

PATIENCE = 60.0


# Events


def test_ready_comes_first_and_ids_are_epoch_and_sequence(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        dispatch(gateway, 50)
        wait_for_all(client, gateway)
    for shard_id, session in enumerate(sessions_of(gateway)):
        (first_id, first), *_ = stream(client, shard_id)
        assert first["t"] == "READY"
        assert first["d"]["session_id"] == session.session_id
        assert first_id.endswith("-1")


def test_a_session_with_the_id_of_the_one_before_is_a_new_one(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardlib.testing.session.uuid.uuid4", lambda: uuid.UUID(int=7))
    with (
        make_fleet_gateway(1) as gateway,
        make_fleet(redis_server, shards=1) as fleet,
        running(fleet, gateway) as worker,
    ):
        wait_for_shards(worker, 1)
        dispatch(gateway, 10)
        wait_for_all(client, gateway)
        (first,) = sessions_of(gateway, 1)
        not_none(first.connection).invalid_session(False)
        wait_until(lambda: len(gateway.all_sessions) == 2, PATIENCE)
        second = gateway.all_sessions[1]
        assert second.session_id == first.session_id
        wait_until(lambda: second.sequence > 0, PATIENCE)
        second.dispatch("LAST", {})
        wait_until(lambda: stream(client, 0)[-1][1]["t"] == "LAST", PATIENCE)
        texts = [payload for _, payload in stream(client, 0)]
        gap = [payload["t"] for payload in texts].index("SHARDLIB_GAP")
        assert [payload["s"] for payload in texts[gap:]] == list(range(second.sequence + 1))
        assert worker.error is None


def test_events_that_are_not_forwarded_count_for_the_resume(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway, forward=["message_create"]) as worker:
        wait_for_shards(worker, SHARDS)
        dispatch(gateway, 3)
        wait_for_all(client, gateway, lambda name: name == "MESSAGE_CREATE")
        session = sessions_of(gateway)[0]
        session.dispatch("TYPING_START", {})
        wait_until(lambda: fleet.shards()[0].sequence == session.sequence)
    assert {payload["t"] for _, payload in stream(client, 0)} == {"MESSAGE_CREATE"}


def test_an_event_is_acknowledged_when_it_is_in_redis(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        shard, session = worker.shards[0], sessions_of(gateway)[0]
        wait_until(lambda: getattr(shard.session, "sequence", None) == session.sequence)
        before = session.sequence
        redis_server.stop_answering()
        try:
            dispatch(gateway)
            wait_until(lambda: shard.last_sequence == before + 1)
            assert not_none(shard.session).sequence == before
        finally:
            redis_server.answer_again()
        wait_until(lambda: not_none(shard.session).sequence == before + 1, PATIENCE)


def test_a_reader_waits_while_its_outbox_is_full_and_nothing_is_lost(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, redis_server: RedisServer
) -> None:
    with running(fleet, gateway, buffer=10) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        redis_server.kill()
        dispatch(gateway, 100)
        for session, shard in zip(sessions_of(gateway), worker.shards.values(), strict=True):
            seconds = shard.stats.callback_seconds
            wait_until(lambda: shard.stats.callback_seconds > seconds + 0.2)
            assert not_none(shard.last_sequence) < session.sequence
        assert worker.stats.waiting <= 2 * 10 * SHARDS  # as many again may be on their way
        redis_server.start()
        wait_for_all(client, gateway)
    assert len(gateway.identifies) == SHARDS


# Session starts


def test_all_workers_together_start_no_more_sessions_than_discord_allows(
    fleet: Fleet,
    gateway: LocalGateway,
    client: redis.Redis,
    keys: Keys,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet.init(
        SHARDS,
        max_concurrency=SHARDS,
        identify_interval=0.01,
        session_start_limit=100,
        remaining=7,  # five of them are for the user
        reset_after=3600.0,
    )
    with running(fleet, gateway, 2), running(fleet, gateway, 2):
        wait_until(lambda: len(gateway.identifies) == 2, PATIENCE)
        wait_until(lambda: "no shard may identify for 60 minutes" in caplog.text, PATIENCE)
        wait_for_all(client, gateway)
    with running(fleet, gateway):  # the two that have a session resume it
        wait_until(lambda: sum(each.resumes for each in gateway.all_sessions) == 2, PATIENCE)
    assert len(gateway.identifies) == 2
    assert client.hget(keys.starts, "used") == b"95"
    assert 0 < client.pttl(keys.starts) <= 3_600_000


@pytest.mark.parametrize(
    "options, error",
    [
        ({"remaining": -1}, ValueError),
        ({"remaining": 1001}, ValueError),
        ({"remaining": 1.0}, TypeError),
        ({"remaining": 5, "reset_after": -1}, ValueError),
        ({"reset_after": "soon"}, TypeError),
    ],
)
def test_init_refuses_what_discord_cannot_have_counted(
    options: dict[str, Any],
    error: type[Exception],
    redis_server: RedisServer,
    client: redis.Redis,
    keys: Keys,
) -> None:
    with Fleet(redis_server.url, "mybot") as fleet, pytest.raises(error):
        fleet.init(4, **options)
    assert not client.exists(keys.config, keys.starts)


# Redis that forgets


def test_a_redis_without_its_newest_writes_is_given_them_again(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, redis_server: RedisServer
) -> None:
    with running(fleet, gateway, replay_memory=60.0) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        size = redis_server.size_of_log()
        dispatch(gateway, 20)
        wait_for_all(client, gateway)
        redis_server.restart_without_tail(redis_server.size_of_log() - size)
        dispatch(gateway)
        wait_for_all(client, gateway)
        assert worker.stats.regressions > 0
    assert opcodes(gateway, 6) == 0  # no Resume was needed


def test_without_a_memory_the_gateway_is_asked_for_what_redis_has_lost(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, redis_server: RedisServer
) -> None:
    with running(fleet, gateway, replay_memory=0) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        size = redis_server.size_of_log()
        for _ in range(3):  # several batches, of which the memory keeps the last at most
            dispatch(gateway, 5)
            wait_for_all(client, gateway)
        redis_server.restart_without_tail(redis_server.size_of_log() - size)
        dispatch(gateway)
        wait_for_all(client, gateway)
    assert len(gateway.identifies) == SHARDS
    assert opcodes(gateway, 6) > 0


def test_a_redis_that_has_lost_all_is_told_again_by_the_owners(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway, replay_memory=60.0) as worker:
        wait_for_shards(worker, SHARDS)
        dispatch(gateway, 10)
        wait_for_all(client, gateway)
        before = [stream(client, shard_id) for shard_id in range(SHARDS)]
        client.flushall()
        dispatch(gateway)
        wait_for_all(client, gateway)
        after = [stream(client, shard_id) for shard_id in range(SHARDS)]
    for old, new in zip(before, after, strict=True):
        assert new[: len(old)] == old  # with the same ids
    assert len(gateway.identifies) == SHARDS
    assert opcodes(gateway, 6) == 0
    assert len(fleet.shards()) == SHARDS  # the settings are there again


def test_a_shard_that_another_has_had_since_redis_lost_it_is_dropped(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    keys = Keys("mybot").shard(0)
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        shard = worker.shards[0]
        epoch = int(stream(client, 0)[-1][0].partition("-")[0]) + 1
        theirs: dict[Any, Any] = {"session": "theirs", "epoch": epoch, "sequence": 1}
        with client.pipeline() as pipeline:
            pipeline.delete(keys.lease, keys.state)
            pipeline.hset(keys.state, mapping={"born": 1, "count": SHARDS, **theirs})
            pipeline.xadd(keys.events, {FIELD: b'{"t": "READY"}'}, f"{epoch}-1")
            pipeline.execute()
        wait_until(lambda: worker.shards.get(0, shard) is not shard, PATIENCE)
        wait_for_shards(worker, SHARDS)
    assert not any(session.resumes for session in gateway.all_sessions)


@pytest.mark.slow
def test_a_redis_whose_memory_has_run_out_keeps_the_owner_and_gets_the_events_later(
    gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    with make_fleet(redis_server) as fleet, running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        shards = worker.shards
        client.config_set("maxmemory", 1)
        dispatch(gateway, 5)
        wait_until(lambda: worker.stats.waiting >= 5 * SHARDS)
        wait_for_renewals(client, 4)  # a lease has three
        assert all(info.lease > 0 for info in fleet.shards())
        client.config_set("maxmemory", 0)
        wait_for_all(client, gateway)
        assert worker.shards is shards


def test_a_key_that_another_program_has_written_stops_no_other_shard(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        events = Keys("mybot").shard(1).events
        client.rename(events, "elsewhere")
        client.set(events, "not a stream")
        dispatch(gateway, 5)
        sequences = {session.shard[0]: session.sequence for session in sessions_of(gateway)}
        wait_until(lambda: fleet_sequence(client, 3) == sequences[3], PATIENCE)
        assert fleet_sequence(client, 1) < sequences[1]
        client.rename("elsewhere", events)  # a person has mended it
        wait_for_all(client, gateway)


def fleet_sequence(client: redis.Redis, shard_id: int) -> int:
    found: Any = client.hget(Keys("mybot").shard(shard_id).state, "sequence")
    return int(found)


def test_a_worker_runs_on_a_cluster(redis_program: str, tmp_path: Path) -> None:
    shards = 8
    with RedisServer(redis_program, tmp_path / "redis", "--cluster-enabled", "yes") as server:
        make_cluster(server)
        client: Any = server.cluster_client()
        with (
            make_fleet_gateway(shards) as gateway,
            make_fleet(server, shards=shards, client=client) as fleet,
            running(fleet, gateway) as worker,
        ):
            wait_for_shards(worker, shards)
            dispatch(gateway, 10)
            wait_for_all(client, gateway)
            worker.drain(0)
            assert [info.owner for info in fleet.shards()] == [None] * shards
        assert client.ping()  # the user's own client is not closed


# Several workers


def test_two_workers_share_and_hand_over_without_a_new_session(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway) as first:
        wait_for_shards(first, SHARDS)
        assert list(first.shards) == list(range(SHARDS))  # lowest ids first
        with running(fleet, gateway) as second:
            wait_for_shards(first, SHARDS // 2)
            wait_for_shards(second, SHARDS // 2)
            assert set(second.shards) == {2, 3}  # the youngest were given away
            dispatch(gateway, 10)
            wait_for_all(client, gateway)
            first.drain(PATIENCE)
            wait_for_shards(second, SHARDS)
            dispatch(gateway, 10)
            wait_for_all(client, gateway)
    assert len(gateway.identifies) == SHARDS


@pytest.mark.parametrize(("shards", "kept"), [(3, 2), (6, 3), (8, 5)])
def test_one_shard_beyond_the_share_is_kept_only_where_the_share_is_four_or_more(
    redis_server: RedisServer, shards: int, kept: int
) -> None:
    with make_fleet_gateway(shards) as gateway, make_fleet(redis_server, shards=shards) as fleet:
        with running(fleet, gateway) as first:
            wait_for_shards(first, shards)
            with running(fleet, gateway) as second:
                wait_for_shards(second, shards - kept)
                wait_for_shards(first, kept)


def test_a_worker_takes_no_more_than_it_may_and_others_take_the_rest(
    fleet: Fleet, gateway: LocalGateway
) -> None:
    with running(fleet, gateway, 1) as small:
        wait_for_shards(small, 1)
        with running(fleet, gateway) as large:
            wait_for_shards(large, SHARDS - 1)
            assert len(small.shards) == 1


def test_a_shard_that_the_user_closes_is_handed_over(fleet: Fleet, gateway: LocalGateway) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        shard = worker.shards[2]
        shard.disconnect(4000)
        wait_until(lambda: worker.shards.get(2, shard) is not shard, PATIENCE)
        wait_for_shards(worker, SHARDS)
    assert sessions_of(gateway)[2].resumes == 1


@pytest.mark.slow
def test_a_shard_is_released_only_when_its_events_are_written(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        shard, session = worker.shards[2], sessions_of(gateway)[2]
        client.config_set("maxmemory", 1)
        sequence = session.dispatch("MESSAGE_CREATE", {})
        wait_until(lambda: shard.last_sequence == sequence, PATIENCE)
        shard.disconnect(4000)
        wait_for_renewals(client, 2)
        assert worker.shards[2] is shard
        client.config_set("maxmemory", 0)
        wait_until(lambda: worker.shards.get(2, shard) is not shard, PATIENCE)
        assert fleet.shards()[2].sequence >= sequence


def test_a_worker_whose_shard_another_has_claimed_drops_it_at_its_next_write(
    gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    keys = Keys("mybot").shard(1)
    with make_fleet(redis_server, lease=600.0) as fleet, running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        shard = worker.shards[1]
        wait_for_all(client, gateway)
        count = client.xlen(keys.events)
        client.hset(keys.state, mapping={"token": "another's", "owner": "another"})
        client.set(keys.lease, "another's", ex=600)
        sessions_of(gateway)[1].dispatch("MESSAGE_CREATE", {})
        wait_until(lambda: 1 not in worker.shards, PATIENCE)
        wait_until(lambda: shard.state.value == "closed", PATIENCE)
        assert client.xlen(keys.events) == count
        assert len(worker.shards) == SHARDS - 1
        assert worker.stats.refused == 1


def test_a_shard_does_not_resume_a_session_that_another_has_claimed(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    keys = Keys("mybot").shard(1)
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        session = sessions_of(gateway)[1]
        shard = worker.shards[1]
        client.hset(keys.state, mapping={"token": "another's", "owner": "another"})
        client.set(keys.lease, "another's", ex=600)
        with contextlib.suppress(AttributeError):
            not_none(session.connection).close(4000)
        wait_until(lambda: shard.state.value == "closed", PATIENCE)
        assert session.resumes == 0


def test_a_shard_does_not_identify_that_another_has_claimed(
    gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    keys = Keys("mybot").shard(1)
    with make_fleet(redis_server, lease=60.0) as fleet:  # so that no renewal comes before
        fleet.init(SHARDS, max_concurrency=1, identify_interval=6.0)
        with running(fleet, gateway) as worker:
            wait_until(lambda: 1 in worker.shards, PATIENCE)
            shard = worker.shards[1]
            client.hset(keys.state, mapping={"token": "another's", "owner": "another"})
            wait_until(lambda: shard.state.value == "closed", PATIENCE)
        assert 1 not in identified(gateway)


@pytest.mark.slow
def test_a_worker_is_patient_after_redis_was_away(
    gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    others = [Keys("mybot").shard(shard_id) for shard_id in (2, 3)]
    with make_fleet(redis_server) as fleet:
        for keys in others:
            client.hset(keys.state, mapping={"token": "another's", "owner": "another"})
            client.set(keys.lease, "another's", ex=600)
        with running(fleet, gateway) as worker:
            wait_for_shards(worker, 2)
            redis_server.kill()
            wait_until(lambda: _notices(worker), PATIENCE)
            redis_server.start()
            for keys in others:  # they expire though Redis is down, so that no owner can renew
                client.delete(keys.lease)
            wait_until(lambda: not _notices(worker), PATIENCE)
            wait_for_renewals(client, 1)  # a lease has three
            assert list(worker.shards) == [0, 1]
            wait_for_shards(worker, SHARDS)


def _notices(worker: Worker) -> bool:
    return worker._supervisor._away_since is not None


# Beginning and end


def test_stop_writes_what_waits_and_leaves_the_sessions_to_others(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        dispatch(gateway, 50)
        shards = worker.shards
        worker.stop()
        worker.join(0)
        assert worker.shards == {}
        received = [shards[shard_id].last_sequence for shard_id in range(SHARDS)]
        assert [info.sequence for info in fleet.shards()] == received
        assert [info.owner for info in fleet.shards()] == [None] * SHARDS
        dispatch(gateway, 5)
        worker.start(gateway.url)
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
    assert len(gateway.identifies) == SHARDS
    assert [session.ended for session in sessions_of(gateway)] == [None] * SHARDS


def test_a_refused_token_ends_the_worker(fleet: Fleet, gateway: LocalGateway) -> None:
    worker = fleet.worker("another.token.altogether", Intents.all())
    with pytest.raises(AuthenticationFailed):
        worker.run_forever(gateway.url)
    assert [info.owner for info in fleet.shards()] == [None] * SHARDS


def test_a_shard_with_an_error_of_its_own_is_kept_and_the_others_go_on(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        not_none(sessions_of(gateway)[1].connection).close(4010)
        wait_until(lambda: worker.shards[1].state.value == "closed", PATIENCE)
        sequence = sessions_of(gateway)[0].dispatch("MESSAGE_CREATE", {})
        wait_until(lambda: fleet.shards()[0].sequence == sequence, PATIENCE)
        shard = worker.shards[1]
        wait_for_renewals(client, 2)  # others would have claimed it meanwhile
        assert worker.shards[1] is shard
    assert len(gateway.identifies) == SHARDS


def test_a_worker_without_a_fleet_says_what_to_do(redis_server: RedisServer) -> None:
    with Fleet(redis_server.url, "mybot", lease=0.1) as fleet:
        worker = fleet.worker("a.b.c", Intents.all())
        with pytest.raises(FleetError, match=r"Fleet\.init"):
            worker.run_forever("ws://127.0.0.1:9")
        with pytest.raises(FleetError, match="init"):
            fleet.shards()


def test_a_worker_waits_for_a_redis_that_is_away_at_the_start(
    gateway: LocalGateway, redis_server: RedisServer
) -> None:
    with make_fleet(redis_server) as fleet:
        redis_server.kill()
        with running(fleet, gateway) as worker:
            wait_until(lambda: _notices(worker))
            redis_server.start()
            wait_for_shards(worker, SHARDS)


def test_stop_returns_in_time_though_redis_does_not_answer(
    gateway: LocalGateway, redis_server: RedisServer
) -> None:
    with make_fleet(redis_server) as fleet, running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        redis_server.kill()
        dispatch(gateway)
        worker.stop(1.0)
        redis_server.start()


def test_stop_releases_shards_whose_events_redis_does_not_take(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardlib.fleet.worker._FLUSHING", 0.5)
    with running(fleet, gateway, close_timeout=0.5) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
        client.config_set("maxmemory", 1)
        dispatch(gateway)
        wait_until(lambda: worker.stats.waiting >= SHARDS)
        worker.stop(PATIENCE)
        assert [info.owner for info in fleet.shards()] == [None] * SHARDS
        client.config_set("maxmemory", 0)
        worker.start(gateway.url)
        wait_for_all(client, gateway)  # the Gateway has sent them again


def test_a_worker_that_was_not_started_can_be_stopped_and_dropped(fleet: Fleet) -> None:
    worker = fleet.worker("a.b.c", Intents.all())
    worker.stop()
    worker.drain()
    assert worker.shards == {}
    assert worker.stats.waiting == 0
    assert "a.b.c" not in repr(worker)
    del worker
    gc.collect()


@pytest.mark.parametrize(
    "options",
    [
        {"session": None},
        {"acknowledge": "callbacks"},
        {"session_gate": None},
        {"dispatcher": None},
        {"on_socket_text": None},
        {"should_reconnect": True},
        {"forward": "MESSAGE_CREATE"},
        {"no_such_option": 1},
    ],
)
def test_what_a_worker_sets_itself_is_refused(options: dict[str, Any]) -> None:
    with Fleet("redis://127.0.0.1:1/0", "mybot") as fleet, pytest.raises(TypeError):
        fleet.worker("a.b.c", Intents.all(), **options)


def test_a_name_to_forward_that_no_event_can_have_is_refused() -> None:
    with Fleet("redis://127.0.0.1:1/0", "mybot") as fleet:
        with pytest.raises(ValueError, match="did you mean MESSAGE_CREATE"):
            fleet.worker("a.b.c", Intents.all(), forward={"message create"})


def test_the_number_of_shards_cannot_be_changed(fleet: Fleet) -> None:
    fleet.init(SHARDS, max_concurrency=2)
    with pytest.raises(FleetError, match=f"has {SHARDS} shards"):
        fleet.init(SHARDS + 1)


@pytest.mark.parametrize(
    ("socket_url", "host", "allowed"),
    [
        ("wss://gateway.discord.gg", "gateway.discord.gg", True),
        ("wss://gateway.discord.gg", "gateway-us-east1-b.discord.gg", True),
        ("wss://gateway.discord.gg", "evil.example", False),
        ("wss://gateway.discord.gg", "evildiscord.gg", False),
        ("ws://127.0.0.1:5000", "127.0.0.1", True),
        ("ws://127.0.0.1:5000", "127.0.0.2", False),
        ("wss://proxy.example.co.uk", "other.co.uk", False),
        ("wss://proxy.example.co.uk", "a.proxy.example.co.uk", True),
    ],
)
def test_the_token_goes_only_to_hosts_of_the_gateway(
    socket_url: str, host: str, allowed: bool
) -> None:
    assert (host in ResumeHosts(socket_url)) is allowed


def test_a_session_whose_url_leads_elsewhere_resumes_at_the_workers_own(
    fleet: Fleet, gateway: LocalGateway, client: redis.Redis
) -> None:
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
        wait_for_all(client, gateway)
    client.hset(Keys("mybot").shard(0).state, "url", "wss://evil.example")
    with running(fleet, gateway) as worker:
        wait_for_shards(worker, SHARDS)
    assert [session.resumes for session in sessions_of(gateway)] == [1] * SHARDS


def test_a_drain_is_a_stop_if_no_other_worker_lives(redis_server: RedisServer) -> None:
    shards = 6  # more than are handed over at a time
    with make_fleet(redis_server, shards=shards) as fleet, make_fleet_gateway(shards) as gateway:
        with running(fleet, gateway) as worker:
            wait_for_shards(worker, shards)
            worker.drain()
            worker.join(0)
            assert [info.owner for info in fleet.shards()] == [None] * shards
            worker.start(gateway.url)
            wait_for_shards(worker, shards)  # the drain was of the life before


def test_a_drain_hands_over_four_shards_at_a_time_and_waits_until_others_have_them(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    shards = 8
    with make_fleet(redis_server, shards=shards) as fleet, make_fleet_gateway(shards) as gateway:
        with running(fleet, gateway, 1) as full:
            wait_for_shards(full, 1)
            with running(fleet, gateway) as leaving:
                wait_for_shards(leaving, shards - 1)
                draining = Thread(lambda: leaving.drain(PATIENCE))
                wait_for_shards(leaving, shards - 1 - 4)
                wait_for_renewals(client, 1)  # in which it looks several times who has them
                assert len(leaving.shards) == shards - 1 - 4
                with running(fleet, gateway) as heir:
                    draining.finish()
                    wait_for_shards(heir, shards - 1)


def test_a_drain_ends_in_its_time_though_redis_does_not_answer(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardlib.fleet.worker._FLUSHING", 0.5)
    with running(fleet, gateway, close_timeout=0.5) as worker:
        wait_for_shards(worker, SHARDS)
        redis_server.kill()
        worker.drain(0.5)
        worker.join(10)  # beside the time that it has, for a busy machine
        redis_server.start()
