"""A company's network: a proxy that wants a password, and that reads what TLS would hide."""

from __future__ import annotations

import base64
import contextlib
import selectors
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from shardlib import ConnectionFailed, Intents, Shard
from shardlib.testing import LocalGateway
from tests.command import run_to_end
from tests.examples import PATIENCE, Example
from tests.support import wait_until

URL = "wss://gateway.example.com/"  # which only the proxy knows


class InspectingProxy:
    """An HTTP proxy that presents a certificate of its own for every host, and reads all.

    :param gateway: the local gateway, without TLS, to which it passes everything on.
    """

    def __init__(self, gateway: LocalGateway) -> None:
        self.authority = trustme.CA(organization_name="Example Corporation")
        self.asked_for: list[str] = []
        self.read = b""
        self._upstream = ("127.0.0.1", urllib.parse.urlsplit(gateway.url).port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def url(self, user: str = "ada", password: str = "p%40ss%2Fword") -> str:
        return f"http://{user}:{password}@127.0.0.1:{self._server.getsockname()[1]}"

    def write_authority(self, path: Path) -> str:
        self.authority.cert_pem.write_to_path(path)
        return str(path)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._connections.append(client)
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:  # who does not trust us goes away
            request = client.recv(65536).decode()
            host, _, port = request.split()[1].partition(":")
            self.asked_for.append(f"{host}:{port}")
            if base64.b64encode(b"ada:p@ss/word").decode() not in request:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.authority.issue_cert(host).configure_cert(context)
            with context.wrap_socket(client, server_side=True) as inspected:
                with socket.create_connection(self._upstream) as upstream:
                    self._pass_on(inspected, upstream)

    def _pass_on(self, inspected: ssl.SSLSocket, upstream: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(inspected, selectors.EVENT_READ, upstream)
            selector.register(upstream, selectors.EVENT_READ, inspected)
            while True:
                for key, _ in selector.select():
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is inspected:
                        self.read += data
                    key.data.sendall(data)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads[0].join()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # it was closed
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(identify_interval=0) as gateway:
        yield gateway


@pytest.fixture
def proxy(gateway: LocalGateway) -> Iterator[InspectingProxy]:
    with contextlib.closing(InspectingProxy(gateway)) as proxy:
        yield proxy


def test_a_bot_needs_two_variables_behind_an_inspecting_proxy(
    gateway: LocalGateway, proxy: InspectingProxy, tmp_path: Path
) -> None:
    environment = {
        "HTTPS_PROXY": proxy.url(),
        "SSL_CERT_FILE": proxy.write_authority(tmp_path / "company.pem"),
        "DISCORD_GATEWAY": URL,
    }
    with Example(gateway, "bot.py", **environment) as bot:
        bot.wait_for("logged in as local-bot")
        assert bot.interrupt() == 0
    assert proxy.asked_for == ["gateway.example.com:443"]
    assert b"GET /?v=10&encoding=json" in proxy.read  # it is inside the TLS connection


def test_a_wrong_password_for_the_proxy_is_told_with_the_address_only(
    gateway: LocalGateway, proxy: InspectingProxy
) -> None:
    environment = {"HTTPS_PROXY": proxy.url(password="secret"), "DISCORD_GATEWAY": URL}
    with Example(gateway, "bot.py", **environment) as bot:
        bot.wait_for("the proxy refused: 407 Proxy Authentication Required")
        assert bot.interrupt() == 0
    assert not any("secret" in line for line in bot.lines)


def test_the_company_that_reads_a_connection_is_named(proxy: InspectingProxy) -> None:
    shard = Shard("token", Intents.GUILDS, proxy=proxy.url())
    with pytest.raises(ConnectionFailed, match='issued by the authority "Example Corporation'):
        shard.connect(URL)


def test_ssl_context_trusts_the_company_besides_the_computers_own_authorities(
    gateway: LocalGateway, proxy: InspectingProxy, tmp_path: Path
) -> None:
    context = ssl.create_default_context()
    context.load_verify_locations(proxy.write_authority(tmp_path / "company.pem"))
    with Shard(gateway.token, Intents.GUILDS, proxy=proxy.url(), ssl_context=context) as shard:
        shard.connect(URL)
        shard.wait_until_ready(PATIENCE)
    wait_until(lambda: gateway.all_connections[0].close_code == 1000)


def test_doctor_finds_the_proxy_and_names_the_company(
    gateway: LocalGateway, proxy: InspectingProxy, tmp_path: Path
) -> None:
    arguments = ("doctor", "--url", URL)
    environment = {"HTTPS_PROXY": proxy.url()}
    command = run_to_end(*arguments, token=gateway.token, environment=environment)
    told = " ".join(" ".join(command.out).split())
    print(*command.out, sep="")
    assert command.status == 1
    assert 'issued by the authority "Example Corporation' in told
    assert "p@ss" not in told
    environment["SSL_CERT_FILE"] = proxy.write_authority(tmp_path / "company.pem")
    command = run_to_end(*arguments, token=gateway.token, environment=environment)
    print(*command.out, sep="")
    assert command.status == 0
    assert "good TLS" in " ".join(" ".join(command.out).split())
