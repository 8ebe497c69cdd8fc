"""Dispatchers: on which thread callbacks run, in what order, and what a saved session counts."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import logging
import os
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import Session, Shard, ShardClosed, ShardError
from shardlib.dispatch import Delivery, Dispatcher, Mailbox, Pool, Worker, backlog, room
from shardlib.dispatch import mailbox as mailbox_module
from shardlib.dispatch.threads import Threads
from shardlib.testing import LocalGateway
from tests.recorder import Recorder, dispatch_numbers
from tests.reliability.storms import list_spots, press_ctrl_c, traces_instructions
from tests.shards import await_heartbeats, make_gateway, make_shard
from tests.support import AT_ONCE, NEVER, TOKEN, Thread, in_background, not_none, wait_until

EVENTS = 200


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@contextlib.contextmanager
def connected(
    gateway: LocalGateway, recorder: Recorder | None = None, **options: Any
) -> Iterator[Shard]:
    shard = make_shard(recorder, **options)
    shard.connect(gateway.url)
    try:
        shard.wait_until_ready(10)
        yield shard
    finally:
        shard.disconnect()


@contextlib.contextmanager
def running(mailbox: Mailbox) -> Iterator[None]:
    """Run a mailbox on a thread of its own, as a program's loop does."""
    ends = threading.Event()

    def run() -> None:
        while not ends.is_set():
            mailbox.run_pending()
            time.sleep(0.001)

    thread = Thread(run)
    try:
        yield
    finally:
        ends.set()
        thread.finish()


def run_until(mailbox: Mailbox, condition: Callable[[], object]) -> None:
    """Run a mailbox on this thread until a condition holds."""

    def holds() -> object:
        mailbox.run_pending()
        return condition()

    wait_until(holds)


def settled_sequence(shard: Shard) -> int:
    """The sequence of the last event that the gateway sends by itself, once all is done with it."""
    wait_until(lambda: shard.stats.events["GUILD_CREATE"] == 1)
    wait_until(lambda: not_none(shard.session).sequence == shard.last_sequence)
    return not_none(shard.last_sequence)


def make_dispatchers() -> list[Dispatcher]:
    return [Worker(), Pool(), Pool(workers=1), Pool(key=lambda event, data: event)]


# Where, and in what order


def test_a_mailbox_calls_everything_on_the_thread_that_runs_it(gateway: LocalGateway) -> None:
    recorder, mailbox = Recorder(raw=True), Mailbox()
    with connected(gateway, recorder, dispatcher=mailbox):
        dispatch_numbers(gateway, range(EVENTS))
        run_until(mailbox, lambda: len(recorder.numbers()) == EVENTS)
    mailbox.run_pending()
    assert recorder.threads == {threading.current_thread().name}
    assert recorder.numbers() == list(range(EVENTS))
    assert recorder.calls[-1] == ("closed", None)
    recorder.check_order()


def test_nothing_is_called_until_the_mailbox_is_run(gateway: LocalGateway) -> None:
    recorder, mailbox = Recorder(), Mailbox()
    with connected(gateway, recorder, dispatcher=mailbox) as shard:
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: shard.stats.events["TYPING_START"] == 3)
        wait_until(lambda: len(mailbox) == shard.stats.waiting > 3)
        assert recorder.calls == []
        assert shard.stats.lag > 0


@pytest.mark.parametrize("index", range(4))
def test_threads_of_a_dispatcher_call_everything_and_end_with_the_shard(
    gateway: LocalGateway, index: int
) -> None:
    recorder, dispatcher = Recorder(), make_dispatchers()[index]
    with connected(gateway, recorder, dispatcher=dispatcher):
        dispatch_numbers(gateway, range(EVENTS))
        recorder.wait_for("dispatch", count=EVENTS)
        wait_until(lambda: len(recorder.numbers()) == EVENTS)
    assert recorder.calls[-1] == ("closed", None)
    assert not [each for each in threading.enumerate() if each.name.startswith("shardlib-")]
    assert all(name.startswith("shardlib-") for name in recorder.threads)
    assert sorted(recorder.numbers()) == list(range(EVENTS))
    recorder.check_order()


def test_a_worker_calls_in_order(gateway: LocalGateway) -> None:
    recorder = Recorder()
    with connected(gateway, recorder, dispatcher=Worker()):
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: len(recorder.numbers()) == EVENTS)
    assert recorder.numbers() == list(range(EVENTS))


def test_a_pool_calls_in_order_for_each_key_and_others_beside_them(gateway: LocalGateway) -> None:
    seen: list[tuple[int, int]] = []
    gate = threading.Event()

    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        if data["guild_id"] == 0:
            gate.wait(10)
        seen.append((data["guild_id"], data["n"]))

    pool = Pool(key=lambda event, data: data.get("guild_id"))
    with connected(gateway, dispatcher=pool) as shard:
        shard.on("TYPING_START", on_typing)
        for number in range(EVENTS):
            gateway.dispatch("TYPING_START", {"n": number, "guild_id": number % 4})
        wait_until(lambda: len(seen) == EVENTS * 3 // 4)
        gate.set()
        wait_until(lambda: len(seen) == EVENTS)
    for guild in range(4):
        assert [n for guild_id, n in seen if guild_id == guild] == list(range(guild, EVENTS, 4))


def test_a_pool_calls_no_more_at_once_than_it_has_workers(gateway: LocalGateway) -> None:
    inside, most = [0], [0]
    lock = threading.Lock()

    def on_typing(shard: Shard, data: Any) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        if most[0] < 3:
            time.sleep(0.01)  # gives the others the time to come in
        with lock:
            inside[0] -= 1

    pool = Pool(workers=3)
    with connected(gateway, dispatcher=pool) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: shard.stats.events["TYPING_START"] == EVENTS and not shard.stats.waiting)
    assert most == [3]


