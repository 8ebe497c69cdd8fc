"""The names that users import, all from ``shardlib`` itself."""

from shardlib.errors import (
    AlreadyConnected,
    AuthenticationFailed,
    BrokenStream,
    ConnectionFailed,
    DisallowedIntents,
    ForkedProcess,
    InvalidAPIVersion,
    InvalidIntents,
    InvalidShard,
    NotReady,
    SendTimeout,
    ShardClosed,
    ShardError,
    ShardingRequired,
    UnreadableMessage,
)
from shardlib.gateway import CloseCode, Intents, Opcode
from shardlib.limits import Backoff, IdentifyGate
from shardlib.session import Session
from shardlib.shard import Shard
from shardlib.state import ShardState
from shardlib.stats import Stats

__all__ = [
    "AlreadyConnected",
    "AuthenticationFailed",
    "Backoff",
    "BrokenStream",
    "CloseCode",
    "ConnectionFailed",
    "DisallowedIntents",
    "ForkedProcess",
    "IdentifyGate",
    "Intents",
    "InvalidAPIVersion",
    "InvalidIntents",
    "InvalidShard",
    "NotReady",
    "Opcode",
    "SendTimeout",
    "Session",
    "Shard",
    "ShardClosed",
    "ShardError",
    "ShardState",
    "ShardingRequired",
    "Stats",
    "UnreadableMessage",
]
