"""Heartbeats: a shard leaves a dead connection in time, and never one that is merely busy."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from shardlib import Backoff, Shard, ShardError, ShardState
from shardlib.gateway import Opcode
from shardlib.testing import GatewayConnection, LocalGateway
from tests.recorder import dispatch_numbers
from tests.reliability.conftest import MakeGateway, WatchShard
from tests.reliability.support import Flood, talk_on
from tests.support import AT_ONCE, HAS_GIL, wait_until

INTERVAL = 300  # milliseconds
SECONDS = INTERVAL / 1000
PATIENT_INTERVAL = 4000  # within which a busy machine, too, acknowledges

# How a connection dies without a word to the client.
DEATHS: dict[str, Any] = {
    "no acknowledgement": lambda it: setattr(it, "acknowledge", False),
    "black hole": lambda it: it.freeze(),
}


def _beats(connection: GatewayConnection) -> list[float]:
    return [each.time for each in connection.received if each["op"] == Opcode.HEARTBEAT]


def _set_interval(connection: GatewayConnection, interval: float) -> None:
    """Have the shard change its interval, in milliseconds, when it reads this second Hello."""
    connection.send({"op": Opcode.HELLO, "d": {"heartbeat_interval": interval}})


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("death", DEATHS)
def test_a_silent_connection_is_replaced_in_time_and_the_session_resumed(
    death: str, tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Rows 7, 8 and 12: the shard closes the dead connection without waiting for a close frame."""
    gateway = make_gateway(heartbeat_interval=PATIENT_INTERVAL, tls=tls)
    gateway.inject(instead_of="close")
    shard, recorder = watch_shard(gateway)
    first = gateway.connections[-1]
    _set_interval(first, INTERVAL)
    wait_until(lambda: shard.heartbeat_interval == INTERVAL)

    DEATHS[death](first)
    died = time.monotonic()
    dispatch_numbers(gateway, range(1))
    resume = gateway.expect(Opcode.RESUME, timeout=20)

    # Two intervals, and one more if anything arrived after the heartbeat without an answer.
    assert resume.time - died < 3 * SECONDS + AT_ONCE
    wait_until(lambda: recorder.count("reconnected", True) == 1)
    wait_until(lambda: recorder.numbers() == [0])
    first.thaw()
    assert first.wait_closed() not in (1000, 1001)
    assert [each["op"] for each in resume.connection.received].count(Opcode.IDENTIFY) == 0


