"""What Redis does for a shard in one step: claim it, renew the claim, append events, release it.

The owner of a shard has a random token, which Redis keeps in the shard's state. Every script
compares it, so that an owner who was paused, or was cut off, writes nothing once somebody else has
claimed the shard. The lease tells only whether the owner lives: if it has expired and nobody has
claimed the shard, the owner may go on.

What is in the stream is the sequence to resume from: one script appends the events and moves the
sequence. The ids are ``<epoch>-<sequence>``, and each session has an epoch of its own: whoever
appends an event, and however often, gives it the same id.

Each script may be called twice with the same arguments, if the first answer was lost.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from shardlib.fleet.calling import Call, Script, call_all
from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError
from shardlib.fleet.keys import Keys
from shardlib.fleet.lua import KEEP_LEASE, LAST_ID, NOW, NUMBERS, REFUSE

GAP = b'{"t":"SHARDLIB_GAP","s":0,"op":0,"d":null}'
"""Stands in a stream between two sessions: events between them may be missing."""

FIELD = b"p"
"""The field of each entry of a stream: the event, as Discord has sent it."""


class Outcome(enum.Enum):
    """What became of a call."""

    CLAIMED = "CLAIMED"
    """The shard belongs to the token now."""

    HELD = "HELD"
    """Another owner has the shard, or Redis knows nothing of it and waits for its owner."""

    RENEWED = "RENEWED"
    """The shard still belongs to the token."""

    RELEASED = "RELEASED"
    """Whoever asks next gets the shard."""

    APPENDED = "APPENDED"
    """All events of the batch are in the stream."""

    FENCED = "FENCED"
    """Nothing was done: the shard belongs to another token."""

    LOST = "LOST"
    """Nothing was done: Redis has lost the shard's state. Its owner claims it again."""

    REGRESSED = "REGRESSED"
    """Nothing was done: Redis has lost the newest events. Its owner appends them again."""


class FleetSession(NamedTuple):
    """A session of a shard, as Redis knows it, or as its owner believes that Redis knows it.

    :param session_id: as READY gave it.
    :param resume_gateway_url: as READY gave it, or None.
    :param shard_count: the number of the bot's shards when the session began.
    :param epoch: the first half of the ids of its events, milliseconds since 1970. The owner of a
        new session proposes one, above that of the session before; 0 for none. Redis takes it if it
        is higher than the last one there, and otherwise makes another. Without a proposal, a first
        batch whose answer was lost, and which Redis has lost as well, would come back with other
        ids.
    :param sequence: of the last event that Redis has, 0 for none.
    """

    session_id: str
    resume_gateway_url: str | None
    shard_count: int
    epoch: int = 0
    sequence: int = 0


class ClaimRequest(NamedTuple):
    """Who wants a shard.

    :param token: from :func:`new_token`, for this claim alone: with the token of an earlier claim,
        a batch that has been on its way since then would be appended.
    :param owner: the name of the worker, for people.
    :param session: what an owner remembers whose shard Redis has lost; None for everyone else.
    :param fence: the number of that owner's claim, 0 for everyone else.
    """

    token: str
    owner: str
    session: FleetSession | None = None
    fence: int = 0


class Claim(NamedTuple):
    """The answer to a claim.

    :param outcome: CLAIMED or HELD.
    :param fence: how often the shard was claimed, for people and downstream systems. Redis may lose
        the last claims, so that two owners have one number; what Redis compares is the token.
    :param session: to resume, or None. It is from Redis, where others may write: its URL has to be
        checked before a token is sent there.
    :param owner: who has the shard if it is HELD, "" for nobody; who had it until its lease expired
        if it is CLAIMED, "" if it was released, or new.
    :param wait: seconds until the lease expires if the shard is HELD.
    """

    outcome: Outcome
    fence: int
    session: FleetSession | None
    owner: str
    wait: float


class Report(NamedTuple):
    """What the owner of a shard tells of it.

    :param token: the owner's.
    :param state: the value of the shard's :class:`shardlib.ShardState`.
    :param ping: seconds of the last heartbeat, None if there was none.
    """

    token: str
    state: str
    ping: float | None


class Reported(NamedTuple):
    """The answer to a report.

    :param outcome: RENEWED, FENCED or LOST.
    :param commands: how many commands lie in Redis for the shard.
    """

    outcome: Outcome
    commands: int


