"""How a shard ends: fatal close codes, disconnect() at any moment, the end of a process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import shardlib
from shardlib import Backoff, ConnectionFailed, Shard, ShardClosed, ShardState
from shardlib.lifecycle import Lifecycle
from shardlib.shard import _close_all_at_exit
from shardlib.testing import LocalGateway
from tests.recorder import Recorder
from tests.shards import make_gateway, make_shard
from tests.support import AT_ONCE, FATAL, NEVER, TOKEN, in_background, not_none, wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@pytest.mark.parametrize("code", FATAL)
def test_a_fatal_close_code_is_raised_from_every_wait(gateway: LocalGateway, code: int) -> None:
    gateway.inject(lambda connection: connection.close(code, "why"), instead_of="ready")
    recorder = Recorder()
    shard = make_shard(recorder)
    with pytest.raises(FATAL[code]) as caught:
        shard.run_forever(gateway.url)
    assert (caught.value.code, caught.value.reason) == (code, "why")
    for wait in (shard.wait_until_ready, shard.join, lambda: shard.wait_for("READY")):
        with pytest.raises(FATAL[code]):
            wait()
    with pytest.raises(FATAL[code]):
        shard.send('{"op": 3, "d": {}}')
    with shard:
        pass  # this thread has seen the error; raised again, it would hide a later one
    assert recorder.life == [
        ("connected",),
        ("disconnected", code, False),
        ("closed", caught.value),
    ]
    assert len(gateway.all_connections) == 1
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("told_elsewhere", [True, False], ids=["seen elsewhere", "seen nowhere"])
def test_a_with_block_raises_an_error_that_its_thread_has_not_seen(
    gateway: LocalGateway, told_elsewhere: bool
) -> None:
    with pytest.raises(shardlib.InvalidIntents):
        with make_shard() as shard:
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
            gateway.connections[0].close(4013)
            wait_until(lambda: shard.state is ShardState.CLOSED)
            if told_elsewhere:
                error = in_background(shard.join, 10).exception(10)
                assert isinstance(error, shardlib.InvalidIntents)


@pytest.mark.parametrize("compression", ["zlib-stream", "zstd-stream", "payload", None])
def test_a_ready_that_is_too_large_twice_closes_the_shard(
    gateway: LocalGateway, compression: Any
) -> None:
    """Identifying again and again would use up the day's sessions without saying why."""
    with pytest.raises(ShardClosed, match="larger max_payload") as caught:
        make_shard(compression=compression, max_payload=300).run_forever(gateway.url)
    assert caught.value.code is None
    assert len(gateway.all_connections) == 2


def test_a_wrong_token_and_unknown_intents_raise_their_own_errors(gateway: LocalGateway) -> None:
    with pytest.raises(shardlib.AuthenticationFailed, match="Developer Portal"):
        make_shard(token="some.other.token").run_forever(gateway.url)
    with pytest.raises(shardlib.InvalidIntents):
        make_shard(intents=1 << 40).run_forever(gateway.url)


def test_disallowed_intents_raise_an_error_that_names_the_privileged_ones() -> None:
    allowed = shardlib.Intents.default()
    with make_gateway(allowed_intents=allowed) as gateway:
        intents = allowed | shardlib.Intents.MESSAGE_CONTENT
        with pytest.raises(shardlib.DisallowedIntents, match="MESSAGE_CONTENT") as caught:
            make_shard(intents=intents).run_forever(gateway.url)
    assert "GUILD_PRESENCES" not in str(caught.value)


def test_a_fatal_close_code_after_ready_closes_the_shard(gateway: LocalGateway) -> None:
    shard = make_shard()
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    gateway.connections[0].close(4004)
    with pytest.raises(shardlib.AuthenticationFailed):
        shard.join(10)
    assert shard.state is ShardState.CLOSED


