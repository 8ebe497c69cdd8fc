"""Liveness: when heartbeats are due, and when a peer that acknowledges none is a zombie."""

from __future__ import annotations

from typing import Any

import pytest

from shardlib.liveness import PROBE_TIMEOUT, RECENT_ROUND_TRIPS, Due, Evidence, Latency, Liveness

QUIET = Evidence(bytes_received=100, callback_seconds=0.0, reader_idle=True)
"""No byte arrived since the heartbeat, and nothing is left to read."""


def beat(liveness: Liveness, now: float, evidence: Evidence = QUIET, **options: Any) -> Due:
    """Ask what is due at a moment, and send the scheduled heartbeat."""
    due = liveness.due(now, **options)
    liveness.send_scheduled(now, evidence, guaranteed=liveness.is_guaranteed(now))
    return due


def started(interval: float = 1000, now: float = 0.0) -> Liveness:
    """A Liveness whose first heartbeat was sent at ``now``."""
    liveness = Liveness(interval, now, 0.0)
    assert beat(liveness, now) is Due.SCHEDULED
    return liveness


# The schedule


@pytest.mark.parametrize("jitter, first", [(0.0, 10.0), (0.5, 30.0), (0.99, 49.6)])
def test_the_first_heartbeat_is_due_after_a_part_of_the_interval(
    jitter: float, first: float
) -> None:
    liveness = Liveness(40_000, 10.0, jitter)
    assert liveness.next_due() == pytest.approx(first)
    assert liveness.due(first - 0.01) is Due.NOTHING
    assert liveness.due(first) is Due.SCHEDULED
    assert liveness.next_due() == pytest.approx(first + 40.0)


def test_late_heartbeats_do_not_delay_the_following_ones() -> None:
    liveness = started()
    for number in range(1, 100):
        assert liveness.next_due() == pytest.approx(number)
        assert beat(liveness, number + 0.3) is Due.SCHEDULED


def test_missed_heartbeats_are_not_sent_later() -> None:
    liveness = started()
    assert beat(liveness, 5.5) is Due.SCHEDULED
    assert liveness.due(5.5) is Due.NOTHING
    assert liveness.next_due() == 6.5


def test_a_pace_set_by_the_user_starts_now_and_stays() -> None:
    liveness = started(60_000)
    liveness.change_pace(10_000, 3.0)
    assert liveness.next_due() == 13.0
    assert beat(liveness, 13.0) is Due.SCHEDULED
    assert liveness.next_due() == 23.0
    assert liveness.interval == 60_000


def test_a_second_hello_changes_the_pace_and_postpones_no_heartbeat() -> None:
    liveness = started(10_000)
    liveness.change_interval(40_000, 4.0)
    assert liveness.next_due() == 10.0
    liveness.change_interval(2000, 4.0)
    assert liveness.next_due() == 6.0
    assert beat(liveness, 6.0) is Due.SCHEDULED
    assert liveness.next_due() == 8.0
    assert liveness.interval == 2000


def test_a_second_hello_keeps_a_pace_set_by_the_user() -> None:
    liveness = started(10_000)
    liveness.change_pace(1000, 0.0)
    liveness.change_interval(40_000, 0.0)
    assert beat(liveness, 1.0) is Due.SCHEDULED
    assert liveness.next_due() == 2.0


@pytest.mark.parametrize(
    "pace, guaranteed",
    [
        (1000.0, [True] * 6),
        (995.0, [True] * 6),
        (500.0, [True, False, True, False, True, False]),
        (400.0, [True, False, False, True, False, False]),
        (5000.0, [True] * 6),
    ],
    ids=["interval", "just quicker", "twice as quick", "more than twice as quick", "slower"],
)
def test_heartbeats_beyond_the_interval_of_hello_are_not_guaranteed(
    pace: float, guaranteed: list[bool]
) -> None:
    """The send window keeps room for the heartbeats that Hello asks for, and for no more."""
    liveness = Liveness(1000, 0.0, 0.0)
    liveness.change_pace(pace, -pace / 1000)
    found = []
    for number in range(6):
        now = number * pace / 1000
        found.append(liveness.is_guaranteed(now))
        beat(liveness, now)
    assert found == guaranteed


# Extra heartbeats


def test_one_extra_heartbeat_answers_every_op_1_before_it() -> None:
    liveness = started(60_000)
    for now in (1.0, 1.1, 1.2):
        liveness.request(now, by_gateway=True)
    assert liveness.next_due() == 1.0
    assert liveness.due(1.3) is Due.BY_GATEWAY
    liveness.send_extra(1.3)
    assert liveness.due(1.3) is Due.NOTHING
    assert liveness.next_due() == 60.0


