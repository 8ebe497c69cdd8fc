"""Shutdown: the end of a command, for which the command's main thread waits."""

from __future__ import annotations

import queue
import select
import signal
import sys
import threading

from shardlib.deadline import SIGNAL_POLL_INTERVAL, Deadline


class Shutdown:
    """The end of a command: a signal, an output that has lost its reader, an error, or work done.

    The main thread waits for it while other threads do the work. Ctrl-C and SIGTERM raise nothing:
    an exception that may come between any two instructions leaves locks held, sockets open and
    files behind.

    :param watches_output: True to end the command, too, when the program that reads its output has
        ended.
    """

    def __init__(self, *, watches_output: bool = True) -> None:
        # A signal handler may put into a SimpleQueue, whatever the handler has interrupted; any
        # other queue may deadlock.
        self._ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last one: the terminal was closed
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda number, frame: self.come())
        if watches_output and hasattr(select, "poll") and sys.stdout is not None:
            threading.Thread(target=self._watch_output, name="output", daemon=True).start()

    def come(self, error: BaseException | None = None) -> None:
        """End the command. Any thread may call this; only the first call counts.

        :param error: the error that ends the command; None for a usual end.
        """
        self._ends.put(error)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until :meth:`come` is called.

        :param timeout: seconds to wait at most; None to wait without end.
        :returns: False if the time ran out first.
        :raises BaseException: the error that :meth:`come` was given.
        """
        deadline = Deadline(timeout)
        while True:
            pause = Deadline(SIGNAL_POLL_INTERVAL).earlier(deadline)
            try:
                error = self._ends.get(timeout=pause.remaining())
            except queue.Empty:
                if deadline.remaining() == 0:
                    return False
                continue
            if error is not None:
                raise error
            return True

    def _watch_output(self) -> None:
        """End the command as soon as the program that reads its output, ``head`` say, has gone.

        Without this the command would end at the next event, which may be an hour away.
        """
        poll = select.poll()
        poll.register(sys.stdout, 0)  # no event but an error, such as a pipe without a reader
        poll.poll()
        self.come()
