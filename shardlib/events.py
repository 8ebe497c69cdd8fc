"""Event, and Events: an iterator over the events of shards, for a thread that asks for them.

The readers put events into a queue, each through a feed, and wait while the queue is full. Their
tables refer to the feed and the queue alone, never to the iterator: once the program has no more
use for the iterator, Python collects it, and it closes the queue.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from shardlib.callbacks import Callbacks
from shardlib.checks import check_at_least_one
from shardlib.closing import Closing
from shardlib.currentsession import CurrentSession
from shardlib.deadline import Deadline
from shardlib.errors import ShardError
from shardlib.interrupts import has_interrupted_own_call
from shardlib.lifecycle import Life, Lifecycle
from shardlib.outstanding import Handover, Outstanding
from shardlib.ownprocess import OwnProcess
from shardlib.state import ShardState
from shardlib.text import count


class Event(NamedTuple):
    """One event of a shard, as an :class:`Events` yields it.

    A named tuple: ``name, data, sequence, shard = event`` works, too.

    :param name: the event's name, a str in upper case: the payload's ``t``.
    :param data: the event's object, as Discord documents it: the payload's ``d``. All iterators and
        listeners get the same object.
    :param sequence: the number of the event in its session, an int: the payload's ``s``; None if
        the payload has none.
    :param shard: the :class:`Shard` that has received the event.
    """

    name: str
    data: Any
    sequence: int | None
    shard: Any


class Entry(Handover):
    """An event on its way through a queue.

    :param session: the session under way.
    :param event: the event.
    :param outstanding: of the event's shard, to note there that the user's code is done with it.
    """

    __slots__ = ("event", "outstanding")

    def __init__(self, session: CurrentSession, event: Event, outstanding: Outstanding) -> None:
        super().__init__(session)
        self.event = event
        self.outstanding = outstanding


class EventQueue:
    """The events between the readers of one or more shards and the threads that take them.

    A thread may be interrupted after any call and at any jump backwards, by Ctrl-C or by a signal
    handler that takes events itself. So events move to the thread's list in `pending` first, in one
    call of C code, and from there to the program in a few lines without a call. No interrupt can
    split either: an event is returned once, or the next call returns it.

    Several readers may put events in at once. Each looks for room before it adds one event, so two
    readers may exceed `maxsize` by one event, and 16 by 15.

    :ivar entries: the events that wait. The feeds add to them.
    :ivar taker: number of the thread that took events last; at first of the one that has made the
        queue.
    :ivar waiting: numbers of the threads that wait for an event, for which the readers notify.
    :ivar held: numbers of the readers that wait for room.
    :ivar turn: an object, another one each time the readers that wait may go on: all of them, even
        if the first have filled the room again before the last one looks.
    :ivar pending: by thread, the entries that it has taken out of the queue, to be returned.
    :ivar returned: by thread, the entries that it was given since its last call. Each change of
        this replaces the list.

    :param names: of the events, none for all.
    :param timeout: seconds that :meth:`await_event` waits, or None.
    :param maxsize: how many events may wait.
    :param lifecycle: of the owner: the shard, or what observes the shards. The queue ends with the
        owner's life.
    :param owner: what the owner is, in words for messages.
    :param progress: returns what the owner is doing while it is not ready, likewise; None if the
        life tells.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        timeout: float | None,
        maxsize: int,
        *,
        lifecycle: Lifecycle,
        owner: str = "the shard",
        progress: Callable[[], str] | None = None,
    ) -> None:
        shown = ", ".join(map(repr, names))
        self.what = f"the loop that is to take {count(maxsize, 'waiting event')} of events({shown})"
        self.names = names
        self.maxsize = maxsize
        self._timeout = timeout
        self._lifecycle = lifecycle
        self._owner = owner
        self._progress = progress
        self._process = OwnProcess(
            "events() was called before the process was forked, and its events are the parent's; "
            "call it again in the child, on a shard of the child's"
        )
        life = lifecycle.life
        # The queue belongs to one life: to the current one, or else to the next that begins.
        self._life_before = life if life.is_over else None
        self._life: Life | None = None if life.is_over else life
        self.entries: deque[Entry] = deque()
        self.returned: dict[int, list[Entry]] = {}
        self.pending: dict[int, list[Entry]] = {}
        self.taker = threading.get_ident()
        self.waiting: set[int] = set()
        self.held: set[int] = set()
        self.turn = object()
        self.is_closed = False
        self._has_ended = False  # with its life
        self._iterator: weakref.ref[Events] | None = None
        # Weak, so that the queue keeps no shard that the owner has replaced, and Python needs no
        # search for cycles to free a queue. Each change of the table is one step of C code.
        self._feeds: dict[weakref.ref[Feed], None] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def add_feed(
        self,
        *,
        shard: Any,
        callbacks: Callbacks,
        lifecycle: Lifecycle,
        current_session: Callable[[], CurrentSession],
    ) -> None:
        """Take the events in, too, that a shard receives from now on. Any thread, at any time.

        :param shard: of the events.
        :param callbacks: of the shard.
        :param lifecycle: of the shard.
        :param current_session: returns the shard's session under way.
        """
        feed = Feed(self, shard, callbacks, lifecycle, current_session)
        self._feeds[weakref.ref(feed, self._feeds.pop)] = None  # first: close() abandons it
        callbacks.subscribe(feed, self.names)
        if self.is_closed:  # meanwhile
            feed.abandon()

    # The readers

    def is_wanted(self) -> bool:
        """True if an event that comes now is one of the queue's life, and the queue is open."""
        life = self._lifecycle.life
        if life is not self._life:
            if self._life is not None:
                self._has_ended = True
            elif life is not self._life_before:
                self._life = life
        return not (self.is_closed or self._has_ended)

    def has_room(self) -> bool:
        """True if the readers that wait for room may go on."""
        # Once a reader waits, it waits for half of the room: waking it for each event costs more
        # than the event. If the queue is closed, other readers may still be about to drop theirs.
        return self.is_closed or len(self.entries) <= self.maxsize // 2

    def makes_room(self, thread: int) -> bool:
        """True for the number of the thread that takes events, unless it waits for the queue.

        One that waits for this queue itself is about to see that there are events.
        """
        return thread == self.taker and thread not in self.waiting

    def drop(self) -> None:
        """Drop the events that wait: the queue is closed."""
        while True:
            try:
                entry = self.entries.popleft()
            except IndexError:
                return
            entry.outstanding.finish(entry)

    # The threads that take events

    def await_event(self, thread: int) -> None:
        """Give the calling thread an event in `pending`; wait for it as long as allowed.

        :param thread: its number.
        :raises StopIteration: if the queue is closed, or its life was, by disconnect().
        """
        self._process.check()
        if self._lifecycle.in_reader_thread():
            self._refuse(
                "in a callback: the next event can only be received after the callback has "
                "returned; iterate on another thread, or use poll()"
            )
        self._begin_taking(thread)
        deadline = Deadline(self._timeout)
        while not self.is_closed:
            if self.pending[thread]:
                return
            self._finish_returned(thread)
            if not self.entries:
                self._wait(thread, deadline)
            self._move(thread, 1)
        raise StopIteration

    def gather_events(self, thread: int, most: int | None) -> None:
        """Give the calling thread the events that are there in `pending`, without waiting.

        :param thread: its number.
        :param most: how many, None for all.
        """
        self._process.check()
        self._begin_taking(thread)
        self._finish_returned(thread)
        wanted = len(self.entries)
        if most is not None:
            wanted = min(wanted, most - len(self.pending[thread]))
        self._move(thread, max(0, wanted))
        life = self._joined_life()
        if life is not None and life.is_closed and not self.pending[thread] and not self.entries:
            self._end(life)

    def _begin_taking(self, thread: int) -> None:
        self.taker = thread
        self.returned.setdefault(thread, [])
        self.pending.setdefault(thread, [])

    def _finish_returned(self, thread: int) -> None:
        """Note that the caller is done with what the thread was given before."""
        returned = self.returned[thread]
        for entry in returned:
            entry.outstanding.finish(entry)
        if self.returned[thread] is returned:  # else a signal handler was given more
            self.returned[thread] = []

    def _move(self, thread: int, most: int) -> None:
        """Move events, as far as there are any, to those that only this thread returns."""
        entries = itertools.islice(iter(self.entries.popleft, None), most)
        try:
            self.pending[thread].extend(entries)
        except IndexError:
            pass  # another thread was faster
        if self.held and self.has_room():
            self.turn = object()
            self._lifecycle.notify()

    def _wait(self, thread: int, deadline: Deadline) -> None:
        """Wait until there is an event, or the queue was closed.

        :raises StopIteration: if the life has ended, by disconnect().
        """
        if has_interrupted_own_call():
            self._refuse(
                "in a signal handler, or a finaliser, that has interrupted another call of the "
                "library: it would wait for what that call holds; set a flag, or use poll()"
            )
        life = self._joined_life()
        if life is None:
            raise ShardError(
                f"the next event can never come: {self._owner} is not connected; "
                "connect() or start() first"
            )
        has_come = False  # once it has, another thread may take it before this one does

        def look() -> bool:
            nonlocal has_come
            has_come = has_come or bool(self.entries) or self.is_closed
            return has_come

        try:
            self.waiting.add(thread)
            in_time = self._lifecycle.wait_in(life, look, deadline)
        finally:
            self.waiting.discard(thread)
        if has_come or look():
            return
        if not in_time:
            awaited = " or ".join(self.names) or "event"
            if life.is_ready:
                state = ""
            elif self._progress is None:
                state = f"; the shard is {life.progress()}"
            else:
                state = f"; {self._progress()}"
            within = count(self._timeout or 0, "second")
            raise TimeoutError(f"no {awaited} came within {within}{state}")
        self._end(life)
        raise StopIteration

    def _end(self, life: Life) -> None:
        """Note that no event will come.

        :raises BaseException: the error that has closed the shard, if one has.
        """
        self._has_ended = True
        if life.error is not None:
            raise life.closed_error()

    def _joined_life(self) -> Life | None:
        """The life whose events these are; None if it has not begun."""
        if self._life is None:
            life = self._lifecycle.life
            # If the first attempt failed, connect() has told so, and may be called again.
            if life is not self._life_before and life.state is not ShardState.DISCONNECTED:
                self._life = life
        return self._life

    def _refuse(self, why: str) -> NoReturn:
        raise ShardError(f"the next event was asked for {why}")

    # Any thread, and finalisers: no lock is taken

    def close_after(self, iterator: Events) -> None:
        """Close the queue when nothing refers to its iterator any more.

        A finaliser (``__del__``) would run after :meth:`close`, too, and Python ignores Ctrl-C in
        a finaliser.
        """
        self._iterator = weakref.ref(iterator, lambda reference: self.close())

    def close(self) -> None:
        """Take no more events, and drop those that wait."""
        self.is_closed = True
        for reference in list(self._feeds):
            feed = reference()
            if feed is not None:
                feed.abandon()
        self.drop()
        for entries in (*list(self.returned.values()), *list(self.pending.values())):
            for entry in entries:
                entry.outstanding.finish(entry)
        self._lifecycle.notify()
        self._iterator = None


