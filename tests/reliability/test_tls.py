"""TLS: one thread at a time inside a connection, and no byte outside of its records."""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import socket
import ssl
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import Backoff, NotReady, SendTimeout, Shard
from shardlib.deadline import Deadline
from shardlib.limits import SendWindow
from shardlib.transport import Transport
from tests.recorder import dispatch_numbers
from tests.reliability.conftest import MakeGateway, WatchShard
from tests.reliability.support import Relay
from tests.support import wait_until

# A send window that is never used up.
ROOMY_WINDOW = functools.partial(SendWindow, limit=10**9)

# The methods of a socket that enter the OpenSSL object of its connection.
ENTRANCES = ("read", "write", "send", "recv", "sendall", "do_handshake", "shutdown", "unwrap")


class _Sentinel:
    """Counts the calls of methods of TLS sockets, and notes two threads inside one socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: dict[int, tuple[threading.Thread, int]] = {}
        self.meetings: list[str] = []
        self.calls: collections.Counter[str] = collections.Counter()

    def watch(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(sock: ssl.SSLSocket, *arguments: Any, **options: Any) -> Any:
            with self._hold(name, sock):
                return method(sock, *arguments, **options)

        return watched

    @contextlib.contextmanager
    def _hold(self, name: str, sock: ssl.SSLSocket) -> Iterator[None]:
        me = threading.current_thread()
        with self._lock:
            self.calls[name] += 1
            other, depth = self._inside.get(id(sock), (me, 0))
            if other is not me:
                self.meetings.append(f"{me.name} called {name}() while {other.name} was inside")
            self._inside[id(sock)] = (me, depth + 1)
        time.sleep(0)  # lets another thread run, and enter if no lock keeps it out
        try:
            yield
        finally:
            with self._lock:
                _, depth = self._inside[id(sock)]
                if depth == 1:
                    del self._inside[id(sock)]
                else:
                    self._inside[id(sock)] = (me, depth - 1)


@contextlib.contextmanager
def _four_threads_that_send(shard: Shard) -> Iterator[None]:
    """Have four threads send inside the block; fail if one meets an undocumented error."""
    stop = threading.Event()
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=_send_on_and_on, args=(shard, stop, failures)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def _send_on_and_on(shard: Shard, stop: threading.Event, failures: list[BaseException]) -> None:
    while not stop.is_set():
        try:
            shard.update_presence(status="idle", timeout=0.05)
        except (NotReady, SendTimeout):
            stop.wait(0.001)
        except BaseException as error:
            failures.append(error)
            return


def test_no_two_threads_are_inside_one_tls_object_at_once(
    make_gateway: MakeGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 1: four threads send, one beats, one reads, and a relay cuts records into pieces."""
    sentinel = _Sentinel()
    for name in ENTRANCES:
        monkeypatch.setattr(ssl.SSLSocket, name, sentinel.watch(name, getattr(ssl.SSLSocket, name)))
    gateway = make_gateway(tls=True)
    monkeypatch.setattr("shardlib.connection.SendWindow", ROOMY_WINDOW)
    with Relay(("127.0.0.1", int(gateway.url.split(":")[-1].rstrip("/"))), chunk=700) as relay:
        shard, recorder = watch_shard(gateway, connect=False)
        shard.connect(f"wss://127.0.0.1:{relay.port}/")
        shard.wait_until_ready(10)
        shard.heartbeat_in(50)  # not by Hello: a busy machine may be slow to acknowledge
        with _four_threads_that_send(shard):
            dispatch_numbers(gateway, range(3000))
            wait_until(lambda: len(recorder.numbers()) == 3000, 60, "3,000 events")
            wait_until(lambda: len(gateway.connections[-1].received) > 500, 60, "500 payloads")
        shard.disconnect()

    assert sentinel.calls["recv"] > 100 and sentinel.calls["send"] > 500
    assert sentinel.meetings == []
    assert recorder.count("connected") == 1  # no connection was lost
    assert recorder.numbers() == list(range(3000))


@pytest.mark.slow
@pytest.mark.timeout(600)  # for a thousand TLS handshakes beside four threads that send
def test_an_abort_during_sends_puts_nothing_unencrypted_on_the_wire(
    make_gateway: MakeGateway,
    watch_shard: WatchShard,
    monkeypatch: pytest.MonkeyPatch,
    eager_threads: None,
) -> None:
    """Rows 9 and 18: 1,000 connections are aborted while four threads send on them."""
    monkeypatch.setattr("shardlib.connection.SendWindow", ROOMY_WINDOW)
    gateway = make_gateway(tls=True)
    with Relay(("127.0.0.1", int(gateway.url.split(":")[-1].rstrip("/")))) as relay:
        monkeypatch.setattr(type(gateway), "resume_url", f"wss://127.0.0.1:{relay.port}/")
        backoff = Backoff(base=0.001, cap=0.001)
        shard, recorder = watch_shard(gateway, connect=False, backoff=backoff)
        shard.connect(f"wss://127.0.0.1:{relay.port}/")
        shard.wait_until_ready(10)
        with _four_threads_that_send(shard):
            for number in range(1, 1001):
                # Not fail(), whose close frame has the other threads finish what they send.
                shard._reader.connection.abort()
                wait_until(lambda: shard.stats.resumes == number)
                shard.wait_until_ready(10)
        shard.disconnect()

    assert recorder.errors == []
    assert len(relay.sent) >= 1000
    for stream in relay.sent:
        assert _outside_of_tls_records(stream) == b""


def _outside_of_tls_records(stream: bytearray) -> bytes:
    """Return a stream from the first byte on that is in no TLS record (RFC 8446, section 5.1)."""
    position = 0
    while len(stream) - position >= 5:
        kind, major, length = (
            stream[position],
            stream[position + 1],
            stream[position + 3 : position + 5],
        )
        size = int.from_bytes(length, "big")
        if kind not in (20, 21, 22, 23) or major != 3 or size > 16640:
            return bytes(stream[position:])
        position += 5 + size
    return b""


def test_a_reset_before_the_handshake_leaves_no_socket_open() -> None:
    """Python before 3.13 drops the socket that it is making; the garbage collector complains."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()  # and the reset is there before anything else
    transport = Transport(ours)

    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        with pytest.raises(ConnectionResetError):
            transport.start_tls(ssl.create_default_context(), "127.0.0.1", Deadline(5))
        gc.collect()
    transport.close()

    assert [str(complaint.message) for complaint in complaints] == []


def test_a_resume_url_without_tls_is_not_used_after_a_url_with_wss_in_capitals(
    make_gateway: MakeGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 21: the token must not leave in clear text, however the scheme of the URL was written."""
    gateway = make_gateway(tls=True)
    monkeypatch.setattr(type(gateway), "resume_url", "ws://127.0.0.1:9/")
    shard, _ = watch_shard(gateway, connect=False)

    shard.connect(gateway.url.replace("wss:", "WSS:"))
    shard.wait_until_ready(10)

    assert shard.session_id is not None
    assert shard.session_gateway is None
