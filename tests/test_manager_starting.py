"""A manager starts its shards: in what order, with which limits, and what if it cannot."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardlib import (
    AuthenticationFailed,
    ConnectionFailed,
    GatewayBot,
    HTTPFailed,
    IdentifyGate,
    Opcode,
    SessionLimitReached,
    ShardClosed,
    ShardError,
    ShardManager,
    ShardState,
    fetch_gateway_bot,
)
from shardlib.gatewaybot import GatewayBotRequest
from shardlib.lifecycle import Life
from shardlib.shardgroup import ShardGroup
from shardlib.supervisor import Supervisor
from shardlib.testing import GatewayConnection, LocalGateway
from tests.managers import (
    connect,
    gateway_bot,
    guilds_of,
    identified,
    make_gate,
    make_gateway,
    make_manager,
    make_retries_quick,
    opcodes,
    wait_for_state,
)
from tests.support import in_background, wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


class HeldGate:
    """A gate that lets no shard through before it is opened."""

    def __init__(self) -> None:
        self.is_open = False
        self.asked: list[int] = []

    def try_acquire(self, shard_id: int) -> float:
        self.asked.append(shard_id)
        return 0.0 if self.is_open else 0.02


def own_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("shard-")]


# Order


def test_the_shards_identify_in_the_order_of_their_buckets_and_none_too_early() -> None:
    with make_gateway(8, identify_interval=0.1) as gateway:
        # On a busy machine an Identify may arrive that much later than the next one.
        with make_manager(gateway, identify_gate=make_gate(gateway, slack=0.5)) as manager:
            connect(manager)
            assert all(each.accepted for each in gateway.identifies)
            assert sorted(identified(gateway)) == list(range(8))
            assert [each // 2 for each in identified(gateway)] == [0, 0, 1, 1, 2, 2, 3, 3]
            assert {each.shard_count for each in gateway.identifies} == {8}


def test_the_socket_of_a_shard_is_opened_when_its_slot_is_near(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardlib.startorder.LEAD", 0.1)
    with make_gateway(3, max_concurrency=1, identify_interval=1.0) as gateway:
        with make_manager(gateway, identify_gate=make_gate(gateway, slack=0.5)) as manager:
            connect(manager)
            identified_at = [each.time for each in gateway.identifies]
            opened_at = [each.opened_at for each in gateway.all_connections]
    assert identified(gateway) == [0, 1, 2]
    for before, opened, after in zip(identified_at, opened_at[1:], identified_at[1:], strict=False):
        assert opened > before + 0.7
        assert opened < after


def test_sixteen_shards_have_thirty_three_threads() -> None:
    with make_gateway(16, max_concurrency=16) as gateway, make_manager(gateway) as manager:
        connect(manager)
        wait_until(lambda: len(own_threads()) == 33)
        assert own_threads().count("shard-manager") == 1
        manager.close()
        wait_until(lambda: own_threads() == [])


def refuse(connection: GatewayConnection) -> None:
    connection.refuse(503)


@pytest.mark.parametrize(
    "step, action",
    [("upgrade", refuse), ("upgrade", None), ("hello", None)],
    ids=["refuses", "hangs before the handshake", "hangs before Hello"],
)
def test_a_shard_that_cannot_connect_at_first_holds_up_no_other(
    gateway: LocalGateway, step: str, action: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries again behind the others, some of which are of later buckets."""
    monkeypatch.setattr("shardlib.backoff.Backoff.next_delay", lambda self: 0.3)
    gateway.inject(action, instead_of=step)
    with make_manager(gateway, connect_timeout=1.0, hello_timeout=1.0) as manager:
        connect(manager)
        assert sorted(identified(gateway)) == [0, 1, 2, 3]
        assert {2, 3} & set(identified(gateway)[:3])
        assert len(gateway.identifies) == 4