class Feed:
    """What one shard puts into a queue: a subscriber of the shard's callbacks.

    :param queue: to put the events into.
    :param shard: of the events.
    :param callbacks: of the shard.
    :param lifecycle: of the shard.
    :param current_session: returns the session under way.
    """

    def __init__(
        self,
        queue: EventQueue,
        shard: Any,
        callbacks: Callbacks,
        lifecycle: Lifecycle,
        current_session: Callable[[], CurrentSession],
    ) -> None:
        self.what = queue.what
        self._queue = queue
        self._shard = shard
        self._callbacks = callbacks
        self._outstanding = callbacks.outstanding
        self._lifecycle = lifecycle
        self._current_session = current_session

    def offer(self, event: str, payload: Any) -> bool:
        """Put an event in; wait while the queue is full. True if no later event is wanted."""
        queue = self._queue
        if not queue.is_wanted():
            return True
        entries = queue.entries
        # While one reader waits for half of the room, none fills that half before it.
        if len(entries) >= queue.maxsize or queue.held:
            self._wait_for_room()
        outstanding = self._outstanding
        entry = Entry(
            self._current_session(),
            Event(event, payload.get("d"), payload.get("s"), self._shard),
            outstanding,
        )
        outstanding.add(entry)
        entries.append(entry)
        if queue.is_closed:  # meanwhile
            queue.drop()
            return True
        if queue.waiting:
            self._callbacks.notify_later()
        return False

    def _wait_for_room(self) -> None:
        queue = self._queue
        thread = threading.get_ident()
        # The thread that takes events may be this one, in a callback: nothing would make room.
        if thread == queue.taker:
            return
        turn = queue.turn
        queue.held.add(thread)
        try:
            self._callbacks.flush()  # the thread that makes room may sleep
            self._lifecycle.wait_for_room(
                lambda: queue.turn is not turn or queue.has_room(), queue.makes_room
            )
        finally:
            queue.held.discard(thread)

    def abandon(self) -> None:
        """Put no more events in: the queue is closed. Takes no lock, for finalisers."""
        self._callbacks.abandon(self)


