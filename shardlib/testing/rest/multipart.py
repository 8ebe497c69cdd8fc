"""Bodies of type ``multipart/form-data``, by which clients upload files."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

# What is wrong with a body the parser logs, too, which without any handler goes to standard error.
_silent = logging.Logger("shardlib.testing.multipart", level=logging.CRITICAL + 1)


class MultipartError(Exception):
    """A body is no ``multipart/form-data``; the message says why."""


@dataclass(frozen=True)
class File:
    """One file of a request."""

    #: The name of the form's field, ``files[0]`` for instance.
    field: str
    #: The name of the file, as the client gave it.
    filename: str
    #: The media type; None if the client named none.
    content_type: str | None
    #: The content.
    content: bytes


@dataclass
class _Part:
    """A part of a body, while the parser reads it."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)
    header_name: bytes = b""
    header_value: bytes = b""


class _Collector:
    """Collects the parts that the parser reports by its callbacks."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.ended = False

    def begin_part(self) -> None:
        self.parts.append(_Part())

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].header_name += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].header_value += data[start:end]

    def end_header(self) -> None:
        part = self.parts[-1]
        part.headers[part.header_name.lower()] = part.header_value
        part.header_name = part.header_value = b""

    def add_content(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]

    def end(self) -> None:
        self.ended = True


def parse(content_type: str, body: bytes) -> tuple[dict[str, bytes], list[File]]:
    """Parse a body; return its fields by name, and its files in their order.

    :param content_type: the header ``Content-Type``, which names the boundary.
    :param body: the whole body.
    :raises MultipartError: if the body is not as its type demands.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise MultipartError("The Content-Type header names no boundary.")
    collector = _Collector()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.begin_part,
                "on_header_field": collector.add_header_name,
                "on_header_value": collector.add_header_value,
                "on_header_end": collector.end_header,
                "on_part_data": collector.add_content,
                "on_end": collector.end,
            },
        )
        parser.logger = _silent
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MultipartError(f"The body is no multipart/form-data: {error}") from None
    if not collector.ended:
        raise MultipartError("The body ends before its last boundary.")
    fields: dict[str, bytes] = {}
    files: list[File] = []
    for part in collector.parts:
        _, options = parse_options_header(part.headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            kind = part.headers.get(b"content-type")
            files.append(
                File(
                    name,
                    options[b"filename"].decode("utf-8", "replace"),
                    None if kind is None else kind.decode("latin-1"),
                    bytes(part.content),
                )
            )
        else:
            fields[name] = bytes(part.content)
    return fields, files
