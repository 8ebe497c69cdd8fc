"""Backoff: how long to wait between attempts to connect that fail."""

from __future__ import annotations

import random
from collections.abc import Callable

from shardlib.checks import check_positive


class Backoff:
    """How long to wait before the next attempt to connect.

    The first attempt after :meth:`reset` waits for nothing. The second waits for at most `base`;
    the longest wait doubles with each later one, up to `cap`. Each wait is drawn at random between
    half of the longest and all of it.
    A backoff belongs to one shard, whose reader thread calls its methods; they never block.

    :param base: seconds, a number: the longest delay after the first failure.
    :param cap: seconds, a number: the longest delay of all.
    :param random: a function that returns numbers from 0 up to 1.
    :raises ValueError: if `base` or `cap` is not positive and finite, or `cap` is less than `base`.
    :raises TypeError: if `base` or `cap` is not a number.
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
            raise ValueError(f"cap must be base ({base!r}) or more, not {cap!r}")
        self.base = base
        self.cap = cap
        self._random = random
        self._longest = 0.0

    def next_delay(self) -> float:
        """Return the seconds to wait before the next attempt, and count that attempt."""
        delay = self._longest * (0.5 + 0.5 * self._random())
        self._longest = min(self._longest * 2 or self.base, self.cap)
        return delay

    def reset(self) -> None:
        """Forget the failures: a connection has held."""
        self._longest = 0.0
