"""Made-up messages, streams, answers and arguments: only documented outcomes, and no dead thread.

``SHARDLIB_FUZZING=30`` makes each property try thirty times as many examples.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import os
import queue
import re
import socket
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from shardlib import (
    Backoff,
    BrokenStream,
    ConnectionFailed,
    IdentifyGate,
    NotReady,
    Opcode,
    Session,
    Shard,
    ShardClosed,
    ShardState,
    UnreadableMessage,
)
from shardlib.frames import FrameType
from shardlib.gateway import COMPRESSIONS
from shardlib.limits import SendWindow
from shardlib.testing import LocalGateway
from shardlib.testing.connection import GatewayConnection
from tests.recorder import Recorder, dispatch_numbers
from tests.reliability.conftest import MakeGateway, WatchShard
from tests.shards import make_shard
from tests.support import FATAL, TOKEN, wait_until
from tests.test_compression import compressor
from tests.test_frames import frame

# Hypothesis warns that the threads of shards call `random` while it draws examples, and of examples
# with a long repr().
pytestmark = [
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
]


def examples(count: int) -> settings:
    """Settings for so many examples of a property, however long each takes."""
    return settings(
        max_examples=count * int(os.environ.get("SHARDLIB_FUZZING", 1)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# Values of JSON: more than any gateway sends, and more than Hypothesis tries by default.

TEXTS = st.text(st.characters())  # lone surrogates among them
ODD_NUMBERS = st.sampled_from(
    [0, -1, 1 << 53, 1 << 63, 1 << 64, 10**400, -(10**400), 5e-324, 1e308, float("inf")]
)
NUMBERS = st.integers() | st.floats() | ODD_NUMBERS
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)
SEQUENCES = st.none() | st.integers(0, 20) | SCALARS
URLS = st.sampled_from(
    ["wss://resume.example", "WSS://resume.example", "ws://resume.example"]
) | TEXTS.map("wss://".__add__)
# URLs to which a test may connect: nothing listens there.
URLS_HERE = st.sampled_from(["ws://127.0.0.1:9/", "wss://127.0.0.1:9/", "ws:", "ws://[::1"])
HELLO_DATA = JSON_VALUES | st.fixed_dictionaries({"heartbeat_interval": ODD_NUMBERS | JSON_VALUES})


def pieces(
    opcodes: st.SearchStrategy[Any], data: st.SearchStrategy[Any], *events: str
) -> st.SearchStrategy[dict[str, Any]]:
    """Payloads made of opcodes, names of events, sequences and data."""
    names = st.sampled_from(events) if events else st.none() | JSON_VALUES
    return st.fixed_dictionaries({"op": opcodes}, optional={"t": names, "s": SEQUENCES, "d": data})


def payloads_with(urls: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Payloads of all kinds.

    :param urls: the URLs of READY, which may also have a value that is no URL, or none.
    """
    ready = st.fixed_dictionaries(
        {}, optional={"session_id": JSON_VALUES, "resume_gateway_url": urls | JSON_VALUES}
    )
    return st.one_of(
        pieces(st.just(0), ready | JSON_VALUES, "READY"),
        pieces(st.just(0), JSON_VALUES, "RESUMED", "TYPING_START", "A_NEW_THING"),
        pieces(st.just(0), JSON_VALUES),
        pieces(st.just(10), HELLO_DATA),
        pieces(st.sampled_from([1, 7, 9, 11]), JSON_VALUES),
        pieces(st.sampled_from([2, 6, -1, 99, True, "0", None, 1.0, 10**400]), JSON_VALUES),
    )


PAYLOADS = payloads_with(URLS)


def written(payload: Any, as_discord_does: bool = False) -> str:
    """JSON text of a payload.

    :param as_discord_does: True to write it as Discord does: then a shard does not decode an event
        without a listener.
    """
    if as_discord_does and isinstance(payload, dict):
        payload = {key: payload[key] for key in ("t", "s", "op", "d") if key in payload}
        return json.dumps(payload, separators=(",", ":"), ensure_ascii=False, default=repr)
    return json.dumps(payload, default=repr)


def in_utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


DEEP = st.tuples(st.sampled_from([50, 900, 1100, 4000]), st.booleans()).map(
    lambda shape: (
        '{"op":0,"t":"READY","s":1,"d":{"session_id":%s%s}}'
        % ("[" * shape[0], "]" * shape[0] * shape[1])
    )
)
JSON_TEXTS = DEEP | st.builds(written, PAYLOADS | JSON_VALUES, st.booleans())
MESSAGES = TEXTS | st.binary() | JSON_TEXTS | JSON_TEXTS.map(in_utf8)


