"""Which session a shard resumes of those that stand in Redis, where others may write, too."""

from __future__ import annotations

import logging
import urllib.parse
from collections.abc import Callable, Container

from shardlib.fleet.scripts import FleetSession
from shardlib.session import Session

# The hosts of Discord's that a resume_gateway_url names.
_DISCORD = "discord.gg"

# Characters. Discord's have 32, and a Resume with more than some 3,900 is too long for Discord: the
# shard would be refused for ever.
_LONGEST_SESSION_ID = 1_000


class ResumeHosts(Container[str]):
    """The hosts to which the token may go on behalf of Redis, where others may write, too.

    :param socket_url: where the worker's shards connect.
    """

    def __init__(self, socket_url: str) -> None:
        host = urllib.parse.urlsplit(socket_url).hostname or ""
        self._host = host
        self._domain = _DISCORD if host.endswith(f".{_DISCORD}") else host

    def __contains__(self, host: object) -> bool:
        return isinstance(host, str) and (host == self._host or host.endswith(f".{self._domain}"))


def session_to_resume(
    known: FleetSession | None,
    shard_id: int,
    shard_count: int,
    *,
    hosts: ResumeHosts,
    log: Callable[..., object],
) -> Session | None:
    """The session to resume, None if there is none that the shard could.

    :param known: as Redis knows it, None if there is none.
    :param shard_id: number of the shard.
    :param shard_count: number of the bot's shards.
    :param hosts: where the token may go. At another one, the shard resumes at the worker's URL.
    :param log: called as :meth:`logging.Logger.log` is.
    """
    if known is None or known.shard_count != shard_count:
        return None
    if len(known.session_id) > _LONGEST_SESSION_ID:
        return None
    mapping = Session(
        known.session_id, known.sequence, known.resume_gateway_url, shard_id, shard_count
    ).to_dict()
    try:
        return Session.from_dict(mapping, resume_hosts=hosts)
    except ValueError as error:
        log(
            logging.WARNING,
            "shard %d resumes at the URL that the worker has: %s",
            shard_id,
            error,
        )
        return Session.from_dict({**mapping, "resume_gateway_url": None})
