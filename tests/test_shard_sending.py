"""Sending: what may be sent, when, how often, and what is said where it can't be."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import NotReady, Opcode, SendTimeout, Shard, ShardError, ShardState
from shardlib.connection import Connection
from shardlib.limits import SendWindow
from shardlib.testing import LocalGateway
from tests.recorder import Recorder
from tests.shards import make_gateway, make_shard
from tests.support import wait_until

SEND = {"op": 4, "d": {"guild_id": "1", "channel_id": None, "self_mute": False, "self_deaf": False}}

PRESENCE = '{"op": 3, "d": {"activities": [{"type": 0, "name": %s}]}}'


def deep() -> list[Any]:
    """A list in a list in a list: too much for any JSON module."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@pytest.fixture
def shard(gateway: LocalGateway) -> Iterator[Shard]:
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        yield shard


def test_every_documented_request_arrives_as_documented(
    gateway: LocalGateway, shard: Shard
) -> None:
    guild_id = next(iter(gateway.world.guilds))
    requests: list[tuple[Callable[[], None], Opcode, dict[str, Any]]] = [
        (
            lambda: shard.update_presence(status="dnd", activities=[{"name": "chess", "type": 0}]),
            Opcode.PRESENCE_UPDATE,
            {
                "since": None,
                "activities": [{"name": "chess", "type": 0}],
                "status": "dnd",
                "afk": False,
            },
        ),
        (
            lambda: shard.update_voice_state(guild_id, None, self_mute=True),
            Opcode.VOICE_STATE_UPDATE,
            {
                "guild_id": str(guild_id),
                "channel_id": None,
                "self_mute": True,
                "self_deaf": False,
            },
        ),
        (
            lambda: shard.request_guild_members(guild_id, query="a", limit=5, nonce="n"),
            Opcode.REQUEST_GUILD_MEMBERS,
            {
                "guild_id": str(guild_id),
                "query": "a",
                "limit": 5,
                "presences": False,
                "nonce": "n",
            },
        ),
        (
            lambda: shard.request_soundboard_sounds([guild_id]),
            Opcode.REQUEST_SOUNDBOARD_SOUNDS,
            {"guild_ids": [str(guild_id)]},
        ),
        (
            lambda: shard.request_channel_info(guild_id),
            Opcode.REQUEST_CHANNEL_INFO,
            {"guild_id": str(guild_id), "fields": ["status", "voice_start_time"]},
        ),
    ]
    for send, opcode, data in requests:
        send()
        assert gateway.expect(opcode)["d"] == data


def test_answers_to_requests_come_as_events(gateway: LocalGateway, shard: Shard) -> None:
    guild_id = next(iter(gateway.world.guilds))
    threading.Timer(0.01, shard.request_guild_members, [guild_id]).start()
    chunk = shard.wait_for("GUILD_MEMBERS_CHUNK", timeout=10)
    assert chunk["guild_id"] == str(guild_id)


