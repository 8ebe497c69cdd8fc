"""A gateway on raw sockets, for peers that do what LocalGateway does not.

A script, an ordinary function, speaks to each client by hand, on a thread of its own::

    def script(peer: Peer) -> None:
        peer.begin()
        peer.close(4004, "no")

    with ScriptedGateway(script) as gateway:
        shard.connect(gateway.url)

When the script returns, a close frame that the client has sent is answered, and the connection is
closed. A script ends, too, when the client is gone; any other exception fails the test.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from shardlib.frames import FrameType
from shardlib.gateway import Opcode
from shardlib.testing import tls as certificates
from tests.support import wait_until

Payload = dict[str, Any]

# The answer of a server that agrees to a WebSocket, line by line; for :meth:`Peer.answer`.
SWITCHING = (
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Accept: {accept}",
)

_HANDSHAKE_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class ClientGone(ConnectionError):
    """The client has sent a close frame, or its connection has ended."""


class Received(NamedTuple):
    """A payload of the client's."""

    time: float  # time.monotonic() of its arrival
    payload: Payload


class Peer:
    """The server side of one connection. The script reads; any thread may send, except over TLS.

    :param number: 1 for the first client of its gateway.
    """

    def __init__(self, client: socket.socket, number: int) -> None:
        self.number = number
        self.accepted_at = time.monotonic()
        self.received: list[Received] = []
        #: The lines of the client's request, once the script has read it.
        self.request: list[str] = []
        #: What answers the Sec-WebSocket-Key of the request.
        self.accept_value = ""
        #: The client's Identify or Resume, once :meth:`greet` has seen it.
        self.opening: Payload | None = None
        #: The code of the client's close frame.
        self.close_code: int | None = None
        #: Of the last dispatch.
        self.sequence = 0
        self._socket = client
        self._unread = bytearray()
        self._sending = threading.Lock()  # keeps frames of the script and of the test whole
        self._has_closed = False

    # What every gateway does

    def begin(self, interval: float = 41_250) -> Payload:
        """Accept, say Hello, answer Identify with READY and Resume with RESUMED."""
        opening = self.greet(interval)
        if opening["op"] == Opcode.IDENTIFY:
            self.ready()
        else:
            self.resumed(opening["d"]["seq"])
        return opening

    def greet(self, interval: float = 41_250) -> Payload:
        """Accept and say Hello; return the Identify or Resume that follows."""
        self.accept()
        self.hello(interval)
        self.opening = self.expect(Opcode.IDENTIFY, Opcode.RESUME)
        return self.opening

    def serve(self) -> None:
        """Acknowledge heartbeats until the client is gone."""
        with contextlib.suppress(ConnectionError):
            self.expect()

    def expect(self, *opcodes: int) -> Payload:
        """Return the next payload with one of the opcodes; acknowledge the heartbeats before.

        :raises ClientGone: if the client goes first.
        """
        while True:
            payload = self.receive()
            if payload["op"] in opcodes:
                return payload
            if payload["op"] == Opcode.HEARTBEAT:
                self.acknowledge()

    def hello(self, interval: float = 41_250) -> None:
        """Send Hello.

        :param interval: milliseconds between heartbeats.
        """
        self.send({"op": Opcode.HELLO, "d": {"heartbeat_interval": interval}})

    def ready(self, session_id: str | None = None, resume_gateway_url: str | None = None) -> None:
        """Send READY, as the first event of a session."""
        self.sequence = 0
        data = {
            "v": 10,
            "user": {"id": "1", "username": "bot"},
            "guilds": [],
            "session_id": session_id or f"session-{self.number}",
            "resume_gateway_url": resume_gateway_url,
        }
        self.dispatch("READY", data)

    def resumed(self, sequence: int) -> None:
        """Send RESUMED, as the event after `sequence`."""
        self.dispatch("RESUMED", {}, sequence + 1)

    def dispatch(self, event: str, data: Any = None, sequence: int | None = None) -> None:
        """Send an event.

        :param sequence: None for the one after the last.
        """
        self.sequence = self.sequence + 1 if sequence is None else sequence
        self.send({"op": Opcode.DISPATCH, "t": event, "s": self.sequence, "d": data})

    def acknowledge(self) -> None:
        """Send a Heartbeat ACK."""
        self.send({"op": Opcode.HEARTBEAT_ACK})

    def close(self, code: int | None, reason: str = "") -> None:
        """Send a close frame; TCP stays open until the script returns."""
        self._has_closed = True
        payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
        self.send_frame(payload, FrameType.CLOSE)

    def linger(self) -> None:
        """Take what comes, without a word, until the client has ended TCP."""
        with contextlib.suppress(OSError):
            while self._socket.recv(65536):
                pass

    def reset(self) -> None:
        """Have the connection end with RST, once the script, which finds it ended, has returned."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.socket.shutdown(self._socket, socket.SHUT_RD)

    def sent(self, opcode: int) -> list[Received]:
        """What the client has sent with an opcode."""
        return [each for each in list(self.received) if each.payload["op"] == opcode]

    # HTTP and frames

    def accept(self, *headers: str) -> None:
        """Read the request and switch to WebSocket.

        :param headers: that the answer has besides those that it needs.
        """
        self.answer("".join(f"{line}\r\n" for line in [*SWITCHING, *headers, ""]))

    def refuse(self, status: str, *headers: str) -> None:
        """Read the request and answer with an error, ``"503 Service Unavailable"`` for example."""
        lines = [f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "Connection: close", ""]
        self.answer("".join(f"{line}\r\n" for line in lines))

    def answer(self, text: str) -> None:
        """Read the request and answer with a text.

        :param text: in Latin-1; ``{accept}`` in it stands for what answers the client's key.
        """
        key = self._read_request()
        self.accept_value = base64.b64encode(hashlib.sha1(key + _HANDSHAKE_KEY).digest()).decode()
        self.send_bytes(text.replace("{accept}", self.accept_value).encode("latin-1"))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def _read_request(self) -> bytes:
        """Read the request; return its Sec-WebSocket-Key."""
        while b"\r\n\r\n" not in self._unread:
            self._read_more()
        end = self._unread.index(b"\r\n\r\n") + 4
        lines = bytes(self._unread[:end]).split(b"\r\n")
        del self._unread[:end]
        self.request = [line.decode("latin-1") for line in lines]
        headers = dict(line.lower().split(b": ", 1) for line in lines if b": " in line)
        assert headers[b"upgrade"] == b"websocket"
        return next(line[19:] for line in lines if line.lower().startswith(b"sec-websocket-key: "))

    def send(self, payload: Payload) -> None:
        """Send a payload."""
        self.send_text(json.dumps(payload))

    def send_text(self, text: str) -> None:
        """Send a text message, whatever is in it."""
        self.send_frame(text.encode(), FrameType.TEXT)

    def send_frame(self, payload: bytes, frame_type: int) -> None:
        """Send a frame that is a whole message."""
        self.send_together((payload, frame_type))

    def send_together(self, *frames: tuple[bytes, int]) -> None:
        """Send frames in one piece, so that the client receives all of them at once.

        :param frames: payload and type of each.
        """
        data = b"".join(_frame(payload, frame_type) for payload, frame_type in frames)
        with self._sending:
            self._socket.sendall(data)

    def flood(self, payload: bytes, frame_type: int) -> None:
        """Send a frame again and again, and drop what comes, until the client has ended TCP."""
        data = _frame(payload, frame_type) * 10_000
        dropping = threading.Thread(target=self.linger, name="scripted-peer-drops", daemon=True)
        dropping.start()
        try:
            while True:
                self._socket.sendall(data)
        finally:
            self.end()
            dropping.join()

    def receive(self) -> Payload:
        """Return the client's next payload.

        :raises ClientGone: if there is none.
        """
        while True:
            frame_type, data = self._receive_frame()
            if frame_type == FrameType.CLOSE:
                self.close_code = int.from_bytes(data[:2], "big") if data else 1005
                raise ClientGone("the client has sent a close frame")
            if frame_type == FrameType.TEXT:
                payload: Payload = json.loads(data)
                self.received.append(Received(time.monotonic(), payload))
                return payload

    def _receive_frame(self) -> tuple[int, bytes]:
        first, second = self._read(2)
        assert first & 0x80 and second & 0x80, "a client sends whole messages, masked"
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        mask = self._read(4)
        data = self._read(size)
        return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))

    def _read(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._read_more()
        data = bytes(self._unread[:size])
        del self._unread[:size]
        return data

    def _read_more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ClientGone("the client has ended the connection")
        self._unread += data

    # For the gateway

    def run(self, script: Script) -> None:
        """Speak to the client; answer its close frame, if the script has not."""
        try:
            with contextlib.suppress(OSError):
                script(self)
            if self.close_code is not None and not self._has_closed:
                with contextlib.suppress(OSError):
                    self.close(self.close_code)
        finally:
            self._socket.close()

    def end(self) -> None:
        """Wake the script, which finds the connection ended."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # never through the TLS object


