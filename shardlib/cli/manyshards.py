"""``shardlib tail --shards``: the events of all shards of a bot, and the state of each shard."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from argparse import Namespace
from types import TracebackType

from shardlib.cli.environment import API_VARIABLE, Address, api_address, bot_token, gateway_address
from shardlib.cli.errors import UsageError
from shardlib.cli.eventlines import EventLines
from shardlib.cli.footer import Footer
from shardlib.cli.largegateway import large_gateway
from shardlib.cli.shardlog import SHARD_LOGGER, WithShard, number_of
from shardlib.cli.shardtable import Row, table, word
from shardlib.cli.shutdown import Shutdown
from shardlib.cli.tail import CLOSE_TIMEOUT, callbacks_and_options, intents
from shardlib.cli.terminal import Lines, LogLines, Output
from shardlib.gateway import API_URL
from shardlib.manager import ShardManager
from shardlib.shard import Shard
from shardlib.state import ShardState
from shardlib.supervisor import COMMON

_MANAGER_LOGGER = "shardlib.manager"

# The shards' own log tells of these, with the reason.
_TOLD_BY_LOG = frozenset({ShardState.READY, ShardState.WAITING, ShardState.CLOSED})

_logger = logging.getLogger("shardlib.cli")


def run(arguments: Namespace) -> None:
    """Start the shards, and print events until Ctrl-C, an error, or the last that was asked for.

    :param arguments: the parsed arguments of ``shardlib tail``.
    :raises UsageError: if the shards refuse the arguments, or DISCORD_TOKEN is not set.
    :raises Failure: if a package that ``--local`` needs is missing.
    :raises ShardError: the error that closed all shards, or why none was started.
    :raises OSError: if standard output cannot be written.
    """
    gateway = url = api = None
    if arguments.local:
        gateway = large_gateway() if arguments.shards == "auto" else large_gateway(arguments.shards)
    else:
        url, api = gateway_address(arguments), api_address(arguments)
        if url is not None and api is None:
            origin, other = ("--url", "--api-url")
            if url.variable is not None:
                origin, other = (url.variable, f"--api-url or {API_VARIABLE}")
            raise UsageError(
                f"{origin} with --shards needs {other}, too: the HTTP API that belongs to that "
                "gateway says how many shards the bot may start"
            )
    token = bot_token("--local needs none") if gateway is None else gateway.token
    shutdown = Shutdown()
    with gateway or contextlib.nullcontext():
        if gateway is not None:
            gateway.traffic()
            api = Address(gateway.http_url)
        with ManyShards(arguments, token, url, api or Address(API_URL), shutdown):
            shutdown.wait()


class ManyShards:
    """Shards whose events are printed, and whose states are told on standard error.

    It is a context manager, in which the shards run.

    :param arguments: the parsed arguments of ``shardlib tail``.
    :param token: the bot's token.
    :param gateway: where the shards connect; None for the URL that the HTTP API answers.
    :param api: where the HTTP API is that is asked.
    :param shutdown: ends the command.
    :raises UsageError: if the shards refuse the arguments.
    """

    def __init__(
        self,
        arguments: Namespace,
        token: str,
        gateway: Address | None,
        api: Address,
        shutdown: Shutdown,
    ) -> None:
        self._gateway = gateway
        self._api = api
        self._shutdown = shutdown
        # True from when all shards are to be closed: that is told once, and not by each of them.
        self._is_ending = False
        stdout = Output(sys.stdout)
        errors = None if sys.stderr is None else Output(sys.stderr)
        place: Lines = stdout
        self._footer: Footer | None = None
        if errors is not None and errors.has_cursor:
            self._footer = Footer(errors, self._table)
            if stdout.is_same_as(errors):  # events are printed above the table
                place = self._footer
        self._events = EventLines(arguments, place, shutdown, with_shard=True)
        try:
            self._manager = ShardManager(
                token,
                intents(arguments),
                None if arguments.shards == "auto" else arguments.shards,
                api_url=api.url,
                **callbacks_and_options(arguments, self._events.print),
                on_socket_closed=self._note_closed,
                on_socket_state=self._tell_state if self._footer is None else None,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        if errors is not None:
            self._print_logs(self._footer or errors, arguments.verbose)

    def _print_logs(self, output: Lines, verbose: bool) -> None:
        lines = LogLines(output, details=verbose)
        lines.setFormatter(WithShard())
        lines.addFilter(self._is_worth_telling)
        level = logging.DEBUG if verbose else logging.INFO
        # If there is a table, that tells what goes as it should.
        level_of_shards = level if verbose or self._footer is None else logging.WARNING
        for name, its_level in (
            (SHARD_LOGGER, level_of_shards),
            (_MANAGER_LOGGER, level),
            (_logger.name, level),
        ):
            logger = logging.getLogger(name)
            logger.addHandler(lines)
            logger.setLevel(its_level)

    def __enter__(self) -> None:
        if self._footer is not None:
            self._footer.start()
        # Not the main thread, which waits for the shutdown.
        self._running = threading.Thread(target=self._run, name="running", daemon=True)
        self._running.start()

    def _run(self) -> None:
        self._events.warn_of_misspelt_events()
        _logger.info("asking %s", self._api)
        if self._gateway is not None:
            _logger.info("connecting to %s", self._gateway)
        try:
            self._manager.connect(None if self._gateway is None else self._gateway.url)
            self._manager.join()
        except Exception as error:
            self._shutdown.come(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all shards. Blocks for three times the close timeout at most."""
        self._is_ending = True
        if self._footer is not None:
            self._footer.stop()
        self._manager.close(timeout=2 * CLOSE_TIMEOUT)
        if self._running.is_alive():
            # ShardManager.connect() may not have begun before close(), and would go on.
            self._running.join(CLOSE_TIMEOUT)
            self._manager.disconnect(wait=False)

    def _table(self, columns: int, rows: int) -> list[str]:
        shards = {
            shard_id: Row(shard.state, shard.heartbeat_ping)
            for shard_id, shard in self._manager.shards.items()
        }
        assert self._footer is not None
        return table(shards, columns, rows, self._footer.style)

    # On the readers of the shards

    def _tell_state(self, shard: Shard, state: ShardState) -> None:
        if not self._is_ending and state not in _TOLD_BY_LOG:
            _logger.info("shard %d: %s", shard.shard_id, word(state))

    def _note_closed(self, shard: Shard, error: BaseException | None) -> None:
        if isinstance(error, COMMON):
            self._is_ending = True
        elif error is not None and not self._is_ending:
            _logger.error("shard %d: closed: %s", shard.shard_id, error)

    # On any thread

    def _is_worth_telling(self, record: logging.LogRecord) -> bool:
        """False for what the program tells itself: the error that ends it, and what follows."""
        if record.name == _logger.name:
            return True
        if record.name == _MANAGER_LOGGER:
            return not (self._is_ending and record.levelno >= logging.ERROR)
        shard_id = number_of(record)
        shard = None if shard_id is None else self._manager.shards.get(shard_id)
        return not self._is_ending and (shard is None or shard.state is not ShardState.CLOSED)
