"""Control: what users' threads and the reader thread tell each other."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable

from shardlib.connection import RESUMABLE_CLOSE_CODE, Connection
from shardlib.deadline import LONGEST_WAIT, SIGNALS_SEEN_WITHIN, Deadline
from shardlib.errors import ShardClosed
from shardlib.gateway import API_VERSION, GATEWAY_URL
from shardlib.state import ENDING, ShardState


class Wish(enum.IntEnum):
    """What a user asks of the reader; of several, the greatest counts."""

    RECONNECT = 1
    REINSTANTIATE = 2
    DISCONNECT = 3


class Control:
    """The state of a shard and the wishes for it, under the one lock of the shard.

    The lock, in :attr:`changed`, guards the attributes below and is held for moments only: never
    during I/O, a callback or a join. It is notified of every change that somebody may be waiting
    for. It is reentrant, since a user's signal handler may come here while the main thread has it.
    """

    def __init__(self, connection: Connection) -> None:
        self.socket_url = GATEWAY_URL  # what connect() was given
        self.socket_version = API_VERSION
        self.changed = threading.Condition(threading.RLock())
        self.state = ShardState.DISCONNECTED
        self.thread: threading.Thread | None = None  # the reader; None while there is none
        self.connection = connection  # the current or the last one
        # Wishes, for the reader to see after each message and to take up when it connects next.
        self.wish: Wish | None = None
        self.at_once = False  # a user waits for it: no back-off
        self.close_code = 0  # that disconnect() was called with
        self.persist: bool | None = None  # reinstantiate()'s no_fail
        # begin()'s arguments, of a connect() by a callback while closing
        self.restart: tuple[str, int, bool | None] | None = None
        # What the reader has to tell.
        self.first_attempt = False  # it is under way, and connect() waits for the outcome
        self.opened = 0  # sockets, ever: what waits for the next one must not see it go back
        self.opened_before = 0  # of them, before this life
        self.fatal: BaseException | None = None  # for which the shard is to be closed
        self.error: BaseException | None = None  # for which it was closed
        self.leaving = False  # the interpreter exits

    def begin(self, socket_url: str, socket_version: int, persist: bool | None) -> None:
        """Start over, for a new life. Called with the lock held."""
        self.socket_url = socket_url
        self.socket_version = socket_version
        self.state = ShardState.CONNECTING
        self.wish = None
        self.at_once = False
        self.persist = persist
        self.restart = None
        self.opened_before = self.opened
        self.fatal = None
        self.error = None

    def is_first_connection(self) -> bool:
        """Whether no more than one socket was opened since connect()."""
        return self.opened - self.opened_before <= 1

    def on_own_thread(self) -> bool:
        """Whether the caller is the reader: then waiting for the reader would be for ever."""
        return threading.current_thread() is self.thread

    def is_ready(self) -> bool:
        """Whether events flow."""
        return self.state is ShardState.READY

    def has_ended(self) -> bool:
        """Whether the shard was closed, or never got a first connection."""
        return self.state is ShardState.CLOSED or self.error is not None

    def why_ended(self) -> BaseException:
        """What to raise in a thread that waits for something of a shard that has ended."""
        error = self.error or ShardClosed(None, "the shard was closed by disconnect()")
        # It is one object for all who wait, and keeps the frames of each raise: begin them anew.
        return error.with_traceback(None)

    def wait(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Block until something is so. False where the time ran out first."""
        main = threading.current_thread() is threading.main_thread()
        longest = SIGNALS_SEEN_WITHIN if main else LONGEST_WAIT
        with self.changed:
            while not condition() or self._comes_too_late():
                left = deadline.remaining()
                if left == 0:
                    return False
                self.changed.wait(longest if left is None else min(left, longest))
            return True

    def _comes_too_late(self) -> bool:
        """Whether the caller is a daemon thread of the user's in an interpreter that exits.

        It goes on waiting until it is gone with the rest: woken up, it would only have time to
        complain on standard error that the shard is closed.
        """
        return self.leaving and threading.current_thread().daemon and not self.on_own_thread()

    def set_state(self, state: ShardState) -> None:
        """For the reader: tell where the shard is.

        Once closing, a shard is only ever closed; and without a reader (messages handled by
        themselves) it has no connection to be in any state of.
        """
        with self.changed:
            if self.thread is not None and self.state not in ENDING:
                self.state = state
                self.changed.notify_all()

    def wish_disconnect(self, code: int) -> bool:
        """Ask the reader to close for good, and say goodbye to the peer. Any thread.

        :returns: False where there was nothing to close.
        """
        with self.changed:
            self.restart = None
            if self.thread is None or self.state is ShardState.CLOSED:
                return False
            if self.wish is not Wish.DISCONNECT:  # of several, the first one's code counts
                self.wish = Wish.DISCONNECT
                self.close_code = code
            self.state = ShardState.CLOSING
            self.changed.notify_all()
            connection = self.connection
        if self.on_own_thread():
            return True  # the reader says goodbye when it is back from the callback
        if connection.was_open:
            connection.send_close(self.close_code)  # the peer's answer wakes the reader
        else:  # an opening, if anything; what says goodbye already must not be cut short
            connection.abort()
        return True

    def stop(self, error: BaseException) -> None:
        """Close the shard because of an error, which the waiting methods raise. The reader."""
        self.fatal = self.fatal or error
        self.wish_disconnect(RESUMABLE_CLOSE_CODE)
