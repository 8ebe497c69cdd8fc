"""The warning about a slow function of the user's: it names the function as the user knows it."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

import pytest

from shardlib.testing import LocalGateway
from tests.shards import make_gateway, make_shard
from tests.support import HAS_GIL, in_background, wait_until


class Slow:
    """Something slow: the first wait() returns once the log has warned of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.warnings: list[str] = []
        self._called = threading.Event()

    def wait(self) -> None:
        if not self._called.is_set():
            self._called.set()
            wait_until(self._look, what="the warning")

    def _look(self) -> bool:
        lines = [each.getMessage() for each in list(self._caplog.records)]
        self.warnings = [line for line in lines if "has been running for" in line]
        return bool(self.warnings)


@pytest.fixture
def slow(caplog: pytest.LogCaptureFixture) -> Slow:
    return Slow(caplog)


def quick_gateway() -> LocalGateway:
    return make_gateway(heartbeat_interval=50, heartbeat_tolerance=30)


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

    logger = logging.Logger("slow")
    logger.addHandler(slow._caplog.handler)
    logger.addHandler(Handler())
    with quick_gateway() as gateway, make_shard(logger=logger) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(20)
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
