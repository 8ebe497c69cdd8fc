"""Consumer: hands out the events of a fleet, to any number of processes, in plain Python."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import secrets
import socket
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import redis
import ujson

from shardlib.backoff import Backoff
from shardlib.checks import (
    check_at_least_one,
    check_callback,
    check_methods,
    check_positive,
    check_timeout,
    check_type,
)
from shardlib.closing import Closing
from shardlib.deadline import SIGNAL_POLL_INTERVAL, Deadline
from shardlib.errors import UnreadableMessage
from shardlib.failurelog import FailureLog
from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError, RedisAway
from shardlib.fleet.fleetevents import (
    GAP_EVENT,
    Entry,
    EntrySource,
    FleetEvent,
    Gap,
    check_event_names,
)
from shardlib.fleet.groupscripts import GroupScripts
from shardlib.fleet.keys import Keys, check_name
from shardlib.fleet.orderedstreams import OrderedStreams, Watermarks
from shardlib.fleet.sharedstreams import SharedStreams
from shardlib.gateway import misspelling_warning
from shardlib.ownprocess import OwnProcess
from shardlib.payloads import JSONModule, check_payload, read_dispatch_header
from shardlib.text import printable
from shardlib.waiting import Alarm

_logger = logging.getLogger("shardlib.fleet")

# Seconds between looking how far the group is behind.
_LAG_INTERVAL = 60.0

_STARTS = ("oldest", "newest")


@dataclasses.dataclass(frozen=True)
class ConsumerStats:
    """What a consumer has done since it was made.

    :ivar events: events handed out, an int; an event that came twice counts twice.
    :ivar skipped: events passed that `events` does not name, an int.
    :ivar unreadable: events passed that were no JSON, an int.
    :ivar gaps: how often events may have been missing, an int.
    :ivar outages: how often Redis was away, an int.
    """

    events: int = 0
    skipped: int = 0
    unreadable: int = 0
    gaps: int = 0
    outages: int = 0


class Consumer(Closing):
    """Hands out the events of a fleet's shards, which all consumers of a group share.

    :meth:`shardlib.fleet.Fleet.consumer` makes it, and describes its arguments::

        with fleet.consumer("web", events={"MESSAGE_CREATE"}) as consumer:
            for event in consumer:
                handle(event.name, event.data)

    An event is acknowledged when the loop asks for the next one. If the process ends before, or the
    loop is left by an exception or by ``break``, that event comes again, with the same id, to this
    consumer or another one. Redis is told five times a second what was acknowledged; so after a
    process was killed, some events that it had handled come again, too.

    A group has any number of consumers, in any number of processes. Each group gets all events.

    One thread uses a consumer: another one that calls :meth:`get`, or asks the iterator, meanwhile
    gets a RuntimeError. Make a consumer for each thread. :meth:`stop` and :meth:`close` may be
    called from any thread and any signal handler. With `ordered`, a consumer has a daemon thread of
    its own, which keeps the streams for this consumer while an event is being handled, however long
    that takes.

    When Redis is away, the consumer waits, and goes on when Redis is back; the log tells of it.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        group: str,
        *,
        shard_count: Callable[[], int],
        lease: float = 6.0,
        events: Iterable[str] | None = None,
        ordered: bool = True,
        start: str = "oldest",
        seen: Watermarks | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        retry_after: float = 60.0,
        keep_events: int = 100_000,
        name: str | None = None,
        json: JSONModule = ujson,
        owns_client: bool = False,
    ) -> None:
        check_name("group", group)
        check_positive("lease", lease)
        check_type("ordered", ordered, bool)
        if start not in _STARTS:
            raise ValueError(f"start must be one of {_STARTS}, not {start!r}")
        check_methods("seen", seen, "get", optional=True)
        if seen is not None and not ordered:
            raise ValueError("seen goes with ordered=True: without order no id stands for others")
        check_positive("retry_after", retry_after)
        check_at_least_one("keep_events", keep_events)
        check_methods("json", json, "loads")
        self.group = group
        self.name = _default_name() if name is None else check_name("name", name)
        self._names = _check_names(events)
        self._on_gap = check_callback("on_gap", on_gap, 1)
        self._json = json
        if not ordered:  # it is not heard of while the user's function handles an event
            lease = max(lease, retry_after)
        self._scripts = GroupScripts(client, keys, group, self.name, lease=lease, ordered=ordered)
        self._shard_count = shard_count
        self._source: EntrySource
        if ordered:
            streams = OrderedStreams(
                *(self._scripts, client, keys, shard_count),
                lease=lease,
                newest=start == "newest",
                seen=seen,
            )
            weakref.finalize(self, streams.keeper.stop)
            self._source = streams
        else:
            self._source = SharedStreams(
                *(self._scripts, client, keys, shard_count),
                group=group,
                consumer=self.name,
                newest=start == "newest",
                retry_after=retry_after,
            )
        self._most_lag = keep_events * 0.8
        self._next_look = 0.0  # at the lag
        self._counts: Counter[str] = Counter()
        self._failures = FailureLog()
        self._backoff = Backoff(0.1, 5.0)
        self._away_since: float | None = None
        self._is_stopped = False
        self._alarm = Alarm()
        self._process = OwnProcess(
            "this consumer belongs to the parent process. Make a consumer after fork()"
        )
        self._own_client = client if owns_client else None
        self._user: int | None = None  # the thread that is inside of _next()
        self._closings: deque[None] = deque()  # requests of close() that nobody has carried out

    def __repr__(self) -> str:
        return f"<Consumer {self.name!r} of the group {self.group!r}>"

    def __iter__(self) -> Iterator[FleetEvent]:
        """Hand out events until :meth:`stop` is called.

        When the loop is left, other consumers of the group can have the streams at once.

        :raises FleetError: if Redis refuses what the consumer needs.
        :raises RuntimeError: if another thread uses the consumer.
        :raises ForkedProcess: in a child of the process that has made the consumer.
        """
        no_end = Deadline(None)
        try:
            while True:
                event = self._next(no_end)
                if event is None:
                    return
                yield event
                self.ack(event)
        finally:
            self._leave()

    def get(self, timeout: float | None = None) -> FleetEvent | None:
        """Wait for the next event, and leave it to the caller to acknowledge it.

        For handling many events at once: get some, handle them all, and acknowledge the last one of
        each shard. The consumer keeps its streams until :meth:`close`. Ctrl-C that comes just when
        this returns loses the event to the caller; it is not acknowledged, and comes again once the
        consumer is closed. A loop over the consumer has no such gap.

        :param timeout: seconds; None waits without end. A Redis that does not answer can hold this
            up for some seconds more.
        :returns: the event; None if the time ran out, or :meth:`stop` was called.
        :raises FleetError: if Redis refuses what the consumer needs.
        :raises RuntimeError: if another thread uses the consumer.
        :raises ForkedProcess: in a child of the process that has made the consumer.
        """
        return self._next(Deadline(check_timeout("timeout", timeout)))

    def ack(self, event: FleetEvent) -> bool:
        """Acknowledge an event; with ``ordered=True`` also all events of its shard before it.

        A loop over the consumer does so itself.

        :param event: that this consumer has handed out.
        :returns: False if that was too late, since another consumer has taken over the stream, and
            may hand out the event, too; and if the event was acknowledged before.
        """
        return self._source.acknowledge(event.shard_id, event.id.partition(":")[2])

    def stop(self) -> None:
        """Hand out no more events. Any thread and any signal handler may call this.

        A loop ends when the event in hand is handled, or within half a second if there is none.
        """
        self._is_stopped = True
        self._alarm.ring()
        self._source.stop()

    def close(self) -> None:
        """Stop, tell Redis what was acknowledged, and let other consumers have the streams at once.

        A ``with`` statement does so. If another thread waits for an event, or this call is made by
        a signal handler that has interrupted such a wait, the call only asks: the wait ends within
        half a second, and tells Redis.
        """
        self._closings.append(None)
        self.stop()
        if self._user is None:
            self._leave_if_closed()

    def lag(self) -> dict[int, int | None]:
        """How many events of each shard the group has not acknowledged.

        Any thread may ask. Up to a thousand are counted; larger numbers are reckoned.

        :returns: by shard number; None if the group has never read the events of this shard.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        return self._scripts.lag(range(self._shard_count()))

    @property
    def stats(self) -> ConsumerStats:
        """What this consumer has done."""
        return ConsumerStats(**self._counts)

    # The thread that uses the consumer

    def _next(self, deadline: Deadline) -> FleetEvent | None:
        thread = threading.get_ident()
        if self._user not in (None, thread):
            raise RuntimeError(
                "another thread waits for the next event of this consumer. Make a consumer for "
                "each thread: they share the events of the group"
            )
        self._process.check()
        self._user = thread
        try:
            return self._wait_for_event(deadline)
        except BaseException:
            self._source.rewind()  # an event may have been on its way to the caller
            raise
        finally:
            self._user = None
            self._leave_if_closed()

    def _leave_if_closed(self) -> None:
        # Of two threads that come here at the same time, one gets the request.
        try:
            self._closings.pop()
        except IndexError:
            return
        self._leave()

    def _wait_for_event(self, deadline: Deadline) -> FleetEvent | None:
        source = self._source
        while not self._is_stopped:
            left = deadline.remaining()
            try:
                source.work()
                event = self._take()
                if event is not None:
                    return event
                source.fill(
                    SIGNAL_POLL_INTERVAL if left is None else min(left, SIGNAL_POLL_INTERVAL)
                )
                self._look_at_lag()
                if self._away_since is not None:
                    self._tell_back(self._away_since)
            except RedisAway as error:
                self._wait_for_redis(error, deadline)
                # What was read ahead is not handed out before Redis has said whose it is.
                if deadline.remaining() == 0:
                    return None
            else:
                if left == 0 and not source.buffer:
                    return None
        return None

    def _take(self) -> FleetEvent | None:
        """The next event in the buffer that the user wants."""
        source = self._source
        while source.buffer:
            entry = source.buffer[0]
            if not source.may_deliver(entry):
                continue
            event = self._read(entry) if entry.gap is None else self._read_gap(entry, entry.gap)
            if event is not None:
                source.delivered(entry)
                self._counts["events"] += 1
                return event
            source.skipped(entry)
        return None

    def _read(self, entry: Entry) -> FleetEvent | None:
        """The event in an entry, None if the user does not want it."""
        header = read_dispatch_header(entry.text)
        wanted = self._names
        if header is not None and wanted is not None and header[0] not in wanted:
            self._counts["skipped"] += 1
            return None
        try:
            payload = self._decode(entry.text)
        except UnreadableMessage as error:
            self._counts["unreadable"] += 1
            self._tell_unreadable(entry, error)
            return None
        name = header[0] if header else str(payload.get("t"))
        if wanted is not None and name not in wanted:
            self._counts["skipped"] += 1
            return None
        return _event(entry, name, payload.get("d"))

    def _decode(self, text: bytes) -> dict[str, Any]:
        try:
            decoded = self._json.loads(text)
        except Exception:  # each JSON module has errors of its own
            decoded = None
        return check_payload(text, decoded)

    def _tell_unreadable(self, entry: Entry, error: UnreadableMessage) -> None:
        failures, _ = self._failures.add(UnreadableMessage)
        if failures:
            _logger.error(
                "%s; the event was %d:%s", printable(str(error)), entry.shard_id, entry.id.decode()
            )

    def _read_gap(self, entry: Entry, gap: Gap) -> FleetEvent | None:
        """The event that stands for a gap, None if the user does not want one."""
        self._counts["gaps"] += 1
        if self._on_gap is not None:
            self._on_gap(gap)
            return None
        if self._names is None or GAP_EVENT in self._names:
            return _event(entry, GAP_EVENT, gap)
        _logger.warning(
            "events of shard %d may be missing (%s)%s",
            gap.shard_id,
            gap.reason,
            "" if gap.events is None else f", {gap.events} at most",
        )
        return None

    def _look_at_lag(self) -> None:
        """Warn before Redis drops events that the group has not read."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LAG_INTERVAL
        lag = {shard_id: each or 0 for shard_id, each in self.lag().items()}
        shard_id = max(lag, key=lag.__getitem__, default=0)
        if lag and lag[shard_id] > self._most_lag:
            _logger.warning(
                "the group %r is %d events of shard %d behind, and Redis soon drops what the group "
                "has not read: start more consumers, or let the fleet keep more events",
                *(self.group, lag[shard_id], shard_id),
            )

    # When Redis is away

    def _wait_for_redis(self, error: RedisAway, deadline: Deadline) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._counts["outages"] += 1
            _logger.warning(
                "the consumer %r waits for Redis, and goes on with the same event: %s",
                *(self.name, error),
            )
        self._source.doubt()
        delay = self._backoff.next_delay()
        left = deadline.remaining()
        until = time.monotonic() + (delay if left is None else min(delay, left))
        while not self._is_stopped:
            wait = min(until - time.monotonic(), SIGNAL_POLL_INTERVAL)
            if wait <= 0 or self._alarm.wait(wait):
                break

    def _tell_back(self, away_since: float) -> None:
        away = math.ceil(time.monotonic() - away_since)
        _logger.warning("Redis is back after %d s; the consumer goes on", away)
        self._away_since = None
        self._backoff.reset()

    def _leave(self) -> None:
        if self._process.is_parent:
            return
        self._source.rewind()
        try:
            self._source.leave()
        except FleetError as error:
            _logger.warning(
                "the consumer %r could not tell Redis that it ends: others take its events over "
                "later, and some events come again: %s",
                *(self.name, error),
            )
        if isinstance(self._own_client, redis.Redis):
            # A connection that another thread uses for lag(), or to renew, is left to that thread.
            self._own_client.connection_pool.disconnect(inuse_connections=False)


def _event(entry: Entry, name: str, data: Any) -> FleetEvent:
    entry_id = entry.id.decode()
    sequence = int(entry_id.partition("-")[2])
    raw = entry.text.decode(errors="replace")
    return FleetEvent(f"{entry.shard_id}:{entry_id}", entry.shard_id, name, sequence, data, raw)


def _check_names(events: Iterable[str] | None) -> frozenset[str] | None:
    if events is None:
        return None
    if isinstance(events, (str, bytes)) or not isinstance(events, Iterable):
        raise TypeError(f"events must be a set of str or None, not {type(events).__name__}")
    names = check_event_names("events", events)
    for name in sorted(names):
        warning = misspelling_warning(name)
        if warning is not None:
            _logger.warning("%s", warning)
    if not names:
        raise ValueError("events must name one event at least, or be None for all")
    return names


def _default_name() -> str:
    host = "".join(
        each if each.isascii() and each.isalnum() else "-" for each in socket.gethostname()
    )
    return f"{host[:40] or 'host'}-{os.getpid()}-{secrets.token_hex(4)}"