def test_callbacks_about_connections_run_alone_in_a_pool(gateway: LocalGateway) -> None:
    calls: list[str] = []
    gate = threading.Event()

    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        if data["n"] == 0:
            gate.wait(10)
        calls.append(f"event {data['n']}")

    def on_socket_disconnected(shard: Shard, code: int | None, closed_by_self: bool) -> None:
        calls.append("disconnected")

    with connected(
        gateway, dispatcher=Pool(), on_socket_disconnected=on_socket_disconnected
    ) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, range(2))
        wait_until(lambda: calls == ["event 1"])
        shard.reconnect()
        shard.wait_until_ready(10)
        dispatch_numbers(gateway, [2])
        wait_until(lambda: shard.stats.events["TYPING_START"] == 3)
        assert calls == ["event 1"]
        gate.set()
        wait_until(lambda: len(calls) == 4)
    assert calls[:4] == ["event 1", "event 0", "disconnected", "event 2"]


def test_an_executor_of_the_programs_own_is_used_and_left_running(gateway: LocalGateway) -> None:
    recorder = Recorder()
    with concurrent.futures.ThreadPoolExecutor(2, "own") as executor:
        with connected(gateway, recorder, dispatcher=Pool(executor=executor)):
            dispatch_numbers(gateway, range(EVENTS))
            wait_until(lambda: len(recorder.numbers()) == EVENTS)
        assert recorder.calls[-1] == ("closed", None)
        assert executor.submit(len, "abc").result() == 3
    assert all(name.startswith("own") for name in recorder.threads)


def test_shards_share_a_dispatcher_whose_thread_ends_with_the_last(gateway: LocalGateway) -> None:
    first, second, worker = Recorder(), Recorder(), Worker()
    with connected(gateway, first, dispatcher=worker):
        with connected(gateway, second, dispatcher=worker):
            pass
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: first.numbers() == [0, 1, 2])
        assert first.threads == second.threads == {"shardlib-worker"}
    assert not [each for each in threading.enumerate() if each.name == "shardlib-worker"]


def test_a_shard_that_connects_again_has_its_callbacks_called_again(gateway: LocalGateway) -> None:
    recorder, worker = Recorder(), Worker()
    shard = make_shard(recorder, dispatcher=worker)
    for _ in range(3):
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        shard.disconnect()
    assert recorder.count("closed") == 3
    recorder.check_order()


def test_a_first_connection_that_fails_leaves_no_thread() -> None:
    recorder = Recorder()
    shard = make_shard(recorder, dispatcher=Worker())
    with pytest.raises(ShardError):
        shard.connect("ws://127.0.0.1:9")
    assert recorder.besides_states == []


# Full


def test_a_full_mailbox_makes_the_shard_wait_and_loses_nothing(gateway: LocalGateway) -> None:
    gateway.heartbeat_interval = 1000
    recorder, mailbox = Recorder(), Mailbox(maxsize=10)
    with connected(gateway, recorder, dispatcher=mailbox) as shard:
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: len(mailbox) >= 10)
        connection = gateway.connections[-1]
        shard.heartbeat_in(100)
        await_heartbeats(connection, 15)  # more than the interval
        assert len(mailbox) < 20
        run_until(mailbox, lambda: len(recorder.numbers()) == EVENTS)
        assert shard.stats.connections == 1
    assert recorder.numbers() == list(range(EVENTS))


@pytest.mark.parametrize(
    ("overflow", "kept"),
    [("drop_oldest", range(EVENTS - 10, EVENTS)), ("drop_newest", range(10))],
)
def test_a_full_mailbox_drops_events_counts_and_tells(
    gateway: LocalGateway, overflow: str, kept: range, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    mailbox = Mailbox(maxsize=10, overflow=overflow)
    with connected(gateway, dispatcher=mailbox) as shard:
        shard.on("TYPING_START", lambda shard, data: seen.append(data["n"]))
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: shard.stats.events["TYPING_START"] == EVENTS)
        wait_until(lambda: shard.stats.dropped == EVENTS - 10)
        mailbox.run_pending()
        assert seen == list(kept)
        wait_until(lambda: not_none(shard.session).sequence == shard.last_sequence)
    assert any("an event was dropped" in message for message in caplog.messages)


def test_callbacks_about_connections_are_never_dropped(gateway: LocalGateway) -> None:
    recorder, mailbox = Recorder(), Mailbox(maxsize=1, overflow="drop_newest")
    with connected(gateway, recorder, dispatcher=mailbox) as shard:
        shard.reconnect()
        shard.wait_until_ready(10)
    mailbox.run_pending()
    kinds = [call[0] for call in recorder.life]
    assert kinds == ["connected", "ready", "disconnected", "connected", *kinds[4:]]
    assert kinds[4:] == ["reconnected", "disconnected", "closed"]


