"""A shard's connections, from the first to closed, against the local gateway on real sockets."""

from __future__ import annotations

import itertools
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from shardlib import (
    AlreadyConnected,
    Backoff,
    ConnectionFailed,
    NotReady,
    Opcode,
    Session,
    Shard,
    ShardClosed,
    ShardError,
    ShardState,
)
from shardlib.lifecycle import CLOSED_BY_DISCONNECT
from shardlib.testing import LocalGateway
from shardlib.waiting import Alarm
from tests.recorder import CALLBACKS, Recorder, dispatch_numbers
from tests.shards import make_gateway, make_shard
from tests.support import in_background, not_none, wait_until

COMPRESSIONS = ("zlib-stream", "zstd-stream", "payload", None)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(raw=True)


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@pytest.fixture
def shard(recorder: Recorder, gateway: LocalGateway) -> Iterator[Shard]:
    with make_shard(recorder) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        yield shard


def is_waiting_in(thread: threading.Thread, function: Any) -> bool:
    """True if a thread is inside a function of the library and waits there."""
    frame = sys._current_frames().get(thread.ident or 0)
    names = [each.f_code for each, _ in traceback.walk_stack(frame)]
    return Alarm.wait.__code__ in names and function.__code__ in names


def wait_for_resumes(shard: Shard, count: int) -> None:
    wait_until(lambda: shard.stats.resumes >= count and shard.state is ShardState.READY)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_delivers_ready_and_events_in_order(
    recorder: Recorder, compression: Any
) -> None:
    with make_gateway() as gateway, make_shard(recorder, compression=compression) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        dispatch_numbers(gateway, range(100))
        wait_until(lambda: len(recorder.numbers()) == 100)
        assert recorder.numbers() == list(range(100))
        assert gateway.connections[0].compression == compression
        assert not recorder.errors


@pytest.mark.slow
def test_ten_thousand_events_in_order_through_every_kind_of_loss(
    recorder: Recorder, gateway: LocalGateway, shard: Shard
) -> None:
    """Op 7, op 9, a drop, a reset, closes with and without a code: each loss is resumed."""
    numbers = iter(range(10_000))
    losses = [
        lambda connection: connection.reconnect(),
        lambda connection: connection.drop(),
        lambda connection: connection.reset(),
        lambda connection: connection.close(None),
        lambda connection: connection.close(4000),
        lambda connection: connection.close(1000),
        lambda connection: connection.close(1001),
        lambda connection: connection.invalid_session(True),
        lambda connection: connection.close(4999, "unheard of"),
    ]
    for count, lose in enumerate(losses, start=1):
        dispatch_numbers(gateway, itertools.islice(numbers, 1000))
        lose(gateway.connections[-1])
        wait_for_resumes(shard, count)
    dispatch_numbers(gateway, numbers)
    wait_until(lambda: len(recorder.numbers()) >= 10_000, 15)
    assert recorder.numbers() == list(range(10_000))
    assert len(gateway.sessions) == 1
    assert len(gateway.all_connections) == len(losses) + 1
    assert recorder.life == [
        ("connected",),
        ("ready",),
        *itertools.chain.from_iterable(
            [("disconnected", code, False), ("connected",), ("reconnected", True)]
            for code in (None, None, None, None, 4000, 1000, 1001, None, 4999)
        ),
    ]
    # No close frame of the shard may end the session.
    codes = [connection.close_code for connection in gateway.all_connections[:-1]]
    assert not {1000, 1001} & set(codes), codes


