"""SharedStreams: any consumer of a group gets any event, by the consumer groups of Redis.

Redis notes which consumer has got which event, until that consumer acknowledges it. An event that
is not acknowledged for a while goes to whoever asks, with the same id.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import redis

from shardlib.failurelog import FailureLog
from shardlib.fleet.calling import Call, Script, call_all, raise_first
from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError
from shardlib.fleet.fleetevents import (
    DATA_LOST,
    SESSION_LOST,
    TRIMMED,
    Entry,
    Gap,
    Position,
    position_of,
)
from shardlib.fleet.groupscripts import BEGIN, GroupScripts
from shardlib.fleet.keys import Keys
from shardlib.fleet.lua import LAST_ID
from shardlib.fleet.reading import RawEntry, entries_of, read_many, text_of, was_trimmed
from shardlib.fleet.scripts import GAP
from shardlib.waiting import Alarm

_logger = logging.getLogger("shardlib.fleet")

# Entries of all streams that a consumer reads ahead, at most; others wait for what it has read.
_READ_AHEAD = 100

# Seconds between acknowledging to Redis, and between looking for streams of new shards.
_FLUSH_INTERVAL = 0.2
_POLL_INTERVAL = 1.0

# Seconds between looking for what others have left, at most.
_LONGEST_TAKE_OVER = 5.0

# Where the group was begun is kept: what was dropped before is no loss to the group.
# Redis keeps the name of each consumer that there ever was, unless it is told to forget the name. A
# consumer that has nothing in hand loses nothing: if it lives, its next read brings the name back.
_JOIN = Script(
    LAST_ID
    + BEGIN
    + """
local begin = redis.call('HGET', KEYS[2], 'begin') or beginning(KEYS[1], ARGV[2])
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], begin, 'MKSTREAM')
if made['ok'] then
    redis.call('HSET', KEYS[2], 'begin', begin)
elseif not string.find(made['err'], 'BUSYGROUP', 1, true) then
    return made
end
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local fields = {}
    for i = 1, #info, 2 do
        fields[info[i]] = info[i + 1]
    end
    if fields['pending'] == 0 and fields['idle'] > tonumber(ARGV[3]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields['name'])
    end
end
return {made['ok'] and 1 or 0, begin}
"""
)

# Of a gap that was found, and does not stand in the stream: no event has this id.
_NO_ID = b"0-0"

# The commands of a stream that answer false if Redis has lost the group.
_ATTEMPT = """
local function attempt(...)
    local answer = redis.pcall(...)
    if type(answer) == 'table' and answer['err'] then
        return not string.find(answer['err'], 'NOGROUP', 1, true) and answer or false
    end
    return answer or {}
end
"""
_READ = Script(
    _ATTEMPT
    + """
return attempt('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[1],
               ARGV[4])
"""
)
_TAKE_OVER = Script(
    _ATTEMPT
    + """
