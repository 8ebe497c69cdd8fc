"""The Gateway's side of a measurement: one socket for one client, and the frames for the client.

The sender answers the WebSocket handshake, writes frames that were made before, and reads nothing,
so that it takes next to none of the time that is measured. It runs in the process that commands the
measurement; each client is a process of its own.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

_KEY = re.compile(rb"sec-websocket-key: *(\S+)", re.IGNORECASE)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

# Seconds between two looks at whether a client that has not connected yet still runs.
_ACCEPT_TIMEOUT = 0.5

# Seconds between two looks at whether a client sleeps, and seconds until it must.
_SLEEP_POLL_INTERVAL = 0.0001
_CLIENT_TIMEOUT = 60.0

# Seconds between two events on a system that does not say whether a process sleeps.
_PAUSE = 0.002


class Sender:
    """Listens on any free port, for one client after the other.

    :param context: a server's context, for wss; None for ws.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_ACCEPT_TIMEOUT)
        self._context = context

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        scheme = "ws" if self._context is None else "wss"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self, process: subprocess.Popen[bytes]) -> socket.socket:
        """Return the next connection of a client, after the WebSocket handshake.

        :param process: the client's process; under valgrind it may take a minute to connect.
        :raises RuntimeError: if the process ends instead.
        """
        while True:
            try:
                client, _ = self._listener.accept()
                break
            except TimeoutError:
                if process.poll() is not None:
                    raise RuntimeError(f"a client failed: {process.args!r}") from None
        client.settimeout(_CLIENT_TIMEOUT)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            client = self._context.wrap_socket(client, server_side=True)
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += client.recv(4096)
        key = _KEY.findall(request)[0]
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        client.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        return client

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()


def send_in_bulk(client: socket.socket, frames: Iterable[bytes]) -> None:
    """Send frames as fast as the client reads.

    :param client: the client's connection.
    :param frames: the frames.
    """
    client.sendall(b"".join(frames))


def send_one_at_a_time(client: socket.socket, frames: Iterable[bytes], process: int) -> list[float]:
    """Send each frame when the client has handled the one before, and sleeps.

    Asking costs the client nothing: the system says whether the client sleeps.

    :param client: the client's connection.
    :param frames: the frames.
    :param process: the id of the client's process.
    :returns: when each frame was sent, by ``time.perf_counter()``, whose clock all processes of a
        Linux system share.
    :raises TimeoutError: if the client does not go back to sleep.
    """
    times = []
    for frame in frames:
        sleeps = _count_sleeps(process)
        times.append(time.perf_counter())
        client.sendall(frame)
        _wait_for_sleep(process, sleeps)
    return times


def _wait_for_sleep(process: int, sleeps_before: int | None) -> None:
    """Return once a process has woken up, and all of its threads sleep again."""
    if sleeps_before is None:
        time.sleep(_PAUSE)
        return
    deadline = time.monotonic() + _CLIENT_TIMEOUT
    while True:
        sleeps = _count_sleeps(process, if_awake=sleeps_before)
        if sleeps is None or sleeps > sleeps_before:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the client takes no more events")
        time.sleep(_SLEEP_POLL_INTERVAL)


def _count_sleeps(process: int, if_awake: int | None = None) -> int | None:
    """Return how often the threads of a process have gone to sleep.

    :param process: the process's id.
    :param if_awake: what to return while a thread is awake; None to count all the same.
    :returns: the number; None if the process has ended, or the system does not say.
    """
    sleeps = 0
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            status = Path(f"/proc/{process}/task/{thread}/status").read_bytes()
            state = status.split(b"State:\t", 1)[1][:1]
            if state in b"ZX":
                return None
            if state != b"S" and if_awake is not None:
                return if_awake
            sleeps += int(status.rsplit(b"\nvoluntary_ctxt_switches:", 1)[1].split(b"\n", 1)[0])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return sleeps
