"""The objects through which tests see connections, sessions and the payloads that clients sent."""

from __future__ import annotations

import struct
import time
from collections import deque
from typing import Any

from shardlib.gateway import Intents, Opcode
from shardlib.testing.compression import Message
from shardlib.testing.driver import ConnectionDriver
from shardlib.testing.events import Event
from shardlib.testing.payloads import encode, opcode_name
from shardlib.testing.rest.response import Response
from shardlib.testing.session import IssuedEvent, Session
from shardlib.testing.thread import GatewayThread

#: Number of received payloads that the gateway keeps, over all its connections.
_MAX_REMEMBERED = 20_000


class ReceivedPayload(dict[str, Any]):
    """A payload that a client sent: the decoded JSON object, and when and where it arrived.

    The gateway makes the object.
    """

    __slots__ = ("connection", "time")

    def __init__(self, payload: dict[str, Any], connection: GatewayConnection) -> None:
        super().__init__(payload)
        #: The connection that the payload arrived on.
        self.connection = connection
        #: :func:`time.monotonic` when the payload arrived, in seconds.
        self.time = time.monotonic()


class _InboxEntry:
    """A payload in the inbox, and the callers whose ``expect()`` has returned the payload.

    :param payload: the payload.
    """

    __slots__ = ("_returned_by", "payload")

    def __init__(self, payload: ReceivedPayload) -> None:
        self.payload = payload
        # A caller is a connection, or None for the gateway. A tuple, since few payloads are ever
        # asked for, and an empty tuple takes no memory.
        self._returned_by: tuple[GatewayConnection | None, ...] = ()

    def mark_returned(self, caller: GatewayConnection | None) -> bool:
        """Record that a caller's ``expect()`` returns the payload.

        :param caller: the connection, or None for the gateway.
        :returns: False if the caller has returned the payload before.
        """
        if caller in self._returned_by:
            return False
        self._returned_by = (*self._returned_by, caller)
        return True


class Inbox:
    """The newest payloads of all clients. The callers hold the gateway's lock.

    All connections share one bounded inbox. If each connection kept its own payloads, the
    heartbeats of a gateway that runs for days would fill the memory.
    """

    def __init__(self) -> None:
        self._entries: deque[_InboxEntry] = deque(maxlen=_MAX_REMEMBERED)

    def add(self, payload: dict[str, Any], connection: GatewayConnection) -> None:
        """Keep a payload that has just arrived, in place of the oldest if the inbox is full.

        :param payload: the decoded payload.
        :param connection: the connection that the payload arrived on.
        """
        self._entries.append(_InboxEntry(ReceivedPayload(payload, connection)))

    def received_on(self, connection: GatewayConnection) -> list[ReceivedPayload]:
        """Return the payloads that arrived on a connection, oldest first.

        :param connection: the connection.
        """
        return [entry.payload for entry in self._entries if entry.payload.connection is connection]

    def take(self, opcode: int, connection: GatewayConnection | None) -> ReceivedPayload | None:
        """Return the oldest payload with an opcode that the caller has not been given before.

        :param opcode: the payload's ``op``.
        :param connection: the connection whose ``expect()`` calls, which gets the payloads of
            that connection only; None if the gateway's ``expect()`` calls.
        :returns: the payload; None if no such payload is left for this caller.
        """
        for entry in self._entries:
            payload = entry.payload
            if (
                payload.get("op") == opcode
                and (connection is None or payload.connection is connection)
                and entry.mark_returned(connection)
            ):
                return payload
        return None


