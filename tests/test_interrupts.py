from __future__ import annotations

import re
from pathlib import Path

import shardlib
from shardlib import interrupts

PACKAGE = Path(shardlib.__file__).parent
SOURCES = [path for folder in (".", "dispatch", "fleet") for path in PACKAGE.glob(f"{folder}/*.py")]


def test_every_module_with_a_lock_is_one_that_a_handler_may_interrupt() -> None:
    """A handler that has interrupted a function with a lock must not wait for another thread."""
    with_lock = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in SOURCES
        if re.search(r"threading\.R?Lock\(\)|threading\.Lock\(\)", path.read_text())
    }
    with_lock -= {"shardlib.candidate"}  # for whose lock no thread waits
    assert with_lock - interrupts._HOLDING == set()
    assert "shardlib.compression" in with_lock
