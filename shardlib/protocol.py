"""Protocol: what the Gateway's messages mean, and what a shard does about them.

It opens no socket and starts no connection. Where a message makes another connection necessary,
this one is given up, and the reader sees to the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardlib import payloads
from shardlib.callbacks import Callbacks
from shardlib.checks import check_positive
from shardlib.connection import Connection
from shardlib.control import Control
from shardlib.deadline import Deadline
from shardlib.errors import BrokenStream, SendTimeout, ShardClosed, UnreadableMessage
from shardlib.frames import FrameType
from shardlib.gateway import Opcode, gateway_url, is_encrypted
from shardlib.heartbeat import Heartbeat
from shardlib.limits import default_gate, heartbeat_reserve
from shardlib.options import Options
from shardlib.payloads import Payload
from shardlib.state import ShardState
from shardlib.stats import Stats

_PROTOCOL_EVENTS = frozenset({"READY", "RESUMED"})  # on which the shard itself acts

# Sequences are below; every JSON module can write those, into heartbeats and Resume.
_END_OF_SEQUENCES = 1 << 63


@dataclass(slots=True)
class CurrentSession:
    """What is known of the session under way. A new session is a new object."""

    session_id: str | None = None
    gateway: str | None = None  # READY's resume_gateway_url
    last_sequence: int | None = None  # received
    completed_sequence: int | None = None  # of the last event whose callbacks have returned
    failures_at_gateway: int = 0  # connections there in a row that came to nothing
    unanswered_resumes: int = 0  # in a row
    broken_at: int | None = -1  # last_sequence when a stream broke, -1 where none has


class Protocol:
    """Handles one message after the other. Its methods are called by the reader.

    :param options: of the shard.
    :param control: where the state is told, and the current connection is found.
    :param callbacks: to call.
    :param stats: to count in.
    """

    def __init__(
        self, options: Options, control: Control, callbacks: Callbacks, stats: Stats
    ) -> None:
        self._options = options
        self._control = control
        self._callbacks = callbacks
        self._stats = stats
        self._gate = options.identify_gate or default_gate(options.token)
        self.presence = options.presence  # with which the next Identify begins
        self.invalid_session = False  # Identify has to wait a little, once
        self.session = CurrentSession()
        if options.session is not None:
            self.session = CurrentSession(
                options.session.session_id,
                options.session.resume_gateway_url,
                options.session.sequence,
                options.session.sequence,
            )

    def drop_session(self) -> None:
        """Forget the session: it has ended, or can't be resumed. Any thread."""
        self.session = CurrentSession()

    def keep_presence(self, presence: Payload | None) -> None:
        """Begin every later session with a presence, the last that was sent. Any thread."""
        self.presence = presence

    def handle_frame(self, frame_type: int, payload: bytes) -> None:
        """Handle a message as it comes in a WebSocket frame."""
        if frame_type == FrameType.BINARY:
            self.handle_message(payload)
            return
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            self._callbacks.report(
                UnreadableMessage(f"a text message is not UTF-8: {error}", payload)
            )
        else:
            self.handle_message(text)

    def handle_message(self, message: bytes | str) -> None:
        """Inflate a message, decode it, act on it, call back. The hot path."""
        connection = self._control.connection
        try:
            text = connection.inflater.inflate(message)
        except UnreadableMessage as error:
            self._callbacks.report(error)
            return
        except BrokenStream as error:
            self.stream_broke(connection, error)
            return
        if text is None:
            return
        stats = self._stats
        stats.messages += 1
        stats.bytes_inflated += len(text)
        if connection.resumed_from is None and not self._callbacks.wants_payloads():
            header = payloads.peek(text)
            if header is not None:
                event, sequence = header
                if event not in _PROTOCOL_EVENTS and not self._callbacks.wants(event):
                    # Nobody listens: the data, most of the message, need not be decoded.
                    stats.events[event] += 1
                    self._note_sequence(sequence)
                    self.session.completed_sequence = self.session.last_sequence
                    return
        try:
            payload = payloads.decode(text, self._options.json)
        except UnreadableMessage as error:
            self._callbacks.report(error)
            return
        self._callbacks.notify("on_socket_raw_message", payload)
        try:
            self._act(connection, payload)
        except Exception as error:  # a payload of a shape that nobody has thought of
            self._callbacks.report(error)

    def _act(self, connection: Connection, payload: Payload) -> None:
        opcode = payload["op"]
        if opcode == Opcode.DISPATCH:
            self._dispatch(connection, payload)
        elif opcode == Opcode.HEARTBEAT_ACK:
            heartbeat = connection.heartbeat
            if heartbeat is not None and heartbeat.acknowledge():
                self._callbacks.notify("on_socket_heartbeat", heartbeat.ping)
        elif opcode == Opcode.HEARTBEAT:
            if connection.heartbeat is not None:
                connection.heartbeat.beat(requested=True)
            else:  # asked before Hello: there is no rhythm yet, but an answer
                self._send(connection, self._heartbeat())
        elif opcode == Opcode.HELLO:
            self._hello(connection, payload.get("d"))
        elif opcode == Opcode.RECONNECT:
            connection.give_up("the Gateway asked for a new connection")
        elif opcode == Opcode.INVALID_SESSION:
            if payload.get("d") is not True:
                self.drop_session()
            self.invalid_session = self.session.session_id is None
            connection.give_up("the Gateway called the session invalid")

    # Beginning: Hello, then Identify or Resume

    def _hello(self, connection: Connection, data: Any) -> None:
        interval = data.get("heartbeat_interval") if isinstance(data, Mapping) else None
        try:
            interval = check_positive("heartbeat_interval", interval)
        except (TypeError, ValueError) as error:
            connection.give_up(f"Hello can't be used: {error}")
            return
        connection.window.reserve = heartbeat_reserve(interval)
        if connection.heartbeat is not None:  # a second Hello changes the pace, no more
            connection.heartbeat.interval = interval
            connection.heartbeat.reschedule(interval)
            return
        connection.heartbeat = Heartbeat(connection, self._callbacks, interval, self._heartbeat)
        if connection.websocket is None:  # a message by itself: nothing to keep alive
            return
        try:
            connection.heartbeat.start(f"shard-{self._options.shard_id}-heartbeat")
        except RuntimeError as error:  # the system has no thread to give
            connection.give_up(f"no heartbeat could be started: {error}")
            return
        if self.session.session_id is None:
            self._take_turn(connection)
        else:
            self._resume(connection, self.session.session_id)

    def _heartbeat(self) -> str:
        return payloads.encode(payloads.heartbeat(self.session.last_sequence), self._options.json)

    def _take_turn(self, connection: Connection) -> None:
        """:meth:`identify` for the reader, which nothing that the gate raises may end."""
        try:
            self.identify(connection)
        except ShardClosed as fatal:
            self._control.stop(fatal)
        except Exception as error:  # a gate of the user's, which asks a server perhaps
            self._callbacks.report(error)
            connection.give_up(f"the identify gate failed: {error!r}")

    def identify(self, connection: Connection) -> None:
        """Send Identify, or note when to ask the gate again. Any thread.

        :raises ShardClosed: where the identify gate lets no more through.
        """
        control = self._control
        wait = self._gate.try_acquire(self._options.shard_id)
        with control.changed:
            if connection is not control.connection or control.state is not ShardState.CONNECTED:
                return  # another thread was faster
            if wait > 0:
                connection.deadline = Deadline(wait)
                return
            control.set_state(ShardState.IDENTIFYING)
            # Before sending: another thread than the reader may go on when READY was here already.
            connection.deadline = Deadline(self._options.ready_timeout)
        connection.window.record()
        self._send(connection, self._options.identify(self.presence))

    def _resume(self, connection: Connection, session_id: str) -> None:
        self._control.set_state(ShardState.RESUMING)
        sequence = self.session.last_sequence or 0
        connection.resumed_from = sequence
        connection.window.record()
        resume = payloads.resume(
            token=self._options.token, session_id=session_id, sequence=sequence
        )
        self._send(connection, payloads.encode(resume, self._options.json))
        connection.deadline = Deadline(self._options.ready_timeout)

    def overdue(self, connection: Connection) -> None:
        """The connection's deadline has passed: act, if what was expected has not come."""
        if connection.deadline is None or connection.deadline.remaining():
            return  # put off meanwhile, by a thread that has identified
        if self._control.state is not ShardState.CONNECTED:
            connection.give_up(
                f"neither READY nor RESUMED came within {self._options.ready_timeout:g} seconds"
            )
        elif connection.heartbeat is None:
            connection.give_up(f"no Hello came within {self._options.hello_timeout:g} seconds")
        else:  # nothing is late: the turn to identify has come
            self._take_turn(connection)

    def _send(self, connection: Connection, text: str) -> None:
        try:
            connection.send(text)
        except SendTimeout as error:
            connection.give_up(str(error))
        except OSError:
            pass  # the connection has ended, as the next read will find

    # Events

    def _dispatch(self, connection: Connection, payload: Payload) -> None:
        event = payload.get("t")
        sequence = payload.get("s")
        if not isinstance(event, str):
            event = None
        if type(sequence) is not int or not 0 <= sequence < _END_OF_SEQUENCES:
            sequence = None
        if connection.resumed_from is not None and event not in _PROTOCOL_EVENTS:
            # A replay. Some repeat the last event that was seen; nobody wants it twice.
            if sequence is not None and sequence <= connection.resumed_from:
                self._stats.duplicates += 1
                return
            self._stats.replayed += 1
            connection.deadline = Deadline(self._options.ready_timeout)
        if event is not None:
            self._stats.events[event] += 1
        if event == "READY":
            self._ready(connection, payload.get("d"), sequence)
        else:
            if sequence is not None:
                self._note_sequence(sequence)
            if event == "RESUMED":
                self._resumed(connection)
        self._callbacks.notify("on_socket_dispatch", payload)
        if event is not None:
            self._callbacks.dispatch(event, payload.get("d"))
        if self._control.fatal is None:  # else a callback did not return but raised its way out
            self.session.completed_sequence = self.session.last_sequence

    def _note_sequence(self, sequence: int) -> None:
        # Never backwards: RESUMED, and servers other than Discord's, repeat old numbers.
        last = self.session.last_sequence
        if last is None or sequence > last:
            self.session.last_sequence = sequence

    def _ready(self, connection: Connection, data: Any, sequence: int | None) -> None:
        if not isinstance(data, Mapping):
            data = {}
        session_id = data.get("session_id")
        if type(session_id) is int:  # from servers other than Discord's
            session_id = str(session_id)
        elif not isinstance(session_id, str) or not session_id:
            session_id = None
        self.session = CurrentSession(
            session_id=session_id,
            gateway=self._acceptable_gateway(data.get("resume_gateway_url")),
            last_sequence=sequence,
            # No Resume brings READY again: it counts as seen before its callbacks return.
            completed_sequence=sequence,
        )
        self._callbacks.log(logging.INFO, "ready, session %s", session_id)
        self._events_flow(connection)
        self._callbacks.notify("on_socket_ready")
        if not self._control.is_first_connection():
            self._callbacks.notify("on_socket_reconnected", False)

    def _acceptable_gateway(self, url: Any) -> str | None:
        """READY's resume_gateway_url, if the token may be sent there."""
        if url is None:
            return None
        try:
            gateway_url(url, self._control.socket_version, self._options.compression)
            if is_encrypted(self._control.connection.url) and not is_encrypted(url):
                raise ValueError("it is not encrypted, and the connection it came over is")
        except (TypeError, ValueError) as error:
            self._callbacks.log(logging.WARNING, "resume_gateway_url is of no use: %s", error)
            return None
        return str(url)

    def _resumed(self, connection: Connection) -> None:
        self._callbacks.log(logging.INFO, "resumed, session %s", self.session.session_id)
        self._stats.resumes += 1
        self._events_flow(connection)
        self._callbacks.notify("on_socket_reconnected", True)

    def _events_flow(self, connection: Connection) -> None:
        connection.deadline = None
        connection.resumed_from = None
        connection.ready_at = time.monotonic()
        self.session.failures_at_gateway = 0
        self.session.unanswered_resumes = 0
        self._control.persist = None
        # Counted before it is told: who waits for READY may look at the counters next.
        self._stats.reconnects += not self._control.is_first_connection()
        self._control.set_state(ShardState.READY)

    # Trouble

    def stream_broke(self, connection: Connection, error: BrokenStream) -> None:
        """Nothing more can be read here. Resume, but not into the same trouble for ever."""
        self._callbacks.report(error)
        if self.session.broken_at == self.session.last_sequence:
            self.drop_session()
        self.session.broken_at = self.session.last_sequence
        connection.give_up(str(error))
