"""The workers and consumers of :mod:`benchmarks.fleet_chaos`, and their ways to Redis.

Each is a process of its own, ``python -m benchmarks.fleet_processes worker ...``, which is killed,
stopped and started again. A worker writes a line for each shard that is READY, RESUMED or
disconnected to its standard output. A consumer appends a line for each event to the file of the
event's shard. A process ends with the one that has started it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from shardlib import Intents, Shard
from shardlib.fleet import Fleet, FleetEvent, Gap

NAME = "chaos"
GROUP = "effects"
EVENT = "CHAOS"

# Events of each shard that Redis keeps: those of some minutes.
KEEP_EVENTS = 10_000

_HOST = "127.0.0.1"
_BUFFER = 65_536
_TIME_TO_END = 20.0


# The network


class Network:
    """The way of one process to Redis: a proxy, which can be cut.

    :param port: of Redis, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server((_HOST, 0))
        self._flows = threading.Event()
        self._flows.set()
        self._refuses = False
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()  # of the sockets
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        """Where the process finds Redis."""
        return f"redis://{_HOST}:{self._listener.getsockname()[1]}/0"

    @property
    def is_whole(self) -> bool:
        """False while the way is cut."""
        return self._flows.is_set() and not self._refuses

    def hang(self) -> None:
        """Let nothing through, and close nothing. What is on its way arrives after restore()."""
        self._flows.clear()

    def cut(self) -> None:
        """Close all connections, and refuse new ones."""
        self._refuses = True
        self._close_sockets()

    def restore(self) -> None:
        """Let everything through again."""
        self._refuses = False
        self._flows.set()

    def close(self) -> None:
        """End all connections and threads."""
        self.cut()
        self._flows.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self._close_sockets()  # one may have been accepted meanwhile
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = None if self._refuses else socket.create_connection((_HOST, self._port))
            except OSError:  # Redis is away
                server = None
            if server is None:
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, server}
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            for source, target in ((client, server), (server, client)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=self._relay, args=(source, target), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_BUFFER):
                self._flows.wait()
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets.discard(source)
        source.close()

    def _close_sockets(self) -> None:
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


# The processes, as the chaos sees them


class Process:
    """A worker or a consumer that is killed, stopped and started again.

    :param name: of the process, and of its log.
    :param arguments: of the command of this module, without the URL of Redis.
    :param network: its way to Redis.
    :param directory: of its log.
    :param hear: called with this object and the words of each line that the process writes, on a
        thread of its own.
    """

    def __init__(
        self,
        name: str,
        arguments: list[str],
        network: Network,
        directory: Path,
        hear: Callable[[Process, list[str]], object],
    ) -> None:
        self.name = name
        self.network = network
        self._arguments = arguments
        self._log = directory / f"{name}.log"
        self._hear = hear
        self._process: subprocess.Popen[str] | None = None
        self._hearing: threading.Thread | None = None
        self.is_stopped = False

    @property
    def is_running(self) -> bool:
        """True if the process lives, and is not stopped."""
        return self._process is not None and self._process.poll() is None and not self.is_stopped

    @property
    def has_failed(self) -> bool:
        """True if the process has ended, and nobody has asked it to."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self._process is not None:
            return
        role, *others = self._arguments
        with self._log.open("a") as log:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, role, self.network.url, *others],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the chaos, which ends all its processes
            )
        self._hearing = threading.Thread(target=self._listen, args=(process,), daemon=True)
        self._hearing.start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._hear(self, line.split())

    def stop(self) -> None:
        """Stop the process (SIGSTOP)."""
        self._send(signal.SIGSTOP)
        self.is_stopped = True

    def go_on(self) -> None:
        """Let a stopped process go on; nothing if it is not stopped."""
        if self.is_stopped:
            self.is_stopped = False
            self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGKILL, timeout: float = _TIME_TO_END) -> None:
        """End the process, and wait for its end; nothing if it has ended.

        :param number: SIGTERM drains a worker, SIGINT stops it.
        :param timeout: seconds after which the process is killed.
        """
        process, hearing = self._process, self._hearing
        if process is None or hearing is None:
            return
        self._send(number)
        if number is not signal.SIGKILL:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        hearing.join()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None
        self.is_stopped = False


# The processes, as they are


class Recorder:
    """The files of the shards, into which the consumers of the group record each event.

    :param directory: of the files.
    :param consumer: the name of the consumer.
    """

    def __init__(self, directory: Path, consumer: str) -> None:
        self._directory = directory
        self._consumer = consumer
        self._files: dict[int, int] = {}

    def record(self, event: FleetEvent) -> None:
        """Append an event; the whole line at once, as a transaction would."""
        epoch, _, sequence = event.id.partition(":")[2].partition("-")
        words = (
            f"{time.monotonic():.2f}",
            epoch,
            sequence,
            event.name,
            tag_of(event.name, event.data),
        )
        line = " ".join((*words, self._consumer, "\n"))
        os.write(self._file(event.shard_id), line.encode())

    def _file(self, shard_id: int) -> int:
        if shard_id not in self._files:
            path, flags = self._directory / str(shard_id), os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._files[shard_id] = os.open(path, flags)
        return self._files[shard_id]

    def get(self, shard_id: int) -> str | None:
        """The id of the last event recorded: the user's watermarks, kept with the effects."""
        best = (0, 0)
        with contextlib.suppress(FileNotFoundError):
            for record in read_records(self._directory, shard_id):
                if not record.is_gap:
                    best = max(best, record.position)
        return f"{shard_id}:{best[0]}-{best[1]}" if best[0] else None


