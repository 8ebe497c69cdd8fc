"""Messages: the shard reads or reports each, and later events still arrive."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from shardlib import BrokenStream, IdentifyGate, UnreadableMessage
from shardlib.gateway import Opcode
from shardlib.testing import LocalGateway
from tests.peers import Peer, well_behaved
from tests.recorder import Recorder, dispatch_numbers
from tests.reliability.conftest import MakeGateway, MakeScripted, WatchShard
from tests.support import wait_until

COMPRESSIONS = [None, "payload", "zlib-stream", "zstd-stream"]

# Payloads at which some JSON parser, or some client, has failed.
ODD: dict[str, str] = {
    "large integer": '{"op":0,"t":"X","s":null,"d":{"x":18446744073709552000}}',
    "larger integer": '{"op":0,"t":"X","s":null,"d":%s}' % ("9" * 4000),
    "infinite float": '{"op":0,"t":"X","s":null,"d":1e999}',
    "lone surrogate": '{"op":0,"t":"X","s":null,"d":"\\ud800"}',
    "unknown opcode": '{"op":99,"d":null}',
    "negative opcode": '{"op":-1}',
    "unknown event": '{"op":0,"t":"NEW_THING","s":null,"d":{}}',
    "no data": '{"op":0,"t":"GUILD_CREATE","s":null,"d":null}',
    "no anything": '{"op":0}',
    "array as data": '{"op":0,"t":"MESSAGE_CREATE","s":null,"d":[1,2]}',
    "Hello without interval": '{"op":11}',
    "opcode twice": '{"op":99,"op":11}',
    "NUL": '{"op":0,"t":"X\\u0000","s":null,"d":"\\u0000"}',
}
UNREADABLE: dict[str, str] = {
    "truncated": '{"op":0,"t":"X","s":4,"d":{"x":',
    "array": "[]",
    "null": "null",
    "text opcode": '{"op":"0"}',
    "deep": '{"op":0,"t":"X","d":' + "[" * 100_000,
    "HTML": "<html>502 Bad Gateway</html>",
}


def _send_between_events(gateway: LocalGateway, recorder: Recorder, texts: Iterable[str]) -> None:
    """Send each text, and an event after it; wait until all these events have arrived."""
    count = 0
    for text in texts:
        gateway.connections[-1].send_compressed(text)
        dispatch_numbers(gateway, [count])
        count += 1
    wait_until(lambda: len(recorder.numbers()) == count)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_odd_but_valid_payloads_cause_no_error_and_cost_no_connection(
    compression: str | None, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 43: the shard delivers or skips each of them."""
    shard, recorder = watch_shard(gateway, compression=compression)
    _send_between_events(gateway, recorder, ODD.values())

    assert recorder.errors == []
    assert len(gateway.all_connections) == 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_unreadable_payloads_are_reported_and_skipped(
    compression: str | None, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 43: one UnreadableMessage for each, on the same connection."""
    shard, recorder = watch_shard(gateway, compression=compression)
    _send_between_events(gateway, recorder, UNREADABLE.values())

    assert [type(error) for error in recorder.errors] == [UnreadableMessage] * len(UNREADABLE)
    assert len(gateway.all_connections) == 1


def test_a_text_frame_that_is_not_utf8_is_reported_and_skipped(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 43: the frame is whole, so the next one can be read."""
    shard, recorder = watch_shard(gateway)
    gateway.connections[-1].send_frame(1, b"\xff\xfe{}")
    dispatch_numbers(gateway, range(1))

    wait_until(lambda: recorder.numbers() == [0])
    assert [type(error) for error in recorder.errors] == [UnreadableMessage]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("cut", ["messages", "fragments", "both", "bytes"])
def test_messages_cut_into_pieces_in_any_way_are_put_together(
    cut: str, compression: str | None, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Rows 32 and 33: payloads in several messages or frames, single bytes, a payload of 5 MB."""
    if cut in ("messages", "both") and compression != "zlib-stream":
        pytest.skip("only zlib-stream says where a payload that was cut into messages ends")
    gateway = make_gateway()
    shard, recorder = watch_shard(gateway, compression=compression)
    connection = gateway.connections[-1]
    if cut in ("messages", "both"):
        connection.split_messages(7)
    if cut in ("fragments", "both"):
        connection.fragment_messages(3)
    if cut == "bytes":
        connection.slow(3000)
    dispatch_numbers(gateway, range(20))
    connection.send_raw('{"op":0,"t":"PLAIN","s":null,"d":null}')  # text between compressed ones
    dispatch_numbers(gateway, range(20, 30))
    wait_until(lambda: len(recorder.numbers()) == 30)
    if cut == "bytes":
        connection.slow(1e12)
    if cut in ("messages", "both"):
        connection.split_messages(10**6)
    if cut in ("fragments", "both"):
        connection.fragment_messages(10**6)
    text = json.dumps(list(range(700_000)))
    gateway.sessions[0].dispatch("LARGE", text)
    wait_until(lambda: any(each.get("t") == "LARGE" for each in list(recorder.events)))

    assert recorder.numbers() == list(range(30))
    assert [each["d"] for each in recorder.events if each.get("t") == "LARGE"] == [text]
    assert recorder.errors == []
    assert len(gateway.all_connections) == 1


def test_half_a_frame_is_kept_while_the_reader_identifies(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 32: Identify becomes due, and the reader sends it, when half of the frame has come."""
    # No heartbeat: the gateway would send its acknowledgement into the middle of the frame.
    gateway = make_gateway(heartbeat_interval=10**7)
    gate = IdentifyGate(interval=0.3, slack=0)
    assert gate.try_acquire(0) == 0.0
    gateway.inject(instead_of="ready")
    shard, recorder = watch_shard(gateway, ready=False, identify_gate=gate, compression=None)
    connection = gateway.wait_for_connection()
    wait_until(lambda: shard.heartbeat_interval)
    payload = b'{"op":0,"t":"TYPING_START","s":null,"d":{"n":7,"x":"%s"}}' % (b"x" * 1000)
    frame = b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload
    connection.send_bytes(frame[:500])
    connection.expect(Opcode.IDENTIFY)  # the gateway sends READY after the frame
    connection.send_bytes(frame[500:])
    connection.proceed()
    shard.wait_until_ready(10)

    assert recorder.numbers() == [7]
    assert recorder.errors == []
    assert len(gateway.all_connections) == 1


def test_half_a_message_is_forgotten_when_its_connection_ends(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 33: the next connection has a buffer and a decompression context of its own."""
    gateway = make_gateway()
    shard, recorder = watch_shard(gateway)
    connection = gateway.connections[-1]
    connection.send_frame(2, b"\x78\x9c half of a message")
    wait_until(lambda: shard.zlib_buffer)

    connection.reset()
    wait_until(lambda: recorder.count("reconnected", True) == 1)
    dispatch_numbers(gateway, range(5))

    wait_until(lambda: len(recorder.numbers()) == 5)
    assert shard.zlib_buffer == b""
    assert recorder.errors == []


def test_a_stream_broken_twice_at_the_same_place_leads_to_a_new_session(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 33: the session is given up, since a Resume would bring the broken bytes again."""
    gateway = make_gateway()
    shard, recorder = watch_shard(gateway)
    gateway.inject(lambda it: it.send_corrupt(), before="ready")

    gateway.connections[-1].send_corrupt()

    wait_until(lambda: recorder.count("ready") == 2)
    assert [type(error) for error in recorder.errors] == [BrokenStream] * 2
    assert len(gateway.all_connections) == 3


@pytest.mark.parametrize(
    "greeting",
    [b"\xc1\x00", b"\x82\x7f" + b"\x7f" * 8],
    ids=["no frame", "a frame larger than max_payload"],
)
def test_what_cannot_be_read_before_resume_was_sent_costs_no_session(
    greeting: bytes, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """A server in between, a proxy say, is at fault, whose bytes no Resume has asked for."""

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.begin()
        elif peer.number <= 4:
            peer.accept()
        else:
            peer.begin()
            peer.serve()
        if peer.number <= 4:
            peer.send_bytes(greeting)
            peer.linger()

    gateway = make_scripted(script)
    _, recorder = watch_shard(gateway, ready=False)

    recorder.wait_for("reconnected")
    assert recorder.of("reconnected") == [("reconnected", True)]
    assert [type(error) for error in recorder.errors] == [BrokenStream] * 4


def test_a_frame_too_large_before_identify_was_sent_does_not_close_the_shard(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Nothing that a session brings is too large, so that another attempt may well succeed."""

    def script(peer: Peer) -> None:
        if peer.number <= 3:
            peer.accept()
            peer.send_bytes(b"\x82\x7f" + b"\x7f" * 8)
            peer.linger()
        else:
            well_behaved(peer)

    watch_shard(make_scripted(script))  # which waits for READY


@pytest.mark.slow
def test_fifty_thousand_events_across_two_resumes_arrive_once_and_in_order(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 36: across the losses of two connections."""
    gateway = make_gateway(replay_limit=60_000)
    shard, recorder = watch_shard(gateway)
    numbers: list[int] = []
    shard.on("TYPING_START")(lambda shard, data: numbers.append(data["n"]))
    shard.on_socket_dispatch = None
    for part in range(5):
        dispatch_numbers(gateway, range(part * 10_000, (part + 1) * 10_000))
        if part in (1, 3):
            wait_until(lambda: shard.stats.resumes == part // 2, 120)  # a connection to lose
            gateway.connections[-1].reset()

    wait_until(lambda: len(numbers) >= 50_000, 120)
    assert numbers == list(range(50_000))
    wait_until(lambda: shard.stats.resumes == 2)
