"""FleetGate: the identify gate of a worker's shards, which asks the gate in Redis."""

from __future__ import annotations

import logging
from collections.abc import Callable

from shardlib.fleet.config import FleetConfig
from shardlib.fleet.errors import FleetError
from shardlib.fleet.gatescripts import GateOutcome, GateScripts
from shardlib.gateway import IDENTIFY_SLACK
from shardlib.text import count

# Percent of the session start limit. The rest is left for the user, to mend things with.
_DAILY_SHARE = 95

# Seconds after which a gate is asked again that could not answer.
_RETRY = 1.0

# Seconds, the longest wait before the gate is asked again: Discord may count anew before it thinks.
_LONGEST_WAIT = 60.0


class FleetGate:
    """When a shard of a fleet may identify; any object with ``try_acquire`` is such a gate.

    The readers of the shards ask it. It blocks while Redis answers, and raises nothing: a shard
    waits for a Redis that is away.

    :param scripts: which ask Redis.
    :param config: what all workers agree on.
    :param log: called as :meth:`logging.Logger.log` is.
    """

    def __init__(
        self, scripts: GateScripts, config: FleetConfig, log: Callable[..., object]
    ) -> None:
        self._scripts = scripts
        self._max_concurrency = config.max_concurrency
        self._spacing = config.identify_interval + IDENTIFY_SLACK
        self._limit = config.session_start_limit
        self._log = log
        # That shards wait. No lock: at worst two readers tell so in the same moment.
        self._told = False

    def try_acquire(self, shard_id: int) -> float:
        """Take the slot of a shard and return 0.0, or return the seconds after which to ask."""
        try:
            answer = self._scripts.try_pass(
                shard_id,
                max_concurrency=self._max_concurrency,
                spacing=self._spacing,
                budget=max(1, self._limit * _DAILY_SHARE // 100),
            )
        except FleetError as error:
            self._tell(logging.WARNING, "no shard can identify: %s", error)
            return _RETRY
        if answer.outcome is GateOutcome.USED_UP:
            self._tell(
                logging.ERROR,
                "no shard may identify for %s: the sessions that Discord allows in 24 hours are "
                "nearly used up. Shards with a session to resume go on",
                count(round(answer.wait / 60), "minute"),
            )
        elif answer.outcome is GateOutcome.PASSED:
            self._told = False
        return min(answer.wait, _LONGEST_WAIT)

    def _tell(self, level: int, message: str, *arguments: object) -> None:
        if not self._told:
            self._told = True
            self._log(level, message, *arguments)