class Watched:
    """A shard without a socket, and the errors and payloads that it gave to its callbacks."""

    def __init__(self, compression: str | None, **options: Any) -> None:
        self.errors: list[Exception] = []
        self.payloads: list[Any] = []
        self.shard = make_shard(
            intents=0,
            compression=compression,
            on_socket_error=lambda _, error: self.errors.append(error),
            on_socket_raw_message=lambda _, payload: self.payloads.append(payload),
            **options,
        )

    def check(self, path: Path) -> None:
        """Fail if an error is not documented, or a property not of its type."""
        for error in self.errors:
            assert isinstance(error, (UnreadableMessage, BrokenStream)), repr(error)
        check_properties(self.shard, path)


def check_properties(shard: Shard, path: Path) -> None:
    """Fail if a property is not of its documented type, or the session, if any, cannot be saved."""
    assert isinstance(shard.state, ShardState)
    state, shown = shard.state, repr(shard)
    beginning = f"<Shard 0/1 {state.value}"
    if state is shard.state:  # the reader has not changed it meanwhile
        assert shown.startswith((f"{beginning}>", f"{beginning}, ", f"{beginning}: "))
    assert shard.session_id is None or (type(shard.session_id) is str and shard.session_id)
    assert shard.session_gateway is None or type(shard.session_gateway) is str
    assert shard.last_sequence is None or (
        type(shard.last_sequence) is int and shard.last_sequence >= 0
    )
    assert shard.heartbeat_interval is None or shard.heartbeat_interval > 0
    assert type(shard.heartbeat_acknowledged) is bool
    for number in (shard.heartbeat_clock_time, shard.heartbeat_ping):
        assert number is None or type(number) is float
    assert type(shard.zlib_buffer) is bytes
    assert all(type(name) is str for name in shard.stats.events)
    session = shard.session
    assert (session is None) == (shard.session_id is None)
    if session is not None:
        session.save(path)
        assert Session.load(path) == session


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzing") / "session.json"


# Messages by themselves


@pytest.mark.parametrize("compression", COMPRESSIONS)
@examples(60)
@given(messages=st.lists(st.tuples(MESSAGES, st.booleans()), max_size=4), good=st.booleans())
def test_any_message_causes_only_documented_errors_and_a_valid_state(
    compression: str | None, messages: list[tuple[bytes | str, bool]], good: bool, path: Path
) -> None:
    """Row 43: any bytes or text, plain or compressed, before READY and after."""
    watched = Watched(compression)
    compress = compressor(compression)
    if good:
        ready = {"op": 0, "t": "READY", "s": 1, "d": {"session_id": "abc"}}
        watched.shard._handle_message(compress(json.dumps(ready).encode()))
        assert watched.shard.session_id == "abc"
    for message, compressed in messages:
        if compressed:
            message = compress(message if isinstance(message, bytes) else in_utf8(message))
        watched.shard._handle_message(message)
        watched.check(path)


@examples(300)
@given(payloads=st.lists(st.tuples(PAYLOADS | JSON_VALUES, st.booleans()), max_size=5))
def test_any_json_is_delivered_or_reported_as_unreadable(
    payloads: list[tuple[Any, bool]], path: Path
) -> None:
    """Row 43: an object with an opcode goes to the raw callback, anything else is an error."""
    watched = Watched(None)
    for payload, as_discord_does in payloads:
        before = len(watched.payloads)
        watched.shard._handle_message(written(payload, as_discord_does))
        told = watched.errors + watched.payloads[before:]
        assert len(told) == 1
        is_payload = isinstance(payload, dict) and type(payload.get("op")) is int
        assert isinstance(told[0], dict if is_payload else UnreadableMessage)
        watched.errors.clear()
        watched.check(path)


# Messages in any order

DISPATCHED = ("TYPING_START", "MESSAGE_CREATE", "A_NEW_THING")
KNOWN = st.none() | st.integers(0, 20)


