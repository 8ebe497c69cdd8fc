"""Candidate: one process's part in running a shard that one of several processes is to run.

Each candidate has a thread, which waits for the lock of a file. If it has the lock, it starts the
shard, saves the session, and watches over both. The threads of users ask it to end, and read.
"""

from __future__ import annotations

import enum
import logging
import os
import sys
import threading
from collections.abc import Callable

from shardlib.backoff import Backoff
from shardlib.deadline import Deadline
from shardlib.errors import ShardClosed, ShardError
from shardlib.gateway import RESUMABLE_CLOSE_CODE
from shardlib.interrupts import run_at_exit
from shardlib.lockfile import LockFile
from shardlib.session import Session
from shardlib.shard import Shard
from shardlib.state import ShardState
from shardlib.waiting import Alarm, Waiters

StartFunction = Callable[[Session | None], Shard]

# Seconds before a process first tries the lock. A server that loads the program before it forks
# forks meanwhile, and then the forked processes are the candidates instead.
SETTLING_TIME = 1.0

# Seconds between two looks: of a waiting process at the lock; of the process that runs the shard at
# the lock, the session, and whether the shard has ended.
LOCK_INTERVAL = 0.5
WATCH_INTERVAL = 1.0

# Seconds that close() waits for the shard to be closed, and for the user's start() to return.
CLOSE_TIMEOUT = 5.0

_ENDED = (ShardState.DISCONNECTED, ShardState.CLOSED)

_logger = logging.getLogger("shardlib.embed")


class Role(enum.Enum):
    """What a process is to a lock file, in words that follow "this process"."""

    SETTLING = "is about to wait for the lock"
    WAITING = "waits for the lock"
    HOLDING = "has the lock"
    LEFT = "leaves the lock to the processes forked from it"
    PARENTS = "leaves the lock to its parent process"
    CLOSED = "is closed"


