"""The WebSocket handshake: websocket-client writes the request, and the answer is read here.

The answer is read by RFC 9110 and RFC 9112, and judged by RFC 6455, section 4.1: status 101 with
everything that belongs to it, or nothing. websocket-client is then shown a plain 101. Left to
itself, it refuses valid answers (a header field in Latin-1, a cookie of an unusual form, a status
100 or 103 first), waits for the whole page that comes with a refusal, and keeps cookies for all of
the process.

:func:`read_head` and :func:`read_beginning` are given a function that receives. All else is pure.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

import websocket

from shardlib.deadline import Deadline
from shardlib.text import count
from shardlib.transport import Transport

# Bytes of all heads up to the final one. An answer has a few hundred, with the cookies and policies
# of a proxy a few thousand, and common servers and clients stop at 8 to 64 KiB.
MAX_HEAD = 65536

# Of the body of a refusal. A server sends the two together, or else a moment apart; more of it
# would make no better message.
BODY_WAIT = 0.2  # seconds
BODY_BYTES = 4096

_HASHED_WITH_THE_KEY = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

_END_OF_HEAD = re.compile(rb"\n\r?\n")  # RFC 9112, section 2.2, allows for a missing CR
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d[ \t]+(\d{3})(?:[ \t\r]|$)")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[^\n]*\n")

# Seconds, thirty years: a Retry-After of more digits is no number that anybody means.
_LONGEST_WAIT = 999_999_999.0

_Receive = Callable[[], bytes]
"""Waits, and returns some bytes, or b"" at the end of the stream."""


class HandshakeFailed(Exception):
    """The server did not agree to a WebSocket. :class:`Connection` tells users of it.

    :param message: why, in words of this library's.
    :param said: what the server wrote about it, as it was received. No part of the message: it has
        to be made fit to be shown.
    :param retry_after: seconds that the server asked to wait, or None.
    """

    def __init__(self, message: str, said: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.said = said
        self.retry_after = retry_after


class Head(NamedTuple):
    """The head of an answer.

    :param status: the status code, three digits.
    :param fields: by its name in lower case, the values of each header field, in their order.
    :param malformed: the first line that is no header field, or "".
    """

    status: int
    fields: dict[str, list[str]]
    malformed: str = ""

    def members(self, name: str) -> list[str]:
        """The members of a header field that is a list, of all its lines."""
        members = ",".join(self.fields.get(name, ())).split(",")
        return [member.strip(" \t") for member in members if member.strip(" \t")]


def shake_hands(
    url: str, transport: Transport, deadline: Deadline
) -> tuple[websocket.WebSocket, bytes]:
    """Ask the server for a WebSocket. Blocks the calling thread until `deadline`.

    :param url: of the server, with its path and query.
    :param transport: connected to it.
    :param deadline: by when the answer must be there.
    :returns: websocket-client's object, and what was received after the head of the answer.
    :raises HandshakeFailed: if the server answers anything but a right 101.
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
        head, self.unread = read_head(lambda: self._transport.receive(self._deadline) or b"")
        if head.status != HTTPStatus.SWITCHING_PROTOCOLS:
            wait = Deadline(BODY_WAIT).earlier(self._deadline)
            body = read_beginning(head, self.unread, lambda: self._transport.receive(wait) or b"")
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


def read_head(receive: _Receive) -> tuple[Head, bytes]:
    """Read the head of the final answer, and pass those over that only announce it (1xx).

    :param receive: called until the head is complete.
    :returns: the head, and what was received after it.
    :raises HandshakeFailed: if what comes is no head, or has no end.
    """
    received = bytearray()
    searched = 0
    left = MAX_HEAD
    while True:
        # Not left until the head is complete: a server that speaks something else may wait for us.
        if received[:5] != b"HTTP/"[: len(received)]:
            raise HandshakeFailed(
                "the server does not speak HTTP; is the URL right, its port and its scheme?",
                received.partition(b"\n")[0].decode("latin-1"),
            )
        found = _END_OF_HEAD.search(received, max(0, searched - 2))
        end = len(received) + 1 if found is None else found.end()
        if end > left:
            raise HandshakeFailed(f"the head of the answer has more than {MAX_HEAD} bytes")
        if found is None:
            searched = len(received)
            data = receive()
            if not data:
                raise HandshakeFailed("the server closed the connection")
            received += data
            continue
        head = parse_head(bytes(received[:end]))
        del received[:end]
        if head.status == HTTPStatus.SWITCHING_PROTOCOLS or not 100 <= head.status < 200:
            return head, bytes(received)
        searched = 0
        left -= end


