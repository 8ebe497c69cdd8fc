"""Test a bot without Discord: a local gateway that speaks the real protocol.

The names here need the extra ``local``: ``pip install "shardlib[local]"``. The guide is the page
*Testing a bot* of the documentation.
"""

from __future__ import annotations

__all__ = [
    "STEPS",
    "TRAFFIC_MIX",
    "Clock",
    "GatewayConnection",
    "GatewaySession",
    "Guild",
    "IssuedEvent",
    "LocalGateway",
    "ReceivedIdentify",
    "ReceivedPayload",
    "RecordedEvent",
    "Recording",
    "RecordingDamaged",
    "Replay",
    "Traffic",
    "World",
]

TYPE_CHECKING = False  # type checkers take this name for true
if TYPE_CHECKING:
    from shardlib.testing.clock import Clock
    from shardlib.testing.connection import GatewayConnection, GatewaySession, ReceivedPayload
    from shardlib.testing.faults import STEPS
    from shardlib.testing.gateway import LocalGateway
    from shardlib.testing.recording import RecordedEvent, Recording, RecordingDamaged
    from shardlib.testing.replay import Replay
    from shardlib.testing.session import IssuedEvent
    from shardlib.testing.sessions import ReceivedIdentify
    from shardlib.testing.traffic import TRAFFIC_MIX, Traffic
    from shardlib.testing.world import Guild, World
else:
    # Type checkers must not see __getattr__, because they would accept any name in this module.
    # Importing this package imports nothing else, because pytest loads the plugin in this package
    # even if the packages of the extra are not installed.
    _MODULES = (
        "clock",
        "recording",
        "faults",
        "session",
        "sessions",
        "world",
        "traffic",
        "replay",
        "connection",
        "gateway",
    )

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from shardlib import lazy

        try:
            found = globals()[name] = lazy.find(__name__, _MODULES, name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "websockets":
                raise
            raise ImportError(
                f"shardlib.testing.{name} needs the package websockets: "
                'pip install "shardlib[local]"'
            ) from None
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
