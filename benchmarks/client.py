"""The process that is measured: one peer that receives one stream, up to the event LAST.

:mod:`benchmarks.measure` runs ``python -m benchmarks.client JOB``. The process measures itself. In
the callback of LAST the process prints the figures as JSON and exits, so that nothing after LAST
counts.
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

# discord.py uses zstd-stream if one of these modules can be imported, and zlib-stream otherwise.
_ZSTD = ("zstandard", "compression.zstd")


@dataclasses.dataclass
class Job:
    """The stream that a client receives, and the options of the client."""

    #: The name of a module of benchmarks.peers.
    peer: str
    #: The sender's URL; for the floor, the path of a file that holds the messages.
    url: str
    #: One of COMPRESSIONS.
    compression: str
    #: The name of a module with ``loads`` and ``dumps``.
    json: str
    #: False to register no function for the events of the stream, if the peer has listeners.
    listens: bool = True
    #: Whether the peer may inflate with zlib-ng, if zlib-ng is installed.
    zlib_ng: bool = False
    #: Whether to record when each event arrives.
    stamps: bool = False
    #: For wss, the path of a file of certificates to trust.
    authority: str | None = None
    #: Where shardlib calls the callbacks, one of benchmarks.dispatch.PLACES.
    place: str = ""
    #: How many connections to open at once, each on a thread of its own.
    connections: int = 1

    def codec(self) -> Any:
        """Return the module that decodes JSON."""
        return importlib.import_module(self.json)

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the context for wss, which all connections share; None for ws."""
        return None if self.authority is None else _ssl_context(self.authority)


@functools.cache
def _ssl_context(authority: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


class Meter:
    """Measures the time and memory of a client.

    A peer calls ``on_event`` for each event, and ``finish`` at LAST.

    :param connections: how many connections must receive LAST before the measurement ends.
    :param stamps: whether to record when each event arrives.
    """

    def __init__(self, connections: int, stamps: bool) -> None:
        self._lock = threading.Lock()  # guards _connections
        self._connections = connections
        self._stamps: list[float] = []
        #: The callback of every event. The callback ignores its arguments.
        self.on_event = self._stamp if stamps else _ignore
        self._started = time.perf_counter()
        self._processor_started = time.process_time()

    def _stamp(self, *_: object) -> None:
        self._stamps.append(time.perf_counter())

    def finish(self, *_: object) -> None:
        """Print the figures and end the process, if every connection has received LAST."""
        with self._lock:
            self._connections -= 1
            if self._connections:
                return
        result = {
            "seconds": time.perf_counter() - self._started,
            "processor": time.process_time() - self._processor_started,
            "peak": peak_memory(),
            "stamps": self._stamps,
        }
        print(json.dumps(result), flush=True)
        os._exit(0)


def _ignore(*_: object) -> None:
    pass


def peak_memory() -> int:
    """Return the peak of this process's memory, in kB; 0 if the system is not Linux."""
    return _memory("VmHWM")


def memory() -> int:
    """Return the memory of this process, in kB; 0 if the system is not Linux."""
    return _memory("VmRSS")


def _memory(field: str) -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return 0
    return int(status.split(f"{field}:")[1].split()[0])


def load(job: Job) -> Any:
    """Import a job's peer, after hiding the modules that the peer must not use.

    :param job: the job.
    """
    if not job.zlib_ng:
        sys.modules["zlib_ng"] = None  # type: ignore[assignment]
    if job.compression == "zlib-stream":
        for module in _ZSTD:
            sys.modules[module] = None  # type: ignore[assignment]
    return importlib.import_module(f"benchmarks.peers.{job.peer}")


def main() -> None:
    """Do the job on the command line."""
    job = Job(**json.loads(sys.argv[1]))
    peer = load(job)
    meter = Meter(job.connections, job.stamps)
    for _ in range(job.connections - 1):
        threading.Thread(target=peer.receive, args=(job, meter), daemon=True).start()
    peer.receive(job, meter)
    threading.Event().wait()  # for the other connections, the last of which ends the process


if __name__ == "__main__":
    main()