def parse_head(head: bytes) -> Head:
    """Parse the head of an answer, its empty line included.

    A line that is no header field is no reason to withhold the status of a refusal: see
    :attr:`Head.malformed`.

    :raises HandshakeFailed: if it does not begin with a status.
    """
    first, _, rest = head.partition(b"\n")
    status = _STATUS_LINE.match(first)
    if status is None:
        raise HandshakeFailed("the answer has no HTTP status", first.decode("latin-1"))
    fields: dict[str, list[str]] = {}
    malformed = b""
    for line in _FOLD.sub(b" ", rest).split(b"\n"):
        line = line.removesuffix(b"\r")
        name, colon, value = line.partition(b":")
        if colon and _FIELD_NAME.fullmatch(name) and b"\r" not in value and b"\0" not in value:
            values = fields.setdefault(name.decode().lower(), [])
            values.append(value.strip(b" \t").decode("latin-1"))
        else:  # the empty line, too, which is the last
            malformed = malformed or line
    return Head(int(status[1]), fields, malformed.decode("latin-1"))


def check_upgrade(head: Head, key: str) -> None:
    """Check that a 101 is the one that was asked for, as RFC 6455, section 4.1, has it.

    :param key: the Sec-WebSocket-Key of the request.
    :raises HandshakeFailed: if it is not; the message says why.
    """
    if head.malformed:
        raise HandshakeFailed("a line of the answer is no header field", head.malformed)
    for name, member in ("Upgrade", "websocket"), ("Connection", "Upgrade"):
        members = head.members(name.lower())
        if member.lower() not in [each.lower() for each in members]:
            raise HandshakeFailed(
                f"the answer has status 101, but no {name}: {member}", ", ".join(members)
            )
    accepts = head.fields.get("sec-websocket-accept", [])
    if len(accepts) != 1:
        raise HandshakeFailed(f"the answer has Sec-WebSocket-Accept {len(accepts)} times, not once")
    if accepts[0] != accept_value(key):
        raise HandshakeFailed(
            "Sec-WebSocket-Accept does not belong to the key that was sent; the answer may be "
            "another client's, from a cache",
            accepts[0],
        )
    for name, what in ("Extensions", "an extension"), ("Protocol", "a subprotocol"):
        members = head.members(f"sec-websocket-{name.lower()}")
        if members:
            raise HandshakeFailed(
                f"Sec-WebSocket-{name} names {what} that was not asked for", ", ".join(members)
            )


def refusal(head: Head, body: str, now: float) -> HandshakeFailed:
    """The error for an answer without status 101.

    :param body: its beginning, if it is text.
    :param now: the time of day, in seconds since 1970.
    """
    known = head.status in set(HTTPStatus)
    details = HTTPStatus(head.status).phrase if known else "unknown status"
    wait = _retry_after(head, now)
    if wait is not None:
        details += f", Retry-After {count(round(wait), 'second')}"
    message = f"the server answered with HTTP {head.status} ({details})"
    if 300 <= head.status < 400 and "location" in head.fields:
        # Followed, the redirect would have the token sent to a host that the answer names.
        message += ", a redirect, which is not followed"
        body = head.fields["location"][0]
    return HandshakeFailed(message, body, retry_after=wait)


def read_beginning(head: Head, received: bytes, receive: _Receive) -> str:
    """Read the beginning of a refusal's body, and return it if it is text; "" if it is not.

    :param received: what was received after the head.
    :param receive: called until there is enough; raises OSError if the rest is not worth a wait.
    """
    kind = head.fields.get("content-type", ["text/plain"])[0].lower()
    if "content-encoding" in head.fields or not (kind.startswith("text/") or "json" in kind):
        return ""
    size = BODY_BYTES
    length = head.fields.get("content-length", [""])[0]
    if re.fullmatch("[0-9]{1,9}", length):
        size = min(size, int(length))
    while len(received) < size:
        try:
            data = receive()
        except OSError:
            break
        if not data:
            break
        received += data
    beginning = received[:size]
    if "transfer-encoding" in head.fields:
        beginning = _join_chunks(beginning)
    return " ".join(beginning.decode(errors="replace").split())


def _join_chunks(body: bytes) -> bytes:
    """The content of a body in chunks (RFC 9112, section 7.1), as far as the body goes."""
    content = b""
    while match := _CHUNK_SIZE.match(body):
        size = int(match[1], 16)
        if size == 0:
            break
        content += body[match.end() : match.end() + size]
        body = body[match.end() + size + 2 :]
    return content


def _retry_after(head: Head, now: float) -> float | None:
    """Seconds that a refusal asks us to wait, in either form of RFC 9110, section 10.2.3."""
    value = head.fields.get("retry-after", [""])[0]
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_WAIT)
    import datetime  # here: the next takes a while to import
    import email.utils

    try:
        date = email.utils.parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.timezone.utc)
        return max(0.0, date.timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None
