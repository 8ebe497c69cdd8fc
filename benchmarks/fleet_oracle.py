"""What consumers of a fleet have recorded, compared with what the gateway has issued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.fleet_processes import Record


class Issued(NamedTuple):
    """A session, as the gateway knows it.

    :param session_id: its id.
    :param events: the name and the tag of each event by its sequence, in that order; without
        RESUMED, which is about a connection.
    :param is_alive: True if a client has the session.
    """

    session_id: str
    events: dict[int, tuple[str, str]]
    is_alive: bool


@dataclass
class Verdict:
    """What became of the events of one shard, or of several.

    :ivar issued: events issued.
    :ivar effects: events handled, without those that the watermark drops.
    :ivar repeats: events that the watermark drops: handled before, with the same id.
    :ivar lost: events of a session that were never handled, though a later one of it was, or though
        the session lives.
    :ivar out_of_order: events handled for the first time after a later one.
    :ivar gone: how many of the last events of each session that was lost were never handled.
    :ivar gaps: the reasons of the gaps that the consumers have told.
    :ivar problems: what must not be.
    """

    issued: int = 0
    effects: int = 0
    repeats: int = 0
    lost: int = 0
    out_of_order: int = 0
    gone: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        """Add the verdict on another shard."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def judge(shard_id: int, sessions: Sequence[Issued], records: Sequence[Record]) -> Verdict:
    """Compare what was recorded of a shard with what was issued to it.

    :param shard_id: its number.
    :param sessions: all sessions of the shard, oldest first.
    :param records: of all consumers, in the order in which they were written.
    """
    return _Judge(shard_id, sessions).judge(records)


class _Judge:
    def __init__(self, shard_id: int, sessions: Sequence[Issued]) -> None:
        self._shard_id = shard_id
        self._sessions = sessions
        self._verdict = Verdict(issued=sum(len(session.events) for session in sessions))
        self._effects: dict[tuple[int, int], Record] = {}
        self._watermark = (0, 0)
        self._by_epoch: dict[int, list[Record]] = {}
        self._is_marked = True  # in front of the first session nothing is missing

    def judge(self, records: Sequence[Record]) -> Verdict:
        for record in records:
            if record.is_gap:
                self._verdict.gaps[record.tag] += 1
                self._is_marked = True
            elif record.position <= self._watermark:
                self._repeated(record)
            else:
                self._handled(record)
        self._compare()
        return self._verdict

    def _problem(self, text: str) -> None:
        self._verdict.problems.append(f"shard {self._shard_id}: {text}")

    def _repeated(self, record: Record) -> None:
        first = self._effects.get(record.position)
        if first is None:
            self._verdict.out_of_order += 1
            self._problem(f"{record} came after {self._watermark}")
        elif (first.name, first.tag) != (record.name, record.tag):
            self._problem(f"one id stands for two events: {first} and {record}")
        else:
            self._verdict.repeats += 1

    def _handled(self, record: Record) -> None:
        epoch = record.position[0]
        if self._by_epoch and epoch not in self._by_epoch and not self._is_marked:
            self._problem(f"no gap is marked in front of {record}")
        self._is_marked = False
        self._watermark = record.position
        self._effects[record.position] = record
        self._by_epoch.setdefault(epoch, []).append(record)
        self._verdict.effects += 1

    def _compare(self) -> None:
        """Compare each session with its epoch."""
        known = {session.session_id: session for session in self._sessions}
        epochs: dict[str, int] = {}
        for epoch, records in self._by_epoch.items():
            tags = {record.tag.partition("/")[0] for record in records}
            found = tags & known.keys()
            if len(found) != 1:
                self._problem(f"epoch {epoch} stands for {len(found)} sessions: {records[:3]}")
                continue
            (session_id,) = found
            if session_id in epochs:
                self._problem(
                    f"session {session_id} came with two epochs, {epochs[session_id]} and then "
                    f"{epoch}: {records[0]}"
                )
                continue
            epochs[session_id] = epoch
            self._compare_session(known[session_id], records)
        order = [session.session_id for session in self._sessions if session.session_id in epochs]
        if order != [*epochs]:
            self._problem(f"the sessions {order} came in the order {[*epochs]}")
        for session in self._sessions:
            if session.session_id not in epochs:
                self._miss(session, [*session.events], 0)

    def _compare_session(self, session: Issued, records: list[Record]) -> None:
        handled = {record.position[1]: record for record in records}
        for sequence, record in handled.items():
            if session.events.get(sequence) != (record.name, record.tag):
                self._problem(f"{record} is not {sequence}: {session.events.get(sequence)}")
        missing = [sequence for sequence in session.events if sequence not in handled]
        self._miss(session, missing, max(handled))

    def _miss(self, session: Issued, missing: list[int], last: int) -> None:
        lost = missing if session.is_alive else [each for each in missing if each < last]
        if len(missing) > len(lost):
            self._verdict.gone[session.session_id] = len(missing) - len(lost)
        self._verdict.lost += len(lost)
        if lost:
            names = {session.events[each][0] for each in lost}
            self._problem(
                f"{len(lost)} events of session {session.session_id} are lost: {min(lost)} to "
                f"{max(lost)}, {', '.join(names)}; the last one handled is {last}"
            )
