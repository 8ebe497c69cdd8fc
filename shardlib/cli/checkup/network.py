"""Checks of the network between this computer and the Gateway, from the clock to the WebSocket."""

from __future__ import annotations

import contextlib
import email.utils
import socket
import ssl
import time
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import urlsplit

from shardlib.answers import read_head
from shardlib.cli.checkup.finding import Finding, Grade
from shardlib.cli.checkup.hints import is_misled, tcp_hint, tls_hint, websocket_hint
from shardlib.cli.checkup.way import Way
from shardlib.deadline import Deadline
from shardlib.dial import check_proxy, resolve
from shardlib.errors import ConnectionFailed
from shardlib.gateway import API_VERSION, gateway_url
from shardlib.handshake import shake_hands
from shardlib.opening import Opening
from shardlib.proxies import address_of, environment_proxy, is_this_machine
from shardlib.text import duration, printable
from shardlib.tls import authority_name
from shardlib.transport import Transport
from shardlib.waiting import Alarm

# Seconds by which this computer's clock may differ from the server's, whose Date has whole seconds.
_TOLERANCE = 5.0

# Seconds before a certificate expires from which on the check remarks on it.
_SOON = 7 * 86_400.0


def check_network(way: Way, failed: str | None) -> Generator[Finding, None, str | None]:
    """Check each step to the Gateway, and skip the steps after one that has failed.

    :param way: how the bot reaches the Gateway.
    :param failed: the name of an earlier check without which TLS fails; None if all is well.
    :returns: the name of a check that has failed, `failed` included, or None.
    """
    yield _clock(way)
    proxy = environment_proxy(way.host, way.port, way.is_encrypted)
    addresses: list[str] = []
    unreachable: str | None = None
    for finding in _check_addresses(way, proxy, addresses):
        if finding.grade is Grade.FAILED:
            unreachable = finding.name
        yield finding
    finding = _proxy(way, proxy)
    if finding.grade is Grade.FAILED:
        unreachable = unreachable or finding.name
    yield finding
    with contextlib.closing(_Connecting(way, proxy, addresses)) as connecting:
        return (yield from connecting.check(unreachable, failed))


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
        "Set the clock of this computer (on most Linux: timedatectl set-ntp true): a certificate "
        "is valid at certain times only",
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
        head, _ = read_head(lambda: transport.receive(deadline))
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


def _check_addresses(way: Way, proxy: str | None, addresses: list[str]) -> Iterator[Finding]:
    """Look the host up, and connect to one of its addresses of each family.

    :param proxy: which would find the address by itself; or None.
    :param addresses: the host's are put in here.
    """
    begin = time.perf_counter()
    try:
        found = resolve(way.host, way.port, Deadline(way.timeout), Alarm())
    except OSError as error:
        if isinstance(error, TimeoutError):
            told = f"no name server has told the address of {way.host} in {way.timeout:g} s"
        else:
            told = printable(str(error))
        yield Finding(
            "DNS",
            Grade.FAILED if proxy is None else Grade.REMARK,
            told,
            "Is this computer online, and its name server reachable? A proxy finds the address "
            "itself: HTTPS_PROXY=http://host:port names one"
            if proxy is None
            else "The proxy finds the address itself",
        )
        yield Finding("IPv4", Grade.SKIPPED, "DNS has not told an address")
        yield Finding("IPv6", Grade.SKIPPED, "DNS has not told an address")
        return
    addresses.extend(address[0] for _, address in found)
    yield _dns(way, addresses, since(begin))
    reached = proxy is not None
    for name, family in ("IPv4", socket.AF_INET), ("IPv6", socket.AF_INET6):
        of_family = [address for each, address in found if each == family]
        finding = _connect_to(name, of_family, way.timeout, is_needed=not reached)
        reached = reached or finding.grade is Grade.GOOD
        yield finding


def _dns(way: Way, addresses: list[str], took: str) -> Finding:
    name = "DNS"
    if way.host in addresses:
        return Finding(name, Grade.GOOD, f"{way.host} is an address, so no name server is asked")
    of_ipv6 = sum(":" in address for address in addresses)
    told = f"{way.host} has {len(addresses) - of_ipv6} of IPv4 and {of_ipv6} of IPv6"
    if is_misled(way, addresses):
        return Finding(
            name,
            Grade.REMARK,
            f"{told}, none of which is Discord's: {addresses[0]} is an address of this computer "
            "or of a local network",
            "A name server that filters, the log-in page of a network, or a line in the file hosts "
            f"tells such an address. Allow {way.host} there, or use another name server",
        )
    return Finding(name, Grade.GOOD, f"{told}, found in {took}")


def _connect_to(name: str, addresses: list[Any], timeout: float, *, is_needed: bool) -> Finding:
    """Connect to the first address of one family. A failure is a remark: one family is enough."""
    if not addresses:
        return Finding(name, Grade.SKIPPED, "the host has no such address")
    host, port, *_ = addresses[0]
    begin = time.perf_counter()
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "" if is_needed else "This is not needed: there is another way to the Gateway"
        return Finding(name, Grade.REMARK, f"no connection to {host}: {reason}", hint)
    return Finding(name, Grade.GOOD, f"connected to {host} in {since(begin)}")


