"""Faults, which delay, replace or disturb a step of a connection's life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shardlib.testing.rest.request import ReceivedRequest
from shardlib.testing.rest.router import check_template, path_matches

#: The steps of a connection's life, in order, at which a fault can strike.
STEPS = {
    "accept": "the gateway begins to serve a new TCP connection, with the TLS handshake if any",
    "answer": "the gateway carries out and answers an HTTP request that asks for no WebSocket",
    "response": 'the gateway sends the response to a request carried out; a part of "answer"',
    "upgrade": "the gateway answers the WebSocket handshake (101)",
    "hello": "the gateway sends Hello",
    "ready": "the gateway answers Identify (READY and the guilds) or Resume (replay and RESUMED)",
    "replay": 'the gateway answers Resume with missed events and RESUMED; a part of "ready"',
    "ack": "the gateway acknowledges a heartbeat, each one of the connection",
    "close": "the gateway answers a CLOSE frame",
}

#: The steps at which a connection can be struck: before the request, and after each kind of it.
BEFORE_REQUEST = frozenset({"accept"})
PLAIN_HTTP = frozenset({"answer", "response"})
WEBSOCKET = frozenset(STEPS) - BEFORE_REQUEST - PLAIN_HTTP

#: The steps at which the gateway knows which shard a connection belongs to.
AFTER_IDENTIFY = frozenset({"ready", "replay", "ack", "close"})


@dataclass
class Fault:
    """A fault passed to :meth:`LocalGateway.inject <shardlib.testing.LocalGateway.inject>`.

    :raises ValueError: if there is no such step, if the fault would do nothing, if
        ``connections`` is less than 1, if ``shard_id`` is negative or the step comes before
        Identify, or if ``path`` is not as Discord documents paths.
    :raises TypeError: if ``action`` cannot be called.
    """

    #: The step at which the fault strikes, one of :data:`STEPS`.
    step: str
    #: Called with the connection's handle; None for a fault that only omits the step.
    action: Callable[[Any], object] | None
    #: True to call the action instead of taking the step, False to call it before the step.
    replaces_step: bool
    #: The number of connections, or of HTTP requests, that the fault has still to strike; None for
    #: every one.
    connections: int | None
    #: The id of the shard whose connections the fault strikes; None for any connection.
    shard_id: int | None = None
    #: The method and the path template of the HTTP requests that the fault strikes; None for any.
    method: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if self.step not in STEPS:
            raise ValueError(f"{self.step!r} is not a step of a connection: {', '.join(STEPS)}")
        if self.step == "accept" and not self.replaces_step:
            raise ValueError(
                "no step precedes 'accept', so a fault can only replace 'accept': use instead_of"
            )
        if self.action is None and not self.replaces_step:
            raise ValueError("a fault that replaces nothing needs an action")
        if self.action is not None and not callable(self.action):
            raise TypeError(
                f"action must be a function of the connection, such as "
                f"lambda it: it.refuse(502), not {self.action!r}"
            )
        if self.connections is not None and self.connections < 1:
            raise ValueError(
                f"connections must be at least 1, or None for all, not {self.connections}"
            )
        if self.shard_id is not None and self.step not in AFTER_IDENTIFY:
            raise ValueError(
                f"shard_id goes with {', '.join(sorted(AFTER_IDENTIFY))}: at {self.step!r} the "
                "gateway does not know yet which shard connects"
            )
        if self.shard_id is not None and self.shard_id < 0:
            raise ValueError(f"shard_id must be at least 0, not {self.shard_id}")
        if (self.method is not None or self.path is not None) and self.step not in PLAIN_HTTP:
            raise ValueError(
                f"method and path go with {', '.join(sorted(PLAIN_HTTP))}: at {self.step!r} there "
                "is no HTTP request that has them"
            )
        if self.path is not None:
            check_template(self.path)

    def strikes(self, request: ReceivedRequest | None) -> bool:
        """Return whether the fault strikes a request, by its method and path.

        :param request: the HTTP request; None for a connection that asks for a WebSocket, or whose
            request has not arrived.
        """
        if request is None:
            return True
        return (self.method is None or self.method == request.method) and (
            self.path is None or path_matches(self.path, request.path)
        )

    def count_connection(self) -> bool:
        """Count a connection that the fault strikes.

        :returns: whether the fault is to strike another connection.
        """
        if self.connections is not None:
            self.connections -= 1
        return self.connections != 0


class Faults:
    """The faults that are still to strike connections. The callers hold the gateway's lock."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Add a fault, which strikes the next connections.

        :param fault: the fault.
        """
        self._waiting.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        self._waiting.clear()

    def take(
        self, steps: frozenset[str], shard_id: int | None, request: ReceivedRequest | None
    ) -> list[Fault]:
        """Count a new connection, or a new HTTP request, and return the faults that strike it.

        Called once when the gateway accepts a client, again when the client has sent a request,
        so that a request for a WebSocket and one of plain HTTP use up no fault of each other's, and
        again when the gateway knows the client's shard.

        :param steps: BEFORE_REQUEST, PLAIN_HTTP, WEBSOCKET or AFTER_IDENTIFY.
        :param shard_id: the id of the shard for AFTER_IDENTIFY, which takes that shard's faults
            only; else None, which takes the faults of no shard in particular.
        :param request: the request for PLAIN_HTTP, which takes the faults of its method and path;
            else None.
        """
        taken = [
            fault
            for fault in self._waiting
            if fault.step in steps and fault.shard_id == shard_id and fault.strikes(request)
        ]
        for fault in taken:
            if not fault.count_connection():
                self._waiting.remove(fault)
        return taken


class Steps:
    """The faults that strike one connection, and the steps that these faults have replaced.

    The callers hold the gateway's lock.

    :param faults: the faults of the gateway, from which the connection takes its own.
    """

    def __init__(self, faults: Faults) -> None:
        self._source = faults
        self._faults: list[Fault] = []
        # Replaced steps, which proceed() takes.
        self._replaced: list[Callable[[], None]] = []

    def take_faults(
        self,
        steps: frozenset[str],
        shard_id: int | None = None,
        request: ReceivedRequest | None = None,
    ) -> bool:
        """Take the faults that strike this connection from the gateway's faults.

        :param steps: BEFORE_REQUEST, PLAIN_HTTP, WEBSOCKET or AFTER_IDENTIFY.
        :param shard_id: the id of the shard for AFTER_IDENTIFY; else None.
        :param request: the request for PLAIN_HTTP; else None.
        :returns: whether any fault strikes the connection.
        """
        faults = self._source.take(steps, shard_id, request)
        self._faults += faults
        return bool(faults)

    def take(self, name: str, connection: Any, step: Callable[[], None]) -> None:
        """Call the actions of the faults at a step, then take the step if no fault replaces it.

        :param name: the step's name, one of :data:`STEPS`.
        :param connection: the connection's handle, for the faults' actions.
        :param step: the function that takes the step.
        """
        faults = [fault for fault in self._faults if fault.step == name]
        is_replaced = any(fault.replaces_step for fault in faults)
        if is_replaced:
            # Before the actions, because an action may call proceed().
            self._replaced.append(step)
        for fault in faults:
            if fault.action is not None:
                fault.action(connection)
        if not is_replaced:
            step()

    def proceed(self) -> None:
        """Take the steps that faults have replaced so far, in their order."""
        steps, self._replaced = self._replaced, []
        for step in steps:
            step()

    def forget(self) -> None:
        """Drop the replaced steps, after the connection has ended."""
        self._replaced.clear()
