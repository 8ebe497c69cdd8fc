"""The directory of a manager's sessions: when they are saved, and what is resumed from it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardlib import ConnectionFailed, Opcode, Session, ShardClosed, ShardsInUse
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
    what_is_late,
)
from tests.support import wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """For a callback that waits, whatever becomes of the test."""
    release = threading.Event()
    yield release
    release.set()


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
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                wait_until(lambda: len(saved(directory)) == 4)
            finally:
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
        # Else the sessions of the others could not be saved either, and the log tells only so many.
        wait_until(lambda: manager.stats.events["GUILD_CREATE"] == 4)
        last = {shard_id: shard.last_sequence for shard_id, shard in manager.shards.items()}
        wait_until(lambda: {key: each.sequence for key, each in saved(directory).items()} == last)
        directory.rename(directory.with_name("elsewhere"))
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
    gateway: LocalGateway,
    directory: Path,
    release: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardlib.supervisor.SAVE_INTERVAL", 0.05)
    inside = threading.Event()

    def hold(*_: Any) -> None:
        inside.set()
        release.wait(20)

    with make_manager(gateway, sessions=directory) as manager:
        manager.on("TYPING_START", hold)
        connect(manager)
        wait_until(lambda: len(saved(directory)) == 4)
        wait_until(lambda: manager.stats.events["GUILD_CREATE"] == 4)
        before = manager.shards[0].last_sequence
        dispatch(gateway, 0, 0)
        assert inside.wait(10)
        (guild_id,) = guilds_of(gateway, 1, 4)
        gateway.dispatch("GUILD_UPDATE", {"id": guild_id})
        wait_until(lambda: manager.shards[1].stats.events["GUILD_UPDATE"] == 1)
        last = manager.shards[1].last_sequence
        wait_until(lambda: saved(directory)[1].sequence == last)  # shard 0 was saved before
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


# Two managers of the same shards

OTHER = """
import contextlib, logging, os, signal, sys, threading
from shardlib import GatewayBot, IdentifyGate, ShardManager
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
manager = ShardManager(
    {token!r}, 0, 4, shard_ids={shard_ids!r}, sessions={directory!r},
    gateway_bot=GatewayBot{answer!r}, identify_gate=IdentifyGate(2, 0.001, slack=0),
    on_all_ready=lambda manager: os.write(1, b"ready\\n"),
)
signal.signal(signal.SIGTERM, lambda *_: manager.close())
{body}
"""

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(gateway: LocalGateway, directory: Path) -> Iterator[Run]:
    """Start a process with a manager; its standard output has its warnings, and "ready"."""
    with contextlib.ExitStack() as stack:

        def run(
            body: str = "manager.run_forever()", shard_ids: object = None
        ) -> subprocess.Popen[str]:
            program = OTHER.format(
                token=gateway.token,
                shard_ids=shard_ids,
                directory=str(directory),
                answer=tuple(gateway_bot(gateway)),
                body=body,
            )
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program],
                    stdout=subprocess.PIPE,
                    stdin=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield run


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def lock_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.lock"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_starts_before_the_old_one_has_ended_takes_over_with_resumes(
    gateway: LocalGateway, directory: Path, run: Run, number: int
) -> None:
    """As in an ordinary deploy."""
    old = run()
    assert line_of(old) == "ready\n"
    wait_until(lambda: len(saved(directory)) == 4)
    new = run()
    line = line_of(new)
    assert line.startswith(f"shards 0, 1, 2, 3 of 4 are running already, in process {old.pid} on ")
    assert ". This manager waits until that has ended, and tells so again in " in line
    assert len(gateway.all_connections) == 4
    old.send_signal(number)
    while (line := line_of(new)) != "ready\n":
        assert f"process {old.pid}" in line
    assert old.wait(20) in (0, -number)
    assert len(gateway.identifies) == 4
    assert opcodes(gateway, Opcode.RESUME) == 4
    assert len(gateway.connections) == 4


def test_connect_is_refused_while_another_process_runs_the_shards(
    gateway: LocalGateway, directory: Path, run: Run
) -> None:
    old = run()
    assert line_of(old) == "ready\n"
    wait_until(lambda: len(saved(directory)) == 4)
    before = saved(directory)
    manager = make_manager(gateway, sessions=directory)
    with pytest.raises(ShardsInUse, match=f"in process {old.pid} on .*Close that manager") as error:
        manager.connect()
    assert list(error.value.owners) == [0, 1, 2, 3]
    assert len(gateway.all_connections) == 4
    manager.close(keep_sessions=False)
    assert saved(directory) == before
    old.kill()
    old.wait(20)
    with manager:
        connect(manager)
        assert len(gateway.identifies) == 4


def test_different_shards_of_one_directory_run_side_by_side(
    gateway: LocalGateway, directory: Path, run: Run
) -> None:
    assert line_of(run(shard_ids=[0, 1])) == "ready\n"
    with make_manager(gateway, shard_count=4, shard_ids=[2, 3], sessions=directory) as manager:
        connect(manager)
        with pytest.raises(ShardsInUse) as error:
            make_manager(gateway, shard_count=4, shard_ids=[1, 2], sessions=directory).connect()
        assert list(error.value.owners) == [1, 2]
        assert "ready" in repr(manager)


def test_two_managers_of_one_process_cannot_run_the_same_shards(
    gateway: LocalGateway, directory: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(directory)
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
        other = make_manager(gateway, sessions=link)
        with pytest.raises(ShardsInUse, match=f"in process {os.getpid()} on "):
            other.connect()
        assert len(gateway.all_connections) == 4
        with other:
            other.start()
            wait_until(lambda: f"running already, in process {os.getpid()}" in what_is_late(other))
            manager.close()
            other.wait_until_ready(20)
            assert len(gateway.identifies) == 4
        assert lock_files(directory) == []


def test_a_manager_that_waits_for_another_one_can_be_closed_and_touches_no_session(
    gateway: LocalGateway, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = connect(make_manager(gateway, sessions=directory))
    other.close(keep_sessions=False)  # so that this one has no session any more
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
        wait_until(lambda: len(saved(directory)) == 4)
        before = saved(directory)
        other.start()
        wait_until(lambda: "This manager waits until that has ended" in caplog.text)
        other.close()
        other.join(10)
        assert saved(directory) == before
        with pytest.raises(ShardsInUse):
            other.connect()
        assert saved(directory) == before
        assert len(lock_files(directory)) == 4


def test_the_shards_are_free_when_connect_has_failed(
    gateway: LocalGateway, directory: Path
) -> None:
    manager = make_manager(gateway, sessions=directory)
    with pytest.raises(Exception, match="ws://127.0.0.1:1|refused"):
        manager.connect("ws://127.0.0.1:1")
    assert lock_files(directory) == []
    connect(make_manager(gateway, sessions=directory)).close()


def test_resharding_locks_the_new_shards_and_frees_the_old_ones(
    gateway: LocalGateway, directory: Path
) -> None:
    gateway_of_two = gateway_bot(gateway, shards=2)
    with make_manager(gateway, sessions=directory) as manager:
        connect(manager)
        with make_manager(gateway, sessions=directory, gateway_bot=gateway_of_two) as other:
            connect(other)
            with pytest.raises(ShardsInUse, match="shards 0, 1 of 2 are running already"):
                manager.reshard(2, timeout=20)
            assert "4 shards, 4 ready" in repr(manager)
            assert len(lock_files(directory)) == 6
        manager.reshard(2, timeout=20)
        assert lock_files(directory) == ["shard-0-of-2.lock", "shard-1-of-2.lock"]
        with pytest.raises(TimeoutError):
            manager.reshard(3, timeout=0)
        assert lock_files(directory) == ["shard-0-of-2.lock", "shard-1-of-2.lock"]
        connect(make_manager(gateway, sessions=directory)).close()
    assert lock_files(directory) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_does_not_keep_the_shards_of_its_parent(
    gateway: LocalGateway, directory: Path, run: Run
) -> None:
    """As the processes of a pool, which go on for a while when their parent was killed."""
    body = """
