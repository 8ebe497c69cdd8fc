"""fetch_gateway_bot(): what it asks, every answer it can get, and every way to get none."""

from __future__ import annotations

import _thread
import itertools
import json
import re
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shardlib import (
    AuthenticationFailed,
    ConnectionFailed,
    GatewayBot,
    HTTPFailed,
    Shard,
    ShardError,
    __version__,
    fetch_gateway_bot,
)
from shardlib.testing import GatewayConnection
from shardlib.testing import tls as certificates
from tests.shards import make_gateway, make_shard
from tests.support import TOKEN, in_background, wait_until
from tests.test_dial import read_until, relay, resolve_to, server

LIMIT = {"total": 1000, "remaining": 998, "reset_after": 84_686_789, "max_concurrency": 16}
ANSWER = {"url": "wss://gateway.discord.gg", "shards": 4, "session_start_limit": LIMIT}
BODY = json.dumps(ANSWER).encode()
BOT = GatewayBot("wss://gateway.discord.gg", 4, 1000, 998, 84_686.789, 16)
OK = b"HTTP/1.1 200 OK\r\n"


class Api:
    """A server on 127.0.0.1 that answers each request with bytes, as they are."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.url = ""

    @contextmanager
    def answering(self, *answers: Iterable[bytes]) -> Iterator[Api]:
        """Answer the first request with the pieces of the first answer, and so on."""
        left = list(answers)

        def serve(client: socket.socket) -> None:
            self.requests.append(read_until(client, b"\r\n\r\n").decode())
            for piece in left.pop(0) if len(left) > 1 else left[0]:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            read_to_the_end(client)  # a close at once could cost the client its last bytes

        with server(serve) as port:
            self.url = f"http://127.0.0.1:{port}/api/v10"
            yield self


def api(*answers: Iterable[bytes]) -> Any:
    return Api().answering(*answers)


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def length(size: int) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % size


def single_bytes(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


def failure_of(url: str, kind: type[ShardError] = ConnectionFailed, **options: Any) -> Any:
    """The error that a request raises; neither it nor its traceback shows the token."""
    with pytest.raises(kind) as caught:
        fetch_gateway_bot(TOKEN, api_url=url, **options)
    error = caught.value
    shown = str(error) + repr(error) + "".join(traceback.format_exception(error))
    assert TOKEN not in shown + repr(vars(error))
    assert str(error).isprintable()
    return error


# The answer


@pytest.mark.parametrize("tls", [False, True])
def test_the_figures_are_those_of_the_gateway_and_follow_the_sessions(tls: bool) -> None:
    with make_gateway(shards=4, max_concurrency=2, tls=tls) as gateway:
        options: dict[str, Any] = {"ssl_context": gateway.ssl_context} if tls else {}
        first = fetch_gateway_bot(TOKEN, api_url=gateway.http_url, **options)
        assert first == GatewayBot(gateway.url, 4, 1000, 1000, 0.0, 2)
        with make_shard(**options) as shard:
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
        second = fetch_gateway_bot(TOKEN, api_url=gateway.http_url + "/", **options)
        assert second.remaining == 999
        assert 86_000 < second.reset_after <= 86_400


def test_the_request_says_who_asks_in_the_form_that_discord_wants() -> None:
    with api([OK + length(len(BODY)) + BODY]) as it:
        assert fetch_gateway_bot(TOKEN, api_url=it.url) == BOT
    (request,) = it.requests
    first, *fields = request.splitlines()
    assert first == "GET /api/v10/gateway/bot HTTP/1.1"
    assert f"Host: {it.url.split('/')[2]}" in fields
    assert f"Authorization: Bot {TOKEN}" in fields
    assert f"User-Agent: DiscordBot (https://pypi.org/project/shardlib, {__version__})" in fields


CHUNKS = chunk(BODY[:7]) + chunk(BODY[7:8], b";a=b") + chunk(BODY[8:]) + b"0\r\nX: trailer\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        OK + length(len(BODY)) + BODY + b"more than its length",
        OK + b"Content-Length: %d\r\n" % len(BODY) + length(len(BODY)) + BODY,
        OK + b"\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n" + BODY,
        OK + CHUNKED + b"\r\n" + CHUNKS,
        OK + CHUNKED.lower() + length(3) + CHUNKS,
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + length(len(BODY)) + BODY,
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + OK + CHUNKED + b"\r\n" + CHUNKS,
    ],
)
@pytest.mark.parametrize("pieces", [lambda answer: [answer], single_bytes])
def test_a_body_is_read_however_its_length_is_told(
    answer: bytes, pieces: Callable[[bytes], list[bytes]]
) -> None:
    with api(pieces(answer)) as it:
        assert fetch_gateway_bot(TOKEN, api_url=it.url) == BOT


def test_a_body_with_a_length_is_not_waited_for_any_longer() -> None:
    done = threading.Event()

    def serve(client: socket.socket) -> None:
        read_until(client, b"\r\n\r\n")
        client.sendall(OK + length(len(BODY)) + BODY)
        assert done.wait(10)

    with server(serve) as port:
        try:
            assert fetch_gateway_bot(TOKEN, api_url=f"http://127.0.0.1:{port}", timeout=5) == BOT
        finally:
            done.set()


# Answers that break HTTP


@pytest.mark.parametrize(
    "answer, why",
    [
        ([b""], "the server closed the connection"),
        ([b"SSH-2.0-OpenSSH_9.6\r\n"], "the server does not speak HTTP.*SSH"),
        ([b"HTTP/1.1 two hundred\r\n\r\n"], "the answer has no HTTP status"),
        ([OK + length(len(BODY) + 3) + BODY], "the body ends 3 bytes too early"),
        ([OK + b"Content-Length: 3\r\n" + length(4)], "length of the body cannot be read: 3, 4"),
        ([OK + b"Content-Length: -1\r\n\r\n"], "length of the body cannot be read: -1"),
        ([OK + length(1 << 20) + BODY], "the body ends"),
        ([OK + length((1 << 20) + 1)], "the body has more than 1048576 bytes"),
        ([OK + CHUNKED + b"\r\n" + CHUNKS[:-20]], "the body ends"),
        ([OK + CHUNKED + b"\r\nx\r\n"], "a chunk of the body has no length: x"),
        ([OK + CHUNKED + b"\r\n" + b"3\r\n1234\r\n"], "a chunk of the body is longer"),
        ([OK + CHUNKED + b"\r\nfffffff\r\n"], "the body has more than 1048576 bytes"),
        ([OK + CHUNKED + b"\r\n1;" + b"x" * 5000], "a line between the chunks"),
        ([OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n"], "transfer encoding.*gzip, chunked"),
        ([OK + b"Content-Encoding: gzip\r\n\r\n"], "the body is encoded.*gzip"),
        ([OK, *[b"X: y\r\n"] * 20_000], "the head of the answer has more than 65536 bytes"),
    ],
)
def test_an_answer_that_breaks_http_is_explained(answer: list[bytes], why: str) -> None:
    with api(answer) as it:
        error = failure_of(it.url)
    assert re.search(f"^cannot ask .*: GET /gateway/bot failed: .*{why}", str(error))
    assert len(it.requests) == 1


@pytest.mark.parametrize(
    "head, piece",
    [
        (OK + b"\r\n", b"x" * 65536),
        (OK + CHUNKED + b"\r\n", chunk(b"x" * 65536)),
    ],
)
def test_an_endless_body_is_given_up_at_a_mebibyte(head: bytes, piece: bytes) -> None:
    with api(itertools.chain([head], itertools.repeat(piece))) as it:
        assert "the body has more than 1048576 bytes" in str(failure_of(it.url))


# One deadline


def read_to_the_end(client: socket.socket) -> None:
    while client.recv(65536):
        pass


def trickle(beginning: bytes, piece: bytes, pause: float) -> Iterator[bytes]:
    yield beginning
    while True:
        time.sleep(pause)
        yield piece


@pytest.mark.parametrize(
    "beginning, piece, pause",
    [
        (OK, b"X: y\r\n", 0.05),
        (OK + b"\r\n", b" ", 0.05),
        # Something is always there to be read: chunks of one byte, each with an extension.
        (OK + CHUNKED + b"\r\n", (b"1;" + b"x" * 100 + b"\r\n1\r\n") * 5000, 0.0),
        (b"HTTP/1.1 503 Busy\r\n", b"X: y\r\n", 0.05),
    ],
)
def test_a_slow_answer_cannot_stretch_the_deadline(
    beginning: bytes, piece: bytes, pause: float
) -> None:
    with api(trickle(beginning, piece, pause)) as it:
        began = time.monotonic()
        error = failure_of(it.url, timeout=0.5)
        assert 0.5 <= time.monotonic() - began < 15
    assert "GET /gateway/bot was not done within 0.5 seconds" in str(error)


@pytest.mark.parametrize(
    "scheme, step", [("http", "GET /gateway/bot"), ("https", "the TLS handshake")]
)
def test_a_silent_server_is_given_up(scheme: str, step: str) -> None:
    with server(read_to_the_end) as port:
        error = failure_of(f"{scheme}://127.0.0.1:{port}", timeout=0.5)
    assert f"{step} was not done within 0.5 seconds" in str(error)


def test_the_systems_lookup_of_a_proxy_cannot_stretch_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda host: not answer.wait(30))
    began = time.monotonic()
    try:
        error = failure_of("https://api.test", timeout=0.1)
        assert time.monotonic() - began < 10
    finally:
        answer.set()
    assert str(error) == "cannot ask api.test:443: connecting was not done within 0.1 seconds"


# Statuses


def test_a_wrong_token_is_an_authentication_failed_without_a_code() -> None:
    with make_gateway() as gateway:
        with pytest.raises(AuthenticationFailed, match="status 401.*token is wrong") as caught:
            fetch_gateway_bot("another.token", api_url=gateway.http_url)
    assert caught.value.code is None
    assert "another.token" not in str(caught.value) + repr(caught.value)


def test_a_redirect_is_told_and_not_followed() -> None:
    with api([OK + length(len(BODY)) + BODY]) as elsewhere:
        location = f"{elsewhere.url}/gateway/bot"
        with api(
            [b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %b\r\n" % location.encode() + length(0)]
        ) as it:
            error = failure_of(it.url, HTTPFailed)
        assert elsewhere.requests == []
    assert (error.status, error.body) == (307, location)
    assert f"{it.url} answered" in str(error)
    assert "status 307 (Temporary Redirect), a redirect, which is not followed" in str(error)
    assert location in str(error)


@pytest.mark.parametrize("tls", [False, True])
def test_a_429_is_waited_for_as_long_as_it_asks(tls: bool) -> None:
    asked: list[float] = []

    def refuse(connection: GatewayConnection) -> None:
        asked.append(time.monotonic())
        connection.refuse(429, "slow down", {"Retry-After": "1"})

    with make_gateway(tls=tls) as gateway:
        gateway.inject(refuse, instead_of="answer", connections=2)
        fetch_gateway_bot(
            TOKEN, api_url=gateway.http_url, ssl_context=gateway.ssl_context if tls else None
        )
    assert len(asked) == 2
    assert asked[1] - asked[0] >= 1.0
    assert time.monotonic() - asked[1] >= 1.0


TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "answer, seconds, shown",
    [
        (TOO_MANY + b"Retry-After: 65\r\n" + length(0), 65.0, "Ask again after 65 seconds"),
        (TOO_MANY + b"\r\n" + b'{"retry_after": 64.57}', 64.57, "Ask again after 64.57 seconds"),
        (TOO_MANY + b"\r\n" + b'{"retry_after": "soon"}', None, "Ask again later"),
        (TOO_MANY + b"\r\n" + b"[]", None, "Ask again later"),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 30\r\n\r\n", 30.0, "Ask again after 30 seconds"),
    ],
)
def test_a_wait_beyond_the_deadline_is_told_at_once(
    answer: bytes, seconds: float | None, shown: str
) -> None:
    began = time.monotonic()
    with api([answer]) as it:
        error = failure_of(it.url, HTTPFailed)
    assert time.monotonic() - began < 15
    assert len(it.requests) == 1
    assert error.retry_after == seconds
    assert shown in str(error)


def test_a_server_that_asks_for_no_pause_is_not_asked_in_a_tight_loop() -> None:
    with api([TOO_MANY + b"Retry-After: 0\r\n" + length(0)]) as it:
        assert failure_of(it.url, HTTPFailed, timeout=2.5).status == 429
    assert len(it.requests) <= 6  # one in half a second


def test_a_fault_of_the_server_is_asked_again_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardlib.gatewaybot._PAUSES", (0.1, 0.2))
    monkeypatch.setattr("shardlib.gatewaybot._SHORTEST_PAUSE", 0.1)
    busy = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    with api([busy], [busy], [OK + length(len(BODY)) + BODY]) as it:
        assert fetch_gateway_bot(TOKEN, api_url=it.url) == BOT
    assert len(it.requests) == 3
    with api([busy + b"<b>broken</b>"]) as it:
        error = failure_of(it.url, HTTPFailed)
    assert len(it.requests) == 3
    assert (error.status, error.body) == (503, "<b>broken</b>")
    assert "status 503 (Service Unavailable): the server has a fault" in str(error)


@pytest.mark.parametrize(
    "status, advice",
    [("403 Forbidden", "blocked this computer"), ("404 Not Found", "api_url"), ("204 None", "204")],
)
def test_any_other_status_is_told_after_one_request(status: str, advice: str) -> None:
    with api([b"HTTP/1.1 %b\r\n\r\nno\x1b[2J" % status.encode() + b"x" * 9000]) as it:
        error = failure_of(it.url, HTTPFailed)
    assert len(it.requests) == 1
    assert error.status == int(status[:3])
    assert advice in str(error)
    assert error.body.startswith("no\x1b[2Jxxx")
    assert r"it says: no\x1b[2Jxxx" in str(error)
    assert len(str(error)) < 700


# Bodies that are not as documented


def limit(**changes: Any) -> bytes:
    return json.dumps({**ANSWER, "session_start_limit": {**LIMIT, **changes}}).encode()


def answer(**changes: Any) -> bytes:
    return json.dumps({**ANSWER, **changes}).encode()


@pytest.mark.parametrize(
    "body, problem",
    [
        (b"", "the body is not JSON"),
        (b"<html>log in</html>", "the body is not JSON"),
        (b"\xff\xfe\xfd", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", "session_start_limit is missing"),
        (b'{"url": "wss://a"}', "session_start_limit is missing"),
        (answer(session_start_limit=None), "total is missing"),
        (answer(shards=0), "shards must be a whole number from 1 up, not 0"),
        (answer(shards=True), "shards must be a whole number from 1 up, not true"),
        (answer(shards=1.5), "shards must be a whole number from 1 up, not 1.5"),
        (answer(shards=10**12), "shards must be a whole number from 1 up, not 1000000000000"),
        (limit(max_concurrency=0), "max_concurrency must be a whole number from 1 up, not 0"),
        (limit(remaining=-1), "remaining must be a whole number from 0 up, not -1"),
        (limit(total=None), "total must be a whole number from 0 up, not null"),
        (limit(reset_after="x" * 99), 'reset_after must be a whole number from 0 up, not "xxx'),
        (answer(url=None), "a gateway URL must be a str"),
        (answer(url="https://gateway.discord.gg"), "must begin with ws:// or wss://"),
    ],
)
def test_a_body_that_is_not_as_documented_is_explained(body: bytes, problem: str) -> None:
    with api([OK + length(len(body)) + body]) as it:
        error = failure_of(it.url, HTTPFailed)
    assert error.status == 200
    assert problem in str(error)
    assert "Is api_url right" in str(error)
    assert len(str(error)) < 700


@contextmanager
def tls_api(body: bytes) -> Iterator[str]:
    def serve(client: socket.socket) -> None:
        with certificates.server_context("127.0.0.1").wrap_socket(client, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(OK + length(len(body)) + body)

    with server(serve) as port:
        yield f"https://127.0.0.1:{port}"


def test_an_encrypted_api_cannot_name_a_gateway_that_is_not() -> None:
    """The token would go there."""
    trusting = certificates.client_context()
    with tls_api(BODY) as url:
        assert fetch_gateway_bot(TOKEN, api_url=url, ssl_context=trusting) == BOT
    with tls_api(answer(url="ws://gateway.discord.gg")) as url:
        error = failure_of(url, HTTPFailed, ssl_context=trusting)
    assert "the gateway's URL is not encrypted" in str(error)


# Connections


def test_a_refused_connection_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = failure_of(f"https://127.0.0.1:{port}")
    assert str(error).startswith(f"cannot ask 127.0.0.1:{port}: connecting failed: ")


def test_an_unknown_host_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert "the address of api.test was not found" in str(failure_of("https://api.test", proxy=""))


def test_a_certificate_that_is_not_trusted_is_explained() -> None:
    with make_gateway(tls=True) as gateway:
        error = failure_of(gateway.http_url, ssl_context=ssl.create_default_context())
    assert "the server's certificate is not trusted: " in str(error)
    assert "which the ssl_context that was given does not know" in str(error)


def test_a_server_without_tls_is_told_with_the_scheme_to_use() -> None:
    with make_gateway() as gateway:
        error = failure_of(gateway.http_url.replace("http:", "https:"))
    assert "should the URL begin with http://?" in str(error)


def test_the_request_goes_through_an_http_proxy_encrypted() -> None:
    seen: list[bytes] = []

    def proxy(client: socket.socket) -> None:
        seen.append(read_until(client, b"\r\n\r\n"))
        host, port = seen[0].decode().split()[1].rsplit(":", 1)
        with socket.create_connection((host, int(port))) as target:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            relay(client, target)

    with make_gateway(tls=True) as gateway, server(proxy) as port:
        bot = fetch_gateway_bot(
            TOKEN,
            api_url=gateway.http_url,
            ssl_context=gateway.ssl_context,
            proxy=f"http://me:secret@127.0.0.1:{port}",
        )
        assert bot.url == gateway.url
    assert seen[0].startswith(b"CONNECT 127.0.0.1:")
    assert TOKEN.encode() not in seen[0]


def test_the_proxy_of_the_environment_is_used_and_named_if_it_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def proxy(client: socket.socket) -> None:
        assert read_until(client, b"\r\n\r\n").startswith(b"CONNECT api.test:443 ")
        client.sendall(b"HTTP/1.1 407 %b\r\n\r\n" % TOKEN.encode())

    with server(proxy) as port:
        monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{port}")
        error = failure_of("https://api.test")
    assert f"connecting through the proxy 127.0.0.1:{port} failed: the proxy refused: 407" in str(
        error
    )
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"%b\r\n",
        b"HTTP/1.1 %b\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\nAuthorization: Bot %b",
        b"HTTP/1.1 302 Found\r\nLocation: https://evil.test/%b\r\n\r\n",
        OK + b"\r\n{'%b'",
        OK + b'\r\n{"session_start_limit": {}, "url": "%b"}',
        OK + b"Content-Length: %b\r\n\r\n",
        OK + CHUNKED + b"\r\n%b\r\n",
        OK + b"Content-Encoding: %b\r\n\r\n",
    ],
)
def test_a_server_that_repeats_the_token_is_quoted_without_it(answer: bytes) -> None:
    with api([answer % TOKEN.encode()]) as it:
        assert "***" in str(failure_of(it.url, ShardError))


# Arguments


@pytest.mark.parametrize(
    "arguments, kind, problem",
    [
        ({"token": ""}, ValueError, "token must be"),
        ({"token": "Bot x"}, ValueError, 'without "Bot "'),
        ({"token": "x\r\nHost: evil"}, ValueError, "token holds"),
        ({"token": 1}, TypeError, "token must be a str"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": None}, TypeError, "timeout"),
        ({"ssl_context": True}, TypeError, "ssl_context"),
        ({"proxy": "ftp://proxy"}, ValueError, "proxy must be a URL"),
        ({"api_url": 1}, TypeError, "api_url must be a str"),
        ({"api_url": "discord.com"}, ValueError, "must begin with https:// or http://"),
        ({"api_url": "wss://discord.com"}, ValueError, "must begin with https:// or http://"),
        ({"api_url": "https://me:secret@discord.com"}, ValueError, "user name"),
        ({"api_url": "https://discord.com/api?v=10"}, ValueError, "no query"),
        ({"api_url": "https://discord.com/\u00e4pi"}, ValueError, "ASCII path"),
        ({"api_url": "https://discord.com/a\r\nb"}, ValueError, "whitespace"),
        ({"api_url": "http://discord.com/api"}, ValueError, "would be sent unencrypted"),
        ({"api_url": "http://127.example.org"}, ValueError, "would be sent unencrypted"),
        ({"api_url": "http://127.0.0.1", "proxy": "http://p:1"}, ValueError, "unencrypted"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], kind: type[Exception], problem: str
) -> None:
    with pytest.raises(kind, match=problem) as caught:
        fetch_gateway_bot(**{"token": TOKEN, "api_url": "https://127.0.0.1:1", **arguments})
    assert "secret" not in str(caught.value)


def test_a_host_in_the_letters_of_its_language_can_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    resolve_to(monkeypatch, ("127.0.0.1", port))
    assert "xn--bcher-kva.test:443" in str(failure_of("https://b\u00fccher.test", proxy=""))


# Threads


def test_it_can_be_called_in_a_callback() -> None:
    found: list[GatewayBot] = []

    def ready(shard: Shard) -> None:
        found.append(fetch_gateway_bot(TOKEN, api_url=gateway.http_url))

    with make_gateway() as gateway, make_shard(on_socket_ready=ready) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        wait_until(lambda: found)
    assert found[0].url == gateway.url


@pytest.mark.parametrize("busy", [False, True], ids=["while it waits", "in a pause"])
def test_ctrl_c_ends_it_and_its_connection(busy: bool) -> None:
    asked, gone = threading.Event(), threading.Event()

    def serve(client: socket.socket) -> None:
        read_until(client, b"\r\n\r\n")
        if busy:
            client.sendall(TOO_MANY + b"Retry-After: 20\r\n" + length(0))
        asked.set()
        read_to_the_end(client)
        gone.set()

    def interrupt() -> None:
        assert asked.wait(10)
        _thread.interrupt_main()

    with server(serve) as port:
        interrupting = in_background(interrupt)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            fetch_gateway_bot(TOKEN, api_url=f"http://127.0.0.1:{port}", timeout=30)
        interrupting.result(10)
        assert time.monotonic() - began < 10
        assert gone.wait(10)
    wait_until(lambda: "gateway-bot" not in [each.name for each in threading.enumerate()])
