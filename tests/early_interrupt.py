"""Runs an example to which Ctrl-C comes early: when it first calls a function.

python tests/early_interrupt.py shardlib:Shard.start examples/qt_app.py
"""

from __future__ import annotations

import pkgutil
import runpy
import signal
import sys
from pathlib import Path
from typing import Any


def _interrupt_in(name: str) -> None:
    """Press Ctrl-C in the first call of a function.

    :param name: of the function, after its module and a colon.
    """
    function = pkgutil.resolve_name(name)
    owner_name, _, own_name = name.replace(":", ".").rpartition(".")
    owner = pkgutil.resolve_name(owner_name)

    def call(*arguments: Any, **options: Any) -> Any:
        setattr(owner, own_name, function)
        signal.raise_signal(signal.SIGINT)
        return function(*arguments, **options)

    setattr(owner, own_name, call)


if __name__ == "__main__":
    _interrupt_in(sys.argv[1])
    del sys.argv[:2]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))  # as Python does for a program
    runpy.run_path(sys.argv[0], run_name="__main__")
