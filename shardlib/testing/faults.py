"""Faults: what goes wrong with a connection, and at which of the gateway's steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .connection import GatewayConnection

#: What a fault does; called on the gateway's thread, so it must not wait.
Action: TypeAlias = "Callable[[GatewayConnection], object]"

#: The steps of a connection's life, in order, where a fault can strike.
STEPS = {
    "accept": "the TCP connection is taken into service, TLS handshake included",
    "upgrade": "the WebSocket handshake is answered (101)",
    "hello": "Hello is sent",
    "ready": "Identify is answered (READY and the guilds), or Resume (the replay and RESUMED)",
    "ack": "a heartbeat is acknowledged; each of the connection's heartbeats",
    "close": "a CLOSE frame is answered",
}


@dataclass
class Fault:
    """One order given to :meth:`LocalGateway.inject`."""

    step: str
    action: Action | None
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
            raise ValueError(f"connections is at least 1, or None for all: {self.connections}")


class Faults:
    """The faults waiting for connections; the gateway's lock guards it."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._waiting.append(fault)

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, *, accept: bool) -> list[Fault]:
        """Return the faults for a connection at its beginning.

        Those of the step "accept" are taken at once; the others only where the client turns
        out to ask for a WebSocket, so that a plain HTTP request uses up none.
        """
        taken = [fault for fault in self._waiting if (fault.step == "accept") is accept]
        for fault in taken:
            if fault.connections is not None:
                fault.connections -= 1
                if fault.connections == 0:
                    self._waiting.remove(fault)
        return taken
