"""FrameReader: WebSocket messages out of the bytes of a connection (RFC 6455, section 5).

It knows no sockets. websocket-client's own reader asks the socket for each part of each frame, has
no limit to what it buffers, and answers a close frame with code 1000, which ends Discord's session.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from shardlib.errors import BrokenStream

FINAL_TEXT = 0x81
FINAL_BINARY = 0x82


class FrameType(enum.IntEnum):
    """What a frame is, RFC 6455's opcode (a word that means something else in Discord's)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class FrameReader:
    """Cuts frames out of a stream of bytes and puts fragments together.

    :param max_size: bytes of the largest message taken; nothing beyond it is ever buffered.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        # The beginning of a frame that is not complete, in the pieces that came, and how many
        # bytes there must be before it is worth joining them: a large message costs one copy.
        self._pieces: list[bytes] = []
        self._size = 0
        self._needed = 2
        # The message whose last fragment has not come.
        self._fragments = bytearray()
        self._fragments_type: int | None = None

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Give the next bytes; yields (type, payload) for each message and control frame in them.

        :raises BrokenStream: at the first byte that can't be. Nothing after it can be read.
        """
        if self._pieces:
            self._pieces.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return
            data = b"".join(self._pieces)
        position = 0
        end = len(data)
        needed = 2
        try:
            while end - position >= 2:
                head = data[position]
                length = data[position + 1]
                start = position + 2
                if length > 125:
                    if length > 127:
                        raise BrokenStream("the Gateway sent a masked frame; a server must not")
                    extended = 2 if length == 126 else 8
                    if end - start < extended:
                        needed = 2 + extended
                        break
                    length = int.from_bytes(data[start : start + extended], "big")
                    start += extended
                    if length > self._max_size:
                        raise BrokenStream(
                            f"a message of {length} bytes is larger than the option max_payload "
                            f"({self._max_size} bytes)",
                            limit=self._max_size,
                        )
                if end - start < length:
                    needed = start - position + length
                    break
                position = start + length
                payload = data[start:position]
                if (head == FINAL_BINARY or head == FINAL_TEXT) and self._fragments_type is None:
                    yield head & 0x0F, payload
                else:
                    yield from self._special(head, payload)
        finally:  # also where the caller stops in the middle, to close the connection
            rest = data[position:] if position else data
            self._pieces = [rest] if rest else []
            self._size = len(rest)
            self._needed = needed

    def _special(self, head: int, payload: bytes) -> Iterator[tuple[int, bytes]]:
        """A control frame, a fragment, or what must not be."""
        final = bool(head & 0x80)
        frame_type = head & 0x0F
        if head & 0x70:
            raise BrokenStream("a frame uses a WebSocket extension that was not agreed upon")
        if frame_type >= FrameType.CLOSE:
            if frame_type > FrameType.PONG:
                raise BrokenStream(f"a frame has the unknown type {frame_type}")
            if not final or len(payload) > 125:
                raise BrokenStream("a control frame is fragmented or over 125 bytes")
            yield frame_type, payload
            return
        if frame_type == FrameType.CONTINUATION:
            if self._fragments_type is None:
                raise BrokenStream("a frame continues a message that was never begun")
        elif frame_type > FrameType.BINARY:
            raise BrokenStream(f"a frame has the unknown type {frame_type}")
        elif self._fragments_type is not None:
            raise BrokenStream("a message begins before the one before it has ended")
        else:
            self._fragments_type = frame_type
        size = len(self._fragments) + len(payload)
        if size > self._max_size:
            raise BrokenStream(
                f"a message in fragments, {size} bytes so far, is larger than the option "
                f"max_payload ({self._max_size} bytes)",
                limit=self._max_size,
            )
        self._fragments += payload
        if final:
            message_type, self._fragments_type = self._fragments_type, None
            whole, self._fragments = bytes(self._fragments), bytearray()
            yield message_type, whole
