"""Lifecycle: where a shard is, what was asked of it, and waiting for it.

A life lasts from connect() or start() to closed; another call begins another. Each is an object of
its own, so that a thread that waits for the end of one life, or aborts its connection, never meets
the next.
"""

from __future__ import annotations

import enum
import math
import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from shardlib.deadline import Deadline
from shardlib.errors import AlreadyConnected, ShardClosed
from shardlib.gateway import API_VERSION, GATEWAY_URL
from shardlib.interrupts import run_uninterrupted, start_thread
from shardlib.loss import Cause, Loss
from shardlib.state import ON_THE_WAY, ShardState
from shardlib.text import duration
from shardlib.waiting import Waiters

ALREADY_CONNECTED = "connected already, or connecting; disconnect() first"
CLOSED_BY_DISCONNECT = "closed by disconnect(); connect() would begin anew"

# The part of close_timeout in which disconnect() waits for the peer; the rest is for the callbacks.
PEERS_SHARE = 0.75

# How the last attempts to connect ended, for the message of a wait that runs out.
_MOST_ENDS = 3


class Request(enum.IntEnum):
    """What a user asks of the reader. Of several requests the greatest counts."""

    REWIND = 1
    RECONNECT = 2
    REINSTANTIATE = 3
    CLOSE = 4


class Beginning(NamedTuple):
    """What connect() or start() was given.

    :param socket_url: where to connect.
    :param socket_version: version of the Gateway's API.
    :param no_fail: reinstantiate()'s, None for connect() and start().
    :param new_session: True to forget the session of the life before.
    :param awaited: True if a thread waits in connect() for the outcome of the first attempt.
    """

    socket_url: str
    socket_version: int
    no_fail: bool | None = None
    new_session: bool = False
    awaited: bool = True

    def renewed(self, no_fail: bool | None, new_session: bool) -> Beginning:
        """The same for the next life, whose first attempt a thread waits for."""
        return self._replace(no_fail=no_fail, new_session=new_session, awaited=True)

    def unawaited(self) -> Beginning:
        """The same, asked for by start() or in a callback, neither of which waits."""
        return self._replace(awaited=False)


class Interruptible(Protocol):
    """What a life needs of the connection that its reader is busy with."""

    def interrupt(self) -> None:
        """End the reader's wait, so that it looks for requests."""

    def fail(self, loss: Loss, code: int, deadline: Deadline) -> None:
        """Send a close frame if the peer takes it at once, and end the connection."""


