"""Checks of the network between this computer and the Gateway, from the clock to the WebSocket."""

from __future__ import annotations

import contextlib
import email.utils
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from shardlib.answers import read_head
from shardlib.cli.checkup.finding import Finding, Grade
from shardlib.cli.checkup.way import Way
from shardlib.deadline import Deadline
from shardlib.dial import check_proxy
from shardlib.errors import ConnectionFailed
from shardlib.gateway import API_VERSION, gateway_url
from shardlib.handshake import shake_hands
from shardlib.opening import Opening
from shardlib.proxies import address_of, environment_proxy
from shardlib.text import count, duration, printable
from shardlib.transport import Transport

# Seconds by which this computer's clock may differ from the server's, whose Date has whole seconds.
_TOLERANCE = 5.0

# Seconds before a certificate expires from which on the check remarks on it.
_SOON = 7 * 86_400.0


def check_network(way: Way) -> Iterator[Finding]:
    """Check each step to the Gateway, and skip the steps after one that has failed.

    :param way: how the bot reaches the Gateway.
    """
    proxy = environment_proxy(way.host, way.port, way.is_encrypted)
    failed: str | None = None
    yield _clock(way)
    for finding in (*_addresses(way, is_needed=proxy is None), _proxy(proxy)):
        if finding.grade is Grade.FAILED:
            failed = failed or finding.name
        yield finding
    with contextlib.closing(_Connecting(way)) as connecting:
        yield from connecting.check(failed)


def milliseconds(seconds: float) -> str:
    """Return a short time as people read it.

    :param seconds: the time.
    """
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def since(begin: float) -> str:
    """Return the time that has passed as people read it.

    :param begin: the value of :func:`time.perf_counter` at the beginning.
    """
    return milliseconds(time.perf_counter() - begin)


# The clock


def _clock(way: Way) -> Finding:
    name = "Clock"
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    url = way.api_url or way.url.replace("ws", "http", 1)
    host = urlsplit(url).hostname
    try:
        ahead = _clock_ahead(url, way.timeout)
    except ConnectionFailed as error:
        return Finding(name, Grade.SKIPPED, f"{now}, not compared: {error}")
    if ahead is None:
        return Finding(name, Grade.SKIPPED, f"{now}, not compared: {host} does not tell the time")
    if abs(ahead) <= _TOLERANCE:
        return Finding(name, Grade.GOOD, f"{now}, as {host} has it")
    side = "ahead of" if ahead > 0 else "behind"
    return Finding(
        name,
        Grade.REMARK,
        f"{now}, {duration(abs(ahead))} {side} that of {host}",
        "Set the clock of this computer: each certificate is valid at certain times only",
    )


