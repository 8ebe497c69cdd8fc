"""What a Resume needs of a session: the one under way, and its snapshot on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from shardlib import sessionfile
from shardlib.gateway import API_VERSION, gateway_url

END_OF_SEQUENCES = 1 << 63
"""All sequences are below. Every JSON module can write such a number, as Resume needs it."""

_FORMAT = "shardlib session"
_VERSION = 1


class CurrentSession:
    """The session under way. A new session is a new object, so that nothing of the old stays.

    The reader thread writes; other threads may read at any time.

    :param session_id: as READY gave it, or None before.
    :param resume_gateway_url: as READY gave it, or None.
    :param last_sequence: of the last event received, or None.
    :param completed_sequence: of the last event whose callbacks have returned, or None.
    """

    __slots__ = ("completed_sequence", "last_sequence", "resume_gateway_url", "session_id")

    def __init__(
        self,
        session_id: str | None = None,
        resume_gateway_url: str | None = None,
        last_sequence: int | None = None,
        completed_sequence: int | None = None,
    ) -> None:
        self.session_id = session_id
        self.resume_gateway_url = resume_gateway_url
        self.last_sequence = last_sequence
        self.completed_sequence = completed_sequence

    @property
    def resume_sequence(self) -> int:
        """The sequence that Resume names: what follows is replayed."""
        return self.last_sequence or 0

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
        """Note that the callbacks of all events received so far have returned."""
        self.completed_sequence = self.last_sequence


class _Fields(NamedTuple):
    session_id: str
    sequence: int | None
    resume_gateway_url: str | None
    shard_id: int
    shard_count: int


class Session(_Fields):
    """A session of one shard, as far as a Resume needs it.

    It can be resumed with the bot's token only
    (https://docs.discord.com/developers/events/gateway#preparing-to-resume).

    :param session_id: as READY gave it, a str.
    :param sequence: of the last event whose callbacks have returned, an int, or None before the
        first.
    :param resume_gateway_url: as READY gave it, a URL, or None if READY gave none.
    :param shard_id: number of the shard whose session this is, an int from 0.
    :param shard_count: number of the bot's shards when the session began, an int.
    :raises TypeError: if an argument has the wrong type.
    :raises ValueError: if an argument has a value that cannot be.
    """

    __slots__ = ()

    def __new__(
        cls,
        session_id: str,
        sequence: int | None,
        resume_gateway_url: str | None,
        shard_id: int,
        shard_count: int,
    ) -> Session:
        self = super().__new__(cls, session_id, sequence, resume_gateway_url, shard_id, shard_count)
        self._check()
        return self

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Session:  # type: ignore[override]
        """Make a session of its values, and check them. :meth:`_replace` calls this."""
        return cls(*iterable)

    def _check(self) -> None:
        if not isinstance(self.session_id, str):
            raise TypeError(f"session_id must be a str, not {type(self.session_id).__name__}")
        if not self.session_id:
            raise ValueError("session_id must not be empty")
        if self.resume_gateway_url is not None and not isinstance(self.resume_gateway_url, str):
            raise TypeError("resume_gateway_url must be a str or None")
        for name in ("sequence", "shard_id", "shard_count"):
            value = getattr(self, name)
            if value is None and name == "sequence":
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if not 0 <= value < END_OF_SEQUENCES:
                raise ValueError(f"{name} must be from 0 to {END_OF_SEQUENCES - 1}, not {value}")
        if self.shard_id >= self.shard_count:
            raise ValueError(
                f"shard_id must be less than shard_count, not {self.shard_id} of {self.shard_count}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the session to a file that only its owner may read.

        A file of that name is replaced in one step: at whatever moment the process ends, the file
        holds the old session or the new one. If the name is a symbolic link, the file that it
        points to is replaced. A file that cannot be replaced (a mount point, as a file given to a
        container is; a file in a directory that may not be changed) is written in place, keeps its
        mode, and may be left incomplete if the process ends meanwhile: then :meth:`load` says that
        it holds no session. Blocks while the system writes.

        :param path: of the file, a str or a path object.
        :raises OSError: if the file cannot be written.
        """
        content = {"format": _FORMAT, "version": _VERSION, **self._asdict()}
        sessionfile.write(path, json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Session:
        """Read what :meth:`save` has written. A file that never ends, or a FIFO, blocks nothing.

        :param path: of the file, a str or a path object.
        :returns: the session.
        :raises ValueError: if the file holds no usable session; the message names the file and what
            is wrong with it.
        :raises OSError: if the file cannot be read.
        """
        try:
            return cls._from_json(json.loads(sessionfile.read(path)))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{os.fspath(path)!r} holds no usable session: {error}") from error

    @classmethod
    def _from_json(cls, content: Any) -> Session:
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError("it was not written by Session.save()")
        if content.get("version") != _VERSION:
            raise ValueError(f"its version is {content.get('version')!r}, not {_VERSION}")
        missing = [name for name in cls._fields if name not in content]
        if missing:
            raise ValueError(f"{', '.join(missing)} is missing")
        session = cls(**{name: content[name] for name in cls._fields})
        if session.resume_gateway_url is not None:
            # The token will be sent there.
            gateway_url(session.resume_gateway_url, API_VERSION, None)
        return session
