"""The names of the package, and those of its keys in Redis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis.cluster

from shardlib import fleet
from shardlib.fleet import Fleet
from shardlib.fleet.errors import FleetError, RedisAway
from shardlib.fleet.keys import Keys

_SLOTS = 16384


def slot(key: str) -> int:
    return redis.cluster.key_slot(key.encode(), _SLOTS)  # type: ignore[attr-defined]


def test_every_name_is_found_and_a_misspelt_one_is_not() -> None:
    assert (fleet.FleetError, fleet.RedisAway) == (FleetError, RedisAway)
    assert set(fleet.__all__) <= set(dir(fleet))
    assert all(getattr(fleet, name) for name in fleet.__all__)
    with pytest.raises(AttributeError, match="'Flaet'"):
        fleet.Flaet  # type: ignore[attr-defined]  # noqa: B018


def test_neither_shardlib_nor_its_errors_of_a_fleet_load_redis() -> None:
    program = (
        "import sys, shardlib; shardlib.ShardManager; "
        "assert 'shardlib.fleet' not in sys.modules\n"
        "from shardlib.fleet import RedisAway\n"
        "assert 'redis' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True)


def test_all_keys_of_a_shard_share_a_hash_slot_and_shards_have_several() -> None:
    keys = Keys("mybot")
    assert keys.shard(3) == (
        "{mybot:3}:lease",
        "{mybot:3}:state",
        "{mybot:3}:events",
        "{mybot:3}:commands",
    )
    for shard_id in range(100):
        assert len({slot(key) for key in keys.shard(shard_id)}) == 1
    assert len({slot(keys.shard(shard_id).state) for shard_id in range(100)}) > 90


def test_the_keys_of_a_group_share_the_hash_slot_of_their_shard() -> None:
    keys = Keys("mybot")
    assert keys.group(3, "web") == ("{mybot:3}:group:web:lease", "{mybot:3}:group:web")
    for shard_id in range(100):
        assert {slot(key) for key in keys.group(shard_id, "web")} == {
            slot(keys.shard(shard_id).events)
        }
    assert slot(keys.consumers("web")) == slot(keys.groups)


def test_the_keys_of_identifying_share_a_hash_slot() -> None:
    keys = Keys("mybot")
    assert len({slot(key) for key in (keys.starts, *map(keys.identify, range(16)))}) == 1


def test_two_fleets_share_no_key() -> None:
    def all_keys(keys: Keys) -> set[str]:
        common = {keys.identify(0), keys.starts, keys.workers, keys.config}
        return common | {key for shard_id in range(20) for key in keys.shard(shard_id)}

    assert not all_keys(Keys("bot")) & all_keys(Keys("bot2"))
    assert not all_keys(Keys("bot")) & all_keys(Keys("bot.1"))


@pytest.mark.parametrize("name", ["", "a:b", "{a}", "a b", "a*", "a\n", "ä", "x" * 101])
def test_a_name_that_would_mix_up_keys_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must be"):
        Keys(name)


def test_a_name_that_is_no_str_is_refused() -> None:
    with pytest.raises(TypeError, match="name must be"):
        Keys(b"mybot")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lease": 0.0004}, "lease must be at least"),
        ({"keep_events": 2**63}, "keep_events must be"),
    ],
)
def test_a_number_that_redis_cannot_count_is_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Fleet("redis://127.0.0.1:1/0", "mybot", **arguments)
