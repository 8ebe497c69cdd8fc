"""The Gateway's side of a measurement: one socket for one client, and the frames for the client.

The sender answers the WebSocket handshake, writes frames that were made before, and reads nothing,
so that the sender takes almost none of the measured time. The sender runs in the process of the
command; each client runs in a process of its own.
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

from shardlib.closing import Closing

_KEY = re.compile(rb"sec-websocket-key: *(\S+)", re.IGNORECASE)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

# Seconds between two checks whether a client that has not yet connected still runs.
_ACCEPT_TIMEOUT = 0.5

# Seconds between two checks whether a client sleeps, and the most seconds until the client sleeps.
_SLEEP_POLL_INTERVAL = 0.0001
_CLIENT_TIMEOUT = 60.0

# Seconds between two events on a system without /proc, which shows whether a process sleeps.
_PAUSE = 0.002


class Sender(Closing):
    """Listens on any free port, and accepts one client after another.

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

    def accept(self, process: subprocess.Popen[bytes] | None = None) -> socket.socket:
        """Return the next connection of a client, after the WebSocket handshake.

        :param process: the client's process, which may take a minute to connect under valgrind;
            None waits without end.
        :raises RuntimeError: if the process ends without connecting.
        """
        while True:
            try:
                client, _ = self._listener.accept()
                break
            except TimeoutError:
                if process is not None and process.poll() is not None:
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

    def close(self) -> None:
        """Stop to listen."""
        self._listener.close()


def send_in_bulk(client: socket.socket, frames: Iterable[bytes]) -> None:
    """Send frames as fast as the client reads.

    :param client: the client's connection.
    :param frames: the frames.
    """
    client.sendall(b"".join(frames))


def send_one_at_a_time(client: socket.socket, frames: Iterable[bytes], process: int) -> list[float]:
    """Send each frame after the client has handled the previous frame and sleeps.

    The sender reads in /proc whether the client sleeps, which costs the client nothing.

    :param client: the client's connection.
    :param frames: the frames.
    :param process: the id of the client's process.
    :returns: ``time.perf_counter()`` just before each frame was sent. All processes of a Linux
        system share this clock.
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
    """Wait until a process has woken up and all its threads sleep again.

    :param process: the process's id.
    :param sleeps_before: the count of sleeps before the frame was sent; None if unknown.
    """
    if sleeps_before is None:
        time.sleep(_PAUSE)
        return
    deadline = time.monotonic() + _CLIENT_TIMEOUT
    while True:
        sleeps = _count_sleeps(process, if_awake=sleeps_before)
        if sleeps is None or sleeps > sleeps_before:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the client does not go back to sleep")
        time.sleep(_SLEEP_POLL_INTERVAL)


def _count_sleeps(process: int, if_awake: int | None = None) -> int | None:
    """Return how often the threads of a process have gone to sleep.

    :param process: the process's id.
    :param if_awake: the value to return if a thread is awake; None to count in any case.
    :returns: the number; None if the process has ended, or if the system has no /proc.
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
