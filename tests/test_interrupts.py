from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import shardlib
from shardlib import interrupts
from tests.support import HAS_GIL

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


def test_ctrl_c_while_a_thread_is_started_leaves_no_thread_that_the_exit_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("_thread.start_new_thread", interrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupts.start_thread(print)
    assert interrupts._not_running == set()


EXITS = """
import atexit, sys
begun = []
atexit.register(lambda: print(len(begun)))  # before the library's, so it is called after that
from shardlib.interrupts import run_uninterrupted
sys.setswitchinterval(60)  # the threads get their turn only once this one waits
for _ in range(20):
    run_uninterrupted(lambda: begun.append(1))
"""


@pytest.mark.skipif(not HAS_GIL, reason="no thread keeps the others from running")
def test_the_interpreter_exits_once_the_threads_run_that_were_just_started() -> None:
    """Python 3.10 crashes if a thread begins to run after the interpreter has cleared up."""
    done = subprocess.run([sys.executable, "-c", EXITS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "20\n", "")
