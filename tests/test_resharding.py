"""reshard() under traffic: an oracle knows every event that the gateway has issued."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.reshard import EVENT, Ledger, guild_ids, make_gateway, make_manager
from shardlib import (
    GatewayBot,
    Intents,
    InvalidShard,
    Shard,
    ShardError,
    ShardingRequired,
    ShardManager,
    ShardsFailed,
    ShardsInUse,
    ShardState,
    running_shards,
)
from shardlib.dispatch import Dispatcher, Mailbox, Pool, Worker
from shardlib.shardgroup import ShardGroup
from shardlib.shardlocks import ShardLocks
from shardlib.testing import GatewayConnection, GatewaySession, LocalGateway
from tests.managers import gateway_bot, make_gate
from tests.reliability.storms import list_spots, press_ctrl_c, traces_instructions
from tests.support import AT_ONCE, TOKEN, in_background, wait_until

RATE = 500.0
TIMEOUT = 30.0  # seconds that a busy machine may take


class Bot(NamedTuple):
    """A manager whose shards are READY, under traffic."""

    gateway: LocalGateway
    manager: ShardManager
    ledger: Ledger

    def sessions(self, shard_count: int) -> list[GatewaySession]:
        """The sessions of a shard count that can go on."""
        return [each for each in self.gateway.sessions if each.shard[1] == shard_count]

    def await_events(self, how_many: int = 50) -> None:
        """Wait until so many more events were issued."""
        wanted = self.ledger.figures().issued + how_many
        wait_until(lambda: self.ledger.figures().issued >= wanted, TIMEOUT)


@contextlib.contextmanager
def connected(
    shard_count: int,
    *,
    gateway_options: dict[str, Any] | None = None,
    prepare: Callable[[LocalGateway], object] = lambda gateway: None,
    listener: Callable[[Ledger], Callable[[Any, Any], object]] | None = None,
    created: collections.Counter[str] | None = None,
    **options: Any,
) -> Iterator[Bot]:
    """A bot without traffic. The ledger gets what the manager's listeners get, or `listener`.

    :param created: counts by guild each GUILD_CREATE that follows those of the beginning.
    """
    with make_gateway(token=TOKEN, **gateway_options or {}) as gateway:
        prepare(gateway)
        manager = make_manager(gateway, shard_count, **options)
        ledger = Ledger(gateway)
        manager.on(EVENT, ledger.listener if listener is None else listener(ledger))
        if created is not None:
            manager.on("GUILD_CREATE", lambda shard, data: created.update([data["id"]]))
        with manager:
            manager.connect()
            manager.wait_until_ready(TIMEOUT)
            if created is not None:
                wait_until(lambda: len(created) == len(guild_ids(gateway)), TIMEOUT)
                created.clear()
            yield Bot(gateway, manager, ledger)


@contextlib.contextmanager
def under_traffic(shard_count: int, **options: Any) -> Iterator[Bot]:
    """A bot under traffic from several threads; at the end no event may be missing."""
    with connected(shard_count, **options) as bot:
        with bot.ledger.traffic(RATE, guild_ids(bot.gateway)):
            bot.await_events()
            yield bot
            bot.await_events()
        check(bot)


def check(bot: Bot) -> None:
    figures = bot.ledger.await_all()
    assert (figures.lost, figures.doubled, figures.out_of_order) == (0, 0, 0), figures
    assert figures.issued > 0
    assert figures.unreachable == 0


class Stall:
    """Keeps a new shard from its READY, and so the switch from coming.

    :param shard_id: of the new shard; one that no old shard has.
    """

    def __init__(self, gateway: LocalGateway, shard_id: int) -> None:
        self._connections: list[GatewayConnection] = []
        gateway.inject(self._connections.append, instead_of="ready", shard_id=shard_id)

    def wait(self) -> None:
        wait_until(lambda: self._connections, TIMEOUT)

    def end(self) -> None:
        self._connections[0].proceed()


@contextlib.contextmanager
def in_the_middle(bot: Bot, shard_count: int) -> Iterator[None]:
    """Reshard; the block runs while all new shards but the last are READY and hold events."""
    stall = Stall(bot.gateway, shard_count - 1)
    outcome = in_background(bot.manager.reshard, shard_count)
    stall.wait()
    wait_until(lambda: len(bot.sessions(shard_count)) == shard_count - 1, TIMEOUT)
    bot.await_events()
    yield
    bot.await_events()
    assert not outcome.done()
    stall.end()
    outcome.result(TIMEOUT)
    assert bot.manager.shard_count == shard_count == len(bot.manager.shards)


# The switch


@pytest.mark.parametrize(("old", "new"), [(4, 8), (8, 4), (3, 5), (1, 2)])
def test_no_event_is_lost_doubled_or_out_of_order(old: int, new: int) -> None:
    with under_traffic(old) as bot:
        bot.manager.reshard(new, timeout=TIMEOUT)
        assert bot.manager.shard_count == new
        assert len(bot.sessions(old)) == 0


def test_shards_that_were_replaced_never_connect_again() -> None:
    """Beside the new ones they would deliver every event a second time."""
    outcomes: list[str] = []

    def start_again(shard: Shard, error: BaseException | None) -> None:
        if shard.shard_count == 2:
            with pytest.raises(ShardError) as caught:
                shard.start(bot.gateway.url)
            outcomes.append(str(caught.value))

    with under_traffic(2, on_socket_closed=start_again) as bot:
        old = list(bot.manager.shards.values())
        bot.manager.reshard(4, timeout=TIMEOUT)
        refusal = "reshard() has replaced this shard"
        assert len(outcomes) == 2 and all(refusal in each for each in outcomes)
        shard = old[0]
        for connect in (shard.start, shard.connect, shard.run_forever):
            with pytest.raises(ShardError, match=re.escape(refusal)):
                connect(bot.gateway.url)
        for connect_again in (shard.reconnect, shard.reinstantiate):
            with pytest.raises(ShardError, match=re.escape(refusal)):
                connect_again()
        assert not set(old) & set(running_shards())


def test_events_that_come_while_new_shards_wait_for_others_are_delivered_by_the_old() -> None:
    with under_traffic(4) as bot, in_the_middle(bot, 8):
        before = bot.ledger.figures()
        wait_until(lambda: bot.ledger.figures().received > before.received + 50, TIMEOUT)


def test_old_shards_that_are_behind_deliver_what_they_have_received() -> None:
    go_on = threading.Event()
    go_on.set()

    def make_listener(ledger: Ledger) -> Callable[[Any, Any], object]:
        def listener(shard: Shard, data: Any) -> None:
            go_on.wait(TIMEOUT)
            ledger.receive(data)

        return listener

    with under_traffic(4, listener=make_listener) as bot:
        go_on.clear()
        outcome = in_background(bot.manager.reshard, 8)
        wait_until(lambda: len(bot.sessions(8)) == 8, TIMEOUT)
        bot.await_events(500)  # a second's
        assert not outcome.done()
        go_on.set()
        outcome.result(TIMEOUT)


def test_an_old_shard_that_has_no_connection_is_waited_for() -> None:
    """Its Resume brings what it has missed, though Hello's interval is long."""
    with under_traffic(4, gateway_options={"heartbeat_interval": 41_250}) as bot:
        stalled: list[GatewayConnection] = []
        with in_the_middle(bot, 8):
            bot.gateway.inject(stalled.append, instead_of="replay", shard_id=2)
            [session] = [each for each in bot.sessions(4) if each.shard[0] == 2]
            assert session.connection is not None
            session.connection.reset()
            wait_until(lambda: stalled, TIMEOUT)
            threading.Timer(0.5, lambda: stalled[0].proceed()).start()


