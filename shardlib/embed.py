"""one_process(): of the worker processes of a server, exactly one runs the shard.

gunicorn, uWSGI and other pre-forking servers run a program in several processes, and a bot's shard
must be connected in one of them. The processes that call :func:`one_process` compete for the lock
of one file, and the one that gets it runs the shard. The system unlocks the file when that process
ends, even by SIGKILL, and another process goes on with the saved session.
"""

from __future__ import annotations

import os
import sys

from shardlib import candidate
from shardlib.candidate import Candidate, Role, StartFunction
from shardlib.checks import check_callback
from shardlib.errors import ShardError
from shardlib.shard import Shard


def one_process(
    path: str | os.PathLike[str],
    start: StartFunction,
    *,
    session: str | os.PathLike[str] | None = None,
) -> OneProcess:
    """Run a shard in exactly one of the processes that call this with the same path.

    ::

        def start(session):
            bot = Shard(token, intents, session=session)
            bot.on("MESSAGE_CREATE", remember)
            bot.start()
            return bot

        keeper = one_process("/run/mybot/lock", start)

    Returns at once. A daemon thread waits for the lock of the file; once it has the lock, it
    calls `start`, and saves the shard's session after READY and every second in which the session
    has changed. When the process ends, however that happens, another one gets the lock within a
    second, and its `start` gets the session. If the process ends orderly, it closes the shard with
    a code that keeps the session, as :meth:`OneProcess.close` does.

    If `start` raises, the log tells why, and the process calls it again after a pause, which grows
    up to a minute. A shard that has ended for good is not started again, by this process or
    another, be it because of a fatal error, of which the log tells, or by ``disconnect()``: the
    process keeps the lock until it ends, or until :meth:`OneProcess.close`.

    A process that calls this and forks within a second is taken for the master of a server that
    loads the program before it forks (``gunicorn --preload``). The master takes no part then, and
    the processes that it forks, now and later, take its place. A process that forks later than
    that stays what it is, and the forked process takes no part. Neither does, at any time, one that
    :mod:`multiprocessing` forks. uWSGI forks unseen by Python: there, call this in a function that
    ``uwsgidecorators.postfork`` decorates, or start uWSGI with ``--lazy-apps``; give it
    ``--enable-threads`` in any case.

    :param path: of the lock file, a str or a path object, the same in all processes, on a disk of
        this machine. The file is created, and stays empty. A program that opens and closes the file
        may unlock it for a second.
    :param start: called with the saved :class:`shardlib.Session`, or None if there is none. Returns
        a new :class:`shardlib.Shard` that is connected, or about to be. It runs on the thread that
        waits for the lock, again if it has raised.
    :param session: where to save the session, a str or a path object; None for `path` with
        ``.session`` behind it. While there is no session, there is no such file.
    :returns: this process's part in it: to look at, and to close.
    :raises ValueError: if this process has called this for the same file already, and not closed
        what was returned; or if `session` is the lock file.
    :raises TypeError: if `path` or `session` is no path, or `start` cannot be called with one
        argument.
    :raises ShardError: in the master of uWSGI; the message says where to call this instead.
    :raises OSError: if the lock file can be neither opened nor created, or is no regular file.
    :raises RuntimeError: if the system has no thread to give.
    """
    if check_callback("start", start, 1) is None:
        raise TypeError("start must be a function, not None")
    lock_path = os.path.abspath(os.fsdecode(path))
    session_path = f"{lock_path}.session"
    if session is not None:
        session_path = os.path.abspath(os.fsdecode(session))
    if session_path == lock_path:
        raise ValueError(f"session must be another file than path: both are {lock_path!r}")
    _refuse_master_of_uwsgi()
    part = candidate.add(lock_path, session_path, start)
    part.begin()
    return OneProcess(part)


class OneProcess:
    """This process's part in running a shard; :func:`one_process` returns it.

    All attributes and methods may be used on any thread. The part goes on if this object is
    dropped.
    """

    def __init__(self, part: Candidate) -> None:
        self._part = part

    def __repr__(self) -> str:
        return f"<OneProcess {self.path!r}: process {os.getpid()} {self._part.role.value}>"

    @property
    def path(self) -> str:
        """The absolute path of the lock file."""
        return self._part.lock.path

    @property
    def session_path(self) -> str:
        """The absolute path of the file that the session is saved in."""
        return self._part.session_file.path

    @property
    def holds_lock(self) -> bool:
        """Whether this is the process that runs the shard, or is about to start it."""
        return self._part.role is Role.HOLDING

    @property
    def shard(self) -> Shard | None:
        """What `start` has returned in this process; None if another process has the lock.

        The shard may have ended: its ``state`` says so.
        """
        return self._part.shard

    def close(self) -> None:
        """Close the shard if it runs in this process, and take no further part.

        The shard is closed with a code that keeps its session, the session is saved, and another
        process gets the lock at once. Blocks the calling thread until then, for 5 seconds at most:
        if `start` has not returned by then, the shard is closed, and the lock handed on, when it
        does. In `start` and in a callback of the shard it returns at once. Closing twice does no
        more than closing once.
        """
        self._part.close()


def _refuse_master_of_uwsgi() -> None:
    """Refuse to run a shard in a process that is going to fork, and not by :func:`os.fork`.

    :raises ShardError: in the master of uWSGI.
    """
    uwsgi = sys.modules.get("uwsgi")  # uWSGI makes this module; it can be imported only there
    if uwsgi is not None and uwsgi.masterpid() == os.getpid():
        raise ShardError(
            "one_process() was called in the master of uWSGI, which has loaded the program before "
            "it forks; call it in a function that uwsgidecorators.postfork decorates, or start "
            "uWSGI with --lazy-apps"
        )
