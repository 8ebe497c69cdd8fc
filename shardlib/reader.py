"""Reader: the thread that owns the life of a shard.

It alone connects, reads, decides, backs off and connects again. Reconnecting is a loop, never a
call out of a callback, so neither stack nor threads grow however often it happens.
"""

from __future__ import annotations

import logging
import random
import threading
import time

from shardlib.callbacks import Callbacks
from shardlib.compression import create_inflater
from shardlib.connection import Connection, ConnectionLost
from shardlib.control import Control, Wish
from shardlib.deadline import Deadline
from shardlib.errors import BrokenStream, ConnectionFailed, ShardClosed, fatal_error
from shardlib.gateway import CloseCode, Intents, gateway_url, is_encrypted
from shardlib.limits import Backoff
from shardlib.options import Options
from shardlib.protocol import Protocol
from shardlib.state import ShardState
from shardlib.stats import Stats

# Close codes with which a disconnect() ends the session:
# https://docs.discord.com/developers/events/gateway#initiating-a-disconnect
ENDS_SESSION = (1000, 1001)

# After so many connections in a row that came to nothing there, session_gateway is left alone.
MOST_FAILURES_AT_GATEWAY = 3

# After so many in a row that ended without an answer to Resume, the session is taken for lost.
MOST_UNANSWERED_RESUMES = 5

# Seconds, at random between the two, before the Identify that follows an Invalid Session.
INVALID_SESSION_DELAY = (1.0, 5.0)

_SESSION_LOST = frozenset(code for code in CloseCode if code.ends_session)


def create_connection(options: Options, url: str, version: int) -> Connection:
    """A connection that is not open yet."""
    return Connection(
        gateway_url(url, version, options.compression),
        inflater=create_inflater(options.compression, options.max_payload),
        max_payload=options.max_payload,
        connect_timeout=options.connect_timeout,
        send_timeout=options.send_timeout,
        ssl_context=options.ssl_context,
        proxy=options.proxy,
    )


