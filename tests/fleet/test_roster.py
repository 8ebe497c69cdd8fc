"""How many shards each worker is to have, and which workers live."""

from __future__ import annotations

import pytest
import redis

from shardlib.fleet.keys import Keys
from shardlib.fleet.roster import Roster, fair_share
from tests.support import wait_until


@pytest.mark.parametrize(
    ("shard_count", "limits", "shares"),
    [
        (16, [None], [16]),
        (16, [None, None], [8, 8]),
        (4, [None, None, None], [2, 2, 2]),
        (2, [None, None, None], [1, 1, 1]),
        (16, [2, None], [2, 14]),
        (16, [2, 4, None, None], [2, 4, 5, 5]),
        (16, [2, 4], [2, 4]),
        (16, [10, 10], [8, 8]),
        (1, [1, 1], [1, 1]),
    ],
)
def test_all_have_alike_as_far_as_their_limits_allow(
    shard_count: int, limits: list[int | None], shares: list[int]
) -> None:
    for order in (limits, limits[::-1]):
        assert [fair_share(shard_count, limit, order) for limit in limits] == shares


def test_a_worker_counts_until_it_leaves_or_is_not_heard_of(
    client: redis.Redis, keys: Keys
) -> None:
    one = Roster(client, keys, "one", None, lease=60.0)
    two = Roster(client, keys, "two", 3, lease=60.0)
    three = Roster(client, keys, "three", None, lease=0.05)
    assert one.enter(12) == 12
    assert two.enter(12) == 3
    assert three.enter(12) == 5
    wait_until(lambda: one.enter(12) == 9)  # three is not heard of
    assert two.leave() == 1
    assert one.enter(12) == 12
    assert one.leave() == 0
