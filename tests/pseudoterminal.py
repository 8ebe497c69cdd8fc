"""A terminal into which a command prints, and the picture that a person would see in it."""

from __future__ import annotations

import os
import re
import select
import struct

from tests.command import PATIENCE
from tests.support import wait_until

# What moves the cursor or erases, or a style; a text without either; what saves or restores the
# cursor.
_TOKEN = re.compile(r"\x1b\[(\d*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n])|\x1b([78])|(\x1b)")


class PseudoTerminal:
    """A terminal of the system's.

    :ivar text: all that was read so far.
    """

    def __init__(self) -> None:
        self._leader, self.follower = os.openpty()
        self.text = b""

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal a size. A new one has none."""
        import fcntl  # here: Windows has neither
        import termios

        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, text: bytes) -> None:
        """Read until a text was printed."""
        wait_until(lambda: self.read_some() and text in self.text, PATIENCE, repr(text))

    def type(self, text: str) -> None:
        """Type a text, as the user at the terminal."""
        os.write(self._leader, text.encode())

    def read_some(self) -> bool:
        """Read what was printed meanwhile, if anything was. Returns True."""
        if select.select([self._leader], [], [], 0.1)[0]:
            self.text += os.read(self._leader, 4096)
        return True

    def read_rest(self) -> None:
        """Read what was printed by programs that have ended."""
        while select.select([self._leader], [], [], 0)[0]:
            self.text += os.read(self._leader, 4096)

    def is_full(self) -> bool:
        """True if no program can print any more."""
        return not select.select([], [self.follower], [], 0)[1]

    def lines(self, columns: int) -> list[str]:
        """The picture of the text: its lines, with those that were scrolled away."""
        return picture(self.text.decode(), columns)

    def close(self) -> None:
        os.close(self._leader)
        os.close(self.follower)


def picture(text: str, columns: int) -> list[str]:
    """What a terminal of a width shows, with the lines that were scrolled away.

    It knows the control sequences that the command uses, and fails at any other.
    """
    lines: list[list[str]] = [[]]
    row = column = 0
    saved = (0, 0)
    for match in _TOKEN.finditer(text):
        number, control, carriage_return, line_feed, character, cursor, escape = match.groups()
        assert escape is None, f"half a control sequence in {text!r}"
        if character is not None:
            if column == columns:  # the terminal breaks the line
                row, column = row + 1, 0
                lines[row:row] = [] if row < len(lines) else [[]]
            line = lines[row]
            line.extend(" " * (column - len(line)))
            line[column : column + 1] = [character]
            column += 1
        elif cursor == "7":
            saved = (row, column)
        elif cursor == "8":
            row, column = saved
        elif carriage_return:
            column = 0
        elif line_feed:
            row += 1
            if row == len(lines):
                lines.append([])
        elif control == "A":
            row -= int(number or 1)
            assert row >= 0, "the cursor was moved above the first line"
        elif control == "K":
            assert number == ""
            del lines[row][column:]
        elif control == "J":
            assert number == ""
            del lines[row][column:]
            del lines[row + 1 :]
        else:
            assert control == "m", f"an unknown control sequence: {match[0]!r}"
    return ["".join(line) for line in lines]
