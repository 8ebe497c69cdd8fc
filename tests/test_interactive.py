"""At a prompt and in a notebook: functions defined again, shards made again, what repr() shows."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shardlib
from shardlib import ConnectionFailed, Shard
from shardlib.testing import LocalGateway
from tests.recorder import Recorder
from tests.shards import make_gateway, make_shard
from tests.support import TOKEN, wait_until

ROOT = Path(__file__).parent.parent

Names = dict[str, Any]


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python sets this when a person types the program in."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)


def run_cell(code: str, shard: Shard, module: str = "__main__") -> Names:
    """Run code as a cell of a notebook, whose names are those of a module, does."""
    names: Names = {"__name__": module, "shard": shard, "calls": []}
    exec(textwrap.dedent(code), names)
    return names


def dispatch(shard: Shard, event: str = "TICK") -> None:
    """Have a shard that is not connected handle an event."""
    shard._handle_message('{"op":0,"t":"%s","s":null,"d":null}' % event)


LISTENER = """
    @shard.on("TICK")
    def listen(shard, data):
        calls.append("TICK")
"""


# Functions that are defined again


def test_a_function_registered_again_replaces_the_earlier_one_at_its_place(prompt: None) -> None:
    shard = make_shard()
    order: list[str] = []
    first = run_cell(LISTENER, shard)
    shard.on("TICK", lambda *_: order.append("lambda"))
    second = run_cell(LISTENER.replace('calls.append("TICK")', "order.append('listen')"), shard)
    second["order"] = order
    dispatch(shard)
    assert first["calls"] == []
    assert order == ["listen", "lambda"]
    shard.off("TICK", second["listen"])
    dispatch(shard)
    assert order == ["listen", "lambda", "lambda"]
    with pytest.raises(ValueError):
        shard.off("TICK", first["listen"])


def test_the_same_function_registered_again_is_called_once(prompt: None) -> None:
    shard = make_shard()
    names = run_cell(LISTENER, shard)
    shard.on("TICK", names["listen"])
    dispatch(shard)
    assert names["calls"] == ["TICK"]


def test_the_first_replacement_of_a_shard_is_told_as_a_warning(
    prompt: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A cell may be run many times, and a notebook shows every warning."""
    shard = make_shard()
    for _ in range(4):
        run_cell(LISTENER, shard)
    levels = [each.levelno for each in caplog.records if "in place of" in each.getMessage()]
    assert levels == [logging.WARNING, logging.INFO, logging.INFO]
    assert caplog.messages[0].startswith("listen listens to TICK in place of the earlier function")


@pytest.mark.parametrize(
    "code",
    [
        LISTENER.replace("listen", "LISTEN"),
        LISTENER.replace("TICK", "TOCK"),
        """
        def register():
            @shard.on("TICK")
            def listen(shard, data):
                calls.append("TICK")
        register()
        """,
        """
        class Owner:
            def listen(self, shard, data):
                calls.append("TICK")
        shard.on("TICK", Owner().listen)
        """,
        """
        listen = lambda shard, data: calls.append("TICK")
        shard.on("TICK", listen)
        """,
    ],
    ids=["another name", "another event", "an inner function", "a method", "a lambda"],
)
def test_only_module_level_functions_of_one_name_replace_each_other(
    prompt: None, code: str
) -> None:
    shard = make_shard()
    names = [run_cell(each, shard) for each in (LISTENER, code, code.replace("LISTEN", "Listen"))]
    for event in ("TICK", "TOCK"):
        dispatch(shard, event)
    expected = [1, 0, 1] if "TOCK" in code else [1, 1, 1]  # the second TOCK replaces the first
    assert [len(each["calls"]) for each in names] == expected


def test_functions_of_another_module_do_not_replace_each_other(prompt: None) -> None:
    shard = make_shard()
    names = [run_cell(LISTENER, shard, "bot") for _ in range(2)]
    dispatch(shard)
    assert [each["calls"] for each in names] == [["TICK"]] * 2


def test_outside_an_interactive_session_nothing_is_replaced() -> None:
    """Not even if IPython is imported, for example by a library that draws with it."""
    if importlib.util.find_spec("IPython") is not None:
        importlib.import_module("IPython")
    shard = make_shard()
    names = [run_cell(LISTENER, shard) for _ in range(2)]
    dispatch(shard)
    assert [each["calls"] for each in names] == [["TICK"]] * 2


