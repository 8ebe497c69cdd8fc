"""One client's connection to the local gateway, from accepting the client to the end of TCP."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.frames import Close
from websockets.http11 import Request

from shardlib.gateway import SEND_PERIOD, CloseCode, Opcode
from shardlib.testing.compression import TRANSPORT_COMPRESSIONS, Message
from shardlib.testing.faults import (
    AFTER_IDENTIFY,
    BEFORE_REQUEST,
    PLAIN_HTTP,
    WEBSOCKET,
    Faults,
    Steps,
)
from shardlib.testing.payloads import encode
from shardlib.testing.rest.errors import BAD_REQUEST, ApiError
from shardlib.testing.rest.http11 import HttpParser
from shardlib.testing.rest.request import ReceivedRequest
from shardlib.testing.rest.response import Response, error_response
from shardlib.testing.rules import Rules
from shardlib.testing.session import Session
from shardlib.testing.thread import GatewayThread
from shardlib.testing.transport import ClientTransport
from shardlib.testing.validation import VERSIONS, shorten
from shardlib.testing.websocket import WebSocket

# The API version for a client whose URL has no ``v``.
_DEFAULT_VERSION = 6


class ByteCount:
    """Counts bytes on the wire, below WebSocket and above TLS."""

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0

    def add(self, *, received: int = 0, sent: int = 0) -> None:
        """Count bytes.

        :param received: bytes that have arrived from a client.
        :param sent: bytes that go out to a client.
        """
        self.received += received
        self.sent += sent


@dataclass(frozen=True)
class Environment:
    """The parts of one gateway that all its connections share."""

    thread: GatewayThread
    rules: Rules
    faults: Faults
    #: Counts the bytes of all connections together.
    byte_count: ByteCount
    #: Makes the :class:`GatewayConnection` of a driver.
    make_handle: Callable[[ConnectionDriver], Any]
    #: Called with the handle when the client asks for a WebSocket or a fault replaces "accept".
    register: Callable[[Any], None]
    #: Called with a driver and each message of the driver's client.
    receive: Callable[[ConnectionDriver, bytes], None]
    #: Called with an HTTP request that asks for no WebSocket, as soon as the request has arrived.
    remember: Callable[[ReceivedRequest], None]
    #: Carries out such a request, and returns the response.
    answer: Callable[[ReceivedRequest], Response]


class ConnectionDriver:
    """Speaks HTTP, WebSocket and compression with one client.

    The driver passes each message of the client to :attr:`Environment.receive`, which interprets
    the message. The callers of all methods hold the gateway's lock.

    :param environment: the parts of the gateway that all connections share.
    :param at_resume_url: whether the client connected to the gateway's URL for a Resume.
    """

    def __init__(self, environment: Environment, *, at_resume_url: bool) -> None:
        self.at_resume_url = at_resume_url
        # From the request of the client.
        self.url = ""
        self.query: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.version = _DEFAULT_VERSION
        self.compression: str | None = None
        #: The session that this connection carries; None before READY or RESUMED.
        self.session: Session | None = None
        # From the CLOSE frame of the client.
        self.close_code: int | None = None
        self.close_reason = ""
        #: Whether the gateway acknowledges heartbeats.
        self.acknowledges = True
        self.opened_at = time.monotonic()
        self.closed_at: float | None = None
        self.byte_count = ByteCount()

        self._environment = environment
        self._thread = environment.thread
        self._rules = environment.rules
        self._steps = Steps(environment.faults)
        # Until the client asks for a WebSocket; None afterwards.
        self._http: HttpParser | None = HttpParser()
        self._is_serving_requests = False
        # The HTTP request, other than for a WebSocket, that waits for its response, or None.
        self._request: ReceivedRequest | None = None
        self._websocket = WebSocket()
        # By the gateway's clock, when the last op 9 was sent; None before the first.
        self._invalidated_at: float | None = None
        # Times, by the gateway's clock, at which the payloads of the last 60 seconds arrived.
        self._payload_times: deque[float] = deque()
        self._last_heartbeat_at = self._thread.clock()
        self._request_answered = False
        # The shard whose faults this connection has taken; None before Identify or Resume.
        self._shard_id: int | None = None
        # Seconds that TCP stays open after the closing handshake; None until the client ends TCP.
        self._linger: float | None = 0.0
        self._transport: ClientTransport | None = None
        #: Whether a fault replaces the step "accept". If so, the gateway ignores what the client
        #: sends, and makes no TLS handshake.
        self.accept_is_replaced = self._steps.take_faults(BEFORE_REQUEST)
        #: The :class:`GatewayConnection` through which tests see this connection.
        self.handle = environment.make_handle(self)

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket is open: 101 was sent, and neither side has sent CLOSE."""
        return self._websocket.is_open and not self.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether the TCP connection has ended."""
        return self.closed_at is not None

    @property
    def is_read(self) -> bool:
        """Whether the WebSocket is open and the gateway reads from it."""
        return self.is_open and self._transport is not None and self._transport.is_reading

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent, because the client reads slowly or a fault slows sending."""
        return 0 if self._transport is None else self._transport.unsent

    def require_open(self) -> None:
        """Check that the WebSocket can carry a message.

        :raises ConnectionError: if the WebSocket is not open.
        """
        if not self.is_open:
            raise ConnectionError(f"{self.handle} is not open")

    # Called by the transport, see ByteReceiver.

    def connected(self, transport: ClientTransport) -> None:
        """Begin to serve the client, whose TCP connection and TLS session are now established.

        :param transport: carries the bytes of this connection.
        """
        self._transport = transport
        if self.accept_is_replaced:
            self._environment.register(self.handle)
            self.step("accept", lambda: None)

    def receive(self, data: bytes) -> None:
        """Parse bytes from the client, and act on each request and frame in them.

        :param data: the bytes, cut anywhere.
        """
        self.byte_count.add(received=len(data))
        self._environment.byte_count.add(received=len(data))
        if self.accept_is_replaced:
            return
        if self._http is None:
            self._receive_websocket(data)
        else:
            self._http.receive(data)
            self._serve_requests()

    def _receive_websocket(self, data: bytes) -> None:
        for event in self._websocket.receive(data):
            if isinstance(event, Request):
                self._receive_handshake(event)
            elif isinstance(event, Close):
                self._receive_close(event)
            elif not self._websocket.was_closed_by_gateway:
                self._environment.receive(self, event)
        if self._websocket.is_refused and not self._request_answered:
            self._request_answered = True
            self._websocket.output()  # discards the answer of websockets
            self.refuse(error_response(ApiError(BAD_REQUEST)))
        self._send_pending()

    def count_sent(self, size: int) -> None:
        """Count bytes that the transport is about to send.

        :param size: the number of bytes.
        """
        self.byte_count.add(sent=size)
        self._environment.byte_count.add(sent=size)

    def lost(self) -> None:
        """Release the transport and the session, after the TCP connection has ended."""
        self._transport = None
        self.closed_at = time.monotonic()
        self._steps.forget()
        # The gateway keeps the handle of each ended connection, and the handle keeps this driver.
        self._websocket.release_compressor()
        if self.session is not None and self.session.carrier is self:
            self.session.leave()
        self._thread.notify()

    # Steps, which faults may delay or replace.

    def step(self, name: str, step: Callable[[], None]) -> None:
        """Take a step of the connection's life, unless a fault replaces the step.

        :param name: the step's name, one of :data:`~shardlib.testing.faults.STEPS`.
        :param step: the function that takes the step. The driver does not call the function after
            the TCP connection has ended.
        """

        def step_unless_closed() -> None:
            if not self.is_closed:
                step()

        self._steps.take(name, self.handle, step_unless_closed)

    def take_faults_of_shard(self, shard_id: int) -> None:
        """Take the faults that strike the connections of a shard.

        :param shard_id: the id of the shard that identifies or resumes on this connection.
        """
        # After op 9 a client may identify again on the same connection, which counts once.
        if shard_id != self._shard_id:
            self._shard_id = shard_id
            self._steps.take_faults(AFTER_IDENTIFY, shard_id)

    def proceed(self) -> None:
        """Take the steps that faults have replaced so far, in their order."""
        self._steps.proceed()
        self._thread.notify()

    # From the handshake to Hello.

    def _receive_handshake(self, request: Request) -> None:
        self._request_answered = True
        try:
            target = urlsplit(request.path)
        except ValueError:
            self.refuse(error_response(ApiError(BAD_REQUEST)))
            return
        self.url = request.path
        self.query = dict(parse_qsl(target.query, keep_blank_values=True))
        self.headers = {name.lower(): value for name, value in request.headers.raw_items()}
        self._steps.take_faults(WEBSOCKET)
        self._environment.register(self.handle)
        self.step("upgrade", lambda: self._upgrade(request))

    def refuse(self, response: Response) -> None:
        """Answer with plain HTTP, and end the connection.

        :param response: the whole response.
        """
        self._record_status(response)
        if self._transport is not None:
            self._transport.write(response.serialize())
            self._transport.finish()

    # Requests that ask for no WebSocket.

    def _serve_requests(self) -> None:
        """Serve the requests that have arrived, each after the response to the former."""
        if self._is_serving_requests:
            return  # a response calls this method, too
        self._is_serving_requests = True
        try:
            while self._http is not None:
                request = self._next_request(self._http)
                if request is None:
                    break
                self._serve(self._http, request)
        finally:
            self._is_serving_requests = False

    def _next_request(self, http: HttpParser) -> ReceivedRequest | None:
        try:
            request = http.next_request()
        except ApiError as error:
            self.refuse(error_response(error))
            return None
        self._send_http(http)
        return request

    def _serve(self, http: HttpParser, request: ReceivedRequest) -> None:
        handshake = http.handshake()
        if handshake is not None:
            self._http = None
            self._receive_websocket(handshake)
            return
        self._request = request
        self.url, self.query, self.headers = request.target, request.query, request.headers
        self._environment.remember(request)
        # A request uses up the faults of one connection, whether or not the client has sent others
        # on the same connection.
        self._steps = Steps(self._environment.faults)
        self._steps.take_faults(PLAIN_HTTP, request=request)
        self.step("answer", lambda: self._answer(http, request))
        self._thread.notify()

    def _answer(self, http: HttpParser, request: ReceivedRequest) -> None:
        response = self._environment.answer(request)
        self.step("response", lambda: self._respond(http, response))

    def _respond(self, http: HttpParser, response: Response) -> None:
        self._record_status(response)
        may_continue = http.respond(response)
        self._send_http(http)
        if may_continue:
            self._serve_requests()
        elif self._transport is not None:
            self._transport.finish()

    def _record_status(self, response: Response) -> None:
        """Tell the request that waits for its response the status; later ones are not its own."""
        request, self._request = self._request, None
        if request is not None:
            request.answered(response.status)

    def _send_http(self, http: HttpParser) -> None:
        data = http.output()
        if data and self._transport is not None:
            self._transport.write(data)

    def _upgrade(self, request: Request) -> None:
        self._websocket.accept(request)
        self._send_pending()
        if not self.is_open:
            return
        problem = self._check_query()
        if problem is not None:
            self.close(CloseCode.INVALID_API_VERSION, problem)
            return
        # The fault strikes at once, so that a test that sees the connection can let it proceed.
        self.step("hello", self._greet)

    def _greet(self) -> None:
        """Send Hello in a moment: some clients drop what arrives in one piece with 101."""

        def greet() -> None:
            with self._thread.lock:
                if self.is_open:
                    self._hello()

        self._thread.call_soon(greet)

    def _check_query(self) -> str | None:
        """Apply ``v``, ``encoding`` and ``compress`` of the query.

        :returns: the problem, as the reason of a CLOSE frame; None if the query is valid.
        """
        version = self.query.get("v", str(_DEFAULT_VERSION))
        if version not in map(str, VERSIONS):
            return f"v={shorten(version)}: no such API version"
        self.version = int(version)
        encoding = self.query.get("encoding", "json")
        if encoding != "json":
            return f"encoding={shorten(encoding)}: the local gateway speaks json only"
        compression = self.query.get("compress")
        if compression is not None:
            if compression not in TRANSPORT_COMPRESSIONS:
                return f"compress={shorten(compression)}: use zlib-stream or zstd-stream"
            try:
                self._websocket.compress_transport(compression)
            except ImportError:
                return 'the local gateway lacks zstd: pip install "shardlib[zstd]"'
            self.compression = compression
        return None

    def _hello(self) -> None:
        interval = self._rules.heartbeat_interval
        self.send_op(Opcode.HELLO, {"heartbeat_interval": interval, "_trace": ["local-gateway"]})
        self.record_heartbeat()
        self._watch_heartbeats()

    # Heartbeats.

    def record_heartbeat(self) -> None:
        """Restart the time in which the client must send its next heartbeat."""
        self._last_heartbeat_at = self._thread.clock()

    def acknowledge_heartbeats(self, enabled: bool) -> None:
        """Begin or stop acknowledging heartbeats.

        :param enabled: True to begin, False to stop.
        """
        self.acknowledges = enabled

    def _watch_heartbeats(self) -> None:
        """Close the connection if a heartbeat is overdue; else check again at its deadline."""
        with self._thread.lock:
            if not self.is_open:
                return
            allowed = self._rules.heartbeat_interval / 1000 + self._rules.heartbeat_tolerance
            left = self._last_heartbeat_at + allowed - self._thread.clock()
            if left > 0:
                self._thread.call_later(left, self._watch_heartbeats)
            else:
                # Discord documents no code for a missing heartbeat. After 4000 a client can resume.
                self.close(CloseCode.UNKNOWN_ERROR, "no heartbeat arrived in time")

    # The session.

    def count_payload(self) -> int:
        """Count a payload of the client.

        :returns: the number of payloads that arrived in the last 60 seconds, with this one.
        """
        now = self._thread.clock()
        times = self._payload_times
        while times and now - times[0] >= SEND_PERIOD:
            times.popleft()
        times.append(now)
        return len(times)

    def attach(self, session: Session) -> None:
        """Begin to carry a session. The caller has sent READY or RESUMED.

        :param session: the session.
        """
        self.session = session
        self._thread.notify()

    def detach(self) -> Session | None:
        """Stop carrying the session.

        :returns: the session; None if the connection carried no session.
        """
        session, self.session = self.session, None
        return session

    def invalidate(self, resumable: bool) -> None:
        """Send op 9, if the WebSocket is open.

        :param resumable: the payload's ``d``.
        """
        self._invalidated_at = self._thread.clock()
        self.send_op(Opcode.INVALID_SESSION, resumable)

    @property
    def seconds_since_invalid_session(self) -> float | None:
        """Seconds, by the gateway's clock, since the last op 9; None before the first."""
        if self._invalidated_at is None:
            return None
        return self._thread.clock() - self._invalidated_at

    def release(self, code: int, reason: str) -> None:
        """Stop carrying the session, and close the connection.

        :param code: the close code.
        :param reason: the reason in the CLOSE frame.
        """
        self.detach()
        self.close(code, reason)

    def _end_session(self, reason: str) -> None:
        session = self.detach()
        if session is not None:
            session.end(reason)

    # The closing handshake.

    def close(self, code: int | None, reason: str = "") -> None:
        """Begin the closing handshake, if the WebSocket is open.

        :param code: the close code; None for a CLOSE frame without a code.
        :param reason: the reason in the CLOSE frame, at most 123 bytes of UTF-8.
        :raises ValueError: if RFC 6455 forbids such a CLOSE frame.
        """
        if not self.is_open:
            return
        self._websocket.close(code, reason)
        self._send_pending()
        if code in (CloseCode.INVALID_SEQ, CloseCode.SESSION_TIMED_OUT):
            self._end_session(f"closed with {code}")
        self._thread.call_later(self._rules.close_timeout, self._give_up_closing)

    def _give_up_closing(self) -> None:
        """End the TCP connection, because the client has not answered CLOSE in time."""
        with self._thread.lock:
            self._end_after_closing(graceful=False)

    def _receive_close(self, close: Close) -> None:
        """Handle a CLOSE frame that begins or answers the closing handshake."""
        self.close_code, self.close_reason = close.code, close.reason
        # A client that begins the handshake with 1000 or 1001 ends the session. A client that
        # answers only repeats the gateway's code.
        if self._websocket.was_closed_by_client and close.code in (1000, 1001):
            self._end_session(f"closed with {close.code}")
        # The answer: a CLOSE frame if the client began, then the mark for the end of TCP.
        answer = self._websocket.output()
        self.step("close", lambda: self._write(answer))
        self._thread.notify()

    def linger(self, seconds: float | None) -> None:
        """Leave the TCP connection open after the closing handshake.

        :param seconds: for how many seconds, by the gateway's clock; None until the client ends
            TCP.
        """
        self._linger = seconds

    def _end_after_closing(self, *, graceful: bool) -> None:
        """End the TCP connection after the time that :meth:`linger` has set, 0 by default.

        :param graceful: passed to :meth:`ClientTransport.finish`.
        """

        def end() -> None:
            with self._thread.lock:
                if self._transport is not None:
                    self._transport.finish(graceful=graceful)

        if self._linger == 0:
            end()
        elif self._linger is not None:
            self._thread.call_later(self._linger, end)

    def drop(self) -> None:
        """End the TCP connection without a CLOSE frame, after sending the waiting bytes."""
        if self._transport is not None:
            self._transport.finish(graceful=False)

    def reset(self) -> None:
        """Reset the TCP connection."""
        if self._transport is not None:
            self._transport.reset()

    # Changing how the gateway reads and sends.

    def freeze(self, *, reading: bool, writing: bool) -> None:
        """Stop reading, writing, or both, until :meth:`thaw`.

        :param reading: whether to stop reading.
        :param writing: whether to stop writing.
        """
        if self._transport is not None:
            self._transport.freeze(reading=reading, writing=writing)

    def thaw(self) -> None:
        """Read and write again."""
        if self._transport is not None:
            self._transport.thaw()

    def slow(self, bytes_per_second: float) -> None:
        """Limit the rate at which the gateway sends.

        :param bytes_per_second: the highest rate in bytes a second.
        """
        if self._transport is not None:
            self._transport.slow(bytes_per_second)

    def compress_payloads(self) -> None:
        """Compress each later payload by itself, as the client's Identify asks for."""
        self.compression = "payload"
        self._websocket.compress_payloads()

    def split_messages(self, size: int) -> None:
        """Cut each later payload into several WebSocket messages.

        :param size: the most bytes of a message.
        """
        self._websocket.split_messages(size)

    def fragment_messages(self, size: int) -> None:
        """Cut each later message into several WebSocket fragments.

        :param size: the most bytes of a fragment.
        """
        self._websocket.fragment_messages(size)

    # Sending.

    def send_event(self, name: str, sequence: int, data: bytes) -> None:
        """Send one event, if the WebSocket is open.

        :param name: the event's name.
        :param sequence: the event's sequence in the session.
        :param data: the event's ``d``, as JSON.
        """
        if self.is_open:
            self.send_text(b'{"t":"%s","s":%d,"op":0,"d":%s}' % (name.encode(), sequence, data))

    def send_op(self, opcode: int, data: Any) -> None:
        """Send a payload that is no event, if the WebSocket is open.

        :param opcode: the payload's ``op``.
        :param data: the payload's ``d``.
        """
        if self.is_open:
            self.send_text(b'{"t":null,"s":null,"op":%d,"d":%s}' % (opcode, encode(data)))

    def send_text(self, text: bytes) -> None:
        """Send one payload, compressed as the client asked for. The WebSocket must be open.

        :param text: the payload's JSON, in UTF-8.
        """
        self._websocket.send_text(text)
        self._send_pending()

    def send_message(self, message: Message) -> None:
        """Send one WebSocket message. The WebSocket must be open.

        :param message: the message's kind and content.
        """
        self._websocket.send_message(message)
        self._send_pending()

    def send_bytes(self, data: bytes) -> None:
        """Send bytes without wrapping them into a WebSocket frame.

        :param data: the bytes.
        :raises ConnectionError: if the TCP connection has ended.
        """
        if self._transport is None:
            raise ConnectionError(f"{self.handle} has ended")
        self._transport.write(data)

    def _send_pending(self) -> None:
        """Send the bytes that wait in the WebSocket."""
        self._write(self._websocket.output())

    def _write(self, writes: list[bytes]) -> None:
        """Write chunks of bytes, as :meth:`WebSocket.output` gives them."""
        if self._transport is None:
            return
        for data in writes:
            if data:
                self._transport.write(data)
            else:
                self._end_after_closing(graceful=True)
