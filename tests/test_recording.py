"""Recorder: what it writes, with shards of a local gateway."""

from __future__ import annotations

import gzip
import json
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shardlib import Intents, Shard
from shardlib.recording import Recorder
from shardlib.testing import LocalGateway
from tests.support import TOKEN, wait_until

SHARD: Any = SimpleNamespace(shard_id=0, shard_count=1, intents=513, token=TOKEN)


def event(sequence: int, data: Any = None, name: str = "USER_UPDATE") -> dict[str, Any]:
    return {"op": 0, "s": sequence, "t": name, "d": data}


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path) as file:
        return [json.loads(line) for line in file]


def test_a_shard_is_recorded_from_ready_on(tmp_path: Path, local_gateway: LocalGateway) -> None:
    path = tmp_path / "events.gz"
    with Recorder(path) as recorder:
        shard = Shard(local_gateway.token, Intents.GUILDS, on_socket_dispatch=recorder.record)
        with shard:
            shard.connect(local_gateway.url)
            shard.wait_until_ready(10)
            local_gateway.dispatch("USER_UPDATE", {"name": "Ä\ud800\n"})
            wait_until(lambda: recorder.events == 5, 15, "five events")
    about, ready, *guilds, update = lines(path)
    assert about["shard"] == [0, 1]
    assert about["intents"] == 1
    assert about["redacted"] is False
    assert (ready["t"], ready["s"], ready["time"]) == ("READY", 1, 0.0)
    assert [each["t"] for each in guilds] == ["GUILD_CREATE"] * 3
    assert guilds[0]["d"]["name"] == next(iter(local_gateway.world.guilds.values())).name
    assert (update["s"], update["d"]) == (5, {"name": "Ä\ud800\n"})
    assert 0 <= guilds[0]["time"] <= update["time"] < 10


def test_a_redacted_recording_holds_no_names(tmp_path: Path, local_gateway: LocalGateway) -> None:
    path = tmp_path / "events.gz"
    with Recorder(path, redact=True) as recorder:
        shard = Shard(local_gateway.token, Intents.all(), on_socket_dispatch=recorder.record)
        with shard:
            shard.connect(local_gateway.url)
            shard.wait_until_ready(10)
            wait_until(lambda: recorder.events == 4, 15, "four events")
    text = gzip.decompress(path.read_bytes()).decode()
    assert lines(path)[0]["redacted"] is True
    for guild in local_gateway.world.guilds.values():
        assert guild.id in text
        assert guild.name not in text
        for member in guild.members.values():
            assert member["user"]["username"] not in text


def test_the_token_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "events.gz"
    with Recorder(path) as recorder:
        recorder.record(SHARD, event(1, {"content": f"look, {TOKEN}!", "token": "secret"}))
    text = gzip.decompress(path.read_bytes()).decode()
    assert TOKEN not in text
    assert "secret" not in text
    assert lines(path)[1]["d"] == {"content": "look, removed!", "token": "removed"}


def test_what_was_flushed_can_be_read_while_the_recording_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "events.gz"
    with Recorder(path) as recorder:
        recorder.record(SHARD, event(1))
        recorder.flush()
        recorder.record(SHARD, event(2))
        with gzip.open(path) as file:
            read = [json.loads(file.readline()) for _ in range(2)]
            with pytest.raises(EOFError):
                file.readline()
    assert read[1]["s"] == 1
    assert len(lines(path)) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "events.gz"
    Recorder(path).close()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "events.gz"
    path.write_text("dear diary")
    with pytest.raises(FileExistsError):
        Recorder(path)
    assert path.read_text() == "dear diary"


def test_a_second_shard_is_refused(tmp_path: Path) -> None:
    other: Any = SimpleNamespace(shard_id=1, shard_count=2, intents=513, token=TOKEN)
    with Recorder(tmp_path / "events.gz") as recorder:
        recorder.record(SHARD, event(1))
        with pytest.raises(ValueError, match="shard 1/2"):
            recorder.record(other, event(1))


def test_a_closed_recorder_says_so(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "events.gz")
    recorder.close()
    recorder.close()
    with pytest.raises(ValueError, match="closed"):
        recorder.record(SHARD, event(1))
    with pytest.raises(ValueError, match="closed"):
        recorder.flush()


def test_an_event_that_json_cannot_express_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "events.gz"
    with Recorder(path) as recorder:
        with pytest.raises(ValueError):
            recorder.record(SHARD, event(1, float("nan")))
        recorder.record(SHARD, event(2))
        assert recorder.events == 1
    assert [each["s"] for each in lines(path)[1:]] == [2]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full disk to try")
def test_a_full_disk_is_told_and_closes_the_recorder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A recorder makes its file itself, and would not take a device that exists.
    real_open = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, mode: real_open("/dev/full", os.O_WRONLY))
    recorder = Recorder(tmp_path / "events.gz")
    with pytest.raises(OSError, match="No space left"):
        recorder.record(SHARD, event(1))
    with pytest.raises(ValueError, match="closed"):
        recorder.record(SHARD, event(2))
    recorder.close()
