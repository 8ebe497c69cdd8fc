"""Programs of the examples that run against a local gateway, with a window or without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from shardlib.testing import LocalGateway
from tests.support import wait_until

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0


class Example:
    """A running example, whose output is collected: a file of examples, or ``-m`` and a module."""

    before: tuple[str, ...] = ()  # the program that runs the example, if Python is not enough

    def __init__(self, gateway: LocalGateway, name: str, *arguments: str, **environment: str):
        program = name if name == "-m" else str(ROOT / "examples" / name)
        self.process = subprocess.Popen(
            [sys.executable, *self.before, program, *arguments],
            env={
                **os.environ,
                "DISCORD_TOKEN": gateway.token,
                "DISCORD_GATEWAY": gateway.url,
                "PYTHONFAULTHANDLER": "1",
                "PYTHONPATH": str(ROOT),
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            self.lines.extend(stdout)

    def wait_for(self, text: str) -> None:
        def look() -> bool:
            return any(text in line for line in list(self.lines))

        wait_until(look, PATIENCE, f"{text!r} in {self.lines}")

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit status, see :meth:`end_interrupted`."""
        self.process.send_signal(signal.SIGINT)
        return self.end_interrupted()

    def end_interrupted(self) -> int:
        """Wait until Ctrl-C has ended the example, and return the exit status.

        An example that does not end tells where each of its threads is.
        """
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # for faulthandler
            self._reader.join(PATIENCE)
            raise AssertionError("Ctrl-C did not end it: " + "".join(self.lines)) from None

    def __enter__(self) -> Example:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdin is not None
        self.process.stdin.close()


class EarlyInterruptedExample(Example):
    """A running example to which Ctrl-C comes when it first calls a function, ``where``."""

    def __init__(self, gateway: LocalGateway, name: str, where: str, **environment: str):
        self.before = (str(ROOT / "tests" / "early_interrupt.py"), where)
        super().__init__(gateway, name, **environment)

    def __enter__(self) -> EarlyInterruptedExample:
        return self


class WatchedExample(Example):
    """A running example that tells which finalisers run on its main thread, in a line of each."""

    before = (str(ROOT / "tests" / "finaliser_watch.py"),)

    def __enter__(self) -> WatchedExample:
        return self


class WindowExample(Example):
    """A running example with a window, which tests/window_user.py uses."""

    before = (str(ROOT / "tests" / "window_user.py"),)

    def __enter__(self) -> WindowExample:
        return self

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def take_picture(self, name: str) -> None:
        """Save a picture of the window, if SHARDLIB_ARTEFACTS names a folder for it."""
        if folder := os.environ.get("SHARDLIB_ARTEFACTS"):
            path = Path(folder).resolve() / name
            path.unlink(missing_ok=True)
            time.sleep(4)  # until what was written has drifted into the window of pygame
            self._tell(f"picture {path}")
            wait_until(path.exists, PATIENCE)

    def close_window(self) -> tuple[int, float]:
        """Close the window, and return the exit status and the seconds until the process ended."""
        start = time.monotonic()
        self._tell("close")
        status = self.process.wait(PATIENCE)
        return status, time.monotonic() - start