class GatewaySession:
    """One session at the gateway: begun by an Identify, continued by any number of Resumes.

    The gateway makes the object. The attributes are read-only, and any thread may read them.
    """

    def __init__(self, session: Session, thread: GatewayThread) -> None:
        self._session = session
        self._thread = thread

    def __repr__(self) -> str:
        state = self.ended or ("connected" if self.connection else "away")
        return f"<GatewaySession {self.session_id} shard={self.shard} s={self.sequence} {state}>"

    @property
    def session_id(self) -> str:
        """The session's id, READY's ``session_id``."""
        return self._session.session_id

    @property
    def identify(self) -> dict[str, Any]:
        """The ``d`` of the Identify that began the session."""
        return self._session.identify

    @property
    def intents(self) -> Intents:
        """The intents by which the session gets its events: those of its Identify.

        Below version 8 of the API an Identify may leave them out, and gets every event that the
        bot's settings allow. Below version 10 ``MESSAGE_CONTENT`` is added if it is switched on.
        """
        return self._session.intents

    @property
    def shard(self) -> tuple[int, int]:
        """``(shard_id, num_shards)``; ``(0, 1)`` if the Identify has no ``shard``."""
        return self._session.shard

    @property
    def connection(self) -> GatewayConnection | None:
        """The connection that carries the session; None while the client is disconnected."""
        carrier = self._session.carrier
        connection: GatewayConnection | None = None if carrier is None else carrier.handle
        return connection

    @property
    def sequence(self) -> int:
        """The sequence of the newest event of the session, sent or kept for a Resume."""
        return self._session.sequence

    @property
    def resumes(self) -> int:
        """How often the client has resumed the session."""
        return self._session.resumes

    @property
    def presence(self) -> dict[str, Any] | None:
        """The last presence that the client set, by Identify or Presence Update; or None."""
        return self._session.presence

    @property
    def ended(self) -> str | None:
        """Why the session has ended ("closed with 1000", "lost", ...).

        None while the session is connected or a Resume may succeed.
        """
        return self._session.ended

    @property
    def history(self) -> list[IssuedEvent]:
        """All events that the gateway has issued to the session, READY and RESUMED included.

        The events are in the order of their sequences, and remain after the end of the session.

        :raises ValueError: if the gateway kept no history when the session began.
        """
        with self._thread.lock:
            if self._session.history is None:
                raise ValueError(
                    "this gateway kept no history when the session began; make the gateway with "
                    "keep_history=True"
                )
            return list(self._session.history)

    def dispatch(self, event: str, data: Any) -> int:
        """Send an event to this session alone, whatever the session's intents.

        If the client is disconnected, the gateway keeps the event, and sends the event when the
        client resumes.

        :param event: the event's name, for instance ``MESSAGE_CREATE``.
        :param data: the event's ``d``.
        :returns: the event's sequence.
        :raises TypeError: if ``data`` holds something that JSON cannot express.
        :raises ValueError: if ``data`` holds NaN or an infinity.
        """
        text = encode(data)
        with self._thread.lock:
            return self._session.issue(event, text)

    def wants(self, event: Event) -> bool:
        """Return whether an event belongs to the session's intents and to its shard.

        :param event: the event.
        """
        return self._session.wants(event)


