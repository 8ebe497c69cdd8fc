"""The gate of a fleet: who may identify, and when, against real servers and between processes."""

from __future__ import annotations

import itertools
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from shardlib.fleet.config import FleetConfig
from shardlib.fleet.fleetgate import FleetGate
from shardlib.fleet.gatescripts import GateAnswer, GateOutcome, GateScripts
from shardlib.fleet.keys import Keys
from tests.redis_server import HOST, RedisServer
from tests.support import Thread, wait_until

_DAY = 24 * 60 * 60.0

# Asks for its shards in turn until all have passed.
_PROCESS = """
import sys, time
from shardlib.fleet.connecting import connect
from shardlib.fleet.config import FleetConfig
from shardlib.fleet.fleetgate import FleetGate
from shardlib.fleet.gatescripts import GateOutcome, GateScripts
from shardlib.fleet.keys import Keys
url, concurrency, spacing, *shard_ids = sys.argv[1:]
client = connect(url, timeout=30.0)
gate = GateScripts(client, Keys("mybot"))
due = {int(shard_id): 0.0 for shard_id in shard_ids}
while due:
    shard_id = min(due, key=due.get)
    time.sleep(max(0.0, due[shard_id] - time.monotonic()))
    answer = gate.try_pass(
        shard_id, max_concurrency=int(concurrency), spacing=float(spacing), budget=1000
    )
    due[shard_id] = time.monotonic() + answer.wait
    if answer.outcome is GateOutcome.PASSED:
        del due[shard_id]
"""


@pytest.fixture
def gate(client: redis.Redis, keys: Keys) -> GateScripts:
    return GateScripts(client, keys)


def ask(
    gate: GateScripts, shard_id: int, *, spacing: float = 30.0, budget: int = 1000
) -> GateAnswer:
    return gate.try_pass(shard_id, max_concurrency=2, spacing=spacing, budget=budget)


def free_slot(client: redis.Redis, keys: Keys, bucket: int = 0) -> None:
    """Let the time pass after which the next shard of a rate limit key may identify."""
    client.hset(keys.identify(bucket), "free_at", 0)


def test_a_slot_is_taken_once_and_then_free_after_the_spacing(gate: GateScripts) -> None:
    assert ask(gate, 0) == (GateOutcome.PASSED, 0.0)
    answer = ask(gate, 2)
    assert answer.outcome is GateOutcome.WAIT
    assert 20 < answer.wait <= 30
    assert ask(gate, 1).outcome is GateOutcome.PASSED  # of another rate limit key


def test_a_slot_is_free_again_when_the_time_has_come(gate: GateScripts) -> None:
    assert ask(gate, 0, spacing=0.05).outcome is GateOutcome.PASSED
    wait_until(lambda: ask(gate, 0, spacing=0.05).outcome is GateOutcome.PASSED)


def test_the_lowest_shard_that_waits_gets_the_slot(
    gate: GateScripts, client: redis.Redis, keys: Keys
) -> None:
    ask(gate, 0)
    for shard_id in (12, 4, 8):
        ask(gate, shard_id)
    for shard_id in (4, 8, 12):
        free_slot(client, keys)
        higher = [other for other in (12, 8) if other > shard_id]
        assert [ask(gate, other) for other in higher] == [(GateOutcome.WAIT, 0.1)] * len(higher)
        assert ask(gate, shard_id).outcome is GateOutcome.PASSED


def test_a_shard_that_asks_no_more_blocks_nobody(
    gate: GateScripts, client: redis.Redis, keys: Keys
) -> None:
    ask(gate, 0)
    ask(gate, 2)
    free_slot(client, keys)
    assert ask(gate, 4).outcome is GateOutcome.WAIT
    (until,) = client.hmget(keys.identify(0), "2")
    seconds, _ = client.time()
    assert float(until or 0) / 1000 < seconds + 33  # the wait that it was told, and a second
    client.hset(keys.identify(0), "2", seconds * 1000 - 10_000)
    assert ask(gate, 4).outcome is GateOutcome.PASSED
    assert not client.hexists(keys.identify(0), "2")


def test_nothing_is_left_of_a_gate_that_is_not_used(
    gate: GateScripts, client: redis.Redis, keys: Keys
) -> None:
    ask(gate, 0)
    ask(gate, 2)
    assert 0 < client.pttl(keys.identify(0)) <= 32_000
    client.pexpire(keys.identify(0), 1000)
    ask(gate, 2)  # the note of a shard that waits lasts as long as its wait
    assert client.pttl(keys.identify(0)) > 25_000
    assert 0 < client.pttl(keys.starts) <= _DAY * 1000


def test_a_clock_that_jumps_back_delays_nobody_for_longer_than_usual(
    gate: GateScripts, client: redis.Redis, keys: Keys
) -> None:
    ask(gate, 0)
    ask(gate, 2)
    # As the hash is found after a jump by an hour.
    for field, value in client.hgetall(keys.identify(0)).items():
        client.hset(keys.identify(0), field, int(value) + 3_600_000)
    assert 20 < ask(gate, 4).wait <= 30
    free_slot(client, keys)
    assert ask(gate, 4).outcome is GateOutcome.PASSED  # shard 2 is waited for no more
    client.hset(keys.starts, "resets_at", 10**15)
    answer = ask(gate, 6, budget=1)
    assert answer.outcome is GateOutcome.USED_UP
    assert answer.wait <= _DAY


