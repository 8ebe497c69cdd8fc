"""Liveness: when heartbeats are due, and whether the peer that does not acknowledge them lives.

No socket, thread, lock or clock is in here: the time, and what the connection and the user's
functions have done meanwhile, are arguments.
https://docs.discord.com/developers/events/gateway#sending-heartbeats
"""

from __future__ import annotations

import enum
from typing import NamedTuple

# Seconds within which an acknowledgement is expected if there is reason for doubt: the machine was
# asleep, or the user asks by hand. A healthy Gateway answers in a fraction of one.
PROBE_TIMEOUT = 5.0

# Seconds that a wake-up must be late to mean that the machine or the process was stopped.
SUSPEND_THRESHOLD = 5.0

# The part of an interval that counts as the whole, since no clock and no wait is exact.
_PUNCTUAL = 0.99

# Seconds.
_SHORTEST_PERIOD = 0.001

# Round trips that are remembered.
RECENT_ROUND_TRIPS = 10


class Evidence(NamedTuple):
    """What speaks for a peer that has not acknowledged a heartbeat.

    :param bytes_received: how many bytes were received on this connection so far.
    :param callback_seconds: how long the reader has been in the user's functions so far.
    :param reader_idle: True if the reader waits and has read all there is.
    """

    bytes_received: int
    callback_seconds: float
    reader_idle: bool


class Due(enum.Enum):
    """What is to be done at a moment."""

    NOTHING = enum.auto()
    SCHEDULED = enum.auto()
    """Judge the connection; if it may live, send a heartbeat, which nothing holds back."""
    BY_GATEWAY = enum.auto()
    """Send a heartbeat as soon as there is room for it in the send window."""
    BY_USER = enum.auto()
    """Judge the connection; if it may live, go on as for BY_GATEWAY."""


class Latency(NamedTuple):
    """Round trips of heartbeats on the current connection, in seconds.

    :param last: of the last acknowledged heartbeat, None before the first.
    :param mean: of all of the connection, None before the first.
    :param recent: the last ones, oldest first, at most ten.
    """

    last: float | None
    mean: float | None
    recent: tuple[float, ...]


