"""The answer to the WebSocket handshake: a valid one is taken, a refusal is told as it is."""

from __future__ import annotations

import time
import traceback

import pytest
import websocket

from shardlib import ConnectionFailed, handshake
from shardlib.answers import BODY_WAIT
from tests.peers import SWITCHING, Peer, well_behaved
from tests.reliability.conftest import MakeScripted, WatchShard
from tests.support import TOKEN

STATUS, UPGRADE, CONNECTION, ACCEPT = SWITCHING

# Each agrees to a WebSocket.
CONSENTS: dict[str, tuple[str, ...]] = {
    "an odd cookie": (*SWITCHING, "Set-Cookie: cf/bm@1=abc; path=/"),
    "Latin-1": (*SWITCHING, "Via: 1.1 proxy.M\xfcller.example"),
    "100 first": ("HTTP/1.1 100 Continue", "", *SWITCHING),
    "103 first": ("HTTP/1.1 103 Early Hints", "Link: </x>", "", *SWITCHING),
    "a list in two fields": (STATUS, UPGRADE, CONNECTION, "Connection: keep-alive", ACCEPT),
    "folded": (STATUS, UPGRADE, "Connection: keep-alive,", "  Upgrade", ACCEPT),
    "another order and case": (STATUS, ACCEPT, "CONNECTION: upgrade", "upgrade: WebSocket"),
}

