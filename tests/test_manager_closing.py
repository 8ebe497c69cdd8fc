"""A manager is closed: in time, whatever peers and callbacks do, and from wherever."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardlib import ConnectionFailed, Session, Shard, ShardClosed, ShardError, ShardState
from shardlib.dispatch import Mailbox, Pool, Worker
from shardlib.testing import LocalGateway
from tests.managers import connect, gateway_bot, make_gateway, make_manager, wait_for_state
from tests.support import NEVER, in_background, not_none, wait_until

# Seconds that a machine under load may take longer.
GRACE = 12.0


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


def own_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("shard-")]


def seconds(function: Callable[[], object]) -> float:
    since = time.monotonic()
    function()
    return time.monotonic() - since


# What close() does


def test_close_ends_all_sessions_unless_they_are_saved(gateway: LocalGateway) -> None:
    manager = connect(make_manager(gateway))
    manager.close()
    wait_until(lambda: own_threads() == [])
    assert [each.close_code for each in gateway.all_connections] == [1000] * 4
    assert repr(manager) == "<ShardManager 4 shards, 0 ready>"
    assert {each.state for each in manager.shards.values()} == {ShardState.CLOSED}
    assert manager.join() is None
    with pytest.raises(ShardClosed):
        manager.wait_until_ready()
    manager.close()


@pytest.mark.parametrize(
    ("saves", "keep", "code"),
    [
        (False, None, 1000),
        (False, True, 4000),
        (False, False, 1000),
        (True, None, 4000),
        (True, True, 4000),
        (True, False, 1000),
    ],
)
def test_close_keeps_sessions_as_it_is_told(
    gateway: LocalGateway, tmp_path: Path, saves: bool, keep: bool | None, code: int
) -> None:
    manager = connect(make_manager(gateway, sessions=tmp_path if saves else None))
    manager.close(keep_sessions=keep)
    assert {each.wait_closed() for each in gateway.all_connections} == {code}
    assert len(list(tmp_path.iterdir())) == (4 if saves and code == 4000 else 0)


@pytest.mark.parametrize(
    ("saves", "given", "code"),
    [(False, None, 1000), (True, None, 4000), (True, 1000, 1000), (False, 4321, 4321)],
)
def test_disconnect_closes_all_with_a_code(
    gateway: LocalGateway, tmp_path: Path, saves: bool, given: int | None, code: int
) -> None:
    manager = connect(make_manager(gateway, sessions=tmp_path if saves else None))
    manager.disconnect(given)
    wait_until(lambda: own_threads() == [])
    assert {each.wait_closed() for each in gateway.all_connections} == {code}


def test_disconnect_without_a_wait_returns_before_all_are_closed(gateway: LocalGateway) -> None:
    manager = connect(make_manager(gateway, close_timeout=NEVER))
    connections = gateway.connections
    for connection in connections:
        connection.freeze()
    assert seconds(lambda: manager.disconnect(wait=False)) < GRACE
    for connection in connections:
        connection.thaw()
    manager.join(10)


def test_a_shard_that_is_started_again_meanwhile_is_not_waited_for(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that starts each closed shard anew would cost the whole time, and more."""
    started: set[int] = set()

    def start(shard: Shard, error: BaseException | None) -> None:
        if shard.shard_id in (1, 2) and shard.shard_id not in started:
            started.add(shard.shard_id)
            life = manager._lifecycle.life
            wait_until(lambda: not_none(life.thread).ident in manager._lifecycle._waiting)
            shard.start(gateway.url)

    manager = connect(make_manager(gateway, close_timeout=NEVER, on_socket_closed=start))
    assert seconds(manager.disconnect) < GRACE
    assert "which go on without the manager: 1, 2." in caplog.text
    assert "callbacks have not returned" not in caplog.text
    for shard in manager.shards.values():
        shard.disconnect()


def test_close_tells_its_progress_on_the_calling_thread(gateway: LocalGateway) -> None:
    told: list[tuple[int, int]] = []
    threads: set[threading.Thread] = set()

    def progress(closed: int, total: int) -> None:
        told.append((closed, total))
        threads.add(threading.current_thread())

    connect(make_manager(gateway)).close(progress=progress)
    assert told[-1] == (4, 4) and told == sorted(set(told))
    assert threads == {threading.current_thread()}


