"""PatientGate: shards wait for a used-up budget, and the log tells of that once."""

from __future__ import annotations

from typing import Any

import pytest

from shardlib import GatewayBot, IdentifyGate, ShardClosed
from shardlib.patientgate import PatientGate
from tests.support import Clock

ANSWER = GatewayBot("ws://127.0.0.1", 1, 1000, 1000, 0.0, 4)


class Log:
    """What a gate logs, each line complete."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, level: int, message: str, *arguments: Any) -> None:
        self.lines.append(message % arguments)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def used_up(clock: Clock, *, reset_after: float) -> IdentifyGate:
    """A gate that lets no shard through before Discord counts anew."""
    gate = IdentifyGate(1, 5.0, daily_limit=1000, slack=0, clock=clock)
    gate.update(1, 50, reset_after)  # 5 percent of the daily limit are kept back
    return gate


class Scripted:
    """A gate of the user's, with nothing but ``try_acquire``."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def try_acquire(self, shard_id: int) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_it_lets_through_and_makes_wait_as_the_gate_says(log: Log) -> None:
    gate = PatientGate(Scripted(2.5, 0.0), log)
    assert gate.try_acquire(0) == 2.5
    assert gate.try_acquire(0) == 0.0
    assert log.lines == []


def test_a_gate_that_knows_nothing_of_waits_is_asked_when_a_socket_is_open(log: Log) -> None:
    gate = PatientGate(Scripted(), log)
    assert gate.expected_wait(0) == 0.0
    gate.update(ANSWER)


def test_the_gate_hears_of_discords_limits(log: Log, clock: Clock) -> None:
    inner = IdentifyGate(1, 5.0, slack=0, clock=clock)
    gate = PatientGate(inner, log)
    gate.update(ANSWER._replace(max_concurrency=2, remaining=900))
    assert gate.try_acquire(0) == gate.try_acquire(1) == 0.0  # two buckets now
    assert gate.try_acquire(2) == 5.0


def test_the_gate_hears_how_many_sessions_discord_allows_in_a_day(log: Log, clock: Clock) -> None:
    inner = IdentifyGate(1, 5.0, slack=0, clock=clock)
    gate = PatientGate(inner, log)
    gate.update(ANSWER._replace(total=2000, remaining=200, reset_after=7200.0))
    for _ in range(100):
        assert gate.try_acquire(0) == 0.0
        clock.now += 5.0
    assert gate.try_acquire(0) == 7200.0 - 500.0
    assert "1900 of the 2000 sessions" in log.lines[-1]


def test_a_gate_whose_update_takes_no_total_hears_of_the_other_limits(log: Log) -> None:
    class Older(Scripted):
        heard: tuple[Any, ...] = ()

        def update(self, max_concurrency: int, remaining: int, reset_after: float) -> None:
            self.heard = (max_concurrency, remaining, reset_after)

    class Newer(Scripted):
        heard: Any = None

        def update(self, *limits: Any) -> None:
            self.heard = limits

    older, newer = Older(), Newer()
    for inner in (older, newer):
        PatientGate(inner, log).update(ANSWER)
    assert older.heard == (4, 1000, 0.0)
    assert newer.heard == (4, 1000, 0.0, 1000)


def test_a_used_up_budget_makes_a_shard_wait_until_discord_counts_anew(
    log: Log, clock: Clock
) -> None:
    gate = PatientGate(used_up(clock, reset_after=7200), log)
    assert gate.try_acquire(0) == 7200
    clock.now += 7200
    assert gate.try_acquire(0) == 0.0


def test_a_budget_that_is_free_again_in_a_moment_is_waited_for_no_longer(
    log: Log, clock: Clock
) -> None:
    """A shard's socket is open by then."""
    gate = PatientGate(used_up(clock, reset_after=0.5), log)
    assert gate.try_acquire(0) == 0.5


def test_a_gate_that_refuses_and_says_not_how_long_is_asked_every_minute(log: Log) -> None:
    gate = PatientGate(Scripted(ShardClosed(None, "no more today"), 0.0), log)
    assert gate.try_acquire(0) == 60.0
    assert log.lines == ["no shard may identify for now: no more today"]
    assert gate.try_acquire(0) == 0.0


def test_the_wait_is_told_once_for_all_shards(log: Log, clock: Clock) -> None:
    gate = PatientGate(used_up(clock, reset_after=7200), log)
    for shard_id in range(5):
        assert gate.expected_wait(shard_id) == 7200
        gate.try_acquire(shard_id)
    (line,) = log.lines
    assert "in 2 h 0 min" in line
    assert "Shards with a session to resume go on" in line


def test_a_wait_after_a_shard_got_through_is_told_again(log: Log, clock: Clock) -> None:
    inner = used_up(clock, reset_after=7200)
    gate = PatientGate(inner, log)
    gate.try_acquire(0)
    clock.now += 7200
    assert gate.try_acquire(0) == 0.0
    inner.update(1, 50, 3600)
    assert gate.try_acquire(1) == 3600
    assert len(log.lines) == 2


def test_an_ordinary_wait_for_a_slot_is_not_told(log: Log, clock: Clock) -> None:
    gate = PatientGate(IdentifyGate(1, 5.0, slack=0, clock=clock), log)
    gate.try_acquire(0)
    assert gate.expected_wait(0) == gate.try_acquire(0) == 5.0
    assert log.lines == []


@pytest.mark.parametrize(
    "answer, error", [(None, TypeError), (True, TypeError), (-1.0, ValueError)]
)
def test_an_answer_that_is_no_wait_is_refused(log: Log, answer: Any, error: Any) -> None:
    with pytest.raises(error, match=r"identify_gate\.try_acquire\(\)"):
        PatientGate(Scripted(answer), log).try_acquire(0)


def test_what_a_gate_raises_is_for_the_shard_to_tell(log: Log) -> None:
    with pytest.raises(RuntimeError, match="no luck"):
        PatientGate(Scripted(RuntimeError("no luck")), log).try_acquire(0)


def test_an_expected_wait_that_fails_is_told_and_holds_nothing_up(log: Log) -> None:
    class Failing(Scripted):
        def expected_wait(self, shard_id: int) -> float:
            raise RuntimeError("no luck")

    gate = PatientGate(Failing(0.0), log)
    assert gate.expected_wait(0) == 0.0
    assert gate.expected_wait(1) == 0.0
    (line,) = log.lines
    assert "expected_wait()" in line and "no luck" in line
