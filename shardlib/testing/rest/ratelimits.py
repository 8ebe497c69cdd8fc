"""Rate limits, per route and for the whole token, as Discord documents them.

Discord does not document the limits of its routes. Each route here has a limit near those that
bots have observed. The headers and the error are documented (page Rate Limits).
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass

from shardlib.testing.clock import Clock
from shardlib.testing.rest.errors import ApiError, ErrorCode

# Requests a second with one token, over all routes that the limit covers.
_GLOBAL_LIMIT = 50
_GLOBAL_PERIOD = 1.0

_RATE_LIMITED = ErrorCode(429, 0, "You are being rate limited.")

# Discord's answers have this header, and Cloudflare's have not. discord.py takes a 429 without it
# for a ban, and gives the request up.
_FROM_DISCORD = {"Via": "1.1 google"}

# The number of windows above which the gateway forgets the windows that have ended.
_MAX_WINDOWS = 1000


@dataclass(frozen=True)
class RateLimit:
    """How many requests a bucket takes in a period. Routes with one name share a bucket."""

    name: str
    requests: int
    seconds: float

    @property
    def bucket(self) -> str:
        """The value of ``X-RateLimit-Bucket``."""
        return hashlib.blake2b(self.name.encode(), digest_size=16).hexdigest()


@dataclass
class _Window:
    """The requests since the first one of a period."""

    ends_at: float
    used: int = 0


class RateLimits:
    """Counts the requests in each bucket. The callers hold the gateway's lock.

    :param clock: the gateway's clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._global = _Window(0.0)
        # By bucket and major parameters.
        self._windows: dict[tuple[str, tuple[str, ...]], _Window] = {}

    def count_globally(self) -> None:
        """Count a request against the limit of the token.

        :raises ApiError: if the token has used up the limit, with status 429.
        """
        now = self._clock()
        if now >= self._global.ends_at:
            self._global = _Window(now + _GLOBAL_PERIOD)
        if self._global.used >= _GLOBAL_LIMIT:
            raise _error(
                self._global.ends_at - now,
                {"X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"},
                is_global=True,
            )
        self._global.used += 1

    def count(self, limit: RateLimit, major: tuple[str, ...]) -> dict[str, str]:
        """Count a request against the limit of its route; return the headers for the response.

        :param limit: the limit of the route.
        :param major: the major parameters in the path. Each has a limit of its own.
        :raises ApiError: if the limit is used up, with status 429.
        """
        now = self._clock()
        key = limit.bucket, major
        window = self._windows.get(key)
        if window is None or now >= window.ends_at:
            self._forget_ended(now)
            window = self._windows[key] = _Window(now + limit.seconds)
        is_exceeded = window.used >= limit.requests
        if not is_exceeded:
            window.used += 1
        left = _milliseconds(window.ends_at - now)
        headers = {
            "X-RateLimit-Limit": str(limit.requests),
            "X-RateLimit-Remaining": str(limit.requests - window.used),
            "X-RateLimit-Reset": f"{time.time() + left:.3f}",
            "X-RateLimit-Reset-After": f"{left:.3f}",
            "X-RateLimit-Bucket": limit.bucket,
        }
        if is_exceeded:
            raise _error(left, {**headers, "X-RateLimit-Scope": "user"}, is_global=False)
        return headers

    def _forget_ended(self, now: float) -> None:
        if len(self._windows) >= _MAX_WINDOWS:
            ended = [key for key, window in self._windows.items() if now >= window.ends_at]
            for key in ended:
                del self._windows[key]


def _milliseconds(seconds: float) -> float:
    """Return seconds, rounded up to milliseconds, so that a client does not come back early."""
    return math.ceil(seconds * 1000) / 1000


def _error(seconds: float, headers: dict[str, str], *, is_global: bool) -> ApiError:
    left = _milliseconds(seconds)
    error = ApiError(
        _RATE_LIMITED,
        {"retry_after": left, "global": is_global},
        {**headers, "Retry-After": str(math.ceil(left)), **_FROM_DISCORD},
    )
    # The documented body has a code for some limits only.
    del error.body["code"]
    return error