class Life:
    """One life of a shard. Any thread may call everything here, unless it says "the reader".

    One short lock guards the attributes while they change, reentrant for a signal handler. No
    I/O, no callback and no wait happens while it is held. Other threads read without it.

    :param beginning: what connect() or start() was given.
    :param changed: called after every change.
    """

    def __init__(self, beginning: Beginning, changed: Callable[[], object]) -> None:
        self.beginning = beginning
        self.state = ShardState.CONNECTING
        #: The states that on_socket_state is to be told, oldest first, each once. The reader takes
        #: them, whichever thread has changed the state.
        self.untold_states: tuple[ShardState, ...] = (ShardState.CONNECTING,)
        self.thread: threading.Thread | None = None  # the reader
        self.sockets_opened = 0
        # For the reader, which looks after each message and before it dials.
        self.request: Request | None = None
        self.close_code = 0  # that disconnect() was called with
        self.close_deadline: Deadline | None = None  # by when disconnect() returns
        self.no_fail = beginning.no_fail  # of the last request for a new session
        self.error: BaseException | None = None  # for which the life ends, or ended
        self.is_closed = False  # at most on_socket_closed is still to be called
        self.ended = False  # on_socket_closed has returned
        self._closes_in_background = False  # a thread waits for the end, see Lifecycle
        self.ends: tuple[str, ...] = ()  # how the last connections ended, oldest first
        self._identify_at = Deadline(0.0)  # before which the identify gate lets no Identify through
        self._immediate = False  # a thread waits for the next connection: no back-off
        self._connection: Interruptible | None = None
        # `here` in the threads that the error was raised in. Made for the first one, since it takes
        # 700 bytes.
        self._error_was_raised: threading.local | None = None
        self._lock = threading.RLock()
        self._changed = changed

    # Where the life is

    @property
    def first_attempt_awaited(self) -> bool:
        """True while connect() waits for the outcome of the first attempt, to raise its error."""
        return self.beginning.awaited and self.sockets_opened == 0

    @property
    def is_ready(self) -> bool:
        """True while events flow."""
        return self.state is ShardState.READY

    @property
    def is_over(self) -> bool:
        """True once the life can bring nothing more: it closes, is closed, or got no socket."""
        return self.is_closed or self.state is ShardState.CLOSING

    @property
    def has_begun(self) -> bool:
        """True once the reader was started, also after the end."""
        return self.thread is not None and self.thread.ident is not None

    def in_reader_thread(self) -> bool:
        """True on the reader thread, where waiting for the reader would deadlock."""
        thread = self.thread
        if thread is None or self.ended:  # then the number may be another thread's
            return False
        return thread.ident == threading.get_ident()

    def closed_error(self) -> BaseException:
        """What to raise in a thread that waits for something of a life that is over."""
        error = self.error or ShardClosed(None, CLOSED_BY_DISCONNECT)
        with self._lock:
            if self._error_was_raised is None:
                self._error_was_raised = threading.local()
        self._error_was_raised.here = True
        # All waiting threads raise this one object, and each raise adds frames to its traceback.
        return error.with_traceback(None)

    def was_raised_here(self) -> bool:
        """True if this thread was told of the error already."""
        return hasattr(self._error_was_raised, "here")

    def progress(self) -> str:
        """Where the life is, and how the last connections ended, in words for a message."""
        waiting = ""
        if self.state is ShardState.CONNECTED:
            when = "which comes once in 5 seconds for all shards of a token"
            wait = self._identify_at.remaining()
            if wait:
                when = f"in {duration(math.ceil(wait))} at the earliest"
            waiting = (
                f", and waits for {'' if wait else 'Hello or for '}its turn to identify, {when}"
            )
        ends = f"; the last attempts: {', then '.join(self.ends)}" if self.ends else ""
        return self.state.value + waiting + ends

    # Requests

    def request_connection(
        self, request: Request, *, no_fail: bool | None, immediate: bool
    ) -> None:
        """Ask the reader for a new connection.

        :param request: REWIND, RECONNECT or REINSTANTIATE.
        :param no_fail: with REINSTANTIATE, whether to keep trying.
        :param immediate: True if the caller waits for the connection, so that no pause precedes it.
        """
        with self._lock:
            if self.is_over:
                return
            if request is Request.REINSTANTIATE:
                self.no_fail = no_fail
            self._immediate = self._immediate or immediate
            self.request = max(request, self.request or request)
        self._interrupt()

    def join_connection(self, no_fail: bool | None) -> bool:
        """Let a connection that is on the way to READY be the one that is asked for.

        :param no_fail: as for :meth:`request_connection`.
        :returns: False if there is none, READY having come meanwhile perhaps.
        """
        with self._lock:
            if self.state not in ON_THE_WAY:
                return False
            self.no_fail = no_fail
            return True

    def request_close(self, code: int, deadline: Deadline) -> None:
        """Ask the reader to close for good.

        :param code: of the close frame; of several requests the first one's counts.
        :param deadline: by when it is to be done.
        """
        with self._lock:
            if self.is_closed:
                self.close_deadline = self.close_deadline or deadline
            elif self.request is not Request.CLOSE:
                self.close_code = code
                self.close_deadline = deadline
                self.request = Request.CLOSE
                self._enter(ShardState.CLOSING)
        self._interrupt()

    def stop(self, error: BaseException, code: int, deadline: Deadline) -> None:
        """Close because of an error. Called by the reader, one of whose callbacks raised it.

        :param error: the exception that the waiting methods are to raise.
        :param code: of the close frame.
        :param deadline: by when it is to be done.
        """
        with self._lock:
            # A disconnect() before the error counts more, but not than SystemExit and its like.
            if self.request is not Request.CLOSE or not isinstance(error, Exception):
                self.error = self.error or error
        self.request_close(code, deadline)

    @property
    def may_close_in_background(self) -> bool:
        """True unless the life has ended, or a thread waits for that: one is enough for a life."""
        return not (self.ended or self._closes_in_background)

    def begin_background_close(self) -> bool:
        """True for the thread that is to wait for the end of the life; one gets True."""
        with self._lock:
            if not self.may_close_in_background:
                return False
            self._closes_in_background = True
            return True

    def fail_connection(self, deadline: Deadline) -> None:
        """End the connection of a life that is to be closed, without waiting for the reader.

        :param deadline: until when the peer may take a close frame.
        """
        connection = self._connection
        if connection is not None:
            loss = Loss(Cause.CLOSING, "the shard is being closed")
            connection.fail(loss, self.close_code, deadline)

    def _interrupt(self) -> None:
        self._changed()
        with self._lock:
            # Once the reader has taken the request, the connection that begins is what was asked
            # for.
            connection = None if self.request is None else self._connection
        if connection is not None and not self.in_reader_thread():
            connection.interrupt()

    # What the reader tells

    def set_thread(self, thread: threading.Thread) -> None:
        """Note which thread is the reader, before it starts."""
        self.thread = thread

    def take_request(self) -> Request | None:
        """Return the request. The connection that begins now fulfils it, unless it is CLOSE."""
        with self._lock:
            request = self.request
            if request is not Request.CLOSE:
                self.request = None
                self._immediate = False
            return request

    @property
    def immediate(self) -> bool:
        """True if a thread waits for the next connection."""
        return self._immediate

    def use(self, connection: Interruptible) -> bool:
        """Note the connection that begins now. False if the life is to be closed instead."""
        with self._lock:
            self._connection = connection
            if self.request is Request.CLOSE:
                return False
            self._enter(ShardState.CONNECTING)
        self._changed()
        return True

    def socket_opened(self) -> None:
        """Note that a socket was opened."""
        with self._lock:
            self.sockets_opened += 1
            self._change(ShardState.CONNECTED)

    def claim_opening(
        self, connection: Interruptible, state: ShardState, claimed: Callable[[], object]
    ) -> bool:
        """Win the right to send Identify or Resume on a connection. Any thread; one gets True.

        :param connection: to send on.
        :param state: IDENTIFYING or RESUMING.
        :param claimed: called for the one, under the lock: no other connection has begun then.
        """
        with self._lock:
            if connection is not self._connection or self.state is not ShardState.CONNECTED:
                return False
            claimed()
            self._change(state)
            return True

    def established(self) -> None:
        """Note that events flow, and that the reader has not failed to begin a session."""
        with self._lock:
            if self.request is not Request.REINSTANTIATE:  # whose no_fail is for the next session
                self.no_fail = None
            self._change(ShardState.READY)

    def set_state(self, state: ShardState) -> None:
        """Note a new state. A life that is closing takes none; close() ends it."""
        with self._lock:
            self._change(state)

    def _change(self, state: ShardState) -> None:
        if self.thread is not None and not self.is_over:
            self._enter(state)
            self._changed()

    def _enter(self, state: ShardState) -> None:
        """Change the state. The caller holds the lock."""
        if state is not self.state:
            self.state = state
            self.untold_states = (*self.untold_states, state)

    def take_state(self) -> ShardState:
        """Take the oldest state out that on_socket_state is to be told; there must be one."""
        with self._lock:
            state, *later = self.untold_states
            self.untold_states = tuple(later)
            return state

    def identify_later(self, wait: float) -> None:
        """Note how many seconds the identify gate makes the shard wait, for the messages of errors.

        For the reader.
        """
        self._identify_at = Deadline(wait)

    def connection_ended(self, how: str) -> None:
        """Remember how a connection ended, for the messages of errors."""
        self.ends = (*self.ends, how)[-_MOST_ENDS:]

    def begin_closing(self, error: BaseException) -> None:
        """Note that the life ends because of an error. An earlier request to close counts more."""
        with self._lock:
            if self.request is not Request.CLOSE:
                self.error = error
            self._change(ShardState.CLOSING)

    def close(self, error: BaseException | None) -> None:
        """Note that the life is over: only on_socket_closed is still to be called.

        :param error: why; None after disconnect(). An earlier request to close counts more.
        """
        with self._lock:
            if self.request is not Request.CLOSE:
                self.error = self.error or error
            told_by_connect = self.first_attempt_awaited and self.error is not None
            self._enter(ShardState.DISCONNECTED if told_by_connect else ShardState.CLOSED)
            self.is_closed = True
        self._changed()

    def never_begin(self) -> None:
        """Make this the life of a shard before its first connect(): one that has ended."""
        self.state = ShardState.DISCONNECTED
        self.untold_states = ()
        self.is_closed = self.ended = True

    def end(self) -> None:
        """Note that on_socket_closed has returned."""
        self.ended = True
        self._changed()