class ShardView(NamedTuple):
    """What anyone may know of a shard.

    :param lease: seconds that are left of the lease, 0.0 if others may claim the shard.
    :param events: how many entries its stream has.
    :param session_age: seconds since the session began, None if there was none.
    :param owner: name of the worker that has claimed it last, "" if that has released it.
    :param fence: how often it was claimed.
    :param session_id: of the session, None if there was none.
    :param sequence: of the last event of the session that Redis has.
    :param state: as the owner has reported it, "" before.
    :param ping: likewise, None before.
    """

    lease: float
    events: int
    session_age: float | None
    owner: str
    fence: int
    session_id: str | None
    sequence: int
    state: str
    ping: float | None


class Batch(NamedTuple):
    """Events to append to the stream of a shard.

    Each owner appends one batch of a shard after the other: until the answer to a batch has come,
    it repeats that batch and sends no other.

    :param token: the owner's.
    :param session: whose events they are; its `sequence` is the one before this batch.
    :param events: the sequence and the text of each, in ascending order.
    :param last_sequence: up to which the session was received: also of events that are not
        forwarded.
    """

    token: str
    session: FleetSession
    events: Sequence[tuple[int, bytes | str]]
    last_sequence: int


class Appended(NamedTuple):
    """The answer to a batch.

    :param outcome: APPENDED, FENCED, LOST or REGRESSED.
    :param epoch: of the session, 0 if Redis does not know it.
    :param sequence: of the last event of this session that Redis has, 0 for none.
    """

    outcome: Outcome
    epoch: int
    sequence: int


def new_token() -> str:
    """A random token for one claim."""
    return secrets.token_hex(16)


# A shard of which Redis knows nothing is new, or was lost with the data of Redis. In the second
# case its owner lives, and the owner's session is worth more than a new one. So the first claim
# sets a lease with an empty token. Until that expires, only an owner that remembers the shard gets
# the shard.
CLAIM = Script(
    KEEP_LEASE
    + NOW
    + LAST_ID
    + """
local lease, state, events = KEYS[1], KEYS[2], KEYS[3]
local token, owner, milliseconds, fence = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local session, url, count = ARGV[5], ARGV[6], ARGV[7]
local epoch, sequence = tonumber(ARGV[8]), tonumber(ARGV[9])

local function held(by)
    return {'HELD', 0, by, math.max(redis.call('PTTL', lease), 0)}
end
local function claimed(from)
    local known = redis.call('HMGET', state, 'fence', 'session', 'url', 'count', 'epoch',
                             'sequence')
    local function numbered(i)
        return whole(read_number(known[i]))
    end
    return {'CLAIMED', numbered(1), from, 0, known[2] or '', known[3] or '', numbered(4),
            numbered(5), numbered(6)}
end

local holder = redis.call('GET', lease)
if redis.call('PTTL', lease) == -1 then  -- which no worker has written
    holder = false
end
local known = redis.call('HMGET', state, 'token', 'fence', 'owner', 'born')
if holder and holder ~= '' and holder ~= token then
    return held(known[3] or '')
end
if known[1] == token then
    keep_lease(lease, token, milliseconds)
    return claimed('')
end
if not known[1] then
    local remembers = false
    if session ~= '' then
        local last_epoch, last_sequence = last_id(events)
        remembers = last_epoch <= epoch
        if last_epoch == epoch and last_sequence > sequence then
            sequence = last_sequence
        end
    end
    if remembers then
        if epoch > 0 then  -- without one, nothing of the session was ever here
            redis.call('HSET', state, 'session', session, 'url', url, 'count', count,
                       'epoch', whole(epoch), 'sequence', whole(sequence))
        end
    elseif not known[4] then
        redis.call('HSET', state, 'born', whole(now()))
        redis.call('SET', lease, '', 'PX', milliseconds)
        return held('')
    elseif holder then
        return held('')
    end
end
fence = math.max(fence, read_number(known[2])) + 1
redis.call('HSET', state, 'token', token, 'owner', owner, 'fence', whole(fence),
           'state', '', 'ping', '')
redis.call('SET', lease, token, 'PX', milliseconds)
return claimed(known[3] or '')
"""
)