def test_what_progress_raises_is_raised_by_close_and_the_shards_close(
    gateway: LocalGateway,
) -> None:
    def progress(closed: int, total: int) -> None:
        raise LookupError("mine")

    manager = connect(make_manager(gateway))
    with pytest.raises(LookupError, match="mine"):
        manager.close(progress=progress)
    assert manager.join(10) is None


def test_closing_a_manager_that_was_never_connected_does_nothing(gateway: LocalGateway) -> None:
    told: list[tuple[int, int]] = []
    manager = make_manager(gateway)
    manager.close(progress=lambda *counts: told.append(counts))
    manager.disconnect()
    manager.join()
    assert told in ([], [(0, 0)])
    with manager:
        connect(manager)


# Peers that do not answer


def test_sixteen_peers_that_never_answer_are_closed_in_the_time_of_one() -> None:
    with make_gateway(16, max_concurrency=16) as gateway:
        manager = connect(make_manager(gateway, close_timeout=1.0))
        gateway.inject(instead_of="close", connections=None)
        for connection in gateway.connections:
            connection.freeze()
        took = seconds(manager.close)
        wait_until(lambda: own_threads() == [])
    assert took < 1.0 + GRACE


class Filler:
    """Sends on a shard until the system takes no more, and then waits."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.sent = 0
        self._sent_at = time.monotonic()
        client = not_none(not_none(shard.socket_instance).sock)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.outcome = in_background(self._fill)

    def _fill(self) -> None:
        while True:
            self._shard.send({"op": 1, "d": None, "padding": "x" * 4000}, 30)
            self.sent += 1
            self._sent_at = time.monotonic()

    def is_stuck(self) -> bool:
        return time.monotonic() > self._sent_at + 0.2


def test_sixteen_peers_that_take_no_bytes_are_closed_in_the_time_of_one() -> None:
    with make_gateway(16, max_concurrency=16, receive_buffer=4096) as gateway:
        manager = connect(make_manager(gateway, close_timeout=1.0))
        for connection in gateway.connections:
            connection.stop_reading()
        fillers = [Filler(shard) for shard in manager.shards.values()]
        wait_until(lambda: all(each.is_stuck() for each in fillers))
        assert max(each.sent for each in fillers) < 100  # the peers hold them up, and no limit
        took = seconds(manager.close)
        wait_until(lambda: own_threads() == [])
        for each in fillers:
            assert isinstance(each.outcome.exception(10), ShardError)
    assert took < 1.0 + GRACE


def test_a_live_peer_is_closed_at_once() -> None:
    with make_gateway(16, max_concurrency=16) as gateway:
        manager = connect(make_manager(gateway, close_timeout=NEVER))
        assert seconds(manager.close) < GRACE


# Callbacks that do not return


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    release = threading.Event()
    yield release
    release.set()


def test_a_stuck_callback_of_one_shard_delays_close_by_one_close_timeout(
    gateway: LocalGateway, stuck: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    inside = threading.Event()

    def hang(shard: Shard, data: Any) -> None:
        if shard.shard_id == 2:
            inside.set()
            stuck.wait(20)

    manager = make_manager(gateway, close_timeout=0.2)
    manager.on("GUILD_CREATE", hang)
    manager.connect()
    assert inside.wait(10)
    told: list[tuple[int, int]] = []
    took = seconds(lambda: manager.close(progress=lambda *counts: told.append(counts)))
    assert took < 1.2 + GRACE
    assert told[-1] == (3, 4)
    assert manager.join(10) is None
    assert "callbacks have not returned in time, of these shards: 2" in caplog.text
    assert gateway.connections == []
    stuck.set()
    wait_until(lambda: own_threads() == [])


def test_close_takes_no_longer_than_it_is_given(
    gateway: LocalGateway, stuck: threading.Event
) -> None:
    inside = threading.Event()

    def hang(*_: Any) -> None:
        inside.set()
        stuck.wait(20)

    manager = make_manager(gateway, on_socket_ready=hang)
    manager.connect()
    assert inside.wait(10)
    assert seconds(lambda: manager.close(timeout=0.1)) < GRACE
    stuck.set()
    manager.join(10)


def test_a_stuck_on_all_ready_delays_close_no_longer_than_its_timeout(
    gateway: LocalGateway, stuck: threading.Event
) -> None:
    inside = threading.Event()

    def hang(_: Any) -> None:
        inside.set()
        stuck.wait(20)

    manager = make_manager(gateway, on_all_ready=hang, close_timeout=0.2)
    manager.connect()
    assert inside.wait(10)
    assert seconds(lambda: manager.close(timeout=0.5)) < 0.5 + GRACE
    wait_until(lambda: gateway.connections == [])  # no shard needs the manager's thread for that
    assert "shard-manager" in own_threads()
    stuck.set()
    wait_until(lambda: own_threads() == [])


def test_a_new_life_waits_for_a_shard_whose_callback_is_stuck(
    gateway: LocalGateway, stuck: threading.Event
) -> None:
    inside = threading.Event()

    def hang(shard: Shard) -> None:
        if shard.shard_id == 0 and not stuck.is_set():
            inside.set()
            stuck.wait(20)

    manager = make_manager(gateway, on_socket_ready=hang, close_timeout=0.1)
    with manager:
        manager.connect()
        assert inside.wait(10)
        manager.close()
        manager.join(10)
        manager.start()
        wait_for_state(manager, lambda: "3 ready" in repr(manager), "the others")
        stuck.set()
        manager.wait_until_ready(10)


def test_connect_raises_if_a_callback_from_before_does_not_return(
    gateway: LocalGateway, stuck: threading.Event
) -> None:
    inside = threading.Event()

    def hang(_: Any) -> None:
        inside.set()
        stuck.wait(20)

    manager = make_manager(gateway, on_all_ready=hang, close_timeout=0.1, connect_timeout=0.3)
    manager.connect()
    assert inside.wait(10)
    manager.close(timeout=0.1)
    with pytest.raises(ConnectionFailed, match="still being closed: a callback has not returned"):
        manager.connect()
    stuck.set()
    manager.join(10)
    wait_until(lambda: own_threads() == [])


# From wherever


@pytest.mark.parametrize("method", ["close", "disconnect"])
def test_closing_in_a_callback_of_a_shard_returns_at_once(
    gateway: LocalGateway, method: str
) -> None:
    took: list[float] = []

    def close(_: Shard) -> None:
        took.append(seconds(getattr(manager, method)))

    manager = make_manager(gateway, on_socket_ready=close, close_timeout=NEVER)
    manager.start()
    manager.join(10)
    assert max(took) < GRACE
    wait_until(lambda: own_threads() == [])


@pytest.mark.parametrize("method", ["close", "disconnect"])
def test_closing_in_on_all_ready_returns_at_once(gateway: LocalGateway, method: str) -> None:
    took: list[float] = []
    manager = make_manager(
        gateway,
        on_all_ready=lambda manager: took.append(seconds(getattr(manager, method))),
        close_timeout=NEVER,
    )
    manager.start()
    manager.join(10)
    assert len(took) == 1 and took[0] < GRACE


@pytest.mark.parametrize("kind", [Worker, Pool])
@pytest.mark.parametrize("of", ["on_socket_ready", "on_all_ready"])
@pytest.mark.parametrize("method", ["close", "disconnect"])
def test_closing_on_a_dispatchers_thread_does_not_wait_for_that_thread(
    gateway: LocalGateway, kind: Any, of: str, method: str
) -> None:
    took: list[float] = []

    def close(_: Any) -> None:
        took.append(seconds(getattr(manager, method)))

    options: dict[str, Any] = {of: close}
    manager = make_manager(gateway, dispatcher=kind(), close_timeout=NEVER, **options)
    manager.start()
    manager.join(10)
    wait_until(lambda: took)
    assert max(took) < GRACE


def test_the_thread_that_runs_a_mailbox_closes_without_a_wait_for_itself(
    gateway: LocalGateway,
) -> None:
    mailbox, closed = Mailbox(), list[int]()
    manager = make_manager(
        gateway,
        dispatcher=mailbox,
        on_socket_closed=lambda shard, error: closed.append(shard.shard_id),
        close_timeout=NEVER,
    )
    connect(manager)
    mailbox.run_pending()
    assert seconds(manager.close) < GRACE
    wait_until(lambda: own_threads() == [])
    mailbox.run_pending()
    assert sorted(closed) == [0, 1, 2, 3]


def test_close_waits_for_the_callbacks_that_a_worker_still_has(gateway: LocalGateway) -> None:
    closed: list[int] = []

    def slow(shard: Shard, error: Any) -> None:
        time.sleep(0.02)  # a callback that takes its time
        closed.append(shard.shard_id)

    manager = connect(make_manager(gateway, dispatcher=Worker(), on_socket_closed=slow))
    manager.close()
    assert sorted(closed) == [0, 1, 2, 3]


def test_two_threads_close_at_once(gateway: LocalGateway) -> None:
    manager = connect(make_manager(gateway))
    closing = [in_background(each) for each in (manager.close, manager.disconnect, manager.close)]
    for each in closing:
        assert each.result(10) is None
    wait_until(lambda: own_threads() == [])


def test_close_interrupts_the_request_to_discord(gateway: LocalGateway) -> None:
    asked = threading.Event()
    gateway.inject(lambda it: asked.set(), instead_of="answer")
    manager = make_manager(gateway, gateway_bot=None, api_url=gateway.http_url)
    connecting = in_background(manager.connect)
    assert asked.wait(10)
    assert seconds(manager.close) < GRACE
    with pytest.raises(ShardClosed, match="closed by disconnect"):
        connecting.result(10)
    wait_until(lambda: own_threads() == [])


def test_close_interrupts_the_request_of_a_reshard(gateway: LocalGateway) -> None:
    manager = connect(make_manager(gateway, gateway_bot=None, api_url=gateway.http_url))
    asked = threading.Event()
    gateway.inject(lambda it: asked.set(), instead_of="answer")
    resharding = in_background(manager.reshard)
    assert asked.wait(10)
    manager.close()
    with pytest.raises(ShardClosed, match="closed by disconnect"):
        resharding.result(10)


def test_close_while_shards_wait_for_their_turn_starts_no_more(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardlib.startorder.LEAD", 0.01)
    gateway.max_concurrency, gateway.identify_interval = 1, 60.0
    manager = make_manager(gateway, gateway_bot=gateway_bot(gateway))
    manager.connect()
    wait_until(lambda: gateway.identifies)
    waiting = in_background(manager.wait_until_ready)
    manager.close()
    with pytest.raises(ShardClosed):
        waiting.result(10)
    assert len(gateway.all_connections) <= 2
    wait_until(lambda: own_threads() == [])


def test_close_while_a_shard_backs_off_ends_the_pause(gateway: LocalGateway) -> None:
    manager = connect(make_manager(gateway, close_timeout=NEVER))
    gateway.outage()
    wait_for_state(
        manager,
        lambda: {each.state for each in manager.shards.values()} == {ShardState.WAITING},
        "pausing",
    )
    assert seconds(manager.close) < GRACE


def test_close_between_connect_and_the_first_socket_ends_connect(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="upgrade", connections=None)
    manager = make_manager(gateway)
    connecting = in_background(manager.connect)
    wait_until(lambda: manager.shards)
    manager.close()
    with pytest.raises(ShardClosed):
        connecting.result(10)
    wait_until(lambda: own_threads() == [])


# Processes of their own: signals, and the end of the interpreter

PROGRAM = """
import os, signal, sys, threading, time
from shardlib import GatewayBot, IdentifyGate, ShardManager
manager = ShardManager(
    {token!r}, {intents},
    gateway_bot={gateway_bot},
    identify_gate=IdentifyGate(2, 0.001, slack=0),
    sessions={sessions!r},
)
{body}
"""


def run(
    gateway: LocalGateway,
    body: str,
    *,
    sessions: Path | None = None,
    answer: str | None = None,
    intents: str = "0",
) -> subprocess.Popen[str]:
    """Run a program with a manager in a process of its own."""
    program = PROGRAM.format(
        token=gateway.token,
        intents=intents,
        gateway_bot=answer or f"GatewayBot{tuple(gateway_bot(gateway))!r}",
        sessions=None if sessions is None else str(sessions),
        body=textwrap.dedent(body),
    )
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def interrupt_after(process: subprocess.Popen[str], line: str) -> float:
    """Send SIGINT once the program has printed a line; return when."""
    assert process.stdout is not None
    assert process.stdout.readline().strip() == line
    process.send_signal(signal.SIGINT)
    return time.monotonic()


INTERRUPTED = """
    try:
        {call}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    left = [each.name for each in threading.enumerate() if each.name.startswith("shard-")]
    print(len(left), flush=True)
    manager.close()
