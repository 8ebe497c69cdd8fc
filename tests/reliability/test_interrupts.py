"""Ctrl-C and other signals, in a program of its own: they come in the middle of any method."""

from __future__ import annotations

import signal

import pytest

from shardlib.gateway import Opcode
from shardlib.testing import LocalGateway
from tests.reliability.conftest import MakeGateway
from tests.reliability.support import Child


def test_ctrl_c_while_connecting_leaves_no_connection_behind(gateway: LocalGateway) -> None:
    """Row 27: connect() raises KeyboardInterrupt, and the shard gives its attempt up."""
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
        tell("threads left:", threading.active_count())
    """
    with Child(code, gateway.url) as child:
        child.expect("connecting")
        stalled = gateway.wait_for_connection(timeout=20)
        child.signal(signal.SIGINT)
        child.expect("interrupted")
        child.expect("threads left: 1")
        assert child.wait() == 0
        assert child.stderr == ""
    stalled.wait_closed()
    assert len(gateway.all_connections) == 1


def test_after_ctrl_c_in_the_middle_of_a_payload_none_follows_on_its_connection(
    make_gateway: MakeGateway,
) -> None:
    """Row 32: half of the payload is out, so the shard opens another connection."""
    # No heartbeat that would find the connection dead meanwhile.
    gateway = make_gateway(receive_buffer=4096, heartbeat_interval=10**7)
    code = """
        import functools, json, socket
        import shardlib.connection
        from shardlib.limits import SendWindow

        shardlib.connection.SendWindow = functools.partial(SendWindow, limit=10**9)
        shard = make(send_timeout=60.0)
        shard.connect(sys.argv[1])
        shard.wait_until_ready()
        # The buffers of the system are soon full, in the middle of a payload.
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
        # The gateway received whole payloads; the half is at the end of the stream.
        assert all(each["d"]["status"] == "idle" for each in first.received if each["op"] == 3)


@pytest.mark.parametrize("method", ["join", "wait_for", "wait_until_ready", "send"])
def test_a_signal_handler_can_disconnect_while_the_main_thread_waits_in_a_method(
    method: str, gateway: LocalGateway
) -> None:
    """Row 6: the handler runs on the main thread, inside the method, which may hold no lock."""
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


@pytest.mark.slow
def test_a_thousand_signal_handlers_that_use_the_shard_meet_no_held_lock(
    gateway: LocalGateway,
) -> None:
    """Row 6: the handler of a timer uses the shard while the main thread is inside its methods."""
    code = """
        import functools
        import shardlib.connection
        from shardlib import SendTimeout
        from shardlib.limits import SendWindow

        shardlib.connection.SendWindow = functools.partial(SendWindow, limit=10**9)
        shard = make()
        shard.connect(sys.argv[1])
        shard.wait_until_ready()
        handled = refused = 0

        def use():
            shard.wait_until_ready()
            shard.on("TYPING_START")(print)
            shard.off("TYPING_START", print)
            assert shard.stats.messages and shard.session and shard.socket_active

        def handle(*_):
            global handled, refused
            handled += 1
            use()
            try:
                shard.update_presence(status="idle")
            except SendTimeout:  # the handler has interrupted a send
                refused += 1

        signal.signal(signal.SIGALRM, handle)
        while handled < 1000:
            signal.setitimer(signal.ITIMER_REAL, 0.0003)
            for _ in range(20):
                use()
                shard.update_presence(status="idle")
        tell("handled", refused)
        shard.disconnect()
    """
    with Child(code, gateway.url) as child:
        assert child.wait(150) == 0
        assert child.stderr == ""
        assert child.lines[0].startswith("handled")
    assert len(gateway.all_connections) == 1
    assert gateway.all_connections[0].wait_closed() == 1000


