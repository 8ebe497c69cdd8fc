"""Stats and ManagerStats: the counters of several shards, added up."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections import Counter
from typing import Any

import pytest

from shardlib import CallbackStats, ManagerStats, ShardInfo, ShardState, Stats

# What is not a plain sum.
_OTHERS = {"events", "callbacks", "lag"}


def info_of(stats: Stats) -> ShardInfo:
    return ShardInfo(ShardState.READY, 0.05, "abc", stats)


@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(Stats) if field.name not in _OTHERS]
)
def test_every_counter_of_the_total_is_the_sum(name: str) -> None:
    """A counter that is new in Stats must not be left out."""
    total = Stats(**{name: 3})  # type: ignore[arg-type]
    total.add(Stats(**{name: 4}))  # type: ignore[arg-type]
    assert total == Stats(**{name: 7})  # type: ignore[arg-type]


def test_events_are_added_by_name() -> None:
    total = Stats(events=Counter(READY=1, MESSAGE_CREATE=5))
    total.add(Stats(events=Counter(READY=1, RESUMED=2)))
    assert total.events == {"READY": 2, "MESSAGE_CREATE": 5, "RESUMED": 2}
    assert total.events["TYPING_START"] == 0


def test_callbacks_are_added_by_name_and_the_longest_call_stays() -> None:
    total = Stats(
        callbacks={"READY": CallbackStats(1, 0.5, 0.5), "RESUMED": CallbackStats(4, 1.0, 0.75)}
    )
    total.add(
        Stats(callbacks={"READY": CallbackStats(2, 0.75, 0.5), "X": CallbackStats(1, 2.0, 2.0)})
    )
    total.add(Stats(callbacks={"RESUMED": CallbackStats(1, 0.25, 0.25)}))
    assert total.callbacks == {
        "READY": CallbackStats(3, 1.25, 0.5),
        "RESUMED": CallbackStats(5, 1.25, 0.75),
        "X": CallbackStats(1, 2.0, 2.0),
    }


@pytest.mark.parametrize(("one", "other"), [(0.5, 2.0), (2.0, 0.5), (2.0, 0.0)])
def test_the_lag_of_the_total_is_the_largest(one: float, other: float) -> None:
    total = Stats(lag=one)
    total.add(Stats(lag=other))
    assert total.lag == 2.0


def filled() -> Stats:
    return Stats(
        messages=10,
        events=Counter(READY=1),
        callbacks={"READY": CallbackStats(1, 0.5, 0.5)},
        waiting=2,
        lag=1.5,
    )


def test_the_stats_of_a_manager_are_those_of_its_shards_together() -> None:
    shards = {0: info_of(filled()), 7: info_of(Stats(messages=1, waiting=1, lag=0.5))}
    total = ManagerStats.of(shards)
    assert isinstance(total, Stats)
    assert (total.messages, total.waiting, total.lag) == (11, 3, 1.5)
    assert total.events == {"READY": 1}
    assert total.callbacks == {"READY": CallbackStats(1, 0.5, 0.5)}
    assert total.shards == shards
    assert total.shards[7].stats.messages == 1


def test_a_manager_without_shards_has_done_nothing() -> None:
    assert ManagerStats.of({}) == ManagerStats()


def test_adding_up_changes_nothing_of_the_shards() -> None:
    shards = {0: info_of(filled()), 1: info_of(filled())}
    total = ManagerStats.of(shards)
    total.add(filled())
    total.events["READY"] += 100
    total.callbacks.clear()
    total.shards.clear()
    assert shards == {0: info_of(filled()), 1: info_of(filled())}


def test_the_stats_of_shards_that_are_gone_can_be_added() -> None:
    """After a change of the shard count the new shards begin at 0, the bot does not."""
    total = ManagerStats.of({0: info_of(filled())})
    total.add(filled())
    assert (total.messages, list(total.shards)) == (20, [0])


def test_the_snapshot_can_be_copied_and_pickled() -> None:
    total = ManagerStats.of({3: info_of(filled())})
    for again in (copy.copy(total), copy.deepcopy(total), pickle.loads(pickle.dumps(total))):
        assert again == total
        assert again.shards[3].state is ShardState.READY


@pytest.mark.parametrize("name", ["state", "other"])
def test_the_info_of_a_shard_cannot_be_changed(name: str) -> None:
    info: Any = info_of(Stats())
    with pytest.raises((AttributeError, TypeError)):  # TypeError: a flaw of Python 3.10 and 3.11
        setattr(info, name, ShardState.CLOSED)
