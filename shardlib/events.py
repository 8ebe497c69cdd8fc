"""Event, and Events: an iterator over the events of a shard, for a thread that asks for them.

The reader puts events into a queue, and waits while that is full. The reader's tables refer to the
queue alone, never to the iterator: once the program has no more use for the iterator, Python
collects it, and it closes the queue.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

from shardlib.callbacks import Callbacks
from shardlib.checks import check_type
from shardlib.currentsession import CurrentSession
from shardlib.deadline import Deadline
from shardlib.errors import ForkedProcess, ShardError
from shardlib.interrupts import has_interrupted_own_call
from shardlib.lifecycle import Life, Lifecycle
from shardlib.outstanding import Handover
from shardlib.state import ShardState
from shardlib.text import count


class Event(NamedTuple):
    """One event of a shard, as :meth:`Shard.events` yields it.

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


class _Entry(NamedTuple):
    event: Event
    handover: Handover


class EventQueue:
    """The events between the reader and the threads that take them.

    A thread may be interrupted after any call and at any jump backwards, by Ctrl-C or by a signal
    handler that takes events itself. So events move to the thread's list in `pending` first, in one
    call of C code, and from there to the program in a few lines without a call. No interrupt can
    split either: an event is returned once, or the next call returns it.

    :ivar pending: by thread, the entries that it has taken out of the queue, to be returned.
    :ivar returned: by thread, the entries that it was given since its last call. Each change of
        this replaces the list.

    :param names: of the events, none for all.
    :param timeout: seconds that :meth:`await_event` waits, or None.
    :param maxsize: how many events may wait.
    :param shard: of the events.
    :param callbacks: of the shard; to be subscribed to by the caller.
    :param lifecycle: of the shard.
    :param current_session: returns the session under way.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        timeout: float | None,
        maxsize: int,
        *,
        shard: Any,
        callbacks: Callbacks,
        lifecycle: Lifecycle,
        current_session: Callable[[], CurrentSession],
    ) -> None:
        shown = ", ".join(map(repr, names))
        self.what = f"the loop that is to take {count(maxsize, 'waiting event')} of events({shown})"
        self.names = names
        self._timeout = timeout
        self._maxsize = maxsize
        self._shard = shard
        self._callbacks = callbacks
        self._lifecycle = lifecycle
        self._current_session = current_session
        self._process_id = os.getpid()
        life = lifecycle.life
        # The queue belongs to one life: to the current one, or else to the next that begins.
        self._life_before = life if life.is_over else None
        self._life: Life | None = None if life.is_over else life
        self._entries: deque[_Entry] = deque()
        self.returned: dict[int, list[_Entry]] = {}
        self.pending: dict[int, list[_Entry]] = {}
        self._taker = threading.get_ident()  # the thread that took events last; first the maker
        self._waiting: set[int] = set()  # threads for which the reader calls notify()
        self._reader_waits = False
        self.is_closed = False
        self._has_ended = False  # with its life
        self._iterator: weakref.ref[Events] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    # The reader

    def offer(self, event: str, payload: Any) -> bool:
        """Take an event in; wait while the queue is full. True if no later event is wanted."""
        if not self._is_wanted():
            return True
        # The thread that takes events may be this one, in a callback: nothing would make room.
        if len(self._entries) >= self._maxsize and self._taker != threading.get_ident():
            self._reader_waits = True
            self._callbacks.flush()  # the thread that makes room may sleep
            self._lifecycle.wait_for_room(self._has_room, self._makes_room)
            self._reader_waits = False
        handover = Handover(self._current_session())
        entry = _Entry(Event(event, payload.get("d"), payload.get("s"), self._shard), handover)
        self._callbacks.outstanding.add(handover)
        self._entries.append(entry)
        if self.is_closed:  # meanwhile
            self._drop()
            return True
        if self._waiting:
            self._callbacks.notify_later()
        return False

    def _is_wanted(self) -> bool:
        """True if an event that comes now is one of the queue's life, and the queue is open."""
        life = self._lifecycle.life
        if self._life is None and life is not self._life_before:
            self._life = life
        elif self._life is not None and life is not self._life:
            self._has_ended = True
        return not (self.is_closed or self._has_ended)

    def _has_room(self) -> bool:
        # Once the reader waits, it waits for half of the room: waking it for each event costs more
        # than the event.
        return len(self._entries) <= self._maxsize // 2

    def _makes_room(self, thread: int) -> bool:
        # One that waits for this queue itself is about to see that there are events.
        return thread == self._taker and thread not in self._waiting

    # The threads that take events

    def await_event(self, thread: int) -> None:
        """Give the calling thread an event in `pending`; wait for it as long as allowed.

        :param thread: its number.
        :raises StopIteration: if the queue is closed, or its life was, by disconnect().
        """
        self._check_process()
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
            if not self._entries:
                self._wait(thread, deadline)
            self._move(thread, 1)
        raise StopIteration

    def gather_events(self, thread: int, most: int | None) -> None:
        """Give the calling thread the events that are there in `pending`, without waiting.

        :param thread: its number.
        :param most: how many, None for all.
        """
        self._check_process()
        self._begin_taking(thread)
        self._finish_returned(thread)
        wanted = len(self._entries)
        if most is not None:
            wanted = min(wanted, most - len(self.pending[thread]))
        self._move(thread, max(0, wanted))
        life = self._joined_life()
        if life is not None and life.is_closed and not self.pending[thread] and not self._entries:
            self._end(life)

    def _begin_taking(self, thread: int) -> None:
        self._taker = thread
        self.returned.setdefault(thread, [])
        self.pending.setdefault(thread, [])

    def _finish_returned(self, thread: int) -> None:
        """Note that the caller is done with what the thread was given before."""
        returned = self.returned[thread]
        for entry in returned:
            self._callbacks.outstanding.finish(entry.handover)
        if self.returned[thread] is returned:  # else a signal handler was given more
            self.returned[thread] = []

    def _move(self, thread: int, most: int) -> None:
        """Move events, as far as there are any, to those that only this thread returns."""
        entries = itertools.islice(iter(self._entries.popleft, None), most)
        try:
            self.pending[thread].extend(entries)
        except IndexError:
            pass  # another thread was faster
        if self._reader_waits and self._has_room():
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
                "the next event can never come: the shard is not connected; "
                "connect() or start() first"
            )
        has_come = False  # once it has, another thread may take it before this one does

        def look() -> bool:
            nonlocal has_come
            has_come = has_come or bool(self._entries) or self.is_closed
            return has_come

        try:
            self._waiting.add(thread)
            in_time = self._lifecycle.wait_in(life, look, deadline)
        finally:
            self._waiting.discard(thread)
        if has_come or look():
            return
        if not in_time:
            awaited = " or ".join(self.names) or "event"
            state = "" if life.is_ready else f"; the shard is {life.progress()}"
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

    def _check_process(self) -> None:
        if os.getpid() != self._process_id:
            raise ForkedProcess(
                "events() was called before the process was forked, and its events are the "
                "parent's; call it again in the child, on a shard of the child's"
            )

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
        self._callbacks.abandon(self)
        self._drop()
        for entries in (*list(self.returned.values()), *list(self.pending.values())):
            for entry in entries:
                self._callbacks.outstanding.finish(entry.handover)
        self._lifecycle.notify()
        self._iterator = None

    def _drop(self) -> None:
        while True:
            try:
                entry = self._entries.popleft()
            except IndexError:
                return
            self._callbacks.outstanding.finish(entry.handover)


class Events(Iterator[Event]):
    """The events of a shard, one after the other, as :meth:`Shard.events` returns them.

    An iterator, and a context manager that closes itself. Several threads may share one: each event
    goes to one of them. ``break``, :meth:`close`, and losing the last reference to the iterator
    free the shard at once, also if the shard waits because the queue is full.
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
        check_type("max_events", max_events, int, optional=True)
        if max_events is not None and max_events < 1:
            raise ValueError(f"max_events must be 1 or more, not {max_events}")
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

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        queue = self._queue
        which = ", ".join(queue.names) or "all events"
        waiting = "closed" if queue.is_closed else f"{len(queue)} waiting"
        return f"<Events {which}: {waiting}>"