class AnyOrder(RuleBasedStateMachine):
    """Gives the same messages to two shards, and computes what both must know afterwards.

    One shard has all callbacks. The other has one listener, so that it decodes few other events.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []  # of the watched shard
        self.heard: dict[Shard, list[Any]] = {}
        self.watched = make_shard(intents=0, **self.callbacks())
        self.quiet = make_shard(intents=0)
        for shard in (self.watched, self.quiet):
            self.heard[shard] = []
            shard.on("MESSAGE_CREATE")(lambda shard, data: self.heard[shard].append(data))
        # What the shards must have done, and must know.
        self.expected: list[tuple[Any, ...]] = []
        self.expected_heard: list[Any] = []
        self.events: Counter[str] = Counter()
        self.session_id: str | None = None
        self.gateway: str | None = None
        self.sequence: int | None = None
        self.interval: float | None = None
        self.number = 0

    def callbacks(self) -> dict[str, Any]:
        def note(name: str) -> Any:
            return lambda _, *arguments: self.calls.append((name, *arguments))

        names = ("raw_message", "dispatch", "ready", "reconnected", "heartbeat")
        callbacks = {f"on_socket_{name}": note(name) for name in names}
        # Of an error the test compares the type only.
        callbacks["on_socket_error"] = lambda _, error: self.calls.append(("error", type(error)))
        return callbacks

    def give(self, payload: dict[str, Any], discord: bool, *calls: tuple[Any, ...]) -> None:
        """Have both shards handle a payload.

        :param calls: the callbacks that the watched shard must call after the raw one.
        """
        self.expected.append(("raw_message", payload))
        self.expected.extend(calls)
        for shard in (self.watched, self.quiet):
            shard._handle_message(written(payload, discord))

    def note_sequence(self, sequence: int | None) -> None:
        if sequence is not None:
            self.sequence = max(sequence, sequence if self.sequence is None else self.sequence)

    def forget_session(self) -> None:
        self.session_id = self.gateway = self.sequence = None

    @rule(session_id=st.none() | st.sampled_from("ab"), sequence=KNOWN, discord=st.booleans())
    def ready(self, session_id: str | None, sequence: int | None, discord: bool) -> None:
        self.forget_session()
        self.session_id, self.sequence = session_id, sequence
        self.gateway = f"wss://resume.example/{session_id}"
        self.events["READY"] += 1
        data = {"session_id": session_id, "resume_gateway_url": self.gateway}
        payload = {"op": 0, "t": "READY", "s": sequence, "d": data}
        self.give(payload, discord, ("ready",), ("dispatch", payload))

    @rule(sequence=KNOWN, discord=st.booleans())
    def resumed(self, sequence: int | None, discord: bool) -> None:
        self.note_sequence(sequence)
        self.events["RESUMED"] += 1
        payload = {"op": 0, "t": "RESUMED", "s": sequence, "d": None}
        self.give(
            payload, discord, ("dispatch", payload)
        )  # no other callback, since the shard sent no Resume

    @rule(event=st.sampled_from(DISPATCHED), sequence=KNOWN, discord=st.booleans())
    def dispatch(self, event: str, sequence: int | None, discord: bool) -> None:
        self.note_sequence(sequence)
        self.events[event] += 1
        self.number += 1
        if event == "MESSAGE_CREATE":
            self.expected_heard.append(self.number)
        payload = {"op": 0, "t": event, "s": sequence, "d": self.number}
        self.give(payload, discord, ("dispatch", payload))

    @rule(interval=st.sampled_from([0, None, 45, 41250]))
    def hello(self, interval: float | None) -> None:
        if interval:
            self.interval = interval
        self.give({"op": 10, "d": {"heartbeat_interval": interval}}, False)

    @rule(data=st.sampled_from([True, False, None, 1, {}]), sequence=KNOWN)
    def invalid_session(self, data: Any, sequence: int | None) -> None:
        if data is not True:
            self.forget_session()
        self.give({"op": 9, "d": data, "s": sequence}, False)

    @rule(opcode=st.sampled_from([1, 7, 11, 2, 6, 99, -1]), data=SCALARS, sequence=KNOWN)
    def another_opcode(self, opcode: int, data: Any, sequence: int | None) -> None:
        # As text, since no NaN equals another.
        payload = {"op": opcode, "s": sequence, "d": repr(data)}
        answered = self.interval is not None and self.watched.heartbeat_clock_time is not None
        acknowledged = [("heartbeat", ANY)] if opcode == 11 and answered else []
        self.give(payload, False, *acknowledged)

    @rule(text=st.sampled_from(["", "{", "[]", '{"op":null}', "\x00"]))
    def unreadable(self, text: str) -> None:
        self.expected.append(("error", UnreadableMessage))
        for shard in (self.watched, self.quiet):
            shard._handle_message(text)

    @rule()
    def broken_stream(self) -> None:
        self.expected.append(("error", BrokenStream))
        for shard in (self.watched, self.quiet):
            shard._handle_message(b"no deflate block\x00\x00\xff\xff")

    @invariant()
    def both_shards_know_the_session(self) -> None:
        for shard in (self.watched, self.quiet):
            assert shard.session_id == self.session_id
            assert shard.session_gateway == self.gateway
            assert shard.last_sequence == self.sequence
            assert shard.heartbeat_interval == self.interval
            assert shard.stats.events == self.events
            assert shard.state is ShardState.DISCONNECTED
            session = shard.session
            assert (session is None) == (self.session_id is None)
            if session is not None:
                assert session.sequence == self.sequence

    @invariant()
    def every_event_came_once_and_in_order(self) -> None:
        assert self.calls == self.expected
        assert list(self.heard.values()) == [self.expected_heard] * 2


def test_any_order_of_messages_gives_the_expected_session_and_events() -> None:
    """Rows 22, 24, 36 and 43: as a model computes them; each event comes once and in order."""
    run_state_machine_as_test(AnyOrder, settings=settings(examples(80), stateful_step_count=30))


# Arguments

HOSTILE = st.one_of(
    SCALARS,
    st.binary(max_size=5),
    st.sampled_from([object(), print, {1, 2}, 1j, Decimal("nan"), {"name": "x"}]),
    st.lists(SCALARS | st.dictionaries(TEXTS, SCALARS, max_size=2), max_size=3),
    st.dictionaries(TEXTS, SCALARS, max_size=3),
)


def some(**good: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Keyword arguments, of which any may be missing: all valid, or some of them hostile."""
    hostile = {name: each | HOSTILE for name, each in good.items()}
    return st.fixed_dictionaries({}, optional=good) | st.fixed_dictionaries({}, optional=hostile)


