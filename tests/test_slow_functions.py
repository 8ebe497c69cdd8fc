"""The warning about a slow function of the user's: when it comes, and how it names the function."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardlib import Shard
from shardlib.testing import LocalGateway
from tests.shards import await_heartbeats, make_gateway, make_shard
from tests.support import HAS_GIL, in_background, not_none, wait_until


class Slow:
    """Something slow: the first wait() returns once the log has warned of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.warnings: list[str] = []
        self.is_handler = False
        self._called = threading.Event()

    def wait(self) -> None:
        if not self._called.is_set():
            self._called.set()
            wait_until(self._look, what="the warning")

    def _look(self) -> bool:
        lines = [each.getMessage() for each in list(self._caplog.records)]
        self.warnings = [line for line in lines if "has been running for" in line]
        if not self.is_handler:  # on a busy machine pytest's own log handler may be slow, too
            self.warnings = [line for line in self.warnings if not line.startswith("a handler")]
        return bool(self.warnings)


@pytest.fixture
def slow(caplog: pytest.LogCaptureFixture) -> Slow:
    return Slow(caplog)


def quick_gateway() -> LocalGateway:
    """A gateway whose heartbeats are soon unanswered, and else acknowledged in time.

    On a busy machine an acknowledgement takes its time, too.
    """
    return make_gateway(heartbeat_interval=1000, heartbeat_tolerance=30)


def test_a_slow_json_module_is_named_as_the_option_json(slow: Slow) -> None:
    class Module:
        @staticmethod
        def loads(data: Any) -> Any:
            payload = json.loads(data)
            if payload["op"] == 0:
                slow.wait()
            return payload

        dumps = staticmethod(json.dumps)

    with quick_gateway() as gateway, make_shard(json=Module) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(20)
    assert slow.warnings[0].startswith("loads() of the option json has been running for ")


def test_a_slow_identify_gate_is_named(slow: Slow) -> None:
    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            slow.wait()
            return 0.0

    with quick_gateway() as gateway, make_shard(identify_gate=Gate()) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(20)
    assert slow.warnings[0].startswith("the identify gate has been running for ")


def test_a_slow_predicate_is_named(slow: Slow) -> None:
    def predicate(data: Any) -> bool:
        slow.wait()
        return True

    with quick_gateway() as gateway, make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(20)
        waiting = in_background(shard.wait_for, "USER_UPDATE", predicate)
        wait_until(lambda: gateway.dispatch("USER_UPDATE", {}) and waiting.done())
    assert slow.warnings[0].startswith("the predicate of a wait_for() has been running for ")


def test_a_slow_log_handler_is_named(slow: Slow) -> None:
    class Handler(logging.Handler):
        # Not emit(): handle() holds the lock, for which the report of the slowness would wait.
        def handle(self, record: logging.LogRecord) -> bool:
            if record.getMessage().startswith("ready"):
                slow.wait()
            return True

    slow.is_handler = True
    logger = logging.Logger("slow")
    logger.addHandler(slow._caplog.handler)
    logger.addHandler(Handler())
    with quick_gateway() as gateway, make_shard(logger=logger) as shard:
        shard.connect(gateway.url)
        wait_until(lambda: slow.warnings)
    assert slow.warnings[0].startswith("a handler of the logger has been running for ")


def test_a_slow_callback_is_named_by_its_qualified_name(slow: Slow) -> None:
    def greet(shard: Any) -> None:
        slow.wait()

    with quick_gateway() as gateway, make_shard(on_socket_ready=greet) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(20)
        wait_until(lambda: slow.warnings)
    assert ".greet has been running for " in slow.warnings[0]
    assert slow.warnings[0].startswith("the callback ")