# Each refuses, and is told as that. What the second of a pair says is shown; the peer waits for
# the client to go afterwards.
REFUSALS: dict[str, tuple[str, str]] = {
    "a page of 200 kB": (
        "HTTP/1.1 520 \r\nContent-Length: 200000\r\n\r\n" + "x" * 200_000,
        r"HTTP 520 \(unknown status\): x{200}\.\.\.$",
    ),
    "a body that never comes": (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\n",
        r"HTTP 503 \(Service Unavailable\)$",
    ),
    "a body without an end": (
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<h1>\x1b[2J\n502</h1>",
        r"HTTP 502 \(Bad Gateway\): \\x1b\[2J 502$",
    ),
    "chunks": (
        "HTTP/1.1 429 Too Many Requests\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n"
        "10\r\nerror code: 1015\r\n",
        r"HTTP 429 \(Too Many Requests, Retry-After 7 seconds\): error code: 1015$",
    ),
    "a malformed line": (
        "HTTP/1.1 403 Forbidden\r\n<html>\r\nContent-Length: 0\r\n\r\n",
        r"HTTP 403 \(Forbidden\)$",
    ),
    "an unknown extension": (
        "\r\n".join([*SWITCHING, "Sec-WebSocket-Extensions: permessage-deflate", "", ""]),
        "an extension that was not asked for: permessage-deflate$",
    ),
    "another protocol": ("SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP.*: SSH-2.0-OpenSSH_9.6"),
}


@pytest.fixture
def other_peoples_cookies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Websocket-client's cookies, as a connection of other code in the process has left them."""
    jar = websocket._handshake.CookieJar
    monkeypatch.setattr(jar, "jar", {})
    jar.add("session=of-another-bot; domain=127.0.0.1")


def accept_with(*headers: str) -> str:
    return "\r\n".join([*headers, "", ""])


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("consent", CONSENTS)
def test_every_valid_answer_opens_the_connection(
    consent: str, tls: bool, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 82: in whatever form HTTP allows, and with an announcement before it."""

    def script(peer: Peer) -> None:
        peer.answer(accept_with(*CONSENTS[consent]))
        peer.hello()
        peer.expect(2)
        peer.ready()
        peer.serve()

    watch_shard(make_scripted(script, tls=tls))  # which waits for READY


def test_an_answer_in_single_bytes_opens_the_connection(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 82: however the network cuts it."""

    def script(peer: Peer) -> None:
        peer.answer("H")
        for character in accept_with(*SWITCHING)[1:-1].replace("{accept}", peer.accept_value):
            peer.send_bytes(character.encode())
        peer.send_bytes(b"\n")
        peer.hello()
        peer.expect(2)
        peer.ready()
        peer.serve()

    watch_shard(make_scripted(script))


def test_no_cookie_goes_from_one_connection_to_another(
    make_scripted: MakeScripted, watch_shard: WatchShard, other_peoples_cookies: None
) -> None:
    """Row 83: neither what a server has set, nor what other code of the process has received."""

    def script(peer: Peer) -> None:
        peer.accept("Set-Cookie: first=1; domain=127.0.0.1")
        peer.hello()
        peer.expect(2)
        peer.ready()
        peer.serve()

    gateway = make_scripted(script)
    watch_shard(gateway)
    watch_shard(gateway)

    assert len(gateway.peers) == 2
    for peer in gateway.peers:
        assert [line for line in peer.request if line.lower().startswith("cookie")] == []


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_told_at_once(
    refusal: str, tls: bool, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 84: as soon as its head is there, whatever becomes of its body."""
    text, message = REFUSALS[refusal]

    def script(peer: Peer) -> None:
        peer.answer(text)
        peer.linger()

    gateway = make_scripted(script, tls=tls)
    shard, _ = watch_shard(gateway, connect=False, connect_timeout=30.0)

    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match=f"the WebSocket handshake failed.*{message}"):
        shard.connect(gateway.url)

    assert time.monotonic() - began < BODY_WAIT + 5.0


def test_no_body_is_waited_for_beyond_connect_timeout(
    make_scripted: MakeScripted, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 84: a refusal that comes in the last moment is told all the same."""
    monkeypatch.setattr(handshake, "BODY_WAIT", 30.0)

    def script(peer: Peer) -> None:
        peer.answer("HTTP/1.1 503 Service Unavailable\r\n\r\n")
        peer.linger()

    gateway = make_scripted(script)
    shard, _ = watch_shard(gateway, connect=False, connect_timeout=0.5)

    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match="HTTP 503"):
        shard.connect(gateway.url)

    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Go", "308 Go"])
def test_a_redirect_is_a_refusal(
    status: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 84: with every websocket-client; no token goes to a host that an answer names."""
    target = make_scripted(well_behaved)

    def script(peer: Peer) -> None:
        peer.answer(f"HTTP/1.1 {status}\r\nLocation: {target.url}\r\n\r\n")
        peer.linger()

    gateway = make_scripted(script)
    shard, recorder = watch_shard(gateway, connect=False)

    with pytest.raises(ConnectionFailed, match=f"HTTP {status[:3]} .*not followed: {target.url}"):
        shard.connect(gateway.url)

    assert recorder.life == []
    assert target.peers == []


@pytest.mark.parametrize(
    "answer, told",
    [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", "HTTP 401"),
        (f"HTTP/1.1 401 Unauthorized\r\nContent-Length: 99\r\n\r\n{TOKEN}", r"401 .*: \*\*\*"),
        (f"HTTP/1.1 302 Found\r\nLocation: /{TOKEN}\r\n\r\n", r"redirect.*: /\*\*\*"),
        (f"{STATUS}\r\nUpgrade: {TOKEN}\r\n\r\n", r"no Upgrade: websocket: \*\*\*"),
        (f"{TOKEN}\r\n", r"does not speak HTTP.*: \*\*\*"),
    ],
    ids=["refusal", "body", "redirect", "field", "no HTTP"],
)
def test_no_error_of_the_chain_shows_header_fields_or_the_token(
    answer: str, told: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 85: what users paste into bug reports shows what helps."""
    answer = answer.replace("\r\n", "\r\nSet-Cookie: session=hidden\r\n", 1)
    gateway = make_scripted(lambda peer: peer.answer(answer))
    shard, _ = watch_shard(gateway, connect=False)

    with pytest.raises(ConnectionFailed, match=told) as caught:
        shard.connect(gateway.url)

    error: BaseException | None = caught.value
    while error is not None:
        shown = "".join(traceback.format_exception_only(error)) + repr(error)
        assert "hidden" not in shown
        assert TOKEN not in shown
        error = error.__cause__ or error.__context__
