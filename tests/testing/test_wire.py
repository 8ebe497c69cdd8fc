"""How a local gateway sends payloads (compression, messages, fragments) and reads frames."""

from __future__ import annotations

import json
import select
import socket
import zlib
from typing import Any

import pytest
import websocket

from shardlib.compression import import_zstd
from shardlib.testing import LocalGateway
from tests.support import not_none
from tests.testing.client import connected

STREAM = "?v=10&encoding=json&compress={}-stream"


def test_messages_of_a_zlib_stream_share_one_context(local_gateway: LocalGateway) -> None:
    with connected(local_gateway, query=STREAM.format("zlib")) as client:
        client.ready()
        for number in range(3):
            local_gateway.dispatch("USER_UPDATE", {"number": number, "padding": "abc" * 100})
        sizes = []
        for number in range(3):
            opcode, data = client.message()
            assert opcode == websocket.ABNF.OPCODE_BINARY
            assert data.endswith(b"\x00\x00\xff\xff")
            sizes.append(len(data))
            assert json.loads(client.inflater.decompress(data))["d"]["number"] == number
        assert sizes[2] < sizes[0]  # the shared context already holds the padding
        assert local_gateway.connections[0].compression == "zlib-stream"


def test_messages_of_a_zstd_stream_are_one_frame(local_gateway: LocalGateway) -> None:
    stream = import_zstd().ZstdDecompressor()
    with connected(local_gateway, query=STREAM.format("zstd")) as client:
        _, data = client.message()
        assert json.loads(stream.decompress(data))["op"] == 10
        client.identify()
        for event in ("READY", "GUILD_CREATE", "GUILD_CREATE", "GUILD_CREATE"):
            _, data = client.message()
            assert json.loads(stream.decompress(data))["t"] == event
        assert not stream.eof


