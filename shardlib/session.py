"""What a Resume needs to know of a session, and its place on disk."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from typing import Any

from shardlib.gateway import API_VERSION, gateway_url

_FORMAT = "shardlib session"
_VERSION = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """A session of one shard, as far as a Resume needs it (*Gateway: Preparing to Resume*).

    Together with the bot token it can be resumed by anyone, without the token by nobody.

    :param session_id: as READY gave it
    :param sequence: of the last event whose callbacks have returned, or None before the first
    :param resume_gateway_url: as READY gave it, None where it gave none
    :param shard_id: whose session this is
    :param shard_count: into how many shards the bot was divided when it began
    :raises TypeError: where an argument has the wrong type
    :raises ValueError: where it has a value that cannot be
    """

    session_id: str
    sequence: int | None
    resume_gateway_url: str | None
    shard_id: int
    shard_count: int

    def __post_init__(self) -> None:
        if not isinstance(self.session_id, str):
            raise TypeError("session_id is a str")
        if not self.session_id:
            raise ValueError("session_id is empty")
        if self.resume_gateway_url is not None and not isinstance(self.resume_gateway_url, str):
            raise TypeError("resume_gateway_url is a str or None")
        for name in ("sequence", "shard_id", "shard_count"):
            value = getattr(self, name)
            if value is None and name == "sequence":
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is an int")
            if value < 0:
                raise ValueError(f"{name} is not negative")
        if self.shard_id >= self.shard_count:
            raise ValueError(
                f"shard_id is less than shard_count, not {self.shard_id} of {self.shard_count}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the session to a file that only its owner may read.

        A file of that name is replaced at once or not at all, whenever the process ends.

        :raises OSError: where the file cannot be written
        """
        content = {"format": _FORMAT, "version": _VERSION, **dataclasses.asdict(self)}
        directory, name = os.path.split(os.path.abspath(path))
        # mkstemp creates the file with mode 0600; replacing works only within one file system,
        # hence the same directory.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=directory)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Session:
        """Read what :meth:`save` has written.

        :raises ValueError: naming the file and what is wrong with it
        :raises OSError: where it cannot be read
        """
        with open(path, "rb") as file:
            data = file.read()
        try:
            return cls._from_json(json.loads(data))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{os.fspath(path)!r} holds no usable session: {error}") from error

    @classmethod
    def _from_json(cls, content: Any) -> Session:
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError("it was not written by Session.save()")
        if content.get("version") != _VERSION:
            raise ValueError(f"its version is {content.get('version')!r}, not {_VERSION}")
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in content]
        if missing:
            raise ValueError(f"{', '.join(missing)} is missing")
        session = cls(**{name: content[name] for name in names})
        if session.resume_gateway_url is not None:
            # The token will be sent there.
            gateway_url(session.resume_gateway_url, API_VERSION, None)
        return session
