"""Lifecycle and Life: states, requests and waits. The test itself plays the reader."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from shardlib import AlreadyConnected, ConnectionFailed, ShardClosed, ShardState
from shardlib.deadline import Deadline
from shardlib.lifecycle import Beginning, Life, Lifecycle, Request
from shardlib.loss import Loss
from shardlib.managerlifecycle import ManagerLifecycle
from shardlib.waiting import Waiters
from tests.reliability.storms import list_spots, press_ctrl_c, traces_instructions
from tests.support import Thread, in_background, wait_until

BEGINNING = Beginning("ws://127.0.0.1", 10)


class FakeConnection:
    """Records what a life asks of the connection that its reader uses."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def interrupt(self) -> None:
        self.calls.append("interrupt")

    def fail(self, loss: Loss, code: int, deadline: Deadline) -> None:
        self.calls.append(code)


class Readers:
    """A Lifecycle whose lives get no running reader thread: the test does what a reader would."""

    def __init__(self) -> None:
        self.started: list[Life] = []
        self.sockets_opened: list[int] = []  # Lifecycle.sockets_opened when each reader starts
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
    """Do what connect() does before it waits for the first socket."""
    life = lifecycle.prepare(BEGINNING)
    lifecycle.begin(life, lifecycle.closes)
    wait_until(lambda: life.ended or lifecycle.life is life)
    return life


def begun() -> Life:
    """A life that has begun, with another thread as its reader."""
    life = Life(BEGINNING, Waiters().notify)
    life.set_thread(threading.Thread())
    return life


def own(life: Life) -> Life:
    """Make this thread the reader of a life."""
    life.set_thread(threading.current_thread())
    return life


def soon() -> Deadline:
    return Deadline(10)


# States


def test_before_connect_the_life_has_ended_and_is_disconnected(lifecycle: Lifecycle) -> None:
    life = lifecycle.life
    assert not lifecycle.began
    assert life.state is ShardState.DISCONNECTED
    assert life.is_over and life.ended
    assert lifecycle.sockets_opened == 0


def test_a_life_goes_through_the_states_of_a_connection_in_order() -> None:
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


def test_only_one_thread_wins_the_right_to_identify() -> None:
    life, connection = begun(), FakeConnection()
    life.use(connection)
    assert not life.claim_opening(connection, ShardState.IDENTIFYING, nothing)  # no socket is open
    life.socket_opened()
    other = FakeConnection()  # an earlier connection
    assert not life.claim_opening(other, ShardState.IDENTIFYING, nothing)
    barrier = threading.Barrier(8)

    def identify() -> bool:
        barrier.wait(10)
        return life.claim_opening(connection, ShardState.IDENTIFYING, nothing)

    threads = [Thread(identify) for _ in range(8)]
    assert [thread.finish() for thread in threads].count(True) == 1
    assert life.state is ShardState.IDENTIFYING


def test_no_other_connection_begins_while_the_right_to_identify_is_used() -> None:
    """Otherwise Identify would be noted for the next connection instead of this one."""
    life, connection = begun(), FakeConnection()
    life.use(connection)
    life.socket_opened()
    another_began = threading.Event()
    beginning: list[Thread] = []

    def begin_another() -> None:
        life.use(FakeConnection())
        another_began.set()

    def claimed() -> None:
        beginning.append(Thread(begin_another))
        assert not another_began.wait(0.05)

    assert life.claim_opening(connection, ShardState.IDENTIFYING, claimed)
    beginning[0].finish()
    assert another_began.is_set()