# Where callbacks run


@pytest.mark.parametrize(
    "make_dispatcher",
    [
        Worker,
        lambda: Pool(4, key=lambda event, data: data.get("guild_id")),
        lambda: Worker(maxsize=20),
    ],
    ids=["worker", "pool by guild", "short worker"],
)
def test_a_dispatcher_gets_every_event_once(make_dispatcher: Callable[[], Dispatcher]) -> None:
    with under_traffic(4, dispatcher=make_dispatcher()) as bot:
        bot.manager.reshard(8, timeout=TIMEOUT)
        bot.manager.reshard(4, timeout=TIMEOUT)


@pytest.mark.slow
def test_a_pool_that_keeps_events_back_gets_no_later_ones_of_their_guild() -> None:
    """It keeps them back behind on_socket_batch, which runs alone of its shard's callbacks."""

    def make_listener(ledger: Ledger) -> Callable[[Any, Any], object]:
        def listener(shard: Shard, data: Any) -> None:
            time.sleep(0.002)
            ledger.receive(data)

        return listener

    with under_traffic(
        4,
        listener=make_listener,
        dispatcher=Pool(4, key=lambda event, data: data.get("guild_id")),
        on_socket_batch=lambda shard, count: time.sleep(0.01),
    ) as bot:
        bot.await_events(100)
        bot.manager.reshard(8, timeout=TIMEOUT)


