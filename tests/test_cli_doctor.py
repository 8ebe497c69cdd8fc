"""``shardlib doctor`` on machines and against servers of which one thing is wrong."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from shardlib.cli.checkup.finding import NAMES
from shardlib.testing import LocalGateway
from tests.command import ROOT, Command, Pipe, own_environment, run_to_end, wait_for


def examine(*arguments: str, **options: Any) -> tuple[Command, dict[str, dict[str, str]]]:
    command = run_to_end("doctor", "--json", "--timeout", "5", *arguments, **options)
    answer = json.loads("".join(command.out))
    findings = {finding["name"]: finding for finding in answer["findings"]}
    assert tuple(findings) == NAMES
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


def unused_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.contextmanager
def answering(
    answer: bytes | Callable[[], bytes], context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """A server that gives every request the same answer, by TLS if it has a context; its port.

    :param answer: a function if it depends on when it is given.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), connection:  # who only connects leaves at once
                    stream = connection
                    if context is not None:
                        stream = context.wrap_socket(connection, server_side=True)
                    with stream:
                        if stream.recv(65536):
                            stream.sendall(answer() if callable(answer) else answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_all_is_well_with_the_local_gateway() -> None:
    command = run_to_end("doctor", "--local")
    assert command.status == 0, command.err
    assert [line[9:23].strip() for line in command.out if line[0] != " "] == list(NAMES)
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
    assert "wrong or was reset" in findings["Token"]["told"]
    assert "shardlib gateway prints" in findings["Token"]["hint"]
    assert gateway.identifies == []


@pytest.mark.parametrize("token", ["Bot MTIz.some.token", "MTIz.some\ntoken"])
@pytest.mark.parametrize("with_api", [True, False])
def test_a_text_that_can_be_no_token_is_a_finding(
    gateway: LocalGateway, token: str, with_api: bool
) -> None:
    command, findings = examine(*of(gateway)[: 4 if with_api else 2], token=token)
    assert grades(findings, "failed") == ["Token"]
    assert command.err == ["shardlib: failed: Token"]


def test_with_a_gateway_alone_ready_tells_of_a_wrong_token(gateway: LocalGateway) -> None:
    command, findings = examine("--url", gateway.url, token="MTIz.wrong.token")
    assert grades(findings, "failed") == ["READY"]
    # The finding tells why, and the log does not tell it once more.
    assert command.err == ["shardlib: failed: READY"]
    assert "wrong or was reset" in findings["READY"]["told"]
    assert "shardlib gateway prints" in findings["READY"]["hint"]


def test_intents_that_were_not_granted_fail_and_the_line_says_where(gateway: LocalGateway) -> None:
    gateway.inject(lambda it: it.close(4014), instead_of="ready", connections=None)
    command, findings = examine(*of(gateway), token=gateway.token)
    assert grades(findings, "failed") == ["READY"]
    assert "Switch them on at the Bot page" in findings["READY"]["told"]
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
    port = unused_port()
    _, findings = examine("--url", f"ws://127.0.0.1:{port}/", token="MTIz.some.token")
    assert grades(findings, "failed") == ["TCP"]
    assert "IPv4" in grades(findings, "remark")
    assert "refused" in findings["IPv4"]["told"]
    assert f"Nothing listens at port {port} of this computer" in findings["TCP"]["hint"]


def test_an_authority_that_is_not_known_fails_at_tls() -> None:
    with LocalGateway(tls=True) as gateway:
        _, findings = examine("--url", gateway.url, token=gateway.token)
        assert grades(findings, "failed") == ["TLS"]
        assert "which this computer does not know" in findings["TLS"]["told"]


def test_a_machine_without_authorities_is_told_which_file_is_missing() -> None:
    with LocalGateway(tls=True) as gateway:
        nowhere = {"SSL_CERT_FILE": "/nowhere/ca.pem", "SSL_CERT_DIR": "/nowhere"}
        _, findings = examine("--url", gateway.url, token=gateway.token, environment=nowhere)
        assert grades(findings, "failed") == ["OpenSSL"]
        assert "/nowhere/ca.pem (No such file or directory)" in findings["OpenSSL"]["told"]
        assert findings["TCP"]["grade"] == "good"
        assert findings["TLS"]["told"] == "OpenSSL has failed"


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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity.configure_cert(context)
    with answering(b"HTTP/1.1 403 Forbidden\r\n\r\n", context) as port:
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
    with answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as port:
        _, findings = examine("--url", f"ws://127.0.0.1:{port}/", token="MTIz.some.token")
    assert grades(findings, "failed") == ["WebSocket"]
    assert "403" in findings["WebSocket"]["told"]


def dated(seconds: float) -> bytes:
    """An answer whose date is that of a clock."""
    date = email.utils.formatdate(seconds, usegmt=True)
    return f"HTTP/1.1 403 Forbidden\r\nDate: {date}\r\n\r\n".encode()


@pytest.mark.parametrize(("seconds", "told"), [(7230, "behind"), (-7230, "ahead of")])
def test_a_clock_that_is_wrong_is_a_remark(seconds: int, told: str) -> None:
    with answering(lambda: dated(time.time() + seconds)) as port:
        _, findings = examine("--url", f"ws://127.0.0.1:{port}/", token="MTIz.some.token")
    assert findings["Clock"]["grade"] == "remark"
    assert f"2 h 0 min {told} that of" in findings["Clock"]["told"]
    assert "Set the clock" in findings["Clock"]["hint"]


def test_a_clock_that_is_right_is_good() -> None:
    with answering(lambda: dated(time.time())) as port:
        _, findings = examine("--url", f"ws://127.0.0.1:{port}/", token="MTIz.some.token")
    assert findings["Clock"]["grade"] == "good"


def test_a_proxy_that_refuses_fails_at_tcp_and_no_address_is_needed() -> None:
    with answering(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as port:
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


# What stands between this computer and the Gateway


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 407 Authenticate\r\n\r\n", "user:password@host:port"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "ask whoever runs the proxy to allow them"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "cannot reach the server"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "what answers there is no http proxy"),
    ],
)
def test_a_proxy_that_does_not_connect_is_told_with_what_to_do(answer: bytes, told: str) -> None:
    with answering(answer) as port:
        proxied = {"https_proxy": f"http://127.0.0.1:{port}"}
        _, findings = examine("--url", "wss://gateway.invalid/", token="t.o.k", environment=proxied)
    assert grades(findings, "failed") == ["TCP"]
    assert told in findings["TCP"]["told"]
    assert findings["TCP"]["hint"] == ""  # a word on firewalls would lead astray


