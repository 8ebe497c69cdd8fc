"""The chaos of a fleet: a short run with every fault, and what its oracle finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fleet_chaos import Chaos, Setting
from benchmarks.fleet_oracle import Issued, Verdict, judge
from benchmarks.fleet_processes import EVENT, Record


def session(session_id: str, last: int, *, is_alive: bool = True) -> Issued:
    """A session with READY and numbered events; the third event was a RESUMED."""
    events = {1: ("READY", session_id)}
    events |= {each: (EVENT, f"{session_id}/{each}") for each in range(2, last + 1) if each != 3}
    return Issued(session_id, events, is_alive)


def handled(session_id: str, epoch: int, *sequences: int) -> list[Record]:
    return [
        Record(0.0, (epoch, each), *event, "consumer-0")
        for each in sequences
        for event in [("READY", session_id) if each == 1 else (EVENT, f"{session_id}/{each}")]
    ]


def gap(epoch: int) -> Record:
    return Record(0.0, (epoch, 0), "SHARDLIB_GAP", "session-lost", "consumer-0")


def verdict(sessions: list[Issued], *records: list[Record]) -> Verdict:
    return judge(0, sessions, [record for each in records for record in each])


def test_all_events_in_order_are_well_and_repeats_are_dropped() -> None:
    found = verdict([session("A", 6)], handled("A", 7, 1, 2, 4, 2, 4, 5, 6))
    assert (found.issued, found.effects, found.repeats) == (5, 5, 2)
    assert (found.lost, found.out_of_order, found.problems) == (0, 0, [])


@pytest.mark.parametrize("sequences", [(1, 2, 5, 6), (1, 2, 4, 5), (2, 4, 5, 6)])
def test_an_event_that_was_never_handled_is_lost(sequences: tuple[int, ...]) -> None:
    found = verdict([session("A", 6)], handled("A", 7, *sequences))
    assert found.lost == 1
    assert len(found.problems) == 1


def test_a_session_of_which_nothing_was_handled_is_lost() -> None:
    assert verdict([session("A", 6)]).lost == 5


def test_an_event_that_comes_after_a_later_one_is_out_of_order() -> None:
    found = verdict([session("A", 6)], handled("A", 7, 1, 2, 5, 4, 6))
    assert (found.out_of_order, found.lost) == (1, 1)


def test_the_last_events_of_a_lost_session_are_gone_with_it() -> None:
    sessions = [session("A", 6, is_alive=False), session("B", 2)]
    found = verdict(sessions, handled("A", 7, 1, 2, 4), [gap(8)], handled("B", 8, 1, 2))
    assert (found.gone.total(), found.lost, found.problems) == (2, 0, [])
    assert found.gaps == {"session-lost": 1}


def test_a_session_that_nobody_knew_of_is_gone() -> None:
    sessions = [session("A", 6, is_alive=False), session("B", 2)]
    found = verdict(sessions, handled("B", 8, 1, 2))
    assert (found.gone.total(), found.lost, found.problems) == (5, 0, [])


def test_a_gap_that_is_not_marked_is_found() -> None:
    sessions = [session("A", 2, is_alive=False), session("B", 2)]
    (problem,) = verdict(sessions, handled("A", 7, 1, 2), handled("B", 8, 1, 2)).problems
    assert "no gap" in problem


def test_an_event_that_comes_again_with_another_id_is_found() -> None:
    (problem,) = verdict(
        [session("A", 2)], handled("A", 7, 1, 2), [gap(8)], handled("A", 8, 1, 2)
    ).problems
    assert "two epochs" in problem


def test_an_id_that_stands_for_two_events_is_found() -> None:
    sessions = [session("A", 2, is_alive=False), session("B", 2)]
    found = verdict(sessions, handled("A", 7, 1, 2), [gap(7)], handled("B", 7, 1, 2))
    assert any("one id" in problem for problem in found.problems)


def test_sessions_that_come_in_another_order_are_found() -> None:
    sessions = [session("A", 2, is_alive=False), session("B", 2)]
    (problem,) = verdict(sessions, handled("B", 7, 1, 2), [gap(8)], handled("A", 8, 1, 2)).problems
    assert "order" in problem


@pytest.mark.timeout(600)
@pytest.mark.parametrize("forgetful", [False, True])
def test_no_event_of_a_fleet_is_lost_while_everything_fails(
    forgetful: bool, redis_program: str, tmp_path: Path
) -> None:
    setting = Setting(
        seed=1,
        seconds=5.0,
        interval=0.6,
        shards=4,
        workers=2,
        rate=100.0,
        lease=2.0,
        replay_memory=30.0,
        forgetful=forgetful,
        redis=redis_program,
    )
    figures = Chaos(setting, tmp_path).run()

    assert figures.problems == []
    assert figures.verdict.lost == figures.verdict.out_of_order == 0
    assert figures.verdict.effects > 0
    assert figures.faults.total() > 0
