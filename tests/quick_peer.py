"""A gateway on one thread, for the storms.

It exists besides ScriptedGateway, which starts a thread for each client, because the storms connect
thousands of times, and while the interpreter switches threads as often as it can.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import re
import selectors
import socket
import struct
import threading
import time
import zlib
from typing import Any

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_TEXT, _BINARY, _CLOSE = 1, 2, 8
_TICK = 0.01  # seconds between two TICK events on each connection


class _Client:
    """One connection of a client, from its handshake to its close frame."""

    def __init__(self, peer: QuickPeer, plain: socket.socket) -> None:
        self._peer = peer
        self._plain = plain
        self._received = b""
        self._compress = zlib.compressobj(level=1)
        self._upgraded = False
        self._established = ""  # READY or RESUMED, once the client may have it
        self._ready = False

    @property
    def is_waiting_for_upgrade(self) -> bool:
        """True while the client has sent its handshake and the peer withholds the answer."""
        return not self._upgraded and b"\r\n\r\n" in self._received

    def read(self) -> bool:
        """Read what has come, and answer it; False once the connection is over."""
        try:
            data = self._plain.recv(65536)
            self._received += data
            return bool(data) and self._answer()
        except OSError:
            return False

    def tick(self) -> None:
        """Send what was withheld, or else a TICK event."""
        with contextlib.suppress(OSError):  # the selector tells of the end
            if self.is_waiting_for_upgrade:
                self._answer()
            elif self._ready:
                self._dispatch("TICK", {})
            else:
                self._establish()

    def _answer(self) -> bool:
        if not self._upgraded:
            if not self.is_waiting_for_upgrade or self._peer.is_stalled:
                return True
            self._upgrade()
        while (frame := self._next_frame()) is not None:
            opcode, data = frame
            if opcode == _CLOSE:
                self._send_frame(_CLOSE, data[:2])
                return False
            self._act(json.loads(data))
        return True

    def _upgrade(self) -> None:
        head, self._received = self._received.split(b"\r\n\r\n", 1)
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
        self._plain.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self._upgraded = True
        self._send({"op": 10, "d": {"heartbeat_interval": 41250}})

    def _next_frame(self) -> tuple[int, bytes] | None:
        """Cut one masked frame of a client, whole messages only, out of what was received."""
        received = self._received
        if len(received) < 2:
            return None
        length, start = received[1] & 127, 2
        if length == 126:
            if len(received) < 4:
                return None
            length, start = struct.unpack_from("!H", received, 2)[0], 4
        end = start + 4 + length
        if len(received) < end:
            return None
        mask, masked = received[start : start + 4], received[start + 4 : end]
        self._received = received[end:]
        data = bytes(byte ^ key for byte, key in zip(masked, itertools.cycle(mask)))
        return received[0] & 15, data

    def _act(self, payload: dict[str, Any]) -> None:
        opcode = payload["op"]
        if opcode == 1:
            self._send({"op": 11})
        elif opcode in (2, 6):
            self._established = "READY" if opcode == 2 else "RESUMED"
            if not self._peer.is_late:
                self._establish()

    def _establish(self) -> None:
        if self._established:
            self._ready = True
            url = self._peer.url
            self._dispatch(self._established, {"session_id": "1", "resume_gateway_url": url})

    def _dispatch(self, event: str, data: dict[str, Any]) -> None:
        self._send({"t": event, "s": next(self._peer.sequence), "op": 0, "d": data})

    def _send(self, payload: dict[str, Any]) -> None:
        data = self._compress.compress(json.dumps(payload).encode())
        self._send_frame(_BINARY, data + self._compress.flush(zlib.Z_SYNC_FLUSH))

    def _send_frame(self, opcode: int, data: bytes) -> None:
        assert len(data) < 126
        self._plain.sendall(bytes((0x80 | opcode, len(data))) + data)


class QuickPeer:
    """Accepts clients, makes them ready, acknowledges their heartbeats, sends TICK now and then.

    The peer knows ``zlib-stream`` alone, resumes every session, and keeps nothing of what it was
    sent.
    """

    def __init__(self) -> None:
        #: While true, READY and RESUMED come with the next tick instead of at once.
        self.is_late = False
        #: While true, handshakes get no answer.
        self.is_stalled = False
        self.sequence = itertools.count(1)
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._clients: dict[socket.socket, _Client] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="quick-peer", daemon=True)

    def __enter__(self) -> QuickPeer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        for plain in (self._listener, *self._clients):
            plain.close()
        self._selector.close()

    @property
    def has_stalled_client(self) -> bool:
        """True while a client waits for the answer to its handshake."""
        return any(client.is_waiting_for_upgrade for client in list(self._clients.values()))

    def _run(self) -> None:
        next_tick = time.monotonic()
        while not self._stopping:
            for key, _ in self._selector.select(max(0.0, next_tick - time.monotonic())):
                if key.fileobj is self._listener:
                    self._accept()
                elif not self._clients[key.fileobj].read():  # type: ignore[index]
                    self._drop(key.fileobj)  # type: ignore[arg-type]
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK
                for client in self._clients.values():
                    client.tick()

    def _accept(self) -> None:
        plain, _ = self._listener.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[plain] = _Client(self, plain)
        self._selector.register(plain, selectors.EVENT_READ)

    def _drop(self, plain: socket.socket) -> None:
        self._selector.unregister(plain)
        del self._clients[plain]
        plain.close()
