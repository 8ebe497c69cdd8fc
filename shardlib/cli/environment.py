"""What commands take from the environment."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import NamedTuple

from shardlib.cli import commonarguments
from shardlib.cli.errors import UsageError
from shardlib.cli.terminal import Output

GATEWAY_VARIABLE = "DISCORD_GATEWAY"
"""Names the environment variable with the URL of a gateway other than Discord's."""

API_VARIABLE = "DISCORD_API"
"""Names the environment variable with the base of an HTTP API other than Discord's."""


class Address(NamedTuple):
    """Where a command connects.

    :param url: the URL.
    :param variable: the environment variable that names the URL; None if the URL is Discord's, a
        local gateway's or an option's.
    """

    url: str
    variable: str | None = None

    def __str__(self) -> str:
        return self.url if self.variable is None else f"{self.url} ({self.variable})"


def bot_token(otherwise: str = "") -> str:
    """Return the bot's token, from the variable DISCORD_TOKEN.

    :param otherwise: which arguments need no token, for the message.
    :raises UsageError: if the variable is not set.
    """
    token = os.environ.get("DISCORD_TOKEN")
    if not token:
        raise UsageError(
            "the bot's token is taken from the environment variable DISCORD_TOKEN, which is not "
            f"set{otherwise and '; ' + otherwise}"
        )
    return token


def gateway_address(arguments: Namespace) -> Address | None:
    """Return the gateway that ``--url`` or DISCORD_GATEWAY names; None if neither names one.

    :param arguments: the parsed arguments of a command with ``--url``, and without ``--local``.
    :raises UsageError: if the variable holds no URL of a gateway.
    """
    return _address(arguments.url, GATEWAY_VARIABLE, commonarguments.url)


def api_address(arguments: Namespace) -> Address | None:
    """Return the HTTP API that ``--api-url`` or DISCORD_API names; None if neither names one.

    :param arguments: the parsed arguments of a command with ``--api-url``, and without ``--local``.
    :raises UsageError: if the variable holds no base of an HTTP API.
    """
    return _address(arguments.api_url, API_VARIABLE, commonarguments.api_url)


def _address(given: str | None, variable: str, parse: Callable[[str], str]) -> Address | None:
    if given is not None:
        return Address(given)
    value = os.environ.get(variable)
    if not value:
        return None
    try:
        return Address(parse(value), variable)
    except ArgumentTypeError as error:
        raise UsageError(f"the environment variable {variable}: {error}") from error


def tell(*addresses: Address | None) -> None:
    """Say on standard error which addresses come from the environment, if any does.

    For commands without a log, whose user would not see otherwise that Discord is not asked.

    :param addresses: where the command connects; None for Discord's address.
    """
    named = [str(each) for each in addresses if each is not None and each.variable is not None]
    if named and sys.stderr is not None:
        Output(sys.stderr).write(f"shardlib: asking {' and '.join(named)}\n")
