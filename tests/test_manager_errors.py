"""What one shard's error, or one callback's, does to a manager and its other shards."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import (
    GatewayBot,
    InvalidShard,
    Opcode,
    Shard,
    ShardClosed,
    ShardingRequired,
    ShardManager,
    ShardsFailed,
    ShardState,
)
from shardlib.dispatch import Mailbox, Pool, Worker
from shardlib.testing import LocalGateway
from tests.managers import (
    close_shard,
    connect,
    gateway_bot,
    guilds_of,
    make_gateway,
    make_manager,
    opcodes,
    wait_for_state,
)
from tests.support import FATAL, in_background, wait_until

# Of the token's or the intents', which all shards have alike; the others are the division's.
COMMON = {code: error for code, error in FATAL.items() if code not in (4010, 4011)}
DIVISION = {4010: InvalidShard, 4011: ShardingRequired}


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


def is_closed(manager: ShardManager) -> bool:
    """True if the manager is at its end: a wait for it has nothing to wait for."""
    try:
        manager.join(0)
    except TimeoutError:
        return False
    except BaseException:
        pass
    return True


# Errors that all shards would meet


@pytest.mark.parametrize(("code", "error"), COMMON.items())
def test_an_error_of_the_token_or_the_intents_at_one_shard_closes_all(
    gateway: LocalGateway, code: int, error: type[ShardClosed]
) -> None:
    manager = connect(make_manager(gateway))
    waiting = in_background(manager.wait_for, "TYPING_START")
    joining = in_background(manager.join)
    close_shard(gateway, 2, code)
    for future in (waiting, joining):
        with pytest.raises(error):
            future.result(10)
    with pytest.raises(error):
        manager.wait_until_ready()
    with pytest.raises(error):
        manager.join()
    assert {each.state for each in manager.shards.values()} == {ShardState.CLOSED}
    wait_until(lambda: gateway.connections == [])


@pytest.mark.parametrize(("code", "error"), COMMON.items())
def test_such_an_error_while_shards_start_ends_the_wait_for_them(
    gateway: LocalGateway, code: int, error: type[ShardClosed]
) -> None:
    gateway.inject(lambda it: it.close(code), instead_of="ready", connections=None)
    manager = make_manager(gateway)
    manager.start()
    with pytest.raises(error):
        manager.wait_until_ready(10)


def test_the_sessions_of_the_other_shards_can_be_resumed_after_such_an_error(
    gateway: LocalGateway,
) -> None:
    manager = connect(make_manager(gateway))
    close_shard(gateway, 2, 4014)
    with pytest.raises(ShardClosed):
        manager.join(10)
    connect(manager).close()
    assert opcodes(gateway, Opcode.RESUME) >= 3


def test_run_forever_raises_such_an_error(gateway: LocalGateway) -> None:
    manager = make_manager(gateway)
    running = in_background(manager.run_forever)
    wait_for_state(manager, lambda: "4 ready" in repr(manager), "ready")
    close_shard(gateway, 0, 4004)
    with pytest.raises(FATAL[4004]):
        running.result(10)


def test_the_with_block_raises_such_an_error_unless_it_was_raised_before(
    gateway: LocalGateway,
) -> None:
    with pytest.raises(FATAL[4004]):
        with make_manager(gateway) as manager:
            connect(manager)
            close_shard(gateway, 0, 4004)
            wait_until(lambda: is_closed_silently(manager))
    with make_manager(gateway) as manager:
        connect(manager)
        close_shard(gateway, 0, 4004)
        with pytest.raises(FATAL[4004]):
            manager.join(10)


def is_closed_silently(manager: ShardManager) -> bool:
    return {each.state for each in manager.shards.values()} == {ShardState.CLOSED} and not any(
        each.name == "shard-manager" for each in threading.enumerate()
    )


# Errors of the division


@pytest.mark.parametrize(("code", "error"), DIVISION.items())
def test_an_error_of_the_division_closes_that_shard_alone(
    gateway: LocalGateway,
    code: int,
    error: type[ShardClosed],
    caplog: pytest.LogCaptureFixture,
) -> None:
    needed: list[tuple[ShardManager, GatewayBot, str]] = []
    answers = [gateway_bot(gateway), gateway_bot(gateway, shards=8)]

    def ask() -> GatewayBot:
        return answers.pop(0)

    def resharding_needed(manager: ShardManager, answer: GatewayBot) -> None:
        needed.append((manager, answer, threading.current_thread().name))

    with make_manager(gateway, gateway_bot=ask, on_resharding_needed=resharding_needed) as manager:
        connect(manager)
        close_shard(gateway, 1, code)
        wait_until(lambda: needed)
        assert needed == [(manager, gateway_bot(gateway, shards=8), "shard-manager")]
        close_shard(gateway, 3, code)
        wait_for_state(manager, lambda: "2 ready" in repr(manager), "two failed")
        with pytest.raises(ShardsFailed) as caught:
            manager.wait_until_ready(10)
        assert {key: type(each) for key, each in caught.value.errors.items()} == {
            1: error,
            3: error,
        }
        (guild,) = guilds_of(gateway, 2, 4)
        heard = in_background(manager.wait_for, "GUILD_UPDATE", None, 10)
        while not heard.done():
            gateway.dispatch("GUILD_UPDATE", {"id": guild, "guild_id": guild})
        with pytest.raises(TimeoutError):
            manager.join(0)
        wait_until(lambda: caplog.text.count("its guilds are without the bot") == 2)
        assert caplog.text.count("reshard() divides the guilds anew") == 2
        assert len(needed) == 1


def test_the_bucket_after_a_refused_shard_starts(gateway: LocalGateway) -> None:
    gateway.inject(lambda it: it.close(4011), instead_of="ready", shard_id=0)
    with make_manager(gateway) as manager:
        manager.connect()
        with pytest.raises(ShardsFailed, match=r"1 shard failed: 0 \(ShardingRequired\)"):
            manager.wait_until_ready(10)
        assert "3 ready" in repr(manager)


def test_a_manager_whose_shards_were_all_refused_ends_with_all_errors(
    gateway: LocalGateway,
) -> None:
    gateway.min_shards = 8
    manager = make_manager(gateway)
    manager.start()
    with pytest.raises(ShardsFailed) as caught:
        manager.join(10)
    assert set(caught.value.errors) == {0, 1, 2, 3}
    with pytest.raises(ShardsFailed):
        manager.wait_until_ready()


def test_the_manager_goes_on_with_the_shards_that_are_left_one_after_the_other(
    gateway: LocalGateway,
) -> None:
    manager = connect(make_manager(gateway))
    for shard_id in range(4):
        assert not is_closed(manager)
        close_shard(gateway, shard_id, 4011)
        with pytest.raises(ShardingRequired):
            manager.shards[shard_id].join(10)
    with pytest.raises(ShardsFailed):
        manager.join(10)


def test_a_shard_that_may_not_reconnect_fails_alone(gateway: LocalGateway) -> None:
    with make_manager(gateway, should_reconnect=False) as manager:
        connect(manager)
        for connection in gateway.connections:
            if connection.session is not None and connection.session.shard[0] == 2:
                connection.reset()
        wait_for_state(manager, lambda: "3 ready" in repr(manager), "one lost")
        with pytest.raises(ShardsFailed) as caught:
            manager.wait_until_ready(10)
        assert isinstance(caught.value.errors[2], ShardClosed)


@pytest.mark.parametrize(
    "answer",
    [lambda: None, lambda: [].pop(), lambda: open("/nowhere/at/all")],
    ids=["returns None", "raises", "raises OSError"],
)
def test_a_gateway_bot_function_that_fails_the_second_time_closes_nothing(
    gateway: LocalGateway, answer: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Callable[[], Any]] = [lambda: gateway_bot(gateway), answer]
    needed: list[object] = []

    def ask() -> Any:
        return answers.pop(0)()

    with make_manager(
        gateway, gateway_bot=ask, on_resharding_needed=lambda *them: needed.append(them)
    ) as manager:
        connect(manager)
        close_shard(gateway, 1, 4011)
        wait_until(lambda: "Discord was to be asked how many shards are needed" in caplog.text)
        assert not is_closed(manager)
        assert "3 ready" in repr(manager)
        assert needed == []


def test_nothing_is_asked_if_no_function_wants_to_know(gateway: LocalGateway) -> None:
    answers = [gateway_bot(gateway)]
    with make_manager(gateway, gateway_bot=lambda: answers.pop(0)) as manager:
        connect(manager)
        close_shard(gateway, 1, 4011)
        wait_for_state(manager, lambda: "3 ready" in repr(manager), "one failed")
        assert not is_closed(manager)


# What callbacks raise


@pytest.mark.parametrize("stop", [SystemExit(3), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("of", ["a listener", "on_socket_ready", "on_all_ready"])
def test_an_exit_out_of_a_callback_closes_all_and_is_raised_by_the_waits(
    gateway: LocalGateway, stop: BaseException, of: str
) -> None:
    def exit(*_: Any) -> None:
        raise stop

    def make() -> ShardManager:
        options = {} if of == "a listener" else {of: exit}
        manager = make_manager(gateway, **options)
        if of == "a listener":
            manager.on("GUILD_CREATE", exit)
        return manager

    manager = make()
    manager.start()
    with pytest.raises(type(stop)) as caught:
        manager.join(10)
    assert caught.value is stop
    with pytest.raises(type(stop)):
        manager.wait_until_ready(10)
    wait_until(lambda: gateway.connections == [])
    with pytest.raises(type(stop)):
        make().run_forever()


@pytest.mark.parametrize("name", ["on_all_ready", "on_resharding_needed"])
def test_an_error_out_of_the_managers_own_callback_is_logged_and_ends_nothing(
    gateway: LocalGateway, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("mine")

    options: dict[str, Any] = {name: fail}
    with make_manager(gateway, **options) as manager:
        connect(manager)
        if name == "on_resharding_needed":
            close_shard(gateway, 1, 4011)
        wait_until(lambda: "LookupError: mine" in caplog.text)
        manager.shards[0].reconnect()
        manager.shards[0].wait_until_ready(10)
        assert not is_closed(manager)
    (record,) = [each for each in caplog.records if each.exc_info]
    assert (record.name, record.levelno) == ("shardlib.manager", logging.ERROR)
    assert f"{fail.__name__}" in record.getMessage()


def test_an_error_out_of_a_shards_callback_ends_nothing(gateway: LocalGateway) -> None:
    told: list[tuple[int, str]] = []

    def fail(shard: Shard) -> None:
        raise LookupError("mine")

    def error(shard: Shard, error: Exception) -> None:
        told.append((shard.shard_id, str(error)))

    with make_manager(gateway, on_socket_ready=fail, on_socket_error=error) as manager:
        connect(manager)
        wait_until(lambda: sorted(told) == [(shard_id, "mine") for shard_id in range(4)])
        assert "4 ready" in repr(manager)


@pytest.mark.parametrize("kind", [Worker, Pool])
@pytest.mark.parametrize("of", ["on_socket_ready", "on_all_ready"])
def test_an_exit_on_a_dispatchers_thread_closes_all(
    gateway: LocalGateway, kind: Any, of: str
) -> None:
    def exit(*_: Any) -> None:
        raise SystemExit(3)

    options: dict[str, Any] = {of: exit}
    manager = make_manager(gateway, dispatcher=kind(), **options)
    manager.start()
    with pytest.raises(SystemExit):
        manager.join(10)
    wait_until(lambda: gateway.connections == [])


def test_an_exit_out_of_a_mailbox_is_its_runners(gateway: LocalGateway) -> None:
    """run_pending() raises it; what it means for the manager is the program's to say."""
    mailbox = Mailbox()

    def exit(*_: Any) -> None:
        raise SystemExit(3)

    with make_manager(gateway, dispatcher=mailbox, on_all_ready=exit) as manager:
        connect(manager)
        with pytest.raises(SystemExit):
            while True:
                mailbox.run_pending()
        assert "4 ready" in repr(manager)


# Gates of the user's


def test_a_gate_that_fails_for_one_shard_is_told_and_closes_nothing(gateway: LocalGateway) -> None:
    failed: list[int] = []
    told: list[tuple[int, str]] = []

    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            if shard_id == 1 and not failed:
                failed.append(shard_id)
                raise LookupError("mine")
            return 0.0

    with make_manager(
        gateway,
        identify_gate=Gate(),
        on_socket_error=lambda shard, error: told.append((shard.shard_id, str(error))),
    ) as manager:
        connect(manager)
        assert told == [(1, "mine")]


def test_a_gate_whose_update_fails_ends_connect(gateway: LocalGateway) -> None:
    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            return 0.0

        def update(self, *limits: Any) -> None:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        make_manager(gateway, identify_gate=Gate()).connect()


def test_a_gate_is_told_of_discords_limits(gateway: LocalGateway) -> None:
    told: list[tuple[Any, ...]] = []

    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            return 0.0

        def update(self, *limits: Any) -> None:
            told.append(limits)

    answer = gateway_bot(gateway, remaining=17, reset_after=5.0)
    with make_manager(gateway, identify_gate=Gate(), gateway_bot=answer) as manager:
        connect(manager)
    assert told == [(2, 17, 5.0, 1000)]