def test_a_callback_that_waits_in_a_log_handler_is_shown_with_its_own_line(slow: Slow) -> None:
    class Handler(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            if record.getMessage().startswith("sent") and "update" in record.getMessage():
                slow.wait()
            return True

    logger = logging.Logger("slow", logging.DEBUG)
    logger.addHandler(slow._caplog.handler)
    logger.addHandler(Handler())

    def greet(shard: Any) -> None:
        shard.update_presence(activities=[{"name": "update", "type": 0}])

    with quick_gateway() as gateway, make_shard(logger=logger, on_socket_ready=greet) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(20)
        wait_until(lambda: slow.warnings)
    assert "shard.update_presence(" in slow.warnings[0] or not HAS_GIL


# After slow_callback seconds: the gateways below want a heartbeat once in 41 seconds, unless a test
# says otherwise.


class Stuck:
    """A callback that returns when it is released, and what the log tells of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.entered = threading.Event()
        self.release = threading.Event()

    def __call__(self, *_: Any) -> bool:
        self.entered.set()
        self.release.wait(20)
        return True

    @property
    def told(self) -> list[str]:
        return self._lines("has been running for")

    @property
    def told_of_its_end(self) -> list[str]:
        return self._lines("has returned after")

    def _lines(self, words: str) -> list[str]:
        lines = [each.getMessage() for each in list(self._caplog.records)]
        # On a busy machine pytest's own log handler may be slow, too, and the identify gate.
        others = ("a handler", "the identify gate")
        return [line for line in lines if words in line and not line.startswith(others)]


@pytest.fixture
def stuck(caplog: pytest.LogCaptureFixture) -> Iterator[Stuck]:
    caplog.set_level(logging.INFO)
    stuck = Stuck(caplog)
    yield stuck
    stuck.release.set()


def connect(gateway: LocalGateway, shard: Shard) -> None:
    shard.connect(gateway.url)
    shard.wait_until_ready(20)


def test_a_stuck_listener_is_told_once_with_its_event_its_line_and_its_end(stuck: Stuck) -> None:
    def listen(shard: Any, data: Any) -> None:
        stuck()

    with make_gateway() as gateway, make_shard(slow_callback=0.5) as shard:
        connect(gateway, shard)
        shard.on("USER_UPDATE", listen)
        gateway.dispatch("USER_UPDATE", {})
        wait_until(lambda: stuck.told)
        stuck.release.set()
        wait_until(lambda: stuck.told_of_its_end)
    (line,) = stuck.told
    assert ".listen has been running for 0." in line
    assert " on USER_UPDATE, and no event can be received meanwhile" in line
    assert not HAS_GIL or "stuck()" in line.split("It is here:")[1]
    assert not HAS_GIL or "shardlib" not in line.split("It is here:")[1].split("stuck()")[0]
    (line,) = stuck.told_of_its_end
    assert ".listen has returned after " in line and line.endswith(" on USER_UPDATE")


def test_it_is_told_once_while_heartbeats_go_on_unanswered(stuck: Stuck) -> None:
    with (
        quick_gateway() as gateway,
        make_shard(slow_callback=0.2, on_socket_ready=stuck) as shard,
    ):
        shard.connect(gateway.url)
        assert stuck.entered.wait(20)
        connection = gateway.connections[-1]
        wait_until(lambda: stuck.told)
        wait_until(lambda: not shard.heartbeat_acknowledged)
        shard.heartbeat_in(50)
        await_heartbeats(connection, 30)  # more than the interval
        assert len(stuck.told) == 1
        assert len(gateway.all_connections) == 1
        stuck.release.set()
        shard.wait_until_ready(20)
    assert " as on_socket_ready, " in stuck.told[0]


@pytest.mark.parametrize(
    "name", ["on_socket_connected", "on_socket_disconnected", "on_socket_closed"]
)
def test_a_callback_that_is_stuck_while_no_heartbeat_thread_lives_is_told(
    name: str, stuck: Stuck
) -> None:
    # The time counts from before a thread is started, which takes its time on a busy machine.
    shard = make_shard(slow_callback=1.0, **{name: stuck})
    with make_gateway() as gateway:
        starting = in_background(shard.connect, gateway.url)
        if name != "on_socket_connected":
            starting.result(20)
            shard.wait_until_ready(20)
            gateway.connections[-1].close(4004 if name == "on_socket_closed" else 4000)
        wait_until(lambda: stuck.told)
        assert shard.heartbeat_thread is None
        stuck.release.set()
        shard.disconnect()
    (line,) = stuck.told
    assert f" as {name}, and no event can be received meanwhile" in line
    assert not HAS_GIL or "self.release.wait(20)" in line


def test_a_stuck_predicate_is_told_with_its_event(stuck: Stuck) -> None:
    with make_gateway() as gateway, make_shard(slow_callback=0.5) as shard:
        connect(gateway, shard)
        waiting = in_background(shard.wait_for, "USER_UPDATE", stuck)
        wait_until(lambda: gateway.dispatch("USER_UPDATE", {}) and stuck.told)
        stuck.release.set()
        waiting.result(20)
    assert " on USER_UPDATE, " in stuck.told[0]


def test_without_slow_callback_a_stuck_callback_is_told_at_an_unanswered_heartbeat_only(
    stuck: Stuck,
) -> None:
    with make_gateway() as gateway, make_shard(slow_callback=None) as shard:
        connect(gateway, shard)
        shard.on("USER_UPDATE", stuck)
        gateway.dispatch("USER_UPDATE", {})
        assert stuck.entered.wait(20)
        shard.heartbeat_in(500)
        wait_until(lambda: stuck.told)
        stuck.release.set()
    # Not at the first heartbeat, which is due after half a second, but at the second one.
    (line,) = stuck.told
    assert float(line.split(" has been running for ")[1].split(" second")[0]) >= 1.0


def switches(thread: threading.Thread) -> int:
    """How often a thread has gone to sleep."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches")]
    return int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux counts them")
