"""The local gateway that ``--local`` starts for many shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardlib.cli.errors import gateway_class

if TYPE_CHECKING:
    from shardlib.testing import LocalGateway

# What it recommends, and how many Identifies it takes at once, as for a large bot.
_SHARDS = 16
_MAX_CONCURRENCY = 16


def large_gateway(shards: int = _SHARDS) -> LocalGateway:
    """Return the gateway of a large bot, not started.

    :param shards: how many shards it recommends, with a guild for each.
    :raises Failure: if a package that the gateway needs is missing.
    """
    return gateway_class()(shards=shards, guilds=max(3, shards), max_concurrency=_MAX_CONCURRENCY)
