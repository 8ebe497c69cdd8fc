"""Waker: a wake-up call for a thread that waits for a socket."""

from __future__ import annotations

import socket


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
