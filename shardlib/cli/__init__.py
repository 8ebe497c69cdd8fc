"""The command ``shardlib``: watch a bot's events in a terminal, or run a gateway of one's own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status. For the main thread of a process of its own.

    :param arguments: of the command line, without the program's name; None takes the process's own.
    :returns: 0, or 1 after an error.
    :raises SystemExit: with status 2 for bad arguments; with 0 after ``--help``.
    """
    signal.signal(signal.SIGINT, _leave_at_once)
    # Not at the top: importing takes a while, and Ctrl-C must end that quietly, too.
    from shardlib.cli.program import run

    try:
        return run(arguments)
    finally:
        # The interpreter takes its time to end: a second Ctrl-C must not make it fail at that.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _flush()


def _leave_at_once(_number: int, _frame: FrameType | None) -> None:
    """End the process at Ctrl-C, before the command has begun.

    An exception might be caught by a module that is being imported.
    """
    os._exit(0)


def _flush() -> None:
    """Flush what argparse has printed, even if its reader has gone (``--help | true``)."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # The interpreter flushes once more at its exit, and would complain of the same error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
