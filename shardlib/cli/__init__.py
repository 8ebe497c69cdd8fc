"""The command ``shardlib``: watch a bot's events in a terminal, or run a gateway of one's own."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status.

    Only the main thread of a process that runs nothing else may call this.

    :param arguments: the arguments of the command line, without the program's name; None for those
        of the process.
    :returns: 0, or 1 after an error.
    :raises SystemExit: with status 2 for bad arguments; with 0 after ``--help``.
    """
    given = sys.argv[1:] if arguments is None else arguments
    # The doctor's checks were not all made: nothing may take this for an end at which all was well.
    status = 1 if "doctor" in given[:1] else 0
    # Not an exception: a module that is being imported might catch it.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(status))
    # Not at the top: the import takes a while, and Ctrl-C must end the command quietly meanwhile.
    from shardlib.cli.program import run

    try:
        return run(arguments)
    finally:
        # The interpreter takes a while to exit, and a second Ctrl-C must not make the exit fail.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _flush_stdout()


def _flush_stdout() -> None:
    """Flush what argparse has printed, even if the pipe has no reader (``--help | true``)."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # The interpreter flushes again at its exit, and would print the same error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
