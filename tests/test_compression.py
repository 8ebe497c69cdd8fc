"""Inflaters: every compression gives back the messages, within max_payload."""

from __future__ import annotations

import ast
import itertools
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib import compression
from shardlib.compression import create_inflater, import_zstd, require
from shardlib.errors import BrokenStream, UnreadableMessage
from shardlib.gateway import COMPRESSIONS
from tests.shards import make_shard
from tests.support import peak_memory, seconds

zstd = import_zstd()
LIMIT = 1 << 20
MESSAGES = [b'{"op":11}', b'{"op":0,"d":"' + b"a long one " * 5000 + b'"}', "é".encode() * 7]


class ZlibCompressor:
    def __init__(self) -> None:
        self._compressor = zlib.compressobj()

    def __call__(self, message: bytes) -> bytes:
        return self._compressor.compress(message) + self._compressor.flush(zlib.Z_SYNC_FLUSH)


class ZstdCompressor:
    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor()

    def __call__(self, message: bytes) -> bytes:
        data: bytes = self._compressor.compress(message, self._compressor.FLUSH_BLOCK)
        return data


def compressor(kind: str | None) -> Callable[[bytes], bytes]:
    kinds: dict[str | None, Callable[[], Callable[[bytes], bytes]]] = {
        "zlib-stream": ZlibCompressor,
        "zstd-stream": ZstdCompressor,
        "payload": lambda: zlib.compress,
        None: lambda: bytes,
    }
    return kinds[kind]()


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_messages_are_inflated_to_what_was_compressed(kind: str | None) -> None:
    inflater, compress = create_inflater(kind, LIMIT), compressor(kind)
    for message in MESSAGES * 3:
        assert inflater.inflate(compress(message)) == message
        assert inflater.buffer() == b""


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_a_text_message_between_compressed_ones_is_read_as_text(kind: str | None) -> None:
    shard, compress = make_shard(compression=kind), compressor(kind)
    shard._handle_message(compress(b'{"op":0,"t":"A","s":1,"d":null}'))
    shard._handle_message('{"op":0,"t":"B","s":2,"d":"\u00e9"}')
    shard._handle_message(compress(b'{"op":0,"t":"C","s":3,"d":null}'))
    assert shard.stats.events == {"A": 1, "B": 1, "C": 1}


@pytest.mark.parametrize(
    "header, good",
    [
        (b"\x78\x9c", True),
        (b"\x78\x01", True),
        (b"\x08\x1d", True),  # a small window
        (b"\x78\x9d", False),  # the check bits are wrong
        (b"\x77\x9d", False),  # another method
        (b"\x88\x1c", False),  # a window larger than there is
        (b"\x78\xbb", False),  # needs a dictionary
        (b'{"', False),
    ],
)
def test_a_zlib_stream_without_a_valid_header_is_broken(header: bytes, good: bool) -> None:
    """The inflater reads the two bytes of the header itself, so that zlib computes no checksum."""
    deflate = zlib.compressobj(wbits=-9)
    data = deflate.compress(MESSAGES[0]) + deflate.flush(zlib.Z_SYNC_FLUSH)
    inflater = create_inflater("zlib-stream", LIMIT)
    if good:
        assert inflater.inflate(header + data) == MESSAGES[0]
    else:
        with pytest.raises(BrokenStream):
            inflater.inflate(header + data)


@pytest.mark.parametrize("kind", ["zlib-stream", "zstd-stream"])
def test_a_new_connection_starts_a_new_context(kind: str | None) -> None:
    for _ in range(2):
        inflater, compress = create_inflater(kind, LIMIT), compressor(kind)
        assert inflater.inflate(compress(MESSAGES[1])) == MESSAGES[1]


