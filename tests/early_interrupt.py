"""Runs an example to which Ctrl-C comes once, early: just before it connects its shard.

python tests/early_interrupt.py examples/qt_app.py
"""

from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shardlib import Shard


def _interrupted(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return function(*arguments, **options)

    return call


if __name__ == "__main__":
    for name in ("connect", "start"):
        setattr(Shard, name, _interrupted(getattr(Shard, name)))
    del sys.argv[0]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))  # as Python does for a program
    runpy.run_path(sys.argv[0], run_name="__main__")
