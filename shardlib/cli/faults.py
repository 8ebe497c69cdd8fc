"""The faults of ``shardlib gateway --faults FILE``: what goes wrong at the gateway, and when."""

from __future__ import annotations

import heapq
import inspect
import json
import re
from typing import TYPE_CHECKING, Any

from shardlib.gateway import may_be_sent
from shardlib.testing import STEPS, GatewayConnection
from shardlib.testing.faults import AFTER_IDENTIFY, PLAIN_HTTP
from shardlib.testing.rest.router import check_template

if TYPE_CHECKING:
    from shardlib.testing import LocalGateway

FORMAT = """\
FILE holds a JSON array of faults. Each says when something goes wrong, and what:

  [
    {"after": 20, "do": "reconnect"},
    {"every": 60, "do": "close", "code": 4000},
    {"after": 90, "do": "outage", "seconds": 5},
    {"before": "ready", "do": "reset", "connections": 2},
    {"instead_of": "ack", "connections": "all"},
    {"instead_of": "answer", "method": "POST", "path": "/channels/*/messages",
     "do": "refuse", "status": 429, "headers": {"Retry-After": "1"}}
  ]

"after" and "every" are seconds since the start. The fault then strikes all open connections.
"before" and "instead_of" name a step of a connection: accept, answer (an HTTP request is carried
out and answered), response (it has been carried out), upgrade, hello, ready, replay, ack, close.
The fault strikes the next connection; "connections" is the number of the next connections that it
strikes, or "all"; with "shard_id", of that shard's connections (at ready, replay, ack and close
only). At answer and response it strikes the next request, or with "method" and "path" the next
such one: the path without /api and the version. "instead_of" without "do" leaves the step out.

"do" must be one of:
  close ("code", "reason")           close the WebSocket
  drop                               end TCP without a close frame (FIN)
  reset                              reset TCP (RST)
  freeze                             neither read nor send: a black hole
  stop_reading                       read nothing, but go on sending
  thaw                               undo freeze and stop_reading
  slow ("bytes_per_second")          send no faster from now on
  reconnect                          send Reconnect (opcode 7)
  invalid_session ("resumable")      send Invalid Session (opcode 9); not resumable unless given
  request_heartbeat                  ask for a heartbeat (opcode 1)
  send_corrupt                       send a message that cannot be inflated
  send_bomb ("size")                 send a message that inflates to so many bytes
  split_messages ("size")            cut what follows into WebSocket messages of so many bytes
  fragment_messages ("size")         cut what follows into fragments of so many bytes
  refuse ("status", "body",          answer with HTTP; with "instead_of": "upgrade" or "answer"
    "headers")
  accept_wrongly                     answer the handshake wrongly; with "instead_of": "upgrade"
  outage ("seconds")                 reset all connections, and refuse new ones for so long
"""

# The values of "do", with their parameters and the types of these. Each but "outage" is a method of
# GatewayConnection, whose signature says which parameters are required.
_NUMBER = (int, float)
_PARAMETERS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "close": {"code": int, "reason": str},
    "drop": {},
    "reset": {},
    "freeze": {},
    "stop_reading": {},
    "thaw": {},
    "slow": {"bytes_per_second": _NUMBER},
    "reconnect": {},
    "invalid_session": {"resumable": bool},
    "request_heartbeat": {},
    "send_corrupt": {},
    "send_bomb": {"size": int},
    "split_messages": {"size": int},
    "fragment_messages": {"size": int},
    "refuse": {"status": int, "body": str, "headers": dict},
    "accept_wrongly": {},
    "outage": {"seconds": _NUMBER},
}
_TYPE_NAMES: dict[Any, str] = {
    int: "a whole number",
    str: "a string",
    bool: "true or false",
    dict: "an object",
}
_RANGES = {"status": (300, 599), "seconds": (0.01, 1e9)}
# Bytes of a close frame's reason (RFC 6455, section 5.5).
_LONGEST_REASON = 123
# By what stands for the answer to the client's request, the steps that it can replace. On an open
# WebSocket it would mean nothing.
_ANSWERS = {"refuse": ("upgrade", "answer"), "accept_wrongly": ("upgrade",)}


