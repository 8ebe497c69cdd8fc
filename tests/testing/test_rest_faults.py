"""Faults that strike HTTP requests."""

from __future__ import annotations

import socket
import threading
import time
import urllib.parse

import pytest
import requests

from shardlib.testing import Channel, GatewayConnection, LocalGateway
from tests.testing.client import connected
from tests.testing.rest import Rest


def test_a_fault_strikes_the_requests_of_its_method_and_path(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    path = f"/channels/{channel['id']}/messages"
    local_gateway.inject(
        lambda it: it.refuse(502, "<html>"),
        instead_of="answer",
        method="POST",
        path="/channels/{channel.id}/messages",
        connections=2,
    )
    assert rest.call("GET", path) == []
    for _ in range(2):
        response = rest.send("POST", path, json={"content": "a"})
        assert (response.status_code, response.text) == (502, "<html>")
    rest.write(channel)
    assert len(channel.messages) == 1
    statuses = [local_gateway.expect_request("POST", path).status for _ in range(3)]
    assert statuses == [502, 502, 200]


def test_a_request_may_be_carried_out_and_its_response_lost(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    local_gateway.inject(GatewayConnection.reset, instead_of="response", method="POST")
    with connected(local_gateway) as client:
        client.ready()
        with pytest.raises(requests.ConnectionError):
            rest.write(channel, "once")
        assert client.event("MESSAGE_CREATE")["content"] == "once"
    assert [message["content"] for message in channel.messages] == ["once"]


def test_a_slow_answer_comes_whole(local_gateway: LocalGateway, rest: Rest) -> None:
    local_gateway.inject(lambda it: it.slow(2000), before="answer")
    assert rest.call("GET", "/gateway") == {"url": local_gateway.url}


def test_an_answer_is_late_by_the_clock_of_the_gateway(
    local_gateway: LocalGateway, rest: Rest
) -> None:
    local_gateway.inject(lambda it: it.proceed(after=0.1), instead_of="answer")
    assert rest.call("GET", "/gateway") == {"url": local_gateway.url}
    assert rest.call("GET", "/gateway") == {"url": local_gateway.url}


def test_an_action_may_take_the_step_that_its_fault_replaces(
    local_gateway: LocalGateway, rest: Rest
) -> None:
    local_gateway.inject(lambda it: it.proceed(), instead_of="answer")
    assert rest.call("GET", "/gateway") == {"url": local_gateway.url}


def test_a_test_that_waits_sees_a_late_answer_at_once(
    local_gateway: LocalGateway, rest: Rest
) -> None:
    held: list[GatewayConnection] = []
    local_gateway.inject(held.append, instead_of="answer")
    sender = threading.Thread(target=rest.call, args=("GET", "/gateway"))
    sender.start()
    request = local_gateway.expect_request("GET", "/gateway")
    began_at = time.monotonic()
    held[0].proceed(after=0.3)
    assert local_gateway.wait_until(lambda: request.status, timeout=60) == 200
    assert time.monotonic() - began_at < 30
    sender.join()


def test_each_request_of_a_connection_takes_its_own_faults(
    local_gateway: LocalGateway, rest: Rest
) -> None:
    struck: list[GatewayConnection] = []
    local_gateway.inject(struck.append, before="answer")
    for _ in range(2):
        rest.call("GET", "/gateway")
    assert len(struck) == 1


def test_no_answer_comes_at_all(local_gateway: LocalGateway, rest: Rest) -> None:
    local_gateway.inject(instead_of="answer", path="/gateway")
    port = urllib.parse.urlsplit(local_gateway.url).port
    with socket.create_connection(("127.0.0.1", port), timeout=0.2) as client:
        client.sendall(b"GET /api/v10/gateway HTTP/1.1\r\nHost: x\r\n\r\n")
        local_gateway.expect_request("GET", "/gateway")
        with pytest.raises(TimeoutError):
            client.recv(1)
    assert rest.call("GET", "/gateway") == {"url": local_gateway.url}


def test_method_and_path_go_with_requests_only(local_gateway: LocalGateway) -> None:
    for choice in ({"method": "GET"}, {"path": "/gateway"}):
        with pytest.raises(ValueError, match="method and path go with answer, response"):
            local_gateway.inject(instead_of="hello", **choice)  # type: ignore[arg-type]
