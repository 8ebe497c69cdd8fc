"""Callbacks for programs that carry events on, on the shard alone."""

from __future__ import annotations

import collections
import functools
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import Shard
from shardlib.delivery import Dispatcher
from shardlib.dispatch import Mailbox, Pool, Worker
from shardlib.testing import GatewayConnection, LocalGateway
from tests.recorder import dispatch_numbers
from tests.shards import make_gateway, make_shard
from tests.support import wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


def connect(shard: Shard, gateway: LocalGateway) -> GatewayConnection:
    """Connect a shard; return the gateway's side once the shard has its session."""
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    return gateway.connections[-1]


class Calls:
    """Records what callbacks were called with, in order; some wait at a gate."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []
        self.gate = threading.Event()
        self.gate.set()

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of each call under a name."""
        return [call[1:] for call in list(self.made) if call[0] == name]

    def recording(self, name: str) -> Callable[..., None]:
        """A callback that records its arguments but the shard under a name."""

        def record(_: Shard, *arguments: Any) -> None:
            self.made.append((name, *arguments))

        return record

    def number(self, _: Shard, data: Any) -> None:
        """A listener that records the number of an event of dispatch_numbers(), at the gate."""
        self.gate.wait(10)
        self.made.append(("number", data["n"]))

    def numbers_before_each_batch(self) -> list[int]:
        """How many numbers were recorded before each batch."""
        made = list(self.made)
        return [
            sum(earlier[0] == "number" for earlier in made[:index])
            for index, call in enumerate(made)
            if call[0] == "batch"
        ]


@pytest.fixture
def calls() -> Iterator[Calls]:
    calls = Calls()
    yield calls
    calls.gate.set()


# on_socket_batch


def hold_while_sending(shard: Shard, gateway: LocalGateway, count: int) -> None:
    """Have the gateway send events while a callback keeps the reader from reading any."""
    inside, release = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        inside.set()
        release.wait(10)

    shard.on("USER_UPDATE", hold)
    gateway.dispatch("USER_UPDATE", {})
    assert inside.wait(10)
    dispatch_numbers(gateway, range(count))
    release.set()
    shard.off("USER_UPDATE", hold)


def test_a_batch_is_told_after_the_callbacks_of_its_events(
    gateway: LocalGateway, calls: Calls
) -> None:
    with make_shard(on_socket_batch=calls.recording("batch")) as shard:
        shard.on("TYPING_START", calls.number)
        connect(shard, gateway)
        hold_while_sending(shard, gateway, 50)
        wait_until(lambda: calls.of("number")[-1:] == [(49,)])
        # Each message is in one batch.
        wait_until(lambda: sum(count for (count,) in calls.of("batch")) == shard.stats.messages)
    assert max(count for (count,) in calls.of("batch")) > 1
    assert calls.numbers_before_each_batch()[-1] == 50
    assert len(calls.of("batch")) < 50
    assert all(type(count) is int and count > 0 for (count,) in calls.of("batch"))


def test_the_last_batch_of_a_connection_is_told_before_its_end(
    gateway: LocalGateway, calls: Calls
) -> None:
    """The close frame comes with the events, in one read."""
    with make_shard(
        on_socket_batch=calls.recording("batch"),
        on_socket_disconnected=calls.recording("disconnected"),
    ) as shard:
        shard.on("TYPING_START", calls.number)
        connection = connect(shard, gateway)
        calls.gate.clear()
        dispatch_numbers(gateway, [1])
        wait_until(lambda: shard.stats.events["TYPING_START"] == 1)
        dispatch_numbers(gateway, [2, 3])
        connection.close(4000)
        calls.gate.set()
        wait_until(lambda: calls.of("disconnected"))
    before = calls.made[: calls.made.index(("disconnected", 4000, False))]
    assert [call for call in before if call[0] == "number"] == [("number", n) for n in (1, 2, 3)]
    assert before[-1][0] == "batch"


def test_a_batch_is_told_though_a_callback_closes_the_shard(
    gateway: LocalGateway, calls: Calls
) -> None:
    def leave(shard: Shard, data: object) -> None:
        raise SystemExit(3)

    shard = make_shard(on_socket_batch=calls.recording("batch"))
    shard.on("USER_UPDATE", leave)
    connect(shard, gateway)
    calls.made.clear()
    gateway.dispatch("USER_UPDATE", {})
    with pytest.raises(SystemExit):
        shard.join(10)
    assert calls.of("batch")


