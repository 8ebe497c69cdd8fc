"""StartOrder: which shards start when, by tables; no thread, no clock."""

from __future__ import annotations

import math

import pytest

from shardlib.startorder import LEAD, Due, StartOrder


class Shards:
    """Shards that a test lets identify, and the waits of their gate."""

    def __init__(self) -> None:
        self.under_way: set[int] = set()
        self.waits: dict[int, float] = {}

    def take_due(self, order: StartOrder) -> Due:
        due = order.take_due(self.under_way.__contains__, lambda each: self.waits.get(each, 0.0))
        self.under_way.update(due.shard_ids)
        return due


@pytest.fixture
def shards() -> Shards:
    return Shards()


def waves(order: StartOrder, shards: Shards) -> list[list[int]]:
    """The shards that start together, if each identifies before the next wave."""
    found = []
    while order.waiting:
        found.append(shards.take_due(order).shard_ids)
        shards.under_way.clear()
    return found


@pytest.mark.parametrize(
    "shard_ids, max_concurrency, expected",
    [
        ([], 1, []),
        ([0], 1, [[0]]),
        ([0], 16, [[0]]),
        (range(3), 1, [[0], [1], [2]]),
        (range(4), 2, [[0, 1], [2, 3]]),
        (range(5), 2, [[0, 1], [2, 3], [4]]),
        ([4, 2, 0, 3, 1], 2, [[0, 1], [2, 3], [4]]),
        ([1, 3, 5], 2, [[1], [3], [5]]),  # the buckets are the bot's, not this process's
        ([1, 2, 7], 4, [[1, 2], [7]]),
        ([30, 31, 32], 16, [[30, 31], [32]]),
        ([100], 16, [[100]]),
        (range(33), 16, [list(range(16)), list(range(16, 32)), [32]]),
    ],
)
def test_the_shards_of_a_bucket_start_together_and_the_buckets_in_order(
    shards: Shards, shard_ids: list[int], max_concurrency: int, expected: list[list[int]]
) -> None:
    assert waves(StartOrder(shard_ids, max_concurrency), shards) == expected


def test_the_next_bucket_waits_for_each_shard_of_the_one_before(shards: Shards) -> None:
    order = StartOrder(range(4), 2)
    assert shards.take_due(order) == Due([0, 1], None)
    assert shards.take_due(order) == Due([], None)
    shards.under_way.remove(1)
    assert shards.take_due(order) == Due([], None)
    shards.under_way.remove(0)
    assert shards.take_due(order) == Due([2, 3], None)
    assert order.waiting == ()


def test_a_shard_that_is_under_way_again_holds_up_no_later_bucket(shards: Shards) -> None:
    """It has failed to identify once, and tries again."""
    order = StartOrder(range(3), 1)
    shards.take_due(order)
    shards.under_way.clear()
    assert shards.take_due(order).shard_ids == [1]
    shards.under_way = {0}
    assert shards.take_due(order).shard_ids == [2]


@pytest.mark.parametrize(
    "wait, expected",
    [
        (0.0, Due([0], None)),
        (LEAD / 2, Due([0], None)),
        (LEAD, Due([0], None)),
        (LEAD + 0.5, Due([], 0.5)),
        (LEAD + 3600, Due([], 3600)),
        (math.inf, Due([], math.inf)),
    ],
)
def test_a_socket_is_opened_when_the_slot_is_near(
    shards: Shards, wait: float, expected: Due
) -> None:
    shards.waits[0] = wait
    assert shards.take_due(StartOrder([0], 1)) == expected


def test_a_bucket_whose_slots_are_free_at_different_times_starts_as_they_become_free(
    shards: Shards,
) -> None:
    order = StartOrder(range(4), 3)
    shards.waits = {0: LEAD + 5, 1: 0.0, 2: LEAD + 2, 3: 0.0}
    assert shards.take_due(order) == Due([1], 2)
    shards.under_way.clear()  # shard 3 is of a later bucket, though its slot is free
    assert shards.take_due(order) == Due([], 2)
    shards.waits[2] = 0.0
    assert shards.take_due(order) == Due([2], 5)
    shards.waits[0] = 0.0
    assert shards.take_due(order) == Due([0], None)
    assert order.waiting == (3,)


def test_the_gate_is_asked_only_for_the_shards_of_the_next_bucket() -> None:
    asked: list[int] = []

    def expected_wait(shard_id: int) -> float:
        asked.append(shard_id)
        return 10.0

    order = StartOrder(range(6), 2)
    order.take_due(lambda shard_id: False, expected_wait)
    assert asked == [0, 1]
    order.take_due(lambda shard_id: False, lambda shard_id: 0.0)
    order.take_due(lambda shard_id: True, expected_wait)
    assert asked == [0, 1]
