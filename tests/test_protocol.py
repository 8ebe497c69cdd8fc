"""What the Gateway's messages do to a shard, without a socket: through _handle_message."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import pytest

from shardlib import BrokenStream, Shard, ShardState, UnreadableMessage
from tests.shards import Recorder, make_shard

READY = {
    "op": 0,
    "t": "READY",
    "s": 1,
    "d": {"session_id": "abc", "resume_gateway_url": "wss://resume.discord.gg", "guilds": []},
}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def shard(recorder: Recorder) -> Shard:
    return make_shard(recorder, compression=None)


def give(shard: Shard, *payloads: Any) -> None:
    for payload in payloads:
        shard._handle_message(payload if isinstance(payload, str) else json.dumps(payload))


def dispatch(sequence: int | None, event: str = "TYPING_START", data: Any = None) -> dict[str, Any]:
    return {"op": 0, "t": event, "s": sequence, "d": data}


def test_hello_gives_the_heartbeat_interval_and_starts_no_thread(shard: Shard) -> None:
    give(shard, {"op": 10, "d": {"heartbeat_interval": 41250}})
    assert shard.heartbeat_interval == 41250
    assert shard.heartbeat_thread is None
    assert shard.socket_thread is None


@pytest.mark.parametrize(
    "data", [None, {}, *({"heartbeat_interval": odd} for odd in (0, "1", 10**400, math.inf))]
)
def test_a_hello_without_a_usable_interval_is_no_hello(shard: Shard, data: Any) -> None:
    give(shard, {"op": 10, "d": data})
    assert shard.heartbeat_interval is None
    assert shard._control.connection.given_up is not None


@pytest.mark.parametrize("interval", [5e-324, 1e308])
def test_any_other_interval_is_taken(shard: Shard, recorder: Recorder, interval: float) -> None:
    give(shard, {"op": 10, "d": {"heartbeat_interval": interval}})
    assert shard.heartbeat_interval == interval
    assert not recorder.of("error")


def test_a_second_hello_changes_the_pace_alone(shard: Shard) -> None:
    give(shard, {"op": 10, "d": {"heartbeat_interval": 41250}})
    heartbeat = shard._control.connection.heartbeat
    give(shard, {"op": 10, "d": {"heartbeat_interval": 10_000}})
    assert shard._control.connection.heartbeat is heartbeat
    assert heartbeat._period == 10
    assert shard.heartbeat_interval == 10_000


def test_ready_begins_a_session(shard: Shard, recorder: Recorder) -> None:
    give(shard, READY)
    assert shard.session_id == "abc"
    assert shard.session_gateway == "wss://resume.discord.gg"
    assert shard.last_sequence == 1
    assert [call[0] for call in recorder.calls] == ["raw_message", "ready", "dispatch"]


def test_without_a_reader_no_state_pretends_to_a_connection(shard: Shard) -> None:
    give(shard, {"op": 10, "d": {"heartbeat_interval": 41250}}, READY)
    assert shard.state is ShardState.DISCONNECTED
    assert not shard.socket_active and not shard.socket_identified


def test_a_second_ready_replaces_the_sequence_however_low(shard: Shard) -> None:
    give(shard, READY, dispatch(5000), {**READY, "s": 1})
    assert shard.last_sequence == 1


def test_ready_may_have_sequence_0_and_a_number_for_a_session_id(shard: Shard) -> None:
    give(shard, {"op": 0, "t": "READY", "s": 0, "d": {"session_id": 42}})
    assert (shard.session_id, shard.last_sequence, shard.session_gateway) == ("42", 0, None)


@pytest.mark.parametrize("url", ["http://example.org", "ws://resume.discord.gg", 7, ""])
def test_a_resume_url_that_the_token_may_not_be_sent_to_is_not_used(shard: Shard, url: Any) -> None:
    give(shard, {**READY, "d": {"session_id": "abc", "resume_gateway_url": url}})
    assert shard.session_id == "abc"
    assert shard.session_gateway is None


def test_the_scheme_of_a_resume_url_may_be_in_capitals(shard: Shard) -> None:
    url = "WSS://resume.discord.gg"
    give(shard, {**READY, "d": {"session_id": "abc", "resume_gateway_url": url}})
    assert shard.session_gateway == url


def test_sequences_grow_and_null_ones_change_nothing(shard: Shard) -> None:
    give(shard, READY, dispatch(2), dispatch(None), {"op": 0, "t": "X", "d": None}, dispatch(2))
    assert shard.last_sequence == 2
    give(shard, dispatch(7), dispatch(3, "RESUMED"))
    assert shard.last_sequence == 7


@pytest.mark.parametrize("sequence", [-1, 1 << 63, 1 << 64, True, 2.0, "2"])
def test_a_sequence_that_no_resume_could_hold_is_as_good_as_none(
    shard: Shard, sequence: Any
) -> None:
    give(shard, READY, dispatch(sequence))
    assert shard.last_sequence == 1
    give(shard, {**READY, "s": sequence})
    assert shard.last_sequence is None
    assert shard.session is not None and shard.session.sequence is None


def test_every_dispatch_reaches_the_callbacks_in_order(shard: Shard, recorder: Recorder) -> None:
    heard: list[Any] = []
    shard.on("typing_start")(lambda _, data: heard.append(data))
    give(shard, READY, *(dispatch(2 + number, data=number) for number in range(100)))
    assert heard == list(range(100))
    assert [call[1]["s"] for call in recorder.of("dispatch")] == list(range(1, 102))


def test_the_raw_callback_comes_before_the_payload_is_acted_on() -> None:
    seen: list[Any] = []
    shard = make_shard(
        compression=None, on_socket_raw_message=lambda shard, _: seen.append(shard.session_id)
    )
    give(shard, READY, dispatch(2))
    assert seen == [None, "abc"]


def test_an_event_nobody_listens_to_is_counted_but_not_decoded() -> None:
    class Json:
        decoded: list[Any] = []
        dumps = staticmethod(json.dumps)

        @classmethod
        def loads(cls, text: Any) -> Any:
            cls.decoded.append(text)
            return json.loads(text)

    shard = make_shard(compression=None, json=Json)
    heard: list[Any] = []
    shard.on("MESSAGE_CREATE")(lambda _, data: heard.append(data))
    ready = '{"t":"READY","s":1,"op":0,"d":{"session_id":"abc"}}'
    message = '{"t":"MESSAGE_CREATE","s":3,"op":0,"d":{"id":"9"}}'
    another_order = '{"op":0,"t":"TYPING_START","s":5,"d":{}}'  # so nothing is known in advance
    give(shard, ready, '{"t":"TYPING_START","s":2,"op":0,"d":{}}', message)
    give(shard, '{"t":"TYPING_START","s":4,"op":0,"d":{}}', another_order)
    assert heard == [{"id": "9"}]
    assert Json.decoded == [ready, message, another_order]
    assert shard.last_sequence == 5
    assert shard.stats.events == {"READY": 1, "TYPING_START": 3, "MESSAGE_CREATE": 1}


def test_off_ends_listening_and_says_where_there_is_nothing_to_end(shard: Shard) -> None:
    heard: list[Any] = []

    @shard.on("TYPING_START")
    def listen(_: Shard, data: Any) -> None:
        heard.append(data)

    give(shard, dispatch(1, data=1))
    shard.off("TYPING_START", listen)
    give(shard, dispatch(2, data=2))
    assert heard == [1]
    with pytest.raises(ValueError, match="does not listen"):
        shard.off("TYPING_START", listen)


def test_invalid_session_false_forgets_the_session_and_true_keeps_it(shard: Shard) -> None:
    give(shard, READY, dispatch(5), {"op": 9, "d": True})
    assert (shard.session_id, shard.last_sequence) == ("abc", 5)
    give(shard, {"op": 9, "d": False, "s": 3})
    assert (shard.session_id, shard.last_sequence, shard.session_gateway) == (None, None, None)
    assert shard.session is None


@pytest.mark.parametrize("payload", [{"op": 9}, {"op": 9, "d": None}])
def test_invalid_session_without_data_is_as_good_as_false(shard: Shard, payload: Any) -> None:
    give(shard, READY, payload)
    assert shard.session_id is None


def test_reconnect_keeps_the_session(shard: Shard) -> None:
    give(shard, READY, {"op": 7}, {"op": 7, "d": None, "s": 99, "t": None})
    assert (shard.session_id, shard.last_sequence) == ("abc", 1)


def test_an_acknowledgement_nobody_waits_for_is_no_heartbeat(
    shard: Shard, recorder: Recorder
) -> None:
    give(shard, {"op": 11}, {"op": 10, "d": {"heartbeat_interval": 1000}}, {"op": 11})
    assert shard.heartbeat_ping is None
    assert shard.heartbeat_acknowledged
    assert not recorder.of("heartbeat")


@pytest.mark.parametrize(
    "message",
    ["", "{", "[]", "null", '"op"', "{}", '{"op":"0"}', '{"op":true}', '{"op":0', "\x00", "NaN"],
)
def test_a_message_that_cannot_be_read_is_skipped_and_told(
    shard: Shard, recorder: Recorder, message: str
) -> None:
    give(shard, READY, message, dispatch(2))
    (error,) = [call[1] for call in recorder.of("error")]
    assert isinstance(error, UnreadableMessage)
    assert error.text == message
    assert shard.last_sequence == 2


@pytest.mark.parametrize(
    "payload",
    [
        '{"op":0,"t":"X","s":2,"d":{"x":18446744073709552000}}',
        '{"op":0,"t":"X","s":2,"d":"\\ud800"}',
        '{"op":0,"t":"X","s":2,"d":' + "[" * 500 + "]" * 500 + "}",
        '{"op":0,"t":"A_NEW_THING","s":2,"d":null}',
        '{"op":0,"t":null,"s":2,"d":null}',
        '{"op":0,"t":["READY"],"s":2,"d":null}',
        '{"op":0,"s":2}',
    ],
)
def test_odd_payloads_are_taken_in_stride(shard: Shard, recorder: Recorder, payload: str) -> None:
    give(shard, READY, payload, {"op": 99}, {"op": 99, "d": {}}, dispatch(3))
    assert not recorder.of("error")
    assert len(recorder.of("dispatch")) == 3
    assert shard.last_sequence == 3


def test_the_sequence_is_the_gateways_and_no_count_of_ours(shard: Shard) -> None:
    """Row 22: it may jump; null is none; READY begins anew, below what the old session had."""
    give(shard, READY, dispatch(5000), dispatch(None), {"op": 11})
    assert shard.last_sequence == 5000
    give(shard, {"op": 9, "d": False})
    assert shard.last_sequence is None
    assert shard.session is None and shard.session_gateway is None
    give(shard, READY, dispatch(3))
    assert shard.last_sequence == 3


@pytest.mark.parametrize(
    "data",
    [None, [], "READY", 7, *({"session_id": odd} for odd in (None, "", True, 0.5, [], ["abc"]))],
)
def test_a_ready_of_another_shape_begins_nothing_that_could_be_resumed(
    shard: Shard, recorder: Recorder, data: Any
) -> None:
    give(shard, {"op": 0, "t": "READY", "s": 1, "d": data})
    assert shard.session is None
    assert recorder.of("ready")
    assert not recorder.of("error")


def test_a_callback_that_raises_is_told_of_and_the_next_is_called(caplog: Any) -> None:
    errors: list[Exception] = []
    heard: list[Any] = []
    shard = make_shard(compression=None, on_socket_error=lambda _, error: errors.append(error))

    @shard.on("TYPING_START")
    def fail(_: Shard, data: Any) -> None:
        raise LookupError(f"number {data}")

    shard.on("TYPING_START")(lambda _, data: heard.append(data))
    give(shard, READY, dispatch(2, data=1), dispatch(3, data=2))
    assert [str(error) for error in errors] == ["number 1", "number 2"]
    assert heard == [1, 2]
    records = [record for record in caplog.records if record.exc_info]
    assert len(records) == 2 and "fail" in records[0].getMessage()


def test_an_error_callback_that_raises_is_not_told_of_itself() -> None:
    calls: list[Exception] = []

    def fail(_: Shard, error: Exception) -> None:
        calls.append(error)
        raise RuntimeError("worse")

    shard = make_shard(compression=None, on_socket_error=fail)
    give(shard, "{", READY)
    assert len(calls) == 1
    assert shard.session_id == "abc"


def test_the_session_counts_only_events_whose_callbacks_have_returned() -> None:
    seen: list[Any] = []

    def look(shard: Shard, payload: Any) -> None:
        assert shard.session is not None
        seen.append((payload["s"], shard.last_sequence, shard.session.sequence))

    shard = make_shard(compression=None, on_socket_dispatch=look)
    give(shard, READY, dispatch(2), dispatch(3))
    assert seen == [(1, 1, 1), (2, 2, 1), (3, 3, 2)]
    assert shard.session is not None and shard.session.sequence == 3


def test_a_broken_stream_is_told_and_broken_again_there_costs_the_session(
    recorder: Recorder,
) -> None:
    shard = make_shard(recorder, compression="zlib-stream")
    stream = zlib.compressobj()
    ready = stream.compress(json.dumps(READY).encode()) + stream.flush(zlib.Z_SYNC_FLUSH)
    shard._handle_message(ready)
    shard._handle_message(b"no deflate block\x00\x00\xff\xff")
    assert isinstance(recorder.of("error")[0][1], BrokenStream)
    assert shard.session_id == "abc"
    shard._handle_message(b"no deflate block\x00\x00\xff\xff")
    assert shard.session_id is None


def test_a_payload_that_cannot_be_acted_on_is_told(recorder: Recorder) -> None:
    """Here it is the user's JSON module that fails; nothing else is known to."""

    class Module:
        loads = staticmethod(json.loads)

        @staticmethod
        def dumps(value: Any) -> str:
            if value["op"] == 1:
                raise LookupError("mine")
            return json.dumps(value)

    shard = make_shard(recorder, compression=None, json=Module)
    give(shard, {"op": 1, "d": None}, READY)
    assert [str(error) for _, error in recorder.of("error")] == [
        "a payload cannot be written as JSON: mine"
    ]
    assert shard.session_id == "abc"


def test_a_damaged_message_of_its_own_is_skipped(recorder: Recorder) -> None:
    """Payload compression: the next message does not depend on this one."""
    shard = make_shard(recorder, compression="payload")
    shard._handle_message(b"no zlib")
    shard._handle_message(zlib.compress(json.dumps(READY).encode()))
    assert [type(error) for _, error in recorder.of("error")] == [UnreadableMessage]
    assert shard.session_id == "abc"


def test_the_zlib_buffer_holds_what_is_not_complete() -> None:
    shard = make_shard()
    shard._handle_message(b"\x78\x9c")
    assert shard.zlib_buffer == b"\x78\x9c"


def test_a_logger_that_fails_ends_nothing() -> None:
    class Logger:
        def log(self, *_: Any, **__: Any) -> None:
            raise OSError("disk full")

    shard = make_shard(compression=None, logger=Logger())
    give(shard, READY, "{", dispatch(2))
    assert shard.last_sequence == 2


def test_the_token_is_in_no_repr(shard: Shard) -> None:
    for thing in (shard, shard._options, shard._protocol, shard._control.connection):
        assert shard.token not in repr(thing)
