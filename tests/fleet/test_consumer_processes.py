"""Consumers in processes that are killed, stopped and interrupted: no event is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from shardlib.fleet.fleetevents import position_of
from shardlib.fleet.keys import Keys
from tests.fleet.feed import Feed
from tests.redis_server import RedisServer
from tests.support import send_signal, wait_until

pytestmark = pytest.mark.slow

_SHARDS = 4
_LEASE = 0.8
_TIMEOUT = 30.0

ROOT = Path(__file__).parent.parent.parent


class Consumers:
    """The processes of a group, and what they have handled.

    :param server: that all of them use.
    :param path: of the file into which they write.
    """

    def __init__(self, server: RedisServer, path: Path) -> None:
        self._server = server
        self._path = path
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *options: str, pace: float = 0.002) -> None:
        command = [sys.executable, "-m", "tests.fleet.consumer_program"]
        command += [self._server.url, str(self._path), name, "--shards", str(_SHARDS)]
        command += ["--lease", str(_LEASE), "--pace", str(pace), *options]
        self._processes[name] = subprocess.Popen(command, cwd=ROOT)

    def send(self, name: str, number: signal.Signals) -> None:
        send_signal(self._processes[name], number)

    def end(self, name: str, number: signal.Signals) -> int:
        """Send a signal that ends a process, and return its exit status."""
        process = self._processes.pop(name)
        process.send_signal(number)
        return process.wait(_TIMEOUT)

    def end_all(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def handled(self, name: str | None = None) -> list[str]:
        """The ids that were handled, by all or by one of the processes, as it went on."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        words = [line.split() for line in lines if ":" in line]
        return [entry_id for by, entry_id in words if name in (None, by)]

    def interruptions(self) -> int:
        return self._path.read_text().count("interrupted")

    def wait_for(self, condition: Callable[[], object]) -> None:
        wait_until(
            condition, _TIMEOUT, self._path.read_text()[-200:] if self._path.exists() else ""
        )

    def wait_for_all(self, ids: dict[int, list[str]]) -> None:
        """Wait until all events were handled, each shard's in order but for repeats."""
        expected = {entry_id for shard_ids in ids.values() for entry_id in shard_ids}
        self.wait_for(lambda: expected <= set(self.handled()))
        for shard_id, shard_ids in ids.items():
            handled = [each for each in self.handled() if each.startswith(f"{shard_id}:")]
            assert list(dict.fromkeys(handled)) == shard_ids


@pytest.fixture
def consumers(redis_server: RedisServer, tmp_path: Path) -> Iterator[Consumers]:
    consumers = Consumers(redis_server, tmp_path / "handled")
    yield consumers
    consumers.end_all()


@pytest.fixture
def feed(client: redis.Redis, keys: Keys) -> Feed:
    return Feed(client, keys, _SHARDS)


def owners(client: redis.Redis, keys: Keys) -> set[bytes | None]:
    return {client.hget(keys.group(shard_id, "web").state, "owner") for shard_id in range(_SHARDS)}  # type: ignore[misc]


def watermarks(client: redis.Redis, keys: Keys) -> list[bytes]:
    states = [keys.group(shard_id, "web").state for shard_id in range(_SHARDS)]
    return [client.hget(state, "watermark") or b"0-0" for state in states]  # type: ignore[misc]


def join(first: dict[int, list[str]], second: dict[int, list[str]]) -> dict[int, list[str]]:
    return {shard_id: first[shard_id] + second[shard_id] for shard_id in first}


def test_a_killed_consumers_events_are_handled_by_the_other_one(
    consumers: Consumers, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    consumers.start("one")
    consumers.start("two")
    consumers.wait_for(lambda: owners(client, keys) == {b"one", b"two"})
    ids = feed.append_everywhere(200)
    consumers.wait_for(lambda: consumers.handled("one") and consumers.handled("two"))
    consumers.end("one", signal.SIGKILL)
    ids = join(ids, feed.append_everywhere(10))
    killed = time.monotonic()
    consumers.wait_for(lambda: owners(client, keys) == {b"two"})
    assert time.monotonic() - killed < _LEASE + 5.0  # a busy machine's
    consumers.wait_for_all(ids)


def test_a_stopped_consumer_handles_no_event_more_of_streams_that_it_has_lost(
    consumers: Consumers, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    ids = feed.append_everywhere(300)
    consumers.start("one", pace=0.005)
    consumers.wait_for(lambda: len(consumers.handled("one")) > 20)
    consumers.send("one", signal.SIGSTOP)
    handled = consumers.handled("one")
    assert len(handled) < _SHARDS * 300  # so some were read ahead
    consumers.start("two", pace=0.0)
    consumers.wait_for_all(ids)
    consumers.wait_for(
        lambda: (
            watermarks(client, keys)
            == [each[-1].partition(":")[2].encode() for each in ids.values()]
        )
    )

    before = watermarks(client, keys)
    consumers.send("one", signal.SIGCONT)
    consumers.wait_for(lambda: owners(client, keys) == {b"one", b"two"})  # it has noticed
    # The event in hand may have been written before the stop, or after it.
    assert len(consumers.handled("one")) <= len(handled) + 1
    after = watermarks(client, keys)
    assert list(map(position_of, after)) == list(map(position_of, before))
    ids = join(ids, feed.append_everywhere(20))
    consumers.wait_for_all(ids)


def test_no_ctrl_c_loses_an_event(
    consumers: Consumers, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    ids = feed.append_everywhere(150)
    consumers.start("one", "--interrupted", pace=0.0005)
    for number in range(1, 16):
        consumers.wait_for(lambda: len(consumers.handled()) > 20 * number)
        consumers.send("one", signal.SIGINT)
        consumers.wait_for(lambda: consumers.interruptions() >= number)
    consumers.wait_for_all(ids)
    assert consumers.end("one", signal.SIGTERM) == 0


def test_a_stopped_loop_acknowledges_what_it_has_handled(
    consumers: Consumers, client: redis.Redis, keys: Keys, feed: Feed
) -> None:
    ids = feed.append_everywhere(200)
    consumers.start("one", pace=0.001)
    consumers.wait_for(lambda: len(consumers.handled()) > 50)
    assert consumers.end("one", signal.SIGTERM) == 0
    consumers.start("two", pace=0.0)  # which need not wait for a lease
    consumers.wait_for_all(ids)
    assert len(consumers.handled()) == _SHARDS * 200


def test_without_order_a_killed_consumers_events_are_handled_by_the_other_one(
    consumers: Consumers, feed: Feed
) -> None:
    ids = feed.append_everywhere(100)
    consumers.start("one", "--unordered", pace=0.002)
    consumers.start("two", "--unordered", pace=0.002)
    consumers.wait_for(lambda: consumers.handled("one") and consumers.handled("two"))
    consumers.end("one", signal.SIGKILL)
    expected = {entry_id for shard_ids in ids.values() for entry_id in shard_ids}
    consumers.wait_for(lambda: expected <= set(consumers.handled()))
