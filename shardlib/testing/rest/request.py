"""An HTTP request that a client sent, and what the request holds."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from shardlib.testing.rest.errors import (
    INVALID_JSON,
    TOO_MANY_FILES,
    ApiError,
    invalid_form,
)
from shardlib.testing.rest.multipart import File, MultipartError, parse

_BASE = re.compile(r"/api(?:/v(?P<version>[0-9]{1,9}))?(?P<path>/.*)")

# The most files of one request (JSON error code 30015).
_MAX_FILES = 10

# The most lists and objects within each other. Deeper ones could be decoded, but not encoded again.
_MAX_DEPTH = 100


class ReceivedRequest:
    """An HTTP request that the gateway has received, other than for a WebSocket.

    :param method: the HTTP method.
    :param target: the target of the request line, path and query.
    :param headers: the headers, by name in lower case.
    :param body: the whole body.
    """

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        #: The HTTP method, for instance ``POST``.
        self.method = method
        #: The target of the request line: path and query as the client sent them.
        self.target = target
        #: The headers, by name in lower case.
        self.headers = headers
        #: The body as bytes.
        self.body = body
        #: When the request arrived, as :func:`time.monotonic` tells the time.
        self.received_at = time.monotonic()
        #: The status of the response; None until the gateway has sent one.
        self.status: int | None = None
        try:
            parts = urlsplit(target)
        except ValueError:
            parts = None
        base = None if parts is None else _BASE.fullmatch(parts.path)
        #: The path without ``/api`` and the version, as Discord documents it, for instance
        #: ``/channels/123/messages``. The whole path, if it does not begin with ``/api``.
        self.path: str = base["path"] if base else parts.path if parts else target
        #: The API version in the path; None for a path without a version.
        self.version: int | None = int(base["version"]) if base and base["version"] else None
        #: Whether the target is a URL.
        self.is_valid = parts is not None
        #: Whether the path begins with ``/api``.
        self.is_for_api = base is not None
        #: The query, by name; of several values of one name, the last.
        self.query: dict[str, str] = dict(
            parse_qsl(parts.query if parts else "", keep_blank_values=True)
        )

    def __repr__(self) -> str:
        return f"<ReceivedRequest {self.method} {self.path} status={self.status}>"

    def answered(self, status: int) -> None:
        """Remember the status of the response.

        :param status: the HTTP status.
        """
        self.status = status

    @property
    def json(self) -> Any:
        """The JSON of the body, or of ``payload_json`` in a body with files.

        None if there is no body, or if the body cannot be decoded.
        """
        try:
            return self.form()[0]
        except ApiError:
            return None

    @property
    def files(self) -> list[File]:
        """The files of the body, in their order."""
        try:
            return self.form()[1]
        except ApiError:
            return []

    def form(self) -> tuple[Any, list[File]]:
        """Decode the body: return its JSON, None without a body, and its files.

        :raises ApiError: if the body is not as Discord documents bodies.
        """
        if not self.body:
            return None, []
        content_type = self.headers.get("content-type", "")
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return self._form_data(content_type)
        if kind == "application/json":
            return _decode(self.body), []
        if kind == "application/x-www-form-urlencoded":
            return dict(parse_qsl(self.body.decode("utf-8", "replace"))), []
        raise invalid_form(
            "CONTENT_TYPE_INVALID",
            "Expected \"Content-Type\" header to be one of {'application/json', "
            "'application/x-www-form-urlencoded', 'multipart/form-data'}.",
        )

    def _form_data(self, content_type: str) -> tuple[Any, list[File]]:
        try:
            fields, files = parse(content_type, self.body)
        except MultipartError as error:
            raise invalid_form("CONTENT_TYPE_INVALID", str(error)) from None
        if len(files) > _MAX_FILES:
            raise ApiError(TOO_MANY_FILES)
        if "payload_json" in fields:
            return _decode(fields.pop("payload_json")), files
        return {name: value.decode("utf-8", "replace") for name, value in fields.items()}, files


def _decode(text: bytes) -> Any:
    """Decode JSON as its standard has it, without NaN and numbers beyond all bounds.

    :raises ApiError: if the text is no such JSON, or nests too deeply.
    """
    try:
        value = json.loads(text, parse_constant=_to_finite, parse_float=_to_finite)
    except (ValueError, RecursionError):
        raise ApiError(INVALID_JSON) from None
    if _is_deep(value):
        raise ApiError(INVALID_JSON)
    return value


def _to_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            nested
            for each in level
            if isinstance(each, (dict, list))
            for nested in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True
