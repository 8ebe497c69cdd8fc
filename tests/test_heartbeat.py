"""Heartbeats: when they are sent, what they hold, and when their connection is judged dead."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from shardlib import NotReady, Opcode, ShardState
from shardlib.heartbeat import Heartbeat
from shardlib.testing import LocalGateway
from shardlib.watchdog import Watchdog
from tests.recorder import Recorder
from tests.shards import heartbeats, make_gateway, make_shard
from tests.support import not_none, wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    # The interval is long enough for an acknowledgement to be in time on a busy machine.
    with make_gateway(heartbeat_interval=1000) as gateway:
        yield gateway


@pytest.mark.parametrize("jitter", [0.0, 0.5])
def test_the_first_heartbeat_is_sent_after_a_random_part_of_the_interval(
    monkeypatch: pytest.MonkeyPatch, jitter: float
) -> None:
    monkeypatch.setattr(random, "random", lambda: jitter)
    with make_gateway(heartbeat_interval=400) as gateway, make_shard() as shard:
        shard.connect(gateway.url)
        first = gateway.wait_for_connection().expect(Opcode.HEARTBEAT)
        connection = first.connection
        assert first.time - connection.opened_at >= 0.4 * jitter
        if jitter == 0.0:
            assert connection.received.index(first) <= 1  # before or right after Identify


def test_heartbeats_after_the_first_keep_the_interval_without_jitter_or_drift() -> None:
    """Jitter on each heartbeat would halve the distance on average; drift would lengthen it."""
    # A heartbeat may be three quarters of a second late, as on a busy machine.
    with make_gateway(heartbeat_interval=1000) as gateway, make_shard() as shard:
        shard.connect(gateway.url)
        connection = gateway.wait_for_connection()
        wait_until(lambda: len(heartbeats(connection)) >= 4)
        first, *_, last = heartbeats(connection)[:4]
        assert 0.75 <= (last.time - first.time) / 3 <= 1.5


def test_a_heartbeat_holds_the_last_sequence(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="ready")
    with make_shard() as shard:
        shard.connect(gateway.url)
        connection = gateway.wait_for_connection()
        assert connection.expect(Opcode.HEARTBEAT)["d"] is None
        connection.proceed()
        shard.wait_until_ready(10)
        sequence = not_none(connection.session).dispatch("USER_UPDATE", {})
        wait_until(lambda: heartbeats(connection)[-1]["d"] == sequence)


def test_a_requested_heartbeat_is_sent_at_once_and_makes_no_zombie() -> None:
    with make_gateway(heartbeat_interval=60_000) as gateway, make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        connection = gateway.connections[0]
        connection.acknowledge = False
        for count in range(1, 4):
            connection.request_heartbeat()
            wait_until(lambda: len(heartbeats(connection)) >= count)
        assert shard.heartbeat_clock_time is not None
        shard.heartbeat()
        wait_until(lambda: len(heartbeats(connection)) >= 4)
        assert shard.state is ShardState.READY
        assert len(gateway.all_connections) == 1


def test_op_1_before_hello_and_before_ready_is_answered_with_a_heartbeat(
    gateway: LocalGateway,
) -> None:
    gateway.heartbeat_interval = 60_000
    gateway.inject(lambda connection: connection.request_heartbeat(), before="hello")
    gateway.inject(lambda connection: connection.request_heartbeat(), before="ready")
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        connection = gateway.connections[0]
        wait_until(lambda: len(heartbeats(connection)) >= 2)


def test_heartbeat_properties_belong_to_the_current_connection(
    gateway: LocalGateway,
) -> None:
    recorder = Recorder()
    with make_shard(recorder) as shard:
        assert shard.heartbeat_interval is None
        assert shard.heartbeat_clock_time is None
        assert shard.heartbeat_ping is None
        assert shard.heartbeat_acknowledged
        since = time.perf_counter()
        shard.connect(gateway.url)
        recorder.wait_for("heartbeat", count=2)
        assert shard.heartbeat_interval == 1000
        assert since < not_none(shard.heartbeat_clock_time) < time.perf_counter()
        pings = recorder.beats
        assert all(0 < ping < 5 for ping in pings)
        assert not_none(shard.heartbeat_thread).name == "shard-0-heartbeat"
        # The next connection begins without the values of the last one.
        gateway.inject(instead_of="hello")
        gateway.connections[0].drop()
        wait_until(lambda: shard.stats.connections == 2)
        assert (shard.heartbeat_interval, shard.heartbeat_ping) == (None, None)


def test_a_missed_acknowledgement_ends_one_connection_and_not_the_next(
    gateway: LocalGateway,
) -> None:
    """The missing acknowledgement of the dead connection does not count against the next one."""
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        gateway.connections[0].acknowledge = False
        wait_until(lambda: shard.stats.resumes == 1)
        connection = gateway.connections[-1]
        shard.heartbeat_in(50)
        wait_until(lambda: len(heartbeats(connection)) >= 4)
        assert len(gateway.all_connections) == 2
        dead, alive = gateway.all_connections
        assert max(beat.time for beat in heartbeats(dead)) < max(
            beat.time for beat in heartbeats(alive)
        )


def test_heartbeat_by_the_user_finds_a_zombie_before_the_next_scheduled_one() -> None:
    with make_gateway(heartbeat_interval=1000) as gateway, make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        gateway.connections[0].acknowledge = False
        shard.heartbeat_in(10)
        wait_until(lambda: not shard.heartbeat_acknowledged)
        shard.heartbeat_in(60_000)  # so that shard.heartbeat() finds the zombie first
        # Wait longer than the interval, within which an acknowledgement is expected.
        wait_until(lambda: time.perf_counter() - (shard.heartbeat_clock_time or 0) > 1.1)
        shard.heartbeat()
        wait_until(lambda: shard.stats.resumes >= 1)
        assert gateway.all_connections[0].wait_closed() == 4000


def test_heartbeat_by_the_user_spares_a_connection_whose_reader_is_in_a_callback() -> None:
    """The acknowledgement may be waiting to be read while the reader is inside the callback."""
    inside, release = threading.Event(), threading.Event()
    with make_gateway(heartbeat_interval=1000) as gateway, make_shard() as shard:
        shard.on("USER_UPDATE", lambda *_: (inside.set(), release.wait(20)))
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        try:
            gateway.dispatch("USER_UPDATE", {})
            assert inside.wait(10)
            wait_until(lambda: not shard.heartbeat_acknowledged)
            shard.heartbeat_in(60_000)
            # Wait longer than the interval, within which an acknowledgement is expected.
            wait_until(lambda: time.perf_counter() - (shard.heartbeat_clock_time or 0) > 1.1)
            before = len(heartbeats(gateway.connections[0]))
            shard.heartbeat()
            wait_until(lambda: len(heartbeats(gateway.connections[0])) > before)
        finally:
            release.set()
        wait_until(lambda: shard.heartbeat_acknowledged)
        assert len(gateway.all_connections) == 1


def test_heartbeat_in_changes_the_pace_and_needs_a_connection() -> None:
    with make_gateway(heartbeat_interval=60_000) as gateway, make_shard() as shard:
        with pytest.raises(NotReady):
            shard.heartbeat_in(10)
        with pytest.raises(NotReady):
            shard.heartbeat()
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        with pytest.raises(ValueError):
            shard.heartbeat_in(0)
        shard.heartbeat_in(10)
        wait_until(lambda: len(heartbeats(gateway.connections[0])) >= 5)
        assert shard.heartbeat_interval == 60_000  # still Hello's


@pytest.mark.slow
def test_events_that_delay_the_acknowledgement_make_no_zombie(gateway: LocalGateway) -> None:
    """The acknowledgement stands behind the events that keep coming."""
    gateway.heartbeat_interval = 1000  # gateway and shard share the interpreter and are both busy
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        traffic = gateway.traffic(rate=None)
        connection = gateway.connections[0]
        wait_until(lambda: len(heartbeats(connection)) >= 3)
        traffic.stop()
        assert len(gateway.all_connections) == 1


def test_a_connection_with_events_but_no_acknowledgement_is_a_zombie(gateway: LocalGateway) -> None:
    gateway.heartbeat_interval = 300
    # A logger without DEBUG: writing those lines would take most of the time, and log handlers
    # count as the user's functions, which postpone the verdict.
    logger = logging.getLogger("tests.flood")
    logger.setLevel(logging.INFO)
    with make_shard(logger=logger) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        gateway.connections[0].acknowledge = False
        traffic = gateway.traffic(rate=None)
        wait_until(lambda: shard.stats.connections >= 2)
        traffic.stop()


class SetClock:
    """Stands for the module time; the test sets its wall clock."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.calls = 0

    monotonic = staticmethod(time.monotonic)
    perf_counter = staticmethod(time.perf_counter)

    def time(self) -> float:
        now = time.time() + self.offset
        self.calls += 1  # after `now`: a test that sees the count may change the offset at once
        return now


