"""Test a bot without Discord: a local gateway that speaks the real protocol.

Needs the extra: ``pip install shardlib[local]``.  Guide: *Testing a bot* in the documentation.
"""

from __future__ import annotations

from .clock import Clock
from .connection import GatewayConnection, ReceivedPayload
from .faults import STEPS
from .server import LocalGateway
from .sessions import GatewaySession
from .traffic import TRAFFIC_MIX, Traffic
from .world import Guild, World

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
