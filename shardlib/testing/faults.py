"""Faults: what goes wrong with a connection, and at which of the gateway's steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: The steps of a connection's life, in order, where a fault can strike.
STEPS = {
    "accept": "the TCP connection is taken into service, TLS handshake included",
    "upgrade": "the WebSocket handshake is answered (101)",
    "hello": "Hello is sent",
    "ready": "Identify is answered (READY and the guilds), or Resume (the replay and RESUMED)",
    "replay": 'Resume is answered with what the session missed, and RESUMED; a part of "ready"',
    "ack": "a heartbeat is acknowledged; each of the connection's heartbeats",
    "close": "a CLOSE frame is answered",
}


@dataclass
class Fault:
    """One order given to :meth:`LocalGateway.inject <shardlib.testing.LocalGateway.inject>`.

    :raises ValueError: if the order makes no sense.
    """

    step: str
    #: Called with the connection, as tests know it.
    action: Callable[[Any], object] | None
    instead: bool
    #: How many more connections it takes hold of; None: all.
    connections: int | None

    def __post_init__(self) -> None:
        if self.step not in STEPS:
            raise ValueError(f"{self.step!r} is no step of a connection: {', '.join(STEPS)}")
        if self.step == "accept" and not self.instead:
            raise ValueError("nothing comes before 'accept'; it can only be replaced")
        if self.action is None and not self.instead:
            raise ValueError("a fault that replaces nothing needs an action")
        if self.connections is not None and self.connections < 1:
            raise ValueError(
                f"connections must be at least 1, or None for all, not {self.connections}"
            )

    def use(self) -> bool:
        """Take hold of a connection; return whether there is another one to wait for."""
        if self.connections is not None:
            self.connections -= 1
        return self.connections != 0


class Faults:
    """The faults that wait for connections; the gateway's lock guards it."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let a fault wait for its connections."""
        self._waiting.append(fault)

    def clear(self) -> None:
        """Forget all faults that wait."""
        self._waiting.clear()

    def take(self, *, accept: bool) -> list[Fault]:
        """Return the faults for a connection at its beginning.

        Faults of the step "accept" are taken at once. The others are taken only when the client
        turns out to ask for a WebSocket, so that a plain HTTP request uses up none.

        :param accept: True for the faults of the step "accept", False for all others.
        """
        taken = [fault for fault in self._waiting if (fault.step == "accept") is accept]
        for fault in taken:
            if not fault.use():
                self._waiting.remove(fault)
        return taken


class Steps:
    """One connection's way through its steps; the gateway's lock guards it.

    :param faults: where the faults of this connection come from.
    """

    def __init__(self, faults: Faults) -> None:
        self._source = faults
        self._faults: list[Fault] = []
        # Steps that a fault left out, and that proceed() can make up for.
        self._left_out: list[Callable[[], None]] = []

    def meet_faults(self, *, accept: bool) -> bool:
        """Take over the faults that wait for a connection; return whether there were any.

        :param accept: as :meth:`Faults.take` has it.
        """
        faults = self._source.take(accept=accept)
        self._faults += faults
        return bool(faults)

    def take(self, name: str, connection: Any, step: Callable[[], None]) -> None:
        """Take a step, or do what a fault wants in its place.

        :param name: one of :data:`STEPS`.
        :param connection: what the faults' actions are called with.
        :param step: what the gateway does if no fault replaces it.
        """
        replaced = False
        for fault in self._faults:
            if fault.step == name:
                replaced = replaced or fault.instead
                if fault.action is not None:
                    fault.action(connection)
        if replaced:
            self._left_out.append(step)
        else:
            step()

    def proceed(self) -> None:
        """Take the steps that were left out so far."""
        steps, self._left_out = self._left_out, []
        for step in steps:
            step()

    def forget(self) -> None:
        """Leave out for good what was left out: the connection is over."""
        self._left_out.clear()
