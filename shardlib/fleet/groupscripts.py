"""What Redis does in one step for a group of consumers: claim a stream, and acknowledge.

A consumer that reads the stream of a shard in order has a random token, which Redis keeps in the
group's state. A consumer that was paused moves nothing once another has claimed the stream. The
watermark is the id of the last event that the group has handled; it only ever moves forward.

Each script may be called twice with the same arguments, if the first answer was lost.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from shardlib.fleet.calling import Call, Script, call_all, call_one, raise_first
from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError
from shardlib.fleet.fleetevents import BEGINNING, Position, position_of
from shardlib.fleet.keys import Keys
from shardlib.fleet.lua import KEEP_LEASE, LAST_ID, NOW, REFUSE
from shardlib.fleet.rediserrors import ERRORS, fleet_error
from shardlib.fleet.scripts import RELEASE, RENEW
from shardlib.text import count


class GroupOutcome(enum.Enum):
    """What became of a call."""

    CLAIMED = "CLAIMED"
    """The consumer reads the stream now."""

    HELD = "HELD"
    """Another consumer reads the stream, or may soon remember that it has."""

    RENEWED = "RENEWED"
    """The consumer still reads the stream."""

    RELEASED = "RELEASED"
    """Whoever asks next gets the stream."""

    ACKNOWLEDGED = "ACKNOWLEDGED"
    """The watermark is at the event or behind it."""

    FENCED = "FENCED"
    """Nothing was done: another consumer reads the stream, or nobody does."""

    LOST = "LOST"
    """Nothing was done: Redis has lost the group. Its consumer claims the stream again."""


class StreamRequest(NamedTuple):
    """Who wants to read the stream of a shard.

    :param token: from :func:`~shardlib.fleet.scripts.new_token`, for this claim alone.
    :param watermark: the last event that this consumer knows the group to have handled.
    :param seen: the last event that the user knows to have been handled. Redis does not begin
        there; the user's word counts, after the claim. It only learns which ids were given.
    :param newest: True if a new group begins with the events that come from now on, and not with
        the oldest that are there.
    :param patient: True if the consumer has read in this group before. Then, if Redis has lost the
        group, the consumer waits until consumers that remember their streams have claimed them.
    """

    token: str
    watermark: Position
    newest: bool
    patient: bool
    seen: Position = BEGINNING


class StreamClaim(NamedTuple):
    """The answer to a claim.

    :param outcome: CLAIMED or HELD.
    :param watermark: after which the consumer reads on, if it has CLAIMED the stream.
    :param is_new: True if Redis knew nothing of the group.
    :param last_epoch: of the stream, 0 if it has no events.
    """

    outcome: GroupOutcome
    watermark: Position
    is_new: bool
    last_epoch: int = 0


# Where a new group begins: in front of the oldest event, or behind the newest. A mark of a gap has
# no id in front of it in its epoch, and a new group need not know of it.
BEGIN = """
local function beginning(events, newest)
    if newest == '1' then
        local epoch, sequence = last_id(events)
        return whole(epoch) .. '-' .. whole(sequence)
    end
    local oldest = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
    if not oldest then
        return '0-0'
    end
    local epoch, sequence = string.match(oldest[1], '^(%d+)-(%d+)$')
    return epoch .. '-' .. whole(math.max(tonumber(sequence) - 1, 0))
end
"""

# What no consumer can have written counts as no watermark: others may write to Redis, too.
_IS_AFTER = """
local function read_watermark(text)
    return text and string.match(text, '^%d+-%d+$')
end
local function is_after(one, other)
    local epoch, sequence = string.match(one, '^(%d+)-(%d+)$')
    local other_epoch, other_sequence = string.match(other, '^(%d+)-(%d+)$')
    epoch, other_epoch = tonumber(epoch), tonumber(other_epoch)
    if epoch ~= other_epoch then
        return epoch > other_epoch
    end
    return tonumber(sequence) > tonumber(other_sequence)
end
"""

# A consumer may know of ids whose epoch the stream does not have: Redis has lost them. Sessions
# that begin from now on get higher ones, even if the clock has lost time, too. What the consumer
# knows would hide a session with lower ids that has begun already, and then does not count; but
# the owner of the shard has the time of a lease first, to give back what Redis has lost.
_CLAIM = Script(
    KEEP_LEASE
    + NOW
    + LAST_ID
    + BEGIN
    + _IS_AFTER
    + """
local lease, group, events, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, name, milliseconds, watermark = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local newest, patient, seen = ARGV[5], ARGV[6], ARGV[7]

local function epoch_of(id)
    return tonumber(string.match(id, '^(%d+)-'))
end

local holder = redis.call('GET', lease)
if redis.call('PTTL', lease) == -1 then  -- which no consumer has written
    holder = false
