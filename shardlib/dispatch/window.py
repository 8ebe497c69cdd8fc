"""WindowMailbox: a mailbox that the loop of a window empties, until the window is closed."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import Any

from shardlib.deadline import Deadline
from shardlib.dispatch.mailbox import Mailbox
from shardlib.dispatcher import Delivery
from shardlib.interrupts import run_uninterrupted

# Seconds that callbacks may take before the window gets its turn again.
SLICE = 0.010

# Seconds that the closing of the window waits for its shards: a round trip to most places. The exit
# handler waits for the rest, if the program ends then, and the two together for half a second.
CLOSE_TIMEOUT = 0.1

# Seconds that the threads which do so may take to begin.
START_TIMEOUT = 1.0


class WindowMailbox(Mailbox):
    """A mailbox that belongs to a window, which the thread that makes it owns.

    A subclass lets the loop of its toolkit call :meth:`run_slice` when it is woken, and
    :meth:`close` when the window is closed.

    :param maxsize: as for :class:`shardlib.dispatch.Mailbox`.
    :param overflow: likewise.
    """

    def __init__(self, maxsize: int, overflow: str) -> None:
        super().__init__(maxsize, overflow)
        # Known before the first run_pending(), which may come after a wait of this thread's.
        self._thread = threading.current_thread()
        # Shards whose life is under way. Each change is one step of C code, and needs no lock.
        self._shards: dict[Any, None] = {}
        self._is_closed = False

    def run_slice(self) -> None:
        """Call callbacks that wait, for a moment. Called by the window's thread.

        :raises SystemExit: as :meth:`shardlib.dispatch.Mailbox.run_pending`.
        :raises KeyboardInterrupt: likewise.
        """
        self.run_pending(max_seconds=SLICE)

    def close(self) -> None:
        """Call no more callbacks, and disconnect the shards. Called by the window's thread.

        The callbacks that wait are forgotten, so that a saved session has their events replayed.
        This waits for the shards for a tenth of a second; closing goes on after that, for their
        `close_timeout` at most.
        """
        if self._is_closed:
            return
        self._is_closed = True  # before anything waits: no thread waits for callbacks from now on
        self.on_wake = None
        self._disconnect_all()
        while self._backlog.take() is not None:
            pass

    def _disconnect_all(self) -> None:
        begun: SimpleQueue[None] = SimpleQueue()
        closed: SimpleQueue[None] = SimpleQueue()

        def disconnect(shard: Any) -> None:
            begun.put(None)
            shard.disconnect()
            closed.put(None)

        threads = [
            threading.Thread(target=disconnect, args=(shard,), name="shardlib-close", daemon=True)
            for shard in list(self._shards)
        ]

        def start() -> None:
            try:
                for thread in threads:
                    thread.start()
            except RuntimeError:
                pass  # the system has no thread to give; the exit handler closes the shards

        # All at once, so that this takes the time of one. A signal handler may close the window.
        run_uninterrupted(start)
        # On a busy machine the exit handler, which uses another code, must not come first.
        _take(len(threads), begun, START_TIMEOUT)
        _take(len(threads), closed, CLOSE_TIMEOUT)

    # Dispatcher

    def begin(self, shard: Any) -> None:
        self._shards[shard] = None
        if self._is_closed:
            shard.disconnect()

    def submit(self, delivery: Delivery) -> None:
        if not self._is_closed:
            super().submit(delivery)

    def end(self, shard: Any) -> None:
        self._shards.pop(shard, None)

    def is_running(self) -> bool:
        return not self._is_closed and super().is_running()


def _take(count: int, queue: SimpleQueue[None], timeout: float) -> None:
    """Wait until a queue has had so many items, or the time has run out."""
    deadline = Deadline(timeout)
    try:
        for _ in range(count):
            queue.get(timeout=deadline.remaining())
    except Empty:
        pass