def test_the_session_saved_in_a_batch_has_all_its_events(gateway: LocalGateway) -> None:
    sequences: list[tuple[int | None, int | None]] = []

    def save(shard: Shard, count: int) -> None:
        if shard.session is not None:
            sequences.append((shard.session.sequence, shard.last_sequence))

    with make_shard(on_socket_batch=save) as shard:
        connect(shard, gateway)
        dispatch_numbers(gateway, range(10))
        wait_until(lambda: shard.stats.events["TYPING_START"] == 10)
    assert sequences and all(saved == received for saved, received in sequences)


@pytest.mark.parametrize(
    "make_dispatcher", [Worker, functools.partial(Pool, workers=4)], ids=["worker", "pool"]
)
def test_a_dispatcher_calls_a_batch_after_the_callbacks_of_its_events(
    gateway: LocalGateway, calls: Calls, make_dispatcher: Callable[[], Dispatcher]
) -> None:
    dispatcher = make_dispatcher()
    calls.gate.clear()
    with make_shard(dispatcher=dispatcher, on_socket_batch=calls.recording("batch")) as shard:
        shard.on("TYPING_START", calls.number)
        connect(shard, gateway)
        dispatch_numbers(gateway, range(20))
        wait_until(lambda: shard.stats.events["TYPING_START"] == 20)
        assert not calls.of("number")
        calls.gate.set()
        wait_until(lambda: sum(count for (count,) in calls.of("batch")) == shard.stats.messages)
        others = shard.stats.messages - 20  # which came before the numbers
    batches = itertools.accumulate(count for (count,) in calls.of("batch"))
    assert calls.numbers_before_each_batch() == [max(0, count - others) for count in batches]


def test_a_batch_can_be_dropped_from_a_full_mailbox(gateway: LocalGateway, calls: Calls) -> None:
    """It comes as often as events do, and the next one can write what this one would have."""
    mailbox = Mailbox(maxsize=5, overflow="drop_newest")
    with make_shard(dispatcher=mailbox, on_socket_batch=calls.recording("batch")) as shard:
        connect(shard, gateway)
        wait_until(lambda: shard.stats.events["GUILD_CREATE"] == 1)
        for number in range(20):
            dispatch_numbers(gateway, [number])
            wait_until(lambda: shard.stats.messages == number + 4)
        assert len(mailbox) == 5
        assert shard.stats.dropped >= 15


# on_socket_text


class CountingJSON:
    """A JSON module that counts the messages that it decodes, by their event."""

    dumps = staticmethod(json.dumps)

    def __init__(self) -> None:
        self.decoded: collections.Counter[str | None] = collections.Counter()

    def loads(self, data: bytes) -> Any:
        payload = json.loads(data)
        self.decoded[payload.get("t")] += 1
        return payload


def check_texts(texts: list[tuple[Any, ...]]) -> None:
    """Fail unless each text is the payload of its event and its sequence."""
    for event, sequence, text in texts:
        assert type(text) is bytes
        payload = json.loads(text)
        assert (payload["t"], payload["s"], payload["op"]) == (event, sequence, 0)


def test_every_event_comes_as_text_undecoded_in_replays_too(
    gateway: LocalGateway, calls: Calls
) -> None:
    decoder = CountingJSON()
    with make_shard(on_socket_text=calls.recording("text"), json=decoder) as shard:
        connection = connect(shard, gateway)
        dispatch_numbers(gateway, [1])
        wait_until(lambda: shard.stats.events["TYPING_START"] == 1)
        connection.drop()
        dispatch_numbers(gateway, [2, 3])
        wait_until(lambda: shard.stats.resumes == 1)
        dispatch_numbers(gateway, [4])
        wait_until(lambda: shard.stats.events["TYPING_START"] == 4)
        wait_until(lambda: len(calls.of("text")) == 7)
        assert shard.stats.replayed == 2
    texts = calls.of("text")
    check_texts(texts)
    assert [event for event, _, _ in texts] == [
        *("READY", "GUILD_CREATE", "TYPING_START", "TYPING_START", "TYPING_START"),
        *("RESUMED", "TYPING_START"),
    ]
    assert decoder.decoded.keys() == {None, "READY", "RESUMED"}