class Events(Closing, Iterator[Event]):
    """The events of one shard or of several, one after the other.

    :meth:`Shard.events` and :meth:`ShardManager.events` return one. An iterator, and a context
    manager that closes itself. Several threads may share one: each event goes to one of them.
    ``break``, :meth:`close`, and losing the last reference to the iterator free the shards at once,
    also if they wait because the queue is full.
    """

    def __init__(self, queue: EventQueue) -> None:
        self._queue = queue
        queue.close_after(self)

    def __iter__(self) -> Events:
        return self

    def __next__(self) -> Event:
        queue = self._queue
        # The traceback of an exception refers to the frames that it has passed, this one too, and
        # may be kept for long, by a REPL for example. It must not keep the iterator.
        del self
        thread = threading.get_ident()
        while True:
            queue.await_event(thread)
            # No call from here to the return: see EventQueue.
            pending = queue.pending[thread]
            if pending:  # else a signal handler has taken it
                queue.returned[thread] = queue.returned[thread] + pending[:1]
                queue.pending[thread] = pending[1:]
                return pending[0].event

    def poll(self, max_events: int | None = None) -> list[Event]:
        """Return the events that wait, in their order, without waiting; for a game loop, say.

        Works everywhere: in callbacks and signal handlers, too, and before :meth:`Shard.connect`.
        What the calling thread was given before counts as done.

        :param max_events: an int, the most to return; the others wait for the next call. None
            returns all.
        :returns: a list of :class:`Event`, empty if none waits.
        :raises ShardClosed: the error that has closed the shard, if :meth:`Shard.disconnect` has
            not, once all events were returned.
        :raises ConnectionFailed: likewise, if the shard was closed as it could not connect.
        :raises SystemExit: likewise, if a callback raised it.
        :raises KeyboardInterrupt: likewise, if a callback raised it.
        :raises ForkedProcess: in a process that was forked after the iterator was made.
        :raises ValueError: if `max_events` is below 1.
        :raises TypeError: if `max_events` is neither an int nor None.
        """
        queue = self._queue
        del self  # as above
        if max_events is not None:
            check_at_least_one("max_events", max_events)
        thread = threading.get_ident()
        while not queue.is_closed:
            queue.gather_events(thread, max_events)
            pending = queue.pending[thread]
            taken = pending[:max_events]
            end = len(taken)
            events = [entry.event for entry in taken]
            # No call from here to the return: see EventQueue.
            if queue.pending[thread] is pending:  # else a signal handler has taken some
                queue.returned[thread] = queue.returned[thread] + taken
                queue.pending[thread] = pending[end:]
                return events
        return []

    def close(self) -> None:
        """Take no more events, and drop those that wait. A second call does nothing. Never blocks.

        All events of the iterator count as done then, those that were dropped, too. To leave them
        to the next process, disconnect, and save :attr:`Shard.session`, before.
        """
        self._queue.close()

    def __repr__(self) -> str:
        queue = self._queue
        which = ", ".join(queue.names) or "all events"
        waiting = "closed" if queue.is_closed else f"{len(queue)} waiting"
        return f"<Events {which}: {waiting}>"
