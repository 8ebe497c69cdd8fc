"""Pool: callbacks on several threads, in order for each key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from shardlib.checks import check_at_least_one, check_callback, check_methods
from shardlib.dispatch.room import Room
from shardlib.dispatch.schedule import Job, Schedule
from shardlib.dispatch.threads import Threads
from shardlib.dispatcher import Delivery, Dispatcher
from shardlib.text import describe

Key = Callable[[str, Any], Hashable]


class Executor(Protocol):
    """What a pool needs of a thread pool: ``concurrent.futures.ThreadPoolExecutor`` has it."""

    def submit(self, function: Callable[..., object], /, *arguments: Any) -> object:
        """Call the function on one of the threads."""


class Pool(Dispatcher):
    """Calls callbacks on several threads, for callbacks that wait for something: a site, a disk.

    Events are called in any order, or in order for each key. Callbacks about connections
    (on_socket_connected, on_socket_ready, on_socket_state, on_socket_closed, say) come in order:
    what came before has returned, and what comes after waits for them; so does on_socket_batch,
    which makes a pool wait after each read. on_socket_heartbeat, on_socket_error,
    on_socket_raw_message and on_socket_text come in any order. ::

        def channel(event, data):
            return data.get("channel_id")

        shard = Shard(token, intents, dispatcher=Pool(workers=8, key=channel))

    The threads are daemons named ``shardlib-pool-0`` and so on. The first begins with the first
    shard, the others when they are needed; they end when the last shard of this pool has closed and
    its callbacks have returned. disconnect() waits for them, for the shard's `close_timeout` at
    most.

    :param workers: callbacks that may run at once, an int from 1.
    :param maxsize: callbacks that may wait, an int from 1. While as many wait, the shard stops
        reading until half of them have run; its heartbeats go on.
    :param key: a function, called with an event's name and its data on the reader thread: events
        with equal keys are called in their order, one after the other. The key must be hashable.
        What the function raises is logged, and the event is dropped.
    :param executor: a thread pool of the program's own, as a
        ``concurrent.futures.ThreadPoolExecutor``, of which at most `workers` threads are used at
        once; None for threads of this pool's own. It must not be shut down before the shards are
        closed: what it refuses is dropped. Other jobs of the executor must not wait for the shard
        if they can fill it: no thread would be left for the callbacks.
    :raises ValueError: if an argument has a value that cannot be.
    :raises TypeError: if an argument has the wrong type, or the executor runs its jobs in other
        processes or interpreters, which have neither the shard nor the program's data.
    """

    def __init__(
        self,
        workers: int = 8,
        maxsize: int = 10_000,
        key: Key | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._workers = check_at_least_one("workers", workers)
        check_callback("key", key, 2)
        _check_executor(executor)
        self._key = key
        self._executor = executor
        self._room = Room(maxsize, lambda: len(self._schedule))
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._own = Threads("shardlib-pool", self._workers)
        # Guards what follows, for moments.
        self._lock = threading.Lock()
        self._shards = 0  # lives under way
        self._schedule = Schedule()
        self._started = 0  # jobs that were given to a thread and are not done
        self._threads: set[int] = set()  # numbers of the threads that are inside _run()

    def __len__(self) -> int:
        """How many callbacks wait. Any thread."""
        return len(self._schedule)

    def __repr__(self) -> str:
        return f"<Pool of {self._workers} with {len(self)} waiting>"

    # The readers

    def begin(self, shard: Any) -> None:
        with self._lock:
            self._shards += 1
        if self._executor is None:
            self._own.begin()

    def submit(self, delivery: Delivery) -> None:
        key = None
        if self._key is not None and delivery.event is not None:
            key = (self._key(delivery.event, delivery.data),)
        if delivery.can_be_dropped and self._room.is_full:
            self._room.wait(delivery)
        with self._lock:
            self._schedule.add(Job(delivery, key))

    def flush(self) -> None:
        self._start_ready()

    def end(self, shard: Any) -> None:
        with self._lock:
            self._shards -= 1
        self._end_if_unused()

    # Any thread

    def _start_ready(self) -> None:
        """Give jobs that may run now to threads."""
        while True:
            with self._lock:
                job = self._schedule.take() if self._started < self._workers else None
                if job is None:
                    return
                self._started += 1
            self._room.made()
            try:
                (self._executor or self._own).submit(self._run, job)
            except RuntimeError:  # it was shut down, or the system has no thread to give
                job.delivery.drop()
                self._done(job)

    def _run(self, job: Job) -> None:
        """Run a job, on a thread of the pool's."""
        thread = threading.get_ident()
        self._threads.add(thread)
        job.delivery()
        self._threads.discard(thread)
        self._done(job)
        self._start_ready()
        self._end_if_unused()

    def _done(self, job: Job) -> None:
        with self._lock:
            self._started -= 1
            self._schedule.done(job)

    def _end_if_unused(self) -> None:
        with self._lock:
            if not self._shards and self._schedule.is_empty:
                self._own.end()

    def runs_in(self, thread: int) -> bool:
        return thread in self._threads

    def is_running(self) -> bool:
        return True

    def join(self, timeout: float | None) -> None:
        self._own.join(timeout)

    def leave_to_parent(self) -> None:
        self._begin_anew()


def _check_executor(executor: Executor | None) -> None:
    check_methods("executor", executor, "submit", optional=True)
    for kind in type(executor).__mro__:
        if kind.__name__ in ("ProcessPoolExecutor", "InterpreterPoolExecutor"):
            raise TypeError(
                f"executor cannot be {describe(executor)}: it would call the callbacks in other "
                "processes or interpreters, which have neither the shard nor the program's data; "
                "give a ThreadPoolExecutor, and let the callbacks hand heavy work to processes"
            )
