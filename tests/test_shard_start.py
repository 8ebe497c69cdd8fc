"""start() and run_forever(): a life whose first attempt no thread waits for."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import (
    AlreadyConnected,
    Backoff,
    ConnectionFailed,
    Shard,
    ShardClosed,
    ShardState,
)
from shardlib.testing import LocalGateway
from tests.recorder import Recorder, dispatch_numbers
from tests.reliability.support import Child, StuckCallback
from tests.shards import make_gateway, make_shard
from tests.support import in_background, wait_until


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@pytest.fixture
def down(gateway: LocalGateway) -> LocalGateway:
    """A gateway whose port refuses connections until its restore() is called."""
    gateway.outage()
    return gateway


@pytest.fixture
def stuck() -> Iterator[StuckCallback]:
    callback = StuckCallback()
    yield callback
    callback.release.set()


# Before the network


def test_start_keeps_trying_until_the_gateway_is_there(
    down: LocalGateway, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    with make_shard(recorder) as shard:
        shard.start(down.url)
        assert shard.state in (ShardState.CONNECTING, ShardState.WAITING)
        assert shard.socket_url == down.url
        waiting = in_background(shard.wait_until_ready, 10)
        failures = caplog.records
        wait_until(lambda: sum("refused" in each.getMessage() for each in list(failures)) >= 3)
        down.restore()
        waiting.result(10)
    assert recorder.life == [
        ("connected",),
        ("ready",),
        ("disconnected", 1000, True),
        ("closed", None),
    ]
    told = [each for each in failures if "refused" in each.getMessage()]
    assert {each.levelno for each in told} == {logging.WARNING}
    assert "; trying again" in told[0].getMessage()


def test_start_returns_while_the_gateway_does_not_answer(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="upgrade")
    with make_shard(connect_timeout=60.0) as shard:
        since = time.monotonic()
        shard.start(gateway.url)
        assert time.monotonic() - since < 10
        assert shard.state is ShardState.CONNECTING


def test_disconnect_during_the_first_attempts_of_start_ends_them(
    down: LocalGateway, recorder: Recorder
) -> None:
    shard = make_shard(recorder, backoff=Backoff(base=60.0, cap=60.0))
    shard.start(down.url)
    joining = in_background(shard.join)
    wait_until(lambda: shard.state is ShardState.WAITING)
    since = time.monotonic()
    shard.disconnect()
    assert time.monotonic() - since < 15
    assert shard.state is ShardState.CLOSED
    assert shard.socket_thread is None
    assert recorder.besides_states == [("closed", None)]
    joining.result(10)
    with pytest.raises(ShardClosed):
        shard.wait_until_ready(0)


def test_without_should_reconnect_the_first_failure_of_start_closes_the_shard(
    down: LocalGateway, recorder: Recorder
) -> None:
    shard = make_shard(recorder, should_reconnect=False)
    shard.start(down.url)
    with pytest.raises(ConnectionFailed, match="refused") as caught:
        shard.join(10)
    assert recorder.besides_states == [("closed", caught.value)]
    assert shard.state is ShardState.CLOSED
    with pytest.raises(ConnectionFailed):
        shard.wait_until_ready(0)
    with pytest.raises(ConnectionFailed):
        shard.send({"op": 1, "d": None})


def test_send_after_start_waits_for_the_first_connection(down: LocalGateway) -> None:
    with make_shard() as shard:
        shard.start(down.url)
        sending = in_background(lambda: shard.send({"op": 3, "d": {"status": "idle"}}, 10))
        wait_until(lambda: shard.state is ShardState.WAITING)
        down.restore()
        sending.result(10)
        assert down.expect(3)["d"]["status"] == "idle"


@pytest.mark.parametrize("begin", [Shard.connect, Shard.start, Shard.run_forever])
def test_a_url_that_cannot_be_is_refused_at_once(begin: Callable[[Shard, str], None]) -> None:
    shard = make_shard(should_reconnect=False)  # or the test would wait for ever if it failed
    with pytest.raises(ValueError, match="URL must begin with ws:// or wss://"):
        begin(shard, "https://gateway.discord.gg/")
    assert shard.state is ShardState.DISCONNECTED and shard.socket_thread is None


# Beside another life


def test_start_and_connect_refuse_a_shard_that_was_started(down: LocalGateway) -> None:
    with make_shard() as shard:
        shard.start(down.url)
        for method in (shard.start, shard.connect, shard.run_forever):
            with pytest.raises(AlreadyConnected):
                method(down.url)
        assert down.all_connections == []


@pytest.mark.parametrize("where", ["an event", "on_socket_closed"])
def test_start_in_a_callback_after_disconnect_begins_anew(
    gateway: LocalGateway, recorder: Recorder, where: str
) -> None:
    with make_shard(recorder) as shard:
        note = shard.on_socket_closed

        def closed(shard: Shard, error: BaseException | None) -> None:
            note(shard, error)
            if where == "on_socket_closed" and recorder.count("closed") == 1:
                shard.start(gateway.url)

        def again(shard: Shard, _: Any) -> None:
            shard.disconnect()
            shard.start(gateway.url)

        shard.on_socket_closed = closed
        shard.start(gateway.url)
        shard.wait_until_ready(10)
        if where == "an event":
            shard.on("TYPING_START", again)
            dispatch_numbers(gateway, [1])
        else:
            shard.disconnect()
        wait_until(lambda: recorder.count("ready") == 2)
        assert recorder.errors == []


def test_start_behind_a_callback_that_does_not_return_leaves_word(
    gateway: LocalGateway, recorder: Recorder, stuck: StuckCallback
) -> None:
    """Waits that begin after start() belong to the life that it has asked for."""
    with make_shard(recorder, close_timeout=0.1) as shard:
        shard.on("TYPING_START", stuck)
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        dispatch_numbers(gateway, [1])
        assert stuck.entered.wait(10)
        shard.disconnect()
        since = time.monotonic()
        shard.start(gateway.url)
        assert time.monotonic() - since < 15
        assert shard.state is ShardState.CLOSING
        for method in (shard.start, shard.connect):
            with pytest.raises(AlreadyConnected):
                method(gateway.url)
        with pytest.raises(TimeoutError, match="not ready"):
            shard.wait_until_ready(0.01)
        with pytest.raises(TimeoutError, match="not closed"):
            shard.join(0.01)
        ready = in_background(shard.wait_until_ready, 10)
        sent = in_background(lambda: shard.send({"op": 3, "d": {"status": "idle"}}, 10))
        stuck.release.set()
        ready.result(10)
        sent.result(10)
    # A busy machine may need more than close_timeout, and disconnect() does not wait for longer.
    wait_until(lambda: recorder.count("closed", None) == 2)


def test_disconnect_takes_back_a_start_that_waits_for_a_callback(
    gateway: LocalGateway, recorder: Recorder, stuck: StuckCallback
) -> None:
    shard = make_shard(recorder, close_timeout=0.1)
    shard.on("TYPING_START", stuck)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    dispatch_numbers(gateway, [1])
    assert stuck.entered.wait(10)
    shard.disconnect()
    running = in_background(shard.run_forever, gateway.url)
    wait_until(lambda: shard._lifecycle.latest is not shard._lifecycle.life)
    ready = in_background(shard.wait_until_ready, 10)
    shard.disconnect()
    running.result(10)
    assert isinstance(ready.exception(10), ShardClosed)
    stuck.release.set()
    wait_until(lambda: shard.socket_thread is None)
    assert recorder.count("closed") == 1
    assert len(gateway.all_connections) == 1


# run_forever()


def test_run_forever_keeps_trying_until_the_gateway_is_there(down: LocalGateway) -> None:
    shard = make_shard()
    running = in_background(shard.run_forever, down.url)
    wait_until(lambda: shard.state is ShardState.WAITING)
    down.restore()
    wait_until(lambda: shard.state is ShardState.READY)
    assert not running.done()
    shard.disconnect()
    running.result(10)


def test_run_forever_without_should_reconnect_raises_the_first_failure(down: LocalGateway) -> None:
    shard = make_shard(should_reconnect=False)
    with pytest.raises(ConnectionFailed, match="refused"):
        shard.run_forever(down.url)
    assert shard.socket_thread is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_run_forever_before_the_network_is_there(
    down: LocalGateway, number: signal.Signals
) -> None:
    code = """
        import logging
        shard = make()
        logging.disable()
        signal.signal(signal.SIGTERM, lambda *_: shard.disconnect())
        threading.Thread(
            target=lambda: [time.sleep(0.01) for _ in iter(lambda: shard.state.value, "waiting")]
            and tell("waiting"),
            daemon=True,
        ).start()
        shard.run_forever(sys.argv[1])
        tell("returned", shard.state.value)
    """
    with Child(code, down.url) as child:
        child.expect("waiting")
        child.signal(number)
        child.expect("returned closed")
        assert child.wait() == 0
        assert child.stderr == ""


def test_start_in_a_signal_handler_begins_anew_whatever_it_has_interrupted(
    gateway: LocalGateway,
) -> None:
    """connect() there is refused, since it would wait; start() waits for nothing."""
    code = """
        from shardlib import ShardError
        shard = make()
        shard.connect(sys.argv[1])
        shard.wait_until_ready()

        def begin_again(*_):
            shard.disconnect(4000)
            try:
                shard.connect(sys.argv[1])
            except ShardError as error:
                tell("refused")
            shard.start(sys.argv[1])
            tell("started")

        signal.signal(signal.SIGTERM, begin_again)
        tell("ready")
        shard.join()  # of the first life
        tell("joined")
        shard.wait_until_ready(20)
        tell("resumed", shard.stats.resumes)
        shard.disconnect()
    """
    with Child(code, gateway.url) as child:
        child.expect("ready")
        child.signal(signal.SIGTERM)
        child.expect("resumed 1")
        assert child.wait() == 0
        assert child.lines[1:-1] == ["refused", "started", "joined"]
        assert child.stderr == ""


def test_a_started_shard_leaves_no_thread_when_the_program_ends(down: LocalGateway) -> None:
    code = """
        import logging
        logging.disable()
        shard = make()
        shard.start(sys.argv[1])
        tell("now")
    """
    with Child(code, down.url) as child:
        assert child.wait() == 0
        assert child.stderr == ""


def test_of_many_threads_that_start_a_shard_one_begins_its_life(gateway: LocalGateway) -> None:
    with make_shard() as shard:
        begun = [in_background(shard.start, gateway.url) for _ in range(8)]
        outcomes = [each.exception(10) for each in begun]
        assert outcomes.count(None) == 1
        assert all(isinstance(each, AlreadyConnected) for each in outcomes if each is not None)
        shard.wait_until_ready(10)
        assert len(gateway.all_connections) == 1
        assert sum(each.name == "shard-0-reader" for each in threading.enumerate()) == 1


@pytest.mark.parametrize(
    ("url", "warned"),
    [("ws://192.0.2.1/", True), ("wss://192.0.2.1/", False), ("ws://127.0.0.1:1/", False)],
)
def test_a_connection_without_tls_over_a_network_is_warned_of(
    url: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The token goes out in clear, which nothing else would tell."""
    with pytest.raises(ConnectionFailed):
        make_shard(connect_timeout=0.05).connect(url)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("is not encrypted" in text for text in told) is warned
