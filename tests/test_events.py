"""events(): an iterator over a shard's events, for a thread that asks for one after another."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from shardlib import (
    AuthenticationFailed,
    ConnectionFailed,
    Event,
    Events,
    Shard,
    ShardError,
)
from shardlib.testing import LocalGateway
from tests.reliability.storms import list_spots, press_ctrl_c, traces_instructions
from tests.reliability.support import Child
from tests.shards import make_gateway, make_shard
from tests.support import AT_ONCE, NEVER, in_background, not_none, wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@pytest.fixture
def shard(gateway: LocalGateway) -> Iterator[Shard]:
    with make_shard(close_timeout=NEVER) as shard:
        shard.connect(gateway.url)
        wait_until(lambda: shard.session and shard.session.sequence == 2)  # READY, GUILD_CREATE
        yield shard


def send(gateway: LocalGateway, *numbers: int, event: str = "USER_UPDATE") -> None:
    for number in numbers:
        gateway.dispatch(event, {"n": number})


def numbers(events: list[Event]) -> list[int]:
    return [event.data["n"] for event in events]


def waiting(events: Events) -> int:
    """How many events wait in the iterator's queue."""
    return len(events._queue)


def fill(gateway: LocalGateway, events: Events) -> None:
    """Send more events than the iterator takes, until the reader waits."""
    send(gateway, *range(events._queue.maxsize + 5))
    wait_until(lambda: events._queue.held)


# What it yields


