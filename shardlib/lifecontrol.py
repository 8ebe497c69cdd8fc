"""LifeControl: what connect(), join() and their like do, on the threads of users.

They state requests and wait for what comes of them; the thread that owns the life (a shard's
reader, a manager's own thread) carries them out.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

from shardlib.callbacks import Callbacks
from shardlib.deadline import Deadline
from shardlib.errors import AlreadyConnected, ConnectionFailed, ShardClosed, ShardError
from shardlib.interrupts import has_interrupted_own_call
from shardlib.lifecycle import (
    ALREADY_CONNECTED,
    CLOSED_BY_DISCONNECT,
    PEERS_SHARE,
    Beginning,
    Life,
    Lifecycle,
)
from shardlib.text import count


class LifeControl:
    """Begins and ends the lives of a shard, or of a manager, on behalf of any thread.

    :param lifecycle: whose lives they are.
    :param callbacks: which a dispatcher may be behind with when a life has ended.
    :param connect_timeout: seconds that a life is waited for which is still being closed.
    :param close_timeout: seconds that a life may take to close.
    :param close_code: of the close frames if Ctrl-C comes while a life begins.
    :param is_delivering: True on a thread of the dispatcher's, inside a callback.
    :param about_to_begin: called before a life begins, with no lock held.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        callbacks: Callbacks,
        *,
        connect_timeout: float,
        close_timeout: float,
        close_code: int,
        is_delivering: Callable[[], bool],
        about_to_begin: Callable[[], object],
    ) -> None:
        self._lifecycle = lifecycle
        self._callbacks = callbacks
        self._connect_timeout = connect_timeout
        self._close_timeout = close_timeout
        self._close_code = close_code
        self._is_delivering = is_delivering
        self._about_to_begin = about_to_begin

    # Refusals

    def refuse_to_wait(self, method: str, *, in_delivery: bool = False) -> None:
        """Raise if the calling thread would wait for what can only happen after it has returned.

        :param method: the name of the user's call, for the message.
        :param in_delivery: True to count a callback that a dispatcher calls as one, too.
        :raises ShardError: in a callback, and in a signal handler that has interrupted another
            call.
        """
        in_delivery = in_delivery and self._is_delivering()
        if self._lifecycle.in_reader_thread() or in_delivery:
            raise ShardError(
                f"{method}() was called in a callback: it would wait for what can only happen "
                "after the callback has returned; call it on another thread"
            )
        if has_interrupted_own_call():
            raise ShardError(
                f"{method}() was called by a signal handler, or a finaliser, that has interrupted "
                "another call of the library: it would wait for what that call holds; set a flag, "
                "or call it on another thread"
            )

    def begun_life(self, method: str) -> Life:
        """The life that was asked for last.

        :param method: the name of the user's call, for the message.
        :raises ShardError: if there was none.
        """
        if not self._lifecycle.began:
            raise ShardError(
                f"{method}() would wait for ever: this was never connected; connect() or start() "
                "first"
            )
        return self._lifecycle.latest

    # Beginning

    def begin(self, beginning: Beginning) -> Life:
        """Begin a life. If it is awaited, wait until its first socket is open."""
        lifecycle = self._lifecycle
        previous = lifecycle.life
        closes = lifecycle.closes
        if not lifecycle.latest.is_over:
            raise AlreadyConnected(ALREADY_CONNECTED)
        _refuse_eventlet()
        own = lifecycle.in_reader_thread()
        if own:
            beginning = beginning.unawaited()
        elif beginning.awaited:
            self.refuse_to_wait("connect")
            self._wait_for_previous(previous, closes)
        has_interrupted = not own and has_interrupted_own_call()
        if not has_interrupted:
            self._about_to_begin()
        awaited = beginning.awaited
        life = lifecycle.prepare(beginning)
        try:
            at_once = lifecycle.begin(life, closes)
            if awaited:
                lifecycle.wait_in(life, lambda: life.sockets_opened > 0, Deadline(None))
            elif at_once and not has_interrupted:
                lifecycle.wait(lambda: life.has_begun or life.ended, Deadline(None))
        except BaseException:  # Ctrl-C: the caller would not know of the connection under way
            life.request_close(self._close_code, Deadline(self._close_timeout))
            raise
        failed = life.sockets_opened == 0 if awaited else life.ended and not life.has_begun
        if failed:
            self.wait_for_end(life, Deadline(self._close_timeout))
            raise life.closed_error()
        return life

    def _wait_for_previous(self, previous: Life, closes: int) -> None:
        """Wait until the thread of a life that is being closed has left it."""
        lifecycle = self._lifecycle
        deadline = Deadline(self._connect_timeout)
        if not lifecycle.wait(lambda: previous.ended or lifecycle.closes != closes, deadline):
            raise ConnectionFailed(
                "still being closed: a callback has not returned within "
                f"{count(self._connect_timeout, 'second')}, and no new connection can begin before "
                "it does"
            )
        if lifecycle.closes != closes:
            raise ShardClosed(None, CLOSED_BY_DISCONNECT)
        self._join_threads(previous, deadline)

    # Ending

    def close(self, code: int, *, wait: bool) -> None:
        """Close for good; in a callback, and in a handler that has interrupted a call, only ask.

        :param code: of the close frame.
        :param wait: False to return before that is done.
        """
        deadline = Deadline(self._close_timeout)
        life = self._lifecycle.request_close(code, deadline)
        if self._lifecycle.in_reader_thread() or has_interrupted_own_call():
            return  # the life ends when the callback, or the interrupted call, has returned
        peer_deadline = Deadline(self._close_timeout * PEERS_SHARE)
        if not wait:
            self._lifecycle.close_in_background(life, deadline, peer_deadline)
        elif self._lifecycle.close(life, deadline, peer_deadline):
            self._join_threads(life, deadline)
            if not self._callbacks.are_done():
                self._callbacks.log(
                    logging.WARNING,
                    "closed, but %s did not return in time; their thread goes on calling them "
                    "while the process lives",
                    count(len(self._callbacks.outstanding), "callback"),
                )

    def wait_for_end(self, life: Life, deadline: Deadline) -> bool:
        """Wait until a life has ended, or disconnect() has waited for that long enough."""
        if not self._lifecycle.wait(
            lambda: life.ended or life.close_deadline is not None, deadline
        ):
            return False
        if life.close_deadline is not None:  # behind a callback that does not return
            closing = life.close_deadline.earlier(deadline)
            if not self._lifecycle.wait(lambda: life.ended, closing):
                return life.close_deadline.remaining() == 0
        self._join_thread(life, deadline)
        self._lifecycle.wait(
            lambda: self._callbacks.are_done() or life.close_deadline is not None, deadline
        )
        if life.close_deadline is not None:  # a dispatcher may be behind such a callback, too
            deadline = life.close_deadline.earlier(deadline)
        self._join_dispatcher(deadline)
        return True

    def join(self, what: str, deadline: Deadline, timeout: float | None) -> None:
        """Wait until the life that was asked for last has ended, and raise what has ended it.

        :param what: is to be closed, "the shard" say, for the message.
        :param deadline: until when.
        :param timeout: seconds of the deadline, for the message.
        :raises TimeoutError: if it has not ended in time.
        """
        self.refuse_to_wait("join", in_delivery=True)
        life = self._lifecycle.latest
        if not self.wait_for_end(life, deadline):
            raise TimeoutError(
                f"{what} was not closed within {count(timeout or 0, 'second')}, it is "
                f"{life.state.value}; disconnect() closes it"
            )
        if life.error is not None:
            raise life.closed_error()

    def run(self, beginning: Beginning, disconnect: Callable[[], object]) -> None:
        """Begin a life, and wait for its end; Ctrl-C disconnects.

        :param beginning: of the life.
        :param disconnect: what Ctrl-C does.
        """
        try:
            life = self.begin(beginning)
            self.wait_for_end(life, Deadline(None))
            if life.error is not None:
                raise life.closed_error()
        except ShardClosed as error:
            if error.reason != CLOSED_BY_DISCONNECT:
                raise
            # disconnect() on another thread, or in a signal handler, came before the life began.
        except KeyboardInterrupt as interrupt:
            if interrupt is self._lifecycle.life.error:  # a callback has raised it
                raise
            disconnect()

    def leave(self, disconnect: Callable[[], object], error: BaseException | None) -> None:
        """Close at the end of a ``with`` block, and raise what has ended the life before.

        :param disconnect: closes.
        :param error: with which the block ends, None for none. It counts more.
        """
        life = self._lifecycle.life
        disconnect()
        if error is None and life.error is not None and not life.was_raised_here():
            raise life.closed_error()

    def _join_threads(self, life: Life, deadline: Deadline) -> None:
        """Wait until the threads of a life that has ended have left the list of threads."""
        self._join_thread(life, deadline)
        self._join_dispatcher(deadline)

    def _join_thread(self, life: Life, deadline: Deadline) -> None:
        thread = life.thread
        # The thread is past its last line; only its end is to be noticed. A finaliser may call
        # disconnect() on that very thread, and no thread can join itself.
        if thread is not None and thread.ident not in (None, threading.get_ident()):
            thread.join(deadline.remaining())

    def _join_dispatcher(self, deadline: Deadline) -> None:
        """Wait until a dispatcher has called the callbacks of a life that has ended."""
        if self._lifecycle.wait(self._callbacks.are_done, deadline):
            self._callbacks.join_dispatcher(deadline.remaining())


def _refuse_eventlet() -> None:
    """Refuse to start threads that eventlet has replaced: it offers them no ``poll()``.

    :raises ShardError: if ``eventlet.monkey_patch()`` was called.
    """
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and any(map(patcher.is_monkey_patched, ("select", "socket", "thread"))):
        raise ShardError(
            "eventlet.monkey_patch() has replaced Python's threads and sockets by its own, with "
            "which no shard works; use gevent or plain threads, or run the shard in a process of "
            "its own"
        )
