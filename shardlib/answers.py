"""HTTP answers: their heads and their bodies, read by RFC 9110 and RFC 9112.

Each function that reads is given a function that receives. All else is pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

# Bytes of all heads up to the final one. An answer has a few hundred, with the cookies and policies
# of a proxy a few thousand, and common servers and clients stop at 8 to 64 KiB.
MAX_HEAD = 65536

# Of the body of a refusal. A server sends the two together, or else a moment apart; more of it
# would make no better message.
BODY_WAIT = 0.2  # seconds
BODY_BYTES = 4096

_END_OF_HEAD = re.compile(rb"\n\r?\n")  # RFC 9112, section 2.2, allows for a missing CR
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d[ \t]+(\d{3})(?:[ \t\r]|$)")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LENGTH = re.compile("[0-9]{1,9}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[^\n]*\n")

_LONGEST_LINE = 4096  # bytes of the line before a chunk: a length, and extensions that are ignored

# Seconds, thirty years: a Retry-After of more digits is no number that anybody means.
_LONGEST_WAIT = 999_999_999.0

_Receive = Callable[[], bytes]
"""Waits, and returns some bytes, or b"" at the end of the stream."""


class UnusableAnswer(Exception):
    """A server answered, but not as HTTP has it, or not with what it was asked for.

    :meth:`shardlib.opening.Opening.failure` tells users of it.

    :param message: why, in words of this library's.
    :param said: what the server wrote about it, as it was received. No part of the message: it has
        to be made fit to be shown.
    :param status: the status of the answer if that is the reason, or None.
    :param retry_after: seconds that the server asked to wait, or None.
    """

    def __init__(
        self,
        message: str,
        said: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.said = said
        self.status = status
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


def read_head(receive: _Receive) -> tuple[Head, bytes]:
    """Read the head of the final answer, and pass those over that only announce it (1xx).

    :param receive: called until the head is complete.
    :returns: the head, and what was received after it.
    :raises UnusableAnswer: if what comes is no head, or has no end.
    """
    received = bytearray()
    searched = 0
    left = MAX_HEAD
    while True:
        # Not left until the head is complete: a server that speaks something else may wait for us.
        if received[:5] != b"HTTP/"[: len(received)]:
            raise UnusableAnswer(
                "the server does not speak HTTP; is the URL right, its port and its scheme?",
                received.partition(b"\n")[0].decode("latin-1"),
            )
        found = _END_OF_HEAD.search(received, max(0, searched - 2))
        end = len(received) + 1 if found is None else found.end()
        if end > left:
            raise UnusableAnswer(f"the head of the answer has more than {MAX_HEAD} bytes")
        if found is None:
            searched = len(received)
            data = receive()
            if not data:
                raise UnusableAnswer("the server closed the connection")
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

    :raises UnusableAnswer: if it does not begin with a status.
    """
    first, _, rest = head.partition(b"\n")
    status = _STATUS_LINE.match(first)
    if status is None:
        raise UnusableAnswer("the answer has no HTTP status", first.decode("latin-1"))
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


def phrase_of(status: int) -> str:
    """What a status code means, in the words of the standards."""
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "unknown status"


def read_body(head: Head, received: bytes, receive: _Receive, limit: int) -> bytes:
    """Read the whole body of an answer: in chunks, of a known length, or all that comes.

    :param received: what was received after the head.
    :param receive: called until the body is complete.
    :param limit: bytes of the largest body that is taken.
    :raises UnusableAnswer: if the body is larger, or not complete, or its length is not told as
        RFC 9112, section 6, has it.
    """
    rest = _Rest(received, receive)
    if head.members("transfer-encoding"):  # if there is a length as well, it does not count
        if [each.lower() for each in head.members("transfer-encoding")] != ["chunked"]:
            raise UnusableAnswer(
                "the body has a transfer encoding that was not asked for",
                ", ".join(head.members("transfer-encoding")),
            )
        return _read_chunks(rest, limit)
    lengths = set(head.members("content-length"))
    if not lengths:
        return rest.take_all(limit)
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        said = ", ".join(head.members("content-length"))
        raise UnusableAnswer("the length of the body cannot be read", said)
    if int(length) > limit:
        raise _too_large(limit)
    return rest.take(int(length))


def _read_chunks(rest: _Rest, limit: int) -> bytes:
    """The content of chunks (RFC 9112, section 7.1). What follows the last chunk is not read."""
    body = bytearray()
    while True:
        line = rest.take_line()
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise UnusableAnswer("a chunk of the body has no length", line.decode("latin-1"))
        size = int(match[1], 16)
        if size == 0:
            return bytes(body)
        if len(body) + size > limit:
            raise _too_large(limit)
        body += rest.take(size)
        if rest.take_line().strip(b"\r\n"):
            raise UnusableAnswer("a chunk of the body is longer than it says")


def _too_large(limit: int) -> UnusableAnswer:
    return UnusableAnswer(f"the body has more than {limit} bytes")


class _Rest:
    """What comes after the head.

    :param received: what was received of it.
    :param receive: called for more.
    """

    def __init__(self, received: bytes, receive: _Receive) -> None:
        self._received = bytearray(received)
        self._receive = receive

    def take(self, size: int) -> bytes:
        """The next bytes, as many as are asked for."""
        while len(self._received) < size:
            if not self._receive_more():
                raise UnusableAnswer(f"the body ends {size - len(self._received)} bytes too early")
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def take_line(self) -> bytes:
        """The next line, its line feed included."""
        while (end := self._received.find(b"\n", 0, _LONGEST_LINE)) < 0:
            if len(self._received) >= _LONGEST_LINE:
                raise UnusableAnswer("a line between the chunks of the body has no end")
            if not self._receive_more():
                raise UnusableAnswer("the body ends too early")
        return self.take(end + 1)

    def take_all(self, limit: int) -> bytes:
        """All bytes up to the end of the stream."""
        while len(self._received) <= limit:
            if not self._receive_more():
                return bytes(self._received)
        raise _too_large(limit)

    def _receive_more(self) -> bool:
        data = self._receive()
        self._received += data
        return bool(data)


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
    if _LENGTH.fullmatch(length):
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


def retry_after(head: Head, now: float) -> float | None:
    """Seconds that a refusal asks to wait, in either form of RFC 9110, section 10.2.3; or None.

    :param now: the time of day, in seconds since 1970.
    """
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
