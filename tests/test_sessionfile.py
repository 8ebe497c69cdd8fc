"""Session files: links, mount points, devices, and files that are too large."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shardlib import Session, sessionfile
from shardlib.sessionfile import LARGEST_FILE

OLD = Session("old", 1, None, 0, 1)
NEW = Session("new", 5, None, 0, 1)

on_posix = pytest.mark.skipif(os.name != "posix", reason="the system has other kinds of files")

# Binds the first file over the second one, in mounts of its own, and saves into that.
_SAVE_INTO_A_MOUNT = """
import subprocess, sys
from shardlib import Session
kept, mounted = sys.argv[1:]
subprocess.run(["mount", "--bind", kept, mounted], check=True)
Session("new", 5, None, 0, 1).save(mounted)
"""


def _can_mount() -> bool:
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@on_posix
def test_the_file_behind_a_symbolic_link_is_replaced_and_not_the_link(tmp_path: Path) -> None:
    """Row 80: the link may lead to a volume that outlives a container."""
    (tmp_path / "volume").mkdir()
    kept, link = tmp_path / "volume" / "session.json", tmp_path / "session.json"
    OLD.save(kept)
    link.symlink_to(kept)

    NEW.save(link)

    assert link.is_symlink()
    assert Session.load(kept) == NEW
    assert os.listdir(kept.parent) == ["session.json"]


@on_posix
def test_a_link_to_a_file_that_is_not_there_yet_makes_it(tmp_path: Path) -> None:
    link = tmp_path / "session.json"
    link.symlink_to(tmp_path / "kept.json")
    NEW.save(link)
    assert link.is_symlink()
    assert Session.load(tmp_path / "kept.json") == NEW


@pytest.mark.skipif(not _can_mount(), reason="this process may mount nothing")
def test_a_file_that_is_a_mount_point_is_written_in_place(tmp_path: Path) -> None:
    """Row 80: a single file given to a container can be written, but not replaced."""
    kept, mounted = tmp_path / "kept.json", tmp_path / "mounted.json"
    OLD.save(kept)
    kept.write_text(kept.read_text() + " " * 100)  # longer than what follows
    mounted.touch()
    subprocess.run(
        ["unshare", "-m", sys.executable, "-c", _SAVE_INTO_A_MOUNT, str(kept), str(mounted)],
        check=True,
    )
    assert Session.load(kept) == NEW
    assert sorted(os.listdir(tmp_path)) == ["kept.json", "mounted.json"]


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="root may write into every directory"
)
def test_a_file_in_a_directory_that_may_not_be_changed_is_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    OLD.save(path)
    tmp_path.chmod(0o500)
    try:
        NEW.save(path)
    finally:
        tmp_path.chmod(0o700)
    assert Session.load(path) == NEW


@on_posix
def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    """Row 80: opening it would wait for a writer."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="fifo' holds no usable session: it is no regular file"):
        Session.load(tmp_path / "fifo")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no /dev/zero")
def test_a_device_is_refused_unread() -> None:
    with pytest.raises(ValueError, match="it is no regular file"):
        Session.load("/dev/zero")


def test_a_file_larger_than_any_session_is_refused_after_a_part_of_it(tmp_path: Path) -> None:
    """Row 80: its three gigabytes would not fit into memory."""
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        file.truncate(3 << 30)  # a hole: it takes no room on the disk
    with pytest.raises(ValueError, match=f"it is larger than {LARGEST_FILE} bytes"):
        Session.load(path)


def test_the_largest_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * LARGEST_FILE)
    assert len(sessionfile.read(path)) == LARGEST_FILE


@on_posix
def test_saving_takes_names_as_long_as_the_system_does_and_bytes(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 255), os.fsencode(tmp_path / "bytes")):
        NEW.save(path)  # type: ignore[arg-type]
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@on_posix
def test_a_fifo_is_not_replaced_by_a_session(tmp_path: Path) -> None:
    """Nor would /dev/null be, if root saves a session there."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is no regular file: .*fifo"):
        NEW.save(path)
    assert stat.S_ISFIFO(os.stat(path).st_mode)


@on_posix
def test_links_that_lead_to_each_other_are_an_error(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(OSError, match="one|other"):
        NEW.save(one)
    assert one.is_symlink() and other.is_symlink()


@on_posix
def test_an_error_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "missing" / "session.json")
    with pytest.raises(FileNotFoundError, match="missing/session.json"):
        NEW.save(link)