@pytest.mark.parametrize(
    ("user", "answer"),
    [("", b"\x05\xff"), ("ada:wrong@", b"\x05\x02\x01\x01")],
    ids=["no password", "wrong password"],
)
def test_a_socks_proxy_that_refuses_the_password_says_that(user: str, answer: bytes) -> None:
    with answering(answer) as port:
        proxied = {"all_proxy": f"socks5://{user}127.0.0.1:{port}"}
        _, findings = examine("--url", "wss://gateway.invalid/", token="t.o.k", environment=proxied)
    assert "socks5://user:password@host:port" in findings["TCP"]["told"]


def test_a_proxy_that_is_not_there_has_the_variable_checked() -> None:
    port = unused_port()
    proxied = {"https_proxy": f"http://127.0.0.1:{port}"}
    _, findings = examine("--url", "wss://gateway.invalid/", token="t.o.k", environment=proxied)
    assert grades(findings, "failed") == ["TCP"]
    assert "HTTPS_PROXY or ALL_PROXY right" in findings["TCP"]["hint"]


def test_a_proxy_of_the_other_scheme_is_a_remark() -> None:
    environment = {"http_proxy": "http://127.0.0.1:9"}
    _, findings = examine("--url", "wss://gateway.invalid/", environment=environment)
    assert findings["Proxy"]["grade"] == "remark"
    assert findings["Proxy"]["told"].endswith("one for http, but not for https")


def test_a_host_that_no_proxy_excepts_is_a_remark() -> None:
    environment = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "gateway.invalid"}
    _, findings = examine("--url", "wss://gateway.invalid/", environment=environment)
    assert findings["Proxy"]["grade"] == "remark"
    assert "excepts this host" in findings["Proxy"]["told"]


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        ("200 OK", "the log-in page of a network"),
        ("302 Found", "the log-in page of a network"),
        ("403 Forbidden", "may not let WebSockets pass"),
        ("429 Too Many Requests", "wait as long as the answer says"),
        ("502 Bad Gateway", "discordstatus.com"),
    ],
)
def test_a_refused_handshake_has_the_hint_for_its_status(status: str, hint: str) -> None:
    page = b"<html><head><title>Hotel &amp; Bar</title></head><body><p>Hi</body></html>"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n"
    with answering(head.encode() + page) as port:
        _, findings = examine("--url", f"ws://127.0.0.1:{port}/", token="t.o.k")
    assert grades(findings, "failed") == ["WebSocket"]
    assert hint in findings["WebSocket"]["hint"]
    assert findings["WebSocket"]["told"].endswith(": Hotel & Bar")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")
