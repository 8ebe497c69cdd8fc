"""The WebSocket part before the Autobahn test suite, which sends frames of every kind of wrongness.

https://github.com/crossbario/autobahn-testsuite says what each case is. The suite runs on Python
2.7 alone. Its cases 12 and 13 are about an extension that no client of Discord's asks for.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardlib import connection as connections
from shardlib.compression import PlainText
from shardlib.connection import Connection, ConnectionLost
from shardlib.deadline import Deadline
from shardlib.errors import BrokenStream, ConnectionFailed
from shardlib.frames import TEXT, FrameType
from shardlib.gateway import INVALID_DATA, NORMAL_CLOSURE, PROTOCOL_ERROR
from shardlib.transport import StreamBroken
from tests.support import wait_until

from .install import AUTOBAHN, python27

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

_AGENT = "shardlib"
_LARGEST = 64 << 20  # bytes; the largest message of the suite has 16 MiB


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The suite as a server: its URL, and the directory of its reports."""
    interpreter = python27()
    if interpreter is None or not AUTOBAHN.is_dir():
        pytest.skip("the suite is not installed: python tests/interop/install.py autobahn")
    directory = tmp_path_factory.mktemp("autobahn")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"ws://127.0.0.1:{free.getsockname()[1]}"
    specification = directory / "suite.json"
    specification.write_text(
        json.dumps(
            {
                "url": url,
                "outdir": str(directory / "reports"),
                "webport": 0,
                "cases": ["*"],
                "exclude-cases": ["12.*", "13.*"],
                "exclude-agent-cases": {},
            }
        )
    )
    program = (
        f"import site; site.addsitedir({str(AUTOBAHN)!r});"
        "from autobahntestsuite.wstest import run; run()"
    )
    command = [interpreter, "-c", program, "-m", "fuzzingserver", "-s", str(specification)]
    with subprocess.Popen(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_until(lambda: _answers(url), 15, "the suite's port")
            yield url, directory / "reports"
        finally:
            server.kill()


def _answers(url: str) -> bool:
    try:
        _run(f"{url}/getCaseCount")
    except ConnectionFailed:
        return False
    return True


def _run(url: str) -> list[bytes]:
    """Echo messages until the server ends the connection; return the messages."""
    connection = Connection(
        url,
        inflater=PlainText(_LARGEST),
        max_payload=_LARGEST,
        connect_timeout=10.0,
        send_timeout=10.0,
        ssl_context=None,
        proxy=None,
        hide_token=lambda text: text,
    )
    received = []
    connection.open()
    try:
        while True:
            for frame_type, data in connection.receive(Deadline(30.0)):
                received.append(data)
                if frame_type == TEXT:
                    data.decode()
                _echo(connection, data, FrameType(frame_type))
    except ConnectionLost:
        return received
    except BrokenStream:
        connection.close(PROTOCOL_ERROR, Deadline(1.0))
    except UnicodeDecodeError:
        connection.close(INVALID_DATA, Deadline(1.0))
    finally:
        connection.release()
    return received


def _echo(connection: Connection, data: bytes, frame_type: FrameType) -> None:
    # Not by send(), which keeps to the Gateway's 120 text messages a minute.
    try:
        connection._transmit(data, frame_type, Deadline(10.0), lambda: 0.0)
    except StreamBroken:
        pass  # some cases close before they read the answer


def test_frames_of_every_kind_of_wrongness_are_told_from_good_ones(
    suite: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, reports = suite
    # The suite wants its code 1000 repeated, which a client of the Gateway must not do.
    monkeypatch.setattr(connections, "RESUMABLE_CLOSE_CODE", NORMAL_CLOSURE)
    number = int(_run(f"{url}/getCaseCount")[0])
    for case in range(1, number + 1):
        _run(f"{url}/runCase?case={case}&agent={_AGENT}")
    _run(f"{url}/updateReports?agent={_AGENT}")

    results = json.loads((reports / "index.json").read_text())[_AGENT]
    behaviour = {case: (each["behavior"], each["behaviorClose"]) for case, each in results.items()}
    others = {case: both for case, both in behaviour.items() if both != ("OK", "OK")}
    told = ("INFORMATIONAL", "INFORMATIONAL")  # the standard leaves them open
    # UTF-8 is judged at the end of a message, where the standard would have it judged at once.
    late = ("NON-STRICT", "OK")
    assert others == {
        "6.4.1": late,
        "6.4.2": late,
        "6.4.3": late,
        "6.4.4": late,
        "7.1.6": told,
        "7.13.1": told,
        "7.13.2": told,
    }
    assert Counter(case.partition(".")[0] for case in behaviour)["9"] == 54
