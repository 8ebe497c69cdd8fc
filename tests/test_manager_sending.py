"""What a manager sends: to the shard that has the guild, or to all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shardlib import NotReady, Opcode, ShardError, ShardManager, ShardState
from shardlib.testing import LocalGateway
from tests.managers import connect, guilds_of, make_gateway, make_manager
from tests.support import in_background, wait_until

METHODS: dict[str, tuple[dict[str, Any], int]] = {
    "request_guild_members": ({"query": ""}, Opcode.REQUEST_GUILD_MEMBERS),
    "update_voice_state": ({"channel_id": 2}, Opcode.VOICE_STATE_UPDATE),
    "request_channel_info": ({}, Opcode.REQUEST_CHANNEL_INFO),
}


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway(guilds=8) as gateway:
        yield gateway


@pytest.fixture
def manager(gateway: LocalGateway) -> Iterator[ShardManager]:
    with make_manager(gateway) as manager:
        yield connect(manager)


def received(gateway: LocalGateway, opcode: int) -> list[tuple[int, Any]]:
    """The payloads with an opcode, each with the shard that sent it."""
    return [
        (connection.session.shard[0], payload["d"])
        for connection in gateway.connections
        for payload in connection.received
        if payload["op"] == opcode and connection.session is not None
    ]


def presences(gateway: LocalGateway) -> list[str | None]:
    """The status of each shard, as the gateway knows it."""
    sessions = sorted(gateway.sessions, key=lambda each: each.shard)
    return [each.presence["status"] if each.presence else None for each in sessions]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", [int, str])
def test_what_is_asked_about_a_guild_goes_to_its_shard(
    gateway: LocalGateway, manager: ShardManager, name: str, kind: Any
) -> None:
    options, opcode = METHODS[name]
    for shard_id in range(4):
        for guild_id in guilds_of(gateway, shard_id, 4):
            getattr(manager, name)(kind(guild_id), **options)
    wait_until(lambda: len(received(gateway, opcode)) == 8)
    for shard_id, data in received(gateway, opcode):
        assert data.get("guild_id", data.get("guild_ids")) in guilds_of(gateway, shard_id, 4)


def test_what_is_fetched_about_a_guild_comes_through_its_shard(
    gateway: LocalGateway, manager: ShardManager
) -> None:
    for shard_id in range(4):
        (guild_id, _) = guilds_of(gateway, shard_id, 4)
        members = manager.fetch_guild_members(guild_id, query="", timeout=10)
        assert len(members) == len(gateway.world.guilds[guild_id].members)
        manager.fetch_channel_info(guild_id, timeout=10)
    assert {shard_id for shard_id, _ in received(gateway, Opcode.REQUEST_GUILD_MEMBERS)} == {
        *range(4)
    }


def test_a_guild_is_known_by_its_snowflakes_time(manager: ShardManager) -> None:
    """https://docs.discord.com/developers/events/gateway#sharding-sharding-formula"""
    for guild_id in (0, 1, (5 << 22) + 17, 197038439483310086, 2**64 - 1):
        shard_id = (guild_id >> 22) % 4
        assert manager.shard_for(guild_id) is manager.shards[shard_id]
        assert manager.shard_for(str(guild_id)) is manager.shards[shard_id]


@pytest.mark.parametrize(
    ("guild_id", "error"),
    [(None, TypeError), (1.5, TypeError), ("abc", ValueError), (-1, ValueError)],
)
def test_an_id_that_is_none_is_refused_by_name(
    manager: ShardManager, guild_id: Any, error: Any
) -> None:
    for name in ("shard_for", *METHODS):
        with pytest.raises(error, match="guild_id"):
            getattr(manager, name)(guild_id)


def test_before_connect_no_guild_has_a_shard(gateway: LocalGateway) -> None:
    with pytest.raises(NotReady, match=r"connect\(\) or start\(\) first"):
        make_manager(gateway).request_guild_members(1, query="")


def test_the_routed_methods_look_like_the_shards(manager: ShardManager) -> None:
    for name in METHODS:
        assert getattr(manager, name).__doc__ == getattr(manager.shards[0], name).__doc__


# Presence


