"""Inside programs that are not ours: worker threads, forks, gevent, several shards."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest

from shardlib import (
    ForkedProcess,
    IdentifyGate,
    NotReady,
    Opcode,
    SendTimeout,
    Shard,
    ShardError,
)
from shardlib.testing import LocalGateway
from tests.reliability.conftest import MakeGateway, MakeShard
from tests.reliability.support import Child, dispatch_numbers
from tests.support import wait_until


def test_a_worker_thread_may_have_it_and_the_process_stays_as_it_was(
    gateway: LocalGateway, make_shard: MakeShard
) -> None:
    """Row 28: no signal handler, no default timeout, no logging set-up, no main thread needed."""
    before = (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        socket.getdefaulttimeout(),
        logging.getLogger().handlers[:],
    )
    shard, recorder = make_shard(gateway, connect=False)
    worker = threading.Thread(target=lambda: (shard.connect(gateway.url), shard.wait_until_ready()))
    worker.start()
    worker.join(10)
    assert recorder.count("ready") == 1
    assert before == (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        socket.getdefaulttimeout(),
        logging.getLogger().handlers[:],
    )


def test_shards_of_one_token_identify_one_after_the_other(
    make_gateway: MakeGateway, make_shard: MakeShard
) -> None:
    """Row 38: the gate is shared; a shard that dies before Hello holds up nobody."""
    gateway = make_gateway(shards=4)
    gate = IdentifyGate(interval=0.2)
    gateway.inject(lambda connection: connection.reset(), instead_of="hello")
    shards = [
        make_shard(gateway, ready=False, shard_id=number, shard_count=4, identify_gate=gate)[0]
        for number in range(4)
    ]
    for shard in shards:
        shard.wait_until_ready(20)
    times = sorted(gateway.expect(Opcode.IDENTIFY).time for _ in range(4))
    # As the gateway received them: a little of the distance may be lost on the way.
    assert all(later - earlier > 0.1 for earlier, later in zip(times, times[1:]))


def test_eight_threads_use_a_shard_that_flaps(gateway: LocalGateway, make_shard: MakeShard) -> None:
    """Row 17: whatever the moment, the documented errors and no others."""
    shard, _ = make_shard(gateway)
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_told_and_the_parent_is_left_in_peace(
    gateway: LocalGateway, make_shard: MakeShard
) -> None:
    """Row 29: every method raises in the child, at once, even where a lock was held."""
    shard, recorder = make_shard(gateway)
    methods = (
        shard.connect,
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
        lambda: shard.send('{"op": 1, "d": null}'),
        lambda: shard.heartbeat_in(1),
    )
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with shard._control.changed:
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
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    dispatch_numbers(gateway, 0, 3)
    wait_until(lambda: recorder.numbers() == [0, 1, 2])
    assert len(gateway.all_connections) == 1


def test_a_process_that_was_stopped_resumes_within_seconds(
    make_gateway: MakeGateway,
) -> None:
    """Row 37: SIGSTOP for longer than the gateway waits for a heartbeat, then SIGCONT."""
    gateway = make_gateway(heartbeat_interval=300, heartbeat_tolerance=0.3)
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
        # The gateway itself finds the beats missing: three intervals and more have passed.
        gateway.wait_until(lambda: connection.is_closed, timeout=20)
        gateway.sessions[0].dispatch("TYPING_START", {"n": 1, "guild_id": None})
        child.signal(signal.SIGCONT)
        child.expect("event 1", timeout=10)
        assert gateway.sessions[0].resumes == 1


def test_under_gevent_the_other_greenlets_go_on(gateway: LocalGateway) -> None:
    """Row 42: patched first, the shard's waits are greenlets' waits."""
    pytest.importorskip("gevent")
    code = """
        shard = make()
        ticks = []
        def tick():
            while True:
                ticks.append(1)
                gevent.sleep(0.01)
        gevent.spawn(tick)
        shard.connect(sys.argv[1])
        shard.wait_until_ready(10)
        shard.reconnect()
        shard.wait_until_ready(10)
        count = len(ticks)
        shard.on("TYPING_START")(lambda shard, data: tell("event", data["n"]))
        tell("ready")
        gevent.sleep(0.5)
        tell("ticked" if len(ticks) - count > 10 else "starved")
        shard.disconnect()
        tell("closed")
    """
    patched = "import gevent.monkey\ngevent.monkey.patch_all()\nimport gevent\n"
    with Child(code, gateway.url, flags=("-W", "ignore"), first=patched) as child:
        child.expect("ready")
        gateway.sessions[0].dispatch("TYPING_START", {"n": 1, "guild_id": None})
        child.expect("event 1")
        child.expect("ticked")
        child.expect("closed")
        assert child.wait() == 0


def test_a_thread_the_system_does_not_give_is_an_error_and_no_half_life(
    gateway: LocalGateway, make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, _ = make_shard(gateway, connect=False)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            shard.connect(gateway.url)
    with pytest.raises(ShardError):
        shard.send('{"op": 1, "d": null}')
    shard.connect(gateway.url)
    shard.wait_until_ready(10)


def test_a_heartbeat_without_a_thread_costs_a_connection_and_not_the_session(
    gateway: LocalGateway, make_shard: MakeShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did identify, later and without a heartbeat, although it had a session to resume."""
    shard, _ = make_shard(gateway, hello_timeout=0.5)
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
