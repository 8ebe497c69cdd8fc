"""Callbacks for programs that carry events on, on the shard alone."""

from __future__ import annotations

import _thread
import collections
import functools
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import AuthenticationFailed, ConnectionFailed, Shard, ShardState
from shardlib.dispatch import Mailbox, Pool, Worker
from shardlib.dispatcher import Dispatcher
from shardlib.testing import GatewayConnection, LocalGateway
from tests.recorder import dispatch_numbers
from tests.shards import fast_options, make_gateway, make_shard
from tests.support import AT_ONCE, NEVER, TOKEN, in_background, wait_until


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
        wait_until(lambda: len(mailbox) == 4)  # READY, the guild, and these two
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


# on_socket_state

CONNECTION = [
    ShardState.CONNECTING,
    ShardState.CONNECTED,
    ShardState.IDENTIFYING,
    ShardState.READY,
]
RESUMED = [
    ShardState.WAITING,
    ShardState.CONNECTING,
    ShardState.CONNECTED,
    ShardState.RESUMING,
    ShardState.READY,
]
END = [ShardState.CLOSING, ShardState.CLOSED]


def states(calls: Calls) -> list[ShardState]:
    """The states that on_socket_state was called with."""
    return [state for (state,) in calls.of("state")]


def test_each_change_of_the_state_is_told_once_in_order(
    gateway: LocalGateway, calls: Calls
) -> None:
    with make_shard(on_socket_state=calls.recording("state")) as shard:
        assert states(calls) == []
        for _ in range(2):  # in each life
            calls.made.clear()
            connect(shard, gateway).drop()
            wait_until(lambda: states(calls)[-1:] == RESUMED[-1:] and len(states(calls)) > 4)
            shard.disconnect()
            assert states(calls) == CONNECTION + RESUMED + END


def test_a_state_is_told_before_the_other_callbacks_of_its_change(
    gateway: LocalGateway, calls: Calls
) -> None:
    names = ["connected", "ready", "reconnected", "disconnected", "closed"]
    callbacks = {f"on_socket_{name}": calls.recording(name) for name in [*names, "state"]}
    with make_shard(**callbacks) as shard:
        connect(shard, gateway).drop()
        wait_until(lambda: calls.of("reconnected"))
    before = {
        call[0]: calls.made[index - 1][1] if calls.made[index - 1][0] == "state" else None
        for index, call in reversed(list(enumerate(calls.made)))
        if call[0] != "state"
    }
    assert before == {
        "connected": ShardState.CONNECTED,
        "ready": ShardState.READY,
        "disconnected": ShardState.WAITING,
        "reconnected": ShardState.READY,
        "closed": ShardState.CLOSED,
    }


def test_closing_is_told_before_a_peer_that_does_not_answer_is_given_up(
    gateway: LocalGateway, calls: Calls
) -> None:
    gateway.inject(instead_of="close")
    with make_shard(on_socket_state=calls.recording("state"), close_timeout=NEVER) as shard:
        connection = connect(shard, gateway)
        disconnecting = in_background(shard.disconnect)
        wait_until(lambda: states(calls)[-1] is ShardState.CLOSING, 15)
        assert not disconnecting.done()
        wait_until(lambda: connection.close_code)
        connection.proceed()
        disconnecting.result(10)
    assert states(calls) == CONNECTION + END


def test_a_shard_that_never_connects_tells_so(calls: Calls) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ws://127.0.0.1:{server.getsockname()[1]}"
    shard = make_shard(on_socket_state=calls.recording("state"))
    with pytest.raises(ConnectionFailed):
        shard.connect(url)
    assert states(calls) == [
        *(ShardState.CONNECTING, ShardState.WAITING),
        *(ShardState.CLOSING, ShardState.DISCONNECTED),
    ]


def test_a_fatal_error_is_told_as_closing_and_closed(gateway: LocalGateway, calls: Calls) -> None:
    shard = make_shard(on_socket_state=calls.recording("state"))
    connect(shard, gateway).close(4004)
    with pytest.raises(AuthenticationFailed):
        shard.join(10)
    assert states(calls) == [*CONNECTION, ShardState.WAITING, *END]


