"""The command ``shardlib``, run as users run it: as a process with pipes, files and Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from shardlib import IdentifyGate, Intents, InvalidShard, Shard
from shardlib.cli.faults import Script
from shardlib.cli.program import run
from shardlib.cli.shutdown import Shutdown
from shardlib.cli.summary import _SUMMARIES, Places, summarize
from shardlib.testing import LocalGateway
from tests.command import CTRL_C, PATIENCE, Command, Pipe, assert_quiet, run_to_end, wait_for
from tests.support import TOKEN, in_background, wait_until

LINE = re.compile(r"\d\d:\d\d:\d\d +(\d+)  ([A-Z_]+)\b.*")


def sequences(lines: list[str]) -> list[int]:
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    return [int(match[1]) for match in matches if match]


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(identify_interval=0) as gateway:
        yield gateway


# tail


def test_tail_prints_one_line_for_each_event() -> None:
    command = run_to_end("tail", "--local", "--count", "12")
    assert command.status == 0
    assert sequences(command.out) == list(range(1, 13))
    assert " READY " in command.out[0]
    assert "GUILD_CREATE" in command.out[1]
    assert "members" in command.out[1]
    assert any("connecting to ws://127.0.0.1" in line for line in command.err)


def test_tail_with_json_prints_the_payloads_of_chosen_events() -> None:
    command = run_to_end(
        "tail", "--local", "--json", "--events", "ready,GUILD_CREATE", "--count", "3"
    )
    assert command.status == 0
    payloads = [json.loads(line) for line in command.out]
    assert [payload["t"] for payload in payloads] == ["READY", "GUILD_CREATE", "GUILD_CREATE"]
    assert payloads[0]["d"]["user"]["username"] == "local-bot"


@pytest.mark.parametrize("compression", ["none", "payload"])
def test_tail_connects_with_the_shard_intents_and_compression_it_is_told(
    gateway: LocalGateway, compression: str
) -> None:
    command = run_to_end(
        *("tail", "--url", gateway.url, "--count", "1", "--shard", "1/2"),
        *("--intents", "guilds,guild_messages", "--compression", compression),
        token=gateway.token,
    )
    assert command.status == 0
    (connection,) = gateway.all_connections
    identify = next(payload for payload in connection.received if payload["op"] == 2)["d"]
    assert identify["shard"] == [1, 2]
    assert identify["intents"] == 1 << 0 | 1 << 9
    assert connection.compression == (None if compression == "none" else compression)
    assert connection.close_code == 1000


def test_control_characters_in_a_message_are_escaped_in_the_terminal(gateway: LocalGateway) -> None:
    channel = next(iter(gateway.world.guilds.values())).text_channels[0]
    author = next(iter(next(iter(gateway.world.guilds.values())).members))
    with Command(
        *("tail", "--url", gateway.url, "--intents", "all"),
        *("--events", "MESSAGE_CREATE", "--count", "1"),
        token=gateway.token,
    ) as command:
        command.read()
        gateway.wait_for_connection(lambda it: it.session, PATIENCE)
        gateway.send_message(channel["id"], author, "\x1b]0;you\x07 \x9b2J\r\n\u202e\ud800 ok")
        assert command.finish() == 0
    (line,) = command.out
    assert line.isprintable()
    assert r"\x1b]0;you\x07 \x9b2J\r\n\u202e" in line


def test_tail_with_json_prints_valid_json_for_nan_and_deep_data(gateway: LocalGateway) -> None:
    deep = "[" * 1000 + "]" * 1000
    with Command(
        *("tail", "--url", gateway.url, "--json", "--events", "ODD", "--count", "2"),
        token=gateway.token,
    ) as command:
        command.read()
        connection = gateway.wait_for_connection(lambda it: it.session, PATIENCE)
        connection.send_compressed('{"t":"ODD","s":null,"op":0,"d":{"a":NaN,"b":[1e999],"c":1.5}}')
        connection.send_compressed('{"t":"ODD","s":null,"op":0,"d":%s}' % deep)
        assert command.finish() == 0

    def refuse(name: str) -> None:
        raise ValueError(name)

    first, second = (json.loads(line, parse_constant=refuse) for line in command.out)
    assert first["d"] == {"a": None, "b": [None], "c": 1.5}
    assert second["t"] == "ODD"  # whether its data can be written depends on Python's version


def test_a_slow_reader_of_the_pipe_gets_every_event(gateway: LocalGateway) -> None:
    count = 3000
    data = {"content": "x" * 1000}
    with (
        Pipe() as pipe,
        Command(
            *("tail", "--url", gateway.url, "--json", "--events", "SLOW", "--count", str(count)),
            token=gateway.token,
            stdout=pipe,
        ) as command,
    ):
        gateway.wait_for_connection(lambda it: it.session, PATIENCE)
        for _ in range(count):
            gateway.dispatch("SLOW", data)
        wait_until(pipe.is_full, PATIENCE)
        lines = pipe.read_rest()
        assert command.finish() == 0
    numbers = [json.loads(line)["s"] for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + count))


def test_tail_reports_a_resume_on_standard_error(gateway: LocalGateway) -> None:
    with Command(
        "tail", "--url", gateway.url, "--events", "RESUMED", "--count", "1", token=gateway.token
    ) as command:
        command.read()
        gateway.wait_for_connection(lambda it: it.session, PATIENCE).reconnect()
        assert command.finish() == 0
    assert "resuming now" in wait_for(command.err, "asked for a new connection (op 7)")
    assert "RESUMED" in command.out[0]


# Ctrl-C


@pytest.mark.parametrize(("name", "status"), [("tail", 0), ("doctor", 1)])
def test_ctrl_c_while_modules_are_imported_ends_the_command_quietly(name: str, status: int) -> None:
    # The interpreter prints each module that it has imported; many follow this one.
    with Command(name, "--local", options=("-X", "importtime")) as command:
        command.read()
        wait_for(command.err, "shardlib.cli.errors")
        command.interrupt()
        assert command.finish(CTRL_C) == status
    assert_quiet(command)


@pytest.mark.parametrize("arguments", [["doctor"], ("doctor",)])
def test_ctrl_c_before_the_doctor_examines_anything_ends_it_with_status_1(
    arguments: Sequence[str],
) -> None:
    program = (
        "import signal; from shardlib.cli import main, program; "
        "program.run = lambda arguments: signal.raise_signal(signal.SIGINT); "
        f"main({arguments!r})"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=PATIENCE).returncode == 1


@pytest.mark.parametrize("arguments", [("tail", "--local"), ("gateway", "--tls")])
def test_ctrl_c_while_the_command_runs_ends_it_quietly(arguments: tuple[str, ...]) -> None:
    with Command(*arguments) as command:
        command.read()
        wait_until(lambda: command.out, PATIENCE)
        command.interrupt()
        command.interrupt()  # a second Ctrl-C does no harm
        assert command.finish(CTRL_C) == 0
    assert_quiet(command)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between threads")
def test_a_signal_that_ends_no_wait_of_the_system_ends_a_commands_long_wait() -> None:
    """On Windows no signal does, and elsewhere none that another thread receives."""
    replaced = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in replaced]
    waiting, wait = threading.get_ident(), Shutdown.wait.__code__

    def press_ctrl_c() -> None:
        wait_until(lambda: sys._current_frames()[waiting].f_code is wait)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    try:
        shutdown = Shutdown(watches_output=False)
        pressing = in_background(press_ctrl_c)
        assert shutdown.wait(20)
        pressing.result(10)
    finally:
        for number, handler in zip(replaced, handlers, strict=True):
            signal.signal(number, handler)


def interrupted_while_it_waits(*arguments: str, scheme: str) -> Command:
    """A command that was interrupted while a server, whose URL is its last argument, is silent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = "%s://127.0.0.1:%d/" % (scheme, silent.getsockname()[1])
        with Command(*arguments, url, token=TOKEN) as command:
            command.read()
            silent.settimeout(PATIENCE)
            client, _ = silent.accept()
            with client:
                command.interrupt()
                assert command.finish(CTRL_C) == 0
    return command


