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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    """What a client told of itself, and when each event was sent, if one at a time."""

    seconds: float
    processor: float
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
        under: Sequence[str] = (),
        **job: Any,
    ) -> Result:
        """Run one client on one connection.

        :param pace: one of PACES.
        :param count: events that are sent; all by default.
        :param under: a command that runs the client, valgrind for example.
        :param job: more fields of :class:`benchmarks.client.Job`.
        """
        payloads = messages(self._events[:count], compression)
        task = Job(client.peer, "", compression, client.json, client.listens, **job)
        if client.peer == "floor":
            file = self._directory / f"{compression}-{count}.pickle"
            if not file.exists():
                file.write_bytes(pickle.dumps(payloads))
            task.url = str(file)
            with _process(task, under) as process:
                return _result(process, [])
        with Sender() as sender:
            task.url = sender.url
            with _process(task, under) as process, sender.accept() as connection:
                pieces = frames(payloads, compression)
                sent: list[float] = []
                if pace == "bulk":
                    send_in_bulk(connection, pieces)
                else:
                    sent = send_one_at_a_time(connection, pieces, process.pid)
                return _result(process, sent)


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
