"""The rules of a local gateway: the limits and settings that its parts share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardlib.gateway import Intents

# The least value of each rule that has one.
_MINIMUMS = {
    "heartbeat_interval": 1,
    "shards": 1,
    "shard_multiple": 1,
    "min_shards": 1,
    "max_concurrency": 1,
    "replay_limit": 0,
}


@dataclass
class Rules:
    """The limits and settings that a gateway applies to its clients.

    :class:`~shardlib.testing.LocalGateway` documents each rule, under the same name. A test may
    change a rule while the gateway runs, because the gateway's parts read a rule each time they
    apply the rule.

    :raises ValueError: if a rule is less than its least value.
    """

    token: str
    heartbeat_interval: int
    heartbeat_tolerance: float
    shards: int
    shard_multiple: int
    min_shards: int
    allowed_intents: Intents
    max_concurrency: int
    identify_interval: float
    session_start_limit: int
    session_timeout: float
    max_guilds_per_shard: int
    send_limit: int | None
    replay_limit: int
    keep_history: bool
    resume_after_close: bool
    close_timeout: float
    rate_limits: bool

    def __post_init__(self) -> None:
        for name, least in _MINIMUMS.items():
            check_minimum(name, getattr(self, name), least)

    @property
    def recommended_shards(self) -> int:
        """The number of shards to recommend: the least one from ``shards`` up that is allowed."""
        least = max(self.shards, self.min_shards)
        return least + -least % self.shard_multiple

    def change(self, name: str, value: Any) -> None:
        """Change a rule.

        :param name: the name of the rule.
        :param value: the new value.
        :raises ValueError: if the value is less than the least value of the rule.
        """
        if name in _MINIMUMS:
            check_minimum(name, value, _MINIMUMS[name])
        setattr(self, name, value)

    def reset_token(self) -> None:
        """Replace the token, so that Identifies and Resumes with the former token fail."""
        self.token += "-reset"


def check_minimum(name: str, value: int, least: int) -> None:
    """Check that a number is not too small.

    :param name: the number's name, for the message of the error.
    :param value: the number.
    :param least: the least value that is allowed.
    :raises ValueError: if ``value`` is less than ``least``.
    """
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