def _frame(payload: bytes, frame_type: int) -> bytes:
    """A frame that is a whole message."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | frame_type, size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | frame_type, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | frame_type, 127, size)
    return head + payload


Script = Callable[[Peer], object]


def well_behaved(peer: Peer) -> None:
    """The script of a gateway with which nothing is wrong."""
    peer.begin()
    peer.serve()


class ScriptedGateway:
    """Listens while its ``with`` block lasts, and runs a script for each client.

    :param script: called with the client's :class:`Peer`, on a thread of its own.
    :param tls: True for ``wss``; clients trust it with :attr:`ssl_context`.
    :param server_context: for ``wss`` with a certificate of the test's own.
    :param receive_buffer: bytes that the system takes in for a script that does not read.
    """

    def __init__(
        self,
        script: Script = well_behaved,
        *,
        tls: bool = False,
        server_context: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self._script = script
        #: For the connections to come; a test may replace it.
        self.server_context = certificates.server_context("127.0.0.1") if tls else server_context
        self.ssl_context: ssl.SSLContext | None = certificates.client_context() if tls else None
        self._receive_buffer = receive_buffer
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        #: Every client so far, the oldest first.
        self.peers: list[Peer] = []

    def __enter__(self) -> ScriptedGateway:
        self._listener = socket.create_server(("127.0.0.1", 0))
        if self._receive_buffer is not None:  # the sockets that it accepts inherit this
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._address: tuple[str, int] = self._listener.getsockname()
        scheme = "ws" if self.server_context is None else "wss"
        self.url = f"{scheme}://127.0.0.1:{self._address[1]}/"
        self._accepting = threading.Thread(
            target=self._accept, name="scripted-gateway", daemon=True
        )
        self._accepting.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._stopping = True
        with socket.create_connection(self._address):  # wakes accept()
            self._accepting.join()
        self._listener.close()
        for peer in self.peers:
            peer.end()
        for thread in self._threads:
            thread.join()
        if self._errors and error is None:
            raise self._errors[0]

    def peer(self, number: int, timeout: float = 10.0) -> Peer:
        """Wait for a client, 1 being the first."""
        wait_until(lambda: len(self.peers) >= number, timeout, f"connection {number}")
        return self.peers[number - 1]

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._stopping:
                client.close()
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.server_context is not None:
                client = self.server_context.wrap_socket(
                    client, server_side=True, do_handshake_on_connect=False
                )
            peer = Peer(client, len(self.peers) + 1)
            self.peers.append(peer)
            thread = threading.Thread(
                target=self._run, args=(peer,), name=f"scripted-peer-{peer.number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _run(self, peer: Peer) -> None:
        try:
            peer.run(self._script)
        except BaseException as error:
            self._errors.append(error)
