"""A fault of the library, or of the system: it costs a connection at most.

Memory may be short, or the library may have a fault. So a trace function raises an exception at
each call that the reader and the heartbeat make in a life with a bit of everything.
``SHARDLIB_FAULTS=all pytest -m ""`` tries every call; otherwise each run draws some.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import shardlib
from shardlib import ConnectionFailed, Shard, ShardState
from shardlib.testing import LocalGateway
from tests import shards
from tests.recorder import Recorder, dispatch_numbers
from tests.reliability.conftest import MakeGateway, WatchShard
from tests.support import wait_until

ROOT = str(Path(shardlib.__file__).parent)
NOT_THE_CORE = (f"{ROOT}{os.sep}testing", f"{ROOT}{os.sep}cli")

# An exception raised in these comes before the first line that could catch it, as if there were no
# memory for the thread to begin with.
BEGINNINGS = {"_run", "_connection_loop", "_report", "_stand_in"}

# After an exception in these, a callback may or may not have been called.
NOTIFYING = (
    "Callbacks.notify",
    "Reader._notify_disconnected",
    "Running._begin_watched",
    "Running.call",
)

ERRORS = (MemoryError, RecursionError, RuntimeError)

# What the gateway raises if the fault has just ended the connection that a test wants to use.
GONE = (ConnectionError, IndexError)

# How many calls a run draws, and for how many tests.
DRAWN = 60
PARTS = 3

Call = tuple[str, str]  # the function called, and the line that calls it


class Injector:
    """Traces the threads of a shard, and raises an exception at one of their calls.

    :param call: the call at which to raise; None to raise nowhere, and only collect the calls.
    :param error: the type of the exception.
    """

    def __init__(self, call: Call | None = None, error: type[Exception] = MemoryError) -> None:
        self.calls: dict[Call, None] = {}
        self.raised = False
        self._call = call
        self._error = error

    def __enter__(self) -> Injector:
        threading.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        threading.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(ROOT) or code.co_filename.startswith(NOT_THE_CORE):
            return None
        if not threading.current_thread().name.startswith("shard-"):
            sys.settrace(None)
            return None
        caller = frame.f_back
        name = getattr(code, "co_qualname", f"{Path(code.co_filename).stem}.{code.co_name}")
        if caller is None or code.co_name in BEGINNINGS:
            return None
        if code.co_flags & inspect.CO_GENERATOR:  # to close one looks like a call
            return None
        call = (name, f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno}")
        self.calls[call] = None
        if call == self._call and not self.raised:
            self.raised = True
            raise self._error("injected")
        return None


def live(shard: Shard, gateway: LocalGateway) -> None:
    """Have a shard live a bit of everything, as far as the fault allows."""
    try:
        shard.connect(gateway.url)
    except (ConnectionFailed, *ERRORS):  # connect() raises a fault of the first attempt
        shard.connect(gateway.url)
    shard.wait_until_ready(20)
    dispatch_numbers(gateway, range(3))
    wait_until(lambda: shard.latency.last is not None, 20)
    with contextlib.suppress(*GONE):
        gateway.connections[-1].request_heartbeat()
    for end in ("reconnect", "reset"):
        wait_until(lambda: shard.state is ShardState.READY, 20)
        connections = shard.stats.connections
        with contextlib.suppress(*GONE):
            getattr(gateway.connections[-1], end)()
        wait_until(lambda: shard.stats.connections > connections, 20)
    shard.wait_until_ready(20)
    dispatch_numbers(gateway, range(3, 5))


@pytest.fixture
def gateway(make_gateway: MakeGateway) -> LocalGateway:
    return make_gateway(heartbeat_interval=50, heartbeat_tolerance=60)


def add_callbacks(shard: Shard) -> None:
    shard.on("TYPING_START", lambda shard, data: None)
    shard.on_socket_raw_message = lambda shard, payload: None


def _collect() -> list[Call]:
    """Return the calls of a life without a fault."""
    with shards.make_gateway(
        members=1, send_limit=None, heartbeat_interval=50, heartbeat_tolerance=60
    ) as gateway:
        shard = shards.make_shard(Recorder())
        add_callbacks(shard)
        with Injector() as injector:
            live(shard, gateway)
            shard.disconnect()
    return sorted(injector.calls)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "part" in metafunc.fixturenames:
        metafunc.parametrize("part", range(1 if os.environ.get("SHARDLIB_FAULTS") else PARTS))


@pytest.fixture
def calls() -> Iterator[list[Call]]:
    collected = _collect()
    assert len(collected) > 100
    yield collected


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_an_exception_at_any_call_costs_a_connection_at_most(
    part: int, calls: list[Call], gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    if not os.environ.get("SHARDLIB_FAULTS"):
        calls = random.sample(calls, DRAWN // PARTS)
    for index, call in enumerate(calls):
        error = ERRORS[index % 3]
        shard, recorder = watch_shard(gateway, connect=False)
        add_callbacks(shard)
        with Injector(call, error):
            try:
                live(shard, gateway)
            except (AssertionError, TimeoutError, shardlib.ShardError) as failure:
                raise AssertionError(f"{error.__name__} at {call}: {failure}") from failure
            shard.disconnect()
        assert shard.socket_thread is None, call
        if call[0] in NOTIFYING:
            recorder.calls.clear()
        else:
            assert recorder.count("closed") == 1, call
            assert recorder.count("connected") == recorder.count("disconnected"), call
