"""The end of a process: within a second, and without a line of the library on standard error."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from shardlib.testing import LocalGateway
from tests.reliability.support import Child
from tests.support import AT_ONCE

BEGINNING = """
import atexit
atexit.register(time.sleep, 0.1)  # after the library's: lets its threads print what they would
from shardlib import Backoff
shard = make(backoff=Backoff(base=60.0, cap=60.0), close_timeout=30.0)
shard.connect(sys.argv[1])
shard.wait_until_ready()
"""

# How a program ends once it has printed "now": its last lines, its status (negative if a signal
# ends it), and the close code that the Gateway receives (None: no close frame).
WAYS: dict[str, tuple[str, int, int | None]] = {
    "falls off its end": ("tell('now')", 0, 4000),
    "exits": ("tell('now'); sys.exit(3)", 3, 4000),
    "disconnects": ("tell('now'); shard.disconnect()", 0, 1000),
    "keeps the session": ("tell('now'); shard.disconnect(4000)", 0, 4000),
    "its threads still wait": (
        """
for wait in (shard.join, lambda: shard.wait_for("NEVER")):
    threading.Thread(target=wait, daemon=True).start()
tell("now")
        """,
        0,
        4000,
    ),
    "its callback does not return": (
        """
inside = threading.Event()
shard.on_socket_heartbeat = lambda *_: (inside.set(), threading.Event().wait())
shard.heartbeat()
inside.wait()
tell("now")
        """,
        0,
        4000,
    ),
    "between two attempts": (
        """
states = []
shard.on_socket_state = lambda shard, state: states.append(state.value)
tell("ready")
import logging
logging.disable()  # the log tells of the failed attempt, which this test is not about
while states.count("waiting") < 2:  # no pause precedes the first attempt
    time.sleep(0.001)
tell("now")
        """,
        0,
        None,
    ),
}

# The same for a program that is sent a signal.
SIGNALLED: dict[str, tuple[signal.Signals, str, int, int | None]] = {
    "SIGTERM without a handler": (
        signal.SIGTERM,
        "tell('now'); shard.join()",
        -signal.SIGTERM,
        None,
    ),
    "SIGTERM, and the handler disconnects": (
        signal.SIGTERM,
        """
signal.signal(signal.SIGTERM, lambda *_: shard.disconnect())
tell("now")
shard.join()
        """,
        0,
        1000,
    ),
    "SIGTERM, and the handler exits": (
        signal.SIGTERM,
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
tell("now")
shard.wait_for("NEVER")
        """,
        0,
        4000,
    ),
    "SIGTERM, and the handler exits out of a with block": (
        signal.SIGTERM,
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with shard:
    tell("now")
    while True:  # short waits: Python handles a signal that comes just before a wait after it
        time.sleep(0.1)
        """,
        0,
        1000,
    ),
    "SIGINT, caught": (
        signal.SIGINT,
        """
try:
    tell("now")
    shard.join()
except KeyboardInterrupt:
    pass
        """,
        0,
        4000,
    ),
    "SIGINT, caught by run_forever": (
        signal.SIGINT,
        """
shard.disconnect(4000)
shard.on_socket_reconnected = lambda *_: tell("now")
shard.run_forever(sys.argv[1])
        """,
        0,
        1000,
    ),
}


@pytest.mark.parametrize("way", [*WAYS, *SIGNALLED])
def test_a_program_that_ends_is_gone_at_once(way: str, gateway: LocalGateway) -> None:
    """Row 27: no thread keeps the process, and standard error is empty."""
    if way in WAYS:
        code, status, close_code = WAYS[way]
        number = None
    else:
        number, code, status, close_code = SIGNALLED[way]

    with Child(BEGINNING + code, gateway.url) as child:
        if way == "between two attempts":
            child.expect("ready")
            gateway.outage()
        child.expect("now")
        since = time.monotonic()
        if number is not None:
            child.signal(number)
        assert child.wait() == status
        assert time.monotonic() - since < AT_ONCE  # a second, on a machine that is not busy
        assert child.stderr == ""
    assert gateway.all_connections[-1].wait_closed() == close_code


# How a program that ends makes the library wait for a callback, and what comes meanwhile.
IMPATIENT = {
    "Ctrl-C, a shard": (
        signal.SIGINT,
        """
shardlib.shard.EXIT_TIMEOUT = 60.0
shard.connect(sys.argv[1])
shard.wait_until_ready()
        """,
    ),
    "SIGTERM, and the handler exits, a shard": (
        signal.SIGTERM,
        """
shardlib.shard.EXIT_TIMEOUT = 60.0
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
shard.connect(sys.argv[1])
shard.wait_until_ready()
        """,
    ),
    "Ctrl-C, a manager": (
        signal.SIGINT,
        """
import shardlib.manager
shardlib.manager.EXIT_TIMEOUT = 60.0
from shardlib import GatewayBot, IdentifyGate, ShardManager
from tests.support import TOKEN
manager = ShardManager(
    TOKEN, 0, 2, gateway_bot=GatewayBot(sys.argv[1], 2, 1000, 1000, 0.0, 2),
    identify_gate=IdentifyGate(2, interval=0.001, slack=0), on_socket_disconnected=stay,
)
manager.connect(sys.argv[1])
manager.wait_until_ready()
        """,
    ),
    "Ctrl-C, one_process()": (
        signal.SIGINT,
        """
from shardlib.embed import one_process
def start(session):
    shard.start(sys.argv[1])
    return shard
one_process(sys.argv[2], start)
while not (shard.session_id and shard.socket_active):
    time.sleep(0.001)
        """,
    ),
}


@pytest.mark.parametrize("way", IMPATIENT)
def test_a_signal_while_the_exit_waits_ends_the_wait_and_shows_no_traceback(
    way: str, gateway: LocalGateway, tmp_path: Path
) -> None:
    """A user who presses Ctrl-C twice; a process manager that sends SIGTERM twice."""
    number, code = IMPATIENT[way]
    beginning = """
import shardlib.shard
def stay(*_):
    tell("closing")
    threading.Event().wait()
shard = make(on_socket_disconnected=stay, close_timeout=60.0)
"""
    with Child(beginning + code, gateway.url, str(tmp_path / "lock")) as child:
        child.expect("closing")
        child.signal(number)
        assert child.wait(AT_ONCE) == 0
        assert child.stderr == ""


def test_a_program_that_raises_ends_with_its_own_traceback_and_no_other(
    gateway: LocalGateway,
) -> None:
    """Row 27: the library adds nothing to standard error."""
    with Child(BEGINNING + "raise LookupError('mine')", gateway.url) as child:
        assert child.wait() == 1
    assert child.stderr.count("Traceback") == 1
    assert child.stderr.endswith("LookupError: mine\n")
    assert gateway.all_connections[-1].wait_closed() == 4000
