"""Events of all shards: listeners, wait_for(), events(), dispatchers, and the counters."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from shardlib import Shard, ShardError, ShardManager, ShardState
from shardlib.dispatch import Mailbox, Pool, Worker
from shardlib.testing import LocalGateway
from tests.managers import connect, gateway_bot, guilds_of, make_gateway, make_manager
from tests.recorder import Recorder
from tests.support import Thread, in_background, not_none, wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


def dispatch(gateway: LocalGateway, shard_id: int, number: int = 0) -> None:
    """Have one shard of four receive an event with a number."""
    (guild_id,) = guilds_of(gateway, shard_id, 4)
    gateway.dispatch("TYPING_START", {"n": number, "guild_id": guild_id})


class Heard:
    """What a listener was called with: the shard's number, and that of the event."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.threads: set[str] = set()

    def __call__(self, shard: Shard, data: Any) -> None:
        self.calls.append((shard.shard_id, data["n"]))
        self.threads.add(threading.current_thread().name)


# Listeners


def test_a_listener_hears_all_shards_from_before_connect_on(gateway: LocalGateway) -> None:
    heard = Heard()
    with make_manager(gateway) as manager:
        assert manager.on("typing_start", heard) is heard
        connect(manager)
        for shard_id in range(4):
            dispatch(gateway, shard_id)
        wait_until(lambda: sorted(heard.calls) == [(shard_id, 0) for shard_id in range(4)])
    assert heard.threads == {f"shard-{shard_id}-reader" for shard_id in range(4)}


def test_a_listener_may_come_and_go_while_it_runs(gateway: LocalGateway) -> None:
    heard, other = Heard(), Heard()
    with make_manager(gateway) as manager:
        connect(manager)
        manager.on("TYPING_START")(heard)
        manager.on("TYPING_START", other)
        for shard_id in range(4):
            dispatch(gateway, shard_id)
        wait_until(lambda: len(heard.calls) == len(other.calls) == 4)
        manager.off("Typing_Start", heard)
        for shard_id in range(4):
            dispatch(gateway, shard_id, 1)
        wait_until(lambda: len(other.calls) == 8)
        assert len(heard.calls) == 4
        with pytest.raises(ValueError, match="does not listen to TYPING_START"):
            manager.off("TYPING_START", heard)


def test_shards_that_are_made_later_are_listened_to_as_well(gateway: LocalGateway) -> None:
    heard, counts = Heard(), iter([4, 4, 8])

    def answer() -> Any:
        return gateway_bot(gateway, shards=next(counts))

    with make_manager(gateway, gateway_bot=answer) as manager:
        manager.on("TYPING_START", heard)
        connect(manager)
        manager.close()
        connect(manager)
        manager.close()
        connect(manager)
        gateway.dispatch("TYPING_START", {"n": 7, "guild_id": str(7 << 22)})
        wait_until(lambda: heard.calls == [(7, 7)])


def test_a_listener_of_one_shard_alone_can_be_taken_away_from_all(gateway: LocalGateway) -> None:
    heard = Heard()
    with make_manager(gateway) as manager:
        manager.on("TYPING_START", heard)
        connect(manager)
        manager.shards[1].off("TYPING_START", heard)
        dispatch(gateway, 1)
        dispatch(gateway, 2)
        wait_until(lambda: heard.calls == [(2, 0)])
        manager.off("TYPING_START", heard)


def test_many_threads_register_while_shards_are_made(gateway: LocalGateway) -> None:
    heard = Heard()
    manager = make_manager(gateway)
    barrier = threading.Barrier(9)

    def register() -> None:
        barrier.wait()
        for _ in range(20):
            manager.on("TYPING_START", heard)

    threads = [Thread(register) for _ in range(8)]
    with manager:
        barrier.wait()
        connect(manager)
        for thread in threads:
            thread.finish()
        for shard_id in range(4):
            dispatch(gateway, shard_id)
        wait_until(lambda: Counter(heard.calls) == dict.fromkeys(((i, 0) for i in range(4)), 160))


def test_each_shard_has_every_callback(gateway: LocalGateway) -> None:
    recorder = Recorder(raw=True)
    with make_manager(gateway, recorder) as manager:
        connect(manager)
        wait_until(lambda: recorder.count("dispatch") >= 8)
    assert recorder.count("connected") == recorder.count("ready") == 4
    assert recorder.count("closed", None) == 4
    assert recorder.count("raw_message") >= recorder.count("text") == recorder.count("dispatch")


# wait_for()