def test_what_a_replay_repeats_comes_as_text_once(gateway: LocalGateway, calls: Calls) -> None:
    def repeat(connection: GatewayConnection) -> None:
        connection.send_compressed(
            json.dumps({"t": "A", "s": 1, "op": 0, "d": {}}, separators=(",", ":"))
        )

    with make_shard(on_socket_text=calls.recording("text")) as shard:
        connection = connect(shard, gateway)
        gateway.inject(repeat, before="replay")
        connection.drop()
        wait_until(lambda: shard.stats.resumes == 1)
        assert shard.stats.duplicates == 1
    assert "A" not in [event for event, *_ in calls.of("text")]


@pytest.mark.parametrize("other", ["listener", "on_socket_dispatch", "on_socket_raw_message"])
def test_text_comes_once_beside_functions_that_look_at_the_payload(
    gateway: LocalGateway, calls: Calls, other: str
) -> None:
    with make_shard(on_socket_text=calls.recording("text")) as shard:
        if other == "listener":
            shard.on("TYPING_START", calls.recording("other"))
        else:
            setattr(shard, other, calls.recording("other"))
        connect(shard, gateway)
        dispatch_numbers(gateway, range(3))
        wait_until(lambda: shard.stats.events["TYPING_START"] == 3)
        wait_until(lambda: sum(event == "TYPING_START" for event, *_ in calls.of("text")) == 3)
    check_texts(calls.of("text"))
    names = [call[0] for call in calls.made if "TYPING_START" in str(call) or call[0] == "other"]
    if other != "on_socket_raw_message":
        wanted = ["text", "other"] * 3
        assert names[-6:] == wanted


def test_an_event_in_whose_on_socket_text_the_program_ends_is_not_counted_as_done(
    gateway: LocalGateway,
) -> None:
    def leave(shard: Shard, event: str, sequence: int, text: bytes) -> None:
        if event == "TYPING_START":
            raise SystemExit(3)

    shard = make_shard(on_socket_text=leave)
    connect(shard, gateway)
    wait_until(lambda: shard.stats.events["GUILD_CREATE"] == 1)
    dispatch_numbers(gateway, [1])
    with pytest.raises(SystemExit):
        shard.join(10)
    assert shard.session is not None and shard.last_sequence is not None
    assert shard.session.sequence == shard.last_sequence - 1


def test_a_dispatcher_calls_on_socket_text_and_the_session_waits_for_it(
    gateway: LocalGateway, calls: Calls
) -> None:
    mailbox = Mailbox()
    with make_shard(on_socket_text=calls.recording("text"), dispatcher=mailbox) as shard:
        connect(shard, gateway)
        dispatch_numbers(gateway, [1, 2])
        wait_until(lambda: shard.stats.events["TYPING_START"] == 2)
        assert shard.session is not None
        assert shard.session.sequence != shard.last_sequence
        mailbox.run_pending()
        assert shard.session.sequence == shard.last_sequence
    check_texts(calls.of("text"))
    assert [event for event, *_ in calls.of("text")][-2:] == ["TYPING_START"] * 2


def test_a_pool_with_a_key_takes_texts_whose_data_it_cannot_know(
    gateway: LocalGateway, calls: Calls
) -> None:
    pool = Pool(key=lambda event, data: data["guild_id"])
    with make_shard(on_socket_text=calls.recording("text"), dispatcher=pool) as shard:
        connect(shard, gateway)
        dispatch_numbers(gateway, range(5))
        wait_until(lambda: len(calls.of("text")) == 7)
    assert shard.stats.dropped == 0


def test_a_gap_is_counted_though_nothing_is_decoded() -> None:
    shard = Shard("token", 0)
    for sequence in (1, 2, 5):
        shard._handle_message(f'{{"t":"A","s":{sequence},"op":0,"d":{{}}}}')
    assert shard.last_sequence == 5
    assert shard.stats.gaps == 1
    assert shard.stats.events["A"] == 3
