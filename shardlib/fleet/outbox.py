"""Outbox: the events of one shard on their way from its reader to the stream in Redis.

The reader puts events in, one after the other. The worker's thread takes them out in batches, and
notes what Redis has answered. What was appended stays here for some seconds more: a Redis that
restarts may have lost its newest writes, and is then given them again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from shardlib.fleet.scripts import Batch, FleetSession

# Of one batch: Redis does nothing else while it appends one.
_MOST_EVENTS = 1_000
_MOST_BYTES = 1_000_000

# The room for so many events is room for so many bytes each, too: a guild may have a megabyte.
_BYTES_FOR_AN_EVENT = 2_000


class _Session:
    """A session of the shard, and how far Redis has it.

    :param known: as Redis knows it, or as the first batch of a new session tells it.
    """

    __slots__ = ("is_rewinding", "known")

    def __init__(self, known: FleetSession) -> None:
        self.known = known
        #: True from rewind() until the Resume that it leads to: what comes meanwhile comes again.
        self.is_rewinding = False


class _Parcel:
    """Events of one session that are appended together.

    :param session: theirs.
    :param before: the sequence before the first of them.
    """

    __slots__ = ("appended_at", "before", "events", "last_sequence", "session")

    def __init__(self, session: _Session, before: int) -> None:
        self.session = session
        self.before = before
        self.last_sequence = before
        self.events: list[tuple[int, bytes]] = []
        self.appended_at = 0.0


class Outbox:
    """The events of one shard that Redis does not have yet, and the newest of those that it has.

    The shard's reader calls :meth:`put`, :meth:`resume_begins`, :meth:`session_begins` and
    :attr:`has_room`, any thread :attr:`waiting`, and the worker's thread everything else. Nothing
    here blocks.

    :param session: of the shard as Redis knows it, None if there is none to resume.
    :param shard_count: of the bot, for new sessions.
    :param buffer: how many events may wait before :attr:`has_room` is False.
    :param replay_memory: seconds for which events are kept that were appended.
    :param ring: called when the first event is put into an outbox that was empty.
    """

    def __init__(
        self,
        session: FleetSession | None,
        *,
        shard_count: int,
        buffer: int,
        replay_memory: float,
        ring: Callable[[], object],
    ) -> None:
        self._shard_count = shard_count
        self._buffer = buffer
        self._most_bytes = buffer * _BYTES_FOR_AN_EVENT
        self._replay_memory = replay_memory
        self._ring = ring
        # The session whose events the reader puts in.
        self._receiving = None if session is None else _Session(session)
        self._begins = False  # True from session_begins() until an event comes
        # The text is None for an event that is not forwarded, and moves the sequence only.
        self._waiting: deque[tuple[_Session, int, bytes | None]] = deque()
        self._bytes = 0  # of the texts that wait
        self._last_epoch = 0 if session is None else session.epoch
        self._parcels: deque[_Parcel] = deque()  # to be sent next; the first may be on its way
        self._appended: deque[_Parcel] = deque()  # what Redis may lose again, oldest first
        # Guards all of the above. Held for moments, also while rewind() states its request.
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many events wait to be appended."""
        with self._lock:
            return len(self._waiting) + sum(len(parcel.events) for parcel in self._parcels)

    # The reader

    def put(self, session_id: str, url: str | None, sequence: int, text: bytes | None) -> None:
        """Add an event.

        :param session_id: of the session that has brought it.
        :param url: the session's, as READY gave it.
        :param sequence: of the event.
        :param text: the event as the Gateway has sent it, None if it is not to be forwarded.
        """
        with self._lock:
            session = self._receiving
            if session is None or self._begins or session.known.session_id != session_id:
                known = FleetSession(session_id, url, self._shard_count)
                session = self._receiving = _Session(known)
                self._begins = False
            if session.is_rewinding:
                return
            was_empty = not self._waiting
            self._waiting.append((session, sequence, text))
            if text is not None:
                self._bytes += len(text)
        if was_empty:
            self._ring()

    @property
    def has_room(self) -> bool:
        """False if the reader is to wait until Redis has taken some of the events."""
        return len(self._waiting) < self._buffer and self._bytes < self._most_bytes

    def resume_begins(self) -> None:
        """Note that the session is about to be resumed: a rewind is carried out."""
        with self._lock:
            if self._receiving is not None:
                self._receiving.is_rewinding = False

    def session_begins(self) -> None:
        """Note that the shard is about to identify: what comes next is of another session.

        The ids of Discord's sessions differ. A gateway other than Discord's may use one again.
        """
        with self._lock:
            self._begins = True

    # The worker's thread

    @property
    def is_empty(self) -> bool:
        """True if Redis has all that was put in."""
        return not self._waiting and not self._parcels

    def next_batch(self, token: str) -> Batch | None:
        """The events to append next, None if there are none; the same ones until it is answered.

        :param token: the owner's.
        """
        with self._lock:
            if not self._parcels:
                if not self._waiting:
                    return None
                self._parcels.append(self._pack())
            parcel = self._parcels[0]
            session = parcel.session.known._replace(sequence=parcel.before)
            return Batch(token, session, parcel.events, parcel.last_sequence)

    def _pack(self) -> _Parcel:
        session = self._waiting[0][0]
        if session.known.epoch == 0:
            # Proposed, so that a first batch that comes again has the same ids.
            epoch = max(int(time.time() * 1000), self._last_epoch + 1)
            session.known = session.known._replace(epoch=epoch)
        parcel = _Parcel(session, session.known.sequence)
        size = 0
        while self._waiting and len(parcel.events) < _MOST_EVENTS and size < _MOST_BYTES:
            each, sequence, text = self._waiting[0]
            if each is not session:
                break
            self._waiting.popleft()
            parcel.last_sequence = max(parcel.last_sequence, sequence)
            if text is not None:
                parcel.events.append((sequence, text))
                size += len(text)
        self._bytes -= size
        return parcel

    def appended(self, epoch: int, sequence: int, now: float) -> tuple[str, int]:
        """Note that the batch is in Redis.

        :param epoch: of its session.
        :param sequence: of the last event of the session that Redis has.
        :param now: seconds of a monotonic clock.
        :returns: the session's id, and the last sequence of the batch.
        """
        with self._lock:
            parcel = self._parcels.popleft()
            session = parcel.session
            session.known = session.known._replace(epoch=epoch, sequence=sequence)
            self._last_epoch = max(self._last_epoch, epoch)
            parcel.appended_at = now
            self._appended.append(parcel)
            while self._appended and self._appended[0].appended_at < now - self._replay_memory:
                self._appended.popleft()
            return session.known.session_id, parcel.last_sequence

    def repeat(self, epoch: int) -> bool:
        """After REGRESSED: have the events appended again that are remembered.

        :param epoch: of the session as Redis knows it, 0 if it knows an earlier one.
        :returns: False if there are none, and only the Gateway has them.
        """
        with self._lock:
            session = self._parcels[0].session
            remembered = [
                parcel for parcel in self._appended if epoch == 0 or parcel.session is session
            ]
            self._appended.clear()
            self._parcels.extendleft(reversed(remembered))
            return bool(remembered)

    def rewind(self, sequence: int, rewind: Callable[[int], object]) -> None:
        """After REGRESSED, if nothing is remembered: have the Gateway send the events again.

        :param sequence: of the last event that Redis has of the session of the batch.
        :param rewind: :meth:`shardlib.Shard.rewind`, called if the session goes on.
        """
        with self._lock:
            session = self._parcels[0].session
            session.known = session.known._replace(sequence=sequence)
            self._parcels = deque(each for each in self._parcels if each.session is not session)
            self._keep(lambda each: each is not session)
            if session is self._receiving:
                # Before the Resume is allowed to begin, which notes its beginning under the lock.
                session.is_rewinding = True
                rewind(sequence)

    def _keep(self, is_kept: Callable[[_Session], bool]) -> None:
        self._waiting = deque(each for each in self._waiting if is_kept(each[0]))
        self._bytes = sum(len(text) for _, _, text in self._waiting if text is not None)

    def remember(self) -> FleetSession | None:
        """After LOST: have all appended again that is remembered.

        :returns: the session with which to claim the shard, as Redis had it before these events;
            None if there was none.
        """
        with self._lock:
            self._parcels.extendleft(reversed(self._appended))
            self._appended.clear()
            if self._parcels:
                parcel = self._parcels[0]
                return parcel.session.known._replace(sequence=parcel.before)
            session = self._waiting[0][0] if self._waiting else self._receiving
            return None if session is None else session.known

    def clear(self) -> None:
        """Forget all events: the shard is not ours any more."""
        with self._lock:
            self._waiting.clear()
            self._parcels.clear()
            self._appended.clear()
            self._bytes = 0
