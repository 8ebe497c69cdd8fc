"""What tests hold in their hands: connections, their sessions, and what clients sent."""

from __future__ import annotations

import struct
import time
from collections import deque
from typing import Any

from shardlib.gateway import Intents, Opcode
from shardlib.testing import http
from shardlib.testing.compression import Message
from shardlib.testing.driver import ConnectionDriver
from shardlib.testing.events import Event
from shardlib.testing.payloads import encode, name_of
from shardlib.testing.session import Session
from shardlib.testing.thread import GatewayThread

#: How many received payloads the gateway remembers.
_HISTORY = 20_000


class ReceivedPayload(dict[str, Any]):
    """A payload a client sent: the decoded JSON object, and when and where it arrived."""

    __slots__ = ("connection", "time")

    def __init__(self, payload: dict[str, Any], connection: GatewayConnection) -> None:
        super().__init__(payload)
        #: The connection it came on.
        self.connection = connection
        #: :func:`time.monotonic` at its arrival, in seconds.
        self.time = time.monotonic()


class _Received:
    """A payload in the inbox, and who has been given it."""

    __slots__ = ("_returned_by", "payload")

    def __init__(self, payload: ReceivedPayload) -> None:
        self.payload = payload
        self._returned_by: tuple[GatewayConnection | None, ...] = ()

    def return_to(self, caller: GatewayConnection | None) -> bool:
        """Return whether this is the first time that this caller is given the payload."""
        if caller in self._returned_by:
            return False
        self._returned_by = (*self._returned_by, caller)
        return True


class Inbox:
    """The payloads of all clients, the last 20,000 of them; the gateway's lock guards it.

    It is one for all connections, and bounded, so that memory stays flat however many connections
    beat for however long.
    """

    def __init__(self) -> None:
        self._all: deque[_Received] = deque(maxlen=_HISTORY)

    def add(self, payload: dict[str, Any], connection: GatewayConnection) -> None:
        """Remember a payload that has just arrived."""
        self._all.append(_Received(ReceivedPayload(payload, connection)))

    def sent_on(self, connection: GatewayConnection) -> list[ReceivedPayload]:
        """Return the payloads that came on a connection, oldest first."""
        return [each.payload for each in self._all if each.payload.connection is connection]

    def take(self, opcode: int, connection: GatewayConnection | None) -> ReceivedPayload | None:
        """Return the next payload with an opcode, or None; each is returned once for each caller.

        :param opcode: the payload's ``op``.
        :param connection: whose ``expect()`` asks; None for the gateway's.
        """
        for each in self._all:
            payload = each.payload
            if (
                payload.get("op") == opcode
                and (connection is None or payload.connection is connection)
                and each.return_to(connection)
            ):
                return payload
        return None


class GatewaySession:
    """One session: begun by Identify, carried on by Resume, replayed from what it keeps.

    The gateway makes it; read its attributes freely.
    """

    def __init__(self, session: Session, thread: GatewayThread) -> None:
        self._session = session
        self._thread = thread

    def __repr__(self) -> str:
        state = self.ended or ("connected" if self.connection else "away")
        return f"<GatewaySession {self.session_id} shard={self.shard} s={self.sequence} {state}>"

    @property
    def session_id(self) -> str:
        """What READY calls ``session_id``."""
        return self._session.session_id

    @property
    def identify(self) -> dict[str, Any]:
        """The data of the Identify that began it."""
        return self._session.identify

    @property
    def intents(self) -> Intents:
        """The intents of that Identify."""
        return self._session.intents

    @property
    def shard(self) -> tuple[int, int]:
        """``(shard_id, num_shards)``; ``(0, 1)`` if Identify named none."""
        return self._session.shard

    @property
    def connection(self) -> GatewayConnection | None:
        """The connection it lives on now; None while its client is away."""
        carrier = self._session.carrier
        connection: GatewayConnection | None = None if carrier is None else carrier.handle
        return connection

    @property
    def sequence(self) -> int:
        """The sequence of the last event issued."""
        return self._session.sequence

    @property
    def resumes(self) -> int:
        """How often it was resumed."""
        return self._session.resumes

    @property
    def presence(self) -> dict[str, Any] | None:
        """The last presence its client set, by Identify or Presence Update; or None."""
        return self._session.presence

    @property
    def ended(self) -> str | None:
        """Why it is over ("closed with 1000", ...); None while it may be resumed."""
        return self._session.ended

    def dispatch(self, event: str, data: Any) -> int:
        """Send an event to this session alone, whatever its intents; return its sequence.

        While its client is away, the event waits for the replay.

        :param event: its name, as ``MESSAGE_CREATE``.
        :param data: its ``d``.
        :raises TypeError: if ``data`` holds something that JSON cannot express.
        :raises ValueError: if ``data`` holds NaN or an infinity.
        """
        text = encode(data)
        with self._thread.lock:
            return self._session.issue(event, text)

    def wants(self, event: Event) -> bool:
        """Return whether intents and shard let an event through.

        :param event: the event.
        """
        return self._session.wants(event)