@given(
    messages=st.lists(st.text(min_size=1).map(str.encode), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 10_000), max_size=20),
)
def test_a_zlib_stream_cut_anywhere_gives_the_same_messages(
    messages: list[bytes], cuts: list[int]
) -> None:
    inflater, compress = create_inflater("zlib-stream", LIMIT), ZlibCompressor()
    for message in messages:
        data = compress(message)
        places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        parts = [data[start:end] for start, end in itertools.pairwise(places)]
        # An empty part may follow the last byte; it completes no second message.
        results = [inflater.inflate(part) for part in parts]
        assert [result for result in results if result is not None] == [message]
        assert inflater.buffer() == b""


def test_an_incomplete_zlib_message_is_kept_until_its_suffix_arrives() -> None:
    inflater = create_inflater("zlib-stream", LIMIT)
    data = ZlibCompressor()(MESSAGES[0])
    assert inflater.inflate(data[:3]) is None
    assert inflater.buffer() == data[:3]
    assert inflater.inflate(data[3:-4]) is None
    assert inflater.buffer() == data[:-4]
    assert inflater.inflate(data[-4:]) == MESSAGES[0]
    assert inflater.buffer() == b""


@pytest.mark.parametrize("kind", ["zlib-stream", "zstd-stream"])
def test_an_empty_message_of_a_stream_inflates_to_nothing(kind: str | None) -> None:
    inflater, compress = create_inflater(kind, LIMIT), compressor(kind)
    assert inflater.inflate(compress(MESSAGES[0])) == MESSAGES[0]
    assert inflater.inflate(b"") is None
    assert inflater.inflate(compress(MESSAGES[1])) == MESSAGES[1]


def test_a_zstd_frame_may_end_with_each_message() -> None:
    inflater = create_inflater("zstd-stream", LIMIT)
    for message in MESSAGES * 2:
        assert inflater.inflate(zstd.compress(message)) == message
    # From now on the frame stays open.
    compress = ZstdCompressor()
    for message in MESSAGES:
        assert inflater.inflate(compress(message)) == message


def test_a_zstd_message_may_consist_of_several_frames() -> None:
    inflater = create_inflater("zstd-stream", LIMIT)
    whole = b"".join(MESSAGES)
    assert inflater.inflate(b"".join(map(zstd.compress, MESSAGES))) == whole
    compress = ZstdCompressor()  # the last frame left open
    assert inflater.inflate(zstd.compress(MESSAGES[0]) + compress(MESSAGES[1])) == (
        MESSAGES[0] + MESSAGES[1]
    )
    assert inflater.inflate(compress(MESSAGES[2])) == MESSAGES[2]


def test_endless_zstd_frames_break_the_stream() -> None:
    inflater = create_inflater("zstd-stream", LIMIT)
    with pytest.raises(BrokenStream, match="frames"):
        inflater.inflate(zstd.compress(b"") * 10_000)


ERRORS: dict[str | None, type[BrokenStream] | type[UnreadableMessage]] = {
    "zlib-stream": BrokenStream,
    "zstd-stream": BrokenStream,
    "payload": UnreadableMessage,
    None: UnreadableMessage,
}


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_max_payload_is_the_most_that_is_inflated(kind: str | None) -> None:
    compress = compressor(kind)
    inflater = create_inflater(kind, 5000)
    assert inflater.inflate(compress(b"x" * 5000)) == b"x" * 5000
    with pytest.raises(ERRORS[kind], match="max_payload.*5000") as raised:
        inflater.inflate(compress(b"x" * 5001))
    assert isinstance(raised.value, (BrokenStream, UnreadableMessage))
    assert raised.value.limit == 5000


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_max_payload_may_exceed_every_possible_size(kind: str | None) -> None:
    for limit in (sys.maxsize, 10**30):
        assert create_inflater(kind, limit).inflate(compressor(kind)(MESSAGES[1])) == MESSAGES[1]


