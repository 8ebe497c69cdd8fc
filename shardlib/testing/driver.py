"""One client's connection to the local gateway, from accept to end."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.frames import Close, Frame
from websockets.frames import Opcode as FrameType
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol

from shardlib.gateway import SEND_PERIOD, CloseCode, Opcode
from shardlib.testing import http
from shardlib.testing.compression import (
    TRANSPORT_COMPRESSIONS,
    Deflater,
    Message,
    PlainText,
    ZlibPayload,
)
from shardlib.testing.faults import Faults, Steps
from shardlib.testing.payloads import encode
from shardlib.testing.rules import Rules
from shardlib.testing.session import Session
from shardlib.testing.thread import GatewayThread
from shardlib.testing.transport import ClientTransport

#: API versions the gateway speaks (Reference, "API Versions"); 6 if a client names none.
VERSIONS = (6, 7, 8, 9, 10)
_DEFAULT_VERSION = 6

# The websockets package logs every frame it sees at level DEBUG, tokens included: not here.
_silent = logging.Logger("shardlib.testing.frames", level=logging.CRITICAL + 1)


class ByteCount:
    """Bytes on the wire, below WebSocket and above TLS."""

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0

    def add(self, *, received: int = 0, sent: int = 0) -> None:
        """Count bytes that have come from a client, or go out to one."""
        self.received += received
        self.sent += sent


@dataclass(frozen=True)
class Environment:
    """What the drivers of one gateway share."""

    thread: GatewayThread
    rules: Rules
    faults: Faults
    #: The bytes of all connections together.
    byte_count: ByteCount
    #: Makes the handle by which tests know a connection.
    represent: Callable[[ConnectionDriver], Any]
    #: Called with the handle once a client has asked for a WebSocket, or a fault took hold of it.
    register: Callable[[Any], None]
    #: Called with a driver and each message of its client.
    receive: Callable[[ConnectionDriver, bytes], None]
    #: Answers an HTTP request that asks for no WebSocket.
    answer: Callable[[Request], Response]


class ConnectionDriver:
    """Speaks HTTP, WebSocket and compression with one client.

    It does not know what the payloads mean; it hands them on. The gateway's lock guards it:
    the callers of its methods hold the lock.

    :param environment: what the drivers of the gateway share.
    :param at_resume_url: whether the client came to the gateway's URL for a Resume.
    """

    def __init__(self, environment: Environment, *, at_resume_url: bool) -> None:
        self.at_resume_url = at_resume_url
        # What the client asked for.
        self.url = ""
        self.query: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.version = _DEFAULT_VERSION
        self.compression: str | None = None
        #: The session it carries, once there is one.
        self.session: Session | None = None
        # The client's CLOSE frame.
        self.close_code: int | None = None
        self.close_reason = ""
        #: False if heartbeats are not acknowledged.
        self.acknowledges = True
        self.opened_at = time.monotonic()
        self.closed_at: float | None = None
        self.byte_count = ByteCount()

        self._environment = environment
        self._thread = environment.thread
        self._rules = environment.rules
        self._steps = Steps(environment.faults)
        self._protocol = ServerProtocol(logger=_silent)
        self._deflater: Deflater = PlainText()
        self._message_size: int | None = None
        self._fragment_size: int | None = None
        # The parts of a message that has not come whole.
        self._parts: list[bytes] = []
        # When the client's last payloads came, by the gateway's clock.
        self._payload_times: deque[float] = deque()
        self._heartbeat_at = self._thread.clock()
        self._requested = False
        # Seconds that TCP stays open after the closing handshake; None: until the client ends it.
        self._linger: float | None = 0.0
        self._transport: ClientTransport | None = None
        #: Whether a fault took the place of taking this connection into service.
        self.is_replaced = self._steps.meet_faults(accept=True)
        #: The connection as tests know it.
        self.handle = environment.represent(self)

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket is open: 101 was sent, and no CLOSE either way."""
        return self._protocol.state is OPEN and not self.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether the TCP connection is over."""
        return self.closed_at is not None

    @property
    def is_read(self) -> bool:
        """Whether the WebSocket is open and the gateway reads from it."""
        return self.is_open and self._transport is not None and self._transport.is_reading

    @property
    def unsent(self) -> int:
        """Bytes that wait because the client, or a fault, is slow."""
        return 0 if self._transport is None else self._transport.unsent

    def require_open(self) -> None:
        """Refuse to send what could not arrive.

        :raises ConnectionError: if the WebSocket is not open.
        """
        if not self.is_open:
            raise ConnectionError(f"{self.handle} is not open")

    # What the transport tells.

    def connected(self, transport: ClientTransport) -> None:
        """Take the transport: the TCP connection is there, and TLS if the gateway speaks TLS."""
        self._transport = transport
        if self.is_replaced:
            self._environment.register(self.handle)
            self.step("accept", lambda: None)

    def receive(self, data: bytes) -> None:
        """Take bytes from the client."""
        self.byte_count.add(received=len(data))
        self._environment.byte_count.add(received=len(data))
        if self.is_replaced:
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._request(event)
            elif isinstance(event, Frame):
                self._frame(event)
        if self._protocol.handshake_exc is not None and not self._requested:
            # What came is no HTTP request, or one with a method that websockets refuses.
            self._requested = True
            self._protocol.data_to_send()
            self.respond(http.make_response(400, b"the local gateway answers GET only\n", {}))
        self._pump()

    def count_sent(self, size: int) -> None:
        """Count bytes that go out now."""
        self.byte_count.add(sent=size)
        self._environment.byte_count.add(sent=size)

    def lost(self) -> None:
        """Forget the transport: the TCP connection is over."""
        self._transport = None
        self.closed_at = time.monotonic()
        self._steps.forget()
        # Connections are remembered; a compressor takes a quarter of a megabyte.
        self._deflater = PlainText()
        if self.session is not None and self.session.carrier is self:
            self.session.leave()
        self._thread.notify()

    # Steps, and the faults that lie in wait there.

    def step(self, name: str, step: Callable[[], None]) -> None:
        """Take a step of the connection's life, or do what a fault wants in its place.

        :param name: one of :data:`shardlib.testing.STEPS`.
        :param step: what to do if no fault replaces it, and the connection is not over.
        """

        def take() -> None:
            if not self.is_closed:
                step()

        self._steps.take(name, self.handle, take)

    def proceed(self) -> None:
        """Take the steps that faults have replaced so far."""
        self._steps.proceed()

    # From the request to Hello.

    def _request(self, request: Request) -> None:
        self._requested = True
        try:
            target = urlsplit(request.path)
        except ValueError:
            self.respond(http.json_response(400, {"message": "400: Bad Request", "code": 0}))
            return
        self.headers = {name.lower(): value for name, value in request.headers.raw_items()}
        if self.headers.get("upgrade", "").lower() != "websocket":
            self.respond(self._environment.answer(request))
            return
        self.url = request.path
        self.query = dict(parse_qsl(target.query, keep_blank_values=True))
        self._steps.meet_faults(accept=False)
        self._environment.register(self.handle)
        self.step("upgrade", lambda: self._upgrade(request))

    def respond(self, response: Response) -> None:
        """Answer with plain HTTP, and end the connection."""
        if self._transport is not None:
            self._transport.write(response.serialize())
            self._transport.finish()

    def _upgrade(self, request: Request) -> None:
        self._protocol.send_response(self._protocol.accept(request))
        self._pump()
        if not self.is_open:
            return
        problem = self._check_query()
        if problem is not None:
            self.close(CloseCode.INVALID_API_VERSION, problem)
            return
        self.step("hello", self._hello)

    def _check_query(self) -> str | None:
        """Take ``v``, ``encoding`` and ``compress`` from the query; say what is wrong there."""
        version = self.query.get("v", str(_DEFAULT_VERSION))
        if version not in map(str, VERSIONS):
            return f"v={version[:20]}: no such API version"
        self.version = int(version)
        encoding = self.query.get("encoding", "json")
        if encoding != "json":
            return f"encoding={encoding[:20]}: the local gateway speaks json only"
        compression = self.query.get("compress")
        if compression is not None:
            if compression not in TRANSPORT_COMPRESSIONS:
                return f"compress={compression[:20]}: use zlib-stream or zstd-stream"
            try:
                self._deflater = TRANSPORT_COMPRESSIONS[compression]()
            except ImportError:
                return 'the local gateway lacks zstd: pip install "shardlib[zstd]"'
            self.compression = compression
        return None

    def _hello(self) -> None:
        interval = self._rules.heartbeat_interval
        self.send_op(Opcode.HELLO, {"heartbeat_interval": interval, "_trace": ["local-gateway"]})
        self.note_heartbeat()
        self._watch_heartbeats()

    # Heartbeats.

    def note_heartbeat(self) -> None:
        """Wait for the next heartbeat from now on."""
        self._heartbeat_at = self._thread.clock()

    def acknowledge_heartbeats(self, enabled: bool) -> None:
        """Acknowledge heartbeats from now on, or don't."""
        self.acknowledges = enabled

    def _watch_heartbeats(self) -> None:
        """Close the connection if no heartbeat has come in time; look again when one is due."""
        with self._thread.lock:
            if not self.is_open:
                return
            patience = self._rules.heartbeat_interval / 1000 + self._rules.heartbeat_tolerance
            left = self._heartbeat_at + patience - self._thread.clock()
            if left > 0:
                self._thread.call_later(left, self._watch_heartbeats)
            else:
                # 4000: of the documented codes, one that leaves the session to be resumed.
                self.close(CloseCode.UNKNOWN_ERROR, "no heartbeat came in time")

    # What comes through the WebSocket.

    def _frame(self, frame: Frame) -> None:
        kind = frame.opcode
        if kind is FrameType.CLOSE:
            self._closing()
        elif kind in (FrameType.TEXT, FrameType.BINARY, FrameType.CONT):
            self._parts.append(bytes(frame.data))
            if frame.fin:
                message = b"".join(self._parts)
                self._parts.clear()
                if self.is_open:
                    self._environment.receive(self, message)

    def count_payload(self) -> int:
        """Count a payload of the client; return how many came in the last 60 seconds."""
        now = self._thread.clock()
        times = self._payload_times
        while times and now - times[0] >= SEND_PERIOD:
            times.popleft()
        times.append(now)
        return len(times)

    # The session.

    def attach(self, session: Session) -> None:
        """Carry a session: READY or RESUMED was sent."""
        self.session = session
        self._thread.notify()

    def detach(self) -> Session | None:
        """Carry the session no longer, if there is one; return it."""
        session, self.session = self.session, None
        return session

    def release(self, code: int, reason: str) -> None:
        """Carry the session no longer, and close the connection with this code."""
        self.detach()
        self.close(code, reason)

    def _end_session(self, reason: str) -> None:
        session = self.detach()
        if session is not None:
            session.end(reason)

    # The closing handshake.

    def close(self, code: int | None, reason: str = "") -> None:
        """Begin the closing handshake, if the WebSocket is open.

        :param code: None for a CLOSE frame without one.
        :param reason: what the CLOSE frame says.
        """
        if not self.is_open:
            return
        self._protocol.send_close(code, reason)
        self._pump()
        if code in (CloseCode.INVALID_SEQ, CloseCode.SESSION_TIMED_OUT):
            self._end_session(f"closed with {code}")
        self._thread.call_later(self._rules.close_timeout, self._give_up_closing)

    def _give_up_closing(self) -> None:
        """End the TCP connection: the client did not answer in time."""
        with self._thread.lock:
            self._end_after_closing(farewell=False)

    def _closing(self) -> None:
        """Take a CLOSE frame, the client's own or its answer to the gateway's."""
        closed: Close | None = self._protocol.close_rcvd
        assert closed is not None
        self.close_code, self.close_reason = closed.code, closed.reason
        # Only a close that the client began says what it wants of the session.
        begun = self._protocol.close_rcvd_then_sent
        if begun and closed.code in (1000, 1001):
            self._end_session(f"closed with {closed.code}")
        # The answer, and the end of the connection, stand ready in the protocol.
        answer = self._protocol.data_to_send()
        self.step("close", lambda: self._carry_out(answer))
        self._thread.notify()

    def linger(self, seconds: float | None) -> None:
        """Leave TCP open for a while after the closing handshake; None: for ever."""
        self._linger = seconds

    def _end_after_closing(self, *, farewell: bool) -> None:
        """End the TCP connection, at once or after lingering."""

        def end() -> None:
            with self._thread.lock:
                if self._transport is not None:
                    self._transport.finish(farewell=farewell)

        if self._linger == 0:
            end()
        elif self._linger is not None:
            self._thread.call_later(self._linger, end)

    def drop(self) -> None:
        """End the TCP connection without a CLOSE frame, once what waits is sent."""
        if self._transport is not None:
            self._transport.finish(farewell=False)

    def reset(self) -> None:
        """Reset the TCP connection."""
        if self._transport is not None:
            self._transport.reset()

    # How it reads and sends.

    def freeze(self, *, reading: bool, writing: bool) -> None:
        """Stop reading, writing, or both, until :meth:`thaw`."""
        if self._transport is not None:
            self._transport.freeze(reading=reading, writing=writing)

    def thaw(self) -> None:
        """Read and write again."""
        if self._transport is not None:
            self._transport.thaw()

    def slow(self, bytes_per_second: float) -> None:
        """Send no faster than this from now on."""
        if self._transport is not None:
            self._transport.slow(bytes_per_second)

    def compress_payloads(self) -> None:
        """Compress each payload on its own from now on, as Identify asked for."""
        self.compression = "payload"
        self._deflater = ZlibPayload()

    def split_messages(self, size: int) -> None:
        """Cut each payload into WebSocket messages of at most this many bytes."""
        self._message_size = size

    def fragment_messages(self, size: int) -> None:
        """Cut each message into WebSocket fragments of at most this many bytes."""
        self._fragment_size = size

    # What goes out.

    def send_event(self, name: str, sequence: int, data: bytes) -> None:
        """Send one event, or nothing if the connection is over.

        :param name: the event's name.
        :param sequence: its number in the session.
        :param data: its ``d``, as JSON.
        """
        if self.is_open:
            self.send_text(b'{"t":"%s","s":%d,"op":0,"d":%s}' % (name.encode(), sequence, data))

    def send_op(self, opcode: int, data: Any) -> None:
        """Send a payload that is no event, or nothing if the connection is over."""
        if self.is_open:
            self.send_text(b'{"t":null,"s":null,"op":%d,"d":%s}' % (opcode, encode(data)))

    def send_text(self, text: bytes) -> None:
        """Send the JSON text of one payload, compressed as the client asked for."""
        message = self._deflater.deflate(text)
        if self._message_size is None and self._fragment_size is None:
            self.send_message(message)
        else:
            self._send_in_pieces(message)
            self._pump()

    def send_message(self, message: Message) -> None:
        """Send one WebSocket message as it stands."""
        if message.binary:
            self._protocol.send_binary(message.data)
        else:
            self._protocol.send_text(message.data)
        self._pump()

    def send_bytes(self, data: bytes) -> None:
        """Send bytes below WebSocket.

        :raises ConnectionError: if the TCP connection is over.
        """
        if self._transport is None:
            raise ConnectionError(f"{self.handle} is over")
        self._transport.write(data)

    def _send_in_pieces(self, message: Message) -> None:
        protocol: Protocol = self._protocol
        send = protocol.send_binary if message.binary else protocol.send_text
        for piece in _pieces(message.data, self._message_size):
            if self._fragment_size is None:
                send(piece)
                continue
            first, *others = _pieces(piece, self._fragment_size)
            send(first, fin=False)
            for other in others:
                protocol.send_continuation(other, fin=False)
            protocol.send_continuation(b"", fin=True)

    def _pump(self) -> None:
        """Carry out what the WebSocket protocol has decided: bytes to send, or the end."""
        self._carry_out(self._protocol.data_to_send())

    def _carry_out(self, writes: list[bytes]) -> None:
        if self._transport is None:
            return
        for data in writes:
            if data:
                self._transport.write(data)
            else:
                self._end_after_closing(farewell=True)


def _pieces(data: bytes, size: int | None) -> list[bytes]:
    """Cut data, with the last four bytes in a piece of their own if it is cut at all."""
    if size is None or len(data) <= 4:
        return [data]
    body, suffix = data[:-4], data[-4:]
    return [*(body[at : at + size] for at in range(0, len(body), size)), suffix]
