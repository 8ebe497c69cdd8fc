"""HTTP/1.1 as such: connections that stay, bodies in pieces, paths, tokens, and odd bytes."""

from __future__ import annotations

import email.utils
import json
import logging
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from shardlib.testing import Channel, LocalGateway
from tests.testing.client import connected
from tests.testing.rest import Rest


@contextmanager
def raw(gateway: LocalGateway) -> Iterator[socket.socket]:
    """A TCP connection to a gateway."""
    port = urllib.parse.urlsplit(gateway.url).port
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        yield client


def read_response(client: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next response, which has a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(4096)
        assert piece, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    lengths = [line[15:] for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"]
    length = int(lengths[0]) if lengths else 0
    while len(body) < length:
        body += client.recv(4096)
    assert len(body) == length, body
    return status, body


def test_a_connection_carries_many_requests(local_gateway: LocalGateway) -> None:
    with raw(local_gateway) as client:
        for _ in range(3):
            client.sendall(b"GET /api/v10/gateway HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_response(client)[0] == 200


def test_each_response_tells_the_time(rest: Rest) -> None:
    """shardlib doctor compares it with this computer's clock."""
    date = rest.send("GET", "/gateway").headers["Date"]
    told = email.utils.parsedate_to_datetime(date).timestamp()
    assert abs(told - time.time()) < 60


def test_what_follows_a_response_does_not_change_its_status(local_gateway: LocalGateway) -> None:
    with raw(local_gateway) as client:
        for data, status in (
            (b"GET /api/v10/gateway HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            (b"NONSENSE\r\n\r\n", 400),
        ):
            client.sendall(data)
            assert read_response(client)[0] == status
    assert [request.status for request in local_gateway.requests] == [200]


@pytest.mark.local_gateway(rate_limits=False)
def test_requests_sent_at_once_are_answered_in_order(local_gateway: LocalGateway) -> None:
    with raw(local_gateway) as client:
        client.sendall(
            b"GET /api/v10/gateway HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /api/v10/nothing HTTP/1.1\r\nHost: x\r\n\r\n"
            * 300
            + b"GET /api/v10/gateway HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        data = b""
        while piece := client.recv(65536):
            data += piece
    statuses = [line.split()[0] for line in data.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404"] * 300 + [b"200"]


def test_an_outage_ends_a_connection_that_a_client_has_kept(local_gateway: LocalGateway) -> None:
    with raw(local_gateway) as client:
        client.sendall(b"GET /api/v10/gateway HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(client)[0] == 200
        local_gateway.outage()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError), raw(local_gateway):
        pass


def test_the_client_decides_that_the_connection_ends(local_gateway: LocalGateway) -> None:
    for request in (
        b"GET /api/v10/gateway HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /api/v10/gateway HTTP/1.0\r\n\r\n",
    ):
        with raw(local_gateway) as client:
            client.sendall(request)
            assert read_response(client)[0] == 200
            assert client.recv(1) == b""


def test_a_body_comes_in_chunks(local_gateway: LocalGateway, channel: Channel) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"content": '
        yield b'"in pieces"}'

    with httpx.Client(base_url=local_gateway.http_url, trust_env=False) as client:
        response = client.post(
            f"/channels/{channel['id']}/messages",
            content=chunks(),
            headers={
                "Authorization": f"Bot {local_gateway.token}",
                "Content-Type": "application/json",
            },
        )
    assert response.json()["content"] == "in pieces"


def test_a_client_that_waits_is_told_to_continue(
    local_gateway: LocalGateway, channel: Channel
) -> None:
    body = b'{"content": "waited"}'
    with raw(local_gateway) as client:
        client.sendall(
            f"POST /api/v10/channels/{channel['id']}/messages HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bot {local_gateway.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        status, answer = read_response(client)
    assert status == 200 and json.loads(answer)["content"] == "waited"


def test_head_has_the_headers_without_the_body(rest: Rest) -> None:
    response = rest.send("HEAD", "/gateway")
    assert response.status_code == 200 and response.content == b""
    assert response.headers["Content-Type"] == "application/json"
    assert rest.send("GET", "/gateway").json()["url"] == rest.gateway.url


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"],
    ids=["TLS", "nonsense", "no Host"],
)
def test_what_is_no_http_is_refused(local_gateway: LocalGateway, data: bytes) -> None:
    with raw(local_gateway) as client:
        client.sendall(data)
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_is_too_large_is_refused_before_it_comes(local_gateway: LocalGateway) -> None:
    with raw(local_gateway) as client:
        client.sendall(
            b"POST /api/v10/channels/1/messages HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 26214401\r\n\r\n"
        )
        status, body = read_response(client)
    assert (status, json.loads(body)["code"]) == (413, 40005)


def test_a_body_in_chunks_that_is_too_large_is_refused(local_gateway: LocalGateway) -> None:
    with raw(local_gateway) as client:
        client.sendall(
            b"POST /api/v10/channels/1/messages HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n1900001\r\n" + bytes(0x1900001)
        )
        status, body = read_response(client)
    assert (status, json.loads(body)["code"]) == (413, 40005)


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", b"{", 50109),
        ("application/json", b"[" * 100_000, 50109),
        ("application/json", b"\xff", 50109),
        ("application/json", b'{"poll": NaN}', 50109),
        ("application/json", b'{"poll": 1e999}', 50109),
        ("application/json", b'{"poll": %s}' % (b"[" * 200 + b"]" * 200), 50109),
        ("application/json", b"[]", 50035),
        ("text/plain", b"{}", 50035),
        ("multipart/form-data", b"x", 50035),
        ("multipart/form-data; boundary=" + "b" * 300, b"x", 50035),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data", 50035),
        ("multipart/form-data; boundary=b", b"nonsense", 50035),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    rest: Rest,
    channel: Channel,
    content_type: str,
    body: bytes,
    code: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    response = rest.send(
        "POST",
        f"/channels/{channel['id']}/messages",
        data=body,
        headers={"Content-Type": content_type},
    )
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert channel.messages == []
    # A program that runs the gateway, and logs nothing, would see a warning on standard error.
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_without_the_token_nothing_is_done(rest: Rest, channel: Channel) -> None:
    path = f"/channels/{channel['id']}/messages"
    for token in ("", "Bot wrong", rest.gateway.token):
        rest.session.headers["Authorization"] = token
        assert rest.error("POST", path, {"content": "a"}) == (401, 0)
        assert rest.error("GET", "/users/@me") == (401, 0)
    assert channel.messages == []


def test_what_is_not_imitated_is_told(local_gateway: LocalGateway, rest: Rest) -> None:
    assert rest.error("GET", "/guilds/1/bans") == (404, 0)
    assert rest.error("DELETE", "/users/@me") == (405, 0)
    unhandled = local_gateway.unhandled
    assert [(each.method, each.path, each.status) for each in unhandled] == [
        ("GET", "/guilds/1/bans", 404),
        ("DELETE", "/users/@me", 405),
    ]
    assert repr(unhandled[0]) == "<ReceivedRequest GET /guilds/1/bans status=404>"


@pytest.mark.parametrize(
    ("version", "error"),
    [
        ("v3", (400, 50041)),
        ("v5", (400, 50041)),
        ("v11", (400, 50041)),
        ("v" + "9" * 5000, (404, 0)),
        ("w1", (404, 0)),
    ],
)
def test_a_version_that_does_not_exist_is_refused(
    local_gateway: LocalGateway, rest: Rest, version: str, error: tuple[int, int]
) -> None:
    url = local_gateway.http_url.removesuffix("v10") + version + "/users/@me"
    response = rest.session.get(url, timeout=5)
    assert (response.status_code, response.json()["code"]) == error
    (request,) = local_gateway.requests
    assert local_gateway.unhandled == [request]


@pytest.mark.parametrize("base", ["/api", "/api/v9", "/api/v10"])
def test_the_version_may_be_named(local_gateway: LocalGateway, rest: Rest, base: str) -> None:
    url = local_gateway.http_url.removesuffix("/api/v10") + base + "/users/@me?a=1&b="
    assert rest.session.get(url, timeout=5).status_code == 200
    (request,) = local_gateway.requests
    assert (request.path, request.query) == ("/users/@me", {"a": "1", "b": ""})
    assert request.version == (None if base == "/api" else int(base[6:]))


def test_a_request_can_be_expected(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    with pytest.raises(TimeoutError, match="POST /channels/1/typing"):
        local_gateway.expect_request("POST", "/channels/1/typing", timeout=0.01)
    for content in ("a", "b"):
        rest.write(channel, content)
    for content in ("a", "b"):
        request = local_gateway.expect_request("POST", "/channels/*/messages")
        assert request.json == {"content": content}
        assert request.status == 200
        assert request.headers["content-type"] == "application/json"
    with pytest.raises(TimeoutError, match=r"in vain for POST /channels/\*/messages; no other"):
        local_gateway.expect_request("POST", "/channels/*/messages", timeout=0.01)
    rest.write(channel, "c")
    arrived = f"; other requests, the newest last: POST /channels/{channel['id']}/messages "
    with pytest.raises(TimeoutError, match=rf"{arrived}\(status 200\)"):
        local_gateway.expect_request("PATCH", "/channels/*/messages", timeout=0.01)


def test_an_id_that_is_a_number_is_refused(local_gateway: LocalGateway, channel: Channel) -> None:
    number = int(channel["id"])
    with pytest.raises(TypeError, match=f"must be a string of digits.* not the int {number}"):
        local_gateway.send_message(number, "1", "hello")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/api/v10/gateway", "gateway"])
def test_a_path_that_no_request_can_have_is_refused(local_gateway: LocalGateway, path: str) -> None:
    with pytest.raises(ValueError, match="path must be as Discord documents it, without /api"):
        local_gateway.expect_request("GET", path)
    with pytest.raises(ValueError, match="path must be as Discord documents it, without /api"):
        local_gateway.inject(instead_of="answer", path=path)


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
def test_a_connection_that_was_kept_becomes_a_websocket(
    local_gateway: LocalGateway, at_once: bool
) -> None:
    plain = b"GET /api/v10/gateway HTTP/1.1\r\nHost: x\r\n\r\n"
    handshake = (
        b"GET /?v=10&encoding=json HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with raw(local_gateway) as client:
        for _ in range(2):
            client.sendall(plain)
            assert read_response(client)[0] == 200
        client.sendall(plain + handshake if at_once else handshake)
        data = b""
        while b'"op":10' not in data:
            data += client.recv(4096)
        assert b"HTTP/1.1 101 " in data
    (connection,) = local_gateway.all_connections
    assert connection.query == {"v": "10", "encoding": "json"}


def test_http_and_websockets_share_a_port_with_tls() -> None:
    with LocalGateway(tls=True) as gateway, connected(gateway) as client:
        client.ready()
        with httpx.Client(verify=gateway.ssl_context, trust_env=False) as http:
            headers = {"Authorization": f"Bot {gateway.token}"}
            assert http.get(gateway.http_url + "/users/@me", headers=headers).status_code == 200
        client.nothing_more()


@pytest.mark.parametrize("tls", [False, True])
def test_an_ipv6_address_is_in_brackets_in_urls(tls: bool) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with LocalGateway(host="::1", tls=tls) as gateway:
        assert "://[::1]:" in gateway.url and "://[::1]:" in gateway.resume_url
        context = gateway.ssl_context if tls else None
        with urllib.request.urlopen(gateway.http_url + "/gateway", context=context) as response:
            assert json.load(response) == {"url": gateway.url}
