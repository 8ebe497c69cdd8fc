"""The rules of a local gateway: its limits and settings, which its parts share."""

from __future__ import annotations

from dataclasses import dataclass, field

from shardlib.gateway import (
    IDENTIFY_INTERVAL,
    SEND_LIMIT,
    SESSION_START_LIMIT,
    Intents,
)

# The least that each of these may be.
_LEAST = {
    "heartbeat_interval": 1,
    "shards": 1,
    "max_concurrency": 1,
    "replay_limit": 0,
}


@dataclass
class Rules:
    """What a gateway demands of its clients and grants to them.

    :class:`~shardlib.testing.LocalGateway` documents each of them, under the same name. A test
    may change them while the gateway runs: each part of it looks at them anew each time.

    :raises ValueError: if a number is smaller than it can be.
    """

    #: What clients must show; a new one after :meth:`reset_token`.
    token: str
    heartbeat_interval: int = 41_250
    heartbeat_tolerance: float = 5.0
    shards: int = 1
    allowed_intents: Intents = field(default_factory=Intents.all)
    max_concurrency: int = 1
    identify_interval: float = IDENTIFY_INTERVAL
    session_start_limit: int = SESSION_START_LIMIT
    session_timeout: float = 300.0
    max_guilds_per_shard: int = 2500
    send_limit: int | None = SEND_LIMIT
    replay_limit: int = 20_000
    resume_after_close: bool = False
    close_timeout: float = 2.0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            check_least(name, getattr(self, name), least)

    def change(self, name: str, value: object) -> None:
        """Apply another value from now on.

        :param name: the name of the rule.
        :param value: what it shall be.
        """
        setattr(self, name, value)

    def reset_token(self) -> None:
        """Demand another token from now on."""
        self.token += "-reset"


def check_least(name: str, value: int, least: int) -> None:
    """Check an argument.

    :param name: the argument's name, for the message.
    :param value: what was given.
    :param least: the least that it may be.
    :raises ValueError: if it is less.
    """
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
