"""The events of a recorded session, encoded as a Gateway sends them.

shardlib's local gateway makes the same events in the same order each time. Only their ids and times
differ, which always have the same length.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from shardlib import Intents, Shard
from shardlib.compression import import_zstd
from shardlib.testing import TRAFFIC_MIX, LocalGateway

# The name of the event that ends the stream.
LAST = "LAST_EVENT"

PLAIN = "plain"  # no compression
COMPRESSIONS = ("zlib-stream", "zstd-stream", PLAIN)

# The events of a bot without the intents for presences and typing. The share of GUILD_CREATE makes
# the average event about 1.7 kB of JSON, as at Discord.
_MIX = {**TRAFFIC_MIX, "PRESENCE_UPDATE": 0, "TYPING_START": 0, "GUILD_CREATE": 2.1}

# Milliseconds between heartbeats, an hour, so that no heartbeat is due during a measurement.
_HEARTBEAT_INTERVAL = 3_600_000

# The most seconds for recording: thousands of events take one.
_RECORD_TIMEOUT = 120.0

_TEXT, _BINARY = 0x81, 0x82  # first byte of a WebSocket message in one frame


def record(count: int) -> list[bytes]:
    """Return READY and the events after it, as JSON.

    :param count: the number of events, READY included.
    :raises TimeoutError: if the local gateway does not send so many.
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
            shard.wait_until_ready()  # the gateway would send earlier events to no session
            gateway.traffic(rate=None, mix=_MIX)
            if not enough.wait(_RECORD_TIMEOUT):
                raise TimeoutError(f"the local gateway sent no {count} events in time")
    # A fixed URL instead of the local gateway's, which clients accept with ws and with wss.
    payloads[0]["d"]["resume_gateway_url"] = "wss://gateway.invalid"
    return [_encode(payload["t"], payload["s"], 0, payload["d"]) for payload in payloads]


def messages(events: list[bytes], compression: str) -> list[bytes]:
    """Return the content of all WebSocket messages of a connection: Hello, the events, LAST.

    :param events: the events that :func:`record` returns.
    :param compression: one of COMPRESSIONS.
    """
    compress = _compressor(compression)
    hello = _encode(None, None, 10, {"heartbeat_interval": _HEARTBEAT_INTERVAL})
    last = _encode(LAST, len(events) + 1, 0, {})
    return [compress(each) for each in (hello, *events, last)]


def frames(payloads: Iterable[bytes], compression: str) -> list[bytes]:
    """Return a server's WebSocket frames, one for each message.

    :param payloads: the content of the messages.
    :param compression: the compression of the messages, one of COMPRESSIONS.
    """
    first_byte = _TEXT if compression == PLAIN else _BINARY
    return [_frame(first_byte, payload) for payload in payloads]


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


def _frame(first_byte: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first_byte, size)) + payload
    if size < 1 << 16:
        return bytes((first_byte, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first_byte, 127)) + size.to_bytes(8, "big") + payload