class Observer(Protocol):
    """What is told of a shard on behalf of many: its manager's lifecycle. Any thread calls it."""

    def enter_reader(self) -> None:
        """Note that the calling thread is the reader of a shard, until it ends."""

    def notified(self) -> None:
        """Note that threads which wait for something of the shard were woken."""

    def changed(self) -> None:
        """Note that the life of the shard has changed; they were woken for that."""

    def is_awaited_by(self, threads: Callable[[int], bool]) -> bool:
        """True if one of some threads waits for what the readers of the shards bring about.

        :param threads: True for the numbers of those threads.
        """


class Lifecycle:
    """The lives of a shard, one after the other.

    :param create_thread: makes the reader thread of a life, without starting it.
    """

    def __init__(self, create_thread: Callable[[Life], threading.Thread]) -> None:
        self._create_thread = create_thread
        self._waiters = Waiters()
        self._observer: Observer | None = None
        self._awaiting: set[int] = set()  # the threads that are inside wait_in()
        # Guards `life` while one follows another. Held for moments; reentrant, since a signal
        # handler may call disconnect() while its own thread holds the lock.
        self._lock = threading.RLock()
        self._closes = 0  # calls of disconnect(): a connect() that began before one ends with it
        self._interpreter_exiting = False
        # Before the first connect() the current life is one that has ended.
        self.life = Life(Beginning(GATEWAY_URL, API_VERSION), self._changed)
        self.life.never_begin()
        self._next: Life | None = None  # begins when the current life has ended
        # A life, and the sockets opened before it. Replaced as a whole: the sum never goes back.
        self._counted = (self.life, 0)

    @property
    def latest(self) -> Life:
        """The life that was asked for last: the current one, or the one that follows it."""
        following = self._next
        return self.life if following is None or following.is_over else following

    @property
    def began(self) -> bool:
        """True once connect() or start() was called."""
        return self.latest.thread is not None

    @property
    def sockets_opened(self) -> int:
        """The sockets opened in all lives. Never reset: waiting threads compare against it."""
        life, before = self._counted
        return before + life.sockets_opened

    @property
    def closes(self) -> int:
        """How often disconnect() was called. A call that reads this first, before it begins a life,
        ends with a disconnect() that comes after that."""
        return self._closes

    def in_reader_thread(self) -> bool:
        """True on the reader thread, where waiting for the reader would deadlock."""
        return self.life.in_reader_thread()

    def notify(self) -> None:
        """Let waiting threads look at their conditions again. Any thread."""
        self._waiters.notify()
        if self._observer is not None:
            self._observer.notified()

    def wake(self) -> None:
        """:meth:`notify`, by the observer itself."""
        self._waiters.notify()

    def _changed(self) -> None:
        self._waiters.notify()
        if self._observer is not None:
            self._observer.changed()

    def enter_reader(self) -> None:
        """Note that the calling thread is the reader."""
        if self._observer is not None:
            self._observer.enter_reader()

    def observe(self, observer: Observer) -> None:
        """Tell an observer, too, from now on."""
        self._observer = observer

    def wait(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Block until a condition holds.

        :param condition: looked at again after each change.
        :param deadline: until when.
        :returns: False if the time ran out first.
        """
        return self._waiters.wait(lambda: condition() and not self._waits_on_at_exit(), deadline)

    def wait_in(self, life: Life, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Block until a condition holds in a life, or that life is closed.

        A life that is being closed counts as closed when disconnect() has waited long enough, so
        that a callback that does not return keeps no thread waiting.

        :param life: the current life when the caller's method was called.
        :param condition: looked at again after each change.
        :param deadline: until when.
        :returns: False if the time ran out first.
        """
        thread = threading.get_ident()
        try:
            self._awaiting.add(thread)  # in here: Ctrl-C may come before the next line
            self.notify()  # a reader in wait_for_room(), which may wait for this very thread
            if not self.wait(lambda: condition() or life.is_over, deadline):
                return False
            if not condition() and life.close_deadline is not None:
                self.wait(lambda: life.is_closed, life.close_deadline.earlier(deadline))
            return True
        finally:
            self._awaiting.discard(thread)

    def is_awaited_by(self, threads: Callable[[int], bool]) -> bool:
        """True if one of some threads is inside :meth:`wait_in`.

        :param threads: True for the numbers of those threads.
        """
        return any(map(threads, list(self._awaiting)))

    def wait_for_room(
        self, has_room: Callable[[], bool], makes_room: Callable[[int], bool]
    ) -> None:
        """Block the reader until a queue of events has room, or waiting would lead nowhere.

        That is so if the shard is being closed, if a new connection is asked for, or if a thread
        that makes room waits for something that only the reader can bring about, or only the
        readers of all the observer's shards. Then the queue has to take more than it should.

        :param has_room: looked at again after each change, and each :meth:`notify`.
        :param makes_room: True for the number of a thread that takes events out of the queue.
        """
        life, observer = self.life, self._observer
        self._waiters.wait(
            lambda: (
                has_room()
                or life.is_over
                or life.request is not None
                or self.is_awaited_by(makes_room)
                or (observer is not None and observer.is_awaited_by(makes_room))
            ),
            Deadline(None),
        )

    def close(self, life: Life, deadline: Deadline, peer_deadline: Deadline) -> bool:
        """Wait for a life that was asked to close.

        :param deadline: until when.
        :param life: the life that was asked.
        :param peer_deadline: until when the peer and the callbacks have time; then its connection
            is given up.
        :returns: False if it has not ended in time.
        """
        if not self.wait(lambda: life.ended, peer_deadline):
            life.fail_connection(deadline)
        return self.wait(lambda: life.ended, deadline)

    def close_in_background(self, life: Life, deadline: Deadline, peer_deadline: Deadline) -> None:
        """:meth:`close` on a short-lived thread, for a caller that does not wait.

        The reader gives a peer that does not answer up in time by itself. The thread is for what
        may hold the reader up before that: a peer that takes no bytes, a callback.

        :param life: as for :meth:`close`, as are the rest.
        """
        if not life.may_close_in_background:
            return
        try:
            start_thread(self._close_in_background, life, deadline, peer_deadline)
        except RuntimeError:  # the system has none to give, or the interpreter exits
            pass

    def _close_in_background(self, life: Life, deadline: Deadline, peer_deadline: Deadline) -> None:
        # Noted here, and not by the caller: Ctrl-C may keep the thread from being started.
        if life.begin_background_close():
            self.close(life, deadline, peer_deadline)

    def _waits_on_at_exit(self) -> bool:
        """True on a daemon thread of the user's while the interpreter exits.

        Such a thread goes on waiting until the interpreter ends it. If it woke up, it would have
        time for nothing but a traceback on standard error, that the shard is closed.
        """
        return (
            self._interpreter_exiting
            and threading.current_thread().daemon
            and not self.in_reader_thread()
        )

    def interpreter_exits(self) -> None:
        """Note that the interpreter exits: from now on, daemon threads of the user's wait on."""
        self._interpreter_exiting = True

    def prepare(self, beginning: Beginning) -> Life:
        """Make a life that has not begun. It can be asked to close all the same.

        The thread is made here, too: making it on the short-lived thread that starts it would cost
        each shard one more page of memory, of a stack.
        """
        life = Life(beginning, self._changed)
        life.set_thread(self._create_thread(life))
        return life

    def begin(self, life: Life, closes: int) -> bool:
        """Begin a life, or let it follow the current one, if that is being closed. Never waits.

        :param life: as :meth:`prepare` made it. If no reader thread can be started, it ends at
            once, with the reason in its `error`.
        :param closes: :attr:`closes` as it was when the caller was asked.
        :returns: False if the life follows the current one.
        :raises AlreadyConnected: if another life runs, or is to follow the current one.
        :raises ShardClosed: if disconnect() was called since.
        """
        with self._lock:
            if not self.latest.is_over:
                raise AlreadyConnected(ALREADY_CONNECTED)
            if closes != self._closes:
                raise ShardClosed(None, CLOSED_BY_DISCONNECT)
            self._next = life
            if not self.life.ended:
                return False
        run_uninterrupted(self._begin_next)
        return True

    def _begin_next(self) -> BaseException | None:
        """Begin the life that follows one that has ended. Uninterrupted.

        :returns: why it could not begin, or None.
        """
        with self._lock:
            life = self._next
            if life is None:  # disconnect() was called meanwhile
                return None
            previous, counted = self.life, self._counted
            self._counted = (life, self.sockets_opened)
            self.life = life
            self._next = None  # last, for threads that ask for `latest` meanwhile
        try:
            assert life.thread is not None  # as prepare() made it
            life.thread.start()
        except BaseException as error:
            self.life, self._counted = previous, counted
            life.close(error)
            life.end()
            return error
        self.notify()
        return None

    def request_close(self, code: int, deadline: Deadline) -> Life:
        """Ask the current life to close; one that was to follow it has ended without a beginning.

        :param code: of the close frame.
        :param deadline: by when it is to be done.
        :returns: the life that was asked.
        """
        with self._lock:
            self._closes += 1
            life = self.life
            following, self._next = self._next, None
        if following is not None:
            following.request_close(code, deadline)
            following.close(None)
            following.end()
        life.request_close(code, deadline)
        self.notify()
        return life

    def end(self, life: Life) -> BaseException | None:
        """End a life, and begin the one that was asked for meanwhile.

        The reader calls this last.

        :param life: that ends.
        :returns: why the next one could not begin, or None.
        """
        with self._lock:
            life.end()
            if self._next is None:
                return None
        return self._begin_next()
