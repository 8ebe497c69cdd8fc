"""Connecting to Redis, what is checked there, and what errors say."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from shardlib.fleet.calling import Call, Script, call_all
from shardlib.fleet.connecting import check_server, connect
from shardlib.fleet.errors import FleetError, RedisAway
from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import Outcome, ShardScripts
from tests.fleet.owner import LEASE, Owner, owner_of_new_shard, run_every_script
from tests.redis_server import HOST, RedisServer, make_cluster
from tests.support import Thread, not_none, wait_until

_SECRET = "pa55word"


def test_a_client_of_the_users_is_taken_as_it_is(redis_server: RedisServer) -> None:
    with redis.Redis(HOST, redis_server.port) as client:
        assert connect(client) is client


def test_a_unix_socket_will_do(redis_program: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with RedisServer(redis_program, tmp_path / "redis", "--unixsocket", str(path)) as server:
        assert check_server(server.client(f"unix://{path}")) == []


def test_a_client_that_decodes_is_refused() -> None:
    with redis.Redis(decode_responses=True) as client:
        with pytest.raises(ValueError, match="decode_responses"):
            connect(client)


@pytest.mark.parametrize(
    "url, message",
    [
        ("http://host", "redis://, rediss:// or unix://"),
        (f"redis://user:{_SECRET}/x@host:6379", "percent-encode"),
        (f"redis://user:{_SECRET}@host:x", "port"),
        (f"redis://user:{_SECRET}@host:0", "port"),
        (f"redis://:{_SECRET}@host?db=x", "option that redis-py does not take"),
        (f"redis://:{_SECRET}@host?colour=red", "does not take: .*'colour'"),
        (f"redis://:{_SECRET}@host?ssl_ca_certs=/ca.pem", "does not take: .*'ssl_ca_certs'"),
        (f"rediss://:{_SECRET}@host?ssl_ca_certs=/no/ca.pem", "ssl_ca_certs .*: /no/ca.pem: No"),
        (f"rediss://:{_SECRET}@host?ssl_certfile=/no/me.pem", "ssl_certfile .*: /no/me.pem: No"),
    ],
)
def test_a_wrong_url_is_refused_without_showing_its_password(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        connect(url)
    assert _SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", [None, 1, b"redis://host", redis.asyncio.Redis])
def test_what_is_neither_a_url_nor_a_client_is_refused(url: Any) -> None:
    with pytest.raises(TypeError, match="url must be"):
        connect(url)


def test_a_timeout_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout"):
        connect("redis://host", timeout=0)


def test_a_fresh_redis_with_a_log_is_no_risk(client: redis.Redis) -> None:
    assert check_server(client) == []


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, ["allkeys-lru", "noeviction"]),
        ({"maxmemory": "100mb", "maxmemory-policy": "volatile-ttl"}, ["noeviction"]),
        ({"appendonly": "no"}, ["save is empty", "Set appendonly to yes"]),
        ({"appendonly": "no", "save": "3600 1"}, ["last snapshot", "Set appendonly to yes"]),
        ({"appendfsync": "no"}, ["Set appendfsync to everysec"]),
    ],
)
def test_what_is_risked_is_said(
    client: redis.Redis, settings: dict[str, str], words: list[str]
) -> None:
    for name, value in settings.items():
        client.config_set(name, value)
    (risk,) = check_server(client)
    assert all(word in risk for word in words)


@pytest.mark.parametrize(
    "settings",
    [
        {"maxmemory-policy": "allkeys-lru"},  # of no effect without maxmemory
        {"maxmemory": "100mb"},
        {"appendfsync": "everysec"},
    ],
)
def test_what_risks_nothing_is_not_mentioned(client: redis.Redis, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        client.config_set(name, value)
    assert check_server(client) == []


def test_settings_that_may_not_be_read_are_taken_for_a_risk(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    client.config_set("appendonly", "no")
    client.execute_command("ACL", "SETUSER", "me", "on", f">{_SECRET}", "+@all", "-config")
    me = redis_server.client(f"redis://me:{_SECRET}@{HOST}:{redis_server.port}")
    (risk,) = check_server(me)
    assert "may lose" in risk


def test_a_replica_is_refused(client: redis.Redis) -> None:
    client.replicaof(HOST, 1)
    with pytest.raises(FleetError, match="replica of 127.0.0.1:1"):
        check_server(client)


def test_a_replica_judges_no_owner(client: redis.Redis, scripts: ShardScripts, keys: Keys) -> None:
    owner = owner_of_new_shard(scripts, client, keys)
    owner.append([1, 2])
    stranger = Owner(scripts)
    stranger.session = owner.session
    unknown = Owner(scripts, shard_id=1)
    unknown.begin("S1")
    client.replicaof(HOST, 1)
    for each in (owner, stranger, unknown):
        for ask in (each.renew, each.release, lambda: each.try_append([3])):
            error = ask()
            assert isinstance(error, RedisAway)
            assert "failover" in str(error)
    owner.session = not_none(owner.session)._replace(sequence=7)
    assert isinstance(owner.try_append([8]), RedisAway)


def test_too_old_a_redis_is_refused(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    # No such server is at hand, so the limit is moved instead.
    monkeypatch.setattr("shardlib.fleet.connecting.OLDEST_VERSION", (99, 0))
    with pytest.raises(FleetError, match=r"needs 99\.0 or later"):
        check_server(client)


def test_a_wrong_password_and_none_are_told_from_an_absent_server(
    redis_program: str, tmp_path: Path
) -> None:
    with RedisServer(redis_program, tmp_path / "redis", "--requirepass", _SECRET) as server:
        for url in (server.url, f"redis://:wrong-word@{HOST}:{server.port}"):
            with pytest.raises(FleetError, match="password") as caught:
                check_server(server.client(url))
            assert not isinstance(caught.value, RedisAway)
            assert "wrong-word" not in str(caught.value)
        assert check_server(server.client(f"redis://:{_SECRET}@{HOST}:{server.port}")) == []


def test_a_user_without_permissions_is_told_so(
    redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    client.execute_command("ACL", "SETUSER", "me", "on", f">{_SECRET}", "+evalsha", "+eval", "~*")
    me = redis_server.client(f"redis://me:{_SECRET}@{HOST}:{redis_server.port}")
    error = ShardScripts(me, keys, lease=LEASE, keep_events=1).renew({0: "token"})[0]
    assert isinstance(error, FleetError) and not isinstance(error, RedisAway)
    assert "ACL SETUSER" in str(error)


def test_a_user_of_redis_needs_no_more_than_these_commands_and_keys(
    redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    commands = (
        "eval evalsha time info config|get exists get set del pttl pexpire pexpireat hget hgetall "
        "hmget hset hdel xadd xtrim xinfo xlen xrange xdel"
    )
    client.execute_command(
        *("ACL", "SETUSER", "me", "on", f">{_SECRET}", "~{mybot:*", "~{mybot}:*"),
        *(f"+{command}" for command in commands.split()),
    )
    me = redis_server.client(f"redis://me:{_SECRET}@{HOST}:{redis_server.port}")
    assert check_server(me) == []
    run_every_script(me, keys)


def test_an_absent_server_is_away() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    with connect(f"redis://{HOST}:{port}") as client:
        with pytest.raises(RedisAway, match="Look whether it runs"):
            check_server(client)


def test_a_server_that_does_not_answer_is_away() -> None:
    with socket.create_server((HOST, 0)) as listener:
        url = f"redis://{HOST}:{listener.getsockname()[1]}"
        with connect(url, timeout=0.2) as client:
            with pytest.raises(RedisAway, match="did not answer in time"):
                check_server(client)


def test_a_server_that_is_no_redis_is_told_so() -> None:
    with socket.create_server((HOST, 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                while connection.recv(1000):  # until the client has seen enough
                    pass

        answering = Thread(answer)
        with connect(f"redis://{HOST}:{listener.getsockname()[1]}", timeout=20) as client:
            with pytest.raises(FleetError, match="is no Redis") as caught:
                check_server(client)
        answering.finish()
        assert not isinstance(caught.value, RedisAway)


@pytest.mark.parametrize(
    "reply, words",
    [
        ("LOADING Redis is loading the dataset in memory", "reads its data from disk"),
        ("MISCONF Errors writing to the AOF file: No space left on device", "disk is full"),
        ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
        ("CLUSTERDOWN Hash slot not served", "no primary"),
        ("MASTERDOWN Link with MASTER is down", "no primary"),
    ],
)
def test_what_passes_by_itself_is_away(client: redis.Redis, reply: str, words: str) -> None:
    # The real thing takes a full disk, or several servers; so a script answers in its place.
    script = Script(f"return redis.error_reply('{reply}')")
    with pytest.raises(RedisAway, match=words):
        (error,) = call_all(client, [Call(script, (), ())])
        raise error


def test_a_busy_server_is_away(
    redis_server: RedisServer, scripts: ShardScripts, client: redis.Redis
) -> None:
    client.config_set("lua-time-limit", 1)
    other = redis_server.client()

    def run_endlessly() -> None:
        with pytest.raises(redis.ResponseError):  # the script is killed
            other.eval("while true do end", 0)

    thread = Thread(run_endlessly)
    found: list[object] = []

    def is_busy() -> bool:
        found.append(scripts.renew({0: "token"})[0])
        return not isinstance(found[-1], Outcome)

    wait_until(is_busy)
    client.script_kill()
    thread.finish()
    assert isinstance(found[-1], RedisAway)
    assert "script of another program" in str(found[-1])


def test_tls_needs_a_certificate_that_is_trusted_and_for_the_host(
    redis_program: str, tmp_path: Path
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")  # and not for 127.0.0.1
    paths = {name: tmp_path / name for name in ("ca", "stranger", "cert", "key")}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    stranger.cert_pem.write_to_path(str(paths["stranger"]))
    certificate.cert_chain_pems[0].write_to_path(str(paths["cert"]))
    certificate.private_key_pem.write_to_path(str(paths["key"]))
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    options = [*("--tls-port", str(port), "--tls-auth-clients", "no")]
    for option, name in (("ca-cert", "ca"), ("cert", "cert"), ("key", "key")):
        options += [f"--tls-{option}-file", str(paths[name])]
    with start_with_tls(redis_program, tmp_path / "redis", options) as server:
        trusted = f"rediss://localhost:{port}?ssl_ca_certs={paths['ca']}"
        assert check_server(server.client(trusted)) == []
        for url in (
            f"rediss://localhost:{port}",
            f"rediss://localhost:{port}?ssl_ca_certs={paths['stranger']}",
            f"rediss://{HOST}:{port}?ssl_ca_certs={paths['ca']}",
        ):
            with pytest.raises(FleetError, match="certificate of Redis is not trusted") as caught:
                check_server(server.client(url))
            assert not isinstance(caught.value, RedisAway)
        # The user may know better.
        assert check_server(server.client(f"rediss://{HOST}:{port}?ssl_cert_reqs=none")) == []


def start_with_tls(program: str, directory: Path, options: list[str]) -> RedisServer:
    try:
        return RedisServer(program, directory, *options)
    except AssertionError:
        log = directory / "log"
        told = log.read_text() if log.exists() else ""
        if "Bad directive" in told or not told:
            pytest.skip("this redis-server was built without TLS")
        raise


def test_a_cluster_runs_every_script(redis_program: str, tmp_path: Path, keys: Keys) -> None:
    options = ("--cluster-enabled", "yes")
    with RedisServer(redis_program, tmp_path / "redis", *options) as server:
        make_cluster(server)
        client: Any = server.cluster_client()
        assert connect(client) is client
        assert check_server(client) == []
        for shard_id in range(16):
            run_every_script(client, keys, shard_id)
        server.client().script_flush()
        scripts = ShardScripts(client, keys, lease=LEASE, keep_events=1000)
        renewed = scripts.renew(dict.fromkeys(range(16), "token"))
        assert set(renewed.values()) == {Outcome.FENCED}