@pytest.mark.parametrize(
    "make_dispatcher",
    [lambda: Worker(maxsize=5), lambda: Pool(1, maxsize=5)],
    ids=["worker", "pool"],
)
def test_a_callback_that_a_dispatcher_calls_may_reshard(
    make_dispatcher: Callable[[], Dispatcher],
) -> None:
    """Though the old shards wait for room in its queue, which its only thread makes."""
    with under_traffic(4, dispatcher=make_dispatcher()) as bot:
        done = threading.Event()

        def reshard(shard: Shard, data: Any) -> None:
            bot.manager.reshard(8, timeout=TIMEOUT)
            done.set()

        bot.manager.on("TYPING_START", reshard)
        guild = guild_ids(bot.gateway)[0]
        bot.gateway.dispatch("TYPING_START", {"guild_id": guild, "user_id": "1"})
        assert done.wait(TIMEOUT)


def test_a_mailbox_gets_every_event_once_if_its_own_thread_reshards() -> None:
    """Though the old shards wait for room in the mailbox, which only that thread makes."""
    mailbox = Mailbox(maxsize=5)
    with connected(4, dispatcher=mailbox) as bot:
        mailbox.run_pending()  # on this thread from now on
        with bot.ledger.traffic(RATE, guild_ids(bot.gateway)):
            bot.await_events()
            bot.manager.reshard(8, timeout=TIMEOUT)
        while bot.ledger.figures().lost:
            mailbox.run_pending(max_seconds=0.1)
        check(bot)
        bot.manager.disconnect()
        mailbox.run_pending()


def test_an_iterator_goes_on_over_the_switch() -> None:
    with connected(4) as bot:
        ledger = Ledger(bot.gateway)
        with bot.manager.events(EVENT, maxsize=20) as events:

            def take() -> None:
                for event in events:
                    ledger.receive(event.data)

            taking = in_background(take)
            with ledger.traffic(RATE, guild_ids(bot.gateway)):
                time.sleep(0.1)
                bot.manager.reshard(8, timeout=TIMEOUT)
                time.sleep(0.1)
            check(Bot(bot.gateway, bot.manager, ledger))
        taking.result(TIMEOUT)


def test_wait_for_goes_on_over_the_switch() -> None:
    with connected(4) as bot:
        waiting = in_background(bot.manager.wait_for, EVENT, lambda data: data["id"] == "x", 30)
        bot.manager.reshard(8, timeout=TIMEOUT)
        assert not waiting.done()
        bot.gateway.dispatch(EVENT, {"id": "x", "guild_id": guild_ids(bot.gateway)[0]})
        assert waiting.result(TIMEOUT) == {"id": "x", "guild_id": guild_ids(bot.gateway)[0]}


