"""session_gate: whether a shard may resume its session, or another process has taken it over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import Opcode, Session, Shard, ShardClosed, ShardState, reader
from shardlib.testing import GatewayConnection, LocalGateway
from tests.recorder import Recorder
from tests.shards import heartbeats, make_gateway, make_shard
from tests.support import AT_ONCE, in_background, not_none, wait_until


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


class Gate:
    """A session gate that records its calls, waits while it is shut, and answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []
        self.threads: set[str] = set()
        self.answer: Any = True
        self.raises: BaseException | None = None
        self._open = threading.Event()
        self.open()

    def open(self) -> None:
        """Let the calls that wait go on, and later ones pass."""
        self._open.set()

    def shut(self) -> None:
        """Let later calls wait."""
        self._open.clear()

    def may_resume(self, shard_id: int, session_id: str) -> bool:
        self.threads.add(threading.current_thread().name)
        self.asked.append((shard_id, session_id))
        assert self._open.wait(10)
        if self.raises is not None:
            raise self.raises
        answer: bool = self.answer
        return answer


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def connect(shard: Shard, gateway: LocalGateway) -> GatewayConnection:
    """Connect a shard; return the gateway's side once the shard has its session."""
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    return gateway.connections[-1]


def resumes(gateway: LocalGateway) -> int:
    """How many Resumes the gateway has received."""
    return sum(
        payload["op"] == Opcode.RESUME
        for connection in gateway.all_connections
        for payload in connection.received
    )


def lose_while_it_asks(shard: Shard, gateway: LocalGateway, gate: Gate) -> GatewayConnection:
    """Lose the connection; return the next one, on which the reader waits for the gate."""
    asked = len(gate.asked)
    gate.shut()
    gateway.connections[-1].drop()
    wait_until(lambda: len(gate.asked) > asked)
    return gateway.connections[-1]


def test_it_is_asked_on_the_reader_before_each_resume_and_no_identify(
    gateway: LocalGateway, gate: Gate
) -> None:
    with make_shard(session_gate=gate) as shard:
        connection = connect(shard, gateway)
        assert gate.asked == []
        for count in (1, 2):
            connection = lose_while_it_asks(shard, gateway, gate)
            assert shard.state is ShardState.CONNECTED
            assert resumes(gateway) == count - 1
            gate.open()
            connection.expect(Opcode.RESUME)
            wait_until(lambda count=count: shard.stats.resumes == count)  # type: ignore[misc]
        shard.rewind(1)
        wait_until(lambda: shard.stats.resumes == 3)
        assert gate.asked == [(0, not_none(shard.session_id))] * 3
        assert gate.threads == {"shard-0-reader"}
        assert shard.stats.callbacks["the session gate"].count == 3


def test_a_session_that_is_owned_elsewhere_is_left_alone_and_closes_the_shard(
    gateway: LocalGateway, gate: Gate
) -> None:
    recorder = Recorder()
    shard = make_shard(recorder, session_gate=gate)
    connect(shard, gateway)
    session = not_none(shard.session)
    gate.answer = False
    gateway.connections[-1].drop()
    with pytest.raises(ShardClosed, match="owned elsewhere") as caught:
        shard.join(10)
    assert caught.value.code is None
    assert recorder.of("closed") == [("closed", caught.value)]
    assert recorder.of("disconnected")[-1] == ("disconnected", None, False)
    assert resumes(gateway) == 0 and len(gateway.all_connections) == 2
    assert gateway.all_connections[-1].wait_closed() == 4000
    # The session lives on, for whoever owns it.
    assert shard.session_id == session.session_id
    with make_shard(session=session) as owner:
        owner.connect(gateway.url)
        wait_until(lambda: owner.stats.resumes == 1)


def test_a_shard_that_was_refused_asks_again_when_it_is_connected_again(
    gateway: LocalGateway, gate: Gate
) -> None:
    gate.answer = False
    with make_shard() as first:
        connect(first, gateway)
        session = first.session
        first.disconnect(4000)
    shard = make_shard(session_gate=gate, session=session)
    shard.start(gateway.url)
    with pytest.raises(ShardClosed, match="owned elsewhere"):
        shard.join(10)
    gate.answer = True
    with shard:
        shard.connect(gateway.url)
        wait_until(lambda: shard.stats.resumes == 1)


def test_what_it_raises_is_told_and_the_resume_tried_again(
    gateway: LocalGateway, gate: Gate
) -> None:
    """However often: that says nothing of the session, nor of the URL to resume it at."""
    recorder = Recorder()
    with make_shard(recorder, session_gate=gate) as shard:
        connect(shard, gateway)
        session_id = shard.session_id
        gate.raises = OSError("Redis is away")
        gateway.connections[-1].drop()
        wait_until(lambda: len(gate.asked) >= 8)
        assert resumes(gateway) == 0
        gate.raises = None
        wait_until(lambda: shard.stats.resumes == 1)
        assert shard.session_id == session_id
        assert gateway.connections[-1].at_resume_url
    told = [error for _, error in recorder.of("error")]
    assert len(told) >= 7 and {str(error) for error in told} == {"Redis is away"}


