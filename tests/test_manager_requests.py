"""What a manager asks of one of its shards, and what it does when a callback asks the manager."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import GatewayBot, IdentifyGate, Intents, ShardError, ShardManager
from shardlib.dispatch import Worker
from shardlib.testing import LocalGateway
from tests.shards import make_gateway
from tests.support import TOKEN, in_background, wait_until

PATIENCE = 60.0


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway(guilds=8) as gateway:
        yield gateway


def make_manager(gateway: LocalGateway, shard_count: int, **options: Any) -> ShardManager:
    """A manager, not connected, whose shards may identify at once."""
    return ShardManager(
        TOKEN,
        Intents.default(),
        shard_count,
        gateway_bot=GatewayBot(gateway.url, 4, 1000, 1000, 0.0, 4),
        identify_gate=IdentifyGate(4, 0.001, slack=0),
        **options,
    )


def test_members_are_fetched_through_the_shard_of_their_guild(gateway: LocalGateway) -> None:
    with make_manager(gateway, 2) as manager:
        manager.connect()
        manager.wait_until_ready(PATIENCE)
        for guild in list(gateway.world.guilds.values())[:2]:
            members = manager.fetch_guild_members(guild.id, user_ids=[guild.owner_id])
            assert [member["user"]["id"] for member in members] == [guild.owner_id]
        by_name: dict[str, Any] = {"guild_id": guild.id, "user_ids": guild.owner_id}
        fetch: Any = manager.fetch_guild_members  # type checkers know no name of the first
        assert fetch(**by_name) == members


@pytest.mark.parametrize("name", ["on_socket_ready", "on_all_ready", "on_resharding_needed"])
def test_a_callback_that_would_never_be_called_is_refused(gateway: LocalGateway, name: str) -> None:
    manager = make_manager(gateway, 2)
    with pytest.raises(AttributeError, match=rf"ShardManager\(..., {name}=...\)"):
        setattr(manager, name, print)
    with pytest.raises(AttributeError, match=name):
        type("Bot", (ShardManager,), {name: lambda self: None})
    mixin = type("Mixin", (), {name: lambda self: None})
    with pytest.raises(AttributeError, match=name):
        type("Bot", (mixin, ShardManager), {})
    type("Bot", (ShardManager,), {"on_message": lambda self, shard, message: None})


def test_resharding_to_no_shard_is_refused_at_the_call(gateway: LocalGateway) -> None:
    with make_manager(gateway, 2) as manager:
        manager.connect()
        shards = dict(manager.shards)
        with pytest.raises(ValueError, match="GatewayBot.shards must be at least 1, not 0"):
            manager.reshard(GatewayBot(gateway.url, 0, 1000, 1000, 0.0, 4))
        assert dict(manager.shards) == shards


def test_a_function_gateway_bot_that_returns_what_cannot_be_is_told_so(
    gateway: LocalGateway,
) -> None:
    def no_shards() -> GatewayBot:
        return GatewayBot(gateway.url, 0, 1000, 1000, 0.0, 4)

    manager = ShardManager(TOKEN, Intents.default(), gateway_bot=no_shards)
    with pytest.raises(ValueError, match="GatewayBot.shards must be at least 1, not 0"):
        manager.connect()


def test_a_function_gateway_bot_that_ends_the_program_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager = ShardManager(TOKEN, Intents.default(), gateway_bot=lambda: sys.exit(3))
    with pytest.raises(SystemExit):
        manager.run_forever()
    assert "failed" not in caplog.text


def test_resharding_to_as_many_shards_changes_nothing(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with make_manager(gateway, 2) as manager:
        manager.connect()
        shards = dict(manager.shards)
        manager.reshard(2)
        assert dict(manager.shards) == shards
    assert "nothing to reshard: the bot has 2 shards" in caplog.text


@pytest.mark.parametrize("dispatcher", [None, Worker], ids=["", "Worker"])
def test_a_manager_goes_on_after_its_own_callback_has_resharded(
    dispatcher: Callable[[], Worker] | None, gateway: LocalGateway
) -> None:
    options = {"dispatcher": dispatcher and dispatcher()}
    with make_manager(gateway, 2, on_resharding_needed=ShardManager.reshard, **options) as manager:
        manager.connect()
        manager.wait_until_ready(PATIENCE)
        gateway.connections[0].close(4011)
        wait_until(lambda: len(manager.shards) == 4, PATIENCE)
        manager.wait_until_ready(PATIENCE)
        wait_until(lambda: len(gateway.connections) == 4, PATIENCE, "the end of the old shards")
        manager.update_presence(status="idle")
        statuses = [each.expect(3, PATIENCE)["d"]["status"] for each in gateway.connections]
        assert statuses == ["idle"] * 4


def test_a_bot_of_which_every_shard_is_refused_for_its_number_can_reshard() -> None:
    with make_gateway(guilds=8, min_shards=4) as gateway:
        with make_manager(gateway, 2, on_resharding_needed=ShardManager.reshard) as manager:
            manager.start()
            wait_until(lambda: len(manager.shards) == 4, PATIENCE)
            manager.wait_until_ready(PATIENCE)


def test_an_exception_that_ends_the_program_is_raised_though_every_shard_ends_by_it(
    gateway: LocalGateway,
) -> None:
    """The manager must not take the end of the last shard for that of a user's close()."""
    for _ in range(10):  # nearly half of the runs failed
        manager = make_manager(gateway, 2, on_socket_ready=lambda shard: sys.exit(3))
        with pytest.raises(SystemExit):
            manager.run_forever()


