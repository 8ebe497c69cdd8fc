"""Runs the clients of a measurement in processes of their own, with a sender in this process."""

from __future__ import annotations

import compileall
import dataclasses
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.client import Job
from benchmarks.idle import FIRST, MORE
from benchmarks.sender import Sender, send_in_bulk, send_one_at_a_time
from benchmarks.stream import frames, messages
from shardlib.testing import tls as certificates

PACES = ("bulk", "single")

_CHECKOUT = Path(__file__).parent.parent

# The most seconds that a client may take. The slowest, websocket-client with plain text under
# valgrind, takes two minutes.
_TIMEOUT = 600.0

# The names of those peers that have other names than their modules.
_NAMES = {
    "bare_loop": "bare loop",
    "discord_py": "discord.py",
    "websocket_client": "websocket-client",
    "websockets_sync": "websockets sync",
}


@dataclasses.dataclass(frozen=True)
class Client:
    """A peer with its options, which is one row of a table.

    :ivar peer: the name of a module of benchmarks.peers.
    :ivar json: the name of a module with ``loads`` and ``dumps``.
    :ivar listens: whether a function listens to the events.
    :ivar zlib_ng: whether the peer may inflate with zlib-ng.
    :ivar place: where shardlib calls the callbacks, one of benchmarks.dispatch.PLACES.
    """

    peer: str
    json: str
    listens: bool = True
    zlib_ng: bool = False
    place: str = ""

    def __str__(self) -> str:
        if self.place:
            return self.place
        name = _NAMES.get(self.peer, self.peer)
        return (
            f"{name}, {self.json}"
            + (", zlib-ng" if self.zlib_ng else "")
            + ("" if self.listens else ", not listening")
        )


@dataclasses.dataclass
class Result:
    """The figures that a client has measured, and the times at which the sender sent.

    :ivar seconds: seconds from just before the client connected until LAST.
    :ivar processor: seconds of processor time that the client used meanwhile.
    :ivar peak: the peak of the client's memory, in kB.
    :ivar stamps: ``time.perf_counter()`` when each event's callback was called; empty if the job
        has no ``stamps``.
    :ivar sent: ``time.perf_counter()`` when each message was sent; empty if sent in bulk.
    """

    seconds: float
    processor: float
    peak: int
    stamps: list[float]
    sent: list[float] = dataclasses.field(default_factory=list)


class Bench:
    """Runs clients on a recorded session.

    :param events: the events that :func:`benchmarks.stream.record` returns.
    :param directory: the directory for the files that clients read.
    """

    def __init__(self, events: list[bytes], directory: Path) -> None:
        self._events = events
        self._directory = directory
        # The messages made so far, by compression and count, since making messages takes longer
        # than most clients take to read the messages.
        self._made: dict[tuple[str, int | None], list[bytes]] = {}

    def run(
        self,
        client: Client,
        compression: str,
        *,
        pace: str = "bulk",
        count: int | None = None,
        secure: bool = False,
        connections: int = 1,
        stamps: bool = False,
        under: Sequence[str] = (),
    ) -> Result:
        """Run one client, and return the client's figures.

        :param client: the client.
        :param compression: one of COMPRESSIONS.
        :param pace: one of PACES; with several connections "bulk" only.
        :param count: the number of events to send; None for all.
        :param secure: True for wss, False for ws.
        :param connections: the number of connections of the client, each of which gets all events.
        :param stamps: whether the client records when each event arrives.
        :param under: the command that runs the client, for instance valgrind's; empty for none.
        :raises RuntimeError: if the client fails, or takes too long.
        """
        payloads = self._messages(compression, count)
        job = Job(client.peer, "", compression, client.json, client.listens, client.zlib_ng)
        job.stamps, job.connections, job.place = stamps, connections, client.place
        if client.peer == "floor":
            job.url = str(self._file(f"{compression}-{count}.pickle", pickle.dumps(payloads)))
            with _process("client", job, under) as process:
                return Result(**_output(process))
        pieces = frames(payloads, compression)
        with self._sender(job, secure) as sender, _process("client", job, under) as process:
            with ExitStack() as stack:
                sockets = [stack.enter_context(sender.accept(process)) for _ in range(connections)]
                if pace == "single":
                    sent = send_one_at_a_time(sockets[0], pieces, process.pid)
                    return Result(**_output(process), sent=sent)
                with ThreadPoolExecutor(connections) as pool:
                    list(pool.map(lambda each: send_in_bulk(each, pieces), sockets))
                return Result(**_output(process))

    def idle(self, client: Client, compression: str, secure: bool) -> float:
        """Return the memory that one more idle connection of a client takes, in kB.

        :param client: the client.
        :param compression: one of COMPRESSIONS.
        :param secure: True for wss, False for ws.
        :raises RuntimeError: if the client fails, or takes too long.
        """
        job = Job(client.peer, "", compression, client.json)
        opening = frames(self._messages(compression, 1)[:-1], compression)
        with self._sender(job, secure) as sender, _process("idle", job) as process:
            with ExitStack() as stack:
                for _ in range(FIRST + MORE):
                    send_in_bulk(stack.enter_context(sender.accept(process)), opening)
                kilobytes: float = _output(process)
                return kilobytes

    def _messages(self, compression: str, count: int | None) -> list[bytes]:
        key = (compression, count)
        if key not in self._made:
            self._made[key] = messages(self._events[:count], compression)
        return self._made[key]

    def _sender(self, job: Job, secure: bool) -> Sender:
        """Make a sender, and write its URL and its certificate's authority into a job."""
        context = None
        if secure:
            context = certificates.server_context("127.0.0.1")
            authority = certificates.authority().cert_pem.bytes()
            job.authority = str(self._file("authority.pem", authority))
        sender = Sender(context)
        job.url = sender.url
        return sender

    def _file(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        # Several threads may write the same content at once, while a client reads the file. So each
        # thread writes a file of its own and renames the file, which is atomic.
        temporary = path.with_suffix(f".{threading.get_ident()}")
        temporary.write_bytes(content)
        return temporary.replace(path)


@contextmanager
def bench(events: list[bytes]) -> Iterator[Bench]:
    """Yield a bench with a temporary directory.

    :param events: the events that :func:`benchmarks.stream.record` returns.
    """
    # Otherwise the first client would compile them, and cost more than those it is compared with.
    for package in ("benchmarks", "shardlib"):
        compileall.compile_dir(_CHECKOUT / package, quiet=2)
    with tempfile.TemporaryDirectory() as directory:
        yield Bench(events, Path(directory))


@contextmanager
def _process(
    program: str, job: Job, under: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    command = [*under, sys.executable, "-m", f"benchmarks.{program}", json.dumps(vars(job))]
    # A fixed hash seed, so that sets have the same order, and the same cost, in every run.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    # Compiling modules leaves free memory, which connections would use without being seen to take
    # any. So the first process keeps what it compiles of other packages for the others.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        # Whatever the client or the sender waits for ends with the client.
        timer = threading.Timer(_TIMEOUT, process.kill)
        timer.start()
        _show(f"{job.peer}, {job.json}, {job.compression}")
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()
            _show("")


def _show(running: str) -> None:
    """Replace the last line of a terminal by what runs now."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{running}", end="", file=sys.stderr, flush=True)


def _output(process: subprocess.Popen[bytes]) -> Any:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(
            f"a client failed, or took more than {_TIMEOUT:.0f} seconds: {process.args!r}"
        )
    return json.loads(output)