@pytest.mark.parametrize("step", ["accept", "upgrade", "hello", "ready", "close"])
def test_disconnect_at_every_stage_is_quick_and_final(gateway: LocalGateway, step: str) -> None:
    gateway.inject(instead_of=step)
    recorder = Recorder()
    shard = make_shard(recorder, close_timeout=0.4)
    connecting = in_background(shard.connect, gateway.url)
    connection = gateway.wait_for_connection()
    if step in ("accept", "upgrade"):
        wait_until(lambda: shard.state is ShardState.CONNECTING)
    elif step == "hello":
        wait_until(lambda: shard.state is ShardState.CONNECTED)
    elif step == "ready":
        wait_until(lambda: shard.state is ShardState.IDENTIFYING)
    else:
        wait_until(lambda: shard.state is ShardState.READY)
    since = time.perf_counter()
    shard.disconnect()
    assert time.perf_counter() - since < AT_ONCE
    shard.join(10)
    # A busy machine may need more than close_timeout, and disconnect() does not wait for longer.
    wait_until(lambda: recorder.calls[-1] == ("closed", None))
    error = connecting.exception(10)
    assert isinstance(error, ShardClosed) if step in ("accept", "upgrade") else error is None
    wait_until(lambda: connection.is_closed)
    assert len(gateway.all_connections) == 1


def test_disconnect_ends_a_back_off(gateway: LocalGateway, caplog: Any) -> None:
    shard = make_shard(backoff=shardlib.Backoff(base=60, cap=60), close_timeout=NEVER)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    gateway.outage()
    # The first attempt after a connection that worked is made at once, and fails.
    wait_until(lambda: "resuming in" in caplog.text)
    since = time.perf_counter()
    shard.disconnect()
    assert time.perf_counter() - since < AT_ONCE
    gateway.restore()
    assert len(gateway.connections) == 0


def test_disconnect_ends_the_wait_for_an_identify_slot(gateway: LocalGateway) -> None:
    gate = shardlib.IdentifyGate(interval=60, slack=0)
    assert gate.try_acquire(0) == 0
    shard = make_shard(identify_gate=gate, close_timeout=NEVER)
    shard.connect(gateway.url)
    wait_until(lambda: shard.heartbeat_interval)
    assert shard.state is ShardState.CONNECTED
    since = time.perf_counter()
    shard.disconnect()
    assert time.perf_counter() - since < AT_ONCE


def test_disconnect_does_not_wait_for_a_callback_that_does_not_return(
    gateway: LocalGateway,
) -> None:
    release = threading.Event()
    shard = make_shard(on_socket_ready=lambda _: release.wait(20), close_timeout=0.4)
    shard.connect(gateway.url)
    wait_until(lambda: shard.session_id)
    since = time.perf_counter()
    shard.disconnect()
    assert time.perf_counter() - since < AT_ONCE
    assert gateway.all_connections[0].wait_closed() == 1000
    shard.join(10)  # the callback keeps no other thread waiting either
    assert time.perf_counter() - since < AT_ONCE
    assert shard.socket_thread is not None
    release.set()
    wait_until(lambda: shard.socket_thread is None)


def test_a_first_attempt_that_fails_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ws://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConnectionFailed, match="not done within 0.2 seconds"):
            make_shard(connect_timeout=0.2).connect(url)
    with pytest.raises(ConnectionFailed, match="address of nowhere.invalid was not found"):
        make_shard().connect("ws://nowhere.invalid")


SCRIPT = """
import os, signal, sys, threading
from shardlib import IdentifyGate, Intents, Shard
shard = Shard({token!r}, Intents.all(), identify_gate=IdentifyGate(interval=0.01, slack=0))
{setup}
shard.connect({url!r})
shard.wait_until_ready(10)
print("ready", flush=True)
{end}
"""


def run_script(gateway: LocalGateway, end: str, setup: str = "") -> subprocess.Popen[str]:
    script = SCRIPT.format(
        token=TOKEN, url=gateway.url, setup=textwrap.dedent(setup), end=textwrap.dedent(end)
    )
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "end, status, message",
    [
        ("raise LookupError('mine')", 1, "LookupError: mine"),
        ("os.kill(os.getpid(), signal.SIGINT); threading.Event().wait()", -2, "KeyboardInterrupt"),
        ("shard.on('PING')(lambda *_: sys.exit(5)); print('on', flush=True); shard.join()", 5, ""),
    ],
    ids=["exception", "Ctrl-C", "sys.exit in a callback"],
)
def test_a_program_that_ends_prints_only_what_ended_it(
    gateway: LocalGateway, end: str, status: int, message: str
) -> None:
    """reliability/test_ending.py covers the other ends of a program."""
    process = run_script(gateway, end)
    connection = gateway.wait_for_connection(timeout=20)
    if "PING" in end:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "on":
            pass
        not_none(connection.session).dispatch("PING", {})
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status
    if message:
        assert errors.rstrip().splitlines()[-1].startswith(message)
        assert errors.count("Traceback") == 1
    else:
        assert errors == ""
    assert connection.wait_closed() == 4000


