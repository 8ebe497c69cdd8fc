"""ShardState: where in its life a shard is."""

from __future__ import annotations

import enum


class ShardState(enum.Enum):
    """The one stored truth about where a shard is; the properties of the shard derive from it.

    ::

        DISCONNECTED -> CONNECTING -> CONNECTED -> IDENTIFYING | RESUMING -> READY
              (connection lost) -> WAITING -> CONNECTING -> ...
              (disconnect(), or a fatal error) -> CLOSING -> CLOSED
    """

    DISCONNECTED = "disconnected"
    """connect() was not called yet, or its first attempt failed."""
    CONNECTING = "connecting"
    """A socket is being opened."""
    CONNECTED = "connected"
    """The socket is open; Hello, the session gate, or the turn to identify, is awaited."""
    IDENTIFYING = "identifying"
    """Identify was sent on this connection; READY is awaited."""
    RESUMING = "resuming"
    """Resume was sent on this connection; missed events are replayed until RESUMED."""
    READY = "ready"
    """Events flow."""
    WAITING = "waiting"
    """The connection was lost, could not be opened, or is being closed properly; the next is due
    after the back-off."""
    CLOSING = "closing"
    """The shard is being closed for good."""
    CLOSED = "closed"
    """Closed for good, by disconnect() or by a fatal error; connect() begins anew."""

    # Members are compared by identity a few times per event; enum's own hash runs in Python.
    __hash__ = object.__hash__


IDENTIFIED = frozenset({ShardState.IDENTIFYING, ShardState.RESUMING, ShardState.READY})
SOCKET_OPEN = IDENTIFIED | {ShardState.CONNECTED}
ON_THE_WAY = SOCKET_OPEN - {ShardState.READY} | {ShardState.CONNECTING}
