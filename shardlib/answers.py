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