def test_an_extra_heartbeat_without_room_waits_and_still_answers_every_op_1() -> None:
    liveness = started(60_000)
    liveness.request(1.0, by_gateway=True)
    assert liveness.due(1.0) is Due.BY_GATEWAY
    liveness.extra_later(20.0)
    liveness.request(2.0, by_gateway=True)
    assert liveness.next_due() == 20.0
    assert liveness.due(19.0) is Due.NOTHING
    assert liveness.due(20.0) is Due.BY_GATEWAY


def test_a_scheduled_heartbeat_comes_before_an_extra_one() -> None:
    liveness = started(10_000)
    liveness.request(10.0, by_gateway=True)
    assert beat(liveness, 10.0) is Due.SCHEDULED
    assert liveness.due(10.0) is Due.BY_GATEWAY


def test_an_unacknowledged_extra_heartbeat_makes_no_zombie() -> None:
    liveness = Liveness(1000, 0.0, 1.0)
    liveness.request(0.1, by_gateway=True)
    assert liveness.due(0.1) is Due.BY_GATEWAY
    liveness.send_extra(0.1)
    assert liveness.acknowledged
    assert liveness.may_still_be_alive(1.0, QUIET)


def test_op_1_does_not_replace_the_check_that_the_user_asked_for() -> None:
    liveness = started(60_000)
    liveness.request(6.0, by_gateway=False)
    liveness.request(6.0, by_gateway=True)
    assert liveness.due(6.0) is Due.BY_USER
    liveness.extra_later(20.0)
    assert liveness.due(20.0) is Due.BY_GATEWAY  # the connection was judged once already


# The verdict


def evidence(received: int = 0, callbacks: float = 0.0, idle: bool = True) -> Evidence:
    """What has happened since a heartbeat that was sent with the evidence QUIET."""
    return Evidence(
        QUIET.bytes_received + received, QUIET.callback_seconds + callbacks, reader_idle=idle
    )


@pytest.mark.parametrize(
    "seen, verdicts",
    [
        ([evidence()], [False]),
        ([evidence(received=1), evidence(received=1)], [True, False]),
        ([evidence(received=1), evidence(received=2)], [True, False]),
        ([evidence(idle=False), evidence(idle=False)], [True, False]),
        ([evidence(received=9, idle=False), evidence(received=9)], [True, False]),
        (
            [evidence(callbacks=0.4, idle=False), evidence(callbacks=0.45, idle=False)],
            [True, False],
        ),
        ([evidence(callbacks=0.6 * n, idle=False) for n in range(1, 6)], [True] * 5),
        ([evidence(callbacks=0.6, idle=False)] * 3, [True, True, False]),
        (
            [
                evidence(callbacks=0.6, idle=False),
                evidence(received=5, callbacks=1.2),
                evidence(received=5, callbacks=1.2),
            ],
            [True, True, False],
        ),
        ([evidence(callbacks=0.9, idle=False), evidence(callbacks=0.9)], [True, False]),
        ([evidence(callbacks=0.9)], [False]),
    ],
    ids=[
        "silence",
        "bytes, then silence",
        "bytes without end",
        "never idle",
        "a backlog that is read",
        "callbacks that take less than half of the time",
        "callbacks that take most of the time",
        "a callback that took long once, and a reader that is never idle",
        "callbacks, then a backlog",
        "a callback has returned, and nothing had come",
        "a callback that took long, and nothing has come",
    ],
)
def test_bytes_and_callbacks_postpone_the_verdict_on_a_missing_acknowledgement(
    seen: list[Evidence], verdicts: list[bool]
) -> None:
    """The peer is judged when the next heartbeats are due, which are sent while it may live."""
    liveness = started()
    found = []
    for number, what in enumerate(seen, start=1):
        assert liveness.due(number) is Due.SCHEDULED
        found.append(liveness.may_still_be_alive(number, what))
        liveness.send_scheduled(number, what, guaranteed=True)
        assert not liveness.acknowledged
    assert found == verdicts


def test_a_late_acknowledgement_gives_the_next_heartbeat_a_grace_period_of_its_own() -> None:
    liveness = started()
    some = evidence(received=1)
    assert liveness.may_still_be_alive(1.0, some)
    beat(liveness, 1.0, some)
    liveness.acknowledge(1.5)
    liveness.acknowledge(1.6)
    beat(liveness, 2.0, some)
    assert liveness.may_still_be_alive(3.0, evidence(received=2))


@pytest.mark.parametrize(
    "interval, now, what, alive",
    [
        (60_000, PROBE_TIMEOUT + 0.01, QUIET, False),
        (60_000, PROBE_TIMEOUT, QUIET, True),
        (60_000, PROBE_TIMEOUT + 0.01, evidence(received=9), False),
        (60_000, 59.0, evidence(idle=False), True),
        (2000, 1.99, QUIET, True),
        (2000, 2.01, QUIET, False),
    ],
    ids=[
        "overdue",
        "in time",
        "other bytes have come",
        "the acknowledgement may be unread",
        "in time for a short interval",
        "overdue for a short interval",
    ],
)
def test_a_check_by_the_user_expects_the_acknowledgement_within_the_probe_timeout(
    interval: float, now: float, what: Evidence, alive: bool
) -> None:
    liveness = started(interval)
    assert liveness.may_still_be_alive(now, what, by_user=True) is alive


