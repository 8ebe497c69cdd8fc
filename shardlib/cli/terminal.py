"""Writes lines, for a person at a terminal or for the next program in a pipe."""

from __future__ import annotations

import io
import logging
import select
import time
from collections.abc import Iterable
from typing import TextIO, cast

from shardlib.text import printable


class Output:
    """A standard stream, without a buffer.

    So no text waits for a flush when the process ends, and a thread that is stuck in a full pipe
    holds no lock of a buffer, for which the interpreter would wait at its exit.

    :param stream: ``sys.stdout`` or ``sys.stderr``; None if the stream was closed before the
        process started.
    :raises OSError: if the stream is closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        if stream is None:
            raise OSError("standard output is closed")
        self.encoding = stream.encoding
        self.is_terminal = stream.isatty()
        self._file = cast(io.RawIOBase, open(stream.fileno(), "wb", buffering=0, closefd=False))

    def write(self, text: str) -> None:
        """Write a whole text. Blocks the calling thread while a pipe is full.

        :param text: the text. Characters that the stream's encoding does not have are escaped.
        :raises BrokenPipeError: if the stream is a pipe that no program reads any more.
        :raises OSError: if the text cannot be written, because the disk is full for instance.
        """
        data = memoryview(text.encode(self.encoding, "backslashreplace"))
        while data:
            written = self._file.write(data)
            if written is None:  # another program has made the stream non-blocking
                select.select([], [self._file], [])
            else:
                data = data[written:]


class LogLines(logging.Handler):
    """Prints log records.

    :param output: the stream to print to.
    :param details: True to print all lines of a record, with a traceback's; False for the first
        line only.
    """

    def __init__(self, output: Output, details: bool) -> None:
        super().__init__()
        self._output = output
        self._details = details

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, or nothing if formatting the record or writing to the stream fails.

        :param record: the record.
        """
        try:
            first, *others = self.format(record).split("\n")
            lines = [f"{clock(record.created)} -- {first}", *(others if self._details else [])]
            self._output.write("".join(printable(line) + "\n" for line in lines))
        except Exception:
            pass


def clock(seconds: float) -> str:
    """Return a time of day, local time.

    :param seconds: seconds since 1970, in UTC.
    """
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def columns(cells: Iterable[tuple[str, int]]) -> str:
    """Return a line of cells side by side.

    :param cells: the text of each cell, and the cell's least width in characters.
    """
    return "  ".join(f"{text:<{width}}" for text, width in cells).rstrip()
