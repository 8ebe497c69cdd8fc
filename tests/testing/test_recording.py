"""Recording: reading whole recordings, cut ones, damaged ones, and files that are none."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from shardlib import Intents
from shardlib.recording import Recorder
from shardlib.testing import RecordedEvent, Recording, RecordingDamaged
from tests.testing.recorded import READY, numbered, record, write


def read_until_damaged(recording: Recording) -> tuple[list[RecordedEvent], RecordingDamaged]:
    events = []
    with pytest.raises(RecordingDamaged) as caught:
        for event in recording:
            events.append(event)
    return events, caught.value


def test_a_recording_yields_its_events_each_time_anew(tmp_path: Path) -> None:
    recording = Recording(write(tmp_path / "events.gz", numbered(3)))
    assert recording.shard == (0, 1)
    assert recording.intents == Intents.all()
    assert not recording.is_redacted
    for _ in range(2):
        events = list(recording)
        assert [each.name for each in events] == ["READY"] + ["USER_UPDATE"] * 3
        assert [each.sequence for each in events] == [1, 2, 3, 4]
        assert events[0].data == {**READY, "session_id": "removed"}
        assert events[-1].data == json.loads(events[-1].text) == {"number": 2}
        assert [each.time for each in events] == sorted(each.time for each in events)


def test_data_that_looks_like_the_end_of_a_line_is_read_whole(tmp_path: Path) -> None:
    data = {"d": '"d":1}', '"d":': "\n", "x": {"d": [1, {"d": 2}]}}
    (event,) = Recording(write(tmp_path / "events.gz", [("X", data)]))
    assert event.data == json.loads(event.text) == data


ABOUT = {
    "shardlib_recording": 1,
    "shard": [0, 1],
    "intents": 1,
    "redacted": False,
    "started_at": "2026-11-26T14:34:00+00:00",
}


def write_lines(path: Path, *lines: str | dict[str, Any]) -> Path:
    """Write a recording by hand, with these lines."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_bytes(gzip.compress("".join(f"{text}\n" for text in texts).encode()))
    return path


@pytest.mark.parametrize(
    "line",
    [
        '{"time": 0, "s": 1, "t": "X", "d": {"a": 1}}',
        '{"time":0,"s":1,"t":"X","d":{"a":1}}\r',
        '{"time":0,"s":1,"t":"X","d":{"a":1}}  ',
        '{"d":{"a":1},"time":0,"s":1,"t":"X"}',
        '{"note":{"d":5},"time":0,"s":1,"t":"X","d":{"a":1}}',
        '{"time":0,"s":1,"t":"X","d":{"a":1},"note":"more"}',
    ],
)
def test_a_line_may_be_edited_by_hand(tmp_path: Path, line: str) -> None:
    (event,) = Recording(write_lines(tmp_path / "events.gz", ABOUT, line))
    assert (event.time, event.sequence, event.name) == (0, 1, "X")
    assert event.data == json.loads(event.text) == {"a": 1}


@pytest.mark.parametrize(
    "changed", [{"time": 1e999}, {"time": "0"}, {"s": "1"}, {"t": None}, {"t": 5}]
)
def test_a_field_of_the_wrong_type_is_damage(tmp_path: Path, changed: dict[str, Any]) -> None:
    event = {"time": 0, "s": 1, "t": "X", "d": {}, **changed}
    recording = Recording(write_lines(tmp_path / "events.gz", ABOUT, event))
    assert read_until_damaged(recording)[0] == []


@pytest.mark.parametrize(
    "changed", [{"shard": "ab"}, {"shard": [0]}, {"shard": None}, {"intents": "x"}]
)
def test_a_first_line_with_invalid_fields_is_refused(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    path = write_lines(tmp_path / "events.gz", {**ABOUT, **changed})
    with pytest.raises(ValueError, match="its first line has no valid shard"):
        Recording(path)
    with pytest.raises(ValueError, match="its first line has no valid shard"):
        Recording(write_lines(path, {"shardlib_recording": 1}))


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_of_a_cut_recording_all_is_read_that_is_there(tmp_path: Path, kept: float) -> None:
    path = write(tmp_path / "events.gz", numbered(5000))
    whole = list(Recording(path))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    events, error = read_until_damaged(Recording(path))
    assert events == whole[: len(events)]
    assert error.events == len(events)
    assert len(events) > 5000 * kept / 2
    assert str(error).startswith(
        f"{path}: it is cut off, because its recorder was killed or a part "
    )
    assert f"{len(events)} events" in str(error)


@pytest.mark.parametrize("before", [300, 10_000])
def test_of_a_damaged_recording_the_part_before_the_damage_is_read(
    tmp_path: Path, before: int
) -> None:
    path = tmp_path / "events.gz"
    with Recorder(path) as recorder:
        record(recorder, numbered(20_000)[:before])
        recorder.flush()
        damaged_at = path.stat().st_size
        record(recorder, numbered(20_000)[before:])
    whole = list(Recording(path))
    data = bytearray(path.read_bytes())
    # A flush has ended a block of the compressed data, and no block begins with these bits. Most
    # other damage is noticed later than it begins.
    data[damaged_at] = 0xFF
    path.write_bytes(data)
    events, error = read_until_damaged(Recording(path))
    assert events == whole[:before]
    assert "damaged" in str(error)


def test_a_line_that_is_no_event_ends_the_recording(tmp_path: Path) -> None:
    path = write(tmp_path / "events.gz", numbered(2))
    lines = gzip.decompress(path.read_bytes()).splitlines()
    path.write_bytes(gzip.compress(b"\n".join([*lines[:-1], b'{"t": 5}', lines[-1], b""])))
    events, error = read_until_damaged(Recording(path))
    assert len(events) == 2
    assert "a line is damaged. 2 events" in str(error)


def test_a_line_that_never_ends_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardlib.testing.recording._MAX_LINE", 1 << 20)
    path = write_lines(tmp_path / "events.gz", ABOUT, "x" * (1 << 22))
    events, error = read_until_damaged(Recording(path))
    assert events == []
    assert "a line has no end" in str(error)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"dear diary", "not compressed by gzip"),
        (gzip.compress(b"dear diary\n", mtime=0), "no recording"),
        (gzip.compress(b"[1]\n", mtime=0), "no recording"),
        (gzip.compress(b'{"shardlib_recording": 99}\n', mtime=0), "format 99"),
        (zlib.compress(b"{}"), "not compressed by gzip"),
    ],
    ids=["text", "a diary", "no object", "a later format", "zlib"],
)
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=problem) as caught:
        Recording(path)
    assert not isinstance(caught.value, RecordingDamaged)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x1f\x8b", gzip.compress(b"", mtime=0), gzip.compress(b'{"a"', mtime=0)],
    ids=["empty", "two bytes", "no line", "half a line"],
)
def test_a_recording_without_an_event_says_so(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "events.gz"
    path.write_bytes(data)
    with pytest.raises(RecordingDamaged) as caught:
        Recording(path)
    assert caught.value.events == 0


def test_a_file_that_does_not_exist_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Recording(tmp_path / "events.gz")
