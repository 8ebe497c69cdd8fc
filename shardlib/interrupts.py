"""Calls that interrupt other calls on the same thread, and code that no call can interrupt.

A signal handler runs in the main thread between two bytecodes of whatever that does, a finaliser
(``__del__``) in any thread. Both may use the shard whose method they have interrupted. Such a call
must not wait: what it would wait for may have to come from its own thread, which goes on only when
the handler has returned.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType

# Modules whose functions hold a lock or wait while they run.
_HOLDING = frozenset(
    f"shardlib.{name}"
    for name in (
        "acknowledged",
        "callbacks",
        "compression",
        "connection",
        "dial",
        "dispatch.backlog",
        "dispatch.mailbox",
        "dispatch.pool",
        "dispatch.threads",
        "dispatch.worker",
        "dispatchedcallbacks",
        "dispatcher",
        "events",
        "fleet.outbox",
        "handshake",
        "heartbeat",
        "lifecycle",
        "limits",
        "manager",
        "reader",
        "recording",
        "reshardedevents",
        "running",
        "shardlocks",
        "transport",
        "waiting",
        "watchdog",
    )
)
# Functions that call the user's with no lock held: callbacks, which may use other shards,
# predicates, log handlers, the start() of one_process(), what is told of progress.
_CALLING_OUT = {
    ("shardlib.callbacks", "_log"),
    ("shardlib.callbacks", "offer"),
    ("shardlib.callbacks", "run"),
    ("shardlib.candidate", "_started_shard"),
    ("shardlib.dispatch.mailbox", "_wake"),
    ("shardlib.manager", "_ask"),
    ("shardlib.manager", "_tell_closed"),
    ("shardlib.manager", "wait_until_ready"),
    ("shardlib.running", "call"),
}

# Functions of threading.py that hold the lock which every thread needs in order to start: a handler
# that has interrupted one of them, called by the user, would wait for a reader that cannot start.
_STARTING = frozenset({"active_count", "enumerate", "start"})

_OWN = _HOLDING | {
    f"shardlib.{name}"
    for name in (
        "fetching",
        "fleet.fleetshard",
        "fleet.workersupervisor",
        "fleet.worker",
        "interrupts",
        "lifecontrol",
        "managedshard",
        "managerlifecycle",
        "resharding",
        "shard",
        "shardgroup",
        "supervisor",
    )
}


def has_interrupted_own_call() -> bool:
    """True if the caller of a public method has interrupted another call of the library.

    This function reads the stack; an interrupt could leave a flag set for ever. The innermost
    frames are those of the public method, then comes the user's function that has called it. If a
    frame of the library's is beneath that, its function may hold a lock, unless it is one that
    calls a function of the user's, such as a log handler, which has interrupted nothing.
    """
    frame = _leave_own(sys._getframe(1))
    while frame is not None:
        module = _module(frame)
        if module == "threading" and frame.f_code.co_name in _STARTING:
            return True
        if module in _HOLDING:
            if not _is_calling_out(frame):
                return True
            frame = _leave_own(frame)
        else:
            frame = frame.f_back
    return False


def _leave_own(frame: FrameType | None) -> FrameType | None:
    while frame is not None and _module(frame) in _OWN:
        frame = frame.f_back
    return frame


def _module(frame: FrameType) -> str | None:
    name: str | None = frame.f_globals.get("__name__")
    return name


def _is_calling_out(frame: FrameType) -> bool:
    return (_module(frame), frame.f_code.co_name) in _CALLING_OUT


def run_uninterrupted(function: Callable[[], object]) -> None:
    """Run a function where no signal handler and no Ctrl-C can split it.

    Signals come to the main thread only; called there, this runs the function on a short-lived
    thread and does not wait for it. ``threading.Thread.start()`` needs this: Ctrl-C inside of it
    can leave the new thread waiting for ever. A finaliser that has interrupted a call on any other
    thread needs it, too: that call may hold what the function waits for.

    :param function: to run; it must not raise an exception.
    :raises RuntimeError: if the system has no thread to give.
    """
    if threading.get_ident() == threading.main_thread().ident or has_interrupted_own_call():
        start_thread(function)
    else:
        function()


def run_to_its_end(function: Callable[[], object]) -> None:
    """:func:`run_uninterrupted`, and wait until the function has returned. Ctrl-C ends the wait.

    :param function: to run; it must not raise an exception, and wait for nothing.
    :raises RuntimeError: if the system has no thread to give.
    """
    is_running = _thread.allocate_lock()
    is_running.acquire()

    def run() -> None:
        function()
        is_running.release()

    run_uninterrupted(run)
    is_running.acquire()


# Of each short-lived thread that was started and does not run yet: a lock that it will release.
_not_running: set[_thread.LockType] = set()

# Seconds that such a thread has, as the interpreter exits, to begin to run.
_TIME_TO_RUN = 1.0


def start_thread(function: Callable[..., object], *arguments: object) -> None:
    """Start a short-lived thread.

    Ctrl-C meanwhile leaves the thread started or not, and never in between, as it can leave a
    ``threading.Thread``.

    :param function: to run; it must not raise an exception.
    :param arguments: for the function.
    :raises RuntimeError: if the system has no thread to give, or the interpreter exits.
    """
    not_running = _thread.allocate_lock()
    not_running.acquire()
    try:
        _not_running.add(not_running)
        _thread.start_new_thread(_run, (not_running, function, arguments))
    except BaseException:  # Ctrl-C, too: nothing would release the lock
        _not_running.discard(not_running)
        raise


def _run(
    not_running: _thread.LockType, function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    _not_running.discard(not_running)
    not_running.release()
    function(*arguments)


def run_at_exit(function: Callable[[], object]) -> None:
    """Call a function, which may wait, as the interpreter exits.

    A second Ctrl-C, or a signal handler that exits once more, ends the wait. Python would show the
    traceback, of an end that the user has asked for.

    :param function: to call.
    """

    def run() -> None:
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            function()

    atexit.register(run)


def _wait_for_threads_to_run() -> None:
    """Keep the interpreter from exiting while a thread that was just started does not run yet.

    Python 3.10 frees what such a thread needs to begin with, and crashes when the thread begins.
    """
    for not_running in _not_running.copy():  # in one step: threads leave the set meanwhile
        not_running.acquire(timeout=_TIME_TO_RUN)


run_at_exit(_wait_for_threads_to_run)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_not_running.clear)  # a child has no other thread
