"""``shardlib drain``: have a worker hand its shards over, from anywhere."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from shardlib.cli.errors import Failure, UsageError
from shardlib.cli.fleets import find_fleet, log_lines
from shardlib.text import count, ranges

if TYPE_CHECKING:
    from shardlib.fleet import Fleet

# Seconds between two looks.
_INTERVAL = 0.2

# Seconds that a worker has beyond the time given: to notice, and for those shards that nobody has
# taken over.
_GRACE = 30.0

# Seconds in which other workers claim what is free, if there are any.
_TIME_TO_CLAIM = 3.0

_logger = logging.getLogger("shardlib.cli")


def run(arguments: Namespace) -> None:
    """Ask the worker, and wait until it has no shards. Ctrl-C ends the process, see ``cli.main``.

    :param arguments: the parsed arguments of ``shardlib drain``.
    :raises UsageError: if there is no URL of Redis, or several workers may be meant.
    :raises Failure: if a package that a fleet needs is missing, or if the worker does not end.
    :raises ShardError: if no such worker lives, or Redis does not answer, or refuses.
    """
    log_lines()
    with find_fleet(arguments) as fleet:
        worker = _full_name(arguments.worker, {info.owner for info in fleet.shards()})
        fleet.commands.drain(worker, timeout=arguments.timeout)
        _logger.info("the worker %s is asked to hand its shards over", worker)
        wait_for_hand_over(fleet, worker, arguments.timeout + _GRACE)


def _full_name(given: str, owners: Iterable[str | None]) -> str:
    """The name of the worker that begins with what was given, such as the name of its host."""
    names = sorted(name for name in owners if name is not None)
    found = [name for name in names if name.startswith(f"{given}-")]
    if given in names or not found:
        return given  # the fleet knows also of workers that have no shards
    if len(found) > 1:
        raise UsageError(f"{given} may be any of these workers: {', '.join(found)}")
    return found[0]


def wait_for_hand_over(fleet: Fleet, worker: str, timeout: float) -> None:
    """Wait until a worker has no shards and others have them, and tell how many are left.

    :param fleet: the worker's.
    :param worker: its name.
    :param timeout: seconds in which it is to have none.
    :raises Failure: if it still has some then.
    :raises ShardError: if Redis does not answer, or refuses.
    """
    deadline = time.monotonic() + timeout
    told: list[int] = []
    while left := [info.shard_id for info in fleet.shards() if info.owner == worker]:
        if left != told:
            _logger.info("it has %s: %s", count(len(left), "shard"), ranges(left))
            told = left
        if time.monotonic() > deadline:
            raise Failure(
                f"the worker {worker} still has {count(len(left), 'shard')}, {timeout:.0f} seconds "
                "later. Look at its log; if it hangs, kill it, and others take the shards over"
            )
        time.sleep(_INTERVAL)
    _logger.info("it has handed all its shards over")
    deadline = time.monotonic() + _TIME_TO_CLAIM
    while free := [info.shard_id for info in fleet.shards() if info.owner is None]:
        if time.monotonic() > deadline:
            verb = "is" if len(free) == 1 else "are"
            _logger.warning(
                "%s %s without a worker: %s. Start another worker",
                *(count(len(free), "shard"), verb, ranges(free)),
            )
            break
        time.sleep(_INTERVAL)