def test_an_idle_shard_wakes_no_thread_and_a_stuck_callback_is_told_after_that(
    stuck: Stuck,
) -> None:
    with make_gateway() as gateway, make_shard(slow_callback=0.02) as shard:
        connect(gateway, shard)
        thread = not_none(shard.heartbeat_thread)

        def sleeps_on() -> bool:
            before = switches(thread)
            time.sleep(0.5)  # the time in which nothing is to happen, 25 times slow_callback
            return switches(thread) == before

        wait_until(sleeps_on)
        shard.on("USER_UPDATE", stuck)
        gateway.dispatch("USER_UPDATE", {})
        wait_until(lambda: stuck.told)
        wait_until(sleeps_on)  # also while the callback is stuck: it is told once
        stuck.release.set()


def test_the_calls_are_counted_by_event_and_by_callback() -> None:
    def listen(shard: Any, data: Any) -> None:
        end = time.perf_counter() + data["seconds"]
        while time.perf_counter() < end:
            pass

    def fail(shard: Any, payload: Any) -> None:
        if payload["t"] == "USER_UPDATE":
            raise ValueError

    with make_gateway() as gateway, make_shard(on_socket_dispatch=fail) as shard:
        connect(gateway, shard)
        shard.on("USER_UPDATE", listen)
        waiting = in_background(shard.wait_for, "USER_UPDATE", lambda data: data["seconds"] == 0.03)
        wait_until(lambda: shard._callbacks._subscribers)
        for seconds in (0.01, 0.03):
            gateway.dispatch("USER_UPDATE", {"seconds": seconds})
        waiting.result(20)
        stats = shard.stats
    calls = stats.callbacks["USER_UPDATE"]
    assert calls.count == 2
    assert 0.03 <= calls.longest <= calls.total - 0.01
    assert stats.callbacks["the predicate of a wait_for()"].count == 2
    # READY and the guild, too; the ones that failed included.
    assert stats.callbacks["on_socket_dispatch"].count == sum(stats.events.values())
    total = sum(each.total for each in stats.callbacks.values())
    assert total == pytest.approx(stats.callback_seconds)