@pytest.mark.parametrize("callback", ["on_socket_dispatch", "on_socket_text"])
def test_callbacks_for_all_events_get_each_once(callback: str) -> None:
    seen: collections.Counter[str] = collections.Counter()

    def note(text: bytes) -> None:
        seen[str(text)] += 1

    def on_text(shard: Shard, event: str, sequence: int, text: bytes) -> None:
        if event == EVENT:
            note(text[text.index(b'"d":') :])

    def on_dispatch(shard: Shard, payload: dict[str, Any]) -> None:
        if payload["t"] == EVENT:
            note(payload["d"]["id"])

    function: Any = on_text if callback == "on_socket_text" else on_dispatch
    with under_traffic(4, **{callback: function}) as bot:
        bot.manager.reshard(8, timeout=TIMEOUT)
    assert set(seen.values()) == {1}
    assert len(seen) == bot.ledger.figures().issued


# Faults meanwhile


@pytest.mark.parametrize("shard_count", [4, 8], ids=["old", "new"])
def test_connections_that_are_lost_meanwhile_lose_no_event(shard_count: int) -> None:
    """A new shard's held events are in the session, too, of which its Resume goes on."""
    with under_traffic(4) as bot, in_the_middle(bot, 8):
        for session in bot.sessions(shard_count):
            if session.connection is not None:
                session.connection.reset()
        wait_until(lambda: all(each.resumes for each in bot.sessions(shard_count)), TIMEOUT)


def test_new_shards_whose_sessions_are_lost_meanwhile_lose_no_event() -> None:
    """The old ones deliver what comes until the new ones have sessions again."""
    with under_traffic(4) as bot, in_the_middle(bot, 8):
        lost = bot.sessions(8)
        for session in lost:
            bot.gateway.lose_session(session, close_code=4009)
        wait_until(
            lambda: (
                len(set(bot.sessions(8)) - set(lost)) == 7 and not set(lost) & set(bot.sessions(8))
            ),
            TIMEOUT,
        )


def test_an_old_shard_whose_session_is_lost_meanwhile_loses_no_event() -> None:
    """What it misses comes late, by the new shards: it may be out of order."""
    with connected(4) as bot:
        with bot.ledger.traffic(RATE, guild_ids(bot.gateway)):
            bot.await_events()
            with in_the_middle(bot, 8):
                # Shard 3's guilds are those of the new shards 3 and 7, of which 7 stalls.
                [session] = [each for each in bot.sessions(4) if each.shard[0] == 2]
                bot.gateway.lose_session(session, close_code=4009)
                wait_until(lambda: len(set(bot.sessions(4)) - {session}) == 4, TIMEOUT)
            bot.await_events()
        figures = bot.ledger.await_all()
    assert (figures.lost, figures.doubled) == (0, 0)


@pytest.mark.parametrize("code", [4010, 4011, 4014])
def test_a_new_shard_that_is_refused_leaves_the_old_ones(code: int) -> None:
    with under_traffic(4) as bot:
        bot.gateway.inject(
            lambda connection: connection.close(code), instead_of="ready", shard_id=6
        )
        with pytest.raises(ShardsFailed):
            bot.manager.reshard(8, timeout=TIMEOUT)
        assert bot.manager.shard_count == 4
        assert len(bot.sessions(8)) == 0


def test_system_exit_in_a_callback_of_a_new_shard_closes_all() -> None:
    def leave(shard: Shard) -> None:
        if shard.shard_count == 4:
            raise SystemExit(3)

    with connected(2, on_socket_ready=leave) as bot:
        with pytest.raises(SystemExit):
            bot.manager.reshard(4)
        with pytest.raises(SystemExit):
            bot.manager.join(10)
        wait_until(lambda: bot.gateway.connections == [])


@pytest.mark.slow
def test_a_new_shard_that_is_never_ready_leaves_the_old_ones() -> None:
    with under_traffic(4) as bot:
        bot.gateway.inject(instead_of="ready", shard_id=5)
        with pytest.raises(TimeoutError, match="7 of 8 new shards were ready in time"):
            bot.manager.reshard(8, timeout=5.0)
        assert bot.manager.shard_count == 4
        bot.await_events()
        bot.manager.reshard(8, timeout=TIMEOUT)


