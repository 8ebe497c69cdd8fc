"""What is sent: the events of a recorded session, as a Gateway would put them on the wire.

The events are those of shardlib's local gateway: always the same ones in the same order. Ids and
times are those of the moment, and as long as any others.
"""

from __future__ import annotations

import importlib
import json
import threading
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from shardlib import Intents, Shard
from shardlib.testing import TRAFFIC_MIX, LocalGateway

# The name of the event after which a client has seen everything.
LAST = "LAST_EVENT"

PLAIN = "plain"  # no compression
COMPRESSIONS = ("zlib-stream", "zstd-stream", PLAIN)

# What a bot receives without the intents for presences and typing, and so many whole guilds that an
# event has about 1.7 kB of JSON, as Discord's have.
_MIX = {**TRAFFIC_MIX, "PRESENCE_UPDATE": 0, "TYPING_START": 0, "GUILD_CREATE": 2.1}

# Milliseconds between heartbeats: none is due while a measurement runs.
_HEARTBEAT_INTERVAL = 3_600_000

_TEXT, _BINARY = 0x81, 0x82  # first byte of a WebSocket message in one frame


def record(count: int) -> list[bytes]:
    """READY and the events after it, as JSON.

    :param count: how many.
    """
    payloads: list[dict[str, Any]] = []
    enough = threading.Event()

    def keep(_: Shard, payload: dict[str, Any]) -> None:
        if len(payloads) < count:
            payloads.append(payload)
        else:
            enough.set()

    with LocalGateway() as gateway:
        with Shard(gateway.token, Intents.all(), on_socket_dispatch=keep) as shard:
            shard.connect(gateway.url)
            shard.wait_until_ready()  # else the first events would come to no session
            gateway.traffic(rate=None, mix=_MIX)
            enough.wait()
    payloads[0]["d"]["resume_gateway_url"] = "wss://gateway.invalid"  # good for ws and wss
    return [_encode(payload["t"], payload["s"], 0, payload["d"]) for payload in payloads]


def messages(events: list[bytes], compression: str) -> list[bytes]:
    """The payloads of all WebSocket messages of a connection: Hello, the events, LAST.

    :param events: of :func:`record`.
    :param compression: one of COMPRESSIONS.
    """
    compress = _compressor(compression)
    hello = _encode(None, None, 10, {"heartbeat_interval": _HEARTBEAT_INTERVAL})
    last = _encode(LAST, len(events) + 1, 0, {})
    return [compress(each) for each in (hello, *events, last)]


def frames(payloads: Iterable[bytes], compression: str) -> list[bytes]:
    """The WebSocket frames of a server that hold these payloads, one each."""
    head = _TEXT if compression == PLAIN else _BINARY
    return [_frame(head, payload) for payload in payloads]


def _encode(event: str | None, sequence: int | None, opcode: int, data: object) -> bytes:
    payload = {"t": event, "s": sequence, "op": opcode, "d": data}
    return json.dumps(payload, separators=(",", ":")).encode()


def _compressor(compression: str) -> Callable[[bytes], bytes]:
    if compression == "zlib-stream":
        deflate = zlib.compressobj()
        return lambda data: deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
    if compression == "zstd-stream":
        zstd = import_zstd()
        compressor = zstd.ZstdCompressor()
        return lambda data: compressor.compress(data, mode=compressor.FLUSH_BLOCK)
    return lambda data: data


def import_zstd() -> Any:
    """The zstd module of this Python: its own from 3.14 on, or backports.zstd."""
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return importlib.import_module("backports.zstd")


def _frame(head: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((head, size)) + payload
    if size < 1 << 16:
        return bytes((head, 126)) + size.to_bytes(2, "big") + payload
    return bytes((head, 127)) + size.to_bytes(8, "big") + payload
