"""SessionStore: the sessions of many shards in a directory, and whatever else may be there."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardlib import Session
from shardlib.failurelog import IN_FULL, FailureLog
from shardlib.sessionstore import SessionStore
from tests.support import Clock, in_background

on_posix = pytest.mark.skipif(os.name != "posix", reason="the system has other kinds of files")


class Log:
    """What a store has told."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def __call__(self, level: int, message: str, *arguments: object) -> None:
        self.lines.append((level, message % arguments))

    def take(self) -> list[tuple[int, str]]:
        """The lines since the last call."""
        lines, self.lines = self.lines, []
        return lines

    def take_one(self, level: int) -> str:
        """The only line since the last call; fail if it has another level."""
        ((found, line),) = self.take()
        assert found == level
        assert line.isprintable()
        return line


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    assert log.lines == []  # a test takes every line that it expects


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def store(directory: Path, log: Log) -> SessionStore:
    return opened(directory, log)


def opened(directory: Path, log: Log) -> SessionStore:
    store = SessionStore(directory, log)
    store.prepare()
    return store


def session_of(shard_id: int, shard_count: int = 16, **changes: Any) -> Session:
    session = Session(f"id-{shard_id}", 7, "wss://resume.example/", shard_id, shard_count)
    return dataclasses.replace(session, **changes)


