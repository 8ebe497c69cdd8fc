"""Fixtures that make gateways and shards, and check each shard when its test is over."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import Shard
from shardlib.testing import LocalGateway
from tests import shards
from tests.peers import Script, ScriptedGateway, well_behaved
from tests.recorder import Recorder
from tests.reliability.support import CriticalRecords, StuckCallback

MakeGateway = Callable[..., LocalGateway]
MakeScripted = Callable[..., ScriptedGateway]
WatchShard = Callable[..., tuple[Shard, Recorder]]


@pytest.fixture
def make_gateway() -> Iterator[MakeGateway]:
    """Start small local gateways that set no limits; stop them when the test ends."""
    gateways: list[LocalGateway] = []

    def make(**options: Any) -> LocalGateway:
        defaults: dict[str, Any] = {
            "members": 1,
            "heartbeat_interval": 10_000,
            "session_start_limit": 1_000_000,
            "send_limit": None,
            "close_timeout": 0.5,
        }
        gateway = shards.make_gateway(**{**defaults, **options})
        gateways.append(gateway)
        return gateway.start()

    yield make
    for gateway in gateways:
        gateway.stop()


@pytest.fixture
def gateway(make_gateway: MakeGateway) -> LocalGateway:
    return make_gateway()


@pytest.fixture
def make_scripted() -> Iterator[MakeScripted]:
    """Start gateways that follow a script; stop them when the test ends."""
    with contextlib.ExitStack() as gateways:

        def make(script: Script = well_behaved, **options: Any) -> ScriptedGateway:
            return gateways.enter_context(ScriptedGateway(script, **options))

        yield make


@pytest.fixture
def watch_shard(make_gateway: MakeGateway, make_scripted: MakeScripted) -> Iterator[WatchShard]:
    """Make shards, each with a recorder, connected and READY unless told otherwise.

    When the test ends, the fixture disconnects each shard and checks the order of its callbacks.
    """
    watched: list[tuple[Shard, Recorder]] = []

    def watch(
        gateway: LocalGateway | ScriptedGateway,
        *,
        connect: bool = True,
        ready: bool = True,
        **options: Any,
    ) -> tuple[Shard, Recorder]:
        recorder = Recorder()
        if gateway.url.startswith("wss"):
            options.setdefault("ssl_context", gateway.ssl_context)
        shard = shards.make_shard(recorder, **options)
        watched.append((shard, recorder))
        if connect:
            shard.connect(gateway.url)
            if ready:
                shard.wait_until_ready(10)
        return shard, recorder

    yield watch
    for shard, _ in watched:
        shard.disconnect()
    for _, recorder in watched:
        recorder.check_order()


@pytest.fixture
def stuck() -> Iterator[StuckCallback]:
    """A callback that does not return before the test releases it, or ends."""
    callback = StuckCallback()
    yield callback
    callback.release.set()


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads switch as often as possible, so that races which can happen do happen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def no_critical_record() -> Iterator[None]:
    """Fail a test in which a shard logged a fault of its own: the shard itself survives that."""
    records: list[str] = []
    handler = CriticalRecords(records)
    logging.getLogger("shardlib").addHandler(handler)
    yield
    logging.getLogger("shardlib").removeHandler(handler)
    if records:
        pytest.fail("\n".join(records), pytrace=False)
