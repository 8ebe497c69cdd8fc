"""The process that is measured: one peer that receives one stream, up to the event LAST.

``python -m benchmarks.client JOB`` is run by :mod:`benchmarks.measure`. It prints, as JSON, what
the client can tell itself, and exits at once in the callback of LAST: so nothing after it counts.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import ssl
import sys
import time
from typing import Any, NoReturn


@dataclasses.dataclass
class Job:
    """What a client is to do."""

    #: A module of benchmarks.peers.
    peer: str
    #: Of the sender; of a file that holds the messages, for the floor.
    url: str
    compression: str | None
    #: A module with loads and dumps.
    json: str
    #: False: no function listens to an event of the stream, if the peer knows of such a thing.
    listens: bool = True
    #: True: the times of all events are wanted.
    stamps: bool = False
    #: A file of certificates to trust, for wss.
    authority: str | None = None

    def codec(self) -> Any:
        return importlib.import_module(self.json)

    def ssl_context(self) -> ssl.SSLContext | None:
        return None if self.authority is None else ssl.create_default_context(cafile=self.authority)


class Meter:
    """Notes what a client spends; a peer calls on_event for each event, and finish at LAST."""

    def __init__(self, stamps: bool) -> None:
        self._stamps: list[float] = []
        #: The callback of every event, with whatever arguments the peer gives it.
        self.on_event = self._stamp if stamps else _ignore
        self._since = time.perf_counter()
        self._processor_since = time.process_time()

    def _stamp(self, *_: object) -> None:
        self._stamps.append(time.perf_counter())

    def finish(self, *_: object) -> NoReturn:
        """Print what was measured, and end the process."""
        result = {
            "seconds": time.perf_counter() - self._since,
            "processor": time.process_time() - self._processor_since,
            "stamps": self._stamps,
        }
        print(json.dumps(result), flush=True)
        os._exit(0)


def _ignore(*_: object) -> None:
    pass


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    peer = importlib.import_module(f"benchmarks.peers.{job.peer}")
    peer.receive(job, Meter(job.stamps))


if __name__ == "__main__":
    main()
