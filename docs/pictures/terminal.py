"""Draws what a command prints on a terminal. Needs rich, and no Windows."""

from __future__ import annotations

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

# rich names fonts of another server. The picture is to load nothing.
_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def _run(command: list[str], environment: dict[str, str]) -> str:
    """Run a command in a terminal of its own, and return what it has printed."""
    leader, follower = pty.openpty()
    size = struct.pack("HHHH", 24, COLUMNS, 0, 0)
    fcntl.ioctl(follower, termios.TIOCSWINSZ, size)
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=environment) as process:
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


def draw(picture: Path, command: str, *, runner: tuple[str, ...] = (), **environment: str) -> None:
    """Run a command of shardlib, and draw what it prints.

    :param picture: the file to write, or a source beside it of the same name.
    :param command: as a user types it.
    :param runner: the program that runs the command, with its arguments.
    :param environment: variables for the command.
    """
    printed = _run(
        [*runner, sys.executable, "-m", *command.split()],
        {**os.environ, "TERM": "xterm", **environment},
    )
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(f"$ {command}", highlight=False)
        console.print(Text.from_ansi(printed))
    svg = console.export_svg(title="shardlib", unique_id=picture.stem)
    picture.with_suffix(".svg").write_text(_FONT.sub("", svg), "utf-8")
