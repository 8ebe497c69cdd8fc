"""Roster: which workers live, and how many of the fleet's shards each is to have."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shardlib.fleet.calling import Call, Script, call_one
from shardlib.fleet.connecting import Client
from shardlib.fleet.keys import Keys
from shardlib.fleet.lua import NOW

# The scores are the times at which the entries end, by the clock of Redis.
_FORGET = (
    NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now())
"""
)
_ENTER = Script(
    _FORGET
    + """
redis.call('ZADD', KEYS[1], string.format('%.0f', now() + ARGV[2]), ARGV[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
)
_LEAVE = Script(
    _FORGET
    + """
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
)
_LIVE = Script(
    NOW
    + """
return redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now()), '+inf')
"""
)


class Roster:
    """The workers of a fleet that live, one of which this one is.

    Each method asks Redis once, and blocks until the answer is there.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the fleet.
    :param name: of this worker.
    :param most_shards: that it takes, None for any number.
    :param lease: seconds after which a worker counts no more that is not heard of.
    """

    def __init__(
        self, client: Client, keys: Keys, name: str, most_shards: int | None, *, lease: float
    ) -> None:
        self._client = client
        self._key = keys.workers
        self._lease = round(lease * 1000)
        self._most_shards = most_shards
        # What other workers need to know of this one stands in its entry, in front of its name.
        self._entry = f"{most_shards or 0}:{name}"

    def enter(self, shard_count: int) -> int:
        """Note that this worker lives.

        :param shard_count: of the fleet.
        :returns: how many of the shards are this worker's share.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        entries = self._call(_ENTER, self._entry, self._lease)
        limits = [_limit(entry) for entry in entries]
        return fair_share(shard_count, self._most_shards, limits)

    def leave(self) -> int:
        """Count no more, so that others take the shards over.

        :returns: how many others live.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        return len(self._call(_LEAVE, self._entry))

    def _call(self, script: Script, *arguments: str | int) -> list[bytes]:
        found: list[bytes] = call_one(self._client, Call(script, (self._key,), arguments))
        return found


def _limit(entry: bytes) -> int | None:
    """How many shards a worker takes, None for any number, and for what no worker has written."""
    try:
        return max(0, int(entry.partition(b":")[0])) or None
    except ValueError:
        return None


def live_workers(client: Client, keys: Keys) -> list[str]:
    """The names of the workers that live, and do not drain.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the fleet.
    :raises RedisAway: if Redis does not answer.
    :raises FleetError: if Redis refuses.
    """
    entries = call_one(client, Call(_LIVE, (keys.workers,), ()))
    return sorted(entry.decode(errors="replace").partition(":")[2] for entry in entries)


def fair_share(shard_count: int, most_shards: int | None, limits: Sequence[int | None]) -> int:
    """How many shards a worker is to have, if all have alike as far as their limits allow.

    :param shard_count: of the fleet.
    :param most_shards: that this worker takes, None for any number.
    :param limits: the same of all workers that live, this one included.
    """
    left, workers = shard_count, len(limits)
    share = 0
    for limit in sorted(math.inf if limit is None else limit for limit in limits):
        share = math.ceil(left / workers)
        if limit >= share:
            break
        left -= int(limit)
        workers -= 1
    return share if most_shards is None else min(share, most_shards)