def test_events_come_in_order_from_the_moment_the_iterator_is_made(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE")
    send(gateway, *range(100))
    assert numbers([next(events) for _ in range(100)]) == list(range(100))


def test_an_event_has_a_name_its_data_its_sequence_and_the_shard(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("user_update")
    send(gateway, 7)
    event = next(events)
    assert event == Event("USER_UPDATE", {"n": 7}, not_none(shard.last_sequence), shard)
    name, data, sequence, own = event
    assert (name, own) == ("USER_UPDATE", shard)


def test_of_several_names_each_event_comes_once_and_no_others(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE", "user_update", "WEBHOOKS_UPDATE")
    send(gateway, 1)
    send(gateway, 2, event="TYPING_START")
    send(gateway, 3, event="WEBHOOKS_UPDATE")
    send(gateway, 4)
    assert numbers([next(events) for _ in range(3)]) == [1, 3, 4]


def test_without_names_all_events_come(gateway: LocalGateway) -> None:
    with make_shard() as shard, shard.events(timeout=10) as events:
        shard.connect(gateway.url)
        assert [next(events).name for _ in range(2)] == ["READY", "GUILD_CREATE"]
        send(gateway, 1)
        send(gateway, 2, event="A_NEW_EVENT")
        assert numbers([next(events), next(events)]) == [1, 2]


def test_listeners_and_other_iterators_get_what_they_got_before(
    gateway: LocalGateway, shard: Shard
) -> None:
    heard: list[int] = []
    shard.on("USER_UPDATE", lambda shard, data: heard.append(data["n"]))
    with shard.events("USER_UPDATE") as one, shard.events() as other:
        send(gateway, *range(20))
        assert numbers([next(one) for _ in range(20)]) == list(range(20))
        assert numbers([next(other) for _ in range(20)]) == list(range(20))
    send(gateway, 20)
    wait_until(lambda: heard == list(range(21)))


@pytest.fixture
def hasty_interpreter() -> Iterator[None]:
    """Switch threads as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_interpreter")
def test_each_event_goes_to_one_of_the_threads_that_share_an_iterator(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE", maxsize=50)
    got: list[list[int]] = [[], [], []]

    def take(into: list[int]) -> None:
        into.extend(event.data["n"] for event in events)

    threads = [in_background(take, into) for into in got]
    for number in range(200):  # each wakes all of them
        send(gateway, number)
        wait_until(lambda: sum(map(len, got)) > number)
    send(gateway, *range(200, 2000))
    wait_until(lambda: sum(map(len, got)) >= 2000)
    shard.disconnect()
    for thread in threads:
        thread.result(10)
    assert sorted(itertools.chain(*got)) == list(range(2000))
    assert all(each == sorted(each) for each in got)


# Arguments


def test_names_are_checked_as_those_of_listeners(
    shard: Shard, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="MESSAGE_CREATE"):
        shard.events("message")
    with pytest.raises(TypeError, match="names must be of type str"):
        shard.events(["MESSAGE_CREATE"])  # type: ignore[arg-type]
    with shard.events("MESSAGE_CREATED"):
        pass
    assert any("did you mean MESSAGE_CREATE?" in each.getMessage() for each in caplog.records)


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("timeout", -1, ValueError),
        ("timeout", "1", TypeError),
        ("maxsize", 0, ValueError),
        ("maxsize", 1.5, TypeError),
        ("maxsize", True, TypeError),
    ],
)
def test_unusable_arguments_are_refused(
    argument: str, value: Any, error: type[Exception], shard: Shard
) -> None:
    with pytest.raises(error, match=argument):
        shard.events("USER_UPDATE", **{argument: value})
    events = shard.events("USER_UPDATE")
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_events"):
            events.poll(wrong)
    with pytest.raises(TypeError, match="max_events"):
        events.poll("1")  # type: ignore[arg-type]


def test_its_repr_says_which_events_and_how_many_wait(gateway: LocalGateway, shard: Shard) -> None:
    events = shard.events("USER_UPDATE", "READY")
    assert repr(events) == "<Events USER_UPDATE, READY: 0 waiting>"
    send(gateway, 1, 2)
    wait_until(lambda: repr(events) == "<Events USER_UPDATE, READY: 2 waiting>")
    events.close()
    assert repr(events) == "<Events USER_UPDATE, READY: closed>"
    assert repr(shard.events()) == "<Events all events: 0 waiting>"


# The life that it belongs to


def test_an_iterator_made_before_connect_joins_the_next_life(gateway: LocalGateway) -> None:
    with make_shard() as shard:
        events = shard.events("READY", timeout=10)
        assert events.poll() == []
        with pytest.raises(ShardError, match=r"not connected; connect\(\) or start\(\) first"):
            next(events)
        with pytest.raises(ConnectionFailed):
            shard.connect("ws://127.0.0.1:1")
        assert events.poll() == []  # connect() has told, and may be called again
        shard.connect(gateway.url)
        assert next(events).name == "READY"
        shard.disconnect()
        between = shard.events("READY", timeout=10)
        shard.connect(gateway.url)
        assert list(events) == []
        assert next(between).name == "READY"


def test_it_ends_with_disconnect_after_what_was_received_and_stays_ended(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE")
    unused = shard.events("USER_UPDATE")
    send(gateway, 1, 2)
    wait_until(lambda: waiting(unused) == 2)
    taking = in_background(lambda: numbers(list(events)))
    shard.disconnect()
    assert taking.result(10) == [1, 2]
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    with shard.events("USER_UPDATE", timeout=10) as later:
        send(gateway, 3)
        assert next(later).data == {"n": 3}
    assert list(events) == [] and events.poll() == []
    assert numbers(list(unused)) == [1, 2]


@pytest.mark.parametrize("how", ["next", "poll"])
def test_an_error_that_closes_the_shard_is_raised_after_what_was_received(
    how: str, gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE")
    send(gateway, 1)
    wait_until(lambda: waiting(events) == 1)
    gateway.connections[0].close(4004)
    with pytest.raises(AuthenticationFailed):
        shard.join(10)
    if how == "next":
        assert next(events).data == {"n": 1}
        for _ in range(2):
            with pytest.raises(AuthenticationFailed):
                next(events)
    else:
        assert numbers(events.poll()) == [1]
        with pytest.raises(AuthenticationFailed):
            events.poll()


def test_a_thread_that_waits_for_the_next_event_is_told_of_the_end(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE")
    taking = in_background(next, events)
    wait_until(lambda: events._queue.waiting)
    gateway.connections[0].close(4004)
    assert isinstance(taking.exception(10), AuthenticationFailed)
    with pytest.raises(AuthenticationFailed):
        shard.join(10)


def test_a_resume_in_the_middle_loses_nothing(gateway: LocalGateway, shard: Shard) -> None:
    events = shard.events("USER_UPDATE", timeout=10)
    send(gateway, 1)
    gateway.connections[0].drop()
    send(gateway, 2, 3)
    assert numbers([next(events) for _ in range(3)]) == [1, 2, 3]
    wait_until(lambda: shard.stats.resumes == 1)


def test_the_timeout_runs_between_two_events_and_the_iterator_can_be_used_on(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE", "READY", timeout=0.05)
    with pytest.raises(TimeoutError, match=r"^no USER_UPDATE or READY came within 0.05 seconds$"):
        next(events)
    send(gateway, 1)
    wait_until(lambda: waiting(events) == 1)
    time.sleep(0.06)  # the program may take longer than the wait
    assert next(events).data == {"n": 1}


# Polling


def test_poll_returns_what_is_there_and_never_waits(gateway: LocalGateway, shard: Shard) -> None:
    events = shard.events("USER_UPDATE")
    assert events.poll() == []
    send(gateway, *range(10))
    wait_until(lambda: waiting(events) == 10)
    assert numbers(events.poll(3)) == [0, 1, 2]
    assert next(events).data == {"n": 3}
    assert numbers(events.poll()) == [4, 5, 6, 7, 8, 9]
    assert events.poll(5) == []


# A full queue


def test_a_full_queue_holds_the_reader_back_and_nothing_is_lost(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE", maxsize=10)
    send(gateway, *range(500))
    most = 0
    for number in range(500):
        most = max(most, waiting(events))
        assert next(events).data == {"n": number}
    assert most <= 10


def test_the_reader_goes_on_once_half_of_a_full_queue_was_taken(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE", maxsize=10)
    fill(gateway, events)
    assert numbers(events.poll(4)) == [0, 1, 2, 3]
    assert not events._queue.has_room()
    assert next(events).data == {"n": 4}
    wait_until(lambda: waiting(events) == 10)


def leave_by_break(events: list[Events]) -> None:
    for _ in events.pop():
        break


def leave_by_close(events: list[Events]) -> None:
    events[0].close()


def leave_with_block(events: list[Events]) -> None:
    with events[0]:
        pass


def leave_to_garbage(events: list[Events]) -> None:
    events.clear()
    gc.collect()


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_close, leave_with_block, leave_to_garbage]
)
def test_who_leaves_a_full_queue_frees_the_reader_at_once(
    leave: Callable[[list[Events]], None], gateway: LocalGateway, shard: Shard
) -> None:
    heard: list[int] = []
    shard.on("USER_UPDATE", lambda shard, data: heard.append(data["n"]))
    held = [shard.events("USER_UPDATE", maxsize=10)]
    fill(gateway, held[0])
    leave(held)
    wait_until(lambda: len(heard) == 15)
    began = time.monotonic()
    shard.disconnect()
    assert time.monotonic() - began < AT_ONCE


def test_disconnect_with_a_full_queue_takes_a_round_trip(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE", maxsize=10)
    fill(gateway, events)
    began = time.monotonic()
    shard.disconnect()
    assert time.monotonic() - began < AT_ONCE
    assert gateway.all_connections[0].wait_closed() == 1000
    assert numbers(list(events)) == list(range(11))


def test_a_traceback_that_is_kept_keeps_no_iterator(gateway: LocalGateway, shard: Shard) -> None:
    """A REPL keeps the last one: a loop that an exception has ended must free the reader."""
    heard: list[int] = []
    shard.on("USER_UPDATE", lambda shard, data: heard.append(data["n"]))
    with pytest.raises(TimeoutError) as kept:
        for _ in shard.events("USER_UPDATE", timeout=0.01, maxsize=1):
            pass
    send(gateway, 1, 2, 3)
    wait_until(lambda: heard == [1, 2, 3])
    assert kept.traceback


def test_the_thread_that_takes_events_may_wait_for_the_shard_behind_a_full_queue(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE", maxsize=2)
    fill(gateway, events)
    send(gateway, 1, event="WEBHOOKS_UPDATE")
    assert shard.wait_for("WEBHOOKS_UPDATE", timeout=10) == {"n": 1}
    assert numbers(events.poll()) == list(range(7))


def test_a_full_queue_of_the_reader_itself_does_not_stop_it(
    gateway: LocalGateway, shard: Shard
) -> None:
    """A callback makes the iterator, and polls it: no other thread would make room."""
    made: list[Events] = []
    polled: list[int] = []

    def listen(shard: Shard, data: Any) -> None:
        if not made:
            made.append(shard.events("USER_UPDATE", maxsize=1))

    shard.on("TYPING_START", listen)
    shard.on("WEBHOOKS_UPDATE", lambda shard, data: polled.extend(numbers(made[0].poll())))
    send(gateway, 0, event="TYPING_START")
    send(gateway, 1, 2, 3)
    send(gateway, 0, event="WEBHOOKS_UPDATE")
    wait_until(lambda: polled == [1, 2, 3])


def test_a_loop_that_takes_nothing_from_a_full_queue_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def warnings() -> list[str]:
        lines = [each.getMessage() for each in list(caplog.records)]
        # On a busy machine pytest's own log handler may be slow, too.
        return [
            line
            for line in lines
            if "has been running for" in line and not line.startswith("a handler")
        ]

    with make_gateway(heartbeat_interval=1000, heartbeat_tolerance=30) as gateway:
        with make_shard() as shard:
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
            events = shard.events("USER_UPDATE", maxsize=3)
            fill(gateway, events)
            wait_until(warnings)
            shard.heartbeat_in(100)
            beats = len(gateway.connections[0].received)
            wait_until(lambda: len(gateway.connections[0].received) >= beats + 5)
            assert len(gateway.all_connections) == 1
    (warning,) = warnings()
    assert warning.startswith(
        "the loop that is to take 3 waiting events of events('USER_UPDATE') has been running for "
    )


def test_iterators_that_were_left_are_forgotten(shard: Shard) -> None:
    """Also if no event of theirs ever comes."""
    for _ in range(100):
        with pytest.raises(TimeoutError):
            next(shard.events("USER_UPDATE", "READY", timeout=0))
    shard.events("USER_UPDATE").close()
    assert len(shard._callbacks._subscribers["USER_UPDATE"]) <= 2
    assert len(shard._callbacks._abandoned) <= 1


# The saved session


def test_an_event_counts_as_done_when_its_thread_asks_for_the_next(
    gateway: LocalGateway, shard: Shard
) -> None:
    def saved() -> int:
        return not_none(not_none(shard.session).sequence)

    events = shard.events("USER_UPDATE")
    before = saved()
    send(gateway, *range(8))
    wait_until(lambda: waiting(events) == 8)
    assert saved() == before
    next(events)
    assert saved() == before
    next(events)
    assert saved() == before + 1
    events.poll(2)
    assert saved() == before + 2
    in_background(events.poll, 1).result(10)
    assert saved() == before + 2
    next(events)
    assert saved() == before + 4  # the other thread has not asked for the next
    events.close()
    assert saved() == before + 8


# Callbacks, signal handlers, Ctrl-C, forks


def test_in_a_callback_poll_works_and_iterating_is_refused(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE")
    seen: list[Any] = []

    def look(shard: Shard, data: Any) -> None:
        seen.append(events.poll())
        with pytest.raises(ShardError, match="was asked for in a callback"):
            next(events)
        seen.append("refused")

    shard.on("WEBHOOKS_UPDATE", look)
    send(gateway, 1)
    send(gateway, 2, event="WEBHOOKS_UPDATE")
    wait_until(lambda: len(seen) == 2)
    assert numbers(seen[0]) == [1]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs SIGUSR1")
def test_in_a_signal_handler_poll_works_and_waiting_is_refused(
    gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE")
    other = shard.events("USER_UPDATE")
    seen: list[Any] = []

    def handle(number: int, frame: FrameType | None) -> None:
        seen.append(numbers(other.poll()))
        with pytest.raises(ShardError, match="in a signal handler"):
            next(other)
        seen.append("refused")
        send(gateway, 2)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        send(gateway, 1)
        wait_until(lambda: waiting(other) == 1)
        next(events)

        def interrupt() -> None:
            wait_until(lambda: events._queue.waiting)
            os.kill(os.getpid(), signal.SIGUSR1)

        interrupting = in_background(interrupt)
        assert next(events).data == {"n": 2}
        interrupting.result(10)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [[1], "refused"]


@traces_instructions
@pytest.mark.parametrize("how", ["next", "poll"])
def test_ctrl_c_at_any_point_loses_no_event_and_returns_none_twice(
    how: str, gateway: LocalGateway, shard: Shard
) -> None:
    events = shard.events("USER_UPDATE", timeout=10)
    got: list[int] = []

    def take() -> None:
        if how == "next":
            got.append(next(events).data["n"])
        else:
            got.extend(numbers(events.poll(2)))

    send(gateway, *range(10))
    wait_until(lambda: waiting(events) == 10)
    spots = list_spots(take)[1]
    sent = 10
    pressed = 0
    for spot in spots:
        send(gateway, sent, sent + 1)
        sent += 2
        wait_until(lambda: waiting(events) >= 2)
        pressed += press_ctrl_c(spot, take)
    while len(got) < sent:
        got.append(next(events).data["n"])
    assert got == list(range(sent))
    assert pressed > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_iterator_of_the_parents_is_refused_in_a_forked_child_and_holds_it_up_nowhere(
    gateway: LocalGateway,
) -> None:
    code = """
        from shardlib import ForkedProcess
        shard = make()
        events = shard.events("READY", "GUILD_CREATE", maxsize=1, timeout=10)
        faulthandler.cancel_dump_traceback_later()  # its thread would be missing in the child
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            for method in (events.__next__, events.poll):
                try:
                    method()
                except ForkedProcess:
                    continue
                sys.exit(1)
            with shard:
                with shard.events("GUILD_CREATE", timeout=10) as own:
                    shard.connect(sys.argv[1])
                    sequence = next(own).sequence
                sys.exit(7 if shard.session.sequence == sequence else 2)
        tell("the child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        with shard:
            shard.connect(sys.argv[1])
            tell(next(events).name)
    """
    with Child(code, gateway.url, flags=("-W", "ignore")) as child:
        child.expect("the child ended with 7")
        child.expect("READY")
        assert child.wait() == 0