def test_a_check_by_the_user_spares_a_peer_that_has_acknowledged() -> None:
    liveness = started(60_000)
    liveness.acknowledge(0.1)
    assert liveness.may_still_be_alive(50.0, QUIET, by_user=True)


@pytest.mark.parametrize("now", [0.001, 0.5, 0.98])
def test_a_quicker_pace_makes_no_zombie_before_the_interval_is_over(now: float) -> None:
    """With a quicker pace, the next heartbeat is due before the last must be acknowledged."""
    liveness = started()
    liveness.change_pace(1, 0.0)
    assert liveness.due(now) is Due.SCHEDULED
    assert liveness.may_still_be_alive(now, QUIET)


def test_a_quicker_pace_does_not_postpone_the_verdict() -> None:
    """The later heartbeats do not move the time by which the first must be acknowledged."""
    liveness = started()
    liveness.change_pace(100, 0.0)
    for tenth in range(1, 10):
        beat(liveness, tenth / 10)
    assert not liveness.may_still_be_alive(1.0, QUIET)


# Sleep


def test_after_a_sleep_the_next_heartbeat_is_a_probe() -> None:
    liveness = started(60_000)
    liveness.acknowledge(0.1)
    assert beat(liveness, 3600.0, suspended=True) is Due.SCHEDULED
    assert liveness.next_due() == 3600.0 + PROBE_TIMEOUT
    assert not liveness.may_still_be_alive(3600.0 + PROBE_TIMEOUT, QUIET)


def test_a_probe_that_leaves_late_is_judged_when_its_patience_ends() -> None:
    """A machine that wakes up is busy, and its monotonic clock may have stood still meanwhile."""
    liveness = started(60_000)
    liveness.acknowledge(0.1)
    beat(liveness, 60.5, suspended=True)
    assert not liveness.may_still_be_alive(liveness.next_due(), QUIET)


def test_after_a_sleep_and_an_acknowledgement_the_interval_is_kept_again() -> None:
    liveness = started(60_000)
    liveness.acknowledge(0.1)
    beat(liveness, 3600.0, suspended=True)
    liveness.acknowledge(3600.2)
    now = liveness.next_due()
    assert liveness.may_still_be_alive(now, QUIET)
    beat(liveness, now)
    assert liveness.next_due() == now + 60.0


def test_a_probe_after_a_sleep_lengthens_no_short_interval() -> None:
    liveness = started(2000)
    liveness.acknowledge(0.1)
    beat(liveness, 3600.0, suspended=True)
    assert liveness.next_due() == 3602.0


# Acknowledgements


def test_an_acknowledgement_belongs_to_the_oldest_heartbeat_without_one() -> None:
    liveness = started(60_000)
    liveness.send_extra(1.0)
    liveness.send_extra(2.0)
    assert [liveness.acknowledge(3.0) for _ in range(4)] == [3.0, 2.0, 1.0, None]
    assert liveness.acknowledged


def test_an_acknowledgement_before_any_heartbeat_is_ignored() -> None:
    liveness = Liveness(1000, 0.0, 1.0)
    assert liveness.acknowledge(0.5) is None
    beat(liveness, 1.0)
    assert not liveness.acknowledged


def test_heartbeats_that_a_peer_never_acknowledges_are_forgotten() -> None:
    """The peer acknowledges every other heartbeat. If the unacknowledged ones were kept, each round
    trip would look longer than the one before.
    """
    liveness = started()
    for number in range(1, 50):
        round_trip = liveness.acknowledge(number - 0.9)
        assert round_trip is not None and round_trip < 1.2
        liveness.send_extra(number - 0.5)
        beat(liveness, float(number))
    # Only heartbeats since the last but one scheduled heartbeat are remembered.
    waiting = [liveness.acknowledge(49.1) for _ in range(4)]
    assert waiting == [pytest.approx(1.1), pytest.approx(0.6), pytest.approx(0.1), None]


def test_latency_holds_the_last_the_mean_and_the_recent_round_trips() -> None:
    liveness = Liveness(1000, 0.0, 0.0)
    assert liveness.latency == Latency(None, None, ())
    trips = [number / 100 for number in range(1, 21)]
    for number, trip in enumerate(trips):
        beat(liveness, float(number))
        liveness.acknowledge(number + trip)
    latency = liveness.latency
    assert latency.last == pytest.approx(0.2)
    assert latency.mean == pytest.approx(sum(trips) / 20)
    assert latency.recent == pytest.approx(tuple(trips[-RECENT_ROUND_TRIPS:]))
