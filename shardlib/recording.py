"""Recorder: writes the events of a shard to a file, which a local gateway can play.

A recording is a gzip file, because Python and the tools of every system read and write gzip without
further packages. The first line is JSON about the recording, each other line is the JSON of one
event, so that ``zcat FILE | jq`` shows the events.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from shardlib.closing import Closing
from shardlib.redaction import Redactor, without_secrets

if TYPE_CHECKING:
    from shardlib.shard import Shard

#: The version of the format, which stands in a recording's first line.
FORMAT = 1

#: The field of the first line that holds :data:`FORMAT`.
FORMAT_FIELD = "shardlib_recording"

#: zlib's number for the format gzip.
GZIP = 16 + zlib.MAX_WBITS

# Seconds between two flushes of the compressor. Each flush makes the file a little larger.
_FLUSH_INTERVAL = 1.0


class Recorder(Closing):
    """Writes a shard's events to a file, compressed, each with its time.

    ::

        with Recorder("events.gz", redact=True) as recorder:
            shard = Shard(token, intents, on_socket_dispatch=recorder.record)
            shard.run_forever()

    The file never holds the bot's token, nor the token of an interaction or of a voice server, nor
    the id of the session. Every second, while events come, what was recorded goes to the file, so
    that the file of a program that was killed can be read up to then.

    Any thread may call the methods.

    :param path: the file, which must not exist. Its owner alone may read it.
    :param redact: whether to replace what people wrote: the content of messages, and the names of
        users, guilds, channels, roles and all else, avatars, addresses. Equal texts become equal
        texts of the same length. What is kept: ids, times, numbers, kinds, the names of the bot's
        own commands.
    :raises FileExistsError: if the file exists.
    :raises OSError: if the file cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], *, redact: bool = False) -> None:
        self._redactor = Redactor() if redact else None
        self._compressor = zlib.compressobj(wbits=GZIP)
        self._lock = threading.Lock()
        self._shard: tuple[int, int] | None = None
        self._started_at = 0.0
        self._flushed_at = 0.0
        self._events = 0
        self._has_unflushed = False
        self._file = open(path, "xb", buffering=0, opener=_open_for_owner)

    @property
    def events(self) -> int:
        """Number of events recorded so far."""
        return self._events

    def record(self, shard: Shard, payload: Any) -> None:
        """Record an event. Give this method to a shard as ``on_socket_dispatch``.

        :param shard: the shard, always the same one.
        :param payload: the event, the whole payload, which stays as it is.
        :raises ValueError: if the recorder is closed, if the event comes from another shard than
            those before, or if the event holds what JSON cannot express.
        :raises OSError: if the file cannot be written; the recorder is closed then.
        """
        identity = (shard.shard_id, shard.shard_count)
        now = time.monotonic()
        name, data = str(payload.get("t")), payload.get("d")
        data = without_secrets(name, data)
        if self._redactor is not None:
            data = self._redactor.redact(name, data)
        with self._lock:
            self._require_open()
            if self._shard is None:
                self._started_at = self._flushed_at = now
                self._write(_encode(self._about(shard)))
                self._shard = identity
            elif identity != self._shard:
                raise ValueError(
                    f"this recorder records shard {self._shard[0]}/{self._shard[1]}, and the event "
                    f"comes from shard {identity[0]}/{identity[1]}: give each its own Recorder"
                )
            seconds = round(now - self._started_at, 6)
            line = _encode({"time": seconds, "s": payload.get("s"), "t": name, "d": data})
            self._write(line.replace(shard.token.encode(), b"removed"))
            self._events += 1
            self._has_unflushed = True
            if now - self._flushed_at >= _FLUSH_INTERVAL:
                self._flush(now)

    def flush(self) -> None:
        """Write to the file what was recorded and is still in memory.

        :raises ValueError: if the recorder is closed.
        :raises OSError: if the file cannot be written; the recorder is closed then.
        """
        with self._lock:
            self._require_open()
            self._flush(time.monotonic())

    def close(self) -> None:
        """Complete the file. A second call does nothing.

        :raises OSError: if the file cannot be written.
        """
        with self._lock:
            if not self._file.closed:
                try:
                    self._write_all(self._compressor.flush(zlib.Z_FINISH))
                finally:
                    self._file.close()

    def _about(self, shard: Shard) -> dict[str, Any]:
        return {
            FORMAT_FIELD: FORMAT,
            "shard": [shard.shard_id, shard.shard_count],
            "intents": int(shard.intents),
            "redacted": self._redactor is not None,
            "started_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    # The callers of the methods below hold the lock.

    def _require_open(self) -> None:
        if self._file.closed:
            raise ValueError("the recorder is closed")

    def _flush(self, now: float) -> None:
        if self._has_unflushed:
            self._write_all(self._compressor.flush(zlib.Z_SYNC_FLUSH))
            self._has_unflushed = False
        self._flushed_at = now

    def _write(self, line: bytes) -> None:
        self._write_all(self._compressor.compress(line + b"\n"))

    def _write_all(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError:
            # A part of the data is missing in the file, after which a reader understands nothing.
            self._file.close()
            raise


def _encode(value: Any) -> bytes:
    """Return a value as one line of JSON in ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _open_for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
