"""``shardlib worker``, run as users run it: as a process that is interrupted, or killed."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from shardlib import ShardState
from shardlib.fleet import Fleet
from shardlib.testing import LocalGateway
from tests.command import CTRL_C, Command, Pipe, wait_for
from tests.fleet.workers import (
    LEASE,
    PATIENCE,
    SHARDS,
    dispatch,
    make_fleet,
    make_fleet_gateway,
    owned_by,
    sessions_of,
    wait_for_all,
)
from tests.redis_server import RedisServer
from tests.support import TOKEN, send_signal, wait_until


@pytest.fixture
def fleet(redis_server: RedisServer) -> Iterator[Fleet]:
    with make_fleet(redis_server, lease=LEASE) as fleet:
        yield fleet


def worker(
    server: RedisServer,
    gateway: LocalGateway,
    *others: str,
    token: str | None = None,
    reads: bool = True,
    stderr: Any = subprocess.PIPE,
) -> Command:
    command = Command(
        *("worker", "--redis", server.url, "--name", "mybot", "--intents", "all"),
        *("--url", gateway.url, "--lease", str(LEASE), *others),
        token=token or gateway.token,
        stderr=stderr,
    )
    return command.read() if reads else command


def owned(fleet: Fleet, command: Command) -> list[int]:
    return owned_by(fleet, command.process.pid)


def wait_until_owned(fleet: Fleet, *commands: Command) -> None:
    """Wait until the commands have all shards among them, READY, and each has one at least.

    A worker may tell that a shard is READY before it has written the session: killed in between,
    it would take the session with it.
    """

    def are_owned() -> bool:
        each = [owned(fleet, command) for command in commands]
        shards = fleet.shards()
        ready = all(info.state is ShardState.READY and info.session_id for info in shards)
        return all(each) and sum(map(len, each)) == SHARDS and ready

    wait_until(are_owned, PATIENCE, "all shards to have an owner")


def log_of(command: Command) -> list[str]:
    """What its log tells, without the times."""
    return [line.partition(" -- ")[2] or line for line in command.err]


def assert_well_told(command: Command) -> None:
    assert command.out == []
    assert not [line for line in command.err if re.search("Traceback|gnored", line)], command.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_hands_the_shards_over_and_the_log_tells_it(
    number: signal.Signals,
    fleet: Fleet,
    gateway: LocalGateway,
    redis_server: RedisServer,
    client: redis.Redis,
) -> None:
    with (
        worker(redis_server, gateway, "--most-shards", str(SHARDS - 1)) as leaving,
        worker(redis_server, gateway) as staying,
    ):
        wait_until_owned(fleet, leaving, staying)
        dispatch(gateway, 20)
        leaving.process.send_signal(number)
        assert leaving.finish() == 0
        assert owned(fleet, leaving) == []
        wait_until_owned(fleet, staying)
        dispatch(gateway, 20)
        wait_for_all(client, gateway)
    sessions_of(gateway)  # one for each shard: none was lost
    assert_well_told(leaving)
    log = log_of(leaving)
    assert re.fullmatch(r"worker \S+ of the fleet mybot", log[0])
    assert log[1] == f"this worker looks for shards, of {SHARDS} in all"
    assert any(line.startswith("claimed shard") for line in log)
    assert any(re.fullmatch(r"shard \d: (ready|resumed), session \w+", line) for line in log)
    told = log.index(
        "told to end: this worker hands its shards over first; another signal ends it at once"
    )
    handing = re.compile(r"handing \d shards? over, to 1 other worker")
    assert any(handing.fullmatch(line) for line in log[told:]), log
    assert log[-2].startswith("released shard")
    assert log[-1] == "the worker has ended"


@pytest.mark.slow
def test_a_signal_while_the_log_goes_into_a_full_pipe_ends_the_worker(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    """The main thread logged that it was told to end, and was stuck there itself."""
    with (
        Pipe() as pipe,
        worker(redis_server, gateway, "--drain-timeout", "1", reads=False, stderr=pipe) as command,
    ):
        wait_until_owned(fleet, command)
        pipe.fill()
        command.process.send_signal(signal.SIGTERM)
        command.finish()


def test_a_takeover_tells_whose_shards_they_were(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    with worker(redis_server, gateway) as killed:
        wait_until_owned(fleet, killed)
        name = fleet.shards()[0].owner
        killed.process.kill()
    with worker(redis_server, gateway) as heir:
        wait_until_owned(fleet, heir)
        heir.interrupt()
        assert heir.finish() == 0
    sessions_of(gateway)
    claims = [line for line in log_of(heir) if line.startswith("claimed")]
    assert all(f" of {name}, which was not heard of for 3 seconds; " in line for line in claims)
    assert claims[-1].endswith(f"this worker has {SHARDS} of {SHARDS}")
    assert f"handing {SHARDS} shards over, to whoever comes: no other worker lives" in log_of(heir)
    assert_well_told(heir)


def test_a_new_fleet_waits_for_a_lease_and_says_why(
    redis_server: RedisServer, gateway: LocalGateway
) -> None:
    with Fleet(redis_server.url, "mybot", lease=LEASE) as fleet:
        fleet.init(SHARDS, max_concurrency=SHARDS, identify_interval=0.01)
        with worker(redis_server, gateway) as command:
            wait_until_owned(fleet, command)
            command.interrupt()
            assert command.finish() == 0
    patience = [line for line in log_of(command) if "knows nothing of the shards" in line]
    assert len(patience) == 1 and "3 seconds" in patience[0]


def test_a_second_signal_waits_for_nobody(redis_server: RedisServer) -> None:
    # More than are handed over at once: the rest waits until others have taken the first ones.
    shards = 6
    with (
        make_fleet_gateway(shards) as gateway,
        make_fleet(redis_server, lease=LEASE, shards=shards) as fleet,
        worker(redis_server, gateway, "--most-shards", "1", "--lease", "30") as asleep,
    ):
        wait_until(lambda: owned(fleet, asleep), PATIENCE)
        with worker(redis_server, gateway) as leaving:
            wait_until(lambda: len(owned(fleet, leaving)) == shards - 1, PATIENCE)
            wait_until(lambda: all(info.sequence for info in fleet.shards()), PATIENCE)
            send_signal(asleep.process, signal.SIGSTOP)  # lives, as far as Redis knows
            leaving.interrupt()
            wait_for(leaving.err, "handing 5 shards over, to 1 other worker")
            wait_for(leaving.err, "released shard")
            assert owned(fleet, leaving)
            leaving.interrupt()
            assert leaving.finish() == 0
        assert owned(fleet, leaving) == []
    assert_well_told(leaving)


@pytest.mark.parametrize("redis_is_there", [True, False])
def test_ctrl_c_ends_a_worker_that_has_nothing_quietly(
    redis_is_there: bool, fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    if not redis_is_there:
        redis_server.kill()
    with worker(redis_server, gateway, "--lease", "60") as command:
        wait_for(command.err, "looks for shards" if redis_is_there else "waits until it answers")
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    assert log_of(command)[-1] == "the worker has ended"
    assert_well_told(command)


def test_a_worker_waits_for_a_redis_that_is_away(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    redis_server.kill()
    with worker(redis_server, gateway) as command:
        wait_for(command.err, "This worker waits until it answers")
        redis_server.start()
        wait_until_owned(fleet, command)
        wait_for(command.err, "Redis answers again")


def test_a_refused_token_ends_the_worker_and_is_told_once(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    gateway.token = "another.token.at-all"
    with worker(redis_server, gateway, token=TOKEN) as command:
        assert command.finish() == 1
    assert command.err[-1].startswith("shardlib: ")
    assert len([line for line in command.err if "4004" in line]) == 1, command.err
    assert TOKEN not in "\n".join(command.err)
    assert_well_told(command)


def test_the_options_reach_the_worker(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    options: tuple[str, ...] = (
        "--forward",
        "READY,MESSAGE_CREATE,MESSAGE_CRAETE",
        "--most-shards",
        "2",
        "--keep-events",
        "500",
    )
    options += ("--buffer", "100", "--replay-memory", "1", "--compression", "none")
    with worker(redis_server, gateway, *options) as command:
        wait_until(lambda: len(owned(fleet, command)) == 2, PATIENCE)
        wait_until(lambda: len(gateway.sessions) == 2, PATIENCE)
        dispatch(gateway, 3)
        wait_for_all(client, gateway, lambda name: name in ("READY", "MESSAGE_CREATE"))
        assert {each.compression for each in gateway.connections} == {None}
        wait_for(command.err, "did you mean MESSAGE_CREATE?")


def test_a_worker_makes_no_http_request(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    requests: list[object] = []
    gateway.inject(requests.append, before="answer", connections=None)
    with worker(redis_server, gateway) as command:
        wait_until_owned(fleet, command)
    assert requests == []


def test_a_worker_goes_on_if_the_program_that_reads_its_output_has_ended(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer
) -> None:
    with worker(redis_server, gateway, reads=False) as command:
        assert command.process.stdout is not None
        command.process.stdout.close()
        wait_until_owned(fleet, command)
        command.interrupt()
        assert command.finish() == 0
