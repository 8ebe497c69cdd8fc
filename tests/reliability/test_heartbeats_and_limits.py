"""Heartbeats go on whatever code of the user does, and keep to the send limit of the Gateway."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import Opcode, SendTimeout, Shard, ShardError, ShardState
from shardlib.frames import FrameType
from tests.peers import Peer, ScriptedGateway
from tests.reliability.conftest import MakeScripted, WatchShard
from tests.reliability.support import Flood
from tests.support import AT_ONCE, HAS_GIL, in_background, wait_until

pytestmark = pytest.mark.slow

INTERVAL = 300  # milliseconds, between heartbeats
PATIENT_INTERVAL = 10_000  # of Hello: within it a busy machine, too, acknowledges
SLOW = 4.0  # seconds that slow code of the user takes: many intervals


def beats(gateway: ScriptedGateway) -> int:
    """Count the heartbeats of all connections."""
    return sum(len(peer.sent(Opcode.HEARTBEAT)) for peer in gateway.peers)


def keeps_pace(interval: float) -> Callable[[Peer], None]:
    """Make the script of a well-behaved gateway.

    :param interval: milliseconds between heartbeats.
    """

    def script(peer: Peer) -> None:
        peer.begin(interval)
        peer.serve()

    return script


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """The event for which slow code of a test waits; set when the test ends."""
    event = threading.Event()
    yield event
    event.set()


# The user's code and the heartbeat thread


def test_heartbeats_go_on_while_the_json_module_fails(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 68: memory may be short for a moment, and a heartbeat needs nothing from the module."""

    class JSON:
        is_memory_short = False
        loads = staticmethod(json.loads)

        @classmethod
        def dumps(cls, value: Any) -> str:
            if cls.is_memory_short:
                raise MemoryError
            return json.dumps(value)

    gateway = make_scripted(keeps_pace(PATIENT_INTERVAL))
    shard, _ = watch_shard(gateway, json=JSON)
    shard.heartbeat_in(INTERVAL)
    JSON.is_memory_short = True
    with pytest.raises(ValueError, match="cannot be written"):
        shard.update_presence()

    before = beats(gateway)
    wait_until(lambda: beats(gateway) >= before + 3, 15, "more heartbeats")
    assert len(gateway.peers) == 1