class Liveness:
    """The heartbeats of one connection. The lock of its owner serialises the calls.

    :param interval: milliseconds, from Hello.
    :param now: seconds of a monotonic clock, as in all methods.
    :param jitter: from 0 to 1, the part of the interval after which the first heartbeat is due.
    """

    def __init__(self, interval: float, now: float, jitter: float) -> None:
        self.interval = interval
        self.acknowledged = True
        self._pace: float | None = None  # seconds, heartbeat_in()'s instead of the interval
        self._due = now + interval / 1000 * jitter
        # Of extra heartbeats, which op 1 and heartbeat() ask for: when the next one may be sent.
        # One answers all that have asked until then.
        self._extra_due: float | None = None
        self._extra_by_user = False
        self._guaranteed_at: float | None = None  # the last heartbeat that nothing could hold back
        # When each heartbeat was sent that waits for its acknowledgement, the oldest first.
        self._waiting: list[float] = []
        self._round_trips: tuple[float, ...] = ()  # the last ones, oldest first
        self._round_trips_total = 0.0
        self._round_trips_count = 0
        # Of the scheduled heartbeat that waits for its acknowledgement:
        self._sent_at = now
        self._patience = interval / 1000  # how long it may
        self._expected_at = now  # until when it may
        self._evidence = Evidence(0, 0.0, True)
        self._grace_period_used = False

    @property
    def all_acknowledged(self) -> bool:
        """False while a heartbeat of any kind waits for its acknowledgement."""
        return not self._waiting

    @property
    def latency(self) -> Latency:
        """The round trips so far."""
        recent = self._round_trips
        count = self._round_trips_count
        mean = self._round_trips_total / count if count else None
        return Latency(recent[-1] if recent else None, mean, recent)

    # When

    @property
    def least_interval(self) -> float:
        """Milliseconds, the least time between two heartbeats that nothing holds back."""
        return self.interval * _PUNCTUAL

    @property
    def _period(self) -> float:
        seconds = self.interval / 1000 if self._pace is None else self._pace
        return max(seconds, _SHORTEST_PERIOD)  # a shorter one would burn a core

    @property
    def next_scheduled(self) -> float:
        """When the next scheduled heartbeat is due."""
        return self._due

    def change_interval(self, interval: float, now: float) -> None:
        """Take a second Hello in: the interval changes, and no heartbeat is put off.

        :param interval: milliseconds.
        """
        self.interval = interval
        self._due = min(self._due, now + self._period)

    def change_pace(self, milliseconds: float, now: float) -> None:
        """Beat after that long, and from then on at that pace."""
        self._pace = milliseconds / 1000
        self._due = now + self._pace

    def request(self, now: float, *, by_gateway: bool) -> None:
        """Ask for a heartbeat now, beside the scheduled ones.

        :param by_gateway: False if the user asks, which also has the connection judged.
        """
        if self._extra_due is None:
            self._extra_due = now
        self._extra_by_user = self._extra_by_user or not by_gateway

    def extra_later(self, at: float) -> None:
        """Put extra heartbeats off until a moment, before which the send window is full."""
        self._extra_due = at

    def next_due(self) -> float:
        """When :meth:`due` is to be asked next."""
        return self._due if self._extra_due is None else min(self._due, self._extra_due)

    def due(self, now: float, *, suspended: bool = False) -> Due:
        """What is to be done now. A scheduled heartbeat plans the next one with that.

        :param suspended: True if the machine or the process was stopped meanwhile.
        """
        if self._due <= now:
            self._patience = self.interval / 1000
            self._due += self._period
            if suspended:
                self._patience = min(self._patience, PROBE_TIMEOUT)
                # Counted from now, as the patience is: this heartbeat may leave late, and a verdict
                # that came before its patience ends would have to wait for a whole interval.
                self._due = now + min(self._period, PROBE_TIMEOUT)
            elif self._due < now:  # nothing to make up for: one heartbeat is enough
                self._due = now + self._period
            return Due.SCHEDULED
        if self._extra_due is None or self._extra_due > now:
            return Due.NOTHING
        by_user, self._extra_by_user = self._extra_by_user, False
        return Due.BY_USER if by_user else Due.BY_GATEWAY

    def is_guaranteed(self, now: float) -> bool:
        """True if Hello's interval asks for a heartbeat now.

        Heartbeats at the quicker pace of heartbeat_in() share the send window with user payloads.
        """
        if self._guaranteed_at is None:
            return True
        return now - self._guaranteed_at >= self.least_interval / 1000

    # Whether the peer lives

    def may_still_be_alive(self, now: float, evidence: Evidence, *, by_user: bool = False) -> bool:
        """False if the peer should have acknowledged the scheduled heartbeat: it is a zombie.

        While the user's functions take most of the time, the acknowledgement may be waiting to be
        read. While bytes keep coming, it should be among the bytes of one more interval. If no byte
        arrived since the heartbeat and nothing is left unread, the peer is gone.

        :param by_user: True if the user asks, who expects the acknowledgement within PROBE_TIMEOUT,
            and among the bytes that have come.
        """
        if self.acknowledged:
            return True
        if by_user:
            patience = min(PROBE_TIMEOUT, self.interval / 1000)
            return now - self._sent_at <= patience or not evidence.reader_idle
        if now < self._expected_at:
            return True
        if evidence.reader_idle:
            if evidence.bytes_received == self._evidence.bytes_received:
                return False
        elif self._is_busy(now, evidence):
            return True
        grace, self._grace_period_used = not self._grace_period_used, True
        return grace

    def _is_busy(self, now: float, evidence: Evidence) -> bool:
        seconds = evidence.callback_seconds - self._evidence.callback_seconds
        return seconds > (now - self._sent_at) / 2

    def send_scheduled(self, now: float, evidence: Evidence, *, guaranteed: bool) -> None:
        """Note that a scheduled heartbeat is being sent.

        :param evidence: as it is before.
        :param guaranteed: as :meth:`is_guaranteed` said.
        """
        if guaranteed:
            self._guaranteed_at = now
        if self.acknowledged:
            # What still waits was not acknowledged one by one: no round trip can be told from it.
            while self._waiting and self._waiting[0] < self._sent_at:
                del self._waiting[0]
            self._grace_period_used = False
            self._sent_at = now
            self._expected_at = now + self._patience * _PUNCTUAL
            self._evidence = evidence
        self.acknowledged = False
        self._waiting.append(now)

    def send_extra(self, now: float) -> None:
        """Note that an extra heartbeat is being sent, by whose answer no peer is judged."""
        self._extra_due = None
        self._waiting.append(now)

    def acknowledge(self, now: float) -> float | None:
        """Take an acknowledgement in: one for one heartbeat, the oldest that waits.

        :returns: the round trip in seconds, or None if no heartbeat waits.
        """
        if not self._waiting:
            return None
        round_trip = now - self._waiting.pop(0)
        self.acknowledged = True
        self._round_trips = (*self._round_trips, round_trip)[-RECENT_ROUND_TRIPS:]
        self._round_trips_total += round_trip
        self._round_trips_count += 1
        return round_trip