SESSION = """
    import sys
    from shardlib import Intents, Shard
    shard = Shard(sys.argv[1], Intents.GUILDS)
    shard.connect(sys.argv[2])
    shard.wait_until_ready(20)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is needed")
def test_at_the_prompt_of_python_a_corrected_function_is_the_one_that_is_called(
    gateway: LocalGateway,
) -> None:
    pexpect = pytest.importorskip("pexpect")
    # Registered twice by the program, which runs before there is a prompt, it is called twice.
    program = (
        f"{textwrap.dedent(SESSION)}\ndef greet(shard, data): print('greeted by', 'program')\n"
    )
    program += "shard.on('TICK', greet); shard.on('TOCK', greet); shard.on('TOCK', greet)\n"
    environment = {**os.environ, "PYTHON_BASIC_REPL": "1", "TERM": "dumb"}
    arguments = ["-q", "-i", "-c", program, TOKEN, gateway.url]
    child = pexpect.spawn(
        sys.executable, arguments, cwd=ROOT, env=environment, timeout=20, encoding="utf-8"
    )
    try:
        child.expect_exact(">>> ")
        gateway.dispatch("TOCK", {})
        child.expect_exact("greeted by program\r\ngreeted by program\r\n")
        child.sendline("def greet(shard, data): print('greeted by', 'prompt')\n")
        child.expect_exact(">>> ")
        child.sendline("_ = shard.on('TICK', greet)")
        child.expect_exact("greet listens to TICK in place of the earlier function of that name")
        gateway.dispatch("TICK", {})
        gateway.dispatch("TOCK", {})
        child.expect_exact("greeted by prompt\r\ngreeted by program\r\ngreeted by program\r\n")
        child.sendline("shard")
        # The first heartbeat comes at a random moment: its ping may be known by now, or not.
        child.expect(r"<Shard 0/1 ready, session \w+(, ping \d+ ms)?>")
        child.sendline("exit()")
        child.expect(pexpect.EOF)
        assert child.wait() == 0
        assert gateway.all_connections[0].wait_closed() == 4000
    finally:
        child.close(force=True)


def test_in_ipython_a_cell_that_is_run_again_replaces_its_function(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    """A notebook's kernel is an IPython of this kind, too."""
    pytest.importorskip("IPython")
    code = """
        import sys
        from IPython.terminal.interactiveshell import TerminalInteractiveShell

        session = TerminalInteractiveShell.instance()
        del sys.ps1  # this shell sets it as well, but get_ipython() is what others are known by
        session.run_cell(sys.argv[3]).raise_error()
        for answer in ("first", "second"):
            session.run_cell(f'''
                @shard.on("TICK")
                def reply(shard, data):
                    print("the {answer}", flush=True)
            ''').raise_error()
        session.run_cell("line = input()").raise_error()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), TOKEN, gateway.url, SESSION],
        cwd=ROOT,
        env={**os.environ, "IPYTHONDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        told = "reply listens to TICK in place of the earlier function of that name"
        assert any(told in line for line in process.stderr)  # IPython may warn before
        gateway.dispatch("TICK", {})
        assert process.stdout is not None
        assert process.stdout.readline() == "the second\n"
        rest, _ = process.communicate("\n", timeout=20)
        assert "the first" not in rest
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


# Shards that are made again


TWIN = "another Shard of this process is connected with the same token"


@pytest.mark.parametrize("method", ["connect", "start"])
def test_a_second_shard_beside_a_connected_one_of_the_same_token_and_id_is_told_of_once(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """A cell that makes a shard and connects it is run again: no name refers to the old one."""
    shard = make_shard()
    shard.connect(gateway.url)
    assert TWIN not in caplog.text
    del shard
    gc.collect()
    with make_shard() as shard:
        for _ in range(2):
            getattr(shard, method)(gateway.url)
            shard.wait_until_ready(10)
            shard.disconnect()
        assert caplog.text.count(TWIN) == 1
        [old] = shardlib.running_shards()
        old.disconnect()
        assert shardlib.running_shards() == []


@pytest.mark.parametrize(
    "options",
    [{"shard_id": 1, "shard_count": 2}, {"shard_count": 2}, {"token": "another"}],
    ids=["another id", "another count", "another token"],
)
def test_a_running_shard_that_gets_other_events_is_not_warned_of(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    """Shards of another count run beside the old ones while a bot is divided anew."""
    gateway.outage()
    with make_shard(**options) as other, make_shard() as shard:
        other.start(gateway.url)
        shard.start(gateway.url)
        assert shardlib.running_shards() == [other, shard]
        assert TWIN not in caplog.text


def test_a_shard_that_does_not_run_is_not_warned_of(
    gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.outage()
    with make_shard() as closed, make_shard(), make_shard() as shard:
        closed.start(gateway.url)
        closed.disconnect()
        shard.start(gateway.url)
        assert shardlib.running_shards() == [shard]
        assert TWIN not in caplog.text


# What repr() shows


def test_repr_shows_state_session_ping_and_error_but_no_token(gateway: LocalGateway) -> None:
    recorder = Recorder()
    shard = make_shard(recorder)
    assert repr(shard) == "<Shard 0/1 disconnected>"
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    assert repr(shard) == f"<Shard 0/1 ready, session {shard.session_id}>"
    shard.heartbeat()
    recorder.wait_for("heartbeat")
    ping = round((shard.heartbeat_ping or 0) * 1000)
    assert repr(shard) == f"<Shard 0/1 ready, session {shard.session_id}, ping {ping} ms>"
    gateway.connections[0].close(4004)
    with pytest.raises(shardlib.AuthenticationFailed):
        shard.join(10)
    assert repr(shard).startswith("<Shard 0/1 closed: AuthenticationFailed")
    gateway.stop()
    with pytest.raises(ConnectionFailed):
        shard.connect(gateway.url)
    assert repr(shard).startswith("<Shard 0/1 disconnected: ConnectionFailed")


def test_repr_escapes_a_session_id_and_hides_a_token_in_it() -> None:
    shard = make_shard()
    data = '{"session_id":"\\u001b[31m%s","resume_gateway_url":null}' % TOKEN
    shard._handle_message('{"op":0,"t":"READY","s":1,"d":%s}' % data)
    wait_until(lambda: shard.session_id is not None)
    assert repr(shard) == r"<Shard 0/1 disconnected, session \x1b[31m***>"
