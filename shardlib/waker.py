"""Waker: a wake-up call for a thread that waits for a socket."""

from __future__ import annotations

import math
import select
import socket
from collections.abc import Callable


def milliseconds(timeout: float | None) -> int | None:
    """A time-out as ``poll()`` takes it.

    Rounded up: half a millisecond rounded down to none would turn a wait into a spin.

    :param timeout: seconds; None waits without end.
    """
    return None if timeout is None else math.ceil(timeout * 1000)


class Waker:
    """A pair of sockets: a byte sent into one makes the other readable.

    The reader polls :meth:`fileno` beside its connection, so that a request (disconnect(), say)
    wakes it without harming the connection. The transport that owns the waker serialises the calls
    with its I/O lock, so that none meets a socket that has been closed.
    """

    def __init__(self) -> None:
        self._woken, self._waking = socket.socketpair()
        self._woken.setblocking(False)
        self._waking.setblocking(False)
        # The poll object that was made last, with what it was made by and for.
        self._made: tuple[object, int] | None = None
        self._poll: Callable[[float | None], object]

    def wait(self, file_descriptor: int, timeout: float | None) -> bool:
        """Wait until a descriptor can be read, its peer has gone, or :meth:`wake` was called.

        For one thread, on systems with ``select.poll``. The poll object is kept, since the reader
        waits once for nearly every event.

        :param file_descriptor: to watch.
        :param timeout: seconds; None waits without end.
        :returns: False if the time ran out.
        """
        made = (select.poll, file_descriptor)
        if self._made != made:  # the first time, or gevent has patched it since
            poll = select.poll()
            poll.register(file_descriptor, select.POLLIN)
            poll.register(self._woken.fileno(), select.POLLIN)
            self._poll, self._made = poll.poll, made
        return bool(self._poll(milliseconds(timeout)))

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        return self._woken.fileno()

    def wake(self) -> None:
        """Make the descriptor readable."""
        try:
            self._waking.send(b"\0")
        except OSError:
            pass  # full of wake-up calls: one more changes nothing

    def clear(self) -> None:
        """Make the descriptor wait for the next :meth:`wake`."""
        try:
            self._woken.recv(4096)
        except OSError:
            pass  # there is no byte: wake() was not called

    def close(self) -> None:
        """Close both sockets."""
        self._woken.close()
        self._waking.close()
