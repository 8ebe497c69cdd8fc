"""A half-open connection: the network drops every packet, and neither end gets an error."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from shardlib.gateway import Opcode
from shardlib.testing import LocalGateway
from tests.recorder import dispatch_numbers
from tests.reliability.support import Child
from tests.support import AT_ONCE, TOKEN, wait_until

INTERVAL = 1.0  # seconds between two heartbeats
NAMESPACE = f"shardlib-{os.getpid()}"
HOST_END, CLIENT_END = f"sl{os.getpid()}a", f"sl{os.getpid()}b"
# Other networks for each process that runs these tests, since several may run at once.
FIRST, SECOND = (f"10.203.{os.getpid() % 125 * 2 + number}" for number in (0, 1))
HERE, THERE = f"{FIRST}.1", f"{FIRST}.2"  # the first path between gateway and client
HERE_TOO, THERE_TOO = f"{SECOND}.1", f"{SECOND}.2"  # the second, which stays healthy


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def network() -> Iterator[None]:
    """A network namespace for the client, with two addresses, and a veth pair to this process."""
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need the command ip (iproute2)")
    inside = ("ip", "netns", "exec", NAMESPACE)
    try:
        _run("ip", "netns", "add", NAMESPACE)
        _run(*inside, "true")  # some systems let a process make a namespace, but not enter it
    except subprocess.CalledProcessError as error:
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("ip", "netns", "delete", NAMESPACE)
        pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
    try:
        _run("ip", "link", "add", HOST_END, "type", "veth", "peer", "name", CLIENT_END,
             "netns", NAMESPACE)  # fmt: skip
        for address in (HERE, HERE_TOO):
            _run("ip", "address", "add", f"{address}/24", "dev", HOST_END)
        for address in (THERE, THERE_TOO):
            _run(*inside, "ip", "address", "add", f"{address}/24", "dev", CLIENT_END)
        _run("ip", "link", "set", HOST_END, "up")
        _run(*inside, "ip", "link", "set", CLIENT_END, "up")
        yield
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("ip", "link", "delete", HOST_END)
        _run("ip", "netns", "delete", NAMESPACE)


def _drop_everything_on_the_first_path() -> None:
    """Have both ends send to a hardware address that no device has."""
    nobody = ("lladdr", "02:00:00:00:00:99", "nud", "permanent")
    _run("ip", "neigh", "replace", THERE, *nobody, "dev", HOST_END)
    _run("ip", "netns", "exec", NAMESPACE, "ip", "neigh", "replace", HERE, *nobody, "dev",
         CLIENT_END)  # fmt: skip


class _TwoPaths(LocalGateway):
    """Listens everywhere; sessions are resumed over the second path."""

    @property
    def resume_url(self) -> str:
        return super().resume_url.replace("0.0.0.0", HERE_TOO)


CLIENT = """
import json
shard = make(on_socket_dispatch=lambda shard, payload: tell(json.dumps(payload)))
shard.connect(sys.argv[1])
shard.wait_until_ready(10)
tell("ready")
sys.stdin.read()
shard.disconnect()
"""


@pytest.mark.slow
def test_a_half_open_connection_is_detected_and_the_session_resumed(network: None) -> None:
    """Row 7: within two heartbeat intervals, over the other path, and no event is missed."""
    gateway = _TwoPaths(
        token=TOKEN, host="0.0.0.0", heartbeat_interval=int(INTERVAL * 1000), guilds=1, members=1
    )
    url = f"ws://{HERE}:{{}}/"
    with (
        gateway,
        Child(
            CLIENT,
            url.format(gateway.url.rstrip("/").rpartition(":")[2]),
            before=("ip", "netns", "exec", NAMESPACE),
        ) as client,
    ):
        client.expect("ready")
        first = gateway.connections[0]
        first.expect(Opcode.HEARTBEAT)
        dispatch_numbers(gateway, range(50))
        wait_until(lambda: _numbers(client) == list(range(50)))

        _drop_everything_on_the_first_path()
        dead = time.monotonic()
        dispatch_numbers(gateway, range(50, 100))
        resume = gateway.expect(Opcode.RESUME, timeout=60)

        assert resume.time - dead < 2 * INTERVAL + AT_ONCE
        assert not first.is_closed  # neither end was told
        assert resume.connection.at_resume_url
        dispatch_numbers(gateway, range(100, 150))
        wait_until(lambda: len(_numbers(client)) >= 150)
        assert _numbers(client) == list(range(150))
        assert len(gateway.all_connections) == 2


def _numbers(client: Child) -> list[int]:
    payloads = [json.loads(line) for line in list(client.lines) if line.startswith("{")]
    return [payload["d"]["n"] for payload in payloads if payload["t"] == "TYPING_START"]