class Candidate:
    """One process's part in running a shard.

    The candidate's thread alone locks, calls `start`, saves the session and closes the shard. Other
    threads ask it to end, or read.

    :param lock: the file whose lock decides; the candidate closes it.
    :param session_path: of the file that the session is saved in.
    :param start: the user's function.
    """

    def __init__(self, lock: LockFile, session_path: str, start: StartFunction) -> None:
        self.lock = lock
        self.session_file = SessionFile(session_path)
        self.shard: Shard | None = None
        self._start_shard = start
        self._prepare()

    def _prepare(self) -> None:
        """Make what a process must not share with the one that it was forked from."""
        self.role = Role.SETTLING
        self._closing = False
        self._ended = False
        self._alarm = Alarm()  # wakes the thread
        self._waiters = Waiters()  # the threads that wait for the end of the thread
        # Guards nothing: it is taken once and never released, by the candidate's thread as it
        # begins to wait for the file, or by a thread that forks before that. So either the process
        # or its children are candidates, never both.
        self._settled = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="shardlib-one-process", daemon=True)
        self._is_greenlet = _has_gevent_patched()
        self._troubles = Troubles()

    # Any thread

    def begin(self) -> None:
        """Start the thread.

        :raises RuntimeError: if the system has no thread to give.
        """
        try:
            self._thread.start()
        except RuntimeError:
            self._finish()
            raise

    def request_close(self) -> None:
        """Ask the thread to close the shard and to end."""
        self._closing = True
        self._alarm.ring()
        if self.role is Role.LEFT:  # the thread has ended
            self._finish()

    def close(self) -> None:
        """:meth:`request_close`, and wait until it is done, unless that would come after the call.

        Blocks for CLOSE_TIMEOUT at most.
        """
        self.request_close()
        shard, thread = self.shard, threading.current_thread()
        if thread is self._thread or (shard is not None and shard.socket_thread is thread):
            return
        deadline = Deadline(CLOSE_TIMEOUT)
        if self._waiters.wait(lambda: self._ended, deadline) and self._thread.ident is not None:
            self._thread.join(deadline.remaining())  # past its last line

    # The candidate's thread

    def _run(self) -> None:
        try:
            if self._settle():
                self._refuse_late_gevent()
                while not self._closing:
                    if self._acquire():
                        self._hold()
                    else:
                        self._alarm.wait(LOCK_INTERVAL)
        except BaseException as error:
            _logger.critical(
                "process %d is no candidate for %s any more: %r",
                *(os.getpid(), self.lock.path, error),
                exc_info=True,
            )
        finally:
            with _registry_lock:
                left = self.role is Role.LEFT
            if not left:
                self._finish()

    def _settle(self) -> bool:
        """Give the process time to fork.

        :returns: False if it has forked, or close() was called.
        """
        self._alarm.wait(SETTLING_TIME)
        if self._closing or not self._settled.acquire(blocking=False):
            return False
        self.role = Role.WAITING
        return True

    def _refuse_late_gevent(self) -> None:
        """Refuse to start a shard on a thread that gevent should have replaced.

        :raises ShardError: if gevent has patched the process since the thread was started. The
            shard's threads would be greenlets of that thread, which does not run them.
        """
        if _has_gevent_patched() != self._is_greenlet:
            raise ShardError(
                "gevent has patched the process after one_process() was called, or after the "
                "server has forked; call one_process() when it has: with gunicorn's gevent workers "
                "and --preload in the hook post_worker_init"
            )

    def _acquire(self) -> bool:
        """Take the lock, or keep it.

        :returns: False if another process has it, or this one cannot tell and had it not before.
        """
        try:
            acquired = self.lock.acquire()
        except OSError as error:
            self._troubles.tell("lock", f"cannot lock the file that decides who runs it: {error}")
            return self.role is Role.HOLDING
        self._troubles.forget("lock")
        return acquired

    def _hold(self) -> None:
        """Start the shard, and watch over it until close() or the loss of the lock."""
        _logger.info("process %d has locked %s, and runs the shard", os.getpid(), self.lock.path)
        self.role = Role.HOLDING
        shard = None
        holding = True
        try:
            shard = self.shard = self._started_shard()
            if shard is not None:
                shard.on("READY", self._on_ready)
            while not self._closing and (holding := self._acquire()):
                if shard is not None:
                    self.session_file.mirror(shard.session, self._troubles)
                    self._tell_end(shard)
                self._alarm.wait(WATCH_INTERVAL)
        finally:
            if shard is not None:
                shard.off("READY", self._on_ready)
                shard.disconnect(RESUMABLE_CLOSE_CODE)
                if holding:
                    self.session_file.mirror(shard.session, self._troubles)
            self.shard = None
            self.role = Role.WAITING
        if not holding:
            _logger.error(
                "process %d has closed its shard, since another process has locked %s meanwhile: "
                "the file was deleted, or opened and closed in this process",
                *(os.getpid(), self.lock.path),
            )

    def _started_shard(self) -> Shard | None:
        """Call the user's function until it returns a shard.

        :returns: the shard; None if there will be none.
        """
        session = self.session_file.load(self._troubles)
        backoff = Backoff()
        self._alarm.wait(backoff.next_delay())
        while not self._closing and self._acquire():
            try:
                shard: object = self._start_shard(session)
            except ShardClosed as error:
                self._tell_fatal(error)
                return None
            except (Exception, SystemExit) as error:
                delay = backoff.next_delay()
                _logger.error(
                    "start() failed in process %d, which calls it again in %.1f seconds: %r",
                    *(os.getpid(), delay, error),
                    exc_info=not isinstance(error, ShardError),
                )
                if isinstance(error, ValueError):
                    session = None  # it may be one of another shard: the bot may have changed
                self._alarm.wait(delay)
                continue
            if isinstance(shard, Shard):
                return shard
            # A shard may be running all the same; so start() is not called again.
            _logger.error(
                "start() must return its Shard, and has returned %r: process %d can neither save "
                "the session nor close the shard. Return the Shard, and restart the server",
                *(shard, os.getpid()),
            )
            return None
        return None

    def _on_ready(self, shard: Shard, data: object) -> None:
        self._alarm.ring()  # the thread saves the session now

    def _tell_end(self, shard: Shard) -> None:
        """Tell once that the shard has ended, and why."""
        if shard.state not in _ENDED:
            self._troubles.forget("end")
            return
        if self._troubles.is_told("end"):
            return
        try:
            shard.join(0)
        except TimeoutError:  # start() returns before its state changes, and it has changed now
            return
        except BaseException as error:  # SystemExit, too, if a callback has raised it
            self._tell_fatal(error)
            return
        if shard.state is ShardState.DISCONNECTED:
            text = "start() has returned a shard that it has not connected"
        else:
            text = "the shard was closed by disconnect(), and no process starts it again"
        self._troubles.tell("end", f"{text}; close() hands it on to another process")

    def _tell_fatal(self, error: BaseException) -> None:
        self._troubles.tell(
            "end",
            f"the shard has ended for good: {error} ({type(error).__name__}). No process starts it "
            "again while this one runs: mend the cause, and restart the server",
        )

    def _finish(self) -> None:
        """Unlock the file, and be a candidate no more."""
        with _registry_lock:
            if self._ended:
                return
            self.role = Role.CLOSED
            _candidates.remove(self)
            self.lock.close()
            self._ended = True
        self._waiters.notify()

    # The thread that forks

    def before_fork(self) -> None:
        """Leave the lock to the children, if this process has not begun to wait for it."""
        with _registry_lock:  # for the thread, which may find the role taken, and not yet noted
            if self._closing or not self._settled.acquire(blocking=False):
                return
            self.role = Role.LEFT
        self._alarm.ring()
        if self._thread.ident is not None:
            self._thread.join(SETTLING_TIME)  # the process forks without a thread of ours
        _logger.info("process %d leaves %s to its children", os.getpid(), self.lock.path)

    def begin_in_forked_child(self, is_helper: bool) -> None:
        """Take the parent's place, if the parent has left the lock to its children.

        :param is_helper: True if the process was forked by multiprocessing.
        """
        takes_place = self.role is Role.LEFT and not is_helper
        self.shard = None  # the parent's
        self._prepare()
        if takes_place:
            self.begin()
        else:
            self._finish()
            self.role = Role.PARENTS