def test_shards_with_a_session_resume_at_once_beside_those_that_wait_for_their_turn(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    with make_manager(gateway, sessions=tmp_path) as manager:
        connect(manager)
    for shard_id in (0, 1):
        (tmp_path / f"shard-{shard_id}-of-4.json").unlink()
    gate = HeldGate()
    with make_manager(gateway, sessions=tmp_path, identify_gate=gate) as manager:
        manager.connect()
        shards = manager.shards
        wait_for_state(
            manager,
            lambda: shards[2].state is shards[3].state is ShardState.READY,
            "resumed",
        )
        assert len(gateway.identifies) == 4
        assert opcodes(gateway, Opcode.RESUME) == 2
        gate.is_open = True
        manager.wait_until_ready(20)
    assert sorted(identified(gateway)[4:]) == [0, 1]


def test_a_part_of_the_shards_runs_here(gateway: LocalGateway) -> None:
    with make_manager(gateway, shard_count=4, shard_ids=iter([3, 0])) as manager:
        assert manager.shard_count == 4
        connect(manager)
        assert identified(gateway) == [0, 3]
        assert list(manager.shards) == [0, 3]
        assert repr(manager) == "<ShardManager 2 shards of 4, 2 ready>"
        (guild,) = guilds_of(gateway, 3, 4)
        assert manager.shard_for(guild) is manager.shards[3]
        (elsewhere,) = guilds_of(gateway, 2, 4)
        with pytest.raises(ValueError, match="belongs to shard 2 of 4, which another process runs"):
            manager.shard_for(elsewhere)


def test_a_shard_count_of_the_users_counts_more_than_discords(gateway: LocalGateway) -> None:
    with make_manager(gateway, shard_count=3) as manager:
        connect(manager)
        assert {each.shard_count for each in gateway.identifies} == {3}
        assert manager.shard_count == len(manager.shards) == 3


def test_the_gateway_that_discord_names_is_used_unless_connect_is_given_one(
    gateway: LocalGateway,
) -> None:
    answer = gateway_bot(gateway, url="ws://127.0.0.1:1")
    with make_manager(gateway, gateway_bot=answer) as manager:
        manager.connect(gateway.url)
        manager.wait_until_ready(20)


def test_the_number_of_shards_and_the_limits_are_asked_of_discord(gateway: LocalGateway) -> None:
    def ask() -> GatewayBot:
        return fetch_gateway_bot(gateway.token, api_url=gateway.http_url)

    with make_manager(gateway, gateway_bot=ask) as manager:
        assert manager.shard_count is None
        connect(manager)
        assert manager.shard_count == 4


# Waiting until all are ready


def test_progress_is_told_on_the_calling_thread_from_none_to_all(gateway: LocalGateway) -> None:
    gate, told, threads = HeldGate(), [], set()

    def progress(ready: int, total: int) -> None:
        told.append((ready, total))
        threads.add(threading.current_thread())
        gate.is_open = True

    with make_manager(gateway, identify_gate=gate) as manager:
        manager.connect()
        manager.wait_until_ready(20, progress)
        assert told[0] == (0, 4) and told[-1] == (4, 4)
        assert told == sorted(set(told))
        assert threads == {threading.current_thread()}
        manager.wait_until_ready(0, progress)
        assert told.count((4, 4)) == 2


def test_what_progress_raises_is_raised_by_the_wait_and_ends_nothing(gateway: LocalGateway) -> None:
    def progress(ready: int, total: int) -> None:
        raise LookupError("mine")

    with make_manager(gateway) as manager:
        manager.connect()
        with pytest.raises(LookupError, match="mine"):
            manager.wait_until_ready(20, progress)
        manager.wait_until_ready(20)


def test_a_wait_that_runs_out_says_what_the_shards_are_doing() -> None:
    with make_gateway(8) as gateway, make_manager(gateway, identify_gate=HeldGate()) as manager:
        manager.connect()
        wait_until(lambda: len(gateway.connections) == 2)
        first = [manager.shards[0], manager.shards[1]]
        wait_until(lambda: all(shard.state is ShardState.CONNECTED for shard in first))
        with pytest.raises(TimeoutError) as caught:
            manager.wait_until_ready(0.01)
    message = str(caught.value)
    assert message.startswith(
        "not all shards were ready within 0.01 seconds; 0 of 8 are ready; shard 0 is connected"
    )
    assert "its turn to identify" in message
    assert message.endswith("; shard 2 is waiting for its turn; and 5 more")


def test_a_wait_that_runs_out_says_how_long_the_days_sessions_make_the_shards_wait(
    gateway: LocalGateway,
) -> None:
    answer = gateway_bot(gateway, remaining=50, reset_after=7200.0)
    with make_manager(gateway, gateway_bot=answer) as manager:
        manager.start()
        wait_until(lambda: len(manager.shards) == 4)
        with pytest.raises(
            TimeoutError,
            match="shard 2 is waiting for its turn, in 2 h 0 min at the earliest; and 1 more$",
        ):
            manager.wait_until_ready(0.01)


def test_a_wait_that_runs_out_before_discord_has_answered_says_so(gateway: LocalGateway) -> None:
    asked, answer = threading.Event(), threading.Event()

    def ask() -> GatewayBot:
        asked.set()
        answer.wait(10)
        return gateway_bot(gateway)

    with make_manager(gateway, gateway_bot=ask) as manager:
        manager.start()
        assert asked.wait(10)
        with pytest.raises(TimeoutError, match="Discord has not said yet how many shards"):
            manager.wait_until_ready(0.01)
        assert dict(manager.shards) == {}
        answer.set()
        manager.wait_until_ready(20)


def test_all_shards_being_ready_is_told_once_on_the_managers_thread(gateway: LocalGateway) -> None:
    told: list[tuple[ShardManager, str, int]] = []

    def all_ready(manager: ShardManager) -> None:
        ready = sum(each.state is ShardState.READY for each in manager.shards.values())
        told.append((manager, threading.current_thread().name, ready))

    with make_manager(gateway, on_all_ready=all_ready) as manager:
        connect(manager)
        wait_until(lambda: told)
        manager.shards[1].reconnect()
        manager.wait_until_ready(20)
        assert told == [(manager, "shard-manager", 4)]
        manager.close()
        connect(manager)
        wait_until(lambda: len(told) == 2)


def test_all_shards_being_ready_is_told_however_soon_the_manager_is_closed(
    gateway: LocalGateway,
) -> None:
    for _ in range(20):
        told: list[ShardManager] = []
        with make_manager(gateway, on_all_ready=told.append) as manager:
            manager.connect()
            manager.wait_until_ready(10)
        assert told == [manager]


def test_a_wait_goes_on_while_on_resharding_needed_mends_what_has_failed() -> None:
    with make_gateway(4, min_shards=4) as gateway:
        manager = make_manager(gateway, shard_count=2, on_resharding_needed=ShardManager.reshard)
        with manager:
            manager.start()
            manager.wait_until_ready(20)
            assert len(manager.shards) == 4


def test_the_api_of_another_server_is_asked_for_the_number_of_shards(
    gateway: LocalGateway,
) -> None:
    with make_manager(gateway, gateway_bot=None, api_url=gateway.http_url) as manager:
        manager.connect()
        assert len(manager.shards) == gateway.shards
    with pytest.raises(ValueError, match="api_url must begin with https://"):
        make_manager(gateway, gateway_bot=None, api_url="http://discord.com/api/v10")


def test_waiting_in_on_all_ready_returns_at_once(gateway: LocalGateway) -> None:
    outcome: list[object] = []

    def all_ready(manager: ShardManager) -> None:
        outcome.append(manager.wait_until_ready())

    with make_manager(gateway, on_all_ready=all_ready) as manager:
        connect(manager)
        wait_until(lambda: outcome == [None])


def test_waiting_in_a_callback_before_all_are_ready_is_refused(gateway: LocalGateway) -> None:
    refused: list[Exception] = []

    def ready(shard: Any) -> None:
        try:
            manager.wait_until_ready()
        except ShardError as error:
            refused.append(error)

    gate = HeldGate()
    gate.is_open = True
    manager = make_manager(gateway, on_socket_ready=ready, identify_gate=gate)
    with manager:
        connect(manager)
        assert "in a callback" in str(refused[0])


# Nothing to connect to


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_connect_raises_why_no_shard_of_the_first_bucket_can_connect(
    gateway: LocalGateway, free_port: int
) -> None:
    url = f"ws://127.0.0.1:{free_port}"
    manager = make_manager(gateway, gateway_bot=gateway_bot(gateway, url=url))
    with pytest.raises(ConnectionFailed, match=str(free_port)):
        manager.connect()
    wait_until(lambda: own_threads() == [])
    with pytest.raises(ConnectionFailed):
        manager.join()
    with manager:
        manager.connect(gateway.url)
        manager.wait_until_ready(20)


def test_connect_succeeds_if_one_shard_of_the_first_bucket_can_connect(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_retries_quick(monkeypatch)
    gateway.inject(refuse, instead_of="upgrade")
    with make_manager(gateway) as manager:
        connect(manager)


def test_connect_succeeds_if_the_shards_identify_just_after_the_manager_has_seen_no_socket(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()

    class SlowSupervisor(Supervisor):
        """The manager's thread of a busy machine."""

        def _note_first_socket(self, life: Life, group: ShardGroup) -> None:
            super()._note_first_socket(life, group)
            looked.set()
            begun = [shard for shard in group.shards.values() if shard.was_begun]
            # It may look at them only when the test has closed them.
            wait_until(lambda: all(each.has_identified or each.has_ended for each in begun))

    gateway.inject(lambda _: looked.wait(10), before="upgrade")
    gateway.inject(instead_of="ready", connections=None)
    monkeypatch.setattr("shardlib.manager.Supervisor", SlowSupervisor)
    with make_manager(gateway) as manager:
        manager.connect()


def ask(gateway: LocalGateway, timeout: float = 10.0) -> Callable[[], GatewayBot]:
    """A function that asks the gateway, as the manager asks Discord by itself."""
    return lambda: fetch_gateway_bot(gateway.token, api_url=gateway.http_url, timeout=timeout)


@pytest.mark.parametrize(
    "action, error, message",
    [
        (lambda it: it.refuse(401), AuthenticationFailed, "refused the token"),
        (lambda it: it.refuse(500), HTTPFailed, "status 500"),
        (lambda it: it.refuse(429, headers={"Retry-After": "60"}), HTTPFailed, "status 429"),
        (lambda it: it.refuse(200, "<html>"), HTTPFailed, "not JSON"),
        (lambda it: it.drop(), ConnectionFailed, "127.0.0.1"),
        (None, ConnectionFailed, "127.0.0.1"),
    ],
    ids=["401", "500", "429", "not JSON", "ends", "hangs"],
)
def test_connect_raises_what_discord_answers_instead_and_can_be_called_again(
    gateway: LocalGateway,
    action: Any,
    error: type[ShardError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardlib.gatewaybot._PAUSES", ())  # no further tries
    gateway.inject(action, instead_of="answer")
    timeouts = itertools.chain([0.3 if action is None else 10.0], itertools.repeat(10.0))
    manager = make_manager(gateway, gateway_bot=lambda: ask(gateway, next(timeouts))())
    with pytest.raises(error, match=message):
        manager.connect()
    wait_until(lambda: own_threads() == [])
    assert gateway.all_connections == []
    with manager:
        connect(manager)


def test_start_goes_on_asking_until_discord_answers(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_retries_quick(monkeypatch)
    gateway.outage()
    with make_manager(gateway, gateway_bot=ask(gateway)) as manager:
        manager.start()
        wait_until(lambda: caplog.text.count("asking again in") >= 2)
        gateway.restore()
        manager.wait_until_ready(20)


def test_start_waits_as_long_as_discord_asks_for(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.inject(lambda it: it.refuse(429, headers={"Retry-After": "1"}), instead_of="answer")
    with make_manager(gateway, gateway_bot=ask(gateway, 1.0)) as manager:
        since = time.monotonic()
        manager.start()
        manager.wait_until_ready(20)
        assert time.monotonic() - since >= 1
    assert "asking again in 1 second" in caplog.text


def test_start_goes_on_until_the_gateway_is_there(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_retries_quick(monkeypatch)
    gateway.outage()
    with make_manager(gateway) as manager:
        manager.start()
        wait_until(lambda: manager.shards and manager.shards[0].state is ShardState.WAITING)
        gateway.restore()
        manager.wait_until_ready(20)


def test_run_forever_begins_before_the_network_is_there(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_retries_quick(monkeypatch)
    gateway.outage()
    manager = make_manager(gateway, gateway_bot=ask(gateway))
    running = in_background(manager.run_forever)
    wait_until(lambda: "asking again in" in caplog.text)
    gateway.restore()
    wait_until(lambda: "4 ready" in repr(manager))
    manager.close()
    assert running.result(10) is None


def test_a_wrong_token_closes_a_started_manager(gateway: LocalGateway) -> None:
    gateway.inject(lambda it: it.refuse(401), instead_of="answer")
    manager = make_manager(gateway, gateway_bot=ask(gateway))
    manager.start()
    with pytest.raises(AuthenticationFailed):
        manager.join(10)
    with pytest.raises(AuthenticationFailed):
        manager.wait_until_ready(10)


# A gateway_bot function of the user's


def returns_nothing() -> Any:
    return None


def raises() -> Any:
    raise LookupError("mine")


@pytest.mark.parametrize(
    "function, error, message",
    [
        (returns_nothing, TypeError, "must return a GatewayBot, .* not NoneType"),
        (raises, LookupError, "mine"),
    ],
)
def test_a_gateway_bot_function_that_fails_ends_connect_and_start(
    gateway: LocalGateway, function: Any, error: Any, message: str
) -> None:
    manager = make_manager(gateway, gateway_bot=function)
    with pytest.raises(error, match=message):
        manager.connect()
    manager.start()
    with pytest.raises(error, match=message):
        manager.join(10)


def test_a_gateway_bot_function_is_called_on_the_managers_thread(gateway: LocalGateway) -> None:
    threads: list[str] = []

    def ask() -> GatewayBot:
        threads.append(threading.current_thread().name)
        if len(threads) == 1:
            raise OSError("no network yet")
        return gateway_bot(gateway)

    with make_manager(gateway, gateway_bot=ask) as manager:
        with pytest.raises(OSError, match="no network yet"):
            manager.connect()
        connect(manager)
    assert threads == ["shard-manager"] * 2


def test_close_does_not_wait_for_a_gateway_bot_function_that_blocks(gateway: LocalGateway) -> None:
    asked, answer = threading.Event(), threading.Event()

    def ask() -> GatewayBot:
        asked.set()
        answer.wait(20)
        return gateway_bot(gateway)

    manager = make_manager(gateway, gateway_bot=ask)
    connecting = in_background(manager.connect)
    assert asked.wait(10)
    since = time.monotonic()
    manager.close(timeout=0.2)
    assert time.monotonic() - since < 15
    with pytest.raises(ShardClosed):
        connecting.result(10)
    answer.set()
    wait_until(lambda: own_threads() == [])
    assert gateway.all_connections == []


def test_a_second_life_has_as_many_shards_as_discord_recommends_then(
    gateway: LocalGateway,
) -> None:
    answers = [gateway_bot(gateway), gateway_bot(gateway, shards=6)]
    with make_manager(gateway, gateway_bot=lambda: answers.pop(0)) as manager:
        connect(manager)
        manager.close()
        connect(manager)
        assert manager.shard_count == len(manager.shards) == 6
        assert [each.shard_count for each in gateway.identifies] == [4] * 4 + [6] * 6


# Limits


def test_too_few_sessions_left_raise_before_any_socket_is_opened(gateway: LocalGateway) -> None:
    answer = gateway_bot(gateway, remaining=3, reset_after=3600.0)
    manager = make_manager(gateway, gateway_bot=answer)
    with pytest.raises(SessionLimitReached, match="needs 4 new sessions.* 3 more") as caught:
        manager.connect()
    assert (caught.value.needed, caught.value.remaining) == (4, 3)
    assert caught.value.reset_after == 3600.0
    assert gateway.all_connections == []
    manager.start()
    with pytest.raises(SessionLimitReached):
        manager.join(10)


def test_shards_with_a_session_do_not_count_for_the_limit(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    with make_manager(gateway, sessions=tmp_path) as manager:
        connect(manager)
    (tmp_path / "shard-2-of-4.json").unlink()
    none_left = gateway_bot(gateway, remaining=0, reset_after=3600.0)
    options: dict[str, Any] = {"sessions": tmp_path, "gateway_bot": none_left}
    with pytest.raises(SessionLimitReached) as caught:
        make_manager(gateway, **options).connect()
    assert caught.value.needed == 1
    options["gateway_bot"] = gateway_bot(gateway, remaining=1)
    with make_manager(gateway, **options, identify_gate=HeldGate()) as manager:
        manager.connect()
        wait_for_state(manager, lambda: "3 ready" in repr(manager), "resumed")


def test_a_budget_that_is_nearly_used_up_makes_shards_wait_and_resumes_go_on(
    gateway: LocalGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with make_manager(gateway, sessions=tmp_path) as manager:
        connect(manager)
    for shard_id in (0, 3):
        (tmp_path / f"shard-{shard_id}-of-4.json").unlink()
    monkeypatch.setattr("shardlib.startorder.LEAD", 0.05)
    monkeypatch.setattr("shardlib.patientgate._LONG_WAIT", 0.5)
    caplog.clear()
    with make_manager(
        gateway,
        sessions=tmp_path,
        identify_gate=IdentifyGate(2, 0.001, slack=0),
        gateway_bot=gateway_bot(gateway, remaining=50, reset_after=4.0),
    ) as manager:
        connected_at = time.monotonic()
        manager.connect()
        wait_for_state(manager, lambda: "2 ready" in repr(manager), "resumed")
        assert len(gateway.identifies) == 4
        manager.wait_until_ready(20)
        assert time.monotonic() - connected_at >= 4.0
    assert identified(gateway)[4:] == [0, 3]
    told = [each for each in caplog.records if "may identify" in each.getMessage()]
    assert [(each.name, each.levelno) for each in told] == [("shardlib.manager", logging.ERROR)]


# The log


def test_a_logger_of_the_users_takes_what_the_manager_and_its_shards_say(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("of.the.users")
    with make_manager(gateway, logger=logger) as manager:
        connect(manager)
        wait_until(lambda: "all 4 shards are ready" in caplog.text)
    names = {each.name for each in caplog.records if each.levelno >= logging.INFO}
    assert names == {"of.the.users"}


def test_a_slow_callback_of_the_managers_is_told_with_what_it_holds_up(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def warned() -> bool:
        return bool(warnings())

    def warnings() -> list[str]:
        # On a busy machine pytest's own log handler may be slow, too, and the identify gate.
        told = [each for each in list(caplog.messages) if "has been running for" in each]
        return [each for each in told if each.startswith("the callback ")]

    def slow(_: ShardManager) -> None:
        wait_until(warned)

    with make_manager(gateway, on_all_ready=slow, slow_callback=0.05) as manager:
        connect(manager)
        wait_until(warned)
    (line,) = warnings()
    assert " as on_all_ready, and no shard can be started meanwhile, and no session saved" in line


def test_connect_says_so_if_its_only_shard_is_closed_by_hand_before_a_socket_is_open(
    gateway: LocalGateway,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/"
        answer = gateway_bot(gateway, url=url, shards=1)
        manager = make_manager(gateway, gateway_bot=answer, close_timeout=0.2)
        connecting = in_background(manager.connect)
        wait_until(
            lambda: manager.shards and manager.shards[0].state is ShardState.CONNECTING,
        )
        manager.shards[0].disconnect()
        with pytest.raises(ShardClosed, match="closed by disconnect"):
            connecting.result(10)


def test_closing_ends_a_request_to_discord_that_begins_at_the_same_moment(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api_url = f"http://127.0.0.1:{silent.getsockname()[1]}"

        class LateRequest(GatewayBotRequest):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                manager.disconnect()

        monkeypatch.setattr("shardlib.manager.GatewayBotRequest", LateRequest)
        manager = make_manager(gateway, gateway_bot=None, api_url=api_url)
        manager.start()
        wait_until(lambda: not own_threads(), 15)


def test_a_thread_that_waits_for_all_shards_does_not_count_them_at_each_event(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_manager(gateway) as manager, manager.events("TYPING_START", timeout=10) as events:
        gateway.inject(instead_of="ready", shard_id=3, connections=None)
        manager.connect()
        wait_for_state(manager, lambda: "3 ready" in repr(manager), "three shards")
        counts, counted = manager._seen, []
        monkeypatch.setattr(manager, "_seen", lambda life: counted.append(1) or counts(life))
        waiting = in_background(manager.wait_until_ready)
        wait_until(lambda: counted)
        (guild_id,) = guilds_of(gateway, 0, 4)
        for number in range(100):
            gateway.dispatch("TYPING_START", {"n": number, "guild_id": guild_id})
            next(events)
        assert len(counted) < 10
    with pytest.raises(ShardClosed):
        waiting.result(10)
