"""ManagerLifecycle: the lives of a manager, and the way in which its threads and shards meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from shardlib.deadline import Deadline
from shardlib.lifecycle import Life, Lifecycle
from shardlib.managedshard import ManagedShard
from shardlib.waiting import Alarm


class ManagerLifecycle(Lifecycle):
    """The lives of a manager, whose thread takes the place that the reader has for a shard.

    It observes the shards (:class:`shardlib.lifecycle.Observer`): threads that wait for the manager
    look at their conditions when those would that wait for a shard.

    :param create_thread: makes the manager's thread of a life, without starting it.
    :param shards: returns all shards that there are.
    """

    def __init__(
        self,
        create_thread: Callable[[Life], threading.Thread],
        shards: Callable[[], Iterable[ManagedShard]],
    ) -> None:
        self._shards = shards
        self._alarm = Alarm()  # for the manager's thread
        self._local = threading.local()  # `is_reader` in the readers of the shards
        self._waiting: set[int] = set()  # the threads that are inside wait()
        #: Another object after each change of the manager's life or a shard's. A thread that waits
        #: for what takes long to find out looks at this first: shards that are busy wake it often.
        self.latest_change = object()
        super().__init__(create_thread)

    def in_reader_thread(self) -> bool:
        """True in a callback of the manager's, or of one of its shards."""
        return super().in_reader_thread() or hasattr(self._local, "is_reader")

    def request_close(self, code: int, deadline: Deadline) -> Life:
        """Ask the manager and each shard to close; none waits for another."""
        life = super().request_close(code, deadline)
        for shard in self._shards():
            shard.disconnect(code, wait=False)
        return life

    def wait(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """As of a shard. The manager's thread must not wait for a thread that waits here."""
        thread = threading.get_ident()
        try:
            self._waiting.add(thread)  # in here: Ctrl-C may come before the next line
            self._waiters.notify()
            return super().wait(condition, deadline)
        finally:
            self._waiting.discard(thread)

    def is_waited_for_by(self, threads: Callable[[int], bool]) -> bool:
        """True if one of some threads is inside :meth:`wait`.

        :param threads: True for the numbers of those threads.
        """
        return any(map(threads, list(self._waiting)))

    def interpreter_exits(self) -> None:
        """As of a shard; threads of the user's that wait for a shard wait on, too."""
        super().interpreter_exits()
        for shard in self._shards():
            shard.interpreter_exits()

    def await_change(self, timeout: float | None) -> None:
        """Block the manager's thread until something has changed since the last call.

        :param timeout: seconds, None for no end.
        """
        self._alarm.wait(timeout)

    def ring(self) -> None:
        """Let the manager's thread look whether something has changed. Any thread."""
        self._alarm.ring()

    def notify(self) -> None:
        """Let threads look that wait for the manager, and readers that wait for such a thread."""
        super().notify()
        for shard in self._shards():
            shard.wake()

    def _changed(self) -> None:
        self.latest_change = object()
        super()._changed()
        self._alarm.ring()

    # What the shards tell

    def enter_reader(self) -> None:
        """Note that the calling thread is the reader of a shard, until it ends."""
        self._local.is_reader = True

    def notified(self) -> None:
        """Note that threads which wait for something of a shard were woken."""
        self._waiters.notify()

    def changed(self) -> None:
        """Note that the life of a shard has changed."""
        self._changed()