def test_a_server_with_old_versions_of_tls_only_is_told_in_plain_words() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    with answering(b"", context) as port:
        _, findings = examine("--url", f"wss://127.0.0.1:{port}/", token="t.o.k")
    assert grades(findings, "failed") == ["TLS"]
    assert "Python speaks TLS 1.2 and 1.3" in findings["TLS"]["told"]


def test_a_connection_that_is_cut_during_tls_is_told_in_plain_words() -> None:
    with answering(b"") as port:  # a server that closes when it has heard the ClientHello
        _, findings = examine("--url", f"wss://127.0.0.1:{port}/", token="t.o.k")
    assert grades(findings, "failed") == ["TLS"]
    assert "was closed in the middle" in findings["TLS"]["told"]


def test_a_server_that_is_silent_fails_in_time_with_a_hint() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # the system accepts; nothing answers
        url = f"wss://127.0.0.1:{server.getsockname()[1]}/"
        _, findings = examine("--url", url, "--timeout", "0.5", token="t.o.k")
    assert grades(findings, "failed") == ["TLS"]
    assert "a firewall may forbid this host, or large packets are lost" in findings["TLS"]["hint"]


# The HTTP API


def test_an_api_that_cannot_be_asked_either_is_no_failure_of_the_token() -> None:
    port = unused_port()
    urls = ("--url", f"ws://127.0.0.1:{port}/", "--api-url", f"http://127.0.0.1:{port}/api")
    command, findings = examine(*urls, token="t.o.k")
    assert findings["Token"]["told"] == "TCP has failed, and 127.0.0.1 cannot be asked either"
    assert command.err == ["shardlib: failed: TCP"]


def test_a_wrong_token_is_told_though_the_gateway_is_not_reached(gateway: LocalGateway) -> None:
    urls = ("--url", f"ws://127.0.0.1:{unused_port()}/", "--api-url", gateway.http_url)
    _, findings = examine(*urls, token="MTIz.wrong.token")
    assert grades(findings, "failed") == ["TCP", "Token"]
    assert "wrong or was reset" in findings["Token"]["told"]


def test_an_api_that_cannot_be_asked_fails_if_the_gateway_is_reached(
    gateway: LocalGateway,
) -> None:
    port = unused_port()
    urls = ("--url", gateway.url, "--api-url", f"http://127.0.0.1:{port}/api")
    _, findings = examine(*urls, token=gateway.token)
    assert grades(findings, "failed") == ["Token"]
    assert "not the HTTP API" in findings["Token"]["hint"]


def test_a_bot_that_needs_shards_identifies_as_the_first_of_them() -> None:
    with LocalGateway(shards=4, min_shards=4) as gateway:
        _, findings = examine(*of(gateway), token=gateway.token)
    assert grades(findings, "failed") == []
    assert "of shard 0 of 4" in findings["READY"]["told"]


def test_a_gateway_that_does_not_answer_identify_has_a_hint(gateway: LocalGateway) -> None:
    gateway.inject(instead_of="ready", connections=None)
    _, findings = examine(*of(gateway), "--timeout", "2", token=gateway.token)
    assert grades(findings, "failed") == ["READY"]
    assert "may hold messages back" in findings["READY"]["hint"]


# This machine


def test_a_key_log_that_cannot_be_written_is_named() -> None:
    environment = {"SSLKEYLOGFILE": "/nowhere/keys"}
    _, findings = examine("--url", "wss://127.0.0.1:9/", environment=environment)
    assert findings["OpenSSL"]["grade"] == "failed"
    assert "SSLKEYLOGFILE" in findings["OpenSSL"]["told"]
    assert "Unset it" in findings["OpenSSL"]["told"]


@pytest.mark.parametrize(
    ("file", "content", "told", "hint"),
    [
        ("_ssl.py", "raise ImportError('No module named _ssl')", "_ssl", "without OpenSSL"),
        ("ujson.py", "raise ImportError('No module named ujson')", "ujson", "pip install"),
        ("websocket.py", "", "is not that of websocket-client", "rename it"),
    ],
)
def test_a_python_that_cannot_import_what_is_needed_says_what_to_do(
    tmp_path: Path, file: str, content: str, told: str, hint: str
) -> None:
    (tmp_path / file).write_text(content)
    command, findings = examine(environment={"PYTHONPATH": str(tmp_path)})
    assert grades(findings, "failed") == ["Python"]
    assert told in findings["Python"]["told"]
    assert hint in findings["Python"]["hint"]
    assert command.err == ["shardlib: failed: Python"]


