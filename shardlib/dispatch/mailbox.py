"""Mailbox: callbacks that wait until the program runs them in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter

from shardlib.checks import check_callback, check_timeout, check_type
from shardlib.dispatch.backlog import OVERFLOWS, Backlog
from shardlib.dispatcher import Delivery, Dispatcher
from shardlib.errors import ShardError
from shardlib.running import LeftToParent


class Mailbox(Dispatcher):
    """Keeps callbacks, in order, until the program calls :meth:`run_pending`.

    For programs with a loop of their own: a GUI's timer, a game's frame, a script's ``while``. ::

        mailbox = Mailbox()
        shard = Shard(token, intents, dispatcher=mailbox)
        shard.on("MESSAGE_CREATE", show)
        shard.connect()
        while playing:
            mailbox.run_pending(max_seconds=0.005)
            draw()

    The thread that runs the mailbox may call every method of its shards, within callbacks and
    outside of them; while it waits for a shard (wait_for(), send(), reconnect()) the mailbox takes
    more than `maxsize`. After disconnect() the callbacks that wait are still there, and
    on_socket_closed is the last one: run_pending() calls them, or the mailbox is forgotten.

    :param maxsize: callbacks that may wait, an int from 1.
    :param overflow: what happens to an event that comes while as many wait. "block": the shard
        stops reading until half of them have run; its heartbeats go on, and what Discord sends
        meanwhile waits on the way. "drop_oldest" and "drop_newest": the event that has waited
        longest, or the new one, is dropped, which ``stats.dropped`` counts and the log tells.
        Callbacks about connections (on_socket_connected, on_socket_disconnected and the like) are
        never dropped.
    :raises ValueError: if an argument has a value that cannot be.
    :raises TypeError: if an argument has the wrong type.
    """

    def __init__(self, maxsize: int = 10_000, overflow: str = "block") -> None:
        check_type("overflow", overflow, str)
        if overflow not in OVERFLOWS:
            raise ValueError(f"overflow must be one of {', '.join(OVERFLOWS)}, not {overflow!r}")
        self._backlog = Backlog(maxsize, overflow)
        self._on_wake: Callable[[], object] | None = None
        self._thread: threading.Thread | None = None  # that has called run_pending() last
        self._has_to_wake = False  # the backlog was empty, and is not
        # The call of run_pending() that is under way, with its thread.
        self._runner: dict[str, tuple[threading.Thread]] = {}
        # The one that is being called, or that SystemExit or Ctrl-C has ended.
        self._current: Delivery | None = None

    def __len__(self) -> int:
        """How many callbacks wait. Any thread."""
        return len(self._backlog)

    def __repr__(self) -> str:
        return f"<Mailbox with {len(self)} waiting>"

    @property
    def on_wake(self) -> Callable[[], object] | None:
        """A function without arguments that wakes the program's loop, or None.

        It is called once when the mailbox stops being empty, by the thread of a shard, and must not
        block; by the calling thread if something waits already when it is assigned, and if
        run_pending() leaves something behind because of its bounds, or of an exception. What it
        raises on a shard's thread is logged, and nothing is lost.
        """
        return self._on_wake

    @on_wake.setter
    def on_wake(self, function: Callable[[], object] | None) -> None:
        check_callback("on_wake", function, 0)
        self._on_wake = function
        if len(self):
            self._wake()

    def run_pending(self, max_events: int | None = None, max_seconds: float | None = None) -> int:
        """Call the callbacks that wait, on this thread, and return. Never waits for more.

        Callbacks that come meanwhile are called, too, so that a loop which is busier than this
        thread would never return without a bound. An event counts as one, whatever listens to it.
        In a callback that this method is calling (in the loop of a modal dialog, say) it calls
        nothing, and returns 0: the callbacks are called one after the other.

        :param max_events: return after so many, an int; None for no bound.
        :param max_seconds: return after so many seconds, as soon as a callback has returned; None
            for no bound.
        :returns: how many were called.
        :raises ShardError: if another thread is in this method.
        :raises SystemExit: if a callback has raised it.
        :raises KeyboardInterrupt: if a callback has raised it, or Ctrl-C came meanwhile.
        :raises ValueError: if an argument is negative.
        :raises TypeError: if an argument is no number.
        """
        check_type("max_events", max_events, int, optional=True)
        if max_events is not None and max_events < 0:
            raise ValueError(f"max_events must not be negative, not {max_events}")
        check_timeout("max_seconds", max_seconds)
        call = (threading.current_thread(),)  # an object of this call's own
        try:
            try:
                # One step of C code: of two threads at the same moment one is the runner.
                runner = self._runner.setdefault("run_pending", call)
                if runner is not call:
                    return self._refuse(runner[0])
                self._thread = call[0]
                return self._run(max_events, max_seconds)
            finally:
                self._end_run(call)
        finally:
            self._end_run(call)  # again: Ctrl-C may have kept the first from being called

    def _refuse(self, runner: threading.Thread) -> int:
        if runner is threading.current_thread():
            return 0
        raise ShardError(
            "another thread is in run_pending() of this mailbox, whose callbacks are called by one "
            "thread at a time"
        )

    def _end_run(self, call: tuple[threading.Thread]) -> None:
        if self._runner.get("run_pending") is call:
            del self._runner["run_pending"]
            if len(self):  # also after an exception: no reader wakes a loop for what waits already
                self._wake()

    def _run(self, max_events: int | None, max_seconds: float | None) -> int:
        interrupted, self._current = self._current, None
        # If the interruption came before it was taken out, it is called now. Else the program has
        # gone on all the same.
        if interrupted is not None and interrupted is not self._backlog.oldest():
            interrupted.drop()
        until = None if max_seconds is None else perf_counter() + max_seconds
        done = 0
        while max_events is None or done < max_events:
            delivery = self._backlog.oldest()
            if delivery is None:
                break
            self._current = delivery  # first: Ctrl-C may come before the next line
            if not self._backlog.take_out(delivery):
                continue
            done += 1
            try:
                delivery.run()
            except LeftToParent:
                break  # in a forked child: the rest is the parent's
            self._current = None
            if until is not None and perf_counter() >= until:
                break
        return done

    def _wake(self) -> None:
        if self._on_wake is not None:
            self._on_wake()

    # Dispatcher

    def submit(self, delivery: Delivery) -> None:
        if self._backlog.put(delivery):
            self._has_to_wake = True

    def flush(self) -> None:
        if self._has_to_wake:
            self._has_to_wake = False
            self._wake()

    def runs_in(self, thread: int) -> bool:
        return self._thread is not None and self._thread.ident == thread

    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def leave_to_parent(self) -> None:
        self._backlog.renew()
        self._current = None
        self._runner.clear()  # the parent's thread, which the child may not have
