"""Draws tail.svg: what ``shardlib tail --local`` prints on a terminal. Needs rich, and no Windows.

python docs/pictures/tail.py
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 92
COMMAND = "shardlib tail --local --count 16"

# rich names fonts of another server. The picture is to load nothing.
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def run() -> str:
    """Run the command in a terminal of its own, and return what it has printed."""
    leader, follower = pty.openpty()
    size = struct.pack("HHHH", 24, COLUMNS, 0, 0)
    fcntl.ioctl(follower, termios.TIOCSWINSZ, size)
    command = [sys.executable, "-m", *COMMAND.split()]
    with subprocess.Popen(command, stdout=follower, stderr=follower) as process:
        os.close(follower)
        printed = b""
        while True:
            try:
                some = os.read(leader, 65536)
            except OSError:  # the process has ended, and the terminal with it
                break
            if not some:
                break
            printed += some
        process.wait()
    os.close(leader)
    return printed.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(f"$ {COMMAND}", highlight=False)
        console.print(Text.from_ansi(run()))
    svg = console.export_svg(title="shardlib", unique_id="tail")
    Path(__file__).with_suffix(".svg").write_text(FONT.sub("", svg))
