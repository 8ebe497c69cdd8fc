"""OwnProcess: the process to which threads and connections belong, and which a fork copies."""

from __future__ import annotations

import os

from shardlib.errors import ForkedProcess


class OwnProcess:
    """Knows whether it is asked in the process that made it.

    A forked child has a copy of each object, but none of the threads, and the connections are the
    parent's, too.

    :param error: tells a child that uses the object what it is to do instead.
    """

    def __init__(self, error: str) -> None:
        self._error = error
        self._id = os.getpid()

    @property
    def is_parent(self) -> bool:
        """True in a child that was forked."""
        return os.getpid() != self._id

    def check(self) -> None:
        """Check that the object is this process's own.

        :raises ForkedProcess: in a child that was forked.
        """
        if self.is_parent:
            raise ForkedProcess(self._error)

    def take_over(self) -> None:
        """Belong to this process from now on."""
        self._id = os.getpid()
