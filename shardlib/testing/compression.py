"""What the gateway does to a payload before it goes out: one small class for each kind.

Each belongs to one connection, and each has the same method. The counterparts that undo
them are in :mod:`shardlib.compression`.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple, Protocol

from shardlib.compression import import_zstd

#: Payload compression leaves smaller payloads alone: Discord compresses "some" of them.
COMPRESS_PAYLOADS_FROM = 1024


# Discord's level is not known. This one is quicker than zlib's default of 6, and still compresses
# a run of one byte a thousand to one, which the levels below it do not.
_LEVEL = 4


class Message(NamedTuple):
    """The content of one WebSocket message."""

    binary: bool
    data: bytes


class Deflater(Protocol):
    """Turns the JSON text of a payload (UTF-8) into what goes out on the wire."""

    def deflate(self, text: bytes) -> Message:
        """Return the message for ``text``; calls must come in the order of sending."""


class PlainText:
    """No compression: text messages."""

    def deflate(self, text: bytes) -> Message:
        return Message(False, text)


class ZlibPayload:
    """Payload compression: each larger payload is one zlib stream of its own."""

    def deflate(self, text: bytes) -> Message:
        if len(text) < COMPRESS_PAYLOADS_FROM:
            return Message(False, text)
        return Message(True, zlib.compress(text))


class ZlibStream:
    """``compress=zlib-stream``: one zlib stream a connection, flushed after each payload."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(_LEVEL)

    def deflate(self, text: bytes) -> Message:
        stream = self._stream
        return Message(True, stream.compress(text) + stream.flush(zlib.Z_SYNC_FLUSH))


class ZstdStream:
    """``compress=zstd-stream``: one zstd frame a connection, flushed after each payload.

    :raises ImportError: neither Python 3.14's ``compression.zstd`` nor ``backports.zstd``
        is there.
    """

    def __init__(self) -> None:
        self._stream: Any = import_zstd().ZstdCompressor()

    def deflate(self, text: bytes) -> Message:
        stream = self._stream
        return Message(True, stream.compress(text, stream.FLUSH_BLOCK))


#: The ``compress`` query parameter, and what it asks for.
TRANSPORT_COMPRESSIONS: dict[str, type[ZlibStream | ZstdStream]] = {
    "zlib-stream": ZlibStream,
    "zstd-stream": ZstdStream,
}
