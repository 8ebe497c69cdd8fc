"""Connection: one WebSocket to the Gateway, from open to close.

Everything that must not outlive a connection lives in here: the socket, the inflater, the send
window, the heartbeat. A new connection is a new object, so nothing of the old one can leak into it.
"""

from __future__ import annotations

import functools
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

import websocket

from shardlib.compression import Inflater
from shardlib.deadline import Deadline
from shardlib.dial import Dialer, SocketFacade, environment_proxy
from shardlib.errors import BrokenStream, ConnectionFailed
from shardlib.frames import FrameReader, FrameType
from shardlib.limits import SendWindow
from shardlib.transport import Transport

if TYPE_CHECKING:
    from shardlib.heartbeat import Heartbeat

# The code of every close that is not the user's. Discord ends the session at 1000 and 1001, and
# keeps it at any other: https://docs.discord.com/developers/events/gateway#initiating-a-disconnect
RESUMABLE_CLOSE_CODE = 4000

# Seconds for a frame that is worth sending only if the peer takes it at once: the goodbye of a
# connection that is given up, the answer to a ping.
AT_ONCE = 0.2


class ConnectionLost(Exception):
    """A connection has ended, or was never opened. Met by the reader only, never by a user.

    :param code: of the close frame that was received, or None.
    :param failure: why it could not be opened, where that is so.
    """

    def __init__(
        self, code: int | None, reason: str, failure: ConnectionFailed | None = None
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.failure = failure


@functools.lru_cache(maxsize=1)
def _default_ssl_context() -> ssl.SSLContext:
    # Made at first need and then shared: it reads the system's certificates, which takes a while.
    return ssl.create_default_context()


class Connection:
    """One WebSocket. The reader thread opens, reads and closes it; any thread may send or abort.

    :param url: with its query, as :func:`shardlib.gateway.gateway_url` makes it.
    :param max_payload: bytes of the largest message that is taken.
    :param connect_timeout: seconds for name, TCP, proxy, TLS and WebSocket handshake together.
    :param send_timeout: seconds within which a frame must have been taken by the peer.
    """

    def __init__(
        self,
        url: str,
        *,
        inflater: Inflater,
        max_payload: int,
        connect_timeout: float,
        send_timeout: float,
        ssl_context: ssl.SSLContext | None,
        proxy: str | None,
    ) -> None:
        self.url = url
        self.inflater = inflater
        self.window = SendWindow()
        self.heartbeat: Heartbeat | None = None  # from Hello on
        self.websocket: websocket.WebSocket | None = None  # from the handshake on
        self._goodbye = threading.Lock()  # taken by the one thread that sends the close frame
        self.was_open = False
        self.bytes_before = 0  # received on the shard's earlier connections
        self.given_up: str | None = None  # why, where that was decided on this side
        # Guards given_up while it is set. Reentrant: a signal handler may come here, too.
        self._giving_up = threading.RLock()
        # Of the session on this connection, kept by the reader:
        self.resumed_from: int | None = None  # sequence sent in Resume, until RESUMED
        self.ready_at: float | None = None  # time.monotonic() of READY or RESUMED
        # By when the reader expects something (Hello, its identify slot, READY); None: no hurry.
        self.deadline: Deadline | None = None
        self._frames = FrameReader(max_payload)
        self._connect_timeout = connect_timeout
        self._send_timeout = send_timeout
        self._ssl_context = ssl_context
        parts = urllib.parse.urlsplit(url)
        self._secure = parts.scheme == "wss"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._proxy = proxy
        self._dialer = Dialer(self._host, self._port)
        self._transport: Transport | None = None
        self._unread = b""

    @property
    def bytes_received(self) -> int:
        """Bytes of WebSocket frames and handshakes received so far, as they came over the wire.

        Those of earlier connections are among them, so that one look tells what a shard has
        received, even while its connection is replaced.
        """
        here = 0 if self._transport is None else self._transport.bytes_received
        return self.bytes_before + here

    def open(self) -> None:
        """Connect and shake hands. Blocks the reader for `connect_timeout` at most.

        Where the system asks the network for a proxy to use (Windows, macOS), that comes on top.

        :raises ConnectionFailed: for every reason; the message says which.
        """
        deadline = Deadline(self._connect_timeout)
        step = "connecting"
        try:
            # Looked up only here, where no lock is held: some systems ask the network about it.
            proxy = self._proxy or environment_proxy(self._host, self._secure)
            self._transport = transport = self._dialer.dial(proxy, deadline)
            if self._secure:
                step = "the TLS handshake"
                context = self._ssl_context or _default_ssl_context()
                transport.start_tls(context, self._host, deadline)
            step = "the WebSocket handshake"
            stream = SocketFacade(transport, deadline)
            # Our own socket is given, so websocket-client neither dials nor wraps. It follows no
            # redirect: the token would go to whoever is named in one.
            client: websocket.WebSocket = websocket.WebSocket(enable_multithread=False)
            client.connect(  # type: ignore[no-untyped-call]
                self.url,
                socket=stream,
                redirect_limit=0,
                suppress_origin=True,
                header=["User-Agent: shardlib"],
            )
        except Exception as error:
            self.close()
            raise ConnectionFailed(
                f"no connection to {self._host}:{self._port}: {self._explain(error, step)}"
            ) from error
        client.sock = transport.socket
        self._unread = bytes(stream.unread)
        self.websocket = client
        self.was_open = True

    def _explain(self, error: Exception, step: str) -> str:
        if isinstance(error, (TimeoutError, websocket.WebSocketTimeoutException)):
            return f"{step} was not done within {self._connect_timeout:g} seconds"
        if isinstance(error, websocket.WebSocketBadStatusException):
            status = error.status_code
            phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "unknown status"
            return f"it answered {step} with HTTP {status} ({phrase})"
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({error.verify_message}); for a private authority "
                "pass an ssl_context that knows it"
            )
        if isinstance(error, websocket.WebSocketConnectionClosedException):
            return f"it closed the connection during {step}"
        if isinstance(error, OSError) and error.strerror:
            return f"{step} failed: {error.strerror}"
        return f"{step} failed: {error}"

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """Messages as (frame type, payload): those in what is received next. For the reader alone.

        :raises TimeoutError: where nothing came by :attr:`deadline`.
        :raises BrokenStream: where a frame is not as RFC 6455 has it.
        :raises ConnectionLost: at the end.
        """
        assert self._transport is not None
        if self._unread:  # came together with the answer to the handshake
            data, self._unread = self._unread, b""
        else:
            try:
                data = self._transport.receive(self.deadline)
            except TimeoutError:
                raise
            except OSError as error:
                raise ConnectionLost(None, f"the connection broke: {error}") from error
            if not data:
                raise ConnectionLost(None, "the connection ended without a close frame")
        for frame_type, payload in self._frames.feed(data):
            if frame_type <= FrameType.BINARY:
                yield frame_type, payload
            elif frame_type == FrameType.PING:
                self._send_at_once(payload, FrameType.PONG)
            elif frame_type == FrameType.CLOSE:
                code, reason = _read_close(payload)
                # Answered as RFC 6455 asks, but never with the 1000 or 1001 that may have come:
                # from our side that would end a session which the other side has not ended.
                self.send_close(RESUMABLE_CLOSE_CODE)
                raise ConnectionLost(code, reason)

    def send(
        self,
        data: str,
        deadline: Deadline | None = None,
        sent: Callable[[], object] | None = None,
    ) -> None:
        """Send a text message; on return the system has all of it. Any thread; may block.

        :param sent: as for :meth:`Transport.send <shardlib.transport.Transport.send>`.
        :raises SendTimeout: where the peer doesn't take it in time.
        :raises OSError: where there is no connection (any more).
        """
        self._send(data.encode(), FrameType.TEXT, deadline or Deadline(self._send_timeout), sent)

    def _send(
        self,
        payload: bytes,
        frame_type: FrameType,
        deadline: Deadline,
        sent: Callable[[], object] | None = None,
    ) -> None:
        transport = self._transport
        if self.websocket is None or transport is None:
            raise ConnectionAbortedError("there is no connection")
        frame = websocket.ABNF.create_frame(payload, frame_type).format()
        transport.send(frame, deadline, sent)

    def _send_at_once(self, payload: bytes, frame_type: FrameType) -> None:
        try:
            self._send(payload, frame_type, Deadline(AT_ONCE))
        except OSError:  # SendTimeout is one
            pass  # a courtesy; whether the connection still lives is the heartbeat's to judge

    def send_close(self, code: int) -> None:
        """Say goodbye, once, if the peer listens. Any thread."""
        if self._goodbye.acquire(blocking=False):
            self._send_at_once(struct.pack("!H", code), FrameType.CLOSE)

    def is_idle(self) -> bool:
        """Whether the reader waits and there is nothing for it to read. Any thread."""
        return self._transport is not None and self._transport.is_idle()

    def give_up(self, reason: str) -> None:
        """Close so that the session can be resumed, without waiting for the peer. Any thread.

        The reader wakes up and finds why; it alone makes another connection. Of several threads
        that give up at once, one is heard.
        """
        first = False
        try:
            with self._giving_up:
                if self.given_up is None:
                    first = True
                    self.given_up = reason
            if first:
                self.send_close(RESUMABLE_CLOSE_CODE)
        finally:
            if first:  # Ctrl-C, too: a connection that is given up has to wake its reader
                self.abort()

    def abort(self) -> None:
        """End everything at once, an opening too. Any thread, at any time."""
        self._dialer.give_up()

    def close(self, deadline: Deadline | None = None) -> None:
        """Release the socket. For the reader, which owns it.

        :param deadline: by when the peer may still answer a close frame that was sent.
        """
        if self.heartbeat is not None:
            self.heartbeat.stop()
        if self._transport is not None:
            if deadline is not None:
                # Still open: another thread may be about to send the close frame.
                self._await_close_frame(self._transport, deadline)
            self._transport.close()
        self.websocket = None

    def _await_close_frame(self, transport: Transport, deadline: Deadline) -> None:
        """Read on until the peer's close frame or end. What else comes is of no use any more."""
        try:
            while data := transport.receive(deadline):
                for frame_type, _ in self._frames.feed(data):
                    if frame_type == FrameType.CLOSE:
                        return
        except (OSError, BrokenStream):
            return


def _read_close(payload: bytes) -> tuple[int | None, str]:
    if not payload:
        return None, ""
    if len(payload) == 1:
        raise BrokenStream("a close frame holds half a close code")
    return int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")