def _has_gevent_patched() -> bool:
    """True if new threads are greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class SessionFile:
    """The file that holds a shard's session. It is there while there is a session to be resumed.

    :param path: of the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._saved: Session | None = None

    def load(self, troubles: Troubles) -> Session | None:
        """The session that was saved, or None."""
        self._saved = None
        try:
            self._saved = Session.load(self.path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            troubles.tell("load", f"cannot load the session, so that a new one begins: {error}")
        return self._saved

    def mirror(self, session: Session | None, troubles: Troubles) -> None:
        """Save a session that has changed, or delete the file if there is no session any more."""
        if session == self._saved:
            return
        try:
            if session is not None:
                session.save(self.path)
            elif os.path.exists(self.path):
                os.unlink(self.path)
        except OSError as error:
            troubles.tell("save", f"cannot save the session, so that none is resumed: {error}")
            return
        self._saved = session
        troubles.forget("save")


class Troubles:
    """What the log tells of what may go wrong every second: once, until it was well again."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def tell(self, what: str, text: str) -> None:
        """Log an error.

        :param what: names the trouble.
        :param text: what the log tells of it; it is told again if it has changed.
        """
        if self._told.get(what) != text:
            self._told[what] = text
            _logger.error("process %d: %s", os.getpid(), text)

    def is_told(self, what: str) -> bool:
        """True if the trouble was told, and not forgotten."""
        return what in self._told

    def forget(self, what: str) -> None:
        """Note that all is well."""
        self._told.pop(what, None)


# The candidates of this process, and the lock that guards the list, that no lock file is opened
# twice in one process, and that a candidate which leaves the lock to its children stays in the
# list. No thread waits for anything else while it has this lock.
_candidates: list[Candidate] = []
_registry_lock = threading.RLock()


def add(lock_path: str, session_path: str, start: StartFunction) -> Candidate:
    """Make a candidate, which is still to begin.

    :raises ValueError: if this process has one for that file.
    :raises OSError: if the file can be neither opened nor created.
    """
    with _registry_lock:
        # Opening the file again, and closing it, would unlock it.
        if any(candidate.lock.is_file(lock_path) for candidate in _candidates):
            raise ValueError(
                f"this process waits for {lock_path!r}, or has locked it, already; close() what "
                "one_process() has returned before you call it again, or call it once"
            )
        candidate = Candidate(LockFile(lock_path), session_path, start)
        _candidates.append(candidate)
        return candidate


def _close_all_at_exit() -> None:
    """Close the shards, and save their sessions, as the interpreter exits."""
    candidates = list(_candidates)
    for candidate in candidates:  # all at once
        candidate.request_close()
    for candidate in candidates:
        candidate.close()


# Runs before the shards' own handler, which was registered before: the last function is called
# first.
run_at_exit(_close_all_at_exit)


def _is_forked_by_multiprocessing() -> bool:
    """True if multiprocessing called fork(): the child runs one function for its parent."""
    # os.fork() calls the hook that calls this; as a function in C it has no frame of its own.
    caller = sys._getframe(1).f_back
    name = "" if caller is None else str(caller.f_globals.get("__name__"))
    return name.startswith("multiprocessing.")


def _before_fork() -> None:
    if _candidates and not _is_forked_by_multiprocessing():
        for candidate in list(_candidates):
            candidate.before_fork()


def _begin_all_in_forked_child() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()  # a thread that the child does not have may have held it
    is_helper = bool(_candidates) and _is_forked_by_multiprocessing()
    for candidate in list(_candidates):
        candidate.begin_in_forked_child(is_helper)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_begin_all_in_forked_child)
