"""How the bare loops inflate: what Discord's documentation says, and no more."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from benchmarks.client import Job, Meter
from benchmarks.stream import LAST
from shardlib.compression import import_zstd

_SUFFIX = b"\x00\x00\xff\xff"


def hand_over(messages: Iterable[bytes], job: Job, meter: Meter) -> None:
    """Inflate and decode messages, and hand each event over, up to the event LAST."""
    inflate, loads = inflater(job.compression), job.codec().loads
    for message in messages:
        text = inflate(message)
        if text is None:
            continue
        payload = loads(text)
        meter.on_event(payload)
        if payload["t"] == LAST:
            meter.finish()
            return


def inflater(compression: str) -> Callable[[bytes], bytes | None]:
    """A function that returns the payload a message completes, or None."""
    if compression == "zlib-stream":
        return _zlib_stream()
    if compression == "zstd-stream":
        inflate: Callable[[bytes], bytes] = import_zstd().ZstdDecompressor().decompress
        return inflate
    return lambda message: message


def _zlib_stream() -> Callable[[bytes], bytes | None]:
    decompress = zlib.decompressobj().decompress
    buffer = bytearray()

    def inflate(message: bytes) -> bytes | None:
        if not buffer and message.endswith(_SUFFIX):
            return decompress(message)
        buffer.extend(message)
        if not buffer.endswith(_SUFFIX):
            return None
        whole = decompress(buffer)
        buffer.clear()
        return whole

    return inflate
