"""``shardlib events``: the events of a fleet as lines of JSON, for one group of consumers."""

from __future__ import annotations

import logging
import sys
import threading
from argparse import Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from shardlib.cli.eventlines import to_json_or_without_data
from shardlib.cli.fleets import find_fleet, log_lines
from shardlib.cli.shutdown import Shutdown
from shardlib.cli.terminal import Output
from shardlib.fleet.errors import no_such_fleet
from shardlib.fleet.fleetevents import GAP_EVENT
from shardlib.text import count

if TYPE_CHECKING:
    from shardlib.fleet import Consumer, FleetEvent

# Seconds in which the consumer tells Redis what was printed. Then the command ends all the same: it
# may be stuck in a full pipe, or Redis may be away.
_END_TIMEOUT = 1.0

_logger = logging.getLogger("shardlib.cli")


def run(arguments: Namespace) -> None:
    """Print events until Ctrl-C, an error, or the last event that was asked for.

    :param arguments: the parsed arguments of ``shardlib events``.
    :raises UsageError: if there is no URL of Redis.
    :raises Failure: if a package that a fleet needs is missing.
    :raises ShardError: if Redis does not answer at first, or refuses, or has no such fleet.
    :raises OSError: if standard output cannot be written.
    """
    output = Output(sys.stdout)
    log_lines()
    with find_fleet(arguments) as fleet:
        consumer = fleet.consumer(arguments.group, events=arguments.events, start=arguments.start)
        lags = consumer.lag()  # Fleet.shards() tells more, which a consumer's user may not read
        if not lags:
            raise no_such_fleet(fleet.name)  # for which the consumer would wait
        _tell_where_it_begins(arguments.group, lags.values(), arguments.start)
        shutdown = Shutdown()  # last: until now a signal ends the process at once
        printer = _Printer(consumer, output, arguments.count, shutdown)
        printer.start()
        try:
            shutdown.wait()
        finally:
            printer.stop()


class _Printer:
    """Prints the events that a consumer hands out, on a thread of its own.

    The main thread waits for signals, which must end the command also if the pipe is full.

    :param consumer: of the events.
    :param output: standard output.
    :param limit: how many events to print; None for all.
    :param shutdown: ends the command.
    """

    def __init__(
        self, consumer: Consumer, output: Output, limit: int | None, shutdown: Shutdown
    ) -> None:
        self._consumer = consumer
        self._output = output
        self._left = limit
        self._shutdown = shutdown
        self._thread = threading.Thread(target=self._run, name="printing", daemon=True)

    def start(self) -> None:
        """Begin to print."""
        self._thread.start()

    def stop(self) -> None:
        """Print no more events, and acknowledge those that were printed. Blocks for a moment."""
        self._consumer.stop()
        self._thread.join(_END_TIMEOUT)

    def _run(self) -> None:
        try:
            self._print_all()
        except BrokenPipeError:
            self._shutdown.come()
        except OSError as error:
            self._shutdown.come(OSError(f"standard output cannot be written: {error.strerror}"))
        except Exception as error:
            self._shutdown.come(error)
        else:
            self._shutdown.come()

    def _print_all(self) -> None:
        with self._consumer as consumer:
            for event in consumer:  # acknowledges an event when it asks for the next
                self._output.write(_line(event) + "\n")
                if self._left is not None:
                    self._left -= 1
                    if self._left == 0:
                        consumer.stop()


def _line(event: FleetEvent) -> str:
    gap = event.name == GAP_EVENT
    return to_json_or_without_data(
        {
            "op": 0,
            "s": event.sequence,
            "t": event.name,
            "d": event.data._asdict() if gap else event.data,
            "shard": event.shard_id,
            "id": event.id,
        }
    )


def _tell_where_it_begins(group: str, lags: Iterable[int | None], start: str) -> None:
    behind = 0
    for lag in lags:
        if lag is None:
            _logger.info("the group %s is new, and begins at the %s event", group, start)
            return
        behind += lag
    _logger.info("the group %s has not had %s", group, count(behind, "event"))
