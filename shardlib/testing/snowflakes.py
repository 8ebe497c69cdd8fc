"""Snowflakes, and times as Discord writes them."""

from __future__ import annotations

import time
from datetime import datetime, timezone

#: The time, in milliseconds since 1970, from which snowflakes count (Reference, "Snowflakes").
DISCORD_EPOCH = 1_420_070_400_000


def timestamp(milliseconds: float | None = None) -> str:
    """Return an ISO 8601 timestamp as Discord writes it.

    :param milliseconds: the moment, in milliseconds since 1970; None for the present moment.
    """
    seconds = time.time() if milliseconds is None else milliseconds / 1000
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")


class SnowflakeFactory:
    """Makes snowflakes that grow with time and never repeat."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> str:
        """Return a new snowflake for the present moment, as a string of digits."""
        snowflake = int(time.time() * 1000 - DISCORD_EPOCH) << 22
        self._last = max(snowflake, self._last + 1)
        return str(self._last)
