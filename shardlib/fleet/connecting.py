"""How a fleet connects to Redis, and what it looks at before it relies on that Redis."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shardlib.checks import check_positive
from shardlib.fleet.errors import FleetError
from shardlib.fleet.rediserrors import ERRORS, fleet_error

Client: TypeAlias = "redis.Redis | redis.RedisCluster"

OLDEST_VERSION = (6, 2)
"""Of Redis. Valkey, which began at 7.2, is newer."""

_SCHEMES = ("redis", "rediss", "unix")


def connect(url: str | Client, *, timeout: float = 5.0) -> Client:
    """The client through which a fleet talks to Redis. Opens no connection yet.

    The certificate of a ``rediss://`` server must be trusted by this machine, and be for the host
    of the URL. The query of the URL says otherwise: ``?ssl_ca_certs=/path/to/ca.pem``, and
    ``ssl_certfile`` with ``ssl_keyfile`` for a certificate of the client's.

    :param url: ``redis://``, ``rediss://`` or ``unix://``, as :meth:`redis.Redis.from_url` takes
        it; or a client, which is returned as it is, with whatever options it was made.
    :param timeout: seconds that connecting may take, and seconds that each answer may take.
    :raises TypeError: if `url` is neither a str nor a client of redis-py, or a client of the
        asynchronous half of redis-py.
    :raises ValueError: if the URL is none of Redis, if the client decodes responses, or if
        `timeout` is not positive.
    """
    check_positive("timeout", timeout)
    if isinstance(url, (redis.Redis, redis.RedisCluster)):
        if url.get_encoder().decode_responses:
            raise ValueError(
                "the redis.Redis given decodes responses; events are bytes. Give one that is made "
                "without decode_responses=True, or a URL"
            )
        return url
    if not isinstance(url, str):
        raise TypeError(f"url must be a str or a redis.Redis, not {type(url).__name__}")
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        # The fleet knows what it can repeat, and how long it is worth while.
        "retry": Retry(NoBackoff(), 0),
    }
    # Neither the URL nor what a parser says of its parts is shown: a password may be among them.
    try:
        parts = urllib.parse.urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if not port_is_valid:
        raise ValueError(
            "url has a port that is no number from 1 to 65535. If its password has characters such "
            "as '/', '@' or '#', percent-encode them"
        )
    if parts.scheme not in _SCHEMES:
        raise ValueError("url must begin with redis://, rediss:// or unix://")
    query = urllib.parse.parse_qs(parts.query)
    if parts.scheme == "rediss":
        _check_files(query)
    if parts.scheme != "unix":
        options["socket_keepalive"] = True
    if parts.scheme == "rediss" and "ssl_cert_reqs" not in query:
        options["ssl_check_hostname"] = True  # which redis-py leaves out before version 6
    try:
        client = redis.Redis.from_url(url, **options)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # opens nothing, and checks the options
    except (TypeError, ValueError, redis.RedisError) as error:  # an option in the query
        raise ValueError(f"url has an option that redis-py does not take: {error}") from None
    return client


def _check_files(query: Mapping[str, Sequence[str]]) -> None:
    """Check the files of certificates, which redis-py opens with the first connection only.

    :param query: of the URL.
    :raises ValueError: if one cannot be read. A worker would otherwise wait for Redis for ever.
    """
    for option in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        for path in query.get(option, ()):
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ValueError(
                    f"url names a file in {option} that cannot be read: {path}: {error.strerror}"
                ) from None


def check_server(client: Client) -> list[str]:
    """Look whether a Redis is fit for a fleet.

    :param client: from :func:`connect`.
    :returns: what is risked with this Redis, a sentence or two for each risk; empty if nothing is.
    :raises FleetError: if the server is too old, or is a replica, or one node of a cluster, or
        refuses the connection.
    :raises RedisAway: if the server does not answer.
    """
    try:
        risks: dict[str, None] = {}
        for node in _primaries(client):
            risks.update(dict.fromkeys(_check_node(node, is_alone=node is client)))
    except ERRORS as error:
        raise fleet_error(error) from error
    return list(risks)


def _primaries(client: Client) -> list[redis.Redis]:
    if isinstance(client, redis.Redis):
        return [client]
    cluster: Any = client  # redis-py has no types for these methods
    return [cluster.get_redis_connection(node) for node in cluster.get_primaries()]


def _check_node(node: redis.Redis, is_alone: bool) -> list[str]:
    info: dict[str, Any] = node.info()
    if is_alone and info.get("redis_mode") == "cluster":
        raise FleetError(
            "this Redis is a node of a Redis Cluster. Give a redis.RedisCluster in place of the URL"
        )
    version = str(info["redis_version"])
    if tuple(map(int, version.split(".")[:2])) < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise FleetError(
            f"this is Redis {version}, and a fleet needs {oldest} or later. Upgrade Redis, or "
            "install Valkey"
        )
    if info["role"] != "master":
        raise FleetError(
            f"this Redis is a replica of {info.get('master_host')}:{info.get('master_port')}, and "
            "takes no writes. Give the URL of the primary"
        )
    risks = []
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        risks.append(
            f"maxmemory-policy is {policy}: when memory is short, Redis deletes what the fleet "
            "needs, sessions and events that nobody has read among it. Set maxmemory-policy to "
            "noeviction; then the shards wait until there is room"
        )
    if not info.get("aof_enabled"):
        risks.append(_risk_without_log(node))
    elif _setting(node, "appendfsync") == "no":
        risks.append(
            "appendfsync is no: when the machine of Redis crashes, up to 30 seconds of events are "
            "lost to Redis, and Discord may not replay them all. Set appendfsync to everysec"
        )
    return risks


def _risk_without_log(node: redis.Redis) -> str:
    snapshots = _setting(node, "save")
    advice = "Set appendonly to yes"
    if snapshots is None:
        return (
            "appendonly is no: when Redis ends, it may lose all events since its last snapshot "
            f"that nobody has read. {advice}; a host of Redis calls that persistence"
        )
    if snapshots == "":
        return (
            "appendonly is no, and save is empty: when Redis ends, all sessions are lost, and all "
            f"events that nobody has read. {advice}"
        )
    return (
        "appendonly is no: when Redis crashes, all events since its last snapshot that nobody has "
        f"read are lost. {advice}"
    )


def _setting(node: redis.Redis, name: str) -> str | None:
    """A setting of the server's, None if this user, or this host of Redis, may not read it."""
    try:
        settings: dict[Any, Any] = node.config_get(name)
    except redis.ResponseError:
        return None
    value = settings.get(name, settings.get(name.encode()))
    return value.decode() if isinstance(value, bytes) else value