@pytest.mark.parametrize(
    "data, error, message",
    [
        (None, TypeError, "data must be a str"),
        (b"{}", TypeError, "data must be a str"),
        ({"op": 1}, TypeError, "data must be a str"),
        ("", ValueError, "not JSON"),
        ("{", ValueError, "not JSON"),
        ("[]", ValueError, "not a JSON object"),
        ("{}", ValueError, "no opcode"),
        ('{"op": "1"}', ValueError, "no opcode"),
        ('{"op": 1, "d": NaN}', ValueError, "NaN"),
        ('{"op": 1, "d": "\ud800"}', ValueError, "UTF-8"),
        (json.dumps({"op": 3, "d": "x" * 4096}), ValueError, "4096"),
        (json.dumps({"op": 3, "d": {"status": "away"}}), ValueError, "status"),
        ('{"op": 3, "d": {"colour": 1}}', ValueError, "colour"),
    ],
)
def test_what_cannot_be_sent_is_refused_and_not_sent(
    gateway: LocalGateway, shard: Shard, data: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        shard.send(data)
    shard.send(json.dumps(SEND))
    gateway.expect(Opcode.VOICE_STATE_UPDATE)
    sent = [payload["op"] for payload in gateway.connections[0].received]
    assert [opcode for opcode in sent if opcode not in (1, 2)] == [4]


def test_exactly_4096_bytes_pass(gateway: LocalGateway, shard: Shard) -> None:
    data = json.dumps({**SEND, "x": ""})
    shard.send(data[:-2] + "ü" * ((4096 - len(data)) // 2) + "x" * (len(data) % 2) + data[-2:])
    gateway.expect(Opcode.VOICE_STATE_UPDATE)
    with pytest.raises(ValueError, match="4097"):
        shard.send(data[:-2] + "x" * (4097 - len(data)) + data[-2:])


def test_requests_over_the_documented_limits_are_refused(shard: Shard) -> None:
    wrong: list[tuple[Callable[[], None], str]] = [
        (lambda: shard.update_presence(status="away"), "status"),
        (lambda: shard.update_presence(activities=[{"type": 0}]), "name"),
        (lambda: shard.request_guild_members("x"), "guild_id"),
        (lambda: shard.request_guild_members(1, query="a"), "limit"),
        (lambda: shard.request_guild_members(1, user_ids=range(1, 102)), "user_ids"),
        (lambda: shard.request_guild_members(1, nonce="n" * 33), "nonce"),
        (lambda: shard.request_soundboard_sounds([]), "guild_ids"),
        (lambda: shard.request_channel_info(1, ["topic"]), "fields"),
        (lambda: shard.update_voice_state(1, "-1"), "channel_id"),
        (lambda: shard.update_presence(timeout=-1), "timeout"),
        (lambda: shard.update_presence(activities=[{"name": "x" * 5000, "type": 0}]), "4096"),
        # Small enough by itself, but every later Identify would be refused for it.
        (lambda: shard.update_presence(activities=[{"name": "x" * 3950, "type": 0}]), "Identify"),
        (lambda: shard.send(PRESENCE % '"x", "state": 1e999'), "Identify"),
        (lambda: shard.update_presence(activities=[{"name": deep(), "type": 0}]), "name"),
        (lambda: shard.update_presence(activities=[{"name": "x", "type": 0, "x": deep()}]), "JSON"),
    ]
    for send, message in wrong:
        with pytest.raises(ValueError, match=message):
            send()


def test_before_ready_send_waits_as_long_as_it_may(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="ready")
    with make_shard() as shard:
        with pytest.raises(NotReady, match="disconnected"):
            shard.send(json.dumps(SEND))
        shard.connect(gateway.url)
        connection = gateway.wait_for_connection()
        connection.expect(Opcode.IDENTIFY)
        with pytest.raises(NotReady, match="identifying"):
            shard.send(json.dumps(SEND), timeout=0.05)
        results: list[Any] = []
        sender = threading.Thread(target=lambda: results.append(shard.send(json.dumps(SEND))))
        sender.start()
        connection.proceed()
        sender.join(10)
        assert results == [None]
        connection.expect(Opcode.VOICE_STATE_UPDATE)
        first = next(payload["op"] for payload in connection.received if payload["op"] != 1)
        assert first == Opcode.IDENTIFY


def test_after_the_end_send_says_so(gateway: LocalGateway, shard: Shard) -> None:
    shard.disconnect()
    with pytest.raises(ShardError, match="closed by disconnect"):
        shard.send(json.dumps(SEND))
    with pytest.raises(NotReady):
        shard.heartbeat()


def test_the_120_of_a_minute_are_kept_and_heartbeats_pass(gateway: LocalGateway) -> None:
    """The gateway counts too, and would close with 4008."""
    gateway.heartbeat_interval = 200
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        sent = 0
        with pytest.raises(SendTimeout, match="used up"):
            while True:
                shard.send(json.dumps(SEND), timeout=0)
                sent += 1
        assert 50 < sent < 120
        connection = gateway.connections[0]
        beats = [payload["op"] for payload in connection.received].count(1)
        wait_until(lambda: [payload["op"] for payload in connection.received].count(1) >= beats + 3)
        assert connection.is_open
        # A new connection has a window of its own.
        shard.reconnect()
        shard.send(json.dumps(SEND))


def give_windows(monkeypatch: pytest.MonkeyPatch, limit: int, period: float) -> None:
    """Every connection that is made from now on may send so many payloads in a period."""
    monkeypatch.setattr("shardlib.connection.SendWindow", lambda: SendWindow(limit, period))


def test_who_may_wait_for_the_window_waits(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_windows(monkeypatch, limit=3, period=0.3)  # one of the three is kept for heartbeats
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        since = time.monotonic()
        for _ in range(5):
            shard.send(json.dumps(SEND))
        assert time.monotonic() - since > 0.5
        assert gateway.connections[0].is_open


def test_who_waits_for_the_window_gets_the_next_connections(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is lost has no room to wait for; the next one has a window of its own."""
    give_windows(monkeypatch, limit=4, period=3600.0)
    with make_shard(send_timeout=7200.0) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        with pytest.raises(SendTimeout):
            while True:
                shard.send(json.dumps(SEND), timeout=0)
        results: list[Any] = []
        sender = threading.Thread(target=lambda: results.append(shard.send(json.dumps(SEND))))
        sender.start()
        gateway.connections[0].drop()
        sender.join(10)
        assert results == [None]
        gateway.connections[-1].expect(Opcode.VOICE_STATE_UPDATE)


def test_a_callback_is_told_at_once_that_the_window_is_used_up(
    gateway: LocalGateway, shard: Shard
) -> None:
    errors: list[Exception] = []

    @shard.on("USER_UPDATE")
    def flood(shard: Shard, _: Any) -> None:
        try:
            for _ in range(130):
                shard.send(json.dumps(SEND))
        except SendTimeout as error:
            errors.append(error)

    since = time.perf_counter()
    gateway.dispatch("USER_UPDATE", {})
    wait_until(lambda: errors)
    assert time.perf_counter() - since < 5
    assert shard.state is ShardState.READY


def test_a_peer_that_takes_nothing_blocks_no_one_for_longer_than_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # To fill the buffers of the system takes more than 120.
    give_windows(monkeypatch, limit=10**9, period=60.0)
    with make_gateway(receive_buffer=4096, send_limit=None) as gateway, make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        connection = gateway.connections[0]
        connection.stop_reading()
        padding = json.dumps({**SEND, "x": "x" * 3900})
        errors: list[Exception] = []

        def flood() -> None:
            try:
                while True:
                    shard.send(padding, timeout=0.3)
            except (SendTimeout, NotReady) as error:
                errors.append(error)

        threads = [threading.Thread(target=flood) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(errors) == 3
        assert any(isinstance(error, SendTimeout) for error in errors)
        since = time.perf_counter()
        shard.disconnect()
        assert time.perf_counter() - since < 3


def test_the_last_presence_begins_every_later_session(gateway: LocalGateway, shard: Shard) -> None:
    shard.update_presence(status="idle", since=1, afk=True)
    shard.reinstantiate()
    shard.wait_until_ready(10)
    second = gateway.connections[0].expect(Opcode.IDENTIFY)
    assert second["d"]["presence"] == {
        "since": 1,
        "activities": [],
        "status": "idle",
        "afk": True,
    }
    shard.send('{"op": 3, "d": {"status": "dnd", "activities": [], "since": null, "afk": false}}')
    shard.reinstantiate()
    shard.wait_until_ready(10)
    third = gateway.connections[0].expect(Opcode.IDENTIFY)
    assert third["d"]["presence"]["status"] == "dnd"


def test_the_presence_survives_a_session_that_is_called_invalid(
    gateway: LocalGateway, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 40: the user has not asked for the new session, and knows nothing of it."""
    monkeypatch.setattr("shardlib.reconnect.INVALID_SESSION_DELAY", (0.01, 0.02))
    shard.update_presence(status="idle")
    first = gateway.connections[0]
    first.expect(Opcode.PRESENCE_UPDATE)
    first.invalid_session(False)
    wait_until(lambda: first.is_closed and gateway.connections)
    assert gateway.connections[0].expect(Opcode.IDENTIFY)["d"]["presence"]["status"] == "idle"
    wait_until(lambda: gateway.connections[0].session)
    gateway.connections[0].reset()  # a Resume, though, carries none
    assert "presence" not in gateway.expect(Opcode.RESUME)["d"]


def test_identify_holds_what_was_asked_for(gateway: LocalGateway) -> None:
    with make_shard(
        large_threshold=250,
        presence={"status": "dnd"},
        properties={"os": "plan9", "browser": "b", "device": "d"},
        compression="payload",
        intents=513,
    ) as shard:
        shard.connect(gateway.url)
        data = gateway.expect(Opcode.IDENTIFY)["d"]
    assert data["large_threshold"] == 250
    assert data["presence"]["status"] == "dnd"
    assert data["properties"]["os"] == "plan9"
    assert data["compress"] is True
    assert data["intents"] == 513
    assert data["shard"] == [0, 1]
    assert data["token"] == shard.token


def test_the_json_module_of_the_users_writes_what_the_user_sends_and_nothing_else(
    gateway: LocalGateway,
) -> None:
    """It may fail, or take its time, which must stop neither heartbeats nor a Resume."""
    gateway.heartbeat_interval = 100

    class Module:
        written: list[Any] = []
        loads = staticmethod(json.loads)

        @classmethod
        def dumps(cls, value: Any) -> str:
            cls.written.append(value["op"])
            return json.dumps(value)

    with make_shard(json=Module) as shard:
        Module.written.clear()  # the constructor has copied what Identify will hold
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        shard.heartbeat()
        gateway.expect(Opcode.HEARTBEAT)
        gateway.connections[0].request_heartbeat()
        gateway.connections[0].drop()
        gateway.expect(Opcode.RESUME)
        shard.wait_until_ready(10)
        assert Module.written == []
        shard.update_voice_state(1, None)
        gateway.connections[0].expect(Opcode.VOICE_STATE_UPDATE)
        assert Module.written == [Opcode.VOICE_STATE_UPDATE]


def test_identify_by_hand_is_not_sent_twice(gateway: LocalGateway, shard: Shard) -> None:
    with pytest.raises(ShardError, match="was sent"):
        shard.identify()
    assert gateway.connections[0].is_open


def test_the_public_identify_waits_for_its_turn_and_takes_it(gateway: LocalGateway) -> None:
    gate = _Gate()
    with make_shard(identify_gate=gate) as shard:
        shard.connect(gateway.url)
        wait_until(lambda: gate.asked and shard.heartbeat_interval is not None)
        shard.identify()
        assert shard.state is ShardState.CONNECTED
        gate.wait = 0.0
        shard.identify()
        shard.wait_until_ready(10)
        assert [each["op"] for each in gateway.connections[0].received].count(2) == 1


class _Gate:
    """Lets nobody through for an hour, until told otherwise, or fails."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.wait = 0.0 if errors else 3600.0
        self.asked = 0

    def try_acquire(self, shard_id: int) -> float:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.wait


def test_identify_by_hand_does_not_meet_the_next_connection(gateway: LocalGateway) -> None:
    """The gate took its time, and its answer was for a connection that is no more."""
    gateway.inject(instead_of="ready")

    shard: Shard

    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            if threading.current_thread() is shard.socket_thread:
                return 3600.0
            gateway.inject(instead_of="hello")
            gateway.connections[0].drop()
            wait_until(lambda: shard.stats.connections == 2)
            return 0.0

    with make_shard(identify_gate=Gate()) as shard:
        shard.connect(gateway.url)
        wait_until(lambda: shard.heartbeat_interval is not None)
        shard.identify()
        assert shard.state is ShardState.CONNECTED


def test_a_gate_that_fails_is_told_and_asked_again(gateway: LocalGateway) -> None:
    """It may ask a server, which may be down for a moment: no reason to stay without a session."""
    recorder = Recorder()
    error = ConnectionRefusedError("the gate's server")
    with make_shard(recorder, identify_gate=_Gate(error)) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        assert recorder.errors == [error]
        assert len(gateway.all_connections) == 2


def test_the_public_identify_waits_for_hello(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="hello")
    with make_shard() as shard:
        with pytest.raises(NotReady):
            shard.identify()
        shard.connect(gateway.url)
        with pytest.raises(NotReady):
            shard.identify()
        gateway.wait_for_connection().proceed()
        shard.wait_until_ready(10)


def test_identify_by_hand_that_is_overtaken_by_ready_sets_no_deadline(
    gateway: LocalGateway,
) -> None:
    """READY was handled before identify() went on: nothing is awaited any more."""
    gateway.heartbeat_interval = 100

    shard: Shard

    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            return 60.0 if threading.current_thread() is shard.socket_thread else 0.0

    shard = make_shard(identify_gate=Gate(), ready_timeout=0.3)

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "return" and frame.f_code is Connection.send.__code__:
            wait_until(lambda: shard.state is ShardState.READY)
        return trace

    with shard:
        shard.connect(gateway.url)
        wait_until(lambda: shard.heartbeat_interval is not None)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            shard.identify()
        finally:
            sys.settrace(before)
        connection = gateway.connections[0]
        beats = [payload["op"] for payload in connection.received].count(Opcode.HEARTBEAT)
        # Longer than ready_timeout, in heartbeats.
        wait_until(lambda: [payload["op"] for payload in connection.received].count(1) >= beats + 5)
        assert len(gateway.all_connections) == 1