SNOWFLAKES = st.just(1) | st.integers(0, 1 << 65) | st.integers(0, 1 << 65).map(str)
SNOWFLAKE_LISTS = st.lists(SNOWFLAKES, max_size=3) | st.lists(st.just(1), min_size=99, max_size=102)
ACTIVITIES = st.lists(
    st.fixed_dictionaries(
        {"name": TEXTS | st.just("x" * 4000), "type": st.integers(-1, 7)},
        optional={"state": JSON_VALUES | HOSTILE, "url": JSON_VALUES},
    ),
    max_size=3,
)
PRESENCES = some(
    status=st.sampled_from(["online", "dnd", "away"]),
    activities=ACTIVITIES,
    since=st.none() | st.integers(),
    afk=st.booleans(),
)
REQUESTS: st.SearchStrategy[tuple[str, tuple[Any, ...], dict[str, Any]]] = st.one_of(
    st.tuples(st.just("update_presence"), st.just(()), PRESENCES),
    st.tuples(
        st.just("update_voice_state"),
        st.tuples(SNOWFLAKES | HOSTILE, st.none() | SNOWFLAKES | HOSTILE),
        some(self_mute=st.booleans(), self_deaf=st.booleans()),
    ),
    st.tuples(
        st.just("request_guild_members"),
        st.tuples(SNOWFLAKES),
        some(
            query=st.none() | TEXTS,
            limit=st.integers(-1, 101),
            presences=st.booleans(),
            user_ids=st.none() | SNOWFLAKES | SNOWFLAKE_LISTS,
            nonce=TEXTS | st.integers(30, 34).map("n".__mul__),
        ),
    ),
    st.tuples(
        st.just("request_soundboard_sounds"), st.tuples(SNOWFLAKE_LISTS | HOSTILE), st.just({})
    ),
    st.tuples(
        st.just("request_channel_info"),
        st.tuples(SNOWFLAKES | HOSTILE)
        | st.tuples(SNOWFLAKES, st.lists(st.sampled_from(["status", "topic"])) | HOSTILE),
        st.just({}),
    ),
)


