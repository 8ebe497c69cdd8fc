"""The TCP (or TLS) side of one connection: bytes, on the gateway's thread."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .connection import GatewayConnection
    from .server import LocalGateway

# How often a slowed-down connection sends a piece, and how often a connection that ends looks
# whether all is sent, in seconds.
_TICK = 0.05
_DRAIN_TICK = 0.005


class Link(asyncio.Protocol):
    """Carries bytes between one client's socket and its :class:`GatewayConnection`.

    The socket belongs to the gateway's thread, and TLS with it.  Other threads only put bytes
    into the outbox, with the gateway's lock held, and wake that thread; so no two threads are
    ever inside one TLS object, and nobody waits for a client that does not read.
    """

    def __init__(self, gateway: LocalGateway, connection: GatewayConnection) -> None:
        self._gateway = gateway
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        # Bytes not yet given to the transport.
        self._outbox = bytearray()
        # Whether _flush() is due on the gateway's thread: one wake-up serves many writes.
        self._flush_due = False
        # How the connection ends once the outbox is empty: "close" or "abort".
        self._ending: str | None = None
        self._reading = True
        self._writing = True
        # What arrived between stop_reading() and the moment the transport heard of it.
        self._unread = bytearray()
        #: Bytes a second, or None for no limit.
        self.rate: float | None = None

    # Called by any thread, with the lock held.

    @property
    def unsent(self) -> int:
        """Bytes that wait because the client, or a fault, is slow."""
        buffered = self._transport.get_write_buffer_size() if self._transport else 0
        return len(self._outbox) + buffered

    def write(self, data: bytes) -> None:
        """Send bytes after those already waiting."""
        if self._ending is None:
            self._outbox += data
            self._schedule_flush()

    def finish(self, *, farewell: bool = True) -> None:
        """End the connection once everything is sent.

        :param farewell: whether TLS says goodbye, as it does in a proper end
        """
        if self._ending is None:
            self._ending = "close" if farewell else "abort"
            self._schedule_flush()
            # A client that reads nothing, or never says goodbye, must not keep it open.
            self._gateway._call_later(self._gateway.close_timeout, self._abort)

    def reset(self) -> None:
        """Reset the connection."""
        self._gateway._call_soon(self._reset)

    def freeze(self, *, reading: bool, writing: bool) -> None:
        """Stop reading, writing, or both."""
        self._reading = self._reading and not reading
        self._writing = self._writing and not writing
        self._gateway._call_soon(self._apply_reading)

    def thaw(self) -> None:
        """Read and write again."""
        self._reading = self._writing = True
        self._gateway._call_soon(self._apply_reading)
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._gateway._call_soon(self._flush)

    # Called on the gateway's thread, without the lock.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        with self._gateway._lock:
            self._transport = cast(asyncio.Transport, transport)
            self._connection._opened(self)

    def data_received(self, data: bytes) -> None:
        with self._gateway._lock:
            if self._reading:
                self._connection._receive(data)
            else:
                self._unread += data

    def connection_lost(self, exc: Exception | None) -> None:
        with self._gateway._lock:
            if self._transport is not None:
                self._transport.close()  # else Python 3.10 warns that a TLS transport was not
            self._transport = None
            self._gateway._links.discard(self)
            self._connection._lost()

    def _flush(self) -> None:
        with self._gateway._lock:
            self._flush_due = False
            transport = self._transport
            if transport is None or not self._writing:
                return
            again = 0.0
            if self.rate is None:
                data, self._outbox = self._outbox, bytearray()
            else:
                size = max(1, int(self.rate * _TICK))
                data, self._outbox = self._outbox[:size], self._outbox[size:]
                again = size / self.rate
            if data:
                self._connection._count_sent(len(data))
                transport.write(data)
            if self._outbox:
                self._flush_due = True
                self._gateway._call_later(again, self._flush)
            elif self._ending is not None:
                self._end(transport)

    def _end(self, transport: asyncio.Transport) -> None:
        if transport.get_write_buffer_size():
            self._flush_due = True
            self._gateway._call_later(_DRAIN_TICK, self._flush)
        elif self._ending == "abort":
            transport.abort()
        elif transport.can_write_eof():
            # FIN only, until the client has closed too: closing with something unread would
            # send RST, and the client might never read our last words.
            transport.write_eof()
        else:
            transport.close()

    def _apply_reading(self) -> None:
        with self._gateway._lock:
            if self._transport is None:
                return
            if not self._reading:
                self._transport.pause_reading()
                return
            self._transport.resume_reading()
            data, self._unread = self._unread, bytearray()
            if data:
                self._connection._receive(bytes(data))

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _reset(self) -> None:
        if self._transport is not None:
            # With a linger time of zero, closing the socket sends RST.
            sock: Any = self._transport.get_extra_info("socket")
            if sock is not None:  # else TLS has lost its connection already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
