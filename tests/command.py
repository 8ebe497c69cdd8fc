"""The command ``shardlib`` as a process, for tests that run it as users do."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tests.support import wait_until

ROOT = Path(__file__).parent.parent

# Seconds that any wait may take on a busy machine.
PATIENCE = 60.0

# Seconds from Ctrl-C to the end of the command. The documentation promises one; a busy machine gets
# more, but less than the ten after which a connection attempt would end by itself.
CTRL_C = 5.0

_SHOWN = 30  # lines of each output, if the test fails


def own_environment() -> dict[str, str]:
    """The environment of this process, without what would change what the command does or prints.

    That is the token, the gateway and the proxies of whoever runs the tests; and pytest-xdist sets
    COLUMNS, to which the command would cut its lines.
    """
    changing = ("DISCORD_TOKEN", "DISCORD_GATEWAY", "DISCORD_API", "COLUMNS")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in changing and not name.lower().endswith("_proxy")
    }


class Command:
    """A running ``shardlib``, with what it has written so far."""

    def __init__(
        self,
        *arguments: str,
        token: str | None = None,
        options: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        stdin: Any = subprocess.DEVNULL,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
    ) -> None:
        variables = own_environment() | (environment or {})
        if token is not None:
            variables["DISCORD_TOKEN"] = token
        self._arguments = arguments
        self.process = subprocess.Popen(
            [sys.executable, *options, "-m", "shardlib", *arguments],
            cwd=ROOT,
            env=variables,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self.status: int | None = None  # once finish() has seen its end
        self._readers: list[threading.Thread] = []
        if self.process.stderr is not None:
            self._collect(self.process.stderr, self.err)

    def _collect(self, stream: IO[bytes], lines: list[str]) -> None:
        def read() -> None:
            lines.extend(line.decode().rstrip("\n") for line in iter_lines(stream))

        def iter_lines(stream: IO[bytes]) -> Iterator[bytes]:
            with stream:
                yield from stream

        thread = threading.Thread(target=read)
        thread.start()
        self._readers.append(thread)

    def read(self) -> Command:
        """Begin to read what the command prints."""
        assert self.process.stdout is not None
        self._collect(self.process.stdout, self.out)
        return self

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def finish(self, timeout: float = PATIENCE) -> int:
        """Wait for the end of the command; return its exit status."""
        self.status = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(PATIENCE)
        return self.status

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.finish()
        # pytest shows this if the test fails: the status alone would not tell why.
        print("shardlib", *self._arguments, "ended with status", self.status)
        print(f"It printed {len(self.out)} lines, at last:", *self.out[-_SHOWN:], sep="\n  ")
        print("Its standard error, at last:", *self.err[-_SHOWN:], sep="\n  ")
        if self.process.stdout is not None:
            self.process.stdout.close()


class Pipe:
    """A pipe for what a command prints; the test holds both ends, to see when the pipe is full."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe()
        self.reader = open(reader, "rb")

    def is_full(self) -> bool:
        return not select.select([], [self._writer], [], 0)[1]

    def fill(self) -> None:
        """Write until no program can write any more."""
        os.set_blocking(self._writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self._writer, b"\n")
        os.set_blocking(self._writer, True)

    def read_rest(self) -> list[bytes]:
        """Read until the command, too, has closed its end."""
        os.close(self._writer)
        self._writer = -1
        return self.reader.readlines()

    def close(self) -> None:
        """Close both ends, as a program that has read enough does with its one."""
        self.reader.close()
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def fileno(self) -> int:
        return self._writer

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_for(lines: list[str], text: str) -> str:
    """Wait until a line holds a text, and return the line."""
    wait_until(lambda: any(text in line for line in list(lines)), PATIENCE, f"{text!r}")
    return next(line for line in list(lines) if text in line)


def run_to_end(*arguments: str, **options: Any) -> Command:
    with Command(*arguments, **options) as command:
        command.read()
        command.finish()
    return command


def assert_quiet(command: Command) -> None:
    noise = [line for line in command.err if re.search("Traceback|Error|gnored", line)]
    assert not noise, command.err
