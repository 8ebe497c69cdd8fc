"""``shardlib record`` and ``shardlib gateway --replay``, as processes."""

from __future__ import annotations

import gzip
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardlib import Intents
from shardlib.testing import LocalGateway, Recording, RecordingDamaged
from tests.command import CTRL_C, PATIENCE, Command, Pipe, assert_quiet, run_to_end, wait_for
from tests.support import TOKEN, wait_until
from tests.testing.recorded import numbered, write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.gz"


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(identify_interval=0) as gateway:
        yield gateway


def names(path: Path) -> list[str]:
    return [event.name for event in Recording(path)]


def readable_events(path: Path) -> int:
    """The number of events in a file that is still being written."""
    events = 0
    try:
        for _ in Recording(path):
            events += 1
    except (RecordingDamaged, FileNotFoundError):
        pass
    return events


# record


def test_record_writes_as_many_events_as_were_asked_for(path: Path) -> None:
    command = run_to_end("record", "--local", "--count", "20", str(path))
    assert command.status == 0
    assert command.out == []
    assert names(path)[:4] == ["READY"] + ["GUILD_CREATE"] * 3
    assert len(names(path)) == 20
    assert Recording(path).intents == Intents.all()
    assert re.fullmatch(rf"20 events in .*: {path}, [0-9.]+ kB", command.err[-1])
    assert_quiet(command)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")
def test_record_ends_the_file_properly_when_it_is_asked_to_end(
    path: Path, gateway: LocalGateway, number: signal.Signals
) -> None:
    arguments = ("record", "--url", gateway.url, "--intents", "guilds", str(path))
    with Command(*arguments, token=gateway.token) as command:
        gateway.wait_for_connection(lambda each: each.session, timeout=PATIENCE)
        gateway.dispatch("USER_UPDATE", {"id": "1"})
        wait_until(lambda: readable_events(path) == 5, PATIENCE, "the events in the file")
        command.process.send_signal(number)
        assert command.finish(CTRL_C) == 0
    assert names(path) == ["READY", *["GUILD_CREATE"] * 3, "USER_UPDATE"]
    assert gateway.all_sessions[0].intents == Intents.GUILDS
    assert gateway.token not in gzip.decompress(path.read_bytes()).decode()
    assert_quiet(command)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")
def test_a_signal_while_standard_error_is_a_full_pipe_ends_the_recording(
    path: Path, gateway: LocalGateway, number: signal.Signals
) -> None:
    """The main thread told there that it connects, and took no notice of a signal meanwhile."""
    with Pipe() as pipe:
        pipe.fill()
        arguments = ("record", "--url", gateway.url, str(path))
        with Command(*arguments, token=gateway.token, stderr=pipe) as command:
            wait_until(path.exists, PATIENCE)
            command.process.send_signal(number)
            assert command.finish(CTRL_C) == 0


def test_what_a_killed_recorder_had_flushed_can_be_read_and_played(
    path: Path, gateway: LocalGateway
) -> None:
    with Command("record", "--url", gateway.url, str(path), token=gateway.token) as command:
        gateway.wait_for_connection(lambda each: each.session, timeout=PATIENCE)
        wait_until(lambda: readable_events(path) == 4, PATIENCE, "the events in the file")
        command.process.kill()
        command.finish()
    with pytest.raises(RecordingDamaged, match="its recorder was killed") as caught:
        names(path)
    assert caught.value.events == 4


def test_record_ends_after_some_minutes(path: Path) -> None:
    command = run_to_end("record", "--local", "--minutes", "0.05", str(path))
    assert command.status == 0
    assert "READY" in names(path)


def test_record_replaces_names_on_request(path: Path, gateway: LocalGateway) -> None:
    options = ("--url", gateway.url, "--redact", "--count", "4")
    command = run_to_end("record", *options, str(path), token=gateway.token)
    assert command.status == 0
    assert Recording(path).is_redacted
    text = gzip.decompress(path.read_bytes()).decode()
    for guild in gateway.world.guilds.values():
        assert guild.id in text
        assert guild.name not in text


def test_record_resumes_and_goes_on(path: Path, gateway: LocalGateway) -> None:
    options = ("--url", gateway.url, "--count", "6", str(path))
    with Command("record", *options, token=gateway.token) as command:
        gateway.wait_for_connection(lambda each: each.session, timeout=PATIENCE).reset()
        gateway.wait_for_connection(lambda each: each.session, timeout=PATIENCE)
        gateway.dispatch("USER_UPDATE", {"id": "1"})
        assert command.finish() == 0
    assert names(path)[4:] == ["RESUMED", "USER_UPDATE"]


