"""A session that one process saves is loaded and resumed by the next process."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shardlib import Opcode, Session, ShardState
from tests.recorder import Recorder, dispatch_numbers
from tests.shards import make_gateway, make_shard
from tests.support import TOKEN, wait_until

PROGRAM = """
import os, sys
from pathlib import Path
from shardlib import IdentifyGate, Intents, Session, Shard

url, path, last = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
session = Session.load(path) if path.exists() else None
gate = IdentifyGate(interval=0.01, slack=0)
shard = Shard({token!r}, Intents.all(), session=session, identify_gate=gate)

@shard.on("TYPING_START")
def number(shard, data):
    print(data["n"], flush=True)
    if data["n"] == last:
        shard.session.save(path)
        os._exit(9)  # killed in the middle of a callback

shard.connect(url)
shard.join()
"""


def test_events_missed_by_a_killed_process_reach_the_next_process(tmp_path: Path) -> None:
    """The last event is replayed, too: the process was killed before its callback returned."""
    with make_gateway() as gateway:

        def run(last: int) -> subprocess.Popen[str]:
            program = PROGRAM.format(token=TOKEN)
            return subprocess.Popen(
                [sys.executable, "-c", program, gateway.url, tmp_path / "session", str(last)],
                stdout=subprocess.PIPE,
                text=True,
            )

        first = run(last=4)
        session = gateway.wait_for_connection(timeout=20).wait_until_ready()
        dispatch_numbers(gateway, range(10))
        output, _ = first.communicate(timeout=60)
        assert output.split() == ["0", "1", "2", "3", "4"]
        second = run(last=10)
        gateway.wait_until(lambda: session.resumes == 1, timeout=20)
        dispatch_numbers(gateway, [10])
        output, _ = second.communicate(timeout=60)
        assert output.split() == ["4", "5", "6", "7", "8", "9", "10"]
        assert len(gateway.sessions) == 1


def test_a_loaded_session_is_resumed_at_its_gateway(tmp_path: Path) -> None:
    recorder = Recorder()
    with make_gateway() as gateway:
        with make_shard() as shard:
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
            wait_until(lambda: shard.stats.events["GUILD_CREATE"] == 1)
            # An event is counted before it is done, and a session that is saved between is replayed
            # from the event before.
            wait_until(lambda: shard.session and shard.session.sequence == shard.last_sequence)
            assert shard.session is not None
            shard.session.save(tmp_path / "session.json")
            shard.disconnect(4000)
        dispatch_numbers(gateway, [1])
        loaded = Session.load(tmp_path / "session.json")
        with make_shard(recorder, session=loaded) as shard:
            assert (shard.session_id, shard.last_sequence) == (loaded.session_id, loaded.sequence)
            assert shard.session == loaded
            shard.connect(gateway.url)
            recorder.wait_for("reconnected")
            assert recorder.life == [("connected",), ("reconnected", True)]
            assert recorder.numbers() == [1]
            assert gateway.connections[-1].at_resume_url
            assert (shard.stats.replayed, shard.stats.resumes, shard.stats.reconnects) == (1, 1, 0)


def test_a_loaded_session_is_not_resumed_unencrypted_after_a_connect_with_tls() -> None:
    """Anybody may have written the file: its URL must not get the token without encryption."""
    with make_gateway(tls=True) as gateway, make_gateway() as other:
        saved = Session("abc", 5, other.url, 0, 1)
        with make_shard(session=saved, ssl_context=gateway.ssl_context) as shard:
            shard.connect(gateway.url)
            assert gateway.expect(Opcode.RESUME)["d"]["session_id"] == "abc"
        assert other.all_connections == []


def test_a_loaded_session_that_has_ended_is_replaced_by_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardlib.reconnect.INVALID_SESSION_DELAY", (0.01, 0.02))
    gone = Session("gone", 77, None, 0, 1)
    recorder = Recorder()
    with make_gateway() as gateway, make_shard(recorder, session=gone) as shard:
        shard.connect(gateway.url)
        recorder.wait_for("reconnected")
        assert shard.session_id not in (None, "gone")
        assert recorder.life == [
            ("connected",),
            ("disconnected", None, False),
            ("connected",),
            ("ready",),
            ("reconnected", False),
        ]


def test_duplicates_in_a_replay_are_dropped_and_counted() -> None:
    """Only between Resume and RESUMED are duplicates dropped; RESUMED may have an old sequence."""
    recorder = Recorder()
    with make_gateway() as gateway:
        session = Session("abc", 5, None, 0, 1)

        def answer(connection: Any) -> None:
            for sequence in (4, 5, 6, 7):
                connection.send({"t": "TYPING_START", "s": sequence, "op": 0, "d": {"n": sequence}})
            connection.send({"t": "RESUMED", "s": 5, "op": 0, "d": {}})
            for sequence in (7, 7, 8):
                connection.send({"t": "TYPING_START", "s": sequence, "op": 0, "d": {"n": sequence}})

        gateway.inject(answer, instead_of="ready")
        with make_shard(recorder, session=session) as shard:
            shard.connect(gateway.url)
            wait_until(lambda: len(recorder.numbers()) == 5)
            assert recorder.numbers() == [6, 7, 7, 7, 8]
            assert shard.state is ShardState.READY
            assert shard.last_sequence == 8
            assert (shard.stats.duplicates, shard.stats.replayed) == (2, 2)
            resume = gateway.expect(Opcode.RESUME)["d"]
            assert resume == {"token": TOKEN, "session_id": "abc", "seq": 5}


def test_after_five_unanswered_resumes_the_shard_identifies() -> None:
    """Five connections that never answer cost the session; the sixth identifies."""
    gone = Session("abc", 5, None, 0, 1)
    with make_gateway() as gateway:
        # Not ready_timeout: one that five connections soon outlast is too short for the sixth.
        gateway.inject(lambda connection: connection.drop(), instead_of="ready", connections=5)
        with make_shard(session=gone) as shard:
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
            opcodes = [
                [payload["op"] for payload in connection.received if payload["op"] != 1]
                for connection in gateway.all_connections
            ]
            assert opcodes == [[6]] * 5 + [[2]]


def test_a_loaded_session_whose_gateway_is_gone_is_resumed_at_the_main_url() -> None:
    """The saved URL may be hours old: the session is resumed at the URL given to connect()."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    saved = Session("abc", 5, f"ws://127.0.0.1:{port}", 0, 1)
    with make_gateway() as gateway, make_shard(session=saved) as shard:
        shard.connect(gateway.url)
        assert gateway.expect(Opcode.RESUME)["d"]["session_id"] == "abc"
