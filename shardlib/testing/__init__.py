"""Test a bot without Discord: a local gateway that speaks the real protocol.

The names here need the extra ``local``: ``pip install "shardlib[local]"``. The guide is the page
*Testing a bot* of the documentation.
"""

from __future__ import annotations

__all__ = [
    "STEPS",
    "TRAFFIC_MIX",
    "Channel",
    "Clock",
    "GatewayConnection",
    "GatewayInteraction",
    "GatewaySession",
    "Guild",
    "IssuedEvent",
    "LocalGateway",
    "Message",
    "ReceivedIdentify",
    "ReceivedPayload",
    "ReceivedRequest",
    "RecordedEvent",
    "Recording",
    "RecordingDamaged",
    "Replay",
    "Traffic",
    "World",
]

TYPE_CHECKING = False  # type checkers take this name for true
if TYPE_CHECKING:
    from shardlib.testing.channel import Channel, Message
    from shardlib.testing.clock import Clock
    from shardlib.testing.connection import GatewayConnection, GatewaySession, ReceivedPayload
    from shardlib.testing.faults import STEPS
    from shardlib.testing.gateway import LocalGateway
    from shardlib.testing.guild import Guild
    from shardlib.testing.interaction import GatewayInteraction
    from shardlib.testing.recording import RecordedEvent, Recording, RecordingDamaged
    from shardlib.testing.replay import Replay
    from shardlib.testing.rest.request import ReceivedRequest
    from shardlib.testing.session import IssuedEvent
    from shardlib.testing.sessions import ReceivedIdentify
    from shardlib.testing.traffic import TRAFFIC_MIX, Traffic
    from shardlib.testing.world import World
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
        "channel",
        "guild",
        "world",
        "traffic",
        "replay",
        "connection",
        "rest.request",
        "interaction",
        "gateway",
    )

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from shardlib import lazy

        try:
            found = globals()[name] = lazy.find(__name__, _MODULES, name)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0].replace("_", "-")
            if package not in ("h11", "python-multipart", "websockets"):
                raise
            raise ImportError(
                f"shardlib.testing.{name} needs the package {package}: "
                'pip install "shardlib[local]"'
            ) from None
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