def _clock_ahead(url: str, timeout: float) -> float | None:
    """Return the seconds by which this computer's clock is ahead; None if the server sends no Date.

    The function accepts any certificate, because a wrong clock may be the reason to refuse a valid
    one, and sends the server nothing that is secret.

    :raises ConnectionFailed: if the server does not answer.
    """
    parts = urlsplit(url)
    request = (
        f"HEAD {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    )
    opening = _opening(url, timeout, _trusting_anybody())
    deadline = Deadline(timeout)
    transport = None
    try:
        transport = opening.dial(deadline)
        opening.start_tls(transport, deadline)
        opening.begin("the request for the time")
        before = time.time()
        transport.send(request.encode("ascii"), deadline)
        head, _ = read_head(lambda: transport.receive(deadline) or b"")
        after = time.time()
    except Exception as error:
        raise opening.failure(error, "cannot ask")[0] from error
    finally:
        if transport is not None:
            transport.close()
    try:
        told = email.utils.parsedate_to_datetime(head.fields["date"][0]).timestamp()
    except (LookupError, ValueError, TypeError):  # no Date, or an invalid one
        return None
    # The server read its clock between before and after, and cut off the fraction of the second.
    return (before + after) / 2 - (told + 0.5)


def _trusting_anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# The addresses


def _addresses(way: Way, *, is_needed: bool) -> Iterator[Finding]:
    begin = time.perf_counter()
    try:
        found = socket.getaddrinfo(way.host, way.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        grade = Grade.FAILED if is_needed else Grade.REMARK
        yield Finding(
            "DNS",
            grade,
            f"the address of {way.host} was not found: {reason}",
            "Is this computer online, and its name server reachable? A proxy finds the address "
            "itself: HTTPS_PROXY=http://host:port names one",
        )
        yield Finding("IPv4", Grade.SKIPPED, "DNS has failed")
        yield Finding("IPv6", Grade.SKIPPED, "DNS has failed")
        return
    families = {
        "IPv4": [address for family, *_, address in found if family == socket.AF_INET],
        "IPv6": [address for family, *_, address in found if family == socket.AF_INET6],
    }
    numbers = " and ".join(f"{len(of_it)} of {name}" for name, of_it in families.items())
    told = f"{way.host} has {numbers}, found in {since(begin)}"
    yield Finding("DNS", Grade.GOOD, told)
    for name, addresses in families.items():
        yield _family(name, addresses, way.timeout)


def _family(name: str, addresses: list[Any], timeout: float) -> Finding:
    """Connect to the first address of one family. A failure is a remark: one family is enough."""
    if not addresses:
        return Finding(name, Grade.SKIPPED, "the host has no such address")
    host, port, *_ = addresses[0]
    begin = time.perf_counter()
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding(
            name,
            Grade.REMARK,
            f"no connection to {host}: {reason}",
            "One of IPv4 and IPv6 is enough, and with a proxy neither is needed",
        )
    return Finding(name, Grade.GOOD, f"connected to {host} in {since(begin)}")


def _proxy(proxy: str | None) -> Finding:
    name = "Proxy"
    if proxy is None:
        return Finding(name, Grade.GOOD, "none: the environment names none for this host")
    told = f"{address_of(proxy)}, which the environment names"
    try:
        check_proxy(proxy)
    except ValueError as error:
        return Finding(name, Grade.FAILED, told, str(error))
    return Finding(name, Grade.GOOD, told)


# The steps of one connection


class _Connecting:
    """Connects to the Gateway, and checks each step.

    :param way: how the bot reaches the Gateway.
    """

    def __init__(self, way: Way) -> None:
        self._way = way
        self._opening = _opening(way.url, way.timeout, way.ssl_context)
        self._transport: Transport | None = None

    def check(self, failed: str | None) -> Iterator[Finding]:
        """Take the steps, and skip those after one that has failed.

        :param failed: the name of an earlier check that has failed; None if none has.
        """
        for name, step, hint in (
            ("TCP", self._connect, _FIREWALL),
            ("TLS", self._start_tls, ""),  # the error has the hint
            ("WebSocket", self._shake_hands, _INSPECTION),
        ):
            if failed is not None:
                yield Finding(name, Grade.SKIPPED, f"{failed} has failed")
                continue
            try:
                finding = step(name)
            except Exception as error:
                failed = name
                failure, _ = self._opening.failure(error, "cannot connect to")
                finding = Finding(name, Grade.FAILED, str(failure), hint)
            yield finding

    def close(self) -> None:
        """Close the TCP connection, without a CLOSE frame."""
        if self._transport is not None:
            self._transport.close()

    def _connect(self, name: str) -> Finding:
        begin = time.perf_counter()
        self._transport = self._opening.dial(Deadline(self._way.timeout))
        return Finding(name, Grade.GOOD, f"connected in {since(begin)}")

    def _start_tls(self, name: str) -> Finding:
        assert self._transport is not None
        if not self._way.is_encrypted:
            return Finding(name, Grade.GOOD, "none: the URL begins with ws://")
        begin = time.perf_counter()
        self._opening.start_tls(self._transport, Deadline(self._way.timeout))
        took = since(begin)
        stream = self._transport.socket
        assert isinstance(stream, ssl.SSLSocket)
        certificate = stream.getpeercert() or {}
        issuer = dict(pair for part in certificate.get("issuer", ()) for pair in part)  # type: ignore[misc]
        by = printable(str(issuer.get("organizationName") or issuer.get("commonName")), 60)
        left = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
        told = f"{stream.version()} in {took}; a certificate by {by}"
        if left < _SOON:
            return Finding(
                name,
                Grade.REMARK,
                f"{told}, which expires in {duration(left)}",
                "The server's operator has to renew it",
            )
        return Finding(name, Grade.GOOD, f"{told}, for {count(int(left / 86_400), 'day')} more")

    def _shake_hands(self, name: str) -> Finding:
        assert self._transport is not None
        self._opening.begin("the WebSocket handshake")
        begin = time.perf_counter()
        url = gateway_url(self._way.url, API_VERSION, None)
        shake_hands(url, self._transport, Deadline(self._way.timeout))
        return Finding(name, Grade.GOOD, f"the handshake took {since(begin)}")


_FIREWALL = (
    "A firewall may be in the way, on this computer or in its network. If the network has a proxy, "
    "HTTPS_PROXY=http://host:port in the environment names it"
)

_INSPECTION = (
    "A proxy or a virus scanner that looks into connections may not let WebSockets pass; is the "
    "URL right?"
)


def _opening(url: str, timeout: float, ssl_context: ssl.SSLContext | None) -> Opening:
    # These checks send no token, so there is none to hide.
    return Opening(
        url, ssl_context=ssl_context, proxy=None, timeout=timeout, hide_token=lambda text: text
    )