class Record(NamedTuple):
    """An event that a consumer has handled.

    :param time: of the monotonic clock, seconds.
    :param position: the epoch and the sequence of its id.
    :param name: of the event.
    :param tag: what the event is about: the session that READY begins, the session and the number
        of an event of the chaos, the reason of a gap.
    :param consumer: that has handled the event.
    """

    time: float
    position: tuple[int, int]
    name: str
    tag: str
    consumer: str

    @property
    def is_gap(self) -> bool:
        """True if the event stands for events that may be missing."""
        return self.name == "SHARDLIB_GAP"


def read_records(directory: Path, shard_id: int) -> list[Record]:
    """What the consumers have recorded of a shard, in that order.

    :raises FileNotFoundError: if they have recorded nothing.
    """
    found = []
    for line in (directory / str(shard_id)).read_text().splitlines():
        when, epoch, sequence, name, tag, consumer = line.split()
        found.append(Record(float(when), (int(epoch), int(sequence)), name, tag, consumer))
    return found


def tag_of(name: str, data: Any) -> str:
    """What an event is about, as :class:`Record` has it."""
    if isinstance(data, Gap):
        return data.reason.replace(" ", "-")
    if name == "READY":
        return str(data["session_id"])
    return f"{data['session']}/{data['number']}" if name == EVENT else "-"


def _end_with_parent() -> None:
    """End this process when the one that has started it ends, which then closes the pipe."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _run_worker(arguments: argparse.Namespace) -> None:
    def say(what: str, shard: Shard) -> None:
        os.write(1, f"{time.monotonic()} {what} {shard.shard_id}\n".encode())

    with Fleet(arguments.redis, NAME, lease=arguments.lease, keep_events=KEEP_EVENTS) as fleet:
        worker = fleet.worker(
            arguments.token,
            Intents.all(),
            replay_memory=arguments.replay_memory,
            on_socket_ready=lambda shard: say("has", shard),
            on_socket_reconnected=lambda shard, resumed: say("has", shard),
            on_socket_disconnected=lambda shard, code, by_self: say("lost", shard),
        )
        signal.signal(signal.SIGTERM, lambda number, frame: worker.drain())
        signal.signal(signal.SIGINT, signal.default_int_handler)
        worker.run_forever(arguments.gateway)


def _run_consumer(arguments: argparse.Namespace) -> None:
    recorder = Recorder(arguments.directory, arguments.name)
    with Fleet(arguments.redis, NAME, lease=arguments.lease, keep_events=KEEP_EVENTS) as fleet:
        seen = recorder if arguments.seen else None
        with fleet.consumer(GROUP, seen=seen) as consumer:
            signal.signal(signal.SIGTERM, lambda number, frame: consumer.stop())
            for event in consumer:
                recorder.record(event)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(required=True)
    worker, consumer = roles.add_parser("worker"), roles.add_parser("consumer")
    for each in (worker, consumer):
        each.add_argument("redis")
        each.add_argument("--lease", type=float, required=True)
    worker.add_argument("gateway")
    worker.add_argument("token")
    worker.add_argument("--replay-memory", type=float, required=True)
    worker.set_defaults(run=_run_worker)
    consumer.add_argument("directory", type=Path)
    consumer.add_argument("name")
    consumer.add_argument("--seen", action="store_true")
    consumer.set_defaults(run=_run_consumer)
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S"
    )
    _end_with_parent()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