@pytest.mark.slow
@pytest.mark.parametrize("last", ["nothing", "reconnect", "disconnect", "start again"])
def test_a_signal_handler_at_any_line_of_any_method_hangs_nothing(
    last: str, gateway: LocalGateway
) -> None:
    """Rows 6, 59 and 60: a trace function calls the handler at each line of the library in turn.

    `last` is what the handler does last.
    """
    code = """
        import functools, itertools, logging
        import shardlib.connection
        from shardlib import ShardError
        from shardlib.limits import SendWindow

        # A RESUMED that was cut off leaves a gap in the sequence, of which the log warns.
        logging.getLogger("shardlib").setLevel(logging.ERROR)
        shardlib.connection.SendWindow = functools.partial(SendWindow, limit=10**9)
        shard = make(close_timeout=20.0)  # so long that a call which waits for it counts as hung
        url = sys.argv[1]
        uses = {
            "send": lambda: shard.update_presence(status="idle"),
            "listen": lambda: shard.off("TYPING_START", shard.on("TYPING_START", print)),
            "wait for an event": lambda: wait_for_an_event(),
            "heartbeat": lambda: shard.heartbeat(),
            "look": lambda: (shard.stats, shard.session, shard.latency, shard.zlib_buffer),
            "reconnect": lambda: shard.reconnect(),
            "disconnect and connect": lambda: begin_again(),
        }

        def wait_for_an_event():
            try:
                shard.wait_for("NEVER", timeout=0.0)
            except TimeoutError:
                pass

        def begin_again():
            shard.disconnect(4000)
            shard.connect(url)

        def handle():
            for use in handled:
                try:
                    use()
                except ShardError:  # the method cannot wait inside a handler
                    pass

        def run_until_line(use, number):
            "Call `use`, and the handler at one line of it. False if `use` has fewer lines."
            seen = 0

            def trace(frame, event, argument):
                nonlocal seen
                name = frame.f_globals.get("__name__", "")
                if name.startswith("shardlib.") and event == "line":
                    seen += 1
                    if seen == number:
                        handle()
                return trace

            sys.settrace(trace)
            try:
                use()
            except ShardError:  # the handler has closed the shard, or replaced its connection
                pass
            finally:
                sys.settrace(None)
            return seen >= number

        slow = ("reconnect", "disconnect and connect")
        for name, use in uses.items():
            handled = [other for other_name, other in uses.items() if other_name not in slow]
            handled += [lambda: shard.reconnect()] if sys.argv[2] == "reconnect" else []
            ends = sys.argv[2] in ("disconnect", "start again")
            handled += [lambda: shard.disconnect(4000)] if ends else []
            handled += [lambda: shard.start(url)] if sys.argv[2] == "start again" else []
            for number in itertools.count(1):
                if shard.state.value in ("disconnected", "closing", "closed"):
                    shard.disconnect(4000)
                    shard.connect(url)
                shard.wait_until_ready(10)
                if not run_until_line(use, number):
                    break
            tell(name, number)
        shard.disconnect()
        tell("done")
    """
    with Child(code, gateway.url, last) as child:
        assert child.wait(150) == 0, (child.lines, child.stderr)
        assert child.stderr == ""
        assert child.lines[-1] == "done"


@pytest.mark.parametrize("method", ["connect", "reinstantiate"])
def test_a_signal_handler_that_interrupts_the_start_of_a_thread_is_refused_a_reader(
    method: str, gateway: LocalGateway
) -> None:
    """At some lines start() holds the lock of threading without which no reader can start."""
    code = """
        import itertools
        from shardlib import ShardError

        shard = make(close_timeout=1.0)
        url, method = sys.argv[1:]

        def handle():
            try:
                shard.connect(url) if method == "connect" else shard.reinstantiate()
            except ShardError:
                return "refused"
            return "not refused"

        def start_and_interrupt(number):
            "Start a thread, and call the handler at a line of start(); None without that line."
            lines, outcome = 0, None

            def trace(frame, event, argument):
                nonlocal lines, outcome
                ours = frame.f_code is threading.Thread.start.__code__
                if ours and event == "line":
                    lines += 1
                    if lines == number:
                        outcome = handle()
                return trace if ours else None

            thread = threading.Thread(target=lambda: None)
            sys.settrace(trace)
            try:
                thread.start()
            finally:
                sys.settrace(None)
            thread.join()
            return outcome

        if method == "reinstantiate":  # needs a shard that has a URL, and is not running
            shard.connect(url)
            shard.disconnect()
        for number in itertools.count(1):
            outcome = start_and_interrupt(number)
            if outcome is None:
                break
            tell(number, outcome)
        shard.connect(url)
        shard.wait_until_ready(10)
        shard.disconnect()
        tell("done")
    """
    with Child(code, gateway.url, method) as child:
        assert child.wait(150) == 0, (child.lines, child.stderr)
    assert child.lines[-1] == "done"
    outcomes = child.lines[:-1]
    assert len(outcomes) > 5
    assert [line for line in outcomes if "not refused" in line] == []
