"""ShardLocks: which shards run here, so that no other manager runs them, too."""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardlib import ShardsInUse
from shardlib.shardlocks import ShardLocks
from tests.support import in_background, wait_until

on_posix = pytest.mark.skipif(os.name != "posix", reason="the system has other kinds of files")

HERE = f"process {os.getpid()} on {socket.gethostname()}"

LIFE = object()

_TAKE = """
import sys
from shardlib.shardlocks import ShardLocks
locks = ShardLocks(sys.argv[1], print)
locks.acquire(object(), map(int, sys.argv[3:]), int(sys.argv[2]))
print("has them", flush=True)
sys.stdin.read()
"""


class Log:
    """What locks have told."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def __call__(self, level: int, message: str, *arguments: object) -> None:
        self.lines.append((level, message % arguments))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def locks(tmp_path: Path, log: Log) -> Iterator[ShardLocks]:
    locks = ShardLocks(str(tmp_path), log)
    yield locks
    locks.release(LIFE)


@pytest.fixture
def others(tmp_path: Path, log: Log) -> Iterator[ShardLocks]:
    """Of another manager in this process."""
    others = ShardLocks(str(tmp_path), log)
    yield others
    others.release(LIFE)


@contextlib.contextmanager
def other_process(directory: Path, *shard_ids: int) -> Iterator[subprocess.Popen[str]]:
    """A process that has locked shards of 4, until it gets no more input."""
    arguments = [sys.executable, "-c", _TAKE, str(directory), "4", *map(str, shard_ids)]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "has them\n"
        yield process
        process.stdin.close()


def refused(locks: ShardLocks, *shard_ids: int) -> ShardsInUse:
    with pytest.raises(ShardsInUse) as caught:
        locks.acquire(LIFE, shard_ids, 4)
    return caught.value


def test_shards_that_another_process_runs_are_refused_with_its_number(
    locks: ShardLocks, tmp_path: Path
) -> None:
    with other_process(tmp_path, 1, 2) as process:
        error = refused(locks, 0, 1, 2, 3)
        other = f"process {process.pid} on {socket.gethostname()}"
        assert error.owners == {1: other, 2: other}
        assert (error.shard_count, error.directory) == (4, str(tmp_path))
        assert str(error).startswith(
            f"shards 1, 2 of 4 are running already, in {other}, with the same directory of "
            f"sessions, {str(tmp_path)!r}. Close that manager, or end that process"
        )
        assert not locks.are_held_by(LIFE)
        assert not locks.may_acquire(error)
    assert locks.may_acquire(error)
    locks.acquire(LIFE, range(4), 4)
    assert locks.are_held_by(LIFE)


def test_locks_that_were_refused_keep_no_other_manager_out(
    locks: ShardLocks, others: ShardLocks, tmp_path: Path
) -> None:
    with other_process(tmp_path, 3):
        refused(locks, 0, 1, 2, 3)
        others.acquire(LIFE, [0, 1, 2], 4)


def test_other_shards_and_other_counts_are_free(
    locks: ShardLocks, others: ShardLocks, tmp_path: Path
) -> None:
    with other_process(tmp_path, 0, 1):
        locks.acquire(LIFE, [2, 3], 4)
        others.acquire(LIFE, [0, 1], 2)


def test_a_process_that_is_killed_leaves_no_lock(locks: ShardLocks, tmp_path: Path) -> None:
    with other_process(tmp_path, 0) as process:
        error = refused(locks, 0)
        process.kill()
        wait_until(lambda: locks.may_acquire(error))
        locks.acquire(LIFE, [0], 4)


def test_two_managers_of_one_process_exclude_each_other(
    locks: ShardLocks, others: ShardLocks
) -> None:
    locks.acquire(LIFE, [0, 1], 4)
    error = refused(others, 1, 2)
    assert error.owners == {1: HERE}
    assert str(error).startswith(f"shard 1 of 4 is running already, in {HERE}, with")
    locks.acquire(LIFE, [0, 1], 4)  # its own it has
    locks.release(LIFE)
    others.acquire(LIFE, [1, 2], 4)


@on_posix
def test_nothing_else_that_opens_and_closes_the_file_unlocks_it(
    locks: ShardLocks, tmp_path: Path
) -> None:
    locks.acquire(LIFE, [0], 4)
    (tmp_path / "shard-0-of-4.lock").read_bytes()
    taking = subprocess.run(
        [sys.executable, "-c", _TAKE, str(tmp_path), "4", "0"], capture_output=True, text=True
    )
    assert f"shard 0 of 4 is running already, in {HERE}" in taking.stderr


@on_posix
def test_released_locks_leave_no_file(locks: ShardLocks, tmp_path: Path) -> None:
    locks.acquire(LIFE, [0, 1], 4)
    locks.acquire(LIFE, [0], 2)
    locks.release(LIFE, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0-of-2.lock"]
    assert locks.are_held_by(LIFE)
    locks.release(LIFE)
    assert list(tmp_path.iterdir()) == []
    assert not locks.are_held_by(LIFE)


def test_a_shard_that_two_lives_have_acquired_is_locked_until_both_release_it(
    locks: ShardLocks, others: ShardLocks
) -> None:
    other_life = object()
    locks.acquire(LIFE, [0], 4)
    locks.acquire(other_life, [0, 1], 4)
    locks.release(LIFE)
    assert locks.are_held_by(other_life) and not locks.are_held_by(LIFE)
    refused(others, 0)
    locks.release(other_life, 4)
    others.acquire(LIFE, [0, 1], 4)


@on_posix
def test_the_files_are_for_their_owner_alone(locks: ShardLocks, tmp_path: Path) -> None:
    locks.acquire(LIFE, [0], 4)
    assert (tmp_path / "shard-0-of-4.lock").stat().st_mode & 0o77 == 0


@on_posix
def test_a_file_that_was_deleted_and_locked_elsewhere_stays_there(
    locks: ShardLocks, others: ShardLocks, tmp_path: Path
) -> None:
    locks.acquire(LIFE, [0], 4)
    (tmp_path / "shard-0-of-4.lock").unlink()
    others.acquire(LIFE, [0], 4)
    locks.release(LIFE)
    refused(locks, 0)


@on_posix
def test_managers_that_come_and_go_never_have_a_shard_at_the_same_time(tmp_path: Path) -> None:
    """The file is deleted between the moments at which another one opens and locks it."""
    inside = threading.Lock()

    def come_and_go() -> int:
        locks = ShardLocks(str(tmp_path), print)
        turns = 0
        while turns < 200:
            with contextlib.suppress(ShardsInUse):
                locks.acquire(LIFE, [0], 4)
                assert inside.acquire(blocking=False)
                time.sleep(0.0005)  # for the others to try
                inside.release()
                locks.release(LIFE)
                turns += 1
        return turns

    for outcome in [in_background(come_and_go) for _ in range(3)]:
        assert outcome.result(120) == 200


@on_posix
@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b"process 1 on a\x1b[2J\n", b"x" * 100_000, b"process 1 on \n"]
)
def test_whatever_a_locked_file_says_the_shards_are_refused(
    locks: ShardLocks, others: ShardLocks, tmp_path: Path, text: bytes
) -> None:
    others.acquire(LIFE, [0], 4)
    (tmp_path / "shard-0-of-4.lock").write_bytes(text)
    assert refused(locks, 0).owners == {0: "another process"}


@on_posix
def test_a_text_that_is_no_lock_locks_nothing(locks: ShardLocks, tmp_path: Path) -> None:
    """It was left by a process that was killed, say."""
    path = tmp_path / "shard-0-of-4.lock"
    path.write_text("process 1 on some-machine-with-a-long-name\n")
    locks.acquire(LIFE, [0], 4)
    assert path.read_text() == f"{HERE}\n"


@on_posix
@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "nowhere"])
def test_a_file_that_cannot_be_locked_is_told_once_and_never_waited_for(
    locks: ShardLocks, log: Log, tmp_path: Path, kind: str
) -> None:
    for shard_id in (0, 1):
        path = tmp_path / f"shard-{shard_id}-of-4.lock"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        else:
            path.symlink_to("/dev/null" if kind == "device" else tmp_path / "missing" / "file")
    locks.acquire(LIFE, [0, 1, 2], 4)
    assert locks.are_held_by(LIFE)
    ((level, line),) = log.lines
    assert level == logging.WARNING
    assert line.startswith(f"the shards whose sessions are in {str(tmp_path)!r} run without a lock")
    assert "give sessions= a directory on a disk that has locks" in line
    locks.release(LIFE)
    assert not locks.are_held_by(LIFE)


def test_a_disk_without_locks_is_told_once(
    locks: ShardLocks, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("shardlib.shardlocks._lock", refuse)
    locks.acquire(LIFE, range(4), 4)
    locks.release(LIFE)
    locks.acquire(LIFE, range(4), 4)
    ((_, line),) = log.lines
    assert "Operation not supported" in line


def test_a_disk_that_fails_at_the_close_of_a_file_keeps_no_other_file_locked(
    locks: ShardLocks, others: ShardLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What raises here would also keep reshard() waiting, whose main thread awaits the release."""
    close = os.close

    def fail(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    locks.acquire(LIFE, range(3), 3)
    monkeypatch.setattr("shardlib.shardlocks.os.close", fail)
    locks.release(LIFE)
    monkeypatch.undo()
    others.acquire(LIFE, range(3), 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_neither_unlocks_the_file_nor_keeps_it_locked(
    locks: ShardLocks, others: ShardLocks
) -> None:
    locks.acquire(LIFE, [0], 4)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            locks.leave_to_parent()
            locks.release(LIFE)
            os.write(writer, b"left")
        finally:
            signal.pause()
            os._exit(1)
    try:
        assert os.read(reader, 10) == b"left"
        error = refused(others, 0)
        locks.release(LIFE)
        assert others.may_acquire(error)
        others.acquire(LIFE, [0], 4)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def test_the_error_survives_copying_and_pickling() -> None:
    error = ShardsInUse({3: "another process", 0: "process 1 on a"}, 4, "bot\n")
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (again.owners, str(again)) == (error.owners, str(error))
    assert list(error.owners) == [0, 3]
    assert "running already, in process 1 on a and another process, with" in str(error)
    assert str(error).isprintable()
    many = ShardsInUse(dict.fromkeys(range(64), "another process"), 64, "bot")
    assert "shards 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 54 more of 64 are" in str(many)
