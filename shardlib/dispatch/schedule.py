"""Schedule: which deliveries may be called now, beside those that are being called.

No thread and no lock is in here: :class:`shardlib.dispatch.Pool` guards it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from shardlib.dispatcher import Delivery


class _Queue:
    """The jobs of one key: one may run, the others wait for it."""

    __slots__ = ("is_busy", "jobs", "key", "waiting")

    def __init__(self, key: tuple[Hashable]) -> None:
        self.key = key
        self.jobs = 0  # that were added and are not done
        self.is_busy = False  # one of them is ready, or running
        self.waiting: deque[Job] = deque()

    def admit(self, job: Job) -> bool:
        """Let a job through, or return False: it waits for the one before it."""
        if self.is_busy:
            self.waiting.append(job)
            return False
        self.is_busy = True
        return True

    def leave(self) -> Job | None:
        """Note that the job that was let through is done. Returns the one that follows it."""
        self.jobs -= 1
        if self.waiting:
            return self.waiting.popleft()
        self.is_busy = False
        return None

    def enter(self) -> _Queue:
        """Note one more job."""
        self.jobs += 1
        return self


class Job:
    """A delivery on its way.

    :param delivery: to call.
    :param key: those with equal keys are called one after the other; None for a delivery that may
        be called beside all others.
    """

    __slots__ = ("delivery", "key", "queue")

    def __init__(self, delivery: Delivery, key: tuple[Hashable] | None) -> None:
        self.delivery = delivery
        self.key = key
        self.queue: _Queue | None = None

    def join(self, queues: dict[tuple[Hashable], _Queue]) -> None:
        """Join the queue of the key.

        :raises Exception: what the key raises if it cannot be compared; then nothing has changed.
        """
        if self.key is not None:
            self.queue = queues.setdefault(self.key, _Queue(self.key)).enter()


class _Lane:
    """The jobs of one shard: one that must run alone keeps the later ones back."""

    __slots__ = ("admitted", "is_closed", "kept_back")

    def __init__(self) -> None:
        self.admitted = 0  # jobs that are ready, running, or behind one of their key
        self.is_closed = False  # the one that is admitted must run alone
        self.kept_back: deque[Job] = deque()

    def admit(self, job: Job) -> bool:
        """Let a job through, or return False: it has to wait for those before it."""
        if self.is_closed or (job.delivery.alone and self.admitted):
            return False
        self.admitted += 1
        self.is_closed = job.delivery.alone
        return True

    def done(self) -> None:
        """Note that a job that was let through is done."""
        self.admitted -= 1
        self.is_closed = False  # if it was closed, this was the one


class Schedule:
    """The jobs of all shards of a pool, from :meth:`add` over :meth:`take` to :meth:`done`."""

    def __init__(self) -> None:
        self._length = 0
        self._ready: deque[Job] = deque()
        self._queues: dict[tuple[Hashable], _Queue] = {}  # by key of a job that is here
        self._lanes: dict[int, _Lane] = {}  # by id() of a shard that has jobs here

    def __len__(self) -> int:
        """Jobs that were added and not taken."""
        return self._length

    @property
    def is_empty(self) -> bool:
        """True if all jobs are done."""
        return not self._lanes

    def add(self, job: Job) -> None:
        """Add a job; those of a shard in the order in which they came.

        :raises Exception: what the key raises if it cannot be compared; then nothing has changed.
        """
        job.join(self._queues)  # keys are compared here, and nowhere else
        self._length += 1
        lane = self._lanes.setdefault(id(job.delivery.shard), _Lane())
        if lane.kept_back or not lane.admit(job):
            lane.kept_back.append(job)
        else:
            self._admitted(job)

    def take(self) -> Job | None:
        """Take out the job that is to be run next, or return None if none may run now."""
        if not self._ready:
            return None
        self._length -= 1
        return self._ready.popleft()

    def done(self, job: Job) -> None:
        """Note that a job that was taken is done, so that those behind it may run."""
        if job.queue is not None:
            self._leave(job.queue)
        shard = id(job.delivery.shard)
        lane = self._lanes[shard]
        lane.done()
        while lane.kept_back and lane.admit(lane.kept_back[0]):
            self._admitted(lane.kept_back.popleft())
        if not lane.admitted:
            del self._lanes[shard]

    def _leave(self, queue: _Queue) -> None:
        follower = queue.leave()
        if follower is not None:
            self._ready.append(follower)
        if not queue.jobs:
            del self._queues[queue.key]

    def _admitted(self, job: Job) -> None:
        if job.queue is None or job.queue.admit(job):
            self._ready.append(job)
