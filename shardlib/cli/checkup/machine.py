"""Checks of this machine: Python, OpenSSL, and the packages that are installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import ssl
import sys
from collections.abc import Iterator

from shardlib.cli.checkup.finding import Finding, Grade
from shardlib.cli.checkup.way import Way
from shardlib.text import count, printable

_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"

# For each extra the modules that it brings, and what they are for.
_EXTRAS = {
    "local": (("h11", "python_multipart", "trustme", "websockets"), "the local gateway"),
    "proxy": (("python_socks",), "proxies"),
    "redis": (("redis",), "shards on many machines"),
    "speed": (("zlib_ng",), "quicker inflating and decoding"),
    "zstd": ((_ZSTD,), "zstd-stream"),
}


def check_machine(way: Way) -> Iterator[Finding]:
    """Check the interpreter and the libraries that make the connection.

    :param way: how the bot reaches the Gateway.
    """
    yield _python()
    yield _openssl(way)
    yield _extras()


def _python() -> Finding:
    # Since 3.13 there are two kinds of CPython; the one without GIL says so.
    kind = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", free-threaded"
    packages = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("websocket-client", "ujson")
    )
    told = (
        f"{platform.python_implementation()} {platform.python_version()}{kind}, "
        f"{platform.system()} {platform.machine()}, {packages}"
    )
    return Finding("Python", Grade.GOOD, told)


def _openssl(way: Way) -> Finding:
    name, version = "OpenSSL", ssl.OPENSSL_VERSION
    if way.ssl_context is not None:
        return Finding(name, Grade.GOOD, f"{version}, which trusts the local gateway's authority")
    try:
        context = ssl.create_default_context()
    except (OSError, ssl.SSLError) as error:
        return Finding(
            name,
            Grade.FAILED if way.is_encrypted else Grade.REMARK,
            f"{version} cannot read the authorities that it is to trust: {printable(str(error))}",
            "See the environment variables SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE",
        )
    number = context.cert_store_stats()["x509_ca"]
    if number:
        return Finding(name, Grade.GOOD, f"{version}, which trusts {number} authorities")
    # OpenSSL reads the certificates in a directory when they are needed, so the TLS check has the
    # last word.
    return Finding(
        name,
        Grade.REMARK,
        f"{version}, which has read no certificate of an authority yet",
        "If TLS fails: install the system's certificates (the package ca-certificates of most "
        'systems; on macOS run "Install Certificates.command"), and see the environment variables '
        "SSL_CERT_FILE and SSL_CERT_DIR",
    )


def _extras() -> Finding:
    missing = [
        extra for extra, (modules, _) in _EXTRAS.items() if not all(map(_is_installed, modules))
    ]
    installed = [extra for extra in _EXTRAS if extra not in missing]
    if not missing:
        return Finding("Extras", Grade.GOOD, f"{', '.join(installed)}: all")
    purposes = ", ".join(f"{extra} for {_EXTRAS[extra][1]}" for extra in missing)
    return Finding(
        "Extras",
        Grade.REMARK,
        f"{', '.join(installed) or 'none'}; {count(len(missing), 'other')} not installed",
        f'If they are wanted: python -m pip install "shardlib[{",".join(missing)}]" ({purposes})',
    )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # the parent package is missing
        return False
