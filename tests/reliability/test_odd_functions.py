"""Functions of the user that are slow, fork, or fail in odd ways: they cost no event.

A slow function keeps the reader from reading. A message that the Gateway sent in time is in time,
however late the reader reads it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from shardlib import Opcode, Shard
from shardlib.testing import LocalGateway
from tests.peers import Peer, Script
from tests.reliability.conftest import MakeScripted, WatchShard
from tests.support import wait_until


def test_hello_behind_a_slow_on_socket_connected_is_in_time(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    greeted = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.hello()
        greeted.set()
        peer.expect(Opcode.IDENTIFY)
        peer.ready()
        peer.serve()

    gateway = make_scripted(script)
    shard, _ = watch_shard(gateway, connect=False, hello_timeout=1.0)
    record = shard.on_socket_connected

    def slow(shard: Shard) -> None:
        record(shard)
        greeted.wait(10)
        time.sleep(1.2)  # more than hello_timeout

    shard.on_socket_connected = slow
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    assert shard.stats.connections == 1


def test_ready_behind_a_slow_on_socket_heartbeat_is_in_time(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    entered, answered = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.hello()
        peer.expect(Opcode.IDENTIFY)
        peer.send({"op": Opcode.HEARTBEAT})
        peer.expect(Opcode.HEARTBEAT)
        peer.acknowledge()
        entered.wait(10)  # so that READY is not received together with the acknowledgement
        peer.ready()
        answered.set()
        peer.send({"op": Opcode.HEARTBEAT})
        peer.serve()

    beats: list[float] = []

    def slow_at_first(shard: Shard, ping: float) -> None:
        beats.append(ping)
        if len(beats) == 1:
            entered.set()
            answered.wait(10)
            time.sleep(2.2)  # more than ready_timeout, within which the callback was called

    shard, recorder = watch_shard(
        make_scripted(script), ready_timeout=2.0, on_socket_heartbeat=slow_at_first
    )
    wait_until(lambda: len(beats) > 1)
    assert recorder.count("ready") == 1
    assert shard.stats.connections == 1


def lose_and_replay(replay: Callable[[Peer], None]) -> Script:
    """Make a script that resets the connection after READY, and answers each Resume by a replay."""

    def script(peer: Peer) -> None:
        opening = peer.greet()
        if opening["op"] == Opcode.IDENTIFY:
            peer.ready()
            peer.reset()
            return
        peer.sequence = opening["d"]["seq"]
        replay(peer)

    return script


def test_a_replay_whose_listeners_are_slow_is_finished_on_one_connection(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    entered = threading.Event()

    def replay(peer: Peer) -> None:
        peer.dispatch("TYPING_START", {"n": 1})
        entered.wait(10)  # the rest comes while the listener of the first event runs
        for number in (2, 3):
            peer.dispatch("TYPING_START", {"n": number})
        peer.dispatch("RESUMED", {})
        peer.serve()

    numbers: list[int] = []

    def slow(shard: Shard, data: dict[str, int]) -> None:
        entered.set()
        numbers.append(data["n"])
        time.sleep(2.2 if data["n"] == 1 else 0.2)  # the first time, more than ready_timeout

    gateway = make_scripted(lose_and_replay(replay))
    shard, recorder = watch_shard(gateway, connect=False, ready_timeout=2.0)
    shard.on("TYPING_START", slow)
    shard.connect(gateway.url)
    wait_until(lambda: recorder.count("reconnected", True))
    assert numbers == [1, 2, 3]
    assert shard.stats.connections == 2


def test_a_replay_that_breaks_off_again_and_again_continues_where_it_stopped(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Each Resume brings some events, so the shard keeps the session however often it is cut."""
    last = 31

    def replay(peer: Peer) -> None:
        for _ in range(3):
            if peer.sequence < last:
                peer.dispatch("TYPING_START", {"n": peer.sequence + 1})
        if peer.sequence < last:
            peer.close(4000)
        else:
            peer.dispatch("RESUMED", {})
            peer.serve()

    shard, recorder = watch_shard(make_scripted(lose_and_replay(replay)), ready=False)
    wait_until(lambda: recorder.count("reconnected", True))
    assert recorder.numbers() == list(range(2, last + 1))
    assert recorder.count("ready") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ends", ["returns", "exits", "raises"])
def test_a_callback_that_forks_leaves_the_connection_to_the_parent(
    ends: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 29: a reader in the child would take messages from the parent."""
    children: list[int] = []
    calls: list[object] = []

    def fork(shard: Shard, data: object) -> None:
        calls.append(data)
        if len(calls) < 5:  # so often that the log is silent about the failure in the child
            raise RuntimeError("before")
        process_id = os.fork()
        if process_id == 0:
            os.close(2)  # keeps the traceback of the child out of the output of the tests
            if ends == "exits":
                sys.exit(3)
            if ends == "raises":
                raise RuntimeError("in the child")
        else:
            children.append(process_id)

    gateway = make_scripted()
    shard, recorder = watch_shard(gateway)
    shard.on("FORK", fork)
    peer = gateway.peers[0]
    for _ in range(5):
        peer.dispatch("FORK")
    wait_until(lambda: children)
    [child] = children
    try:
        for number in range(50):
            peer.dispatch("TYPING_START", {"n": number})
        wait_until(lambda: len(recorder.numbers()) == 50)
        # The reader is the only thread of the child, and has to end by itself.
        wait_until(lambda: os.waitpid(child, os.WNOHANG)[0], what="the end of the child")
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    assert recorder.numbers() == list(range(50))
    assert peer.close_code is None
    assert shard.stats.connections == 1
    assert shard.stats.gaps == 0


def test_a_listener_whose_attributes_all_raise_costs_no_connection(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """A proxy object of a framework may raise at each attribute when it is used out of place."""

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
