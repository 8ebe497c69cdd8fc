"""Ctrl-C at the moments where it hurts most; a trace function raises it there."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest

from shardlib.control import Control
from shardlib.testing import LocalGateway
from shardlib.transport import Transport
from tests.reliability.conftest import MakeShard
from tests.support import wait_until


@contextmanager
def interrupted(code: CodeType, where: Callable[[FrameType], object]) -> Iterator[None]:
    """Press Ctrl-C, once, at the first line of a function for which `where` is true."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is code and where(frame):
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        sys.settrace(before)


def _called_by(frame: FrameType, function: Callable[..., object]) -> bool:
    return frame.f_back is not None and frame.f_back.f_code is function.__code__


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no thread is sent a signal there")
def test_that_interrupts_no_wait(gateway: LocalGateway, make_shard: MakeShard) -> None:
    """Row 27: Python has noted it, but the main thread goes on waiting; it looks now and then.

    So it is where another thread receives it, and where it comes just as a wait begins.
    """
    shard, _ = make_shard(gateway)
    main = threading.main_thread().ident
    assert main is not None

    def waits() -> bool:
        frame = sys._current_frames()[main]
        return frame.f_code is threading.Condition.wait.__code__ and _called_by(frame, Control.wait)

    def interrupt() -> None:
        wait_until(waits)
        assert shard.socket_thread is not None and shard.socket_thread.ident is not None
        signal.pthread_kill(shard.socket_thread.ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        shard.join(30)
    assert time.monotonic() - began < 10
    thread.join()


def test_while_the_reader_starts(gateway: LocalGateway, make_shard: MakeShard) -> None:
    """Row 5: a reader that connect() did not wait for lives no life that nobody could end."""
    shard, _ = make_shard(gateway, connect=False)

    def waits_for_the_thread(frame: FrameType) -> bool:
        return frame.f_back is not None and frame.f_back.f_code is threading.Thread.start.__code__

    with interrupted(threading.Event.wait.__code__, waits_for_the_thread):
        shard.connect(gateway.url)
    shard.disconnect()
    with pytest.raises(TimeoutError):
        gateway.wait_for_connection(timeout=0.5)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)


def test_when_the_send_lock_was_just_taken(gateway: LocalGateway, make_shard: MakeShard) -> None:
    """Row 9: the lock is then nobody's to release. That costs this connection, not the shard."""
    shard, _ = make_shard(gateway, send_timeout=0.2)

    def has_just_taken_it(frame: FrameType) -> bool:
        lock = frame.f_locals["self"]._send_lock
        return lock._is_owned() and "begun" not in frame.f_locals

    with interrupted(Transport.send.__code__, has_just_taken_it):
        shard.update_presence(status="idle")
    shard.reconnect()
    shard.wait_until_ready(10)
    shard.update_presence(status="idle")
    assert shard.stats.resumes == 1
