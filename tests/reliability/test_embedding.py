"""Inside any program: worker threads, forks, signals, gevent, several shards."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import itertools
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shardlib import (
    AlreadyConnected,
    ForkedProcess,
    IdentifyGate,
    NotReady,
    Opcode,
    SendTimeout,
    Shard,
    ShardError,
)
from shardlib.compression import ZlibStream
from shardlib.frames import BINARY
from shardlib.shard import _close_all_at_exit
from shardlib.testing import LocalGateway
from tests.recorder import dispatch_numbers
from tests.reliability.conftest import MakeGateway, WatchShard
from tests.reliability.support import Child
from tests.support import not_none, owner, wait_until

pytestmark = pytest.mark.slow


def test_a_shard_on_worker_threads_changes_no_state_of_the_process(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 28: no signal handler, default timeout, logging set-up or hook; no main thread needed."""

    def process_state() -> tuple[object, ...]:
        loggers = [logging.getLogger(), logging.getLogger("shardlib")]
        return (
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            socket.getdefaulttimeout(),
            [(logger.level, logger.handlers[:], logger.propagate) for logger in loggers],
            (sys.excepthook, threading.excepthook, threading.stack_size()),
        )

    before = process_state()
    shard, recorder = watch_shard(gateway, connect=False)
    outcomes: list[object] = []

    def work() -> None:
        try:
            outcomes.append(shard.connect(gateway.url))
            shard.wait_until_ready(10)
        except ShardError as error:
            outcomes.append(type(error))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(10)
    assert None in outcomes and AlreadyConnected in outcomes
    wait_until(lambda: recorder.count("ready") == 1)
    assert len(gateway.all_connections) == 1
    assert process_state() == before


