"""acknowledge() and rewind(): for programs that store events elsewhere, later."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import NotReady, Opcode, Session, Shard, ShardError
from shardlib.dispatch import Mailbox
from shardlib.testing import GatewayConnection, LocalGateway
from tests.recorder import dispatch_numbers
from tests.shards import make_gateway, make_shard
from tests.support import in_background, not_none, wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


class Stored:
    """Keeps the events that on_socket_text gets, as a program does that stores them later."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.numbers: list[int] = []

    def __call__(self, shard: Shard, event: str, sequence: int, text: bytes) -> None:
        self.events.append((event, sequence))
        if event == "TYPING_START":
            self.numbers.append(json.loads(text)["d"]["n"])


@pytest.fixture
def stored() -> Stored:
    return Stored()


def begin(shard: Shard, gateway: LocalGateway, stored: Stored, count: int) -> int:
    """Connect, and have numbers dispatched from 1; return the sequence before the first."""
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    wait_until(lambda: shard.stats.events["GUILD_CREATE"] == 1)
    before = not_none(shard.last_sequence)
    dispatch_numbers(gateway, range(1, count + 1))
    wait_until(lambda: len(stored.numbers) >= count)
    return before


def saved_sequence(shard: Shard) -> int | None:
    return not_none(shard.session).sequence


def resumed_from(connection: GatewayConnection) -> int:
    """The sequence that the Resume of a connection named."""
    (resume,) = [each for each in connection.received if each["op"] == Opcode.RESUME]
    sequence: int = resume["d"]["seq"]
    return sequence


def wait_for_resumes(shard: Shard, count: int) -> None:
    wait_until(lambda: shard.stats.resumes == count, what=f"{count} resumes")


# acknowledge()


def test_the_saved_session_has_the_sequence_that_was_acknowledged(
    gateway: LocalGateway, stored: Stored
) -> None:
    with make_shard(on_socket_text=stored, acknowledge="manual") as shard:
        before = begin(shard, gateway, stored, 5)
        session_id = not_none(shard.session_id)
        shard.acknowledge(session_id, before + 2)
        assert shard.session == Session(
            session_id, before + 2, not_none(shard.session_gateway), 0, 1
        )
        assert shard.last_sequence == before + 5
        in_background(shard.acknowledge, session_id, before + 5).result(10)
        assert saved_sequence(shard) == before + 5


def test_ready_counts_as_seen_when_it_is_acknowledged(
    gateway: LocalGateway, stored: Stored
) -> None:
    """Another process that resumed the session before would never see it."""
    with make_shard(on_socket_text=stored, acknowledge="manual") as shard:
        begin(shard, gateway, stored, 1)
        session_id = not_none(shard.session_id)
        assert shard.session is None
        shard.acknowledge(session_id, 0)
        assert shard.session is None
        assert stored.events[0] == ("READY", 1)
        shard.acknowledge(session_id, 1)
        assert saved_sequence(shard) == 1


def test_a_lost_connection_is_resumed_after_the_last_event_received(
    gateway: LocalGateway, stored: Stored
) -> None:
    with make_shard(on_socket_text=stored, acknowledge="manual") as shard:
        before = begin(shard, gateway, stored, 5)
        shard.acknowledge(not_none(shard.session_id), before + 2)
        gateway.connections[-1].drop()
        dispatch_numbers(gateway, [6])
        wait_for_resumes(shard, 1)
        wait_until(lambda: len(stored.numbers) == 6)
        assert resumed_from(gateway.connections[-1]) == before + 5
        assert saved_sequence(shard) == before + 2
    assert stored.numbers == [1, 2, 3, 4, 5, 6]


def test_another_shard_goes_on_after_what_was_acknowledged(
    gateway: LocalGateway, stored: Stored
) -> None:
    shard = make_shard(on_socket_text=stored, acknowledge="manual")
    before = begin(shard, gateway, stored, 5)
    shard.acknowledge(not_none(shard.session_id), before + 2)
    shard.disconnect(4000)
    taken_over = Stored()
    with make_shard(
        on_socket_text=taken_over, acknowledge="manual", session=shard.session
    ) as other:
        assert other.session == shard.session
        other.connect(gateway.url)
        wait_for_resumes(other, 1)
        wait_until(lambda: taken_over.numbers == [3, 4, 5])
        assert saved_sequence(other) == before + 2
        other.acknowledge(not_none(other.session_id), before + 3)
        assert saved_sequence(other) == before + 3