@pytest.mark.parametrize("make", [lambda: Worker(maxsize=5), lambda: Pool(workers=1, maxsize=5)])
def test_full_threads_make_the_shard_wait_and_lose_nothing(
    gateway: LocalGateway, make: Callable[[], Dispatcher]
) -> None:
    seen: list[int] = []
    gate = threading.Event()

    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        gate.wait(10)
        seen.append(data["n"])

    dispatcher: Any = make()
    with connected(gateway, dispatcher=dispatcher) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: len(dispatcher) >= 3)  # it is full, or was: the reader waits
        assert len(dispatcher) < 10
        gate.set()
        wait_until(lambda: len(seen) == EVENTS)
    assert seen == list(range(EVENTS))


# The program's own thread


def test_the_thread_that_runs_the_mailbox_disconnects_in_a_round_trip(
    gateway: LocalGateway,
) -> None:
    recorder, mailbox = Recorder(), Mailbox(maxsize=10)
    with connected(gateway, recorder, dispatcher=mailbox, close_timeout=NEVER) as shard:
        mailbox.run_pending()
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: len(mailbox) >= 10)
        since = time.monotonic()
        shard.disconnect()
        assert time.monotonic() - since < AT_ONCE
        assert shard.socket_thread is None
        assert recorder.count("closed") == 0
        mailbox.run_pending()
        assert recorder.calls[-1] == ("closed", None)
        assert mailbox.run_pending() == 0


def test_another_thread_that_disconnects_waits_for_the_mailbox_to_be_run(
    gateway: LocalGateway,
) -> None:
    recorder, mailbox = Recorder(), Mailbox()
    with running(mailbox), connected(gateway, recorder, dispatcher=mailbox) as shard:
        recorder.wait_for("ready")
        shard.disconnect()
        assert recorder.calls[-1] == ("closed", None)


def test_a_mailbox_that_no_thread_has_run_makes_no_disconnect_wait(gateway: LocalGateway) -> None:
    with connected(gateway, Recorder(), dispatcher=Mailbox(), close_timeout=20) as shard:
        since = time.monotonic()
        shard.disconnect()
        assert time.monotonic() - since < 15


@pytest.mark.parametrize("within", ["mailbox", "worker", "pool"])
def test_a_callback_may_wait_for_its_shard_behind_a_full_queue(
    gateway: LocalGateway, within: str
) -> None:
    dispatchers: dict[str, Any] = {
        "mailbox": Mailbox(maxsize=4),
        "worker": Worker(maxsize=4),
        "pool": Pool(workers=2, maxsize=4),
    }
    dispatcher = dispatchers[within]
    results: list[Any] = []

    def on_invite(shard: Shard, data: Any) -> None:
        full.wait(10)
        results.append(shard.wait_for("CHANNEL_DELETE", timeout=10))
        shard.reconnect()
        shard.wait_until_ready(10)
        results.append("ready")

    full = threading.Event()
    with contextlib.ExitStack() as stack:
        shard = stack.enter_context(connected(gateway, dispatcher=dispatcher))
        if isinstance(dispatcher, Mailbox):
            stack.enter_context(running(dispatcher))
        shard.on("INVITE_CREATE", on_invite)
        shard.on("TYPING_START", lambda shard, data: None)
        gateway.dispatch("INVITE_CREATE", {"guild_id": None})
        if within == "pool":  # both of its threads
            gateway.dispatch("INVITE_CREATE", {"guild_id": None})
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: len(dispatcher) >= 3)  # it is full, or was: the reader waits
        full.set()
        wait_until(lambda: shard.stats.events["TYPING_START"] == EVENTS)
        gateway.dispatch("CHANNEL_DELETE", {"n": 1, "guild_id": None})
        wait_until(lambda: "ready" in results)


def test_pending_is_run_within_bounds_and_wakes_the_loop_for_the_rest(
    gateway: LocalGateway,
) -> None:
    wakes: list[str] = []
    mailbox = Mailbox()
    mailbox.on_wake = lambda: wakes.append(threading.current_thread().name)
    with connected(gateway, dispatcher=mailbox) as shard:
        shard.on("TYPING_START", lambda shard, data: time.sleep(0.001))
        mailbox.run_pending()
        del wakes[:]
        dispatch_numbers(gateway, range(10))
        wait_until(lambda: len(mailbox) == 10)
        assert wakes == ["shard-0-reader"]
        assert mailbox.run_pending(max_events=0) == 0
        assert mailbox.run_pending(max_events=3) == 3
        assert wakes == ["shard-0-reader"] + ["MainThread"] * 2
        assert mailbox.run_pending(max_seconds=0) == 1
        assert mailbox.run_pending() == 6
        assert len(wakes) == 4
        dispatch_numbers(gateway, [1])
        wait_until(lambda: len(wakes) == 5)


def test_waking_begins_at_once_if_something_waits_already(gateway: LocalGateway) -> None:
    mailbox, wakes = Mailbox(), list[int]()
    with connected(gateway, Recorder(), dispatcher=mailbox):
        wait_until(lambda: len(mailbox))
        mailbox.on_wake = lambda: wakes.append(1)
        assert wakes == [1]


