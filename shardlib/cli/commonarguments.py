"""What commands have in common: an argument, and types, which turn the text of one into its value.

argparse shows the message of an ArgumentTypeError, and of no other error.
"""

from __future__ import annotations

import argparse
import math
import re
from typing import Literal

from shardlib.gateway import API_VERSION, COMPRESSIONS, Intents, event_name, gateway_url


def number(text: str) -> int:
    """A whole number from 0."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"it must be a number from 0 up, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    value = number(text)
    if value == 0:
        raise argparse.ArgumentTypeError("it must be 1 or more, not 0")
    return value


def port(text: str) -> int:
    """A port of TCP."""
    value = number(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"a port must be at most 65535, not {value}")
    return value


def rate(text: str) -> float:
    """Events a second."""
    return _from_zero(text, "a number of events a second")


def seconds(text: str) -> float:
    """Seconds from 0."""
    return _from_zero(text, "a number of seconds from 0 up")


def _from_zero(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"it must be {what}, not {text!r}")
    return value


def token(text: str) -> str:
    """A bot's token."""
    from shardlib.payloads import check_token  # here: it needs more than the command line does

    try:
        return check_token(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def events(text: str) -> frozenset[str]:
    """Names of events, with commas between them."""
    try:
        return frozenset(event_name(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def intents(text: str) -> Intents:
    """Names of intents, "default" or "all"."""
    named = {"default": Intents.default, "all": Intents.all}
    if text.lower() in named:
        return named[text.lower()]()
    try:
        return Intents.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def shard(text: str) -> tuple[int, int]:
    """A shard number and a shard count, "3/16"."""
    match = re.fullmatch("([0-9]+)/([0-9]+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(
            f"it must be a shard number, from 0, and a shard count, as 0/1 or 3/16, not {text!r}"
        )
    return int(match[1]), int(match[2])


def shards_wanted(text: str) -> int | Literal["auto"]:
    """A shard count, or "auto"."""
    if text == "auto":
        return "auto"
    try:
        return positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"it must be auto, or a number from 1 up, not {text!r}"
        ) from None


def api_url(text: str) -> str:
    """The base of an HTTP API."""
    from shardlib.gatewaybot import check_api_url  # here: only some commands need it

    try:
        return check_api_url(text, None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def compression(text: str) -> str | None:
    """A compression; None for "none"."""
    kind = None if text == "none" else text
    if kind not in COMPRESSIONS:
        known = ", ".join(each or "none" for each in COMPRESSIONS)
        raise argparse.ArgumentTypeError(f"it must be one of {known}, not {text!r}")
    return kind


def url(text: str) -> str:
    """The URL of a gateway."""
    try:
        gateway_url(text, API_VERSION, None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def name(text: str) -> str:
    """The name of a fleet, or of a group."""
    from shardlib.fleet.keys import check_name  # here: only some commands need it

    try:
        return check_name("it", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def above_zero(text: str) -> float:
    """Seconds or minutes, more than 0."""
    value = _from_zero(text, "a number above 0")
    if value == 0:
        raise argparse.ArgumentTypeError("it must be above 0")
    return value


def speed(text: str) -> float:
    """A speed, more than 0; infinity for "max"."""
    return math.inf if text == "max" else above_zero(text)


def add_api_url(parser: argparse._ActionsContainer) -> None:
    """Add the argument that names another HTTP API than Discord's.

    :param parser: of a command.
    """
    parser.add_argument(
        "--api-url",
        type=api_url,
        metavar="URL",
        help="the https:// base of another HTTP API to ask than Discord's; http:// for one of this "
        "machine (default: that in the variable DISCORD_API, or Discord's)",
    )


def add_url(parser: argparse._ActionsContainer) -> None:
    """Add the argument that names another gateway than Discord's.

    :param parser: of a command, or a group of its arguments.
    """
    parser.add_argument(
        "--url",
        type=url,
        help="a ws:// or wss:// URL to connect to instead of Discord's (default: that in the "
        "variable DISCORD_GATEWAY, or Discord's)",
    )


def add_intents(parser: argparse._ActionsContainer, otherwise: str | None) -> None:
    """Add the argument that says what to receive.

    :param parser: of a command.
    :param otherwise: what the command asks for without the argument, in words; None if the argument
        is required.
    """
    parser.add_argument(
        "--intents",
        type=intents,
        required=otherwise is None,
        metavar="A,B",
        help="the intents to ask for: names as guilds,guild_messages, or default (all but the "
        f"privileged ones), or all{'' if otherwise is None else f'; unless given, {otherwise}'}",
    )


def add_shard(parser: argparse._ActionsContainer) -> None:
    """Add the argument that says which shard to be.

    :param parser: of a command, or a group of its arguments.
    """
    parser.add_argument(
        "--shard",
        type=shard,
        default=(0, 1),
        metavar="I/N",
        help="be shard number I, counted from 0, of N shards (default: 0/1)",
    )


def add_compression(parser: argparse._ActionsContainer) -> None:
    """Add the argument that says how the connection is compressed.

    :param parser: of a command.
    """
    parser.add_argument(
        "--compression",
        type=compression,
        default="zlib-stream",
        metavar="KIND",
        help="of the connection: zlib-stream (the default), zstd-stream, payload or none",
    )


def add_verbose(parser: argparse._ActionsContainer) -> None:
    """Add the argument that has all of a shard's log shown.

    :param parser: of a command.
    """
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="show every payload and connection attempt, heartbeats too",
    )
