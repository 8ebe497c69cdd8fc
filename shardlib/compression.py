"""Inflating what a gateway sends: one class per kind of compression.

An inflater belongs to one connection and to the thread that reads it, and is never used again for
another connection (*Gateway: Encoding and Compression*). A WebSocket text message is never
compressed, whatever was asked for, and is given to none of them but :class:`PlainText`.

``max_payload`` is the size in bytes that one inflated message may have. No inflater produces more,
or keeps more of an incomplete message, and the window of a zstd-stream is bounded by it, too.
"""

from __future__ import annotations

import sys
import threading
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Protocol

from shardlib.errors import BrokenStream, UnreadableMessage
from shardlib.gateway import COMPRESSIONS

_ZLIB_SUFFIX = b"\x00\x00\xff\xff"  # what Z_SYNC_FLUSH writes, and nothing else ends with

# Frames that one message may consist of; each costs a decompressor, however few bytes it has.
_MAX_ZSTD_FRAMES = 100

# Bytes given to a decompressor at a time once a message is known to consist of several frames. It
# copies what follows the end of a frame, and so never much.
_ZSTD_PIECE = 1 << 16

# Bytes. RFC 8878 recommends that a decoder supports at least that much, and a frame that needs more
# is rare: https://www.rfc-editor.org/rfc/rfc8878#name-window-descriptor
_LEAST_ZSTD_WINDOW = 8 << 20


class Inflater(Protocol):
    """What a connection needs of each kind of compression."""

    def inflate(self, message: bytes) -> bytes | None:
        """The payload that a WebSocket message completes, or None if it completes none.

        :param message: bytes of a WebSocket message.
        :raises UnreadableMessage: if this message alone is lost.
        :raises BrokenStream: if nothing that follows can be read either.
        """

    def buffer(self) -> bytes:
        """The bytes received of a message that is not complete. Any thread."""


class _Bounded:
    """What all inflaters have: a bound, and as a rule nothing kept of an incomplete message.

    :param max_payload: bytes that one inflated message may have.
    """

    __slots__ = ("_limit", "_max_payload")

    def __init__(self, max_payload: int) -> None:
        # Decompressors are asked for one byte more, and take no number above sys.maxsize.
        self._max_payload = min(max_payload, sys.maxsize - 1)
        self._limit = self._max_payload + 1

    def buffer(self) -> bytes:
        return b""

    def _too_large(self) -> str:
        return f"a message inflates to more than the option max_payload ({self._max_payload} bytes)"


class PlainText(_Bounded):
    """No compression: a binary message holds JSON just as a text message does."""

    __slots__ = ()

    def inflate(self, message: bytes) -> bytes | None:
        if len(message) > self._max_payload:
            raise UnreadableMessage(
                f"a message of {len(message)} bytes is larger than the option max_payload "
                f"({self._max_payload} bytes)",
                message,
                limit=self._max_payload,
            )
        return message


class ZlibPayload(_Bounded):
    """Payload compression: each binary message is a zlib stream of its own.

    A message that cannot be read does no harm to the next one, so that all errors are
    :exc:`UnreadableMessage`.
    """

    __slots__ = ()

    def inflate(self, message: bytes) -> bytes | None:
        decompressor = zlib.decompressobj()
        try:
            inflated = decompressor.decompress(message, self._limit)
        except zlib.error as error:
            raise UnreadableMessage(
                f"a compressed message was skipped: it is damaged ({error})", message
            ) from error
        if len(inflated) > self._max_payload:
            raise UnreadableMessage(self._too_large(), message, limit=self._max_payload)
        if not decompressor.eof or decompressor.unused_data:
            raise UnreadableMessage(
                "a compressed message was skipped: it does not end where it should", message
            )
        return inflated


class ZlibStream(_Bounded):
    """Transport compression zlib-stream: one zlib context for all messages of a connection.

    A message may come in any number of WebSocket messages; the last ends with a sync flush. The
    stream's checksum would come at its end, and it has none: so what follows the stream's header is
    inflated as raw deflate, which computes no checksum.
    """

    __slots__ = ("_buffer", "_decompressor", "_lock", "_started", "_zlib")

    def __init__(self, max_payload: int) -> None:
        super().__init__(max_payload)
        self._buffer = bytearray()
        # Held while the buffer grows and while it is copied: without a GIL both could happen at
        # once. Reentrant: a signal handler may copy it, too.
        self._lock = threading.RLock()
        self._zlib = _import_zlib()
        self._decompressor = self._zlib.decompressobj(-zlib.MAX_WBITS)
        self._started = False  # the header was read

    def inflate(self, message: bytes) -> bytes | None:
        data: bytes | bytearray = message
        # Nearly every message comes whole, and is inflated without a copy into the buffer.
        if self._buffer or message[-4:] != _ZLIB_SUFFIX:
            data = self._buffer
            with self._lock:
                data += message
            if len(data) > self._max_payload:
                raise BrokenStream(
                    f"a compressed message, {len(data)} bytes so far, is larger than the option "
                    f"max_payload ({self._max_payload} bytes)",
                    limit=self._max_payload,
                )
            if not data.endswith(_ZLIB_SUFFIX):
                return None
            self._buffer = bytearray()
        if not self._started:
            _check_zlib_header(data)
            data = data[2:]
            self._started = True
        try:
            inflated: bytes = self._decompressor.decompress(data, self._limit)
        except self._zlib.error as error:
            raise BrokenStream(f"the zlib-stream is damaged: {error}") from error
        if len(inflated) == self._limit:
            raise BrokenStream(self._too_large(), limit=self._max_payload)
        if self._decompressor.eof:
            raise BrokenStream("the zlib-stream has ended, though the connection has not")
        return inflated or None  # a flush may come alone, without data

    def buffer(self) -> bytes:
        with self._lock:
            return bytes(self._buffer)


