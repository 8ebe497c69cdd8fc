"""Functions of the user's that are slow, fork, or fail in odd ways: they cost no event.

A slow one keeps the reader from reading: what the Gateway has sent in time is not late.
"""

from __future__ import annotations

import os
import sys
import time

import pytest

from shardlib import Opcode, Shard
from shardlib.testing import LocalGateway
from tests.peers import Peer
from tests.reliability.conftest import MakeScripted, WatchShard
from tests.support import wait_until


def test_hello_behind_a_slow_on_socket_connected_is_in_time(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    gateway = make_scripted()
    shard, _ = watch_shard(gateway, connect=False, hello_timeout=0.2)
    record = shard.on_socket_connected

    def slow(shard: Shard) -> None:
        record(shard)
        time.sleep(0.5)

    shard.on_socket_connected = slow
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    assert shard.stats.connections == 1


def test_ready_behind_a_slow_on_socket_heartbeat_is_in_time(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.hello(20)
        peer.expect(Opcode.IDENTIFY)
        peer.expect(Opcode.HEARTBEAT)
        peer.acknowledge()
        peer.ready()
        peer.serve()

    beats: list[float] = []

    def slow_at_first(shard: Shard, ping: float) -> None:
        beats.append(ping)
        if len(beats) == 1:
            time.sleep(0.5)

    shard, recorder = watch_shard(
        make_scripted(script), ready_timeout=0.3, on_socket_heartbeat=slow_at_first
    )
    wait_until(lambda: len(beats) > 1)
    assert recorder.count("ready") == 1
    assert shard.stats.connections == 1


def test_a_replay_whose_listeners_are_slow_is_finished_on_one_connection(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    def script(peer: Peer) -> None:
        opening = peer.greet()
        if opening["op"] == Opcode.IDENTIFY:
            peer.ready()
            peer.reset()
            return
        peer.sequence = opening["d"]["seq"]
        peer.dispatch("TYPING_START", {"n": 1})
        time.sleep(0.05)  # the rest comes while the first event's function runs
        for number in (2, 3):
            peer.dispatch("TYPING_START", {"n": number})
        peer.dispatch("RESUMED", {})
        peer.serve()

    numbers: list[int] = []

    def slow(shard: Shard, data: dict[str, int]) -> None:
        numbers.append(data["n"])
        time.sleep(0.4)

    gateway = make_scripted(script)
    shard, recorder = watch_shard(gateway, connect=False, ready_timeout=0.3)
    shard.on("TYPING_START", slow)
    shard.connect(gateway.url)
    wait_until(lambda: recorder.count("reconnected", True))
    assert numbers == [1, 2, 3]
    assert shard.stats.connections == 2


def test_a_replay_that_breaks_off_again_and_again_continues_where_it_stopped(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Each Resume was answered: the session is there, and none of it is given up."""
    last = 31

    def script(peer: Peer) -> None:
        opening = peer.greet()
        if opening["op"] == Opcode.IDENTIFY:
            peer.ready()
            peer.reset()
            return
        peer.sequence = opening["d"]["seq"]
        for _ in range(3):
            if peer.sequence < last:
                peer.dispatch("TYPING_START", {"n": peer.sequence + 1})
        if peer.sequence < last:
            peer.close(4000)
        else:
            peer.dispatch("RESUMED", {})
            peer.serve()

    shard, recorder = watch_shard(make_scripted(script), ready=False)
    wait_until(lambda: recorder.count("reconnected", True))
    assert recorder.numbers() == list(range(2, last + 1))
    assert recorder.count("ready") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ends", ["returns", "exits", "raises"])
def test_a_callback_that_forks_leaves_the_connection_to_the_parent(
    ends: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 29: a second reader of one socket would take every other message away."""
    children: list[int] = []

    calls: list[object] = []

    def fork(shard: Shard, data: object) -> None:
        calls.append(data)
        if len(calls) < 5:  # what fails so often is told in the log no more
            raise RuntimeError("before")
        child = os.fork()
        if child == 0:
            os.close(2)  # what the child says of its end is not the test's
            if ends == "exits":
                sys.exit(3)
            if ends == "raises":
                raise RuntimeError("in the child")
        else:
            children.append(child)

    gateway = make_scripted()
    shard, recorder = watch_shard(gateway)
    shard.on("FORK", fork)
    peer = gateway.peers[0]
    for _ in range(5):
        peer.dispatch("FORK")
    wait_until(lambda: children)
    os.waitpid(children[0], 0)  # the child's reader ends by itself, and the child with it
    for number in range(50):
        peer.dispatch("TYPING_START", {"n": number})
    wait_until(lambda: len(recorder.numbers()) == 50)
    assert recorder.numbers() == list(range(50))
    assert peer.close_code is None
    assert shard.stats.connections == 1
    assert shard.stats.gaps == 0


def test_a_listener_whose_attributes_all_raise_costs_no_connection(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """A proxy of another library's may raise at each attribute, outside of where it belongs."""

    class Proxy:
        def __call__(self, shard: Shard, data: object) -> None:
            raise ValueError("out of place")

        def __getattr__(self, name: str) -> object:
            raise AttributeError(name) if is_in_place else RuntimeError("out of place")

    is_in_place = True
    shard, recorder = watch_shard(gateway)
    shard.on("TYPING_START", Proxy())
    is_in_place = False
    others: list[int] = []
    shard.on("TYPING_START", lambda shard, data: others.append(data["n"]))
    for number in range(3):
        gateway.dispatch("TYPING_START", {"n": number, "guild_id": None})
    wait_until(lambda: len(others) == 3)
    assert shard.stats.connections == 1
    assert [type(error) for error in recorder.errors] == [ValueError] * 3
