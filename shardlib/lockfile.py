"""LockFile: a file that one process at a time has locked, until that process ends.

The system keeps the lock for the process, not for the program: it unlocks the file when the process
ends, however that ends. A process that is forked has none of its parent's locks.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

_LOCKED_BY_ANOTHER = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)

_ADVICE = (
    "give one_process() a file that this process may create and write, on a disk of this machine "
    "and in a directory that lasts as long as the server, such as /run/mybot or /var/lib/mybot"
)

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # Not flock(): a forked process would have that lock, too, and keep it alive.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class LockFile:
    """One process's hold on a lock file. It opens the file, and locks nothing yet.

    POSIX has one trap: closing *any* descriptor of the file unlocks it for the whole process. So a
    process must not open the file twice, and the owner calls :meth:`acquire` again now and then,
    which takes the lock back. No method blocks, but for the time that the disk takes; one thread at
    a time calls them.

    :param path: of the file, which is created if it is not there.
    :raises OSError: if the file cannot be opened, or is a directory, a device or the like.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # the program may change its directory
        self._descriptor = self._open()
        self._locked = False

    def _open(self) -> int:
        try:
            # Python's descriptors end with exec(). The mode keeps other users from locking it.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}; {_ADVICE}", self.path) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, f"it is no regular file; {_ADVICE}", self.path)
        return descriptor

    def is_file(self, path: str) -> bool:
        """True if a path leads to this file, by whatever name. Opens nothing."""
        if os.path.abspath(path) == self.path:
            return True
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._descriptor))
        except OSError:
            return False

    def acquire(self) -> bool:
        """Take the lock, or make sure that this process still has it.

        :returns: False if another process has it.
        :raises OSError: if the system cannot tell, since there are no locks on that disk, or the
            file was deleted and cannot be created again.
        """
        if not self._is_at_path():
            # The file was deleted. Another process would lock the one that it creates.
            descriptor = self._open()
            os.close(self._descriptor)
            self._descriptor = descriptor
            self._locked = False
        if sys.platform == "win32" and self._locked:
            return True  # Windows locks a file once, and only close() unlocks it
        try:
            _lock(self._descriptor)
        except OSError as error:
            self._locked = False
            if error.errno in _LOCKED_BY_ANOTHER:
                return False
            raise OSError(error.errno, f"{error.strerror}; {_ADVICE}", self.path) from error
        self._locked = True
        # If the file was deleted just before it was locked, the next call locks the new one.
        return self._is_at_path()

    def _is_at_path(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file, which unlocks it, too."""
        os.close(self._descriptor)