end
local known = redis.call('HMGET', group, 'token', 'watermark', 'waits')
if holder and holder ~= '' and holder ~= token then
    return {'HELD', '0-0', 0, '0'}
end
local last = last_id(events)
known[2] = read_watermark(known[2])
if known[1] == token then
    keep_lease(lease, token, milliseconds)
    return {'CLAIMED', known[2] or '0-0', 0, whole(last)}
end
local ahead = math.max(epoch_of(watermark), epoch_of(seen))
local is_hidden = last > 0 and ahead > last
if ahead > last and ahead > read_number(redis.call('HGET', state, 'known_epoch')) then
    redis.call('HSET', state, 'known_epoch', whole(ahead))
end
if is_hidden then
    patient = '1'
    if epoch_of(watermark) > last then
        watermark = '0-0'
    end
end
local is_new = not known[2]
if not is_new then
    if not is_after(watermark, known[2]) then
        watermark = known[2]
    end
elseif watermark == '0-0' then
    if holder == '' then
        return {'HELD', '0-0', 0, '0'}
    end
    if patient == '1' and not known[3] then
        redis.call('HSET', group, 'waits', '1')
        redis.call('SET', lease, '', 'PX', milliseconds)
        return {'HELD', '0-0', 0, '0'}
    end
    if not is_hidden then
        watermark = beginning(events, newest)
    end
end
redis.call('HSET', group, 'token', token, 'owner', name, 'watermark', watermark)
redis.call('SET', lease, token, 'PX', milliseconds)
return {'CLAIMED', watermark, is_new and 1 or 0, whole(last)}
"""
)

_ACKNOWLEDGE = Script(
    REFUSE
    + _IS_AFTER
    + """
local known = redis.call('HMGET', KEYS[2], 'token', 'watermark')
if known[1] ~= ARGV[1] then
    return refuse(KEYS[2], known[1] and 'FENCED' or 'LOST')
end
local watermark = read_watermark(known[2])
if not watermark or is_after(ARGV[2], watermark) then
    redis.call('HSET', KEYS[2], 'watermark', ARGV[2])
end
return 'ACKNOWLEDGED'
"""
)

_RENEW_AND_LOOK = Script(
    KEEP_LEASE
    + REFUSE
    + """
local owner = redis.call('HGET', KEYS[2], 'token')
if owner ~= ARGV[1] then
    return refuse(KEYS[2], {owner and 'FENCED' or 'LOST', '0-0'})
end
keep_lease(KEYS[1], ARGV[1], ARGV[2])
local oldest = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
return {'RENEWED', oldest and oldest[1] or '0-0'}
"""
)

# The scores are the times at which the entries end, by the clock of Redis.
_ENTER = Script(
    NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now())
redis.call('ZADD', KEYS[1], string.format('%.0f', now() + ARGV[2]), ARGV[1])
redis.call('HSETNX', KEYS[2], ARGV[3], ARGV[4])
return {redis.call('ZCARD', KEYS[1]), redis.call('HGET', KEYS[2], ARGV[3])}
"""
)
_LEAVE = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")

_LOOK = Script(
    NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now())
return {redis.call('ZCARD', KEYS[1]), redis.call('HEXISTS', KEYS[2], ARGV[1])}
"""
)
# A consumer may have come since, and begun the group anew, which then stays in the list.
_FORGET = Script(
    """
if redis.call('ZCARD', KEYS[1]) > 0 then
    return 0
end
return redis.call('HDEL', KEYS[2], ARGV[1])
"""
)

# Redis has groups of its own for consumers without order.
_DELETE = Script(
    """
if redis.call('EXISTS', KEYS[3]) == 1 then
    redis.call('XGROUP', 'DESTROY', KEYS[3], ARGV[1])
end
return redis.call('DEL', KEYS[1], KEYS[2])
"""
)

# Redis tells a lag from version 7 on, and of its own groups only. Redis would stand still while it
# counted many events: their number is reckoned from the ids, rather too high than too low.
_LAG = Script(
    """
local group, events, name, most = KEYS[2], KEYS[3], ARGV[1], tonumber(ARGV[2])
if redis.call('EXISTS', events) == 0 then
    return 0
end
local pending = 0
local mark = redis.call('HGET', group, 'watermark')
if not mark then
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', events)) do
        local fields = {}
        for i = 1, #info, 2 do
            fields[info[i]] = info[i + 1]
        end
        if fields['name'] == name then
            mark, pending = fields['last-delivered-id'], fields['pending']
        end
    end
end
if not mark then
    return -1