def test_a_local_gateway_that_needs_a_package_is_a_finding_in_json_too(tmp_path: Path) -> None:
    (tmp_path / "python_multipart.py").write_text("raise ModuleNotFoundError(name=__name__)")
    environment = {"PYTHONPATH": str(tmp_path)}
    command = run_to_end("doctor", "--local", "--json", environment=environment)
    first, *others = json.loads("".join(command.out))["findings"]
    assert (first["name"], first["grade"]) == ("Local gateway", "failed")
    assert "pip install" in first["told"]
    assert [finding["name"] for finding in others] == list(NAMES)
    assert command.status == 1


# Its end


def test_a_pipe_without_reader_ends_it_quietly_but_not_as_if_all_were_well() -> None:
    with Pipe() as pipe:
        with Command("doctor", "--local", stdout=pipe) as command:
            pipe.close()
            assert command.finish() == 1
    assert command.err == []


def test_ctrl_c_ends_it_quietly_but_not_as_if_all_were_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"wss://127.0.0.1:{server.getsockname()[1]}/"
        with Command("doctor", "--url", url, "--timeout", "60") as command:
            command.read()
            wait_for(command.out, "Extras")
            command.interrupt()
            assert command.finish() == 1
    assert command.err == []


# Machines of which the network is broken, each in namespaces of its own

# A link of which the other end drops everything. Its one neighbour is known, so no ARP fails.
_BLACK_HOLE = (
    "ip link set lo up && ip link add near type veth peer name far && "
    "ip link set near up && ip link set far up && ip address add 192.0.2.1/24 dev near && "
    "ip neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev near && "
)


# What this computer's names and addresses come from, in /etc.
NAME_FILES = ("resolv.conf", "hosts")


def on_a_machine(commands: str, *arguments: str) -> dict[str, dict[str, str]]:
    """Run the doctor in a network of its own, made by commands of the shell."""
    unshare = ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c"]
    doctor = [sys.executable, "-m", "shardlib", "doctor", "--json", "--timeout", "1", *arguments]
    command = [*unshare, commands + 'exec "$0" "$@"', *doctor]
    done = subprocess.run(command, cwd=ROOT, env=own_environment(), capture_output=True, timeout=60)
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def can_unshare(commands: str) -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    unshare = ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c"]
    done = subprocess.run([*unshare, commands + "true"], capture_output=True)
    return done.returncode == 0


in_namespaces = pytest.mark.skipif(
    not can_unshare(_BLACK_HOLE), reason="this system does not let the tests make networks"
)


@in_namespaces
def test_a_machine_without_loopback_is_told_so() -> None:
    findings = on_a_machine("", "--local")
    assert grades(findings, "failed") == ["TCP"]
    assert "ip link set lo up" in findings["TCP"]["hint"]


@in_namespaces
def test_a_machine_without_a_route_is_told_so() -> None:
    findings = on_a_machine("ip link set lo up && ", "--url", "wss://192.0.2.9/")
    assert findings["TCP"]["grade"] == "failed"
    assert "no route to it. Is it connected" in findings["TCP"]["hint"]


@in_namespaces
def test_a_firewall_that_drops_everything_is_suspected() -> None:
    findings = on_a_machine(_BLACK_HOLE, "--url", "wss://192.0.2.9/")
    assert findings["TCP"]["grade"] == "failed"
    assert "within 1 second" in findings["TCP"]["told"]
    assert "it has to allow 192.0.2.9, port 443" in findings["TCP"]["hint"]


@in_namespaces
def test_a_name_server_that_is_dead_takes_no_longer_than_the_timeout(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.9\n")
    (tmp_path / "hosts").write_text("")
    mounts = "".join(f"mount --bind {tmp_path}/{each} /etc/{each} && " for each in NAME_FILES)
    findings = on_a_machine(_BLACK_HOLE + mounts)
    assert findings["DNS"]["grade"] == "failed"
    assert "no name server has told" in findings["DNS"]["told"]
    assert "in 1 s" in findings["DNS"]["told"]


@in_namespaces
def test_a_name_server_that_blocks_discord_is_told_and_no_firewall_suspected(
    tmp_path: Path,
) -> None:
    (tmp_path / "resolv.conf").write_text("")
    (tmp_path / "hosts").write_text("0.0.0.0 gateway.discord.gg\n")
    mounts = "".join(f"mount --bind {tmp_path}/{each} /etc/{each} && " for each in NAME_FILES)
    findings = on_a_machine("ip link set lo up && " + mounts)
    assert findings["DNS"]["grade"] == "remark"
    assert "none of which is Discord's: 0.0.0.0" in findings["DNS"]["told"]
    assert findings["TCP"]["hint"] == "The address is not Discord's: see DNS"