class GatewayConnection:
    """One connection to a :class:`~shardlib.testing.LocalGateway`.

    The gateway makes the object when a client asks for a WebSocket, or when a fault strikes at
    another step. Any thread may call the methods. Only a method with a ``timeout`` waits for the
    client.

    After the connection has ended, a method that sends raises :exc:`ConnectionError`, and a method
    that ends the connection does nothing.
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
        """Whether the client connected to :attr:`LocalGateway.resume_url`."""
        return self._driver.at_resume_url

    @property
    def url(self) -> str:
        """Path and query of the client's request; "" before the request has arrived."""
        return self._driver.url

    @property
    def query(self) -> dict[str, str]:
        """The query of the client's request: ``v``, ``encoding``, ``compress`` and any others."""
        return self._driver.query

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the client's request, names in lower case."""
        return self._driver.headers

    @property
    def version(self) -> int:
        """The API version that the client asked for."""
        return self._driver.version

    @property
    def compression(self) -> str | None:
        """The kind of compression that the client asked for.

        "zlib-stream", "zstd-stream", or "payload" after an Identify has asked for payload
        compression; None for no compression.
        """
        return self._driver.compression

    @property
    def session(self) -> GatewaySession | None:
        """The session that this connection carries; None before READY or RESUMED was sent."""
        session = self._driver.session
        handle: GatewaySession | None = None if session is None else session.handle
        return handle

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket is open: 101 was sent, and neither side has sent CLOSE."""
        return self._driver.is_open

    @property
    def is_closed(self) -> bool:
        """Whether the TCP connection has ended."""
        return self._driver.is_closed

    @property
    def close_code(self) -> int | None:
        """The code of the client's CLOSE frame.

        1005 for a CLOSE frame without a code; None if the client has sent no CLOSE frame.
        """
        return self._driver.close_code

    @property
    def close_reason(self) -> str:
        """The reason of the client's CLOSE frame."""
        return self._driver.close_reason

    @property
    def opened_at(self) -> float:
        """:func:`time.monotonic` when the gateway accepted the connection, in seconds."""
        return self._driver.opened_at

    @property
    def closed_at(self) -> float | None:
        """:func:`time.monotonic` when the TCP connection ended, in seconds; None before."""
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
        """The payloads that the client sent on this connection, oldest first.

        The gateway remembers the last 20,000 payloads of all its connections together.
        """
        with self._thread.lock:
            return self._inbox.received_on(self)

    def expect(self, opcode: int, timeout: float = 10.0) -> ReceivedPayload:
        """Wait for the next payload with an opcode on this connection, and return the payload.

        The method returns each payload once, and keeps payloads with other opcodes for later calls.

        :param opcode: the payload's ``op``.
        :param timeout: seconds to wait.
        :raises TimeoutError: if no such payload arrived in time.
        :raises ConnectionError: if the connection ended first.
        """

        def take() -> ReceivedPayload | None:
            payload = self._inbox.take(opcode, self)
            if payload is None and self.is_closed:
                raise ConnectionError(
                    f"{self} ended (close code {self.close_code}) without {opcode_name(opcode)}"
                )
            return payload

        return self._thread.wait(take, timeout, f"{opcode_name(opcode)} on {self}")

    def wait_until_ready(self, timeout: float = 10.0) -> GatewaySession:
        """Wait until READY or RESUMED was sent on this connection; return the session.

        :param timeout: seconds to wait.
        :raises TimeoutError: if neither READY nor RESUMED was sent in time.
        :raises ConnectionError: if the connection ended first.
        """

        def find_session() -> GatewaySession | None:
            if self.session is None and self.is_closed:
                raise ConnectionError(f"{self} ended before READY or RESUMED")
            return self.session

        return self._thread.wait(find_session, timeout, f"a session on {self}")

    def wait_closed(self, timeout: float = 10.0) -> int | None:
        """Wait until the TCP connection has ended; return :attr:`close_code`.

        :param timeout: seconds to wait.
        :raises TimeoutError: if the TCP connection did not end in time.
        """
        self._thread.wait(lambda: self.is_closed, timeout, f"the end of {self}")
        return self.close_code

    # What the gateway does.

    @property
    def acknowledge(self) -> bool:
        """Whether the gateway acknowledges heartbeats; set to False to stop acknowledging."""
        return self._driver.acknowledges

    @acknowledge.setter
    def acknowledge(self, enabled: bool) -> None:
        self._driver.acknowledge_heartbeats(enabled)

    def send(self, payload: dict[str, Any]) -> None:
        """Send a payload, encoded as JSON and compressed as the client asked for.

        The session neither counts nor keeps the payload. Use :meth:`GatewaySession.dispatch
        <shardlib.testing.GatewaySession.dispatch>` for an event that a Resume replays.

        :param payload: the whole payload, with ``op``, ``d``, ``s`` and ``t``.
        :raises TypeError: if ``payload`` holds something that JSON cannot express.
        :raises ValueError: if ``payload`` holds NaN or an infinity.
        :raises ConnectionError: if the WebSocket is not open.
        """
        self.send_compressed(encode(payload))

    def send_raw(self, message: bytes | str) -> None:
        """Send one WebSocket message, uncompressed.

        :param message: the message's content: bytes for a binary message, str for a text message.
        :raises ConnectionError: if the WebSocket is not open.
        """
        binary = not isinstance(message, str)
        data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else message
        with self._thread.lock:
            self._driver.require_open()
            self._driver.send_message(Message(binary, data))

    def send_compressed(self, text: bytes | str) -> None:
        """Send any text, compressed as the client asked for.

        :param text: the text, JSON or not; bytes are sent as UTF-8, valid or not.
        :raises ConnectionError: if the WebSocket is not open.
        """
        with self._thread.lock:
            self._driver.require_open()
            self._driver.send_text(text.encode() if isinstance(text, str) else text)

    def send_corrupt(self) -> None:
        """Send a message that no client can inflate; its suffix is that of a zlib-stream message.

        :raises ConnectionError: if the WebSocket is not open.
        """
        self.send_raw(b"\xde\xad\xbe\xef\x00\x00\xff\xff")

    def send_bomb(self, size: int) -> None:
        """Send an event whose data compresses a thousand to one.

        :param size: bytes of the event's data, inflated.
        :raises ConnectionError: if the WebSocket is not open.
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

        RFC 6455 forbids other opcodes than those below, and a control frame (opcode 8 and up) of
        more than 125 bytes or without ``fin``. This method sends them nevertheless.

        :param opcode: 0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong; any number from 0
            to 15.
        :param data: the frame's payload.
        :param fin: whether the frame is the last of its message.
        :param masked: whether the frame is masked; a server must not mask.
        :param reserved: whether the first reserved bit is set; only an extension may set the bit,
            and the gateway has negotiated none.
        :raises ValueError: if ``opcode`` is not 0 to 15.
        :raises ConnectionError: if the TCP connection has ended.
        """
        if not 0 <= opcode <= 15:
            raise ValueError(
                f"opcode must be 0 to 15, not {opcode}: a frame has four bits for the opcode"
            )
        first_byte = (0x80 if fin else 0) | (0x40 if reserved else 0) | opcode
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", first_byte, size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", first_byte, 126, size)
        else:
            head = struct.pack("!BBQ", first_byte, 127, size)
        if masked:
            # A mask of zeros leaves the data as it is.
            head = bytes((head[0], head[1] | 0x80)) + head[2:] + bytes(4)
        self.send_bytes(head + data)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes that the gateway does not wrap into a WebSocket frame.

        :param data: the bytes, for instance half a frame, or garbage in place of 101.
        :raises ConnectionError: if the TCP connection has ended.
        """
        with self._thread.lock:
            self._driver.send_bytes(data)

    def request_heartbeat(self) -> None:
        """Ask the client for a heartbeat at once (op 1).

        :raises ConnectionError: if the WebSocket is not open.
        """
        self.send({"t": None, "s": None, "op": Opcode.HEARTBEAT, "d": None})

    def reconnect(self) -> None:
        """Ask the client to reconnect and resume (op 7).

        :raises ConnectionError: if the WebSocket is not open.
        """
        self.send({"t": None, "s": None, "op": Opcode.RECONNECT, "d": None})

    def invalid_session(self, resumable: bool = False) -> None:
        """Tell the client that its session is invalid (op 9).

        Afterwards the connection carries no session. The client should Resume (if the session is
        resumable) or Identify on a new connection. The gateway accepts both on this connection,
        too, because some clients do not reconnect.

        :param resumable: the payload's ``d``; False ends the session.
        :raises ConnectionError: if the WebSocket is not open.
        """
        with self._thread.lock:
            self._driver.require_open()
            self._driver.invalidate(resumable)
            session = self._driver.detach()
            if session is not None and resumable:
                session.leave()
            elif session is not None:
                session.end("invalidated")
            self._thread.notify()

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Begin the closing handshake: send a CLOSE frame.

        The client may resume the session afterwards, unless ``code`` is 4007 or 4009, which end
        the session. To send a CLOSE frame that RFC 6455 forbids, use :meth:`send_frame`.

        :param code: the close code; None for a CLOSE frame without a code.
        :param reason: the reason in the CLOSE frame, at most 123 bytes of UTF-8.
        :raises ValueError: if RFC 6455 forbids ``code`` in a CLOSE frame, if ``reason`` is too
            long, or if ``reason`` is given without ``code``.
        """
        with self._thread.lock:
            self._driver.close(code, reason)

    def drop(self) -> None:
        """End the TCP connection without a CLOSE frame (FIN)."""
        with self._thread.lock:
            self._driver.drop()

    def linger(self, seconds: float | None = None) -> None:
        """Leave the TCP connection open after the closing handshake.

        The gateway answers a CLOSE frame as always, but leaves ending TCP to the client.
        :meth:`drop` and :meth:`reset` still end the TCP connection.

        :param seconds: how many seconds, by the gateway's clock, the gateway waits for the client
            to end TCP; None to wait for ever.
        :raises ValueError: if ``seconds`` is negative.
        """
        if seconds is not None and seconds < 0:
            raise ValueError(f"seconds must be 0 or more, or None for ever, not {seconds}")
        with self._thread.lock:
            self._driver.linger(seconds)

    def reset(self) -> None:
        """Reset the TCP connection (RST). The gateway discards the bytes not yet sent."""
        with self._thread.lock:
            self._driver.reset()

    def freeze(self) -> None:
        """Stop reading and sending, but leave the connection open, as a server that hangs does."""
        with self._thread.lock:
            self._driver.freeze(reading=True, writing=True)

    def stop_reading(self) -> None:
        """Stop reading, but go on sending, so that the client's data fills the socket buffers."""
        with self._thread.lock:
            self._driver.freeze(reading=True, writing=False)

    def thaw(self) -> None:
        """Undo :meth:`freeze` and :meth:`stop_reading`, and send the bytes held back meanwhile."""
        with self._thread.lock:
            self._driver.thaw()

    def slow(self, bytes_per_second: float) -> None:
        """Limit the rate at which the gateway sends.

        :param bytes_per_second: the highest rate in bytes a second, above 0.
        :raises ValueError: if ``bytes_per_second`` is not above 0.
        """
        if bytes_per_second <= 0:
            raise ValueError(f"bytes_per_second must be above 0, not {bytes_per_second}")
        with self._thread.lock:
            self._driver.slow(bytes_per_second)

    def split_messages(self, size: int) -> None:
        """Cut each later payload into small WebSocket messages.

        Only a client with zlib-stream can tell that such a payload ends: by its last four bytes,
        the zlib suffix. The gateway always sends these four bytes as a message of their own.

        :param size: the most bytes of any other message, 1 or more.
        :raises ValueError: if ``size`` is less than 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        with self._thread.lock:
            self._driver.split_messages(size)

    def fragment_messages(self, size: int) -> None:
        """Cut each later message into WebSocket fragments, the last of them empty.

        :param size: the most bytes of a fragment, 1 or more. The last four bytes of a message are
            always a fragment of their own.
        :raises ValueError: if ``size`` is less than 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        with self._thread.lock:
            self._driver.fragment_messages(size)

    def refuse(self, status: int, body: str = "", headers: dict[str, str] | None = None) -> None:
        """Answer the client's request with an HTTP error, in place of "upgrade" or "answer".

        :param status: the HTTP status code.
        :param body: the body of the response.
        :param headers: headers of the response, beside the gateway's own or in their place. A 429
            of Discord's always has ``Retry-After``, in seconds.
        """
        with self._thread.lock:
            self._driver.refuse(Response(status, body.encode(), headers or {}))

    def accept_wrongly(self) -> None:
        """Answer 101 with a wrong ``Sec-WebSocket-Accept``, in place of the step "upgrade".

        :raises ConnectionError: if the TCP connection has ended.
        """
        self.send_bytes(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: bm90IHRoZSBrZXkgeW91IHNlbnQ=\r\n\r\n"
        )

    def proceed(self, after: float = 0.0) -> None:
        """Take the steps that faults with ``instead_of`` have replaced so far.

        If a fault's action calls this method with ``after``, the fault delays the step::

            gateway.inject(lambda connection: connection.proceed(after=2), instead_of="replay")

        :param after: seconds, by the gateway's clock, until the gateway takes the steps, 0 or more.
            The call returns at once.
        :raises ValueError: if ``after`` is negative.
        """
        if after < 0:
            raise ValueError(f"after must be 0 or more, not {after}")
        if after > 0:
            self._thread.call_later(after, self.proceed)
            return
        with self._thread.lock:
            self._driver.proceed()
