"""Ctrl-C at moments of the library that are hard to meet; a trace function raises it there."""

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

from shardlib.gateway import Opcode
from shardlib.lifecycle import Lifecycle
from shardlib.testing import LocalGateway
from shardlib.transport import Transport
from shardlib.waiting import Alarm
from tests.reliability.conftest import WatchShard
from tests.support import wait_until


@contextmanager
def interrupted(code: CodeType, where: Callable[[FrameType], object]) -> Iterator[None]:
    """Raise KeyboardInterrupt, once, at the first line of a function for which `where` is true."""

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


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no thread is sent a signal there")
def test_ctrl_c_that_another_thread_receives_ends_the_wait_of_the_main_thread(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 27: Python only notes the signal, so the waiting main thread has to look now and then.

    The same happens if Ctrl-C comes just as a wait begins.
    """
    shard, _ = watch_shard(gateway)
    main = threading.main_thread().ident
    assert main is not None

    def is_main_thread_waiting() -> bool:
        return sys._current_frames()[main].f_code is Alarm.wait.__code__

    def interrupt() -> None:
        wait_until(is_main_thread_waiting)
        assert shard.socket_thread is not None and shard.socket_thread.ident is not None
        signal.pthread_kill(shard.socket_thread.ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        shard.join(30)
    assert time.monotonic() - began < 10
    thread.join()


def test_ctrl_c_while_the_reader_starts_leaves_no_life_behind(
    gateway: LocalGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 5: if Ctrl-C ends connect() before the reader has begun, the reader must not connect."""
    shard, recorder = watch_shard(gateway, connect=False)
    interrupted_already, begun = threading.Event(), threading.Event()
    begin = Lifecycle._begin_next

    def begin_late(lifecycle: Lifecycle) -> None:
        interrupted_already.wait(10)
        begin(lifecycle)
        begun.set()

    monkeypatch.setattr(Lifecycle, "_begin_next", begin_late)
    with interrupted(Alarm.wait.__code__, lambda _: True):
        shard.connect(gateway.url)
    interrupted_already.set()
    assert begun.wait(10)
    wait_until(lambda: shard.socket_thread is None)
    with pytest.raises(TimeoutError):
        gateway.wait_for_connection(timeout=0.5)
    assert recorder.life == [("closed", None)]
    recorder.calls.clear()
    shard.connect(gateway.url)
    shard.wait_until_ready(10)


def test_ctrl_c_just_after_the_send_lock_was_taken_leaves_it_free(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 9: send() releases the lock, and the next thread can send."""
    shard, _ = watch_shard(gateway, send_timeout=2.0)

    def has_just_taken_the_lock(frame: FrameType) -> bool:
        lock = frame.f_locals["self"]._send_lock
        return lock._is_owned() and not frame.f_locals["owner"]

    with interrupted(Transport.send.__code__, has_just_taken_the_lock):
        shard.update_presence(status="idle")
    errors: list[Exception] = []

    def send() -> None:
        try:
            shard.update_presence(status="dnd")
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join(10)
    assert errors == []
    assert gateway.expect(Opcode.PRESENCE_UPDATE)["d"]["status"] == "dnd"
    assert shard.stats.connections == 1