@pytest.mark.slow
def test_a_peer_that_keeps_talking_instead_of_closing_delays_no_reconnect_or_disconnect(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 8: each returns within its time, though the peer never closes and never falls silent."""
    gateway = make_gateway(close_timeout=60)
    gateway.inject(talk_on, instead_of="close", connections=None)
    shard, _ = watch_shard(gateway, close_timeout=10.0)

    began = time.monotonic()
    shard.reconnect()  # waits up to a second for a close frame
    assert time.monotonic() - began < 1.0 + AT_ONCE
    shard.wait_until_ready(10)
    began = time.monotonic()
    shard.disconnect()
    assert time.monotonic() - began < 10.0 + AT_ONCE
    assert shard.socket_thread is None


def test_a_stuck_send_does_not_delay_the_end_of_a_dead_connection(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 9: a heartbeat that waits behind the stuck send counts as one without an answer."""
    gateway = make_gateway(heartbeat_interval=PATIENT_INTERVAL, receive_buffer=2048)
    shard, _ = watch_shard(gateway, send_timeout=30.0)
    first = gateway.connections[-1]
    _set_interval(first, INTERVAL)
    wait_until(lambda: shard.heartbeat_interval == INTERVAL)

    first.stop_reading()
    stopped = time.monotonic()
    flood = Flood(shard)
    resume = gateway.expect(Opcode.RESUME, timeout=20)

    assert resume.time - stopped < 3 * SECONDS + AT_ONCE
    shard.disconnect()
    assert isinstance(flood.error(10), ShardError)


def test_one_missed_acknowledgement_is_not_held_against_the_next_connection(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 23: the shard reconnects once, and not again at the next three heartbeats."""
    gateway = make_gateway(heartbeat_interval=PATIENT_INTERVAL)
    shard, recorder = watch_shard(gateway)
    gateway.connections[-1].acknowledge = False

    wait_until(lambda: recorder.count("reconnected", True) == 1)
    second = gateway.connections[-1]
    shard.heartbeat_in(INTERVAL)  # each scheduled heartbeat asks whether the peer lives
    wait_until(lambda: len(_beats(second)) >= 3, what="three heartbeats")

    assert len(gateway.all_connections) == 2


def test_after_50_lost_connections_only_the_last_has_a_heartbeat(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 15: connections shorter than the interval leave one heartbeat thread, at its own pace."""
    gateway = make_gateway(heartbeat_interval=2500)
    shard, recorder = watch_shard(gateway, backoff=Backoff(base=0.001, cap=0.002))
    for number in range(50):
        gateway.connections[-1].reset()
        wait_until(lambda: recorder.count("reconnected") == number + 1, what="a reconnect")
    last = gateway.connections[-1]
    before = sum(len(_beats(each)) for each in gateway.all_connections if each is not last)

    last.expect(Opcode.HEARTBEAT)
    wait_until(
        lambda: sum("heartbeat" in each.name for each in threading.enumerate()) == 1,
        what="the end of all heartbeat threads but one",
    )
    wait_until(lambda: len(_beats(last)) >= 4)

    beats = _beats(last)
    # On average one in an interval, however late a busy machine makes single ones.
    assert abs((beats[-1] - beats[0]) - 2.5 * (len(beats) - 1)) < 2.5
    after = sum(len(_beats(each)) for each in gateway.all_connections if each is not last)
    assert after == before


def test_a_heartbeat_thread_ends_with_its_connection_and_not_at_its_next_beat(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 15: even with a long interval, fast reconnects leave no threads behind."""
    gateway = make_gateway(heartbeat_interval=600_000)
    shard, recorder = watch_shard(gateway, backoff=Backoff(base=0.001, cap=0.002))
    for number in range(20):
        gateway.connections[-1].reset()
        wait_until(lambda: recorder.count("reconnected") == number + 1, what="a reconnect")

    wait_until(
        lambda: sum("heartbeat" in each.name for each in threading.enumerate()) == 1,
        10,
        "the end of all heartbeat threads but one",
    )


def test_first_heartbeats_are_spread_over_the_interval(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 24: the first heartbeat has jitter."""
    gateway = make_gateway(heartbeat_interval=PATIENT_INTERVAL)
    shards = [watch_shard(gateway, shard_id=number, shard_count=30)[0] for number in range(30)]
    wait_until(lambda: all(_beats(each) for each in gateway.connections), 15)

    delays = [_beats(each)[0] - each.opened_at for each in gateway.connections]
    # The chance that all 30 fall into one half is one in 500 millions. On a busy machine some leave
    # late; without jitter none would come before the interval has passed.
    assert min(delays) < PATIENT_INTERVAL / 2000 < max(delays)
    assert max(delays) < PATIENT_INTERVAL / 1000 + AT_ONCE
    assert all(shard.state is ShardState.READY for shard in shards)


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_heartbeats_on_request_are_answered_and_end_no_connection(
    tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 24: before READY, and while the acknowledgements of the answers are missing."""
    gateway = make_gateway(heartbeat_interval=60_000, tls=tls)

    def ask_three_times(connection: GatewayConnection) -> None:
        for _ in range(3):
            connection.request_heartbeat()

    gateway.inject(ask_three_times, before="ready")
    shard, recorder = watch_shard(gateway)
    connection = gateway.connections[-1]
    connection.expect(Opcode.HEARTBEAT)  # one heartbeat answers all requests that wait

    connection.acknowledge = False
    for _ in range(3):
        before = len(_beats(connection))
        connection.request_heartbeat()
        wait_until(lambda: len(_beats(connection)) > before)
    connection.acknowledge = True
    shard.heartbeat_in(INTERVAL)  # scheduled heartbeats, which decide, come now
    before = len(_beats(connection))
    wait_until(lambda: len(_beats(connection)) >= before + 3)

    assert len(gateway.all_connections) == 1


@pytest.mark.parametrize(
    "first, connections", [("op 7", 3), ("op 9 true", 3), ("op 1", 2), ("an event", 2)]
)
def test_an_opcode_before_hello_is_obeyed_and_the_session_resumed(
    first: str, connections: int, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Rows 6 and 24: the shard does not get stuck on it."""
    begin: dict[str, Any] = {
        "op 7": lambda it: it.reconnect(),
        "op 9 true": lambda it: it.invalid_session(True),
        "op 1": lambda it: it.request_heartbeat(),
        "an event": lambda it: it.send({"op": 0, "t": "X", "s": None, "d": 1}),
    }
    shard, recorder = watch_shard(gateway)
    gateway.inject(begin[first], before="hello")

    gateway.connections[-1].reset()

    wait_until(lambda: recorder.count("reconnected", True) == 1, 15, "RESUMED")
    assert len(gateway.all_connections) == connections
    if first == "op 1":
        assert gateway.connections[-1].received[0]["op"] == Opcode.HEARTBEAT


@pytest.mark.parametrize("step", ["hello", "ready"])
@pytest.mark.parametrize("answer", ["op 7", "op 9 true", "op 9 false"])
def test_op_7_or_op_9_instead_of_hello_or_ready_leads_to_the_next_connection(
    answer: str,
    step: str,
    gateway: LocalGateway,
    watch_shard: WatchShard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 6: the shard does not wait for the Hello or READY that will not come."""
    monkeypatch.setattr("shardlib.reconnect.INVALID_SESSION_DELAY", (0.01, 0.02))
    answers: dict[str, Any] = {
        "op 7": lambda it: it.send({"op": 7, "d": None}),
        "op 9 true": lambda it: it.send({"op": 9, "d": True}),
        "op 9 false": lambda it: it.send({"op": 9, "d": False}),
    }
    gateway.inject(answers[answer], instead_of=step, connections=2)

    shard, recorder = watch_shard(gateway)  # two connections fail, the third becomes READY

    assert len(gateway.all_connections) == 3
    gateway.inject(answers[answer], instead_of=step)
    gateway.connections[-1].reset()  # now the next connection fails as it resumes
    wait_until(lambda: recorder.count("reconnected") == 2, 15, "READY or RESUMED")
    assert len(gateway.all_connections) == 5


def test_an_acknowledgement_behind_a_flood_is_waited_for(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 30: the data before the acknowledgement takes more than an interval to arrive."""
    # Seconds. The next heartbeat is due between begin and end of the data, and the acknowledgement
    # comes well before the one after that, though the machine be busy.
    interval = 3.0
    gateway = make_gateway(heartbeat_interval=int(interval * 1000), heartbeat_tolerance=60)
    shard, recorder = watch_shard(gateway, compression=None)
    connection = gateway.connections[-1]
    connection.acknowledge = False
    connection.expect(Opcode.HEARTBEAT)

    # The data comes in small pieces, and the reader is idle between them.
    connection.slow(40_000)
    gateway.sessions[0].dispatch("LARGE", "x" * int(40_000 * interval * 1.25))
    connection.send({"op": Opcode.HEARTBEAT_ACK})
    connection.acknowledge = True
    wait_until(lambda: recorder.beats, 15, "the acknowledgement")
    connection.slow(1e12)
    wait_until(lambda: len(recorder.beats) >= 2)

    # So it came behind the data, and belongs to the first heartbeat.
    assert recorder.beats[0] > interval / 2
    assert len(gateway.all_connections) == 1


def test_endless_events_without_acknowledgements_do_not_keep_a_connection_alive(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 30: if events come, but no acknowledgement, the shard allows one more interval."""
    gateway = make_gateway(heartbeat_interval=PATIENT_INTERVAL)
    shard, _ = watch_shard(gateway)
    first = gateway.connections[-1]
    gateway.traffic(rate=10)  # few enough that their callbacks never take most of the time
    first.acknowledge = False
    _set_interval(first, INTERVAL)
    before = len(_beats(first))
    gateway.expect(Opcode.RESUME, timeout=20)

    assert len(_beats(first)) - before <= 4


def test_a_blocked_callback_costs_no_connection_and_is_warned_of_once(
    make_gateway: MakeGateway, watch_shard: WatchShard, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 2: heartbeats go on for five intervals inside a callback; the warning shows where."""
    gateway = make_gateway(heartbeat_interval=PATIENT_INTERVAL)
    shard, recorder = watch_shard(gateway)
    connection = gateway.connections[-1]
    release = threading.Event()

    def fetch_something_slow(shard: Shard, data: Any) -> None:
        release.wait(20)

    shard.on("SLOW")(fetch_something_slow)
    wait_until(lambda: recorder.beats)
    _set_interval(connection, INTERVAL)
    gateway.sessions[0].dispatch("SLOW", None)
    before = len(_beats(connection))
    wait_until(lambda: len(_beats(connection)) >= before + 5, 15, "five heartbeats")
    _set_interval(connection, PATIENT_INTERVAL)
    dispatch_numbers(gateway, range(10))
    release.set()
    wait_until(lambda: recorder.numbers() == list(range(10)))

    assert len(gateway.all_connections) == 1
    # On a very busy machine a log handler may run for longer than an interval, too.
    warnings = [text for text in caplog.messages if "fetch_something_slow has been" in text]
    assert len(warnings) == 1
    assert "release.wait(20)" in warnings[0] or not HAS_GIL


def test_a_backlog_of_slow_callbacks_costs_no_connection(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 2: 60 callbacks, each short, take several intervals together."""
    gateway = make_gateway(heartbeat_interval=PATIENT_INTERVAL)
    shard, recorder = watch_shard(gateway)

    @shard.on("TYPING_START")
    def work(shard: Shard, data: Any) -> None:
        time.sleep(0.025)

    wait_until(lambda: recorder.beats)
    _set_interval(gateway.connections[-1], INTERVAL)
    dispatch_numbers(gateway, range(60))  # a second and a half
    _set_interval(gateway.connections[-1], PATIENT_INTERVAL)

    wait_until(lambda: len(recorder.numbers()) == 60, 20)
    assert recorder.numbers() == list(range(60))
    assert len(gateway.all_connections) == 1


def test_an_enormous_heartbeat_interval_does_not_kill_the_heartbeat_thread(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 43: whether Hello or heartbeat_in() asks for it."""
    gateway.inject(
        lambda it: it.send({"op": 10, "d": {"heartbeat_interval": 1e300}}), instead_of="hello"
    )
    shard, recorder = watch_shard(gateway)
    thread = shard.heartbeat_thread

    shard.heartbeat_in(1e17)
    shard.heartbeat_in(500)  # long enough that the acknowledgement comes in time
    wait_until(lambda: recorder.beats)

    assert shard.heartbeat_thread is thread is not None