def test_an_invalid_session_is_replaced_by_a_new_one(
    recorder: Recorder, gateway: LocalGateway, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardlib.reconnect.INVALID_SESSION_DELAY", (0.05, 0.06))
    first = shard.session_id
    shard_url = gateway.connections[0].url
    gateway.connections[0].invalid_session(False)
    wait_until(lambda: shard.session_id not in (None, first))
    recorder.wait_for("reconnected")
    assert recorder.life[2:] == [
        ("disconnected", None, False),
        ("connected",),
        ("ready",),
        ("reconnected", False),
    ]
    second = gateway.connections[0]
    assert not second.at_resume_url
    assert second.url.split("?")[1] == shard_url.split("?")[1]
    assert [payload["op"] for payload in second.received if payload["op"] != 1] == [2]
    dispatch_numbers(gateway, [7])
    wait_until(lambda: recorder.numbers() == [7])
    # A Resume names the sequence of the new session.
    session_id, sequence = shard.session_id, shard.last_sequence
    second.drop()
    resume = gateway.expect(Opcode.RESUME)["d"]
    assert (resume["session_id"], resume["seq"]) == (session_id, sequence)


def test_a_resume_goes_to_the_session_gateway_with_the_same_query(
    gateway: LocalGateway, shard: Shard
) -> None:
    for count in range(1, 4):
        gateway.connections[-1].drop()
        wait_for_resumes(shard, count)
    first, *others = gateway.all_connections
    assert not first.at_resume_url
    assert [connection.at_resume_url for connection in others] == [True] * 3
    assert [connection.query for connection in others] == [first.query] * 3


@pytest.mark.parametrize("code", [4007, 4009])
def test_close_codes_that_end_the_session_begin_a_new_one(
    gateway: LocalGateway, shard: Shard, code: int
) -> None:
    first = shard.session_id
    gateway.connections[0].close(code)
    wait_until(lambda: shard.session_id not in (None, first))
    assert not gateway.all_connections[1].at_resume_url


def test_a_zombie_connection_is_closed_and_its_session_resumed(recorder: Recorder) -> None:
    with make_gateway(heartbeat_interval=1000) as gateway, make_shard(recorder) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        zombie = gateway.connections[0]
        zombie.acknowledge = False
        wait_for_resumes(shard, 1)
        assert zombie.wait_closed() not in (1000, 1001)
        assert ("disconnected", None, False) in recorder.life
        assert len(gateway.sessions) == 1


def test_reconnect_resumes_and_reinstantiate_begins_a_new_session(
    gateway: LocalGateway, shard: Shard
) -> None:
    first = shard.session_id
    shard.reconnect()
    shard.wait_until_ready(10)
    assert shard.session_id == first
    assert gateway.all_connections[0].wait_closed() == 4000
    shard.resume()
    shard.wait_until_ready(10)
    assert shard.session_id == first
    shard.reinstantiate()
    shard.wait_until_ready(10)
    assert shard.session_id not in (None, first)
    assert [connection.at_resume_url for connection in gateway.all_connections] == [
        False,
        True,
        True,
        False,
    ]
    assert shard.stats.connections == 4
    assert shard.stats.reconnects == 3
    assert shard.stats.resumes == 2


def test_reconnect_resume_and_reinstantiate_connect_a_closed_shard(
    gateway: LocalGateway, shard: Shard
) -> None:
    first = shard.session_id
    shard.disconnect(4000)
    shard.resume()
    shard.wait_until_ready(10)
    assert shard.session_id == first
    shard.disconnect(4000)
    shard.reinstantiate()
    shard.wait_until_ready(10)
    assert shard.session_id != first
    shard.disconnect()
    with pytest.raises(NotReady, match="no session to resume"):
        shard.resume()
    shard.reconnect()
    shard.wait_until_ready(10)
    assert len(gateway.all_connections) == 4


def test_disconnect_ends_a_waiting_reconnect_with_shard_closed(
    gateway: LocalGateway, shard: Shard
) -> None:
    raised: list[str] = []

    def reconnect() -> None:
        with pytest.raises(ShardClosed) as caught:
            shard.reconnect()
        raised.append(str(caught.value))

    gateway.outage()
    reconnecting = threading.Thread(target=reconnect)
    reconnecting.start()
    # A thread that had not begun would find the shard closed, and connect it.
    wait_until(lambda: is_waiting_in(reconnecting, Shard.reconnect))
    wait_until(lambda: shard.state is ShardState.WAITING)
    shard.disconnect()
    reconnecting.join(10)
    assert raised == [CLOSED_BY_DISCONNECT]


def test_no_fail_keeps_trying_for_a_closed_shard(gateway: LocalGateway, shard: Shard) -> None:
    """The first attempt fails; the call, for which no_fail is True, waits for a later one."""
    first = shard.session_id
    shard.disconnect(4000)
    gateway.outage()
    beginning = in_background(shard.reinstantiate, True)
    wait_until(lambda: shard.state is ShardState.WAITING)
    gateway.restore()
    beginning.result(10)
    shard.wait_until_ready(10)
    assert shard.session_id != first


def test_reconnect_in_a_callback_does_not_delay_the_reconnect_of_a_thread(
    gateway: LocalGateway,
) -> None:
    """A thread that waits for the next connection gets it without back-off."""
    with make_shard(backoff=Backoff(base=60.0, cap=60.0)) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        shard.reconnect()  # the back-off before the next connection is half a minute or more
        shard.wait_until_ready(10)
        threads: list[threading.Thread] = []

        @shard.on("TYPING_START")
        def ask(shard: Shard, _: Any) -> None:
            threads.append(threading.Thread(target=shard.reconnect))
            threads[0].start()
            # The thread has asked once it waits; no connection can come before `ask` returns.
            wait_until(lambda: is_waiting_in(threads[0], Shard.reconnect))
            shard.reconnect()

        dispatch_numbers(gateway, [1])
        wait_for_resumes(shard, 2)
        threads[0].join(10)


def test_reconnect_while_closing_raises_shard_closed(gateway: LocalGateway, shard: Shard) -> None:
    inside, release = threading.Event(), threading.Event()
    shard.on("TYPING_START")(lambda *_: (inside.set(), release.wait(10)))
    dispatch_numbers(gateway, [1])
    assert inside.wait(10)
    closing = in_background(shard.disconnect)
    wait_until(lambda: shard.socket_disconnecting)
    with pytest.raises(ShardClosed):
        shard.reconnect()
    release.set()
    closing.result(10)


def test_disconnect_ends_threads_socket_and_session(
    recorder: Recorder, gateway: LocalGateway, shard: Shard
) -> None:
    connection = gateway.connections[0]
    shard.disconnect()
    assert connection.wait_closed() == 1000
    wait_until(
        lambda: not [each for each in threading.enumerate() if each.name.startswith("shard-")]
    )
    assert shard.socket_thread is None and shard.heartbeat_thread is None
    assert shard.socket_instance is None
    assert shard.state is ShardState.CLOSED
    assert shard.session is None
    assert recorder.life[-2:] == [("disconnected", 1000, True), ("closed", None)]
    shard.disconnect()  # once more does nothing
    assert recorder.of("closed") == [("closed", None)]
    shard.join(0)
    with pytest.raises(ShardClosed):
        shard.wait_until_ready(0)
    assert len(gateway.all_connections) == 1


def test_disconnect_with_a_code_from_4000_keeps_the_session(
    gateway: LocalGateway, shard: Shard
) -> None:
    session_id = shard.session_id
    shard.disconnect(4321)
    assert gateway.all_connections[0].wait_closed() == 4321
    assert shard.session is not None and shard.session.session_id == session_id
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    assert shard.stats.resumes == 1


def test_a_second_connect_is_refused_until_disconnect(gateway: LocalGateway, shard: Shard) -> None:
    with pytest.raises(AlreadyConnected):
        shard.connect(gateway.url)
    shard.disconnect()
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    assert len(gateway.all_connections) == 2


def test_a_first_attempt_that_fails_raises_and_leaves_the_shard_disconnected(
    recorder: Recorder,
) -> None:
    with make_gateway() as gateway:
        url = gateway.url
    shard = make_shard(recorder)
    with pytest.raises(ConnectionFailed, match="refused"):
        shard.connect(url)
    assert shard.state is ShardState.DISCONNECTED
    assert recorder.besides_states == []
    with pytest.raises(ConnectionFailed):
        shard.wait_until_ready(1)
    with make_gateway() as gateway, shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)


