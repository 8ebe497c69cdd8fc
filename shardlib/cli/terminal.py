"""Writing lines, for a person at a terminal or for the next program in a pipe."""

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

    No text waits to be flushed when the process ends, and a thread that is stuck in a full pipe
    holds no lock that the interpreter would need at its exit.

    :param stream: ``sys.stdout`` or ``sys.stderr``, None if it was closed before the start.
    :raises OSError: if it is closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        if stream is None:
            raise OSError("standard output is closed")
        self.encoding = stream.encoding
        self.is_terminal = stream.isatty()
        self._file = cast(io.RawIOBase, open(stream.fileno(), "wb", buffering=0, closefd=False))

    def write(self, text: str) -> None:
        """Write a whole text. Blocks the calling thread while the reader is slow.

        :param text: characters that the stream cannot encode are escaped.
        :raises BrokenPipeError: if the reader has gone.
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

    :param output: where to.
    :param details: True to print all lines of a record, such as a traceback's; False for the first.
    """

    def __init__(self, output: Output, details: bool) -> None:
        super().__init__()
        self._output = output
        self._details = details

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; nothing if the reader has gone, or if the record cannot be formatted."""
        try:
            first, *others = self.format(record).split("\n")
            lines = [f"{clock(record.created)} -- {first}", *(others if self._details else [])]
            self._output.write("".join(printable(line) + "\n" for line in lines))
        except Exception:
            pass


def clock(seconds: float) -> str:
    """Local time of day, from seconds since 1970."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def columns(cells: Iterable[tuple[str, int]]) -> str:
    """Cells side by side.

    :param cells: the text of each, and its least width in characters.
    """
    return "  ".join(f"{text:<{width}}" for text, width in cells).rstrip()