def test_the_log_names_the_exception_with_which_a_callback_ends_the_program(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "shardlib.manager")
    manager = make_manager(gateway, 2)

    @manager.on("READY")
    def leave(shard: object, data: object) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        manager.run_forever()
    assert "all shards are closed: a callback raised SystemExit(3)" in caplog.messages


def test_a_callback_of_a_shard_never_waits_for_itself_to_be_ready(gateway: LocalGateway) -> None:
    """Though the manager's thread, in a callback of its own, has not noted the lost connection."""
    raised: list[BaseException] = []
    release = threading.Event()

    def wait(shard: object, code: object, by_self: bool) -> None:
        try:
            manager.wait_until_ready(PATIENCE)
        except (ShardError, TimeoutError) as error:
            raised.append(error)

    manager = make_manager(
        gateway,
        2,
        on_all_ready=lambda manager: release.wait(PATIENCE),
        on_socket_disconnected=wait,
    )
    with manager:
        manager.connect()
        manager.wait_until_ready(PATIENCE)
        gateway.connections[0].close(4000)
        wait_until(lambda: raised, PATIENCE / 2)
        release.set()
        assert "was called in a callback" in str(raised[0])


def test_a_manager_keeps_no_shard_that_resharding_has_replaced(gateway: LocalGateway) -> None:
    with make_manager(gateway, 2, on_resharding_needed=ShardManager.reshard) as manager:
        manager.connect()
        manager.wait_until_ready(PATIENCE)
        old = [weakref.ref(shard) for shard in manager.shards.values()]
        gateway.connections[0].close(4011)
        wait_until(lambda: len(manager.shards) == 4, PATIENCE)

        def are_gone() -> bool:
            for shard in manager.shards.values():
                shard.heartbeat(requested=True)  # whose answer wakes the reader
            gc.collect()
            return not any(shard() for shard in old)

        wait_until(are_gone, PATIENCE)


def test_no_counter_goes_back_while_a_manager_reshards(gateway: LocalGateway) -> None:
    with make_manager(gateway, 2) as manager:
        manager.connect()
        manager.wait_until_ready(PATIENCE)
        for number in range(100):
            gateway.dispatch("USER_UPDATE", {"n": number})
        wait_until(lambda: manager.stats.messages > 100, PATIENCE)
        seen = [manager.stats.messages]
        resharding = in_background(manager.reshard, 4)
        while not resharding.done():
            seen.append(manager.stats.messages)
        resharding.result()
        assert seen == sorted(seen)


def test_connecting_again_counts_no_shard_twice(gateway: LocalGateway) -> None:
    manager = make_manager(gateway, 2)
    for lives in (1, 2):
        with manager:
            manager.connect()
            manager.wait_until_ready(PATIENCE)
        assert manager.stats.connections == 2 * lives