@pytest.fixture
def endless_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a connection send more than 120 payloads a minute."""
    monkeypatch.setattr("shardlib.connection.SendWindow", lambda: SendWindow(limit=1 << 30))


def test_any_arguments_of_a_request_are_refused_or_make_a_payload_the_gateway_takes(
    gateway: LocalGateway, watch_shard: WatchShard, endless_window: None
) -> None:
    """A request raises ValueError or TypeError, or the gateway keeps the connection."""
    shard, recorder = watch_shard(gateway)

    @examples(250)
    @given(request=REQUESTS)
    def send(request: tuple[str, tuple[Any, ...], dict[str, Any]]) -> None:
        method, arguments, options = request
        try:
            getattr(shard, method)(*arguments, **options)
        except (ValueError, TypeError):
            return
        shard.heartbeat(requested=True)
        gateway.expect(Opcode.HEARTBEAT)  # the gateway took what came before it
        assert len(gateway.all_connections) == 1 and gateway.connections
        # Every later session begins with this presence.
        shard._options.identity.identify_text(shard._reader.presence)

    send()
    assert recorder.errors == []


def test_any_argument_of_send_is_sent_or_refused(
    gateway: LocalGateway, watch_shard: WatchShard, endless_window: None
) -> None:
    """send() raises ValueError or TypeError, or sends what the gateway may then refuse."""
    shard, recorder = watch_shard(gateway)

    @examples(150)
    @given(data=JSON_TEXTS | HOSTILE | st.builds(written, pieces(st.just(3), PRESENCES)))
    def send(data: Any) -> None:
        shard.wait_until_ready(10)
        try:
            shard.send(data)
        except (ValueError, TypeError, NotReady):  # NotReady: the gateway has refused the last
            pass
        shard._options.identity.identify_text(shard._reader.presence)

    send()
    assert recorder.errors == []


def test_any_argument_of_heartbeat_in_is_obeyed_or_refused(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """The shard outlives a pace at which it takes its connections for dead."""
    shard, recorder = watch_shard(gateway)

    @examples(60)
    @given(milliseconds=ODD_NUMBERS | st.floats(0, 100) | HOSTILE)
    def set_pace(milliseconds: Any) -> None:
        shard.wait_until_ready(10)
        try:
            shard.heartbeat_in(milliseconds)
        except (ValueError, TypeError, NotReady):
            pass

    set_pace()
    shard.reconnect()
    shard.wait_until_ready(10)
    assert recorder.errors == []


def test_a_wait_on_a_closed_shard_raises_at_once_whatever_its_timeout(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """It raises ShardClosed, or ValueError or TypeError; only join() returns."""
    shard, _ = watch_shard(gateway)
    shard.disconnect()
    waits: list[tuple[Callable[..., Any], bool]] = [
        (lambda timeout: shard.wait_until_ready(timeout), True),
        (lambda timeout: shard.join(timeout), False),
        (lambda timeout: shard.wait_for("READY", None, timeout), True),
        (lambda timeout: shard.send('{"op":1}', timeout), True),
        (lambda timeout: shard.update_presence(timeout=timeout), True),
    ]

    @examples(400)
    @given(timeout=ODD_NUMBERS | st.floats() | HOSTILE, wait=st.sampled_from(waits))
    def wait_for(timeout: Any, wait: tuple[Callable[..., Any], bool]) -> None:
        function, raises = wait
        try:
            function(timeout)
        except ShardClosed:
            assert raises
        except (ValueError, TypeError):
            pass
        else:
            assert not raises

    wait_for()


CLASSES: dict[type, st.SearchStrategy[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    Session: st.tuples(
        st.tuples(*[HOSTILE | st.integers(0, 5) | TEXTS | st.none()] * 5), st.just({})
    ),
    Backoff: st.tuples(st.just(()), some(base=st.floats(0, 2), cap=st.floats(1, 100))),
    IdentifyGate: st.tuples(
        st.just(()), some(max_concurrency=NUMBERS, interval=NUMBERS, daily_limit=NUMBERS)
    ),
    Shard: st.tuples(
        st.tuples(st.just(TOKEN) | HOSTILE, st.integers(0) | HOSTILE),
        some(
            shard_id=st.integers(0, 3),
            shard_count=st.integers(1, 3),
            large_threshold=st.integers(50, 250),
            presence=PRESENCES,
            properties=st.dictionaries(TEXTS, JSON_VALUES, max_size=3),
            compression=st.sampled_from(COMPRESSIONS),
            session=st.none(),
            json=st.just(json),
            identify_gate=st.none(),
            backoff=st.none(),
            send_timeout=NUMBERS,
            close_timeout=NUMBERS,
            max_payload=NUMBERS,
            proxy=st.none() | st.just("") | TEXTS.map("http://".__add__),
            logger=st.none(),
            on_socket_ready=st.none(),
        ),
    ),
}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_any_arguments_of_a_class_make_a_working_object_or_are_refused(
    kind: type, path: Path
) -> None:
    """The class raises ValueError or TypeError, or the methods of its object work."""

    @examples(150)
    @given(arguments=CLASSES[kind])
    def make(arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        try:
            made = kind(*arguments[0], **arguments[1])
        except (ValueError, TypeError):
            return
        if isinstance(made, Session):
            made.save(path)
            try:
                assert Session.load(path) == made
            except ValueError as error:
                assert "URL" in str(error)  # a URL to which no token may be sent
        elif isinstance(made, Backoff):
            assert all(0 <= made.next_delay() <= made.cap for _ in range(5))
        elif isinstance(made, IdentifyGate):
            assert made.try_acquire(0) == 0.0
        else:
            assert isinstance(made, Shard)
            ready = '{"op":0,"t":"READY","s":1,"d":{"session_id":"abc"}}'
            made._handle_message(ready)
            fits = arguments[1].get("max_payload", len(ready)) >= len(ready)
            assert made.session_id == ("abc" if fits else None)
            assert TOKEN not in repr(made)

    make()


# Real sockets


class RawServer:
    """A server that answers a handshake with bytes that a test chooses, and then is silent."""

    def __init__(self) -> None:
        #: The answer to a handshake; None for one that a client accepts.
        self.answer: bytes | None = None
        #: Bytes sent in one piece with an answer that a client accepts.
        self.first = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        #: The server side of each connection that has received an answer that a client accepts.
        self.accepted: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self.url = "ws://127.0.0.1:%d/" % self._listener.getsockname()[1]

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        self._listener.close()
        while not self.accepted.empty():
            self.accepted.get().close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += client.recv(65536)
            if self.answer is None:
                client.sendall(accepting(request) + self.first)
                self.accepted.put(client)
            else:
                client.sendall(self.answer)
                client.close()


def accepting(request: bytes) -> bytes:
    """Make the answer that accepts a handshake (RFC 6455, section 4.2.2)."""
    key = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
    assert key is not None
    digest = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


def live_examples(count: int) -> settings:
    """Settings without shrinking: each smaller example may have to time out."""
    return settings(examples(count), phases=(Phase.explicit, Phase.reuse, Phase.generate))


# Of the same length as each answer that accepts a handshake.
ACCEPTING = accepting(b"Sec-WebSocket-Key: x")

LINES = st.lists(
    st.sampled_from(
        [
            b"HTTP/1.1 101 Switching Protocols",
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 302 Found",
            b"HTTP/1.1 600",
            b"HTTP/1.1 -1 x",
            b"HTTP/1.1",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: x",
            b"Sec-WebSocket-Protocol: x",
            b"Location: ws://127.0.0.1:9/",
            b"Set-Cookie: a=b; domain=c",
            b"Set-Cookie: \x00;;=",
            b"Content-Length: -1",
            b"Content-Length: 9999999999999999999999",
            b"Content-Length: x",
            b"\xff\xfe: \xff",
            b"no colon",
            b"",
        ]
    )
    | st.binary(max_size=20),
    max_size=8,
)
ANSWERS = st.binary(max_size=200) | LINES.map(b"\r\n".join) | LINES.map(b"\n".join)


def test_any_wrong_answer_to_the_handshake_raises_connection_failed() -> None:
    """Row 20: the error tells what happened, and no thread is left."""
    with RawServer() as server:
        shard = make_shard(intents=0, connect_timeout=5.0)

        @live_examples(150)
        @given(answer=ANSWERS, ended=st.booleans())
        def connect(answer: bytes, ended: bool) -> None:
            server.answer = answer + b"\r\n\r\n" * ended
            with pytest.raises(ConnectionFailed, match="WebSocket handshake"):
                shard.connect(server.url)
            assert shard.socket_thread is None
            assert shard.state is ShardState.DISCONNECTED

        connect()


def frame_of(payload: bytes, text: bool, cuts: list[int], control: bytes | None) -> bytes:
    """Make the frames of a message.

    :param cuts: where to cut it into fragments.
    :param control: the payload of the ping and pong after each fragment; None for none.
    """
    places = [0, *sorted(cut % (len(payload) + 1) for cut in cuts), len(payload)]
    parts = [payload[start:end] for start, end in itertools.pairwise(places)]
    stream = b""
    for number, part in enumerate(parts):
        first = FrameType.TEXT if text else FrameType.BINARY
        kind = FrameType.CONTINUATION if number else first
        stream += frame(kind, part, final=number == len(parts) - 1)
        if control is not None:
            stream += frame(FrameType.PING, control) + frame(FrameType.PONG, control)
    return stream


CUTS = st.lists(st.integers(0, 1 << 16), max_size=4)
CONTROLS = st.none() | st.binary(max_size=125)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_stream_cut_anywhere_gives_the_same_messages(compression: str | None) -> None:
    """Rows 32 and 33: with fragments, with control frames between them, in single pieces."""
    recorder = Recorder()
    with RawServer() as server:
        shard = make_shard(recorder, intents=0, compression=compression, should_reconnect=False)

        @live_examples(40)
        @given(
            data=st.lists(st.tuples(JSON_VALUES, st.booleans(), CUTS, CONTROLS), max_size=6),
            cuts=st.lists(st.integers(0, 1 << 16), max_size=8),
        )
        def receive(data: list[Any], cuts: list[int]) -> None:
            compress = compressor(compression)
            stream = b""
            sent = []
            for number, (value, text, fragments, control) in enumerate(data):
                message = {"op": 0, "t": "TYPING_START", "s": number, "d": value}
                sent.append(json.dumps(message))
                encoded = sent[-1].encode()
                encoded = encoded if text else compress(encoded)
                stream += frame_of(encoded, text, fragments, control)
            recorder.calls.clear()
            places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
            pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
            server.first = pieces.pop(0) if pieces else b""
            received = shard.stats.bytes_received + len(ACCEPTING) + len(server.first)
            shard.connect(server.url)
            client = server.accepted.get(timeout=10)
            for piece in pieces:
                wait_until(lambda: shard.stats.bytes_received == received)
                client.sendall(piece)
                received += len(piece)
            wait_until(lambda: len(recorder.events) == len(sent))
            assert list(map(json.dumps, recorder.events)) == sent
            client.close()
            with pytest.raises(ShardClosed):
                shard.join(10)
            assert recorder.errors == []
            recorder.check_order()

        receive()


PAYLOADS_HERE = payloads_with(URLS_HERE)
FRAMES = st.builds(
    frame,
    st.sampled_from([0, 1, 1, 1, 2, 2, 8, 9, 10, 3, 15]),
    st.binary(max_size=200)
    | st.builds(written, PAYLOADS_HERE).map(str.encode)
    | st.builds(written, PAYLOADS_HERE).map(str.encode).map(zlib.compress),
    final=st.sampled_from([True, True, True, False]),
    flags=st.sampled_from([0, 0, 0, 0x40, 0x10]),
    masked=st.sampled_from([False, False, False, True]),
)
STREAMS = st.binary(max_size=300) | st.lists(FRAMES, max_size=6).map(b"".join)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_any_bytes_in_one_piece_with_the_101_end_in_shard_closed(compression: str | None) -> None:
    """Rows 32 and 33: should_reconnect is False, so the lost connection closes the shard."""
    recorder = Recorder()
    with RawServer() as server:
        shard = make_shard(recorder, intents=0, compression=compression, should_reconnect=False)

        @live_examples(60)
        @given(stream=STREAMS)
        def receive(stream: bytes) -> None:
            server.first = stream
            shard.connect(server.url)
            server.accepted.get(timeout=10).close()
            with pytest.raises(ShardClosed):
                shard.join(10)
            assert shard.state is ShardState.CLOSED

        receive()
    for error in recorder.errors:
        assert isinstance(error, (UnreadableMessage, BrokenStream)), repr(error)


class Bot:
    """A shard that lives through many examples, and connects again if one has closed it."""

    def __init__(self, gateway: LocalGateway, compression: str | None) -> None:
        self.gateway = gateway
        self.last_heard = -1
        self.errors: list[Exception] = []
        self.shard = make_shard(
            compression=compression,
            on_socket_error=lambda _, error: self.errors.append(error),
            identify_gate=IdentifyGate(interval=0.001, slack=0, daily_limit=1 << 30),
            backoff=Backoff(base=0.001, cap=0.002),
        )
        self.shard.on("MESSAGE_CREATE")(self._hear)
        self._number = 0

    def _hear(self, _: Shard, number: int) -> None:
        self.last_heard = number

    def connection(self) -> GatewayConnection:
        """Wait until the shard is READY; return the gateway's side of its connection."""
        if self.shard.state is ShardState.CLOSED:
            self.shard.connect(self.gateway.url)
        self.shard.wait_until_ready(10)
        return self.gateway.all_connections[-1]

    def check_life(self) -> None:
        """Wait until an event arrives, on whichever connection; check all errors until then."""
        first = self._number
        wait_until(lambda: self._hears(first), what="an event")
        for error in self.errors:
            assert isinstance(error, (UnreadableMessage, BrokenStream)), repr(error)
        self.errors.clear()

    def _hears(self, first: int) -> bool:
        # Another one each time: an event dispatched while there is no session is lost.
        self.gateway.dispatch("MESSAGE_CREATE", self._number)
        self._number += 1
        return self.last_heard >= first


