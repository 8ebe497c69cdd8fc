"""ShardOptions: the arguments of a shard that are the same for all shards of a bot."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from shardlib.callbacks import Logger
    from shardlib.dispatcher import Dispatcher
    from shardlib.payloads import JSONModule
    from shardlib.sessiongate import SessionGate
    from shardlib.shard import (
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
    )


class ShardOptions(TypedDict, total=False):
    """What a :class:`shardlib.ShardManager` hands on to each shard, as the Shard describes it."""

    on_socket_connected: OnSocketConnected | None
    on_socket_reconnected: OnSocketReconnected | None
    on_socket_disconnected: OnSocketDisconnected | None
    on_socket_heartbeat: OnSocketHeartbeat | None
    on_socket_dispatch: OnSocketDispatch | None
    on_socket_raw_message: OnSocketRawMessage | None
    on_socket_text: OnSocketText | None
    on_socket_batch: OnSocketBatch | None
    on_socket_ready: OnSocketReady | None
    on_socket_error: OnSocketError | None
    on_socket_state: OnSocketState | None
    on_socket_closed: OnSocketClosed | None
    should_reconnect: bool
    large_threshold: int | None
    presence: Mapping[str, Any] | None
    properties: Mapping[str, Any] | None
    compression: str | None
    json: JSONModule
    session_gate: SessionGate | None
    acknowledge: Literal["callbacks", "manual"]
    connect_timeout: float
    hello_timeout: float
    ready_timeout: float
    send_timeout: float
    close_timeout: float
    max_payload: int
    ssl_context: ssl.SSLContext | None
    proxy: str | None
    logger: Logger | None
    dispatcher: Dispatcher | None
    slow_callback: float | None
