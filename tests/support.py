"""Helpers that many tests share: waits, threads, a clock, and measurements."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future
from types import MethodType
from typing import Any, TypeVar

from shardlib import errors

HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
"""False on a free-threaded Python, which does not show the stack of a running thread."""

TOKEN = "test.token.never-in-a-log"

AT_ONCE = 6.0
"""Seconds within which a machine, however busy, does what has nothing to wait for."""

NEVER = 30.0
"""Seconds of a timeout that runs out only if what a test asks for is broken."""

# The close codes after which a shard does not connect again, and what it raises.
FATAL: dict[int, type[errors.ShardClosed]] = {
    4004: errors.AuthenticationFailed,
    4010: errors.InvalidShard,
    4011: errors.ShardingRequired,
    4012: errors.InvalidAPIVersion,
    4013: errors.InvalidIntents,
    4014: errors.DisallowedIntents,
}


def send_signal(process: subprocess.Popen[Any], number: int) -> None:
    """Send a signal to a process; return from SIGSTOP once the process has stopped."""
    process.send_signal(number)
    if sys.platform != "win32" and number == signal.SIGSTOP:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)


def wait_until(condition: Callable[[], object], timeout: float = 30.0, what: str = "") -> None:
    """Return once the condition holds; fail, and name ``what``, if that takes too long."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain for {what or condition}")
        time.sleep(0.002)


def in_background(function: Callable[..., object], *arguments: Any) -> Future[object]:
    """Call a function on a daemon thread; a call that never returns does not stop pytest."""
    outcome: Future[object] = Future()

    def call() -> None:
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return outcome


_Value = TypeVar("_Value")


def not_none(value: _Value | None) -> _Value:
    """Return a value for the type checker to take as not None; fail if the value is None."""
    assert value is not None
    return value


def owner(method: object) -> Any:
    """The object that a bound method belongs to."""
    assert isinstance(method, MethodType)
    return method.__self__


class Thread(threading.Thread):
    """A thread that starts at once, and keeps the result of its function."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__()
        self.result: object = None
        self._function = function
        self.start()

    def run(self) -> None:
        self.result = self._function()

    def finish(self) -> object:
        """Wait up to thirty seconds for the end; return the result of the function."""
        self.join(30)
        assert not self.is_alive()
        return self.result


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def peak_memory(function: Callable[[], object]) -> int:
    """The most bytes that Python held during a call, without those held before it."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def seconds(function: Callable[[], object]) -> float:
    """The processor time of a call, the best of three, to compare with that of another call."""
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        function()
        best = min(best, time.thread_time() - start)
    return best
