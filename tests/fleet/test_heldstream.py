"""How far a consumer has come in a stream. No server is needed."""

from __future__ import annotations

import pytest

from shardlib.fleet.fleetevents import Position
from shardlib.fleet.groupscripts import GroupOutcome
from shardlib.fleet.heldstream import HeldStream


@pytest.fixture
def stream() -> HeldStream:
    """A stream of which the first five events were read."""
    stream = HeldStream(0, "events", "token", Position(1, 0), valid_until=0.0, is_unsure=False)
    stream.take([(b"1-%d" % number, b"{}") for number in range(1, 6)])
    return stream


def test_an_event_is_handled_once_and_with_all_before_it(stream: HeldStream) -> None:
    stream.deliver(b"1-1")
    stream.deliver(b"1-2")
    assert stream.handle("1-2")
    assert not stream.handle("1-1")
    assert not stream.handle("1-2")
    assert not stream.handle("1-3")  # not delivered yet
    assert stream.handled == Position(1, 2)


def test_events_that_nobody_wants_are_handled_with_the_last_one_delivered(
    stream: HeldStream,
) -> None:
    stream.deliver(b"1-1")
    stream.skip(Position(1, 2))
    assert stream.handled == Position(1, 0)
    assert not stream.is_idle
    assert stream.handle("1-1")
    assert stream.handled == Position(1, 2)
    assert stream.is_idle
    stream.skip(Position(1, 3))
    assert stream.handled == Position(1, 3)


def test_what_was_not_handled_is_read_again_after_a_rewind(stream: HeldStream) -> None:
    stream.deliver(b"1-1")
    stream.deliver(b"1-2")
    stream.handle("1-1")
    stream.rewind()
    assert stream.read_up_to == Position(1, 1)
    assert not stream.handle("1-2")
    stream.deliver(b"1-2")
    assert stream.handle("1-2")


@pytest.mark.parametrize("answer", [GroupOutcome.FENCED, GroupOutcome.LOST])
def test_nothing_is_handled_once_another_consumer_may_read(
    stream: HeldStream, answer: GroupOutcome
) -> None:
    stream.deliver(b"1-1")
    stream.heed(GroupOutcome.RENEWED)
    assert not stream.is_lost
    stream.heed(answer)
    assert not stream.handle("1-1")
    assert stream.handled == Position(1, 0)
