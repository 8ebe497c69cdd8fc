"""What a callback may do: call every method of the shard, raise, take long, leave the program."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import NotReady, Opcode, Shard, ShardClosed, ShardError, ShardState
from shardlib.testing import LocalGateway
from tests.recorder import Recorder
from tests.shards import await_heartbeats, make_gateway, make_shard
from tests.support import AT_ONCE, HAS_GIL, NEVER, in_background, wait_until

# The callbacks of a first connection with heartbeats, an event and an unreadable message.
IN_A_CONNECTION = (
    "on_socket_connected",
    "on_socket_raw_message",
    "on_socket_text",
    "on_socket_batch",
    "on_socket_ready",
    "on_socket_dispatch",
    "on_socket_heartbeat",
    "on_socket_error",
)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalGateway]:
    """The first heartbeat is sent after 0.3 seconds; its acknowledgement may take a minute."""
    monkeypatch.setattr(random, "random", lambda: 1 / 200)
    with make_gateway(heartbeat_interval=60_000) as gateway:
        yield gateway


class Once:
    """A callback that acts the first time it is called, and records how long that took."""

    def __init__(self, action: Callable[[Shard], object]) -> None:
        self._action = action
        self.seconds: float | None = None
        self.error: BaseException | None = None

    def __call__(self, shard: Shard, *_: Any) -> None:
        if self.seconds is not None:
            return
        since = time.perf_counter()
        try:
            self._action(shard)
        except BaseException as error:
            self.error = error
        self.seconds = time.perf_counter() - since

    def check(self) -> None:
        """Wait for the call; fail if it raised or was not done at once."""
        wait_until(lambda: self.seconds is not None, what="the callback")
        assert self.error is None
        assert self.seconds is not None and self.seconds < AT_ONCE


def provoke(gateway: LocalGateway, shard: Shard, once: Once) -> None:
    """Connect, and cause every callback of IN_A_CONNECTION."""
    shard.connect(gateway.url)
    connection = gateway.wait_for_connection()
    try:
        session = connection.wait_until_ready()
        session.dispatch("USER_UPDATE", {})
        connection.send_compressed("not JSON")
    except OSError:
        pass  # the callback has ended the connection


@pytest.mark.parametrize("name", IN_A_CONNECTION)
@pytest.mark.parametrize("code", [None, 4000])
def test_disconnect_inside_each_callback(gateway: LocalGateway, name: str, code: Any) -> None:
    recorder = Recorder()
    once = Once(lambda shard: shard.disconnect(code))
    shard = make_shard(recorder, close_timeout=NEVER, **{name: once})
    provoke(gateway, shard, once)
    once.check()
    shard.join(10)
    assert shard.state is ShardState.CLOSED
    assert gateway.all_connections[0].wait_closed() == (code or 1000)
    assert recorder.of("closed") == [("closed", None)]
    assert len(gateway.all_connections) == 1


@pytest.mark.parametrize("name", IN_A_CONNECTION)
def test_disconnect_and_connect_inside_each_callback(gateway: LocalGateway, name: str) -> None:
    def begin_anew(shard: Shard) -> None:
        shard.disconnect()
        shard.connect(gateway.url)

    once = Once(begin_anew)
    with make_shard(close_timeout=NEVER, **{name: once}) as shard:
        provoke(gateway, shard, once)
        once.check()
        wait_until(lambda: len(gateway.all_connections) == 2)
        shard.wait_until_ready(10)
        assert gateway.all_connections[0].wait_closed() == 1000
        assert shard.socket_thread is not None


def test_connect_inside_on_socket_closed_begins_anew(gateway: LocalGateway) -> None:
    once = Once(lambda shard: shard.connect(gateway.url))
    shard = make_shard(close_timeout=NEVER, on_socket_closed=once)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    gateway.connections[0].close(4004)
    once.check()
    wait_until(lambda: len(gateway.all_connections) == 2)
    shard.wait_until_ready(10)
    shard.disconnect()
    shard.join(10)


@pytest.mark.parametrize("name", IN_A_CONNECTION)
@pytest.mark.parametrize("method", ["reconnect", "reinstantiate"])
def test_a_new_connection_requested_inside_each_callback_is_opened_once(
    gateway: LocalGateway, name: str, method: str
) -> None:
    """If a new connection is being opened already, the request opens no other."""
    once = Once(lambda shard: getattr(shard, method)())
    with make_shard(close_timeout=NEVER, **{name: once}) as shard:
        provoke(gateway, shard, once)
        once.check()
        wait_until(lambda: shard.state is ShardState.READY)
        wait_until(lambda: gateway.connections and gateway.connections[-1].session is not None)
        assert len(gateway.all_connections) <= 2
        assert gateway.all_connections[0].close_code in (None, 4000)


@pytest.mark.parametrize("name", ["on_socket_disconnected", "on_socket_reconnected"])
@pytest.mark.parametrize("method", ["reconnect", "reinstantiate", "disconnect"])
def test_reconnect_and_disconnect_inside_the_callbacks_of_a_loss(
    gateway: LocalGateway, name: str, method: str
) -> None:
    once = Once(lambda shard: getattr(shard, method)())
    with make_shard(close_timeout=NEVER, **{name: once}) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        gateway.connections[0].drop()
        once.check()
        if method == "disconnect":
            shard.join(10)
        else:
            wait_until(lambda: shard.stats.connections >= 2)
            wait_until(lambda: shard.state is ShardState.READY)


@pytest.mark.parametrize("name", IN_A_CONNECTION)
def test_send_and_heartbeat_inside_each_callback(gateway: LocalGateway, name: str) -> None:
    """With a session both are sent; without one both raise NotReady at once."""
    errors: list[Exception] = []

    def send(shard: Shard) -> None:
        for action in (shard.update_presence, shard.heartbeat):
            try:
                action()
            except NotReady as error:
                errors.append(error)

    once = Once(send)
    with make_shard(close_timeout=NEVER, **{name: once}) as shard:
        provoke(gateway, shard, once)
        once.check()
        if name in ("on_socket_connected", "on_socket_raw_message"):
            assert len(errors) == 2
        elif name == "on_socket_batch":
            assert len(errors) == 1  # Hello has come, with which heartbeats begin
        else:
            assert errors == []
            assert gateway.connections[0].expect(Opcode.PRESENCE_UPDATE)["d"]["status"] == "online"
        # The connection goes on.
        shard.wait_until_ready(10)
        assert len(gateway.all_connections) == 1


def test_waiting_inside_a_callback_is_refused_at_once(gateway: LocalGateway) -> None:
    errors: list[BaseException] = []

    def wait(shard: Shard) -> None:
        for action in (lambda: shard.wait_for("USER_UPDATE"), shard.join, shard.run_forever):
            with pytest.raises(ShardError) as caught:
                action()
            errors.append(caught.value)
        shard.wait_until_ready()  # returns at once, since the shard is ready

    once = Once(wait)
    with make_shard(close_timeout=NEVER, on_socket_ready=once) as shard:
        provoke(gateway, shard, once)
        once.check()
    assert "wait_for() was called in a callback" in str(errors[0])


def test_waiting_for_ready_before_it_is_refused_in_a_callback(gateway: LocalGateway) -> None:
    """Row 34: READY cannot be handled while a callback waits for it."""
    errors: list[ShardError] = []

    def wait(shard: Shard) -> None:
        with pytest.raises(ShardError, match="wait_until_ready.. was called in a") as caught:
            shard.wait_until_ready()
        errors.append(caught.value)

    once = Once(wait)
    with make_shard(close_timeout=NEVER, on_socket_connected=once) as shard:
        shard.connect(gateway.url)
        once.check()
        shard.wait_until_ready(10)
    assert len(errors) == 1


def test_listeners_hear_every_event_and_wait_for_the_first_match(gateway: LocalGateway) -> None:
    with make_shard() as shard:
        heard: list[int] = []
        judged: list[int] = []

        def is_third(data: Any) -> bool:
            judged.append(data["number"])
            return bool(data["number"] == 3)

        shard.on("user_update")(lambda _, data: heard.append(data["number"]))
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        waiting = in_background(shard.wait_for, "USER_UPDATE", is_third, 10)
        wait_until(lambda: gateway.dispatch("USER_UPDATE", {"number": -1}) and judged)
        for number in range(5):
            gateway.dispatch("USER_UPDATE", {"number": number})
        assert waiting.result(10) == {"number": 3}
        wait_until(lambda: heard[-1:] == [4])
        assert [number for number in heard if number >= 0] == [0, 1, 2, 3, 4]
        assert judged[-1] == 3  # after its match, the predicate is not called again


def test_wait_for_raises_at_its_timeout_for_a_failing_predicate_and_at_disconnect(
    gateway: LocalGateway,
) -> None:
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        with pytest.raises(TimeoutError, match="USER_UPDATE"):
            shard.wait_for("USER_UPDATE", timeout=0.01)

        waiting = in_background(shard.wait_for, "USER_UPDATE", lambda data: data["missing"], 10)
        wait_until(lambda: gateway.dispatch("USER_UPDATE", {}) and waiting.done())
        assert isinstance(waiting.exception(), KeyError)
        judged = threading.Event()
        waiting = in_background(shard.wait_for, "USER_UPDATE", lambda data: judged.set(), 10)
        wait_until(lambda: gateway.dispatch("USER_UPDATE", {}) and judged.is_set())
        shard.disconnect()
        assert isinstance(waiting.exception(10), ShardClosed)
    with pytest.raises(ShardClosed):
        shard.wait_for("USER_UPDATE", timeout=10)


def test_a_slow_callback_is_named_once_and_keeps_its_connection(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """During a callback of more than an interval, heartbeats are sent and no verdict is reached."""
    gateway.heartbeat_interval = 1500
    release = threading.Event()

    def dawdle(_: Shard) -> None:
        release.wait(20)

    with make_shard(on_socket_ready=dawdle) as shard:
        shard.connect(gateway.url)
        connection = gateway.wait_for_connection()
        # It is told once an acknowledgement is overdue.
        wait_until(lambda: "dawdle has been running for" in caplog.text)
        shard.heartbeat_in(100)
        for _ in ("inside the callback", "after it"):
            await_heartbeats(connection, 3)
            release.set()
            wait_until(lambda: shard.heartbeat_acknowledged)
        # On a busy machine pytest's own log handler may be slow, too.
        (warning,) = [text for text in caplog.messages if "dawdle has been running for" in text]
        assert "release.wait(20)" in warning or not HAS_GIL
        assert len(gateway.all_connections) == 1


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt()], ids=lambda error: type(error).__name__
)
def test_system_exit_and_ctrl_c_in_a_callback_are_raised_in_join(
    gateway: LocalGateway, error: BaseException
) -> None:
    recorder = Recorder()

    def leave(_: Shard) -> None:
        raise error

    shard = make_shard(recorder, on_socket_ready=leave)
    shard.connect(gateway.url)
    with pytest.raises(type(error)):
        shard.join(10)
    assert recorder.of("closed") == [("closed", error)]
    assert gateway.all_connections[0].wait_closed() == 4000


def test_keyboard_interrupt_in_a_callback_is_raised_from_run_forever(gateway: LocalGateway) -> None:
    """A callback may raise KeyboardInterrupt itself to end the program."""

    def leave(_: Shard) -> None:
        raise KeyboardInterrupt("mine")

    with pytest.raises(KeyboardInterrupt, match="mine"):
        make_shard(on_socket_ready=leave).run_forever(gateway.url)


def test_no_lock_is_held_while_a_callback_runs(gateway: LocalGateway) -> None:
    """Another thread uses the shard while a callback runs."""

    def use(shard: Shard) -> None:
        def work() -> tuple[Any, ...]:
            shard.update_presence(status="idle")
            return shard.state, shard.stats.messages, shard.session

        in_background(work).result(10)

    once = Once(use)
    with make_shard(close_timeout=NEVER, on_socket_ready=once) as shard:
        provoke(gateway, shard, once)
        once.check()


def test_connect_returns_though_a_callback_begins_another_life(
    gateway: LocalGateway,
) -> None:
    """A new life must not reset the count of connections that connect() looks at."""

    def begin_anew_once(shard: Shard) -> None:
        if shard.stats.connections == 1:
            shard.disconnect()
            shard.connect(gateway.url)

    for _ in range(20):
        with make_shard(on_socket_connected=begin_anew_once) as shard:
            shard.connect(gateway.url)
            wait_until(lambda: shard.stats.connections == 2)
            shard.wait_until_ready(10)


def test_sys_exit_in_on_socket_closed_is_raised_in_join(gateway: LocalGateway) -> None:
    def leave(_: Shard, error: object) -> None:
        raise SystemExit(3)

    shard = make_shard(on_socket_closed=leave)
    shard.connect(gateway.url)
    threading.Thread(target=shard.disconnect).start()
    with pytest.raises(SystemExit):
        shard.join(10)
