"""The directory of a manager's sessions: when they are saved, and what is resumed from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardlib import ConnectionFailed, Opcode, Session, ShardClosed
from shardlib.testing import LocalGateway
from tests.managers import (
    close_shard,
    connect,
    gateway_bot,
    guilds_of,
    identified,
    make_gateway,
    make_manager,
    make_retries_quick,
    opcodes,
)
from tests.support import wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "var" / "sessions"


def file_of(directory: Path, shard_id: int) -> Path:
    return directory / f"shard-{shard_id}-of-4.json"


def saved(directory: Path) -> dict[int, Session]:
    """The sessions in the directory, by shard."""
    paths = {shard_id: file_of(directory, shard_id) for shard_id in range(4)}
    return {shard_id: Session.load(path) for shard_id, path in paths.items() if path.exists()}


def dispatch(gateway: LocalGateway, shard_id: int, number: int) -> None:
    (guild_id,) = guilds_of(gateway, shard_id, 4)
    gateway.dispatch("TYPING_START", {"n": number, "guild_id": guild_id})


def test_sessions_are_saved_when_they_begin(gateway: LocalGateway, directory: Path) -> None:
    with make_manager(gateway, sessions=directory) as manager:
        assert not directory.exists()
        connect(manager)
        wait_until(lambda: len(saved(directory)) == 4)
        ids = {each.shard[0]: each.session_id for each in gateway.sessions}
        assert {key: each.session_id for key, each in saved(directory).items()} == ids
        assert directory.stat().st_mode & 0o77 == 0


def test_sessions_are_saved_while_they_move_on(
    gateway: LocalGateway, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardlib.supervisor.SAVE_INTERVAL", 0.1)
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
        wait_until(lambda: len(saved(directory)) == 4)
        for number in range(5):
            dispatch(gateway, 2, number)
        wait_until(lambda: manager.stats.events["TYPING_START"] == 5)
        last = manager.shards[2].last_sequence
        wait_until(lambda: saved(directory)[2].sequence == last)


def test_close_saves_what_has_come_last(gateway: LocalGateway, directory: Path) -> None:
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
        for shard_id in range(4):
            dispatch(gateway, shard_id, 0)
        wait_until(lambda: manager.stats.events["TYPING_START"] == 4)
        last = {shard_id: shard.last_sequence for shard_id, shard in manager.shards.items()}
    assert {key: each.sequence for key, each in saved(directory).items()} == last


def test_another_manager_resumes_what_was_saved_and_misses_nothing(
    gateway: LocalGateway, directory: Path
) -> None:
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
    for shard_id in range(4):
        dispatch(gateway, shard_id, 7)
    heard: list[int] = []
    with make_manager(gateway, sessions=str(directory)) as manager:
        manager.on("TYPING_START", lambda shard, data: heard.append(data["n"]))
        connect(manager)
        assert len(gateway.identifies) == 4
        assert opcodes(gateway, Opcode.RESUME) == 4
        wait_until(lambda: heard == [7] * 4)


PROGRAM = """
import sys, threading
from shardlib import GatewayBot, IdentifyGate, ShardManager
manager = ShardManager(
    {token!r}, 0, sessions={directory!r}, gateway_bot=GatewayBot{answer!r},
    identify_gate=IdentifyGate(2, 0.001, slack=0),
)
manager.connect()
manager.wait_until_ready()
print("ready", flush=True)
threading.Event().wait()
"""


def test_a_program_that_was_killed_resumes_all_shards_when_it_is_started_again(
    gateway: LocalGateway, directory: Path
) -> None:
    program = PROGRAM.format(
        token=gateway.token, directory=str(directory), answer=tuple(gateway_bot(gateway))
    )
    for start in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            wait_until(lambda: len(saved(directory)) == 4)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert len(gateway.identifies) == 4
        assert opcodes(gateway, Opcode.RESUME) == 4 * start


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\x00" * 100, b"[]", b'{"session_id": 5}', b"\xff\xfe", b'{"a":' * 10_000],
    ids=["empty", "half", "zeros", "a list", "foreign", "not UTF-8", "deep"],
)
def test_a_damaged_file_costs_that_shard_its_session_alone(
    gateway: LocalGateway, directory: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
    file_of(directory, 1).write_bytes(text)
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
        assert identified(gateway)[4:] == [1]
    assert len(saved(directory)) == 4
    assert "shard 1 of 4 begins a new session" in caplog.text


def test_a_file_of_another_shard_or_shard_count_is_not_used(
    gateway: LocalGateway, directory: Path
) -> None:
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
    os.replace(file_of(directory, 3), file_of(directory, 1))
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
        assert sorted(identified(gateway)[4:]) == [1, 3]
    with make_manager(gateway, sessions=directory, shard_count=3) as manager:
        connect(manager)
        assert sorted(identified(gateway)[6:]) == [0, 1, 2]
    assert len(saved(directory)) == 4


def test_a_session_that_the_gateway_has_lost_is_replaced_in_the_directory(
    gateway: LocalGateway, directory: Path
) -> None:
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
        wait_until(lambda: len(saved(directory)) == 4)
        before = saved(directory)[2].session_id
        close_shard(gateway, 2, 4007)  # after which a shard begins a new session
        wait_until(lambda: len(gateway.identifies) == 5)
        manager.wait_until_ready(20)
        after = manager.shards[2].session_id
        assert after != before
        wait_until(lambda: after in [each.session_id for each in saved(directory).values()])


def test_close_without_keeping_sessions_deletes_the_files_of_these_shards(
    gateway: LocalGateway, directory: Path
) -> None:
    directory.mkdir(parents=True)
    others = [directory / "shard-0-of-8.json", directory / "notes.txt"]
    for path in others:
        path.write_text("{}")
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
        wait_until(lambda: len(saved(directory)) == 4)
        manager.close(keep_sessions=False)
    assert sorted(directory.iterdir()) == sorted(others)


def test_disconnect_with_1000_deletes_them_too(gateway: LocalGateway, directory: Path) -> None:
    manager = connect(make_manager(gateway, sessions=directory))
    manager.disconnect(1000)
    assert saved(directory) == {}


def test_a_shard_that_an_error_has_closed_keeps_the_files_of_the_others(
    gateway: LocalGateway, directory: Path
) -> None:
    manager = connect(make_manager(gateway, sessions=directory))
    close_shard(gateway, 1, 4014)
    with pytest.raises(ShardClosed):
        manager.join(10)
    assert {0, 2, 3} <= set(saved(directory))


def test_a_directory_that_cannot_be_used_is_told_before_anything_begins(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("")
    manager = make_manager(gateway, sessions=path)
    for method in (manager.connect, manager.start, manager.run_forever):
        with pytest.raises(OSError, match="give sessions= a directory"):
            method()
    assert gateway.all_connections == []


def test_a_directory_that_vanishes_while_the_manager_runs_ends_nothing(
    gateway: LocalGateway,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("shardlib.supervisor.SAVE_INTERVAL", 0.05)
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
        wait_until(lambda: len(saved(directory)) == 4)
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        dispatch(gateway, 0, 0)
        wait_until(lambda: "cannot save the session of shard 0 of 4" in caplog.text)
        assert "4 ready" in repr(manager)


def test_the_sessions_of_a_part_of_the_shards_are_theirs(
    gateway: LocalGateway, directory: Path
) -> None:
    """Two processes may have one directory, if no shard runs in both."""
    options: dict[str, Any] = {"shard_count": 4, "sessions": directory}
    with make_manager(gateway, **options, shard_ids=[0, 1]) as one:
        with make_manager(gateway, **options, shard_ids=[2, 3]) as other:
            connect(one)
            connect(other)
            wait_until(lambda: len(saved(directory)) == 4)
            one.close(keep_sessions=False)
            assert set(saved(directory)) == {2, 3}
    with make_manager(gateway, **options) as manager:
        connect(manager)
        assert sorted(identified(gateway)[4:]) == [0, 1]


def test_an_event_whose_callback_has_not_returned_is_not_saved_as_seen(
    gateway: LocalGateway, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardlib.supervisor.SAVE_INTERVAL", 0.05)
    inside, release = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        inside.set()
        release.wait(20)

    with make_manager(gateway, sessions=directory) as manager:
        manager.on("TYPING_START", hold)
        connect(manager)
        before = manager.shards[0].last_sequence
        dispatch(gateway, 0, 0)
        assert inside.wait(10)
        dispatch(gateway, 1, 0)
        wait_until(lambda: saved(directory)[1].sequence is not None)
        time.sleep(0.15)  # three times in which a session is saved
        assert saved(directory)[0].sequence == before
        release.set()
        wait_until(lambda: saved(directory)[0].sequence == manager.shards[0].last_sequence)


@pytest.mark.parametrize("method", ["start", "connect"])
def test_sessions_whose_gateway_is_gone_do_not_keep_a_shard_from_a_new_one(
    gateway: LocalGateway, directory: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    make_retries_quick(monkeypatch)
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
    for shard_id in range(4):
        path = file_of(directory, shard_id)
        content = json.loads(path.read_text())
        content["resume_gateway_url"] = "ws://127.0.0.1:1"
        path.write_text(json.dumps(content))
    with make_manager(gateway, sessions=directory) as manager:
        getattr(manager, method)()
        manager.wait_until_ready(20)


def test_connect_raises_if_both_the_sessions_gateway_and_its_own_are_gone(
    gateway: LocalGateway, directory: Path
) -> None:
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
    gateway.stop()
    with pytest.raises(ConnectionFailed):
        make_manager(gateway, sessions=directory).connect()
    assert len(os.listdir(directory)) == 4


def test_no_file_holds_the_token(gateway: LocalGateway, directory: Path) -> None:
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
    assert not [path for path in directory.iterdir() if gateway.token in path.read_text()]