def test_ctrl_c_while_the_command_connects_ends_it_quietly() -> None:
    assert_quiet(interrupted_while_it_waits("tail", "--url", scheme="ws"))


def test_ctrl_c_while_the_command_waits_to_connect_again_ends_it_quietly(
    gateway: LocalGateway,
) -> None:
    with Command("tail", "--url", gateway.url, token=gateway.token) as command:
        command.read()
        wait_for(command.out, "READY")
        gateway.outage()
        wait_for(command.err, "cannot connect to")
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    assert_quiet(command)


def test_ctrl_c_while_the_pipe_is_full_ends_the_command(gateway: LocalGateway) -> None:
    with (
        Pipe() as pipe,
        Command(
            "tail", "--url", gateway.url, "--json", token=gateway.token, stdout=pipe
        ) as command,
    ):
        gateway.wait_for_connection(lambda it: it.session, PATIENCE)
        gateway.traffic(rate=None)
        wait_until(pipe.is_full, PATIENCE)
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    assert_quiet(command)


def waits_for_a_pipe(process: int) -> bool:
    """True while a thread of a process is stuck in a full pipe."""
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            if "pipe_write" in (task / "wchan").read_text():
                return True
    return False


@pytest.mark.skipif(not Path("/proc/self/wchan").exists(), reason="only Linux tells")
def test_a_signal_while_the_warning_of_a_misspelt_event_meets_a_full_pipe_ends_the_command() -> (
    None
):
    with Pipe() as pipe:
        pipe.fill()
        arguments = ("tail", "--local", "--events", "MESSAGE_CREAT")
        with Command(*arguments, stderr=pipe) as command:
            wait_until(lambda: waits_for_a_pipe(command.process.pid), PATIENCE)
            command.process.send_signal(signal.SIGTERM)
            assert command.finish(CTRL_C) == 0


