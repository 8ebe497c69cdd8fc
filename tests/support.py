"""What tests share."""

from __future__ import annotations

import time
from collections.abc import Callable

TOKEN = "test.token.never-in-a-log"


def wait_until(condition: Callable[[], object], timeout: float = 10.0, what: str = "") -> None:
    """Return once the condition holds; fail, saying for what, where it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain for {what or condition}")
        time.sleep(0.002)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