"""


@pytest.mark.parametrize(
    "call",
    ["manager.connect()", "manager.start(); manager.wait_until_ready()"],
    ids=["connect", "wait_until_ready"],
)
def test_ctrl_c_ends_a_wait_for_a_gateway_that_says_nothing(
    gateway: LocalGateway, call: str
) -> None:
    step = "upgrade" if "connect" in call else "hello"
    gateway.inject(instead_of=step, connections=None)
    body = "print('begin', flush=True)\n" + textwrap.dedent(INTERRUPTED).format(call=call)
    process = run(gateway, body)
    assert process.stdout is not None
    assert process.stdout.readline() == "begin\n"
    gateway.wait_until(lambda: gateway.all_connections or None, 20)
    process.send_signal(signal.SIGINT)
    since = time.monotonic()
    status, output, errors = finish(process)
    assert (status, errors) == (0, "")
    assert output.startswith("interrupted\n")
    assert time.monotonic() - since < GRACE


def test_ctrl_c_in_connect_keeps_the_saved_sessions(gateway: LocalGateway, tmp_path: Path) -> None:
    connect(make_manager(gateway, sessions=tmp_path)).close()
    saved = sorted(os.listdir(tmp_path))
    assert len(saved) == 4
    gateway.inject(instead_of="upgrade", connections=None)
    before = len(gateway.all_connections)
    process = run(
        gateway,
        """
        try:
            manager.connect()
        except KeyboardInterrupt:
            manager.join(5)
            print("interrupted", flush=True)
        """,
        sessions=tmp_path,
    )
    gateway.wait_until(lambda: len(gateway.all_connections) > before or None, 20)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "interrupted\n", "")
    assert sorted(os.listdir(tmp_path)) == saved


def test_ctrl_c_in_connect_leaves_nothing_running(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="upgrade", connections=None)
    process = run(
        gateway,
        """
        try:
            manager.connect()
        except KeyboardInterrupt:
            manager.join()
            print("left", [each.name for each in threading.enumerate()], flush=True)
        """,
    )
    gateway.wait_until(lambda: gateway.connections or gateway.all_connections or None, 20)
    process.send_signal(signal.SIGINT)
    status, output, errors = finish(process)
    assert (status, output, errors) == (0, "left ['MainThread']\n", "")


def test_ctrl_c_ends_run_forever_and_all_sessions(gateway: LocalGateway) -> None:
    process = run(
        gateway,
        """
        def tell():
            while "4 ready" not in repr(manager):
                time.sleep(0.01)
            print("ready", flush=True)
        threading.Thread(target=tell, daemon=True).start()
        manager.run_forever()
        print("returned", manager, flush=True)
        """,
    )
    since = interrupt_after(process, "ready")
    assert finish(process) == (0, "returned <ShardManager 4 shards, 0 ready>\n", "")
    assert time.monotonic() - since < GRACE
    assert {each.wait_closed() for each in gateway.all_connections} == {1000}


def test_a_signal_handler_that_closes_ends_run_forever(gateway: LocalGateway) -> None:
    process = run(
        gateway,
        """
        signal.signal(signal.SIGTERM, lambda *_: manager.close())
        def tell():
            while "4 ready" not in repr(manager):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Thread(target=tell, daemon=True).start()
        manager.run_forever()
        print("returned", flush=True)
        """,
    )
    assert finish(process) == (0, "returned\n", "")


def test_a_program_that_ends_saves_all_sessions_and_is_quick(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    process = run(
        gateway,
        """
        manager.connect()
        manager.wait_until_ready()
        print("ready", flush=True)
        sys.stdin.readline()
        """,
        sessions=tmp_path / "sessions",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    since = time.monotonic()
    assert finish(process) == (0, "", "")
    assert time.monotonic() - since < GRACE
    assert {each.wait_closed() for each in gateway.all_connections} == {4000}
    with make_manager(gateway, sessions=tmp_path / "sessions") as manager:
        connect(manager)
        assert len(gateway.identifies) == 4


def test_threads_that_wait_for_a_shard_do_not_disturb_the_end_of_a_program(
    gateway: LocalGateway,
) -> None:
    process = run(
        gateway,
        """
        manager.connect()
        manager.wait_until_ready()

        def wait(function, *arguments):
            threading.Thread(target=function, args=arguments, daemon=True).start()

        wait(manager.fetch_guild_members, 1)
        wait(manager.shards[0].wait_for, "TYPING_START")
        wait(manager.wait_for, "TYPING_START")
        time.sleep(0.5)
        """,
    )
    assert finish(process) == (0, "", "")


# Forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_manager_that_was_never_connected_works_in_a_forked_child(gateway: LocalGateway) -> None:
    process = run(
        gateway,
        """
        import warnings; warnings.simplefilter("ignore")
        manager.on("GUILD_CREATE", lambda *_: None)
        child = os.fork()
        if child:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        manager.connect()
        manager.wait_until_ready(20)
        manager.close()
        sys.exit(0 if not child else status)
        """,
    )
    status, _, errors = finish(process)
    assert (status, errors) == (0, "")
    assert len(gateway.identifies) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_an_iterator_of_the_parent_does_not_hold_up_the_shards_of_a_forked_child(
    gateway: LocalGateway,
) -> None:
    process = run(
        gateway,
        """
        import warnings; warnings.simplefilter("ignore")
        events = manager.events("READY", maxsize=1)
        child = os.fork()
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        ready = []
        manager.on("READY", lambda *_: ready.append(1))
        manager.connect()
        for _ in range(1000):
            if len(ready) == 4:
                break
            time.sleep(0.01)
        os._exit(0 if len(ready) == 4 and len(events._queue) == 0 else 1)
        """,
    )
    status, _, errors = finish(process)
    assert (status, errors) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_connected_manager_raises_forkedprocess_from_every_method_in_a_child(
    gateway: LocalGateway,
) -> None:
    process = run(
        gateway,
        """
        import warnings; warnings.simplefilter("ignore")
        from shardlib import ForkedProcess
        manager.connect()
        manager.wait_until_ready()
        child = os.fork()
        if child:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(manager, flush=True)
            manager.restart([1])
            sys.exit(status)
        calls = {
            "shards": lambda: manager.shards,
            "shard_count": lambda: manager.shard_count,
            "shard_for": lambda: manager.shard_for(1),
            "stats": lambda: manager.stats,
            "on": lambda: manager.on("READY", print),
            "off": lambda: manager.off("READY", print),
            "wait_for": lambda: manager.wait_for("READY"),
            "events": lambda: manager.events(),
            "connect": manager.connect,
            "start": manager.start,
            "wait_until_ready": manager.wait_until_ready,
            "close": manager.close,
            "disconnect": manager.disconnect,
            "join": manager.join,
            "run_forever": manager.run_forever,
            "restart": manager.restart,
            "reshard": manager.reshard,
            "update_presence": manager.update_presence,
            "update_voice_state": lambda: manager.update_voice_state(1, 2),
            "request_guild_members": lambda: manager.request_guild_members(1, query=""),
            "request_channel_info": lambda: manager.request_channel_info(1, []),
            "fetch_guild_members": lambda: manager.fetch_guild_members(1, query=""),
            "fetch_channel_info": lambda: manager.fetch_channel_info(1, []),
            "join_voice": lambda: manager.join_voice(1, 2),
        }
        public = {name for name in dir(manager) if not name.startswith("_")}
        wrong = sorted(public ^ set(calls))
        for name, call in calls.items():
            try:
                call()
            except ForkedProcess:
                continue
            wrong.append(name)
        with manager:
            pass
        if repr(manager) != "<ShardManager of the parent process>":
            wrong.append(repr(manager))
        print(*wrong, file=sys.stderr, flush=True)
        os._exit(1 if wrong else 0)
        """,
    )
    status, output, errors = finish(process)
    assert (status, errors.strip()) == (0, "")
    assert output == "<ShardManager 4 shards, 4 ready>\n"
    assert len(gateway.identifies) == 4


def test_a_program_that_ends_saves_the_sessions_of_peers_that_do_not_answer(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    process = run(
        gateway,
        """
        manager.connect()
        manager.wait_until_ready()
        while manager.stats.events["GUILD_CREATE"] < 4:
            time.sleep(0.01)
        print(*(shard.last_sequence for shard in manager.shards.values()), flush=True)
        sys.stdin.readline()
        """,
        sessions=tmp_path,
        intents="1",
    )
    assert process.stdout is not None
    sequences = [int(each) for each in process.stdout.readline().split()]
    for connection in gateway.connections:
        connection.freeze()
    since = time.monotonic()
    assert finish(process) == (0, "", "")
    assert time.monotonic() - since < GRACE
    saved = [Session.load(tmp_path / f"shard-{shard_id}-of-4.json") for shard_id in range(4)]
    assert [each.sequence for each in saved] == sequences


def test_ctrl_c_while_discord_is_asked_ends_the_program_at_once(gateway: LocalGateway) -> None:
    asked = threading.Event()
    gateway.inject(lambda it: asked.set(), instead_of="answer")
    process = run(
        gateway,
        f"""
        manager = ShardManager(
            {gateway.token!r}, 0, gateway_bot=None, api_url={gateway.http_url!r}
        )
        try:
            manager.connect()
        except KeyboardInterrupt:
            manager.join(5)
            print("interrupted", manager, flush=True)
        """,
        answer="None",
    )
    assert asked.wait(20)
    process.send_signal(signal.SIGINT)
    since = time.monotonic()
    assert finish(process) == (0, "interrupted <ShardManager, never connected>\n", "")
    assert time.monotonic() - since < GRACE


def test_a_signal_handler_that_closes_ends_connect(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="upgrade", connections=None)
    process = run(
        gateway,
        """
        from shardlib import ShardClosed
        signal.signal(signal.SIGTERM, lambda *_: manager.close())
        try:
            manager.connect()
        except ShardClosed as error:
            print(error, flush=True)
        """,
    )
    gateway.wait_until(lambda: gateway.all_connections or None, 20)
    process.send_signal(signal.SIGTERM)
    status, output, errors = finish(process)
    assert (status, errors) == (0, "")
    assert output.startswith("closed by disconnect()")


def test_many_managers_of_a_program_end_together(gateway: LocalGateway) -> None:
    process = run(
        gateway,
        """
        others = [
            ShardManager("{token}", 0, 5, shard_ids=[shard_id], gateway_bot=manager._gateway_bot,
                identify_gate=IdentifyGate(1, 0.001, slack=0))
            for shard_id in range(4)
        ]
        for each in others:
            each.connect()
            each.wait_until_ready()
        print("ready", flush=True)
        sys.stdin.readline()
        """.replace("{token}", gateway.token),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for connection in gateway.connections:
        connection.freeze()
    since = time.monotonic()
    assert finish(process) == (0, "", "")
    assert time.monotonic() - since < GRACE


def test_a_closed_manager_that_nothing_refers_to_is_collected(gateway: LocalGateway) -> None:
    manager = connect(make_manager(gateway, on_all_ready=lambda manager: None))
    manager.on("GUILD_CREATE", lambda shard, data: None)
    manager.close()
    reference = weakref.ref(manager)
    del manager
    wait_until(lambda: not gc.collect() and reference() is None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_an_iterator_of_the_parents_holds_up_no_shard_of_a_forked_child(
    gateway: LocalGateway,
) -> None:
    process = run(
        gateway,
        """
        import warnings; warnings.simplefilter("ignore")
        events = manager.events(maxsize=1)
        child = os.fork()
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        manager.connect()
        manager.wait_until_ready(20)
        while manager.stats.events["GUILD_CREATE"] < 4:
            time.sleep(0.01)
        sys.exit(manager.stats.waiting)
        """,
        intents="1",
    )
    status, _, errors = finish(process)
    assert (status, errors) == (0, "")