@pytest.mark.slow
@pytest.mark.parametrize("where", [("--local",), ()], ids=["local", "url"])
def test_ctrl_c_while_both_streams_are_stuck_in_one_full_pipe_ends_the_command(
    where: tuple[str, ...], gateway: LocalGateway
) -> None:
    """``tail -v 2>&1 | less``: a handler of the log held a lock while its thread was stuck."""
    place = where or ("--url", gateway.url)
    with (
        Pipe() as pipe,
        Command("tail", "-v", *place, token=gateway.token, stdout=pipe, stderr=pipe) as command,
    ):
        if not where:
            gateway.wait_for_connection(lambda it: it.session, PATIENCE)
            gateway.traffic(rate=None)
        wait_until(pipe.is_full, PATIENCE)
        command.interrupt()
        assert command.finish(CTRL_C) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_pipe_is_full_ends_the_gateway(number: signal.Signals) -> None:
    """The main thread printed the status itself, and took no notice of a signal meanwhile."""
    with (
        Pipe() as pipe,
        Command("gateway", "--rate", "0", stdin=subprocess.PIPE, stdout=pipe) as command,
    ):
        assert command.process.stdin is not None
        command.process.stdin.write(b"Is anybody there?\n" * 2000)
        command.process.stdin.flush()
        wait_until(pipe.is_full, PATIENCE)
        command.process.send_signal(number)
        assert command.finish(CTRL_C) == 0
    assert_quiet(command)


# Pipes and files


