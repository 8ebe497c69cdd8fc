"""A gateway and shards for each test, and what each shard is held to when the test is over."""

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
from tests.reliability.support import CriticalRecords

MakeGateway = Callable[..., LocalGateway]
MakeScripted = Callable[..., ScriptedGateway]
WatchShard = Callable[..., tuple[Shard, Recorder]]


@pytest.fixture
def make_gateway() -> Iterator[MakeGateway]:
    """Start local gateways without limits, each small; they stop with the test."""
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
    """Start gateways that follow a script; they stop with the test."""
    with contextlib.ExitStack() as gateways:

        def make(script: Script = well_behaved, **options: Any) -> ScriptedGateway:
            return gateways.enter_context(ScriptedGateway(script, **options))

        yield make


@pytest.fixture
def watch_shard(make_gateway: MakeGateway, make_scripted: MakeScripted) -> Iterator[WatchShard]:
    """Make shards, each with a recorder, connected and ready unless told otherwise.

    They close with the test, and their callbacks must have come in an order that is allowed.
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
def eager_threads() -> Iterator[None]:
    """Have threads take turns as often as can be: what may come in between does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(autouse=True)
def reader_never_fails() -> Iterator[None]:
    """A shard survives its own faults, and logs them as critical: none may be hidden by that."""
    messages: list[str] = []
    handler = CriticalRecords(messages)
    logging.getLogger("shardlib").addHandler(handler)
    yield
    logging.getLogger("shardlib").removeHandler(handler)
    if messages:
        pytest.fail("\n".join(messages), pytrace=False)