RENEW = Script(
    KEEP_LEASE
    + REFUSE
    + """
local owner = redis.call('HGET', KEYS[2], 'token')
if owner ~= ARGV[1] then
    return refuse(KEYS[2], owner and 'FENCED' or 'LOST')
end
keep_lease(KEYS[1], ARGV[1], ARGV[2])
return 'RENEWED'
"""
)

# The lease is renewed first: Redis whose memory has run out refuses HSET, but not behind a command
# that has written. Another program may have put something else than commands in their place.
_TELL = Script(
    KEEP_LEASE
    + REFUSE
    + """
local owner = redis.call('HGET', KEYS[2], 'token')
if owner ~= ARGV[1] then
    return {refuse(KEYS[2], owner and 'FENCED' or 'LOST'), 0}
end
keep_lease(KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], 'state', ARGV[3], 'ping', ARGV[4])
local commands = redis.pcall('XLEN', KEYS[4])
return {'RENEWED', type(commands) == 'number' and commands or 0}
"""
)

# The times are the difference of two by the clock of Redis.
_SHOW = Script(
    NOW
    + NUMBERS
    + """
local known = redis.call('HMGET', KEYS[2], 'owner', 'fence', 'session', 'epoch', 'sequence',
                         'state', 'ping')
return {math.max(redis.call('PTTL', KEYS[1]), 0), redis.call('XLEN', KEYS[3]),
        math.max(now() - read_number(known[4]), 0), known[1] or '', whole(read_number(known[2])),
        known[3] or '', whole(read_number(known[4])), whole(read_number(known[5])),
        known[6] or '', known[7] or ''}
"""
)

# The token is left empty, and not deleted: a state without one is taken for lost.
RELEASE = Script(
    REFUSE
    + """
local owner = redis.call('HGET', KEYS[2], 'token')
if owner ~= ARGV[1] then
    return refuse(KEYS[2], owner and 'FENCED' or 'LOST')
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[2], 'token', '', 'owner', '', 'state', '', 'ping', '')
return 'RELEASED'
"""
)

# The first command that writes is one that Redis refuses when memory has run out. After any other
# it would let the rest pass, and refuse it after the first of them.
#
# A stream may be ahead of its state. Redis 6.2 that finds a half-written script at the end of its
# log does not carry it out, and leaves it there; after one more restart it carries out what is left
# of it. An id that is too small then tells of an event that is in the stream, or of a later epoch.
APPEND = Script(
    KEEP_LEASE
    + REFUSE
    + NOW
    + LAST_ID
    + """
local lease, state, events = KEYS[1], KEYS[2], KEYS[3]
local token, milliseconds, session, url, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local epoch, expected, last = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local most, field, gap = ARGV[9], ARGV[10], ARGV[11]

local known = redis.call('HMGET', state, 'token', 'session', 'epoch', 'sequence', 'known_epoch')
if known[1] ~= token then
    return refuse(state, {known[1] and 'FENCED' or 'LOST', 0, 0})
end
-- Of two sessions of one id the second has a higher epoch. A first batch that comes again has not:
-- Redis has the epoch proposed, or a higher one.
local is_new = known[2] ~= session or (expected == 0 and epoch > read_number(known[3]))
local sequence = -1
if not is_new then
    epoch, sequence = read_number(known[3]), read_number(known[4])
end
if expected > math.max(sequence, 0) then
    return refuse(state, {'REGRESSED', is_new and 0 or whole(epoch), whole(math.max(sequence, 0))})
end
if is_new then
    -- The one proposed, or that which the session had before Redis lost it, if still possible.
    -- A consumer may know an epoch that Redis has lost: this session's, or that of an earlier one.
    local floor = math.max(read_number(known[3]), (last_id(events)))
    local known_epoch = read_number(known[5])
    if epoch <= floor or epoch < known_epoch then
        epoch = math.max(now(), floor + 1, known_epoch + 1)
    end
end
local id = whole(epoch) .. '-'
if is_new and known[2] and known[2] ~= '' then
    redis.call('XADD', events, id .. '0', field, gap)
    sequence = 0
end
local is_moved = false
for i = 12, #ARGV, 2 do
    local number = tonumber(ARGV[i])
    if number > sequence then
        local added = redis.pcall('XADD', events, id .. ARGV[i], field, ARGV[i + 1])
        if type(added) == 'table' and added.err then
            if not string.find(added.err, 'equal or smaller', 1, true) then
                return added
            end
            local top = last_id(events)
            if top > epoch then
                epoch, is_moved = math.max(now(), top + 1), true
                id = whole(epoch) .. '-'
                redis.call('XADD', events, id .. ARGV[i], field, ARGV[i + 1])
            end
        end
        sequence = number
    end
end
sequence = math.max(sequence, last, 0)
if is_new or is_moved then
    redis.call('HSET', state, 'session', session, 'url', url, 'count', count,
               'epoch', whole(epoch), 'sequence', whole(sequence))
else
    redis.call('HSET', state, 'sequence', whole(sequence))
end
if #ARGV > 11 then
    local trimmed = redis.call('XTRIM', events, 'MAXLEN', '~', most)
    if trimmed > 0 then
        redis.call('HINCRBY', state, 'trimmed', trimmed)
    end
end
keep_lease(lease, token, milliseconds)
return {'APPENDED', whole(epoch), whole(sequence)}
"""
)


