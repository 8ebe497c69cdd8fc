"""Checks of this machine: Python, OpenSSL, and the packages that are installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shardlib.cli.checkup.finding import Finding, Grade
from shardlib.text import count, printable

if TYPE_CHECKING:  # the module needs ssl
    from shardlib.cli.checkup.way import Way

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


def cannot_import(error: ImportError) -> Finding:
    """Return the finding about an interpreter that lacks what shardlib cannot do without.

    :param error: raised when shardlib was imported.
    """
    if error.name in ("_ssl", "ssl") or "_ssl" in str(error):
        hint = (
            "This Python was built without OpenSSL, so it can make no encrypted connection. Use "
            "another Python; or install OpenSSL's development files (the package libssl-dev or "
            "openssl-devel), and build this one anew"
        )
    else:
        hint = (
            "Install what shardlib needs for this Python: "
            f"{sys.executable} -m pip install websocket-client ujson"
        )
    return Finding(
        "Python",
        Grade.FAILED,
        f"{_interpreter()} cannot import what shardlib needs: {printable(str(error))}",
        hint,
    )


def _interpreter() -> str:
    # Since 3.13 there are two kinds of CPython; the one without GIL says so.
    kind = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", free-threaded"
    return (
        f"{platform.python_implementation()} {platform.python_version()}{kind}, "
        f"{platform.system()} {platform.machine()}"
    )


def _python() -> Finding:
    packages = ", ".join(f"{name} {_version(name)}" for name in ("websocket-client", "ujson"))
    import websocket

    if not hasattr(websocket, "WebSocket"):
        return Finding(
            "Python",
            Grade.FAILED,
            f"{_interpreter()}: the module websocket is not that of websocket-client, but "
            f"{printable(str(websocket.__file__))}",
            "If this file is yours, rename it. If the package websocket is installed, which is "
            "another one: python -m pip uninstall websocket, and then "
            "python -m pip install --force-reinstall websocket-client",
        )
    return Finding("Python", Grade.GOOD, f"{_interpreter()}, {packages}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # as in a program made by PyInstaller
        return "of an unknown version"


def _openssl(way: Way) -> Finding:
    import ssl  # here: a Python without it is to be told of, see cannot_import()

    from shardlib.tls import create_context, explain_empty_store, is_store_empty

    name, version = "OpenSSL", ssl.OPENSSL_VERSION
    if way.ssl_context is not None:
        return Finding(name, Grade.GOOD, f"{version}, which trusts the local gateway's authority")
    grade = Grade.FAILED if way.is_encrypted else Grade.REMARK
    try:
        context = create_context()
    except OSError as error:
        return Finding(name, grade, f"{version}: {printable(error.strerror or str(error))}")
    number = context.cert_store_stats()["x509_ca"]
    if number:
        authorities = "1 authority" if number == 1 else f"{number} authorities"
        return Finding(name, Grade.GOOD, f"{version}, which trusts {authorities}")
    if is_store_empty(context):
        return Finding(name, grade, f"{version}: {explain_empty_store()}")
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
