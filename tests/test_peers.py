"""ScriptedGateway: a shard works with it, scripts that fail are reported, and its threads end."""

from __future__ import annotations

import threading

import pytest

from shardlib import Opcode
from tests.peers import Peer, ScriptedGateway
from tests.recorder import Recorder
from tests.shards import make_shard


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_a_well_behaved_peer_makes_a_shard_ready(tls: bool) -> None:
    recorder = Recorder()
    with ScriptedGateway(tls=tls) as gateway:
        with make_shard(recorder, ssl_context=gateway.ssl_context) as shard:
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
            shard.heartbeat()
            recorder.wait_for("heartbeat")
        [peer] = gateway.peers
    opcodes = [each.payload["op"] for each in peer.received]
    # The first heartbeat that nobody asked for comes at a random moment.
    assert opcodes[:2] == [Opcode.IDENTIFY, Opcode.HEARTBEAT] and set(opcodes[1:]) == {1}
    assert peer.close_code == 1000
    assert recorder.life[-2:] == [("disconnected", 1000, True), ("closed", None)]


def test_a_connection_that_was_reset_is_resumed_after_its_last_event() -> None:
    recorder = Recorder()
    with ScriptedGateway() as gateway, make_shard(recorder) as shard:
        shard.connect(gateway.url)
        gateway.peer(1)
        recorder.wait_for("ready")
        gateway.peers[0].dispatch("TYPING_START", "x" * 70_000)
        recorder.wait_for("dispatch", count=2)
        gateway.peers[0].reset()
        recorder.wait_for("reconnected")
        opening = gateway.peers[1].opening
    assert opening is not None
    assert (opening["op"], opening["d"]["seq"]) == (Opcode.RESUME, 2)
    assert recorder.data("TYPING_START") == ["x" * 70_000]


def test_an_exception_in_a_script_fails_the_test() -> None:
    def script(peer: Peer) -> None:
        raise LookupError("in the script")

    shard = make_shard(should_reconnect=False)
    with pytest.raises(LookupError, match="in the script"):
        with ScriptedGateway(script) as gateway:
            with pytest.raises(Exception, match="connect"):
                shard.connect(gateway.url)


def test_scripts_and_their_threads_end_with_the_scripted_gateway() -> None:
    with make_shard() as shard:
        with ScriptedGateway() as gateway:
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
        left = [each.name for each in threading.enumerate()]
    assert [name for name in left if name.startswith("scripted-")] == []