class ClosedGate:
    """An identify gate that lets a shard through once it was opened."""

    def __init__(self) -> None:
        self.is_open = False
        self.was_asked = False

    def try_acquire(self, shard_id: int) -> float:
        self.was_asked = True
        return 0.0 if self.is_open else 60.0


def test_identify_on_another_thread_is_told(gateway: LocalGateway, calls: Calls) -> None:
    gate = ClosedGate()
    gateway.inject(instead_of="ready")
    with make_shard(on_socket_state=calls.recording("state"), identify_gate=gate) as shard:
        shard.connect(gateway.url)
        wait_until(lambda: gate.was_asked)
        wait_until(shard._reader.connection.is_idle)
        gate.is_open = True
        shard.identify()
        wait_until(lambda: states(calls)[-1] is ShardState.IDENTIFYING)


def test_states_that_have_changed_during_a_callback_are_all_told(
    gateway: LocalGateway, calls: Calls
) -> None:
    gate = ClosedGate()
    inside, release = threading.Event(), threading.Event()

    def hold(shard: Shard, ping: float) -> None:
        inside.set()
        release.wait(10)

    with make_shard(
        on_socket_state=calls.recording("state"), on_socket_heartbeat=hold, identify_gate=gate
    ) as shard:
        shard.connect(gateway.url)
        wait_until(lambda: shard.heartbeat_interval)
        shard.heartbeat()
        assert inside.wait(10)
        gate.is_open = True
        shard.identify()
        disconnecting = in_background(shard.disconnect)
        wait_until(lambda: shard.state is ShardState.CLOSING)
        assert states(calls)[-1] is ShardState.CONNECTED
        release.set()
        disconnecting.result(10)
    assert states(calls) == [*CONNECTION[:-1], *END]


@pytest.mark.parametrize("state", [*CONNECTION, ShardState.WAITING, ShardState.RESUMING])
def test_disconnect_in_on_socket_state_is_told_next(
    gateway: LocalGateway, calls: Calls, state: ShardState
) -> None:
    def leave(shard: Shard, new: ShardState) -> None:
        calls.made.append(("state", new))
        if new is state:
            shard.disconnect()

    shard = make_shard(on_socket_state=leave)
    shard.start(gateway.url)
    if state not in CONNECTION:
        shard.wait_until_ready(10)
        gateway.connections[-1].drop()
    shard.join(10)
    told = states(calls)
    assert told[told.index(state) :] == [state, *END]


def test_on_socket_state_is_called_on_the_reader_with_no_lock_held(
    gateway: LocalGateway,
) -> None:
    threads: set[str] = set()

    def use(shard: Shard, state: ShardState) -> None:
        threads.add(threading.current_thread().name)
        in_background(lambda: (shard.on("PING", print), shard.stats, repr(shard))).result(10)
        in_background(shard.disconnect if state is ShardState.CLOSING else str).result(10)

    shard = make_shard(on_socket_state=use, close_timeout=0.2)
    connect(shard, gateway)
    shard.disconnect()
    wait_until(lambda: shard.state is ShardState.CLOSED)
    shard.join(10)
    assert threads == {"shard-0-reader"}


def test_a_dispatcher_calls_on_socket_state_in_order_and_drops_none(
    gateway: LocalGateway, calls: Calls
) -> None:
    mailbox = Mailbox(maxsize=1, overflow="drop_newest")
    with make_shard(on_socket_state=calls.recording("state"), dispatcher=mailbox) as shard:
        connect(shard, gateway).drop()
        wait_until(lambda: shard.stats.resumes == 1)
    mailbox.run_pending()
    assert states(calls) == CONNECTION + RESUMED + END


def test_methods_of_a_subclass_are_called(gateway: LocalGateway) -> None:
    class Bot(Shard):
        def __init__(self) -> None:
            self.heard: list[Any] = []
            super().__init__(TOKEN, 0, **fast_options())

        def on_socket_state(self, state: ShardState) -> None:
            self.heard.append(state)

        def on_socket_text(self, event: str, sequence: int, text: bytes) -> None:
            self.heard.append(event)

        def on_socket_batch(self, count: int) -> None:
            self.heard.append(count)

    with Bot() as bot:
        connect(bot, gateway)
        wait_until(lambda: bot.heard[-1:] == [1])
    assert {ShardState.READY, "READY", 1} <= set(bot.heard)


