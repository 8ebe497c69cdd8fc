"""The clients that the commands compare, and the options that choose among them."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import zlib
from importlib.metadata import PackageNotFoundError, version

from benchmarks.measure import Client
from benchmarks.stream import COMPRESSIONS

OURS, FLOOR, BARE_LOOP = "shardlib", "floor", "bare_loop"

CLIENTS = (
    Client(FLOOR, "ujson"),
    Client(BARE_LOOP, "ujson"),
    Client(OURS, "ujson"),
    Client(FLOOR, "orjson"),
    Client(BARE_LOOP, "orjson"),
    Client(OURS, "orjson"),
    Client(OURS, "orjson", zlib_ng=True),
    Client(OURS, "orjson", listens=False),
    Client("hikari", "orjson"),
    Client("discord_py", "orjson"),
    Client("websocket_client", "ujson"),
    Client("websockets_sync", "ujson"),
)

# The modules that a peer needs besides shardlib's dependencies. Before Python 3.14, which has a
# module for zstd, discord.py inflates zstd-stream with zstandard.
_IMPORTS: dict[str, tuple[str, ...]] = {
    "hikari": ("hikari",),
    "discord_py": ("discord", *(() if sys.version_info >= (3, 14) else ("zstandard",))),
    "websockets_sync": ("websockets",),
}

_DISTRIBUTIONS = (
    "shardlib",
    "websocket-client",
    "ujson",
    "orjson",
    "hikari",
    "aiohttp",
    "discord.py",
    "websockets",
    "backports.zstd",
    "zstandard",
    "zlib-ng",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose clients and compressions.

    :param parser: the command's parser.
    """
    add_peers(parser)
    add_compression(parser)


def add_peers(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose clients.

    :param parser: the command's parser.
    """
    peers = sorted({client.peer for client in CLIENTS})
    parser.add_argument("--peer", nargs="+", choices=peers, default=peers, help="all by default")
    parser.add_argument("--json", nargs="+", choices=("ujson", "orjson"), help="both by default")


def add_compression(parser: argparse.ArgumentParser) -> None:
    """Add the option that chooses compressions.

    :param parser: the command's parser.
    """
    parser.add_argument(
        "--compression",
        nargs="+",
        choices=COMPRESSIONS,
        default=COMPRESSIONS,
        help="all by default",
    )


def chosen(arguments: argparse.Namespace) -> list[Client]:
    """Return the clients that the command line selects and whose libraries are installed.

    :param arguments: the parsed arguments.
    """
    return [
        client
        for client in CLIENTS
        if client.peer in arguments.peer
        and (arguments.json is None or client.json in arguments.json)
        and is_installed(client)
    ]


def is_installed(client: Client) -> bool:
    """Return whether the modules that a client needs are installed.

    :param client: the client.
    """
    modules = [*_IMPORTS.get(client.peer, ()), client.json]
    if client.zlib_ng:
        modules.append("zlib_ng")
    return all(importlib.util.find_spec(module) is not None for module in modules)


def versions() -> dict[str, str]:
    """Return the versions of Python, of zlib and of the installed libraries, by name."""
    found = {
        platform.python_implementation(): platform.python_version(),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found
