"""How often a client may send, identify and connect.

All times are seconds of a monotonic clock: steps of the wall clock change nothing.
"""

from __future__ import annotations

import bisect
import collections
import hashlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from shardlib.checks import check_not_negative, check_positive, check_type
from shardlib.deadline import LONGEST_WAIT
from shardlib.errors import ShardClosed
from shardlib.gateway import (
    IDENTIFY_INTERVAL,
    IDENTIFY_SLACK,
    SEND_LIMIT,
    SEND_PERIOD,
    SESSION_START_LIMIT,
)
from shardlib.text import duration

Clock = Callable[[], float]

_DAY = 24 * 60 * 60.0
# Percent of the session start limit. The rest is left for the user, to mend things with.
_DAILY_SHARE = 95
# Seconds by which what two answers of Discord's say of one reset may differ: they travel.
_SAME_RESET = 60.0


# Payloads for which there is room before Hello tells how many heartbeats a period has.
_BEFORE_HELLO = 3


class SendWindow:
    """What one connection may still send (*Gateway: Rate Limiting*).

    Payloads are counted when they have left, one after the other: in no span of `period` seconds do
    more than `limit` leave. Scheduled heartbeats leave whenever they are due; no other payload uses
    the room that they need (:meth:`reserve_heartbeats`).

    The connection calls :meth:`wait` and :meth:`record` with its send lock held; the reader calls
    :meth:`reserve_heartbeats` without it. The window has no lock of its own.

    :param limit: payloads in a period.
    :param period: seconds.
    """

    def __init__(self, limit: int = SEND_LIMIT, period: float = SEND_PERIOD) -> None:
        self._limit = limit
        self._period = period
        # For all but scheduled heartbeats; before Hello, for all but Identify and the first ones.
        self._room = max(1, limit - _BEFORE_HELLO)
        self._counts_heartbeats = True
        # When each left, the oldest first, for one period. Lists, since every connection has both,
        # and an empty deque takes 760 bytes.
        self._heartbeats: list[float] = []
        self._others: list[float] = []

    def reserve_heartbeats(self, interval: float) -> None:
        """Keep room for the heartbeats of a period.

        :param interval: milliseconds, the least time between two of them.
        """
        beats = math.floor(min(self._period * 1000 / interval, self._limit)) + 1
        # A gateway that asks for more heartbeats than it allows payloads does not count them.
        self._counts_heartbeats = beats < self._limit
        self._room = self._limit - (beats if self._counts_heartbeats else self._limit // 2)

    def wait(self, now: float) -> float:
        """When there is room for one more payload.

        :param now: seconds of a monotonic clock.
        :returns: seconds until then, 0.0 if there is room now.
        """
        for times in (self._others, self._heartbeats):
            self._forget(times, now)
        waits = [0.0]
        if len(self._others) >= self._room:
            waits.append(self._others[len(self._others) - self._room] + self._period - now)
        # Heartbeats may have come quicker than Hello's interval, a second Hello's, asks for.
        excess = len(self._others) + len(self._heartbeats) - self._limit
        if self._counts_heartbeats and excess >= 0:
            times_of_all = sorted([*self._others, *self._heartbeats])
            waits.append(times_of_all[excess] + self._period - now)
        return max(waits)

    def record(self, now: float, *, heartbeat: bool = False) -> None:
        """Count a payload that has left.

        :param now: seconds of a monotonic clock.
        :param heartbeat: True for a scheduled heartbeat.
        """
        times = self._heartbeats if heartbeat else self._others
        self._forget(times, now)  # also on a connection on which nothing else is ever sent
        times.append(now)

    def _forget(self, times: list[float], now: float) -> None:
        del times[: bisect.bisect_right(times, now - self._period)]


# Guards the memory of all gates. One lock serves them all, so that a forked child can be given a
# free one whatever the parent's threads were doing; it is held for moments. Reentrant: a signal
# handler, or a __del__, that identifies may have interrupted the thread that holds it.
_gates_lock = threading.RLock()

# The thread that took the lock last, under the lock.
_gates_thread: int | None = None

# Seconds that a handler is told to wait if it has interrupted another call: that call may be about
# to take the slot, and cannot go on before the handler returns.
_INTERRUPTED_WAIT = 0.05


def _renew_gates_lock() -> None:
    global _gates_lock
    _gates_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_gates_lock)


def _has_interrupted_itself() -> bool:
    """True if the calling function runs further up the stack of this thread, too.

    The stack shows that at any moment. A flag would stay raised for ever if Ctrl-C came between the
    end of the work and the line that lowers it.
    """
    caller = sys._getframe(1)
    frame = caller.f_back
    while frame is not None:
        if frame.f_code is caller.f_code:
            return True
        frame = frame.f_back
    return False


class Gate(Protocol):
    """An :class:`IdentifyGate`, or an object of the user's with its ``try_acquire``."""

    def try_acquire(self, shard_id: int) -> float:
        """Take the slot of a shard and return 0.0, or return the seconds after which to ask."""


