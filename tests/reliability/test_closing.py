"""Closing: disconnect() returns in time whatever the peer does, and leaves nothing open."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import shardlib.transport
from shardlib import Opcode, Shard, ShardState
from shardlib.deadline import Deadline
from shardlib.frames import FrameType
from shardlib.testing import GatewayConnection, LocalGateway
from shardlib.transport import StreamBroken, Transport
from shardlib.waker import Waker
from tests.peers import Peer
from tests.recorder import dispatch_numbers
from tests.reliability.conftest import MakeGateway, MakeScripted, WatchShard
from tests.reliability.storms import list_spots, press_ctrl_c, traces_instructions
from tests.reliability.support import StuckCallback
from tests.support import AT_ONCE, in_background, wait_until

PEERS: dict[str, Callable[[GatewayConnection], object]] = {
    "idle": lambda it: None,
    "in a black hole": lambda it: it.freeze(),
    "not reading": lambda it: it.stop_reading(),
    "sending ten megabytes": lambda it: it.send({"op": 0, "t": "X", "s": None, "d": "x" * 10**7}),
    "pinging": lambda it: [it.send_frame(9, b"x" * 100) for _ in range(1000)],
}


@pytest.mark.parametrize(
    "tls",
    [pytest.param(False, id="ws"), pytest.param(True, id="wss", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("peer", PEERS)
def test_disconnect_returns_in_time_whatever_the_peer_does(
    peer: str, tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Rows 4 and 8: the reader wakes up, and both threads end, though the peer answers nothing."""
    gateway = make_gateway(tls=tls, receive_buffer=4096)
    gateway.inject(instead_of="close")
    shard, recorder = watch_shard(gateway, close_timeout=1.6)
    PEERS[peer](gateway.connections[-1])

    began = time.monotonic()
    shard.disconnect()

    assert time.monotonic() - began < 1.6 + AT_ONCE
    # The reader had a quarter of close_timeout for its own end, which a busy machine may exceed.
    wait_until(lambda: shard.socket_thread is None and shard.heartbeat_thread is None)
    assert recorder.life[-2:] == [("disconnected", 1000, True), ("closed", None)]


def test_a_descriptor_is_not_closed_while_a_sender_waits_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 17: otherwise send() could write to another file that got the same descriptor."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    transport = Transport(ours)
    descriptor = ours.fileno()
    full, woken, leave = threading.Event(), threading.Event(), threading.Event()
    wait = shardlib.transport.wait_until_ready

    def wait_a_little_longer(
        file_descriptor: int, writing: bool, timeout: float | None, waker: Waker | None = None
    ) -> bool:
        if not wait(file_descriptor, writing, 0):
            full.set()
        ready = wait(file_descriptor, writing, timeout, waker)
        if full.is_set():  # the peer reads nothing, so only abort() can have ended the wait
            woken.set()
            leave.wait(10)
        return ready

    monkeypatch.setattr(shardlib.transport, "wait_until_ready", wait_a_little_longer)
    monkeypatch.setattr(shardlib.transport, "TIME_TO_LEAVE", 10.0)
    errors: list[Exception] = []

    def send() -> None:
        try:
            transport.send(bytes(10**7), Deadline(20))
        except OSError as error:
            errors.append(error)

    sending = threading.Thread(target=send)
    sending.start()
    assert full.wait(10)
    transport.abort()
    assert woken.wait(10)
    closing = threading.Thread(target=transport.close)
    closing.start()
    closing.join(0.1)  # time in which close() would close a descriptor that it did not protect

    os.fstat(descriptor)  # raises if the descriptor is closed
    leave.set()
    sending.join(10)
    closing.join(10)
    with pytest.raises(OSError):
        os.fstat(descriptor)
    assert [type(error) for error in errors] == [StreamBroken]
    theirs.close()