def _check_zlib_header(data: bytes | bytearray) -> None:
    """Check the two bytes that a zlib stream begins with (RFC 1950, section 2.2).

    :raises BrokenStream: if they are no zlib header.
    """
    method, flags = data[0], data[1]
    if method & 0x0F != 8 or method >> 4 > 7 or (method << 8 | flags) % 31:
        raise BrokenStream("the zlib-stream is damaged: it does not begin with a zlib header")
    if flags & 0x20:
        raise BrokenStream("the zlib-stream is damaged: it needs a dictionary that nobody has")


class ZstdStream(_Bounded):
    """Transport compression zstd-stream: one zstd context for all messages of a connection.

    Each WebSocket message holds one whole message, and usually leaves its zstd frame open. Servers
    that end the frame with each message, or put several into one, are understood as well.
    """

    __slots__ = ("_decompressor", "_options", "_zstd")

    def __init__(self, max_payload: int) -> None:
        super().__init__(max_payload)
        self._zstd = import_zstd()
        # A frame's header says how much of what came before the decompressor has to keep, up to
        # gigabytes, and the decompressor would ask the system for all of it at once.
        window_log_max = self._zstd.DecompressionParameter.window_log_max
        window = max(self._max_payload, _LEAST_ZSTD_WINDOW)
        largest = window_log_max.bounds()[1]
        self._options = {window_log_max: min((window - 1).bit_length(), largest)}
        self._decompressor = self._zstd.ZstdDecompressor(options=self._options)

    def inflate(self, message: bytes) -> bytes | None:
        try:
            inflated: bytes = self._decompressor.decompress(message, self._limit)
        except self._zstd.ZstdError as error:
            raise self._broken(error) from error
        if self._decompressor.eof:
            inflated = self._next_frames(inflated)
        if len(inflated) > self._max_payload:
            raise BrokenStream(self._too_large(), limit=self._max_payload)
        return inflated or None

    def _next_frames(self, inflated: bytes) -> bytes:
        """Inflate what follows the first frame of a message.

        :param inflated: what that frame held.
        :returns: the whole message, or so much of it that it is too large.
        """
        rest = memoryview(self._decompressor.unused_data)
        self._decompressor = self._zstd.ZstdDecompressor(options=self._options)
        parts = [inflated]
        size = len(inflated)
        frames = 1
        while rest and size <= self._max_payload:
            if frames == _MAX_ZSTD_FRAMES:
                raise BrokenStream(f"a message consists of more than {frames} zstd frames")
            piece = rest[:_ZSTD_PIECE]
            try:
                parts.append(self._decompressor.decompress(piece, self._limit - size))
            except self._zstd.ZstdError as error:
                raise self._broken(error) from error
            size += len(parts[-1])
            used = len(piece)
            if self._decompressor.eof:
                used -= len(self._decompressor.unused_data)
                self._decompressor = self._zstd.ZstdDecompressor(options=self._options)
                frames += 1
            rest = rest[used:]
        return b"".join(parts)

    def _broken(self, error: Exception) -> BrokenStream:
        if "too much memory" in str(error):  # zstd's own words; the exception has no code
            return BrokenStream(
                "a zstd frame needs a larger window than the option max_payload "
                f"({self._max_payload} bytes) allows",
                limit=self._max_payload,
            )
        return BrokenStream(f"the zstd-stream is damaged: {error}")


_INFLATERS: dict[str | None, Callable[[int], Inflater]] = {
    "zlib-stream": ZlibStream,
    "zstd-stream": ZstdStream,
    "payload": ZlibPayload,
    None: PlainText,
}


def create_inflater(compression: str | None, max_payload: int) -> Inflater:
    """A new inflater, for one connection.

    :param compression: one of :data:`~shardlib.gateway.COMPRESSIONS`.
    :param max_payload: bytes that one inflated message may have.
    """
    return _INFLATERS[compression](max_payload)


def require(compression: str | None) -> None:
    """Check that this Python can inflate a compression, before a connection needs it.

    :param compression: as given to the shard.
    :raises ValueError: if there is no such compression, or the module for zstd-stream is missing.
    """
    if compression not in COMPRESSIONS:
        raise ValueError(f"compression must be one of {COMPRESSIONS}, not {compression!r}")
    if compression == "zstd-stream":
        try:
            import_zstd()
        except ImportError:
            raise ValueError(
                "compression 'zstd-stream' needs compression.zstd of Python 3.14, or the package "
                'backports.zstd: pip install "shardlib[zstd]"'
            ) from None


def _import_zlib() -> ModuleType:
    # zlib-ng inflates the same streams in three quarters of the time.
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return zlib
    return zlib_ng


def import_zstd() -> ModuleType:
    """Python's module for zstd, or its backport. Few shards need it, and not every Python has it.

    :raises ImportError: if there is none.
    """
    # By a plain statement, so that programs which freeze others find it; by version, since before
    # 3.14 a module `compression` is the user's.
    if sys.version_info >= (3, 14):
        import compression.zstd as zstd
    else:
        import backports.zstd as zstd
    return zstd
