"""Acknowledged: how far the program says that it is done with the events of a session."""

from __future__ import annotations

import threading

from shardlib.currentsession import CurrentSession


class Acknowledged:
    """The last event that the program has acknowledged. Any thread may call everything here.

    A signal handler that acknowledges in the middle of another call's work may be overwritten by
    that. The number is too small then: a Resume repeats events, and leaves none out.

    :param session_id: of the session that the shard was made with, None if it was given none.
    :param sequence: of that session.
    """

    def __init__(self, session_id: str | None, sequence: int | None) -> None:
        # Replaced as a whole, so that no thread reads the sequence of another session.
        self._latest = (session_id, sequence or 0)
        self._lock = threading.RLock()  # held for moments

    def advance(self, session_id: str, sequence: int) -> None:
        """Note an acknowledgement. One that goes backwards changes nothing.

        :param session_id: of the session under way.
        :param sequence: of the last event that the program is done with.
        """
        with self._lock:
            known_id, known = self._latest
            if session_id != known_id or sequence > known:
                self._latest = (session_id, sequence)

    def rewind(self, session_id: str, sequence: int) -> None:
        """Take back what was acknowledged after a sequence.

        :param session_id: of the session under way.
        :param sequence: of the last event that stays acknowledged.
        """
        with self._lock:
            known_id, known = self._latest
            if session_id == known_id and sequence < known:
                self._latest = (session_id, sequence)

    def sequence_of(self, session: CurrentSession) -> int | None:
        """The sequence with which a session is to be saved.

        :param session: the session under way.
        :returns: None if not even READY is acknowledged. No Resume brings READY again, so such a
            session is of no use to another process.
        """
        session_id, sequence = self._latest
        if session_id != session.session_id or sequence < (session.first_sequence or 0):
            return None
        return sequence
