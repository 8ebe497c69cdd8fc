"""One client's connection to the local gateway, from accept to end."""

from __future__ import annotations

import logging
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from websockets.frames import Close, Frame
from websockets.frames import Opcode as FrameType
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol

from shardlib.gateway import CloseCode, Opcode

from . import commands, http
from .compression import (
    TRANSPORT_COMPRESSIONS,
    Deflater,
    Message,
    PlainText,
    ZlibPayload,
)
from .sessions import encode

if TYPE_CHECKING:
    from .faults import Fault
    from .link import Link
    from .server import LocalGateway
    from .sessions import GatewaySession

#: API versions the gateway speaks (Reference, "API Versions"); 6 where a client names none.
VERSIONS = (6, 7, 8, 9, 10)
_DEFAULT_VERSION = 6

# The websockets package logs every frame it sees at level DEBUG, tokens included: not here.
_silent = logging.Logger("shardlib.testing.frames", level=logging.CRITICAL + 1)


class ReceivedPayload(dict[str, Any]):
    """A payload a client sent: the decoded JSON object, and when and where it arrived."""

    __slots__ = ("_returned_by", "connection", "time")

    def __init__(self, payload: dict[str, Any], connection: GatewayConnection) -> None:
        super().__init__(payload)
        #: The connection it came on.
        self.connection = connection
        #: :func:`time.monotonic` at its arrival, in seconds.
        self.time = time.monotonic()
        # Whose expect() has returned it: the connection's, the gateway's, both's.
        self._returned_by: tuple[object, ...] = ()


