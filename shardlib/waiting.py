"""Waiting for another thread, on raw locks that an interrupt cannot split.

``threading.Condition`` and ``threading.Event`` are Python code: Ctrl-C inside one of their methods
can leave its lock taken for ever, and a signal handler that comes back to the same object waits for
the very thread that it has interrupted. Taking or releasing a raw lock is one step of C code: an
interrupt comes before it or after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from shardlib.deadline import LONGEST_WAIT, SIGNAL_POLL_INTERVAL, Deadline


class Alarm:
    """A wake-up call for one thread: :meth:`ring` before or during :meth:`wait` ends the wait.

    The raw lock is held until the alarm rings. Ringing releases it, and ringing twice does no more
    than ringing once; waiting takes the lock again. Any thread and any signal handler may ring.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """End the wait that is under way, or the next one."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it rings already

    def wait(self, timeout: float | None) -> bool:
        """Block until the alarm rings.

        :param timeout: seconds; None waits without end.
        :returns: False if the time ran out.
        """
        longest = LONGEST_WAIT if timeout is None else min(timeout, LONGEST_WAIT)
        return self._lock.acquire(timeout=longest)


class Waiters:
    """The threads that wait for a condition, each with an alarm of its own.

    A thread that changes what a condition looks at calls :meth:`notify` afterwards. Neither
    :meth:`notify` nor :meth:`wait` needs any other lock.
    """

    def __init__(self) -> None:
        # By thread: no thread waits twice at once, since a call that has interrupted a wait on the
        # same thread never waits. The thread's next wait replaces an entry that Ctrl-C leaves here.
        self._alarms: dict[int, Alarm] = {}

    def notify(self) -> None:
        """Let every waiting thread look at its condition again. Any thread, any signal handler."""
        for alarm in list(self._alarms.values()):
            alarm.ring()

    def wait(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Block until a condition holds.

        :param condition: looked at again after each :meth:`notify`.
        :param deadline: until when to wait.
        :returns: False if the time ran out first.
        """
        if condition():
            return True
        thread = threading.get_ident()
        # Python sees a signal that comes just as a wait begins only when the wait is over.
        main = thread == threading.main_thread().ident
        longest = SIGNAL_POLL_INTERVAL if main else LONGEST_WAIT
        alarm = Alarm()
        try:
            self._alarms[thread] = alarm
            while not condition():  # after the entry was made, so that no change is missed
                left = deadline.remaining()
                if left == 0:
                    return False
                alarm.wait(longest if left is None else min(left, longest))
            return True
        finally:
            self._alarms.pop(thread, None)
