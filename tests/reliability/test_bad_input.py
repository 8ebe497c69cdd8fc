"""Hostile peers, faulty code of the user and short memory cost a connection at most."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from shardlib import Backoff, Opcode, Shard, ShardClosed, ShardState
from shardlib.frames import FrameType
from shardlib.testing import LocalGateway
from tests.peers import Peer, well_behaved
from tests.reliability.conftest import MakeScripted, WatchShard
from tests.reliability.support import Child, closing_with
from tests.support import AT_ONCE, NEVER, TOKEN, wait_until

# Memory

MEMORY = Path("/proc/self/statm")
LARGE = 48 << 20  # bytes of an event
ROOM = 60 << 20  # bytes that the process may still take: for the event, not for its copies


@pytest.mark.slow
@pytest.mark.skipif(not MEMORY.exists(), reason="the system does not tell a process its size")
@pytest.mark.parametrize("how_long", ["for a moment", "for good"])
def test_events_keep_coming_after_one_for_which_memory_was_short(
    how_long: str, make_scripted: MakeScripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 74: Resume brings the event again; if memory is short even then, later events come."""
    # Python without a GIL reserves address space by the gigabyte, and would place the event there,
    # beneath any limit.
    monkeypatch.setenv("MIMALLOC_ARENA_RESERVE", "0")

    def script(peer: Peer) -> None:
        replay = peer.greet()["op"] == Opcode.RESUME
        if not replay:
            peer.ready()
        if peer.number == 1:
            peer.expect(Opcode.PRESENCE_UPDATE)  # memory is short from now on
        if replay or peer.number == 1:
            peer.dispatch("LARGE", "x" * LARGE, 2)
        peer.dispatch("AFTER", None, 3)
        if replay:
            peer.resumed(3)
        peer.serve()

    code = """
    import pathlib, resource
    how_long, large, room = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    limits = resource.getrlimit(resource.RLIMIT_AS)

    def on_error(shard, error):
        if how_long == "for a moment":
            resource.setrlimit(resource.RLIMIT_AS, limits)
        tell("told")

    shard = make(
        on_socket_error=on_error,
        on_socket_connected=lambda *_: tell("connected"),
        on_socket_disconnected=lambda *_: tell("disconnected"),
    )
    shard.on("LARGE")(lambda shard, data: tell("LARGE", len(data)))
    shard.on("AFTER")(lambda shard, data: tell("AFTER"))
    shard.connect(sys.argv[1])
    shard.wait_until_ready(10)
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + room, limits[1]))
    shard.update_presence()
    shard.wait_for("AFTER", timeout=20)
    shard.disconnect()
    """
    arguments = (make_scripted(script).url, how_long, str(LARGE), str(ROOM))
    with Child(code, *arguments) as child:
        child.expect("AFTER")
        assert child.wait() == 0

    assert "told" in child.lines
    if how_long == "for a moment":
        assert child.lines.count(f"LARGE {LARGE}") == 1
    assert child.lines.count("disconnected") == child.lines.count("connected")


