"""The errors of the command that its user can do something about."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardlib.testing import LocalGateway


class UsageError(Exception):
    """The command cannot use its arguments or its environment: exit status 2."""


class Failure(Exception):
    """The command cannot go on: exit status 1."""


def gateway_class() -> type[LocalGateway]:
    """Return the class LocalGateway.

    :raises Failure: if a package that the class needs is missing; the message names the package.
    """
    try:
        from shardlib.testing import LocalGateway
    except ImportError as error:
        raise Failure(str(error)) from error
    return LocalGateway