def test_shards_of_one_token_identify_one_after_the_other(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 38: they share a gate; a connection lost before Hello holds up none of them."""
    gateway = make_gateway(shards=4)
    gate = IdentifyGate(interval=2.0, slack=0)
    gateway.inject(lambda connection: connection.reset(), instead_of="hello")
    shards = [
        watch_shard(gateway, ready=False, shard_id=number, shard_count=4, identify_gate=gate)[0]
        for number in range(4)
    ]
    for shard in shards:
        shard.wait_until_ready(20)
    times = sorted(gateway.expect(Opcode.IDENTIFY).time for _ in range(4))
    # Less than the interval of the gate, since an Identify may be late on its way.
    assert all(later - earlier > 0.7 for earlier, later in itertools.pairwise(times))


def test_eight_threads_on_a_flapping_shard_get_only_documented_errors(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 17: send(), heartbeats and every property, while the connection is lost 60 times."""
    shard, _ = watch_shard(gateway)
    stop = threading.Event()
    errors: list[BaseException] = []

    def read_everything() -> None:
        for name in dir(Shard):
            if isinstance(getattr(Shard, name), property):
                assert repr(getattr(shard, name))

    actions: list[Callable[[], object]] = [
        lambda: shard.send('{"op": 3, "d": {"status": "idle"}}', timeout=0.01),
        shard.heartbeat,
        lambda: shard.heartbeat_in(1000),
        read_everything,
    ]

    def use() -> None:
        while not stop.is_set():
            for action in actions:
                try:
                    action()
                except (NotReady, SendTimeout):
                    pass
                except BaseException as error:
                    errors.append(error)
                    return

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for flap in range(1, 61):
        wait_until(lambda: gateway.connections and gateway.connections[-1].session)
        connection = gateway.connections[-1]
        (connection.reset, connection.drop, connection.reconnect)[flap % 3]()
        wait_until(lambda: connection.is_closed)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert errors == []


# All properties but those that tell what the constructor was given.
LIVE_PROPERTIES = {
    name for name, member in vars(Shard).items() if isinstance(member, property)
} - set(inspect.signature(Shard).parameters)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_every_method_raises_in_a_forked_child_and_the_parent_keeps_its_connection(
    tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 29: methods raise at once, even if another thread held every lock at the fork."""
    gateway = make_gateway(tls=tls, heartbeat_interval=3_600_000)  # no heartbeat during the test
    shard, recorder = watch_shard(gateway)
    before = gateway.bytes_received
    methods: tuple[Callable[[], object], ...] = (
        shard.connect,
        shard.start,
        shard.disconnect,
        shard.reconnect,
        shard.resume,
        shard.reinstantiate,
        shard.identify,
        shard.heartbeat,
        shard.wait_until_ready,
        shard.join,
        shard.run_forever,
        shard.update_presence,
        lambda: shard.wait_for("READY"),
        lambda: shard.events("READY"),
        lambda: shard.fetch_guild_members(1),
        lambda: shard.fetch_soundboard_sounds([1]),
        lambda: shard.fetch_channel_info(1),
        lambda: shard.join_voice(1, 2),
        lambda: shard.send('{"op": 1, "d": null}'),
        lambda: shard.heartbeat_in(1),
        lambda: shard.on("READY"),
        lambda: shard.off("READY", print),
        lambda: shard._handle_message("{}"),
        *(functools.partial(getattr, shard, name) for name in LIVE_PROPERTIES),
    )
    heartbeat = shard._reader.heartbeat
    assert heartbeat is not None
    inflater = owner(shard._reader.connection.inflate[BINARY])
    assert isinstance(inflater, ZlibStream)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        life = shard._lifecycle.life
        locks = (
            shard._lifecycle._lock,
            life._lock,
            shard._callbacks._lock,
            inflater._lock,
            heartbeat._lock,
        )
        with contextlib.ExitStack() as held_locks:
            for lock in locks:
                held_locks.enter_context(lock)
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        status = 0
        try:
            for method in methods:
                try:
                    method()
                    status = 2
                except ForkedProcess:
                    pass
            _close_all_at_exit()  # as atexit does in a child that ends by itself
        except BaseException:
            status = 3
        os._exit(status)
    release.set()
    holder.join(10)
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        pass
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the forked child hangs")
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert gateway.bytes_received == before
    dispatch_numbers(gateway, range(3))
    wait_until(lambda: recorder.numbers() == [0, 1, 2])
    assert len(gateway.all_connections) == 1


@needs_fork
def test_a_shard_that_was_never_connected_works_on_both_sides_of_a_fork(
    make_gateway: MakeGateway,
) -> None:
    """Row 93: gunicorn --preload makes it in the parent, and connects it in a worker."""
    gateway, other = make_gateway(), make_gateway()
    code = """
        shard = make()
        held, holder_may_end = threading.Event(), threading.Event()
        def hold():
            with shard._callbacks._lock, shard._lifecycle._lock:
                held.set()
                holder_may_end.wait(20)
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(20)
        faulthandler.cancel_dump_traceback_later()  # its thread would be missing in the child
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            with shard:
                shard.on("READY", lambda shard, data: None)
                shard.connect(sys.argv[2])
                shard.wait_until_ready(10)
            sys.exit(7)
        tell("the child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        holder_may_end.set()
        with shard:
            shard.connect(sys.argv[1])
            shard.wait_until_ready(10)
            tell("ready")
    """
    with Child(code, gateway.url, other.url, flags=("-W", "ignore")) as child:
        child.expect("the child ended with 7")
        child.expect("ready")
        assert child.wait() == 0


@needs_fork
def test_a_child_that_is_forked_inside_a_with_block_exits_in_order(
    make_gateway: MakeGateway,
) -> None:
    """Row 93: the end of the block is the parent's."""
    gateway = make_gateway()
    code = """
        with make() as shard:
            shard.connect(sys.argv[1])
            shard.wait_until_ready(10)
            faulthandler.cancel_dump_traceback_later()
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                print(repr(shard), file=sys.stderr)
                sys.exit(0)
            tell("the child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            tell(shard.state.name)
    """
    with Child(code, gateway.url, flags=("-W", "ignore")) as child:
        child.expect("the child ended with 0")
        child.expect("READY")
        assert child.wait() == 0


@needs_fork
@pytest.mark.parametrize("step", ["upgrade", "hello", "ready"])
def test_after_a_fork_while_connecting_parent_and_child_get_a_connection_each(
    step: str, make_gateway: MakeGateway
) -> None:
    """Row 29: the child runs atexit at its end, and the parent becomes READY."""
    gateway, other = make_gateway(), make_gateway()
    gateway.inject(instead_of=step)
    code = """
        from shardlib import ForkedProcess
        shard = make()
        connecting = threading.Thread(target=shard.connect, args=(sys.argv[1],), daemon=True)
        connecting.start()
        tell("connecting")
        sys.stdin.readline()
        faulthandler.cancel_dump_traceback_later()  # its thread would be missing in the child
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            try:
                shard.send('{"op": 1, "d": null}')
            except ForkedProcess:
                with make() as own:
                    own.connect(sys.argv[2])
                    own.wait_until_ready(10)
                sys.exit(7)
            sys.exit(1)
        tell("the child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        shard.wait_until_ready(10)
        tell("ready")
        shard.disconnect()
    """
    with Child(code, gateway.url, other.url, flags=("-W", "ignore")) as child:
        child.expect("connecting")
        connection = gateway.wait_for_connection(timeout=20)
        if step == "ready":
            connection.expect(Opcode.IDENTIFY)
        child.say("fork")
        child.expect("the child ended with 7")
        assert not connection.is_closed
        connection.proceed()
        child.expect("ready")
        assert child.wait() == 0
        assert child.stderr == ""
    assert len(gateway.all_connections) == len(other.all_connections) == 1
    assert connection.wait_closed() == other.all_connections[0].wait_closed() == 1000


def test_a_callback_that_never_returns_does_not_keep_the_process_alive(
    gateway: LocalGateway,
) -> None:
    """Row 27: the program ends, sends the close frame of the shard, and prints nothing."""
    code = """
        shard = make()
        @shard.on("STUCK")
        def stuck(shard, data):
            tell("stuck")
            threading.Event().wait()
        shard.connect(sys.argv[1])
        shard.wait_until_ready(10)
        tell("ready")
        sys.stdin.readline()
        sys.exit(4)
    """
    with Child(code, gateway.url) as child:
        child.expect("ready")
        connection = gateway.connections[-1]
        not_none(connection.session).dispatch("STUCK", None)
        child.expect("stuck")
        child.say("exit")
        # A shard may take half a second for this; the rest is for a busy machine.
        assert child.wait(timeout=10) == 4
        assert child.stderr == ""
        assert connection.wait_closed() == 4000


@pytest.mark.skipif(os.name == "nt", reason="a process cannot send Ctrl-C to another on Windows")
@pytest.mark.parametrize(
    "wait, step",
    [
        ("connect(sys.argv[1])", "upgrade"),
        ("wait_until_ready()", "ready"),
        ('send(\'{"op": 1, "d": null}\', timeout=60)', "ready"),
        ("wait_for('NEVER')", ""),
        ("join()", ""),
    ],
    ids=["connect", "wait_until_ready", "send", "wait_for", "join"],
)
def test_ctrl_c_ends_each_wait_and_the_program(
    wait: str, step: str, make_gateway: MakeGateway
) -> None:
    """Row 27: KeyboardInterrupt comes once, out of the method in which the main thread waits."""
    gateway = make_gateway()
    if step:
        gateway.inject(instead_of=step)
    code = f"""
        shard = make()
        if {step != "upgrade"}:
            shard.connect(sys.argv[1])
        if {step == ""}:
            shard.wait_until_ready(10)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        shard.{wait}
    """
    with Child(code, gateway.url) as child:
        assert child.wait() == -signal.SIGINT
        assert child.stderr.count("Traceback") == 1
        assert child.stderr.rstrip().endswith("KeyboardInterrupt")
    gateway.wait_until(lambda: not gateway.connections)


def test_a_process_stopped_until_the_gateway_gave_it_up_resumes_its_session(
    make_gateway: MakeGateway,
) -> None:
    """Row 37: SIGCONT comes only after the gateway has missed a heartbeat and has closed."""
    gateway = make_gateway(heartbeat_interval=1000, heartbeat_tolerance=3.0)
    code = """
        shard = make()
        shard.on("TYPING_START")(lambda shard, data: tell("event", data["n"]))
        shard.connect(sys.argv[1])
        shard.wait_until_ready()
        tell("ready")
        shard.join()
    """
    with Child(code, gateway.url) as child:
        child.expect("ready")
        connection = gateway.connections[-1]
        child.signal(signal.SIGSTOP)
        # The gateway closes once heartbeats have been missing for some intervals.
        gateway.wait_until(lambda: connection.is_closed, timeout=20)
        gateway.sessions[0].dispatch("TYPING_START", {"n": 1, "guild_id": None})
        child.signal(signal.SIGCONT)
        child.expect("event 1")
        assert gateway.sessions[0].resumes == 1


def test_a_process_stopped_for_three_intervals_beats_once_and_keeps_its_connection(
    make_gateway: MakeGateway,
) -> None:
    """Row 37: the shard neither makes up for missed heartbeats nor takes the peer for dead."""
    # Long enough for a busy machine to acknowledge; no stop is so long that it counts as a sleep.
    gateway = make_gateway(heartbeat_interval=1200, heartbeat_tolerance=60)
    code = """
        shard = make()
        shard.on_socket_heartbeat = lambda shard, ping: tell("acknowledged")
        shard.on("TYPING_START")(lambda shard, data: tell("event", data["n"]))
        shard.connect(sys.argv[1])
        shard.join()
    """
    with Child(code, gateway.url) as child:
        child.expect("acknowledged")
        child.signal(signal.SIGSTOP)
        time.sleep(3.7)  # how long the process stays stopped
        before = len(gateway.connections[-1].received)
        child.signal(signal.SIGCONT)
        gateway.wait_until(lambda: len(gateway.connections[-1].received) >= before + 4)
        gateway.dispatch("TYPING_START", {"n": 1, "guild_id": None})
        child.expect("event 1")
        later = gateway.connections[-1].received[before:]
        assert later[3].time - later[0].time > 1.2  # one at once, then one in each interval
        assert len(gateway.all_connections) == 1


def test_other_greenlets_run_while_a_shard_waits_under_gevent(make_gateway: MakeGateway) -> None:
    """Row 42: if gevent patches before the import, each wait of the shard is one of a greenlet."""
    pytest.importorskip("gevent")
    gateway = make_gateway()
    code = """
        shard = make(connect_timeout=3.0, hello_timeout=3.0, backoff=Backoff(base=0.5, cap=0.5))
        gap, last = 0.0, time.monotonic()
        def tick():
            global gap, last
            while True:
                gevent.sleep(0.01)
                gap, last = max(gap, time.monotonic() - last), time.monotonic()
        gevent.spawn(tick)
        def told(what):
            global gap
            tell(what, "smoothly" if gap < 2.0 else f"with a gap of {gap:.2f} seconds")
            gap = 0.0
        shard.on("TYPING_START")(lambda shard, data: tell("event", data["n"]))
        shard.on_socket_reconnected = lambda shard, resumed: told("reconnected")
        shard.connect(sys.argv[1])
        shard.wait_until_ready(10)
        gevent.sleep(0.5)
        told("idle")
        shard.join()
        told("closed")
    """
    patched = (
        "import gevent.monkey\ngevent.monkey.patch_all()\nimport gevent\n"
        "from shardlib import Backoff\n"
    )
    with Child(code, gateway.url, flags=("-W", "ignore"), first=patched) as child:
        child.expect("idle smoothly")
        gateway.dispatch("TYPING_START", {"n": 1, "guild_id": None})
        child.expect("event 1")
        # At each step a silent peer, then a back-off: the shard waits for three seconds or longer.
        for number, step in enumerate(("accept", "upgrade", "hello")):
            gateway.inject(instead_of=step)
            gateway.connections[-1].reset()
            wait_until(lambda: child.lines.count("reconnected smoothly") == number + 1, 30)
        gateway.connections[-1].close(4004)
        assert child.wait() == 1
        assert "AuthenticationFailed" in child.stderr


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_a_shard_works_if_gevent_patches_after_the_import(
    tls: bool, make_gateway: MakeGateway, tmp_path: Path
) -> None:
    """Row 42: shardlib looks up at each call what gevent replaces, and TLS does not recurse."""
    pytest.importorskip("gevent")
    gateway = make_gateway(tls=tls)
    certificate = tmp_path / "certificate.pem"
    if tls:
        [authority] = gateway.ssl_context.get_ca_certs(binary_form=True)
        certificate.write_text(ssl.DER_cert_to_PEM_cert(authority))
    code = """
        ticks = []
        def tick():
            while True:
                gevent.sleep(0.01)
                ticks.append(1)
        context = ssl.create_default_context(cafile=sys.argv[2]) if sys.argv[2] else None
        shard = make(ssl_context=context)
        gevent.spawn(tick)
        shard.connect(sys.argv[1])
        shard.wait_until_ready(10)
        shard.reconnect()
        shard.wait_until_ready(10)
        count = len(ticks)
        deadline = time.monotonic() + 10  # a busy machine's; a blocked one never gets there
        while len(ticks) - count <= 10 and time.monotonic() < deadline:
            gevent.sleep(0.1)
        tell("ticked" if len(ticks) - count > 10 else "starved")
        shard.disconnect()
        tell("closed")
    """
    late = (
        "import ssl\nfrom shardlib import Shard\nimport gevent.monkey\ngevent.monkey.patch_all()\n"
        "import gevent\n"
    )
    arguments = (gateway.url, str(certificate) if tls else "")
    with Child(code, *arguments, flags=("-W", "ignore"), first=late) as child:
        child.expect("ticked")
        child.expect("closed")
        assert child.wait() == 0


def test_importing_shardlib_has_no_side_effect() -> None:
    """Rows 28 and 42: no thread, socket, TLS context or handler, and nothing is patched."""
    code = """
        import logging, socket, ssl
        made = []
        class Context(ssl.SSLContext):
            def __new__(cls, *arguments):
                made.append("a context")
                return super().__new__(cls, *arguments)
        class Socket(socket.socket):
            def __init__(self, *arguments, **options):
                made.append("a socket")
                super().__init__(*arguments, **options)
        ssl.SSLContext, socket.socket = Context, Socket
        before = (time.sleep, threading.Thread, ssl.SSLSocket, signal.getsignal(signal.SIGINT))
        from shardlib import Shard
        after = (time.sleep, threading.Thread, ssl.SSLSocket, signal.getsignal(signal.SIGINT))
        assert before == after and ssl.SSLContext is Context and socket.socket is Socket
        assert threading.active_count() == 1 and made == []
        assert logging.getLogger().handlers == logging.getLogger("shardlib").handlers == []
    """
    with Child(code) as child:
        assert child.wait() == 0, child.stderr
        assert child.stderr == ""


@pytest.mark.parametrize("method", ["connect", "start", "run_forever"])
def test_connecting_raises_and_leaves_the_shard_usable_if_no_thread_can_start(
    method: str, gateway: LocalGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, _ = watch_shard(gateway, connect=False)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            getattr(shard, method)(gateway.url)
    with pytest.raises(ShardError):
        shard.send('{"op": 1, "d": null}')
    shard.connect(gateway.url)
    shard.wait_until_ready(10)


def test_a_heartbeat_thread_that_cannot_start_costs_a_connection_but_not_the_session(
    gateway: LocalGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next connection resumes, and has a heartbeat."""
    shard, _ = watch_shard(gateway)
    start = threading.Thread.start
    refused: list[str] = []

    def refuse_once(thread: threading.Thread) -> None:
        if "heartbeat" in thread.name and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse_once)
        gateway.connections[0].drop()
        wait_until(lambda: shard.stats.reconnects == 1)
    assert refused and shard.stats.resumes == 1
    assert shard.heartbeat_thread is not None


@pytest.mark.parametrize("method", ["connect", "start"])
def test_connecting_says_that_eventlet_cannot_be(method: str, make_gateway: MakeGateway) -> None:
    """Row 92: heartbeats ended, and the first lost connection closed the shard for good."""
    if importlib.util.find_spec("eventlet") is None:  # imported here, it would patch os.fork()
        pytest.skip("eventlet is not installed")
    gateway = make_gateway()
    code = """
        from shardlib import ShardError
        shard = make()
        try:
            getattr(shard, sys.argv[2])(sys.argv[1])
        except ShardError as error:
            tell(str(error)[:23], shard.state.name)
    """
    flags = ("-W", "ignore")  # eventlet says that it is deprecated
    with Child(
        code, gateway.url, method, first="import eventlet\neventlet.monkey_patch()\n", flags=flags
    ) as child:
        child.expect("eventlet.monkey_patch() DISCONNECTED")
    assert gateway.all_connections == []


def test_heartbeats_go_on_under_a_frozen_clock_that_leaves_the_library_alone(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 95: docs/testing.rst says how; without it no heartbeat is ever due."""
    freezegun = pytest.importorskip("freezegun")
    beats = threading.Semaphore(0)  # threading's own clock is never frozen
    with freezegun.freeze_time("2024-01-01", ignore=["shardlib"]):
        shard, recorder = watch_shard(gateway)
        shard.on_socket_heartbeat = lambda shard, ping: beats.release()
        shard.heartbeat_in(50)  # not by Hello: a busy machine may be slow to acknowledge
        assert all(beats.acquire(timeout=10) for _ in range(3))
