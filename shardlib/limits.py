"""How often a client may send, identify and connect.

All times are seconds of a monotonic clock: steps of the wall clock change nothing.
"""

from __future__ import annotations

import collections
import hashlib
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable

from shardlib.checks import check_positive, check_type
from shardlib.errors import ShardClosed
from shardlib.gateway import (
    IDENTIFY_INTERVAL,
    SEND_LIMIT,
    SEND_PERIOD,
    SESSION_START_LIMIT,
)

Clock = Callable[[], float]

_DAY = 24 * 60 * 60.0
_DAILY_SHARE = 95  # percent of the session start limit; the rest is left to mend things with


class SendWindow:
    """What one connection may still send (*Gateway: Rate Limiting*).

    In no span of ``period`` seconds are more than ``limit`` sends counted, and ``reserve`` of them
    are kept for heartbeats, which are not counted: they pass whenever they are due.
    Every method may be called from any thread, and none blocks.

    :param limit: sends in a period
    :param period: seconds
    """

    def __init__(
        self,
        limit: int = SEND_LIMIT,
        period: float = SEND_PERIOD,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self.reserve = 0
        self._limit = limit
        self._period = period
        self._clock = clock
        self._lock = threading.RLock()  # guards _times; a signal handler may send, too
        self._times: collections.deque[float] = collections.deque()  # of the sends that count yet

    def try_acquire(self) -> float:
        """Take a place and return 0.0, or return the seconds until one may be free."""
        with self._lock:
            now = self._forget()
            excess = len(self._times) - max(self._limit - self.reserve, 1)
            if excess >= 0:
                return self._times[excess] + self._period - now
            self._times.append(now)
            return 0.0

    def record(self) -> None:
        """Count a send that does not wait for a place: Identify or Resume."""
        with self._lock:
            self._times.append(self._forget())

    def _forget(self) -> float:
        now = self._clock()
        while self._times and self._times[0] + self._period <= now:
            self._times.popleft()
        return now


def heartbeat_reserve(interval: float) -> int:
    """How many sends of a :class:`SendWindow` to keep for heartbeats.

    :param interval: milliseconds between two of them, as Hello gave it
    """
    beats = math.ceil(min(SEND_PERIOD * 1000 / interval, SEND_LIMIT))
    # Two more: one that the gateway asks for, and one whose period began a moment earlier.
    return min(beats + 2, SEND_LIMIT // 2)


# Guards what all gates remember. It is one lock, not one a gate, so that a forked child can be given
# a free one whatever the parent's threads were doing; it is held for moments. Reentrant: a signal
# handler, or a __del__, that identifies may have interrupted the thread that holds it.
_gates_lock = threading.RLock()

# Seconds that such a handler is told to wait: the call that it interrupts may be about to take the
# slot, and cannot go on before the handler returns.
_INTERRUPTED_WAIT = 0.05


def _renew_gates_lock() -> None:
    global _gates_lock
    _gates_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_gates_lock)


def _has_interrupted_itself() -> bool:
    """True if the calling function runs further up the stack of this thread, too.

    The stack knows that at any moment. A flag would be wrong for ever if Ctrl-C came between the
    end of the work and its being lowered.
    """
    caller = sys._getframe(1)
    frame = caller.f_back
    while frame is not None:
        if frame.f_code is caller.f_code:
            return True
        frame = frame.f_back
    return False


class IdentifyGate:
    """When a shard may identify (*Gateway: Identifying*, *Gateway: Sharding: Max Concurrency*).

    One gate serves all shards of a token, from any thread; it never blocks. Shards spread over
    several processes need one that asks a common place: any object with this ``try_acquire`` does.

    :param max_concurrency: as *Get Gateway Bot* gives it
    :param interval: seconds between two Identifies of the same bucket
    :param daily_limit: Identifies in 24 hours after which Discord resets the token
    :raises ValueError: where one of them is not positive; TypeError where it is no such number
    """

    def __init__(
        self,
        max_concurrency: int = 1,
        interval: float = IDENTIFY_INTERVAL,
        *,
        daily_limit: int = SESSION_START_LIMIT,
        clock: Clock = time.monotonic,
    ) -> None:
        check_type("max_concurrency", max_concurrency, int)
        check_positive("max_concurrency", max_concurrency)
        check_positive("interval", interval)
        check_type("daily_limit", daily_limit, int)
        check_positive("daily_limit", daily_limit)
        self._max_concurrency = max_concurrency
        self._interval = interval
        self._budget = max(1, daily_limit * _DAILY_SHARE // 100)
        self._clock = clock
        self._free_at: dict[int, float] = {}  # by bucket
        self._today: collections.deque[float] = collections.deque()  # times of the last 24 hours

    def try_acquire(self, shard_id: int) -> float:
        """Take the slot and return 0.0, or return the seconds after which to ask again.

        Who gets 0.0 identifies at once. A slot is a moment, nothing to be given back. A signal
        handler that has interrupted another call on its thread is told to ask again later.

        :param shard_id: of the shard that wants to identify
        :return: seconds
        :raises ShardClosed: with code None, if the day's Identifies are nearly used up
        """
        bucket = shard_id % self._max_concurrency
        with _gates_lock:
            if _has_interrupted_itself():
                return _INTERRUPTED_WAIT
            now = self._clock()
            while self._today and self._today[0] + _DAY <= now:
                self._today.popleft()
            if len(self._today) >= self._budget:
                minutes = math.ceil((self._today[0] + _DAY - now) / 60)
                raise ShardClosed(
                    None,
                    f"{self._budget} sessions were started in the last 24 hours. Soon Discord "
                    "would reset the bot token, so no other is started. Find out from the log why "
                    f"sessions keep ending; the next may start in {minutes} minutes",
                )
            wait = self._free_at.get(bucket, now) - now
            if wait > 0:
                return wait
            self._free_at[bucket] = now + self._interval
            self._today.append(now)
            return 0.0


_default_gates: dict[bytes, IdentifyGate] = {}


def default_gate(token: str) -> IdentifyGate:
    """The gate that all shards of a token share in this process.

    It lives as long as the process: forgetting it would forget the budget.

    :param token: of the bot
    """
    key = hashlib.sha256(token.encode()).digest()  # so that no token is kept
    # No lock: setdefault is one step, whatever other threads and signal handlers do meanwhile.
    return _default_gates.setdefault(key, IdentifyGate())


class Backoff:
    """How long to wait before the next attempt to connect.

    Nothing before the first attempt after :meth:`reset`; then between half and the whole of
    ``base`` at random, of twice as much, and so on up to ``cap``. Used by one thread.

    :param base: seconds
    :param cap: seconds, the longest delay
    :param random: gives numbers from 0 up to 1
    :raises ValueError: where one is not positive and finite, or ``cap`` is less than ``base``;
        TypeError where it is no number
    """

    def __init__(
        self,
        base: float = 1.0,
        cap: float = 60.0,
        *,
        random: Callable[[], float] = random.random,
    ) -> None:
        check_positive("base", base)
        check_positive("cap", cap)
        if cap < base:
            raise ValueError(f"cap is not less than base, not {cap!r}")
        self.base = base
        self.cap = cap
        self._random = random
        self._longest = 0.0

    def next_delay(self) -> float:
        """Seconds to wait before the attempt that comes now."""
        delay = self._longest * (0.5 + 0.5 * self._random())
        self._longest = min(self._longest * 2 or self.base, self.cap)
        return delay

    def reset(self) -> None:
        """Forget the failures: a connection has held."""
        self._longest = 0.0