def test_running_within_a_callback_runs_nothing_and_another_thread_is_refused(
    gateway: LocalGateway,
) -> None:
    mailbox, results = Mailbox(), list[Any]()

    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        if data["n"] == 0:
            results.append(mailbox.run_pending())
            results.append(in_background(mailbox.run_pending).exception(10))
        results.append(data["n"])

    with connected(gateway, dispatcher=mailbox) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, range(2))
        run_until(mailbox, lambda: len(results) == 4)
    assert results[0] == 0
    assert isinstance(results[1], ShardError)
    assert results[2:] == [0, 1]


def test_a_life_that_ends_before_its_first_attempt_is_begun_and_ended(
    gateway: LocalGateway,
) -> None:
    told: list[str] = []

    class Telling(Dispatcher):
        def begin(self, shard: Shard) -> None:
            told.append("begin")

        def submit(self, delivery: Delivery) -> None:
            told.append("submit")
            delivery()

        def end(self, shard: Shard) -> None:
            told.append("end")

    def hold_reader(frame: types.FrameType, event: str, argument: object) -> None:
        if frame.f_code.co_name == "_connection_loop":
            wait_until(lambda: shard.socket_disconnecting)

    shard = make_shard(dispatcher=Telling(), on_socket_closed=lambda shard, error: None)
    threading.settrace(hold_reader)
    try:
        shard.start(gateway.url)
    finally:
        threading.settrace(None)
    shard.disconnect()
    assert told == ["begin", "submit", "submit", "end"]


def test_a_callback_may_send_behind_a_full_queue_though_the_connection_is_lost(
    gateway: LocalGateway,
) -> None:
    sent: list[bool] = []

    def on_invite(shard: Shard, data: Any) -> None:
        inside.set()
        full.wait(10)
        gateway.connections[-1].drop()
        while shard.stats.connections == 1:
            shard.update_presence(timeout=20)
        sent.append(True)

    inside, full = threading.Event(), threading.Event()
    worker = Worker(maxsize=4)
    with connected(gateway, dispatcher=worker) as shard:
        shard.on("INVITE_CREATE", on_invite)
        shard.on("TYPING_START", lambda shard, data: None)
        gateway.dispatch("INVITE_CREATE", {"guild_id": None})
        wait_until(inside.is_set)
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: len(worker) == 4)  # the reader waits
        full.set()
        wait_until(lambda: sent)


# Errors


@pytest.mark.parametrize("index", range(4))
def test_a_callback_that_fails_is_told_on_its_own_thread_and_the_rest_goes_on(
    gateway: LocalGateway, index: int, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()

    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        if data["n"] == 1:
            raise LookupError("one")

    dispatcher = make_dispatchers()[index]
    with connected(gateway, recorder, dispatcher=dispatcher) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: len(recorder.numbers()) == 3 and recorder.errors)
        wait_until(lambda: not_none(shard.session).sequence == shard.last_sequence)
    assert [str(error) for error in recorder.errors] == ["one"]
    assert all(name.startswith("shardlib-") for name in recorder.threads)
    assert any("on_typing failed" in message for message in caplog.messages)


@pytest.mark.parametrize("index", range(4))
def test_a_callback_that_exits_closes_the_shard_and_its_event_is_replayed_later(
    gateway: LocalGateway, index: int
) -> None:
    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        raise SystemExit(3)

    shard = make_shard(dispatcher=make_dispatchers()[index])
    shard.on("TYPING_START", on_typing)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    before = settled_sequence(shard)
    dispatch_numbers(gateway, [1])
    with pytest.raises(SystemExit):
        shard.join(10)
    assert not_none(shard.session).sequence == before


def test_an_exit_in_a_mailbox_goes_up_to_the_program_which_may_go_on(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        seen.append(data["n"])
        if data["n"] == 1:
            raise SystemExit(3)

    mailbox = Mailbox()
    with connected(gateway, dispatcher=mailbox) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: shard.stats.events["TYPING_START"] == 3 and len(mailbox) == 3)
        with pytest.raises(SystemExit):
            mailbox.run_pending()
        session = not_none(shard.session)
        assert session.sequence == not_none(shard.last_sequence) - 2
        assert not shard.socket_disconnecting
        mailbox.run_pending()
        assert seen == [0, 1, 2]
        assert not_none(shard.session).sequence == shard.last_sequence
        assert shard.stats.dropped == 1


def test_on_socket_error_is_no_work_of_the_reader_if_a_dispatcher_calls_it(
    gateway: LocalGateway,
) -> None:
    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        raise LookupError("one")

    def on_error(shard: Shard, error: Exception) -> None:
        # If this were taken for work of the reader, the predicate would count as a part of it.
        dispatch_numbers(gateway, [2])
        shard.wait_for("TYPING_START", lambda data: data["n"] == 2, timeout=10)
        raise SystemExit(3)

    mailbox = Mailbox()
    with connected(gateway, dispatcher=mailbox, on_socket_error=on_error) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, [1])
        wait_until(lambda: len(mailbox) == 1)
        with pytest.raises(SystemExit):
            mailbox.run_pending()
        assert not shard.socket_disconnecting
        assert shard.stats.callbacks["the predicate of a wait_for()"].count == 1