# disconnect(wait=False)


def test_disconnect_without_waiting_returns_at_once_and_join_waits(
    gateway: LocalGateway, calls: Calls
) -> None:
    gateway.inject(instead_of="close")
    shard = make_shard(on_socket_closed=calls.recording("closed"), close_timeout=NEVER)
    connection = connect(shard, gateway)
    since = time.perf_counter()
    shard.disconnect(4000, wait=False)
    shard.disconnect(4001, wait=False)
    assert time.perf_counter() - since < AT_ONCE
    assert shard.state is ShardState.CLOSING and not calls.made
    wait_until(lambda: connection.close_code)
    connection.proceed()
    shard.join(10)
    assert time.perf_counter() - since < 2 * AT_ONCE  # the peer has answered
    assert calls.made == [("closed", None)]
    assert shard.socket_thread is None
    assert connection.wait_closed() == 4000


def test_unresponsive_peers_of_many_shards_cost_one_close_timeout(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="close", connections=None)
    shards = [make_shard(close_timeout=1.0) for _ in range(8)]
    for shard in shards:
        connect(shard, gateway)
    since = time.perf_counter()
    for shard in shards:
        shard.disconnect(wait=False)
    for shard in shards:
        shard.join(10)
    assert time.perf_counter() - since < AT_ONCE
    assert all(shard.state is ShardState.CLOSED for shard in shards)


def test_disconnect_without_waiting_closes_the_socket_behind_a_stuck_callback(
    gateway: LocalGateway, calls: Calls
) -> None:
    """No thread joins the shard, and its reader cannot close anything."""
    shard = make_shard(close_timeout=0.4)
    shard.on("TYPING_START", calls.number)
    connection = connect(shard, gateway)
    calls.gate.clear()
    dispatch_numbers(gateway, [1])
    wait_until(lambda: shard.stats.events["TYPING_START"] == 1)
    shard.disconnect(wait=False)
    assert connection.wait_closed(10) == 1000
    calls.gate.set()
    shard.join(10)
    wait_until(lambda: shard.socket_thread is None)


def test_a_peer_that_takes_no_bytes_holds_up_no_disconnect_without_waiting(
    gateway: LocalGateway, calls: Calls
) -> None:
    """A callback of the reader's is inside send(), for longer than close_timeout."""
    errors: list[Exception] = []

    def send(shard: Shard, data: Any) -> None:
        try:
            while True:
                shard._reader.connection.send("x" * 4000, urgent=True)
        except Exception as error:
            errors.append(error)

    shard = make_shard(close_timeout=0.4, send_timeout=30.0)
    shard.on("USER_UPDATE", send)
    connection = connect(shard, gateway)
    connection.stop_reading()
    gateway.dispatch("USER_UPDATE", {})
    wait_until(lambda: shard.stats.events["USER_UPDATE"] == 1)
    since = time.perf_counter()
    shard.disconnect(wait=False)
    wait_until(lambda: shard.state is ShardState.CLOSED, 15)
    assert time.perf_counter() - since < AT_ONCE
    assert errors
    shard.join(10)


def test_connect_may_follow_disconnect_without_waiting(gateway: LocalGateway) -> None:
    with make_shard() as shard:
        for _ in range(5):
            connect(shard, gateway)
            shard.disconnect(wait=False)
        connect(shard, gateway)
        assert shard.state is ShardState.READY


def test_disconnect_without_waiting_leaves_a_shard_that_does_not_run(
    gateway: LocalGateway,
) -> None:
    shard = make_shard()
    threads = _thread._count()
    shard.disconnect(wait=False)
    assert shard.state is ShardState.DISCONNECTED
    assert _thread._count() == threads
    with pytest.raises(TypeError, match="wait must be of type bool"):
        shard.disconnect(wait=None)  # type: ignore[arg-type]