def test_what_an_acknowledgement_cannot_say_is_ignored_or_refused(
    gateway: LocalGateway, stored: Stored
) -> None:
    with make_shard(on_socket_text=stored, acknowledge="manual") as shard:
        before = begin(shard, gateway, stored, 3)
        session_id = not_none(shard.session_id)
        shard.acknowledge(session_id, before + 2)
        shard.acknowledge(session_id, before + 1)
        shard.acknowledge("another", before + 3)
        shard.acknowledge("another", 10**6)
        with pytest.raises(ValueError, match=f"from 0 to {before + 3}, the last one"):
            shard.acknowledge(session_id, before + 4)
        with pytest.raises(ValueError, match="from 0"):
            shard.acknowledge(session_id, -1)
        with pytest.raises(TypeError, match="sequence"):
            shard.acknowledge(session_id, True)
        with pytest.raises(TypeError, match="session_id"):
            shard.acknowledge(None, 1)  # type: ignore[arg-type]
        assert saved_sequence(shard) == before + 2


def test_what_was_acknowledged_counts_for_its_own_session_alone(
    gateway: LocalGateway, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardlib.reconnect.INVALID_SESSION_DELAY", (0.05, 0.06))
    with make_shard(on_socket_text=stored, acknowledge="manual") as shard:
        before = begin(shard, gateway, stored, 3)
        old = not_none(shard.session_id)
        shard.acknowledge(old, before + 3)
        gateway.lose_session(0)
        gateway.connections[-1].drop()
        wait_until(lambda: shard.session_id not in (None, old))
        shard.wait_until_ready(10)
        assert shard.session is None
        shard.acknowledge(old, 1)
        assert shard.session is None
        shard.acknowledge(not_none(shard.session_id), 1)
        assert saved_sequence(shard) == 1


def test_acknowledge_is_refused_by_a_shard_that_goes_by_its_callbacks(
    gateway: LocalGateway, stored: Stored
) -> None:
    with make_shard(on_socket_text=stored) as shard:
        before = begin(shard, gateway, stored, 3)
        with pytest.raises(ShardError, match='acknowledge="manual"'):
            shard.acknowledge(not_none(shard.session_id), before)
        assert saved_sequence(shard) == before + 3


def test_many_threads_that_acknowledge_leave_the_highest_sequence(
    gateway: LocalGateway, stored: Stored
) -> None:
    with make_shard(on_socket_text=stored, acknowledge="manual") as shard:
        before = begin(shard, gateway, stored, 200)
        session_id = not_none(shard.session_id)
        start = threading.Barrier(4)

        def acknowledge(first: int) -> None:
            start.wait(10)
            for sequence in range(before + first, before + 201, 4):
                shard.acknowledge(session_id, sequence)

        for thread in [in_background(acknowledge, first) for first in range(1, 5)]:
            thread.result(10)
        assert saved_sequence(shard) == before + 200


# rewind()


@pytest.mark.parametrize("acknowledge", ["callbacks", "manual"])
def test_events_after_the_sequence_are_delivered_again(
    gateway: LocalGateway, stored: Stored, acknowledge: Any
) -> None:
    with make_shard(on_socket_text=stored, acknowledge=acknowledge) as shard:
        before = begin(shard, gateway, stored, 5)
        session_id = not_none(shard.session_id)
        if acknowledge == "manual":
            shard.acknowledge(session_id, before + 4)
        connection = gateway.connections[-1]
        shard.rewind(before + 2)
        wait_for_resumes(shard, 1)
        assert connection.wait_closed() == 4000
        dispatch_numbers(gateway, [6])
        wait_until(lambda: stored.numbers == [1, 2, 3, 4, 5, 3, 4, 5, 6])
        assert resumed_from(gateway.connections[-1]) == before + 2
        assert shard.stats.replayed == 3 and shard.stats.duplicates == 0
        assert shard.session_id == session_id
        sequences = {sequence for event, sequence in stored.events if event == "TYPING_START"}
        assert len(sequences) == 6
        if acknowledge == "manual":
            assert saved_sequence(shard) == before + 2
            shard.acknowledge(session_id, before + 5)
            assert saved_sequence(shard) == before + 5
        else:
            wait_until(lambda: saved_sequence(shard) == shard.last_sequence)


def test_a_replay_that_was_rewound_goes_on_after_a_lost_connection(
    gateway: LocalGateway, stored: Stored
) -> None:
    """The next Resume names what the replay has brought, not what came before it."""

    def cut(shard: Shard, event: str, sequence: int, text: bytes) -> None:
        stored(shard, event, sequence, text)
        if stored.numbers == [1, 2, 3, 4, 5, 2, 3]:
            shard.disconnect(4000)

    with make_shard(on_socket_text=cut) as shard:
        before = begin(shard, gateway, stored, 5)
        shard.rewind(before + 1)
        shard.join(10)
        assert shard.last_sequence == before + 3
        shard.connect(gateway.url)
        wait_for_resumes(shard, 1)
        wait_until(lambda: len(stored.numbers) == 9)
        assert [resumed_from(each) for each in gateway.all_connections[-2:]] == [
            before + 1,
            before + 3,
        ]
    assert stored.numbers == [1, 2, 3, 4, 5, 2, 3, 4, 5]


@pytest.mark.parametrize("acknowledge", ["callbacks", "manual"])
def test_the_session_is_saved_with_the_earlier_sequence_at_once(
    gateway: LocalGateway, stored: Stored, acknowledge: Any
) -> None:
    """A process that ends before the Resume would else leave the events out."""
    shard = make_shard(on_socket_text=stored, acknowledge=acknowledge)
    before = begin(shard, gateway, stored, 5)
    if acknowledge == "manual":
        shard.acknowledge(not_none(shard.session_id), before + 5)
    gateway.inject(instead_of="hello", connections=None)
    shard.rewind(before + 3)
    assert saved_sequence(shard) == before + 3
    shard.rewind(before + 2)
    shard.rewind(before + 4)
    assert saved_sequence(shard) == before + 2
    shard.disconnect(4000)
    assert saved_sequence(shard) == before + 2
    gateway.clear_faults()
    shard.connect(gateway.url)
    wait_for_resumes(shard, 1)
    assert resumed_from(gateway.connections[-1]) == before + 2
    wait_until(lambda: stored.numbers == [1, 2, 3, 4, 5, 3, 4, 5])
    shard.disconnect()


def test_what_was_received_before_a_rewind_can_be_acknowledged_after_it(
    gateway: LocalGateway, stored: Stored
) -> None:
    """Another thread may have stored the events meanwhile."""
    with make_shard(on_socket_text=stored, acknowledge="manual") as shard:
        before = begin(shard, gateway, stored, 5)
        gateway.inject(instead_of="replay")
        shard.rewind(before + 1)
        gateway.connections[-1].wait_closed()
        wait_until(lambda: shard.last_sequence == before + 1)
        shard.acknowledge(not_none(shard.session_id), before + 5)
        assert saved_sequence(shard) == before + 5
        with pytest.raises(ValueError, match=f"to {before + 5}"):
            shard.acknowledge(not_none(shard.session_id), before + 6)


def test_rewind_in_a_callback_takes_effect_after_it(gateway: LocalGateway, stored: Stored) -> None:
    def rewind(shard: Shard, event: str, sequence: int, text: bytes) -> None:
        stored(shard, event, sequence, text)
        if stored.numbers == [1, 2, 3]:
            shard.rewind(sequence - 2)

    with make_shard(on_socket_text=rewind) as shard:
        begin(shard, gateway, stored, 3)
        wait_until(lambda: stored.numbers == [1, 2, 3, 2, 3])
        wait_for_resumes(shard, 1)


def test_rewind_lets_a_reader_go_that_waits_for_room(gateway: LocalGateway) -> None:
    """The thread that empties the queue rewinds; neither waits for the other."""
    mailbox, stored = Mailbox(maxsize=2), Stored()
    with make_shard(on_socket_text=stored, dispatcher=mailbox) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        wait_until(lambda: mailbox.run_pending() == 0 and len(stored.events) == 2)
        before = not_none(shard.last_sequence)
        dispatch_numbers(gateway, range(1, 9))
        wait_until(lambda: len(mailbox) == 2)
        shard.rewind(before)
        assert saved_sequence(shard) == before
        wait_until(lambda: mailbox.run_pending() == 0 and stored.numbers[-8:] == [*range(1, 9)])
        # RESUMED may come now.
        wait_until(
            lambda: mailbox.run_pending() == 0 and saved_sequence(shard) == shard.last_sequence
        )


def test_events_before_the_sequence_that_still_wait_hold_the_session_back(
    gateway: LocalGateway, stored: Stored
) -> None:
    mailbox = Mailbox()
    with make_shard(on_socket_text=stored, dispatcher=mailbox) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        wait_until(lambda: mailbox.run_pending() == 0 and len(stored.events) == 2)
        before = not_none(shard.last_sequence)
        dispatch_numbers(gateway, range(1, 6))
        wait_until(lambda: len(mailbox) == 5)
        shard.rewind(before + 3)
        wait_for_resumes(shard, 1)
        wait_until(lambda: shard.stats.events["RESUMED"] == 1)
        assert saved_sequence(shard) == before
        wait_until(lambda: mailbox.run_pending() == 0 and len(stored.numbers) == 7)
        assert stored.numbers == [1, 2, 3, 4, 5, 4, 5]
        wait_until(lambda: saved_sequence(shard) == shard.last_sequence)


def test_events_that_are_not_kept_any_more_cost_the_session(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardlib.reconnect.INVALID_SESSION_DELAY", (0.05, 0.06))
    with (
        make_gateway(replay_limit=3) as gateway,
        make_shard(on_socket_text=stored) as shard,
    ):
        before = begin(shard, gateway, stored, 20)
        old = shard.session_id
        shard.rewind(before + 2)
        wait_until(lambda: shard.session_id not in (None, old))
        shard.wait_until_ready(10)
        assert shard.stats.resumes == 0
        # The next Resume is that of another session.
        gateway.connections[-1].drop()
        wait_for_resumes(shard, 1)
        assert resumed_from(gateway.connections[-1]) != before + 2


def test_a_wrong_sequence_is_refused_and_nothing_happens(
    gateway: LocalGateway, stored: Stored
) -> None:
    shard = make_shard(on_socket_text=stored)
    with pytest.raises(NotReady, match="no session"):
        shard.rewind(0)
    with shard:
        before = begin(shard, gateway, stored, 3)
        with pytest.raises(ValueError, match=f"from 0 to {before + 3}"):
            shard.rewind(before + 4)
        with pytest.raises(ValueError, match="from 0"):
            shard.rewind(-1)
        with pytest.raises(TypeError, match="sequence"):
            shard.rewind("1")  # type: ignore[arg-type]
        dispatch_numbers(gateway, [4])
        wait_until(lambda: stored.numbers == [1, 2, 3, 4])
        assert shard.stats.connections == 1


def test_rewinds_of_many_threads_lose_nothing(gateway: LocalGateway, stored: Stored) -> None:
    with make_shard(on_socket_text=stored) as shard:
        before = begin(shard, gateway, stored, 50)
        calls: list[Callable[[], object]] = [
            lambda sequence=before + number: shard.rewind(sequence)  # type: ignore[misc]
            for number in (40, 10, 30, 20)
        ]
        for call in [in_background(call) for call in calls]:
            call.result(10)
        # The lowest wins, unless another asks when the events after the lowest have come once more.
        wait_until(lambda: stored.numbers[-1] == 50 and {*range(11, 51)} <= {*stored.numbers[50:]})
        wait_until(lambda: shard.stats.resumes and saved_sequence(shard) == shard.last_sequence)
