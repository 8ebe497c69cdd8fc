"""``shardlib worker``: a share of a fleet's shards, until a signal ends it."""

from __future__ import annotations

import logging
import threading
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from shardlib.cli.environment import bot_token, gateway_address
from shardlib.cli.errors import UsageError
from shardlib.cli.fleets import find_fleet, log_lines
from shardlib.cli.shardlog import number_of
from shardlib.cli.shutdown import Shutdown
from shardlib.gateway import GATEWAY_URL
from shardlib.state import ShardState

if TYPE_CHECKING:
    from shardlib.fleet import Worker

# Seconds beyond the time for the hand-over, after which the worker ends all the same: a thread of
# its own may be stuck in a full pipe that its log goes into.
_GRACE = 5.0

_logger = logging.getLogger("shardlib.cli")


def run(arguments: Namespace) -> None:
    """Run a worker until SIGTERM or Ctrl-C, and hand its shards over to the other workers.

    :param arguments: the parsed arguments of ``shardlib worker``.
    :raises UsageError: if DISCORD_TOKEN is not set, if DISCORD_GATEWAY is no URL, or if the worker
        refuses the arguments.
    :raises Failure: if a package that a fleet needs is missing.
    :raises ShardError: the error that has ended the worker.
    """
    with find_fleet(arguments, lease=arguments.lease, keep_events=arguments.keep_events) as fleet:
        token = bot_token()
        gateway = gateway_address(arguments)
        try:
            worker = fleet.worker(
                token,
                arguments.intents,
                arguments.most_shards,
                buffer=arguments.buffer,
                replay_memory=arguments.replay_memory,
                forward=arguments.forward,
                compression=arguments.compression,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        _print_log(worker, details=arguments.verbose)
        _logger.info("worker %s of the fleet %s", worker.name, fleet.name)
        if gateway is not None and gateway.variable is not None:
            _logger.info("its shards connect to %s", gateway)
        # Only now: until now a signal ends the process at once. Standard output gets nothing.
        shutdown = Shutdown(watches_output=False)
        worker.start(GATEWAY_URL if gateway is None else gateway.url)
        ended = threading.Event()
        _in_thread("waiting", lambda: _wait_for_end(worker, ended, shutdown))
        shutdown.wait()
        if not ended.is_set():
            _in_thread("draining", lambda: _drain(worker, arguments.drain_timeout))
            shutdown.wait(arguments.drain_timeout + _GRACE)
        worker.stop()
        worker.join(0)  # raises the error, if one has ended it meanwhile


def _in_thread(name: str, function: Callable[[], object]) -> None:
    """Call a function that blocks, while the main thread waits for signals."""
    threading.Thread(target=function, name=name, daemon=True).start()


def _wait_for_end(worker: Worker, ended: threading.Event, shutdown: Shutdown) -> None:
    error = None
    try:
        worker.join()
    except Exception as its_error:
        error = its_error
    ended.set()
    shutdown.come(error)


def _drain(worker: Worker, timeout: float) -> None:
    first = ": this worker hands its shards over first; another signal ends it at once"
    _logger.info("told to end%s", first if worker.shards else "")
    worker.drain(timeout)


def _print_log(worker: Worker, *, details: bool) -> None:
    def is_worth_telling(record: logging.LogRecord) -> bool:
        """False for what is told twice: an error that ends the worker, and the end of a shard."""
        if worker.error is not None and record.levelno >= logging.ERROR:
            return False  # the program prints the error
        shard_id = number_of(record)
        if shard_id is None or details:
            return True
        # The worker tells which shards it has released, and which fail.
        shard = worker.shards.get(shard_id)
        return shard is not None and shard.state is not ShardState.CLOSED

    lines = log_lines(details=details)
    if lines is not None:
        lines.addFilter(is_worth_telling)
