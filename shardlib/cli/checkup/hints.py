"""What to do if a step towards the Gateway fails, by the error that the step has raised."""

from __future__ import annotations

import errno
import ipaddress

from shardlib.answers import UnusableAnswer
from shardlib.cli.checkup.way import Way
from shardlib.dial import ProxyRefused
from shardlib.gateway import GATEWAY_URL
from shardlib.tls import CertificateRefused

DISCORD_STATUS = "https://discordstatus.com tells whether Discord has a fault"

TOO_MANY_FILES = (
    "The limit of open files is too low for this process: raise it (ulimit -n 1024 in the shell, "
    "LimitNOFILE= in a systemd unit)"
)

_PROXY_VARIABLE = (
    "If the network has a proxy, HTTPS_PROXY=http://host:port in the environment names it"
)


def is_too_many_files(error: Exception) -> bool:
    """True if this process, or the system, may open no further file or socket.

    :param error: raised by a system call.
    """
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def tcp_hint(error: Exception, way: Way, proxy: str | None, addresses: list[str]) -> str:
    """Return what to do if there is no connection; "" if the error itself says so.

    :param error: raised by :meth:`shardlib.opening.Opening.dial`.
    :param way: how the bot reaches the Gateway.
    :param proxy: the proxy that the environment names, or None.
    :param addresses: of the Gateway's host, as far as DNS has told.
    """
    if isinstance(error, ProxyRefused):
        return ""
    number = error.errno if isinstance(error, OSError) else None
    if is_too_many_files(error):
        return TOO_MANY_FILES
    if proxy is not None:
        variables = f"{'HTTPS_PROXY' if way.is_encrypted else 'HTTP_PROXY'} or ALL_PROXY"
        return (
            f"Is the environment variable {variables} right, and does the proxy run? If this "
            "network has no proxy, unset the variable"
        )
    if is_misled(way, addresses):
        return "The address is not Discord's: see DNS"
    is_local = bool(addresses) and all(map(_is_this_machine, addresses))
    if number == errno.ENETUNREACH and is_local:
        return (
            "This computer cannot reach itself, its loopback interface is down: ip link set lo up"
        )
    if number == errno.ECONNREFUSED and is_local:
        return (
            f"Nothing listens at port {way.port} of this computer: is the server running, and is "
            "the port right?"
        )
    if number == errno.ECONNREFUSED:
        return (
            "Nothing listens there, or a firewall refuses, on this computer or in its network. "
            f"{_PROXY_VARIABLE}"
        )
    if number == errno.ENETUNREACH:
        only = (
            "The name server tells an IPv6 address only, and this computer has no IPv6"
            if addresses and all(":" in address for address in addresses)
            else "This computer has no route to it"
        )
        return (
            f"{only}. Is it connected, by a cable, Wi-Fi or a VPN? A container may have been "
            f"started without a network. {_PROXY_VARIABLE}"
        )
    if number == errno.EHOSTUNREACH:
        return (
            "The router does not answer, or a firewall refuses: do other programs reach the "
            f"Internet from here? {_PROXY_VARIABLE}"
        )
    if number in (errno.EACCES, errno.EPERM):
        return f"A firewall refuses, most likely on this computer. {_PROXY_VARIABLE}"
    return (
        "A firewall may drop what is sent, on this computer or in its network: it has to allow "
        f"{way.host}, port {way.port}. {_PROXY_VARIABLE}"
    )


def tls_hint(error: Exception) -> str:
    """Return what to do if TLS fails; "" if the error itself says so.

    :param error: raised by :meth:`shardlib.opening.Opening.start_tls`.
    """
    if isinstance(error, CertificateRefused):
        return ""
    if isinstance(error, TimeoutError):
        return (
            "The server is there, and its answers do not come: a firewall may forbid this host, or "
            "large packets are lost on the way, as with some VPNs and tunnels (try a smaller MTU: "
            "ip link set dev eth0 mtu 1280)"
        )
    if isinstance(error, ConnectionError):
        return "A firewall or a filter between may forbid this host. Use another network, or a VPN"
    return ""


def websocket_hint(error: Exception) -> str:
    """Return what to do if the WebSocket handshake fails.

    :param error: raised by :func:`shardlib.handshake.shake_hands`.
    """
    status = error.status if isinstance(error, UnusableAnswer) else None
    if status is not None and status < 400:
        return (
            "Another server answers in the Gateway's place, as the log-in page of a network or a "
            "filter does: log in there with a browser, or use another network. Or the URL is wrong"
        )
    if status == 429:
        return (
            "This computer's address has connected too often. Stop programs that start again and "
            "again, and wait as long as the answer says"
        )
    if status is not None and status >= 500:
        return f"The server has a fault. Try again later; {DISCORD_STATUS}"
    return (
        "A proxy or a virus scanner that looks into connections may not let WebSockets pass; is "
        "the URL right?"
    )


def is_misled(way: Way, addresses: list[str]) -> bool:
    """True if the way leads to Discord, and each address to this computer or a local network.

    :param way: how the bot reaches the Gateway.
    :param addresses: of the Gateway's host, in digits; none if DNS has told none.
    """
    return (
        way.url == GATEWAY_URL
        and bool(addresses)
        and not any(ipaddress.ip_address(address).is_global for address in addresses)
    )


def _is_this_machine(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_unspecified
