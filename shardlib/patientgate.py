"""PatientGate: the identify gate of a manager's shards."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable

from shardlib.errors import ShardClosed
from shardlib.gatewaybot import GatewayBot
from shardlib.limits import Gate, check_gate_wait
from shardlib.text import describe, duration

# Seconds. A longer wait to identify is told; and a gate of the user's that lets no shard through
# today is asked again after it.
_LONG_WAIT = 60.0


class PatientGate:
    """A gate whose shards wait for a budget that is used up, instead of being closed.

    Shards that resume need no Identify, and one may be sent when Discord counts anew.

    :param gate: to ask.
    :param log: called as :meth:`logging.Logger.log` is.
    """

    def __init__(self, gate: Gate, log: Callable[..., object]) -> None:
        self._gate = gate
        self._log = log
        # That shards wait. No lock: at worst two readers tell so in the same moment.
        self._told = False

    def update(self, gateway_bot: GatewayBot) -> None:
        """Tell the gate of Discord's limits, if it wants to know."""
        method = getattr(self._gate, "update", None)
        if method is None:
            return
        limits = gateway_bot.max_concurrency, gateway_bot.remaining, gateway_bot.reset_after
        if _takes_total(method):
            method(*limits, gateway_bot.total)
        else:
            method(*limits)

    def try_acquire(self, shard_id: int) -> float:
        """As the gate's own. The readers of the shards call it."""
        try:
            wait = check_gate_wait(self._gate.try_acquire(shard_id))
        except ShardClosed as error:
            self._tell(f"no shard may identify for now: {error.reason}")
            wait = self.expected_wait(shard_id) or _LONG_WAIT
        else:
            if wait == 0:
                self._told = False
        return wait

    def expected_wait(self, shard_id: int) -> float:
        """Seconds until a shard may identify at the earliest, 0.0 if the gate does not say."""
        method = getattr(self._gate, "expected_wait", None)
        if method is None:
            return 0.0
        try:
            wait = check_gate_wait(method(shard_id))
        except Exception as error:  # the user's: try_acquire() is what counts
            self._tell(f"expected_wait() of the identify gate failed: {describe(error)}")
            return 0.0
        if wait > _LONG_WAIT:
            self._tell(
                f"the next shard may identify in {duration(wait)}: the sessions that Discord "
                "allows in 24 hours are nearly used up. Shards with a session to resume go on"
            )
        return wait

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            self._log(logging.ERROR, "%s", what)


def _takes_total(update: Callable[..., object]) -> bool:
    """True unless it is a function of the user's for the first three limits only."""
    try:
        inspect.signature(update).bind(1, 1, 0.0, 1)
    except (TypeError, ValueError):  # a function written in C may have no signature
        return False
    return True