def _proxy(way: Way, proxy: str | None) -> Finding:
    name = "Proxy"
    if proxy is None:
        return _no_proxy(way)
    told = f"{printable(address_of(proxy))}, which the environment names"
    try:
        check_proxy(proxy)
    except ValueError as error:
        return Finding(name, Grade.FAILED, told, str(error))
    return Finding(name, Grade.GOOD, told)


def _no_proxy(way: Way) -> Finding:
    name = "Proxy"
    if is_this_machine(way.host):
        return Finding(name, Grade.GOOD, "none: the host is this computer")
    import urllib.request

    others = {kind for kind in urllib.request.getproxies() if kind != "no"}
    if not others:
        return Finding(name, Grade.GOOD, "none: the environment names none")
    scheme = "https" if way.is_encrypted else "http"
    if others & {scheme, "all"}:
        return Finding(name, Grade.REMARK, "none: NO_PROXY, or the system, excepts this host")
    return Finding(
        name,
        Grade.REMARK,
        f"none: the environment names one for {', '.join(sorted(others))}, but not for {scheme}",
        f"If the Gateway is to be reached through it, set {scheme.upper()}_PROXY",
    )


# The steps of one connection


class _Connecting:
    """Connects to the Gateway, and checks each step.

    :param way: how the bot reaches the Gateway.
    :param proxy: the proxy that the environment names, or None.
    :param addresses: of the Gateway's host, as far as DNS has told.
    """

    def __init__(self, way: Way, proxy: str | None, addresses: list[str]) -> None:
        self._way = way
        self._proxy = proxy
        self._addresses = addresses
        self._opening = _opening(way.url, way.timeout, way.ssl_context)
        self._transport: Transport | None = None

    def check(
        self, unreachable: str | None, untrusting: str | None
    ) -> Generator[Finding, None, str | None]:
        """Take the steps, and skip those after one that has failed.

        :param unreachable: the name of an earlier check without which there is no TCP, or None.
        :param untrusting: the name of an earlier check without which there is no TLS, or None.
        :returns: the name of a check that has failed, or None.
        """
        failed = unreachable
        for name, step, hint_of in (
            ("TCP", self._connect, self._tcp_hint),
            ("TLS", self._start_tls, tls_hint),
            ("WebSocket", self._shake_hands, websocket_hint),
        ):
            if name == "TLS":
                failed = failed or untrusting
            if failed is not None:
                yield Finding(name, Grade.SKIPPED, f"{failed} has failed")
                continue
            try:
                finding = step(name)
            except Exception as error:
                failed = name
                failure, _ = self._opening.failure(error, "cannot connect to")
                finding = Finding(name, Grade.FAILED, str(failure), hint_of(error))
            yield finding
        return failed

    def close(self) -> None:
        """Close the TCP connection, without a CLOSE frame."""
        if self._transport is not None:
            self._transport.close()

    def _connect(self, name: str) -> Finding:
        begin = time.perf_counter()
        self._transport = self._opening.dial(Deadline(self._way.timeout))
        through = "" if self._proxy is None else " through the proxy"
        return Finding(name, Grade.GOOD, f"connected{through} in {since(begin)}")

    def _tcp_hint(self, error: Exception) -> str:
        return tcp_hint(error, self._way, self._proxy, self._addresses)

    def _start_tls(self, name: str) -> Finding:
        assert self._transport is not None
        if not self._way.is_encrypted:
            return Finding(name, Grade.GOOD, "none: the URL begins with ws://")
        begin = time.perf_counter()
        self._opening.start_tls(self._transport, Deadline(self._way.timeout))
        took = since(begin)
        stream = self._transport.socket
        assert isinstance(stream, ssl.SSLSocket)
        certificate: dict[str, Any] = stream.getpeercert() or {}
        expiry = ssl.cert_time_to_seconds(certificate["notAfter"])
        left = expiry - time.time()
        by = authority_name(certificate["issuer"])
        told = f"{stream.version()} in {took}; a certificate by {by}"
        if left < _SOON:
            return Finding(
                name,
                Grade.REMARK,
                f"{told}, which expires in {duration(left)}",
                "The server's operator has to renew it",
            )
        until = time.strftime("%Y-%m-%d", time.gmtime(expiry))
        return Finding(name, Grade.GOOD, f"{told}, until {until}")

    def _shake_hands(self, name: str) -> Finding:
        assert self._transport is not None
        self._opening.begin("the WebSocket handshake")
        begin = time.perf_counter()
        url = gateway_url(self._way.url, API_VERSION, None)
        shake_hands(url, self._transport, Deadline(self._way.timeout))
        return Finding(name, Grade.GOOD, f"the handshake took {since(begin)}")


def _opening(url: str, timeout: float, ssl_context: ssl.SSLContext | None) -> Opening:
    # These checks send no token, so there is none to hide.
    return Opening(
        url, ssl_context=ssl_context, proxy=None, timeout=timeout, hide_token=lambda text: text
    )
