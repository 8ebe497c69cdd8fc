"""Ctrl-C and other signals: each may come in the middle of any method, and breaks nothing."""

from __future__ import annotations

import signal

import pytest

from shardlib.gateway import Opcode
from shardlib.testing import LocalGateway
from tests.reliability.conftest import MakeGateway
from tests.reliability.support import Child


def test_ctrl_c_while_connecting_leaves_no_connection_behind(gateway: LocalGateway) -> None:
    """Row 27: connect() raises it, and what was on its way is given up."""
    gateway.inject(instead_of="upgrade")
    code = """
        shard = make()
        tell("connecting")
        try:
            shard.connect(sys.argv[1])
        except KeyboardInterrupt:
            tell("interrupted")
        while shard.socket_thread is not None:
            time.sleep(0.001)
        tell("gone", threading.active_count())
    """
    with Child(code, gateway.url) as child:
        child.expect("connecting")
        stalled = gateway.wait_for_connection(timeout=20)
        child.signal(signal.SIGINT)
        child.expect("interrupted")
        child.expect("gone 1")
        assert child.wait() == 0
        assert child.stderr == ""
    stalled.wait_closed()
    assert len(gateway.all_connections) == 1


def test_ctrl_c_in_the_middle_of_a_payload_is_followed_by_no_other_on_its_connection(
    make_gateway: MakeGateway,
) -> None:
    """Row 32: half of a payload can't be taken back, so the connection is replaced."""
    # No heartbeat that could find the connection dead in time.
    gateway = make_gateway(receive_buffer=4096, heartbeat_interval=10**7)
    code = """
        import json, socket

        shard = make(send_timeout=60.0)
        shard.connect(sys.argv[1])
        shard.wait_until_ready()
        # The system's buffers are soon full, the last of them in the middle of a payload.
        shard._control.connection.window._limit = 10**9
        shard.socket_instance.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        tell("ready")
        sys.stdin.readline()
        sends = 0
        try:
            while True:
                shard.send(json.dumps({"op": 3, "d": {"status": "idle"}, "x": "x" * 3900}))
                sends += 1
                tell("sent", sends)
        except KeyboardInterrupt:
            tell("interrupted")
        while not shard.stats.resumes:
            time.sleep(0.001)
        shard.update_presence(status="dnd")
        tell("sent again")
        sys.stdin.readline()
    """
    with Child(code, gateway.url) as child:
        child.expect("ready")
        first = gateway.connections[0]
        first.stop_reading()
        child.say("")
        child.expect_silence()
        child.signal(signal.SIGINT)
        child.expect("interrupted")
        child.expect("sent again")
        second = gateway.connections[-1]
        assert second is not first
        assert second.expect(Opcode.PRESENCE_UPDATE)["d"]["status"] == "dnd"
        first.thaw()
        first.wait_closed()
        child.say("")
        assert child.wait() == 0
        # What arrived is whole; the half is at the end of the stream.
        assert all(each["d"]["status"] == "idle" for each in first.received if each["op"] == 3)


@pytest.mark.parametrize("method", ["join", "wait_for", "wait_until_ready", "send"])
def test_a_handler_closes_the_shard_while_the_main_thread_is_in_a_method(
    method: str, gateway: LocalGateway
) -> None:
    """Row 6: a handler runs on the main thread, wherever that is: no lock may be in its way."""
    gateway.inject(instead_of="ready")
    code = """
        shard = make()
        signal.signal(signal.SIGTERM, lambda *_: shard.disconnect())
        shard.connect(sys.argv[1])
        calls = {
            "join": shard.join,
            "wait_for": lambda: shard.wait_for("NEVER"),
            "wait_until_ready": shard.wait_until_ready,
            "send": lambda: shard.update_presence(timeout=40),
        }
        while shard.state.value != "identifying":
            time.sleep(0.001)
        tell("calling")
        try:
            calls[sys.argv[2]]()
        except Exception as error:
            tell(type(error).__name__)
        tell(shard.state.value)
    """
    with Child(code, gateway.url, method) as child:
        child.expect("calling")
        child.signal(signal.SIGTERM)
        child.expect("closed")
        assert child.wait() == 0
        assert child.lines[1:] == (["closed"] if method == "join" else ["ShardClosed", "closed"])
        assert child.stderr == ""


def test_thousands_of_signals_meet_no_lock_that_is_held(gateway: LocalGateway) -> None:
    """Row 6: a timer's handler uses the shard while the main thread is using it too."""
    code = """
        from shardlib import SendTimeout

        shard = make()
        shard.connect(sys.argv[1])
        shard.wait_until_ready()
        shard._control.connection.window._limit = 10**9
        handled = refused = 0

        def use():
            shard.update_presence(status="idle")
            shard.wait_until_ready()
            shard.on("TYPING_START")(print)
            shard.off("TYPING_START", print)
            assert shard.stats.messages and shard.session and shard.socket_active

        def handle(*_):
            global handled, refused
            handled += 1
            try:
                use()
            except SendTimeout:  # it has interrupted a send
                refused += 1

        signal.signal(signal.SIGALRM, handle)
        while handled < 1000:
            signal.setitimer(signal.ITIMER_REAL, 0.0003)
            for _ in range(20):
                use()
        tell("handled", refused)
        shard.disconnect()
    """
    with Child(code, gateway.url) as child:
        assert child.wait(50) == 0
        assert child.stderr == ""
        assert child.lines[0].startswith("handled")
    assert len(gateway.all_connections) == 1
    assert gateway.all_connections[0].wait_closed() == 1000
