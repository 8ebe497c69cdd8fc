"""The status at the end of a command's output, and texts that are printed before it."""

from __future__ import annotations

import threading

from shardlib.cli.terminal import Output, clip, columns_of

_SAVE_CURSOR, _RESTORE_CURSOR = "\x1b7", "\x1b8"


class StatusLine:
    """On a terminal the last line, which is renewed; elsewhere a new line each time.

    Any thread may call the methods.

    :param output: standard output.
    :param is_typed_below: True if the user types on the same terminal. Then the cursor stays in an
        empty line below the status, so that a renewed status does not overwrite what is typed.
    """

    def __init__(self, output: Output, *, is_typed_below: bool) -> None:
        self._output = output
        self._is_typed_below = is_typed_below and output.has_cursor
        # The status that stands on the terminal; None before the first one.
        self._status: str | None = None
        self._lock = threading.Lock()

    def show(self, status: str) -> None:
        """Show another status.

        :param status: the text, in one line.
        """
        with self._lock:
            if not self._output.is_terminal:
                self._output.write(status + "\n")
                return
            first = self._status is None
            self._status = self._clip(status)
            if not self._is_typed_below:
                self._output.write("\r" + self._status)
            elif first:
                self._output.write(self._status + "\n")
            else:
                self._output.write(f"{_SAVE_CURSOR}\r\x1b[A{self._status}{_RESTORE_CURSOR}")

    def print(self, text: str, *, in_place_of: str | None = None) -> None:
        """Print a line before the status.

        :param text: the text, in one line.
        :param in_place_of: a line that the user has just typed, and which the text replaces; None
            for a text that comes by itself.
        """
        with self._lock:
            if not self._output.is_terminal:
                self._output.write(text + "\n")
            elif not self._is_typed_below:
                self._output.write(f"\r{text}\n")
            else:
                up = 0 if self._status is None else 1
                if in_place_of is not None:
                    up += 1 + columns_of(in_place_of) // self._output.size[0]
                above = f"\x1b[{up}A" if up else ""
                status = "" if self._status is None else self._status + "\n"
                self._output.write(f"\r{above}\x1b[J{text}\n{status}")

    def end(self) -> None:
        """Leave the terminal with its cursor in a line of its own."""
        with self._lock:
            if self._output.is_terminal:
                self._output.write("\n")

    def _clip(self, status: str) -> str:
        width = self._output.size[0] - 1
        return clip(status, width).ljust(width)
