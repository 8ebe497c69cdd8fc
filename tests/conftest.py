"""Fixtures that fail a test that leaves a thread or socket behind, or shows the token.

pytest itself reports exceptions in threads and in finalisers, as warnings that setup.cfg turns into
errors.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest

from shardlib import ShardError
from tests.pseudoterminal import PseudoTerminal
from tests.support import TOKEN, wait_until
from tests.windows import open_tk, virtual_display

pytest_plugins = ["pytester"]

# A shell starts background jobs with SIGINT ignored, and the programs that the tests start would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example, and making it, may take any time: the machine may be busy.
hypothesis.settings.register_profile(
    "shardlib", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shardlib")

_TIME_TO_GO = 30.0  # seconds that a thread or a socket may take to end after its test
_DESCRIPTORS = "/proc/self/fd"
_LONGEST_ID = 60


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name the rows of a table by their dicts, lists and tuples, which pytest would only number."""
    if not isinstance(val, (dict, list, tuple)):
        return None
    shown = repr(val)
    # An address differs from one process of pytest-xdist to the next.
    return None if " at 0x" in shown else shown[:_LONGEST_ID]


def pytest_collection_finish() -> None:
    """Spare the garbage collector the modules and tests, which live as long as the process.

    To look through them takes a tenth of a second, and several times that on a busy machine, in
    which no thread acknowledges a heartbeat.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def token() -> str:
    return TOKEN


@pytest.fixture
def terminal() -> Iterator[PseudoTerminal]:
    if sys.platform == "win32":
        pytest.skip("the system has no pseudo-terminals")
    terminal = PseudoTerminal()
    yield terminal
    terminal.close()


@pytest.fixture(scope="session")
def display() -> Iterator[str | None]:
    """The name of an X display, to which tkinter has connected; None if the machine has none."""
    with virtual_display() as name:
        if name is not None:
            open_tk(name).destroy()  # tkinter never closes its socket
        yield name


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    threads = set(threading.enumerate())
    sockets = _open_sockets()
    yield
    _wait_for_none(lambda: set(threading.enumerate()) - threads, "threads left behind")
    _wait_for_none(lambda: _open_sockets() - sockets, "sockets left open")


def _wait_for_none(left: Callable[[], set[Any]], what: str) -> None:
    try:
        wait_until(lambda: not left(), _TIME_TO_GO)
    except AssertionError:
        pytest.fail(f"{what}: {left()}", pytrace=False)


def _open_sockets() -> set[str]:
    """The open sockets of this process; an empty set if the system does not list them."""
    if not os.path.isdir(_DESCRIPTORS):
        return set()
    targets = set()
    for descriptor in os.listdir(_DESCRIPTORS):
        try:
            targets.add(os.readlink(f"{_DESCRIPTORS}/{descriptor}"))
        except FileNotFoundError:  # closed since it was listed
            continue
    return {target for target in targets if target.startswith("socket:")}


class _TokenWatch(logging.Handler):
    """Remembers which log records showed the token."""

    def __init__(self) -> None:
        super().__init__(level=0)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # Other handlers may show the arguments on their own.
        if TOKEN in self.format(record) + repr(record.args):
            self.found.append(f"{record.name}, {record.filename}:{record.lineno}: {record.msg!r}")


@pytest.fixture(autouse=True)
def token_in_no_log_record() -> Iterator[None]:
    watch = _TokenWatch()
    loggers = [logging.getLogger(), logging.getLogger("shardlib")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(watch)
        logger.setLevel(1)  # everything; a level of 0 would mean to inherit one
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(watch)
        logger.setLevel(level)
    if watch.found:
        pytest.fail("the token stands in log records:\n" + "\n".join(watch.found), pytrace=False)


@pytest.fixture(autouse=True)
def token_in_no_error() -> Iterator[None]:
    """Users paste what an error says into bug reports."""
    found: list[str] = []

    def watch(error: ShardError, *arguments: object) -> None:
        super(ShardError, error).__init__(*arguments)
        if TOKEN in repr(arguments):
            found.append(type(error).__name__)

    ShardError.__init__ = watch  # type: ignore[method-assign, assignment]
    yield
    del ShardError.__init__
    if found:
        pytest.fail(f"the token stands in errors: {found}", pytrace=False)
