"""Runs the clients of a measurement, each in a process of its own, against a sender in this one."""

from __future__ import annotations

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

from benchmarks.certificates import authority, server_context
from benchmarks.client import Job
from benchmarks.idle import FIRST, MORE
from benchmarks.sender import Sender, send_in_bulk, send_one_at_a_time
from benchmarks.stream import frames, messages

PACES = ("bulk", "single")

# What the peers are called that a module's name cannot spell.
_NAMES = {
    "bare_loop": "bare loop",
    "discord_py": "discord.py",
    "websocket_client": "websocket-client",
    "websockets_sync": "websockets sync",
}


@dataclasses.dataclass(frozen=True)
class Client:
    """A peer and how it is used: one row of a table."""

    peer: str
    json: str
    listens: bool = True
    zlib_ng: bool = False

    def __str__(self) -> str:
        name = _NAMES.get(self.peer, self.peer)
        return (
            f"{name}, {self.json}"
            + (", zlib-ng" if self.zlib_ng else "")
            + ("" if self.listens else ", not listening")
        )


@dataclasses.dataclass
class Result:
    """What a client told of itself.

    :ivar seconds: from before it connected to LAST.
    :ivar processor: seconds of processor time in these.
    :ivar peak: kB of memory at most.
    :ivar stamps: when the callback of each event was called, if that was asked for.
    :ivar sent: when each message was sent, if one at a time.
    """

    seconds: float
    processor: float
    peak: int
    stamps: list[float]
    sent: list[float] = dataclasses.field(default_factory=list)


class Bench:
    """A recorded session, and what it takes to run clients on it.

    :param events: of :func:`benchmarks.stream.record`.
    :param directory: for files that clients read.
    """

    def __init__(self, events: list[bytes], directory: Path) -> None:
        self._events = events
        self._directory = directory

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
        """Run one client.

        :param pace: one of PACES; several connections are served in bulk.
        :param count: events that are sent; all by default.
        :param secure: True for wss.
        :param connections: how many the client has, each with all events.
        :param stamps: whether the client notes when it got each event.
        :param under: a command that runs the client, valgrind for example.
        """
        payloads = messages(self._events[:count], compression)
        job = Job(client.peer, "", compression, client.json, client.listens, client.zlib_ng)
        job.stamps, job.connections = stamps, connections
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
        """The memory of one more idle connection, in kB."""
        job = Job(client.peer, "", compression, client.json)
        opening = frames(messages(self._events[:1], compression)[:-1], compression)
        with self._sender(job, secure) as sender, _process("idle", job) as process:
            with ExitStack() as stack:
                for _ in range(FIRST + MORE):
                    send_in_bulk(stack.enter_context(sender.accept(process)), opening)
                kilobytes: float = _output(process)
                return kilobytes

    def _sender(self, job: Job, secure: bool) -> Sender:
        """A sender, and its address in a job."""
        context = None
        if secure:
            context = server_context()
            job.authority = str(self._file("authority.pem", authority().cert_pem.bytes()))
        sender = Sender(context)
        job.url = sender.url
        return sender

    def _file(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        # Several runs may write it at the same time, the same in all of them.
        mine = path.with_suffix(f".{threading.get_ident()}")
        mine.write_bytes(content)
        return mine.replace(path)


@contextmanager
def bench(events: list[bytes]) -> Iterator[Bench]:
    """A bench with a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        yield Bench(events, Path(directory))


@contextmanager
def _process(
    program: str, job: Job, under: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    command = [*under, sys.executable, "-m", f"benchmarks.{program}", json.dumps(vars(job))]
    # One order of sets and dicts for all: what a run costs does not depend on chance.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def _output(process: subprocess.Popen[bytes]) -> Any:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a client failed: {process.args!r}")
    return json.loads(output)
