"""Outstanding: the events that the user's code was given, and is not done with.

A session is saved with the sequence before the oldest of them, in whatever order they are done
with: the Gateway replays what follows that sequence, so no event is lost if the process ends.
"""

from __future__ import annotations

from time import perf_counter

from shardlib.currentsession import CurrentSession


class Handover:
    """One event, or one call of an ``on_socket_*`` function, from the reader to the user's code.

    The reader makes it before the session counts the event as handed on.

    :param session: the session under way.
    """

    __slots__ = ("sequence_before", "session", "since")

    def __init__(self, session: CurrentSession) -> None:
        self.session = session
        self.sequence_before = session.completed_sequence  # of the event before this one
        self.since = perf_counter()


class Outstanding:
    """The handovers that the user's code is not done with. Any thread may call everything here.

    Each change of the table is one step of C code, so that no thread and no signal handler meets a
    half-made one.
    """

    def __init__(self) -> None:
        self._handovers: dict[Handover, None] = {}  # a table keeps the order of its keys

    def add(self, handover: Handover) -> None:
        """Note a handover, before any other thread can be done with it."""
        self._handovers[handover] = None

    def finish(self, handover: Handover) -> None:
        """Note that the user's code is done with a handover. Doing so twice does no harm."""
        self._handovers.pop(handover, None)

    def clear(self) -> None:
        """In a forked child: what is outstanding is the parent's."""
        self._handovers.clear()

    def __contains__(self, handover: Handover) -> bool:
        return handover in self._handovers

    def __len__(self) -> int:
        return len(self._handovers)

    @property
    def lag(self) -> float:
        """Seconds since the oldest was handed over, 0.0 if there is none."""
        handovers = list(self._handovers)
        return perf_counter() - handovers[0].since if handovers else 0.0

    def completed_sequence(self, session: CurrentSession) -> int | None:
        """The sequence of a session up to which the user's code is done with every event."""
        # Read first: an event that is handed on meanwhile, and not done with, comes after it.
        done = [session.completed_sequence]
        done += [each.sequence_before for each in list(self._handovers) if each.session is session]
        # The least, not the oldest one's: after a rewind() earlier events come once more.
        return None if None in done else min(each for each in done if each is not None)
