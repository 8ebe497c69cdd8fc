"""FrameReader: WebSocket messages out of the bytes of a connection (RFC 6455, section 5).

This module uses no socket. websocket-client has a reader of its own, which asks the socket for each
part of each frame, buffers without limit, and answers a close frame with code 1000, which ends
Discord's session.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

from shardlib.errors import BrokenStream

# Plain numbers for the hot path: until Python 3.12 each look-up of an enum's member is a call.
TEXT = 0x1
BINARY = 0x2
_FINAL_TEXT = 0x80 | TEXT
_FINAL_BINARY = 0x80 | BINARY


OnControl = Callable[[int, bytes], object]


class FrameType(enum.IntEnum):
    """What a frame is: RFC 6455's opcode, a word that Discord uses for something else."""

    CONTINUATION = 0x0
    TEXT = TEXT
    BINARY = BINARY
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class FrameReader:
    """Cuts frames out of a stream of bytes and puts fragments together.

    Even if each read brings one byte, no byte is copied more than a few times, and no more memory
    is used than the bytes take.

    :param max_size: bytes of the largest message that is taken. A frame that announces more is
        refused at once, and none of its bytes is kept.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._unparsed = b""  # the beginning of a header; more, if a caller stopped in the middle
        # The frame whose payload is arriving: its first byte, what has come, how much has not.
        self._head = 0
        self._payload = bytearray()
        self._missing = 0
        # The message whose last fragment has not come.
        self._fragments = bytearray()
        self._fragments_type: int | None = None

    def feed(self, data: bytes, on_control: OnControl) -> Iterator[tuple[int, bytes]]:
        """Take the next bytes; yield (type, payload) for each message that they complete.

        :param data: bytes as they were received.
        :param on_control: called with type and payload of each control frame among them, in the
            order of the wire; what it raises comes out here.
        :raises BrokenStream: at the first byte that RFC 6455 does not allow there, or at a message
            that is too large. Nothing after it can be read.
        """
        if self._unparsed:
            data = self._unparsed + data
        end = len(data)
        position = self._missing
        if end < position:
            self._payload += data
            self._missing -= end
            return
        try:
            if position:
                self._missing = 0
                self._payload += data[:position]
                payload = bytes(self._payload)
                self._payload = bytearray()
                message = self._message(self._head, payload, on_control)
                if message is not None:
                    yield message
            max_size = self._max_size
            no_fragments = self._fragments_type is None
            while end - position >= 2:
                head = data[position]
                length = data[position + 1]
                start = position + 2
                if length > 125:
                    if length > 127:
                        raise _violation("a frame is masked, as only a client's may be")
                    if length == 126:
                        if end - start < 2:
                            break
                        length = data[start] << 8 | data[start + 1]
                        start += 2
                    else:
                        if end - start < 8:
                            break
                        length = int.from_bytes(data[start : start + 8], "big")
                        start += 8
                    if length > max_size:
                        raise BrokenStream(
                            f"a message of {length} bytes is larger than the option max_payload "
                            f"({max_size} bytes)",
                            limit=max_size,
                        )
                whole = no_fragments and (head == _FINAL_BINARY or head == _FINAL_TEXT)
                if not whole:
                    self._check(head, length)
                stop = start + length
                if stop > end:
                    self._head = head
                    self._payload += data[start:]
                    self._missing = stop - end
                    position = end
                    break
                position = stop
                if whole:
                    yield head & 0x0F, data[start:stop]
                else:
                    message = self._message(head, data[start:stop], on_control)
                    no_fragments = self._fragments_type is None
                    if message is not None:
                        yield message
        finally:  # also if the caller stops in the middle, to close the connection
            self._unparsed = data[position:]

    def _check(self, head: int, length: int) -> None:
        """Refuse what may not follow here, before its payload has come."""
        frame_type = head & 0x0F
        if head & 0x70:
            raise _violation("a frame uses an extension that was not agreed upon")
        if frame_type >= FrameType.CLOSE:
            if frame_type > FrameType.PONG:
                raise _violation(f"a frame has the unknown type {frame_type}")
            if not head & 0x80 or length > 125:
                raise _violation("a control frame is fragmented or over 125 bytes")
            return
        if frame_type == FrameType.CONTINUATION:
            if self._fragments_type is None:
                raise _violation("a frame continues a message that was never begun")
        elif frame_type > FrameType.BINARY:
            raise _violation(f"a frame has the unknown type {frame_type}")
        elif self._fragments_type is not None:
            raise _violation("a message begins before the one before it has ended")
        size = len(self._fragments) + length
        if size > self._max_size:
            raise BrokenStream(
                f"a message in fragments, {size} bytes so far, is larger than the option "
                f"max_payload ({self._max_size} bytes)",
                limit=self._max_size,
            )

    def _message(
        self, head: int, payload: bytes, on_control: OnControl
    ) -> tuple[int, bytes] | None:
        """The message that a frame is or completes; None after a fragment or a control frame."""
        frame_type = head & 0x0F
        if frame_type >= FrameType.CLOSE:
            on_control(frame_type, payload)
            return None
        final = bool(head & 0x80)
        if self._fragments_type is None:
            if final:
                return frame_type, payload
            self._fragments_type = frame_type
        self._fragments += payload
        if not final:
            return None
        message_type, self._fragments_type = self._fragments_type, None
        whole, self._fragments = bytes(self._fragments), bytearray()
        return message_type, whole


def _violation(what: str) -> BrokenStream:
    return BrokenStream(f"the Gateway broke the WebSocket protocol: {what}")