import warnings; warnings.simplefilter("ignore")
manager.connect()
manager.wait_until_ready(20)
child = os.fork()
if not child:
    os.write(1, b"%d\\n" % os.getpid())  # its copy of sys.stdout may hold "ready"
    signal.pause()
threading.Event().wait()
"""
    old = run(body)
    (child,) = map(int, re.findall(r"\d+", line_of(old) + line_of(old)))  # "ready" may stand amid
    try:
        wait_until(lambda: len(saved(directory)) == 4)
        manager = make_manager(gateway, sessions=directory)
        with pytest.raises(ShardsInUse, match=f"process {old.pid} on"):
            manager.connect()
        old.kill()
        old.wait(20)
        with manager:
            connect(manager)
            assert len(gateway.identifies) == 4
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_is_refused_the_shards_of_its_parent(directory: Path, run: Run) -> None:
    body = """
import warnings; warnings.simplefilter("ignore")
from shardlib import ShardsInUse
options = dict(
    sessions=manager._store.directory, gateway_bot=manager._gateway_bot, identify_gate=None
)
manager.connect()
manager.wait_until_ready(20)
child = os.fork()
if not child:
    try:
        ShardManager("x.y.z", 0, 4, **options).connect()
    except ShardsInUse as error:
        os.write(1, f"{error}\\n".encode())
    os._exit(0)
os.waitpid(child, 0)
threading.Event().wait()
"""
    old = run(body)
    lines = [line_of(old), line_of(old)]
    lines.remove("ready\n")
    assert f"in process {old.pid} on" in lines[0]
    assert len(lock_files(directory)) == 4


@pytest.mark.skipif(not hasattr(os, "execv"), reason="the system has no exec")
def test_a_program_that_replaces_itself_by_exec_resumes(
    gateway: LocalGateway, directory: Path, run: Run
) -> None:
    body = """
manager.start()
sys.stdin.readline()
os.execv(sys.executable, [sys.executable, "-c", *sys.orig_argv[2:]])
"""
    process = run(body)
    assert process.stdin is not None
    assert line_of(process) == "ready\n"
    wait_until(lambda: len(saved(directory)) == 4)
    process.stdin.write("\n")
    process.stdin.flush()
    assert line_of(process) == "ready\n"
    assert len(gateway.identifies) == 4
    process.stdin.close()
