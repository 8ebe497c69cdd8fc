"""The WebSocket handshake: websocket-client writes the request, and the answer is read here.

The answer is read by :mod:`shardlib.answers`, and judged by RFC 6455, section 4.1: status 101 with
everything that belongs to it, or nothing. websocket-client is then shown a plain 101. Left to
itself, it refuses valid answers (a header field in Latin-1, a cookie of an unusual form, a status
100 or 103 first), waits for the whole page that comes with a refusal, and keeps cookies for all of
the process.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import time
from http import HTTPStatus

import websocket

from shardlib.answers import (
    BODY_WAIT,
    Head,
    UnusableAnswer,
    phrase_of,
    read_beginning,
    read_head,
    retry_after,
)
from shardlib.deadline import Deadline
from shardlib.text import count
from shardlib.transport import Transport

_HASHED_WITH_THE_KEY = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


def shake_hands(
    url: str, transport: Transport, deadline: Deadline
) -> tuple[websocket.WebSocket, bytes]:
    """Ask the server for a WebSocket. Blocks the calling thread until `deadline`.

    :param url: of the server, with its path and query.
    :param transport: connected to it.
    :param deadline: by when the answer must be there.
    :returns: websocket-client's object, and what was received after the head of the answer.
    :raises UnusableAnswer: if the server answers anything but a right 101.
    :raises TimeoutError: if the answer does not come in time.
    :raises OSError: if the connection breaks.
    """
    key = base64.b64encode(os.urandom(16)).decode()
    stream = _Stream(transport, deadline, key)
    client: websocket.WebSocket = websocket.WebSocket(enable_multithread=False)
    try:
        # websocket-client is given a socket, so it neither dials nor wraps.
        client.connect(  # type: ignore[no-untyped-call]
            url,
            socket=stream,
            suppress_origin=True,
            header={"User-Agent": "shardlib", "Sec-WebSocket-Key": key},
        )
    except websocket.WebSocketTimeoutException as error:
        raise TimeoutError("the server did not answer in time") from error
    return client, stream.unread


class _Stream:
    """What websocket-client takes for its socket while it shakes hands."""

    def __init__(self, transport: Transport, deadline: Deadline, key: str) -> None:
        self._transport = transport
        self._deadline = deadline
        self._key = key
        self._shown: io.BytesIO | None = None
        self.unread = b""

    def send(self, request: bytes) -> int:
        # websocket-client keeps cookies for the whole process: other people's code may have
        # received them for another bot.
        lines = [line for line in request.split(b"\r\n") if not line.startswith(b"Cookie:")]
        self._transport.send(b"\r\n".join(lines), self._deadline)
        return len(request)

    def recv(self, size: int) -> bytes:
        if self._shown is None:
            self._shown = io.BytesIO(self._read_answer())
        return self._shown.read(size)

    def _read_answer(self) -> bytes:
        """Read and judge the answer; return what websocket-client is to see of it."""
        head, self.unread = read_head(lambda: self._transport.receive(self._deadline))
        if head.status != HTTPStatus.SWITCHING_PROTOCOLS:
            wait = Deadline(BODY_WAIT).earlier(self._deadline)
            body = read_beginning(head, self.unread, lambda: self._transport.receive(wait))
            raise refusal(head, body, time.time())
        check_upgrade(head, self._key)
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_value(self._key)}\r\n\r\n"
        ).encode()

    def gettimeout(self) -> float:
        return 0.0  # tells websocket-client to ask once and wait for nothing by itself

    def close(self) -> None:
        pass  # the transport's owner closes it


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1((key + _HASHED_WITH_THE_KEY).encode()).digest()).decode()


def check_upgrade(head: Head, key: str) -> None:
    """Check that a 101 is the one that was asked for, as RFC 6455, section 4.1, has it.

    :param key: the Sec-WebSocket-Key of the request.
    :raises UnusableAnswer: if it is not; the message says why.
    """
    if head.malformed:
        raise UnusableAnswer("a line of the answer is no header field", head.malformed)
    for name, member in ("Upgrade", "websocket"), ("Connection", "Upgrade"):
        members = head.members(name.lower())
        if member.lower() not in [each.lower() for each in members]:
            raise UnusableAnswer(
                f"the answer has status 101, but no {name}: {member}", ", ".join(members)
            )
    accepts = head.fields.get("sec-websocket-accept", [])
    if len(accepts) != 1:
        raise UnusableAnswer(f"the answer has Sec-WebSocket-Accept {len(accepts)} times, not once")
    if accepts[0] != accept_value(key):
        raise UnusableAnswer(
            "Sec-WebSocket-Accept does not belong to the key that was sent; the answer may be "
            "another client's, from a cache",
            accepts[0],
        )
    for name, what in ("Extensions", "an extension"), ("Protocol", "a subprotocol"):
        members = head.members(f"sec-websocket-{name.lower()}")
        if members:
            raise UnusableAnswer(
                f"Sec-WebSocket-{name} names {what} that was not asked for", ", ".join(members)
            )


def refusal(head: Head, body: str, now: float) -> UnusableAnswer:
    """The error for an answer without status 101.

    :param body: its beginning, if it is text.
    :param now: the time of day, in seconds since 1970.
    """
    details = phrase_of(head.status)
    wait = retry_after(head, now)
    if wait is not None:
        details += f", Retry-After {count(round(wait), 'second')}"
    message = f"the server answered with HTTP {head.status} ({details})"
    if 300 <= head.status < 400 and "location" in head.fields:
        # Followed, the redirect would have the token sent to a host that the answer names.
        message += ", a redirect, which is not followed"
        body = head.fields["location"][0]
    return UnusableAnswer(message, body, status=head.status, retry_after=wait)
