"""How fast a shard receives: ``python -m benchmarks.receiving [--events N] [--rounds N]``.

A process sends a recorded stream of realistic events, compressed with zlib-stream, over a real
socket, and they are received in several ways in turns:

plain       websocket-client's ``recv()``, zlib as in Discord's example, ``ujson.loads``
all         a Shard with on_socket_dispatch: every event is decoded and handed over
one kind    a Shard that listens to GUILD_ROLE_UPDATE alone: the other events are not decoded

The ratios count, not the rates: those are this machine's, at this moment.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import multiprocessing
import socket
import statistics
import struct
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import ujson
import websocket

from shardlib import IdentifyGate, Intents, Shard
from shardlib.testing import LocalGateway

SUFFIX = b"\x00\x00\xff\xff"
LAST = "LAST_EVENT"


def record(count: int) -> list[dict[str, Any]]:
    """So many events, as a shard gets them from the local gateway."""
    events: list[dict[str, Any]] = []
    enough = threading.Event()

    def keep(_: Shard, payload: dict[str, Any]) -> None:
        if len(events) < count:
            events.append(payload)
        else:
            enough.set()

    with LocalGateway() as gateway:
        with Shard(gateway.token, Intents.all(), on_socket_dispatch=keep) as shard:
            shard.connect(gateway.url)
            gateway.traffic(rate=None)
            enough.wait()
    return events


def frame(payload: bytes) -> bytes:
    if len(payload) < 126:
        return struct.pack("!BB", 0x82, len(payload)) + payload
    if len(payload) < 65536:
        return struct.pack("!BBH", 0x82, 126, len(payload)) + payload
    return struct.pack("!BBQ", 0x82, 127, len(payload)) + payload


def stream_of(events: list[dict[str, Any]]) -> tuple[bytes, int]:
    """The bytes of a whole connection, and their size when inflated."""
    hello = {"t": None, "s": None, "op": 10, "d": {"heartbeat_interval": 60_000}}
    last = {"t": LAST, "s": events[-1]["s"] + 1, "op": 0, "d": None}
    deflate = zlib.compressobj()
    size, pieces = 0, []
    for payload in (hello, *events, last):
        header = {"t": payload["t"], "s": payload["s"], "op": payload["op"], "d": payload["d"]}
        text = json.dumps(header, separators=(",", ":")).encode()
        size += len(text)
        pieces.append(frame(deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)))
    return b"".join(pieces), size


def serve(stream: bytes, port: Any) -> None:
    """The sending process: every client gets the same stream."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port.value = listener.getsockname()[1]
        while True:
            client, _ = listener.accept()
            with client:
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += client.recv(4096)
                key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
                guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                accept = base64.b64encode(hashlib.sha1(key + guid).digest())
                client.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                )
                try:
                    client.sendall(stream)
                    while client.recv(4096):
                        pass
                except OSError:
                    pass


def receive_plainly(url: str) -> float:
    client = websocket.create_connection(url)
    inflate = zlib.decompressobj()
    buffer = bytearray()
    since = time.perf_counter()
    while True:
        message = client.recv()
        buffer.extend(message)
        if message[-4:] != SUFFIX:
            continue
        payload = ujson.loads(inflate.decompress(buffer))
        buffer.clear()
        if payload["t"] == LAST:
            break
    seconds = time.perf_counter() - since
    client.shutdown()
    return seconds


def receive_with_a_shard(url: str, listen: Callable[[Shard], None]) -> float:
    shard = Shard("benchmark", 0, identify_gate=IdentifyGate(interval=0.001))
    listen(shard)
    done = threading.Event()
    shard.on(LAST)(lambda *_: done.set())
    since = time.perf_counter()
    shard.connect(url)
    done.wait()
    seconds = time.perf_counter() - since
    shard.disconnect()
    return seconds


def listen_to_all(shard: Shard) -> None:
    shard.on_socket_dispatch = lambda shard, payload: None


def listen_to_one_kind(shard: Shard) -> None:
    shard.on("GUILD_ROLE_UPDATE")(lambda shard, data: None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()

    events = record(arguments.events)
    stream, size = stream_of(events)
    port = multiprocessing.Value("i", 0)
    sender = multiprocessing.Process(target=serve, args=(stream, port), daemon=True)
    sender.start()
    while not port.value:
        time.sleep(0.01)
    url = f"ws://127.0.0.1:{port.value}"

    ways: dict[str, Callable[[], float]] = {
        "plain": lambda: receive_plainly(url),
        "all": lambda: receive_with_a_shard(url, listen_to_all),
        "one kind": lambda: receive_with_a_shard(url, listen_to_one_kind),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, receive in ways.items():
            seconds[name].append(receive())
    sender.terminate()

    print(
        f"{len(events)} events, {size / len(events):.0f} bytes each, "
        f"{len(stream) / len(events):.0f} on the wire; median of {arguments.rounds} rounds"
    )
    plain = statistics.median(seconds["plain"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:10} {len(events) / median:9.0f} events/s   {plain / median:5.2f} x plain")


if __name__ == "__main__":
    main()