def test_max_payload_holds_for_uncompressed_messages() -> None:
    inflater = create_inflater(None, 10)
    assert inflater.inflate(b"x" * 10) == b"x" * 10
    with pytest.raises(UnreadableMessage, match="11 bytes.*max_payload") as raised:
        inflater.inflate(b"x" * 11)
    assert raised.value.limit == 10


def test_max_payload_holds_for_several_zstd_frames_together() -> None:
    frames = zstd.compress(b"x" * 3000) + zstd.compress(b"y" * 3000)
    assert create_inflater("zstd-stream", 6000).inflate(frames) == b"x" * 3000 + b"y" * 3000
    with pytest.raises(BrokenStream, match="max_payload.*5999") as raised:
        create_inflater("zstd-stream", 5999).inflate(frames)
    assert raised.value.limit == 5999


@pytest.mark.parametrize("kind", ["zlib-stream", "zstd-stream", "payload"])
def test_a_compression_bomb_takes_no_more_memory_than_max_payload_allows(kind: str | None) -> None:
    bomb = compressor(kind)(bytes(64 << 20))
    inflater = create_inflater(kind, LIMIT)

    def inflate() -> None:
        with pytest.raises(ERRORS[kind]):
            inflater.inflate(bomb)

    assert peak_memory(inflate) < 8 * LIMIT