def test_payload_compression_compresses_only_large_payloads(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.receive()
        client.identify(compress=True)
        opcode, data = client.message()
        assert opcode == websocket.ABNF.OPCODE_TEXT  # READY of three guilds is not large
        ready = json.loads(data)
        opcode, data = client.message()
        assert opcode == websocket.ABNF.OPCODE_BINARY
        assert json.loads(zlib.decompress(data))["t"] == "GUILD_CREATE"
        client.event("GUILD_CREATE")
        client.event("GUILD_CREATE")
        client.send(1, None)
        assert client.message()[0] == websocket.ABNF.OPCODE_TEXT
    with connected(local_gateway) as client:
        client.resume(ready["d"]["session_id"], 1)
        assert client.message()[0] == websocket.ABNF.OPCODE_BINARY


def test_transport_compression_turns_payload_compression_off(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway, query=STREAM.format("zlib")) as client:
        client.ready(compress=True)
        assert local_gateway.connections[0].compression == "zlib-stream"


def test_split_messages_cuts_a_payload_into_several_messages(local_gateway: LocalGateway) -> None:
    with connected(local_gateway, query=STREAM.format("zlib")) as client:
        client.ready()
        local_gateway.connections[0].split_messages(20)
        local_gateway.dispatch("USER_UPDATE", {"numbers": list(range(100))})
        pieces = [client.message()[1]]
        while not pieces[-1].endswith(b"\x00\x00\xff\xff"):
            pieces.append(client.message()[1])
        assert len(pieces) > 5
        assert pieces[-1] == b"\x00\x00\xff\xff"
        assert max(map(len, pieces)) == 20
        payload = json.loads(client.inflater.decompress(b"".join(pieces)))
        assert payload["d"]["numbers"] == list(range(100))


def test_fragment_messages_ends_with_an_empty_fragment(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        local_gateway.connections[0].fragment_messages(20)
        local_gateway.dispatch("USER_UPDATE", {"numbers": list(range(100))})
        frames = [client.socket.recv_frame()]
        while not frames[-1].fin:
            frames.append(client.socket.recv_frame())
        assert [frame.opcode for frame in frames] == [1, *[0] * (len(frames) - 1)]
        assert frames[-1].data == b""
        payload = json.loads(b"".join(frame.data for frame in frames))
        assert payload["d"]["numbers"] == list(range(100))


def test_a_fragmented_message_of_a_client_is_understood(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.receive()
        abnf = websocket.ABNF
        client.socket.send_frame(abnf.create_frame('{"op":', abnf.OPCODE_TEXT, 0))
        client.socket.ping("between fragments")
        client.socket.send_frame(abnf.create_frame('1,"d":', abnf.OPCODE_CONT, 0))
        client.socket.send_frame(abnf.create_frame("null}", abnf.OPCODE_CONT, 1))
        pong = client.socket.recv_frame()
        assert (pong.opcode, pong.data) == (abnf.OPCODE_PONG, b"between fragments")
        assert client.receive()["op"] == 11


def test_a_message_that_is_far_too_large_is_closed_with_1009(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.receive()
        client.socket.send("x" * (2 << 20))
        assert client.close_code() == 1009


def test_101_and_hello_are_written_one_after_the_other() -> None:
    # OpenSSL reads one record at a time, and each write is a record of its own.
    with LocalGateway(tls=True) as gateway:
        port = int(gateway.url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as plain:
            with gateway.ssl_context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
                client.sendall(
                    b"GET /?v=10&encoding=json HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                answer = client.recv(1 << 16)
                assert answer.startswith(b"HTTP/1.1 101 ")
                assert answer.endswith(b"\r\n\r\n")
                assert b'"heartbeat_interval"' in client.recv(1 << 16)


def text_frame(opcode: int, data: Any) -> bytes:
    payload = json.dumps({"op": opcode, "d": data})
    return websocket.ABNF.create_frame(payload, websocket.ABNF.OPCODE_TEXT).format()


def close_frame(code: int) -> bytes:
    reason = code.to_bytes(2, "big")
    return websocket.ABNF.create_frame(reason, websocket.ABNF.OPCODE_CLOSE).format()


PRESENCE = {"status": "dnd", "afk": False, "since": None, "activities": []}


@pytest.mark.parametrize("payloads", [1, 3])
def test_payloads_that_arrive_together_with_a_close_are_carried_out(
    local_gateway: LocalGateway, payloads: int
) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        frames = [text_frame(3, {**PRESENCE, "since": number}) for number in range(payloads)]
        client.raw_socket.sendall(b"".join(frames) + close_frame(4000))
        assert client.close_code() == 4000
        session = not_none(local_gateway.sessions[0])
        assert [each["d"]["since"] for each in connection.received[-payloads:]] == [
            *range(payloads)
        ]
        assert not_none(session.presence)["since"] == payloads - 1


def test_an_identify_that_arrives_together_with_a_close_begins_a_session_to_be_resumed(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        client.receive()
        identify = {"token": local_gateway.token, "intents": 1, "properties": {}}
        client.raw_socket.sendall(text_frame(2, identify) + close_frame(4000))
        assert client.close_code() == 4000
    (session,) = local_gateway.sessions
    with connected(local_gateway) as client:
        client.resume(session.session_id, 0)
        client.event("READY")


def test_payloads_that_arrive_after_a_close_of_the_gateway_are_ignored(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        connection.close(4000)
        # The client has the CLOSE frame. If it read the frame, it would answer it first.
        assert client.raw_socket.recv(1, socket.MSG_PEEK)
        client.raw_socket.sendall(text_frame(3, PRESENCE) + close_frame(4000))
        connection.wait_closed()
        assert [each["op"] for each in connection.received] == [2]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("ending", [b"", close_frame(4000)], ids=["no close", "close"])
def test_payloads_sent_just_before_the_socket_is_closed_are_received(
    tls: bool, ending: bytes
) -> None:
    with LocalGateway(tls=tls) as gateway, connected(gateway) as client:
        client.ready()
        connection = gateway.wait_for_connection()
        # With something unread, the client's system answers what the gateway writes with RST.
        gateway.dispatch("USER_UPDATE", {})
        select.select([client.raw_socket], [], [])

        def send_and_close() -> bool:
            # The gateway's thread waits meanwhile, to write before it reads.
            gateway.dispatch("USER_UPDATE", {})
            client.raw_socket.sendall(text_frame(3, PRESENCE) * 2 + ending)
            client.raw_socket.close()
            return True

        gateway.wait_until(send_and_close)
        connection.wait_closed()
        assert [each["op"] for each in connection.received] == [2, 3, 3]
