"""The Gateway's side of a measurement: one socket, one client, and the frames for it.

The sender knows of Discord no more than the order of things: it shakes hands, sends, and answers
nothing, so that next to nothing of a measurement is its own. It runs in the process that commands
the measurement; the client is always a process of its own.
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

# Seconds between two looks at whether a client that has not connected yet is still there.
_LOOK_FOR_CLIENT = 0.5

# Seconds between two looks at whether a client sleeps, and for which it may take to do so.
_LOOK_AGAIN = 0.0001
_PATIENCE = 60.0

# Seconds between two events on systems that do not tell whether a process sleeps.
_PAUSE = 0.002


class Sender:
    """Listens on a port of its own, for one client after the other.

    :param context: of a server, for wss; None for ws.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LOOK_FOR_CLIENT)
        self._context = context

    @property
    def url(self) -> str:
        scheme = "ws" if self._context is None else "wss"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self, process: subprocess.Popen[bytes]) -> socket.socket:
        """The next connection of a client, after its WebSocket handshake.

        :param process: the client's; under valgrind it may take a minute to begin.
        :raises RuntimeError: if it ends instead.
        """
        while True:
            try:
                client, _ = self._listener.accept()
                break
            except TimeoutError:
                if process.poll() is not None:
                    raise RuntimeError(f"a client failed: {process.args!r}") from None
        client.settimeout(_PATIENCE)
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
    """Send all there is, as fast as the client takes it."""
    client.sendall(b"".join(frames))


def send_one_at_a_time(client: socket.socket, frames: Iterable[bytes], process: int) -> list[float]:
    """Send each frame when the client has done with the one before, and sleeps.

    The client spends nothing on that: the system tells whether it sleeps.

    :param process: id of the client's.
    :returns: when each frame was sent, by ``time.perf_counter()``, whose clock all processes of a
        Linux system share.
    """
    times = []
    for frame in frames:
        falls = _falls_asleep(process)
        times.append(time.perf_counter())
        client.sendall(frame)
        _wait_for_sleep(process, falls)
    return times


def _wait_for_sleep(process: int, falls: int | None) -> None:
    """Return once a process has woken up, and all of its threads sleep again."""
    if falls is None:
        time.sleep(_PAUSE)
        return
    deadline = time.monotonic() + _PATIENCE
    while True:
        now = _falls_asleep(process, awake=falls)
        if now is None or now > falls:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the client takes no more events")
        time.sleep(_LOOK_AGAIN)


def _falls_asleep(process: int, awake: int = -1) -> int | None:
    """How often the threads of a process have gone to sleep; None if the system does not tell.

    None, too, of a process that has ended.

    :param awake: what to return while one of them is awake.
    """
    falls = 0
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            status = Path(f"/proc/{process}/task/{thread}/status").read_bytes()
            state = status.split(b"State:\t", 1)[1][:1]
            if state in b"ZX":
                return None
            if state != b"S" and awake >= 0:
                return awake
            falls += int(status.rsplit(b"\nvoluntary_ctxt_switches:", 1)[1].split(b"\n", 1)[0])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return falls
