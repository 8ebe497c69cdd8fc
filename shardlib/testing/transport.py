"""The TCP (or TLS) side of one connection: bytes, on the gateway's thread."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol, cast

from shardlib.testing.rules import Rules
from shardlib.testing.thread import GatewayThread

# How often a slowed-down connection sends a piece, and how often a connection that ends looks
# whether all is sent, in seconds.
_TICK = 0.05
_DRAIN_TICK = 0.005


class ByteReceiver(Protocol):
    """What a transport tells; each method is called on the gateway's thread, with the lock held."""

    def connected(self, transport: ClientTransport) -> None:
        """Take the transport: the TCP connection is there, and TLS if the gateway speaks TLS."""

    def receive(self, data: bytes) -> None:
        """Take bytes from the client."""

    def count_sent(self, size: int) -> None:
        """Count bytes that go out now."""

    def lost(self) -> None:
        """Forget the transport: the TCP connection is over."""


class ClientTransport(asyncio.Protocol):
    """Carries bytes between one client's socket and the connection's driver.

    The socket belongs to the gateway's thread, and TLS with it. Other threads only put bytes into
    the outbox, with the gateway's lock held, and wake that thread. So no two threads are ever
    inside one TLS object, and no thread waits for a client that does not read.

    :param sock: the client's socket.
    :param receiver: is told what happens.
    :param thread: the gateway's thread.
    :param rules: the gateway's rules.
    :param forget: called with this object once it needs its socket no longer.
    """

    def __init__(
        self,
        sock: socket.socket,
        receiver: ByteReceiver,
        *,
        thread: GatewayThread,
        rules: Rules,
        forget: Callable[[ClientTransport], object],
    ) -> None:
        self._socket = sock
        self._receiver = receiver
        self._thread = thread
        self._rules = rules
        self._forget = forget
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
        # Bytes a second, or None for no limit.
        self._rate: float | None = None

    # Called by any thread, with the lock held.

    @property
    def unsent(self) -> int:
        """Bytes that wait because the client, or a fault, is slow."""
        buffered = self._transport.get_write_buffer_size() if self._transport else 0
        return len(self._outbox) + buffered

    @property
    def is_reading(self) -> bool:
        """False between :meth:`freeze` and :meth:`thaw`, if freezing stopped the reading."""
        return self._reading

    def write(self, data: bytes) -> None:
        """Send bytes after those already waiting."""
        if self._ending is None:
            self._outbox += data
            self._schedule_flush()

    def finish(self, *, farewell: bool = True) -> None:
        """End the connection once everything is sent.

        :param farewell: whether TLS says goodbye, as in a proper end.
        """
        if self._ending is None:
            self._ending = "close" if farewell else "abort"
            self._schedule_flush()
            # A client that reads nothing, or never says goodbye, must not keep it open.
            self._thread.call_later(self._rules.close_timeout, self.abort)

    def reset(self) -> None:
        """Reset the connection."""
        self._thread.call_soon(self._reset)

    def freeze(self, *, reading: bool, writing: bool) -> None:
        """Stop reading, writing, or both."""
        self._reading = self._reading and not reading
        self._writing = self._writing and not writing
        self._thread.call_soon(self._apply_reading)

    def thaw(self) -> None:
        """Read and write again."""
        self._reading = self._writing = True
        self._thread.call_soon(self._apply_reading)
        self._schedule_flush()

    def slow(self, bytes_per_second: float) -> None:
        """Send no faster than this from now on."""
        self._rate = bytes_per_second

    def _schedule_flush(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._thread.call_soon(self._flush)

    # Called on the gateway's thread, without the lock.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        with self._thread.lock:
            self._transport = cast(asyncio.Transport, transport)
            self._receiver.connected(self)

    def data_received(self, data: bytes) -> None:
        with self._thread.lock:
            if self._reading:
                self._receiver.receive(data)
            else:
                self._unread += data

    def connection_lost(self, exc: Exception | None) -> None:
        with self._thread.lock:
            if self._transport is not None:
                self._transport.close()  # else Python 3.10 warns that a TLS transport was not
            self._transport = None
            self._receiver.lost()
            self._forget(self)

    def abort(self) -> None:
        """End the connection at once, without waiting for the client."""
        if self._transport is not None:
            self._transport.abort()

    def abandon(self) -> None:
        """Close the socket of a client with which no connection came about."""
        self._socket.close()
        self._forget(self)

    def _flush(self) -> None:
        with self._thread.lock:
            self._flush_due = False
            transport = self._transport
            if transport is None or not self._writing:
                return
            again = 0.0
            if self._rate is None:
                data, self._outbox = self._outbox, bytearray()
            else:
                size = max(1, int(self._rate * _TICK))
                data, self._outbox = self._outbox[:size], self._outbox[size:]
                again = size / self._rate
            if data:
                self._receiver.count_sent(len(data))
                if not self._has_lost_tls(transport):
                    transport.write(data)
            if self._outbox:
                self._flush_due = True
                self._thread.call_later(again, self._flush)
            elif self._ending is not None:
                self._end(transport)

    def _has_lost_tls(self, transport: asyncio.Transport) -> bool:
        """Return whether TLS has ended while nothing is read.

        asyncio has then seen the end of the stream, but tells it only when it may read again.
        Until then it discards what is written, with a warning for each write.
        """
        if self._reading or transport.get_extra_info("ssl_object") is None:
            return False
        try:
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _end(self, transport: asyncio.Transport) -> None:
        if transport.get_write_buffer_size():
            self._flush_due = True
            self._thread.call_later(_DRAIN_TICK, self._flush)
        elif self._ending == "abort":
            transport.abort()
        elif transport.can_write_eof():
            # FIN only, until the client has closed too: closing with something unread would
            # send RST, and the client might never read our last words.
            transport.write_eof()
        else:
            transport.close()

    def _apply_reading(self) -> None:
        with self._thread.lock:
            if self._transport is None:
                return
            if not self._reading:
                self._transport.pause_reading()
                return
            self._transport.resume_reading()
            data, self._unread = self._unread, bytearray()
            if data:
                self._receiver.receive(bytes(data))

    def _reset(self) -> None:
        if self._transport is not None:
            # With a linger time of zero, closing the socket sends RST.
            sock: Any = self._transport.get_extra_info("socket")
            if sock is not None:  # else TLS has lost its connection already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
