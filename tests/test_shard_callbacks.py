"""What a callback may do: call every method of the shard, raise, take long, leave the program."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import NotReady, Opcode, Shard, ShardClosed, ShardError, ShardState
from shardlib.testing import LocalGateway
from tests.recorder import Recorder
from tests.shards import make_gateway, make_shard
from tests.support import HAS_GIL, wait_until

# Each of them comes in a first connection that beats, gets an event and an unreadable message.
IN_A_CONNECTION = (
    "on_socket_connected",
    "on_socket_raw_message",
    "on_socket_ready",
    "on_socket_dispatch",
    "on_socket_heartbeat",
    "on_socket_error",
)


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway(heartbeat_interval=300) as gateway:
        yield gateway


class Once:
    """A callback that does something the first time it is called, and notes what came of it."""

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
        wait_until(lambda: self.seconds is not None, what="the callback")
        assert self.error is None
        assert self.seconds is not None and self.seconds < 1


def provoke(gateway: LocalGateway, shard: Shard, once: Once) -> None:
    """Connect, and let every callback of a connection come."""
    shard.connect(gateway.url)
    connection = gateway.wait_for_connection()
    try:
        session = connection.wait_until_ready()
        session.dispatch("USER_UPDATE", {})
        connection.send_compressed("not JSON")
    except OSError:
        pass  # the callback has ended it already


@pytest.mark.parametrize("name", IN_A_CONNECTION)
@pytest.mark.parametrize("code", [None, 4000])
def test_disconnect_inside_each_callback(gateway: LocalGateway, name: str, code: Any) -> None:
    recorder = Recorder()
    once = Once(lambda shard: shard.disconnect(code))
    shard = make_shard(recorder, **{name: once})
    provoke(gateway, shard, once)
    once.check()
    shard.join(10)
    assert shard.state is ShardState.CLOSED
    assert gateway.all_connections[0].wait_closed() == (code or 1000)
    assert recorder.of("closed") == [("closed", None)]
    assert len(gateway.all_connections) == 1


@pytest.mark.parametrize("name", IN_A_CONNECTION)
def test_disconnect_and_connect_inside_each_callback(gateway: LocalGateway, name: str) -> None:
    def again(shard: Shard) -> None:
        shard.disconnect()
        shard.connect(gateway.url)

    once = Once(again)
    with make_shard(**{name: once}) as shard:
        provoke(gateway, shard, once)
        once.check()
        wait_until(lambda: len(gateway.all_connections) == 2)
        shard.wait_until_ready(10)
        assert gateway.all_connections[0].wait_closed() == 1000
        assert shard.socket_thread is not None


def test_connect_inside_on_socket_closed_begins_anew(gateway: LocalGateway) -> None:
    once = Once(lambda shard: shard.connect(gateway.url))
    shard = make_shard(on_socket_closed=once)
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
def test_a_new_connection_asked_for_inside_each_callback(
    gateway: LocalGateway, name: str, method: str
) -> None:
    """One comes, at most: where one is being made already, there is nothing to do."""
    once = Once(lambda shard: getattr(shard, method)())
    with make_shard(**{name: once}) as shard:
        provoke(gateway, shard, once)
        once.check()
        wait_until(lambda: shard.state is ShardState.READY)
        wait_until(lambda: gateway.connections and gateway.connections[-1].session is not None)
        assert len(gateway.all_connections) <= 2
        assert gateway.all_connections[0].close_code in (None, 4000)


@pytest.mark.parametrize("name", ["on_socket_disconnected", "on_socket_reconnected"])
@pytest.mark.parametrize("method", ["reconnect", "reinstantiate", "disconnect"])
def test_methods_inside_the_callbacks_of_a_loss(
    gateway: LocalGateway, name: str, method: str
) -> None:
    once = Once(lambda shard: getattr(shard, method)())
    with make_shard(**{name: once}) as shard:
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
    """They work where there is a session to send on, and say so at once where there is none."""
    errors: list[Exception] = []

    def send(shard: Shard) -> None:
        for action in (shard.update_presence, shard.heartbeat):
            try:
                action()
            except NotReady as error:
                errors.append(error)

    once = Once(send)
    with make_shard(**{name: once}) as shard:
        provoke(gateway, shard, once)
        once.check()
        if name in ("on_socket_connected", "on_socket_raw_message"):
            assert len(errors) == 2
        else:
            assert errors == []
            assert gateway.connections[0].expect(Opcode.PRESENCE_UPDATE)["d"]["status"] == "online"
        # The connection has not suffered.
        shard.wait_until_ready(10)
        assert len(gateway.all_connections) == 1


def test_waiting_inside_a_callback_is_refused_at_once(gateway: LocalGateway) -> None:
    errors: list[BaseException] = []

    def wait(shard: Shard) -> None:
        for action in (lambda: shard.wait_for("USER_UPDATE"), shard.join, shard.run_forever):
            with pytest.raises(ShardError) as caught:
                action()
            errors.append(caught.value)
        shard.wait_until_ready()  # it is: nothing to wait for

    once = Once(wait)
    with make_shard(on_socket_ready=once) as shard:
        provoke(gateway, shard, once)
        once.check()
    assert "wait_for() was called in a callback" in str(errors[0])


def test_waiting_for_ready_before_it_is_refused_in_a_callback(gateway: LocalGateway) -> None:
    """Row 34: READY can't come while the callback waits for it; afterwards it does."""
    errors: list[ShardError] = []

    def wait(shard: Shard) -> None:
        with pytest.raises(ShardError, match="wait_until_ready.. was called in a") as caught:
            shard.wait_until_ready()
        errors.append(caught.value)

    once = Once(wait)
    with make_shard(on_socket_connected=once) as shard:
        shard.connect(gateway.url)
        once.check()
        shard.wait_until_ready(10)
    assert len(errors) == 1