class ShardScripts:
    """The scripts of a fleet's shards, called for any number of shards in one pipeline.

    Each method asks Redis once, and blocks until the answers are there. Any thread may call any of
    them. A shard whose call Redis has refused has a :class:`FleetError` in place of its answer:
    the calls of all others were carried out.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the fleet.
    :param lease: seconds after which others may claim the shards of an owner who is not heard of.
    :param keep_events: about how many events the stream of a shard keeps.
    """

    def __init__(self, client: Client, keys: Keys, *, lease: float, keep_events: int) -> None:
        self._client = client
        self._keys = keys
        self._lease = round(lease * 1000)
        self._keep_events = keep_events

    def claim(self, requests: Mapping[int, ClaimRequest]) -> dict[int, Claim | FleetError]:
        """Claim shards that are released, or whose lease has expired.

        A shard of which Redis knows nothing is HELD for the time of a lease, counted from the first
        claim: its owner, who lives, may claim it meanwhile, with the session that it remembers.

        :param requests: by shard number.
        :returns: the answers, by shard number.
        :raises RedisAway: if Redis does not answer; then any of the shards may be claimed.
        :raises FleetError: if Redis refuses the connection.
        """
        arguments = {}
        for shard_id, request in requests.items():
            session = request.session or FleetSession("", None, 0)
            arguments[shard_id] = (
                *(request.token, request.owner, self._lease, request.fence),
                *(*_names(session), session.shard_count, session.epoch, session.sequence),
            )
        return _answers(requests, self._call(CLAIM, arguments), _claim)

    def renew(self, tokens: Mapping[int, str]) -> dict[int, Outcome | FleetError]:
        """Renew the leases of shards.

        :param tokens: the owner's tokens, by shard number.
        :returns: RENEWED, FENCED or LOST, by shard number.
        :raises RedisAway: if Redis does not answer; then any of the leases may be renewed.
        :raises FleetError: if Redis refuses the connection.
        """
        arguments = {shard_id: (token, self._lease) for shard_id, token in tokens.items()}
        return _answers(tokens, self._call(RENEW, arguments), _outcome)

    def tell(self, reports: Mapping[int, Report]) -> dict[int, Reported | FleetError]:
        """Renew the leases of shards, tell how the shards are, and hear of commands.

        :param reports: by shard number.
        :returns: the answers, by shard number.
        :raises RedisAway: if Redis does not answer; then any of the leases may be renewed.
        :raises FleetError: if Redis refuses the connection.
        """
        arguments = {
            shard_id: (
                *(report.token, self._lease, report.state),
                "" if report.ping is None else repr(report.ping),
            )
            for shard_id, report in reports.items()
        }
        return _answers(reports, self._call(_TELL, arguments), _reported)

    def show(self, shard_ids: Sequence[int]) -> dict[int, ShardView | FleetError]:
        """What is known of shards.

        :param shard_ids: their numbers.
        :returns: the answers, by shard number.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses the connection.
        """
        return _answers(shard_ids, self._call(_SHOW, dict.fromkeys(shard_ids, ())), _view)

    def release(self, tokens: Mapping[int, str]) -> dict[int, Outcome | FleetError]:
        """Let others claim shards at once. With these tokens nothing can be appended any more.

        :param tokens: the owner's tokens, by shard number.
        :returns: RELEASED, FENCED or LOST, by shard number; FENCED, too, for a shard that was
            released before.
        :raises RedisAway: if Redis does not answer; then any of the shards may be released.
        :raises FleetError: if Redis refuses the connection.
        """
        arguments = {shard_id: (token,) for shard_id, token in tokens.items()}
        return _answers(tokens, self._call(RELEASE, arguments), _outcome)

    def append(self, batches: Mapping[int, Batch]) -> dict[int, Appended | FleetError]:
        """Append events, which renews the leases, too.

        An event whose sequence is not above that of the last one is left out: it is in the stream.
        A session other than the last one begins a new epoch, and the stream gets a :data:`GAP` in
        front of it, with the sequence 0, if there was a session before.

        :param batches: by shard number.
        :returns: the answers, by shard number.
        :raises RedisAway: if Redis does not answer; then any of the batches may be appended.
        :raises FleetError: if Redis refuses the connection.
        """
        arguments = {}
        for shard_id, batch in batches.items():
            session = batch.session
            arguments[shard_id] = (
                *(batch.token, self._lease, *_names(session)),
                *(session.shard_count, session.epoch, session.sequence, batch.last_sequence),
                *(self._keep_events, FIELD, GAP),
                *(part for event in batch.events for part in event),
            )
        return _answers(batches, self._call(APPEND, arguments), _appended)

    def _call(
        self, script: Script, arguments: Mapping[int, Sequence[str | bytes | int]]
    ) -> list[Any]:
        calls = []
        for shard_id, values in arguments.items():
            calls.append(Call(script, self._keys.shard(shard_id), values))
        return call_all(self._client, calls)


