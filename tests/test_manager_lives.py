"""A manager that is connected again, whose shards are restarted, or used by hand."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from shardlib import (
    AlreadyConnected,
    ConnectionFailed,
    GatewayBot,
    IdentifyGate,
    NotReady,
    Opcode,
    ShardClosed,
    ShardError,
    ShardingRequired,
    ShardManager,
    ShardsFailed,
    ShardState,
    fetch_gateway_bot,
)
from shardlib.managedshard import ManagedShard
from shardlib.resharding import Resharding
from shardlib.testing import LocalGateway
from tests.managers import (
    close_shard,
    connect,
    gateway_bot,
    identified,
    make_gateway,
    make_manager,
    make_retries_quick,
    opcodes,
    wait_for_state,
    what_is_late,
)
from tests.support import TOKEN, in_background, wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@pytest.fixture
def late_gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalGateway]:
    """A gateway whose shards are not started before their turn at late_gate().

    The gateway itself takes any Identify: on a busy machine two may arrive in one moment.
    """
    monkeypatch.setattr("shardlib.startorder.LEAD", 0.01)
    with make_gateway(3, max_concurrency=1) as gateway:
        yield gateway


def late_gate(interval: float = 0.2) -> IdentifyGate:
    """A gate whose second bucket begins only after an interval."""
    return IdentifyGate(1, interval, slack=0.0)


# Again after close()


def test_connect_after_close_that_keeps_sessions_resumes_from_memory(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        shards, session_ids = dict(manager.shards), [each.session_id for each in gateway.sessions]
        manager.close(keep_sessions=True)
        assert [each.close_code for each in gateway.all_connections] == [4000] * 4
        connect(manager)
        assert dict(manager.shards) == shards
        assert [each.session_id for each in gateway.sessions] == session_ids
        assert len(gateway.identifies) == 4
        assert opcodes(gateway, Opcode.RESUME) == 4


def test_connect_after_close_that_ends_sessions_identifies_in_order_again(
    late_gateway: LocalGateway,
) -> None:
    gateway, ready = late_gateway, list[Any]()
    gate = late_gate()
    with make_manager(gateway, identify_gate=gate, on_all_ready=ready.append) as manager:
        for _ in range(2):
            connect(manager)
            assert [each.state for each in manager.shards.values()] == [ShardState.READY] * 3
            wait_until(lambda: manager in ready)
            ready.clear()
            manager.close()
        assert identified(gateway) == [0, 1, 2] * 2
        assert ready == []


def test_connect_again_raises_if_the_gateway_is_away_by_then(late_gateway: LocalGateway) -> None:
    with make_manager(late_gateway, identify_gate=late_gate()) as manager:
        connect(manager)
        manager.close()
        late_gateway.outage()
        with pytest.raises(ConnectionFailed):
            manager.connect()


def test_a_shard_that_had_failed_is_not_taken_for_failed_in_the_next_life(
    late_gateway: LocalGateway,
) -> None:
    """4014 has closed all; the intent was switched on since."""
    with make_manager(late_gateway, identify_gate=late_gate()) as manager:
        late_gateway.inject(lambda it: it.close(4014), instead_of="ready", shard_id=2)
        manager.start()
        with pytest.raises(ShardClosed, match="4014"):
            manager.join(10)
        connect(manager)
        assert "3 ready" in repr(manager)


def test_a_shard_that_waits_for_its_turn_again_says_so(late_gateway: LocalGateway) -> None:
    gate = late_gate(30.0)
    with make_manager(late_gateway, shard_count=2, identify_gate=gate) as manager:
        manager.connect()
        manager.close()
        manager.start()
        with pytest.raises(TimeoutError, match="shard 1 is waiting for its turn"):
            manager.wait_until_ready(0.01)


def test_connect_while_it_runs_is_refused(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        for method in (manager.connect, manager.start, manager.run_forever):
            with pytest.raises(AlreadyConnected):
                method()
        assert "4 ready" in repr(manager)


def test_connect_in_on_all_ready_after_close_begins_another_life(gateway: LocalGateway) -> None:
    calls: list[int] = []

    def all_ready(manager: Any) -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            manager.close()
            manager.connect()

    with make_manager(gateway, on_all_ready=all_ready) as manager:
        manager.start()
        wait_until(lambda: len(calls) == 2)
        assert len(gateway.identifies) == 8


def test_many_lives_leave_nothing_behind(gateway: LocalGateway) -> None:
    manager = make_manager(gateway)
    for _ in range(10):
        connect(manager)
        manager.close()
        wait_until(
            lambda: not [each for each in threading.enumerate() if each.name.startswith("shard-")]
        )


# Shards by hand


def test_a_shard_that_is_closed_by_hand_stays_closed_and_the_others_go_on(
    gateway: LocalGateway,
) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        manager.shards[1].disconnect()
        manager.wait_until_ready(10)
        assert repr(manager) == "<ShardManager 4 shards, 3 ready>"
        manager.restart([1])
        assert "4 ready" in repr(manager)


def test_the_manager_ends_when_its_last_shard_is_closed_by_hand(gateway: LocalGateway) -> None:
    manager = connect(make_manager(gateway))
    for shard in manager.shards.values():
        shard.disconnect()
    assert manager.join(10) is None


def test_a_shard_that_is_started_by_hand_before_its_turn_does_no_harm(
    late_gateway: LocalGateway,
) -> None:
    with make_manager(late_gateway, identify_gate=late_gate()) as manager:
        manager.connect()
        manager.shards[2].start(late_gateway.url)
        manager.wait_until_ready(20)


# restart()


def test_restart_resumes_one_shard_after_the_other(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        manager.restart()
        assert len(gateway.identifies) == 4
        again = gateway.all_connections[4:]
        assert [each.session.shard[0] for each in again if each.session] == [0, 1, 2, 3]
        for before, after in itertools.pairwise(again):
            resumed = [each for each in before.received if each["op"] == Opcode.RESUME]
            assert len(resumed) == 1 and before.opened_at < after.opened_at


def test_no_two_shards_are_away_at_once_while_they_restart(gateway: LocalGateway) -> None:
    away: list[int] = []

    def look(shard: Any, state: ShardState) -> None:
        away.append(sum(each.state is not ShardState.READY for each in manager.shards.values()))

    manager = make_manager(gateway)
    with manager:
        connect(manager)
        for shard in manager.shards.values():
            shard.on_socket_state = look
        manager.restart()
        for shard in manager.shards.values():
            shard.on_socket_state = None
        assert max(away) == 1


def test_restart_takes_the_order_that_it_is_given(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        manager.restart(iter([3, 1]))
        again = gateway.all_connections[4:]
        assert [each.session.shard[0] for each in again if each.session] == [3, 1]


def test_restart_with_new_sessions_identifies(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        before = manager.shards[2].session_id
        manager.restart([2], new_session=True)
        assert identified(gateway)[4:] == [2]
        assert manager.shards[2].session_id not in (before, None)


def test_restarts_wait_rather_than_have_the_token_reset() -> None:
    """Discord allows this bot 20 sessions a day, of which one is kept."""
    with make_gateway(8, session_start_limit=20) as gateway:

        def ask() -> GatewayBot:
            return fetch_gateway_bot(gateway.token, api_url=gateway.http_url)

        with make_manager(gateway, gateway_bot=ask) as manager:
            connect(manager)
            manager.restart(new_session=True, timeout=20)
            restarting = in_background(lambda: manager.restart(new_session=True))
            pattern = (
                "7 of 8 are ready; shard 3 is connected, and waits for its turn to identify, in "
                "2[34] h [0-9]+ min at the earliest"
            )
            wait_until(lambda: re.search(pattern, what_is_late(manager)), 20, pattern)
            assert gateway.session_starts["remaining"] == 1
            assert gateway.token == TOKEN
            manager.close()
            assert isinstance(restarting.exception(10), ShardError)


def test_restart_pauses_between_two_shards(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        manager.restart([0, 1, 2], pause=0.1)
        opened_at = [each.opened_at for each in gateway.all_connections[4:]]
        assert all(b - a >= 0.1 for a, b in itertools.pairwise(opened_at))


def test_a_restart_that_takes_too_long_names_the_shard_and_leaves_the_rest(
    gateway: LocalGateway,
) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        gateway.inject(instead_of="ready")
        with pytest.raises(TimeoutError, match="0 of 2 shards .* within 1.5 seconds; shard 1 is "):
            manager.restart([1, 2], timeout=1.5)
        assert len(gateway.all_connections) == 5
        with pytest.raises(TimeoutError, match="1 of 2 shards restarted"):
            manager.restart([2, 3], pause=60.0, timeout=1.5)


def test_restart_begins_a_shard_again_that_an_error_has_closed(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        close_shard(gateway, 1, 4011)
        with pytest.raises(ShardsFailed):
            wait_for_failure(manager)
        manager.restart([1])
        manager.wait_until_ready(10)
        assert "4 ready" in repr(manager)


def wait_for_failure(manager: Any) -> None:
    wait_for_state(manager, lambda: "3 ready" in repr(manager), "one failed")
    manager.wait_until_ready(10)


def test_a_shard_that_fails_again_after_its_restart_is_told_again(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        close_shard(gateway, 1, 4011)
        wait_until(lambda: caplog.text.count("shard 1 of 4 is closed") == 1)
        gateway.inject(lambda it: it.close(4011), instead_of="ready", shard_id=1)
        with pytest.raises(ShardingRequired):
            manager.restart([1])
        wait_until(lambda: caplog.text.count("shard 1 of 4 is closed") == 2)


def test_a_manager_that_does_not_run_restarts_nothing(gateway: LocalGateway) -> None:
    manager = make_manager(gateway)
    with pytest.raises(NotReady, match="not running"):
        manager.restart()
    connect(manager).close()
    with pytest.raises(NotReady, match="not running"):
        manager.restart()


@pytest.mark.parametrize("new_session", [False, True])
def test_close_on_another_thread_ends_a_restart(gateway: LocalGateway, new_session: bool) -> None:
    manager = connect(make_manager(gateway))
    gateway.inject(instead_of="ready")
    restarting = in_background(lambda: manager.restart(new_session=new_session))
    wait_until(lambda: len(gateway.all_connections) == 5)
    manager.close()
    with pytest.raises(ShardError):
        restarting.result(10)
    wait_until(lambda: gateway.connections == [])


def test_no_shard_that_restart_connects_outlives_a_close_at_that_moment(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = connect(make_manager(gateway))
    request_restart, closing = ManagedShard.request_restart, []

    def close_first(shard: ManagedShard, *arguments: Any, **options: Any) -> Any:
        closing.append(in_background(manager.close))
        wait_until(lambda: shard.has_ended)
        return request_restart(shard, *arguments, **options)

    monkeypatch.setattr(ManagedShard, "request_restart", close_first)
    with pytest.raises(ShardClosed):
        manager.restart()
    closing[0].result(10)
    wait_until(lambda: gateway.connections == [])
    wait_until(
        lambda: not [each for each in threading.enumerate() if each.name.startswith("shard-")]
    )


def begin_anew(manager: ShardManager) -> None:
    manager.close()
    connect(manager)


def test_a_restart_of_a_life_that_is_over_closes_no_shard_of_the_next_one(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_restart = ManagedShard.request_restart

    def begin_the_next_life_first(shard: ManagedShard, socket_url: str, **options: Any) -> Any:
        monkeypatch.undo()
        in_background(begin_anew, manager).result(20)
        return request_restart(shard, socket_url, **options)

    with make_manager(gateway) as manager:
        connect(manager)
        monkeypatch.setattr(ManagedShard, "request_restart", begin_the_next_life_first)
        with pytest.raises(ShardClosed):
            manager.restart()
        wait_for_state(manager, lambda: "4 ready" in repr(manager), "all are ready")


def test_a_reshard_of_a_life_that_is_over_replaces_no_shard_of_the_next_one(
    gateway: LocalGateway,
) -> None:
    answers = iter([2, 4, 3])
    asked, answered = threading.Event(), threading.Event()

    def ask() -> GatewayBot:
        shards = next(answers)
        if shards == 4:
            asked.set()
            assert answered.wait(20)
        return gateway_bot(gateway, shards=shards)

    with make_manager(gateway, gateway_bot=ask) as manager:
        connect(manager)
        resharding = in_background(manager.reshard)
        assert asked.wait(10)
        manager.close()
        connect(manager)
        answered.set()
        with pytest.raises(ShardClosed):
            resharding.result(10)
        assert repr(manager) == "<ShardManager 3 shards, 3 ready>"
        with pytest.raises(TimeoutError):
            manager.join(0.2)
    wait_until(lambda: gateway.connections == [])


def test_a_reshard_that_close_has_interrupted_publishes_nothing_in_the_next_life(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_the_next_life_first(resharding: Resharding) -> None:
        in_background(begin_anew, manager).result(20)
        go_on_with_old(resharding)

    go_on_with_old = Resharding._go_on_with_old
    monkeypatch.setattr(Resharding, "_go_on_with_old", begin_the_next_life_first)
    answers = iter([2, 3])
    with make_manager(
        gateway, gateway_bot=lambda: gateway_bot(gateway, shards=next(answers))
    ) as manager:
        connect(manager)
        with pytest.raises((TimeoutError, ShardError)):
            manager.reshard(gateway_bot(gateway), timeout=0)
        assert repr(manager) == "<ShardManager 3 shards, 3 ready>"
    wait_until(lambda: gateway.connections == [])


def test_a_restart_waits_for_shards_that_have_not_had_their_turn(
    late_gateway: LocalGateway,
) -> None:
    with make_manager(late_gateway, identify_gate=late_gate()) as manager:
        for _ in range(2):
            manager.connect()
            manager.restart([2, 0])
            manager.wait_until_ready(10)
            manager.close()
        assert identified(late_gateway) == [0, 1, 2] * 2


def test_a_shard_that_is_closed_before_its_turn_stays_closed_until_it_is_restarted(
    late_gateway: LocalGateway,
) -> None:
    # Its turn comes after a second, which a busy machine may need until disconnect().
    with make_manager(late_gateway, identify_gate=late_gate(1.0)) as manager:
        manager.connect()
        manager.shards[1].disconnect()
        manager.wait_until_ready(10)
        assert identified(late_gateway) == [0, 2]
        manager.restart([1])
        manager.wait_until_ready(10)
        assert identified(late_gateway) == [0, 2, 1]


class LateGate:
    """A gate that expects shard 1 to wait, and lets it through at once."""

    def __init__(self) -> None:
        self.is_late = True

    def try_acquire(self, shard_id: int) -> float:
        return 0.0

    def expected_wait(self, shard_id: int) -> float:
        return 1.2 if shard_id == 1 and self.is_late else 0.0


def test_a_shard_that_was_started_by_hand_before_its_turn_holds_up_no_other() -> None:
    gate = LateGate()
    with make_gateway(3, max_concurrency=1) as gateway:
        with make_manager(gateway, identify_gate=gate) as manager:
            manager.connect()
            manager.shards[1].start(gateway.url)
            manager.shards[1].wait_until_ready(10)
            gate.is_late = False
            manager.wait_until_ready(10)


def test_a_restart_goes_on_when_its_shard_was_started_by_hand_before_its_turn(
    late_gateway: LocalGateway,
) -> None:
    with make_manager(late_gateway, identify_gate=late_gate()) as manager:
        manager.connect()
        manager.shards[2].start(late_gateway.url)
        manager.shards[2].wait_until_ready(10)
        in_background(manager.restart, [2]).result(10)


def test_restart_in_a_callback_is_refused(gateway: LocalGateway) -> None:
    refused: list[ShardError] = []

    def restart(manager: Any) -> None:
        try:
            manager.restart()
        except ShardError as error:
            refused.append(error)

    with make_manager(gateway, on_all_ready=restart) as manager:
        connect(manager)
        wait_until(lambda: refused)
        assert "restart() was called in a callback" in str(refused[0])


def test_a_gateway_that_goes_away_and_comes_back_finds_all_shards_again(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_retries_quick(monkeypatch)
    with make_manager(gateway, gateway_bot=gateway_bot(gateway)) as manager:
        connect(manager)
        gateway.outage()
        wait_for_state(manager, lambda: "0 ready" in repr(manager), "lost")
        since = time.monotonic()
        gateway.restore()
        manager.wait_until_ready(20)
        assert time.monotonic() - since < 10
        assert len(gateway.identifies) == 4


def test_a_restart_ends_when_reshard_has_replaced_the_shards(gateway: LocalGateway) -> None:
    with connect(make_manager(gateway)) as manager:
        restarting = in_background(lambda: manager.restart(pause=20))
        wait_until(lambda: manager.stats.resumes == 1)
        manager.reshard(2)
        with pytest.raises(ShardError, match=r"reshard\(\) has replaced them"):
            restarting.result(10)
        wait_until(lambda: len(gateway.connections) == 2)


def test_a_restart_of_all_leaves_a_shard_closed_that_was_closed_by_hand(
    gateway: LocalGateway,
) -> None:
    with connect(make_manager(gateway)) as manager:
        manager.shards[1].disconnect()
        manager.restart()
        assert manager.shards[1].state is ShardState.CLOSED
        manager.restart([1])
        assert manager.shards[1].state is ShardState.READY


def test_a_life_that_waits_for_discord_reshards_and_restarts_no_shards_of_the_last_one(
    gateway: LocalGateway,
) -> None:
    """Else the shards that the life makes then would be lost from sight, and outlive it."""
    answers, asked, release = itertools.count(), threading.Event(), threading.Event()

    def answer() -> GatewayBot:
        if next(answers):
            asked.set()
            release.wait(20)
        return gateway_bot(gateway)

    manager = connect(make_manager(gateway, gateway_bot=answer))
    manager.close()
    manager.start()
    assert asked.wait(10)
    for call in (lambda: manager.reshard(2), manager.restart):
        with pytest.raises(NotReady, match="the manager is not running"):
            call()
    with pytest.raises(TimeoutError):
        manager.wait_until_ready(0.01)
    release.set()
    manager.wait_until_ready(20)
    manager.close()
    wait_until(lambda: gateway.connections == [])