class Handler(logging.Handler):
    """Calls a function with each record, on the thread that logs it."""

    def __init__(self, function: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self._function = function

    def emit(self, record: logging.LogRecord) -> None:
        self._function(record)


def logger_to(function: Callable[[logging.LogRecord], object]) -> logging.Logger:
    """Make a logger, for the constructor of a shard, that hands each record to a function."""
    logger = logging.Logger("the user's")
    logger.addHandler(Handler(function))
    return logger


def test_heartbeats_go_on_after_a_log_handler_has_raised_system_exit(
    release: threading.Event, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 68: the warning of a slow callback is not logged on the heartbeat thread."""

    def exit_at_warnings(record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            raise SystemExit(5)

    gateway = make_scripted(keeps_pace(PATIENT_INTERVAL))
    shard, _ = watch_shard(gateway, logger=logger_to(exit_at_warnings))
    shard.heartbeat_in(INTERVAL)
    shard.on("TYPING_START")(lambda shard, data: release.wait(SLOW))
    gateway.peers[0].dispatch("TYPING_START")
    wait_until(lambda: shard.stats.callback_seconds > SLOW)

    before = beats(gateway)
    wait_until(lambda: beats(gateway) >= before + 3, 15, "more heartbeats")
    assert shard.state is ShardState.READY
    assert len(gateway.peers) == 1


def test_heartbeats_go_on_while_a_log_handler_blocks(
    release: threading.Event, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 69: marked text in a console, or a full pipe, may block every thread that logs."""
    entered = threading.Event()

    def block(record: logging.LogRecord) -> None:
        if record.getMessage() == "block":
            entered.set()
            release.wait()

    logger = logger_to(block)
    gateway = make_scripted(keeps_pace(PATIENT_INTERVAL))
    shard, _ = watch_shard(gateway, logger=logger)
    shard.heartbeat_in(INTERVAL)
    shard.on("TYPING_START")(lambda shard, data: logger.warning("block"))
    gateway.peers[0].dispatch("TYPING_START")
    assert entered.wait(10)

    before = beats(gateway)
    wait_until(lambda: beats(gateway) >= before + 6, 15, "more heartbeats")
    release.set()
    gateway.peers[0].dispatch("AFTER")
    wait_until(lambda: shard.stats.events["AFTER"])
    assert len(gateway.peers) == 1


class SlowToShow:
    """A callback that waits for the test, and whose repr() is slow, too."""

    def __init__(self, release: threading.Event) -> None:
        self._release = release
        self.shown_on: list[threading.Thread] = []

    def __call__(self, shard: Shard, data: object) -> None:
        self._release.wait(30)

    def __repr__(self) -> str:
        self.shown_on.append(threading.current_thread())
        time.sleep(SLOW)
        return "the slow one"


def test_a_callback_with_a_slow_repr_delays_no_heartbeat(
    release: threading.Event,
    make_scripted: MakeScripted,
    watch_shard: WatchShard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """__repr__ is code of the user, too; and the warning shows only frames of the user."""
    gateway = make_scripted(keeps_pace(PATIENT_INTERVAL))
    shard, _ = watch_shard(gateway)
    shard.heartbeat_in(INTERVAL)
    callback = SlowToShow(release)
    shard.on("TYPING_START", callback)
    gateway.peers[0].dispatch("TYPING_START")

    wait_until(lambda: callback.shown_on)
    before = beats(gateway)
    assert callback.shown_on[0] is not shard.heartbeat_thread
    wait_until(lambda: beats(gateway) >= before + 3, SLOW - 0.3, "heartbeats during __repr__")

    def reports() -> list[str]:
        told = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
        return [each for each in told if "the slow one" in each]

    wait_until(reports)
    release.set()
    [report] = reports()
    assert "self._release.wait(30)" in report or not HAS_GIL
    assert "reader.py" not in report and "callbacks.py" not in report
    assert len(gateway.peers) == 1


@pytest.mark.parametrize("what", ["predicate", "json module", "log handler", "identify gate"])
def test_slow_code_of_the_user_outside_of_callbacks_costs_no_connection(
    what: str, release: threading.Event, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 70: its time counts as the user's, as that of callbacks does."""
    entered, left = threading.Event(), threading.Event()
    options: dict[str, Any] = {}

    def be_slow_once() -> bool:
        if not entered.is_set():
            entered.set()
            release.wait(SLOW)
            left.set()
        return True

    class JSON:
        dumps = staticmethod(json.dumps)

        @staticmethod
        def loads(text: str | bytes) -> Any:
            value = json.loads(text)
            if value.get("t") == "TYPING_START":
                be_slow_once()
            return value

    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            be_slow_once()
            return 0.0

    if what == "json module":
        options["json"] = JSON
    elif what == "log handler":
        options["logger"] = logger_to(
            lambda record: record.levelno >= logging.WARNING and be_slow_once()
        )
    elif what == "identify gate":
        options["identify_gate"] = Gate()

    gateway = make_scripted(keeps_pace(1000))  # SLOW is several times that
    shard, recorder = watch_shard(gateway, **options)
    peer = gateway.peers[0]
    if what == "predicate":
        in_background(shard.wait_for, "TYPING_START", lambda data: be_slow_once())

    def has_begun() -> bool:
        peer.dispatch("TYPING_START")  # again and again, since wait_for() may begin late
        return entered.is_set()

    if what == "log handler":
        peer.send_text("no JSON: the shard logs a warning")
    elif what != "identify gate":
        wait_until(has_begun)
    assert left.wait(10)

    before = beats(gateway)
    wait_until(lambda: beats(gateway) >= before + 3, 15, "more heartbeats")
    assert recorder.count("disconnected") == 0
    assert len(gateway.peers) == 1


# Which connection is dead


def test_acknowledgements_slower_than_the_pace_of_heartbeat_in_cost_no_connection(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 71: the pace sets how often the shard sends, not how long an answer may take."""

    def script(peer: Peer) -> None:
        peer.begin(60_000)
        while True:
            peer.expect(Opcode.HEARTBEAT)
            time.sleep(0.05)  # the round trip
            peer.acknowledge()

    gateway = make_scripted(script)
    shard, recorder = watch_shard(gateway)

    shard.heartbeat_in(10)

    wait_until(lambda: len(recorder.beats) >= 20)
    assert len(gateway.peers) == 1


def test_quick_heartbeats_beside_threads_that_send_cost_no_connection(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """If another thread holds the send lock for a whole pace, the heartbeat is tried again."""
    gateway = make_scripted(keeps_pace(41_250))
    shard, _ = watch_shard(gateway)
    shard.heartbeat_in(2)
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            with contextlib.suppress(SendTimeout):
                shard.update_presence(timeout=0.001)

    def compute() -> None:
        while not stop.is_set():
            sum(range(500))

    threads = [threading.Thread(target=each) for each in (send, send, send, compute)]
    for thread in threads:
        thread.start()
    time.sleep(4.0)  # the time during which the threads compete: 2,000 heartbeats
    stop.set()
    for thread in threads:
        thread.join()
    assert shard.state is ShardState.READY
    assert len(gateway.peers) == 1


def test_an_op_1_that_cannot_be_answered_does_not_delay_the_end_of_a_dead_connection(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """The answer must not wait for send_timeout, which may be far longer than the interval."""
    stopped: list[float] = []

    def script(peer: Peer) -> None:
        peer.begin(1000)
        if peer.number > 1:
            peer.serve()
            return
        peer.expect(Opcode.PRESENCE_UPDATE)
        stopped.append(time.monotonic())
        while True:  # the peer asks, and reads no more
            peer.send({"op": Opcode.HEARTBEAT})
            time.sleep(0.05)

    gateway = make_scripted(script, receive_buffer=2048)
    shard, _ = watch_shard(gateway, send_timeout=30.0)

    shard.update_presence()
    flood = Flood(shard)

    second = gateway.peer(2, timeout=30)
    assert second.accepted_at - stopped[0] < 2 * 1.0 + AT_ONCE
    shard.disconnect()
    assert isinstance(flood.error(5), ShardError)


def test_the_ping_is_measured_from_the_heartbeat_that_is_acknowledged(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 73: the answer to an op 1 that crosses a heartbeat does not shorten its round trip."""

    def script(peer: Peer) -> None:
        peer.begin(600_000)
        peer.expect(Opcode.HEARTBEAT)
        time.sleep(0.4)  # the round trip
        peer.send({"op": Opcode.HEARTBEAT})
        peer.expect(Opcode.HEARTBEAT)
        peer.acknowledge()
        peer.acknowledge()
        peer.serve()

    shard, recorder = watch_shard(make_scripted(script))

    shard.heartbeat()

    wait_until(lambda: len(recorder.beats) == 2)
    assert recorder.beats[0] >= 0.4
    assert recorder.beats[1] < recorder.beats[0]


def test_surplus_acknowledgements_are_ignored(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 73: a thousand acknowledgements of one heartbeat give one round trip."""

    def script(peer: Peer) -> None:
        peer.begin(600_000)
        for _ in range(10):
            peer.acknowledge()
        peer.expect(Opcode.HEARTBEAT)
        for _ in range(1000):
            peer.acknowledge()
        peer.dispatch("DONE")
        peer.serve()

    shard, recorder = watch_shard(make_scripted(script))

    shard.heartbeat()

    wait_until(lambda: shard.stats.events["DONE"])
    assert len(recorder.beats) == 1


def test_a_connection_without_hello_is_given_up_though_ready_came(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 73: without Hello the connection would never have a heartbeat or a deadline."""

    def script(peer: Peer) -> None:
        peer.accept()
        peer.ready()
        peer.serve()

    gateway = make_scripted(script)
    watch_shard(gateway, ready=False, hello_timeout=0.3)

    gateway.peer(2, timeout=10)


# Frames that a peer sends without end.
ENDLESS = {
    "pings": (b"", FrameType.PING),
    "events": (b'{"op":0,"t":"FLOOD","s":null,"d":null}', FrameType.TEXT),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_connection_without_hello_is_given_up_whatever_else_comes(
    what: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """There is always something more to read, but hello_timeout runs out."""

    def script(peer: Peer) -> None:
        peer.accept()
        peer.flood(*ENDLESS[what])

    gateway = make_scripted(script)
    watch_shard(gateway, ready=False, hello_timeout=0.3, close_timeout=0.5)

    gateway.peer(2, timeout=10)


def test_resumed_in_answer_to_identify_does_not_make_the_shard_ready(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 73: the client has asked to resume no session."""
    answered = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.resumed(0)
        peer.dispatch("AFTER")
        answered.wait(10)
        peer.ready()
        peer.serve()

    shard, recorder = watch_shard(make_scripted(script), ready=False)
    wait_until(lambda: shard.stats.events["AFTER"])

    assert shard.state is ShardState.IDENTIFYING
    answered.set()
    shard.wait_until_ready(10)
    assert shard.stats.resumes == 0
    assert recorder.count("reconnected") == 0


# 120 payloads a minute


# Each has a shard send too much.


def ask_by_opcode(shard: Shard, peer: Peer) -> None:
    for _ in range(200):
        peer.send({"op": Opcode.HEARTBEAT})


def beat_by_hand(shard: Shard, peer: Peer) -> None:
    for _ in range(200):
        shard.heartbeat()
        time.sleep(0.002)  # so that not one heartbeat answers all calls


def beat_quickly(shard: Shard, peer: Peer) -> None:
    shard.heartbeat_in(5)
    time.sleep(1.5)  # the time for 300 heartbeats


def send_all_and_be_asked(shard: Shard, peer: Peer) -> None:
    with pytest.raises(SendTimeout):
        for _ in range(200):
            shard.update_presence(timeout=0)
    ask_by_opcode(shard, peer)


SENDERS = {
    "op 1": ask_by_opcode,
    "heartbeat()": beat_by_hand,
    "heartbeat_in()": beat_quickly,
    "sends, then op 1": send_all_and_be_asked,
}


@pytest.mark.parametrize("sender", SENDERS)
def test_no_more_than_120_payloads_leave_in_a_minute(
    sender: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 72: the Gateway counts every heartbeat, whoever asks for it, and closes with 4008."""
    gateway = make_scripted(keeps_pace(41_250))
    shard, _ = watch_shard(gateway)
    [peer] = gateway.peers

    SENDERS[sender](shard, peer)
    peer.dispatch("DONE")
    wait_until(lambda: shard.stats.events["DONE"])
    time.sleep(0.3)  # time for a payload too many to arrive

    assert len(peer.received) <= 120
    assert len(gateway.peers) == 1


def test_no_more_than_120_payloads_leave_in_a_minute_that_begins_before_hello(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Answers to op 1 leave room for Identify and for the heartbeats that Hello asks for."""

    def script(peer: Peer) -> None:
        peer.accept()
        for _ in range(150):
            peer.send({"op": Opcode.HEARTBEAT})
        peer.hello(30_000)
        peer.expect(Opcode.IDENTIFY)
        peer.ready()
        for _ in range(10):
            peer.send({"op": Opcode.HEARTBEAT})
        peer.dispatch("DONE")
        peer.serve()

    gateway = make_scripted(script)
    shard, _ = watch_shard(gateway)
    wait_until(lambda: shard.stats.events["DONE"])
    time.sleep(0.3)  # time for a payload too many to arrive

    [peer] = gateway.peers
    assert 1 < len(peer.received) <= 120


def test_latency_keeps_the_round_trips_of_the_last_heartbeats(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """The last one, the mean, and each of the recent ones: a mean hides a slow last one."""
    gateway = make_scripted(keeps_pace(600_000))
    shard, recorder = watch_shard(gateway)
    for number in range(1, 4):
        shard.heartbeat()
        wait_until(lambda: len(recorder.beats) == number)

    latency = shard.latency
    assert isinstance(latency.recent, tuple)
    assert sorted(latency.recent) == sorted(recorder.beats)
    assert latency.last == recorder.beats[-1] == shard.heartbeat_ping
    assert latency.mean == pytest.approx(sum(recorder.beats) / 3)