def test_a_session_counts_what_has_returned_whatever_the_order(gateway: LocalGateway) -> None:
    gates = [threading.Event() for _ in range(3)]
    done: list[int] = []

    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        gates[data["n"]].wait(10)
        done.append(data["n"])

    def saved(shard: Shard) -> Session:
        return not_none(shard.session)

    with connected(gateway, dispatcher=Pool()) as shard:
        shard.on("TYPING_START", on_typing)
        before = settled_sequence(shard)
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: shard.last_sequence == before + 3)
        gates[2].set()
        wait_until(lambda: done == [2])
        assert saved(shard).sequence == before
        gates[0].set()
        wait_until(lambda: saved(shard).sequence == before + 1)
        gates[1].set()
        wait_until(lambda: saved(shard).sequence == before + 3)


# Within callbacks


def test_a_callback_on_another_thread_may_disconnect_and_connect_again(
    gateway: LocalGateway,
) -> None:
    recorder = Recorder()
    again: list[bool] = []

    def on_socket_closed(shard: Shard, error: BaseException | None) -> None:
        if not again:
            again.append(True)
            shard.connect(gateway.url)

    def on_typing(shard: Shard, data: Any) -> None:
        shard.disconnect()

    shard = make_shard(recorder, dispatcher=Worker(), on_socket_closed=on_socket_closed)
    shard.on("TYPING_START", on_typing)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    dispatch_numbers(gateway, [1])
    wait_until(lambda: again and recorder.count("ready") == 2)
    shard.disconnect()


@pytest.mark.parametrize("method", ["join", "run_forever"])
def test_joining_in_a_callback_is_refused(gateway: LocalGateway, method: str) -> None:
    results: list[BaseException] = []

    def on_typing(shard: Shard, data: Any) -> None:
        try:
            getattr(shard, method)()
        except ShardError as error:
            results.append(error)

    with connected(gateway, dispatcher=Worker()) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, [1])
        wait_until(lambda: results)
    assert "in a callback" in str(results[0])


def test_a_listener_that_is_removed_is_not_called_for_events_that_wait(
    gateway: LocalGateway,
) -> None:
    seen: list[Any] = []

    def on_typing(shard: Shard, data: Any) -> None:
        seen.append(data)

    mailbox = Mailbox()
    with connected(gateway, dispatcher=mailbox) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, [1])
        wait_until(lambda: len(mailbox) == 1)
        shard.off("TYPING_START", on_typing)
        mailbox.run_pending()
    assert seen == []


def test_a_slow_worker_delays_no_reading(gateway: LocalGateway) -> None:
    gate = threading.Event()
    with connected(gateway, dispatcher=Worker()) as shard:
        shard.on("TYPING_START", lambda shard, data: gate.wait(10))
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: shard.stats.events["TYPING_START"] == EVENTS)
        gate.set()


def test_a_callback_that_does_not_return_holds_disconnect_for_close_timeout(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gate, inside = threading.Event(), threading.Event()

    def on_typing(shard: Shard, data: Any) -> None:
        inside.set()
        gate.wait(20)

    recorder = Recorder()
    with connected(gateway, recorder, dispatcher=Worker(), close_timeout=0.5) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, [1])
        inside.wait(10)
        since = time.monotonic()
        shard.disconnect()
        assert 0.4 < time.monotonic() - since < 15
        assert recorder.count("closed") == 0
        assert any("did not return in time" in message for message in caplog.messages)
        gate.set()
        recorder.wait_for("closed")


# Dispatchers of the user's


