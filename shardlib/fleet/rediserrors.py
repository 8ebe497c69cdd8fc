"""What an error of redis-py means to a fleet, and what its reader can do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import redis
import redis.exceptions

from shardlib.fleet.errors import FleetError, RedisAway
from shardlib.text import message_of


class _Meaning(NamedTuple):
    error: type[FleetError]
    text: str


_LOADING = _Meaning(
    RedisAway,
    "Redis has just started, and still reads its data from disk. Wait until it has done so",
)
_OUT_OF_MEMORY = _Meaning(
    RedisAway,
    "Redis has used up its maxmemory, and takes no writes. Raise maxmemory, or keep fewer events",
)
_READ_ONLY = _Meaning(
    RedisAway,
    "this Redis is a replica, which takes no writes. During a failover that passes; otherwise give "
    "the URL of the primary",
)
_NO_PERMISSION = _Meaning(
    FleetError,
    "the user whose name and password are in the URL may not do in Redis what the fleet has to. "
    "Give this user the commands and keys that are missing (ACL SETUSER)",
)
_CLUSTER_DOWN = _Meaning(
    RedisAway, "a part of the Redis Cluster has no primary. Wait for its failover, or mend it"
)

_MOVED = _Meaning(
    RedisAway,
    "another node of the Redis Cluster has the key. During a failover that passes; otherwise give "
    "a redis.RedisCluster in place of the URL",
)

# redis-py takes the code off the text of these.
_CLASSES: dict[type[Exception], _Meaning] = {
    redis.exceptions.BusyLoadingError: _LOADING,
    redis.exceptions.OutOfMemoryError: _OUT_OF_MEMORY,
    redis.exceptions.ReadOnlyError: _READ_ONLY,
    redis.exceptions.NoPermissionError: _NO_PERMISSION,
    redis.exceptions.MasterDownError: _CLUSTER_DOWN,
    redis.exceptions.ClusterDownError: _CLUSTER_DOWN,
    redis.exceptions.TryAgainError: _CLUSTER_DOWN,
    redis.exceptions.AskError: _MOVED,  # and MovedError, which is one
    redis.exceptions.RedisClusterException: _CLUSTER_DOWN,
    redis.exceptions.InvalidResponse: _Meaning(
        FleetError, "what answers there is no Redis. Look at the host and the port of the URL"
    ),
    redis.exceptions.AuthenticationError: _Meaning(
        FleetError,
        "Redis refuses the password, or wants one. Put the right one into the URL, as "
        "redis://user:password@host, with characters such as '/' and '@' percent-encoded",
    ),
}

# Other codes stand somewhere in the text: Redis 6.2 reports the error of a script's command inside
# of a sentence of its own.
_CODES = {
    "CERTIFICATE_VERIFY_FAILED": _Meaning(
        FleetError,
        "the certificate of Redis is not trusted. If an authority of your own has signed it, name "
        "the authority's file in the URL: rediss://host?ssl_ca_certs=/path/to/ca.pem",
    ),
    "OOM": _OUT_OF_MEMORY,
    "READONLY": _READ_ONLY,
    "LOADING": _LOADING,
    "NOPERM": _NO_PERMISSION,
    # Redis 6.2 has a sentence instead of a code for commands inside of a script.
    "can't run this command": _NO_PERMISSION,
    "CLUSTERDOWN": _CLUSTER_DOWN,
    "MASTERDOWN": _CLUSTER_DOWN,  # which has a class since redis-py 5.1
    "MISCONF": _Meaning(
        RedisAway,
        "Redis cannot write to its disk, and takes no writes. Look at its log, and whether the "
        "disk is full",
    ),
    "NOREPLICAS": _Meaning(
        RedisAway,
        "Redis takes no writes, since it has fewer replicas than its min-replicas-to-write. Start "
        "the replicas",
    ),
    "BUSY": _Meaning(
        RedisAway,
        "Redis is busy with a script of another program. Wait, or end that script (SCRIPT KILL)",
    ),
    "WRONGTYPE": _Meaning(
        FleetError,
        "a key of the fleet holds something else, which another program must have written. Give "
        "the fleet another name, or a Redis of its own",
    ),
}
_CODE = re.compile("|".join(rf"(?<!\w){re.escape(code)}(?!\w)" for code in _CODES))


ERRORS: tuple[type[Exception], ...] = (
    redis.RedisError,
    redis.exceptions.RedisClusterException,  # which is no RedisError
)
"""What redis-py raises, and :func:`fleet_error` takes."""


def fleet_error(error: Exception, keys: Sequence[str] = ()) -> FleetError:
    """The error of the fleet's that says what an error of redis-py's means.

    :param error: one of :data:`ERRORS`, as redis-py has raised it.
    :param keys: which Redis was asked about, for a person who has to mend one of them.
    :returns: a new error, whose cause is still to be set.
    """
    meaning = _meaning(error)
    text = f"{meaning.text}. Redis or its client says: {message_of(error).rstrip('.')}"
    if keys and meaning.error is FleetError:
        text += f" (asked about {', '.join(keys)})"
    return meaning.error(text)


def _meaning(error: Exception) -> _Meaning:
    for known, meaning in _CLASSES.items():
        if isinstance(error, known):
            return meaning
    code = _CODE.search(str(error))
    if code:
        return _CODES[code[0]]
    if isinstance(error, redis.TimeoutError):
        return _Meaning(
            RedisAway,
            "Redis did not answer in time. Look whether it is overloaded, and if the URL begins "
            "with rediss://, whether its port is the one for TLS",
        )
    if isinstance(error, redis.ConnectionError):
        return _Meaning(
            RedisAway,
            "Redis cannot be reached. Look whether it runs, and whether the URL names its host and "
            "port",
        )
    return _Meaning(FleetError, "Redis refuses what the fleet asks of it")