@pytest.fixture
def make_bot(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str | None], Bot]]:
    monkeypatch.setattr("shardlib.reconnect.INVALID_SESSION_DELAY", (0.0, 0.001))
    bots: list[Bot] = []

    def make(compression: str | None) -> Bot:
        bots.append(Bot(make_gateway(), compression))
        bots[-1].shard.connect(bots[-1].gateway.url)
        return bots[-1]

    yield make
    for bot in bots:
        bot.shard.disconnect()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_any_bytes_on_a_connection_leave_the_next_one_working(
    compression: str | None, make_bot: Callable[[str | None], Bot], path: Path
) -> None:
    """Rows 32 and 33: a connection receives any frames, in two pieces, and ends."""
    bot = make_bot(compression)

    @live_examples(25)
    @given(stream=STREAMS, cut=st.integers(0, 300), reset=st.booleans())
    def receive(stream: bytes, cut: int, reset: bool) -> None:
        connection = bot.connection()
        with contextlib.suppress(ConnectionError):  # the first piece has ended the connection
            connection.send_bytes(stream[:cut])
            connection.send_bytes(stream[cut:])
        if reset:
            connection.reset()
        else:
            connection.drop()
        connection.wait_closed()
        bot.check_life()
        check_properties(bot.shard, path)

    receive()


