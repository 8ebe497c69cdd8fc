"""Reconnecting: each loss leads to exactly one new connection, and not too soon."""

from __future__ import annotations

import functools
import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from shardlib import Backoff, IdentifyGate, Shard, ShardClosed, ShardState
from shardlib.connection import Connection
from shardlib.deadline import Deadline
from shardlib.gateway import Opcode
from shardlib.loss import Cause, Loss
from shardlib.reconnect import INVALID_SESSION_DELAY
from shardlib.testing import GatewayConnection, LocalGateway
from tests.recorder import dispatch_numbers
from tests.reliability.conftest import MakeGateway, WatchShard
from tests.reliability.support import NotedBackoff, StuckCallback
from tests.support import not_none, wait_until

Lose = Callable[[Shard, GatewayConnection], object]

# Every way to lose a connection that leaves the session as it is.
LOSSES: dict[str, Lose] = {
    "FIN": lambda shard, it: it.drop(),
    "RST": lambda shard, it: it.reset(),
    "close without a code": lambda shard, it: it.close(None),
    **{
        f"close {code}": lambda shard, it, code=code: it.close(code, "bye")  # type: ignore[misc]
        for code in (1000, 1001, 1002, 1011, 1012, 3000, 4000, 4001, 4002, 4003, 4005, 4008, 4999)
    },
    "op 7": lambda shard, it: it.reconnect(),
    "op 9 true": lambda shard, it: it.invalid_session(True),
    "reconnect()": lambda shard, it: shard.reconnect(),
    "resume()": lambda shard, it: shard.resume(),
    "corrupt stream": lambda shard, it: it.send_corrupt(),
    "masked frame": lambda shard, it: it.send_frame(1, b"{}", masked=True),
    "reserved bit": lambda shard, it: it.send_frame(1, b"{}", reserved=True),
    "unknown frame": lambda shard, it: it.send_frame(3, b"{}"),
    "fragmented ping": lambda shard, it: it.send_frame(9, b"", fin=False),
    "long ping": lambda shard, it: it.send_frame(9, bytes(126)),
    "continuation of nothing": lambda shard, it: it.send_frame(0, b"{}"),
    "oversized frame": lambda shard, it: it.send_bytes(b"\x82\x7f" + (1 << 40).to_bytes(8, "big")),
    "half a close code": lambda shard, it: it.send_frame(8, b"\x03"),
    "cut in a message": lambda shard, it: (it.send_bytes(b"\x82\x7e\x40\x00half"), it.drop()),
    "bomb": lambda shard, it: it.send_bomb(8_000_000),
}


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_connection_is_resumed_and_no_event_is_missed(
    loss: str, tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Rows 12, 13, 33 and 39: the shard never closes with 1000 or 1001, which end a session."""
    gateway = make_gateway(tls=tls)
    shard, recorder = watch_shard(gateway, max_payload=4_000_000)
    first = gateway.connections[-1]
    dispatch_numbers(gateway, range(20))
    wait_until(lambda: len(recorder.numbers()) == 20)

    LOSSES[loss](shard, first)
    dispatch_numbers(gateway, range(20, 40))

    wait_until(
        lambda: len(recorder.numbers()) == 40, what="the events from between the connections"
    )
    wait_until(lambda: recorder.count("reconnected", True) == 1)
    assert recorder.numbers() == list(range(40))
    assert recorder.count("ready") == 1
    [disconnected] = [call for call in recorder.life if call[0] == "disconnected"]
    assert disconnected[2] is False
    assert first.wait_closed() not in (1000, 1001)
    assert len(gateway.all_connections) == 2


def test_concurrent_losses_and_requests_open_one_connection_at_a_time(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 16: a reset, op 7, a heartbeat and reconnect() by two threads, in all mixtures."""
    gateway = make_gateway()
    shard, recorder = watch_shard(gateway, backoff=Backoff(base=0.001, cap=0.002))
    dice = random.Random(16)
    for number in range(100):
        connection = gateway.connections[-1]
        acts: list[Callable[[], object]] = [
            connection.reset,
            lambda connection=connection: _quietly(connection.reconnect),  # type: ignore[misc]
            lambda: _quietly(shard.reconnect),
            lambda: _quietly(shard.reconnect),
            lambda: _quietly(shard.heartbeat),
        ]
        chosen = dice.sample(acts, dice.randint(2, 5))
        threads = [threading.Thread(target=act) for act in chosen]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        dispatch_numbers(gateway, [number])
        wait_until(lambda: shard.state is ShardState.READY and len(recorder.numbers()) > number)

    assert recorder.numbers() == list(range(100))
    assert recorder.count("ready") == 1
    recorder.check_order()
    # Each connection resumed only after the one before it had ended.
    connections = gateway.all_connections
    for earlier, later in itertools.pairwise(connections):
        assert earlier.closed_at is not None
        identified = [each.time for each in later.received if each["op"] == Opcode.RESUME]
        assert all(earlier.closed_at < at for at in identified)


def test_simultaneous_reports_of_one_loss_open_one_connection(
    stuck: StuckCallback, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 16: the reader sees all reports together; a report that comes late hits no connection."""
    shard, recorder = watch_shard(gateway, backoff=Backoff(base=0.001, cap=0.002))
    shard.on("BUSY")(stuck)

    for number in range(1, 21):
        stuck.entered.clear()
        stuck.release.clear()
        theirs, ours = gateway.connections[-1], shard._reader.connection
        gateway.sessions[0].dispatch("BUSY", None)
        assert stuck.entered.wait(10)
        theirs.reconnect()
        heartbeat = shard._reader.heartbeat
        assert heartbeat is not None
        notice = functools.partial(heartbeat._fail, Cause.UNRESPONSIVE, "a zombie")
        acts: list[Callable[[], object]] = [theirs.reset, shard.reconnect, shard.resume, notice]
        random.Random(number).shuffle(acts)
        threads = [threading.Thread(target=act) for act in acts]
        for thread in threads:
            thread.start()
        wait_until(lambda: shard._lifecycle.life.request and ours.failure and theirs.is_closed)
        wait_until(lambda: sum(each.is_alive() for each in threads) == 2)  # reconnect(), resume()
        stuck.release.set()
        for thread in threads:
            thread.join(10)
        wait_until(lambda: recorder.count("reconnected", True) == number)
        notice()  # as a heartbeat thread that was late
        ours.fail(Loss(Cause.UNRESPONSIVE, "late"))
        dispatch_numbers(gateway, [number])
        wait_until(lambda: len(recorder.numbers()) == number)

        assert len(gateway.all_connections) == number + 1
        assert [each["op"] for each in gateway.connections[-1].received].count(Opcode.RESUME) == 1
    assert recorder.count("ready") == 1


def test_ctrl_c_inside_reconnect_keeps_the_old_connection_in_use(
    make_gateway: MakeGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 16: reconnect() did not wake the reader, but the next reconnect() does."""
    gateway = make_gateway(heartbeat_interval=10**7)
    shard, _ = watch_shard(gateway)
    wait_until(lambda: shard.stats.events["GUILD_CREATE"])  # the gateway sends nothing more

    def interrupted(self: Connection) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "interrupt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shard.reconnect()
    shard.update_presence(status="idle")
    assert gateway.connections[-1].expect(Opcode.PRESENCE_UPDATE)
    assert shard.stats.connections == 1
    shard.reconnect()
    shard.wait_until_ready(10)
    assert shard.stats.resumes == 1


def test_ctrl_c_while_disconnect_sends_the_close_frame_still_ends_the_connection(
    stuck: StuckCallback,
    make_gateway: MakeGateway,
    watch_shard: WatchShard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 16: the reader is stuck in a callback, so disconnect() has to end the connection."""
    gateway = make_gateway(heartbeat_interval=10**7)
    shard, _ = watch_shard(gateway, close_timeout=0.4)
    connection = gateway.connections[-1]
    shard.on("BUSY")(stuck)
    gateway.sessions[0].dispatch("BUSY", None)
    assert stuck.entered.wait(10)

    def interrupted(self: Connection, code: int, deadline: Deadline) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "_send_close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shard.disconnect()
    wait_until(lambda: connection.is_closed, 15)
    stuck.release.set()
    shard.join(10)


@pytest.mark.parametrize("step", ["upgrade", "hello", "ready"])
def test_reconnect_while_connecting_opens_no_second_connection(
    step: str, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 16: four threads that call reconnect() wait for the connection that is on its way."""
    shard, recorder = watch_shard(gateway)
    gateway.inject(instead_of=step)
    gateway.connections[-1].reset()
    wait_until(lambda: len(gateway.all_connections) == 2)
    state = {
        "upgrade": ShardState.CONNECTING,
        "hello": ShardState.CONNECTED,
        "ready": ShardState.RESUMING,
    }[step]
    wait_until(lambda: shard.state is state)
    if step == "ready":
        gateway.connections[-1].expect(Opcode.RESUME)  # the state changes just before it is sent
    threads = [threading.Thread(target=shard.reconnect) for _ in range(4)]
    for thread in threads:
        thread.start()
    if step != "upgrade":  # the socket is open, so reconnect() has nothing to wait for
        for thread in threads:
            thread.join(10)

    gateway.connections[-1].proceed()

    for thread in threads:
        thread.join(10)
    wait_until(lambda: recorder.count("reconnected", True) == 1)
    assert not any(thread.is_alive() for thread in threads)
    assert len(gateway.all_connections) == 2


def _quietly(act: Callable[[], object]) -> None:
    """Call a function, and ignore its errors: another thread may have been faster."""
    try:
        act()
    except Exception:
        pass


@pytest.mark.parametrize("step", ["upgrade", "hello", "ready"])
def test_pauses_grow_while_a_gateway_closes_before_ready(
    step: str, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 10: only READY or RESUMED resets the back-off, no earlier step does."""
    gateway = make_gateway()
    backoff = NotedBackoff(base=0.002, cap=0.5)
    shard, recorder = watch_shard(gateway, backoff=backoff)
    backoff.delays.clear()
    action = (lambda it: it.drop()) if step == "upgrade" else (lambda it: it.close(4000))
    gateway.inject(action, before=step, connections=8)
    gateway.connections[-1].reset()
    wait_until(lambda: recorder.count("reconnected") == 1, 20)

    at_once, *delays = backoff.delays
    assert at_once == 0  # the attempt after the connection that had worked
    assert len(delays) == 8 and all(delays)
    assert all(b >= a * 0.99 for a, b in zip(delays, delays[2:], strict=False))
    assert shard.stats.events["READY"] <= 3


def test_pauses_after_connections_lost_soon_after_ready_grow_up_to_the_cap(
    make_gateway: MakeGateway, watch_shard: WatchShard, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 62: there is no pause after the first of them."""
    gateway = make_gateway()
    shard, recorder = watch_shard(gateway, backoff=Backoff(base=0.01, cap=0.6))
    for number in range(5):
        gateway.connections[-1].close(4000)
        wait_until(lambda: recorder.count("reconnected", True) == number + 1)

    lines = [each.getMessage() for each in caplog.records]
    pauses = [line.rpartition("; resuming ")[2] for line in lines if "connection lost" in line]
    assert pauses == ["now", *(f"in {seconds} seconds" for seconds in (0.2, 0.5, 0.6, 0.6))]
    opened = [each.opened_at for each in gateway.all_connections]
    # The first loss is followed at once, each of the others by its pause.
    pairs = itertools.pairwise(opened[1:])
    for (earlier, later), pause in zip(pairs, (0.25, 0.5, 0.6, 0.6), strict=True):
        assert later - earlier >= pause


def test_the_next_attempt_comes_no_sooner_than_the_back_off_says(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 10: the shard waits for each delay, even after a reconnect(), which does not wait."""
    backoff = NotedBackoff(base=0.05, cap=0.2)
    shard, recorder = watch_shard(gateway, backoff=backoff)
    shard.reconnect()
    shard.wait_until_ready(10)
    backoff.delays.clear()
    gateway.inject(lambda it: it.close(4000), before="hello", connections=4)
    gateway.connections[-1].reset()
    wait_until(lambda: recorder.count("reconnected") == 2)

    times = [each.opened_at for each in gateway.all_connections[2:]]
    delays = backoff.delays[1:5]  # the first belongs to the attempt that comes at once
    assert all(
        later - earlier >= delay
        for (earlier, later), delay in zip(itertools.pairwise(times), delays, strict=True)
    )
    assert sum(delays) > 0.2


def test_a_connection_lost_after_a_healthy_time_is_resumed_at_once(
    gateway: LocalGateway,
    watch_shard: WatchShard,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Row 62: a loss that is not soon after READY is followed by no pause."""
    monkeypatch.setattr("shardlib.reconnect.QUICK_LOSS", 0.05)
    shard, recorder = watch_shard(gateway, backoff=Backoff(base=1.0, cap=2.0))
    for number in range(3):
        ready_at = time.monotonic()
        wait_until(lambda: time.monotonic() - ready_at > 0.06)
        gateway.connections[-1].reset()
        wait_until(lambda: recorder.count("reconnected") == number + 1)

    lines = [each.getMessage() for each in caplog.records]
    ends = [line.rpartition("; ")[2] for line in lines if "connection lost" in line]
    assert ends == ["resuming now"] * 3


@pytest.mark.slow
def test_the_daily_budget_of_identifies_is_never_used_up(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 10: the shard closes after 950 Identifies, if the gateway forgets each session."""
    gateway = make_gateway(session_start_limit=1000)
    # Each connection ends at once, so that 950 Identifies take seconds.
    gateway.inject(lambda it: it.close(4009), before="ready", connections=None)
    shard, recorder = watch_shard(
        gateway,
        ready=False,
        identify_gate=IdentifyGate(interval=1e-6, slack=0),
        backoff=Backoff(base=1e-6, cap=1e-6),
        compression=None,
    )

    with pytest.raises(ShardClosed, match="950 of the 1000 sessions that Discord allows"):
        shard.join(150)

    assert gateway.session_starts["remaining"] >= 50
    assert recorder.life[-1][0] == "closed"
    assert shard.state is ShardState.CLOSED


def test_an_identify_without_an_answer_is_sent_again_after_ready_timeout(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 31: until then heartbeats go on, and the state tells that READY is missing."""
    gateway = make_gateway()
    gateway.inject(instead_of="ready")
    shard, recorder = watch_shard(gateway, ready=False, ready_timeout=5.0)

    first = gateway.wait_for_connection()
    wait_until(lambda: shard.heartbeat_thread is not None)
    shard.heartbeat_in(200)  # not by Hello: a busy machine may be slow to acknowledge
    for _ in range(2):
        first.expect(Opcode.HEARTBEAT)
    assert shard.state in (ShardState.IDENTIFYING, ShardState.CONNECTED)
    assert not first.is_closed
    shard.wait_until_ready(10)

    assert gateway.session_starts["remaining"] == 1_000_000 - 2
    assert len(gateway.all_connections) == 2


def test_a_late_ready_costs_no_second_identify(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 31: READY may take many heartbeats, and longer than Hello may."""
    gateway = make_gateway()
    gateway.inject(instead_of="ready")
    shard, recorder = watch_shard(gateway, ready=False, hello_timeout=2.0, ready_timeout=60.0)
    connection = gateway.wait_for_connection()
    wait_until(lambda: shard.heartbeat_thread is not None)
    shard.heartbeat_in(200)  # not by Hello: a busy machine may be slow to acknowledge
    for _ in range(3):
        connection.expect(Opcode.HEARTBEAT)
    wait_until(lambda: time.monotonic() - connection.opened_at > 2.5)

    connection.proceed()
    shard.wait_until_ready(10)

    assert len(gateway.all_connections) == 1
    assert gateway.session_starts["remaining"] == 1_000_000 - 1


@pytest.mark.parametrize("trouble", ["refused", "503", "silent", "no Hello"])
def test_a_session_gateway_out_of_order_is_abandoned_for_the_main_one(
    trouble: str,
    make_gateway: MakeGateway,
    watch_shard: WatchShard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 21: after three attempts there, the shard resumes the session at the main URL."""
    gateway = make_gateway()
    other = make_gateway()
    faults: dict[str, Callable[[], Any]] = {
        "refused": other.stop,
        "503": lambda: other.inject(
            lambda it: it.refuse(503), instead_of="upgrade", connections=None
        ),
        "silent": lambda: other.inject(instead_of="accept", connections=None),
        "no Hello": lambda: other.inject(instead_of="hello", connections=None),
    }
    url = other.url
    faults[trouble]()
    monkeypatch.setattr(LocalGateway, "resume_url", property(lambda self: url))
    shard, recorder = watch_shard(gateway, connect_timeout=2.0, hello_timeout=2.0)
    assert shard.session_gateway == url

    gateway.connections[-1].reset()

    wait_until(lambda: recorder.count("reconnected", True) == 1, 30, "RESUMED")
    assert not gateway.connections[-1].at_resume_url
    assert recorder.count("ready") == 1


def test_three_resumes_all_go_to_the_session_gateway_with_the_same_query(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 21: the URL stays for as long as the session, and so do version and compression."""
    gateway = make_gateway()
    shard, recorder = watch_shard(gateway)
    query = gateway.connections[-1].query
    for number in range(3):
        gateway.connections[-1].reset()
        wait_until(lambda: recorder.count("reconnected", True) == number + 1)
        assert gateway.connections[-1].at_resume_url
        assert gateway.connections[-1].query == query

    gateway.connections[-1].close(4009)  # a new session begins at the main URL

    wait_until(lambda: recorder.count("ready") == 2)
    assert not gateway.connections[-1].at_resume_url
    assert gateway.connections[-1].query == query


@pytest.mark.parametrize("answer", ["op 9 to Identify", "op 9 to Resume", "op 9 later"])
def test_nothing_of_an_invalid_session_is_resumed(
    answer: str, make_gateway: MakeGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 22: a Resume has id, sequence and gateway of the session that followed."""
    monkeypatch.setattr("shardlib.reconnect.INVALID_SESSION_DELAY", (0.05, 0.06))
    gateway = make_gateway()
    if answer == "op 9 to Identify":
        gateway.inject(lambda it: it.invalid_session(False), instead_of="ready")
    shard, recorder = watch_shard(gateway)
    if answer != "op 9 to Identify":
        dispatch_numbers(gateway, range(500))
        wait_until(lambda: len(recorder.numbers()) == 500)
        before, count = shard.session_id, recorder.count("ready")
        if answer == "op 9 to Resume":
            gateway.inject(lambda it: it.invalid_session(False), instead_of="ready")
            gateway.connections[-1].reset()
        else:
            gateway.connections[-1].invalid_session(False)
        wait_until(lambda: recorder.count("ready") == count + 1)
        assert shard.session_id != before

    # An event without a sequence, then a loss.
    wait_until(lambda: shard.last_sequence == not_none(gateway.connections[-1].session).sequence)
    last = shard.last_sequence
    gateway.connections[-1].send({"op": 0, "t": "WITHOUT_SEQUENCE", "s": None, "d": None})
    gateway.connections[-1].reset()
    resume = gateway.expect(Opcode.RESUME)
    while resume.connection.closed_at:  # the gateway answered this one with op 9
        resume = gateway.expect(Opcode.RESUME)

    assert last is not None and last < 20
    assert resume["d"] == {
        "token": shard.token,
        "session_id": shard.session_id,
        "seq": last,
    }


@pytest.mark.parametrize("moment", ["in place of READY", "later"])
def test_identify_waits_for_a_random_time_after_an_invalid_session(
    moment: str, gateway: LocalGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 22: one to five seconds, as documented; some tenths of a second here."""
    assert INVALID_SESSION_DELAY == (1.0, 5.0)
    monkeypatch.setattr("shardlib.reconnect.INVALID_SESSION_DELAY", (0.3, 0.4))
    times: list[float] = []

    def invalidate(connection: GatewayConnection) -> None:
        times.append(time.monotonic())
        connection.invalid_session(False)

    if moment == "later":
        shard, recorder = watch_shard(gateway)
        invalidate(gateway.connections[-1])
        wait_until(lambda: recorder.count("ready") == 2)
    else:
        gateway.inject(invalidate, instead_of="ready")
        watch_shard(gateway)
    [first, second] = [gateway.expect(Opcode.IDENTIFY).time for _ in range(2)]

    assert first <= times[0]
    assert second - times[0] >= 0.3


def test_refused_attempts_after_an_unanswered_resume_do_not_count_as_unanswered(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """A short outage, at whose beginning a Resume was lost, must not cost the session."""
    shard, recorder = watch_shard(gateway, backoff=Backoff(base=0.01, cap=0.02))
    session_id = shard.session_id
    gateway.inject(lambda it: it.reset(), instead_of="ready")
    gateway.connections[-1].reset()
    wait_until(lambda: len(gateway.all_connections) >= 2 and gateway.all_connections[1].is_closed)
    gateway.inject(lambda it: it.refuse(503), instead_of="upgrade", connections=8)
    wait_until(lambda: recorder.count("reconnected", True) == 1, 20)
    assert shard.session_id == session_id
    assert len(gateway.all_connections) >= 10