def identity_of(path: Path) -> tuple[int, int]:
    """A file that was written again has another one, since it was replaced."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as if the disk was full. Root obeys, too."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# The directory


@pytest.mark.parametrize(
    ("directory", "why"),
    [
        (None, "sessions must be a str or a path object, not NoneType"),
        (5, "sessions must be a str or a path object, not int"),
        (b"sessions", "sessions must be a str or a path object, not bytes"),
    ],
)
def test_a_directory_of_another_type_is_refused(directory: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        SessionStore(directory, Log())


def test_a_log_that_cannot_be_called_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="log must be a function, not Logger"):
        SessionStore(tmp_path, logging.getLogger("shardlib"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("directory", "why"), [("", "must not be empty; '.' is"), ("a\0b", "NUL character")]
)
def test_a_name_that_no_directory_can_have_is_refused(directory: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SessionStore(directory, Log())


def test_making_a_store_touches_nothing(directory: Path) -> None:
    SessionStore(directory, Log())
    assert not directory.exists()


@on_posix
def test_prepare_makes_directories_that_only_the_owner_may_use(tmp_path: Path, log: Log) -> None:
    """Who may write there, or rename a parent, could have the token sent elsewhere."""
    previous = os.umask(0)
    try:
        opened(tmp_path / "var" / "lib" / "sessions", log)
    finally:
        os.umask(previous)
    for made in (tmp_path / "var", tmp_path / "var" / "lib", tmp_path / "var" / "lib" / "sessions"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "var" / "lib" / "sessions") == []


@on_posix
def test_prepare_leaves_a_directory_that_is_there_as_it_is(directory: Path, log: Log) -> None:
    directory.mkdir()
    directory.chmod(0o750)
    (directory / "notes.txt").write_text("mine")
    opened(directory, log)
    opened(directory, log)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o750
    assert os.listdir(directory) == ["notes.txt"]


@on_posix
def test_the_directory_may_be_a_symbolic_link(tmp_path: Path, directory: Path, log: Log) -> None:
    (tmp_path / "volume").mkdir()
    directory.symlink_to(tmp_path / "volume")
    assert opened(directory, log).save(session_of(3))
    assert os.listdir(tmp_path / "volume") == ["shard-3-of-16.json"]


def test_a_relative_directory_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path)
    store = SessionStore("sessions", log)
    monkeypatch.chdir("later")
    store.prepare()
    assert store.save(session_of(0))
    assert os.listdir(tmp_path / "sessions") == ["shard-0-of-16.json"]


@on_posix
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("file", errno.ENOTDIR),
        ("parent", errno.ENOTDIR),
        ("fifo", errno.ENOTDIR),
        ("dangling link", errno.ENOENT),
        ("endless link", errno.ELOOP),
    ],
)
def test_prepare_says_what_to_do_if_there_can_be_no_directory(
    kind: str, code: int, directory: Path, log: Log
) -> None:
    used = directory
    if kind == "dangling link":
        directory.symlink_to(directory.parent / "nothing")
    elif kind == "endless link":
        directory.symlink_to(directory)
    elif kind == "fifo":
        os.mkfifo(directory)
    else:
        directory.write_text("a file")
        used = directory / "below" / "it" if kind == "parent" else directory
    with pytest.raises(OSError, match="give sessions= a directory that this process may") as caught:
        SessionStore(used, log).prepare()
    assert str(used) in str(caught.value)
    assert caught.value.errno == code


def test_several_processes_may_prepare_one_directory_at_once(tmp_path: Path, log: Log) -> None:
    for attempt in range(20):
        deep = tmp_path / str(attempt) / "a" / "b" / "c"
        barrier = threading.Barrier(4)

        def prepare(deep: Path = deep, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(10)
            SessionStore(deep, log).prepare()

        for outcome in [in_background(prepare) for _ in range(4)]:
            outcome.result(10)


@on_posix
def test_prepare_is_not_content_with_a_directory_that_takes_no_files(log: Log) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the system has no /proc")
    with pytest.raises(OSError, match="give sessions= a directory"):
        SessionStore("/proc/self/fd", log).prepare()


# Saving and loading


def test_what_was_saved_is_loaded_by_the_next_process(
    store: SessionStore, directory: Path, log: Log
) -> None:
    sessions = {shard_id: session_of(shard_id) for shard_id in (0, 3, 15)}
    assert all(map(store.save, sessions.values()))
    assert sorted(os.listdir(directory)) == [
        "shard-0-of-16.json",
        "shard-15-of-16.json",
        "shard-3-of-16.json",
    ]
    again = SessionStore(directory, log)
    assert again.load(range(16), 16) == sessions
    assert again.load([3, 4], 16) == {3: sessions[3]}
    assert again.load((), 16) == {}


@on_posix
def test_only_the_owner_may_read_a_session(store: SessionStore, directory: Path) -> None:
    store.save(session_of(3))
    assert stat.S_IMODE((directory / "shard-3-of-16.json").stat().st_mode) == 0o600


def test_a_directory_that_is_not_there_holds_no_sessions(directory: Path, log: Log) -> None:
    assert SessionStore(directory, log).load(range(16), 16) == {}
    assert not directory.exists()


def test_a_session_is_written_only_if_it_has_changed(
    store: SessionStore, directory: Path, log: Log
) -> None:
    path = directory / "shard-3-of-16.json"
    store.save(session_of(3))
    first = identity_of(path)
    assert store.save(session_of(3))
    assert identity_of(path) == first

    loaded = SessionStore(directory, log)
    assert loaded.save(loaded.load([3], 16)[3])
    assert identity_of(path) == first

    assert store.save(session_of(3, sequence=8))
    assert identity_of(path) != first
    assert Session.load(path).sequence == 8


def test_shards_of_one_number_and_two_counts_have_files_of_their_own(store: SessionStore) -> None:
    """While a bot changes its shard count, both sets of shards run."""
    old, new = session_of(3, 8), session_of(3, 16)
    assert store.save(old) and store.save(new)
    assert store.forget(3, 8)
    assert store.load([3], 16) == {3: new}


def test_a_session_that_load_has_not_found_is_written_again(
    store: SessionStore, directory: Path
) -> None:
    store.save(session_of(3))
    (directory / "shard-3-of-16.json").unlink()
    assert store.load([3], 16) == {}
    assert store.save(session_of(3))
    assert store.load([3], 16) == {3: session_of(3)}


def test_three_hundred_sessions_are_saved_and_loaded(
    store: SessionStore, directory: Path, log: Log
) -> None:
    sessions = {shard_id: session_of(shard_id, 300) for shard_id in range(300)}
    assert all(map(store.save, sessions.values()))
    assert len(os.listdir(directory)) == 300
    assert SessionStore(directory, log).load(range(300), 300) == sessions


# Files that are no sessions of these shards


def test_sessions_of_other_counts_are_left_alone_and_told_in_one_line(
    store: SessionStore, directory: Path, log: Log
) -> None:
    for session in (*(session_of(each, 8) for each in range(3)), session_of(0, 1), session_of(5)):
        store.save(session)
    before = {path: identity_of(path) for path in directory.iterdir()}
    assert store.load(range(16), 16) == {5: session_of(5)}
    assert log.take_one(logging.INFO) == (
        f"left alone in '{directory}': 3 sessions of 8 shards, 1 session of 1 shard; a bot with 16 "
        "shards resumes only sessions of as many. Delete the files if no bot with those numbers of "
        "shards is to run again"
    )
    assert {path: identity_of(path) for path in directory.iterdir()} == before


def test_the_line_about_other_counts_stays_short(store: SessionStore, log: Log) -> None:
    for shard_count in range(1, 31):
        store.save(session_of(0, shard_count))
    store.load(range(30), 30)
    line = log.take_one(logging.INFO)
    assert line.count("1 session of ") == 5
    assert "24 sessions of yet other counts" in line


def test_other_files_and_sessions_of_other_shards_are_ignored(
    store: SessionStore, directory: Path
) -> None:
    for name in (
        "shard-3-of-16.json.bak",
        "shard-03-of-8.json",
        "shard-3-of-08.json",
        "shard-3-of-0.json",
        "shard--3-of-8.json",
        "shard-3-of-8.json\n",
        "shard-\u0663-of-8.json",
        "SHARD-3-of-8.txt",
        ".shardlib-session.x.tmp",
        "caf\u00e9",
    ):
        (directory / name).write_text("{")
    (directory / "folder").mkdir()
    store.save(session_of(9))  # another process runs this shard
    assert store.load([3], 16) == {}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no usable session: "),
        (b'{"format": "shardlib session", "vers', "holds no usable session: "),
        (b"[]", "it is not a JSON object"),
        (b"\xff\xfe", "holds no usable session: "),
        (b"\x00" * 300, "holds no usable session: "),
    ],
)
def test_a_damaged_file_is_told_left_out_and_replaced(
    content: bytes, why: str, store: SessionStore, directory: Path, log: Log
) -> None:
    store.save(session_of(2))
    store.save(session_of(3))
    (directory / "shard-3-of-16.json").write_bytes(content)
    assert store.load(range(16), 16) == {2: session_of(2)}
    line = log.take_one(logging.WARNING)
    assert line.startswith("shard 3 of 16 begins a new session, since the saved one cannot be used")
    assert f"{directory / 'shard-3-of-16.json'}' " in line and why in line
    assert store.save(session_of(3))
    assert store.load([3], 16) == {3: session_of(3)}


def test_what_stands_in_a_damaged_file_cannot_flood_or_forge_the_log(
    store: SessionStore, directory: Path, log: Log
) -> None:
    content = {**session_of(3).to_dict(), "version": "\u202e\x1b[2J\n" * 10_000}
    (directory / "shard-3-of-16.json").write_text(json.dumps(content))
    store.load([3], 16)
    assert len(log.take_one(logging.WARNING)) < 3000


@pytest.mark.parametrize("other", [session_of(4), session_of(3, 8)])
def test_the_session_of_another_shard_is_told_and_left_out(
    other: Session, store: SessionStore, directory: Path, log: Log
) -> None:
    other.save(directory / "shard-3-of-16.json")
    assert store.load(range(16), 16) == {}
    assert (
        f"shard-3-of-16.json' holds the session of shard {other.shard_id} of {other.shard_count}, "
        "whatever its name says"
    ) in log.take_one(logging.WARNING)
    assert store.save(session_of(3))
    assert store.load([3], 16) == {3: session_of(3)}


@on_posix
@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_file_is_told_and_neither_replaced_nor_deleted(
    kind: str, store: SessionStore, directory: Path, log: Log
) -> None:
    path = directory / "shard-3-of-16.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    there = stat.S_IFMT(path.stat().st_mode)
    assert store.load([3], 16) == {}
    assert "shard 3 of 16 begins a new session" in log.take_one(logging.WARNING)
    assert not store.save(session_of(3))
    assert log.take_one(logging.ERROR).startswith("cannot save the session of shard 3 of 16")
    assert not store.forget(3, 16)
    assert log.take_one(logging.ERROR).startswith("cannot delete the session of shard 3 of 16")
    assert stat.S_IFMT(path.stat().st_mode) == there


@on_posix
def test_a_symbolic_link_stays_and_its_file_comes_and_goes(
    tmp_path: Path, store: SessionStore, directory: Path
) -> None:
    link, kept = directory / "shard-3-of-16.json", tmp_path / "kept.json"
    link.symlink_to(kept)
    assert store.load([3], 16) == {}
    assert store.save(session_of(3))
    assert link.is_symlink() and Session.load(kept) == session_of(3)
    assert store.load([3], 16) == {3: session_of(3)}
    assert store.forget(3, 16)
    assert link.is_symlink() and not kept.exists()


# Forgetting


def test_a_forgotten_session_is_gone_and_may_be_saved_again(
    store: SessionStore, directory: Path
) -> None:
    store.save(session_of(3))
    store.save(session_of(4))
    assert store.forget(3, 16)
    assert os.listdir(directory) == ["shard-4-of-16.json"]
    assert store.forget(3, 16)  # nothing is there
    assert store.save(session_of(3))
    assert store.load([3], 16) == {3: session_of(3)}


def test_forgetting_in_a_directory_that_is_gone_is_no_failure(
    store: SessionStore, directory: Path
) -> None:
    directory.rmdir()
    assert store.forget(3, 16)


# A disk that fails


def test_a_failed_save_keeps_the_old_session_and_is_made_up_for(
    store: SessionStore, directory: Path, log: Log
) -> None:
    store.save(session_of(3))
    with largest_file(100):
        assert not store.save(session_of(3, sequence=8))
        line = log.take_one(logging.ERROR)
    assert line.startswith("cannot save the session of shard 3 of 16, which goes on, but would")
    assert os.strerror(errno.EFBIG) in line and "shard-3-of-16.json" in line
    assert line.endswith("on a disk that has room and outlives the process")
    assert Session.load(directory / "shard-3-of-16.json") == session_of(3)
    assert os.listdir(directory) == ["shard-3-of-16.json"]
    assert store.save(session_of(3, sequence=8))
    assert Session.load(directory / "shard-3-of-16.json").sequence == 8


def test_after_a_failed_save_the_file_is_written_even_with_the_session_before(
    store: SessionStore, directory: Path, log: Log
) -> None:
    """A file that is written in place may be left incomplete, so nothing is known of it."""
    path = directory / "shard-3-of-16.json"
    store.save(session_of(3))
    with largest_file(100):
        store.save(session_of(3, sequence=8))
        log.take_one(logging.ERROR)
    before = identity_of(path)
    assert store.save(session_of(3))
    assert identity_of(path) != before


def test_a_directory_that_became_a_file_ends_nothing(
    store: SessionStore, directory: Path, log: Log
) -> None:
    store.save(session_of(3))
    shutil.rmtree(directory)
    directory.write_text("a file")
    assert not store.save(session_of(3, sequence=8))
    assert os.strerror(errno.ENOTDIR) in log.take_one(logging.ERROR)
    assert not store.forget(3, 16)
    assert os.strerror(errno.ENOTDIR) in log.take_one(logging.ERROR)
    assert store.load(range(16), 16) == {}
    line = log.take_one(logging.WARNING)
    assert line.startswith("each shard begins a new session, since the saved ones cannot be listed")
    assert directory.read_text() == "a file"


def test_failures_are_told_in_full_and_then_a_line_a_minute(
    store: SessionStore, directory: Path, log: Log
) -> None:
    """64 shards that are saved every five seconds would fill the log, and then the disk."""
    clock = Clock()
    store._failures = FailureLog(clock)
    directory.rmdir()
    for _ in range(12):
        for shard_id in range(64):
            assert not store.save(session_of(shard_id, 64))
        clock.now += 5
    lines = log.take()
    assert len(lines) == IN_FULL
    assert not store.save(session_of(5, 64))
    line = log.take_one(logging.ERROR)
    assert line.startswith("cannot save the session of shard 5 of 64")
    assert f"the same has happened {12 * 64 - IN_FULL + 1} times more; the log tells of" in line


_ON_A_TINY_DISK = """
import json, subprocess, sys
from shardlib import Session
from shardlib.sessionstore import SessionStore