class GatewayConnection:
    """One connection to a :class:`~shardlib.testing.LocalGateway`.

    The gateway makes it when a client asks for a WebSocket, or when a fault takes hold of a
    client before that. Every method may be called from any thread. Only a method with a
    ``timeout`` waits for the client.

    Sending on a connection that is over raises :exc:`ConnectionError`; ending one that is
    over does nothing.
    """

    def __init__(self, driver: ConnectionDriver, thread: GatewayThread, inbox: Inbox) -> None:
        self._driver = driver
        self._thread = thread
        self._inbox = inbox

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "open" if self.is_open else "opening"
        return f"<GatewayConnection {self.url or '(no request yet)'} {state}>"

    # What the client did.

    @property
    def at_resume_url(self) -> bool:
        """Whether the client came to :attr:`LocalGateway.resume_url`."""
        return self._driver.at_resume_url

    @property
    def url(self) -> str:
        """Path and query as the client asked for them; "" while it has not."""
        return self._driver.url

    @property
    def query(self) -> dict[str, str]:
        """The query: ``v``, ``encoding``, ``compress`` and whatever else it has."""
        return self._driver.query

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the client's request, names in lower case."""
        return self._driver.headers

    @property
    def version(self) -> int:
        """The API version asked for."""
        return self._driver.version

    @property
    def compression(self) -> str | None:
        """ "zlib-stream", "zstd-stream", "payload" (once Identify asked for it) or None."""
        return self._driver.compression

    @property
    def session(self) -> GatewaySession | None:
        """The session it carries, once there is one."""
        session = self._driver.session
        handle: GatewaySession | None = None if session is None else session.handle
        return handle

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket is open: 101 was sent, and no CLOSE either way."""
        return self._driver.is_open

    @property
    def is_closed(self) -> bool:
        """Whether the TCP connection is over."""
        return self._driver.is_closed

    @property
    def close_code(self) -> int | None:
        """The code of the client's CLOSE frame; 1005 for a CLOSE without one; None for no CLOSE."""
        return self._driver.close_code

    @property
    def close_reason(self) -> str:
        """The reason of the client's CLOSE frame."""
        return self._driver.close_reason

    @property
    def opened_at(self) -> float:
        """:func:`time.monotonic` when it was accepted."""
        return self._driver.opened_at

    @property
    def closed_at(self) -> float | None:
        """:func:`time.monotonic` when it was over."""
        return self._driver.closed_at

    @property
    def bytes_received(self) -> int:
        """Bytes from the client, below WebSocket and above TLS."""
        return self._driver.byte_count.received

    @property
    def bytes_sent(self) -> int:
        """Bytes to the client, below WebSocket and above TLS."""
        return self._driver.byte_count.sent

    @property
    def received(self) -> list[ReceivedPayload]:
        """The payloads the client sent, oldest first.

        The gateway remembers the last 20,000 of all its connections.
        """
        with self._thread.lock:
            return self._inbox.sent_on(self)

    def expect(self, opcode: int, timeout: float = 5.0) -> ReceivedPayload:
        """Wait for the next payload with this opcode, and return it.

        Each payload is returned once; payloads with other opcodes wait for their own call.

        :param opcode: the payload's ``op``.
        :param timeout: seconds.
        :raises TimeoutError: if none came in time.
        :raises ConnectionError: if the connection ended first.
        """

        def look() -> ReceivedPayload | None:
            payload = self._inbox.take(opcode, self)
            if payload is None and self.is_closed:
                raise ConnectionError(
                    f"{self} ended (close code {self.close_code}) without {name_of(opcode)}"
                )
            return payload

        return self._thread.wait(look, timeout, f"{name_of(opcode)} on {self}")

    def wait_until_ready(self, timeout: float = 5.0) -> GatewaySession:
        """Wait until READY or RESUMED was sent on this connection; return the session.

        :param timeout: seconds.
        :raises TimeoutError: if it did not come to that in time.
        :raises ConnectionError: if the connection ended first.
        """

        def look() -> GatewaySession | None:
            if self.session is None and self.is_closed:
                raise ConnectionError(f"{self} ended before it was ready")
            return self.session

        return self._thread.wait(look, timeout, f"a session on {self}")

    def wait_closed(self, timeout: float = 5.0) -> int | None:
        """Wait until the TCP connection is over; return :attr:`close_code`.

        :param timeout: seconds.
        :raises TimeoutError: if it is not over in time.
        """
        self._thread.wait(lambda: self.is_closed, timeout, f"the end of {self}")
        return self.close_code

    # What the gateway does.

    @property
    def acknowledge(self) -> bool:
        """False keeps the gateway from acknowledging heartbeats; it may be set."""
        return self._driver.acknowledges

    @acknowledge.setter
    def acknowledge(self, enabled: bool) -> None:
        self._driver.acknowledge_heartbeats(enabled)

    def send(self, payload: dict[str, Any]) -> None:
        """Send a payload, encoded and compressed as the client asked for.

        The session neither counts nor keeps it: use :meth:`GatewaySession.dispatch
        <shardlib.testing.GatewaySession.dispatch>` for events that can be resumed.

        :param payload: what is sent, as it is.
        :raises TypeError: if ``payload`` holds something that JSON cannot express.
        :raises ValueError: if ``payload`` holds NaN or an infinity.
        """
        self.send_compressed(encode(payload))

    def send_raw(self, message: bytes | str) -> None:
        """Send one WebSocket message as it stands.

        :param message: bytes for a binary message, str for a text message.
        """
        binary = not isinstance(message, str)
        data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message
        with self._thread.lock:
            self._driver.require_open()
            self._driver.send_message(Message(binary, data))

    def send_compressed(self, text: bytes | str) -> None:
        """Send any text, compressed as the client asked for.

        :param text: JSON or not.
        """
        with self._thread.lock:
            self._driver.require_open()
            self._driver.send_text(text.encode() if isinstance(text, str) else text)

    def send_corrupt(self) -> None:
        """Send a message that no decompressor can read; it ends as a zlib-stream message does."""
        self.send_raw(b"\xde\xad\xbe\xef\x00\x00\xff\xff")

    def send_bomb(self, size: int) -> None:
        """Send an event that compresses a thousand to one.

        :param size: of its data, in bytes.
        """
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
            forbidden, as is a control frame (8 and up) of more than 125 bytes or not ``fin``.
        :param data: what the frame carries.
        :param fin: whether it is the last of its message.
        :param masked: whether it is masked, as a server must not.
        :param reserved: whether its first reserved bit is set, as no extension allows.
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
        """Send bytes below WebSocket.

        :param data: torn frames, or garbage in the place of a frame or of 101.
        """
        with self._thread.lock:
            self._driver.send_bytes(data)

    def request_heartbeat(self) -> None:
        """Ask for a heartbeat at once (op 1)."""
        self.send({"t": None, "s": None, "op": Opcode.HEARTBEAT, "d": None})

    def reconnect(self) -> None:
        """Ask the client to reconnect and resume (op 7)."""
        self.send({"t": None, "s": None, "op": Opcode.RECONNECT, "d": None})

    def invalid_session(self, resumable: bool = False) -> None:
        """Tell the client that its session is invalid (op 9).

        The connection has no session from then on. The client may Resume (if it may) or
        Identify on another, as it should, or on this one, as some do.

        :param resumable: what ``d`` is; False ends the session.
        """
        with self._thread.lock:
            self._driver.require_open()
            self._driver.send_op(Opcode.INVALID_SESSION, resumable)
            session = self._driver.detach()
            if session is not None and resumable:
                session.leave()
            elif session is not None:
                session.end("invalidated")

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Begin the closing handshake, as the gateway does when something is wrong.

        The session may be resumed afterwards, unless ``code`` is 4007 or 4009, which say that
        it may not.

        :param code: None for a CLOSE frame without one.
        :param reason: what the CLOSE frame says.
        """
        with self._thread.lock:
            self._driver.close(code, reason)

    def drop(self) -> None:
        """End the TCP connection without a CLOSE frame (FIN)."""
        with self._thread.lock:
            self._driver.drop()

    def linger(self, seconds: float | None = None) -> None:
        """Leave TCP open after the closing handshake, from now on.

        CLOSE frames are answered as always, but ending TCP is left to the client; :meth:`drop`
        and :meth:`reset` still end it.

        :param seconds: how long the gateway waits for the client to end TCP, by its clock; None:
            for ever.
        :raises ValueError: if ``seconds`` is negative.
        """
        if seconds is not None and seconds < 0:
            raise ValueError(f"seconds must be 0 or more, or None for ever, not {seconds}")
        with self._thread.lock:
            self._driver.linger(seconds)

    def reset(self) -> None:
        """Reset the TCP connection (RST); what was not yet sent is lost."""
        with self._thread.lock:
            self._driver.reset()

    def freeze(self) -> None:
        """Neither read nor send from now on, with the connection left open: a black hole."""
        with self._thread.lock:
            self._driver.freeze(reading=True, writing=True)

    def stop_reading(self) -> None:
        """Read nothing from now on, but go on sending: the client's sends fill the buffers."""
        with self._thread.lock:
            self._driver.freeze(reading=True, writing=False)

    def thaw(self) -> None:
        """Undo :meth:`freeze` and :meth:`stop_reading`; what was held back is sent."""
        with self._thread.lock:
            self._driver.thaw()

    def slow(self, bytes_per_second: float) -> None:
        """Send slowly from now on.

        :param bytes_per_second: send no faster than this.
        :raises ValueError: if it is not positive.
        """
        if bytes_per_second <= 0:
            raise ValueError(f"bytes_per_second must be above 0, not {bytes_per_second}")
        with self._thread.lock:
            self._driver.slow(bytes_per_second)

    def split_messages(self, size: int) -> None:
        """Cut what is sent from now on into small WebSocket messages.

        Only zlib-stream knows where such a payload ends; with ``size`` 4 the last message of
        each payload is its suffix alone.

        :param size: bytes of a message at most.
        :raises ValueError: if it is less than 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        with self._thread.lock:
            self._driver.split_messages(size)

    def fragment_messages(self, size: int) -> None:
        """Cut what is sent from now on into WebSocket fragments, the last of them empty.

        :param size: bytes of a fragment at most.
        :raises ValueError: if it is less than 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        with self._thread.lock:
            self._driver.fragment_messages(size)

    def refuse(self, status: int, body: str = "", headers: dict[str, str] | None = None) -> None:
        """Answer the client's request with an HTTP error; meant to stand in for "upgrade".

        :param status: the HTTP status.
        :param body: the body of the answer.
        :param headers: more headers, or others than the gateway's own.
        """
        with self._thread.lock:
            self._driver.respond(http.make_response(status, body.encode(), headers or {}))

    def accept_wrongly(self) -> None:
        """Answer 101 with a wrong ``Sec-WebSocket-Accept``; meant to stand in for "upgrade"."""
        self.send_bytes(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: bm90IHRoZSBrZXkgeW91IHNlbnQ=\r\n\r\n"
        )

    def proceed(self, after: float = 0.0) -> None:
        """Make up for the steps that a fault's ``instead_of`` has left out by then.

        Called by the fault's action with ``after``, it delays the step::

            gateway.inject(lambda it: it.proceed(after=2), instead_of="replay")

        :param after: seconds to wait before, by the gateway's clock; nothing waits meanwhile.
        :raises ValueError: if ``after`` is negative.
        """
        if after < 0:
            raise ValueError(f"after must be 0 or more, not {after}")
        if after > 0:
            self._thread.call_later(after, self.proceed)
            return
        with self._thread.lock:
            self._driver.proceed()
