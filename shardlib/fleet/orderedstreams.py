"""OrderedStreams: the consumers of a group share the streams, and each stream has one reader.

So the events of a shard come in order, and one id for each stream, the watermark, tells how far the
group has come. A consumer claims streams up to its fair share, renews its leases on a thread of its
own, and gives streams away when more consumers come.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from shardlib.fleet.calling import raise_first
from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError
from shardlib.fleet.fleetevents import (
    BEGINNING,
    DATA_LOST,
    SESSION_LOST,
    TRIMMED,
    Entry,
    Gap,
    Position,
    position_of,
)
from shardlib.fleet.groupscripts import GroupOutcome, GroupScripts, StreamRequest
from shardlib.fleet.heldstream import HeldStream
from shardlib.fleet.keeper import Keeper
from shardlib.fleet.keys import Keys
from shardlib.fleet.reading import RawEntry, read_streams, was_trimmed
from shardlib.fleet.scripts import GAP, new_token
from shardlib.waiting import Alarm

_logger = logging.getLogger("shardlib.fleet")

# Entries of one stream in one answer of Redis, at most. A stream keeps more than these, so a group
# whose unread events were dropped gets as many as this.
MOST_ENTRIES = 100

# Seconds between acknowledging to Redis; what was handled since then comes again after a crash.
FLUSH_INTERVAL = 0.2

# Seconds between looking for streams that nobody reads, and for other consumers.
POLL_INTERVAL = 0.5

# Seconds from one read to the next, if the first has found some events, and no more were there: one
# read costs as much processor time as ten events, and meanwhile more of them come.
LINGER = 0.02

# Seconds for a renewal that is under way when the consumer ends.
_LAST_RENEWAL = 1.0

# On Linux the monotonic clock stands still while the machine sleeps, and a lease goes on.
if sys.platform == "linux":

    def clock() -> float:
        """Seconds of a clock that never jumps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    clock = time.monotonic


class Watermarks(Protocol):
    """Where a user stores, together with the effect of an event, that the event was handled.

    The function that handles an event stores its id in the same transaction as what it does. Then
    each event has its effect once, whatever happens.
    """

    def get(self, shard_id: int, /) -> str | None:
        """The id of the last event of a shard that had its effect, None if none had.

        :param shard_id: number of the shard.
        :returns: the id as :class:`FleetEvent` has it.
        """


