"""Writes lines, for a person at a terminal or for the next program in a pipe."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Iterable
from typing import Protocol, TextIO, cast

from shardlib.text import printable

DIM, BOLD, RED, GREEN, YELLOW = "2", "1", "31", "32", "33"
"""Styles of a terminal's text (ECMA-48, "select graphic rendition")."""

# Seconds that a command waits, at its end, for a stream that takes no text.
END_TIMEOUT = 1.0


class Lines(Protocol):
    """Where lines are printed: a stream, or a place in it."""

    def style(self, text: str, style: str) -> str:
        """A text in a style, if the stream takes styles."""

    def write(self, text: str) -> None:
        """Print a text, which ends a line."""


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
        #: True if the stream takes control sequences (ECMA-48), which move the cursor for example.
        #: The old console of Windows would print them.
        self.has_cursor = (
            self.is_terminal and os.environ.get("TERM") != "dumb" and sys.platform != "win32"
        )
        #: True if styles may be used: https://no-color.org says who is asked.
        self.has_styles = self.has_cursor and not os.environ.get("NO_COLOR")
        self._file = cast(io.RawIOBase, open(stream.fileno(), "wb", buffering=0, closefd=False))

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal; 80 and 24 if it does not know them."""
        try:
            columns, rows = os.get_terminal_size(self._file.fileno())
        except OSError:
            columns = rows = 0
        return columns or 80, rows or 24

    def is_same_as(self, other: Output) -> bool:
        """True if two streams go to one terminal, file or pipe."""
        return os.path.sameopenfile(self._file.fileno(), other._file.fileno())

    def style(self, text: str, style: str) -> str:
        """A text in a style, if this stream takes styles.

        :param text: to be written.
        :param style: one of this module's.
        """
        return f"\x1b[{style}m{text}\x1b[0m" if self.has_styles and text else text

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

    def write_last(self, text: str) -> None:
        """Write a text with which the command ends, or nothing if the stream takes none.

        The main thread may call this: a full pipe does not keep the command from ending.

        :param text: the text.
        """

        def write() -> None:
            with contextlib.suppress(OSError):  # a pipe without a reader
                self.write(text)

        thread = threading.Thread(target=write, name="last words", daemon=True)
        thread.start()
        thread.join(END_TIMEOUT)


class LogLines(logging.Handler):
    """Prints log records.

    :param output: the stream to print to.
    :param details: True to print all lines of a record, with a traceback's; False for the first
        line only.
    """

    def __init__(self, output: Lines, details: bool) -> None:
        super().__init__()
        self._output = output
        self._details = details

    def handle(self, record: logging.LogRecord) -> bool:
        """Print a record without the handler's lock.

        A thread that is stuck in a full pipe would hold it, and the interpreter takes it at exit.
        """
        kept = bool(self.filter(record))
        if kept:
            self.emit(record)
        return kept

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, or nothing if formatting the record or writing to the stream fails.

        :param record: the record.
        """
        try:
            first, *others = self.format(record).split("\n")
            lines = [f"{clock(record.created)} -- {first}", *(others if self._details else [])]
            style = _style_of(record.levelno)
            self._output.write(
                "".join(self._output.style(printable(line), style) + "\n" for line in lines)
            )
        except Exception:
            pass


def _style_of(level: int) -> str:
    if level >= logging.ERROR:
        return RED
    return YELLOW if level >= logging.WARNING else DIM


def clock(seconds: float) -> str:
    """Return a time of day, local time.

    :param seconds: seconds since 1970, in UTC.
    """
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def columns(cells: Iterable[tuple[str, int]]) -> str:
    """Return a line of cells side by side.

    :param cells: the text of each, and its least width in columns of a terminal.
    """
    return "  ".join(text + " " * (width - columns_of(text)) for text, width in cells).rstrip()


def terminal_columns(otherwise: int) -> int:
    """The width of standard output.

    :param otherwise: the columns if there is no terminal, or one that does not know its width.
    """
    return shutil.get_terminal_size((otherwise, 0)).columns or otherwise


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_columns_of_one, text))


def _columns_of_one(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # drawn over what stands before
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip(text: str, width: int) -> str:
    """A text, or as much of its beginning as fits.

    :param text: to be shown on one line.
    :param width: columns of a terminal.
    """
    if columns_of(text) <= width:
        return text
    taken = 0
    for index, character in enumerate(text):
        taken += _columns_of_one(character)
        if taken > width - 1:
            return text[:index] + "…"
    return text
