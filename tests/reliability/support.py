"""Helpers of the reliability tests: peers that talk on, floods, a relay, programs in a process."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import selectors
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

from shardlib import Backoff, Shard
from shardlib.testing import GatewayConnection
from tests.peers import Peer, Script
from tests.support import TOKEN, in_background, not_none, send_signal, wait_until


def closing_with(code: int, reason: str = "") -> Script:
    """Make a script that answers Identify and Resume with a close frame."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.close(code, reason)
        peer.linger()

    return script


def talk_on(connection: GatewayConnection) -> None:
    """Send an event every ten milliseconds, whatever the client says, until the client is gone."""

    def talk() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                connection.send_frame(1, b'{"op":0,"t":"TALK","s":null,"d":null}')
                time.sleep(0.01)

    threading.Thread(target=talk, daemon=True).start()


class CriticalRecords(logging.Handler):
    """Collects critical records: with these a shard tells that a thread of its own has failed.

    :param records: the list to which the handler appends the text of each record.
    """

    def __init__(self, records: list[str]) -> None:
        super().__init__(level=logging.CRITICAL)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(self.format(record))


class StuckCallback:
    """A callback that does not return until the test sets `release`.

    The fixture ``stuck`` makes one, and sets `release` when the test ends.
    """

    def __init__(self) -> None:
        #: Set once the shard has called the callback.
        self.entered = threading.Event()
        self.release = threading.Event()

    def __call__(self, shard: Shard, *arguments: object) -> None:
        self.entered.set()
        self.release.wait()


class Flood:
    """Sends on a daemon thread, and goes on when the peer reads nothing and the buffers are full.

    The thread ends with the error that the last send raises.

    :param shard: READY; its send buffer is made small.
    """

    _PAYLOAD = '{"op":3,"d":{"status":"idle"},"x":"%s"}' % ("x" * 3900)

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._socket = not_none(not_none(shard.socket_instance).sock)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        self._last_sent = time.monotonic()
        self._sending = in_background(self._send)

    def _send(self) -> None:
        while True:
            self._shard.send(self._PAYLOAD, timeout=60)
            self._last_sent = time.monotonic()

    def is_stuck(self) -> bool:
        """True once the socket takes no more, and no send has returned for a tenth of a second."""
        is_writable = select.select([], [self._socket], [], 0)[1]
        return not is_writable and time.monotonic() - self._last_sent > 0.1

    def error(self, timeout: float) -> BaseException | None:
        """Wait for the end of the thread, and return what the last send raised.

        :param timeout: seconds to wait.
        """
        return self._sending.exception(timeout)


class Relay:
    """Carries bytes between clients and a gateway, and keeps the bytes that the clients sent.

    :param target: host and port of the gateway.
    :param chunk: the most bytes carried at once. If given, each piece has a random size up to it,
        so that no frame arrives whole.
    """

    def __init__(self, target: tuple[str, int], chunk: int = 65536) -> None:
        self._target = target
        self._chunk = chunk
        self._dice = random.Random(0)
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port: int = self._listener.getsockname()[1]
        #: What the client of each connection sent, oldest connection first.
        self.sent: list[bytearray] = []

    def __enter__(self) -> Relay:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._wake.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj.fileno() != -1:  # type: ignore[union-attr]
                    self._carry(key.fileobj, *key.data)  # type: ignore[arg-type]

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent.append(bytearray())
        self._selector.register(client, selectors.EVENT_READ, (server, self.sent[-1]))
        self._selector.register(server, selectors.EVENT_READ, (client, None))

    def _carry(self, source: socket.socket, sink: socket.socket, record: bytearray | None) -> None:
        size = self._chunk if self._chunk == 65536 else self._dice.randint(1, self._chunk)
        try:
            data = source.recv(size)
            if record is not None:
                record += data
            sink.sendall(data)
        except OSError:
            data = b""
        if not data:
            for each in (source, sink):
                with contextlib.suppress(KeyError):
                    self._selector.unregister(each)
                each.close()


class Child:
    """A Python program in a process of its own; this object keeps the lines that it prints.

    :param code: the source of the program. It may call ``make(**options)``, which returns a shard
        that connects again quickly, and ``tell(*words)``, which prints a line.
    :param arguments: ``sys.argv[1:]``.
    :param flags: options of the interpreter.
    :param before: a command that runs the interpreter, ``ip netns exec NAME`` for example.
    :param first: source that runs before everything else.
    :param patience: seconds after which the program prints where its threads are, and ends.
    """

    PRELUDE = """
import faulthandler, os, signal, sys, threading, time
faulthandler.dump_traceback_later(float(os.environ["PATIENCE"]), exit=True)
def tell(*words):
    # One write a line: print() writes the newline separately, and another thread may get between.
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()
def make(**options):
    from tests.shards import make_shard
    return make_shard(**options)
"""

    def __init__(
        self,
        code: str,
        *arguments: str,
        flags: tuple[str, ...] = ("-W", "error"),
        before: tuple[str, ...] = (),
        first: str = "",
        patience: float = 150.0,
    ) -> None:
        program = first + self.PRELUDE + textwrap.dedent(code)
        self._process = subprocess.Popen(
            [*before, sys.executable, *flags, "-c", program, *arguments],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PATIENCE": str(patience), "PYTHONFAULTHANDLER": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.lines: list[str] = []
        self.stderr = ""
        self._readers = [
            threading.Thread(target=self._read_lines),
            threading.Thread(target=self._read_errors),
        ]
        for reader in self._readers:
            reader.start()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.stderr += line

    def expect(self, line: str, timeout: float = 60.0) -> None:
        """Wait until the program has printed a line."""
        wait_until(
            lambda: line in self.lines or self._process.poll() is not None, timeout, repr(line)
        )
        wait_until(
            lambda: line in self.lines, 10.0, f"{line!r}; it said {self.lines}, {self.stderr}"
        )

    def expect_silence(self, seconds: float = 0.5) -> None:
        """Wait until the program is stuck, and so has printed nothing for some seconds."""
        count, since = -1, time.monotonic()
        deadline = since + 20.0
        while time.monotonic() < since + seconds:
            assert time.monotonic() < deadline, "the program goes on printing"
            if len(self.lines) != count:
                count, since = len(self.lines), time.monotonic()
            time.sleep(0.01)

    def say(self, line: str) -> None:
        """Give the program a line of input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        send_signal(self._process, number)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for the end of the process; return its status, negative if a signal ended it."""
        status = self._process.wait(timeout)
        for reader in self._readers:
            reader.join()
        return status

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        self.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        assert TOKEN not in self.stderr  # the log and the tracebacks of the program


class NotedBackoff(Backoff):
    """A back-off that keeps the delays that it has given."""

    def __init__(self, base: float, cap: float) -> None:
        super().__init__(base, cap)
        self.delays: list[float] = []

    def next_delay(self) -> float:
        self.delays.append(super().next_delay())
        return self.delays[-1]
