"""Footer: lines at the bottom of a terminal that are renewed in place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from shardlib.cli.terminal import Output

# Seconds between two renewals.
INTERVAL = 0.2

# Seconds that stop() waits for a terminal that takes no text.
_STOP_TIMEOUT = 0.2


class Footer:
    """Lines that stay below everything that is printed through the footer.

    A thread of its own renews them, so that the main thread is never stuck in a terminal that takes
    no text, and Ctrl-C ends the command. Only the main thread may make a footer.

    :param output: a terminal whose cursor can be moved.
    :param draw: called with columns and rows, returns the lines: none wider, and no more than that.
    """

    def __init__(self, output: Output, draw: Callable[[int, int], list[str]]) -> None:
        self._output = output
        self._draw = draw
        # Whoever prints holds it. The interpreter does not ask for it at its exit.
        self._lock = threading.Lock()
        self._shown: list[str] = []
        self._columns = 0  # of the terminal when they were shown
        self._is_left_alone = False  # another program may have printed below
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="footer", daemon=True)
        if hasattr(signal, "SIGCONT"):  # the shell has printed meanwhile, after Ctrl-Z
            signal.signal(signal.SIGCONT, self._leave_alone)

    def start(self) -> None:
        """Begin to show the lines."""
        self._thread.start()

    def style(self, text: str, style: str) -> str:
        """A text in a style, if the terminal takes styles."""
        return self._output.style(text, style)

    def write(self, text: str) -> None:
        """Print lines above the footer.

        :param text: ends a line.
        :raises OSError: if the text cannot be written.
        """
        with self._lock:
            # One write, so that the footer does not flicker.
            self._output.write(self._to_top(erase=True) + text + "\n".join(self._shown))

    def stop(self) -> None:
        """Remove the footer. What is printed later is printed as it is. Blocks for a moment."""
        self._stopping.set()
        self._thread.join(_STOP_TIMEOUT)

    def _run(self) -> None:
        try:
            while not self._stopping.wait(INTERVAL):
                columns, rows = self._output.size
                # The last column stays free, or the cursor would be behind it. So does half of the
                # terminal, for what is printed.
                self._renew(self._draw(columns - 1, max(1, rows // 2)), columns)
            self._renew([], 0)
        except OSError:
            pass  # the terminal is gone, and SIGHUP ends the command

    def _renew(self, lines: list[str], columns: int) -> None:
        with self._lock:
            if lines != self._shown or self._has_lost_its_place():
                start = self._to_top(erase=not lines)
                end = "\x1b[J" if lines else ""
                # Each line is erased after its text, and not the footer before: no flicker.
                self._output.write(start + "\n".join(line + "\x1b[K" for line in lines) + end)
            self._shown = lines
            self._columns = columns

    def _to_top(self, *, erase: bool) -> str:
        """Move the cursor to where the footer begins."""
        if not self._shown:
            return ""
        if self._has_lost_its_place():
            self._is_left_alone = False
            self._columns = 0
            return "\n"  # what is shown stays as it is
        up = len(self._shown) - 1
        return "\r" + (f"\x1b[{up}A" if up else "") + ("\x1b[J" if erase else "")

    def _has_lost_its_place(self) -> bool:
        """True if the footer cannot tell where it begins.

        Another program may have printed below it; or the terminal has become narrower, and has
        broken the lines, or cut them.
        """
        return self._is_left_alone or self._output.size[0] < self._columns

    def _leave_alone(self, *_: object) -> None:
        self._is_left_alone = True
