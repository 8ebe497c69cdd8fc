"""LocalGateway: start, stop, TLS, and the methods that tests wait with."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme
import websocket

from shardlib.testing import Clock, GatewayConnection, LocalGateway, tls
from tests.support import wait_until
from tests.testing.client import Client, connected


def test_start_and_stop_leave_no_thread() -> None:
    threads = threading.active_count()
    gateway = LocalGateway()
    for _ in range(3):
        assert gateway.start() is gateway
        with pytest.raises(RuntimeError, match="started already"):
            gateway.start()
        gateway.stop()
        gateway.stop()
        assert threading.active_count() == threads


@pytest.mark.parametrize("tls", [False, True])
def test_stop_ends_clients_in_every_state(tls: bool) -> None:
    gateway = LocalGateway(tls=tls, identify_interval=0).start()
    gateway.inject(instead_of="accept")
    sockets: list[Any] = []
    address = ("127.0.0.1", int(gateway.url.split(":")[2].strip("/")))
    for _ in range(3):  # one is held at accept, two send nothing
        sockets.append(socket.create_connection(address))
    gateway.wait_for_connection()
    clients = [Client(gateway) for _ in range(4)]
    for client in clients:
        client.ready()
    connections = gateway.connections[-4:]
    connections[0].freeze()
    connections[1].close(4000)
    connections[2].slow(1)
    gateway.dispatch("USER_UPDATE", {"padding": "x" * 5_000_000})
    gateway.traffic(rate=None)
    gateway.stop()
    assert gateway.connections == []
    for each in sockets:
        each.close()
    for client in clients:
        client.socket.shutdown()


def test_stop_closes_the_socket_of_a_client_that_is_being_accepted() -> None:
    """The task that serves the client has not begun yet, and so cannot close the socket."""
    busy, release = threading.Event(), threading.Event()

    def occupy(connection: GatewayConnection) -> None:
        busy.set()
        release.wait(10)

    gateway = LocalGateway().start()
    gateway.inject(occupy, instead_of="accept")
    address = ("127.0.0.1", int(gateway.url.split(":")[2].strip("/")))
    with socket.create_connection(address):
        assert busy.wait(10)
        # The client and the request to stop now wait for the gateway's thread.
        client = socket.create_connection(address)
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        wait_until(lambda: "join" in functions_of(stopping))
        release.set()
        stopping.join(10)
        assert client.recv(1) == b""
        client.close()


def functions_of(thread: threading.Thread) -> list[str]:
    """The names of the functions on a thread's stack."""
    assert thread.ident is not None
    stack = traceback.extract_stack(sys._current_frames().get(thread.ident))
    return [frame.name for frame in stack]