def test_stats_keep_at_most_a_thousand_unknown_event_names(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 76: the names that are kept are short; all others are counted together."""

    def script(peer: Peer) -> None:
        peer.begin()
        peer.dispatch("X" * 101)
        for number in range(1500):
            peer.dispatch(f"MADE_UP_{number}")
        peer.dispatch("MADE_UP_7")
        peer.dispatch("TYPING_START")
        peer.serve()

    shard, _ = watch_shard(make_scripted(script))
    wait_until(lambda: shard.stats.events["TYPING_START"])

    events = shard.stats.events
    assert sum(events.values()) == 1 + 1 + 1500 + 1 + 1
    assert sum(name.startswith("MADE_UP_") for name in events) == 1000
    assert events["MADE_UP_7"] == 2
    assert events["(other)"] == 501
    assert max(map(len, events)) <= 100


# Dicts that the user changes


def test_a_callback_that_changes_a_payload_does_not_change_the_session(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 77: a callback may mask the session id for a log file, and Resume still needs it."""

    def spoil(shard: Shard, payload: dict[str, Any]) -> None:
        data = payload.get("d")
        if isinstance(data, dict):
            data.clear()
        payload.update(op=99, s=1000, t="SPOILT")

    gateway = make_scripted()
    shard, recorder = watch_shard(gateway, on_socket_raw_message=spoil)
    gateway.peers[0].dispatch("TYPING_START")
    wait_until(lambda: shard.stats.events["TYPING_START"])

    assert shard.session_id == "session-1"
    assert shard.last_sequence == 2
    assert shard.heartbeat_interval == 41_250
    gateway.peers[0].reset()
    wait_until(lambda: recorder.count("reconnected", True) == 1)
    opening = gateway.peers[1].opening
    assert opening is not None
    assert opening["d"] == {"token": shard.token, "session_id": "session-1", "seq": 2}


@pytest.mark.parametrize("what", ["presence", "properties"])
def test_changing_a_dict_after_the_constructor_took_it_changes_no_identify(
    what: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 78: the shard keeps a copy, and each Identify equals the first."""
    presence = {"status": "idle", "activities": [{"name": "a", "type": 0}], "afk": False}
    presence["since"] = None
    properties = {"os": "linux", "browser": "mine", "device": "mine"}
    gateway = make_scripted()
    shard, recorder = watch_shard(gateway, presence=presence, properties=properties)

    if what == "presence":
        presence["activities"][0]["name"] = object()  # type: ignore[index]
        presence["changed at"] = object()
    else:
        properties["browser"] = object()  # type: ignore[assignment]
    shard.reinstantiate()

    wait_until(lambda: recorder.count("ready") == 2, 15)
    first, second = (peer.opening for peer in gateway.peers)
    assert first == second
    assert recorder.errors == []


# Texts of peers in logs and errors

EVIL = "\x1b[31m\x1b]0;title\x07\r\nERROR forged\x85\u2028\x00\x7f\u202egnp.exe"


def repeat_everywhere(peer: Peer, text: str) -> None:
    """Put a text into the session id, a URL, the name of an event and a message."""
    peer.greet()
    peer.ready(session_id=text, resume_gateway_url=f"http://{text}/")
    peer.dispatch(text)
    peer.send_text(f"no JSON: {text}")


def test_text_from_a_peer_cannot_forge_a_line_of_the_log(
    make_scripted: MakeScripted, watch_shard: WatchShard, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 79: no line break, and no control character that moves the cursor of a terminal."""

    def script(peer: Peer) -> None:
        if peer.number == 2:
            peer.refuse("503 \x1b[31m")
            return
        repeat_everywhere(peer, EVIL)
        if peer.number == 3:
            peer.send({"op": Opcode.HELLO, "d": {"heartbeat_interval": EVIL}})
        peer.close(4000 if peer.number < 4 else 4013, EVIL)
        peer.linger()

    shard, recorder = watch_shard(make_scripted(script), ready=False)

    with pytest.raises(ShardClosed) as caught:
        shard.join(20)
    wait_until(lambda: recorder.count("closed"))

    texts = [record.getMessage() for record in caplog.records if record.name.startswith("shardlib")]
    texts += [str(error) for error in (caught.value, *recorder.errors)]
    assert len(texts) > 5
    assert [text for text in texts if not text.isprintable()] == []
    assert "forged" in str(caught.value)


def test_a_token_that_the_peer_repeats_is_hidden_in_the_log_and_in_errors(
    make_scripted: MakeScripted, watch_shard: WatchShard, caplog: pytest.LogCaptureFixture
) -> None:
    """The fixtures of tests/conftest.py, too, look for the token in all records and errors."""

    def script(peer: Peer) -> None:
        repeat_everywhere(peer, TOKEN)
        peer.close(4000 if peer.number < 3 else 4013, TOKEN)
        peer.linger()

    caplog.set_level(1)
    shard, recorder = watch_shard(make_scripted(script), ready=False)

    with pytest.raises(ShardClosed) as caught:
        shard.join(20)
    wait_until(lambda: recorder.count("closed"))

    told = [record.getMessage() for record in caplog.records if record.name.startswith("shardlib")]
    told += [str(caught.value), *map(str, recorder.errors)]
    assert [text for text in told if TOKEN in text] == []
    assert [text for text in told if "***" in text and "Gateway" in text]  # the close reason


def test_the_wire_log_hides_the_tokens_of_interactions_and_voice_connections(
    make_scripted: MakeScripted, watch_shard: WatchShard, caplog: pytest.LogCaptureFixture
) -> None:
    """Who reads a log that was posted could answer in the bot's name for a quarter of an hour."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.ready()
        peer.dispatch("INTERACTION_CREATE", {"id": "1", "token": "aW50ZXJhY3Rpb24"}, 2)
        peer.serve()

    caplog.set_level(logging.DEBUG)
    shard, recorder = watch_shard(make_scripted(script))
    wait_until(lambda: "INTERACTION_CREATE" in caplog.text)
    shard.disconnect()

    assert "aW50ZXJhY3Rpb24" not in caplog.text
    assert '"token":"***"' in caplog.text.replace(": ", ":")


def test_an_error_of_an_identify_gate_has_no_token_in_the_frames_of_its_traceback(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Collectors of errors send the local variables of all frames to a server."""

    class Failing:
        def try_acquire(self, shard_id: int) -> float:
            raise RuntimeError("the gate failed")

    gateway = make_scripted(lambda peer: peer.greet())
    _, recorder = watch_shard(gateway, ready=False, identify_gate=Failing())
    wait_until(lambda: recorder.errors)

    error = traceback.TracebackException.from_exception(recorder.errors[0], capture_locals=True)
    shown = "".join(error.format())
    assert "the gate failed" in shown
    assert TOKEN not in shown


def test_text_from_a_peer_cannot_forge_a_line_of_a_timeout_error(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Rows 58 and 79: the error quotes the reason of the last close, which the peer wrote."""
    gateway = make_scripted(closing_with(4008, EVIL))
    shard, _ = watch_shard(gateway, ready=False)
    gateway.peer(3)

    with pytest.raises(TimeoutError) as caught:
        shard.wait_until_ready(0.3)

    assert "forged" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_session_id_with_a_lone_surrogate_is_resumed_unchanged(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """A lone surrogate has no UTF-8; a UnicodeEncodeError would show the token of the Resume."""
    session_id = "a\ud800b"

    def script(peer: Peer) -> None:
        if peer.greet()["op"] == Opcode.IDENTIFY:
            peer.ready(session_id)
        else:
            peer.resumed(1)
        peer.serve()

    gateway = make_scripted(script)
    shard, recorder = watch_shard(gateway)

    gateway.peers[0].reset()

    wait_until(lambda: recorder.count("reconnected", True) == 1)
    opening = gateway.peers[1].opening
    assert opening is not None
    assert opening["d"]["session_id"] == session_id
    assert opening["d"]["token"] == TOKEN
    assert recorder.errors == []
    assert TOKEN not in repr((shard, shard.session))


# Code of the user


class Unspeakable(Exception):
    """An exception whose str() and repr() raise."""

    def __str__(self) -> str:
        raise Unspeakable

    __repr__ = __str__


class Failing(Backoff):
    """An identify gate and a back-off that raise until the test sets `mended`."""

    mended = False

    def next_delay(self) -> float:
        if not self.mended:
            raise Unspeakable
        return super().next_delay()

    def try_acquire(self, shard_id: int) -> float:
        if not self.mended:
            raise Unspeakable
        return 0.0


@pytest.mark.parametrize("end", ["mended", "disconnect()"])
@pytest.mark.parametrize("option", ["identify_gate", "backoff"])
def test_an_unprintable_exception_of_a_gate_or_backoff_neither_ends_nor_spins_the_reader(
    option: str, end: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """on_socket_error is called for each; disconnect() returns in time meanwhile."""
    failing = Failing(base=0.5, cap=1.0)

    def script(peer: Peer) -> None:
        if option == "identify_gate" or failing.mended:
            well_behaved(peer)

    gateway = make_scripted(script)
    options: dict[str, Any] = {"backoff": Backoff(base=0.5, cap=1.0), option: failing}
    if option == "backoff":
        failing.mended = True  # connect() would raise the error of its first attempt
    shard, recorder = watch_shard(gateway, ready=False, close_timeout=NEVER, **options)
    if option == "backoff":
        shard.wait_until_ready(10)
        failing.mended = False
        gateway.peers[0].reset()

    def told() -> int:
        return sum(isinstance(error, Unspeakable) for error in recorder.errors)

    wait_until(lambda: told() >= 2, 15, "two errors")
    gc.collect()  # so that no collection of what other tests have left takes that time
    before = time.process_time()
    time.sleep(1.0)  # the time during which a reader that spins would use a core
    assert time.process_time() - before < 0.4

    if end == "mended":
        failing.mended = True
        shard.wait_until_ready(10)
    else:
        began = time.monotonic()
        shard.disconnect()
        assert time.monotonic() - began < AT_ONCE
        assert shard.state is ShardState.CLOSED
        assert shard.socket_thread is None


class ExitingJSON:
    """A JSON module that raises SystemExit at READY, as ``sys.exit()`` in a callback would."""

    dumps = staticmethod(json.dumps)

    @staticmethod
    def loads(text: str | bytes) -> Any:
        value = json.loads(text)
        if value.get("t") == "READY":
            raise SystemExit(2)
        return value


class ExitingBackoff(Backoff):
    """A back-off that raises SystemExit when the shard asks it, an attempt having failed."""

    def next_delay(self) -> float:
        raise SystemExit(2)


@pytest.mark.parametrize(
    "option, make", [("json", ExitingJSON), ("backoff", ExitingBackoff)], ids=["json", "backoff"]
)
def test_system_exit_in_json_or_backoff_ends_the_shard_with_its_callbacks_in_order(
    option: str, make: type[Any], make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Each on_socket_connected has its on_socket_disconnected, and join() raises SystemExit."""
    # The gateway ends the connection: after READY, or before it, which is a failure.
    gateway = make_scripted(Peer.begin if option == "json" else Peer.accept)
    shard, recorder = watch_shard(gateway, ready=False, **{option: make()})

    with pytest.raises(SystemExit):
        shard.join(10)

    names = [call[0] for call in recorder.life if call[0] != "ready"]
    assert names == ["connected", "disconnected", "closed"]
    assert isinstance(recorder.life[-1][1], SystemExit)


# Identify gates


@pytest.mark.parametrize(
    "answer, error",
    [
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (-1.0, ValueError),
        (None, TypeError),
        ("1", TypeError),
    ],
)
def test_a_meaningless_answer_of_an_identify_gate_is_reported_and_sends_no_identify(
    answer: Any, error: type[Exception], make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 81: the shard connects again, and asks the gate again before its Identify."""

    class Gate:
        asked = 0

        def try_acquire(self, shard_id: int) -> Any:
            self.asked += 1
            return answer if self.asked == 1 else 0.0

    gateway = make_scripted()
    shard, recorder = watch_shard(gateway, ready=False, identify_gate=Gate())

    wait_until(lambda: shard.state is ShardState.READY, 15, "READY")
    assert [type(each) for each in recorder.errors] == [error]
    assert [peer.opening is not None for peer in gateway.peers] == [False, True]


def test_an_identify_gate_is_asked_at_most_once_in_ten_milliseconds(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 81: a gate that names tiny waits would otherwise keep a core busy."""
    times: list[float] = []
    asked_often = threading.Event()

    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            times.append(time.monotonic())
            if len(times) <= 20:
                return 1e-9
            asked_often.set()
            return 0.0

    watch_shard(make_scripted(well_behaved), ready=False, identify_gate=Gate())

    assert asked_often.wait(10)
    assert times[20] - times[0] >= 20 * 0.01 * 0.9


def test_pings_from_a_peer_that_reads_nothing_do_not_extend_hello_timeout(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """The shard waits to send each pong: thousands of pings would be thousands of waits."""

    def script(peer: Peer) -> None:
        peer.accept()
        if peer.number > 1:
            peer.serve()
            return
        ping = (b"x" * 125, FrameType.PING)
        with contextlib.suppress(ConnectionError):
            while True:
                peer.send_together(*[ping] * 1000)

    gateway = make_scripted(script)
    watch_shard(gateway, ready=False, hello_timeout=0.5)
    gateway.peer(2, timeout=10.0)


def test_unreadable_messages_do_not_fill_the_log(
    gateway: LocalGateway, watch_shard: WatchShard, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 90: on_socket_error is called for each, the log has three records."""
    caplog.set_level(logging.WARNING)
    _, recorder = watch_shard(gateway)
    for _ in range(1000):
        gateway.connections[-1].send_compressed("{}")
    wait_until(lambda: len(recorder.errors) == 1000)
    assert len([record for record in caplog.records if "opcode" in record.getMessage()]) == 3


def test_a_token_in_a_status_line_is_hidden_in_errors(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    def script(peer: Peer) -> None:
        if peer.number > 1:
            peer.refuse(f"{TOKEN} no")
        else:
            peer.begin()
            peer.close(4000)
            peer.linger()

    shard, _ = watch_shard(make_scripted(script), ready=False, should_reconnect=True)
    wait_until(lambda: shard.stats.connections == 1 and shard.state is ShardState.WAITING)
    with pytest.raises(TimeoutError) as caught:
        shard.wait_until_ready(0.3)
    error: BaseException | None = caught.value
    while error is not None:
        assert TOKEN not in str(error)
        error = error.__cause__ or error.__context__


def test_shortening_a_text_from_a_peer_leaves_no_half_of_the_token(
    make_scripted: MakeScripted, watch_shard: WatchShard, caplog: pytest.LogCaptureFixture
) -> None:
    """The shard hides the token before it shortens the text for the log."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.ready(session_id="x" * 90 + TOKEN)
        peer.serve()

    caplog.set_level(logging.INFO)
    watch_shard(make_scripted(script))
    assert TOKEN[:5] not in caplog.text