@pytest.mark.slow
def test_300_connects_and_disconnects_leave_no_thread(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 4: each disconnect() ends the threads of the shard, before READY or after."""
    shard, recorder = watch_shard(gateway, connect=False)
    threads = threading.active_count()
    for number in range(300):
        shard.connect(gateway.url)
        if number % 3:
            shard.wait_until_ready(10)
        shard.disconnect()
        assert shard.state is ShardState.CLOSED
        assert shard.socket_thread is None
    wait_until(lambda: threading.active_count() == threads)
    assert recorder.count("closed") == 300


def test_disconnect_by_eight_threads_at_once_closes_once(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Rows 16 and 39: the close frame arrives whole, and each callback is called once."""
    for _ in range(20):
        shard, recorder = watch_shard(gateway)
        connection = gateway.connections[-1]
        threads = [threading.Thread(target=shard.disconnect) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert recorder.count("closed") == 1
        assert recorder.count("disconnected") == 1
        assert connection.wait_closed() == 1000


def test_a_second_disconnect_does_not_abort_the_closing_handshake_of_the_first(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 4: disconnect() aborts only a connection that is still opening."""
    gateway.inject(instead_of="close")
    shard, _ = watch_shard(gateway, close_timeout=20.0)
    connection, transport = gateway.connections[-1], shard._reader.connection._transport
    closing = threading.Thread(target=shard.disconnect)
    closing.start()
    wait_until(lambda: connection.close_code)  # now the reader waits for the peer's close frame

    shard._lifecycle.request_close(1000, Deadline(20))  # as disconnect() does before it waits

    assert transport is not None and not transport._aborted
    connection.proceed()
    closing.join(10)
    assert not closing.is_alive()
    assert connection.wait_closed() == 1000


def test_disconnect_sends_the_close_frame_for_a_reader_stuck_in_a_callback(
    stuck: StuckCallback, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Rows 4 and 48: the bot goes offline at once, though its callback does not return."""
    shard, recorder = watch_shard(gateway, close_timeout=0.8)
    connection = gateway.connections[-1]
    shard.on("TYPING_START")(stuck)
    dispatch_numbers(gateway, range(1))
    assert stuck.entered.wait(10)
    shard.disconnect()

    assert connection.wait_closed() == 1000
    assert shard.socket_thread is not None  # still inside the callback
    stuck.release.set()
    wait_until(lambda: shard.socket_thread is None)
    assert recorder.life[-2:] == [("disconnected", 1000, True), ("closed", None)]


def test_the_close_frame_is_sent_if_disconnect_and_the_reader_close_at_once(
    stuck: StuckCallback,
    gateway: LocalGateway,
    watch_shard: WatchShard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 4: the callback returns just as disconnect() is about to send the close frame."""
    shard, _ = watch_shard(gateway, close_timeout=0.8)
    connection, ours = gateway.connections[-1], shard._reader.connection
    closing = threading.Event()
    send_close, close = ours._send_close, ours.close

    def send_late(code: int, deadline: Deadline) -> None:
        if shard._lifecycle.in_reader_thread():
            closing.wait(10)
        else:
            stuck.release.set()
            assert closing.wait(10)
        send_close(code, deadline)

    def close_and_tell(code: int, deadline: Deadline) -> None:
        closing.set()
        close(code, deadline)

    monkeypatch.setattr(ours, "_send_close", send_late)
    monkeypatch.setattr(ours, "close", close_and_tell)
    shard.on("TYPING_START")(stuck)
    dispatch_numbers(gateway, range(1))
    assert stuck.entered.wait(10)

    shard.disconnect()

    assert closing.is_set()
    assert connection.wait_closed() == 1000


def test_no_property_shows_a_connection_inside_on_socket_disconnected(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 39: the properties have changed before the shard calls the callback."""
    seen: list[tuple[Any, ...]] = []

    def look(shard: Shard, code: int | None, closed_by_self: bool) -> None:
        seen.append((shard.socket_active, shard.socket_identified, shard.state))

    shard, recorder = watch_shard(gateway, on_socket_disconnected=look)
    gateway.connections[-1].reset()
    wait_until(lambda: len(seen) == 1)
    shard.wait_until_ready(10)
    shard.disconnect()

    assert seen == [(False, False, ShardState.WAITING), (False, False, ShardState.CLOSING)]
    recorder.calls.clear()  # incomplete: another callback stood in place of the recorder's


@pytest.mark.parametrize(
    "error",
    [TimeoutError("mine"), OSError("mine"), RuntimeError("mine")],
    ids=lambda it: type(it).__name__,
)
def test_an_exception_of_a_signal_handler_in_the_middle_of_a_frame_is_raised_unchanged(
    error: Exception,
) -> None:
    """send() does not take the exception for a broken stream; half a frame is out, so it aborts."""
    ours, theirs = socket.socketpair()
    transport = Transport(ours)

    def interrupt(number: int, frame: object) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(type(error), match="mine") as caught:
            transport.send(bytes(10**7), Deadline(20))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught.value is error
    assert transport.aborted
    transport.close()
    theirs.close()


@traces_instructions
def test_ctrl_c_at_any_point_of_a_read_leaves_the_transport_to_other_threads() -> None:
    """With gevent the reader is on the main thread, where Ctrl-C comes."""
    ours, theirs = socket.socketpair()
    transport = Transport(ours)

    def receive() -> None:
        theirs.send(b"x")
        transport.receive_unless_woken(Deadline(20))

    receive()  # from now on, a read waits first
    pressed = 0
    for spot in list_spots(receive)[1]:
        pressed += press_ctrl_c(spot, receive)
        in_background(transport.is_idle).result(AT_ONCE)
    assert pressed > 10
    transport.close()
    theirs.close()


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b"", 4000),
        (b"\x03\xe8", 4000),  # 1000
        (b"\x03\xe9bye", 4000),  # 1001
        (b"\x0f\xa9", 4000),  # 4009
        (b"\x03\xed", 1002),  # 1005
        (b"\x03\xee", 1002),  # 1006
        (b"\x00\x00", 1002),
        (b"\xff\xff", 1002),
        (b"\x0f\xa0\xff\xfe", 1007),  # 4000, and a reason that is not UTF-8
    ],
    ids=["none", "1000", "1001", "4009", "1005", "1006", "0", "65535", "no UTF-8"],
)
def test_a_close_frame_is_answered_by_a_code_that_ends_no_session(
    payload: bytes, answer: int, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    def script(peer: Peer) -> None:
        peer.begin()
        if peer.number == 1:
            peer.send_frame(payload, FrameType.CLOSE)
        peer.serve()

    gateway = make_scripted(script)
    watch_shard(gateway)
    second = gateway.peer(2)
    wait_until(lambda: second.opening is not None)
    assert gateway.peers[0].close_code == answer
    assert second.opening is not None
    # Discord's own 4009 alone says that the session has ended.
    ended = payload == b"\x0f\xa9"
    assert second.opening["op"] == (Opcode.IDENTIFY if ended else Opcode.RESUME)
