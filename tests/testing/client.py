"""A client that does only what it is told: the tests of the gateway look at every payload."""

from __future__ import annotations

import json
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import websocket

from shardlib.gateway import Intents
from shardlib.testing import LocalGateway
from tests.support import not_none


class Closed(Exception):
    """The gateway closed the connection."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Client:
    """A plain websocket-client connection to a gateway."""

    def __init__(
        self,
        gateway: LocalGateway,
        *,
        resume_url: bool = False,
        query: str = "?v=10&encoding=json",
        **options: Any,
    ) -> None:
        self.gateway = gateway
        if gateway.url.startswith("wss"):
            options.setdefault("sslopt", {"context": gateway.ssl_context})
        options.setdefault("timeout", 15)
        url = (gateway.resume_url if resume_url else gateway.url) + query
        self.socket = websocket.create_connection(url, **options)
        self.inflater = zlib.decompressobj()
        self.stream = "zlib-stream" in query

    @property
    def raw_socket(self) -> socket.socket:
        """The socket below the WebSocket."""
        return not_none(self.socket.sock)

    def message(self) -> tuple[int, bytes]:
        """Return the next message: its WebSocket opcode and its bytes."""
        opcode, data = self.socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            if len(data) < 2:
                raise Closed(None, "")
            raise Closed(int.from_bytes(data[:2], "big"), data[2:].decode())
        return opcode, data

    def receive(self) -> dict[str, Any]:
        """Return the next payload."""
        opcode, data = self.message()
        if self.stream:
            data = self.inflater.decompress(data)
        elif opcode == websocket.ABNF.OPCODE_BINARY:
            data = zlib.decompress(data)
        payload: dict[str, Any] = json.loads(data)
        return payload

    def event(self, name: str) -> dict[str, Any]:
        """Return the data of the next payload, which must be this event."""
        payload = self.receive()
        assert (payload["op"], payload["t"]) == (0, name), payload
        data: dict[str, Any] = payload["d"]
        return data

    def events_until(self, name: str) -> list[dict[str, Any]]:
        """Return the payloads up to the next event of this name, which is the last of them."""
        payloads = [self.receive()]
        while payloads[-1]["t"] != name:
            payloads.append(self.receive())
        return payloads

    def close_code(self) -> int | None:
        """Read on until the gateway closes; return its close code."""
        return self.closed().code

    def closed(self) -> Closed:
        """Read on until the gateway closes; return how."""
        try:
            while True:
                self.message()
        except Closed as closed:
            return closed

    def nothing_more(self) -> None:
        """Assert that nothing stands before the acknowledgement of a heartbeat."""
        self.send(1, None)
        assert self.receive()["op"] == 11

    def send(self, opcode: int, data: Any) -> None:
        self.socket.send(json.dumps({"op": opcode, "d": data}))

    def identify(self, intents: Any = Intents.all(), **changes: Any) -> None:
        """Send Identify; ``changes`` to its data, None leaves a field out."""
        data = {"token": self.gateway.token, "intents": intents, "properties": {}, **changes}
        self.send(2, {key: value for key, value in data.items() if value is not None})

    def ready(self, intents: int = Intents.all(), **changes: Any) -> dict[str, Any]:
        """Take Hello, send Identify, take the guilds; return READY's data."""
        assert self.receive()["op"] == 10
        self.identify(intents, **changes)
        ready = self.event("READY")
        if intents & Intents.GUILDS:
            for _ in ready["guilds"]:
                self.event("GUILD_CREATE")
        return ready

    def resume(self, session_id: str, sequence: int, **changes: Any) -> None:
        """Take Hello, send Resume."""
        assert self.receive()["op"] == 10
        data = {"token": self.gateway.token, "session_id": session_id, "seq": sequence}
        self.send(6, {**data, **changes})

    def leave(self, code: int = 4000) -> None:
        """Close with a code, and wait for the end."""
        self.socket.close(code, timeout=5)


@contextmanager
def connected(gateway: LocalGateway, **options: Any) -> Iterator[Client]:
    """A connected client; afterwards it is gone without a word, if it was not before."""
    client = Client(gateway, **options)
    try:
        yield client
    finally:
        client.socket.shutdown()
