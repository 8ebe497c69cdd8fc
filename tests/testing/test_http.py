"""What clients ask the HTTP API of a local gateway for when they log in, and faults there."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest

from shardlib.testing import GatewayConnection, LocalGateway
from tests.testing.client import connected


def get(gateway: LocalGateway, path: str, token: str | None = None) -> tuple[int, Any]:
    headers = {} if token is None else {"Authorization": f"Bot {token}"}
    base = gateway.http_url.removesuffix("/v10")
    request = urllib.request.Request(base + path, headers=headers)
    context = gateway.ssl_context if base.startswith("https") else None
    try:
        with urllib.request.urlopen(request, timeout=15, context=context) as response:
            assert response.headers["Content-Type"] == "application/json"
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("tls", [False, True])
def test_gateway_answers_with_the_url_without_a_token(tls: bool) -> None:
    with LocalGateway(tls=tls) as gateway:
        assert get(gateway, "/v10/gateway") == (200, {"url": gateway.url})
        assert get(gateway, "/gateway") == (200, {"url": gateway.url})


@pytest.mark.local_gateway(shards=4, max_concurrency=2, guilds=4)
def test_gateway_bot_answers_with_shards_and_session_start_limit(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        client.ready()
    status, answer = get(local_gateway, "/v10/gateway/bot", local_gateway.token)
    assert status == 200
    limit = answer.pop("session_start_limit")
    assert answer == {"url": local_gateway.url, "shards": 4}
    assert 0 < limit.pop("reset_after") <= 86_400_000
    assert limit == {"total": 1000, "remaining": 999, "max_concurrency": 2}


@pytest.mark.parametrize(
    ("options", "shards"),
    [
        ({"shards": 3, "min_shards": 5}, 5),
        ({"shards": 3, "shard_multiple": 16}, 16),
        ({"shards": 17, "shard_multiple": 16, "min_shards": 2}, 32),
        ({"shards": 32, "shard_multiple": 16, "min_shards": 18}, 32),
    ],
)
def test_gateway_bot_recommends_a_shard_count_that_the_gateway_takes(
    options: dict[str, Any], shards: int
) -> None:
    with LocalGateway(**options) as gateway:
        assert get(gateway, "/v10/gateway/bot", gateway.token)[1]["shards"] == shards
        with connected(gateway) as client:
            client.ready(shard=[0, shards])


@pytest.mark.local_gateway(session_start_limit=5)
def test_gateway_bot_counts_the_identifies_that_were_accepted(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client, connected(local_gateway) as early:
        client.ready(shard=[0, 2])
        early.receive()
        early.identify(shard=[1, 2])
        assert early.receive()["op"] == 9
    _, answer = get(local_gateway, "/v10/gateway/bot", local_gateway.token)
    assert answer["session_start_limit"]["total"] == 5
    assert answer["session_start_limit"]["remaining"] == 4


@pytest.mark.parametrize("path", ["/v10/gateway/bot", "/v10/users/@me", "/v10/applications/@me"])
@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_request_without_the_token_gets_status_401(
    local_gateway: LocalGateway, path: str, token: str | None
) -> None:
    assert get(local_gateway, path, token) == (401, {"message": "401: Unauthorized", "code": 0})


def test_the_ids_of_bot_and_application_are_those_of_ready(local_gateway: LocalGateway) -> None:
    _, user = get(local_gateway, "/v10/users/@me", local_gateway.token)
    _, application = get(local_gateway, "/v10/applications/@me", local_gateway.token)
    with connected(local_gateway) as client:
        ready = client.ready()
    assert user["id"] == ready["user"]["id"]
    assert user["bot"] is True
    assert application["id"] == ready["application"]["id"]


def test_an_unknown_path_gets_status_404(local_gateway: LocalGateway) -> None:
    for path in ("/v10/guilds/1", "/", "/v10/gateway/"):
        assert get(local_gateway, path, local_gateway.token)[0] == 404


def test_a_request_with_post_is_refused(local_gateway: LocalGateway) -> None:
    request = urllib.request.Request(local_gateway.http_url + "/gateway", data=b"{}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=15)
    with caught.value:
        assert caught.value.code in (400, 405)


def test_an_http_request_is_no_connection_and_uses_up_no_fault(local_gateway: LocalGateway) -> None:
    local_gateway.inject(lambda it: it.refuse(502), instead_of="upgrade")
    assert get(local_gateway, "/v10/gateway")[0] == 200
    assert local_gateway.all_connections == []


@pytest.mark.parametrize("upgrade", [b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"])
@pytest.mark.parametrize("target", [b"//[::1", b"http://[bad/"])
def test_a_target_that_is_no_url_is_answered(
    local_gateway: LocalGateway, target: bytes, upgrade: bytes
) -> None:
    """Row 98: it ended in a traceback, and the connection without an answer."""
    port = urllib.parse.urlsplit(local_gateway.url).port
    with socket.create_connection(("127.0.0.1", port), timeout=15) as client:
        client.sendall(
            b"GET "
            + target
            + b" HTTP/1.1\r\nHost: x\r\n"
            + upgrade
            + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert local_gateway.all_connections == []


@pytest.mark.parametrize("tls", [False, True])
def test_a_fault_can_answer_a_plain_request(tls: bool) -> None:
    urls: list[str] = []

    def refuse(connection: GatewayConnection) -> None:
        urls.append(connection.url)
        connection.refuse(429, '{"retry_after": 1.5}', {"Content-Type": "application/json"})

    with LocalGateway(tls=tls) as gateway:
        gateway.inject(refuse, instead_of="answer", connections=2)
        answers = [get(gateway, "/v10/gateway") for _ in range(3)]
        assert answers == [(429, {"retry_after": 1.5})] * 2 + [(200, {"url": gateway.url})]
        assert gateway.all_connections == []
    assert urls == ["/api/v10/gateway"] * 2


def test_a_fault_can_delay_the_answer_to_a_plain_request(local_gateway: LocalGateway) -> None:
    local_gateway.inject(lambda connection: connection.proceed(after=0.2), instead_of="answer")
    began = time.monotonic()
    assert get(local_gateway, "/v10/gateway")[0] == 200
    assert time.monotonic() - began >= 0.2


def test_websockets_and_plain_requests_use_up_no_faults_of_each_other(
    local_gateway: LocalGateway,
) -> None:
    local_gateway.inject(lambda connection: connection.refuse(500, "{}"), instead_of="answer")
    with connected(local_gateway) as client:
        client.ready()
    local_gateway.inject(instead_of="hello")
    assert get(local_gateway, "/v10/gateway/bot")[0] == 500
    assert get(local_gateway, "/v10/gateway")[0] == 200
    with connected(local_gateway) as client:
        client.nothing_more()