@pytest.mark.parametrize("answer", [None, 1, "yes"])
def test_a_meaningless_answer_is_told_and_resumes_nothing(
    gateway: LocalGateway, gate: Gate, answer: Any
) -> None:
    recorder = Recorder()
    with make_shard(recorder, session_gate=gate) as shard:
        connect(shard, gateway)
        gate.answer = answer
        gateway.connections[-1].drop()
        wait_until(lambda: len(gate.asked) >= 2)
        assert resumes(gateway) == 0
        gate.answer = True
        wait_until(lambda: shard.stats.resumes == 1)
    assert {type(error) for _, error in recorder.of("error")} == {TypeError}
    assert "may_resume() must return True" in str(recorder.of("error")[0][1])


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ShardClosed(None, "mine")])
def test_an_error_that_is_to_end_the_shard_ends_it(
    gateway: LocalGateway, gate: Gate, error: BaseException
) -> None:
    shard = make_shard(session_gate=gate)
    connect(shard, gateway)
    gate.raises = error
    gateway.connections[-1].drop()
    with pytest.raises(type(error)) as caught:
        shard.join(10)
    assert caught.value is error
    assert shard.session is not None


def test_a_gate_that_takes_its_time_makes_no_zombie(gate: Gate) -> None:
    with (
        make_gateway(heartbeat_interval=1500) as gateway,
        make_shard(session_gate=gate) as shard,
    ):
        connect(shard, gateway)
        connection = lose_while_it_asks(shard, gateway, gate)
        wait_until(lambda: len(heartbeats(connection)) >= 3)
        assert connection.is_open
        gate.open()
        wait_until(lambda: shard.stats.resumes == 1)
        assert shard.stats.connections == 2


@pytest.mark.parametrize("seconds", [0.0, 100.0], ids=["long", "short"])
def test_a_connection_lost_while_it_is_asked_costs_no_session(
    gateway: LocalGateway, gate: Gate, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Five Resumes in a row that got no answer would; here none is sent in vain."""
    monkeypatch.setattr(reader, "LONG_GATE_WAIT", seconds)
    with make_shard(session_gate=gate) as shard:
        connect(shard, gateway)
        session_id = shard.session_id
        gate.shut()
        gateway.connections[-1].drop()
        for count in range(1, 7 if seconds == 0.0 else 2):
            wait_until(lambda count=count: len(gate.asked) == count)  # type: ignore[misc]
            connection = gateway.connections[-1]
            connection.close(4003)
            gate.open()
            gate.shut()
        gate.open()
        wait_until(lambda: shard.stats.resumes == 1)
        assert shard.session_id == session_id
        if seconds == 0.0:
            assert resumes(gateway) == 1


def test_a_long_wait_for_the_gate_is_followed_by_a_resume_without_asking_again(
    gateway: LocalGateway, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LONG_GATE_WAIT", 0.0)
    with make_shard(session_gate=gate) as shard:
        connect(shard, gateway)
        for count in (1, 2):
            gateway.connections[-1].drop()
            wait_until(lambda count=count: shard.stats.resumes == count)  # type: ignore[misc]
            assert len(gate.asked) == count


@pytest.mark.parametrize(
    "ask",
    [lambda shard: shard.rewind(1), lambda shard: shard.reinstantiate()],
    ids=["rewind()", "reinstantiate()"],
)
def test_a_new_connection_that_is_asked_for_meanwhile_takes_the_place_of_this_one(
    gateway: LocalGateway, gate: Gate, ask: Callable[[Shard], object]
) -> None:
    with make_shard(session_gate=gate) as shard:
        connect(shard, gateway)
        connection = lose_while_it_asks(shard, gateway, gate)
        asking = in_background(ask, shard)
        wait_until(lambda: shard._lifecycle.life.request is not None)
        gate.open()
        asking.result(10)
        assert connection.wait_closed() == 4000
        wait_until(lambda: shard.state is ShardState.READY)
        assert Opcode.RESUME not in [payload["op"] for payload in connection.received]


def test_disconnect_while_it_is_asked_returns_in_time_and_sends_no_resume(
    gateway: LocalGateway, gate: Gate
) -> None:
    shard = make_shard(session_gate=gate, close_timeout=0.5)
    connect(shard, gateway)
    connection = lose_while_it_asks(shard, gateway, gate)
    since = time.monotonic()
    shard.disconnect(4000)
    assert time.monotonic() - since < AT_ONCE
    assert connection.wait_closed() == 4000
    gate.open()
    shard.join(10)
    wait_until(lambda: shard.socket_thread is None)
    assert resumes(gateway) == 0
    assert isinstance(shard.session, Session)
