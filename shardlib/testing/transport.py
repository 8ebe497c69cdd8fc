"""The TCP or TLS side of one connection: the transport, and what the transport calls."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol, cast

from shardlib.testing.rules import Rules
from shardlib.testing.thread import GatewayThread

# Seconds between two pieces that a slowed-down connection sends, and between two checks whether a
# connection that ends has sent everything.
_SLOW_SEND_INTERVAL = 0.05
_DRAIN_INTERVAL = 0.005


class ByteReceiver(Protocol):
    """The methods that a transport calls, on the gateway's thread, with the lock held."""

    def connected(self, transport: ClientTransport) -> None:
        """Begin to serve the client, whose TCP connection and TLS session are now established.

        :param transport: the transport that calls this method.
        """

    def receive(self, data: bytes) -> None:
        """Parse bytes from the client.

        :param data: the bytes, cut anywhere.
        """

    def count_sent(self, size: int) -> None:
        """Count bytes that the transport is about to send.

        :param size: the number of bytes.
        """

    def lost(self) -> None:
        """Release the transport, after the TCP connection has ended."""


class ClientSocket(socket.socket):
    """A client's socket, whose writes to a client that has gone succeed.

    After a failed write asyncio reads no more, and what the client sent just before it closed the
    connection would be lost. With this socket asyncio reads to the end, which it reports as ever.

    :param client: the accepted socket, which the new object takes over.
    """

    def __init__(self, client: socket.socket) -> None:
        super().__init__(client.family, client.type, client.proto, client.detach())
        self._hides_failures = True

    def hide_failures(self, enabled: bool) -> None:
        """Begin or stop to hide that a write has failed.

        :param enabled: False while nothing is read, when only a write can notice the end.
        """
        self._hides_failures = enabled

    def send(self, data: Any, flags: int = 0) -> int:
        """Send bytes; discard them if the client has gone."""
        try:
            return super().send(data, flags)
        except ConnectionError:
            if not self._hides_failures:
                raise
            return len(data)

    def sendmsg(self, buffers: Any, *arguments: Any) -> int:
        """Send bytes; discard them if the client has gone."""
        buffers = list(buffers)
        try:
            return super().sendmsg(buffers, *arguments)
        except ConnectionError:
            if not self._hides_failures:
                raise
            return sum(map(len, buffers))


class ClientTransport(asyncio.Protocol):
    """Carries bytes between one client's socket and the connection's driver.

    Only the gateway's thread uses the socket and TLS. Other threads put bytes into the outbox, with
    the gateway's lock held, and wake the gateway's thread. So two threads never use one TLS object
    at once, and a client that does not read blocks no thread.

    :param client: the client's socket.
    :param receiver: its methods are called when TCP begins, carries bytes, and ends.
    :param thread: the gateway's thread.
    :param rules: the gateway's rules.
    :param forget: called with this transport after the transport has closed its socket.
    """

    def __init__(
        self,
        client: ClientSocket,
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
        # Bytes to be sent that asyncio's transport does not have yet.
        self._outbox = bytearray()
        # True while a call of _flush() is scheduled, so that one wake-up serves many writes.
        self._flush_scheduled = False
        # How to end the connection once the outbox is empty, "close" or "abort"; None to keep the
        # connection open.
        self._ending: str | None = None
        self._reading = True
        self._writing = True
        # Bytes that arrived between freeze() and the pause of reading on the gateway's thread.
        self._unread = bytearray()
        # The highest rate of sending in bytes a second; None for no limit.
        self._rate: float | None = None

    # Called by any thread, with the lock held.

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent, because the client reads slowly or a fault slows sending."""
        buffered = self._transport.get_write_buffer_size() if self._transport else 0
        return len(self._outbox) + buffered

    @property
    def is_reading(self) -> bool:
        """False from :meth:`freeze` with ``reading=True`` until :meth:`thaw`."""
        return self._reading

    def write(self, data: bytes) -> None:
        """Append bytes to the outbox; do nothing after :meth:`finish`.

        :param data: the bytes.
        """
        if self._ending is None:
            self._outbox += data
            self._schedule_flush()

    def finish(self, *, graceful: bool = True) -> None:
        """End the connection once the outbox is empty, or after ``close_timeout`` in any case.

        :param graceful: True to send close_notify (with TLS) or FIN alone (without TLS), and then
            wait for the client to close; False to close the socket.
        """
        if self._ending is None:
            self._ending = "close" if graceful else "abort"
            self._schedule_flush()
            # Otherwise a client that neither reads nor closes would keep the connection open.
            self._thread.call_later(self._rules.close_timeout, self.abort)

    def reset(self) -> None:
        """Reset the TCP connection (RST), and discard the outbox."""
        self._thread.call_soon(self._reset)

    def freeze(self, *, reading: bool, writing: bool) -> None:
        """Stop reading, writing, or both, until :meth:`thaw`.

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
        """Limit the rate of sending.

        :param bytes_per_second: the highest rate in bytes a second.
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
                # Without close(), Python 3.10 warns that the TLS transport was never closed.
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
        """Return whether a client with TLS has ended the connection while reading is paused.

        asyncio reports the end of a TLS stream only after reading has resumed, and until then
        discards each write with a warning. So the caller must not write.
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
            # close() on a socket with unread bytes sends RST, after which the client may lose the
            # last bytes that the gateway sent. write_eof() sends FIN; the client closes first.
            transport.write_eof()
        else:
            transport.close()

    def _apply_reading(self) -> None:
        with self._thread.lock:
            if self._transport is None:
                return
            self._socket.hide_failures(self._reading)
            if not self._reading:
                self._transport.pause_reading()
                return
            self._transport.resume_reading()
            data, self._unread = self._unread, bytearray()
            if data:
                self._receiver.receive(bytes(data))

    def _reset(self) -> None:
        if self._transport is not None:
            # A linger time of zero makes the operating system send RST when the socket closes.
            client: Any = self._transport.get_extra_info("socket")
            if client is not None:  # None after asyncio's TLS has lost the connection
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
