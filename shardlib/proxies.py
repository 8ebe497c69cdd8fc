"""Proxies: which one, if any, the environment names for a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ipaddress

    _Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def environment_proxy(host: str, port: int, secure: bool) -> str | None:
    """The proxy that the environment, or the system's settings, name for a host; or None.

    The variables are ``https_proxy`` for ``wss``, ``http_proxy`` for ``ws``, ``all_proxy`` for
    both, in small letters or capitals, as everywhere in Python; and ``no_proxy`` for the hosts that
    need none, with the rules of :func:`is_exempt` beside Python's own.

    :param host: to connect to, as :func:`urllib.parse.urlsplit` takes it from a URL.
    :param port: to connect to.
    :param secure: True for ``wss``.
    """
    if is_this_machine(host):
        return None  # no proxy leads back to it
    import urllib.request  # here: it takes a while to import

    proxies = urllib.request.getproxies()
    proxy = proxies.get("https" if secure else "http") or proxies.get("all")
    if not proxy or is_exempt(host, port, proxies.get("no", "")):
        return None
    if urllib.request.proxy_bypass(host):  # the exceptions in the system's settings, too
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_this_machine(host: str) -> bool:
    """True for ``localhost`` and for the addresses by which this machine reaches itself alone.

    :param host: as :func:`urllib.parse.urlsplit` takes it from a URL.
    """
    address = _parse_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def address_of(proxy: str) -> str:
    """The host and the port in a proxy's URL, without user name and password.

    :param proxy: the URL, of which nothing was checked.
    """
    # The last @ counts: what stands before it may be a password, slashes and all.
    return proxy.rpartition("@")[2].rpartition("://")[2].partition("/")[0]


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """True if a host needs no proxy.

    :param host: a name or an address.
    :param port: a TCP port.
    :param no_proxy: the variable: entries, with commas or spaces between them. Each is a domain,
        for itself and all names below it, with or without ``.`` or ``*.`` before it; or an address,
        or a network (``10.0.0.0/8``), neither of which any name is looked up for; or ``*``, for
        every host. With a port behind it (``host:port``, ``[address]:port``) it is for that port
        alone. What is none of these is ignored.
    """
    name = host.rstrip(".").lower()
    address = _parse_address(name)
    return any(
        _is_meant(entry, name, address, port)
        for entry in no_proxy.lower().replace(",", " ").split()
    )


def _is_meant(entry: str, name: str, address: _Address | None, port: int) -> bool:
    if entry == "*":
        return True
    meant, entry_port = _split_port(entry)
    if entry_port not in ("", str(port)):
        return False
    if address is None:
        domain = meant.removeprefix("*").strip(".")
        return domain != "" and f".{name}".endswith(f".{domain}")
    import ipaddress

    try:
        return address in ipaddress.ip_network(meant, strict=False)
    except ValueError:  # a domain, or nothing that could be
        return False


def _split_port(entry: str) -> tuple[str, str]:
    """An entry without its port, and the port; "" if it has none."""
    before, _, port = entry.rpartition(":")
    if not port.isdecimal() or (":" in before and not before.endswith("]")):  # IPv6 in full
        before, port = entry, ""
    return before.replace("[", "").replace("]", ""), port


def _parse_address(host: str) -> _Address | None:
    import ipaddress  # here: not every Python has imported it already

    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
