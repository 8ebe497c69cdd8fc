"""The names of a fleet's keys in Redis.

Redis Cluster spreads keys over machines by the part of a name in braces, and runs a script only on
keys that share this part. All keys of a shard share it, so that one script can compare the fence,
append events and move the sequence. The keys of identifying share another.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from shardlib.checks import check_type

# No colon, which separates the parts of a key; no braces; and nothing that a glob pattern, as
# Redis' access lists have them, takes for more than itself.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)


class ShardKeys(NamedTuple):
    """The keys of one shard, all in one hash slot.

    :param lease: a string, the token of the shard's owner. It expires if the owner renews it no
        more: then others may claim the shard.
    :param state: a hash, who owns the shard, and what a Resume needs of its session.
    :param events: a stream, the shard's events with the ids ``<epoch>-<sequence>``.
    :param commands: a stream, what the owner is to send to the Gateway.
    """

    lease: str
    state: str
    events: str
    commands: str


class GroupKeys(NamedTuple):
    """The keys of a group of consumers for one shard, in the hash slot of that shard.

    :param lease: a string, the token of the consumer that reads the shard's events in order. It
        expires if the consumer renews it no more: then others may claim the events.
    :param state: a hash, which consumer reads, and how far the group has come.
    """

    lease: str
    state: str


class Keys:
    """The names of all keys of a fleet.

    :param name: of the fleet, a str of 1 to 100 letters of ASCII, digits, ``_``, ``.`` and ``-``.
        Fleets with different names share a Redis without touching each other's keys.
    :raises TypeError: if the name is not a str.
    :raises ValueError: if the name has other characters, or too many.
    """

    def __init__(self, name: str) -> None:
        self.name = check_name("name", name)

    def shard(self, shard_id: int) -> ShardKeys:
        """The keys of a shard.

        :param shard_id: number of the shard, an int from 0.
        """
        tag = f"{{{self.name}:{shard_id}}}"
        return ShardKeys(*(f"{tag}:{name}" for name in ShardKeys._fields))

    def group(self, shard_id: int, group: str) -> GroupKeys:
        """The keys of a group of consumers for a shard.

        :param shard_id: number of the shard, an int from 0.
        :param group: name of the group, as :func:`check_name` takes it.
        """
        state = f"{{{self.name}:{shard_id}}}:group:{group}"
        return GroupKeys(f"{state}:lease", state)

    def consumers(self, group: str) -> str:
        """A sorted set: the consumers of a group that live, for the share of each.

        It shares its hash slot with :attr:`groups`.

        :param group: name of the group.
        """
        return f"{{{self.name}}}:consumers:{group}"

    @property
    def groups(self) -> str:
        """A hash: each group of consumers that there ever was, and whether it is ordered."""
        return f"{{{self.name}}}:groups"

    def identify(self, rate_limit_key: int) -> str:
        """A hash: when the next shard of a rate limit key may identify, and which ones wait.

        :param rate_limit_key: ``shard_id % max_concurrency``, an int from 0.
        """
        return f"{{{self.name}}}:identify:{rate_limit_key}"

    @property
    def commands(self) -> str:
        """A stream: for which shards there are new commands, and which workers are to drain."""
        return f"{{{self.name}}}:commands"

    @property
    def starts(self) -> str:
        """A hash: how many sessions were started, and when Discord counts anew.

        It shares its hash slot with the keys of :meth:`identify`.
        """
        return f"{{{self.name}}}:starts"

    @property
    def workers(self) -> str:
        """A sorted set: the workers that live, for the share of each."""
        return f"{self.name}:workers"

    @property
    def config(self) -> str:
        """A hash: the number of shards, and what else all workers agree on."""
        return f"{self.name}:config"


def check_name(argument: str, value: object) -> str:
    """Check what becomes a part of keys, and return it.

    :param argument: name of the argument, as the error names it.
    :param value: of the argument.
    :raises TypeError: if it is not a str.
    :raises ValueError: if it has other characters than letters of ASCII, digits, ``_``, ``.`` and
        ``-``, or not 1 to 100 of them.
    """
    check_type(argument, value, str)
    name = str(value)
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{argument} must be 1 to 100 letters of ASCII, digits, '_', '.' and '-', which stand "
            f"in keys in Redis, not {name!r}"
        )
    return name