_Answer = TypeVar("_Answer")


def _answers(
    shard_ids: Iterable[int], answers: list[Any], read: Callable[[Any], _Answer]
) -> dict[int, _Answer | FleetError]:
    return {
        shard_id: answer if isinstance(answer, FleetError) else read(answer)
        for shard_id, answer in zip(shard_ids, answers, strict=True)
    }


def _outcome(answer: bytes) -> Outcome:
    return Outcome(answer.decode())


def _reported(answer: list[Any]) -> Reported:
    outcome, commands = answer
    return Reported(_outcome(outcome), commands)


def _view(answer: list[Any]) -> ShardView:
    lease, events, age, owner, fence, session, epoch, sequence, state, ping = answer
    return ShardView(
        lease / 1000,
        events,
        age / 1000 if int(epoch) else None,
        owner.decode(errors="replace"),
        int(fence),
        session.decode(errors="replace") or None,
        int(sequence),
        state.decode(errors="replace"),
        _ping(ping),
    )


def _ping(text: bytes) -> float | None:
    try:
        return float(text)
    except ValueError:  # as for a shard that has had no heartbeat yet
        return None


def _claim(answer: list[Any]) -> Claim:
    outcome, fence, owner, wait, *session = answer
    return Claim(
        _outcome(outcome),
        int(fence),
        _session(*session),
        owner.decode(errors="replace"),
        wait / 1000,
    )


def _names(session: FleetSession) -> tuple[bytes, bytes]:
    """The id and the URL of a session as Redis has them.

    JSON has escapes for halves of surrogate pairs, which UTF-8 does not have. The next owner finds
    no session then.
    """
    session_id, url = session.session_id, session.resume_gateway_url or ""
    return session_id.encode(errors="surrogatepass"), url.encode(errors="surrogatepass")


def _session(
    session_id: bytes = b"",
    url: bytes = b"",
    shard_count: bytes | int = 0,
    epoch: bytes | int = 0,
    sequence: bytes | int = 0,
) -> FleetSession | None:
    if not session_id:
        return None
    try:
        texts = session_id.decode(), url.decode() or None
    except UnicodeDecodeError:  # see _names(), or another program has written that
        return None
    return FleetSession(*texts, int(shard_count), int(epoch), int(sequence))


def _appended(answer: list[Any]) -> Appended:
    outcome, epoch, sequence = answer
    return Appended(_outcome(outcome), int(epoch), int(sequence))