class Later(Dispatcher):
    """Keeps deliveries in a list."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def submit(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def count(self, event: str) -> int:
        """How many deliveries of an event are in the list."""
        return sum(each.event == event for each in list(self.deliveries))


def test_a_dispatcher_of_the_users_needs_submit_alone(gateway: LocalGateway) -> None:
    recorder, later = Recorder(), Later()
    with connected(gateway, recorder, dispatcher=later) as shard:
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: later.count("TYPING_START") == 3)
        for delivery in list(later.deliveries):
            delivery()
            delivery()  # twice does no harm
        assert recorder.numbers() == [0, 1, 2]
        last = later.deliveries[-1]
        assert (last.event, last.data["n"], last.shard) == ("TYPING_START", 2, shard)
        assert "TYPING_START" in repr(last)


def test_a_dispatcher_that_fails_is_told_and_the_shard_goes_on(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Later):
        def submit(self, delivery: Delivery) -> None:
            if delivery.event == "TYPING_START" and delivery.data["n"] == 0:
                raise LookupError("full up")
            super().submit(delivery)

    recorder, failing = Recorder(), Failing()
    with connected(gateway, recorder, dispatcher=failing) as shard:
        dispatch_numbers(gateway, range(2))
        wait_until(lambda: failing.count("TYPING_START") == 1)
        for delivery in list(failing.deliveries):
            delivery()
        assert recorder.numbers() == [1]
        assert shard.stats.dropped == 1
    assert "full up" in caplog.text


def test_a_dispatcher_that_fails_for_every_event_does_not_flood_the_log(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Dispatcher):
        def submit(self, delivery: Delivery) -> None:
            raise LookupError("full up")

    with connected(gateway, dispatcher=Failing()) as shard:
        shard.on("TYPING_START", lambda shard, data: None)
        dispatch_numbers(gateway, range(50))
        wait_until(lambda: shard.stats.dropped >= 50)
    assert sum("the dispatcher failed" in message for message in caplog.messages) == 3
    assert sum("dropped before" in message for message in caplog.messages) == 3
    assert sum(record.exc_info is not None for record in caplog.records) == 3


def test_a_dispatcher_without_submit_is_refused() -> None:
    class Idle(Dispatcher):
        pass

    with pytest.raises(TypeError, match=r"^dispatcher cannot be a Idle, .* no method submit\(\)"):
        make_shard(dispatcher=Idle())


def test_an_executor_that_was_shut_down_drops_and_tells(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    executor = concurrent.futures.ThreadPoolExecutor(2)
    with connected(gateway, dispatcher=Pool(executor=executor)) as shard:
        shard.on("TYPING_START", lambda shard, data: None)
        executor.shutdown()
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: shard.stats.dropped == 3)
        wait_until(lambda: not_none(shard.session).sequence == shard.last_sequence)
    assert any("dropped" in message for message in caplog.messages)


def test_a_key_that_fails_drops_the_event_and_tells(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def key(event: str, data: dict[str, Any]) -> Any:
        return {0: [], 1: "a"}[data["n"]] if event == "TYPING_START" else None

    with connected(gateway, dispatcher=Pool(key=key)) as shard:
        shard.on("TYPING_START", lambda shard, data: seen.append(data["n"]))
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: shard.stats.dropped == EVENTS - 1)
        wait_until(lambda: seen == [1])
    assert "unhashable" in caplog.text
    assert "KeyError" in caplog.text
    told = [message for message in caplog.messages if "submit() of the dispatcher" in message]
    assert len(told) == 3  # and later ones once a minute


def any_value(value: Any) -> Any:
    """A value whose type the type checker does not look at."""
    return value


def process_pool() -> Any:
    class ProcessPoolExecutor:
        def submit(self) -> None: ...

    return ProcessPoolExecutor()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Mailbox(maxsize=0), ValueError, "maxsize must be at least 1"),
        (lambda: Mailbox(maxsize=True), TypeError, "maxsize"),
        (lambda: Mailbox(overflow="drop"), ValueError, "drop_oldest"),
        (lambda: Mailbox().run_pending(max_events=-1), ValueError, "max_events"),
        (lambda: Mailbox().run_pending(max_seconds=-1), ValueError, "max_seconds"),
        (lambda: Worker(maxsize=any_value(1.5)), TypeError, "maxsize"),
        (lambda: Pool(workers=0), ValueError, "workers must be at least 1"),
        (lambda: Pool(key=any_value(len)), TypeError, "key"),
        (lambda: Pool(executor=any_value(object())), TypeError, "submit"),
        (lambda: Pool(executor=process_pool()), TypeError, "other processes"),
        (lambda: make_shard(dispatcher="mailbox"), TypeError, "Mailbox, a Worker or a Pool"),
        (lambda: setattr(Mailbox(), "on_wake", 3), TypeError, "on_wake"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    make: Callable[[], object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make()


# Fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("kind", [Mailbox, Worker, Pool])
def test_a_forked_child_calls_none_of_the_parents_callbacks(
    gateway: LocalGateway, kind: Callable[[], Any]
) -> None:
    gate = threading.Event()
    dispatcher = kind()
    with connected(gateway, dispatcher=dispatcher) as shard:
        shard.on("TYPING_START", lambda shard, data: gate.wait(10))
        dispatch_numbers(gateway, range(20))
        wait_until(lambda: shard.stats.events["TYPING_START"] == 20)
        if isinstance(dispatcher, Mailbox):
            wait_until(lambda: len(dispatcher) == 20)
        child = os.fork()
        if child == 0:
            left = dispatcher.run_pending() if isinstance(dispatcher, Mailbox) else len(dispatcher)
            os._exit(left)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        gate.set()
        if isinstance(dispatcher, Mailbox):
            assert dispatcher.run_pending() >= 20


def test_the_end_of_a_shard_with_an_error_is_told_by_join(gateway: LocalGateway) -> None:
    recorder = Recorder()
    with connected(gateway, recorder, dispatcher=Worker()) as shard:
        gateway.connections[-1].close(4004)
        with pytest.raises(ShardClosed):
            shard.join(10)
        assert recorder.calls[-1][0] == "closed"


def test_a_mailbox_whose_thread_has_ended_makes_no_disconnect_wait(gateway: LocalGateway) -> None:
    logging.getLogger("shardlib").setLevel(logging.INFO)
    mailbox = Mailbox()
    with connected(gateway, Recorder(), dispatcher=mailbox, close_timeout=20) as shard:
        in_background(mailbox.run_pending).result(10)
        wait_until(lambda: not mailbox.is_running())
        since = time.monotonic()
        shard.disconnect()
        assert time.monotonic() - since < 15


# What a program survives


def test_an_interrupt_at_any_line_of_a_mailbox_loses_no_sequence(gateway: LocalGateway) -> None:
    """Ctrl-C may come between two lines: no event may stay outstanding for ever, or come twice."""
    own = {mailbox_module.__file__, backlog.__file__, room.__file__}
    lines = 0

    def interrupt(frame: types.FrameType, kind: str, value: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in own:
            return None
        if kind == "line":
            lines -= 1
            if lines == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return interrupt

    mailbox = Mailbox()
    with connected(gateway, dispatcher=mailbox) as shard:
        numbers: list[int] = []
        shard.on("TYPING_START", lambda shard, data: numbers.append(data["n"]))
        for line in itertools.count(1):
            dispatch_numbers(gateway, [line])
            wait_until(lambda: shard.stats.events["TYPING_START"] == line and len(mailbox) == 1)
            lines, before = line, sys.gettrace()
            sys.settrace(interrupt)
            try:
                assert mailbox.run_pending() == 1
                break
            except KeyboardInterrupt:
                mailbox.run_pending()
            finally:
                sys.settrace(before)
            assert not_none(shard.session).sequence == shard.last_sequence
            assert len(numbers) + shard.stats.dropped == line
        assert line > 10


@traces_instructions
def test_ctrl_c_at_any_point_of_a_mailbox_leaves_its_thread_outside_of_any_callback(
    gateway: LocalGateway,
) -> None:
    mailbox = Mailbox()
    with connected(gateway, dispatcher=mailbox) as shard:
        shard.on("TYPING_START", lambda shard, data: None)
        sent = itertools.count(1)

        def send() -> None:
            dispatch_numbers(gateway, [next(sent)])
            wait_until(lambda: len(mailbox))

        send()
        spots = list_spots(mailbox.run_pending)[1]
        pressed = 0
        for spot in spots:
            send()
            pressed += press_ctrl_c(spot, mailbox.run_pending)
            with pytest.raises(TimeoutError):  # and not ShardError, as in a callback
                shard.join(0)
        assert pressed > 10


def test_threads_that_are_let_go_twice_are_still_waited_for() -> None:
    """Two threads of a pool may find at the same moment that nothing is left to do."""
    threads = Threads("pool", 1)
    may_end = threading.Event()
    threads.submit(may_end.wait)
    threads.end()
    threads.end()
    joining = in_background(threads.join, None)
    assert not concurrent.futures.wait([joining], 0.05).done
    may_end.set()
    joining.result(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_runs_a_mailbox_that_the_parents_thread_was_running(gateway: LocalGateway) -> None:
    """The child has no thread that is in run_pending(), whichever thread has forked."""
    mailbox, runs, goes_on = Mailbox(), threading.Event(), threading.Event()

    def on_typing(shard: Shard, data: Any) -> None:
        runs.set()
        goes_on.wait(10)

    with connected(gateway, dispatcher=mailbox) as shard, running(mailbox):
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, [1])
        assert runs.wait(10)
        child = os.fork()
        if child == 0:
            try:
                os._exit(mailbox.run_pending())
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        goes_on.set()


def test_a_loop_is_awakened_for_what_an_exception_has_left_behind(gateway: LocalGateway) -> None:
    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        if data["n"] == 0:
            raise KeyboardInterrupt

    mailbox, wake = Mailbox(), threading.Event()
    with connected(gateway, dispatcher=mailbox) as shard:
        shard.on("TYPING_START", on_typing)
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: len(mailbox) == 3)
        mailbox.on_wake = wake.set
        wake.clear()
        with pytest.raises(KeyboardInterrupt):
            mailbox.run_pending()
        assert wake.is_set()


def test_a_wake_function_that_fails_is_told_and_loses_no_event(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("no loop")

    mailbox, seen = Mailbox(), []
    with connected(gateway, dispatcher=mailbox) as shard:
        shard.on("TYPING_START", lambda shard, data: seen.append(data["n"]))
        mailbox.on_wake = fail
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: shard.stats.events["TYPING_START"] == 3 and len(mailbox) == 3)
        mailbox.run_pending()
        assert seen == [0, 1, 2]
        assert shard.stats.dropped == 0
    assert any("flush() of the dispatcher failed" in message for message in caplog.messages)


def test_an_event_that_an_exit_has_ended_holds_no_later_session_back(
    gateway: LocalGateway,
) -> None:
    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        if data["n"] == 1:
            raise SystemExit(3)

    shard = make_shard(dispatcher=Worker())
    shard.on("TYPING_START", on_typing)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    settled_sequence(shard)
    dispatch_numbers(gateway, [1])
    with pytest.raises(SystemExit):
        shard.join(10)
    shard.connect(gateway.url)
    with shard:
        shard.wait_until_ready(10)
        dispatch_numbers(gateway, [2])
        wait_until(lambda: shard.stats.events["TYPING_START"] == 2)
        wait_until(lambda: not_none(shard.session).sequence == shard.last_sequence)
        assert shard.stats.waiting == 0


@pytest.mark.parametrize("dispatcher", [Worker(), Pool()], ids=["worker", "pool"])
def test_a_callback_that_does_not_return_holds_join_no_longer_than_disconnect(
    gateway: LocalGateway, dispatcher: Dispatcher
) -> None:
    goes_on = threading.Event()
    shard = make_shard(dispatcher=dispatcher, close_timeout=0.3)
    runs = threading.Event()

    def on_typing(shard: Shard, data: Any) -> None:
        runs.set()
        goes_on.wait(20)

    shard.on("TYPING_START", on_typing)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    dispatch_numbers(gateway, [1])
    assert runs.wait(10)
    joined = in_background(shard.join)
    try:
        shard.disconnect()
        joined.result(10)
    finally:
        goes_on.set()


def test_join_does_not_wait_for_a_mailbox_whose_thread_waits_for_join(
    gateway: LocalGateway,
) -> None:
    mailbox = Mailbox()
    shard = make_shard(dispatcher=mailbox, close_timeout=0.3)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    mailbox.run_pending()
    joined = in_background(shard.join)
    shard.disconnect()
    joined.result(10)


@pytest.mark.parametrize("dispatcher", [Worker(maxsize=2), Pool(maxsize=2)], ids=["worker", "pool"])
def test_a_system_without_threads_drops_events_and_the_shard_goes_on(
    gateway: LocalGateway, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("shardlib-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    recorder = Recorder()
    with connected(gateway, recorder, dispatcher=dispatcher) as shard:
        dispatch_numbers(gateway, range(10))
        wait_until(lambda: shard.stats.events["TYPING_START"] == 10)
        wait_until(lambda: not_none(shard.session).sequence == shard.last_sequence)
        assert recorder.numbers() == []
        monkeypatch.undo()
        dispatch_numbers(gateway, [10])
        wait_until(lambda: recorder.numbers() == [10])
        wait_until(lambda: not_none(shard.session).sequence == shard.last_sequence)
    assert recorder.count("closed") == 1


@pytest.mark.parametrize("dispatcher", ["Worker()", "Pool(workers=2)"])
def test_callbacks_that_wait_at_exit_are_called_and_closed_comes_last(
    gateway: LocalGateway, dispatcher: str
) -> None:
    program = f"""
