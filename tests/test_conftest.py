"""The fixtures of conftest.py fail the tests they should, and no others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

BEHAVIOURS = """
import logging, socket, threading
import pytest
from shardlib import NotReady
from tests.support import TOKEN

kept = []
stop = threading.Event()

def test_clean():
    with socket.socket():
        thread = threading.Thread(target=logging.getLogger("shardlib.x").debug, args=("fine",))
        thread.start()
    # Neither joined: it ends within the time it is given.

def test_thread():
    threading.Thread(target=stop.wait, args=(60,), daemon=True).start()

def test_socket():
    stop.set()
    kept.append(socket.socket())

def test_thread_exception():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()

def test_finaliser_exception():
    class Bad:
        def __del__(self):
            raise ValueError("in a finaliser")
    Bad()

def test_token():
    logging.getLogger("shardlib.shard.0").debug("identify as %s", TOKEN)

def test_token_elsewhere():
    logging.getLogger("websocket").debug("sent", exc_info=ValueError(TOKEN))

def test_token_in_an_error():
    with pytest.raises(NotReady):
        raise NotReady(f"not ready: {TOKEN}")
"""


@pytest.mark.slow
def test_what_a_test_leaves_behind_fails_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The inner pytest runs in another directory, and is to find the shardlib of this checkout.
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent), prepend=os.pathsep)
    package = pytester.mkpydir("tests")
    for name in ("command.py", "conftest.py", "pseudoterminal.py", "support.py", "windows.py"):
        (package / name).write_text((TESTS / name).read_text())
    # A shorter wait for the threads and sockets that never go.
    conftest = package / "conftest.py"
    conftest.write_text(conftest.read_text().replace("_TIME_TO_GO = 5.0", "_TIME_TO_GO = 1.0"))
    (package / "test_behaviours.py").write_text(BEHAVIOURS)
    (pytester.path / "setup.cfg").write_text((TESTS.parent / "setup.cfg").read_text())

    result = pytester.runpytest_subprocess("-p", "no:randomly", "-rA", "tests")

    errors = ["test_thread", "test_token", "test_token_elsewhere", "test_token_in_an_error"]
    if sys.platform == "linux":
        errors.append("test_socket")
    output = result.stdout.str()
    for name in errors:
        assert f"ERROR tests/test_behaviours.py::{name} " in output
    for name in ("test_thread_exception", "test_finaliser_exception"):
        assert f"FAILED tests/test_behaviours.py::{name} " in output
    result.assert_outcomes(passed=1 + len(errors), failed=2, errors=len(errors))