def test_ctrl_c_ends_run_forever_cleanly(gateway: LocalGateway) -> None:
    process = run_script(
        gateway,
        "",
        setup=f"""
        shard.on_socket_ready = lambda _: print("ready", flush=True)
        shard.run_forever({gateway.url!r})
        print("returned", shard.state.value, flush=True)
        sys.exit(0)
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    since = time.perf_counter()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "returned closed\n", "")
    assert time.perf_counter() - since < 10
    assert gateway.all_connections[0].wait_closed() == 1000


def test_a_shard_closed_in_a_with_block_raises_only_its_own_error(gateway: LocalGateway) -> None:
    with pytest.raises(LookupError, match="mine"):
        with make_shard() as shard:
            shard.connect(gateway.url)
            raise LookupError("mine")
    assert shard.state is ShardState.CLOSED


def test_shard_closed_after_disconnect_names_disconnect(gateway: LocalGateway) -> None:
    shard: Shard = make_shard()
    shard.connect(gateway.url)
    shard.disconnect()
    with pytest.raises(ShardClosed, match=r"closed by disconnect\(\)"):
        shard.send('{"op": 1, "d": null}')


class Broken(Backoff):
    """A Backoff of the user's that raises at some of its calls, which are counted from 1."""

    def __init__(self, *failing: int) -> None:
        super().__init__(base=0.01, cap=0.05)
        self._failing = failing
        self._calls = 0

    def next_delay(self) -> float:
        self._calls += 1
        if self._calls in self._failing:
            raise LookupError("mine")
        return super().next_delay()


def test_an_exception_of_the_backoff_is_reported_and_the_default_backoff_is_used(
    gateway: LocalGateway, caplog: Any
) -> None:
    """Row 20: the reader reports the exception and connects again."""
    gateway.inject(instead_of="ready", connections=1)
    recorder = Recorder()
    with make_shard(
        recorder, backoff=Broken(2)
    ) as shard:  # the first call is for the first attempt
        shard.connect(gateway.url)
        gateway.wait_for_connection().drop()
        shard.wait_until_ready(10)
    assert [error.args for error in recorder.errors] == [("mine",)]
    assert "the option backoff failed, and the default was used: mine" in caplog.text
    assert recorder.life == [
        ("connected",),
        ("disconnected", None, False),
        ("connected",),
        ("ready",),
        ("reconnected", False),
        ("disconnected", 1000, True),
        ("closed", None),
    ]


def test_all_threads_in_join_get_the_same_error(gateway: LocalGateway) -> None:
    shard = make_shard()
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    joining = [in_background(shard.join, 10) for _ in range(4)]
    gateway.connections[0].close(4013)
    errors = {waiting.exception(10) for waiting in joining}
    assert [type(error) for error in errors] == [shardlib.InvalidIntents]


def test_the_error_of_a_closed_shard_does_not_grow_with_each_raise(gateway: LocalGateway) -> None:
    """A traceback keeps its frames: a program that goes on sending would fill the memory."""
    shard = make_shard()
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    gateway.connections[0].close(4013)
    for method in (shard.join, shard.wait_until_ready, lambda: shard.send('{"op": 1}')):
        lengths = []
        for _ in range(5):
            with pytest.raises(shardlib.InvalidIntents) as caught:
                method()
            lengths.append(len(caught.traceback))
        assert len(set(lengths)) == 1, lengths


def test_a_shard_made_while_the_interpreter_exits_keeps_no_other_shard_open(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing takes a moment, in which a daemon thread may make another shard."""
    others: list[Shard] = []
    request_close = Lifecycle.request_close

    def slowly(lifecycle: Lifecycle, *arguments: Any) -> Any:
        others.append(make_shard())
        return request_close(lifecycle, *arguments)

    monkeypatch.setattr(Lifecycle, "request_close", slowly)
    shards = [make_shard(), make_shard()]
    for shard in shards:
        shard.connect(gateway.url)
    _close_all_at_exit()
    for shard in shards:
        wait_until(lambda: shard.socket_thread is None)