end
local length = redis.call('XLEN', events)
local left = #redis.call('XRANGE', events, '(' .. mark, '+', 'COUNT', math.min(most, length + 1))
if left == most and length > most then
    local function parse(id)
        local epoch, sequence = string.match(id, '^(%d+)-(%d+)$')
        return tonumber(epoch), tonumber(sequence)
    end
    local first_epoch, first = parse(redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1][1])
    local last_epoch, last = parse(redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1][1])
    local epoch, sequence = parse(mark)
    left = length
    if first_epoch == last_epoch and epoch == last_epoch and sequence >= first then
        left = math.max(most, math.ceil(length * (last - sequence) / (last - first + 1)))
    end
end
return left + pending
"""
)

# Events that are counted one by one.
_COUNTED = 1000


class GroupScripts:
    """The scripts of a group of consumers, called for any number of shards in one pipeline.

    Each method asks Redis once, and blocks until the answers are there. Any thread may call any of
    them. A shard whose call Redis has refused has a :class:`FleetError` in place of its answer.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the fleet.
    :param group: name of the group.
    :param consumer: name of the consumer.
    :param lease: seconds after which a consumer that is not heard of lives no more, and others may
        claim its streams.
    :param ordered: True if a consumer claims streams, False if Redis shares out single events.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        group: str,
        consumer: str,
        *,
        lease: float,
        ordered: bool,
    ) -> None:
        self._client = client
        self._keys = keys
        self._group = group
        self._consumer = consumer
        self._lease = round(lease * 1000)
        self._way = "ordered" if ordered else "unordered"

    def enter(self) -> int:
        """Note that this consumer lives.

        :returns: how many consumers of the group live.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses, or the group's other consumers read in another way.
        """
        live, way = self._call_one(_ENTER, self._consumer, self._lease, self._group, self._way)
        if way.decode() != self._way:
            raise FleetError(
                f"the group {self._group!r} was begun with consumers that are {way.decode()}, and "
                f"this one is {self._way}: they would not share the events. Give all of them the "
                "same value of ordered=, or this one another group"
            )
        return int(live)

    def leave(self) -> None:
        """Count no more among the living, so that the others' shares grow.

        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        self._call_one(_LEAVE, self._consumer)

    def claim(self, requests: Mapping[int, StreamRequest]) -> dict[int, StreamClaim | FleetError]:
        """Claim streams that nobody reads.

        :param requests: by shard number.
        :returns: the answers, by shard number.
        :raises RedisAway: if Redis does not answer; then any of the streams may be claimed.
        :raises FleetError: if Redis refuses the connection.
        """
        arguments = {
            shard_id: (
                *(request.token, self._consumer, self._lease, str(request.watermark)),
                *(int(request.newest), int(request.patient), str(request.seen)),
            )
            for shard_id, request in requests.items()
        }
        return {
            shard_id: answer if isinstance(answer, FleetError) else _claim(answer)
            for shard_id, answer in self._call(_CLAIM, arguments).items()
        }

    def renew(self, tokens: Mapping[int, str]) -> dict[int, GroupOutcome | FleetError]:
        """Renew leases.

        :param tokens: of the consumer, by shard number.
        :returns: RENEWED, FENCED or LOST, by shard number.
        :raises RedisAway: if Redis does not answer; then any of the leases may be renewed.
        :raises FleetError: if Redis refuses the connection.
        """
        arguments = {shard_id: (token, self._lease) for shard_id, token in tokens.items()}
        return _outcomes(self._call(RENEW, arguments))

    def renew_and_look(
        self, tokens: Mapping[int, str]
    ) -> dict[int, tuple[GroupOutcome, Position] | FleetError]:
        """Renew leases, and look for the oldest event of each stream.

        :param tokens: of the consumer, by shard number.
        :returns: RENEWED, FENCED or LOST, and the place of the event, by shard number.
        :raises RedisAway: if Redis does not answer; then any of the leases may be renewed.
        :raises FleetError: if Redis refuses the connection.
        """
        arguments = {shard_id: (token, self._lease) for shard_id, token in tokens.items()}
        return {
            shard_id: answer
            if isinstance(answer, FleetError)
            else (GroupOutcome(answer[0].decode()), position_of(answer[1]))
            for shard_id, answer in self._call(_RENEW_AND_LOOK, arguments).items()
        }

    def acknowledge(
        self, watermarks: Mapping[int, tuple[str, Position]]
    ) -> dict[int, GroupOutcome | FleetError]:
        """Move watermarks forward.

        :param watermarks: the consumer's token, and the last event handled, by shard number.
        :returns: ACKNOWLEDGED, FENCED or LOST, by shard number.
        :raises RedisAway: if Redis does not answer; then any of the watermarks may be moved.
        :raises FleetError: if Redis refuses the connection.
        """
        arguments = {
            shard_id: (token, str(watermark)) for shard_id, (token, watermark) in watermarks.items()
        }
        return _outcomes(self._call(_ACKNOWLEDGE, arguments))

    def release(self, tokens: Mapping[int, str]) -> dict[int, GroupOutcome | FleetError]:
        """Let others claim streams at once.

        :param tokens: of the consumer, by shard number.
        :returns: RELEASED, FENCED or LOST, by shard number.
        :raises RedisAway: if Redis does not answer; then any of the streams may be released.
        :raises FleetError: if Redis refuses the connection.
        """
        return _outcomes(self._call(RELEASE, {shard: (token,) for shard, token in tokens.items()}))

    def lag(self, shard_ids: Iterable[int]) -> dict[int, int | None]:
        """How many events of each shard the group has not acknowledged.

        Up to a thousand are counted; a larger number is reckoned from the ids, and is rather too
        high than too low.

        :param shard_ids: numbers of the shards.
        :returns: by shard number; None if the group has never read this shard's events.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        answers = self._call(_LAG, dict.fromkeys(shard_ids, (self._group, _COUNTED)))
        raise_first(answers.values())
        return {shard_id: None if lag < 0 else int(lag) for shard_id, lag in answers.items()}

    def delete(self, shard_ids: Iterable[int]) -> None:
        """Delete all that Redis knows of the group.

        :param shard_ids: numbers of the shards.
        :raises RedisAway: if Redis does not answer; then a part may be deleted.
        :raises FleetError: if a consumer of the group lives, Redis knows no such group, or refuses.
        """
        living, is_known = self._call_one(_LOOK, self._group)
        if not is_known:
            raise FleetError(
                f"this fleet has no group {self._group!r}: no consumer of that name has ever asked "
                "for an event"
            )
        if living:
            raise FleetError(
                f"the group {self._group!r} has {count(living, 'consumer')}, which would go on as "
                "a new group: end the group's consumers first. One that was killed counts until "
                "its lease ends, and without order until its retry_after is over"
            )
        answers = self._call(_DELETE, dict.fromkeys(shard_ids, (self._group,)))
        raise_first(answers.values())
        # Last: if Redis failed before, the group can be deleted again.
        self._call_one(_FORGET, self._group)

    def _call(self, script: Script, arguments: Mapping[int, Sequence[str | int]]) -> dict[int, Any]:
        calls = []
        for shard_id, values in arguments.items():
            group, shard = self._keys.group(shard_id, self._group), self._keys.shard(shard_id)
            keys = (group.lease, group.state, shard.events, shard.state)
            calls.append(Call(script, keys, values))
        return dict(zip(arguments, call_all(self._client, calls), strict=True))

    def _call_one(self, script: Script, *arguments: str | int) -> Any:
        keys = (self._keys.consumers(self._group), self._keys.groups)
        return call_one(self._client, Call(script, keys, arguments))


