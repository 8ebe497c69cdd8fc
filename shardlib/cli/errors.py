"""What a user of the command can do something about."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardlib.testing import LocalGateway


class UsageError(Exception):
    """The command was called in a way that can't be: exit status 2."""


class Failure(Exception):
    """The command can't go on: exit status 1."""


def gateway_class() -> type[LocalGateway]:
    """LocalGateway, where what it needs is installed.

    :raises Failure: naming what to install
    """
    try:
        from shardlib.testing import LocalGateway
    except ImportError as error:
        raise Failure(str(error)) from error
    return LocalGateway
