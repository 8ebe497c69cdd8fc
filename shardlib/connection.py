"""Connection: one WebSocket to the Gateway, from open to close.

What must not outlive a connection lives in here: the socket, the inflater, the send window, the
closing handshake. A new connection is a new object, so nothing of the old one can leak into it.
Nothing here depends on sessions or heartbeats.
"""

from __future__ import annotations

import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator

import websocket

from shardlib import frames
from shardlib.compression import Inflater, PlainText
from shardlib.deadline import Deadline
from shardlib.errors import BrokenStream, SendTimeout
from shardlib.frames import FrameReader, FrameType
from shardlib.gateway import (
    INVALID_DATA,
    PROTOCOL_ERROR,
    RESUMABLE_CLOSE_CODE,
    may_be_sent,
)
from shardlib.handshake import shake_hands
from shardlib.limits import SendWindow
from shardlib.loss import Cause, Loss
from shardlib.opening import Opening
from shardlib.transport import StreamBroken, Transport

# Seconds for a frame that is worth sending only if the peer takes it at once: the close frame of a
# connection that is given up, the answer to a ping.
AT_ONCE = 0.2


class ConnectionLost(Exception):
    """A connection has ended. Only the reader catches it; no user ever sees it.

    :param loss: why.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__(str(loss))
        self.loss = loss


class Connection:
    """One WebSocket. The reader thread opens, reads and closes it; any thread may send or fail it.

    :param url: with its query, as :func:`shardlib.gateway.gateway_url` makes it.
    :param max_payload: bytes of the largest message that is taken.
    :param connect_timeout: seconds for name, TCP, proxy, TLS and WebSocket handshake together.
    :param send_timeout: seconds within which the peer must have taken a frame.
    :param ssl_context: for ``wss`` URLs, or None for Python's default.
    :param proxy: URL of the proxy, "" for none, or None for the environment's.
    :param hide_token: returns a text of the peer's without the token, for errors.
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
        hide_token: Callable[[str], str],
    ) -> None:
        self.url = url
        self.websocket: websocket.WebSocket | None = None  # from the handshake on
        #: By type of WebSocket message: returns the payload that a message completes, or None;
        #: raises UnreadableMessage if this message alone is lost, BrokenStream if nothing that
        #: follows can be read either. For the reader.
        self.inflate: dict[int, Callable[[bytes], bytes | None]] = {
            frames.TEXT: PlainText(max_payload).inflate,
            frames.BINARY: inflater.inflate,
        }
        #: The bytes received of a compressed message that is not complete. Any thread.
        self.buffer: Callable[[], bytes] = inflater.buffer
        self._window = SendWindow()  # used under the transport's send lock
        self._close_sent = False  # under that lock, too: no frame may follow a close frame
        self._close_received = False
        self._pongs_until: Deadline | None = None  # for all pongs to the pings of one read
        # Guards failure while it is set. Reentrant: a signal handler may come here, too.
        self._failing = threading.RLock()
        #: Why this side has given the connection up, or None. Any thread may read it.
        self.failure: Loss | None = None
        self._frames = FrameReader(max_payload)
        self._connect_timeout = connect_timeout
        self._send_timeout = send_timeout
        self._opening = Opening(
            url,
            ssl_context=ssl_context,
            proxy=proxy,
            timeout=connect_timeout,
            hide_token=hide_token,
        )
        self._transport: Transport | None = None
        self._unread = b""

    @property
    def bytes_received(self) -> int:
        """Bytes of the handshake and of frames received so far, as they came over the wire."""
        return 0 if self._transport is None else self._transport.bytes_received

    # Opening: the reader thread

    def open(self) -> None:
        """Connect and shake hands. Blocks the reader for `connect_timeout` at most.

        If the system asks the network for a proxy to use (Windows, macOS), that comes on top.

        :raises ConnectionFailed: for every reason; the message says which.
        """
        deadline = Deadline(self._connect_timeout)
        opening = self._opening
        try:
            self._transport = transport = opening.dial(deadline)
            opening.start_tls(transport, deadline)
            opening.begin("the WebSocket handshake")
            client, self._unread = shake_hands(self.url, transport, deadline)
            if transport.aborted:  # interrupt() came before it could know of an open connection
                raise ConnectionAbortedError("the connection attempt was given up")
        except Exception as error:
            self.release()
            failure, cause = opening.failure(error, "cannot connect to")
        else:
            client.sock = transport.socket
            self.websocket = client
            return
        try:
            raise failure from cause
        finally:
            del failure, cause  # else a cycle: their tracebacks refer to this frame

    # Reading: the reader thread

    def receive(self, deadline: Deadline) -> Iterator[tuple[int, bytes]]:
        """Receive once, and return the messages in that, each as (frame type, payload).

        Control frames are acted on in the order of the wire, while the messages are taken out; so
        BrokenStream and, at a close frame, ConnectionLost may come then. :meth:`interrupt` ends the
        wait, without messages.

        :param deadline: until when to wait.
        :raises TimeoutError: if nothing came in time.
        :raises BrokenStream: if a frame is not as RFC 6455 has it.
        :raises ConnectionLost: at the end.
        """
        assert self._transport is not None
        data: bytes | None
        if self._unread:  # came together with the answer to the handshake
            data, self._unread = self._unread, b""
        else:
            try:
                data = self._transport.receive_unless_woken(deadline)
            except TimeoutError:
                raise
            except OSError as error:
                raise ConnectionLost(
                    Loss(Cause.BROKEN_OFF, f"the connection broke: {error.strerror or error}")
                ) from error
            if data is None:
                return iter(())
            if not data:
                raise ConnectionLost(
                    Loss(Cause.BROKEN_OFF, "the connection ended without a close frame")
                )
        self._pongs_until = None
        return self._frames.feed(data, self._take_control)

    def _take_control(self, frame_type: int, payload: bytes) -> None:
        if frame_type == FrameType.PING:
            # One deadline for all pongs of a batch: thousands of pings must not keep the reader
            # here, least of all those of a peer that reads nothing.
            self._pongs_until = self._pongs_until or Deadline(AT_ONCE)
            if not self._close_sent and self._pongs_until.remaining() != 0:
                self._send_at_once(payload, FrameType.PONG, self._pongs_until)
        elif frame_type == FrameType.CLOSE:
            self._close_received = True
            code, reason, answer = _read_close(payload)
            self._send_close(answer)
            raise ConnectionLost(Loss(Cause.CLOSED, reason, code))

    # Sending: any thread

    def reserve_heartbeats(self, interval: float) -> None:
        """Keep room in the send window for heartbeats every `interval` milliseconds."""
        self._window.reserve_heartbeats(interval)

    def send(
        self,
        text: str,
        deadline: Deadline | None = None,
        *,
        urgent: bool = False,
        counted: bool = True,
        admitted: Callable[[], object] | None = None,
        sent: Callable[[], object] | None = None,
    ) -> float:
        """Send a text message; on return the system has all of it. May block.

        :param deadline: until when; by default `send_timeout` from now.
        :param urgent: True for what does not wait for room in the send window.
        :param counted: False for a scheduled heartbeat, which has room of its own there.
        :param admitted: called when it is this payload's turn, just before it is written.
        :param sent: called once all is written, and before anything else is.
        :returns: 0.0, or the seconds until there may be room in the send window; then nothing was
            sent.
        :raises SendTimeout: if the peer doesn't take it in time.
        :raises StreamBroken: if there is no connection (any more).
        """

        def admit() -> float:
            self._check_not_closing()
            wait = 0.0 if urgent else self._window.wait(time.monotonic())
            if admitted is not None and not wait:
                admitted()
            return wait

        def has_left() -> None:
            self._window.record(time.monotonic(), heartbeat=not counted)
            if sent is not None:
                sent()

        return self._transmit(
            text.encode(), FrameType.TEXT, deadline or Deadline(self._send_timeout), admit, has_left
        )

    def _transmit(
        self,
        payload: bytes,
        frame_type: FrameType,
        deadline: Deadline,
        admit: Callable[[], float],
        sent: Callable[[], object] | None = None,
    ) -> float:
        transport = self._transport
        if self.websocket is None or transport is None:
            raise StreamBroken("there is no connection")
        frame = websocket.ABNF.create_frame(payload, frame_type).format()
        return transport.send(frame, deadline, admit=admit, sent=sent)

    def _check_not_closing(self) -> float:
        if self._close_sent:
            raise StreamBroken("the connection is closing")
        return 0.0

    def _claim_close(self) -> float:
        self._check_not_closing()
        self._close_sent = True
        return 0.0

    def _send_at_once(
        self, payload: bytes, frame_type: FrameType, deadline: Deadline | None = None
    ) -> None:
        at_once = Deadline(AT_ONCE)
        if deadline is not None:
            at_once = at_once.earlier(deadline)
        # If the peer doesn't take it, nothing is lost: the heartbeat judges the connection.
        admit = self._claim_close if frame_type is FrameType.CLOSE else self._check_not_closing
        try:
            self._transmit(payload, frame_type, at_once, admit)
        except (StreamBroken, SendTimeout):
            pass

    def _send_close(self, code: int, deadline: Deadline | None = None) -> None:
        """Send the close frame, once, if the peer takes it."""
        self._send_at_once(struct.pack("!H", code), FrameType.CLOSE, deadline)

    # Ending

    def interrupt(self) -> None:
        """End the reader's wait: an opening is aborted, an open connection goes on. Any thread."""
        transport = self._transport
        if self.websocket is not None and transport is not None:
            transport.wake()
        else:
            self.abort()

    def is_idle(self) -> bool:
        """True if the reader waits and there is nothing for it to read. Any thread."""
        return self._transport is not None and self._transport.is_idle()

    def fail(
        self, loss: Loss, code: int = RESUMABLE_CLOSE_CODE, deadline: Deadline | None = None
    ) -> None:
        """Give the connection up, without waiting for the peer's close frame. Any thread.

        The reader wakes up and finds the loss; it alone makes another connection. If several
        threads give the connection up, the first loss counts.

        :param loss: why.
        :param code: of our close frame, which is sent if the peer takes it at once.
        :param deadline: until when the peer may take it; AT_ONCE, if that comes sooner.
        """
        first = False
        try:
            with self._failing:
                if self.failure is None:
                    first = True
                    self.failure = loss
        finally:
            if first:  # whatever was raised: a connection that is given up wakes its reader
                try:
                    self._send_close(code, deadline)
                finally:
                    self.abort()

    def abort(self) -> None:
        """End the connection, or its opening, at once. Any thread, at any time."""
        self._opening.abort()

    def close(self, code: int, deadline: Deadline) -> None:
        """Send a close frame and wait for the peer's. For the reader.

        :param code: of our close frame.
        :param deadline: by when the peer may answer; what else it sends until then is dropped.
        """
        transport = self._transport
        if transport is None or self.websocket is None:
            return
        self._send_close(code, deadline)
        unread, self._unread = self._unread, b""
        try:
            # What came before may hold the peer's close frame already.
            data: bytes | None = unread
            while not self._close_received and data is not None:
                for _ in self._frames.feed(data, self._take_control):
                    pass
                # A peer that keeps sending instead of closing must not stretch the deadline.
                data = transport.receive(deadline) or None if deadline.remaining() != 0 else None
        except Exception:  # memory may be short still; the connection ends for the loss it had
            return

    def leave_to_parent(self) -> None:
        """In a forked child: let go of the connection, without a word on it."""
        if self._transport is not None:
            self._transport.leave_to_parent()

    def release(self) -> None:
        """Give the socket back to the system. For the reader, which owns it."""
        if self._transport is not None:
            self._transport.close()
        self.websocket = None


def _read_close(payload: bytes) -> tuple[int | None, str, int]:
    """The code and the reason of a close frame, and the code to answer with.

    RFC 6455 asks for an answer. It is never the 1000 or 1001 that may have come: sent by a client,
    these end the session, which the Gateway has not ended.

    :raises BrokenStream: if the payload is no code and reason.
    """
    if not payload:
        return None, "", RESUMABLE_CLOSE_CODE
    if len(payload) == 1:
        raise BrokenStream(
            "the Gateway broke the WebSocket protocol: a close frame holds half a close code"
        )
    code = int.from_bytes(payload[:2], "big")
    try:
        reason = payload[2:].decode()
    except UnicodeDecodeError:
        return code, payload[2:].decode(errors="replace"), INVALID_DATA
    return code, reason, RESUMABLE_CLOSE_CODE if may_be_sent(code) else PROTOCOL_ERROR
