"""FrameReader: the same messages however the stream is cut; invalid frames are refused."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.errors import BrokenStream
from shardlib.frames import FrameReader, FrameType
from tests.support import peak_memory, seconds

LIMIT = 1 << 20


def frame(
    frame_type: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    flags: int = 0,
    masked: bool = False,
) -> bytes:
    head = (0x80 if final else 0) | flags | frame_type
    mask = 0x80 if masked else 0
    if len(payload) < 126:
        return struct.pack("!BB", head, mask | len(payload)) + payload
    if len(payload) < 1 << 16:
        return struct.pack("!BBH", head, mask | 126, len(payload)) + payload
    return struct.pack("!BBQ", head, mask | 127, len(payload)) + payload


def read(*pieces: bytes, limit: int = LIMIT) -> list[tuple[int, bytes]]:
    """The messages and control frames in some bytes, in the order of the wire."""
    reader = FrameReader(limit)
    found: list[tuple[int, bytes]] = []

    def on_control(frame_type: int, payload: bytes) -> None:
        found.append((frame_type, payload))

    for piece in pieces:
        for message in reader.feed(piece, on_control):
            found.append(message)
    return found


def nothing(frame_type: int, payload: bytes) -> None: ...


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, LIMIT])
def test_a_frame_of_any_length_is_read(size: int) -> None:
    payload = bytes(size)
    assert read(frame(FrameType.BINARY, payload)) == [(FrameType.BINARY, payload)]


def test_a_frame_length_in_more_bytes_than_needed_is_read() -> None:
    assert read(struct.pack("!BBH", 0x82, 126, 1) + b"x") == [(FrameType.BINARY, b"x")]


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([FrameType.TEXT, FrameType.BINARY, FrameType.PING, FrameType.PONG]),
        st.binary(max_size=120) | st.integers(0, 300).map(bytes),
    ),
    max_size=10,
)


@given(MESSAGES, st.lists(st.integers(0, 4000), max_size=20))
def test_any_split_of_the_stream_gives_the_same_messages(
    messages: list[tuple[FrameType, bytes]], cuts: list[int]
) -> None:
    messages = [
        (kind, payload if kind < FrameType.CLOSE else payload[:125]) for kind, payload in messages
    ]
    stream = b"".join(frame(kind, payload) for kind, payload in messages)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
    assert read(*pieces) == messages


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=8))
def test_fragments_with_control_frames_between_them_make_one_message(parts: list[bytes]) -> None:
    stream = b""
    for number, part in enumerate(parts):
        stream += frame(FrameType.PING, b"?")
        stream += frame(
            FrameType.BINARY if number == 0 else FrameType.CONTINUATION,
            part,
            final=number == len(parts) - 1,
        )
    messages = [message for message in read(stream) if message[0] != FrameType.PING]
    assert messages == [(FrameType.BINARY, b"".join(parts))]


def test_an_empty_last_fragment_completes_the_message() -> None:
    stream = frame(FrameType.TEXT, b"ab", final=False) + frame(FrameType.CONTINUATION)
    assert read(stream, frame(FrameType.TEXT, b"c")) == [
        (FrameType.TEXT, b"ab"),
        (FrameType.TEXT, b"c"),
    ]


@pytest.mark.parametrize(
    "stream",
    [
        frame(FrameType.BINARY, b"x", masked=True),
        frame(FrameType.BINARY, bytes(200), masked=True),
        frame(FrameType.BINARY, b"x", flags=0x40),
        frame(FrameType.BINARY, b"x", flags=0x10),
        frame(0x3, b"x"),
        frame(0xB),
        frame(0xF),
        frame(FrameType.PING, b"x", final=False),
        frame(FrameType.CLOSE, bytes(126)),
        frame(FrameType.CONTINUATION, b"x"),
        frame(FrameType.TEXT, b"x", final=False) + frame(FrameType.TEXT, b"y"),
        frame(FrameType.TEXT, b"x", final=False) + frame(FrameType.BINARY, b"y", final=False),
    ],
    ids=[
        "masked",
        "masked, long",
        "RSV1",
        "RSV3",
        "opcode 3",
        "opcode 11",
        "opcode 15",
        "fragmented ping",
        "long close",
        "continuation of nothing",
        "text within a message",
        "fragment of a second message",
    ],
)
def test_an_invalid_frame_breaks_the_stream(stream: bytes) -> None:
    with pytest.raises(BrokenStream) as raised:
        read(stream)
    assert raised.value.limit is None
    with pytest.raises(BrokenStream):
        read(*(bytes([byte]) for byte in stream))


def test_a_message_that_is_too_large_is_refused_before_it_is_complete() -> None:
    for announced in (LIMIT + 1, 1 << 62, (1 << 64) - 1):
        with pytest.raises(
            BrokenStream, match=f"{announced} bytes.*max_payload.*{LIMIT}"
        ) as raised:
            read(struct.pack("!BBQ", 0x82, 127, announced))
        assert raised.value.limit == LIMIT
    part = frame(FrameType.CONTINUATION, bytes(LIMIT // 4), final=False)
    with pytest.raises(BrokenStream, match=f"{LIMIT + 1} bytes.*max_payload.*{LIMIT}") as raised:
        read(frame(FrameType.TEXT, b"x", final=False), *[part] * 4)
    assert raised.value.limit == LIMIT


def test_messages_left_unread_by_the_caller_are_returned_by_the_next_feed() -> None:
    reader = FrameReader(LIMIT)
    stream = frame(FrameType.TEXT, b"a") + frame(FrameType.TEXT, b"b") + frame(FrameType.TEXT)
    for _ in reader.feed(stream[:-1], nothing):
        break
    rest = list(reader.feed(stream[-1:], nothing))
    assert rest == [(FrameType.TEXT, b"b"), (FrameType.TEXT, b"")]


@given(st.binary(max_size=2000))
def test_any_bytes_give_messages_or_the_documented_error(data: bytes) -> None:
    try:
        read(data, data)
    except BrokenStream:
        pass


# Memory and time are bounded by the size of the largest message, however the stream is cut.


def feed_all(pieces: Iterable[bytes]) -> int:
    """Read some pieces without keeping the messages; return how many messages there were."""
    reader = FrameReader(LIMIT)
    return sum(1 for piece in pieces for _ in reader.feed(piece, nothing))


def drip(size: int, piece: int) -> Iterator[bytes]:
    """One frame with a payload of ``size`` bytes, in pieces of ``piece`` bytes."""
    yield struct.pack("!BBQ", 0x82, 127, size)
    for start in range(0, size, piece):
        # Each piece is a new object, as from a socket: a constant would take no memory.
        yield bytes([start & 0xFF]) * min(piece, size - start)


@pytest.mark.parametrize("piece", [2, 100, 65536])
def test_a_frame_costs_its_size_in_memory_in_whatever_pieces_it_comes(piece: int) -> None:
    assert peak_memory(lambda: feed_all(drip(LIMIT, piece))) < 3 * LIMIT


def test_tiny_fragments_cost_their_bytes_in_memory() -> None:
    begin = frame(FrameType.TEXT, b"", final=False)
    empty = frame(FrameType.CONTINUATION, b"", final=False)
    tiny = frame(FrameType.CONTINUATION, b"a", final=False)
    assert peak_memory(lambda: feed_all([begin, empty * 100_000])) < LIMIT
    assert (
        peak_memory(lambda: feed_all(itertools.chain([begin], itertools.repeat(tiny, 100_000))))
        < LIMIT
    )


def test_reading_time_grows_linearly_with_the_bytes() -> None:
    once = seconds(lambda: feed_all(drip(LIMIT // 4, 2)))
    four_times = seconds(lambda: feed_all(drip(LIMIT, 2)))
    assert four_times < 8 * once

    begin = frame(FrameType.TEXT, b"", final=False)
    tiny = frame(FrameType.CONTINUATION, b"a", final=False)
    once = seconds(lambda: feed_all([begin, tiny * 50_000]))
    four_times = seconds(lambda: feed_all([begin, tiny * 200_000]))
    assert four_times < 8 * once


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack("!BBQ", 0x88, 127, LIMIT),
        struct.pack("!BBQ", 0xC2, 127, LIMIT),
        struct.pack("!BBQ", 0x80, 127, LIMIT),
        frame(FrameType.TEXT, b"x", final=False) + struct.pack("!BBQ", 0x80, 127, LIMIT),
    ],
    ids=["long close", "RSV1", "continuation of nothing", "continuation beyond the limit"],
)
def test_an_invalid_frame_header_is_refused_before_its_payload(stream: bytes) -> None:
    with pytest.raises(BrokenStream):
        read(stream)