directory = sys.argv[1]
lines, done = [], []

def log(level, message, *arguments):
    lines.append(message % arguments)

subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", directory], check=True)
store = SessionStore(directory, log)
store.prepare()
for shard_id in range(3):  # each file takes a page of 4 kB
    done.append(store.save(Session("x", 1, None, shard_id, 4)))
done.append(store.forget(0, 4))
done.append(store.save(Session("x", 1, None, 2, 4)))
subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
done.append(store.save(Session("x", 2, None, 1, 4)))
done.append(store.forget(1, 4))
done.append(sorted(store.load(range(4), 4)))
try:
    store.prepare()
except OSError as error:
    lines.append(str(error))
print(json.dumps([done, lines]))
"""


def _can_mount() -> bool:
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="this process may mount nothing")
def test_a_full_disk_and_one_that_became_read_only_end_nothing(directory: Path) -> None:
    directory.mkdir()
    program = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", _ON_A_TINY_DISK, str(directory)],
        check=True,
        stdout=subprocess.PIPE,
    )
    done, (full, unwritten, undeleted, unusable) = json.loads(program.stdout)
    assert done == [True, True, False, True, True, False, False, [1, 2]]
    assert full.startswith("cannot save the session of shard 2 of 4")
    assert os.strerror(errno.ENOSPC) in full
    assert unwritten.startswith("cannot save the session of shard 1 of 4")
    assert undeleted.startswith("cannot delete the session of shard 1 of 4")
    assert all(os.strerror(errno.EROFS) in line for line in (unwritten, undeleted, unusable))
    assert "give sessions= a directory" in unusable
