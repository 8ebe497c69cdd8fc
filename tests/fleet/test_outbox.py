"""Outbox: what is appended next, by what Redis has answered. No server is needed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from shardlib.fleet.outbox import Outbox
from shardlib.fleet.scripts import FleetSession
from tests.support import not_none

KNOWN = FleetSession("S1", "wss://gateway.discord.gg", 16, epoch=100, sequence=5)


class Rings:
    count = 0

    def __call__(self) -> None:
        self.count += 1


def make(
    session: FleetSession | None = KNOWN, *, buffer: int = 1000, memory: float = 5.0
) -> Outbox:
    return Outbox(session, shard_count=16, buffer=buffer, replay_memory=memory, ring=lambda: None)


def put(outbox: Outbox, sequences: Sequence[int], session_id: str = "S1") -> None:
    for sequence in sequences:
        outbox.put(session_id, None, sequence, b"%d" % sequence)


def next_batch(outbox: Outbox) -> tuple[str, int, int, list[int], int] | None:
    """Session, epoch, sequence before, sequences, last sequence."""
    batch = outbox.next_batch("token")
    if batch is None:
        return None
    session = batch.session
    sequences = [sequence for sequence, _ in batch.events]
    return session.session_id, session.epoch, session.sequence, sequences, batch.last_sequence


def without_epoch(
    batch: tuple[str, int, int, list[int], int] | None,
) -> tuple[str, int, list[int], int]:
    session_id, _, before, sequences, last = not_none(batch)
    return session_id, before, sequences, last


def append(outbox: Outbox, sequences: Sequence[int], *, now: float = 0.0) -> None:
    """Have events of S1 appended."""
    put(outbox, sequences)
    assert next_batch(outbox) is not None
    outbox.appended(100, sequences[-1], now)


def refuse(sequence: int) -> None:
    raise AssertionError("nothing is to be rewound")


def test_a_batch_is_the_same_until_it_is_answered() -> None:
    outbox = make()
    put(outbox, [6, 7])
    assert next_batch(outbox) == ("S1", 100, 5, [6, 7], 7)
    put(outbox, [8])
    assert next_batch(outbox) == ("S1", 100, 5, [6, 7], 7)
    assert outbox.appended(100, 7, 0.0) == ("S1", 7)
    assert next_batch(outbox) == ("S1", 100, 7, [8], 8)
    outbox.appended(100, 8, 0.0)
    assert next_batch(outbox) is None
    assert outbox.is_empty


def test_a_new_session_has_a_batch_of_its_own_and_proposes_an_epoch() -> None:
    outbox = make()
    put(outbox, [6])
    put(outbox, [1, 2], "S2")
    assert next_batch(outbox) == ("S1", 100, 5, [6], 6)
    outbox.appended(100, 6, 0.0)
    began = time.time() * 1000
    batch = not_none(next_batch(outbox))
    proposed = batch[1]
    assert batch == ("S2", proposed, 0, [1, 2], 2)
    assert began - 1 < proposed <= time.time() * 1000
    taken = proposed + 3_600_000  # Redis need not take the proposal
    outbox.appended(taken, 2, 0.0)
    put(outbox, [3], "S2")
    assert next_batch(outbox) == ("S2", taken, 2, [3], 3)
    outbox.appended(taken, 3, 0.0)
    put(outbox, [1], "S3")
    assert next_batch(outbox) == ("S3", taken + 1, 0, [1], 1)


def test_the_epoch_of_a_new_session_is_proposed_again_if_the_answer_was_lost() -> None:
    outbox = make(None)
    put(outbox, [1])
    batch = next_batch(outbox)
    time.sleep(0.002)  # another time would be another epoch
    assert next_batch(outbox) == batch


@pytest.mark.parametrize("ahead", [True, False])
def test_a_new_session_proposes_an_epoch_above_that_of_the_session_before(ahead: bool) -> None:
    last = round((time.time() + (3600 if ahead else -3600)) * 1000)  # the clock of Redis
    outbox = make(KNOWN._replace(epoch=last))
    put(outbox, [1], "S2")
    batch = not_none(next_batch(outbox))
    assert (batch[1] == last + 1) is ahead
    assert batch[1] > last


def test_events_that_are_not_forwarded_move_the_sequence() -> None:
    outbox = make()
    outbox.put("S1", None, 6, b"6")
    outbox.put("S1", None, 7, None)
    assert next_batch(outbox) == ("S1", 100, 5, [6], 7)


def test_events_that_come_again_do_not_move_the_sequence_back() -> None:
    outbox = make()
    put(outbox, [6, 7, 6])
    assert next_batch(outbox) == ("S1", 100, 5, [6, 7, 6], 7)


def test_many_events_and_large_ones_are_divided() -> None:
    outbox = make(buffer=10_000)
    put(outbox, range(6, 1506))
    batch = outbox.next_batch("token")
    assert batch is not None
    assert len(batch.events) == 1000
    outbox = make()
    for sequence in range(6, 10):
        outbox.put("S1", None, sequence, bytes(600_000))
    assert next_batch(outbox) == ("S1", 100, 5, [6, 7], 7)


def test_there_is_room_for_events_and_for_bytes_until_they_are_taken() -> None:
    outbox = make(buffer=2)
    put(outbox, [6])
    assert outbox.has_room
    put(outbox, [7])
    assert not outbox.has_room
    next_batch(outbox)
    assert outbox.has_room
    outbox.put("S1", None, 8, bytes(4000))
    assert not outbox.has_room
    outbox.clear()
    assert outbox.has_room


def test_what_was_taken_leaves_its_room_to_what_comes() -> None:
    outbox = make(buffer=2)
    for sequence in (6, 7, 8):
        outbox.put("S1", None, sequence, bytes(3000))
        assert outbox.has_room
        next_batch(outbox)
        outbox.appended(100, sequence, 0.0)


def test_only_the_first_event_rings() -> None:
    rings = Rings()
    outbox = Outbox(KNOWN, shard_count=16, buffer=10, replay_memory=5.0, ring=rings)
    put(outbox, [6, 7])
    assert rings.count == 1
    next_batch(outbox)
    put(outbox, [8, 9])
    assert rings.count == 2


def test_what_redis_has_lost_is_repeated_from_memory() -> None:
    outbox = make()
    append(outbox, [6, 7])
    append(outbox, [8])
    put(outbox, [9])
    next_batch(outbox)
    assert outbox.repeat(100)
    assert next_batch(outbox) == ("S1", 100, 5, [6, 7], 7)
    outbox.appended(100, 7, 0.0)
    assert next_batch(outbox) == ("S1", 100, 7, [8], 8)
    outbox.appended(100, 8, 0.0)
    assert next_batch(outbox) == ("S1", 100, 8, [9], 9)


def test_memory_ends_after_its_time() -> None:
    outbox = make(memory=5.0)
    append(outbox, [6], now=10.0)
    append(outbox, [7], now=14.0)
    append(outbox, [8], now=16.0)
    put(outbox, [9])
    next_batch(outbox)
    assert outbox.repeat(100)
    assert next_batch(outbox) == ("S1", 100, 6, [7], 7)


def test_an_earlier_session_is_repeated_only_if_redis_is_still_there() -> None:
    for epoch, expected in ((200, ("S2", 200, 0, [1], 1)), (0, ("S1", 100, 5, [6], 6))):
        outbox = make()
        append(outbox, [6])
        put(outbox, [1], "S2")
        next_batch(outbox)
        outbox.appended(200, 1, 0.0)
        put(outbox, [2], "S2")
        next_batch(outbox)
        assert outbox.repeat(epoch)
        assert next_batch(outbox) == expected


def test_without_a_memory_the_session_is_rewound_and_what_comes_before_that_is_left_out() -> None:
    outbox = make(memory=0.0)
    rewound: list[int] = []
    put(outbox, [6, 7])
    next_batch(outbox)
    put(outbox, [8])
    assert not outbox.repeat(100)
    outbox.rewind(3, rewound.append)
    assert rewound == [3]
    put(outbox, [9])  # of the connection that is given up
    assert next_batch(outbox) is None
    outbox.resume_begins()
    put(outbox, [4, 5, 6])
    assert next_batch(outbox) == ("S1", 100, 3, [4, 5, 6], 6)


def test_a_session_that_has_ended_is_not_rewound() -> None:
    outbox = make()
    put(outbox, [6, 7])
    next_batch(outbox)
    put(outbox, [8])
    put(outbox, [1], "S2")
    assert not outbox.repeat(100)
    outbox.rewind(3, refuse)
    assert without_epoch(next_batch(outbox)) == ("S2", 0, [1], 1)


def test_a_new_session_ends_the_wait_for_a_rewind() -> None:
    outbox = make()
    put(outbox, [6])
    next_batch(outbox)
    outbox.rewind(3, lambda sequence: None)
    put(outbox, [1], "S2")
    assert without_epoch(next_batch(outbox)) == ("S2", 0, [1], 1)


@pytest.mark.parametrize("waiting", [[], [9]])
@pytest.mark.parametrize("batches", [[], [[6, 7]], [[6, 7], [8]]])
def test_a_lost_shard_is_claimed_as_it_was_before_what_is_remembered_and_gets_that_again(
    batches: list[list[int]], waiting: list[int]
) -> None:
    outbox = make()
    for batch in batches:
        append(outbox, batch)
    put(outbox, waiting)
    for _ in range(2):  # the answer may be lost
        assert outbox.remember() == KNOWN
    found = []
    while (again := next_batch(outbox)) is not None:
        *_, sequences, last = again
        found.append(sequences)
        outbox.appended(100, last, 0.0)
    assert found == [each for each in (*batches, waiting) if each]


def test_a_lost_shard_without_a_session_is_claimed_without_one() -> None:
    assert make(None).remember() is None


def test_a_session_with_the_id_of_the_one_before_has_an_epoch_of_its_own() -> None:
    outbox = make(None)
    put(outbox, [1, 2])
    first = not_none(next_batch(outbox))
    outbox.appended(first[1], 2, 0.0)
    outbox.session_begins()
    put(outbox, [1])
    second = not_none(next_batch(outbox))
    assert without_epoch(second) == ("S1", 0, [1], 1)
    assert second[1] > first[1]