class Script:
    """The faults of a file.

    :param text: the file's content.
    :raises ValueError: if the text is no JSON array of valid faults; the message says which fault
        is invalid, and why.
    """

    def __init__(self, text: str) -> None:
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not JSON: {error}") from error
        if not isinstance(entries, list):
            raise ValueError("it must be a JSON array of faults")
        self._at_steps: list[_Fault] = []
        # A heap: seconds since the start, the fault's number in the file, and the fault that is due
        # then. Of faults due at the same time, the first in the file strikes first.
        self._due: list[tuple[float, int, _Fault]] = []
        for number, entry in enumerate(entries, 1):
            try:
                fault = _Fault(entry)
            except ValueError as error:
                raise ValueError(f"fault {number}: {error}") from None
            if fault.step is not None:
                self._at_steps.append(fault)
            else:
                heapq.heappush(self._due, (fault.first, number, fault))

    def inject(self, gateway: LocalGateway) -> None:
        """Give the gateway the faults that strike at steps of connections.

        :param gateway: the gateway, before a client connects.
        """
        for fault in self._at_steps:
            fault.inject(gateway)

    def next_due(self) -> float | None:
        """Return when the next fault is due, in seconds since the start; None if none is left."""
        return self._due[0][0] if self._due else None

    def strike(self, gateway: LocalGateway, now: float) -> list[str]:
        """Let the faults strike that are due.

        :param gateway: the gateway whose connections the faults strike.
        :param now: seconds since the start.
        :returns: a line for people about each fault that has struck.
        """
        lines = []
        while self._due and self._due[0][0] <= now:
            due, number, fault = heapq.heappop(self._due)
            lines.append(fault.strike(gateway))
            if fault.every is not None:
                heapq.heappush(self._due, (due + fault.every, number, fault))
        return lines


class _Fault:
    """One fault of a file.

    :param entry: the decoded JSON.
    :raises ValueError: if the entry is no valid fault; the message says why.
    """

    def __init__(self, entry: Any) -> None:
        if not isinstance(entry, dict):
            raise ValueError("it must be a JSON object")
        # Each key that is read is taken out; the parameters of "do" remain.
        rest = dict(entry)
        before, instead_of = rest.pop("before", None), rest.pop("instead_of", None)
        after, self.every = rest.pop("after", None), rest.pop("every", None)
        self.replaces_step = instead_of is not None
        self.step = instead_of if before is None else before
        is_timed = after is not None or self.every is not None
        if (self.step is not None) is is_timed or (before is not None and self.replaces_step):
            raise ValueError(
                'it must say when: by "before", by "instead_of", or by "after" and "every"'
            )
        for seconds in (after, self.every):
            if seconds is not None:
                _check_number("seconds", seconds)
        self.first = self.every if after is None else after
        if self.step is not None and (not isinstance(self.step, str) or self.step not in STEPS):
            raise ValueError(f"{self.step!r} is no step of a connection: {', '.join(STEPS)}")
        if before == "accept":
            raise ValueError('nothing comes before "accept"; use "instead_of"')
        connections = rest.pop("connections", 1)
        if is_timed and "connections" in entry:
            raise ValueError('"connections" goes with "before" and "instead_of"')
        if connections != "all" and (type(connections) is not int or connections < 1):
            raise ValueError(
                f'"connections" must be a number from 1 up, or "all", not {connections!r}'
            )
        self.connections = None if connections == "all" else connections
        self.shard_id = rest.pop("shard_id", None)
        if self.shard_id is not None:
            if self.step not in AFTER_IDENTIFY:
                raise ValueError(
                    f'"shard_id" goes with the steps {", ".join(sorted(AFTER_IDENTIFY))}'
                )
            if type(self.shard_id) is not int or self.shard_id < 0:
                raise ValueError(f'"shard_id" must be a number from 0 up, not {self.shard_id!r}')
        self.method, self.path = rest.pop("method", None), rest.pop("path", None)
        for name, value in (("method", self.method), ("path", self.path)):
            if value is not None:
                _check_request(name, value, self.step)
        self.do = rest.pop("do", None)
        if self.do is not None or rest or not self.replaces_step:
            _check_action(self.do, rest)
        answered = _ANSWERS.get(self.do or "")
        if answered is not None and not (self.replaces_step and self.step in answered):
            steps = " or ".join(f'"{step}"' for step in answered)
            raise ValueError(f'"{self.do}" goes with "instead_of": {steps}')
        if self.do == "outage" and not is_timed:
            raise ValueError('"outage" goes with "after" and "every"')
        self.parameters = rest

    def inject(self, gateway: LocalGateway) -> None:
        gateway.inject(
            self._act if self.do is not None else None,
            before=None if self.replaces_step else self.step,
            instead_of=self.step if self.replaces_step else None,
            connections=self.connections,
            shard_id=self.shard_id,
            method=self.method,
            path=self.path,
        )

    def strike(self, gateway: LocalGateway) -> str:
        if self.do == "outage":
            gateway.outage(**self.parameters)
            return "outage"
        connections = [each for each in gateway.connections if each.is_open]
        for connection in connections:
            self._act(connection)
        return f"{self.do}, connections: {len(connections)}"

    def _act(self, connection: GatewayConnection) -> None:
        try:
            getattr(connection, self.do)(**self.parameters)
        except ConnectionError:
            pass  # the connection has ended meanwhile


