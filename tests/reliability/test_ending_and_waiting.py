"""disconnect() ends every wait, returns within close_timeout, and no connection follows."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from shardlib import (
    AuthenticationFailed,
    ConnectionFailed,
    NotReady,
    Opcode,
    Shard,
    ShardClosed,
    ShardError,
    ShardState,
)
from shardlib.frames import FrameType
from tests.peers import Peer, ScriptedGateway
from tests.reliability.conftest import MakeScripted, WatchShard
from tests.reliability.support import Flood, StuckCallback, closing_with
from tests.support import AT_ONCE, NEVER, in_background, wait_until

CLOSE_TIMEOUT = 0.5


def closes_in_one_round_trip(peer: Peer) -> None:
    """Answer the close frame of the client, and leave the end of TCP to the client."""
    peer.begin()
    peer.serve()
    peer.close(peer.close_code)
    peer.linger()


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_disconnect_returns_at_the_close_frame_of_a_peer_that_leaves_tcp_open(
    tls: bool, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 46: disconnect() takes one round trip, not its whole close_timeout."""
    shard, _ = watch_shard(make_scripted(closes_in_one_round_trip, tls=tls), close_timeout=NEVER)

    began = time.monotonic()
    shard.disconnect()

    assert time.monotonic() - began < AT_ONCE
    assert shard.socket_thread is None