def test_the_first_event_of_any_shard_ends_a_wait(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        for shard_id in (3, 0):
            waiting = in_background(manager.wait_for, "typing_start", lambda data: data["n"] == 5)
            for number in itertools.cycle([4, 5]):
                if waiting.done():
                    break
                dispatch(gateway, shard_id, number)
            assert waiting.result(0)["n"] == 5  # type: ignore[index]


def test_a_wait_that_runs_out_says_how_many_shards_are_ready(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        with pytest.raises(TimeoutError, match="no TYPING_START came within 0.01 seconds; 4 of 4"):
            manager.wait_for("TYPING_START", timeout=0.01)


def test_an_iterator_whose_time_runs_out_says_which_shards_are_late(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="ready", shard_id=3, connections=None)
    with make_manager(gateway) as manager, manager.events("TYPING_START", timeout=0.01) as events:
        manager.connect()
        wait_until(lambda: "3 ready" in repr(manager))
        wait_until(lambda: manager.shards[3].state is ShardState.IDENTIFYING)
        with pytest.raises(TimeoutError, match="3 of 4 are ready; shard 3 is identifying$"):
            next(events)


def test_what_a_predicate_raises_is_raised_by_the_wait(gateway: LocalGateway) -> None:
    def fail(data: Any) -> bool:
        raise LookupError("mine")

    with make_manager(gateway) as manager:
        connect(manager)
        waiting = in_background(manager.wait_for, "TYPING_START", fail)
        while not waiting.done():
            dispatch(gateway, 2)
        with pytest.raises(LookupError, match="mine"):
            waiting.result(0)
        assert "4 ready" in repr(manager)


def test_a_wait_before_the_shards_are_made_hears_them(gateway: LocalGateway) -> None:
    asked, answer = threading.Event(), threading.Event()

    def ask() -> Any:
        asked.set()
        answer.wait(10)
        return gateway_bot(gateway)

    with make_manager(gateway, gateway_bot=ask) as manager:
        manager.start()
        assert asked.wait(10)
        waiting = in_background(manager.wait_for, "READY")
        wait_until(lambda: manager._waiters)
        answer.set()
        assert waiting.result(10)["v"] == 10  # type: ignore[index]


def test_close_ends_a_wait(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        waiting = in_background(manager.wait_for, "TYPING_START")
        wait_until(lambda: manager._waiters)
        manager.close()
        with pytest.raises(ShardError):
            waiting.result(10)
        assert manager._waiters == []


def test_a_wait_in_a_callback_or_before_connect_is_refused(gateway: LocalGateway) -> None:
    refused: list[Exception] = []

    def ready(shard: Shard) -> None:
        try:
            manager.wait_for("TYPING_START")
        except ShardError as error:
            refused.append(error)

    manager: ShardManager = make_manager(gateway, on_socket_ready=ready)
    with pytest.raises(ShardError, match="never connected"):
        manager.wait_for("TYPING_START")
    with manager:
        connect(manager)
        wait_until(lambda: len(refused) == 4)
    assert "in a callback" in str(refused[0])


# events()


def test_events_of_all_shards_come_in_the_order_of_each(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        events = manager.events("TYPING_START", timeout=10)
        connect(manager)
        for number in range(25):
            for shard_id in range(4):
                dispatch(gateway, shard_id, number)
        got = list(itertools.islice(events, 100))
    for shard_id in range(4):
        numbers = [each.data["n"] for each in got if each.shard.shard_id == shard_id]
        assert numbers == list(range(25))


def test_several_threads_take_each_event_once(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        events = manager.events("TYPING_START")
        taken: list[tuple[int, int]] = []

        def take() -> None:
            for event in events:
                taken.append((event.shard.shard_id, event.data["n"]))

        takers = [Thread(take) for _ in range(4)]
        for number in range(100):
            for shard_id in range(4):
                dispatch(gateway, shard_id, number)
        wait_until(lambda: len(taken) == 400)
        manager.close()
        for taker in takers:
            taker.finish()
    assert sorted(taken) == [(shard_id, n) for shard_id in range(4) for n in range(100)]


def test_every_iterator_gets_every_event(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        iterators = [manager.events("TYPING_START", timeout=10) for _ in range(3)]
        for shard_id in range(4):
            dispatch(gateway, shard_id)
        for events in iterators:
            assert {event.shard.shard_id for event in itertools.islice(events, 4)} == {0, 1, 2, 3}


def test_a_full_queue_holds_all_shards_up_and_loses_nothing(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        events = manager.events("TYPING_START", maxsize=4, timeout=10)
        for number in range(50):
            for shard_id in range(4):
                dispatch(gateway, shard_id, number)
        wait_until(lambda: manager.stats.waiting >= 4)
        assert manager.stats.events["TYPING_START"] < 20
        got = Counter(event.shard.shard_id for event in itertools.islice(events, 200))
    assert got == dict.fromkeys(range(4), 50)


def test_a_full_queue_that_nothing_empties_holds_up_no_close(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        events = manager.events(maxsize=1)
        for shard_id in range(4):
            for number in range(5):
                dispatch(gateway, shard_id, number)
        wait_until(lambda: manager.stats.waiting >= 1)
        in_time = in_background(manager.close)
        assert in_time.result(10) is None
        assert events is not None


def test_events_end_with_the_manager_and_begin_with_the_next_life(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        events = manager.events("TYPING_START")
        dispatch(gateway, 1, 3)
        assert next(events).data["n"] == 3
        manager.close()
        assert list(events) == []
        with manager.events("TYPING_START", timeout=10) as later:
            connect(manager)
            dispatch(gateway, 1, 4)
            assert next(later).data["n"] == 4


def test_an_error_that_closes_all_is_raised_by_the_iteration(gateway: LocalGateway) -> None:
    manager = connect(make_manager(gateway))
    events = manager.events("TYPING_START")
    for connection in gateway.connections:
        connection.close(4014)
    with pytest.raises(ShardError, match="4014"):
        next(events)


def test_a_closed_iterator_is_forgotten(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        for _ in range(3):
            with manager.events():
                pass
        events = manager.events()
        assert len(manager._queues) == 1
        events.close()


# Dispatchers


@pytest.mark.parametrize("kind", [Worker, Pool])
def test_one_dispatcher_calls_the_callbacks_of_all_shards_and_the_managers(
    gateway: LocalGateway, kind: Any
) -> None:
    heard, ready = Heard(), list[str]()
    with make_manager(
        gateway,
        dispatcher=kind(),
        on_all_ready=lambda _: ready.append(threading.current_thread().name),
    ) as manager:
        manager.on("TYPING_START", heard)
        connect(manager)
        for number in range(10):
            for shard_id in range(4):
                dispatch(gateway, shard_id, number)
        wait_until(lambda: len(heard.calls) == 40 and ready)
    assert not [each for each in (*heard.threads, *ready) if each.startswith("shard-")]
    for shard_id in range(4):
        numbers = [number for each, number in heard.calls if each == shard_id]
        assert sorted(numbers) == list(range(10))
        assert kind is Pool or numbers == list(range(10))


def test_a_mailbox_calls_everything_on_the_thread_that_runs_it(gateway: LocalGateway) -> None:
    mailbox, heard, ready = Mailbox(), Heard(), list[str]()
    with make_manager(
        gateway,
        dispatcher=mailbox,
        on_all_ready=lambda _: ready.append(threading.current_thread().name),
    ) as manager:
        manager.on("TYPING_START", heard)
        connect(manager)
        for shard_id in range(4):
            dispatch(gateway, shard_id)

        def run() -> bool:
            mailbox.run_pending()
            return len(heard.calls) == 4 and bool(ready)

        wait_until(run)
    assert {*heard.threads, *ready} == {threading.current_thread().name}


def test_on_all_ready_on_a_dispatchers_thread_may_wait_for_events(gateway: LocalGateway) -> None:
    got: list[Any] = []

    def all_ready(manager: ShardManager) -> None:
        got.append(manager.wait_for("TYPING_START", timeout=10))

    with make_manager(gateway, dispatcher=Worker(), on_all_ready=all_ready) as manager:
        connect(manager)
        while not got:
            dispatch(gateway, 2)


def test_join_on_a_dispatchers_thread_is_refused(gateway: LocalGateway) -> None:
    refused: list[ShardError] = []

    def wait(*_: Any) -> None:
        for method in (manager.join, manager.run_forever, manager.restart):
            try:
                method()
            except ShardError as error:
                refused.append(error)

    manager = make_manager(gateway, dispatcher=Worker(), on_all_ready=wait, on_socket_ready=wait)
    with manager:
        connect(manager)
        wait_until(lambda: len(refused) == 15)
    assert {"in a callback" in str(each) for each in refused} == {True}


# Counters


def test_the_counters_are_the_sums_of_the_shards(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        assert manager.stats.shards == {}
        assert manager.stats.connections == 0
        connect(manager)
        for shard_id in range(4):
            for number in range(shard_id):
                dispatch(gateway, shard_id, number)
        wait_until(lambda: manager.stats.events["TYPING_START"] == 6)
        stats = manager.stats
        assert stats.connections == 4
        assert stats.events["READY"] == 4
        assert {key: each.stats.events["TYPING_START"] for key, each in stats.shards.items()} == {
            0: 0,
            1: 1,
            2: 2,
            3: 3,
        }
        assert stats.messages == sum(each.stats.messages for each in stats.shards.values())
        assert {each.state for each in stats.shards.values()} == {ShardState.READY}
        ids = {key: each.session_id for key, each in stats.shards.items()}
        assert ids == {each.shard[0]: each.session_id for each in gateway.sessions}
        manager.restart()
        assert manager.stats.resumes == manager.stats.reconnects == 4


def test_the_ping_of_each_shard_is_shown(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        for shard in manager.shards.values():
            shard.heartbeat(requested=True)
        wait_until(lambda: all(each.ping is not None for each in manager.stats.shards.values()))
        assert all(not_none(each.ping) >= 0 for each in manager.stats.shards.values())
