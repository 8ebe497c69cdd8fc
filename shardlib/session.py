"""Session: what a Resume needs of a session, to be kept beyond the process."""

from __future__ import annotations

import dataclasses
import json
import os
import urllib.parse
from collections.abc import Container, Mapping
from typing import Any

from shardlib import sessionfile
from shardlib.currentsession import END_OF_SEQUENCES
from shardlib.gateway import API_VERSION, gateway_url

_FORMAT = "shardlib session"
_VERSION = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """A session of one shard, as far as a Resume needs it.

    It can be resumed with the bot's token only
    (https://docs.discord.com/developers/events/gateway#preparing-to-resume).

    :param session_id: as READY gave it, a str.
    :param sequence: of the last event that is done with, an int, or None before the first: of which
        the callbacks have returned, or which :meth:`Shard.acknowledge` was called for.
    :param resume_gateway_url: as READY gave it, a URL, or None if READY gave none.
    :param shard_id: number of the shard whose session this is, an int from 0.
    :param shard_count: number of the bot's shards when the session began, an int.
    :raises TypeError: if an argument has the wrong type.
    :raises ValueError: if an argument has a value that cannot be.
    """

    session_id: str
    sequence: int | None
    resume_gateway_url: str | None
    shard_id: int
    shard_count: int

    def __post_init__(self) -> None:
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
        sessionfile.write(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, resume_hosts: Container[str] | None = None
    ) -> Session:
        """Read what :meth:`save` has written. A file that never ends, or a FIFO, blocks nothing.

        :param path: of the file, a str or a path object.
        :param resume_hosts: as for :meth:`from_dict`, if others may write to the file.
        :returns: the session.
        :raises ValueError: if the file holds no usable session; the message names the file and what
            is wrong with it.
        :raises TypeError: if `resume_hosts` is no container.
        :raises OSError: if the file cannot be read.
        """
        _check_hosts(resume_hosts)
        try:
            content = json.loads(sessionfile.read(path))
            if not isinstance(content, dict):
                raise ValueError("it is not a JSON object")
            return cls._from_mapping(content, resume_hosts)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{os.fspath(path)!r} holds no usable session: {error}") from error

    def to_dict(self) -> dict[str, str | int | None]:
        """What :meth:`save` writes into a file, for a database or a cache.

        Only str, int and None are in it, so that any JSON module can write it.

        :returns: a new dict, for :meth:`from_dict`.
        """
        return {"format": _FORMAT, "version": _VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(
        cls, mapping: Mapping[str, Any], *, resume_hosts: Container[str] | None = None
    ) -> Session:
        """The session that :meth:`to_dict` has described, checked as :meth:`load` does.

        The shard sends its token to `resume_gateway_url`. If others may write to the place that the
        mapping comes from, `resume_hosts` keeps them from receiving the token.

        :param mapping: what :meth:`to_dict` has returned, numbers as numbers; keys that it does not
            have are ignored.
        :param resume_hosts: the hosts that `resume_gateway_url` may name, in small letters, a set
            of str for example, or an object whose ``__contains__`` judges a host; None for any.
        :returns: the session.
        :raises ValueError: if the mapping holds no usable session; the message says what is wrong
            with it.
        :raises TypeError: if `mapping` is no mapping, or `resume_hosts` no container.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"mapping must be a mapping, not {type(mapping).__name__}")
        _check_hosts(resume_hosts)
        try:
            return cls._from_mapping(mapping, resume_hosts)
        except (ValueError, TypeError) as error:
            raise ValueError(f"the mapping holds no usable session: {error}") from error

    @classmethod
    def _from_mapping(
        cls, content: Mapping[str, Any], resume_hosts: Container[str] | None
    ) -> Session:
        if content.get("format") != _FORMAT:
            raise ValueError("it was not written by Session.save() or Session.to_dict()")
        if content.get("version") != _VERSION:
            raise ValueError(f"its version is {content.get('version')!r}, not {_VERSION}")
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in content]
        if missing:
            raise ValueError(f"{', '.join(missing)} is missing")
        session = cls(**{name: content[name] for name in names})
        host = _host(session.resume_gateway_url)
        if resume_hosts is not None and host is not None and host not in resume_hosts:
            raise ValueError(
                f"its resume_gateway_url names the host {host!r}, to which resume_hosts does not "
                "let the token go"
            )
        return session


def _check_hosts(resume_hosts: Container[str] | None) -> None:
    if isinstance(resume_hosts, (str, bytes)):  # of which any part would pass for a host
        raise TypeError(f"resume_hosts must be a set of hosts, not {type(resume_hosts).__name__}")
    if resume_hosts is not None and not isinstance(resume_hosts, Container):
        raise TypeError(
            f"resume_hosts must be a container or None, not {type(resume_hosts).__name__}"
        )


def _host(url: str | None) -> str | None:
    """The host that the token is sent to, as it is looked up; None for no URL.

    :raises ValueError: if it is no URL of a gateway.
    """
    return (
        None if url is None else urllib.parse.urlsplit(gateway_url(url, API_VERSION, None)).hostname
    )
