"""A local gateway and a shard that wait no longer than a test can, and what they have sent."""

from __future__ import annotations

from typing import Any

from shardlib import Backoff, IdentifyGate, Intents, Opcode, Shard
from shardlib.testing import GatewayConnection, LocalGateway, ReceivedPayload
from tests.recorder import Recorder
from tests.support import TOKEN, wait_until


def make_gateway(**options: Any) -> LocalGateway:
    """A gateway, not started, with one guild, at which every client may identify at once."""
    return LocalGateway(**{"token": TOKEN, "guilds": 1, "identify_interval": 0, **options})


def fast_options(**options: Any) -> dict[str, Any]:
    """The options of a shard that identifies and connects again at once."""
    return {
        "identify_gate": IdentifyGate(interval=0.001, slack=0),
        "backoff": Backoff(base=0.01, cap=0.05),
        **options,
    }


def make_shard(recorder: Recorder | None = None, /, **options: Any) -> Shard:
    """A shard, not connected, whose callbacks go to the recorder unless the options name others."""
    callbacks = recorder.callbacks() if recorder else {}
    arguments = {"token": TOKEN, "intents": Intents.all(), **callbacks, **options}
    return Shard(**fast_options(**arguments))


def heartbeats(connection: GatewayConnection) -> list[ReceivedPayload]:
    """The heartbeats that a connection of the gateway has received."""
    return [payload for payload in connection.received if payload["op"] == Opcode.HEARTBEAT]


def await_heartbeats(connection: GatewayConnection, count: int) -> None:
    """Wait until a gateway has received so many more heartbeats."""
    beats = len(heartbeats(connection))
    wait_until(lambda: len(heartbeats(connection)) >= beats + count)
