"""Sending: what may be sent, when and how often, and which errors tell of what may not."""

from __future__ import annotations

import json
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import ujson

from shardlib import NotReady, Opcode, SendTimeout, Shard, ShardError, ShardState
from shardlib.connection import Connection
from shardlib.limits import SendWindow
from shardlib.testing import LocalGateway
from tests.recorder import Recorder
from tests.shards import await_heartbeats, make_gateway, make_shard
from tests.support import AT_ONCE, in_background, wait_until

SEND = {"op": 4, "d": {"guild_id": "1", "channel_id": None, "self_mute": False, "self_deaf": False}}

CYCLE: list[Any] = []
CYCLE.append(CYCLE)

PRESENCE = '{"op": 3, "d": {"activities": [{"type": 0, "name": %s}]}}'


def deep() -> list[Any]:
    """A list nested too deep for any JSON module."""
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


def test_the_answer_to_a_request_reaches_wait_for(gateway: LocalGateway, shard: Shard) -> None:
    guild_id = next(iter(gateway.world.guilds))
    threading.Timer(0.01, shard.request_guild_members, [guild_id]).start()
    chunk = shard.wait_for("GUILD_MEMBERS_CHUNK", timeout=10)
    assert chunk["guild_id"] == str(guild_id)


@pytest.mark.parametrize(
    "data, error, message",
    [
        (None, TypeError, "data must be a mapping or a str"),
        (b"{}", TypeError, "data must be a mapping or a str"),
        ([("op", 1)], TypeError, "data must be a mapping or a str"),
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
        ({"d": None}, ValueError, "no opcode"),
        ({"op": 1, "d": float("nan")}, ValueError, "NaN"),
        ({"op": 3, "d": "x" * 4096}, ValueError, "4096"),
        ({"op": 3, "d": {"colour": 1}}, ValueError, "colour"),
        ({"op": 1, "d": object}, TypeError, "cannot be written as JSON: .*object"),
        ({"op": 1, "d": CYCLE}, ValueError, "cannot be written as JSON"),
    ],
)
def test_send_refuses_an_invalid_payload_and_sends_nothing(
    gateway: LocalGateway, shard: Shard, data: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        shard.send(data)
    shard.send(json.dumps(SEND))
    gateway.expect(Opcode.VOICE_STATE_UPDATE)
    sent = [payload["op"] for payload in gateway.connections[0].received]
    assert [opcode for opcode in sent if opcode not in (1, 2)] == [4]


@pytest.mark.parametrize("module", [json, orjson, ujson], ids=lambda module: module.__name__)
def test_send_takes_a_mapping_and_encodes_it_with_the_option_json(
    gateway: LocalGateway, module: Any
) -> None:
    with make_shard(json=module) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        shard.send(types.MappingProxyType({**SEND, "op": Opcode.VOICE_STATE_UPDATE}))
        assert gateway.expect(Opcode.VOICE_STATE_UPDATE)["d"] == SEND["d"]


def test_a_presence_sent_as_a_mapping_is_the_one_of_the_next_session(
    gateway: LocalGateway, shard: Shard
) -> None:
    shard.send({"op": Opcode.PRESENCE_UPDATE, "d": {"status": "idle"}})
    gateway.expect(Opcode.PRESENCE_UPDATE)
    shard.reinstantiate()
    shard.wait_until_ready(10)
    identify = gateway.connections[-1].expect(Opcode.IDENTIFY)
    assert identify["d"]["presence"]["status"] == "idle"


def test_send_takes_4096_bytes_and_refuses_4097(gateway: LocalGateway, shard: Shard) -> None:
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
        # Small enough for op 3, but every later Identify would be too large with it.
        (lambda: shard.update_presence(activities=[{"name": "x" * 3950, "type": 0}]), "Identify"),
        (lambda: shard.send(PRESENCE % '"x", "state": 1e999'), "Identify"),
        (lambda: shard.update_presence(activities=[{"name": deep(), "type": 0}]), "name"),
        (lambda: shard.update_presence(activities=[{"name": "x", "type": 0, "x": deep()}]), "JSON"),
    ]
    for send, message in wrong:
        with pytest.raises(ValueError, match=message):
            send()