def test_tail_ends_quietly_when_head_closes_the_pipe() -> None:
    with Command("tail", "--local") as command:
        head = subprocess.run(
            ["head", "-n", "1"],
            stdin=command.process.stdout,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        assert command.process.stdout is not None
        command.process.stdout.close()
        assert command.finish() == 0
    assert b" READY " in head.stdout
    assert_quiet(command)


def test_tail_ends_when_the_pipe_is_closed_even_without_an_event() -> None:
    with Command("tail", "--local", "--events", "NEVER") as command:
        wait_for(command.err, "ready")
        assert command.process.stdout is not None
        command.process.stdout.close()
        assert command.finish() == 0
    assert_quiet(command)


def test_tail_ends_when_the_pipe_of_both_streams_is_closed() -> None:
    with Command("tail", "--local", "-v", stderr=subprocess.STDOUT) as command:
        assert command.process.stdout is not None
        assert b"connecting" in command.process.stdout.readline()
        command.process.stdout.close()
        assert command.finish() == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_reported_in_one_line() -> None:
    with open("/dev/full", "wb") as full, Command("tail", "--local", stdout=full) as command:
        assert command.finish() == 1
    assert command.err[-1] == "shardlib: standard output cannot be written: No space left on device"
    assert_quiet(command)


# Errors


def test_a_wrong_token_is_reported_in_one_line(gateway: LocalGateway) -> None:
    command = run_to_end("tail", "--url", gateway.url, token=TOKEN)
    assert command.status == 1
    assert not command.out
    connecting, error = command.err
    assert "connecting to" in connecting
    assert error.startswith("shardlib: ")
    assert "4004" in error
    assert "Developer Portal" in error
    assert TOKEN not in error


def test_a_refused_connection_is_reported_in_one_line() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        url = "ws://127.0.0.1:%d/" % bound.getsockname()[1]
        command = run_to_end("tail", "--url", url, token=TOKEN)
    assert command.status == 1
    assert "Connection refused" in command.err[-1]
    assert len(command.err) == 2


@pytest.mark.parametrize("arguments", [("tail", "--local"), ("shards", "--local"), ("gateway",)])
def test_without_websockets_the_command_says_what_to_install(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "websockets.py").write_text("raise ModuleNotFoundError(name='websockets')")
    command = run_to_end(*arguments, environment={"PYTHONPATH": str(tmp_path)})
    assert command.status == 1
    (line,) = command.err
    assert line.startswith("shardlib: ")
    assert 'pip install "shardlib[local]"' in line


def test_bad_arguments_end_the_process_with_status_2() -> None:
    command = run_to_end("tail", "--count", "0")
    assert command.status == 2
    assert command.err == [
        "shardlib: argument --count: it must be 1 or more, not 0 (see shardlib tail --help)"
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["watch"], "watch"),
        (["tail", "--frobnicate"], "--frobnicate"),
        (["tail", "--loc"], "--loc"),
        (["tail", "--count", "-1"], "'-1'"),
        (["tail", "--count", "many"], "'many'"),
        (["tail", "--shard", "2/2"], "'2/2'"),
        (["tail", "--shard", "1"], "'1'"),
        (["tail", "--intents", "guilds,foo"], "'foo'"),
        (["tail", "--events", "A,,B"], "''"),
        (["tail", "--compression", "gzip"], "'gzip'"),
        (["tail", "--url", "https://discord.com"], "ws://"),
        (["tail", "--local", "--url", "ws://localhost"], "--local"),
        (["tail"], "DISCORD_TOKEN"),
        (["gateway", "--port", "65536"], "65535"),
        (["gateway", "--rate", "-1"], "'-1'"),
        (["gateway", "--rate", "nan"], "'nan'"),
        (["gateway", "--identify-interval", "-1"], "a number of seconds from 0 up, not '-1'"),
        (["gateway", "--shards", "0"], "not 0"),
        (["gateway", "--session-start-limit", "0"], "not 0"),
        (["gateway", "--seed", "x"], "'x'"),
    ],
)
def test_a_bad_argument_of_the_command_is_explained_in_one_line(
    arguments: list[str],
    says: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DISCORD_TOKEN", raising=False)
    with restored_sigint(), pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert says in err
    assert err.startswith("shardlib: ")
    assert err.count("\n") == 1


def test_a_bad_argument_ends_the_command_with_status_2_also_if_standard_error_is_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with restored_sigint(), pytest.raises(SystemExit) as ended:
        run(["tail", "--count", "0"])
    assert ended.value.code == 2


class restored_sigint:
    """Restores the handler of SIGINT, which the command replaces in this process."""

    def __enter__(self) -> None:
        self._handler = signal.getsignal(signal.SIGINT)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._handler)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *(
            [command, "--help"]
            for command in ("tail", "shards", "gateway", "init", "worker", "events", "drain")
        ),
    ],
)
def test_help_of_the_command_fits_a_terminal(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: shardlib")
    assert max(map(len, lines)) <= 100


# shards


def test_shards_prints_the_limits_as_a_table(gateway: LocalGateway) -> None:
    gateway.shards = 16
    gateway.max_concurrency = 4
    with Command("tail", "--url", gateway.url, token=gateway.token) as tail:
        wait_for(tail.read().out, "READY")
    gateway.clock.advance(3630)
    command = run_to_end("shards", "--api-url", gateway.http_url, token=gateway.token)
    assert command.status == 0
    assert not command.err
    url, shards, starts, concurrency = (line.split("  ", 1) for line in command.out)
    assert url[1].strip() == gateway.url
    assert (shards[0], shards[1].strip()) == ("Shards", "16 recommended")
    assert concurrency == ["Max concurrency", "4 every 5 seconds"]
    assert re.fullmatch(
        r"Session starts   999 of 1000 left, all again in 22 h 59 min, at \d\d:\d\d:\d\d",
        "  ".join(starts),
    )


def test_shards_with_json_prints_one_object() -> None:
    command = run_to_end("shards", "--local", "--json")
    assert command.status == 0
    (line,) = command.out
    answer = json.loads(line)
    assert answer.pop("url").startswith("ws://127.0.0.1:")
    assert answer == {
        "shards": 16,  # as many as shardlib tail --local --shards auto starts
        "total": 1000,
        "remaining": 1000,
        "reset_after": 0.0,
        "max_concurrency": 16,
    }


def test_shards_asks_over_tls_what_the_environment_trusts(tmp_path: Path) -> None:
    certificate = tmp_path / "authority.pem"
    with LocalGateway(tls=True) as gateway:
        certificate.write_bytes(gateway.ca_certificate)
        arguments = ("shards", "--api-url", gateway.http_url)
        trusting = run_to_end(
            *arguments, token=gateway.token, environment={"SSL_CERT_FILE": str(certificate)}
        )
        other = run_to_end(*arguments, token=gateway.token)
    assert trusting.status == 0
    assert "1000 of 1000 left" in trusting.out[2]
    assert other.status == 1
    (error,) = other.err
    assert "certificate is not trusted" in error


@pytest.mark.parametrize(
    "arguments, token, status, says",
    [
        (["--api-url", "{url}"], TOKEN, 1, "the bot token is wrong"),
        (["--api-url", "{url}/nowhere"], TOKEN, 1, "is api_url the base of the API"),
        (["--api-url", "http://127.0.0.1:1"], TOKEN, 1, "connecting failed"),
        (["--api-url", "{url}"], None, 2, "DISCORD_TOKEN"),
        (["--api-url", "{url}"], "Bot x", 2, 'without "Bot "'),
        (["--api-url", "http://discord.com"], TOKEN, 2, "would be sent unencrypted"),
        (["--local", "--api-url", "{url}"], TOKEN, 2, "not allowed with"),
    ],
)
def test_shards_reports_an_error_in_one_line(
    arguments: list[str], token: str | None, status: int, says: str, gateway: LocalGateway
) -> None:
    url = gateway.http_url
    command = run_to_end("shards", *(each.replace("{url}", url) for each in arguments), token=token)
    assert command.status == status
    assert not command.out
    (error,) = command.err
    assert error.startswith("shardlib: ")
    assert says in error
    assert TOKEN not in error


def test_ctrl_c_while_shards_waits_for_the_answer_ends_it_quietly() -> None:
    command = interrupted_while_it_waits("shards", "--api-url", scheme="http")
    assert not command.err


# gateway


def test_gateway_prints_a_tail_command_that_connects_to_it(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(
        '[{"instead_of": "upgrade", "do": "refuse", "status": 503},'
        ' {"every": 0.2, "do": "request_heartbeat"}]'
    )
    with Command(
        "gateway", "--tls", "--guilds", "1", "--seed", "5", "--rate", "0", "--faults", str(faults)
    ) as gateway:
        gateway.read()
        suggested = wait_for(gateway.out, "DISCORD_TOKEN=").split()
        certificate, token = (word.partition("=")[2] for word in suggested[:2])
        assert suggested[2:5] == ["shardlib", "tail", "--url"]
        arguments = ("tail", "--url", suggested[5])
        trusting = {"SSL_CERT_FILE": certificate}
        refused = run_to_end(*arguments, token=token, environment=trusting)
        assert refused.status == 1
        assert "503" in refused.err[-1]
        with Command(*arguments, token=token, environment=trusting) as served:
            served.read()
            assert "1 guild," in wait_for(served.out, "READY")
            wait_for(gateway.out, "request_heartbeat, connections: 1")
            wait_for(gateway.out, "connections 1  sessions 1")
            served.interrupt()
            assert served.finish(CTRL_C) == 0
        gateway.interrupt()
        assert gateway.finish(CTRL_C) == 0
    assert not os.path.exists(certificate)
    assert_quiet(gateway)


def test_gateway_of_many_shards_prints_a_tail_command_for_all_of_them() -> None:
    options = ("--shards", "8", "--max-concurrency", "8", "--identify-interval", "0")
    with Command("gateway", *options) as gateway:
        gateway.read()
        token, shardlib, *suggested = wait_for(gateway.out, "DISCORD_TOKEN=").split()
        assert shardlib == "shardlib"
        with Command(*suggested, token=token.partition("=")[2]) as tail:
            tail.read()
            wait_for(gateway.out, "connections 8  sessions 8")
            wait_for(tail.err, "all 8 shards are ready")
            for shard_id in range(8):  # each has a guild
                wait_for(tail.out, f"{shard_id}/8       2  GUILD_CREATE")
            tail.interrupt()
            assert tail.finish(CTRL_C) == 0
        gateway.interrupt()
        assert gateway.finish(CTRL_C) == 0
    assert_quiet(gateway)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process at once")
def test_sigterm_ends_the_gateway_and_leaves_no_certificate() -> None:
    """Row 98."""
    with Command("gateway", "--tls") as gateway:
        gateway.read()
        certificate = wait_for(gateway.out, "Certificate").split()[1]
        assert os.path.exists(certificate)
        gateway.process.terminate()
        assert gateway.finish(CTRL_C) == 0
    assert not os.path.exists(certificate)
    assert_quiet(gateway)


def token_of_gateway(*arguments: str) -> str:
    """The token that a gateway tells when it is started with these arguments."""
    with Command("gateway", *arguments) as gateway:
        gateway.read()
        return wait_for(gateway.out, "Token").split()[1]


def test_gateway_takes_the_token_it_is_told_or_makes_it_from_the_seed() -> None:
    """Row 98: two runs with one seed had two tokens."""
    first, again = (token_of_gateway("--seed", "5") for _ in range(2))
    assert first == again
    assert token_of_gateway("--seed", "6") != first
    assert token_of_gateway("--seed", "5", "--token", TOKEN) == TOKEN


def test_gateway_takes_as_many_identifies_at_once_as_it_is_told() -> None:
    with Command("gateway", "--max-concurrency", "2", "--token", TOKEN) as gateway:
        gateway.read()
        url = wait_for(gateway.out, "Gateway").split()[1]
        gate = IdentifyGate(2, interval=60.0)
        shards = [Shard(TOKEN, Intents.GUILDS, number, 2, identify_gate=gate) for number in (0, 1)]
        with contextlib.ExitStack() as stack:
            for shard in shards:
                stack.enter_context(shard).connect(url)
            for shard in shards:
                shard.wait_until_ready(10)  # one after the other would take a minute


@pytest.mark.parametrize("limited", [True, False])
def test_gateway_limits_the_rate_of_requests_unless_told_otherwise(limited: bool) -> None:
    options = () if limited else ("--no-rate-limits",)
    with Command("gateway", "--rate", "0", "--token", TOKEN, *options) as gateway:
        gateway.read()
        url = wait_for(gateway.out, "HTTP API").split()[2]
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bot {TOKEN}"
            guild = session.get(f"{url}/users/@me/guilds").json()[0]["id"]
            channels = session.get(f"{url}/guilds/{guild}/channels").json()
            text = next(channel["id"] for channel in channels if channel["type"] == 0)
            messages = f"{url}/channels/{text}/messages"
            statuses = [
                session.post(messages, json={"content": "hi"}).status_code for _ in range(7)
            ]
    assert (429 in statuses) is limited


def test_gateway_takes_the_identify_interval_and_the_faults_of_a_shard(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text('[{"instead_of": "ready", "do": "close", "code": 4010, "shard_id": 1}]')
    options = ("--identify-interval", "0", "--token", TOKEN, "--faults", str(faults))
    with Command("gateway", *options) as gateway:
        gateway.read()
        url = wait_for(gateway.out, "Gateway").split()[1]
        gate = IdentifyGate(interval=0.001, slack=0)
        with contextlib.ExitStack() as stack:
            zero, one, two = (
                stack.enter_context(Shard(TOKEN, Intents.GUILDS, number, 3, identify_gate=gate))
                for number in range(3)
            )
            for shard in (zero, two):
                shard.connect(url)
                shard.wait_until_ready(10)
                # With an interval of 5 seconds, two would get op 9, and connect again.
                assert shard.stats.connections == 1
            with pytest.raises(InvalidShard):
                one.run_forever(url)


def test_gateway_takes_the_session_start_limit_it_is_told() -> None:
    with Command("gateway", "--session-start-limit", "7", "--token", TOKEN) as gateway:
        gateway.read()
        api_url = wait_for(gateway.out, "HTTP API").split()[2]
        command = run_to_end("shards", "--json", "--api-url", api_url, token=TOKEN)
    limits = json.loads(command.out[0])
    assert (limits["total"], limits["remaining"], limits["reset_after"]) == (7, 7, 0.0)


def test_gateway_says_that_its_port_is_taken(gateway: LocalGateway) -> None:
    port = gateway.url.rpartition(":")[2].rstrip("/")
    command = run_to_end("gateway", "--port", port)
    assert command.status == 1
    assert command.err == [f"shardlib: port {port} cannot be used: Address already in use"]


def test_gateway_ends_quietly_when_the_pipe_is_closed() -> None:
    with Command("gateway") as command:
        assert command.process.stdout is not None
        assert b"ws://" in command.process.stdout.readline()
        command.process.stdout.close()
        assert command.finish() == 0
    assert_quiet(command)


def refusal(name: str, value: Any) -> str:
    fault = {"instead_of": "answer", "do": "refuse", "status": 429, name: value}
    return json.dumps([fault])


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ("{", "not JSON"),
        ("{}", "must be a JSON array"),
        ("[1]", "fault 1: it must be a JSON object"),
        ("[{}]", '"before"'),
        ('[{"do": "drop"}]', '"before"'),
        ('[{"after": 1, "before": "ready", "do": "drop"}]', '"before"'),
        ('[{"before": "ready", "instead_of": "ready"}]', '"before"'),
        ('[{"after": 1}]', '"do"'),
        ('[{"after": 1, "do": "explode"}]', "'explode'"),
        ('[{"after": 0, "do": "drop"}]', "above 0"),
        ('[{"every": true, "do": "drop"}]', "above 0"),
        ('[{"before": "lunch", "do": "drop"}]', "'lunch'"),
        ('[{"before": "accept", "do": "drop"}]', "accept"),
        ('[{"before": "ready"}]', '"do"'),
        ('[{"instead_of": "ack", "connections": 0}]', '"connections"'),
        ('[{"after": 1, "do": "drop", "connections": 1}]', '"connections"'),
        ('[{"after": 1, "do": "slow"}]', "bytes_per_second"),
        (
            '[{"after": 1, "do": "close", "code": 12}]',
            "code must be one that a close frame may hold",
        ),
        ('[{"after": 1, "do": "close", "code": 1006}]', "code must be one"),
        ('[{"after": 1, "do": "close", "reason": "' + "x" * 124 + '"}]', "at most 123 bytes"),
        (r'[{"after": 1, "do": "close", "reason": "\ud800"}]', "half a surrogate pair"),
        ('[{"every": 1e-300, "do": "drop"}]', "seconds must be from 0.01"),
        ('[{"before": ["ready"], "do": "drop"}]', "is no step of a connection"),
        ('[{"before": {}, "do": "drop"}]', "is no step of a connection"),
        ('[{"after": 3, "do": "refuse", "status": 502}]', 'goes with "instead_of": "upgrade"'),
        ('[{"before": "answer", "do": "refuse", "status": 502}]', '"upgrade" or "answer"'),
        ('[{"before": "ready", "do": "accept_wrongly"}]', 'goes with "instead_of": "upgrade"'),
        ('[{"instead_of": "answer", "do": "accept_wrongly"}]', 'goes with "instead_of": "upgrade"'),
        ('[{"after": 1, "do": "close", "reason": 12}]', "reason"),
        ('[{"after": 1, "do": "drop", "code": 4000}]', "'code'"),
        ('[{"before": "ready", "do": "outage", "seconds": 1}]', "outage"),
        ('[{"after": 1, "do": "outage"}]', "seconds"),
        ('[{"after": 1, "do": "drop"}, {"after": 1, "do": "?"}]', "fault 2"),
        ('[{"after": 1, "do": "drop", "shard_id": 1}]', '"shard_id" goes with the steps ack,'),
        ('[{"instead_of": "hello", "shard_id": 1}]', '"shard_id" goes with the steps ack,'),
        ('[{"instead_of": "ready", "shard_id": "1"}]', '"shard_id" must be a number from 0 up'),
        (
            '[{"instead_of": "ready", "path": "/gateway"}]',
            '"path" goes with the steps answer, resp',
        ),
        ('[{"after": 1, "do": "drop", "method": "GET"}]', '"method" goes with the steps answer,'),
        ('[{"instead_of": "answer", "method": 1}]', '"method" must be a string, not 1'),
        ('[{"instead_of": "answer", "path": "/api/v10/gateway"}]', "without /api and the version"),
        (refusal("headers", 1), "headers must be an object, not 1"),
        (refusal("headers", {"Retry-After": 1}), "headers: Retry-After must be a string of ASCII"),
        (refusal("headers", {"X": "a\r\nb"}), "headers: X must be a string of ASCII"),
        (refusal("headers", {"X\r\n": "a"}), r"headers: 'X\r\n' is no name of a header"),
    ],
)
def test_an_invalid_faults_file_is_refused_with_the_reason(faults: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Script(faults)


def test_a_fault_of_a_file_strikes_requests_by_method_and_path(gateway: LocalGateway) -> None:
    script = Script(
        '[{"instead_of": "answer", "method": "GET", "path": "/users/*", "do": "refuse",'
        ' "status": 429, "body": "{}", "headers": {"Retry-After": "0.5"}}]'
    )
    script.inject(gateway)
    headers = {"Authorization": f"Bot {gateway.token}"}
    paths = ("/gateway", "/users/@me", "/users/@me")
    answers = [
        requests.get(gateway.http_url + path, headers=headers, timeout=PATIENCE) for path in paths
    ]
    assert [answer.status_code for answer in answers] == [200, 429, 200]
    assert answers[1].headers["Retry-After"] == "0.5"


def test_the_error_of_a_faults_file_names_the_file(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text("[{}]")
    command = run_to_end("gateway", "--faults", str(faults))
    assert command.status == 2
    (line,) = command.err
    assert f"--faults: {faults}: fault 1: it must say when" in line


def test_faults_of_a_file_are_injected_when_they_are_due(gateway: LocalGateway) -> None:
    script = Script(
        '[{"every": 2, "do": "drop"}, {"after": 1, "every": 5, "do": "reset"},'
        ' {"after": 3, "do": "outage", "seconds": 0.1}]'
    )
    assert script.next_due() == 1
    assert script.strike(gateway, 0.5) == []
    assert script.strike(gateway, 2.5) == ["reset, connections: 0", "drop, connections: 0"]
    assert script.next_due() == 3
    done = script.strike(gateway, 6)
    assert done[0] == "outage"
    assert sorted(done[1:]) == ["drop, connections: 0"] * 2 + ["reset, connections: 0"]


# Summaries

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "id name user member author username guild_id channel_id channels activities "
                "content attachments emoji data unavailable member_count user_id type".split()
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=10,
)


@given(st.sampled_from([*_SUMMARIES, "CHANNEL_CREATE", "THREAD_DELETE", "INVITE_CREATE"]), JSON)
def test_any_data_has_a_summary(event: str, data: Any) -> None:
    places = Places()
    places.learn(event, data)
    assert isinstance(places.where(event, data), str)
    assert isinstance(summarize(event, data, places), str)


def test_a_summary_calls_guilds_and_channels_by_their_names() -> None:
    places = Places()
    message = {"guild_id": "1", "channel_id": "2", "author": {"id": "3", "global_name": "Ada"}}
    assert places.where("MESSAGE_CREATE", message) == "guild 1 channel 2"
    guild = {"id": "1", "name": "The Engine", "channels": [{"id": "2", "name": "general"}]}
    places.learn("GUILD_CREATE", guild)
    assert places.where("MESSAGE_CREATE", message) == "The Engine #general"
    assert places.where("GUILD_CREATE", guild) == "The Engine"
    places.learn("CHANNEL_UPDATE", {"id": "2", "guild_id": "1", "name": "talk"})
    assert places.where("MESSAGE_CREATE", message) == "The Engine #talk"
    places.learn("CHANNEL_DELETE", {"id": "2", "guild_id": "1", "name": "talk"})
    assert places.where("MESSAGE_CREATE", message) == "The Engine channel 2"


@pytest.mark.parametrize(
    ("event", "data", "summary"),
    [
        ("MESSAGE_CREATE", {"author": {"username": "ada"}, "content": "hi"}, "ada: hi"),
        ("MESSAGE_CREATE", {"author": {"username": "ada"}, "content": ""}, "ada: (no content)"),
        (
            "MESSAGE_CREATE",
            {"author": {"username": "ada"}, "content": "", "attachments": [{}], "embeds": [{}, {}]},
            "ada: [1 attachment] [2 embeds]",
        ),
        ("TYPING_START", {"user_id": "7"}, "user 7 is typing"),
        ("GUILD_DELETE", {"id": "1"}, "the bot is no longer in it"),
        ("GUILD_ROLE_UPDATE", {"guild_id": "1", "role": {"name": "Crew"}}, "Crew"),
        ("INVITE_CREATE", {"code": "abc", "max_uses": 0}, "code=abc, max_uses=0"),
        ("SOMETHING_NEW", None, ""),
    ],
)
def test_a_summary_shows_the_main_fields_of_an_event(event: str, data: Any, summary: str) -> None:
    assert summarize(event, data, Places()) == summary
