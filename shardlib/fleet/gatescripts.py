"""Which shard of a fleet may identify, decided in Redis by the clock of Redis.

Discord wants the Identifies of one rate limit key some seconds apart, and allows a number of them
in 24 hours (https://docs.discord.com/developers/events/gateway#sharding). The shards that wait are
noted, and a slot goes to the lowest of them: Discord wants the shards of a bot started in order.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from shardlib.fleet.calling import Call, Script, call_one
from shardlib.fleet.connecting import Client
from shardlib.fleet.keys import Keys
from shardlib.fleet.lua import NOW, NUMBERS


class GateOutcome(enum.Enum):
    """What a shard was told that wants to identify."""

    PASSED = "PASSED"
    """The shard identifies at once."""

    WAIT = "WAIT"
    """The slot is not free yet, or a lower shard waits for it."""

    USED_UP = "USED_UP"
    """The budget of the day is used up."""


class GateAnswer(NamedTuple):
    """The answer of the gate.

    :param outcome: what the shard was told.
    :param wait: seconds after which to ask again, 0.0 for a shard that has passed.
    """

    outcome: GateOutcome
    wait: float


# Milliseconds by which a shard may be late to ask again, before its slot goes to a higher shard.
_GRACE = 1000

# Milliseconds after which a shard asks again if the slot is free, and a lower shard waits for it.
_POLL = 100

_STARTS = (
    NOW
    + NUMBERS
    + """
local now = now()  -- one moment for all
local day = 24 * 60 * 60 * 1000
-- How many sessions were started, and when Discord counts anew. The clock of Redis may jump back.
local function read_starts(key)
    local known = redis.call('HMGET', key, 'used', 'resets_at')
    local resets_at = math.min(read_number(known[2]), now + day)
    if resets_at <= now then
        return 0, now + day
    end
    return read_number(known[1]), resets_at
end
local function write_starts(key, used, resets_at)
    redis.call('HSET', key, 'used', whole(used), 'resets_at', whole(resets_at))
    redis.call('PEXPIREAT', key, whole(resets_at))
end
"""
)

_GATE = Script(
    _STARTS
    + """
local slot, starts = KEYS[1], KEYS[2]
local shard, spacing, budget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local grace, poll = tonumber(ARGV[4]), tonumber(ARGV[5])

local used, resets_at = read_starts(starts)
if used >= budget then
    redis.call('HDEL', slot, shard)
    return {'USED_UP', resets_at - now}
end
local free_at = 0
local is_lowest = true
local noted = redis.call('HGETALL', slot)
for i = 1, #noted, 2 do
    local field, at = noted[i], read_number(noted[i + 1])
    if field == 'free_at' then
        free_at = math.min(at, now + spacing)
    elseif at < now or at > now + spacing + poll + grace then
        redis.call('HDEL', slot, field)
    elseif read_number(field) < shard then
        is_lowest = false
    end
end
if free_at <= now and is_lowest then
    write_starts(starts, used + 1, resets_at)
    redis.call('HDEL', slot, shard)
    redis.call('HSET', slot, 'free_at', whole(now + spacing))
    redis.call('PEXPIRE', slot, spacing + poll + grace)
    return {'PASSED', 0}
end
local wait = free_at > now and free_at - now or poll
redis.call('HSET', slot, shard, whole(now + wait + grace))
redis.call('PEXPIRE', slot, spacing + poll + grace)
return {'WAIT', wait}
"""
)

# Discord's number may be older than the last starts that were counted here. So it lowers the count
# only when Discord counts anew.
_COUNT_STARTS = Script(
    _STARTS
    + """
local used, resets_at = read_starts(KEYS[1])
local their_reset = now + tonumber(ARGV[2])
if their_reset > resets_at + 60000 then
    used = 0
end
write_starts(KEYS[1], math.max(used, tonumber(ARGV[1])), their_reset)
return 'COUNTED'
"""
)


class GateScripts:
    """The gate through which all shards of a fleet pass before they identify.

    Each method asks Redis once, and blocks until the answer is there. Any thread may call any of
    them.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the fleet.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def try_pass(
        self, shard_id: int, *, max_concurrency: int, spacing: float, budget: int
    ) -> GateAnswer:
        """Take the slot for a shard, or note that the shard waits for it.

        If Redis takes the slot and its answer is lost, the slot is lost, too.

        :param shard_id: number of the shard.
        :param max_concurrency: as *Get Gateway Bot* gives it; all workers give the same.
        :param spacing: seconds between two Identifies of one rate limit key.
        :param budget: how many sessions the fleet may start in 24 hours.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        call = Call(
            _GATE,
            (self._keys.identify(shard_id % max_concurrency), self._keys.starts),
            (shard_id, round(spacing * 1000), budget, _GRACE, _POLL),
        )
        outcome, wait = call_one(self._client, call)
        return GateAnswer(GateOutcome(outcome.decode()), wait / 1000)

    def count_starts(self, used: int, reset_after: float) -> None:
        """Take in how many sessions Discord says were started.

        :param used: ``total - remaining`` of *Get Gateway Bot*.
        :param reset_after: seconds until Discord counts anew.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        call = Call(_COUNT_STARTS, (self._keys.starts,), (used, round(reset_after * 1000)))
        call_one(self._client, call)
