"""The WebSocket of one client, as bytes: no socket, no thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from websockets.exceptions import ProtocolError
from websockets.frames import Close, Frame
from websockets.frames import Opcode as FrameType
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from shardlib.testing.compression import (
    TRANSPORT_COMPRESSIONS,
    Deflater,
    Message,
    PlainText,
    ZlibPayload,
)

# The websockets package logs every frame at level DEBUG, with the token of an Identify in it. This
# logger discards every record.
_silent = logging.Logger("shardlib.testing.frames", level=logging.CRITICAL + 1)


class WebSocket:
    """Parses what one client sends, and makes the bytes that go to the client.

    Every method that makes bytes leaves them for :meth:`output`.
    """

    def __init__(self) -> None:
        self._protocol = ServerProtocol(logger=_silent)
        self._deflater: Deflater = PlainText()
        self._message_size: int | None = None
        self._fragment_size: int | None = None
        # The fragments received so far of a message whose last fragment has not arrived.
        self._fragments: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether 101 was sent, and neither side has sent CLOSE."""
        return self._protocol.state is OPEN

    @property
    def is_refused(self) -> bool:
        """Whether the client asks for a WebSocket in a way that the RFC forbids."""
        return self._protocol.handshake_exc is not None

    @property
    def was_closed_by_client(self) -> bool:
        """Whether both sides have sent CLOSE, and the client was first."""
        return bool(self._protocol.close_rcvd_then_sent)

    @property
    def was_closed_by_gateway(self) -> bool:
        """Whether the gateway has sent CLOSE before the client did.

        websockets parses all bytes that have arrived before its user sees the first frame in them.
        So a CLOSE of the client says nothing about the payloads that came before it.
        """
        return self._protocol.close_sent is not None and not self._protocol.close_rcvd_then_sent

    # From the client.

    def receive(self, data: bytes) -> Iterator[Request | bytes | Close]:
        """Parse bytes from the client.

        :param data: the bytes, cut anywhere.
        :returns: the request for a WebSocket, whole messages, and the CLOSE frame, as they came.
        """
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                yield event
            elif isinstance(event, Frame):
                yield from self._receive_frame(event)

    def _receive_frame(self, frame: Frame) -> Iterator[bytes | Close]:
        if frame.opcode is FrameType.CLOSE:
            close = self._protocol.close_rcvd
            assert close is not None
            yield close
        elif frame.opcode in (FrameType.TEXT, FrameType.BINARY, FrameType.CONT):
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                message = b"".join(self._fragments)
                self._fragments.clear()
                yield message

    # To the client.

    def accept(self, request: Request) -> None:
        """Answer the request for a WebSocket: with 101, if it is a right one.

        :param request: from :meth:`receive`.
        """
        self._protocol.send_response(self._protocol.accept(request))

    def close(self, code: int | None, reason: str) -> None:
        """Send a CLOSE frame.

        :param code: the close code; None for a CLOSE frame without a code.
        :param reason: at most 123 bytes of UTF-8.
        :raises ValueError: if RFC 6455 forbids such a CLOSE frame.
        """
        try:
            self._protocol.send_close(code, reason)
        except ProtocolError as error:
            raise ValueError(f"no CLOSE frame can carry {code} and {reason!r}: {error}") from None

    def send_text(self, text: bytes) -> None:
        """Send one payload, compressed, and in as many pieces as was asked for.

        :param text: the payload's JSON, in UTF-8.
        """
        message = self._deflater.deflate(text)
        send = self._sender(message)
        for piece in _pieces(message.data, self._message_size):
            if self._fragment_size is None:
                send(piece)
                continue
            first, *others = _pieces(piece, self._fragment_size)
            send(first, fin=False)
            for other in others:
                self._protocol.send_continuation(other, fin=False)
            self._protocol.send_continuation(b"", fin=True)

    def send_message(self, message: Message) -> None:
        """Send one message as it is.

        :param message: the message's kind and content.
        """
        self._sender(message)(message.data)

    def output(self) -> list[bytes]:
        """Return the bytes to send now; an empty chunk stands for the end of TCP."""
        return self._protocol.data_to_send()

    def _sender(self, message: Message) -> Callable[..., None]:
        return self._protocol.send_binary if message.binary else self._protocol.send_text

    # How payloads are sent.

    def compress_transport(self, compression: str) -> None:
        """Compress all later payloads in one stream.

        :param compression: a key of :data:`shardlib.testing.compression.TRANSPORT_COMPRESSIONS`.
        :raises ImportError: if the package that this compression needs is missing.
        """
        self._deflater = TRANSPORT_COMPRESSIONS[compression]()

    def compress_payloads(self) -> None:
        """Compress each later payload by itself."""
        self._deflater = ZlibPayload()

    def release_compressor(self) -> None:
        """Compress no more, and free the compressor's quarter of a megabyte."""
        self._deflater = PlainText()

    def split_messages(self, size: int) -> None:
        """Cut each later payload into several messages.

        :param size: the most bytes of a message.
        """
        self._message_size = size

    def fragment_messages(self, size: int) -> None:
        """Cut each later message into several fragments.

        :param size: the most bytes of a fragment.
        """
        self._fragment_size = size


def _pieces(data: bytes, size: int | None) -> list[bytes]:
    """Cut data into pieces. The last piece has four bytes, as long as the suffix of zlib-stream.

    :param data: the data.
    :param size: the most bytes of any other piece; None to leave the data whole.
    """
    if size is None or len(data) <= 4:
        return [data]
    body, suffix = data[:-4], data[-4:]
    return [*(body[at : at + size] for at in range(0, len(body), size)), suffix]