class Reader:
    """The life of a shard, from connect() to closed."""

    def __init__(
        self,
        options: Options,
        control: Control,
        callbacks: Callbacks,
        protocol: Protocol,
        stats: Stats,
    ) -> None:
        self._options = options
        self._control = control
        self._callbacks = callbacks
        self._protocol = protocol
        self._stats = stats
        self._backoff = options.backoff or Backoff()

    def start(self) -> None:
        """Start the thread. Called with the lock held.

        :raises RuntimeError: where the system has no thread to give.
        """
        thread = threading.Thread(
            target=self._run, name=f"shard-{self._options.shard_id}-reader", daemon=True
        )
        self._control.thread = thread
        try:
            thread.start()
        except BaseException:
            self._control.thread = None
            self._control.state = ShardState.DISCONNECTED
            raise

    def _run(self) -> None:
        """The reader thread: one life, or more where callbacks connect a closed shard again."""
        with self._control.changed:
            # False where Ctrl-C met start() when this thread had begun: nobody knows of it.
            again = self._control.on_own_thread()
        while again:
            try:
                self._live()
                error = self._control.fatal
            except (ShardClosed, ConnectionFailed) as fatal:
                error = fatal
            except BaseException as unexpected:  # a fault of ours: loud, and never a deaf shard
                error = unexpected
                self._callbacks.log(logging.CRITICAL, "the reader failed", exc_info=unexpected)
                self._control.connection.close()
            again = self._end(error)
            error = None  # it knows this frame, too

    def _live(self) -> None:
        """One connection after the other.

        :raises ShardClosed: the reason for which none may follow.
        :raises ConnectionFailed: where the first could not be opened, or no other is wished.
        """
        control = self._control
        while self._begin_connection():
            delay = self._conclude(control.connection, self._open_and_read(control.connection))
            control.wait(
                lambda: control.wish is Wish.DISCONNECT or control.at_once, Deadline(delay)
            )

    def _conclude(self, connection: Connection, lost: ConnectionLost) -> float:
        """Tell of the end of a connection. Returns the time to wait; raises as :meth:`_live`.

        A failure knows the frames that it came through, :meth:`_live` among them, and with those
        the connection: as it has no name there, all is freed when this returns.
        """
        control = self._control
        fatal, delay = self._judge(connection, lost)
        with control.changed:
            control.set_state(ShardState.CLOSING if fatal else ShardState.WAITING)
            closed_by_self = control.wish is Wish.DISCONNECT and control.fatal is None
        if lost.failure is None:
            code = control.close_code if closed_by_self else lost.code
            self._callbacks.notify("on_socket_disconnected", code, closed_by_self)
        if fatal is not None:
            try:
                raise fatal
            finally:
                del fatal  # it knows this frame now: together they would be a cycle
        return delay

    def _begin_connection(self) -> bool:
        """Make the next connection the shard's. False where the shard is to be closed."""
        control = self._control
        with control.changed:
            if control.wish is Wish.DISCONNECT:
                return False
            if control.wish is Wish.REINSTANTIATE:
                self._protocol.drop_session()
            control.wish = None
            control.at_once = False
            before = control.connection
            connection = create_connection(self._options, self._next_url(), control.socket_version)
            connection.bytes_before = before.bytes_received
            control.connection = connection
            # They know each other: parted, they are freed at once, and not by the next collection.
            before.heartbeat = None
            control.set_state(ShardState.CONNECTING)
            return True

    def _next_url(self) -> str:
        session = self._protocol.session
        url = self._control.socket_url
        if session.gateway is None or session.failures_at_gateway >= MOST_FAILURES_AT_GATEWAY:
            return url
        if is_encrypted(url) and not is_encrypted(session.gateway):
            return url  # a session from a file: the token would go out in clear
        return session.gateway

    def _open_and_read(self, connection: Connection) -> ConnectionLost:
        """One connection, from opening to closed. Returns how it ended."""
        control = self._control
        self._callbacks.log(logging.DEBUG, "connecting to %s", connection.url)
        try:
            connection.open()
        except ConnectionFailed as error:
            return ConnectionLost(None, str(error), error)
        self._stats.connections += 1  # first: connect() returns, and its caller may look
        with control.changed:
            control.first_attempt = False
            control.opened += 1
            control.set_state(ShardState.CONNECTED)
            control.changed.notify_all()
        connection.deadline = Deadline(self._options.hello_timeout)
        self._callbacks.notify("on_socket_connected")
        lost = self._read(connection)
        if control.wish is Wish.DISCONNECT:
            connection.send_close(control.close_code)
            connection.close(Deadline(self._options.close_timeout))
        else:
            connection.give_up(lost.reason)
            connection.close()
        return lost

    def _read(self, connection: Connection) -> ConnectionLost:
        """Handle messages until the connection ends, or is to end. Returns why it did."""
        ended: ConnectionLost | None = None
        while ended is None and self._is_wanted(connection):
            try:
                for frame_type, payload in connection.receive():
                    self._protocol.handle_frame(frame_type, payload)
                    if not self._is_wanted(connection):
                        break
            except TimeoutError:
                self._protocol.overdue(connection)
            except BrokenStream as error:
                self._protocol.stream_broke(connection, error)
            except ConnectionLost as lost:
                # Anew, for one that was raised knows this frame: together they'd be a cycle.
                ended = ConnectionLost(lost.code, lost.reason)
        if connection.given_up is not None:  # whatever came of that
            return ConnectionLost(None, connection.given_up)
        return ended or ConnectionLost(None, "a new connection was asked for")

    def _is_wanted(self, connection: Connection) -> bool:
        return self._control.wish is None and connection.given_up is None

    def _judge(
        self, connection: Connection, lost: ConnectionLost
    ) -> tuple[BaseException | None, float]:
        """What a lost connection means: the error that closes the shard, or the time to wait."""
        control = self._control
        session = self._protocol.session
        if lost.code is not None:
            fatal = fatal_error(lost.code, lost.reason, Intents(self._options.intents))
            if fatal is not None:
                return fatal, 0.0
        if control.wish is Wish.DISCONNECT:
            return None, 0.0
        if control.first_attempt and control.wish is None and not control.persist:
            if self._next_url() == control.socket_url:
                return lost.failure, 0.0
            # A session from before may name a gateway that is no more: socket_url is tried too.
            session.failures_at_gateway = MOST_FAILURES_AT_GATEWAY
            return None, 0.0

        if connection.ready_at is None:
            session.failures_at_gateway += 1
            session.unanswered_resumes += connection.resumed_from is not None
        elif time.monotonic() - connection.ready_at >= self._backoff.cap:
            self._backoff.reset()  # it has held: the trouble before it is over
        if lost.code in _SESSION_LOST or session.unanswered_resumes >= MOST_UNANSWERED_RESUMES:
            self._protocol.drop_session()

        persist = self._options.should_reconnect if control.persist is None else control.persist
        if control.wish is None and not persist:
            return lost.failure or ShardClosed(lost.code, lost.reason), 0.0
        delay = self._backoff.next_delay()
        if self._protocol.invalid_session:
            self._protocol.invalid_session = False
            delay = max(delay, random.uniform(*INVALID_SESSION_DELAY))
        self._callbacks.log(
            logging.INFO if lost.failure is None else logging.WARNING,
            "%s; %s in %.1f seconds",
            lost.failure or f"connection lost: {_describe(lost)}",
            "a new session" if self._protocol.session.session_id is None else "resuming",
            delay,
        )
        return None, delay

    def _end(self, error: BaseException | None) -> bool:
        """The end of everything. True where a callback has asked for a new beginning."""
        control = self._control
        with control.changed:
            never_began = control.first_attempt and isinstance(error, ConnectionFailed)
            if error is None and control.close_code in ENDS_SESSION:
                self._protocol.drop_session()
            control.error = error
            control.state = ShardState.DISCONNECTED if never_began else ShardState.CLOSED
            control.changed.notify_all()
        if not never_began:  # else connect() raises the error, and nothing else has happened
            if isinstance(error, Exception):
                self._callbacks.log(logging.ERROR, "closed: %s", error)
            else:  # by disconnect(), or by a callback that ends the program
                self._callbacks.log(logging.INFO, "closed")
            self._callbacks.notify("on_socket_closed", error)
        with control.changed:
            control.error = control.error or control.fatal  # on_socket_closed may raise SystemExit
            control.first_attempt = False
            if control.restart is not None:
                control.begin(*control.restart)
                return True
            control.thread = None
            control.changed.notify_all()
            return False


def _describe(lost: ConnectionLost) -> str:
    if lost.code is None:
        return lost.reason
    return f"closed by the Gateway with code {lost.code} ({lost.reason or 'no reason given'})"
