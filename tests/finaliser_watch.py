"""Runs an example, and tells which finalisers run on its main thread.

    python tests/finaliser_watch.py examples/slash_commands.py

Python drops the KeyboardInterrupt of a Ctrl-C that comes in one.
"""

from __future__ import annotations

import runpy
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

TOLD = "a finaliser on the main thread"

_call = weakref.finalize.__call__


def _tell_and_call(self: weakref.finalize[..., Any], reference: Any = None) -> Any:
    # At the exit of the interpreter there is no reference.
    if reference is not None and threading.current_thread() is threading.main_thread():
        print(f"{TOLD}: {self!r}", flush=True)
    return _call(self, reference)


if __name__ == "__main__":
    weakref.finalize.__call__ = _tell_and_call  # type: ignore[method-assign,assignment]
    del sys.argv[0]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))  # as Python does for a program
    runpy.run_path(sys.argv[0], run_name="__main__")
