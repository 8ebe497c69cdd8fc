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

    So nothing waits to be flushed when the process ends, and a thread that is stuck in a pipe
    nobody reads holds no lock that the interpreter would need at its exit.

    :param stream: one of the interpreter's; None where it was closed before the start
    :raises OSError: where it is closed
    """

    def __init__(self, stream: TextIO | None) -> None:
        if stream is None:
            raise OSError("standard output is closed")
        self.encoding = stream.encoding
        self.is_terminal = stream.isatty()
        self._file = cast(io.RawIOBase, open(stream.fileno(), "wb", buffering=0, closefd=False))

    def write(self, text: str) -> None:
        """Write all of it. Blocks while the reader is slow.

        :raises BrokenPipeError: where nobody reads any more
        :raises OSError: where it can't be written, the disk being full for instance
        """
        data = memoryview(text.encode(self.encoding, "backslashreplace"))
        while data:
            written = self._file.write(data)
            if written is None:  # somebody else has made the stream non-blocking
                select.select([], [self._file], [])
            else:
                data = data[written:]


class LogLines(logging.Handler):
    """Prints log records, one line each.

    :param details: whether to print the lines that follow in a record, tracebacks above all
    """

    def __init__(self, output: Output, details: bool) -> None:
        super().__init__()
        self._output = output
        self._details = details

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; where nobody reads, or what it says can't be formatted, nothing."""
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
    """Cells side by side, each at least as wide as its number says."""
    return "  ".join(f"{text:<{width}}" for text, width in cells).rstrip()
