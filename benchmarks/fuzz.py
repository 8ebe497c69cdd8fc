"""Fuzzing guided by coverage: ``python -m benchmarks.fuzz TARGET --minutes 15``.

atheris (``pip install atheris``, for Python 3.11 to 3.13) makes inputs, records which lines of the
library each input reaches, and varies the inputs that reach new lines. Each target passes an input
to one part of the library, and allows only documented outcomes. At the first other outcome atheris
ends the process, writes the input to a file, and prints the file's name.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["shardlib"]):
    from shardlib.answers import UnusableAnswer, read_beginning, read_head
    from shardlib.cli.faults import Script
    from shardlib.compression import create_inflater
    from shardlib.errors import BrokenStream, UnreadableMessage
    from shardlib.frames import FrameReader
    from shardlib.handshake import check_upgrade
    from shardlib.session import Session

_LIMIT = 1 << 16  # the most bytes of a message
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the example in RFC 6455, section 1.3


def _cut(data: bytes) -> Iterator[bytes]:
    """Yield data in pieces, whose lengths follow from the first 16 bytes of the data."""
    position = 0
    for length in data[:16] or b"\x01":
        yield data[position : position + length + 1]
        position += length + 1
    yield data[position:]


def fuzz_frames(data: bytes) -> None:
    """Check that a stream gives the same frames, and the same error, whole and cut in pieces.

    :param data: the stream.
    """

    def read(pieces: Iterator[bytes]) -> list[object]:
        reader = FrameReader(_LIMIT)
        found: list[object] = []

        def record(frame_type: int, payload: bytes) -> None:
            found.append((frame_type, payload))

        try:
            for piece in pieces:
                found += reader.feed(piece, record)
        except BrokenStream as error:
            found.append(str(error))
        return found

    assert read(iter([data])) == read(_cut(data))


def fuzz_handshake(data: bytes) -> None:
    """Check that a response gives the same outcome, 101 or refusal, whole and cut in pieces.

    :param data: the response of the server.
    """

    def read(pieces: Iterator[bytes]) -> object:
        try:
            head, rest = read_head(lambda: next(pieces, b""))
            if head.status == 101:
                check_upgrade(head, _KEY)
                return head, rest + b"".join(pieces)
            return head, read_beginning(head, rest, lambda: next(pieces, b""))
        except UnusableAnswer as error:
            return str(error)

    # Without the empty pieces, each of which would mean the end of the stream.
    assert read(iter([data] if data else [])) == read(filter(None, _cut(data)))


def _fuzz_inflater(compression: str) -> Callable[[bytes], None]:
    def fuzz(data: bytes) -> None:
        inflater = create_inflater(compression, _LIMIT)
        for message in _cut(data):
            try:
                inflated = inflater.inflate(message)
            except UnreadableMessage:
                continue
            except BrokenStream:
                return
            assert inflated is None or len(inflated) <= _LIMIT
            assert len(inflater.buffer()) <= _LIMIT

    return fuzz


def _fuzz_file(load: Callable[[Path], object]) -> Callable[[bytes], None]:
    path = Path(tempfile.gettempdir()) / f"shardlib-fuzz-{os.getpid()}"

    def fuzz(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(ValueError):
            load(path)

    return fuzz


_SESSION = (
    b'{"format": "shardlib session", "version": 1, "session_id": "abc", "sequence": 5, '
    b'"resume_gateway_url": "wss://gateway.example", "shard_id": 0, "shard_count": 1}'
)
_FAULTS = (
    b'[{"after": 20, "do": "reconnect"}, {"every": 60, "do": "close", "code": 4000}, '
    b'{"before": "ready", "do": "reset", "connections": 2}, {"instead_of": "ack"}]'
)
_UPGRADE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: text/html\r\n\r\n4\r\nbusy\r\n0\r\n\r\n"
)

# By name, the function to fuzz and the inputs that atheris begins with.
TARGETS: dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "frames": (
        fuzz_frames,
        (b"\x81\x05hello", b"\x01\x02he\x89\x01p\x80\x03llo\x88\x02\x03\xe8", b"\x82\x7e\x01\x00"),
    ),
    "handshake": (
        fuzz_handshake,
        (_UPGRADE, b"HTTP/1.1 100 Continue\r\n\r\n" + _UPGRADE, _REFUSAL),
    ),
    "zlib-stream": (
        _fuzz_inflater("zlib-stream"),
        (zlib.compress(b"{}"), b"x\x9c\x00\x00\xff\xff"),
    ),
    "zstd-stream": (_fuzz_inflater("zstd-stream"), (b"\x28\xb5\x2f\xfd\x00\x58\x11\x00\x00{}",)),
    "payload": (_fuzz_inflater("payload"), (zlib.compress(b"{}"),)),
    "session": (_fuzz_file(Session.load), (_SESSION,)),
    "faults": (_fuzz_file(lambda path: Script(path.read_text("utf-8"))), (_FAULTS,)),
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Fuzzing guided by coverage.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=15.0, metavar="N")
    parser.add_argument("--corpus", type=Path, help="a directory that keeps the useful inputs")
    arguments = parser.parse_args()
    fuzz, seeds = TARGETS[arguments.target]
    with tempfile.TemporaryDirectory() as directory:
        corpus = arguments.corpus or Path(directory)
        corpus.mkdir(exist_ok=True)
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        seconds = round(arguments.minutes * 60)
        atheris.Setup(
            [sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-max_len=4096"], fuzz
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
