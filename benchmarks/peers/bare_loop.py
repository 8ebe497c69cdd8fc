"""The bare loop: a blocking socket, frames cut out of what it gives, inflating, decoding.

What somebody would write who wants speed and nothing else: no heartbeat, no check of a frame, no
deadline, no thread.
"""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from benchmarks.client import Job, Meter
from benchmarks.peers.inflating import hand_over, inflater

_RECEIVE_SIZE = 65536


def receive(job: Job, meter: Meter) -> None:
    hand_over(_messages(_connect(job)), job, meter)


def idle(job: Job) -> Iterator[None]:
    """Yield whenever one more connection has got READY."""
    kept = []
    while True:
        messages, inflate = _messages(_connect(job)), inflater(job.compression)
        for message in itertools.islice(messages, 2):
            inflate(message)
        kept.append((messages, inflate))
        yield


def _connect(job: Job) -> socket.socket | ssl.SSLSocket:
    url = urlsplit(job.url)
    assert url.hostname is not None
    client: socket.socket = socket.create_connection((url.hostname, url.port or 443))
    context = job.ssl_context()
    if context is not None:
        client = context.wrap_socket(client, server_hostname=url.hostname)
    client.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    return client


def _messages(client: socket.socket) -> Iterator[bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(client, _RECEIVE_SIZE)
    data = data[data.index(b"\r\n\r\n") + 4 :]
    while True:
        position, end = 0, len(data)
        while end - position >= 2:
            start, length = position + 2, data[position + 1]
            if length > 125:
                start += 2 if length == 126 else 8
                if start > end:
                    break
                length = int.from_bytes(data[position + 2 : start], "big")
            if start + length > end:
                if length > _RECEIVE_SIZE:
                    position = end
                    yield _receive_rest(client, data[start:], length)
                break
            position = start + length
            yield data[start:position]
        data = data[position:] + _receive(client, _RECEIVE_SIZE)


def _receive_rest(client: socket.socket, begun: bytes, length: int) -> bytes:
    pieces = [begun]
    missing = length - len(begun)
    while missing:
        pieces.append(_receive(client, min(missing, _RECEIVE_SIZE)))
        missing -= len(pieces[-1])
    return b"".join(pieces)


def _receive(client: socket.socket, size: int) -> bytes:
    data = client.recv(size)
    if not data:
        raise ConnectionError("the sender has gone")
    return data
