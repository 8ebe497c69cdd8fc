"""Connecting: no peer, and no address, keeps a shard from its next attempt, or from closing."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import ConnectionFailed, Shard, ShardState
from shardlib.dial import Dialer
from shardlib.testing import GatewayConnection, LocalGateway
from tests.peers import Peer
from tests.reliability.conftest import MakeGateway, MakeScripted, WatchShard
from tests.shards import make_shard
from tests.support import AT_ONCE, NEVER, wait_until

# Each makes a gateway stop at one step of its next connection.
STALLS: dict[str, Callable[[LocalGateway], None]] = {
    "no TLS, no answer": lambda gateway: gateway.inject(instead_of="accept"),
    "no 101": lambda gateway: gateway.inject(instead_of="upgrade"),
    "101 a few bytes a second": lambda gateway: gateway.inject(
        lambda it: it.slow(20), before="upgrade"
    ),
    "no Hello": lambda gateway: gateway.inject(instead_of="hello"),
    "no READY": lambda gateway: gateway.inject(instead_of="ready"),
}
# The first connection and the last have to be quicker than that, on a busy machine, too.
QUICK = {"connect_timeout": 2.0, "hello_timeout": 2.0, "ready_timeout": 2.0}

# Each answers the WebSocket handshake in a way that opens no connection.
REFUSALS: dict[str, Callable[[GatewayConnection], None]] = {
    "429": lambda it: it.refuse(429, headers={"Retry-After": "1"}),
    "502": lambda it: it.refuse(502, "<html><h1>502 Bad Gateway</h1></html>"),
    "503": lambda it: it.refuse(503),
    "520": lambda it: it.refuse(520, "<html>Web server returned an unknown error</html>"),
    "200": lambda it: it.refuse(200, "{}"),
    "redirect": lambda it: it.refuse(302, headers={"Location": "ws://127.0.0.1:1/"}),
    "wrong Sec-WebSocket-Accept": lambda it: it.accept_wrongly(),
    "garbage": lambda it: it.send_bytes(b"\x00\xffSSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "endless header": lambda it: it.send_bytes(b"HTTP/1.1 101 OK\r\nX: " + b"a" * 200_000),
    "reset": lambda it: it.reset(),
    "end": lambda it: it.drop(),
}


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("stall", STALLS)
def test_a_stalled_connection_attempt_is_given_up_and_the_next_succeeds(
    stall: str, tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 14: each phase of connecting has a deadline, which single bytes do not put off."""
    gateway = make_gateway(tls=tls)
    shard, recorder = watch_shard(gateway, **QUICK)
    STALLS[stall](gateway)

    gateway.connections[-1].reset()

    wait_until(lambda: recorder.count("reconnected") == 1, 15, "another session or RESUMED")
    assert len(gateway.all_connections) == 3  # the first, the stalled, the good one


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("stall", ["no TLS, no answer", "no 101", "101 a few bytes a second"])
def test_connect_raises_if_the_first_attempt_stalls(
    stall: str, tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 14: the error tells what was not done in time, and no thread is left."""
    gateway = make_gateway(tls=tls)
    shard, recorder = watch_shard(gateway, connect=False, connect_timeout=0.3)
    STALLS[stall](gateway)

    with pytest.raises(ConnectionFailed, match="not (done|finished) within|not done within"):
        shard.connect(gateway.url)

    assert shard.socket_thread is None
    assert recorder.life == []


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("stall", STALLS)
def test_disconnect_ends_a_stalled_attempt_at_once(
    stall: str, tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 5: disconnect() does not wait for the deadline of a phase, and no connection follows."""
    gateway = make_gateway(tls=tls)
    shard, recorder = watch_shard(gateway, close_timeout=NEVER)
    STALLS[stall](gateway)
    gateway.connections[-1].reset()
    wait_until(lambda: len(gateway.all_connections) == 2)

    began = time.monotonic()
    shard.disconnect()

    assert time.monotonic() - began < AT_ONCE  # connect_timeout is 10
    assert shard.socket_thread is None
    assert recorder.life[-1] == ("closed", None)
    assert len(gateway.all_connections) == 2


def test_disconnect_at_any_moment_of_connecting_is_final(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 5: of 60 shards closed between the first packet and READY, none connects afterwards."""
    for step in range(60):
        shard, _ = watch_shard(gateway, connect=False)
        connecting = threading.Thread(target=_connect_or_not, args=(shard, gateway.url))
        connecting.start()
        time.sleep(step / 60 * 0.012)  # the moment that this step tries
        shard.disconnect()
        connecting.join()
        # connect() may have begun after the first disconnect() had found nothing to close.
        shard.disconnect()
        assert shard.socket_thread is None
        count = len(gateway.all_connections)
    time.sleep(0.1)  # time in which a shard that is not closed would connect
    assert len(gateway.all_connections) == count
    gateway.wait_until(lambda: not gateway.connections)


def _connect_or_not(shard: Shard, url: str) -> None:
    try:
        shard.connect(url)
    except Exception:
        pass  # connect() raises if disconnect() comes meanwhile


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_attempt_that_fails_in_any_way_is_followed_by_the_next(
    refusal: str, tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 20: whatever the peer sends instead of 101, the shard resumes its session afterwards."""
    gateway = make_gateway(tls=tls)
    shard, recorder = watch_shard(gateway, connect_timeout=3.0)
    gateway.inject(REFUSALS[refusal], instead_of="upgrade", connections=3)

    gateway.connections[-1].reset()

    wait_until(lambda: recorder.count("reconnected", True) == 1, 15, "RESUMED")
    assert recorder.count("connected") == 2
    assert recorder.errors == []


def test_a_resolver_that_fails_is_asked_again(
    gateway: LocalGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 20: the resolver fails twenty times, in three ways, before it works again."""
    url = gateway.url.replace("127.0.0.1", "gateway.test")
    resolver = _Resolver(monkeypatch)
    shard, recorder = watch_shard(gateway, connect=False)
    shard.connect(url)
    shard.wait_until_ready(10)
    errors = (socket.gaierror(-2, "unknown"), socket.gaierror(-3, "try again"), OSError("odd"))
    resolver.failures = [errors[number % 3] for number in range(20)]

    shard.reinstantiate(no_fail=True)

    shard.wait_until_ready(10)
    assert resolver.failures == []
    assert recorder.count("connected") == 2


def test_connect_refuses_an_untrusted_certificate(
    make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 20: connect() tells why, and sends nothing to a peer that cannot prove who it is."""
    gateway = make_gateway(tls=True)
    shard, _ = watch_shard(gateway, connect=False, ssl_context=ssl.create_default_context())

    with pytest.raises(ConnectionFailed, match="certificate is not trusted"):
        shard.connect(gateway.url)

    assert gateway.all_connections == []


class _Resolver:
    """Stands in for the system's resolver, for names that end in ``.test``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures: list[OSError] = []
        self.addresses: list[str] = ["127.0.0.1"]
        #: Cleared while the resolver is stuck.
        self.answers = threading.Event()
        self.answers.set()
        real = socket.getaddrinfo

        def resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
            if not str(host).endswith(".test") or options.get("flags"):
                return real(host, port, *arguments, **options)
            self.answers.wait(30)
            if self.failures:
                raise self.failures.pop()
            return [entry for address in self.addresses for entry in real(address, port, type=1)]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_connect_reaches_the_good_address_behind_three_dead_ones(
    gateway: LocalGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 41: an address that never answers, one without a route, one that fails at once."""
    port = int(gateway.url.rstrip("/").rpartition(":")[2])
    with _black_hole("127.0.0.2", port):
        # 2001:db8::/32 is for documentation: no route leads there. 224.0.0.1 is for multicast:
        # the system refuses a connection to it there and then.
        resolver = _Resolver(monkeypatch)
        resolver.addresses = ["127.0.0.2", "2001:db8::1", "224.0.0.1", "127.0.0.1"]
        shard, _ = watch_shard(gateway, connect=False, connect_timeout=8.0)
        shard.connect(gateway.url.replace("127.0.0.1", "gateway.test"))
        shard.wait_until_ready(10)


@contextlib.contextmanager
def _black_hole(host: str, port: int) -> Iterator[None]:
    """Make an address that never answers: its backlog is full, so the system drops new packets."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


def test_connect_timeout_bounds_dialling_an_address_that_never_answers(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 14: TCP, the first phase of connecting, has a deadline as the others have."""
    port = int(gateway.url.rstrip("/").rpartition(":")[2])
    with _black_hole("127.0.0.2", port):
        shard, _ = watch_shard(gateway, connect=False, connect_timeout=0.3)
        began = time.monotonic()
        with pytest.raises(ConnectionFailed, match="not done within 0.3 seconds"):
            shard.connect(gateway.url.replace("127.0.0.1", "127.0.0.2"))

        assert time.monotonic() - began < AT_ONCE


def test_disconnect_does_not_wait_for_an_address_that_never_answers(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 5: disconnect() ends an attempt that the system would go on with for minutes."""
    port = int(gateway.url.rstrip("/").rpartition(":")[2])
    with _black_hole("127.0.0.2", port):
        shard, _ = watch_shard(gateway, connect=False, close_timeout=NEVER)
        url = gateway.url.replace("127.0.0.1", "127.0.0.2")
        connecting = threading.Thread(target=_connect_or_not, args=(shard, url))
        connecting.start()
        wait_until(lambda: shard.state is ShardState.CONNECTING)

        began = time.monotonic()
        shard.disconnect()

        assert time.monotonic() - began < AT_ONCE  # connect_timeout is 10
        assert shard.socket_thread is None
        connecting.join(10)


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_disconnect_between_dialling_and_the_handshake_is_final(
    tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 5: disconnect() comes when TCP is connected, before the dialler returns the socket."""
    gateway = make_gateway(tls=tls)
    gateway.inject(instead_of="accept")
    shard, _ = watch_shard(gateway, connect=False, close_timeout=NEVER)
    connect = Dialer._connect

    def connect_and_be_closed(dialer: Dialer, *arguments: Any) -> socket.socket:
        sock = connect(dialer, *arguments)
        closing.start()
        wait_until(lambda: dialer._given_up)
        return sock

    monkeypatch.setattr(Dialer, "_connect", connect_and_be_closed)
    closing = threading.Thread(target=shard.disconnect)
    began = time.monotonic()

    _connect_or_not(shard, gateway.url)
    closing.join()

    assert time.monotonic() - began < AT_ONCE  # connect_timeout is 10
    assert shard.socket_thread is None


def test_disconnect_does_not_wait_for_a_stuck_resolver(
    gateway: LocalGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 5: nothing can interrupt a resolver, so the shard leaves its thread behind."""
    resolver = _Resolver(monkeypatch)
    resolver.answers.clear()
    shard, _ = watch_shard(gateway, connect=False, close_timeout=NEVER)
    url = gateway.url.replace("127.0.0.1", "gateway.test")
    connecting = threading.Thread(target=_connect_or_not, args=(shard, url))
    connecting.start()
    wait_until(lambda: any("resolve" in each.name for each in threading.enumerate()))

    began = time.monotonic()
    shard.disconnect()

    assert time.monotonic() - began < AT_ONCE
    connecting.join(10)
    resolver.answers.set()
    assert gateway.all_connections == []


def test_ready_timeout_holds_after_an_identify_of_another_thread(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """The reader, which waits for its gate's next turn, has another deadline then."""

    user = threading.get_ident()

    class Gate:
        def try_acquire(self, shard_id: int) -> float:
            return 0.0 if threading.get_ident() == user else 30.0

    def script(peer: Peer) -> None:
        peer.accept()
        peer.hello()
        peer.serve()

    gateway = make_scripted(script)
    shard, _ = watch_shard(gateway, ready=False, identify_gate=Gate(), ready_timeout=0.5)
    wait_until(lambda: shard.heartbeat_interval is not None)  # and so the gate was asked
    shard.identify()
    gateway.peer(2, timeout=10)


def test_a_server_without_tls_is_told_from_a_bad_certificate(gateway: LocalGateway) -> None:
    shard = make_shard()
    with pytest.raises(ConnectionFailed, match="does not speak TLS there; is the port right"):
        shard.connect(gateway.url.replace("ws://", "wss://"))