def test_a_message_in_small_pieces_takes_memory_for_its_size_only() -> None:
    inflater = create_inflater("zlib-stream", LIMIT)

    def inflate() -> None:
        for number in range(LIMIT // 4):
            inflater.inflate(bytes([number & 0xFF]) * 4)

    assert peak_memory(inflate) < 2 * LIMIT
    assert len(inflater.buffer()) == LIMIT


def skippable(size: int) -> bytes:
    """A skippable zstd frame: ``size`` bytes that inflate to nothing."""
    return (0x184D2A50).to_bytes(4, "little") + size.to_bytes(4, "little") + bytes(size)


def test_zstd_frames_before_a_large_one_cost_no_copies_of_it() -> None:
    size = 40 << 20
    few, many = (zstd.compress(b"x") * frames + skippable(size) for frames in (2, 90))

    def inflate(message: bytes) -> None:
        assert create_inflater("zstd-stream", 2 * size).inflate(message)

    assert peak_memory(lambda: inflate(many)) < 4 * size
    assert seconds(lambda: inflate(many)) < 8 * seconds(lambda: inflate(few))


def test_large_zstd_frames_after_another_come_out_whole() -> None:
    # The frames are longer than one piece of the decompressor's input, and end inside a piece as
    # well as at the end of one.
    noise = random.Random(0).randbytes(150_000)
    frames = [zstd.compress(part) for part in (b"first", noise, noise[:70_000])]
    frames.append(skippable((1 << 16) - 8))
    frames.append(zstd.compress(b"last"))
    whole = b"first" + noise + noise[:70_000] + b"last"
    assert create_inflater("zstd-stream", len(whole)).inflate(b"".join(frames)) == whole
    with pytest.raises(BrokenStream, match="max_payload"):
        create_inflater("zstd-stream", len(whole) - 1).inflate(b"".join(frames))


def zstd_window(log: int) -> bytes:
    """A frame with one empty block, whose header asks for a window of 2 to the power of ``log``."""
    magic, descriptor, block = bytes.fromhex("28b52ffd"), bytes([0]), bytes([1, 0, 0])
    return magic + descriptor + bytes([(log - 10) << 3]) + block


@pytest.mark.parametrize(("max_payload", "log"), [(1, 23), (LIMIT, 23), (16 << 20, 24)])
def test_a_zstd_window_is_no_larger_than_max_payload_or_what_every_decoder_takes(
    max_payload: int, log: int
) -> None:
    assert create_inflater("zstd-stream", max_payload).inflate(zstd_window(log)) is None
    with pytest.raises(BrokenStream, match=f"window.*max_payload.*{max_payload}") as raised:
        create_inflater("zstd-stream", max_payload).inflate(zstd_window(log + 1))
    assert raised.value.limit == max_payload


def test_a_message_that_never_ends_breaks_the_stream() -> None:
    inflater = create_inflater("zlib-stream", 1000)
    for _ in range(10):
        assert inflater.inflate(b"x" * 100) is None
    with pytest.raises(BrokenStream, match="1001 bytes.*max_payload.*1000") as raised:
        inflater.inflate(b"x")
    assert raised.value.limit == 1000


def test_a_zlib_stream_that_ends_is_broken() -> None:
    finished = zlib.compress(b"{}") + b"\x00\x00\xff\xff"
    with pytest.raises(BrokenStream, match="ended"):
        create_inflater("zlib-stream", LIMIT).inflate(finished)


@pytest.mark.parametrize("kind", ["zlib-stream", "zstd-stream"])
def test_a_damaged_stream_is_broken(kind: str | None) -> None:
    with pytest.raises(BrokenStream, match="damaged") as raised:
        create_inflater(kind, LIMIT).inflate(b"no such stream\x00\x00\xff\xff")
    assert raised.value.limit is None


@pytest.mark.parametrize(
    "message", [b"no zlib", zlib.compress(b"{}")[:-1], zlib.compress(b"{}") + b"x", b""]
)
def test_a_damaged_payload_is_skipped_and_the_next_is_read(message: bytes) -> None:
    inflater = create_inflater("payload", LIMIT)
    with pytest.raises(UnreadableMessage) as caught:
        inflater.inflate(message)
    assert caught.value.text == message
    assert caught.value.limit is None
    assert inflater.inflate(zlib.compress(b"{}")) == b"{}"


@pytest.mark.parametrize("kind", COMPRESSIONS)
@given(data=st.data())
def test_any_bytes_end_in_a_documented_way(kind: str | None, data: st.DataObject) -> None:
    inflater, compress = create_inflater(kind, 10_000), compressor(kind)
    if data.draw(st.booleans()):
        inflater.inflate(compress(b"a good one first"))
    message = data.draw(st.binary())
    if data.draw(st.booleans()):
        good = bytearray(compress(data.draw(st.binary(min_size=1))))
        place = data.draw(st.integers(0, len(good) - 1))
        good[place] ^= data.draw(st.integers(1, 255))
        message = bytes(good)
    if kind == "zlib-stream":
        message += b"\x00\x00\xff\xff"
    expected = ERRORS[kind]
    try:
        result = inflater.inflate(message)
    except expected:
        return
    assert result is None or len(result) <= 10_000


def test_an_unknown_compression_is_refused() -> None:
    for kind in COMPRESSIONS:
        require(kind)
    with pytest.raises(ValueError, match="zlib-stream"):
        require("gzip")


def test_missing_zstd_is_said_at_once_with_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # None in sys.modules is how Python itself marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with pytest.raises(ValueError, match=r"shardlib\[zstd\]"):
        require("zstd-stream")
    assert create_inflater("zlib-stream", LIMIT) is not None


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has a module of that name itself")
def test_a_users_module_named_compression_is_not_run(tmp_path: Path) -> None:
    """Row 94: the name was tried before that of the backport."""
    (tmp_path / "compression.py").write_text("raise SystemExit('it was run')")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from shardlib import Intents, Shard\n"
        "from shardlib.testing import LocalGateway\n"
        "with LocalGateway() as gateway:\n"
        "    shard = Shard(gateway.token, Intents.GUILDS, compression='zstd-stream')\n"
        "    with shard:\n"
        "        shard.connect(gateway.url)\n"
        "        shard.wait_until_ready(20)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_freezer_finds_every_module_that_inflates() -> None:
    """Row 94: PyInstaller looks for import statements, and finds no name in a call."""
    tree = ast.parse(Path(compression.__file__).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported >= {"compression.zstd", "backports.zstd", "zlib"}
    assert "importlib" not in imported