def test_listeners_and_wait_for(gateway: LocalGateway) -> None:
    with make_shard() as shard:
        heard: list[int] = []
        judged: list[int] = []

        def is_third(data: Any) -> bool:
            judged.append(data["number"])
            return bool(data["number"] == 3)

        shard.on("user_update")(lambda _, data: heard.append(data["number"]))
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        found: list[Any] = []
        waiting = threading.Thread(
            target=lambda: found.append(shard.wait_for("USER_UPDATE", is_third, timeout=10))
        )
        waiting.start()
        wait_until(lambda: gateway.dispatch("USER_UPDATE", {"number": -1}) and judged)
        for number in range(5):
            gateway.dispatch("USER_UPDATE", {"number": number})
        waiting.join(10)
        assert found == [{"number": 3}]
        wait_until(lambda: heard[-1:] == [4])
        assert [number for number in heard if number >= 0] == [0, 1, 2, 3, 4]
        assert judged[-1] == 3  # then it was heard no more


def test_wait_for_ends_with_its_time_its_predicate_and_the_shard(gateway: LocalGateway) -> None:
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        with pytest.raises(TimeoutError, match="USER_UPDATE"):
            shard.wait_for("USER_UPDATE", timeout=0.01)

        errors: list[BaseException] = []
        judged = threading.Event()

        def wait(predicate: Callable[[Any], object]) -> None:
            try:
                shard.wait_for("USER_UPDATE", predicate, timeout=10)
            except BaseException as error:
                errors.append(error)

        waiting = threading.Thread(target=wait, args=(lambda data: data["missing"],))
        waiting.start()
        wait_until(lambda: gateway.dispatch("USER_UPDATE", {}) and not waiting.is_alive())
        assert isinstance(errors[0], KeyError)
        waiting = threading.Thread(target=wait, args=(lambda data: judged.set(),))
        waiting.start()
        wait_until(lambda: gateway.dispatch("USER_UPDATE", {}) and judged.is_set())
        shard.disconnect()
        waiting.join(10)
        assert isinstance(errors[1], ShardClosed)
    with pytest.raises(ShardClosed):
        shard.wait_for("USER_UPDATE", timeout=10)


def test_a_slow_callback_is_named_and_its_connection_lives(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Three intervals inside a callback: beats go on, one warning, no reconnect."""
    release = threading.Event()

    def dawdle(_: Shard) -> None:
        release.wait(10)

    with make_shard(on_socket_ready=dawdle) as shard:
        shard.connect(gateway.url)
        connection = gateway.wait_for_connection()
        wait_until(lambda: [payload["op"] for payload in connection.received].count(1) >= 5)
        release.set()
        wait_until(lambda: shard.heartbeat_acknowledged)
        shard.wait_until_ready(10)
        beats = [payload["op"] for payload in connection.received].count(1)
        wait_until(lambda: [payload["op"] for payload in connection.received].count(1) >= beats + 3)
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1, warnings
        assert "dawdle" in warnings[0].getMessage()
        assert "release.wait(10)" in warnings[0].getMessage() or not HAS_GIL
        assert len(gateway.all_connections) == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_means_to_end_the_program_ends_the_shard_and_is_raised_in_join(
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


def test_ctrl_c_as_a_callback_meets_it_comes_out_of_run_forever(gateway: LocalGateway) -> None:
    """Nobody has pressed it: it is a function's own way to end the program."""

    def leave(_: Shard) -> None:
        raise KeyboardInterrupt("mine")

    with pytest.raises(KeyboardInterrupt, match="mine"):
        make_shard(on_socket_ready=leave).run_forever(gateway.url)


def test_no_lock_is_held_while_a_callback_runs(gateway: LocalGateway) -> None:
    """Another thread uses the shard freely while a callback is inside of it."""
    results: list[Any] = []

    def use(shard: Shard) -> None:
        def work() -> None:
            results.extend([shard.state, shard.stats.messages, shard.session])
            shard.update_presence(status="idle")
            results.append("sent")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(5)

    once = Once(use)
    with make_shard(on_socket_ready=once) as shard:
        provoke(gateway, shard, once)
        once.check()
        assert results[-1] == "sent"


def test_who_waits_for_a_connection_sees_it_though_a_callback_begins_anew(
    gateway: LocalGateway,
) -> None:
    """connect() raised, now and then, by a count that a new life had set back to 0."""

    def again(shard: Shard) -> None:
        if shard.stats.connections == 1:
            shard.disconnect()
            shard.connect(gateway.url)

    for _ in range(20):
        with make_shard(on_socket_connected=again) as shard:
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
