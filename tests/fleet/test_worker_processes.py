"""Workers in processes that are killed, stopped and interrupted, with a Redis that fails, too."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from shardlib.fleet import Fleet, RedisAway
from shardlib.fleet.keys import Keys
from shardlib.testing import LocalGateway
from tests.fleet.workers import (
    PATIENCE,
    SHARDS,
    WorkerProcess,
    dispatch,
    sessions_of,
    stream,
    wait_for_all,
    wait_for_renewals,
    wait_until_written,
)
from tests.redis_server import RedisServer
from tests.support import wait_until

pytestmark = pytest.mark.slow


@contextmanager
def worker_processes(
    number: int, server: RedisServer, gateway: LocalGateway
) -> Iterator[list[WorkerProcess]]:
    """Worker processes; those that the test adds to the list are killed, too."""
    processes = [WorkerProcess(server, gateway) for _ in range(number)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


def wait_until_owned(fleet: Fleet, processes: list[WorkerProcess]) -> None:
    """Wait until the processes have all shards among them, and each has one at least."""

    def are_owned() -> bool:
        try:
            owned = [process.owns(fleet) for process in processes]
        except RedisAway:
            return False
        return all(owned) and sum(map(len, owned)) == SHARDS

    wait_until(are_owned, PATIENCE, "all shards to have an owner")


def test_a_killed_workers_sessions_go_on_at_another(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    with worker_processes(1, redis_server, gateway) as processes:
        wait_until_owned(fleet, processes)
        wait_until_written(fleet, gateway)
        dispatch(gateway, 200)
        processes[0].kill()  # in the midst of them
        dispatch(gateway, 20)
        processes[:] = [WorkerProcess(redis_server, gateway)]
        wait_until_owned(fleet, processes)
        dispatch(gateway, 20)
        wait_for_all(client, gateway)
    assert [session.resumes for session in sessions_of(gateway)] == [1] * SHARDS


def test_a_worker_killed_between_ready_and_its_first_batch_leaves_no_trace(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    gateway.inject(lambda connection: redis_server.stop_answering(), before="ready", shard_id=2)
    with worker_processes(1, redis_server, gateway) as processes:
        wait_until(lambda: any(each.shard[0] == 2 for each in gateway.all_sessions), PATIENCE)
        processes[0].kill()
        redis_server.answer_again()
        assert client.xlen(Keys("mybot").shard(2).events) == 0
        processes[:] = [WorkerProcess(redis_server, gateway)]
        wait_until_owned(fleet, processes)
        wait_until(lambda: fleet.shards()[2].sequence > 1, PATIENCE)
        (_, first), *_ = stream(client, 2)
    sessions = [session for session in gateway.all_sessions if session.shard[0] == 2]
    assert first["d"]["session_id"] == sessions[1].session_id
    assert len(sessions) == 2


def test_a_stopped_worker_wakes_and_steals_nothing_back(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    with worker_processes(1, redis_server, gateway) as processes:
        (stopped,) = processes
        wait_until_owned(fleet, processes)
        wait_until_written(fleet, gateway)
        stopped.send(signal.SIGSTOP)
        dispatch(gateway, 20)
        awake = WorkerProcess(redis_server, gateway)
        processes.append(awake)
        wait_until_owned(fleet, [awake])
        dispatch(gateway, 20)
        wait_for_all(client, gateway)
        stopped.send(signal.SIGCONT)
        dispatch(gateway, 20)
        wait_for_all(client, gateway)
        awake_has = awake.owns(fleet)
        half = SHARDS // 2
        assert len(awake_has) >= half  # it gives away what is beyond its share
        # Each went over once, and those that are given away go over once more.
        resumes = sorted(session.resumes for session in sessions_of(gateway))
        assert resumes[:half] == [1] * half
        assert max(resumes) <= 2
        assert stopped.end(signal.SIGINT) == 0


# The clock of the process, as if somebody set that of its machine. The library reads no other than
# time.time(), and those that nobody can set.
_CLOCK = """
import time
real = time.time
time.time = lambda: real() + float(open({path!r}).read())
"""


def test_a_clock_that_jumps_moves_no_shard_and_loses_nothing(
    fleet: Fleet,
    gateway: LocalGateway,
    redis_server: RedisServer,
    client: redis.Redis,
    tmp_path: Path,
) -> None:
    path = tmp_path / "clock"
    path.write_text("0")
    with worker_processes(1, redis_server, gateway) as processes:
        preamble = _CLOCK.format(path=str(path))
        processes.append(WorkerProcess(redis_server, gateway, preamble=preamble))
        wait_until_owned(fleet, processes)
        wait_until_written(fleet, gateway)
        wait_for_renewals(client, 4)  # until a shard that was handed over is resumed
        owners = [info.owner for info in fleet.shards()]
        resumes = [session.resumes for session in sessions_of(gateway)]
        for jump in (86_400, -86_400, 0):
            dispatch(gateway, 20)
            path.with_suffix(".new").write_text(str(jump))
            path.with_suffix(".new").replace(path)
            dispatch(gateway, 20)
            wait_until_written(fleet, gateway)
            wait_for_renewals(client, 4)  # a lease has three
            assert [info.owner for info in fleet.shards()] == owners
        wait_for_all(client, gateway)
        assert [session.resumes for session in sessions_of(gateway)] == resumes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_worker_that_ends_hands_over_within_a_moment(
    number: signal.Signals,
    fleet: Fleet,
    gateway: LocalGateway,
    redis_server: RedisServer,
    client: redis.Redis,
) -> None:
    with worker_processes(2, redis_server, gateway) as processes:
        wait_until_owned(fleet, processes)
        wait_until_written(fleet, gateway)
        leaving, staying = processes
        dispatch(gateway, 50)
        assert leaving.end(number) == 0
        # An exit waits for half a second, of which a busy machine needs more: then the leases end.
        assert leaving.owns(fleet) == [] or number == signal.SIGUSR1
        wait_until_owned(fleet, [staying])
        dispatch(gateway, 50)
        wait_for_all(client, gateway)
    assert len(gateway.identifies) == SHARDS


def test_workers_and_redis_fail_in_turn_and_nothing_is_lost(
    fleet: Fleet, gateway: LocalGateway, redis_server: RedisServer, client: redis.Redis
) -> None:
    with worker_processes(2, redis_server, gateway) as processes:
        wait_until_owned(fleet, processes)
        wait_until_written(fleet, gateway)
        for number in range(4):
            dispatch(gateway, 50)
            wait_until_written(fleet, gateway)
            redis_server.restart_without_tail(5_000)  # some events, and no READY
            dispatch(gateway, 50)
            processes[number % 2].kill()
            processes[number % 2] = WorkerProcess(redis_server, gateway)
            wait_until_owned(fleet, processes)
        wait_for_all(client, gateway)
    assert len(gateway.identifies) == SHARDS
