"""Threads: a few daemon threads that run jobs, made when they are needed.

``concurrent.futures.ThreadPoolExecutor`` would keep the interpreter from exiting behind a callback
that does not return.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from shardlib.deadline import Deadline
from shardlib.running import LeftToParent

Job = tuple[Callable[..., object], tuple[Any, ...]]


class Threads:
    """Runs jobs on as many threads as there are jobs at once, up to a number.

    :param name: of the threads, followed by their numbers.
    :param most: how many threads there may be at once.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        # Guards everything below.
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._busy = 0  # jobs that were submitted and are not done
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._ended: list[threading.Thread] = []

    def begin(self) -> None:
        """Have one thread at least: Python 3.12 begins none at exit, when on_socket_closed comes.

        :raises RuntimeError: if the system has no thread to give.
        """
        with self._lock:
            if not self._threads:
                self._start()

    def submit(self, function: Callable[..., object], /, *arguments: Any) -> None:
        """Call a function on one of the threads, or on a new one if all are busy.

        :param function: to call; it must raise nothing.
        :param arguments: of the function.
        :raises RuntimeError: if the system has no thread to give, and there is none yet.
        """
        with self._lock:
            self._busy += 1
            if len(self._threads) < min(self._busy, self._most):
                try:
                    self._start()
                except RuntimeError:
                    if not self._threads:
                        self._busy -= 1
                        raise
            self._jobs.put((function, arguments))

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._run,
            args=(self._jobs,),
            name=f"{self._name}-{len(self._threads)}",
            daemon=True,
        )
        thread.start()
        self._threads.append(thread)

    def _run(self, jobs: SimpleQueue[Job | None]) -> None:
        try:
            while (job := jobs.get()) is not None:
                function, arguments = job
                function(*arguments)
                del job, function, arguments  # its data is not kept while the next one is awaited
                with self._lock:
                    self._busy -= 1
        except LeftToParent:
            pass  # a callback has forked, and came back in the child

    def end(self) -> None:
        """Let the threads end, all jobs being done. Jobs to come get new threads."""
        with self._lock:
            if not self._threads:  # let go already: join() waits for those
                return
            for _ in self._threads:
                self._jobs.put(None)
            self._jobs = SimpleQueue()
            self._ended, self._threads = self._threads, []

    def join(self, timeout: float | None) -> None:
        """Wait until the threads that :meth:`end` has let go have ended.

        :param timeout: seconds for all of them, None for no limit.
        """
        deadline = Deadline(timeout)
        for thread in self._ended:
            thread.join(deadline.remaining())
