"""A local gateway for many shards, a manager that waits no longer than a test can, and helpers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardlib import GatewayBot, IdentifyGate, Intents, ShardManager
from shardlib.backoff import Backoff
from shardlib.testing import LocalGateway
from tests.recorder import Recorder
from tests.support import TOKEN, wait_until


def make_gateway(shards: int = 4, **options: Any) -> LocalGateway:
    """A gateway, not started, with a guild for each shard, at which all may identify at once."""
    arguments = {
        "token": TOKEN,
        "guilds": shards,
        "shards": shards,
        "max_concurrency": 2,
        "identify_interval": 0,
        **options,
    }
    return LocalGateway(**arguments)


def make_gate(gateway: LocalGateway, slack: float = 0.0) -> IdentifyGate:
    """A gate that keeps the gateway's rules."""
    interval = gateway.identify_interval or 0.001
    return IdentifyGate(gateway.max_concurrency, interval, slack=slack)


def gateway_bot(gateway: LocalGateway, **changes: Any) -> GatewayBot:
    """What the gateway recommends, in no time."""
    limit = 1000
    answer = GatewayBot(
        gateway.url, gateway.shards, limit, limit, 0.0, max_concurrency=gateway.max_concurrency
    )
    return answer._replace(**changes)


def make_manager(
    gateway: LocalGateway, recorder: Recorder | None = None, /, **options: Any
) -> ShardManager:
    """A manager, not connected, whose shards may identify one after the other at once.

    :param recorder: what the callbacks of all shards go to, unless the options name others.
    """
    callbacks = recorder.callbacks() if recorder else {}
    arguments = {
        "token": gateway.token,
        "intents": Intents.all(),
        "gateway_bot": gateway_bot(gateway),
        "identify_gate": make_gate(gateway),
        **callbacks,
        **options,
    }
    return ShardManager(**arguments)


def connect(manager: ShardManager) -> ShardManager:
    """Connect a manager, and return it once all its shards are READY."""
    manager.connect()
    manager.wait_until_ready(20)
    return manager


def make_retries_quick(monkeypatch: Any) -> None:
    """Have shards that cannot connect try again at once; a manager takes no `backoff`."""
    monkeypatch.setattr(Backoff.__init__, "__defaults__", (0.01, 0.05))


def close_shard(gateway: LocalGateway, shard_id: int, code: int) -> None:
    """Have the gateway close the connection of one shard."""
    for connection in gateway.connections:
        if connection.session is not None and connection.session.shard[0] == shard_id:
            connection.close(code, "for a test")


def identified(gateway: LocalGateway) -> list[int]:
    """The shards whose Identifies came, in that order."""
    return [each.shard_id for each in gateway.identifies]


def opcodes(gateway: LocalGateway, opcode: int) -> int:
    """How many payloads with an opcode the gateway has received."""
    return sum(
        payload["op"] == opcode
        for connection in gateway.all_connections
        for payload in connection.received
    )


def guilds_of(gateway: LocalGateway, shard_id: int, shard_count: int) -> list[str]:
    """The ids of the guilds that belong to a shard."""
    return [
        guild_id
        for guild_id in gateway.world.guilds
        if (int(guild_id) >> 22) % shard_count == shard_id
    ]


def wait_for_state(manager: ShardManager, condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds; the failure shows the manager."""
    wait_until(condition, 20, f"{what}: {manager!r}")


def what_is_late(manager: ShardManager) -> str:
    """What a wait that runs out says of the shards that are not ready; "" if all are."""
    try:
        manager.wait_until_ready(0.01)
    except TimeoutError as error:
        return str(error)
    return ""
