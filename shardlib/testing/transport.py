"""The TCP or TLS side of one connection, which carries bytes on the gateway's thread."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol, cast

from shardlib.testing.rules import Rules
from shardlib.testing.thread import GatewayThread

# Seconds between two pieces that a slowed-down connection sends, and between two looks at whether
# a connection that ends has sent everything.
_SLOW_SEND_INTERVAL = 0.05
_DRAIN_INTERVAL = 0.005


class ByteReceiver(Protocol):
    """The methods that a transport calls, on the gateway's thread, with the lock held."""

    def connected(self, transport: ClientTransport) -> None:
        """Take the transport, once the TCP connection and TLS, if the gateway speaks it, are up.

        :param transport: the transport that calls.
        """

    def receive(self, data: bytes) -> None:
        """Take bytes from the client.

        :param data: the bytes, as they arrived.
        """

    def count_sent(self, size: int) -> None:
        """Count bytes that the transport sends now.

        :param size: how many.
        """

    def lost(self) -> None:
        """Forget the transport: the TCP connection has ended."""


class ClientTransport(asyncio.Protocol):
    """Carries bytes between one client's socket and the connection's driver.

    Only the gateway's thread uses the socket and TLS. Other threads put bytes into the outbox, with
    the gateway's lock held, and wake the gateway's thread. So no two threads are ever inside one
    TLS object, and no thread waits for a client that does not read.

    :param client: the client's socket.
    :param receiver: gets the client's bytes, and learns of the beginning and end of TCP.
    :param thread: the gateway's thread.
    :param rules: the gateway's rules.
    :param forget: called with this object once the object has no use for its socket any more.
    """

    def __init__(
        self,
        client: socket.socket,
        receiver: ByteReceiver,
        *,
        thread: GatewayThread,
        rules: Rules,
        forget: Callable[[ClientTransport], object],
    ) -> None:
        self._socket = client
        self._receiver = receiver
        self._thread = thread
        self._rules = rules
        self._forget = forget
        self._transport: asyncio.Transport | None = None
        # Bytes that asyncio's transport has not been given yet.
        self._outbox = bytearray()
        # True while the gateway's thread is to call _flush(): one wake-up serves many writes.
        self._flush_scheduled = False
        # How the connection ends once the outbox is empty: "close" or "abort"; None: it goes on.
        self._ending: str | None = None
        self._reading = True
        self._writing = True
        # Bytes that arrived between freeze() and the pause of reading on the gateway's thread.
        self._unread = bytearray()
        # Bytes a second; None for no limit.
        self._rate: float | None = None

    # Called by any thread, with the lock held.

    @property
    def unsent(self) -> int:
        """Bytes that are not sent yet, because the client reads slowly or a fault slows sending."""
        buffered = self._transport.get_write_buffer_size() if self._transport else 0
        return len(self._outbox) + buffered

    @property
    def is_reading(self) -> bool:
        """False from :meth:`freeze` with ``reading`` to :meth:`thaw`."""
        return self._reading

    def write(self, data: bytes) -> None:
        """Send bytes, after those that already wait; do nothing once :meth:`finish` was called.

        :param data: the bytes.
        """
        if self._ending is None:
            self._outbox += data
            self._schedule_flush()

    def finish(self, *, graceful: bool = True) -> None:
        """End the connection once everything is sent.

        :param graceful: True to send close_notify with TLS, or else FIN alone, and wait for the
            client to close, too; False to close the socket.
        """
        if self._ending is None:
            self._ending = "close" if graceful else "abort"
            self._schedule_flush()
            # A client that neither reads nor closes must not keep the connection open.
            self._thread.call_later(self._rules.close_timeout, self.abort)

    def reset(self) -> None:
        """Reset the connection."""
        self._thread.call_soon(self._reset)

    def freeze(self, *, reading: bool, writing: bool) -> None:
        """Stop reading, writing, or both.

        :param reading: whether to stop reading.
        :param writing: whether to stop writing.
        """
        self._reading = self._reading and not reading
        self._writing = self._writing and not writing
        self._thread.call_soon(self._apply_reading)

    def thaw(self) -> None:
        """Read and write again."""
        self._reading = self._writing = True
        self._thread.call_soon(self._apply_reading)
        self._schedule_flush()

    def slow(self, bytes_per_second: float) -> None:
        """Send slowly from now on.

        :param bytes_per_second: the highest rate at which the transport sends.
        """
        self._rate = bytes_per_second

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._thread.call_soon(self._flush)

    # Called on the gateway's thread, without the lock. The first three are asyncio's callbacks.

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
                # Python 3.10 warns of a TLS transport that was lost without being closed.
                self._transport.close()
            self._transport = None
            self._receiver.lost()
            self._forget(self)

    def abort(self) -> None:
        """End the connection at once, without waiting for the client."""
        if self._transport is not None:
            self._transport.abort()

    def abandon(self) -> None:
        """Close the socket of a client whose TLS handshake failed or was cancelled."""
        self._socket.close()
        self._forget(self)

    def _flush(self) -> None:
        with self._thread.lock:
            self._flush_scheduled = False
            transport = self._transport
            if transport is None or not self._writing:
                return
            pause = 0.0
            if self._rate is None:
                data, self._outbox = self._outbox, bytearray()
            else:
                size = max(1, int(self._rate * _SLOW_SEND_INTERVAL))
                data, self._outbox = self._outbox[:size], self._outbox[size:]
                pause = size / self._rate
            if data:
                self._receiver.count_sent(len(data))
                if not self._has_lost_tls(transport):
                    transport.write(data)
            if self._outbox:
                self._flush_scheduled = True
                self._thread.call_later(pause, self._flush)
            elif self._ending is not None:
                self._end(transport)

    def _has_lost_tls(self, transport: asyncio.Transport) -> bool:
        """Return whether the client has ended the connection while reading is paused.

        asyncio's TLS has then seen the end of the stream, but reports the end only when reading
        goes on. Until then asyncio discards each write, and logs a warning.
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
            self._flush_scheduled = True
            self._thread.call_later(_DRAIN_INTERVAL, self._flush)
        elif self._ending == "abort":
            transport.abort()
        elif transport.can_write_eof():
            # Closing a socket with unread bytes sends RST, after which the client may lose the
            # last bytes that the gateway sent. So send FIN alone, and close after the client.
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
            client: Any = self._transport.get_extra_info("socket")
            if client is not None:  # asyncio's TLS drops the socket when it loses the connection
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
