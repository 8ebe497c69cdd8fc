"""LocalGateway(replay=...): what clients get of a recording, when, and how a test sees its end."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from shardlib import Intents, Shard
from shardlib.testing import LocalGateway, Recording, RecordingDamaged
from tests.support import not_none, wait_until
from tests.testing.client import Client, connected
from tests.testing.recorded import GUILD, QUIET, READY, messages, numbered, write


def numbers(client: Client, count: int) -> list[int]:
    """The numbers of the next events; requests of a heartbeat are answered, and passed over."""
    found: list[int] = []
    while len(found) < count:
        payload = client.receive()
        if payload["op"] == 1:
            client.send(1, None if not found else found[-1] + 2)
        elif payload["op"] == 0:
            found.append(payload["d"]["number"])
    return found


def write_late(path: Path) -> Path:
    """Write a recording of two events, the second of them ten minutes after the first."""
    write(path, numbered(2))
    last = list(Recording(path))[-1].time
    text = gzip.decompress(path.read_bytes()).replace(b'{"time":%r' % last, b'{"time":600')
    path.write_bytes(gzip.compress(text))
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "events.gz", numbered(10))


def test_a_client_gets_ready_of_the_recording_with_a_session_of_its_own(recording: Path) -> None:
    with LocalGateway(replay=recording, speed=None) as gateway:
        assert gateway.world.user["username"] == "recorded"
        assert gateway.world.guilds == {}
        with connected(gateway, query="?v=9") as client:
            client.receive()
            client.identify(shard=[0, 1])
            payload = client.receive()
            session = gateway.sessions[0]
            assert (payload["t"], payload["s"]) == ("READY", 1)
            assert payload["d"] == {
                **READY,
                "v": 9,
                "session_id": session.session_id,
                "resume_gateway_url": gateway.resume_url,
            }
            assert numbers(client, 10) == [*range(10)]
            not_none(gateway.replay).wait(10)
            assert session.sequence == 11
            # The connection stays.
            gateway.dispatch("USER_UPDATE", {"number": 5})
            assert numbers(client, 1) == [5]
            client.nothing_more()


def test_each_session_gets_the_recording_from_its_beginning(recording: Path) -> None:
    with LocalGateway(replay=recording, speed=None, identify_interval=0) as gateway:
        replay = not_none(gateway.replay)
        assert not replay.finished
        with pytest.raises(TimeoutError, match="the end of the replay"):
            replay.wait(0.01)
        for _ in range(2):
            with connected(gateway) as client:
                client.receive()
                client.identify()
                client.event("READY")
                assert numbers(client, 10) == [*range(10)]
        replay.wait(10)
        assert replay.finished


def test_what_the_gateway_itself_sends_is_not_played_again(tmp_path: Path) -> None:
    events = [*numbered(2), ("RESUMED", {}), ("READY", READY), ("USER_UPDATE", {"number": 2})]
    with LocalGateway(replay=write(tmp_path / "events.gz", events), speed=None) as gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify()
            client.event("READY")
            assert numbers(client, 3) == [0, 1, 2]
            client.nothing_more()


def test_intents_and_shard_decide_which_events_come(tmp_path: Path) -> None:
    message = {"guild_id": GUILD, "content": "a secret", "author": {"id": "5"}}
    other_guild = str(int(GUILD) + (1 << 22))
    events = [
        ("READY", {**READY, "guilds": [{"id": GUILD}, {"id": other_guild}]}),
        ("GUILD_CREATE", {"id": GUILD}),
        ("GUILD_CREATE", {"id": other_guild}),
        ("TYPING_START", {"guild_id": GUILD}),
        ("MESSAGE_CREATE", message),
    ]
    shard_id = (int(GUILD) >> 22) % 2
    with LocalGateway(replay=write(tmp_path / "events.gz", events), speed=None) as gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify(Intents.GUILDS | Intents.GUILD_MESSAGES, shard=[shard_id, 2])
            ready = client.event("READY")
            assert ready["guilds"] == [{"id": GUILD}]
            assert ready["shard"] == [shard_id, 2]
            assert client.event("GUILD_CREATE") == {"id": GUILD}
            assert client.event("MESSAGE_CREATE") == {**message, "content": ""}
            client.nothing_more()


def test_events_come_at_the_speed_that_was_asked_for(tmp_path: Path) -> None:
    path = write_late(tmp_path / "events.gz")
    with LocalGateway(replay=path, speed=10, heartbeat_tolerance=1000) as gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify()
            client.event("READY")
            assert numbers(client, 1) == [0]
            gateway.clock.advance(50)
            client.nothing_more()
            assert not not_none(gateway.replay).finished
            gateway.clock.advance(10)
            assert numbers(client, 1) == [1]
            not_none(gateway.replay).wait(10)


def test_a_resume_in_the_middle_misses_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "events.gz", numbered(5000))
    with LocalGateway(replay=path, speed=None) as gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify()
            session_id = client.event("READY")["session_id"]
            got = numbers(client, 1000)
        with connected(gateway, resume_url=True) as client:
            client.resume(session_id, got[-1] + 2)
            while len(got) < 5000:
                payload = client.receive()
                if payload["t"] == "USER_UPDATE":
                    got.append(payload["d"]["number"])
            assert got == [*range(5000)]
            not_none(gateway.replay).wait(10)


def test_a_client_that_does_not_read_holds_the_replay_back(tmp_path: Path) -> None:
    path = write(tmp_path / "events.gz", numbered(5000))
    with LocalGateway(replay=path, speed=None, replay_limit=1000) as gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify()
            client.event("READY")
            session = gateway.sessions[0]
            wait_until(lambda: session.sequence == 1000, 15, "a thousand events")
            got: list[int] = []
            acknowledged = 0
            while len(got) < 5000:
                assert session.sequence <= acknowledged + 1000
                payload = client.receive()
                if payload["op"] == 1:
                    acknowledged = got[-1] + 2
                    client.send(1, acknowledged)
                elif payload["op"] == 0:
                    got.append(payload["d"]["number"])
            assert got == [*range(5000)]


@pytest.mark.slow
def test_a_client_that_reads_slowly_holds_the_replay_back_before_the_memory_is_full(
    tmp_path: Path,
) -> None:
    events: list[tuple[str, Any]] = [("READY", READY)]
    events += [("USER_UPDATE", {"number": number, "text": "x" * 8000}) for number in range(3000)]
    path = write(tmp_path / "events.gz", events)
    # The client sends no heartbeat, however long a busy machine takes.
    gateway = LocalGateway(replay=path, speed=None, replay_limit=10_000, heartbeat_interval=600_000)
    with gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify()
            client.event("READY")
            replay = not_none(gateway.replay)
            with pytest.raises(TimeoutError):
                replay.wait(0.5)
            assert numbers(client, 3000) == [*range(3000)]
            replay.wait(10)


def test_at_full_speed_a_replay_waits_for_a_client_that_is_away(tmp_path: Path) -> None:
    path = write(tmp_path / "events.gz", numbered(3000))
    with LocalGateway(replay=path, speed=None, replay_limit=500) as gateway:
        gateway.inject(lambda it: it.drop(), instead_of="ack")
        with connected(gateway) as client:
            client.receive()
            client.identify()
            session_id = client.event("READY")["session_id"]
            got = [client.event("USER_UPDATE")["number"]]
            client.send(1, 2)
            gateway.wait_for_connection().wait_closed()
        # The replay looks again at the session, before the gateway serves the next connection.
        gateway.clock.advance(1)
        with connected(gateway) as client:
            client.resume(session_id, 2)
            while len(got) < 3000:
                payload = client.receive()
                if payload["op"] == 1:
                    client.send(1, got[-1] + 2)
                elif payload["t"] == "USER_UPDATE":
                    got.append(payload["d"]["number"])
    assert got == [*range(3000)]


def test_an_ended_session_does_not_keep_the_replay_from_finishing(tmp_path: Path) -> None:
    path = write_late(tmp_path / "events.gz")
    with LocalGateway(replay=path, identify_interval=0, heartbeat_tolerance=1000) as gateway:
        replay = not_none(gateway.replay)
        for _ in range(2):
            with connected(gateway) as client:
                client.receive()
                client.identify()
                client.event("READY")
                assert numbers(client, 1) == [0]
                if len(gateway.all_sessions) == 1:
                    client.leave(1000)
                    gateway.wait_until(lambda: not gateway.sessions)
                    assert not replay.finished
                else:
                    gateway.clock.advance(600)
                    assert numbers(client, 1) == [1]
                    replay.wait(10)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system lists no open files")
@pytest.mark.parametrize("end", ["the session ends", "the gateway stops"])
def test_the_file_of_a_session_is_open_no_longer_than_it_is_played(
    tmp_path: Path, end: str
) -> None:
    path = write_late(tmp_path / "events.gz")

    def is_open() -> bool:
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        return str(path) in [os.readlink(link) for link in links if os.path.exists(link)]

    with LocalGateway(replay=path) as gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify()
            client.event("READY")
            assert numbers(client, 1) == [0]
            assert is_open()
            if end == "the session ends":
                client.leave(1000)
                gateway.wait_until(lambda: not gateway.sessions)
                gateway.clock.advance(600)
                wait_until(lambda: not is_open(), 15, "the end of the file")
    assert not is_open()


@pytest.mark.parametrize("first", [{}, {"user": None, "guilds": []}])
def test_a_recording_begins_with_a_ready_that_can_be_played(
    tmp_path: Path, first: dict[str, Any]
) -> None:
    events = [("READY", first), ("USER_UPDATE", {"number": -1}), *numbered(2)]
    with LocalGateway(replay=write(tmp_path / "events.gz", events), speed=None) as gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify()
            client.event("READY")
            assert numbers(client, 2) == [0, 1]


def test_of_a_cut_recording_the_beginning_is_played_and_the_error_raised(tmp_path: Path) -> None:
    path = write(tmp_path / "events.gz", numbered(5000))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    readable = 0
    with pytest.raises(RecordingDamaged):
        for event in Recording(path):
            readable += event.name == "USER_UPDATE"
    with LocalGateway(replay=path, speed=None) as gateway, connected(gateway) as client:
        client.receive()
        client.identify()
        client.event("READY")
        assert numbers(client, readable) == [*range(readable)]
        replay = not_none(gateway.replay)
        with pytest.raises(RecordingDamaged, match=f"{readable + 1} events") as caught:
            replay.wait(10)
        assert replay.error is caught.value
        assert replay.finished
        client.nothing_more()


@pytest.mark.parametrize(
    "events",
    [
        [("RESUMED", {})],
        [("READY", None)],
        [("READY", {"user": {"id": "1"}})],
        [("READY", {**READY, "user": {"id": 1}})],
        [("READY", {**READY, "guilds": None})],
        [("READY", {**READY, "guilds": [{}]})],
        [("READY", {**READY, "guilds": [{"id": "one"}]})],
        [("READY", {**READY, "application": "one"})],
    ],
)
def test_a_recording_without_ready_is_refused(tmp_path: Path, events: list[Any]) -> None:
    with pytest.raises(ValueError, match="no READY"):
        LocalGateway(replay=write(tmp_path / "events.gz", events))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("GUILD_MEMBER_UPDATE", {"user": None}),
        ("GUILD_MEMBER_UPDATE", {"user": 1}),
        ("THREAD_MEMBERS_UPDATE", {"added_members": None, "removed_member_ids": 1}),
        ("THREAD_MEMBERS_UPDATE", {"added_members": [None]}),
        ("MESSAGE_CREATE", {"author": None, "mentions": None, "content": "x"}),
        ("MESSAGE_CREATE", {"author": [], "mentions": [1], "content": "x"}),
    ],
)
def test_an_event_with_odd_fields_does_not_end_the_replay(
    tmp_path: Path, name: str, data: dict[str, Any]
) -> None:
    events = [("READY", READY), (name, {"guild_id": GUILD, **data}), ("USER_UPDATE", {})]
    intents = Intents.all() & ~Intents.MESSAGE_CONTENT
    with LocalGateway(replay=write(tmp_path / "events.gz", events), speed=None) as gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify(intents)
            assert client.events_until("USER_UPDATE")[-1]["d"] == {}
            not_none(gateway.replay).wait(10)


@pytest.mark.parametrize("speed", [0, -1, float("nan")])
def test_a_speed_that_is_none_is_refused(recording: Path, speed: float) -> None:
    with pytest.raises(ValueError, match="speed must be above 0"):
        LocalGateway(replay=recording, speed=speed)


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_shard_gets_50_000_events_as_they_were_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "events.gz", messages(50_000))
    recorded = [(each.name, each.data) for each in Recording(path)][1:]
    got: list[tuple[str, Any]] = []
    with LocalGateway(replay=path, speed=None) as gateway:
        shard = Shard(
            gateway.token,
            Intents.all(),
            on_socket_dispatch=lambda shard, payload: got.append((payload["t"], payload["d"])),
            logger=QUIET,
        )
        with shard:
            shard.connect(gateway.url)
            not_none(gateway.replay).wait(120)
            wait_until(lambda: len(got) > 50_000, 20, "the last event")
        assert got[0][0] == "READY"
        assert len(recorded) == 50_000
        assert got[1:] == recorded
        assert shard.stats.gaps == 0
