"""Recording: reads what :class:`shardlib.recording.Recorder` wrote."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from shardlib.gateway import Intents
from shardlib.recording import FORMAT, FORMAT_FIELD, GZIP
from shardlib.testing.payloads import encode
from shardlib.text import count

# Bytes that are read from the file at once, and inflated at once: a small file may hold gigabytes.
_CHUNK = 1 << 12
_INFLATED_CHUNK = 1 << 18

# The bytes with which each gzip file begins (RFC 1952).
_GZIP_MAGIC = b"\x1f\x8b"

# The most bytes of a line. No event of Discord is as large.
_MAX_LINE = 1 << 26

# The keys of an event, in the order in which the recorder writes them.
_FIELDS = ("time", "s", "t", "d")


class RecordingDamaged(ValueError):
    """A recording cannot be read to its end.

    :param message: what is wrong, and what could be read.
    :param events: number of events that could be read.
    """

    def __init__(self, message: str, events: int) -> None:
        super().__init__(message)
        #: Number of events that could be read.
        self.events = events


class RecordedEvent(NamedTuple):
    """An event of a recording."""

    #: Seconds from the first event of the recording.
    time: float
    #: The event's sequence in the session that was recorded.
    sequence: int | None
    #: The event's name.
    name: str
    #: The event's ``d``.
    data: Any
    #: The event's ``d``, as JSON.
    text: bytes


class Recording:
    """The events of a file that a :class:`shardlib.recording.Recorder` wrote.

    Iterating reads the file from its beginning, a piece at a time, and yields a
    :class:`RecordedEvent` for each event. If the file is cut or damaged, the iterator yields the
    events before, and then raises :class:`RecordingDamaged`. zlib may notice damage a little after
    its beginning; the last events before the error may be wrong then.

    :param path: the file.
    :raises OSError: if the file cannot be read.
    :raises ValueError: if the file is no recording, or of a format that this version does not know.
    :raises RecordingDamaged: if the file has no event that could be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        #: The file.
        self.path = os.fspath(path)
        about = self._read_first_line()
        try:
            shard_id, shard_count = about["shard"]
            #: ``(shard_id, num_shards)`` of the shard that was recorded.
            self.shard: tuple[int, int] = (int(shard_id), int(shard_count))
            #: The intents of the session that was recorded.
            self.intents = Intents(about["intents"])
            #: Whether the recorder replaced what people wrote.
            self.is_redacted = bool(about["redacted"])
            #: When the first event came: a date and time in ISO 8601, UTC.
            self.started_at = str(about["started_at"])
        except (ValueError, LookupError, TypeError):
            raise ValueError(
                f"{self.path} is no recording of shardlib record: its first line has no valid "
                "shard, intents, redacted and started_at"
            ) from None

    def __repr__(self) -> str:
        return f"<Recording {self.path!r} shard={self.shard} started_at={self.started_at!r}>"

    def __iter__(self) -> Iterator[RecordedEvent]:
        events = 0
        last = 0.0
        try:
            lines = self._lines()
            next(lines)
            for line in lines:
                event = _decode(line)
                yield event
                events += 1
                last = event.time
        except _Unreadable as error:
            raise RecordingDamaged(
                f"{self.path}: {error}. {count(events, 'event')} of the first "
                f"{count(round(last, 1), 'second')} could be read",
                events,
            ) from None

    def _read_first_line(self) -> dict[str, Any]:
        try:
            line = next(self._lines(), None)
        except _NoGzip:
            raise ValueError(f"{self.path} is no recording: it is not compressed by gzip") from None
        except _Unreadable as error:
            raise RecordingDamaged(f"{self.path}: {error}. No event could be read", 0) from None
        if line is None:
            raise RecordingDamaged(f"{self.path} has no event: none came before its end", 0)
        try:
            about = json.loads(line)
            version = about[FORMAT_FIELD]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise ValueError(f"{self.path} is no recording of shardlib record") from None
        if version != FORMAT:
            raise ValueError(
                f"{self.path} has format {version!r}, and this version of shardlib reads {FORMAT}"
            )
        found: dict[str, Any] = about
        return found

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines of the file, inflated, without their ends.

        :raises _Unreadable: after the last line that can be read, if the file does not end there.
        """
        inflater = zlib.decompressobj(wbits=GZIP)
        rest = b""
        is_first = True
        is_damaged = False
        with open(self.path, "rb") as file:
            while not inflater.eof:
                compressed = inflater.unconsumed_tail or file.read(_CHUNK)
                before = inflater.copy()
                try:
                    inflated = inflater.decompress(compressed, _INFLATED_CHUNK)
                except zlib.error as error:
                    if is_first and not compressed.startswith(_GZIP_MAGIC):
                        raise _NoGzip(str(error)) from None
                    is_damaged = True
                    inflated = _inflate_to_damage(before, compressed)
                is_first = False
                *lines, rest = (rest + inflated).split(b"\n")
                yield from lines
                if is_damaged:
                    raise _Unreadable("its compressed data is damaged")
                if len(rest) > _MAX_LINE:
                    raise _Unreadable("a line has no end")
                if not compressed and not inflated:
                    raise _Unreadable(
                        "it is cut off, because its recorder was killed or a part was not copied"
                    )
        if rest:
            raise _Unreadable("its last line has no end")


def _inflate_to_damage(inflater: zlib._Decompress, compressed: bytes) -> bytes:
    """Inflate a damaged piece a byte at a time, since zlib gives nothing of a piece that fails."""
    inflated = []
    try:
        for at in range(len(compressed)):
            inflated.append(inflater.decompress(compressed[at : at + 1]))
    except zlib.error:
        pass
    return b"".join(inflated)


class _Unreadable(Exception):
    """A file cannot be read any further."""


class _NoGzip(_Unreadable):
    """A file does not begin as gzip does."""


def _decode(line: bytes) -> RecordedEvent:
    try:
        fields = json.loads(line)
        time, sequence, name, data = (fields[key] for key in _FIELDS)
        if not (
            isinstance(time, (int, float))
            and math.isfinite(time)
            and (sequence is None or isinstance(sequence, int))
            and isinstance(name, str)
        ):
            raise ValueError("a field has the wrong type")
        if tuple(fields) == _FIELDS and line.endswith(b"}"):
            # The line is as the recorder writes lines. No text before "d" holds these characters:
            # its quotes are escaped.
            text = line[line.index(b'"d":') + len(b'"d":') : -1]
        else:
            # Somebody has edited the file.
            text = encode(data)
        return RecordedEvent(float(time), sequence, name, data, text)
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _Unreadable("a line is damaged") from None
