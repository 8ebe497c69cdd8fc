"""``shardlib doctor`` on machines and against servers of which one thing is wrong."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from shardlib.testing import LocalGateway
from tests.command import Command, run_to_end

NAMES = [
    *("Python", "OpenSSL", "Extras", "Clock", "DNS", "IPv4", "IPv6", "Proxy", "TCP", "TLS"),
    *("WebSocket", "Token", "Session starts", "READY", "Heartbeats", "Compression"),
]


def examine(*arguments: str, **options: Any) -> tuple[Command, dict[str, dict[str, str]]]:
    command = run_to_end("doctor", "--json", "--timeout", "5", *arguments, **options)
    answer = json.loads("".join(command.out))
    findings = {finding["name"]: finding for finding in answer["findings"]}
    assert list(findings) == NAMES
    assert answer["good"] is (command.status == 0)
    return command, findings


def of(gateway: LocalGateway) -> tuple[str, ...]:
    return ("--url", gateway.url, "--api-url", gateway.http_url)


def grades(findings: dict[str, dict[str, str]], grade: str) -> list[str]:
    return [name for name, finding in findings.items() if finding["grade"] == grade]


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway() as gateway:
        yield gateway


@contextlib.contextmanager
def answering(
    answer: bytes, identity: trustme.LeafCert | None = None, *, clock: float | None = None
) -> Iterator[int]:
    """A server that gives every request the same answer, by TLS if it has an identity; its port.

    :param answer: ends with a header field.
    :param clock: seconds by which the clock of the server is ahead of this one; None for no Date.
    """

    def date() -> str:
        if clock is None:
            return ""
        return f"Date: {email.utils.formatdate(time.time() + clock, usegmt=True)}\r\n"

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if identity is not None:
        identity.configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), connection:  # who only connects leaves at once
                    stream = connection
                    if identity is not None:
                        stream = context.wrap_socket(connection, server_side=True)
                    with stream:
                        if stream.recv(65536):
                            stream.sendall(answer + f"{date()}\r\n".encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_all_is_well_with_the_local_gateway() -> None:
    command = run_to_end("doctor", "--local")
    assert command.status == 0, command.err
    assert [line[9:23].strip() for line in command.out if line[0] != " "] == NAMES
    assert not [line for line in command.out if line.startswith("failed")]
    assert command.err == []


def test_the_token_is_in_no_line(gateway: LocalGateway) -> None:
    command, findings = examine(*of(gateway), token=gateway.token)
    assert grades(findings, "failed") == []
    assert gateway.token not in "".join(command.out + command.err)


def test_the_session_is_ended_not_left_to_be_resumed(gateway: LocalGateway) -> None:
    examine(*of(gateway), token=gateway.token)
    assert len(gateway.identifies) == 1
    assert gateway.sessions == []


def test_a_missing_token_fails_and_the_network_is_checked_all_the_same(
    gateway: LocalGateway,
) -> None:
    command, findings = examine(*of(gateway))
    assert grades(findings, "failed") == ["Token"]
    assert "DISCORD_TOKEN is not set" in findings["Token"]["told"]
    assert findings["WebSocket"]["grade"] == "good"
    assert findings["READY"] == {
        "name": "READY",
        "grade": "skipped",
        "told": "Token has failed",
        "hint": "",
    }
    assert command.err == ["shardlib: failed: Token"]


def test_a_wrong_token_fails_at_the_http_api_and_takes_no_session(gateway: LocalGateway) -> None:
    _, findings = examine(*of(gateway), token="MTIz.wrong.token")
    assert grades(findings, "failed") == ["Token"]
    assert "Reset the token" in findings["Token"]["hint"]
    assert gateway.identifies == []


def test_with_a_gateway_alone_ready_tells_of_a_wrong_token(gateway: LocalGateway) -> None:
    command, findings = examine("--url", gateway.url, token="MTIz.wrong.token")
    assert grades(findings, "failed") == ["READY"]
    # The finding tells why, and the log does not tell it once more.
    assert command.err == ["shardlib: failed: READY"]
    assert "Reset the token" in findings["READY"]["hint"]
    assert "shardlib gateway prints" in findings["READY"]["hint"]


def test_intents_that_were_not_granted_fail_and_the_hint_says_where(gateway: LocalGateway) -> None:
    gateway.inject(lambda it: it.close(4014), instead_of="ready", connections=None)
    command, findings = examine(*of(gateway), token=gateway.token)
    assert grades(findings, "failed") == ["READY"]
    assert "Privileged Gateway Intents" in findings["READY"]["hint"]
    assert command.err == ["shardlib: failed: READY"]  # and not the shard's log as well


def test_no_session_is_begun_if_none_may_be() -> None:
    with LocalGateway(session_start_limit=1) as gateway:
        examine(*of(gateway), token=gateway.token)
        _, findings = examine(*of(gateway), token=gateway.token)
        assert grades(findings, "failed") == ["Session starts"]
        assert findings["Session starts"]["told"].startswith("0 of 1 left")
        assert len(gateway.identifies) == 1


def test_a_last_session_start_is_a_remark_and_is_taken() -> None:
    with LocalGateway(session_start_limit=1) as gateway:
        _, findings = examine(*of(gateway), token=gateway.token)
        assert "Session starts" in grades(findings, "remark")
        assert findings["READY"]["grade"] == "good"


def test_a_gateway_that_acknowledges_no_heartbeat_fails(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="ack", connections=None)
    _, findings = examine(*of(gateway), "--timeout", "0.5", token=gateway.token)
    assert grades(findings, "failed") == ["Heartbeats"]
    assert findings["Compression"]["grade"] == "good"


def test_a_host_that_does_not_exist_fails_once(gateway: LocalGateway) -> None:
    _, findings = examine("--url", "wss://gateway.invalid/", token=gateway.token)
    assert grades(findings, "failed") == ["DNS"]
    assert findings["TCP"]["told"] == "DNS has failed"


def test_a_port_where_nobody_listens_fails_at_tcp_and_remarks_on_ipv4() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    _, findings = examine("--url", f"ws://127.0.0.1:{port}/", token="MTIz.some.token")
    assert grades(findings, "failed") == ["TCP"]
    assert "IPv4" in grades(findings, "remark")
    assert "refused" in findings["IPv4"]["told"]
    assert "firewall" in findings["TCP"]["hint"]


def test_an_authority_that_is_not_known_fails_at_tls() -> None:
    with LocalGateway(tls=True) as gateway:
        _, findings = examine("--url", gateway.url, token=gateway.token)
        assert grades(findings, "failed") == ["TLS"]
        assert "which this computer does not know" in findings["TLS"]["told"]


def test_a_machine_without_authorities_is_told_which_file_is_missing() -> None:
    with LocalGateway(tls=True) as gateway:
        nowhere = {"SSL_CERT_FILE": "/nowhere/ca.pem", "SSL_CERT_DIR": "/nowhere"}
        _, findings = examine("--url", gateway.url, token=gateway.token, environment=nowhere)
        assert grades(findings, "failed") == ["TLS"]
        assert findings["OpenSSL"]["grade"] == "remark"
        assert "/nowhere/ca.pem" in findings["TLS"]["told"]


def test_a_trusted_certificate_is_good(tmp_path: Path) -> None:
    with LocalGateway(tls=True) as gateway:
        file = tmp_path / "ca.pem"
        file.write_bytes(gateway.ca_certificate)
        trusted = {"SSL_CERT_FILE": str(file)}
        _, findings = examine("--url", gateway.url, token=gateway.token, environment=trusted)
    assert grades(findings, "failed") == []
    assert findings["TLS"]["told"].startswith("TLSv1.3")


def test_a_certificate_that_expires_soon_is_a_remark(tmp_path: Path) -> None:
    authority = trustme.CA()
    tomorrow = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(
        hours=30, minutes=5
    )
    identity = authority.issue_cert("127.0.0.1", not_after=tomorrow)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    with answering(b"HTTP/1.1 403 Forbidden\r\n", identity) as port:
        _, findings = examine(
            *("--url", f"wss://127.0.0.1:{port}/"),
            token="MTIz.some.token",
            environment={"SSL_CERT_FILE": str(file)},
        )
    assert findings["TLS"]["grade"] == "remark"
    assert "expires in 30 h" in findings["TLS"]["told"]


def test_wss_to_a_server_without_tls_fails_at_tls_and_says_so(gateway: LocalGateway) -> None:
    _, findings = examine("--url", gateway.url.replace("ws:", "wss:"), token=gateway.token)
    assert grades(findings, "failed") == ["TLS"]
    assert "does not speak TLS" in findings["TLS"]["told"]


def test_a_server_that_refuses_websockets_fails_there() -> None:
    with answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n") as port:
        _, findings = examine("--url", f"ws://127.0.0.1:{port}/", token="MTIz.some.token")
    assert grades(findings, "failed") == ["WebSocket"]
    assert "403" in findings["WebSocket"]["told"]


@pytest.mark.parametrize(("seconds", "told"), [(7230, "behind"), (-7230, "ahead of")])
def test_a_clock_that_is_wrong_is_a_remark(seconds: int, told: str) -> None:
    with answering(b"HTTP/1.1 403 Forbidden\r\n", clock=seconds) as port:
        _, findings = examine("--url", f"ws://127.0.0.1:{port}/", token="MTIz.some.token")
    assert findings["Clock"]["grade"] == "remark"
    assert f"2 h 0 min {told} that of" in findings["Clock"]["told"]
    assert "Set the clock" in findings["Clock"]["hint"]


def test_a_clock_that_is_right_is_good() -> None:
    with answering(b"HTTP/1.1 403 Forbidden\r\n", clock=0.0) as port:
        _, findings = examine("--url", f"ws://127.0.0.1:{port}/", token="MTIz.some.token")
    assert findings["Clock"]["grade"] == "good"


def test_a_proxy_that_refuses_fails_at_tcp_and_no_address_is_needed() -> None:
    with answering(b"HTTP/1.1 407 Proxy Authentication Required\r\n") as port:
        proxied = {"https_proxy": f"http://user:secret@127.0.0.1:{port}"}
        command, findings = examine(
            "--url", "wss://gateway.invalid/", token="MTIz.some.token", environment=proxied
        )
    assert grades(findings, "failed") == ["TCP"]
    assert "DNS" in grades(findings, "remark")
    assert findings["Proxy"]["told"].startswith(f"127.0.0.1:{port}")
    assert "407" in findings["TCP"]["told"]
    assert "secret" not in "".join(command.out + command.err)


def test_a_proxy_of_an_unknown_kind_fails_there() -> None:
    proxied = {"https_proxy": "gopher://127.0.0.1:70"}
    _, findings = examine("--url", "wss://gateway.invalid/", token="t.o.k", environment=proxied)
    assert grades(findings, "failed") == ["Proxy"]
    assert findings["TCP"]["told"] == "Proxy has failed"


def test_arguments_that_cannot_be_are_refused() -> None:
    for arguments in (("--timeout", "0"), ("--local", "--api-url", "http://127.0.0.1:1")):
        command = run_to_end("doctor", *arguments)
        assert command.status == 2
        assert command.out == []