def _check_request(name: str, value: Any, step: str | None) -> None:
    if step not in PLAIN_HTTP:
        raise ValueError(f'"{name}" goes with the steps {", ".join(sorted(PLAIN_HTTP))}')
    if not isinstance(value, str):
        raise ValueError(f'"{name}" must be a string, not {value!r}')
    if name == "path":
        check_template(value)


def _check_headers(headers: dict[Any, Any]) -> None:
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise ValueError(f"headers: {name!r} is no name of a header")
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise ValueError(f"headers: {name} must be a string of ASCII, not {value!r}")


def _check_action(do: Any, parameters: dict[str, Any]) -> None:
    if not isinstance(do, str) or do not in _PARAMETERS:
        raise ValueError(f'"do" must be one of {", ".join(_PARAMETERS)}, not {do!r}')
    types = _PARAMETERS[do]
    for name, value in parameters.items():
        if name not in types:
            allowed = ", ".join(types) or "nothing more"
            raise ValueError(f"{do} takes {allowed}, not {name!r}")
        if types[name] in (int, _NUMBER):
            _check_number(name, value)
        if not isinstance(value, types[name]):
            raise ValueError(f"{name} must be {_TYPE_NAMES[types[name]]}, not {value!r}")
        if isinstance(value, dict):
            _check_headers(value)
        if isinstance(value, str):
            try:
                size = len(value.encode())
            except UnicodeEncodeError:
                raise ValueError(f"{name} holds half a surrogate pair, which is no text") from None
            if name == "reason" and size > _LONGEST_REASON:
                raise ValueError(f"reason must be at most {_LONGEST_REASON} bytes, not {size}")
        if name == "code" and isinstance(value, int) and not may_be_sent(value):
            raise ValueError(f"code must be one that a close frame may hold, not {value}")
    if do == "outage":
        if "seconds" not in parameters:
            raise ValueError("outage needs seconds")
        return
    for parameter in inspect.signature(getattr(GatewayConnection, do)).parameters.values():
        is_required = parameter.default is parameter.empty and parameter.name != "self"
        if is_required and parameter.name not in parameters:
            raise ValueError(f"{do} needs {parameter.name}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, _NUMBER) or not 0 < value < 1e9:
        raise ValueError(f"{name} must be a number above 0, not {value!r}")
    low, high = _RANGES.get(name, (0, 1e9))
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {value!r}")
