"""The kinds of compression that a client may ask for, each as a class with the same method.

Each instance belongs to one connection. The client's side is in :mod:`shardlib.compression`.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple, Protocol

from shardlib.compression import import_zstd

#: Size in bytes of the smallest payload that payload compression compresses. Discord does not
#: document which payloads are compressed.
COMPRESS_PAYLOADS_FROM = 1024

# Discord does not document its level. Level 4 is faster than zlib's default of 6, and still
# compresses a run of equal bytes a thousand to one, which lower levels do not.
_LEVEL = 4


class Message(NamedTuple):
    """The content of one WebSocket message."""

    #: True for a binary message, False for a text message.
    binary: bool
    #: The content, compressed if the connection compresses.
    data: bytes


class Deflater(Protocol):
    """Turns the JSON text of a payload into the WebSocket message that carries it."""

    def deflate(self, text: bytes) -> Message:
        """Return the message that carries a payload.

        The caller must send the messages in the order of the calls, because a stream compresses
        each message by reference to earlier messages.

        :param text: the payload's JSON, in UTF-8.
        """


class PlainText:
    """No compression: each payload is a text message."""

    def deflate(self, text: bytes) -> Message:
        return Message(False, text)


class ZlibPayload:
    """Payload compression: each larger payload is a zlib stream of its own."""

    def deflate(self, text: bytes) -> Message:
        if len(text) < COMPRESS_PAYLOADS_FROM:
            return Message(False, text)
        return Message(True, zlib.compress(text))


class ZlibStream:
    """``compress=zlib-stream``: one zlib stream for a connection, flushed after each payload."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(_LEVEL)

    def deflate(self, text: bytes) -> Message:
        stream = self._stream
        return Message(True, stream.compress(text) + stream.flush(zlib.Z_SYNC_FLUSH))


class ZstdStream:
    """``compress=zstd-stream``: one zstd frame for a connection, flushed after each payload.

    :raises ImportError: if Python has neither ``compression.zstd`` (3.14 and later) nor the
        package ``backports.zstd``.
    """

    def __init__(self) -> None:
        self._stream: Any = import_zstd().ZstdCompressor()

    def deflate(self, text: bytes) -> Message:
        stream = self._stream
        return Message(True, stream.compress(text, stream.FLUSH_BLOCK))


#: The kinds of transport compression, by the value of the query parameter ``compress``.
TRANSPORT_COMPRESSIONS: dict[str, type[ZlibStream | ZstdStream]] = {
    "zlib-stream": ZlibStream,
    "zstd-stream": ZstdStream,
}
