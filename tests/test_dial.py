"""Reaching a host: every address, in time, directly or through a proxy."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shardlib import ConnectionFailed, ShardClosed
from shardlib.deadline import Deadline
from shardlib.dial import Dialer
from tests.shards import make_gateway, make_shard
from tests.support import AT_ONCE, TOKEN, in_background, wait_until


@contextmanager
def server(handle: Callable[[socket.socket], object]) -> Iterator[int]:
    """A TCP server on 127.0.0.1 that handles each connection on a thread; gives its port."""
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return

                def serve() -> None:
                    with peer:
                        try:
                            handle(peer)
                        except OSError:
                            pass

                threads.append(threading.Thread(target=serve))
                threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(10)
    for thread in threads:
        thread.join(10)


def relay(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until either side ends."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for sock in (source, target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    back = threading.Thread(target=pump, args=(other, one))
    back.start()
    pump(one, other)
    back.join(10)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError
        data += byte
    return data


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return data


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("answer", ["at once", "byte by byte"])
def test_a_shard_connects_through_an_http_proxy(answer: str, tls: bool) -> None:
    requests: list[str] = []

    def proxy(client: socket.socket) -> None:
        requests.append(read_until(client, b"\r\n\r\n").decode())
        host, port = requests[-1].split()[1].rsplit(":", 1)
        with socket.create_connection((host, int(port))) as target:
            head = b"HTTP/1.1 200 OK\r\n\r\n"
            pieces = [head] if answer == "at once" else [bytes([each]) for each in head]
            for piece in pieces:
                client.sendall(piece)
                time.sleep(0.002)  # so that the system does not put the next piece to this one
            relay(client, target)

    with make_gateway(tls=tls) as gateway, server(proxy) as port:
        options = {"ssl_context": gateway.ssl_context} if tls else {}
        with make_shard(proxy=f"http://me:secret@127.0.0.1:{port}", **options) as shard:
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
        assert requests[0].startswith("CONNECT 127.0.0.1:")
        assert "proxy-authorization: basic" in requests[0].lower()


def test_a_shard_connects_through_a_socks_proxy_that_resolves_the_name() -> None:
    names: list[bytes] = []
    with make_gateway() as gateway:

        def proxy(client: socket.socket) -> None:
            _, count = read_exactly(client, 2)
            read_exactly(client, count)
            client.sendall(b"\x05\x00")
            assert read_exactly(client, 4) == b"\x05\x01\x00\x03"
            names.append(read_exactly(client, read_exactly(client, 1)[0]))
            port = int.from_bytes(read_exactly(client, 2), "big")
            with socket.create_connection(("127.0.0.1", port)) as target:
                client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
                relay(client, target)

        url = gateway.url.replace("127.0.0.1", "gateway.known.only.there")
        with server(proxy) as port:
            with make_shard(proxy=f"socks5://127.0.0.1:{port}") as shard:
                shard.connect(url)
                shard.wait_until_ready(10)
    assert names == [b"gateway.known.only.there"]


def test_a_proxy_that_refuses_is_named_and_its_password_is_not() -> None:
    def proxy(client: socket.socket) -> None:
        read_until(client, b"\r\n\r\n")
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    with server(proxy) as port:
        shard = make_shard(proxy=f"http://me:secret@127.0.0.1:{port}")
        with pytest.raises(ConnectionFailed, match="proxy refused.*407") as caught:
            shard.connect("ws://127.0.0.1:9")
    assert "secret" not in str(caught.value)


def test_a_proxy_that_repeats_the_token_is_quoted_without_it() -> None:
    def proxy(client: socket.socket) -> None:
        read_until(client, b"\r\n\r\n")
        client.sendall(f"HTTP/1.1 407 {TOKEN}\r\n\r\n".encode())

    with server(proxy) as port:
        shard = make_shard(proxy=f"http://127.0.0.1:{port}")
        with pytest.raises(ConnectionFailed, match=r"proxy refused.*407 \*\*\*") as caught:
            shard.connect("ws://127.0.0.1:9")
    error: BaseException | None = caught.value
    while error is not None:
        assert TOKEN not in repr(error)
        error = error.__cause__ or error.__context__


def test_a_silent_proxy_is_given_up_after_connect_timeout() -> None:
    released = threading.Event()
    with server(lambda client: released.wait(10)) as port:
        shard = make_shard(proxy=f"http://127.0.0.1:{port}", connect_timeout=0.2)
        with pytest.raises(ConnectionFailed, match="within 0.2 seconds"):
            shard.connect("ws://127.0.0.1:9")
        released.set()


def test_disconnect_does_not_wait_for_the_systems_proxy_lookup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Windows and macOS the look-up may ask the network; here the test makes it wait."""
    asked, answer = threading.Event(), threading.Event()

    def look_up_slowly(host: str) -> bool:
        asked.set()
        return not answer.wait(10)

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request.proxy_bypass", look_up_slowly)
    shard = make_shard(close_timeout=0.1)
    connecting = in_background(shard.connect, "ws://gateway.test")
    assert asked.wait(10)
    try:
        in_background(shard.disconnect).result(10)
    finally:
        answer.set()
    assert isinstance(connecting.exception(10), ShardClosed)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Make every name resolve to some addresses, which no real resolver would return."""

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        if options.get("flags"):
            raise socket.gaierror("not written in digits")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, number),
            )
            for address, number in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_an_address_that_fails_or_is_silent_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """The silent address is a listener whose queue is full: it answers no SYN."""
    with socket.socket() as deaf, socket.create_server(("127.0.0.1", 0)) as good:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        try:
            port = good.getsockname()[1]
            resolve_to(
                monkeypatch,
                ("::ffff:0.0.0.1", port),  # no such network
                ("224.0.0.1", port),  # for multicast: an error at once
                ("127.0.0.1", 1),  # refused
                deaf.getsockname(),  # silent
                ("127.0.0.1", port),
            )
            since = time.perf_counter()
            transport = Dialer("gateway.test", port).dial(None, Deadline(10))
            assert time.perf_counter() - since < AT_ONCE
            assert transport.socket.getpeername()[1] == port
            transport.close()
        finally:
            for filler in fillers:
                filler.close()


def test_a_shard_works_with_select_if_the_system_has_no_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows has no poll. A refused address, a send, a zombie, and a deadline all use select."""
    monkeypatch.delattr(select, "poll")
    with make_gateway(tls=True, heartbeat_interval=1000) as gateway:
        port = int(gateway.url.rstrip("/").rpartition(":")[2])
        resolve_to(monkeypatch, ("127.0.0.1", 1), ("127.0.0.1", port))
        gateway.inject(instead_of="hello")
        shard = make_shard(ssl_context=gateway.ssl_context, hello_timeout=1.0)
        shard.connect(gateway.url.replace("127.0.0.1", "localhost"))
        shard.wait_until_ready(10)
        shard.update_presence(status="idle")
        gateway.connections[-1].acknowledge = False
        wait_until(lambda: shard.stats.resumes >= 1)
        shard.disconnect()
        assert gateway.all_connections[-1].wait_closed() == 1000


def test_a_resolver_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def getaddrinfo(*_: Any, **options: Any) -> list[Any]:
        if not options.get("flags"):
            released.wait(10)
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(TimeoutError, match="was not found in time"):
        Dialer("gateway.test", 443).dial(None, Deadline(0.1))
    dialer = Dialer("gateway.test", 443)
    dialing = in_background(dialer.dial, None, Deadline(10))
    wait_until(lambda: any(other.name == "resolve gateway.test" for other in threading.enumerate()))
    dialer.abort()
    assert isinstance(dialing.exception(8), ConnectionAbortedError)
    released.set()


def test_an_aborted_dialer_opens_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialer = Dialer("127.0.0.1", listener.getsockname()[1])
        dialer.abort()
        with pytest.raises(ConnectionAbortedError):
            dialer.dial(None, Deadline(10))
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("proxy", ["https://me:secret@127.0.0.1:9", "http://me:secret/x@proxy:1"])
def test_an_invalid_proxy_of_the_environment_is_explained_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ConnectionFailed, match="proxy must be a URL like http") as caught:
        make_shard().connect("ws://gateway.invalid")
    assert "secret" not in str(caught.value)
