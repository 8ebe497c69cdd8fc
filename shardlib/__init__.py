"""A synchronous client for Discord's Gateway: threads and plain functions, no event loop.

All names that users import are here. A module is loaded when one of its names is first used, so
that importing this package loads nothing else: the command line can be interrupted from its first
moment on, before the libraries that it needs (TLS, WebSocket, JSON) are loaded.
"""

from __future__ import annotations

__version__ = "0.2.0.dev0"

__all__ = [
    "AlreadyConnected",
    "AuthenticationFailed",
    "Backoff",
    "BrokenStream",
    "CallbackStats",
    "CloseCode",
    "ConnectionFailed",
    "DisallowedIntents",
    "Event",
    "Events",
    "ForkedProcess",
    "GatewayBot",
    "GatewayPayload",
    "GuildMembers",
    "HTTPFailed",
    "IdentifyGate",
    "Intents",
    "InvalidAPIVersion",
    "InvalidIntents",
    "InvalidShard",
    "Latency",
    "Listener",
    "ManagerStats",
    "NotReady",
    "OnSocketBatch",
    "OnSocketClosed",
    "OnSocketConnected",
    "OnSocketDisconnected",
    "OnSocketDispatch",
    "OnSocketError",
    "OnSocketHeartbeat",
    "OnSocketRawMessage",
    "OnSocketReady",
    "OnSocketReconnected",
    "OnSocketState",
    "OnSocketText",
    "Opcode",
    "SendTimeout",
    "Session",
    "SessionGate",
    "SessionLimitReached",
    "Shard",
    "ShardClosed",
    "ShardError",
    "ShardInfo",
    "ShardManager",
    "ShardState",
    "ShardingRequired",
    "ShardsFailed",
    "ShardsInUse",
    "Stats",
    "UnreadableMessage",
    "VoiceUpdates",
    "fetch_gateway_bot",
    "running_shards",
]

TYPE_CHECKING = False  # type checkers take this name for true; typing itself is slow to import
if TYPE_CHECKING:
    from shardlib.backoff import Backoff
    from shardlib.errors import (
        AlreadyConnected,
        AuthenticationFailed,
        BrokenStream,
        ConnectionFailed,
        DisallowedIntents,
        ForkedProcess,
        HTTPFailed,
        InvalidAPIVersion,
        InvalidIntents,
        InvalidShard,
        NotReady,
        SendTimeout,
        SessionLimitReached,
        ShardClosed,
        ShardError,
        ShardingRequired,
        ShardsFailed,
        ShardsInUse,
        UnreadableMessage,
    )
    from shardlib.events import Event, Events
    from shardlib.fetching import GuildMembers, VoiceUpdates
    from shardlib.gateway import CloseCode, Intents, Opcode
    from shardlib.gatewaybot import GatewayBot, fetch_gateway_bot
    from shardlib.limits import IdentifyGate
    from shardlib.liveness import Latency
    from shardlib.manager import ShardManager
    from shardlib.payloads import GatewayPayload
    from shardlib.session import Session
    from shardlib.sessiongate import SessionGate
    from shardlib.shard import (
        Listener,
        OnSocketBatch,
        OnSocketClosed,
        OnSocketConnected,
        OnSocketDisconnected,
        OnSocketDispatch,
        OnSocketError,
        OnSocketHeartbeat,
        OnSocketRawMessage,
        OnSocketReady,
        OnSocketReconnected,
        OnSocketState,
        OnSocketText,
        Shard,
        running_shards,
    )
    from shardlib.state import ShardState
    from shardlib.stats import CallbackStats, ManagerStats, ShardInfo, Stats
else:
    # Hidden from type checkers: to them a module with __getattr__ has every name.

    # The modules imported from above, the cheapest first.
    _MODULES = (
        "errors",
        "gateway",
        "state",
        "backoff",
        "limits",
        "liveness",
        "payloads",
        "shard",
        "events",
        "fetching",
        "session",
        "sessiongate",
        "stats",
        "gatewaybot",
        "manager",
    )

    def __getattr__(name):
        if name not in __all__:
            # The import system, too, asks for submodules, and looks for a file after this error.
            raise AttributeError(f"module 'shardlib' has no attribute {name!r}")
        from shardlib import lazy

        found = globals()[name] = lazy.find("shardlib", _MODULES, name)
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