def test_without_should_reconnect_the_first_loss_closes(
    recorder: Recorder, gateway: LocalGateway
) -> None:
    shard = make_shard(recorder, should_reconnect=False)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    gateway.connections[0].close(4000, "sorry")
    with pytest.raises(ShardClosed, match="4000.*sorry") as caught:
        shard.join(10)
    assert caught.value.code == 4000
    assert recorder.life[-2:] == [
        ("disconnected", 4000, False),
        ("closed", caught.value),
    ]
    assert len(gateway.all_connections) == 1


@pytest.mark.parametrize("code, kept", [(4000, True), (4009, False)])
def test_a_shard_closed_by_a_loss_keeps_a_resumable_session(
    gateway: LocalGateway, code: int, kept: bool
) -> None:
    shard = make_shard(should_reconnect=False)
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    gateway.connections[0].close(code)
    with pytest.raises(ShardClosed):
        shard.join(10)
    assert (shard.session is not None) == kept
    with shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        assert shard.stats.resumes == kept


def test_properties_return_the_arguments_of_shard_and_connect(gateway: LocalGateway) -> None:
    shard = make_shard(should_reconnect=False, large_threshold=60, shard_id=1, shard_count=2)
    assert (shard.should_reconnect, shard.large_threshold) == (False, 60)
    assert (shard.shard_id, shard.shard_count) == (1, 2)
    assert (shard.socket_url, shard.socket_version) == ("wss://gateway.discord.gg/", 10)
    with make_gateway(shards=2) as gateway, shard:
        shard.connect(gateway.url, 9)
        assert (shard.socket_url, shard.socket_version) == (gateway.url, 9)