def test_new_shards_that_are_ready_before_they_are_waited_for_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy machine may hold the thread up between the look at the shards and the wait."""
    start_due = ShardGroup.start_due

    def start_slowly(group: ShardGroup) -> float | None:
        wait = start_due(group)
        if wait is None:
            begun = [shard for shard in group.shards.values() if shard.was_begun]
            wait_until(lambda: all(shard.is_ready for shard in begun), TIMEOUT)
        return wait

    with connected(2) as bot:
        monkeypatch.setattr(ShardGroup, "start_due", start_slowly)
        in_background(bot.manager.reshard, 4).result(TIMEOUT)


def test_disconnect_in_the_middle_closes_old_and_new_shards() -> None:
    with connected(4) as bot:
        stall = Stall(bot.gateway, 7)
        outcome = in_background(bot.manager.reshard, 8)
        stall.wait()
        began = time.monotonic()
        bot.manager.disconnect()
        assert time.monotonic() - began < AT_ONCE
        with pytest.raises(ShardError, match="disconnect"):
            outcome.result(TIMEOUT)
        bot.gateway.wait_until(lambda: not bot.gateway.connections, TIMEOUT)


def test_a_reshard_that_ends_late_takes_no_lock_from_the_life_that_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = ShardLocks.release
    may_release = threading.Event()
    resharding: list[int] = []

    def release_late(*arguments: Any) -> None:
        if threading.get_ident() in resharding:
            assert may_release.wait(TIMEOUT)
        release(*arguments)

    monkeypatch.setattr(ShardLocks, "release", release_late)
    with make_gateway(token=TOKEN) as gateway:
        recommended = [2]
        manager = ShardManager(
            TOKEN,
            Intents.all(),
            sessions=tmp_path,
            gateway_bot=lambda: gateway_bot(gateway, shards=recommended[0]),
            identify_gate=make_gate(gateway),
        )

        def reshard() -> None:
            resharding.append(threading.get_ident())
            manager.reshard()

        with manager:
            manager.connect()
            manager.wait_until_ready(TIMEOUT)
            recommended[0] = 4
            stall = Stall(gateway, 3)
            outcome = in_background(reshard)
            stall.wait()
            manager.close()
            stall.end()
            manager.connect()
            manager.wait_until_ready(TIMEOUT)
            may_release.set()
            with pytest.raises(ShardError, match="disconnect"):
                outcome.result(TIMEOUT)
            with pytest.raises(ShardsInUse):
                make_manager(gateway, 4, sessions=tmp_path).connect()


def test_disconnect_in_the_middle_of_on_resharding_needed_does_not_wait_for_it() -> None:
    with make_gateway(token=TOKEN, max_guilds_per_shard=3, guilds=24) as gateway:
        stall = Stall(gateway, 7)
        manager = make_manager(
            gateway,
            4,
            gateway_bot=GatewayBot(gateway.url, 8, 10_000, 10_000, 0.0, 16),
            on_resharding_needed=ShardManager.reshard,
        )
        manager.start()
        stall.wait()
        began = time.monotonic()
        manager.disconnect()
        assert time.monotonic() - began < AT_ONCE
        assert manager.join(10) is None


def interrupt_main() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_in_the_middle_leaves_the_old_shards() -> None:
    with under_traffic(4) as bot:
        stall = Stall(bot.gateway, 7)

        def interrupt() -> None:
            stall.wait()
            interrupt_main()

        interrupting = in_background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            bot.manager.reshard(8)
        interrupting.result(TIMEOUT)
        assert bot.manager.shard_count == 4
        bot.gateway.wait_until(lambda: len(bot.sessions(8)) == 0, TIMEOUT)


def test_ctrl_c_while_the_old_shards_close_leaves_the_new_ones() -> None:
    def never_answer_close(gateway: LocalGateway) -> None:
        gateway.inject(instead_of="close", connections=4)

    with under_traffic(4, prepare=never_answer_close) as bot:

        def interrupt() -> None:
            wait_until(lambda: bot.manager.shard_count == 8, TIMEOUT)
            interrupt_main()

        interrupting = in_background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            bot.manager.reshard(8)
        interrupting.result(TIMEOUT)
        assert bot.manager.shard_count == 8


# Calls


def reshard_to_the_other_count(bot: Bot) -> None:
    """Reshard from 1 shard to 2, or back."""
    assert bot.manager.shard_count is not None
    bot.manager.reshard(3 - bot.manager.shard_count, timeout=TIMEOUT)


@traces_instructions
def test_ctrl_c_at_any_point_of_the_switch_leaves_shards_that_run_and_deliver() -> None:
    with connected(1, gateway_options={"guilds": 1}, close_timeout=10.0) as bot:
        (guild,) = guild_ids(bot.gateway)
        numbers: list[int] = []
        bot.manager.on("TYPING_START", lambda shard, data: numbers.append(data["n"]))
        reshard = functools.partial(reshard_to_the_other_count, bot)
        spots = [
            spot
            for spot in list_spots(reshard)[1]
            if re.match("run|_move|_settle|_take_place|_go_on|_adopt|publish", spot.function)
        ]
        pressed = 0
        for number, spot in enumerate(spots):
            pressed += press_ctrl_c(spot, reshard)
            bot.manager.wait_until_ready(TIMEOUT)
            bot.gateway.dispatch("TYPING_START", {"guild_id": guild, "n": number})
            wait_until(lambda last=number: last in numbers, TIMEOUT, f"an event, after {spot}")  # type: ignore[misc]
            shard_count = len(bot.manager.shards)
            assert bot.gateway.wait_until(
                lambda wanted=shard_count: len(bot.gateway.connections) == wanted,  # type: ignore[misc]
                TIMEOUT,
            ), spot
        assert numbers == list(range(len(spots)))
        assert pressed > 10


@traces_instructions
def test_ctrl_c_while_shards_are_unlocked_leaves_none_locked(tmp_path: Path) -> None:
    with connected(1, gateway_options={"guilds": 1}, sessions=tmp_path) as bot:
        reshard = functools.partial(reshard_to_the_other_count, bot)
        spots = [
            spot
            for spot in list_spots(reshard)[1]
            if spot.file == "shardlocks.py" or spot.function in ("_reshard", "run_to_its_end")
        ]
        pressed = 0
        for spot in spots:
            pressed += press_ctrl_c(spot, reshard)
            bot.manager.wait_until_ready(TIMEOUT)
        assert pressed > 10
        bot.manager.close()
    for shard_count in (1, 2):
        locks = ShardLocks(str(tmp_path), lambda *arguments: None)
        locks.acquire(tmp_path, range(shard_count), shard_count)
        locks.release(tmp_path)


@traces_instructions
def test_ctrl_c_at_any_point_of_a_call_keeps_no_later_one_from_resharding() -> None:
    with connected(1) as bot:

        def reshard() -> None:
            bot.manager.reshard(1)  # there is nothing to do

        spots = list_spots(reshard)[1]
        pressed = 0
        for spot in spots:
            pressed += press_ctrl_c(spot, reshard)
            reshard()
        assert pressed > 10


def test_on_resharding_needed_may_reshard_and_tells_of_guilds_that_had_no_shard() -> None:
    created: collections.Counter[str] = collections.Counter()
    with make_gateway(token=TOKEN, min_shards=8) as gateway:
        manager = make_manager(
            gateway,
            4,
            gateway_bot=GatewayBot(gateway.url, 8, 10_000, 10_000, 0.0, 16),
            on_resharding_needed=ShardManager.reshard,
        )
        manager.on("GUILD_CREATE", lambda shard, data: created.update([data["id"]]))
        with manager:
            manager.start()
            wait_until(lambda: manager.shard_count == 8, TIMEOUT)
            wait_until(lambda: len(created) == len(guild_ids(gateway)), TIMEOUT)
    assert set(created.values()) == {1}


@pytest.mark.parametrize("make_dispatcher", [Worker, lambda: Pool(4)], ids=["worker", "pool"])
def test_on_resharding_needed_may_reshard_on_a_dispatchers_thread(
    make_dispatcher: Callable[[], Dispatcher],
) -> None:
    with make_gateway(token=TOKEN, min_shards=8) as gateway:
        manager = make_manager(
            gateway,
            4,
            gateway_bot=GatewayBot(gateway.url, 8, 10_000, 10_000, 0.0, 16),
            on_resharding_needed=ShardManager.reshard,
            dispatcher=make_dispatcher(),
        )
        # One shard is refused, so that the others run on.
        with contextlib.suppress(InvalidShard), manager:
            gateway.min_shards = 1
            manager.connect()
            manager.wait_until_ready(TIMEOUT)
            gateway.min_shards = 8
            with contextlib.suppress(ShardingRequired):  # the refusal may come before the return
                manager.shards[2].reinstantiate(no_fail=True)
            wait_until(lambda: manager.shard_count == 8, TIMEOUT)


def test_a_shard_that_was_closed_by_4011_keeps_no_other_from_resharding() -> None:
    created: collections.Counter[str] = collections.Counter()
    with connected(4, created=created) as bot:
        bot.gateway.min_shards = 8
        with contextlib.suppress(ShardError):
            bot.manager.shards[2].reinstantiate()
        wait_until(lambda: bot.manager.shards[2].state is ShardState.CLOSED, TIMEOUT)
        own = [each for each in guild_ids(bot.gateway) if (int(each) >> 22) % 4 == 2]
        others = [each for each in guild_ids(bot.gateway) if each not in own]
        with bot.ledger.traffic(RATE, others):
            bot.await_events()
            bot.manager.reshard(8, timeout=TIMEOUT)
            bot.await_events()
        with bot.ledger.traffic(RATE, own):
            bot.await_events()
        check(bot)
    assert created == dict.fromkeys(own, 1)


def test_a_second_call_meanwhile_is_refused() -> None:
    with under_traffic(4) as bot, in_the_middle(bot, 8):
        with pytest.raises(ShardError, match="resharding already"):
            bot.manager.reshard(8)


def test_a_call_in_a_callback_of_a_shard_is_refused() -> None:
    outcomes: list[BaseException] = []
    with connected(4) as bot:

        def reshard(shard: Shard, data: Any) -> None:
            try:
                bot.manager.reshard(8)
            except BaseException as error:
                outcomes.append(error)

        bot.manager.on("TYPING_START", reshard)
        guild = guild_ids(bot.gateway)[0]
        bot.gateway.dispatch("TYPING_START", {"guild_id": guild, "user_id": "1"})
        wait_until(lambda: outcomes, TIMEOUT)
    assert isinstance(outcomes[0], ShardError)
    assert "in a callback" in str(outcomes[0])


def test_the_sessions_of_the_new_shards_are_kept_and_those_of_the_old_deleted(
    tmp_path: Path,
) -> None:
    with under_traffic(4, sessions=tmp_path) as bot:
        wait_until(lambda: len(list(tmp_path.glob("*of-4*.json"))) == 4, TIMEOUT)
        bot.manager.reshard(8, timeout=TIMEOUT)
        wait_until(lambda: len(list(tmp_path.glob("*of-8*.json"))) == 8, TIMEOUT)
        wait_until(lambda: not list(tmp_path.glob("*of-4*.json")), TIMEOUT)
        identifies = len(bot.gateway.identifies)
        bot.manager.close()
        bot.manager.connect()
        bot.manager.wait_until_ready(TIMEOUT)
        assert len(bot.gateway.identifies) == identifies


def test_the_saved_session_of_a_new_shard_is_not_ahead_of_what_was_delivered() -> None:
    """If the process ends during the switch, a Resume brings what the new shard holds."""
    readies: list[Shard] = []
    with under_traffic(4, on_socket_ready=readies.append) as bot, in_the_middle(bot, 8):
        for shard in readies:
            if shard.shard_count == 8:
                assert shard.session is not None
                assert shard.session.sequence == 1 < (shard.last_sequence or 0)


# Events that are alike, and GUILD_CREATE


@pytest.mark.parametrize("shard_count", [8, 2])
def test_events_that_are_alike_to_the_letter_are_delivered_as_often_as_they_came(
    shard_count: int,
) -> None:
    seen: collections.Counter[str] = collections.Counter()
    with connected(4) as bot:
        bot.manager.on("TYPING_START", lambda shard, data: seen.update([data["guild_id"]]))
        guilds = guild_ids(bot.gateway)
        sent = 0

        def type_once() -> None:
            nonlocal sent
            sent += 1
            for guild in guilds:
                bot.gateway.dispatch("TYPING_START", {"guild_id": guild, "user_id": "1"})

        for _ in range(3):
            type_once()
        outcome = in_background(bot.manager.reshard, shard_count)
        while not outcome.done():
            type_once()
            time.sleep(0.2)  # a moment without events, which shows what is which
        outcome.result()
        for _ in range(3):
            type_once()
        for guild in guilds:
            bot.ledger.issue(guild)  # comes behind the rest
        check(bot)
    assert seen == dict.fromkeys(guilds, sent)


def test_the_guilds_that_ready_lists_are_told_once() -> None:
    created: collections.Counter[str] = collections.Counter()
    with make_gateway(token=TOKEN) as gateway, make_manager(gateway, 4) as manager:
        manager.on("GUILD_CREATE", lambda shard, data: created.update([data["id"]]))
        manager.connect()
        manager.wait_until_ready(TIMEOUT)
        manager.reshard(8, timeout=TIMEOUT)
        wait_until(lambda: len(created) == len(guild_ids(gateway)), TIMEOUT)
    assert set(created.values()) == {1}


def test_a_guild_that_is_new_meanwhile_is_told_once() -> None:
    created: collections.Counter[str] = collections.Counter()
    with under_traffic(4, created=created) as bot:
        new = [str((int(each) >> 22) + 1000 << 22) for each in guild_ids(bot.gateway)]
        with in_the_middle(bot, 8):
            for number, guild in enumerate(new):
                for session in bot.gateway.sessions:  # each sees it in its own way
                    if (int(guild) >> 22) % session.shard[1] == session.shard[0]:
                        seen_by = {"id": guild, "n": number, "as": list(session.shard)}
                        session.dispatch("GUILD_CREATE", seen_by)
        wait_until(lambda: len(created) == len(new), TIMEOUT)
    assert created == dict.fromkeys(new, 1)


def test_a_guild_whose_outage_ends_after_the_switch_is_told() -> None:
    """READY has listed it, and no GUILD_CREATE has followed: without the intent none does."""
    created: list[str] = []
    intents = Intents.all() & ~Intents.GUILDS
    with make_gateway(token=TOKEN) as gateway, make_manager(gateway, 4, intents) as manager:
        manager.on("GUILD_CREATE", lambda shard, data: created.append(data["id"]))
        manager.connect()
        manager.wait_until_ready(TIMEOUT)
        manager.reshard(8, timeout=TIMEOUT)
        guild = guild_ids(gateway)[5]
        [session] = [each for each in gateway.sessions if each.shard == (5, 8)]
        session.dispatch("GUILD_CREATE", {"id": guild})
        wait_until(lambda: created == [guild], TIMEOUT)


def test_it_waits_for_guilds_that_come_late_after_ready() -> None:
    created: collections.Counter[str] = collections.Counter()
    with under_traffic(4, created=created) as bot:
        bot.gateway.inject(lambda each: each.slow(5_000), before="ready", shard_id=6)
        bot.manager.reshard(8, timeout=TIMEOUT)
    assert not created