@pytest.mark.parametrize("way", ["disconnect()", "with"])
def test_disconnect_after_a_fatal_close_code_returns_only_after_on_socket_closed(
    way: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 47: on_socket_closed has returned, and no thread of the shard is alive."""
    told: list[object] = []

    def take_a_while(shard: Shard, error: object) -> None:
        time.sleep(0.2)
        told.append(error)

    threads = set(threading.enumerate())
    gateway = make_scripted(closing_with(4004))
    shard, _ = watch_shard(gateway, connect=False, on_socket_closed=take_a_while)

    def meet_the_error() -> None:
        shard.connect(gateway.url)
        with pytest.raises(AuthenticationFailed):
            shard.wait_until_ready(10)

    if way == "disconnect()":
        meet_the_error()
        shard.disconnect()
    else:
        with shard:
            meet_the_error()

    assert len(told) == 1
    assert shard.socket_thread is None and shard.heartbeat_thread is None

    def ours() -> list[str]:
        return [each.name for each in set(threading.enumerate()) - threads]

    wait_until(lambda: not [name for name in ours() if name.startswith("shard-")])


# Behind a callback that does not return

WAITS: dict[str, Callable[[Shard], object]] = {
    "wait_until_ready()": lambda shard: shard.wait_until_ready(),
    "wait_for()": lambda shard: shard.wait_for("NEVER"),
    "send()": lambda shard: shard.send('{"op":3,"d":{"status":"idle"}}', timeout=60),
    "reconnect()": lambda shard: shard.reconnect(),
    "resume()": lambda shard: shard.resume(),
    "reinstantiate()": lambda shard: shard.reinstantiate(),
    "join()": lambda shard: shard.join(),
}

# The methods that need READY are called after it, the others before.
NEED_READY = ("reconnect()", "resume()", "reinstantiate()")


def shard_behind(
    stuck: StuckCallback, gateway: ScriptedGateway, make: WatchShard, **options: Any
) -> Shard:
    """Make a shard that is READY, with its reader inside a callback and a short close_timeout."""
    shard, _ = make(gateway, close_timeout=CLOSE_TIMEOUT, **options)
    shard.on("STUCK")(stuck)
    gateway.peers[-1].dispatch("STUCK")
    assert stuck.entered.wait(10)
    return shard


@pytest.mark.parametrize("wait", WAITS)
def test_disconnect_ends_every_wait_behind_a_stuck_callback(
    wait: str, stuck: StuckCallback, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 48: the callback may itself wait for the thread that waits for the shard."""
    gateway = make_scripted()
    if wait in NEED_READY:
        shard = shard_behind(stuck, gateway, watch_shard)
    else:
        shard, recorder = watch_shard(gateway, connect=False, close_timeout=CLOSE_TIMEOUT)
        shard.on_socket_connected = stuck
        shard.connect(gateway.url)
        assert stuck.entered.wait(10)
        recorder.calls.append(("connected",))  # the stuck callback stands in place of the recorder
    waiting = in_background(WAITS[wait], shard)
    with pytest.raises(concurrent.futures.TimeoutError):
        waiting.result(0.3)  # so that the thread has time to begin to wait

    began = time.monotonic()
    shard.disconnect()
    assert time.monotonic() - began < CLOSE_TIMEOUT + AT_ONCE

    error = waiting.exception(10)
    if wait == "join()":
        assert error is None
    else:
        assert type(error) is ShardClosed
    assert not stuck.release.is_set()


def test_connect_behind_a_stuck_callback_of_the_former_life_has_a_deadline(
    stuck: StuckCallback, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 48: the error tells what connect() has waited for, and no connection follows."""
    gateway = make_scripted()
    shard = shard_behind(stuck, gateway, watch_shard, connect_timeout=2.0)
    shard.disconnect()

    error = in_background(shard.connect, gateway.url).exception(10)

    assert isinstance(error, ConnectionFailed)
    assert "callback" in str(error)
    stuck.release.set()
    wait_until(lambda: shard.socket_thread is None)
    assert len(gateway.peers) == 1


def test_disconnect_ends_a_connect_behind_a_stuck_callback(
    stuck: StuckCallback, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 48: connect() raises ShardClosed, and no connection follows."""
    gateway = make_scripted()
    shard = shard_behind(stuck, gateway, watch_shard, connect_timeout=60)
    shard.disconnect()
    connecting = in_background(shard.connect, gateway.url)

    def has_ended() -> bool:
        shard.disconnect()  # again: the first call may come before connect() waits
        return connecting.done()

    wait_until(has_ended, 15, "the end of connect()")
    with pytest.raises(ShardClosed):
        connecting.result()
    stuck.release.set()
    wait_until(lambda: shard.socket_thread is None)
    assert len(gateway.peers) == 1
    assert shard.state is ShardState.CLOSED


# How long it takes


@pytest.mark.parametrize("reader", ["idle", "in a callback"])
def test_disconnect_with_a_full_send_buffer_takes_no_longer_than_close_timeout(
    reader: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Rows 9 and 51: nor does a stuck callback; send() raises in the thread that floods."""
    go_on = threading.Event()

    def reads_nothing_after_ready(peer: Peer) -> None:
        peer.begin()
        go_on.wait()

    gateway = make_scripted(reads_nothing_after_ready, receive_buffer=2048)
    close_timeout = 1.0

    def attempt() -> float:
        stuck = StuckCallback()
        shard, _ = watch_shard(gateway, close_timeout=close_timeout)
        if reader == "in a callback":
            shard.on("STUCK")(stuck)
            gateway.peers[-1].dispatch("STUCK")
            assert stuck.entered.wait(10)
        flood = Flood(shard)
        wait_until(flood.is_stuck, what="a full send buffer")
        began = time.monotonic()
        shard.disconnect()
        took = time.monotonic() - began
        assert isinstance(flood.error(10), (NotReady, ShardClosed))
        stuck.release.set()
        return took

    try:
        # One attempt may be slow on a busy machine; a fault makes every attempt slow.
        assert any(attempt() < 1.5 * close_timeout for _ in range(4))
    finally:
        go_on.set()


def test_disconnect_in_a_callback_does_not_wait_for_a_close_frame_already_received(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """The peer has closed, and leaves TCP open: it will send no other close frame."""

    def script(peer: Peer) -> None:
        peer.begin()
        peer.expect(Opcode.PRESENCE_UPDATE)
        event = b'{"op":0,"t":"LAST","s":2,"d":null}'
        peer.send_together((event, FrameType.TEXT), (b"\x0f\xa0", FrameType.CLOSE))
        peer.linger()

    shard, _ = watch_shard(make_scripted(script), close_timeout=NEVER)
    called: list[float] = []

    def disconnect(shard: Shard, data: object) -> None:
        called.append(time.monotonic())
        shard.disconnect()

    shard.on("LAST", disconnect)
    shard.update_presence()
    shard.join(20)
    assert time.monotonic() - called[0] < AT_ONCE


def test_a_reconnect_for_op_7_does_not_wait_for_a_close_frame_already_received(
    make_scripted: MakeScripted, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next connection begins at once, without the time that a close frame may take."""
    monkeypatch.setattr("shardlib.reader.CLOSE_HANDSHAKE_TIMEOUT", NEVER)
    sent: list[float] = []

    def script(peer: Peer) -> None:
        peer.begin()
        peer.expect(Opcode.PRESENCE_UPDATE)
        op_7 = b'{"op":7,"d":null}'
        sent.append(time.monotonic())
        peer.send_together((op_7, FrameType.TEXT), (b"\x0f\xa0", FrameType.CLOSE))
        peer.linger()

    gateway = make_scripted(script)
    shard, _ = watch_shard(gateway, close_timeout=2 * AT_ONCE)
    shard.update_presence()
    assert gateway.peer(2, timeout=20).accepted_at - sent[0] < AT_ONCE


@pytest.mark.parametrize("what", ["reconnect()", "disconnect() in a callback"])
def test_a_peer_that_floods_instead_of_closing_holds_up_no_reconnect_or_disconnect(
    what: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """There is always something more to read, but the shard stops reading at its deadline."""

    def script(peer: Peer) -> None:
        peer.begin()
        if peer.number > 1:
            peer.serve()
        else:
            peer.expect(Opcode.PRESENCE_UPDATE)
            peer.dispatch("LAST")
            peer.flood(b"", FrameType.PING)  # the peer sends these faster than the shard reads

    shard, recorder = watch_shard(make_scripted(script), close_timeout=2.0)
    if what == "reconnect()":
        shard.update_presence()
        wait_until(lambda: shard.stats.events["LAST"])
        assert in_background(shard.reconnect).result(10) is None
        shard.wait_until_ready(10)
    else:
        shard.on("LAST", lambda shard, data: shard.disconnect())
        shard.update_presence()
        # Not join(), which itself waits for close_timeout at most.
        wait_until(lambda: recorder.count("closed"))


def test_a_send_during_a_reconnect_for_op_7_waits_for_the_next_connection(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """The shard is not READY once it has sent its close frame, so send() waits."""
    answer = threading.Event()

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.begin()
            peer.send({"op": Opcode.RECONNECT})
            peer.serve()
            answer.wait(10)
        else:
            peer.greet()
            answer.wait(10)
            peer.resumed(1)
            peer.serve()

    gateway = make_scripted(script)
    shard, _ = watch_shard(gateway, ready=False)
    wait_until(lambda: gateway.peers[0].close_code is not None)

    assert shard.state is not ShardState.READY
    sending = in_background(shard.update_presence)
    with pytest.raises(concurrent.futures.TimeoutError):
        sending.result(0.2)
    answer.set()
    sending.result(10)
    wait_until(lambda: gateway.peer(2).sent(Opcode.PRESENCE_UPDATE))


@pytest.mark.slow
def test_disconnect_while_the_first_attempt_fails_does_not_leave_the_shard_closing(
    watch_shard: WatchShard, eager_threads: None
) -> None:
    """Row 52: the shard ends as DISCONNECTED or CLOSED, whichever of the two came first."""
    with ScriptedGateway() as gateway:
        url = gateway.url  # refuses connections from now on
    shard, recorder = watch_shard(gateway, connect=False)
    stop = threading.Event()

    def is_connecting() -> bool:
        return shard.state is ShardState.CONNECTING

    def disconnect_at_each_failure() -> None:
        while not stop.is_set():
            if is_connecting():
                while is_connecting():
                    pass
                shard.disconnect()

    threads = [threading.Thread(target=disconnect_at_each_failure) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(600):
            with pytest.raises(ShardError):
                shard.connect(url)
            wait_until(lambda: shard.state in (ShardState.DISCONNECTED, ShardState.CLOSED))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        recorder.calls.clear()  # the recorder takes a life without a connection for a fault


# What methods raise, and how often


@pytest.mark.parametrize("ours, theirs", [(4004, 4004), (4010, 4010), (4014, 4014), (None, 4004)])
def test_a_fatal_close_code_in_answer_to_disconnect_is_not_raised(
    ours: int | None, theirs: int, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 53: a peer echoes the code, as RFC 6455 says; and the close frames of both may cross."""

    def script(peer: Peer) -> None:
        peer.begin()
        peer.serve()
        peer.close(theirs)

    shard, recorder = watch_shard(make_scripted(script), close_timeout=5.0)

    with shard:
        shard.disconnect(ours)
        shard.join(10)

    assert recorder.life[-1] == ("closed", None)


@pytest.mark.parametrize("method", ["connect()", "wait_until_ready()", "join()"])
def test_an_error_that_was_handled_is_not_raised_again_at_the_end_of_with(
    method: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 54: a method has already raised the error in this thread."""
    gateway = make_scripted(closing_with(4004) if method != "connect()" else lambda peer: None)
    with watch_shard(gateway, connect=False)[0] as shard:
        if method == "connect()":
            with pytest.raises(ConnectionFailed):
                shard.connect(gateway.url)
            return
        shard.connect(gateway.url)
        with pytest.raises(AuthenticationFailed):
            shard.wait_until_ready(10) if method == "wait_until_ready()" else shard.join(10)


def test_run_forever_returns_when_disconnect_comes_before_the_first_connection(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 56: disconnect() in a SIGTERM handler ends a program without an error, in every state."""
    gateway = make_scripted(lambda peer: peer.linger())
    shard, _ = watch_shard(gateway, connect=False)
    other, _ = watch_shard(gateway, connect=False)
    running = in_background(shard.run_forever, gateway.url)
    gateway.peer(1)
    shard.disconnect()
    assert running.result(10) is None

    # connect() raises, since its caller would go on as if connected.
    connecting = in_background(other.connect, gateway.url)
    gateway.peer(2)
    other.disconnect()
    with pytest.raises(ShardClosed):
        connecting.result(10)


@pytest.mark.parametrize("wait", ["wait_until_ready()", "wait_for()"])
def test_waiting_for_a_shard_that_was_never_connected_is_refused(
    wait: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 57: without connect() nothing can ever end the wait."""
    shard, _ = watch_shard(make_scripted(), connect=False)
    with pytest.raises(ShardError, match=r"connect\(\)"):
        if wait == "wait_for()":
            shard.wait_for("READY", timeout=0.5)
        else:
            shard.wait_until_ready(0.5)


def test_a_timeout_error_tells_close_code_and_reason_of_the_last_attempts(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 58: a user can look up a close code."""
    gateway = make_scripted(closing_with(4008, "slow down, please"))
    shard, _ = watch_shard(gateway, ready=False)
    gateway.peer(3)

    with pytest.raises(TimeoutError) as caught:
        shard.wait_until_ready(0.3)

    assert "4008" in str(caught.value)
    assert "slow down, please" in str(caught.value)
