"""Worker: callbacks on one thread of their own, in order."""

from __future__ import annotations

import threading
from typing import Any

from shardlib.dispatch.backlog import Backlog
from shardlib.dispatcher import Delivery, Dispatcher
from shardlib.running import LeftToParent
from shardlib.waiting import Alarm


class Worker(Dispatcher):
    """Calls the callbacks on one thread, in order, so that slow ones never delay reading.

    The thread, a daemon named ``shardlib-worker``, begins with the first shard, and ends when the
    last shard of this worker has closed and its callbacks have returned. disconnect() waits for
    them, for the shard's `close_timeout` at most; the thread calls what is left after that, too.

    :param maxsize: callbacks that may wait, an int from 1. While as many wait, the shard stops
        reading until half of them have run; its heartbeats go on.
    :raises ValueError: if `maxsize` is below 1.
    :raises TypeError: if `maxsize` is not an int.
    """

    def __init__(self, maxsize: int = 10_000) -> None:
        self._backlog = Backlog(maxsize)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._alarm = Alarm()  # rung when there is something to do, or nothing more to come
        # Guards `_runs` and `_shards`, so that a thread that ends misses no delivery.
        self._lock = threading.Lock()
        self._runs = False  # until the thread is about to end
        self._shards = 0  # lives under way
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """How many callbacks wait. Any thread."""
        return len(self._backlog)

    def __repr__(self) -> str:
        return f"<Worker with {len(self)} waiting>"

    def begin(self, shard: Any) -> None:
        with self._lock:
            self._shards += 1
        self._start()  # now: Python 3.12 begins no thread at exit, for on_socket_closed

    def submit(self, delivery: Delivery) -> None:
        self._start()  # first: without a thread a full backlog would never have room
        self._backlog.put(delivery)
        self._start()  # between lives the thread may have ended meanwhile

    def flush(self) -> None:
        self._alarm.ring()

    def end(self, shard: Any) -> None:
        with self._lock:
            self._shards -= 1
        self._alarm.ring()

    def _start(self) -> None:
        """Have a thread run.

        :raises RuntimeError: if the system has no thread to give.
        """
        with self._lock:
            if self._runs:
                return
            thread = threading.Thread(target=self._run, name="shardlib-worker", daemon=True)
            thread.start()
            self._thread = thread
            self._runs = True

    def _run(self) -> None:
        try:
            while not self._ends():
                delivery = self._backlog.take()
                if delivery is None:
                    self._alarm.wait(None)
                else:
                    delivery()
                    del delivery  # its data is not kept while the next one is awaited
        except LeftToParent:
            pass  # a callback has forked, and came back in the child
        except BaseException:  # memory is short, say: the next delivery begins another thread
            self._runs = False
            raise

    def _ends(self) -> bool:
        with self._lock:
            if self._shards or len(self._backlog):
                return False
            self._runs = False
            return True

    def runs_in(self, thread: int) -> bool:
        return self._runs and self._thread is not None and self._thread.ident == thread

    def is_running(self) -> bool:
        return self._runs

    def join(self, timeout: float | None) -> None:
        if self._thread is not None and not self._shards:
            self._thread.join(timeout)

    def leave_to_parent(self) -> None:
        self._backlog.renew()
        self._begin_anew()
