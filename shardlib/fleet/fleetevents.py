"""FleetEvent: what a consumer hands out, and Gap: what it tells if events may be missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from shardlib.checks import check_type
from shardlib.gateway import event_name

GAP_EVENT = "SHARDLIB_GAP"
"""The name of an event that stands for events that may be missing."""

SESSION_LOST = "session lost"
TRIMMED = "trimmed"
DATA_LOST = "data lost"


class FleetEvent(NamedTuple):
    """An event of one of the fleet's shards.

    :param id: a str such as ``3:1795630845102-718``, of the shard, the epoch of its session, and
        the sequence. An event has the same id however often it comes.
    :param shard_id: number of the shard, an int.
    :param name: of the event, such as ``MESSAGE_CREATE``, a str.
    :param sequence: of the event in its session, an int.
    :param data: the event's ``d``, decoded; a :class:`Gap` if the name is ``SHARDLIB_GAP``.
    :param raw: the whole payload, as Discord has sent it, a str of JSON.
    """

    id: str
    shard_id: int
    name: str
    sequence: int
    data: Any
    raw: str


class Gap(NamedTuple):
    """Events of a shard may be missing in front of the event that comes next.

    :param shard_id: number of the shard, an int.
    :param reason: ``"session lost"``: Discord has ended the shard's session, and does not send
        again what came between the old session and the new one. ``"trimmed"``: the stream of the
        shard keeps so many events only, and dropped the oldest before this group had read them.
        ``"data lost"``: Redis has lost its data, and got back only what workers remembered.
    :param events: how many are missing at most, an int; None if that is unknown.
    """

    shard_id: int
    reason: str
    events: int | None


def check_event_names(argument: str, names: Iterable[str]) -> frozenset[str]:
    """Check the names of events that a user has given, and return them in upper case.

    :param argument: name of the argument, as the error names it.
    :param names: of events.
    :raises TypeError: if one is not a str.
    :raises ValueError: if no event can have one of the names.
    """
    checked = set()
    for name in names:
        check_type(f"each of {argument}", name, str)
        checked.add(event_name(name))
    return frozenset(checked)


class Position(NamedTuple):
    """A place in the stream of a shard: that of the event with this id.

    :param epoch: the first half of the id.
    :param sequence: the second half.
    """

    epoch: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"

    def is_followed_by(self, other: Position) -> bool:
        """True if no event can be between two places."""
        return self.epoch == other.epoch and self.sequence + 1 == other.sequence

    def most_between(self, other: Position) -> int | None:
        """How many events can be between this place and a later one, None if that is unknown."""
        if self.epoch != other.epoch:
            return None
        return other.sequence - self.sequence - 1


BEGINNING = Position(0, 0)
"""In front of all events."""


def position_of(entry_id: bytes | str) -> Position:
    """The place of an entry.

    :param entry_id: as Redis gives it, or the id of a :class:`FleetEvent`.
    :raises ValueError: if it is no such id.
    """
    text = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    epoch, _, sequence = text.rpartition(":")[2].partition("-")
    return Position(int(epoch), int(sequence))


class Entry(NamedTuple):
    """What is in the stream of a shard, or is missing from it.

    :param shard_id: number of the shard.
    :param id: as Redis gives it; of the entry in front, if this one stands for missing events.
    :param text: the event.
    :param gap: what is missing, None if the entry is an event.
    """

    shard_id: int
    id: bytes
    text: bytes
    gap: Gap | None = None


class EntrySource(Protocol):
    """Where a consumer gets its entries from, for one group. One thread calls all methods.

    :ivar buffer: the entries that were read, and not delivered yet.
    """

    buffer: deque[Entry]

    def work(self) -> None:
        """Do what is due, such as to acknowledge: called before each entry, so mostly nothing."""

    def fill(self, timeout: float) -> None:
        """Read entries into the buffer, and wait for them if there are none."""

    def may_deliver(self, entry: Entry) -> bool:
        """False if the first entry of the buffer must not be delivered; then it is not there."""

    def delivered(self, entry: Entry) -> None:
        """Note that the user gets the first entry of the buffer, and take it out."""

    def skipped(self, entry: Entry) -> None:
        """Note that nobody wants the first entry of the buffer, and take it out."""

    def acknowledge(self, shard_id: int, entry_id: str) -> bool:
        """Note that an entry was handled; False if that comes too late."""

    def rewind(self) -> None:
        """Deliver again what was delivered and not acknowledged."""

    def doubt(self) -> None:
        """Note that Redis was away: it may have forgotten something, or an answer was lost."""

    def leave(self) -> None:
        """Let other consumers of the group have all."""

    def stop(self) -> None:
        """End a wait in :meth:`fill`. Any thread, any signal handler."""