@pytest.mark.parametrize("ask", ["user", "gateway"])
@pytest.mark.parametrize("answers", [True, False], ids=["answers", "is silent"])
def test_a_live_peer_gets_a_second_to_answer_the_close_frame_before_a_resume(
    gateway: LocalGateway, ask: str, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Gateway that still reads the old connection would refuse the Resume."""
    if answers:  # the shard must not wait for the whole timeout
        monkeypatch.setattr("shardlib.reader.CLOSE_HANDSHAKE_TIMEOUT", 30.0)
    else:
        gateway.inject(instead_of="close")
    with make_shard(close_timeout=30.0) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        since = time.monotonic()
        if ask == "user":
            shard.reconnect()
        else:
            gateway.connections[0].reconnect()
        wait_for_resumes(shard, 1)
        old, new = gateway.all_connections
        assert old.wait_closed() == 4000
        seconds = new.opened_at - since
        assert seconds < 10 if answers else 0.9 <= seconds < 10


def test_waiting_before_connect_is_refused() -> None:
    shard = make_shard()
    with pytest.raises(ShardError, match=r"wait_until_ready\(\) would wait for ever"):
        shard.wait_until_ready()
    with pytest.raises(ShardError, match=r"wait_for\(\) would wait for ever"):
        shard.wait_for("READY", timeout=10)


def test_wait_until_ready_ends_at_its_timeout(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="hello")
    with make_shard() as shard:
        shard.connect(gateway.url)
        with pytest.raises(TimeoutError, match="not ready within 0.01 seconds"):
            shard.wait_until_ready(0.01)


def test_a_shard_resumes_after_an_outage(gateway: LocalGateway, shard: Shard) -> None:
    gateway.outage()
    wait_until(lambda: shard.state is ShardState.WAITING)
    assert shard.socket_reconnecting and not shard.socket_active
    gateway.restore()
    wait_for_resumes(shard, 1)
    assert not shard.socket_reconnecting and shard.socket_active


def test_after_three_failures_at_the_session_gateway_the_main_one_is_used(
    gateway: LocalGateway, shard: Shard
) -> None:
    """After three failed attempts there, the session is resumed at the URL given to connect()."""
    gateway.inject(lambda connection: connection.refuse(503), instead_of="upgrade", connections=3)
    gateway.connections[0].drop()
    wait_for_resumes(shard, 1)
    at_resume_url = [connection.at_resume_url for connection in gateway.all_connections]
    assert at_resume_url == [False, True, True, True, False]


def test_events_and_resumes_over_tls_with_a_private_authority(recorder: Recorder) -> None:
    with make_gateway(tls=True) as gateway:
        with make_shard(recorder, ssl_context=gateway.ssl_context) as shard:
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
            assert gateway.url.startswith("wss://")
            assert isinstance(not_none(shard.socket_instance).sock, ssl.SSLSocket)
            dispatch_numbers(gateway, range(2000))
            gateway.connections[-1].reconnect()
            wait_for_resumes(shard, 1)
            gateway.connections[-1].drop()
            wait_for_resumes(shard, 2)
            dispatch_numbers(gateway, range(2000, 4000))
            wait_until(lambda: len(recorder.numbers()) >= 4000)
            assert recorder.numbers() == list(range(4000))


def test_an_untrusted_certificate_is_refused() -> None:
    with make_gateway(tls=True) as gateway:
        with pytest.raises(ConnectionFailed, match="certificate is not trusted"):
            make_shard().connect(gateway.url)
        wait_until(lambda: all(connection.is_closed for connection in gateway.all_connections))
        assert not any(connection.received for connection in gateway.all_connections)


def test_every_callback_runs_on_the_reader_thread(
    recorder: Recorder, gateway: LocalGateway, shard: Shard
) -> None:
    """Row 35: the on_socket_* functions, listeners, and the predicates of wait_for()."""
    listening: set[str] = set()
    judging: set[str] = set()

    def listen(*_: Any) -> None:
        listening.add(threading.current_thread().name)

    def judge(_: Any) -> bool:
        judging.add(threading.current_thread().name)
        return True

    shard.on("USER_UPDATE")(listen)
    waiting = threading.Thread(target=shard.wait_for, args=("USER_UPDATE", judge, 10))
    waiting.start()
    wait_until(lambda: gateway.dispatch("USER_UPDATE", {}) and not waiting.is_alive())
    shard.heartbeat_in(10)
    recorder.wait_for("heartbeat")
    gateway.connections[0].send_compressed("not JSON")
    recorder.wait_for("error")
    gateway.connections[0].reconnect()
    wait_for_resumes(shard, 1)
    shard.disconnect()
    recorder.wait_for("closed")
    assert {f"on_socket_{call[0]}" for call in recorder.calls} == set(CALLBACKS)
    assert recorder.threads == {"shard-0-reader"}
    assert listening == judging == {"shard-0-reader"}


def test_run_forever_blocks_until_disconnect(recorder: Recorder, gateway: LocalGateway) -> None:
    shard = make_shard(recorder)
    running = in_background(shard.run_forever, gateway.url)
    # wait_until_ready() would be refused until run_forever() has called connect().
    wait_until(lambda: shard.state is ShardState.READY)
    assert not running.done()
    shard.disconnect()
    running.result(10)


def test_stats_count_events_messages_and_bytes(gateway: LocalGateway, shard: Shard) -> None:
    dispatch_numbers(gateway, range(10))
    wait_until(lambda: shard.stats.events["TYPING_START"] == 10)
    stats = shard.stats
    assert stats.events["READY"] == 1
    assert stats.messages >= 12
    assert 0 < stats.bytes_received < stats.bytes_inflated
    assert stats.callback_seconds > 0
    assert stats.events is not shard.stats.events


def test_an_identify_gate_that_fails_does_not_stop_the_shard(
    recorder: Recorder, gateway: LocalGateway
) -> None:
    """A gate that asks a server over the network will fail some day."""
    answers: Iterator[float | Exception] = iter(
        [0.01, ConnectionError("the gate's server is down"), 0.0]
    )

    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    with make_shard(recorder, identify_gate=Gate()) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
    assert [type(error) for error in recorder.errors] == [ConnectionError]


def test_reinstantiate_during_the_first_attempt_does_not_fail_connect(
    gateway: LocalGateway,
) -> None:
    gateway.inject(instead_of="upgrade", connections=1)
    with make_shard(session=Session("abc", 5, None, 0, 1)) as shard:
        connecting = in_background(shard.connect, gateway.url)
        gateway.wait_for_connection()
        shard.reinstantiate()
        connecting.result(10)
        shard.wait_until_ready(10)
        assert shard.session_id != "abc"


def test_no_fail_keeps_trying_if_the_connection_that_is_opening_fails(
    gateway: LocalGateway,
) -> None:
    gateway.inject(instead_of="hello", connections=1)
    with make_shard(should_reconnect=False) as shard:
        shard.connect(gateway.url)
        shard.reinstantiate(no_fail=True)
        gateway.wait_for_connection().drop()
        shard.wait_until_ready(10)
