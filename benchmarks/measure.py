"""Runs the clients of a measurement, each in a process of its own, against a sender in this one."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.certificates import authority, server_context
from benchmarks.client import Job
from benchmarks.sender import Sender, send_in_bulk, send_one_at_a_time
from benchmarks.stream import frames, messages

PACES = ("bulk", "single")


@dataclasses.dataclass(frozen=True)
class Client:
    """A peer and how it is used: one row of a table."""

    peer: str
    json: str
    listens: bool = True

    def __str__(self) -> str:
        name = self.peer.replace("_", " ")
        return f"{name}, {self.json}" + ("" if self.listens else ", not listening")


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
    sent: list[float]


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
        compression: str | None,
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
        job = Job(
            client.peer,
            "",
            compression,
            client.json,
            client.listens,
            stamps=stamps,
            connections=connections,
        )
        if client.peer == "floor":
            job.url = str(self._file(f"{compression}-{count}.pickle", pickle.dumps(payloads)))
            with _process(job, under) as process:
                return _result(process, [])
        context = None
        if secure:
            context = server_context()
            job.authority = str(self._file("authority.pem", authority().cert_pem.bytes()))
        pieces = frames(payloads, compression)
        with Sender(context) as sender, ExitStack() as stack:
            job.url = sender.url
            process = stack.enter_context(_process(job, under))
            sockets = [stack.enter_context(sender.accept()) for _ in range(connections)]
            if pace == "single":
                return _result(process, send_one_at_a_time(sockets[0], pieces, process.pid))
            with ThreadPoolExecutor(connections) as pool:
                list(pool.map(lambda each: send_in_bulk(each, pieces), sockets))
            return _result(process, [])

    def _file(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.write_bytes(content)
        return path


@contextmanager
def bench(events: list[bytes]) -> Iterator[Bench]:
    """A bench with a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        yield Bench(events, Path(directory))


@contextmanager
def _process(job: Job, under: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [*under, sys.executable, "-m", "benchmarks.client", json.dumps(vars(job))]
    # One order of sets and dicts for all: what a run costs does not depend on chance.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _result(process: subprocess.Popen[bytes], sent: list[float]) -> Result:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a client failed: {process.args!r}")
    return Result(**json.loads(output), sent=sent)
