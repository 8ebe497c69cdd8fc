"""``shardlib tail``: one line for each event of a shard."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from shardlib.cli.environment import Address, bot_token, gateway_address
from shardlib.cli.errors import UsageError, gateway_class
from shardlib.cli.eventlines import EventLines
from shardlib.cli.shutdown import Shutdown
from shardlib.cli.terminal import LogLines, Output
from shardlib.gateway import GATEWAY_URL, Intents
from shardlib.shard import Shard
from shardlib.state import ShardState

# Seconds that disconnect() may take. Whatever the gateway does, Ctrl-C then ends the command within
# a second, in which the interpreter may also wait for a reader thread that is stuck in a full pipe.
CLOSE_TIMEOUT = 0.3

_logger = logging.getLogger("shardlib.cli")


def run(arguments: Namespace) -> None:
    """Connect, and print events until Ctrl-C, an error, or the last event that was asked for.

    :param arguments: the parsed arguments of ``shardlib tail``.
    :raises UsageError: if the shard refuses the arguments, if DISCORD_TOKEN is not set, or if
        DISCORD_GATEWAY is no URL.
    :raises Failure: if a package that ``--local`` needs is missing.
    :raises ShardError: the error that ended the shard.
    :raises OSError: if standard output cannot be written.
    """
    gateway = gateway_class()() if arguments.local else None
    token = bot_token("--local needs none") if gateway is None else gateway.token
    named = None if arguments.local else gateway_address(arguments)
    shutdown = Shutdown()
    events = EventLines(arguments, Output(sys.stdout), shutdown, with_shard=False)
    shard = OneShard(arguments, token, shutdown, events.print)
    with gateway or contextlib.nullcontext():
        if gateway is not None:
            gateway.traffic()
        address = named if gateway is None else Address(gateway.url)
        shard.connect(address, before=events.warn_of_misspelt_events)
        try:
            shutdown.wait()
        finally:
            shard.disconnect()


class OneShard:
    """The shard of a command that runs one, whose log is printed on standard error.

    :param arguments: the parsed arguments of the command.
    :param token: the bot's token.
    :param shutdown: ends the command.
    :param on_dispatch: called with each event, as on_socket_dispatch.
    :raises UsageError: if the shard refuses the arguments.
    """

    def __init__(
        self,
        arguments: Namespace,
        token: str,
        shutdown: Shutdown,
        on_dispatch: Callable[[Shard, dict[str, Any]], object],
    ) -> None:
        self._shutdown = shutdown
        shard_id, shard_count = arguments.shard
        try:
            self._shard = Shard(
                token,
                intents(arguments),
                shard_id,
                shard_count,
                **callbacks_and_options(arguments, on_dispatch),
                on_socket_closed=self._note_closed,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        if sys.stderr is not None:
            # The shard's log tells what happens to the connection. The filter drops the last line,
            # since the program prints the error that closed the shard.
            lines = LogLines(Output(sys.stderr), details=arguments.verbose)
            lines.addFilter(lambda record: self._shard.state is not ShardState.CLOSED)
            # Not the local gateway's thread: stuck in a full pipe, it would keep the command alive.
            for logger in (logging.getLogger("shardlib.shard"), _logger):
                logger.addHandler(lines)
                logger.setLevel(logging.DEBUG if arguments.verbose else logging.INFO)

    def connect(
        self, address: Address | None, *, before: Callable[[], object] | None = None
    ) -> None:
        """Begin to connect, on a new thread, so that the main thread can wait for the shutdown.

        :param address: where the gateway is; None for Discord's.
        :param before: called first on that thread, for what is to be printed.
        """
        where = address or Address(GATEWAY_URL)

        def connect() -> None:
            if before is not None:
                before()
            _logger.info("connecting to %s", where)
            try:
                self._shard.connect(where.url)
            except Exception as error:
                self._shutdown.come(error)

        self._connecting = threading.Thread(target=connect, name="connecting", daemon=True)
        self._connecting.start()

    def disconnect(self) -> None:
        """Close the shard. Blocks for twice the close timeout at most."""
        self._shard.disconnect()
        if self._connecting.is_alive():
            # Shard.connect() may not have begun before disconnect(), and would go on.
            self._connecting.join(CLOSE_TIMEOUT)
            self._shard.disconnect()

    def _note_closed(self, shard: Shard, error: BaseException | None) -> None:
        self._shutdown.come(error)


def intents(arguments: Namespace) -> Intents:
    """What to receive, as the user says it, or if the user does not.

    :param arguments: the parsed arguments of the command.
    """
    given: Intents | None = arguments.intents
    if given is not None:
        return given
    return Intents.all() if arguments.local else Intents.default()


def callbacks_and_options(
    arguments: Namespace, on_dispatch: Callable[[Shard, dict[str, Any]], object]
) -> dict[str, Any]:
    """The arguments of each shard that are the same for one and for many.

    :param arguments: the parsed arguments of the command.
    :param on_dispatch: called with each event.
    """
    return {
        "compression": arguments.compression,
        "close_timeout": CLOSE_TIMEOUT,
        "on_socket_dispatch": on_dispatch,
        "on_socket_heartbeat": _note_heartbeat,
    }


def _note_heartbeat(shard: Shard, ping: float) -> None:
    _logger.debug("heartbeat acknowledged after %.1f ms", ping * 1000)