def test_before_ready_send_waits_until_its_timeout(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="ready")
    with make_shard() as shard:
        with pytest.raises(NotReady, match="disconnected"):
            shard.send(json.dumps(SEND))
        shard.connect(gateway.url)
        connection = gateway.wait_for_connection()
        connection.expect(Opcode.IDENTIFY)
        with pytest.raises(NotReady, match="identifying"):
            shard.send(json.dumps(SEND), timeout=0.05)
        sending = in_background(shard.send, json.dumps(SEND))
        connection.proceed()
        sending.result(10)
        connection.expect(Opcode.VOICE_STATE_UPDATE)
        first = next(payload["op"] for payload in connection.received if payload["op"] != 1)
        assert first == Opcode.IDENTIFY


def test_send_on_a_closed_shard_says_what_closed_it(gateway: LocalGateway, shard: Shard) -> None:
    shard.disconnect()
    with pytest.raises(ShardError, match="closed by disconnect"):
        shard.send(json.dumps(SEND))
    with pytest.raises(NotReady):
        shard.heartbeat()


def test_send_stops_before_120_in_a_minute_while_heartbeats_continue(gateway: LocalGateway) -> None:
    """The gateway counts the payloads too, and would close with 4008."""
    gateway.heartbeat_interval = 1000
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        sent = 0
        with pytest.raises(SendTimeout, match="used up"):
            while True:
                # Long enough for a heartbeat to leave, and too short for the window.
                shard.send(json.dumps(SEND), timeout=2.0)
                sent += 1
        assert 50 < sent < 120
        connection = gateway.connections[0]
        await_heartbeats(connection, 3)
        assert connection.is_open
        # A new connection has a window of its own.
        shard.reconnect()
        shard.send(json.dumps(SEND))


def give_windows(monkeypatch: pytest.MonkeyPatch, limit: int, period: float) -> None:
    """Give every later connection a window of ``limit`` payloads in ``period`` seconds."""
    monkeypatch.setattr("shardlib.connection.SendWindow", lambda: SendWindow(limit, period))