class IdentifyGate:
    """When a shard may identify.

    One gate serves all shards of a token, from any thread; its methods never block. Shards in
    several processes need a gate that asks a place common to all of them: any object with this
    ``try_acquire`` will do. The rules stand at
    https://docs.discord.com/developers/events/gateway#identifying and
    https://docs.discord.com/developers/events/gateway#sharding.

    Shards that may not identify at the same time share a rate limit key, which is ``shard_id %
    max_concurrency``: the first shard of each bucket has key 0, the second has key 1. What counts
    for Discord is when an Identify arrives, and some arrive sooner after they were sent than
    others. So the gate lets two of one key through `slack` further apart than `interval`: of 64
    that were sent exactly 5.0 seconds apart, 16 arrived too early.

    :param max_concurrency: an int, as *Get Gateway Bot* gives it.
    :param interval: seconds between two Identifies of one rate limit key, as Discord counts them.
    :param daily_limit: an int, the Identifies in 24 hours after which Discord resets the token, the
        ``total`` of *Get Gateway Bot*. The gate stops at 95 percent of them. :meth:`update`
        replaces it.
    :param slack: seconds by which two Identifies of one key are sent further apart than `interval`,
        0 for a gateway on this machine.
    :param used: an int, the Identifies of the last 24 hours that did not pass this gate: those of
        other processes, and of this one before it was restarted.
    :param clock: a function that gives seconds of a monotonic clock; for tests.
    :raises ValueError: if an argument is not positive; `slack` and `used` may be 0.
    :raises TypeError: if an argument has the wrong type.
    """

    def __init__(
        self,
        max_concurrency: int = 1,
        interval: float = IDENTIFY_INTERVAL,
        *,
        daily_limit: int = SESSION_START_LIMIT,
        slack: float = IDENTIFY_SLACK,
        used: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        check_type("max_concurrency", max_concurrency, int)
        check_positive("max_concurrency", max_concurrency)
        check_positive("interval", interval)
        check_type("daily_limit", daily_limit, int)
        check_positive("daily_limit", daily_limit)
        check_not_negative("slack", slack)
        check_type("used", used, int)
        check_not_negative("used", used)
        self._max_concurrency = max_concurrency
        self._spacing = interval + slack
        self._daily_limit = daily_limit
        self._clock = clock
        self._free_at: dict[int, float] = {}  # by rate limit key
        self._others_free_at = -math.inf  # of the keys that are not in there
        # The times of this gate's Identifies in the last 24 hours, without those that Discord has
        # forgotten at a reset.
        self._own: collections.deque[float] = collections.deque()
        # How many others there were, and when they are forgotten. Those that the user tells of
        # might all be new.
        self._others = min(used, daily_limit)
        self._others_until = clock() + _DAY
        # When Discord counts anew, infinity if that is not known.
        self._reset_at = math.inf
        # True if Discord has counted no Identify since its last reset, so that the next one begins
        # the 24 hours after which it counts anew.
        self._next_begins_day = False

    def update(
        self, max_concurrency: int, remaining: int, reset_after: float, total: int | None = None
    ) -> None:
        """Take in what *Get Gateway Bot* says of the session start limit.

        Discord counts the Identifies of all processes, those of this gate too. Of the two numbers
        the greater counts until Discord counts anew: an answer may be older than the last
        Identifies. Never blocks.

        :param max_concurrency: an int, as for the constructor. If it changes, no shard may identify
            sooner than it could have with the key that was to wait longest.
        :param remaining: an int, how many more Identifies Discord allows. Of these the gate keeps 5
            percent of `total` back.
        :param reset_after: seconds until Discord counts anew; it gives milliseconds. 0 if Discord
            has counted none yet: it counts anew 24 hours after the next Identify.
        :param total: an int, how many Identifies Discord allows in 24 hours, which replaces
            `daily_limit`; None for as many as before, or `remaining` if that is more.
        :raises ValueError: if `max_concurrency` or `total` is not positive, or another argument is
            negative.
        :raises TypeError: if an argument has the wrong type.
        """
        check_type("max_concurrency", max_concurrency, int)
        check_positive("max_concurrency", max_concurrency)
        check_type("remaining", remaining, int)
        check_not_negative("remaining", remaining)
        check_not_negative("reset_after", reset_after)
        check_type("total", total, int, optional=True)
        if total is not None:
            check_positive("total", total)
        with _gates_lock:
            if max_concurrency != self._max_concurrency:
                self._others_free_at = max(self._others_free_at, *self._free_at.values(), -math.inf)
                self._free_at.clear()
                self._max_concurrency = max_concurrency
            now = self._clock()
            self._forget(now)
            self._daily_limit = max(self._daily_limit if total is None else total, remaining)
            if reset_after > 0:
                self._expect_reset(now + reset_after)
            elif self._reset_at == math.inf:
                self._next_begins_day = True
            others = self._daily_limit - remaining - len(self._own)
            if others > self._others:
                self._others = others
                self._others_until = min(self._reset_at, now + _DAY)

    def expected_wait(self, shard_id: int) -> float:
        """When a shard may identify at the earliest, if no other shard comes before it.

        A program with many shards opens the socket of each when its slot is near: a socket on which
        Identify does not come is closed by the Gateway. Takes no slot, and never blocks.

        :param shard_id: number of the shard, an int.
        :returns: seconds, 0.0 if the slot is free now.
        """
        with _gates_lock:
            now = self._clock()
            return max(self._wait_for_slot(shard_id, now), self._wait_for_budget(now))

    def try_acquire(self, shard_id: int) -> float:
        """Take the slot and return 0.0, or return the seconds after which to ask again.

        A shard that gets 0.0 identifies at once; a slot cannot be given back. A signal handler that
        has interrupted another call on its thread is told to ask again later.

        :param shard_id: number of the shard that is to identify, an int.
        :returns: seconds.
        :raises ShardClosed: with code None, if the day's Identifies are nearly used up.
        """
        global _gates_thread
        thread = threading.get_ident()
        with _gates_lock:
            # The stack is looked at only if an interruption is possible: Python makes an object of
            # each frame for that, and those of a reader would live as long as the connection.
            if thread == _gates_thread and _has_interrupted_itself():
                return _INTERRUPTED_WAIT
            _gates_thread = thread
            now = self._clock()
            wait = self._wait_for_budget(now)
            if wait > 0:
                raise ShardClosed(None, self._why_used_up(wait))
            wait = self._wait_for_slot(shard_id, now)
            if wait > 0:
                return wait
            self._free_at[self._rate_limit_key(shard_id)] = now + self._spacing
            self._own.append(now)
            if self._next_begins_day:
                self._next_begins_day = False
                self._reset_at = now + _DAY
            return 0.0

    # With the lock held

    def _wait_for_slot(self, shard_id: int, now: float) -> float:
        free_at = self._free_at.get(self._rate_limit_key(shard_id), self._others_free_at)
        return max(0.0, free_at - now)

    def _rate_limit_key(self, shard_id: int) -> int:
        return shard_id % self._max_concurrency

    def _wait_for_budget(self, now: float) -> float:
        """Seconds until one more Identify is safe for the token."""
        self._forget(now)
        if self._others + len(self._own) < max(1, self._daily_limit * _DAILY_SHARE // 100):
            return 0.0
        others_until = self._others_until if self._others else math.inf
        oldest_until = self._own[0] + _DAY if self._own else math.inf
        return min(self._reset_at, others_until, oldest_until) - now

    def _forget(self, now: float) -> None:
        """Forget the Identifies that count no more."""
        if self._reset_at <= now:
            self._own.clear()
            self._others = 0
            self._reset_at = math.inf
            self._next_begins_day = True
        if self._others_until <= now:
            self._others = 0
        self._forget_own(now)

    def _forget_own(self, now: float) -> None:
        while self._own and self._own[0] + _DAY <= now:
            self._own.popleft()

    def _expect_reset(self, reset_at: float) -> None:
        """Take in when Discord counts anew."""
        if not abs(reset_at - self._reset_at) <= _SAME_RESET:  # nothing is known of that day
            self._others = 0
        self._reset_at = self._others_until = reset_at
        self._next_begins_day = False
        self._forget_own(reset_at - _SAME_RESET)  # those of the day before

    def _why_used_up(self, wait: float) -> str:
        own = len(self._own)
        return (
            f"{self._others + own} of the {self._daily_limit} sessions that Discord allows in 24 "
            f"hours were started, {own} of them by this process. No other is started for now: "
            "Discord resets the token of a bot that goes beyond. Find out from the log why "
            f"sessions keep ending; the next may start in {duration(math.ceil(wait))}"
        )


# Seconds, the shortest wait between two questions to a gate: shorter ones would burn a core.
_SHORTEST_GATE_WAIT = 0.01


def check_gate_wait(wait: object) -> float:
    """Check what ``try_acquire`` of an identify gate returned.

    :param wait: what it returned.
    :returns: seconds to wait before the gate is asked again, 0.0 to identify now.
    :raises TypeError: if it is not a number.
    :raises ValueError: if it is negative, NaN or infinite.
    """
    if isinstance(wait, bool) or not isinstance(wait, (int, float)):
        raise TypeError(
            "identify_gate.try_acquire() must return a number of seconds, 0.0 to let a shard pass, "
            f"not {wait!r}"
        )
    if not 0 <= wait <= LONGEST_WAIT:
        raise ValueError(
            f"identify_gate.try_acquire() must return 0 to {LONGEST_WAIT:.0f} seconds, not {wait!r}"
        )
    return 0.0 if wait == 0 else max(float(wait), _SHORTEST_GATE_WAIT)


_default_gates: dict[bytes, IdentifyGate] = {}


def default_gate(token: str) -> IdentifyGate:
    """The gate that all shards of a token share in this process.

    The gate is kept as long as the process lives: a new one would begin with a full day's budget.

    :param token: of the bot.
    """
    key = hashlib.sha256(token.encode()).digest()  # the table holds no token
    # No lock: setdefault is one step, which no other thread and no signal handler can split.
    return _default_gates.setdefault(key, IdentifyGate())
