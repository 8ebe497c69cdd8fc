"""SessionStore: the sessions of many shards in a directory, so that a restarted program resumes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from shardlib import sessionfile
from shardlib.failurelog import SUMMARY_INTERVAL, FailureLog
from shardlib.session import Session
from shardlib.shardlocks import ShardLocks
from shardlib.text import count, printable

# Without leading zeros: each shard has one name.
_FILE_NAME = re.compile(r"shard-(?:0|[1-9][0-9]*)-of-([1-9][0-9]*)\.json", re.ASCII)

# Characters that the log shows of what is wrong with a file, of which anybody may have written it.
_REASON_SHOWN = 1000

# Shard counts that the log names of those whose sessions are left alone.
_COUNTS_SHOWN = 5

_ADVICE = (
    "give sessions= a directory that this process may create, read and write, on a disk that has "
    "room and outlives the process"
)

_SAVE_FAILED = (
    "cannot save the session of shard %d of %d, which goes on, but would begin a new session if "
    "the program was started again now"
)

_FORGET_FAILED = (
    "cannot delete the session of shard %d of %d, which has ended; if the program was started "
    "again now, the shard would try in vain to resume it"
)


class SessionStore:
    """The sessions of a manager's shards, one file a shard, such as ``shard-3-of-16.json``.

    One thread at a time, the manager's, uses a store. Each method blocks while the disk works, and
    takes no lock. Several processes may have stores in one directory, if no two of them run the
    same shard: the manager acquires the :attr:`locks` of its shards, from any thread, before it
    loads their sessions.

    Who may write to the directory may have a shard send the bot's token elsewhere: a session names
    the URL of its Resume. So the store makes a directory that only its owner may use. One that is
    there already keeps its mode.

    :param directory: the directory, a str or a path object; the user calls it `sessions`. A
        relative one is relative to the current directory as it is now.
    :param log: called as ``log(level, message, *arguments)``, like a logger's method of that name.
    :raises TypeError: if `directory` is no str and no path object, or `log` no function.
    :raises ValueError: if `directory` is empty, or cannot be the name of a directory.
    """

    def __init__(self, directory: str | os.PathLike[str], log: Callable[..., object]) -> None:
        if not isinstance(directory, (str, os.PathLike)):
            raise TypeError(
                f"sessions must be a str or a path object, not {type(directory).__name__}"
            )
        if not callable(log):
            raise TypeError(f"log must be a function, not {type(log).__name__}")
        path = os.fsdecode(directory)
        if not path:
            raise ValueError("sessions must not be empty; '.' is the current directory")
        if "\0" in path:
            raise ValueError("sessions must have no NUL character: no directory's name has one")
        self.directory = os.path.abspath(path)  # the program may change its current directory
        self.locks = ShardLocks(self.directory, log)
        self._log = log
        self._failures = FailureLog()
        # What is known to be in the files, by shard_id and shard_count.
        self._saved: dict[tuple[int, int], Session] = {}

    def prepare(self) -> None:
        """Make the directory, unless it is there, and its parents, and see whether it can be used.

        :raises OSError: if it cannot; the message says why, and what to do.
        """
        try:
            _make_directories(self.directory)
            os.listdir(self.directory)
            tempfile.TemporaryFile(dir=self.directory).close()
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}; {_ADVICE}", self.directory) from error

    def load(self, shard_ids: Collection[int], shard_count: int) -> dict[int, Session]:
        """The sessions that were saved.

        The log tells of a file that holds no session of its shard, which the next :meth:`save`
        replaces, and of sessions of another shard count, whose files stay.

        :param shard_ids: numbers of the shards whose sessions to load.
        :param shard_count: number of the bot's shards now.
        :returns: the session of each of these shards that has one, by its number.
        """
        for shard_id in shard_ids:
            self._saved.pop((shard_id, shard_count), None)
        try:
            names = set(os.listdir(self.directory))
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._log(
                logging.WARNING,
                "each shard begins a new session, since the saved ones cannot be listed: %s; %s",
                *(error, _ADVICE),
            )
            return {}
        self._tell_of_other_counts(names, shard_count)
        sessions = {}
        for shard_id in shard_ids:
            if _file_name(shard_id, shard_count) in names:
                session = self._load(shard_id, shard_count)
                if session is not None:
                    sessions[shard_id] = session
        return sessions

    def _load(self, shard_id: int, shard_count: int) -> Session | None:
        shard = (shard_id, shard_count)
        path = self._path(*shard)
        try:
            session = Session.load(path)
            if (session.shard_id, session.shard_count) != shard:
                raise ValueError(
                    f"{path!r} holds the session of shard {session.shard_id} of "
                    f"{session.shard_count}, whatever its name says"
                )
        except FileNotFoundError:  # deleted since, or a symbolic link to nothing yet
            return None
        except (OSError, ValueError) as error:
            self._log(
                logging.WARNING,
                "shard %d of %d begins a new session, since the saved one cannot be used: %s",
                *(*shard, printable(str(error), _REASON_SHOWN)),
            )
            return None
        self._saved[shard] = session
        return session

    def _tell_of_other_counts(self, names: Iterable[str], shard_count: int) -> None:
        matches = filter(None, map(_FILE_NAME.fullmatch, names))
        files = Counter(match[1] for match in matches if match[1] != str(shard_count))
        if not files:
            return
        named = files.most_common(_COUNTS_SHOWN)
        shown = [
            f"{count(sessions, 'session')} of {number} shard{'' if number == '1' else 's'}"
            for number, sessions in named
        ]
        others = files.total() - sum(sessions for _, sessions in named)
        if others:
            shown.append(f"{count(others, 'session')} of yet other counts")
        self._log(
            logging.INFO,
            "left alone in %r: %s; a bot with %s resumes only sessions of as many. Delete the "
            "files if no bot with those numbers of shards is to run again",
            *(self.directory, ", ".join(shown), count(shard_count, "shard")),
        )

    def save(self, session: Session) -> bool:
        """Save a session, unless the shard's file is known to hold the same.

        :param session: of any shard.
        :returns: False if the file cannot be written; the log tells why.
        """
        shard = (session.shard_id, session.shard_count)
        if self._saved.get(shard) == session:
            return True
        self._saved.pop(shard, None)  # the file may be left incomplete
        try:
            session.save(self._path(*shard))
        except OSError as error:
            self._tell_failure(_SAVE_FAILED, shard, error)
            return False
        self._saved[shard] = session
        return True

    def forget(self, shard_id: int, shard_count: int) -> bool:
        """Delete the file of a shard whose session cannot be resumed, if there is a file.

        :param shard_id: number of the shard.
        :param shard_count: number of the bot's shards when the session began.
        :returns: False if the file cannot be deleted; the log tells why.
        """
        shard = (shard_id, shard_count)
        self._saved.pop(shard, None)
        try:
            sessionfile.remove(self._path(*shard))
        except OSError as error:
            self._tell_failure(_FORGET_FAILED, shard, error)
            return False
        return True

    def _path(self, shard_id: int, shard_count: int) -> str:
        return os.path.join(self.directory, _file_name(shard_id, shard_count))

    def _tell_failure(self, message: str, shard: tuple[int, int], error: OSError) -> None:
        failures, in_full = self._failures.add(message)  # a full disk fails for shard after shard
        if in_full:
            self._log(logging.ERROR, message + ": %s; %s", *shard, error, _ADVICE)
        elif failures:
            self._log(
                logging.ERROR,
                message + ": %s; the same has happened %s more; the log tells of later ones after "
                "%s at the earliest",
                *(*shard, error),
                *(count(failures, "time"), count(SUMMARY_INTERVAL, "second")),
            )


def _file_name(shard_id: int, shard_count: int) -> str:
    return f"shard-{shard_id}-of-{shard_count}.json"


def _make_directories(path: str) -> None:
    """Make a directory and its parents, each for its owner alone, unless something is there.

    :raises OSError: if the system refuses.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        _make_directories(parent)
    # If another process was faster, or something else is there, its use will show which.
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
