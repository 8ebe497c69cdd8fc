"""The file that a session is saved in: replaced in one step if that is possible, read in bounds."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

# Bytes; a session takes some three hundred.
LARGEST_FILE = 1 << 20

# Why a file may refuse to be replaced that can be written to all the same: it is a mount point, as
# a file given to a container is, or its directory may not be changed.
_CANNOT_BE_REPLACED = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)


def write(path: str | os.PathLike[str], text: str) -> None:
    """Write a file that only its owner may read, or the file that a symbolic link names.

    :raises OSError: if it cannot be written, or is a device, a FIFO or the like.
    """
    target = os.fsdecode(os.path.realpath(path))
    data = text.encode()
    try:
        exists = _is_regular(target)
        try:
            _replace(target, data)
        except OSError as error:
            if error.errno not in _CANNOT_BE_REPLACED or not exists:
                raise
            _overwrite(target, data)
    except OSError as error:
        # It names the file, not the temporary one.
        raise OSError(error.errno, error.strerror, target) from error


def remove(path: str | os.PathLike[str]) -> None:
    """Delete a file, or the file that a symbolic link names; the link stays, for the next session.

    :raises OSError: if the file cannot be deleted, or is a device, a FIFO or the like.
    """
    target = os.fsdecode(os.path.realpath(path))
    try:
        if _is_regular(target):
            os.unlink(target)
    except FileNotFoundError:  # another process was faster
        pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from error


def _is_regular(target: str) -> bool:
    """True for a regular file, False if there is nothing.

    :raises OSError: if there is something else, which replacing would destroy.
    """
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return True


def _replace(target: str, data: bytes) -> None:
    import tempfile  # here, since few programs save a session, and it takes a while to import

    # mkstemp creates the file with mode 0600; replacing works only within one file system, hence
    # the same directory.
    descriptor, temporary = tempfile.mkstemp(
        prefix=".shardlib-session.", suffix=".tmp", dir=os.path.dirname(target)
    )
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # Ctrl-C came just after the replacing
            os.unlink(temporary)
        raise


def _overwrite(target: str, data: bytes) -> None:
    with open(target, "r+b") as file:
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def read(path: str | os.PathLike[str]) -> bytes:
    """Read a file.

    :raises ValueError: if it is no regular file, or larger than a session's can be.
    :raises OSError: if it cannot be read.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"it is larger than {LARGEST_FILE} bytes")
    return data


def _open_at_once(path: str, flags: int) -> int:
    # Opening a FIFO would block until another process writes into it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
