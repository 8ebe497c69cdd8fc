"""FleetConfig: what all workers of a fleet agree on, as it stands in Redis."""

from __future__ import annotations

from typing import Any, NamedTuple

from shardlib.checks import check_at_least_one, check_positive
from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError
from shardlib.fleet.keys import Keys
from shardlib.fleet.rediserrors import ERRORS, fleet_error


class FleetConfig(NamedTuple):
    """What all workers of a fleet agree on.

    :param shard_count: number of the bot's shards.
    :param max_concurrency: how many of them may identify at once.
    :param session_start_limit: sessions that Discord lets the bot start in 24 hours.
    :param identify_interval: seconds between two Identifies of one rate limit key.
    """

    shard_count: int
    max_concurrency: int
    session_start_limit: int
    identify_interval: float


def check_config(config: FleetConfig) -> None:
    """Check what a person has given, or what stands in Redis.

    :param config: to check.
    :raises ValueError: if a number is not positive.
    :raises TypeError: if a number has the wrong type.
    """
    for name in ("shard_count", "max_concurrency", "session_start_limit"):
        check_at_least_one(name, getattr(config, name))
    check_positive("identify_interval", config.identify_interval)


def read_config(client: Client, keys: Keys) -> FleetConfig | None:
    """What the workers of a fleet have agreed on, None if there is no such fleet.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the fleet.
    :raises RedisAway: if Redis does not answer.
    :raises FleetError: if Redis refuses, or holds something else.
    """
    try:
        found: Any = client.hmget(keys.config, list(FleetConfig._fields))
    except ERRORS as error:
        raise fleet_error(error) from error
    if found[0] is None:
        return None
    try:
        shard_count, max_concurrency, limit, interval = found
        config = FleetConfig(int(shard_count), int(max_concurrency), int(limit), float(interval))
        check_config(config)
        return config
    except (TypeError, ValueError) as error:
        raise FleetError(
            f"the key {keys.config!r} in Redis holds no settings of a fleet; another program, or "
            f"another version of shardlib, must have written them: {error}"
        ) from error


def no_fleet(keys: Keys) -> FleetError:
    """The error that says that :func:`read_config` has found nothing.

    :param keys: of the fleet.
    """
    return FleetError(
        f"there is no fleet {keys.name!r} in this Redis: nobody has said how many shards it has. "
        'Call Fleet.init() once, or run "shardlib init"'
    )


def keep_config(client: Client, keys: Keys, config: FleetConfig) -> None:
    """Write what the workers agree on, unless it stands in Redis.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the fleet.
    :param config: to write.
    :raises RedisAway: if Redis does not answer.
    :raises FleetError: if Redis refuses.
    """
    try:
        with client.pipeline(transaction=False) as pipeline:
            for field, value in config._asdict().items():
                pipeline.hsetnx(keys.config, field, value)
            pipeline.execute()
    except ERRORS as error:
        raise fleet_error(error) from error