def test_setting_the_wall_clock_costs_no_connection(
    gateway: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 37: setting the wall clock an hour forward or back ends no healthy connection."""
    clock = SetClock()
    monkeypatch.setattr("shardlib.heartbeat.time", clock)
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        connection = gateway.connections[0]
        shard.heartbeat_in(100)
        for offset in (3600, -3600, 0):
            clock.offset = offset
            wanted = len(heartbeats(connection)) + 3
            wait_until(lambda: len(heartbeats(connection)) >= wanted)
        assert len(gateway.all_connections) == 1


@pytest.mark.parametrize("hour, soon", [(3600, True), (-3600, False)], ids=["forward", "back"])
@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
def test_only_a_wall_clock_that_jumps_forward_counts_as_a_sleep(
    hour: float, soon: bool, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 37: the monotonic clock may stop during a sleep; the next heartbeat is a probe."""
    clock = SetClock()
    monkeypatch.setattr("shardlib.heartbeat.time", clock)
    monkeypatch.setattr("shardlib.liveness.PROBE_TIMEOUT", 0.3)
    monkeypatch.setattr(random, "random", lambda: 1 / 200)  # first heartbeat after 0.3 seconds
    with make_gateway(heartbeat_interval=60_000) as gateway, make_shard() as shard:
        gateway.inject(lambda connection: setattr(connection, "acknowledge", alive), before="hello")
        shard.connect(gateway.url)
        connection = gateway.wait_for_connection()
        wait_until(lambda: clock.calls)  # the heartbeat thread has looked
        clock.offset = hour
        wait_until(lambda: heartbeats(connection))
        shard.wait_until_ready(10)
        if not soon:  # the next heartbeat is due after a minute, as without the jump
            wait_until(lambda: time.perf_counter() - (shard.heartbeat_clock_time or 0) > 0.9)
            assert len(heartbeats(connection)) == 1
        elif alive:
            wait_until(lambda: len(heartbeats(connection)) >= 2)
        else:
            wait_until(lambda: shard.stats.resumes == 1)
        assert len(gateway.all_connections) == 1 + (soon and not alive)


def test_a_sleep_is_noticed_though_something_else_wakes_the_heartbeat_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 37: a program that looks at the connection first thing after a sleep hides none."""
    clock = SetClock()
    monkeypatch.setattr("shardlib.heartbeat.time", clock)
    monkeypatch.setattr("shardlib.liveness.PROBE_TIMEOUT", 0.3)
    monkeypatch.setattr(random, "random", lambda: 1 / 60)  # the first is due after one second
    with make_gateway(heartbeat_interval=60_000) as gateway, make_shard() as shard:
        gateway.inject(lambda connection: setattr(connection, "acknowledge", False), before="hello")
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        wait_until(lambda: clock.calls)  # the heartbeat thread has looked
        clock.offset = 3600
        shard.heartbeat(requested=True)
        wait_until(lambda: shard.stats.resumes == 1)


def test_the_heartbeat_thread_ends_with_its_connection(gateway: LocalGateway) -> None:
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        thread = not_none(shard.heartbeat_thread)
        gateway.connections[0].drop()
        wait_until(lambda: not thread.is_alive())
        wait_until(lambda: shard.heartbeat_thread not in (None, thread))


def test_a_quicker_pace_leaves_the_last_heartbeat_its_time_to_be_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a slow network the acknowledgement of that heartbeat may take the whole interval."""
    monkeypatch.setattr(random, "random", lambda: 0.0)  # first heartbeat at once
    with make_gateway(heartbeat_interval=60_000) as gateway, make_shard() as shard:
        gateway.inject(lambda connection: setattr(connection, "acknowledge", False), before="hello")
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        connection = gateway.connections[0]
        wait_until(lambda: len(heartbeats(connection)) == 1)
        assert not shard.heartbeat_acknowledged
        shard.heartbeat_in(10)
        wait_until(lambda: len(heartbeats(connection)) >= 5)
        assert len(gateway.all_connections) == 1


def test_a_refused_heartbeat_is_not_retried_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A connection that was never opened refuses to send, as a closing one does.
    connection = make_shard()._reader.connection
    refused: list[float] = []
    send = connection.send

    def refuse(*arguments: Any, **options: Any) -> float:
        refused.append(time.monotonic())
        return send(*arguments, **options)

    monkeypatch.setattr(connection, "send", refuse)
    heartbeat = Heartbeat(
        connection,
        60_000,
        last_sequence=lambda: None,
        callback_seconds=lambda: 0.0,
        on_unanswered=lambda: None,
        watchdog=Watchdog(None, log=print, thread_prefix="shard-0"),
    )
    heartbeat.start("heartbeat")
    heartbeat.request(by_gateway=True)
    wait_until(lambda: len(refused) > 1)
    heartbeat.stop()
    heartbeat.join()
    assert refused[1] - refused[0] > 0.1
