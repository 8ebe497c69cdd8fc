"""Workers and consumers on Redis servers set up in other ways, and several fleets on one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from shardlib import Intents
from shardlib.fleet import Fleet, FleetError
from shardlib.testing import LocalGateway
from tests.fleet.test_connecting import start_with_tls
from tests.fleet.workers import (
    SHARDS,
    make_fleet,
    make_fleet_gateway,
    running,
    wait_for_shards,
)
from tests.redis_server import HOST, RedisServer, free_port
from tests.support import not_none, wait_until


def check(url: Any, gateway: LocalGateway, name: str = "mybot", **options: Any) -> None:
    """Run a worker and a consumer, and see the READY of each shard come through."""
    with Fleet(url, name, lease=0.5) as fleet:
        fleet.init(SHARDS, max_concurrency=SHARDS, identify_interval=0.01)
        with running(fleet, gateway) as worker, fleet.consumer("web", **options) as consumer:
            wait_for_shards(worker, SHARDS)
            ready: dict[int, str] = {}
            while len(ready) < SHARDS:
                event = not_none(consumer.get(20))
                if event.name == "READY":
                    ready[event.shard_id] = event.data["session_id"]
                consumer.ack(event)
            sessions = {each.shard[0]: each.session_id for each in gateway.all_sessions}
            assert ready.items() <= sessions.items()


def test_a_unix_socket(redis_program: str, tmp_path: Path, gateway: LocalGateway) -> None:
    path = tmp_path / "socket"
    with RedisServer(redis_program, tmp_path / "redis", "--unixsocket", str(path)):
        check(f"unix://{path}", gateway)


def test_tls_with_an_authority_of_the_users(
    redis_program: str, tmp_path: Path, gateway: LocalGateway
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    paths = {name: tmp_path / name for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    certificate.cert_chain_pems[0].write_to_path(str(paths["cert"]))
    certificate.private_key_pem.write_to_path(str(paths["key"]))
    port = free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    for option, name in (("ca-cert", "ca"), ("cert", "cert"), ("key", "key")):
        options += [f"--tls-{option}-file", str(paths[name])]
    with start_with_tls(redis_program, tmp_path / "redis", options):
        check(f"rediss://localhost:{port}?ssl_ca_certs={paths['ca']}", gateway)


@contextlib.contextmanager
def cluster(program: str, directory: Path) -> Iterator[redis.RedisCluster]:
    """A cluster of three."""
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(
                RedisServer(program, directory / str(number), "--cluster-enabled", "yes")
            )
            for number in range(3)
        ]
        first, *others = nodes
        for number, node in enumerate(nodes):
            slots = range(number * 16384 // 3, (number + 1) * 16384 // 3)
            node.client().execute_command("CLUSTER", "ADDSLOTS", *slots)
            node.client().execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in others:
            node.client().execute_command("CLUSTER", "MEET", HOST, first.port)

        def is_complete() -> bool:
            states = [repr(node.client().execute_command("CLUSTER", "INFO")) for node in nodes]
            return all(
                "'ok'" in state or ("state:ok" in state and "known_nodes:3" in state)
                for state in states
            )

        wait_until(is_complete, 15)
        yield first.cluster_client()


@pytest.mark.parametrize("ordered", [True, False])
def test_a_cluster_of_three(
    redis_program: str, tmp_path: Path, gateway: LocalGateway, ordered: bool
) -> None:
    with cluster(redis_program, tmp_path) as client:
        check(client, gateway, ordered=ordered)


def test_a_node_of_a_cluster_alone_says_what_to_give(
    redis_program: str, tmp_path: Path, gateway: LocalGateway
) -> None:
    with cluster(redis_program, tmp_path) as client:
        node: Any = client.get_primaries()[0]
        with Fleet(f"redis://{HOST}:{node.port}", "mybot") as fleet:
            with pytest.raises(FleetError, match="RedisCluster in place of the URL"):
                fleet.init(SHARDS)
            with pytest.raises(FleetError, match="RedisCluster in place of the URL"):
                fleet.worker(gateway.token, Intents.all()).run_forever(gateway.url)
            Fleet(client, "mybot").init(SHARDS)
            with pytest.raises(FleetError, match="RedisCluster in place of the URL"):
                fleet.shards()


def test_fleets_whose_names_begin_alike_share_nothing(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    names = ["my", "mybot", "mybot.1", "mybot-1"]
    with contextlib.ExitStack() as stack:
        for name in names:
            check(redis_server.url, stack.enter_context(make_fleet_gateway()), name)
    for name in names:
        assert client.hlen(f"{name}:config") == 4
        assert client.xlen(f"{{{name}:0}}:events") > 0


def test_a_fleet_that_was_made_before_a_fork_is_used_on_both_sides(
    redis_server: RedisServer,
) -> None:
    with make_fleet(redis_server) as fleet:
        fleet.shards()
        child = os.fork()
        if child == 0:
            try:
                found = [len(fleet.shards()) for _ in range(200)]
                os._exit(0 if found == [SHARDS] * 200 else 1)
            finally:
                os._exit(2)
        for _ in range(200):
            assert len(fleet.shards()) == SHARDS
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
