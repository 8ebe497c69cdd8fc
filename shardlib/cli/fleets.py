"""What the commands of a fleet have in common: the fleet, and the log."""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from shardlib.cli.errors import Failure, UsageError
from shardlib.cli.shardlog import WithShard
from shardlib.cli.terminal import LogLines, Output

if TYPE_CHECKING:
    from shardlib.fleet import Fleet

REDIS_VARIABLE = "SHARDLIB_REDIS"
"""Names the environment variable with the URL of Redis."""


def find_fleet(arguments: Namespace, **options: Any) -> Fleet:
    """Return the fleet that the arguments and the environment name. Opens no connection.

    :param arguments: the parsed arguments of a command, with `redis` and `name`.
    :param options: of the Fleet.
    :raises UsageError: if there is no URL of Redis, or one that cannot be.
    :raises Failure: if a package that a fleet needs is missing.
    """
    origin, url = "--redis", arguments.redis
    if url is None:
        origin, url = REDIS_VARIABLE, os.environ.get(REDIS_VARIABLE)
    if not url:
        raise UsageError(
            f"the URL of Redis is taken from --redis or from the environment variable "
            f"{REDIS_VARIABLE}, and neither is given"
        )
    try:
        from shardlib.fleet import Fleet
    except ImportError as error:
        raise Failure(
            f'a fleet needs packages that are not installed: pip install "shardlib[redis]" '
            f"({error})"
        ) from error
    try:
        return Fleet(url, arguments.name, **options)
    except ValueError as error:
        raise UsageError(f"{origin}: {error}") from error


def log_lines(*, details: bool = False) -> LogLines | None:
    """Print the log of the fleet on standard error, and return what prints it, for filters.

    :param details: True to print the log at DEBUG, tracebacks too; False for INFO.
    :returns: None if standard error is closed.
    """
    if sys.stderr is None:
        return None
    lines = LogLines(Output(sys.stderr), details=details)
    lines.setFormatter(WithShard())
    for name in ("shardlib.fleet", "shardlib.cli", "shardlib.shard"):
        logger = logging.getLogger(name)
        logger.addHandler(lines)
        logger.setLevel(logging.DEBUG if details else logging.INFO)
    return lines
