"""The faults of a local gateway: what a test can make it do wrong."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import websocket

from shardlib.testing import STEPS, GatewayConnection, LocalGateway
from tests.support import not_none, wait_until
from tests.testing.client import Client, connected


def raw_socket(gateway: LocalGateway) -> socket.socket:
    """A TCP connection to the gateway, without a handshake."""
    address = urlsplit(gateway.url)
    assert address.hostname is not None and address.port is not None
    return socket.create_connection((address.hostname, address.port), timeout=15)


def silent(client: socket.socket, seconds: float = 0.1) -> bool:
    """True if no byte arrives for some seconds, which is what the tests of stalls are about."""
    client.settimeout(seconds)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    return False


REQUEST = (
    b"GET /?v=10&encoding=json HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize("tls", [False, True])
def test_a_stall_after_accept_sends_nothing_and_holds_up_no_other_client(tls: bool) -> None:
    with LocalGateway(tls=tls) as gateway:
        gateway.inject(instead_of="accept")
        with raw_socket(gateway) as client:
            client.sendall(REQUEST)
            connection = gateway.wait_for_connection()
            assert silent(client)
            assert connection.url == ""
        connection.wait_closed()
        with connected(gateway) as healthy:  # the fault was for one connection
            healthy.ready()


def test_bytes_in_place_of_tls_fail_the_clients_handshake() -> None:
    with LocalGateway(tls=True) as gateway:
        gateway.inject(lambda it: it.send_bytes(b"this is no TLS"), instead_of="accept")
        with pytest.raises(OSError):
            Client(gateway)


def test_a_stall_before_101_withholds_the_upgrade_until_proceed(
    local_gateway: LocalGateway,
) -> None:
    local_gateway.inject(instead_of="upgrade")
    with raw_socket(local_gateway) as client:
        client.sendall(REQUEST)
        connection = local_gateway.wait_for_connection()
        assert silent(client)
        assert connection.query == {"v": "10", "encoding": "json"}
        connection.proceed()
        client.settimeout(15)
        assert client.recv(12) == b"HTTP/1.1 101"


def test_a_stall_before_hello_withholds_hello_until_proceed(local_gateway: LocalGateway) -> None:
    local_gateway.inject(instead_of="hello")
    with connected(local_gateway) as client:
        client.nothing_more()
        local_gateway.wait_for_connection().proceed()
        assert client.receive()["op"] == 10


def test_identify_stays_unanswered_until_proceed(local_gateway: LocalGateway) -> None:
    local_gateway.inject(instead_of="ready")
    with connected(local_gateway) as client:
        client.receive()
        client.identify()
        client.nothing_more()
        connection = local_gateway.wait_for_connection()
        connection.expect(2)
        assert connection.session is None
        connection.proceed()
        client.event("READY")
        assert connection.wait_until_ready() is connection.session


def test_a_gateway_that_acknowledges_no_heartbeats_dispatches_all_the_same(
    local_gateway: LocalGateway,
) -> None:
    local_gateway.inject(instead_of="ack")
    with connected(local_gateway) as client:
        client.ready()
        for sequence in range(2):
            client.send(1, sequence)
        connection = local_gateway.wait_for_connection()
        assert [connection.expect(1)["d"] for _ in range(2)] == [0, 1]
        local_gateway.dispatch("USER_UPDATE", {})
        client.event("USER_UPDATE")
        connection.proceed()
        assert [client.receive()["op"] for _ in range(2)] == [11, 11]


def test_acknowledge_can_be_switched_off_and_on(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        connection.acknowledge = False
        client.send(1, None)
        connection.expect(1)
        connection.acknowledge = True
        client.nothing_more()


def test_a_close_frame_stays_unanswered_with_the_connection_open(
    local_gateway: LocalGateway,
) -> None:
    local_gateway.inject(instead_of="close")
    with connected(local_gateway) as client:
        client.ready()
        client.socket.send_close(4000)
        connection = local_gateway.wait_for_connection()
        local_gateway.wait_until(lambda: connection.close_code == 4000)
        assert silent(client.raw_socket)
        assert not connection.is_closed


@pytest.mark.parametrize("tls", [False, True])
def test_linger_answers_a_close_and_leaves_tcp_open(tls: bool) -> None:
    with LocalGateway(tls=tls, close_timeout=60) as gateway:
        gateway.inject(GatewayConnection.linger, before="close")
        with connected(gateway) as client:
            client.ready()
            client.socket.send_close(4000)
            assert client.close_code() == 4000
            connection = gateway.wait_for_connection()
            gateway.clock.advance(1000)
            assert silent(client.raw_socket)
            assert not connection.is_closed
        connection.wait_closed()


def test_linger_is_over_after_its_time(local_gateway: LocalGateway) -> None:
    local_gateway.inject(lambda it: it.linger(20), before="close")
    with connected(local_gateway) as client:
        client.ready()
        client.socket.send_close(4000)
        assert client.close_code() == 4000
        local_gateway.clock.advance(19)
        assert silent(client.raw_socket)
        local_gateway.clock.advance(1)
        client.raw_socket.settimeout(15)
        assert client.raw_socket.recv(1) == b""


def test_linger_after_a_close_of_the_gateway_until_it_is_dropped(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        connection.linger()
        connection.close(4000)
        assert client.close_code() == 4000  # websocket-client answers
        local_gateway.wait_until(lambda: connection.close_code)
        local_gateway.clock.advance(local_gateway.close_timeout)
        assert silent(client.raw_socket)
        connection.drop()
        client.raw_socket.settimeout(15)
        assert client.raw_socket.recv(1) == b""


@pytest.mark.parametrize(
    "order", [lambda it: it.linger(-1), lambda it: it.proceed(after=-1), lambda it: it.slow(0)]
)
def test_a_fault_with_an_impossible_time_is_refused(
    local_gateway: LocalGateway, order: Callable[[GatewayConnection], None]
) -> None:
    with connected(local_gateway):
        with pytest.raises(ValueError):
            order(local_gateway.wait_for_connection())


@pytest.mark.parametrize("status", [429, 502, 520])
def test_refuse_answers_with_its_http_status_headers_and_body(
    local_gateway: LocalGateway, status: int
) -> None:
    local_gateway.inject(
        lambda it: it.refuse(status, "<html>no</html>", {"Retry-After": "3"}),
        instead_of="upgrade",
    )
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        Client(local_gateway)
    assert caught.value.status_code == status
    assert not_none(caught.value.resp_headers)["retry-after"] == "3"
    assert caught.value.resp_body == b"<html>no</html>"
    assert len(local_gateway.all_connections) == 1


def test_accept_wrongly_fails_the_clients_handshake(local_gateway: LocalGateway) -> None:
    local_gateway.inject(GatewayConnection.accept_wrongly, instead_of="upgrade")
    with pytest.raises(websocket.WebSocketException):
        Client(local_gateway)


def test_garbage_in_place_of_101_fails_the_clients_handshake(local_gateway: LocalGateway) -> None:
    def garbage(connection: GatewayConnection) -> None:
        connection.send_bytes(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
        connection.drop()

    local_gateway.inject(garbage, instead_of="upgrade")
    with pytest.raises((websocket.WebSocketException, ValueError)):
        Client(local_gateway)


def test_slow_sends_101_in_small_pieces(local_gateway: LocalGateway) -> None:
    local_gateway.inject(lambda it: it.slow(100), before="upgrade")
    with raw_socket(local_gateway) as client:
        begun = time.monotonic()
        client.sendall(REQUEST)
        pieces: list[bytes] = []
        while len(b"".join(pieces)) < 100:
            pieces.append(client.recv(1000))
        assert b"".join(pieces).startswith(b"HTTP/1.1 101 ")
        # On a busy machine some pieces come together, and all may take longer, but never less.
        assert min(map(len, pieces)) <= 10
        assert time.monotonic() - begun > 0.5


def test_op_7_can_be_the_first_frame(local_gateway: LocalGateway) -> None:
    local_gateway.inject(GatewayConnection.reconnect, instead_of="hello")
    with connected(local_gateway) as client:
        assert client.receive() == {"t": None, "s": None, "op": 7, "d": None}
        client.nothing_more()


def test_op_1_can_come_before_ready(local_gateway: LocalGateway) -> None:
    local_gateway.inject(GatewayConnection.request_heartbeat, before="ready")
    with connected(local_gateway) as client:
        client.receive()
        client.identify()
        assert client.receive()["op"] == 1
        client.event("READY")


def test_a_close_before_ready_has_its_code_and_reason(local_gateway: LocalGateway) -> None:
    local_gateway.inject(lambda it: it.close(4000, "why not"), before="ready")
    with connected(local_gateway) as client:
        client.receive()
        client.identify()
        closed = client.closed()
        assert (closed.code, closed.reason) == (4000, "why not")


def test_a_close_frame_can_have_no_code(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        local_gateway.wait_for_connection().close(None)
        assert client.close_code() is None


def test_drop_sends_what_waits_and_then_fin(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        local_gateway.dispatch("USER_UPDATE", {"padding": "x" * 1_000_000})
        connection.drop()
        client.event("USER_UPDATE")
        assert client.raw_socket.recv(1) == b""
        assert connection.wait_closed() is None
        assert local_gateway.sessions[0].connection is None


def test_reset_sends_rst(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        connection.reset()
        with pytest.raises(ConnectionResetError):
            client.raw_socket.recv(1)
        connection.wait_closed()


def test_a_frozen_connection_is_a_black_hole_until_it_thaws(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        connection.freeze()
        client.send(1, None)
        local_gateway.dispatch("USER_UPDATE", {})
        assert silent(client.raw_socket)
        assert connection.received[1:] == []
        connection.thaw()
        client.socket.settimeout(15)
        assert {client.receive()["t"] for _ in range(2)} == {"USER_UPDATE", None}
        connection.expect(1)


def test_a_gateway_that_reads_nothing_blocks_the_sender() -> None:
    with LocalGateway(receive_buffer=4096) as gateway:
        options = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)]
        with connected(gateway, sockopt=options) as client:
            client.ready()
            gateway.connections[0].stop_reading()
            client.socket.settimeout(0.2)
            with pytest.raises((TimeoutError, websocket.WebSocketTimeoutException)):
                for _ in range(1000):
                    client.send(3, {"padding": "x" * 4000})
            client.socket.settimeout(15)
            gateway.dispatch("USER_UPDATE", {})  # the gateway still sends
            client.event("USER_UPDATE")


def test_sending_to_a_tls_client_that_left_unread_warns_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with LocalGateway(tls=True, identify_interval=0) as gateway:
        with connected(gateway) as client:
            client.ready()
            connection = gateway.wait_for_connection()
            connection.stop_reading()
        with connected(gateway) as other:
            other.ready()  # by now the gateway has seen the end of the first connection
            for _ in range(20):
                assert gateway.dispatch("USER_UPDATE", {}) == 2
                other.event("USER_UPDATE")
        assert not connection.is_closed
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def frame_of(send: Callable[[GatewayConnection], None], gateway: LocalGateway) -> bytes:
    with connected(gateway) as client:
        client.ready()
        send(gateway.wait_for_connection())
        data: bytes = client.raw_socket.recv(1 << 20)
        return data


@pytest.mark.parametrize(
    ("send", "expected"),
    [
        (lambda it: it.send_frame(1, b"hi", masked=True), b"\x81\x82\0\0\0\0hi"),
        (lambda it: it.send_frame(2, b"hi", fin=False), b"\x02\x02hi"),
        (lambda it: it.send_frame(9, b"x" * 126), b"\x89\x7e\x00\x7e" + b"x" * 126),
        (lambda it: it.send_frame(3, reserved=True), b"\xc3\x00"),
        (lambda it: it.send_frame(2, b"x" * 65536), b"\x82\x7f" + struct.pack("!Q", 65536)),
        (lambda it: it.send_bytes(b"\x82\x7e\xff"), b"\x82\x7e\xff"),
        (lambda it: it.send_raw("text"), b"\x81\x04text"),
        (lambda it: it.send_raw(b"\xff"), b"\x82\x01\xff"),
        (lambda it: it.send_raw("\ud800"), b"\x81\x03\xed\xa0\x80"),
    ],
    ids=[
        "masked",
        "first fragment",
        "long ping",
        "unknown opcode",
        "64-bit length",
        "half a frame",
        "text",
        "bytes",
        "lone surrogate",
    ],
)
def test_send_methods_of_a_connection_write_the_exact_bytes(
    local_gateway: LocalGateway, send: Callable[[GatewayConnection], None], expected: bytes
) -> None:
    assert frame_of(send, local_gateway).startswith(expected)


def test_a_bomb_inflates_and_a_corrupt_stream_does_not(local_gateway: LocalGateway) -> None:
    with connected(local_gateway, query="?v=10&encoding=json&compress=zlib-stream") as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        connection.send_bomb(10_000_000)
        _, bomb = client.message()
        assert len(bomb) < 20_000
        assert len(json.loads(client.inflater.decompress(bomb))["d"]) == 10_000_000
        connection.send_compressed('{"op":')
        assert client.inflater.decompress(client.message()[1]) == b'{"op":'
        connection.send_corrupt()
        with pytest.raises(zlib.error):
            client.inflater.decompress(client.message()[1])


def test_a_fault_strikes_as_many_connections_as_ordered_until_cleared(
    local_gateway: LocalGateway,
) -> None:
    local_gateway.identify_interval = 0
    local_gateway.inject(lambda it: it.close(4000), instead_of="hello", connections=2)
    for _ in range(2):
        with connected(local_gateway) as client:
            assert client.close_code() == 4000
    with connected(local_gateway) as client:
        client.ready()
    local_gateway.inject(instead_of="hello", connections=None)
    local_gateway.clear_faults()
    with connected(local_gateway) as client:
        client.ready()


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"before": "hello", "instead_of": "ready"},
        {"before": "lunch"},
        {"before": "hello"},
        {"instead_of": "hello", "connections": 0},
        {"action": GatewayConnection.reset, "before": "accept"},
    ],
)
def test_inject_refuses_an_impossible_order(
    local_gateway: LocalGateway, order: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        local_gateway.inject(**order)


def test_inject_takes_every_step(local_gateway: LocalGateway) -> None:
    for step in STEPS:
        local_gateway.inject(instead_of=step)


def test_an_outage_resets_clients_and_refuses_new_ones_until_it_is_ended(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
        local_gateway.outage()
        with pytest.raises(ConnectionResetError):
            client.raw_socket.recv(1)
    local_gateway.wait_for_connection().wait_closed()
    with pytest.raises(ConnectionRefusedError):
        raw_socket(local_gateway)
    url = local_gateway.url
    local_gateway.restore()
    client = wait_for_client(local_gateway)
    assert local_gateway.url == url
    client.resume(session_id, 4)
    client.event("RESUMED")
    client.socket.shutdown()


def test_an_outage_ends_after_its_seconds(local_gateway: LocalGateway) -> None:
    local_gateway.outage(seconds=60)
    with pytest.raises(ConnectionRefusedError):
        while True:
            raw_socket(local_gateway).close()
    local_gateway.clock.advance(60)
    wait_for_client(local_gateway).socket.shutdown()


def wait_for_client(gateway: LocalGateway) -> Client:
    """Connect as soon as the gateway accepts connections."""
    clients: list[Client] = []

    def connect() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            clients.append(Client(gateway))
        return bool(clients)

    wait_until(connect, what="a gateway that listens")
    return clients[0]


def test_an_action_that_raises_is_logged(
    local_gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(connection: GatewayConnection) -> None:
        raise RuntimeError("a bug in a test")

    local_gateway.inject(fail, before="hello")
    with pytest.raises((websocket.WebSocketException, OSError)), connected(local_gateway) as client:
        client.receive()
    assert "a bug in a test" in caplog.text


@pytest.mark.parametrize("code", [4004, 4010, 4011])
@pytest.mark.local_gateway(identify_interval=0)
def test_a_fault_of_a_shard_strikes_that_shard_alone(
    local_gateway: LocalGateway, code: int
) -> None:
    local_gateway.inject(lambda it: it.close(code), instead_of="ready", shard_id=1)
    with connected(local_gateway) as client:
        client.ready(shard=[0, 3])
    with connected(local_gateway) as client:
        client.receive()
        client.identify(shard=[1, 3])
        assert client.close_code() == code
    with connected(local_gateway) as client:
        session_id = client.ready(shard=[1, 3])["session_id"]
    local_gateway.inject(lambda it: it.close(code), before="replay", shard_id=1)
    with connected(local_gateway) as client:
        client.ready(shard=[2, 3])
    with connected(local_gateway) as client:
        client.resume(session_id, 1)
        assert client.close_code() == code


@pytest.mark.local_gateway(identify_interval=0)
def test_a_fault_of_a_shard_counts_a_connection_once(local_gateway: LocalGateway) -> None:
    local_gateway.inject(
        lambda it: it.invalid_session(), instead_of="ready", shard_id=1, connections=2
    )
    for answer in (9, 9, 0):
        with connected(local_gateway) as client:
            client.receive()
            for _ in range(2 if answer == 9 else 1):
                client.identify(shard=[1, 2])
                assert client.receive()["op"] == answer


@pytest.mark.parametrize(
    ("step", "shard_id", "says"),
    [("hello", 1, "does not know yet which shard"), ("ready", -1, "at least 0, not -1")],
)
def test_a_fault_of_a_shard_that_could_never_strike_is_refused(
    local_gateway: LocalGateway, step: str, shard_id: int, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        local_gateway.inject(instead_of=step, shard_id=shard_id)


def test_an_action_that_cannot_be_called_is_refused(local_gateway: LocalGateway) -> None:
    with pytest.raises(TypeError, match="action must be a function of the connection.* not 500"):
        local_gateway.inject(500, instead_of="answer")  # type: ignore[arg-type]


def test_a_test_that_sees_the_connection_can_let_hello_proceed(
    local_gateway: LocalGateway,
) -> None:
    """The step must have been reached by then: otherwise proceed() would find nothing to take."""
    for _ in range(20):
        local_gateway.inject(instead_of="hello")
        with connected(local_gateway) as client:
            local_gateway.wait_for_connection().proceed()
            assert client.receive()["op"] == 10
