"""Draws what commands print on a terminal. Needs rich, and Linux, for a network of its own.

python docs/pictures/terminal.py tail doctor doctor_offline
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

# By the name of its picture, each command, and what it is run by: a program that takes the network
# away, for example.
COMMANDS = {
    "tail": ("shardlib tail --local --count 16", []),
    "doctor": ("shardlib doctor --local", []),
    "doctor_offline": ("shardlib doctor", ["unshare", "--map-root-user", "--net"]),
}

# The second one needs a token, which is sent to no server.
ENVIRONMENT = {**os.environ, "DISCORD_TOKEN": "MTIz.not.one", "TERM": "xterm"}

# rich names fonts of another server. The picture is to load nothing.
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def run(command: list[str]) -> str:
    """Run a command in a terminal of its own, and return what it has printed."""
    leader, follower = pty.openpty()
    size = struct.pack("HHHH", 24, COLUMNS, 0, 0)
    fcntl.ioctl(follower, termios.TIOCSWINSZ, size)
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=ENVIRONMENT) as process:
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


def draw(name: str) -> str:
    """Run the command of a picture, and return the picture."""
    command, runner = COMMANDS[name]
    printed = run([*runner, sys.executable, "-m", *command.split()])
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(f"$ {command}", highlight=False)
        console.print(Text.from_ansi(printed))
    return FONT.sub("", console.export_svg(title="shardlib", unique_id=name))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(__file__).with_name(f"{name}.svg").write_text(draw(name))