def lags(client: Client, keys: Keys, shard_ids: Sequence[int]) -> dict[str, dict[int, int | None]]:
    """The lag of each group that there ever was, as :meth:`GroupScripts.lag` tells it.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the fleet.
    :param shard_ids: numbers of the shards.
    :returns: by the name of the group, and by shard number.
    :raises RedisAway: if Redis does not answer.
    :raises FleetError: if Redis refuses.
    """
    try:
        ways: Any = client.hgetall(keys.groups)
    except ERRORS as error:
        raise fleet_error(error) from error
    scripts = {
        name.decode(): GroupScripts(
            client, keys, name.decode(), "", lease=1.0, ordered=way == b"ordered"
        )
        for name, way in ways.items()
    }
    return {name: group.lag(shard_ids) for name, group in sorted(scripts.items())}


def delete_group(client: Client, keys: Keys, group: str, shard_ids: Iterable[int]) -> None:
    """Delete all that Redis knows of a group, as :meth:`GroupScripts.delete` does.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the fleet.
    :param group: name of the group.
    :param shard_ids: numbers of the shards.
    :raises RedisAway: if Redis does not answer.
    :raises FleetError: if a consumer of the group lives, Redis knows no such group, or refuses.
    """
    GroupScripts(client, keys, group, "", lease=1.0, ordered=True).delete(shard_ids)


def _claim(answer: list[Any]) -> StreamClaim:
    outcome, watermark, is_new, last_epoch = answer
    position = position_of(watermark) if watermark else BEGINNING
    return StreamClaim(GroupOutcome(outcome.decode()), position, bool(is_new), int(last_epoch))


def _outcomes(answers: Mapping[int, Any]) -> dict[int, GroupOutcome | FleetError]:
    return {
        shard_id: answer if isinstance(answer, FleetError) else GroupOutcome(answer.decode())
        for shard_id, answer in answers.items()
    }
