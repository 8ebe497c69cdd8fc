"""An HTTP response."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from shardlib.testing.payloads import encode
from shardlib.testing.rest.errors import ApiError


@dataclass(frozen=True)
class Response:
    """A response to a request, without the headers that belong to one connection."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def phrase(self) -> str:
        """The reason phrase of the status."""
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            # A status outside the standards, such as 520 from the proxy in front of Discord.
            return "Unknown"

    @property
    def fields(self) -> list[tuple[str, str]]:
        """All headers, with ``Date`` and ``Content-Length``, unless :attr:`headers` has them."""
        own = [("Date", formatdate(usegmt=True))]
        if self.status not in (204, 304):
            own.append(("Content-Length", str(len(self.body))))
        given = {name.lower() for name in self.headers}
        return [each for each in own if each[0].lower() not in given] + [*self.headers.items()]

    def serialize(self) -> bytes:
        """Return the response as the last one of a connection.

        A header ``Connection`` in :attr:`headers` replaces ``Connection: close``.
        """
        fields = self.fields
        if not any(name.lower() == "connection" for name, _ in fields):
            fields.append(("Connection", "close"))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"HTTP/1.1 {self.status} {self.phrase}\r\n{head}\r\n".encode("latin-1") + self.body


def json_response(status: int, data: Any, headers: dict[str, str] | None = None) -> Response:
    """Return a response that carries JSON.

    :param status: the HTTP status.
    :param data: a value that JSON can express.
    :param headers: further headers.
    """
    return Response(status, encode(data), {"Content-Type": "application/json", **(headers or {})})


def error_response(error: ApiError) -> Response:
    """Return the response that carries an error.

    :param error: the error.
    """
    return json_response(error.status, error.body, error.headers)