return attempt('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
"""
)
_ACKNOWLEDGE = Script(
    """
for i = 2, #ARGV do
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
end
return 'ACKNOWLEDGED'
"""
)
# An entry that was idle for long goes to the next consumer that looks for such entries.
_HAND_BACK = Script(
    _ATTEMPT
    + """
for i = 4, #ARGV do
    attempt('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', ARGV[3], 'JUSTID')
end
return 'HANDED BACK'
"""
)


class SharedStreams:
    """The streams of all shards, of which one consumer reads what no other has got.

    :param scripts: of the group.
    :param client: to read with.
    :param keys: of the fleet.
    :param shard_count: returns the number of shards, 0 if nobody knows it yet.
    :param group: name of the group.
    :param consumer: name of the consumer.
    :param newest: True if a new group begins with the events that come from now on.
    :param retry_after: seconds after which an event that is not acknowledged goes to another.
    """

    def __init__(
        self,
        scripts: GroupScripts,
        client: Client,
        keys: Keys,
        shard_count: Callable[[], int],
        *,
        group: str,
        consumer: str,
        newest: bool,
        retry_after: float,
    ) -> None:
        self.buffer: deque[Entry] = deque()
        self._scripts = scripts
        self._client = client
        self._keys = keys
        self._shard_count = shard_count
        self._group = group
        self._consumer = consumer
        self._newest = newest
        self._retry_after = retry_after
        self._idle = round(retry_after * 1000)  # as Redis counts it
        self._begun: dict[int, Position] = {}  # where the group begins, by shard
        self._cursors: dict[int, str] = {}  # of looking for what others have left
        self._read_at = 0.0  # the oldest entry of the buffer
        # Delivered, and not acknowledged: when Redis gave it, from when retry_after counts.
        self._in_hand: dict[tuple[int, str], float] = {}
        self._overtime = FailureLog()
        self._handled: list[tuple[int, str]] = []  # which Redis does not know yet
        self._must_recover = True
        self._next_flush = self._next_poll = self._next_take_over = 0.0
        self._alarm = Alarm()

    # What is due

    def work(self) -> None:
        """Acknowledge, and look for new shards and for what others have left, if it is time to."""
        now = time.monotonic()
        if now >= self._next_flush:
            self._flush()
            if now >= self._next_poll:
                self._join()
                self._next_poll = now + _POLL_INTERVAL
            self._next_flush = time.monotonic() + _FLUSH_INTERVAL

    def _flush(self) -> None:
        handled, self._handled = self._handled, []
        try:
            self._call(_ACKNOWLEDGE, _by_shard(handled), self._group)
        except BaseException:
            self._handled += handled
            raise

    def _join(self) -> None:
        """Make the group for each stream that has none."""
        missing = [each for each in range(self._shard_count()) if each not in self._begun]
        arguments = {shard_id: (int(self._newest), self._idle) for shard_id in missing}
        self._scripts.enter()
        for shard_id, (_, begin) in self._call(_JOIN, arguments, self._group).items():
            self._begun[shard_id] = position_of(begin)

    def _join_again(self) -> None:
        """Make the groups again that Redis has lost, from the oldest event that it got back."""
        self.rewind()
        arguments = dict.fromkeys(self._begun, (0, self._idle))
        for shard_id, (is_new, begin) in self._call(_JOIN, arguments, self._group).items():
            self._begun[shard_id] = position_of(begin)
            if is_new:
                self._add_gap(Gap(shard_id, DATA_LOST, None))

    # Reading

    def fill(self, timeout: float) -> None:
        """Read entries into the buffer, and wait for them if there are none.

        :param timeout: seconds.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        if not self._begun:
            self._alarm.wait(timeout)
            return
        self._read_at = now = time.monotonic()
        if self._must_recover:
            self._recover()
        if not self.buffer and now >= self._next_take_over:
            self._take_over()
        if not self.buffer:
            self._read_new(timeout)

    def _recover(self) -> None:
        """Read again what this consumer has got, and not acknowledged."""
        self._flush()
        self._must_recover = False  # unless Redis has lost a group: then all are read once more
        after = dict.fromkeys(self._begun, "0")
        while after:
            found = self._read(after, _READ_AHEAD)
            after = {}
            for shard_id, entries in found.items():
                self._add(shard_id, entries)
                after[shard_id] = entries[-1][0].decode()

    def _read(self, after: Mapping[int, str], most: int) -> dict[int, list[RawEntry]]:
        """Read streams one by one."""
        arguments = {shard_id: (self._consumer, most, place) for shard_id, place in after.items()}
        answers = self._call(_READ, arguments, self._group)
        if None in answers.values():
            self._join_again()
            return {}
        found = {}
        for shard_id, answer in answers.items():
            for entries in entries_of(answer).values():
                if entries:
                    found[shard_id] = entries
        return found

    def _read_new(self, timeout: float) -> None:
        most = max(1, _READ_AHEAD // len(self._begun))
        if isinstance(self._client, redis.Redis):
            if self._handled and timeout > 0:
                timeout = max(0.001, min(timeout, self._next_flush - time.monotonic()))
            keys = {self._keys.shard(shard_id).events: shard_id for shard_id in self._begun}
            command = f"XREADGROUP GROUP {self._group} {self._consumer}"
            try:
                read = read_many(self._client, command, dict.fromkeys(keys, ">"), most, timeout)
            except FleetError as error:
                if "NOGROUP" not in str(error):
                    raise
                self._join_again()
                return
            found = {keys[key]: entries for key, entries in read.items()}
        else:
            found = self._read(dict.fromkeys(self._begun, ">"), most)
            if not found:
                self._alarm.wait(timeout)
        self._read_at = time.monotonic()
        for shard_id, entries in found.items():
            gap = self._gap_before(shard_id, entries, most)
            if gap is not None:
                self._add_gap(gap)
            self._add(shard_id, entries)

    def _gap_before(self, shard_id: int, entries: Sequence[RawEntry], most: int) -> Gap | None:
        """What is missing in front of entries that were just read."""
        first, begin = position_of(entries[0][0]), self._begun[shard_id]
        # A stream that has dropped unread events keeps more than it can give at once.
        if len(entries) < most or first.sequence <= 1 or begin.is_followed_by(first):
            return None
        if not was_trimmed(self._client, self._keys.shard(shard_id), begin, first):
            return None
        return Gap(shard_id, TRIMMED, None)

    def _take_over(self) -> None:
        """Take what other consumers have got, and not acknowledged for too long."""
        self._flush()
        most = max(1, _READ_AHEAD // len(self._begun))
        arguments = {
            shard_id: (self._consumer, self._idle, self._cursors.get(shard_id, "0-0"), most)
            for shard_id in self._begun
        }
        answers = self._call(_TAKE_OVER, arguments, self._group)
        if None in answers.values():
            self._join_again()
            return
        is_done = True
        for shard_id, (cursor, entries, *gone) in answers.items():
            # Redis 6.2 gives nothing in place of an entry that is no more; later ones list its id.
            found = [(entry[0], text_of(entry[1])) for entry in entries if entry]
            missing = len(entries) - len(found) + sum(map(len, gone))
            if missing:
                self._add_gap(Gap(shard_id, TRIMMED, missing))
            self._add(shard_id, found)
            self._cursors[shard_id] = cursor.decode()
            is_done = is_done and cursor == b"0-0"
        if is_done:
            self._next_take_over = time.monotonic() + min(self._retry_after / 4, _LONGEST_TAKE_OVER)

    def _add(self, shard_id: int, entries: Iterable[RawEntry]) -> None:
        entries = [each for each in entries if (shard_id, each[0].decode()) not in self._in_hand]
        gone = [(shard_id, entry_id.decode()) for entry_id, text in entries if text is None]
        if gone:
            self._add_gap(Gap(shard_id, TRIMMED, len(gone)))
            self._handled += gone
        for entry_id, text in entries:
            if text is not None:
                gap = Gap(shard_id, SESSION_LOST, None) if text == GAP else None
                self.buffer.append(Entry(shard_id, entry_id, text, gap))

    def _add_gap(self, gap: Gap) -> None:
        self.buffer.append(Entry(gap.shard_id, _NO_ID, GAP, gap))

    # Delivering

    def may_deliver(self, entry: Entry) -> bool:
        """False if the buffer is so old that other consumers may soon take its entries over.

        :param entry: the first one of the buffer, which is handed back if the answer is False.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        if entry.id == _NO_ID or time.monotonic() < self._read_at + self._retry_after / 2:
            return True
        self._hand_back()
        return False

    def _hand_back(self) -> None:
        """Let other consumers have what was read ahead."""
        entries = [(each.shard_id, each.id.decode()) for each in self.buffer if each.id != _NO_ID]
        is_young = time.monotonic() < self._read_at + self._retry_after * 0.9
        self._empty_buffer()
        if is_young:  # others have claimed older ones
            self._call(_HAND_BACK, _by_shard(entries), self._group, self._consumer, self._idle)

    def delivered(self, entry: Entry) -> None:
        """Note that the user gets the first entry of the buffer, and take it out."""
        self._in_hand[entry.shard_id, entry.id.decode()] = self._read_at
        self.buffer.popleft()

    def skipped(self, entry: Entry) -> None:
        """Note that nobody wants the first entry of the buffer, and take it out."""
        self._handled.append((entry.shard_id, entry.id.decode()))
        self.buffer.popleft()

    def acknowledge(self, shard_id: int, entry_id: str) -> bool:
        """Note that an entry was handled.

        :returns: False if the entry was acknowledged before.
        """
        read_at = self._in_hand.pop((shard_id, entry_id), None)
        if read_at is None:
            return False
        self._handled.append((shard_id, entry_id))
        self._tell_of_overtime(time.monotonic() - read_at)
        return True

    def _tell_of_overtime(self, taken: float) -> None:
        if taken <= self._retry_after:
            return
        count, _ = self._overtime.add(SharedStreams)
        if count:
            _logger.warning(
                "the group %s acknowledged an event %.1f seconds after it was read, and "
                "retry_after is %g: another consumer may have handled the event, too. Raise "
                "retry_after, or run more consumers%s",
                self._group,
                taken,
                self._retry_after,
                f" ({count} such events since the last warning)" if count > 1 else "",
            )

    def rewind(self) -> None:
        """Deliver again what was delivered and not acknowledged."""
        self._empty_buffer()
        self._in_hand.clear()
        self._must_recover = True

    def doubt(self) -> None:
        """Read again what this consumer may have got without knowing it."""
        self._empty_buffer()
        self._must_recover = True

    def _empty_buffer(self) -> None:
        """Forget what Redis gives again, and keep the gaps, which are found only once."""
        self.buffer = deque(entry for entry in self.buffer if entry.id == _NO_ID)

    def leave(self) -> None:
        """Acknowledge what was handled, and let other consumers have the rest.

        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        self._flush()
        if self._begun:
            self._read_at = time.monotonic()
            self._recover()
            self._hand_back()
        self._must_recover = True
        self._scripts.leave()

    def stop(self) -> None:
        """End a wait in :meth:`fill`. Any thread, any signal handler."""
        self._alarm.ring()

    def _call(
        self, script: Script, arguments: Mapping[int, Sequence[str | int]], *first: str | int
    ) -> dict[int, Any]:
        calls = []
        for shard_id, values in arguments.items():
            keys = (
                self._keys.shard(shard_id).events,
                self._keys.group(shard_id, self._group).state,
            )
            calls.append(Call(script, keys, (*first, *values)))
        answers = call_all(self._client, calls)
        raise_first(answers)
        return dict(zip(arguments, answers, strict=True))


def _by_shard(ids: Iterable[tuple[int, str]]) -> dict[int, list[str]]:
    by_shard: dict[int, list[str]] = {}
    for shard_id, entry_id in ids:
        by_shard.setdefault(shard_id, []).append(entry_id)
    return by_shard
