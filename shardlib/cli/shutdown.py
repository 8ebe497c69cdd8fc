"""Shutdown: the end of a command, for which its main thread waits."""

from __future__ import annotations

import queue
import select
import signal
import sys
import threading

from shardlib.deadline import SIGNAL_POLL_INTERVAL


class Shutdown:
    """The end of a command: a signal, an output that has lost its reader, an error, or work done.

    The main thread waits for it while other threads do the work. Ctrl-C and SIGTERM raise nothing:
    an exception that may come between any two instructions leaves locks held, sockets open and
    files behind.
    """

    def __init__(self) -> None:
        # The one queue that a signal handler may put into, whatever it has interrupted.
        self._ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: self.come())
        if hasattr(select, "poll") and sys.stdout is not None:
            threading.Thread(target=self._watch_output, name="output", daemon=True).start()

    def come(self, error: BaseException | None = None) -> None:
        """End the command. The first call counts. From any thread.

        :param error: what went wrong, or None.
        """
        self._ends.put(error)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until :meth:`come` is called.

        :param timeout: seconds; None waits without end.
        :returns: False if the time ran out first.
        :raises BaseException: the error that :meth:`come` was given.
        """
        while True:
            try:
                # In pieces: on Windows a wait shuts Ctrl-C out.
                error = self._ends.get(timeout=SIGNAL_POLL_INTERVAL if timeout is None else timeout)
            except queue.Empty:
                if timeout is None:
                    continue
                return False
            if error is not None:
                raise error
            return True

    def _watch_output(self) -> None:
        """End the command as soon as its reader, ``head`` say, has gone.

        The next event, whose printing would fail, may be an hour away.
        """
        poll = select.poll()
        poll.register(sys.stdout, 0)  # errors alone, above all that the pipe has lost its reader
        poll.poll()
        self.come()