def test_a_presence_is_set_for_all_shards(gateway: LocalGateway, manager: ShardManager) -> None:
    manager.update_presence(status="idle", activities=[{"name": "a game", "type": 0}])
    wait_until(lambda: presences(gateway) == ["idle"] * 4)
    assert len(received(gateway, Opcode.PRESENCE_UPDATE)) == 4


def test_shards_that_identify_later_do_so_with_the_presence(gateway: LocalGateway) -> None:
    with make_manager(gateway, presence={"status": "dnd"}) as manager:
        manager.update_presence(status="idle")
        connect(manager)
        assert presences(gateway) == ["idle"] * 4
        assert received(gateway, Opcode.PRESENCE_UPDATE) == []
        manager.close()
        connect(manager)
        assert presences(gateway) == ["idle"] * 4


def test_a_shard_that_is_identifying_is_told_once_it_is_ready(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="ready", shard_id=1)
    with make_manager(gateway) as manager:
        manager.connect()
        wait_until(lambda: {1, 2, 3} <= {each.shard_id for each in gateway.identifies})
        wait_until(lambda: "3 ready" in repr(manager))
        assert manager.shards[1].state is ShardState.IDENTIFYING
        telling = in_background(lambda: manager.update_presence(status="idle"))
        wait_until(lambda: len(received(gateway, Opcode.PRESENCE_UPDATE)) >= 1)
        for connection in gateway.connections:
            connection.proceed()
        assert telling.result(10) is None
        wait_until(lambda: presences(gateway) == ["idle"] * 4)


def test_a_presence_that_comes_while_the_gate_is_asked_is_identified_with(
    gateway: LocalGateway,
) -> None:
    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            if shard_id == 2:
                in_background(lambda: bot.update_presence(status="idle")).result(10)
            return 0.0

    bot = make_manager(gateway, identify_gate=Gate())
    with bot:
        connect(bot)
        wait_until(lambda: presences(gateway) == ["idle"] * 4)


def test_shards_that_wait_for_their_turn_are_not_waited_for(gateway: LocalGateway) -> None:
    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            return 60.0

    with make_manager(gateway, identify_gate=Gate()) as manager:
        manager.connect()
        manager.update_presence(status="idle")


def test_a_shard_that_is_away_fails_and_the_others_are_told(
    gateway: LocalGateway, manager: ShardManager
) -> None:
    gateway.inject(instead_of="replay", shard_id=0)
    for connection in gateway.connections:
        if connection.session is not None and connection.session.shard[0] == 0:
            connection.drop()
    wait_until(lambda: "3 ready" in repr(manager))
    with pytest.raises(NotReady):
        manager.update_presence(status="idle", timeout=0.05)
    wait_until(lambda: presences(gateway)[1:] == ["idle"] * 3)


def test_a_closed_shard_is_left_out(gateway: LocalGateway, manager: ShardManager) -> None:
    manager.shards[2].disconnect(4000)
    manager.update_presence(status="idle")
    wait_until(lambda: presences(gateway).count("idle") == 3)
    manager.restart([2], new_session=True)
    wait_until(lambda: presences(gateway).count("idle") == 4)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"status": "away"}, ValueError),
        ({"activities": 5}, TypeError),
        ({"since": "now"}, TypeError),
        ({"afk": 1}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
    ],
)
def test_a_presence_that_cannot_be_is_sent_to_no_shard(
    gateway: LocalGateway, manager: ShardManager, options: Any, error: Any
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        manager.update_presence(**options)
    manager.restart([0], new_session=True)
    assert set(presences(gateway)) == {None}
    assert received(gateway, Opcode.PRESENCE_UPDATE) == []


def test_a_presence_is_set_in_a_callback(gateway: LocalGateway) -> None:
    outcome: list[object] = []

    def all_ready(manager: ShardManager) -> None:
        try:
            outcome.append(manager.update_presence(status="idle"))
        except ShardError as error:
            outcome.append(error)

    with make_manager(gateway, on_all_ready=all_ready) as manager:
        connect(manager)
        wait_until(lambda: presences(gateway) == ["idle"] * 4)
    assert outcome == [None]