class GatewayConnection:
    """One connection to a :class:`~shardlib.testing.LocalGateway`.

    The gateway makes it when a client asks for a WebSocket, or when a fault takes hold of a
    client before that.  Every method may be called from any thread; none waits for the client,
    but those that have a ``timeout``.

    Sending on a connection that is over raises :exc:`ConnectionError`; ending one that is
    over does nothing.
    """

    def __init__(self, gateway: LocalGateway, *, at_resume_url: bool) -> None:
        self._gateway = gateway
        #: Whether the client came to :attr:`LocalGateway.resume_url`.
        self.at_resume_url = at_resume_url
        #: Path and query as the client asked for them; "" while it has not.
        self.url = ""
        #: The query: ``v``, ``encoding``, ``compress`` and whatever else it has.
        self.query: dict[str, str] = {}
        #: The headers of the client's request, names in lower case.
        self.headers: dict[str, str] = {}
        #: The API version asked for.
        self.version = _DEFAULT_VERSION
        #: "zlib-stream", "zstd-stream", "payload" (once Identify asked for it) or None.
        self.compression: str | None = None
        #: The session it carries, once there is one.
        self.session: GatewaySession | None = None
        #: The code of the client's CLOSE frame; 1005 for a CLOSE without one; None for no CLOSE.
        self.close_code: int | None = None
        #: The reason of the client's CLOSE frame.
        self.close_reason = ""
        #: False keeps the gateway from acknowledging heartbeats.
        self.acknowledge = True
        #: :func:`time.monotonic` when it was accepted, and when it was over.
        self.opened_at = time.monotonic()
        self.closed_at: float | None = None
        #: Bytes on the wire, below WebSocket and above TLS.
        self.bytes_received = 0
        self.bytes_sent = 0

        self._faults: list[Fault] = []
        # Steps that a fault left out, and that proceed() can make up for.
        self._left_out: list[Callable[[], None]] = []
        self._protocol = ServerProtocol(logger=_silent)
        self._deflater: Deflater = PlainText()
        self._message_size: int | None = None
        self._fragment_size: int | None = None
        # The parts of a message that has not come whole.
        self._parts: list[bytes] = []
        # When the client's last payloads came, by the gateway's clock, to count them.
        self._sends: deque[float] = deque()
        self._beat_at = gateway.clock()
        self._requested = False
        # Whether a fault took the place of taking this connection into service.
        self._deaf = False
        self._link: Link | None = None

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "open" if self.is_open else "opening"
        return f"<GatewayConnection {self.url or '(no request yet)'} {state}>"

    # What the client did.

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket is open: 101 was sent, and no CLOSE either way."""
        return self._protocol.state is OPEN and not self.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether the TCP connection is over."""
        return self.closed_at is not None

    @property
    def received(self) -> list[ReceivedPayload]:
        """The payloads the client sent, oldest first.

        The gateway remembers the last 20,000 of all its connections.
        """
        with self._gateway._lock:
            return [each for each in self._gateway._received if each.connection is self]

    def expect(self, opcode: int, timeout: float = 5.0) -> ReceivedPayload:
        """Wait for the next payload with this opcode, and return it.

        Each payload is returned once; payloads with other opcodes wait for their own call.

        :param timeout: seconds
        :raises TimeoutError: none came in time
        :raises ConnectionError: the connection ended first
        """

        def look() -> ReceivedPayload | None:
            payload = self._gateway._find(opcode, self)
            if payload is None and self.is_closed:
                raise ConnectionError(
                    f"{self} ended (close code {self.close_code}) without "
                    f"{commands.name_of(opcode)}"
                )
            return payload

        return self._gateway._wait(look, timeout, f"{commands.name_of(opcode)} on {self}")

    def wait_until_ready(self, timeout: float = 5.0) -> GatewaySession:
        """Wait until READY or RESUMED was sent on this connection; return the session.

        :param timeout: seconds
        :raises TimeoutError: it did not come to that in time
        :raises ConnectionError: the connection ended first
        """

        def look() -> GatewaySession | None:
            if self.session is None and self.is_closed:
                raise ConnectionError(f"{self} ended before it was ready")
            return self.session

        return self._gateway._wait(look, timeout, f"a session on {self}")

    def wait_closed(self, timeout: float = 5.0) -> int | None:
        """Wait until the TCP connection is over; return :attr:`close_code`.

        :param timeout: seconds
        :raises TimeoutError: it is not over in time
        """
        self._gateway._wait(lambda: self.is_closed, timeout, f"the end of {self}")
        return self.close_code

    # What the gateway does.

    def send(self, payload: dict[str, Any]) -> None:
        """Send a payload, encoded and compressed as the client asked for.

        Nothing of it is counted or kept: use :meth:`GatewaySession.dispatch
        <shardlib.testing.GatewaySession.dispatch>` for events that can be resumed.

        :raises TypeError, ValueError: ``payload`` cannot be written as JSON
        """
        text = encode(payload)
        with self._gateway._lock:
            self._require_open()
            self._send_text(text)

    def send_raw(self, message: bytes | str) -> None:
        """Send one WebSocket message as it stands: bytes as binary, str as text."""
        with self._gateway._lock:
            self._require_open()
            if isinstance(message, str):
                self._protocol.send_text(message.encode("utf-8", "surrogatepass"))
            else:
                self._protocol.send_binary(message)
            self._pump()

    def send_compressed(self, text: bytes | str) -> None:
        """Send any text, JSON or not, compressed as the client asked for."""
        with self._gateway._lock:
            self._require_open()
            self._send_text(text.encode() if isinstance(text, str) else text)

    def send_corrupt(self) -> None:
        """Send a message that no decompressor can read; it ends as a zlib-stream message does."""
        self.send_raw(b"\xde\xad\xbe\xef\x00\x00\xff\xff")

    def send_bomb(self, size: int) -> None:
        """Send an event of ``size`` bytes that compresses a thousand to one."""
        self.send({"t": "BOMB", "s": None, "op": Opcode.DISPATCH, "d": "0" * size})

    def send_frame(
        self,
        opcode: int,
        data: bytes = b"",
        *,
        fin: bool = True,
        masked: bool = False,
        reserved: bool = False,
    ) -> None:
        """Send one WebSocket frame, well-formed or not.

        :param opcode: 0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong; others are
            forbidden, as is a control frame (8 and up) of more than 125 bytes or not ``fin``
        :param masked: masked, as a server must not
        :param reserved: with the first reserved bit set, as no extension allows
        """
        first = (0x80 if fin else 0) | (0x40 if reserved else 0) | opcode
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", first, size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", first, 126, size)
        else:
            head = struct.pack("!BBQ", first, 127, size)
        if masked:
            # A mask of zeros leaves the data as it is.
            head = bytes((head[0], head[1] | 0x80)) + head[2:] + bytes(4)
        self.send_bytes(head + data)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes below WebSocket: torn frames, or garbage where a frame or 101 should be."""
        with self._gateway._lock:
            if self._link is None:
                raise ConnectionError(f"{self} is over")
            self._link.write(data)

    def request_heartbeat(self) -> None:
        """Ask for a heartbeat at once (op 1)."""
        self.send({"t": None, "s": None, "op": Opcode.HEARTBEAT, "d": None})

    def reconnect(self) -> None:
        """Ask the client to reconnect and resume (op 7)."""
        self.send({"t": None, "s": None, "op": Opcode.RECONNECT, "d": None})

    def invalid_session(self, resumable: bool = False) -> None:
        """Tell the client that its session is invalid (op 9).

        The connection has no session from then on.  The client may Resume (if it may) or
        Identify on another, as it should, or on this one, as some do.

        :param resumable: what ``d`` is; False ends the session
        """
        with self._gateway._lock:
            self._require_open()
            self._send_op(Opcode.INVALID_SESSION, resumable)
            session, self.session = self.session, None
            if session is not None and resumable:
                session._leave()
            elif session is not None:
                session._end("invalidated")

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Begin the closing handshake, as the gateway does when something is wrong.

        The session may be resumed afterwards, unless ``code`` is 4007 or 4009, which say that
        it may not.

        :param code: None for a CLOSE frame without one
        """
        with self._gateway._lock:
            self._close(code, reason)

    def drop(self) -> None:
        """End the TCP connection without a CLOSE frame (FIN)."""
        with self._gateway._lock:
            if self._link is not None:
                self._link.finish(farewell=False)

    def reset(self) -> None:
        """Reset the TCP connection (RST); what was not yet sent is lost."""
        with self._gateway._lock:
            if self._link is not None:
                self._link.reset()

    def freeze(self) -> None:
        """Neither read nor send from now on, with the connection left open: a black hole."""
        with self._gateway._lock:
            if self._link is not None:
                self._link.freeze(reading=True, writing=True)

    def stop_reading(self) -> None:
        """Read nothing from now on, but go on sending: the client's sends fill the buffers."""
        with self._gateway._lock:
            if self._link is not None:
                self._link.freeze(reading=True, writing=False)

    def thaw(self) -> None:
        """Undo :meth:`freeze` and :meth:`stop_reading`; what was held back is sent."""
        with self._gateway._lock:
            if self._link is not None:
                self._link.thaw()

    def slow(self, bytes_per_second: float) -> None:
        """Send no faster than this from now on."""
        if bytes_per_second <= 0:
            raise ValueError(f"bytes_per_second is positive, not {bytes_per_second}")
        with self._gateway._lock:
            if self._link is not None:
                self._link.rate = bytes_per_second

    def split_messages(self, size: int) -> None:
        """Cut what is sent from now on into WebSocket messages of at most ``size`` bytes.

        Only zlib-stream knows where such a payload ends; with ``size`` 4 the last message of
        each payload is its suffix alone.
        """
        if size < 1:
            raise ValueError(f"size is at least 1, not {size}")
        self._message_size = size

    def fragment_messages(self, size: int) -> None:
        """Cut what is sent from now on into WebSocket fragments, the last of them empty."""
        if size < 1:
            raise ValueError(f"size is at least 1, not {size}")
        self._fragment_size = size

    def refuse(self, status: int, body: str = "", headers: dict[str, str] | None = None) -> None:
        """Answer the client's request with an HTTP error; meant to stand in for "upgrade"."""
        with self._gateway._lock:
            self._respond(http.make_response(status, body.encode(), headers or {}))

    def accept_wrongly(self) -> None:
        """Answer 101 with a wrong ``Sec-WebSocket-Accept``; meant to stand in for "upgrade"."""
        with self._gateway._lock:
            self.send_bytes(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: bm90IHRoZSBrZXkgeW91IHNlbnQ=\r\n\r\n"
            )

    def proceed(self) -> None:
        """Make up for the steps that a fault's ``instead_of`` has left out so far."""
        with self._gateway._lock:
            steps, self._left_out = self._left_out, []
            for step in steps:
                if not self.is_closed:
                    step()

    # From here on everything runs with the gateway's lock held.

    def _step(self, name: str, default: Callable[[], None]) -> None:
        """Take a step of the connection's life, or what a fault wants in its place."""
        replaced = False
        for fault in self._faults:
            if fault.step == name:
                replaced = replaced or fault.instead
                if fault.action is not None:
                    fault.action(self)
        if replaced:
            self._left_out.append(default)
        elif not self.is_closed:
            default()

    def _attach(self, session: GatewaySession) -> None:
        """READY or RESUMED was sent."""
        self.session = session
        self._gateway._changed.notify_all()

    def _compress_payloads(self) -> None:
        self.compression = "payload"
        self._deflater = ZlibPayload()

    def _require_open(self) -> None:
        if not self.is_open:
            raise ConnectionError(f"{self} is not open")

    @property
    def _unsent(self) -> int:
        return 0 if self._link is None else self._link.unsent

    def _take_faults(self, *, accept: bool) -> None:
        self._faults += self._gateway._faults.take(accept=accept)
        # Only a fault at "accept" can be there already: it keeps the gateway from listening.
        self._deaf = accept and bool(self._faults)

    def _opened(self, link: Link) -> None:
        """The TCP connection is there, and TLS where there is TLS."""
        self._link = link
        if self._deaf:
            self._gateway._register(self)
            self._step("accept", lambda: None)

    def _count_sent(self, size: int) -> None:
        self.bytes_sent += size
        self._gateway.bytes_sent += size

    def _receive(self, data: bytes) -> None:
        """Take bytes from the client."""
        self.bytes_received += len(data)
        self._gateway.bytes_received += len(data)
        if self._deaf:
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
            self._respond(http.make_response(400, b"the local gateway answers GET only\n", {}))
        self._pump()

    def _request(self, request: Request) -> None:
        self._requested = True
        self.headers = {name.lower(): value for name, value in request.headers.raw_items()}
        if self.headers.get("upgrade", "").lower() != "websocket":
            self._respond(http.answer(self._gateway, request))
            return
        self.url = request.path
        self.query = dict(parse_qsl(urlsplit(request.path).query, keep_blank_values=True))
        self._take_faults(accept=False)
        self._gateway._register(self)
        self._step("upgrade", lambda: self._upgrade(request))

    def _respond(self, response: Response) -> None:
        """Answer with plain HTTP and end the connection."""
        if self._link is not None:
            self._link.write(response.serialize())
            self._link.finish()

    def _upgrade(self, request: Request) -> None:
        self._protocol.send_response(self._protocol.accept(request))
        self._pump()
        if not self.is_open:
            return
        problem = self._check_query()
        if problem is not None:
            self._close(CloseCode.INVALID_API_VERSION, problem)
            return
        self._step("hello", self._hello)

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
                return "compress=zstd-stream: pip install shardlib[zstd] for the local gateway"
            self.compression = compression
        return None

    def _hello(self) -> None:
        interval = self._gateway.heartbeat_interval
        self._send_op(Opcode.HELLO, {"heartbeat_interval": interval, "_trace": ["local-gateway"]})
        self._beat_at = self._gateway.clock()
        self._watch_heartbeats()

    def _watch_heartbeats(self) -> None:
        """Close the connection when no heartbeat has come in time; look again when one is due."""
        if not self.is_open:
            return
        gateway = self._gateway
        patience = gateway.heartbeat_interval / 1000 + gateway.heartbeat_tolerance
        left = self._beat_at + patience - gateway.clock()
        if left <= 0:
            # 4000: of the documented codes, one that leaves the session to be resumed.
            self._close(CloseCode.UNKNOWN_ERROR, "no heartbeat came in time")
        else:
            gateway._call_later(left, self._watch_heartbeats)

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
                    commands.receive(self, message)

    def _closing(self) -> None:
        """A CLOSE frame came, either the client's own or its answer to the gateway's."""
        closed: Close | None = self._protocol.close_rcvd
        assert closed is not None
        self.close_code, self.close_reason = closed.code, closed.reason
        # Only a close that the client began says what it wants of the session.
        begun = self._protocol.close_rcvd_then_sent
        if begun and closed.code in (1000, 1001) and self.session is not None:
            self.session._end(f"closed with {closed.code}")
            self.session = None
        # The answer, and the end of the connection, stand ready in the protocol.
        answer = self._protocol.data_to_send()
        self._step("close", lambda: self._carry_out(answer))
        self._gateway._changed.notify_all()

    def _close(self, code: int | None, reason: str = "") -> None:
        if not self.is_open:
            return
        self._protocol.send_close(code, reason)
        self._pump()
        if code in (CloseCode.INVALID_SEQ, CloseCode.SESSION_TIMED_OUT) and self.session:
            self.session._end(f"closed with {code}")
            self.session = None
        self._gateway._call_later(self._gateway.close_timeout, self.drop)

    def _send_event(self, name: str, sequence: int, data: bytes) -> None:
        if self.is_open:
            self._send_text(b'{"t":"%s","s":%d,"op":0,"d":%s}' % (name.encode(), sequence, data))

    def _send_op(self, opcode: int, data: Any) -> None:
        if self.is_open:
            self._send_text(b'{"t":null,"s":null,"op":%d,"d":%s}' % (opcode, encode(data)))

    def _send_text(self, text: bytes) -> None:
        """Send the JSON text of one payload."""
        message = self._deflater.deflate(text)
        if self._message_size is None and self._fragment_size is None:
            if message.binary:
                self._protocol.send_binary(message.data)
            else:
                self._protocol.send_text(message.data)
        else:
            self._send_in_pieces(message)
        self._pump()

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
        if self._link is None:
            return
        for data in writes:
            if data:
                self._link.write(data)
            else:
                self._link.finish()

    def _lost(self) -> None:
        """The TCP connection is over."""
        self._link = None
        self.closed_at = time.monotonic()
        self._left_out.clear()
        # Connections are remembered; a compressor takes a quarter of a megabyte.
        self._deflater = PlainText()
        if self.session is not None and self.session.connection is self:
            self.session._leave()
        self._gateway._changed.notify_all()


def _pieces(data: bytes, size: int | None) -> list[bytes]:
    """Cut ``data``, with the last four bytes in a piece of their own where it is cut at all."""
    if size is None or len(data) <= 4:
        return [data]
    body, suffix = data[:-4], data[-4:]
    return [*(body[at : at + size] for at in range(0, len(body), size)), suffix]