def test_record_overwrites_no_file(path: Path) -> None:
    path.write_text("dear diary")
    command = run_to_end("record", "--local", str(path))
    assert command.status == 2
    assert f"{path} exists, and is not overwritten" in command.err[-1]
    assert path.read_text() == "dear diary"


def test_record_says_which_file_it_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "no" / "events.gz"
    command = run_to_end("record", "--local", str(path))
    assert command.status == 1
    assert command.err == [f"shardlib: {path} cannot be written: No such file or directory"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit(), which Linux has")
def test_record_says_once_that_the_file_cannot_grow(path: Path, gateway: LocalGateway) -> None:
    import resource

    with Command("record", "--url", gateway.url, str(path), token=gateway.token) as command:
        gateway.wait_for_connection(lambda each: each.session, timeout=PATIENCE)
        resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))
        gateway.traffic(3000)
        assert command.finish() == 1
    assert [line for line in command.err if "failed" in line] == []
    assert command.err[-1] == f"shardlib: {path} cannot be written: File too large"


def test_a_recording_without_an_event_leaves_no_file(path: Path, gateway: LocalGateway) -> None:
    command = run_to_end("record", "--url", gateway.url, str(path), token=TOKEN)
    assert command.status == 1
    assert "token" in command.err[-1]
    assert not path.exists()


def test_record_needs_a_token_before_it_makes_the_file(path: Path) -> None:
    command = run_to_end("record", str(path))
    assert command.status == 2
    assert "DISCORD_TOKEN" in command.err[-1]
    assert not path.exists()


# gateway --replay


def test_gateway_plays_a_recording_to_tail(path: Path) -> None:
    write(path, numbered(20))
    with Command("gateway", "--replay", str(path), "--speed", "max") as gateway:
        gateway.read()
        token, *suggested = wait_for(gateway.out, "DISCORD_TOKEN=").split()
        tail = run_to_end(*suggested[1:], "--count", "21", token=token.partition("=")[2])
        assert tail.status == 0
        assert "recorded, 1 guild" in tail.out[0]
        assert all("USER_UPDATE" in line for line in tail.out[1:])
        wait_for(gateway.out, "the recording was played to its end")
        gateway.interrupt()
        assert gateway.finish(CTRL_C) == 0
    assert not any("  sessions 1  events/s 10" in line for line in gateway.out)
    assert_quiet(gateway)


def test_gateway_plays_what_can_be_read_of_a_cut_recording_and_says_so(path: Path) -> None:
    write(path, numbered(2000))
    os.truncate(path, path.stat().st_size // 2)
    count = str(readable_events(path))
    with Command("gateway", "--replay", str(path), "--speed", "max") as gateway:
        gateway.read()
        token, *suggested = wait_for(gateway.out, "DISCORD_TOKEN=").split()
        tail = run_to_end(*suggested[1:], "--count", count, token=token.partition("=")[2])
        assert tail.status == 0
        assert "it is cut off" in wait_for(gateway.out, str(path))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gateway", "--replay", "setup.cfg"], "setup.cfg is no recording"),
        (["gateway", "--replay", "nowhere.gz"], "nowhere.gz: No such file"),
        (["gateway", "--speed", "2"], "--speed goes with --replay"),
        (["gateway", "--speed", "0"], "above 0"),
        (["gateway", "--replay", "x", "--guilds", "1"], "--guilds does not go with --replay"),
        (["record", "--local"], "FILE"),
        (["record", "--local", "--count", "0", "x"], "not 0"),
        (["record", "--local", "--minutes", "0", "x"], "above 0"),
        (["record", "--local", "--url", "ws://127.0.0.1", "x"], "not allowed"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(arguments: list[str], says: str) -> None:
    command = run_to_end(*arguments)
    assert command.status == 2
    (line,) = command.err
    assert says in line


def test_record_tells_of_an_event_that_no_json_can_express(
    path: Path, gateway: LocalGateway
) -> None:
    arguments = ("record", "--url", gateway.url, "--count", "5", str(path))
    with Command(*arguments, token=gateway.token) as command:
        connection = gateway.wait_for_connection(lambda it: it.session, PATIENCE)
        wait_until(lambda: readable_events(path) == 4, PATIENCE)
        connection.send_compressed('{"t":"ODD","s":null,"op":0,"d":[1e999]}')
        connection.send_compressed('{"t":"LAST","s":null,"op":0,"d":[]}')
        assert command.finish() == 0
    assert "LAST" in names(path)
    assert "ODD" not in names(path)
    wait_for(command.err, "_Recording.add failed")
