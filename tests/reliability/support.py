"""What tests of reliability share: a talkative connection, a relay, a program in a process."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

from shardlib.testing import GatewayConnection
from tests.support import TOKEN, wait_until


class CriticalRecords(logging.Handler):
    """Keeps the critical records, which say that a thread of the shard has failed.

    :param messages: the list to which the handler adds each formatted record.
    """

    def __init__(self, messages: list[str]) -> None:
        super().__init__(level=logging.CRITICAL)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(self.format(record))


def talk_on(connection: GatewayConnection) -> None:
    """Send an event every ten milliseconds, whatever the client has said, until it has gone."""

    def talk() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                connection.send_frame(1, b'{"op":0,"t":"TALK","s":null,"d":null}')
                time.sleep(0.01)

    threading.Thread(target=talk, daemon=True).start()


class Relay:
    """Carries bytes between clients and a gateway, and keeps those that the clients sent.

    :param chunk: at most so many bytes at once, at random, so that nothing arrives whole.
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
    """A Python program in a process of its own; what it prints is kept, line by line.

    :param code: its source. It finds ``make(url, **options)``, a shard in a hurry, and
        ``tell(*words)``.
    :param arguments: ``sys.argv[1:]``.
    :param before: a command that runs the interpreter, ``ip netns exec NAME`` for example.
    :param first: source that comes before everything.
    :param patience: seconds, after which it says where its threads are, and ends.
    """

    PRELUDE = """
import faulthandler, os, signal, sys, threading, time
faulthandler.dump_traceback_later(float(os.environ["PATIENCE"]), exit=True)
def tell(*words):
    # In one piece: print() writes the end of a line by itself, and another thread gets between.
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
        patience: float = 50.0,
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

    def expect(self, line: str, timeout: float = 20.0) -> None:
        """Wait until the program has printed a line."""
        wait_until(
            lambda: line in self.lines or self._process.poll() is not None, timeout, repr(line)
        )
        wait_until(
            lambda: line in self.lines, 1.0, f"{line!r}; it said {self.lines}, {self.stderr}"
        )

    def expect_silence(self, seconds: float = 0.5) -> None:
        """Wait until the program has printed nothing for a while: it is stuck, as it should be."""
        count, since = -1, time.monotonic()
        deadline = since + 20.0
        while time.monotonic() < since + seconds:
            assert time.monotonic() < deadline, "it goes on and on"
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
        self._process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the end; returns the status, negative for a signal."""
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
        assert TOKEN not in self.stderr  # where its log and its tracebacks would go