def test_a_stopped_gateway_refuses_to_send(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        local_gateway.stop()
        with pytest.raises(ConnectionError):
            connection.reconnect()
        connection.close()
        connection.reset()
        connection.drop()
        # The session can still be resumed, so it keeps the event.
        assert local_gateway.dispatch("USER_UPDATE", {}) == 1


def test_a_chosen_port_is_listened_on_or_refused_when_taken() -> None:
    with LocalGateway() as gateway:
        port = int(gateway.url.split(":")[2].strip("/"))
        with pytest.raises(OSError):
            LocalGateway(port=port).start()
    with LocalGateway(port=port) as gateway:
        assert gateway.url == f"ws://127.0.0.1:{port}/"


def test_clients_that_trust_the_private_authority_connect_over_tls() -> None:
    with LocalGateway(tls=True) as gateway, connected(gateway) as client:
        assert gateway.url.startswith("wss://")
        ready = client.ready()
        assert ready["resume_gateway_url"].startswith("wss://")
        with connected(gateway, resume_url=True) as other:
            other.receive()
        assert gateway.ca_certificate.startswith(b"-----BEGIN CERTIFICATE-----")


def test_threads_that_ask_at_once_get_the_same_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    for made_once in (tls._make_authority, tls.server_context, tls.client_context):
        made_once.cache_clear()
    made = trustme.CA
    # While one thread makes the authority, the others have time to begin, too.
    monkeypatch.setattr(trustme, "CA", lambda: (time.sleep(0.1), made())[1])
    with ThreadPoolExecutor(4) as pool:
        authorities = list(pool.map(lambda _: tls.authority(), range(4)))
    assert all(each is authorities[0] for each in authorities)


def test_clients_that_do_not_trust_the_private_authority_refuse_the_gateway() -> None:
    with LocalGateway(tls=True) as gateway:
        with pytest.raises(ssl.SSLCertVerificationError):
            Client(gateway, sslopt={"context": ssl.create_default_context()})
        with connected(gateway) as client:  # the gateway serves other clients
            client.ready()


def test_ssl_context_and_ca_certificate_need_tls(local_gateway: LocalGateway) -> None:
    with pytest.raises(ValueError, match="tls=True"):
        _ = local_gateway.ssl_context
    with pytest.raises(ValueError, match="tls=True"):
        _ = local_gateway.ca_certificate


@pytest.mark.parametrize(
    "option",
    [
        {"heartbeat_interval": 0},
        {"guilds": -1},
        {"members": -1},
        {"shards": 0},
        {"max_concurrency": 0},
        {"replay_limit": -1},
    ],
)
def test_options_out_of_range_are_refused_by_name(option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        LocalGateway(**option)  # type: ignore[arg-type]


def test_wait_for_connection_returns_each_connection_once(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as first, connected(local_gateway) as second:
        for client in (first, second):
            client.receive()
        one = local_gateway.wait_for_connection()
        two = local_gateway.wait_for_connection()
        assert [one, two] == local_gateway.connections
        with pytest.raises(TimeoutError, match="waited 0.01 seconds in vain for a connection"):
            local_gateway.wait_for_connection(timeout=0.01)
        first.leave()
        one.wait_closed()
        assert local_gateway.connections == [two]
        assert local_gateway.all_connections == [one, two]


def test_wait_for_connection_returns_the_one_that_fulfils_the_condition(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as idle, connected(local_gateway) as client:
        idle.receive()
        thread = threading.Thread(target=client.ready)
        thread.start()
        found = local_gateway.wait_for_connection(lambda connection: connection.session)
        assert found is local_gateway.all_connections[1]
        thread.join()


def test_expect_returns_each_payload_once_and_in_order(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        for sequence in range(3):
            client.send(1, sequence)
        assert [connection.expect(1)["d"] for _ in range(3)] == [0, 1, 2]
        assert connection.expect(2)["d"]["token"] == local_gateway.token
        with pytest.raises(TimeoutError, match="HEARTBEAT"):
            connection.expect(1, timeout=0.01)
        assert [local_gateway.expect(1)["d"] for _ in range(3)] == [0, 1, 2]
        with pytest.raises(TimeoutError, match="op 99"):
            local_gateway.expect(99, timeout=0.01)


def test_expect_on_a_connection_that_ended_raises_with_its_close_code(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        client.receive()
        connection = local_gateway.wait_for_connection()
        client.leave(4321)
    with pytest.raises(ConnectionError, match="4321"):
        connection.expect(2)
    with pytest.raises(ConnectionError):
        connection.wait_until_ready()


def test_waits_of_gateway_and_connection_raise_timeout_error(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.receive()
        connection = local_gateway.wait_for_connection()
        with pytest.raises(TimeoutError):
            connection.wait_closed(timeout=0.01)
        with pytest.raises(TimeoutError):
            connection.wait_until_ready(timeout=0.01)
        with pytest.raises(TimeoutError):
            local_gateway.wait_until(lambda: False, timeout=0.01)


def test_a_gateway_counts_its_events_and_bytes(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        local_gateway.dispatch("USER_UPDATE", {})
        client.receive()
        connection = local_gateway.connections[0]
        assert local_gateway.events_dispatched == 1
        assert local_gateway.bytes_sent == connection.bytes_sent > 10_000
        assert local_gateway.bytes_received == connection.bytes_received > 200
        assert connection.headers["host"] in local_gateway.url


def test_events_kept_for_an_absent_client_are_not_counted(local_gateway: LocalGateway) -> None:
    """Row 98: a gateway without clients told ten events a second."""
    with connected(local_gateway) as client:
        client.ready()
        local_gateway.dispatch("USER_UPDATE", {})
    local_gateway.wait_until(lambda: not local_gateway.connections)
    assert local_gateway.dispatch("USER_UPDATE", {}) == 1  # the session may be resumed
    assert local_gateway.events_dispatched == 1


def test_two_gateways_can_share_a_clock() -> None:
    clock = Clock()
    with (
        LocalGateway(clock=clock, heartbeat_interval=1000) as one,
        LocalGateway(clock=clock, heartbeat_interval=1000) as other,
    ):
        with connected(one) as first, connected(other) as second:
            first.ready()
            second.ready()
            clock.advance(10)
            assert first.close_code() == second.close_code() == 4000


def test_a_clock_runs_and_never_goes_back() -> None:
    clock = Clock()
    before = clock()
    clock.advance(100)
    assert clock() >= before + 100
    assert clock() - time.monotonic() == pytest.approx(100, abs=15)  # a busy machine's
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


def test_frames_are_not_logged(
    local_gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    with connected(local_gateway) as client:
        client.ready()
    assert local_gateway.token not in caplog.text
    assert "heartbeat_interval" not in caplog.text


def test_events_from_many_threads_arrive_whole_and_in_order() -> None:
    with LocalGateway(tls=True) as gateway, connected(gateway) as client:
        client.ready()

        def send(thread: int) -> None:
            for number in range(200):
                gateway.dispatch("USER_UPDATE", [thread, number])

        threads = [threading.Thread(target=send, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        payloads = [client.receive() for _ in range(800)]
        for thread in threads:
            thread.join()
        assert [payload["s"] for payload in payloads] == list(range(5, 805))
        for index in range(4):
            mine = [each["d"][1] for each in payloads if each["d"][0] == index]
            assert mine == list(range(200))


def test_a_client_that_speaks_no_http_gets_status_400(local_gateway: LocalGateway) -> None:
    address = ("127.0.0.1", int(local_gateway.url.split(":")[2].strip("/")))
    with socket.create_connection(address, timeout=15) as client:
        client.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        answer = b""
        while piece := client.recv(1000):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_handshake_without_a_key_gets_status_400(local_gateway: LocalGateway) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        Client(local_gateway, header=["Sec-WebSocket-Key: short"])
    assert caught.value.status_code == 400
