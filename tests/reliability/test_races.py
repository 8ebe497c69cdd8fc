"""Threads that read properties of a shard while its reader changes them.

With a global interpreter lock most of these races are rare; free-threaded Python meets them at
once.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from shardlib import NotReady, Shard
from shardlib.compression import create_inflater
from shardlib.connection import Connection
from shardlib.gateway import Opcode
from shardlib.testing import LocalGateway
from tests.peers import Peer, ScriptedGateway
from tests.recorder import dispatch_numbers
from tests.reliability.conftest import MakeScripted, WatchShard
from tests.support import in_background, wait_until


@contextmanager
def watch_for_decreases(value: Callable[[], float]) -> Iterator[list[tuple[float, float]]]:
    """Read a value again and again on another thread; collect each pair in which it decreased."""
    decreases: list[tuple[float, float]] = []
    stop = threading.Event()

    def watch() -> None:
        last = value()
        while not stop.is_set():
            now = value()
            if now < last:
                decreases.append((last, now))
            last = now

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield decreases
    finally:
        stop.set()
        thread.join()


def test_counters_are_up_to_date_when_a_wait_returns(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """The shard counts before it changes the state for which other threads wait."""
    shard, _ = watch_shard(gateway, connect=False)
    shard.connect(gateway.url)
    assert shard.stats.connections == 1
    shard.wait_until_ready(10)
    for count in range(1, 51):
        shard.reconnect()
        assert shard.stats.connections == count + 1
        shard.wait_until_ready(10)
        stats = shard.stats
        assert (stats.resumes, stats.reconnects) == (count, count)


def test_bytes_received_never_decreases(gateway: LocalGateway, watch_shard: WatchShard) -> None:
    """When a connection ends, its bytes are neither missing nor counted twice for a moment.

    A trace function reads the counter at each line of the library that the reader runs.
    """
    shard, _ = watch_shard(gateway, connect=False)
    counts: list[int] = []

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        is_reader = threading.current_thread() is shard.socket_thread
        if not is_reader or not frame.f_globals.get("__name__", "").startswith("shardlib."):
            return None
        counts.append(shard.stats.bytes_received)
        return trace

    threading.settrace(trace)
    try:
        shard.connect(gateway.url)
    finally:
        threading.settrace(None)
    for _ in range(3):
        shard.wait_until_ready(10)
        shard.reconnect()
    shard.disconnect()

    assert len(set(counts)) > 10
    assert counts == sorted(counts)


def test_of_two_concurrent_presences_the_one_sent_last_begins_the_next_session(
    gateway: LocalGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 40: even if the thread that sent the other one is slower to return."""
    shard, _ = watch_shard(gateway)
    later_sent = threading.Event()
    send = Connection.send

    def send_and_return_late(self: Connection, data: str, *rest: Any, **named: Any) -> float:
        wait = send(self, data, *rest, **named)
        if "idle" in data:
            later_sent.wait(10)
        return wait

    monkeypatch.setattr(Connection, "send", send_and_return_late)
    slow = threading.Thread(target=shard.update_presence, kwargs={"status": "idle"})
    slow.start()
    assert gateway.connections[-1].expect(Opcode.PRESENCE_UPDATE)["d"]["status"] == "idle"
    shard.update_presence(status="dnd")
    later_sent.set()
    slow.join()
    shard.reinstantiate()
    identify = gateway.connections[-1].expect(Opcode.IDENTIFY)
    assert identify["d"]["presence"]["status"] == "dnd"


def test_time_in_a_failed_callback_is_counted_before_on_socket_error_runs(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """A heartbeat needs the time to see that its acknowledgement waits behind a callback."""
    shard, _ = watch_shard(gateway)
    times: list[float] = []

    def note(*_: object) -> None:
        times.append(shard.stats.callback_seconds)

    @shard.on("TYPING_START")
    def fail(shard: Shard, data: object) -> None:
        note()
        time.sleep(0.05)  # the time that has to be counted
        raise RuntimeError("on purpose")

    shard.on_socket_error = note
    for _ in range(3):
        dispatch_numbers(gateway, range(1))
    wait_until(lambda: len(times) == 6)
    assert times[1] - times[0] > 0.04
    assert times == sorted(times)


@pytest.mark.slow
def test_a_send_overtaken_by_a_reconnect_does_not_precede_identify_or_resume(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """At each line of send() in turn its connection is replaced by one that is not yet READY."""
    for number in itertools.count(1):
        hello = threading.Event()

        def script(peer: Peer, hello: threading.Event = hello) -> None:
            peer.accept()
            if peer.number > 1:
                hello.wait(10)
            peer.hello()
            if peer.receive()["op"] == Opcode.IDENTIFY:
                peer.ready()
            else:
                peer.resumed(1)
            peer.serve()

        gateway = make_scripted(script)
        shard, _ = watch_shard(gateway)
        lines = _send_with_a_new_connection_at_line(number, shard, gateway, hello)
        hello.set()
        if lines < number:
            assert number > 10
            return
        shard.wait_until_ready(10)
        opening = gateway.peers[1].received[0].payload["op"]
        assert opening in (Opcode.IDENTIFY, Opcode.RESUME), f"line {number}"
        shard.disconnect()


def _send_with_a_new_connection_at_line(
    number: int, shard: Shard, gateway: ScriptedGateway, hello: threading.Event
) -> int:
    """Send, and replace the connection at one line of send(). Return how many lines send() had."""
    lines = 0
    replaced = threading.Event()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if frame.f_globals.get("__name__") == "shardlib.shard" and event == "line":
            lines += 1
            if lines == number:
                gateway.peers[0].reset()
                gateway.peer(2)
                wait_until(lambda: shard.stats.connections == 2)
                replaced.set()
        return trace

    def send() -> None:
        sys.settrace(trace)
        with contextlib.suppress(NotReady):  # the first connection was lost
            shard.send('{"op":3,"d":{"status":"idle"}}', timeout=10)

    sending = in_background(send)
    wait_until(lambda: replaced.is_set() or sending.done())
    with contextlib.suppress(concurrent.futures.TimeoutError):
        sending.result(0.1)  # time for send() to send, or to wait for READY
    hello.set()
    sending.result(10)
    if replaced.is_set():
        wait_until(lambda: gateway.peers[1].received)
    return lines


def test_the_buffer_of_an_inflater_can_be_read_while_it_grows(eager_threads: None) -> None:
    """A bytearray cannot grow while another thread copies it: the reader would fail."""
    compressor = zlib.compressobj(level=0)
    message = b'{"op":0,"d":"' + b"x" * 200_000 + b'"}'
    compressed = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
    inflater = create_inflater("zlib-stream", 1 << 20)
    with watch_for_decreases(lambda: len(inflater.buffer())) as decreases:
        for start in range(0, len(compressed), 50):
            inflated = inflater.inflate(compressed[start : start + 50])
    assert inflated == message
    assert len(decreases) <= 1  # the buffer is emptied once, when the message is complete
