"""The lives of a shard: states, requests and waits, with a reader that the test plays."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import AlreadyConnected, ConnectionFailed, ShardClosed, ShardState
from shardlib.deadline import Deadline
from shardlib.lifecycle import Beginning, Life, Lifecycle, Request
from shardlib.loss import Loss
from shardlib.waiting import Waiters
from tests.support import Thread, wait_until

BEGINNING = Beginning("ws://127.0.0.1", 10)


class FakeConnection:
    """Notes what a life asks of the connection that its reader is busy with."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def interrupt(self) -> None:
        self.calls.append("interrupt")

    def fail(self, loss: Loss, code: int, deadline: Deadline) -> None:
        self.calls.append(code)


class Readers:
    """Starts no reader: the test does what it would do."""

    def __init__(self) -> None:
        self.started: list[Life] = []
        self.sockets_opened: list[int] = []  # in all lives, as each reader finds it
        self.error: Exception | None = None
        self.lifecycle = Lifecycle(lambda life: FakeThread(functools.partial(self.start, life)))

    def start(self, life: Life) -> None:
        if self.error is not None:
            raise self.error
        self.sockets_opened.append(self.lifecycle.sockets_opened)
        self.started.append(life)


class FakeThread(threading.Thread):
    """A reader thread that is never started itself."""

    def __init__(self, on_start: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._on_start = on_start

    def start(self) -> None:
        self._on_start()


@pytest.fixture
def readers() -> Readers:
    return Readers()


@pytest.fixture
def lifecycle(readers: Readers) -> Lifecycle:
    return readers.lifecycle


def begin(lifecycle: Lifecycle) -> Life:
    """connect(), up to where it waits for the first socket."""
    life = lifecycle.prepare(BEGINNING)
    lifecycle.begin(life, lifecycle.closes)
    wait_until(lambda: life.ended or lifecycle.life is life)
    return life


def begun() -> Life:
    life = Life(BEGINNING, Waiters())
    life.set_thread(threading.Thread())
    return life


def own(life: Life) -> Life:
    """This thread is the reader."""
    life.set_thread(threading.current_thread())
    return life


def soon() -> Deadline:
    return Deadline(10)


# States


def test_before_connect_there_is_a_life_that_never_began(lifecycle: Lifecycle) -> None:
    life = lifecycle.life
    assert not lifecycle.began
    assert life.state is ShardState.DISCONNECTED
    assert life.is_over and life.ended
    assert lifecycle.sockets_opened == 0


def test_the_states_of_a_connection() -> None:
    life, connection = begun(), FakeConnection()
    life.use(connection)
    states = [life.state]
    for step in (
        life.socket_opened,
        lambda: life.claim_opening(connection, ShardState.IDENTIFYING, nothing),
        life.established,
        lambda: life.set_state(ShardState.WAITING),
        lambda: life.use(FakeConnection()),
    ):
        step()
        states.append(life.state)
    assert [state.value for state in states] == [
        "connecting",
        "connected",
        "identifying",
        "ready",
        "waiting",
        "connecting",
    ]


def nothing() -> None: ...


def test_one_thread_wins_the_right_to_identify() -> None:
    life, connection = begun(), FakeConnection()
    life.use(connection)
    assert not life.claim_opening(connection, ShardState.IDENTIFYING, nothing)  # no socket is open
    life.socket_opened()
    other = FakeConnection()  # an earlier one
    assert not life.claim_opening(other, ShardState.IDENTIFYING, nothing)
    barrier = threading.Barrier(8)

    def identify() -> bool:
        barrier.wait(10)
        return life.claim_opening(connection, ShardState.IDENTIFYING, nothing)

    threads = [Thread(identify) for _ in range(8)]
    assert [thread.finish() for thread in threads].count(True) == 1
    assert life.state is ShardState.IDENTIFYING


def test_what_follows_the_right_to_identify_is_done_before_another_connection_begins() -> None:
    """Else the next connection would be noted as the one on which Identify was sent."""
    life, connection = begun(), FakeConnection()
    life.use(connection)
    life.socket_opened()
    order: list[str] = []
    beginning: list[Thread] = []

    def begin_another() -> None:
        life.use(FakeConnection())
        order.append("another")

    def claimed() -> None:
        beginning.append(Thread(begin_another))
        time.sleep(0.05)  # another connection that could begin would
        order.append("claimed")

    assert life.claim_opening(connection, ShardState.IDENTIFYING, claimed)
    beginning[0].finish()
    assert order == ["claimed", "another"]


@pytest.mark.parametrize("state", [state for state in ShardState if state is not ShardState.CLOSED])
def test_what_is_closing_only_ever_becomes_closed(state: ShardState) -> None:
    life = begun()
    life.request_close(1000, soon())
    life.set_state(state)
    life.socket_opened()
    assert not life.claim_opening(FakeConnection(), ShardState.IDENTIFYING, nothing)
    assert not life.use(FakeConnection())
    assert life.state is ShardState.CLOSING
    life.close(None)
    assert life.state is ShardState.CLOSED


@pytest.mark.parametrize(
    "opened, error, state",
    [
        (False, ConnectionFailed("refused"), ShardState.DISCONNECTED),
        (False, None, ShardState.CLOSED),
        (True, ConnectionFailed("refused"), ShardState.CLOSED),
        (True, None, ShardState.CLOSED),
    ],
)
def test_a_life_without_a_socket_that_failed_was_none(
    opened: bool, error: Exception | None, state: ShardState
) -> None:
    life = begun()
    if opened:
        life.socket_opened()
    life.close(error)
    assert life.state is state
    assert life.error is error
    assert not life.ended
    life.end()
    assert life.is_over and life.is_closed


# Requests


def test_of_several_requests_the_greatest_counts() -> None:
    life = begun()
    life.request_connection(Request.REINSTANTIATE, no_fail=True, immediate=False)
    life.request_connection(Request.RECONNECT, no_fail=None, immediate=True)
    assert (life.request, life.no_fail, life.immediate) == (Request.REINSTANTIATE, True, True)
    life.request_connection(Request.RECONNECT, no_fail=None, immediate=False)
    assert life.immediate  # a thread still waits
    assert life.take_request() is Request.REINSTANTIATE
    assert (life.request, life.immediate, life.take_request()) == (None, False, None)


def test_close_is_the_last_request() -> None:
    life = begun()
    life.request_connection(Request.REINSTANTIATE, no_fail=None, immediate=False)
    life.request_close(4321, soon())
    life.request_connection(Request.RECONNECT, no_fail=None, immediate=False)
    assert life.take_request() is Request.CLOSE
    assert life.take_request() is Request.CLOSE  # not fulfilled by a connection
    first = life.close_deadline
    life.request_close(1000, Deadline(0))
    assert (life.close_code, life.close_deadline) == (4321, first)


def test_a_request_interrupts_the_connection_but_not_on_the_reader() -> None:
    life, connection = begun(), FakeConnection()
    assert life.use(connection)
    life.request_connection(Request.RECONNECT, no_fail=None, immediate=False)
    life.request_close(1000, soon())
    assert connection.calls == ["interrupt"] * 2
    own(life)
    life.request_close(1000, soon())
    assert connection.calls == ["interrupt"] * 2
    life.fail_connection(Deadline(1))
    assert connection.calls[-1] == 1000


def test_a_request_does_not_interrupt_the_connection_that_fulfils_it() -> None:
    """The reader may be quicker to begin it than the asking thread is to look for what it does."""
    old, new = FakeConnection(), FakeConnection()

    class Waking(Waiters):
        def notify(self) -> None:
            if woken.request is not None:
                assert woken.take_request() is Request.RECONNECT
                woken.use(new)

    woken = Life(BEGINNING, Waking())
    woken.set_thread(threading.Thread())
    woken.use(old)
    woken.request_connection(Request.RECONNECT, no_fail=None, immediate=True)
    assert (old.calls, new.calls) == ([], [])


def test_a_life_that_is_over_takes_no_request() -> None:
    life = begun()
    life.close(None)
    life.end()
    life.request_connection(Request.RECONNECT, no_fail=None, immediate=True)
    life.request_close(1000, soon())
    assert (life.request, life.immediate, life.state) == (None, False, ShardState.CLOSED)
    assert life.close_deadline is not None  # who waits for its callbacks waits that long


# Errors


def test_disconnect_has_the_last_word_over_an_error() -> None:
    life = begun()
    life.request_close(1000, soon())
    life.close(ShardClosed(4004, "crossed"))
    assert life.error is None
    assert "closed by disconnect()" in str(life.closed_error())


@pytest.mark.parametrize("error, kept", [(LookupError(), False), (SystemExit(3), True)])
def test_disconnect_has_no_word_over_what_ends_the_program(
    error: BaseException, kept: bool
) -> None:
    life = begun()
    life.request_close(1000, soon())
    life.stop(error, 4000, soon())
    life.close(None)
    assert (life.error is error) == kept
    assert life.close_code == 1000


def test_an_error_that_stops_the_shard_is_the_first_one() -> None:
    life = begun()
    first = SystemExit(1)
    life.stop(first, 4000, soon())
    life.stop(SystemExit(2), 4000, soon())
    assert life.state is ShardState.CLOSING
    assert (life.closed_error(), life.close_code) == (first, 4000)


def test_an_error_is_known_to_the_threads_that_were_told() -> None:
    life = begun()
    error = ShardClosed(4004, "why")
    life.close(error)
    assert not life.was_raised_here()
    assert Thread(life.closed_error).finish() is error
    assert not life.was_raised_here()
    assert life.closed_error() is error
    assert life.was_raised_here()
    # The system gives the number of the thread that has ended to the next one.
    assert [Thread(life.was_raised_here).finish() for _ in range(3)] == [False] * 3


def test_where_a_life_is_and_how_its_last_connections_ended_can_be_told() -> None:
    life = begun()
    assert life.progress() == "connecting"
    for number in range(1, 5):
        life.connection_ended(f"end {number}")
    assert life.progress() == "connecting; the last attempts: end 2, then end 3, then end 4"
    life.socket_opened()
    assert "turn to identify" in life.progress()


# The reader thread


def test_the_reader_is_known_until_its_life_has_ended() -> None:
    life = own(begun())
    assert life.in_reader_thread()
    assert Thread(life.in_reader_thread).finish() is False
    life.close(None)
    assert life.in_reader_thread()  # in on_socket_closed
    life.end()
    assert not life.in_reader_thread()


# One life after the other


def test_a_second_life_is_refused_while_one_runs(lifecycle: Lifecycle, readers: Readers) -> None:
    first = begin(lifecycle)
    second = begin(lifecycle)
    assert isinstance(second.error, AlreadyConnected)
    assert second.ended and lifecycle.life is first
    assert readers.started == [first]
    first.close(None)
    lifecycle.end(first)
    third = begin(lifecycle)
    assert lifecycle.life is third and not third.ended
    third.close(None)
    lifecycle.end(third)


def test_disconnect_ends_a_connect_that_began_before(
    lifecycle: Lifecycle, readers: Readers
) -> None:
    closes = lifecycle.closes
    lifecycle.request_close(1000, soon())
    life = lifecycle.prepare(BEGINNING)
    lifecycle.begin(life, closes)
    wait_until(lambda: life.ended)
    assert isinstance(life.error, ShardClosed)
    assert readers.started == []


def test_without_a_thread_to_be_had_nothing_has_changed(
    lifecycle: Lifecycle, readers: Readers
) -> None:
    before = lifecycle.life
    readers.error = RuntimeError("can't start new thread")
    life = begin(lifecycle)
    assert life.error is readers.error
    assert life.ended and lifecycle.life is before
    readers.error = None
    assert readers.started == [begin(lifecycle)]


def test_sockets_are_counted_over_all_lives(lifecycle: Lifecycle, readers: Readers) -> None:
    """The count never goes back, as the first callbacks of a life see it too."""
    for count in (1, 2, 3):
        life = begin(lifecycle)
        life.socket_opened()
        assert (life.sockets_opened, lifecycle.sockets_opened) == (1, count)
        life.close(None)
        lifecycle.end(life)
    assert readers.sockets_opened == [0, 1, 2]


@pytest.mark.parametrize("disconnected", [False, True])
def test_a_restart_follows_unless_disconnect_came_later(
    lifecycle: Lifecycle, readers: Readers, disconnected: bool
) -> None:
    life = begin(lifecycle)
    lifecycle.request_close(1000, soon())
    life.request_restart(BEGINNING, lifecycle.closes)
    if disconnected:
        lifecycle.request_close(1000, soon())
    life.close(None)
    Thread(lambda: lifecycle.end(life)).finish()
    assert len(readers.started) == (1 if disconnected else 2)
    lifecycle.end(life)  # once more does nothing
    assert len(readers.started) == (1 if disconnected else 2)


# Waiting


@pytest.fixture
def life(lifecycle: Lifecycle) -> Iterator[Life]:
    life = begin(lifecycle)
    yield life
    life.close(None)
    lifecycle.end(life)


CHANGES: list[tuple[str, Callable[[Life], object], Callable[[Life], bool]]] = [
    ("a socket", lambda life: life.socket_opened(), lambda life: life.sockets_opened > 0),
    ("a state", lambda life: life.set_state(ShardState.READY), lambda life: life.is_ready),
    (
        "a request",
        lambda life: life.request_connection(Request.RECONNECT, no_fail=None, immediate=True),
        lambda life: life.immediate,
    ),
    ("closing", lambda life: life.request_close(1000, soon()), lambda life: life.is_over),
    ("closed", lambda life: life.close(None), lambda life: life.is_closed),
    ("the end", lambda life: life.end(), lambda life: life.ended),
]


@pytest.mark.parametrize(
    "change, condition", [row[1:] for row in CHANGES], ids=[r[0] for r in CHANGES]
)
def test_each_change_wakes_who_waits_for_it(
    lifecycle: Lifecycle,
    life: Life,
    change: Callable[[Life], object],
    condition: Callable[[Life], bool],
) -> None:
    looked = threading.Event()
    waiting = Thread(lambda: lifecycle.wait(lambda: looked.set() or condition(life), soon()))
    assert looked.wait(10)
    change(life)
    assert waiting.finish() is True


def test_a_wait_in_a_life_ends_with_it(lifecycle: Lifecycle) -> None:
    """Another thread connects again at once: the waiter is not told of the next life."""
    first = begin(lifecycle)
    waiting = Thread(lambda: lifecycle.wait_in(first, lambda: first.is_ready, soon()))
    first.close(None)
    lifecycle.end(first)
    second = begin(lifecycle)
    second.set_state(ShardState.READY)
    assert waiting.finish() is True
    assert first.is_over and not first.is_ready
    second.close(None)
    lifecycle.end(second)


def test_a_wait_in_a_life_is_kept_by_no_callback(lifecycle: Lifecycle, life: Life) -> None:
    """disconnect() has waited long enough; the reader is still in a function of the user's."""
    waiting = Thread(lambda: lifecycle.wait_in(life, lambda: life.is_ready, Deadline(None)))
    lifecycle.request_close(1000, Deadline(0.01))
    assert waiting.finish() is True
    assert not life.is_closed


def test_a_life_that_does_not_end_in_its_share_of_the_time_loses_its_connection(
    lifecycle: Lifecycle, life: Life
) -> None:
    connection = FakeConnection()
    life.use(connection)
    lifecycle.request_close(4321, Deadline(0.02))
    assert not lifecycle.close(life, Deadline(0.02), Deadline(0.01))
    assert connection.calls == ["interrupt", 4321]


def test_a_life_that_ends_in_time_keeps_its_connection(lifecycle: Lifecycle, life: Life) -> None:
    connection = FakeConnection()
    life.use(connection)
    lifecycle.request_close(1000, soon())
    closing = Thread(lambda: lifecycle.close(life, soon(), soon()))
    life.close(None)
    lifecycle.end(life)
    assert closing.finish() is True
    assert connection.calls == ["interrupt"]


def test_while_the_interpreter_exits_daemon_threads_wait_on(lifecycle: Lifecycle) -> None:
    """They would only complain; the main thread, which says goodbye, is told."""
    lifecycle.interpreter_exits()
    assert lifecycle.wait(lambda: True, Deadline(0))
    results: list[bool] = []
    thread = threading.Thread(
        target=lambda: results.append(lifecycle.wait(lambda: True, Deadline(0.01))), daemon=True
    )
    thread.start()
    thread.join(10)
    assert results == [False]