import sys, time
from shardlib import Intents, Shard
from shardlib.dispatch import Pool, Worker

def closed(shard, error):
    time.sleep(0.05)
    print("closed", flush=True)

shard = Shard(sys.argv[1], Intents.all(), dispatcher={dispatcher}, on_socket_closed=closed)
shard.on("READY", lambda shard, data: time.sleep(0.05))
shard.connect(sys.argv[2])
shard.wait_until_ready(10)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, TOKEN, gateway.url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "closed\n", "")


@pytest.mark.parametrize("dispatcher", [Worker(), Pool()], ids=["worker", "pool"])
def test_a_thread_begins_with_the_shard_since_python_may_begin_none_at_exit(
    gateway: LocalGateway, dispatcher: Dispatcher
) -> None:
    with connected(gateway, dispatcher=dispatcher):
        assert any(thread.name.startswith("shardlib-") for thread in threading.enumerate())


def test_of_threads_that_run_a_mailbox_at_the_same_moment_one_is_let_in(
    gateway: LocalGateway,
) -> None:
    inside, most, seen = 0, 0, []

    def on_typing(shard: Shard, data: dict[str, Any]) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        seen.append(data["n"])
        inside -= 1

    def run() -> None:
        while len(seen) < EVENTS:
            with contextlib.suppress(ShardError):
                mailbox.run_pending(max_events=1)

    mailbox = Mailbox()
    before = sys.getswitchinterval()
    with connected(gateway, dispatcher=mailbox) as shard:
        shard.on("TYPING_START", on_typing)
        sys.setswitchinterval(1e-6)
        try:
            threads = [Thread(run) for _ in range(3)]
            dispatch_numbers(gateway, range(EVENTS))
            for thread in threads:
                thread.finish()
        finally:
            sys.setswitchinterval(before)
    assert (most, seen) == (1, list(range(EVENTS)))


