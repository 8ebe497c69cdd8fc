"""ShardLocks: which shards of a directory run here, so that no other process runs them, too.

A shard that runs has a locked file, such as ``shard-3-of-16.lock``. Other than :mod:`lockfile` this
locks what was opened, not for the process: so two managers of one process exclude each other, too,
and nothing else that the process does with the file unlocks it. The system unlocks the file when
the process ends, however it ends. A forked child would keep it locked, and closes it at once.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterable

from shardlib.errors import ShardsInUse

# What a locked file says of the process that has locked it.
_OWNER = re.compile(rb"process ([0-9]{1,10}) on ([!-~]{1,255})\n", re.ASCII)
_LONGEST_OWNER = 300  # bytes

# Times in a row that a file may be deleted between the moments at which it is opened and locked.
_MOST_DELETIONS = 10

_NOT_LOCKED = (
    "the shards whose sessions are in %r run without a lock: %s. If another process runs them, "
    "too, the two will resume each other's sessions without end, and nothing keeps them from it; "
    "give sessions= a directory on a disk that has locks"
)

if sys.platform == "win32":
    import msvcrt

    # No other process may read a byte that is locked: it lies far behind the text.
    _LOCKED_BYTE = 1 << 30

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        pass  # close() does it

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        # Not close() alone: a child that was forked without Python's knowledge may have the file.
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class ShardLocks:
    """The locks of a manager's shards. Any thread; no method blocks, but while the disk works.

    Each life of the manager is a holder of its own: a call of reshard() may end later than its life
    does, and must not unlock what the next life runs.

    :param directory: where the files are, an absolute path.
    :param log: called as :meth:`logging.Logger.log` is.
    """

    def __init__(self, directory: str, log: Callable[..., object]) -> None:
        self._directory = directory
        self._log = log
        self._told = False  # that there are no locks
        # The open file of each shard, by shard_id and shard_count; None if it cannot be locked.
        self._held: dict[tuple[int, int], int | None] = {}
        self._holders: dict[tuple[int, int], set[object]] = {}  # of each of those files
        self._lock = threading.Lock()

    def are_held_by(self, holder: object) -> bool:
        """True after :meth:`acquire`, until all are released."""
        return any(holder in holders for holders in list(self._holders.values()))

    def acquire(self, holder: object, shard_ids: Iterable[int], shard_count: int) -> None:
        """Lock shards, all of them or none. Where there are no locks, the log tells so once.

        :param holder: the life of the manager that is to run them; it must be hashable.
        :param shard_ids: their numbers.
        :param shard_count: number of the bot's shards.
        :raises ShardsInUse: if another manager runs one of them.
        """
        owners: dict[int, str] = {}
        acquired: list[tuple[int, int]] = []
        with self._lock:
            try:
                for shard_id in shard_ids:
                    shard = (shard_id, shard_count)
                    if holder in self._holders.get(shard, ()):
                        continue
                    acquired.append(shard)  # first: Ctrl-C may come before the next line
                    if shard not in self._held:
                        try:
                            _take(self._path(*shard), self._held, shard)
                        except _Locked as locked:
                            owners[shard_id] = locked.owner
                            continue
                        except OSError as error:
                            self._held[shard] = None
                            self._tell(error)
                    self._holders.setdefault(shard, set()).add(holder)
                if owners:
                    raise ShardsInUse(owners, shard_count, self._directory)
            except BaseException:
                self._release(holder, acquired)
                raise

    def may_acquire(self, in_use: ShardsInUse) -> bool:
        """True if the first of the shards that were in use is not any more.

        :param in_use: as :meth:`acquire` raised it.
        """
        shard = (next(iter(in_use.owners)), in_use.shard_count)
        path = self._path(*shard)
        taken: dict[tuple[int, int], int | None] = {}
        try:
            _give_back(path, _take(path, taken, shard))
        except _Locked:
            return False
        except OSError:  # acquire() tells of it
            pass
        return True

    def release(self, holder: object, shard_count: int | None = None) -> None:
        """Unlock shards that no other holder has acquired.

        :param holder: that runs them no more.
        :param shard_count: of these; None for all.
        """
        with self._lock:
            self._release(
                holder,
                [
                    shard
                    for shard, holders in self._holders.items()
                    if holder in holders and shard_count in (None, shard[1])
                ],
            )

    def _release(self, holder: object, shards: Iterable[tuple[int, int]]) -> None:
        for shard in shards:
            holders = self._holders.get(shard, set())
            holders.discard(holder)
            if not holders:
                self._holders.pop(shard, None)
                descriptor = self._held.pop(shard, None)
                if descriptor is not None:
                    _give_back(self._path(*shard), descriptor)

    def leave_to_parent(self) -> None:
        """In a forked child: close the files, which stay locked for the parent."""
        held, self._held = self._held, {}
        self._holders = {}
        self._lock = threading.Lock()
        for descriptor in held.values():
            if descriptor is not None:
                os.close(descriptor)

    def _path(self, shard_id: int, shard_count: int) -> str:
        return os.path.join(self._directory, f"shard-{shard_id}-of-{shard_count}.lock")

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._log(logging.WARNING, _NOT_LOCKED, self._directory, error)


class _Locked(Exception):
    """A file is locked already.

    :param owner: who has locked it, in words.
    """

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


def _take(path: str, held: dict[tuple[int, int], int | None], shard: tuple[int, int]) -> int:
    """Open and lock a file, which is created if it is not there.

    :param held: gets its descriptor, here: Ctrl-C may come before the caller does anything.
    :param shard: whose file it is.
    :returns: its descriptor.
    :raises _Locked: if it is locked already.
    :raises OSError: if it cannot be locked.
    """
    for _ in range(_MOST_DELETIONS):
        descriptor = _open(path)
        try:
            if not _lock(descriptor):
                raise _Locked(_owner(descriptor))
            if _is_at(path, descriptor):
                _sign(descriptor)
                held[shard] = descriptor
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # who had it locked has deleted it meanwhile
    raise OSError(errno.EAGAIN, "it was deleted again and again", path)


def _open(path: str) -> int:
    """Open a file, without waiting for the other end of a FIFO."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o600)  # the mode keeps other users from locking it
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _give_back(path: str, descriptor: int) -> None:
    """Delete a file that is locked here, unless another one is there now, and unlock it."""
    with contextlib.suppress(OSError):  # Windows deletes no open file
        if _is_at(path, descriptor):
            os.unlink(path)
    with contextlib.suppress(OSError):
        _unlock(descriptor)
    with contextlib.suppress(OSError):  # a network disk may tell only now that it is full
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    """Write into a file which process has locked it, if the disk has room."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _owner(descriptor: int) -> str:
    """Which process has locked a file, as that has written."""
    text = b""
    with contextlib.suppress(OSError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        text = os.read(descriptor, _LONGEST_OWNER)
    return text.decode().rstrip() if _OWNER.fullmatch(text) else "another process"