@pytest.mark.parametrize("compression", [None, "zlib-stream"])
def test_any_payloads_in_any_order_leave_the_shard_alive(
    compression: str | None, make_bot: Callable[[str | None], Bot], path: Path
) -> None:
    """Rows 22, 24 and 43: the shard stays connected, or connects again, and events arrive."""
    bot = make_bot(compression)

    @live_examples(40)
    @given(payloads=st.lists(PAYLOADS_HERE, max_size=6))
    def receive(payloads: list[Any]) -> None:
        connection = bot.connection()
        with contextlib.suppress(ConnectionError):  # an earlier payload has ended the connection
            for payload in payloads:
                connection.send_compressed(written(payload))
        bot.check_life()
        check_properties(bot.shard, path)

    receive()


CLOSE_CODES = st.sampled_from([4007, 4009, *FATAL]) | st.integers(0, 65535)
CLOSES = st.binary(max_size=2) | st.builds(
    lambda code, reason: code.to_bytes(2, "big") + reason,
    CLOSE_CODES,
    TEXTS.map(in_utf8) | st.binary(max_size=130) | st.sampled_from([bytes(123), bytes(124)]),
)


def test_any_close_frame_is_followed_as_its_code_says(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Rows 11 and 13: the documented error, or RESUMED, or READY if the code ends the session."""
    shard, recorder = watch_shard(
        gateway,
        identify_gate=IdentifyGate(interval=0.001, slack=0, daily_limit=1 << 30),
        backoff=Backoff(base=0.001, cap=0.002),
    )
    numbers: list[int] = []  # the recorder would search through ever more calls
    shard.on("TYPING_START", lambda shard, data: numbers.append(data["n"]))

    @live_examples(150)
    @given(payload=CLOSES)
    def close(payload: bytes) -> None:
        if shard.state is ShardState.CLOSED:
            shard.connect(gateway.url)
        shard.wait_until_ready(10)
        # An event in between: a stream broken twice at one sequence costs the session.
        number = len(numbers)
        dispatch_numbers(gateway, [number])
        wait_until(lambda: len(numbers) > number)
        before = len(recorder.calls)

        gateway.all_connections[-1].send_bytes(frame(FrameType.CLOSE, payload))
        allowed = len(payload) != 1 and len(payload) <= 125
        code = int.from_bytes(payload[:2], "big") if payload and allowed else None
        if code in FATAL:
            with pytest.raises(ShardClosed) as caught:
                shard.join(10)
            assert type(caught.value) is FATAL[code]
            assert caught.value.code == code
            assert str(caught.value)
            end: list[tuple[Any, ...]] = [("closed", caught.value)]
        else:
            resumed = code not in (4007, 4009)
            end = [("connected",), *[("ready",)] * (not resumed), ("reconnected", resumed)]
            wait_until(lambda: len(recorder.life_since(before)) >= 1 + len(end))
        assert recorder.life_since(before) == [("disconnected", code, False), *end]
        errors = [type(error) for _, error in recorder.of("error", since=before)]
        assert errors == [BrokenStream] * (not allowed)

    close()
