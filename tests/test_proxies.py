"""Proxies: which hosts are reached through the one that the environment names."""

from __future__ import annotations

import socket

import pytest

from shardlib import ConnectionFailed
from shardlib.proxies import environment_proxy
from tests.shards import make_gateway, make_shard
from tests.test_dial import resolve_to, server

VARIABLES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_environment_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment_proxy("gateway.discord.gg", 443, secure=True) is None
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    assert environment_proxy("gateway.discord.gg", 443, secure=True) == "http://proxy:1"
    assert environment_proxy("gateway.discord.gg", 80, secure=False) is None
    monkeypatch.setenv("all_proxy", "proxy:2")
    assert environment_proxy("example.org", 80, secure=False) == "http://proxy:2"


def test_this_machine_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    for local in ("localhost", "127.0.0.1", "127.1.2.3", "::1"):
        assert environment_proxy(local, 80, secure=False) is None
    assert environment_proxy("127.example.org", 80, secure=False) == "http://proxy:1"


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize(
    "no_proxy, direct, through_the_proxy",
    [
        ("", [], ["example.org", "10.1.2.3"]),
        ("*", ["example.org", "10.1.2.3", "fd00::1"], []),
        ("a.test, *", ["example.org"], []),
        ("example.org", ["example.org", "a.b.example.org"], ["badexample.org", "org"]),
        ("Example.ORG", ["example.org", "example.org."], []),
        (".example.org", ["example.org", "a.example.org"], ["badexample.org"]),
        ("*.example.org.", ["a.example.org"], ["badexample.org"]),
        ("a.test,example.org", ["a.test", "example.org"], ["b.test"]),
        (" a.test  example.org ,, ", ["a.test", "example.org"], ["b.test"]),
        ("example.org:7878", ["example.org", "a.example.org"], []),
        ("example.org:787", [], ["example.org"]),
        ("example.org:x", [], ["example.org"]),
        (". : *: [] :7878 /8", [], ["example.org", "10.1.2.3", "fd00::1"]),
        ("10.0.0.0/8", ["10.1.2.3", "10.255.255.255"], ["11.0.0.1", "10.example.org", "fd00::1"]),
        ("10.1.2.3/8", ["10.9.9.9"], ["11.0.0.1"]),
        ("10.1.2.3", ["10.1.2.3"], ["10.1.2.33", "110.1.2.3"]),
        ("10.1.2.3:7878,10.0.0.1:787", ["10.1.2.3"], ["10.0.0.1"]),
        ("10.0.0.0/99", [], ["10.1.2.3"]),
        ("fd00::/8", ["fd00::1", "fdff::2"], ["fe80::1", "10.1.2.3"]),
        ("FD00:0::1", ["fd00::1"], ["fd00::2"]),
        ("[fd00::1]", ["fd00::1"], ["fd00::2"]),
        ("[fd00::1]:7878", ["fd00::1"], ["fd00::2"]),
        ("[fd00::1]:787", [], ["fd00::1"]),
        ("fd00::7878", ["fd00::7878"], ["fd00::", "fd00::1"]),
    ],
)
def test_no_proxy_names_the_hosts_that_need_none(
    variable: str,
    no_proxy: str,
    direct: list[str],
    through_the_proxy: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 88: networks and ports, too, as curl and many others have it."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:1")
    monkeypatch.setenv(variable, no_proxy)
    for host in direct:
        assert environment_proxy(host, 7878, secure=False) is None, host
    for host in through_the_proxy:
        assert environment_proxy(host, 7878, secure=False) == "http://proxy:1", host


def test_small_letters_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    monkeypatch.setenv("no_proxy", "example.org")
    assert environment_proxy("10.1.2.3", 80, secure=False) == "http://proxy:1"
    assert environment_proxy("example.org", 80, secure=False) is None


def test_a_host_that_needs_no_proxy_is_connected_to_directly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 88: the gateway by its port, the proxy for all other ports."""
    with make_gateway() as gateway, server(socket.socket.close) as proxy:
        port = int(gateway.url.rstrip("/").rpartition(":")[2])
        resolve_to(monkeypatch, ("127.0.0.1", port))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
        monkeypatch.setenv("no_proxy", f"gateway.test:{port}")
        with make_shard() as shard:
            shard.connect(f"ws://gateway.test:{port}/")
            shard.wait_until_ready(10)
        monkeypatch.setenv("no_proxy", f"gateway.test:{port}0")
        with make_shard() as shard, pytest.raises(ConnectionFailed, match="proxy"):
            shard.connect(f"ws://gateway.test:{port}/")


def test_a_shard_without_a_proxy_ignores_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 88: proxy="" is not None."""
    with make_gateway() as gateway, server(socket.socket.close) as proxy:
        port = int(gateway.url.rstrip("/").rpartition(":")[2])
        resolve_to(monkeypatch, ("127.0.0.1", port))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
        with make_shard(proxy="") as shard:
            shard.connect(f"ws://gateway.test:{port}/")
            shard.wait_until_ready(10)


def test_a_proxy_that_cannot_be_reached_is_named_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    shard = make_shard(proxy=f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(
        ConnectionFailed, match=f"through the proxy 127.0.0.1:{port} failed"
    ) as caught:
        shard.connect("ws://gateway.test")
    assert "secret" not in str(caught.value)


def test_a_password_that_http_cannot_say_is_told_without_it() -> None:
    with server(lambda client: client.recv(1)) as port:
        shard = make_shard(proxy=f"http://me:\u20acuro@127.0.0.1:{port}")
        with pytest.raises(ConnectionFailed, match="Latin-1") as caught:
            shard.connect("ws://gateway.test")
    error: BaseException | None = caught.value
    while error is not None:
        assert "uro" not in str(error)
        error = error.__cause__
