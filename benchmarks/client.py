"""The process that is measured: one peer that receives one stream, up to the event LAST.

``python -m benchmarks.client JOB`` is run by :mod:`benchmarks.measure`. It prints, as JSON, what
the client can tell itself, and exits at once in the callback of LAST: so nothing after it counts.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

# discord.py takes zstd-stream if it can import one of these, and zlib-stream only if it cannot.
_ZSTD = ("zstandard", "compression.zstd")


@dataclasses.dataclass
class Job:
    """What a client is to do."""

    #: A module of benchmarks.peers.
    peer: str
    #: Of the sender; of a file that holds the messages, for the floor.
    url: str
    compression: str
    #: A module with loads and dumps.
    json: str
    #: False: no function listens to an event of the stream, if the peer knows of such a thing.
    listens: bool = True
    #: Whether the peer may inflate with zlib-ng, if that is installed.
    zlib_ng: bool = False
    #: True: the times of all events are wanted.
    stamps: bool = False
    #: A file of certificates to trust, for wss.
    authority: str | None = None
    #: So many connections at once, each on a thread of its own.
    connections: int = 1

    def codec(self) -> Any:
        return importlib.import_module(self.json)

    def ssl_context(self) -> ssl.SSLContext | None:
        return None if self.authority is None else _ssl_context(self.authority)


@functools.cache
def _ssl_context(authority: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


class Meter:
    """Notes what a client spends; a peer calls on_event for each event, and finish at LAST.

    :param connections: whose LAST is to come.
    :param stamps: whether the times of all events are wanted.
    """

    def __init__(self, connections: int, stamps: bool) -> None:
        self._lock = threading.Lock()  # guards the number of connections
        self._connections = connections
        self._stamps: list[float] = []
        #: The callback of every event, with whatever arguments the peer gives it.
        self.on_event = self._stamp if stamps else _ignore
        self._since = time.perf_counter()
        self._processor_since = time.process_time()

    def _stamp(self, *_: object) -> None:
        self._stamps.append(time.perf_counter())

    def finish(self, *_: object) -> None:
        """At LAST of the last connection: print what was measured, and end the process."""
        with self._lock:
            self._connections -= 1
            if self._connections:
                return
        result = {
            "seconds": time.perf_counter() - self._since,
            "processor": time.process_time() - self._processor_since,
            "peak": peak_memory(),
            "stamps": self._stamps,
        }
        print(json.dumps(result), flush=True)
        os._exit(0)


def _ignore(*_: object) -> None:
    pass


def peak_memory() -> int:
    """The most memory that this process has had, in kB."""
    return _memory("VmHWM")


def memory() -> int:
    """The memory that this process has, in kB."""
    return _memory("VmRSS")


def _memory(field: str) -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return 0  # a system other than Linux
    return int(status.split(f"{field}:")[1].split()[0])


def load(job: Job) -> Any:
    """The module of a job's peer."""
    if not job.zlib_ng:
        sys.modules["zlib_ng"] = None  # type: ignore[assignment]
    if job.compression == "zlib-stream":
        for module in _ZSTD:
            sys.modules[module] = None  # type: ignore[assignment]
    return importlib.import_module(f"benchmarks.peers.{job.peer}")


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    peer = load(job)
    meter = Meter(job.connections, job.stamps)
    for _ in range(job.connections - 1):
        threading.Thread(target=peer.receive, args=(job, meter), daemon=True).start()
    peer.receive(job, meter)
    threading.Event().wait()  # for the other connections; finish() ends the process


if __name__ == "__main__":
    main()
