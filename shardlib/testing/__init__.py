"""Test a bot without Discord: a local gateway that speaks the real protocol.

The names here need the extra ``local``: ``pip install "shardlib[local]"``. The guide is the page
*Testing a bot* of the documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "STEPS",
    "TRAFFIC_MIX",
    "Clock",
    "GatewayConnection",
    "GatewaySession",
    "Guild",
    "LocalGateway",
    "ReceivedPayload",
    "Traffic",
    "World",
]

try:
    from shardlib.testing.clock import Clock
    from shardlib.testing.connection import (
        GatewayConnection,
        GatewaySession,
        ReceivedPayload,
    )
    from shardlib.testing.faults import STEPS
    from shardlib.testing.gateway import LocalGateway
    from shardlib.testing.traffic import TRAFFIC_MIX, Traffic
    from shardlib.testing.world import Guild, World
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "websockets":
        raise

    # pytest loads shardlib.testing.plugin wherever shardlib is installed, so this package must be
    # importable without the extra.
    if not TYPE_CHECKING:  # a type checker takes a module with __getattr__ to have every name

        def __getattr__(name):
            if name in __all__:
                raise ImportError(
                    f"shardlib.testing.{name} needs the package websockets: "
                    'pip install "shardlib[local]"'
                )
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