def test_no_shard_passes_when_the_budget_is_used_up(gate: GateScripts) -> None:
    assert ask(gate, 0, budget=2).outcome is GateOutcome.PASSED
    assert ask(gate, 1, budget=2).outcome is GateOutcome.PASSED
    answer = ask(gate, 2, budget=2)
    assert answer.outcome is GateOutcome.USED_UP
    assert _DAY - 60 < answer.wait <= _DAY


def test_the_starts_that_discord_has_counted_are_counted(gate: GateScripts) -> None:
    gate.count_starts(9, 3600.0)
    assert ask(gate, 0, budget=10).outcome is GateOutcome.PASSED
    answer = ask(gate, 1, budget=10)
    assert answer.outcome is GateOutcome.USED_UP
    assert 3500 < answer.wait <= 3600


def test_an_older_number_of_discords_lowers_the_count_only_after_a_reset(
    gate: GateScripts,
) -> None:
    gate.count_starts(9, 3600.0)
    gate.count_starts(3, 3590.0)  # asked before the last starts
    gate.count_starts(3, 3605.0)  # likewise, by a clock that goes otherwise
    assert ask(gate, 0, budget=9).outcome is GateOutcome.USED_UP
    gate.count_starts(3, _DAY)  # Discord has counted anew meanwhile
    assert ask(gate, 0, budget=9).outcome is GateOutcome.PASSED


def test_the_budget_is_whole_again_when_discord_counts_anew(gate: GateScripts) -> None:
    gate.count_starts(10, 0.05)
    wait_until(lambda: ask(gate, 0, budget=10).outcome is GateOutcome.PASSED)


def watch_passes(server: RedisServer, count: int) -> Thread:
    """Have Redis tell of all that it does, until so many shards have passed.

    :returns: a thread whose result is a list: the shards that have passed, and until when each has
        the slot, in milliseconds.
    """
    connection = socket.create_connection((HOST, server.port), timeout=60.0)
    lines = connection.makefile("rb")
    connection.sendall(b"MONITOR\r\n")
    assert lines.readline() == b"+OK\r\n"

    def watch() -> list[tuple[int, int]]:
        passes: list[tuple[int, int]] = []
        with connection, lines:
            while len(passes) < count:
                words = [word.strip('"') for word in lines.readline().decode().split()[3:]]
                if words[0] == "EVALSHA" or words[0] == "EVAL":
                    shard_id = int(words[-5])  # the first of the gate's five arguments
                elif words[:3:2] == ["HSET", "free_at"] and words[3] not in ("0", str(10**15)):
                    passes.append((shard_id, int(words[3])))
        return passes

    return Thread(watch)


@pytest.mark.slow
def test_shards_of_several_processes_pass_in_order_and_apart(
    redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    spacing, concurrency, shards = 0.5, 2, range(8)
    slots = [keys.identify(bucket) for bucket in range(concurrency)]
    for slot in slots:
        client.hset(slot, "free_at", 10**15)
    watching = watch_passes(redis_server, len(shards))
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", _PROCESS, redis_server.url),
                *(str(concurrency), str(spacing)),
                *(str(shard_id) for shard_id in shards if shard_id // 2 % 4 == number),
            ],
            cwd=Path(__file__).parents[2],
        )
        for number in range(4)
    ]
    wait_until(lambda: [client.hlen(slot) for slot in slots] == [5, 5], 30.0, "all to wait")
    for slot in slots:
        client.hset(slot, "free_at", 0)
    assert [process.wait(60) for process in processes] == [0] * len(processes)
    passes = watching.finish()
    assert isinstance(passes, list)
    for bucket in range(concurrency):
        own = [each for each in passes if each[0] % concurrency == bucket]
        assert [shard_id for shard_id, _ in own] == [*shards[bucket::concurrency]]
        times = [time for _, time in own]
        apart = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert min(apart) >= spacing * 1000


def test_the_gate_of_a_worker_waits_for_a_redis_that_is_away_and_raises_nothing(
    gate: GateScripts, redis_server: RedisServer
) -> None:
    told: list[tuple[object, ...]] = []
    config = FleetConfig(4, 2, 1000, 0.01)
    fleet_gate = FleetGate(gate, config, lambda *message: told.append(message))
    assert fleet_gate.try_acquire(0) == 0.0
    redis_server.kill()
    assert [fleet_gate.try_acquire(1) for _ in range(3)] == [1.0] * 3
    assert len(told) == 1
    redis_server.start()
    assert fleet_gate.try_acquire(1) == 0.0


def test_the_gate_of_a_worker_keeps_a_part_of_the_days_sessions_back(gate: GateScripts) -> None:
    told: list[tuple[object, ...]] = []
    config = FleetConfig(4, 2, 100, 0.01)
    fleet_gate = FleetGate(gate, config, lambda *message: told.append(message))
    gate.count_starts(94, 3600.0)
    assert fleet_gate.try_acquire(0) == 0.0
    assert [fleet_gate.try_acquire(1) for _ in range(2)] == [60.0] * 2  # it asks again each minute
    ((level, message, wait),) = told
    assert level == logging.ERROR
    assert wait == "60 minutes"