def test_send_waits_for_room_in_the_send_window(
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


def use_up_window(shard: Shard) -> None:
    with pytest.raises(SendTimeout):
        while True:
            shard.send(json.dumps(SEND), timeout=0)


def test_a_send_that_waits_for_room_uses_the_window_of_the_next_connection(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next connection has a window of its own, with room at once."""
    give_windows(monkeypatch, limit=4, period=3600.0)
    with make_shard(send_timeout=7200.0) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        use_up_window(shard)
        sending = in_background(shard.send, json.dumps(SEND))
        gateway.connections[0].drop()
        sending.result(10)
        gateway.connections[-1].expect(Opcode.VOICE_STATE_UPDATE)


def test_a_send_told_to_wait_by_a_connection_that_is_replaced_meanwhile_waits_no_longer(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the next connection may be READY before the thread begins to wait."""
    give_windows(monkeypatch, limit=4, period=3600.0)
    with make_shard(send_timeout=7200.0) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        use_up_window(shard)
        connection = shard._reader.connection
        send = connection.send

        def send_and_be_slow(*arguments: Any, **options: Any) -> float:
            wait = send(*arguments, **options)
            gateway.connections[0].drop()
            wait_until(lambda: shard.stats.resumes == 1)
            return wait

        monkeypatch.setattr(connection, "send", send_and_be_slow)
        in_background(shard.send, json.dumps(SEND)).result(10)
        gateway.connections[-1].expect(Opcode.VOICE_STATE_UPDATE)


def test_send_in_a_callback_raises_at_once_when_the_window_is_used_up(
    gateway: LocalGateway, shard: Shard
) -> None:
    errors: list[Exception] = []

    @shard.on("USER_UPDATE")
    def send_too_many(shard: Shard, _: Any) -> None:
        try:
            for _ in range(130):
                shard.send(json.dumps(SEND))
        except SendTimeout as error:
            errors.append(error)

    since = time.perf_counter()
    gateway.dispatch("USER_UPDATE", {})
    wait_until(lambda: errors)
    assert time.perf_counter() - since < AT_ONCE
    assert shard.state is ShardState.READY


def test_a_peer_that_reads_nothing_blocks_no_send_beyond_its_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # More than 120 payloads are needed to fill the buffers of the system.
    give_windows(monkeypatch, limit=10**9, period=60.0)
    with (
        make_gateway(receive_buffer=4096, send_limit=None) as gateway,
        make_shard(close_timeout=0.5) as shard,
    ):
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        connection = gateway.connections[0]
        connection.stop_reading()
        padding = json.dumps({**SEND, "x": "x" * 3900})

        def send_until_it_fails() -> None:
            while True:
                shard.send(padding, timeout=0.3)

        senders = [in_background(send_until_it_fails) for _ in range(3)]
        errors = [sender.exception(20) for sender in senders]
        assert all(isinstance(error, (SendTimeout, NotReady)) for error in errors)
        assert any(isinstance(error, SendTimeout) for error in errors)
        since = time.perf_counter()
        shard.disconnect()
        assert time.perf_counter() - since < AT_ONCE


def test_identify_of_a_new_session_holds_the_last_presence(
    gateway: LocalGateway, shard: Shard
) -> None:
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


def test_the_presence_survives_an_invalid_session(
    gateway: LocalGateway, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 40: the user did not ask for the new session, and expects the presence to stay."""
    monkeypatch.setattr("shardlib.reconnect.INVALID_SESSION_DELAY", (0.01, 0.02))
    shard.update_presence(status="idle")
    first = gateway.connections[0]
    first.expect(Opcode.PRESENCE_UPDATE)
    first.invalid_session(False)
    wait_until(lambda: first.is_closed and gateway.connections)
    assert gateway.connections[0].expect(Opcode.IDENTIFY)["d"]["presence"]["status"] == "idle"
    wait_until(lambda: gateway.connections[0].session)
    gateway.connections[0].reset()  # a Resume holds no presence
    assert "presence" not in gateway.expect(Opcode.RESUME)["d"]


def test_identify_holds_the_arguments_of_the_shard(gateway: LocalGateway) -> None:
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


def test_the_users_json_module_encodes_only_payloads_of_the_user(
    gateway: LocalGateway,
) -> None:
    """The module may fail or be slow, which must stop neither heartbeats nor a Resume."""

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
        shard.heartbeat_in(10)
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


def test_identify_by_hand_asks_the_gate_first(gateway: LocalGateway) -> None:
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
    """An identify gate that raises the given errors first; without any, it is shut for an hour."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.wait = 0.0 if errors else 3600.0
        self.asked = 0

    def try_acquire(self, shard_id: int) -> float:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.wait


def test_a_late_gate_sends_no_identify_on_the_next_connection(gateway: LocalGateway) -> None:
    """The connection for which identify() asked the gate is lost before the gate answers."""
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


def test_an_exception_of_the_gate_is_reported_and_the_gate_asked_again(
    gateway: LocalGateway,
) -> None:
    """The gate may ask a server that is down for a moment; the shard still gets its session."""
    recorder = Recorder()
    error = ConnectionRefusedError("the gate's server")
    with make_shard(recorder, identify_gate=_Gate(error)) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        assert recorder.errors == [error]
        assert len(gateway.all_connections) == 2


def test_identify_by_hand_before_hello_is_refused(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="hello")
    with make_shard() as shard:
        with pytest.raises(NotReady):
            shard.identify()
        shard.connect(gateway.url)
        with pytest.raises(NotReady):
            shard.identify()
        gateway.wait_for_connection().proceed()
        shard.wait_until_ready(10)


def test_identify_by_hand_sets_no_ready_deadline_after_ready(
    gateway: LocalGateway,
) -> None:
    """If READY is handled before identify() goes on, no answer is awaited any more."""
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
        shard.heartbeat_in(100)
        # Five heartbeats take longer than ready_timeout.
        await_heartbeats(connection, 5)
        assert len(gateway.all_connections) == 1