@pytest.mark.parametrize("state", [state for state in ShardState if state is not ShardState.CLOSED])
def test_a_closing_life_takes_no_state_but_closed(state: ShardState) -> None:
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
    ids=["no socket, error", "no socket, closed", "socket, error", "socket, closed"],
)
def test_a_life_that_fails_before_its_first_socket_ends_disconnected(
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


def test_reconnect_does_not_replace_a_request_to_reinstantiate() -> None:
    life = begun()
    life.request_connection(Request.REINSTANTIATE, no_fail=True, immediate=False)
    life.request_connection(Request.RECONNECT, no_fail=None, immediate=True)
    assert (life.request, life.no_fail, life.immediate) == (Request.REINSTANTIATE, True, True)
    life.request_connection(Request.RECONNECT, no_fail=None, immediate=False)
    assert life.immediate  # a thread still waits
    assert life.take_request() is Request.REINSTANTIATE
    assert (life.request, life.immediate, life.take_request()) == (None, False, None)


def test_ready_ends_no_fail_except_that_of_a_pending_reinstantiate() -> None:
    life = begun()
    life.request_connection(Request.REINSTANTIATE, no_fail=True, immediate=False)
    life.established()  # READY of the connection that the request is about to replace
    assert life.no_fail is True
    life.take_request()
    life.established()
    assert life.no_fail is None


def test_a_request_to_close_is_never_replaced() -> None:
    life = begun()
    life.request_connection(Request.REINSTANTIATE, no_fail=None, immediate=False)
    life.request_close(4321, soon())
    life.request_connection(Request.RECONNECT, no_fail=None, immediate=False)
    assert life.take_request() is Request.CLOSE
    assert life.take_request() is Request.CLOSE  # not fulfilled by a connection
    first = life.close_deadline
    life.request_close(1000, Deadline(0))
    assert (life.close_code, life.close_deadline) == (4321, first)


def test_a_request_interrupts_the_connection_except_on_the_reader_thread() -> None:
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
    """The reader may begin the new connection before the asking thread interrupts the old one."""
    old, new = FakeConnection(), FakeConnection()

    class Waking(Waiters):
        def notify(self) -> None:
            if woken.request is not None:
                assert woken.take_request() is Request.RECONNECT
                woken.use(new)

    woken = Life(BEGINNING, Waking().notify)
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
    assert life.close_deadline is not None  # for a thread that waits for on_socket_closed


# Errors


def test_after_disconnect_an_error_of_the_connection_is_not_kept() -> None:
    life = begun()
    life.request_close(1000, soon())
    life.close(ShardClosed(4004, "crossed"))
    assert life.error is None
    assert "closed by disconnect()" in str(life.closed_error())


@pytest.mark.parametrize(
    "error, kept",
    [(LookupError(), False), (SystemExit(3), True)],
    ids=["LookupError", "SystemExit"],
)
def test_after_disconnect_only_an_exception_that_ends_the_program_is_kept(
    error: BaseException, kept: bool
) -> None:
    life = begun()
    life.request_close(1000, soon())
    life.stop(error, 4000, soon())
    life.close(None)
    assert (life.error is error) == kept
    assert life.close_code == 1000


def test_of_several_errors_that_stop_a_shard_the_first_is_kept() -> None:
    life = begun()
    first = SystemExit(1)
    life.stop(first, 4000, soon())
    life.stop(SystemExit(2), 4000, soon())
    assert life.state is ShardState.CLOSING
    assert (life.closed_error(), life.close_code) == (first, 4000)


def test_an_error_counts_as_raised_only_in_threads_that_asked_for_it() -> None:
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


def test_progress_tells_the_state_and_how_the_last_connections_ended() -> None:
    life = begun()
    assert life.progress() == "connecting"
    for number in range(1, 5):
        life.connection_ended(f"end {number}")
    assert life.progress() == "connecting; the last attempts: end 2, then end 3, then end 4"
    life.socket_opened()
    assert "turn to identify" in life.progress()


# The reader thread


def test_the_reader_thread_is_recognised_until_its_life_has_ended() -> None:
    life = own(begun())
    assert life.in_reader_thread()
    assert Thread(life.in_reader_thread).finish() is False
    life.close(None)
    assert life.in_reader_thread()  # in on_socket_closed
    life.end()
    assert not life.in_reader_thread()


# One life after the other


def test_a_second_connect_is_refused_while_a_life_runs(
    lifecycle: Lifecycle, readers: Readers
) -> None:
    first = begin(lifecycle)
    with pytest.raises(AlreadyConnected):
        begin(lifecycle)
    assert lifecycle.life is first
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
    with pytest.raises(ShardClosed):
        lifecycle.begin(lifecycle.prepare(BEGINNING), closes)
    assert readers.started == []


def test_if_no_reader_thread_can_be_started_the_former_life_stays(
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
    """A new life does not reset the count, not even before its first socket."""
    for count in (1, 2, 3):
        life = begin(lifecycle)
        life.socket_opened()
        assert (life.sockets_opened, lifecycle.sockets_opened) == (1, count)
        life.close(None)
        lifecycle.end(life)
    assert readers.sockets_opened == [0, 1, 2]


@pytest.mark.parametrize("disconnected", [False, True], ids=["not called", "called"])
def test_a_life_that_is_to_follow_begins_unless_disconnect_was_called_later(
    lifecycle: Lifecycle, readers: Readers, disconnected: bool
) -> None:
    first = begin(lifecycle)
    lifecycle.request_close(1000, soon())
    second = lifecycle.prepare(BEGINNING)
    assert not lifecycle.begin(second, lifecycle.closes)
    assert lifecycle.life is first and lifecycle.latest is second
    if disconnected:
        lifecycle.request_close(1000, soon())
        assert second.ended and second.error is None and lifecycle.latest is first
    first.close(None)
    Thread(lambda: lifecycle.end(first)).finish()
    assert readers.started == ([first] if disconnected else [first, second])
    lifecycle.end(first)  # once more does nothing
    assert readers.started == ([first] if disconnected else [first, second])


def test_the_latest_life_is_the_following_one_while_that_takes_its_place(
    lifecycle: Lifecycle,
) -> None:
    """A thread that waits for the life it has asked for must not wait for the one before."""
    first = begin(lifecycle)
    lifecycle.request_close(1000, soon())
    second = lifecycle.prepare(BEGINNING)
    lifecycle.begin(second, lifecycle.closes)
    first.close(None)
    seen: list[Life] = []

    def look(frame: FrameType, event: str, argument: Any) -> Any:
        sys.settrace(None)
        seen.append(lifecycle.latest)
        sys.settrace(look)
        return look

    before = sys.gettrace()
    sys.settrace(look)  # looks at each line of the library, as another thread might
    try:
        lifecycle.end(first)
    finally:
        sys.settrace(before)
    assert set(seen) == {second}


def test_only_one_life_can_follow_another(lifecycle: Lifecycle) -> None:
    """The first of several calls counts; one that Ctrl-C has ended stands in no way."""
    life = begin(lifecycle)
    lifecycle.request_close(1000, soon())
    interrupted = lifecycle.prepare(BEGINNING)
    lifecycle.begin(interrupted, lifecycle.closes)
    interrupted.request_close(1000, soon())
    assert lifecycle.latest is life
    second = lifecycle.prepare(BEGINNING)
    lifecycle.begin(second, lifecycle.closes)
    with pytest.raises(AlreadyConnected):
        lifecycle.begin(lifecycle.prepare(BEGINNING), lifecycle.closes)
    life.close(None)
    lifecycle.end(life)
    assert lifecycle.life is second


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
    "change, condition", [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_each_change_wakes_the_thread_that_waits_for_it(
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


def test_a_wait_in_a_life_ends_with_that_life(lifecycle: Lifecycle) -> None:
    """If another thread connects again at once, the waiter does not wait for the next life."""
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


def test_a_wait_in_a_life_ends_though_a_callback_still_runs(
    lifecycle: Lifecycle, life: Life
) -> None:
    """disconnect() has run out of time while the reader is still inside a callback."""
    waiting = Thread(lambda: lifecycle.wait_in(life, lambda: life.is_ready, Deadline(None)))
    lifecycle.request_close(1000, Deadline(0.01))
    assert waiting.finish() is True
    assert not life.is_closed


def test_a_life_that_does_not_end_by_its_deadline_loses_its_connection(
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


@traces_instructions
def test_ctrl_c_in_a_wait_leaves_no_thread_that_seems_to_wait(
    lifecycle: Lifecycle, life: Life
) -> None:
    """A reader waits for room no more if the thread that makes room seems to wait for it."""

    def wait() -> bool:
        return lifecycle.wait_in(life, lambda: False, Deadline(0.001))

    spots = list_spots(wait)[1]
    pressed = 0
    for spot in spots:
        pressed += press_ctrl_c(spot, wait)
        assert not lifecycle.is_awaited_by(lambda thread: True), spot
    assert pressed > 10


@traces_instructions
def test_ctrl_c_in_a_wait_for_a_manager_leaves_no_thread_that_seems_to_wait() -> None:
    """The manager does not wait for the callbacks of a thread that seems to wait for it."""
    lifecycle = ManagerLifecycle(lambda life: threading.Thread(), lambda: ())

    def wait() -> bool:
        return lifecycle.wait(lambda: False, Deadline(0.001))

    spots = list_spots(wait)[1]
    pressed = 0
    for spot in spots:
        pressed += press_ctrl_c(spot, wait)
        assert not lifecycle.is_waited_for_by(lambda thread: True), spot
    assert pressed > 10


@traces_instructions
def test_ctrl_c_in_a_close_in_the_background_keeps_no_later_one_from_giving_up_the_peer(
    lifecycle: Lifecycle,
) -> None:
    lives: list[tuple[Life, FakeConnection]] = []

    def close() -> None:
        lifecycle.close_in_background(lives[-1][0], Deadline(0), Deadline(0))

    def begin_another() -> None:
        life, connection = begun(), FakeConnection()
        life.use(connection)
        life.request_close(4000, Deadline(0))
        lives.append((life, connection))

    begin_another()
    spots = list_spots(close)[1]
    pressed = 0
    for spot in spots:
        begin_another()
        if press_ctrl_c(spot, close):
            pressed += 1
            close()
    assert pressed > 5
    for _, connection in lives:
        wait_until(lambda calls=connection.calls: 4000 in calls)  # type: ignore[misc]


def test_while_the_interpreter_exits_daemon_threads_keep_waiting(lifecycle: Lifecycle) -> None:
    """A daemon thread that woke would only print a traceback; the main thread closes the shard."""
    lifecycle.interpreter_exits()
    assert lifecycle.wait(lambda: True, Deadline(0))
    assert in_background(lifecycle.wait, lambda: True, Deadline(0.01)).result(10) is False


def test_while_the_interpreter_exits_the_reader_thread_still_gets_results(
    lifecycle: Lifecycle, life: Life
) -> None:
    lifecycle.interpreter_exits()

    def wait_as_the_reader() -> bool:
        own(life)
        return lifecycle.wait(lambda: True, Deadline(0.01))

    assert in_background(wait_as_the_reader).result(10) is True


def test_a_connection_is_joined_only_while_it_is_on_its_way() -> None:
    """Joined after READY, the request's no_fail would decide about later connections."""
    life = begun()
    life.socket_opened()
    assert life.join_connection(False)
    assert life.no_fail is False
    life.established()
    assert not life.join_connection(False)
    assert life.no_fail is None