class OrderedStreams:
    """The streams that one consumer reads in order.

    :param scripts: of the group.
    :param client: to read with.
    :param keys: of the fleet.
    :param shard_count: returns the number of shards, 0 if nobody knows it yet.
    :param lease: seconds, as `scripts` have it.
    :param newest: True if a new group begins with the events that come from now on.
    :param seen: the user's watermarks, or None.
    """

    def __init__(
        self,
        scripts: GroupScripts,
        client: Client,
        keys: Keys,
        shard_count: Callable[[], int],
        *,
        lease: float,
        newest: bool,
        seen: Watermarks | None,
    ) -> None:
        self.buffer: deque[Entry] = deque()
        self._scripts = scripts
        self._client = client
        self._keys = keys
        self._shard_count = shard_count
        self._lease = lease
        self._newest = newest
        self._seen = seen
        self._held: dict[int, HeldStream] = {}
        # What this consumer knows to be handled, also of streams that others read now.
        self._known: dict[int, Position] = {}
        # What the user knew to be handled when this consumer first asked for a stream.
        self._first_seen: dict[int, Position] = {}
        self._next_work = self._next_poll = self._next_read = 0.0
        self._shards = 0
        self._has_claimed = False
        self._is_in_doubt = False
        self._alarm = Alarm()
        self.keeper = Keeper(self._keep, lease / 3, "shardlib-consumer")

    # What is due

    def work(self) -> None:
        """Acknowledge, claim and give away, if it is time to."""
        now = clock()
        if now >= self._next_work:
            self._flush()
            if now >= self._next_poll:
                self._poll(now)
            self._next_work = clock() + FLUSH_INTERVAL

    def _flush(self) -> None:
        """Tell Redis what was handled."""
        handled = {
            shard_id: (stream, stream.handled)
            for shard_id, stream in self._held.items()
            if stream.handled > stream.acknowledged and not stream.is_lost
        }
        answers = self._scripts.acknowledge(
            {shard_id: (stream.token, position) for shard_id, (stream, position) in handled.items()}
        )
        for shard_id, answer in answers.items():
            stream, position = handled[shard_id]
            if answer is GroupOutcome.ACKNOWLEDGED:
                stream.acknowledge(position)
            stream.heed(answer)
        self._drop_lost()
        raise_first(answers.values())

    def _drop_lost(self) -> None:
        """Forget what was read of streams that others may read now."""
        lost = [stream for stream in self._held.values() if stream.is_lost]
        for stream in lost:
            _logger.info(
                "another consumer has taken over the events of shard %d, or Redis has lost its "
                "data: this consumer drops what it had read ahead",
                stream.shard_id,
            )
            self._forget(stream)
        if lost:
            self._next_poll = 0.0

    def _forget(self, stream: HeldStream) -> None:
        self._known[stream.shard_id] = stream.handled
        self._held.pop(stream.shard_id, None)
        self.buffer = deque(entry for entry in self.buffer if entry.shard_id != stream.shard_id)

    def _poll(self, now: float) -> None:
        """Take this consumer's share of the streams, and no more."""
        if self._is_in_doubt:
            self._renew([*self._held.values()])
            self._is_in_doubt = False
        self._drop_lost()
        # A Redis that has lost its data does not know the number for a while.
        self._shards = self._shard_count() or self._shards
        share = math.ceil(self._shards / self._scripts.enter())
        idle = [stream for stream in self._held.values() if stream.is_idle]
        excess = max(0, len(self._held) - share)
        if excess:
            self._release(idle[-excess:])
        free = [shard_id for shard_id in range(self._shards) if shard_id not in self._held]
        while free and len(self._held) < share:
            missing = share - len(self._held)
            candidates, free = free[:missing], free[missing:]
            self._claim(candidates)
        self._has_claimed = self._shards > 0
        self._next_poll = now + POLL_INTERVAL

    def _claim(self, shard_ids: list[int]) -> None:
        for shard_id in shard_ids:
            if shard_id not in self._first_seen:
                self._first_seen[shard_id] = self._seen_up_to(shard_id) or BEGINNING
        requests = {
            shard_id: StreamRequest(
                new_token(),
                self._known.get(shard_id, BEGINNING),
                self._newest,
                patient=self._has_claimed,
                seen=self._first_seen[shard_id],
            )
            for shard_id in shard_ids
        }
        valid_until = clock() + self._lease
        answers = self._scripts.claim(requests)
        self.keeper.start()
        for shard_id, answer in answers.items():
            if isinstance(answer, FleetError) or answer.outcome is not GroupOutcome.CLAIMED:
                continue
            position, is_unsure = answer.watermark, answer.is_new and shard_id in self._known
            seen = self._seen_up_to(shard_id)
            if seen is not None and 0 < answer.last_epoch < seen.epoch:
                is_unsure = True  # Redis has lost what was seen, and begun anew with lower ids
            elif seen is not None:
                position, is_unsure = seen, answer.is_new
            self._held[shard_id] = HeldStream(
                shard_id,
                self._keys.shard(shard_id).events,
                requests[shard_id].token,
                position,
                valid_until,
                is_unsure,
            )
        raise_first(answers.values())

    def _seen_up_to(self, shard_id: int) -> Position | None:
        """The place of the last event that had its effect, None if the user knows of none."""
        seen = None if self._seen is None else self._seen.get(shard_id)
        if seen is None:
            return None
        try:
            return position_of(seen)
        except (AttributeError, ValueError):
            raise ValueError(
                f"seen.get({shard_id}) must return the id of an event, or None, not {seen!r}"
            ) from None

    def _release(self, streams: list[HeldStream]) -> None:
        for stream in streams:
            self._forget(stream)
        raise_first(self._scripts.release({each.shard_id: each.token for each in streams}).values())

    def _keep(self) -> None:
        """Renew all leases; on the keeper's thread."""
        self._scripts.enter()
        self._renew(list(self._held.values()))

    def _renew(self, streams: list[HeldStream]) -> None:
        valid_until = clock() + self._lease
        answers = self._scripts.renew({each.shard_id: each.token for each in streams})
        for stream in streams:
            answer = answers[stream.shard_id]
            if answer is GroupOutcome.RENEWED:
                stream.renew(valid_until)
            stream.heed(answer)
        raise_first(answers.values())

    # Reading

    def fill(self, timeout: float) -> None:
        """Read entries into the buffer, and wait for them if there are none.

        :param timeout: seconds.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        linger = min(self._next_read - clock(), timeout)
        if linger > 0:
            self._alarm.wait(linger)
        if timeout > 0:
            timeout = max(0.001, min(timeout, self._next_due() - clock()))
        began = clock()
        streams = {stream.key: stream for stream in self._held.values()}
        found = {}
        if streams:
            positions = {key: stream.read_up_to for key, stream in streams.items()}
            found = read_streams(self._client, positions, MOST_ENTRIES, timeout)
        if found:
            is_behind = any(len(entries) == MOST_ENTRIES for entries in found.values())
            self._next_read = began + (0.0 if is_behind else LINGER)
        elif clock() - began < timeout / 2:  # there are no streams, or this is a cluster
            self._alarm.wait(timeout)
        self._take({streams[key]: entries for key, entries in found.items()})

    def _next_due(self) -> float:
        """When :meth:`work` has something to do next."""
        if any(stream.handled > stream.acknowledged for stream in self._held.values()):
            return self._next_work
        return max(self._next_work, self._next_poll)

    def _take(self, found: dict[HeldStream, list[RawEntry]]) -> None:
        """Put what was read into the buffer."""
        leaps = [stream for stream, entries in found.items() if _leaps(stream, entries)]
        # A stream that does not go on with the next event may have been lost, and begun anew. Then
        # the group was lost, too, as a rule.
        oldest = self._renew_and_look(leaps)
        for stream, entries in found.items():
            if stream.is_lost:
                continue
            place = oldest.get(stream.shard_id)
            gap = None if place is None else self._gap_before(stream, entries, place)
            if gap is not None:
                self.buffer.append(Entry(gap.shard_id, str(stream.read_up_to).encode(), GAP, gap))
            stream.take(entries)
            for entry_id, text in entries:
                is_gap = text == GAP
                mark = Gap(stream.shard_id, SESSION_LOST, None) if is_gap else None
                self.buffer.append(Entry(stream.shard_id, entry_id, text or b"", mark))
        self._drop_lost()

    def _renew_and_look(self, streams: list[HeldStream]) -> dict[int, Position]:
        """The places of the oldest events of streams that are still this consumer's."""
        valid_until = clock() + self._lease
        answers = self._scripts.renew_and_look({each.shard_id: each.token for each in streams})
        oldest = {}
        for stream in streams:
            answer = answers[stream.shard_id]
            if isinstance(answer, FleetError):
                continue
            outcome, oldest[stream.shard_id] = answer
            if outcome is GroupOutcome.RENEWED:
                stream.renew(valid_until)
            stream.heed(outcome)
        raise_first(answers.values())
        return oldest

    def _gap_before(
        self, stream: HeldStream, entries: list[RawEntry], oldest: Position
    ) -> Gap | None:
        """What is missing in front of entries that were just read.

        :param oldest: the place of the oldest event that the stream has.
        """
        before, first = stream.read_up_to, position_of(entries[0][0])
        events = before.most_between(first)
        if stream.is_unsure:
            return Gap(stream.shard_id, DATA_LOST, events)
        if oldest < first:
            return None  # the stream still has the place in front, or one before it
        if before == BEGINNING and not was_trimmed(
            self._client, self._keys.shard(stream.shard_id), before, first
        ):
            return None
        # A stream that has dropped what comes after `before` keeps more than it can give at once.
        # A shorter one was deleted by somebody, or evicted, and begun anew.
        reason = TRIMMED if len(entries) == MOST_ENTRIES else DATA_LOST
        return Gap(stream.shard_id, reason, events)

    # Delivering

    def may_deliver(self, entry: Entry) -> bool:
        """False if another consumer may read the stream of the buffer's first entry.

        :param entry: the first one of the buffer, which is dropped if the answer is False.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        stream = self._held[entry.shard_id]
        if clock() >= stream.valid_until:
            self._renew([*self._held.values()])
        if stream.is_lost:
            self._drop_lost()
            return False
        return True

    def delivered(self, entry: Entry) -> None:
        """Note that the user gets the first entry of the buffer, and take it out."""
        self._held[entry.shard_id].deliver(entry.id)
        self.buffer.popleft()

    def skipped(self, entry: Entry) -> None:
        """Note that nobody wants the first entry of the buffer, and take it out."""
        self._held[entry.shard_id].skip(position_of(entry.id))
        self.buffer.popleft()

    def acknowledge(self, shard_id: int, entry_id: str) -> bool:
        """Note that an entry was handled, and all of the shard before it.

        :returns: False if another consumer reads the stream now, or the entry was acknowledged.
        """
        stream = self._held.get(shard_id)
        return stream is not None and stream.handle(entry_id)

    def rewind(self) -> None:
        """Deliver again what was delivered and not acknowledged."""
        self.buffer.clear()
        for stream in self._held.values():
            stream.rewind()

    def doubt(self) -> None:
        """Ask Redis whether the streams are still this consumer's, before all else."""
        self._is_in_doubt = True
        self._next_work = self._next_poll = 0.0

    def leave(self) -> None:
        """Acknowledge what was handled, and let other consumers have all streams.

        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        self.keeper.stop()
        # The connection that it uses would stay open, back in a pool that was emptied meanwhile.
        self.keeper.join(_LAST_RENEWAL)
        self._next_work = self._next_poll = 0.0
        try:
            self._flush()
            self._release([*self._held.values()])
            self._scripts.leave()
        finally:
            for stream in [*self._held.values()]:
                self._forget(stream)

    def stop(self) -> None:
        """End a wait in :meth:`fill`. Any thread, any signal handler."""
        self._alarm.ring()


def _leaps(stream: HeldStream, entries: list[RawEntry]) -> bool:
    """True if something may be missing between what was read before and what was read now."""
    entry_id, text = entries[0]
    return not stream.read_up_to.is_followed_by(position_of(entry_id)) and text != GAP
