"""CurrentSession: what a Resume needs of the session under way."""

from __future__ import annotations

from typing import Any

END_OF_SEQUENCES = 1 << 63
"""All sequences are below. Every JSON module can write such a number, as Resume needs it."""


class CurrentSession:
    """The session under way. A new session is a new object, so that nothing of the old stays.

    The reader thread writes; other threads may read at any time.

    :param session_id: as READY gave it, or None before.
    :param resume_gateway_url: as READY gave it, or None.
    :param last_sequence: of the last event received, or None.
    :param completed_sequence: of the last event that the reader is done with, or None: its
        callbacks have returned, or it was handed to other threads.
    :param user_id: of the bot, as READY gave it, or None: READY was received by another process.
    :param first_sequence: of READY, or None: likewise.
    """

    __slots__ = (
        "_before_rewind",
        "completed_sequence",
        "first_sequence",
        "last_sequence",
        "resume_gateway_url",
        "session_id",
        "user_id",
    )

    def __init__(
        self,
        session_id: str | None = None,
        resume_gateway_url: str | None = None,
        last_sequence: int | None = None,
        completed_sequence: int | None = None,
        user_id: str | None = None,
        first_sequence: int | None = None,
    ) -> None:
        self.session_id = session_id
        self.resume_gateway_url = resume_gateway_url
        self.last_sequence = last_sequence
        self.completed_sequence = completed_sequence
        self.user_id = user_id
        self.first_sequence = first_sequence
        self._before_rewind = 0  # the highest sequence received before rewind()

    @property
    def resume_sequence(self) -> int:
        """The sequence that Resume names: what follows is replayed."""
        return self.last_sequence or 0

    @property
    def highest_sequence(self) -> int:
        """The highest sequence received so far: that of the last event, unless it was rewound."""
        return max(self.last_sequence or 0, self._before_rewind)

    def rewind(self, sequence: int) -> None:
        """Take all events after a sequence for not received. Never forwards.

        :param sequence: that the next Resume is to name.
        """
        if sequence < self.resume_sequence:
            self._before_rewind = self.highest_sequence
            self.last_sequence = sequence
            if self.completed_sequence is not None:
                self.completed_sequence = min(sequence, self.completed_sequence)

    def receive(self, sequence: int) -> int:
        """Take a sequence in. Never backwards: RESUMED, and some servers, repeat old numbers.

        :returns: how many numbers were left out since the last one.
        """
        last = self.last_sequence
        if last is None:
            self.last_sequence = sequence
            return 0
        if sequence <= last:
            return 0
        self.last_sequence = sequence
        return sequence - last - 1

    def receive_next(self, sequence: Any) -> bool:
        """:meth:`receive` for the next sequence, which is what nearly every event has.

        :param sequence: an event's ``s``, of any type.
        :returns: False if it is not the next one; then nothing was done.
        """
        last = self.last_sequence
        if last is None or type(sequence) is not int or sequence != last + 1:
            return False
        self.last_sequence = sequence
        return True

    def complete(self) -> None:
        """Note that the reader is done with all events received so far."""
        self.completed_sequence = self.last_sequence
