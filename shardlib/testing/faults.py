"""Faults: what goes wrong with a connection, and at which step of the connection's life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: The steps of a connection's life, in order, where a fault can strike.
STEPS = {
    "accept": "the gateway begins to serve a new TCP connection, with the TLS handshake if any",
    "upgrade": "the gateway answers the WebSocket handshake (101)",
    "hello": "the gateway sends Hello",
    "ready": "the gateway answers Identify (READY and the guilds) or Resume (replay and RESUMED)",
    "replay": 'the gateway answers Resume with missed events and RESUMED; a part of "ready"',
    "ack": "the gateway acknowledges a heartbeat, each one of the connection",
    "close": "the gateway answers a CLOSE frame",
}


@dataclass
class Fault:
    """A fault given to :meth:`LocalGateway.inject <shardlib.testing.LocalGateway.inject>`.

    :raises ValueError: if there is no such step, if the fault would do nothing, or if
        ``connections`` is less than 1.
    """

    #: The step at which the fault strikes, one of :data:`STEPS`.
    step: str
    #: Called with the connection's handle; None for a fault that only leaves the step out.
    action: Callable[[Any], object] | None
    #: Whether the fault replaces the step; else the fault comes before the step.
    replaces_step: bool
    #: How many more connections the fault strikes; None: every connection.
    connections: int | None

    def __post_init__(self) -> None:
        if self.step not in STEPS:
            raise ValueError(f"{self.step!r} is no step of a connection: {', '.join(STEPS)}")
        if self.step == "accept" and not self.replaces_step:
            raise ValueError("nothing comes before 'accept'; it can only be replaced")
        if self.action is None and not self.replaces_step:
            raise ValueError("a fault that replaces nothing needs an action")
        if self.connections is not None and self.connections < 1:
            raise ValueError(
                f"connections must be at least 1, or None for all, not {self.connections}"
            )

    def count_connection(self) -> bool:
        """Count a connection that the fault strikes; return whether the fault strikes another."""
        if self.connections is not None:
            self.connections -= 1
        return self.connections != 0


class Faults:
    """The faults that wait for connections. The gateway's lock guards it."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let a fault wait for its connections.

        :param fault: the fault.
        """
        self._waiting.append(fault)

    def clear(self) -> None:
        """Forget all faults that wait."""
        self._waiting.clear()

    def take(self, *, accept: bool) -> list[Fault]:
        """Return the faults that strike a new connection.

        A connection takes the faults of the step "accept" when it begins, and the others when its
        client asks for a WebSocket, so that a plain HTTP request uses up no fault.

        :param accept: True for the faults of the step "accept", False for all others.
        """
        taken = [fault for fault in self._waiting if (fault.step == "accept") is accept]
        for fault in taken:
            if not fault.count_connection():
                self._waiting.remove(fault)
        return taken


class Steps:
    """The steps of one connection, and the faults that strike at them.

    The gateway's lock guards it.

    :param faults: the faults of the gateway.
    """

    def __init__(self, faults: Faults) -> None:
        self._source = faults
        self._faults: list[Fault] = []
        # Steps that a fault has replaced and that proceed() takes after all.
        self._replaced: list[Callable[[], None]] = []

    def take_faults(self, *, accept: bool) -> bool:
        """Take the faults that strike this connection; return whether there were any.

        :param accept: as :meth:`Faults.take` has it.
        """
        faults = self._source.take(accept=accept)
        self._faults += faults
        return bool(faults)

    def take(self, name: str, connection: Any, step: Callable[[], None]) -> None:
        """Call the actions of the faults at a step, then take the step if no fault replaces it.

        :param name: the step's name, one of :data:`STEPS`.
        :param connection: the connection's handle, for the faults' actions.
        :param step: takes the step.
        """
        replaced = False
        for fault in self._faults:
            if fault.step == name:
                replaced = replaced or fault.replaces_step
                if fault.action is not None:
                    fault.action(connection)
        if replaced:
            self._replaced.append(step)
        else:
            step()

    def proceed(self) -> None:
        """Take the steps that faults have replaced so far."""
        steps, self._replaced = self._replaced, []
        for step in steps:
            step()

    def forget(self) -> None:
        """Forget the replaced steps, since the connection has ended."""
        self._replaced.clear()