def test_a_delivery_that_several_threads_call_is_called_once(gateway: LocalGateway) -> None:
    seen: list[int] = []

    class Twice(Later):
        def submit(self, delivery: Delivery) -> None:
            barrier = threading.Barrier(2)

            def call() -> None:
                barrier.wait(10)
                delivery()

            for thread in [Thread(call) for _ in range(2)]:
                thread.finish()

    with connected(gateway, dispatcher=Twice()) as shard:
        shard.on("TYPING_START", lambda shard, data: seen.append(data["n"]))
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: shard.stats.events["TYPING_START"] == EVENTS)
        wait_until(lambda: not_none(shard.session).sequence == shard.last_sequence)
    assert seen == list(range(EVENTS))


def test_keys_that_cannot_be_compared_drop_the_event_alone(gateway: LocalGateway) -> None:
    class Key:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise LookupError("not comparable")

    recorder, gate = Recorder(), threading.Event()
    pool = Pool(key=lambda event, data: Key() if event == "TYPING_START" else event)
    with connected(gateway, recorder, dispatcher=pool) as shard:
        shard.on("TYPING_START", lambda shard, data: gate.wait(10))
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: shard.stats.dropped == 2)
        gate.set()
        wait_until(lambda: not_none(shard.session).sequence == shard.last_sequence)
    assert recorder.calls[-1] == ("closed", None)


def test_a_new_connection_that_is_asked_for_waits_for_no_full_mailbox(
    gateway: LocalGateway,
) -> None:
    seen: list[int] = []
    mailbox = Mailbox(maxsize=4)
    with connected(gateway, dispatcher=mailbox) as shard:
        shard.on("TYPING_START", lambda shard, data: seen.append(data["n"]))
        dispatch_numbers(gateway, range(EVENTS))
        wait_until(lambda: len(mailbox) >= 4)
        in_background(shard.reconnect).result(10)
        run_until(mailbox, lambda: len(seen) == EVENTS)
    assert seen == list(range(EVENTS))
