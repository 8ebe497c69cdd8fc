"""Shard: one session with Discord's Gateway, as an ordinary object.

Two threads serve a connected shard. The *reader* owns its life: it alone connects, reads, decides,
backs off and connects again, and it calls the user's functions. The *heartbeat* thread of each
connection beats and judges (:mod:`shardlib.heartbeat`). Everybody else states a wish, wakes the
reader, and waits for what comes of it.
"""

from __future__ import annotations

import atexit
import dataclasses
import enum
import logging
import os
import random
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import ujson
import websocket

from shardlib import compression as compressions
from shardlib import payloads
from shardlib.callbacks import Callbacks, Listener, Predicate, Running, Waiter
from shardlib.checks import (
    check_callback,
    check_methods,
    check_positive,
    check_timeout,
    check_type,
)
from shardlib.connection import RESUMABLE_CLOSE_CODE, Connection, ConnectionLost
from shardlib.deadline import Deadline
from shardlib.dial import check_proxy
from shardlib.errors import (
    AlreadyConnected,
    BrokenStream,
    ConnectionFailed,
    ForkedProcess,
    NotReady,
    SendTimeout,
    ShardClosed,
    ShardError,
    UnreadableMessage,
    fatal_error,
)
from shardlib.frames import FrameType
from shardlib.gateway import API_VERSION, GATEWAY_URL, CloseCode, Intents, Opcode, gateway_url
from shardlib.heartbeat import Heartbeat
from shardlib.limits import Backoff, IdentifyGate, default_gate, heartbeat_reserve
from shardlib.payloads import JSONModule, Payload, Snowflake
from shardlib.session import Session
from shardlib.state import ShardState
from shardlib.stats import Stats

Callback = Callable[..., object]
_Function = TypeVar("_Function", bound=Listener)

NORMAL_CLOSURE = 1000  # RFC 6455, section 7.4.1; ends the session, as 1001 does
GOING_AWAY = 1001
_ENDS_SESSION = (NORMAL_CLOSURE, GOING_AWAY)
_SESSION_LOST = tuple(code for code in CloseCode if code.ends_session)

# After so many connections in a row that came to nothing there, session_gateway is left alone.
MOST_FAILURES_AT_SESSION_GATEWAY = 3

# After so many in a row that ended without an answer to Resume, the session is taken for lost.
MOST_UNANSWERED_RESUMES = 5

# Seconds, at random between the two, before the Identify that follows an Invalid Session:
# https://docs.discord.com/developers/events/gateway#resuming
INVALID_SESSION_DELAY = (1.0, 5.0)

# Seconds for all shards together to say goodbye while the interpreter exits.
EXIT_TIMEOUT = 0.5

# Where a wait on a lock shuts Ctrl-C out (Windows), it is cut into pieces of so many seconds.
_WAIT_SLICE = 0.5 if os.name == "nt" else threading.TIMEOUT_MAX

_SOCKET_OPEN = frozenset(
    {ShardState.CONNECTED, ShardState.IDENTIFYING, ShardState.RESUMING, ShardState.READY}
)
_IDENTIFIED = frozenset({ShardState.IDENTIFYING, ShardState.RESUMING, ShardState.READY})
_ON_THE_WAY = frozenset(
    {
        ShardState.CONNECTING,
        ShardState.CONNECTED,
        ShardState.IDENTIFYING,
        ShardState.RESUMING,
    }
)
_ENDING = frozenset({ShardState.CLOSING, ShardState.CLOSED})


class _Wish(enum.IntEnum):
    """What a user asks of the reader; of several, the greatest counts."""

    RECONNECT = 1
    REINSTANTIATE = 2
    DISCONNECT = 3


class Shard:
    """One Gateway session of a bot.

    The constructor only checks and stores; no thread and no socket exists before :meth:`connect`.
    All callbacks are called on the reader thread, one at a time, in the order of the wire, and may
    call every method of the shard. Unless said otherwise a method may be called from any thread.

    :param token: the bot's token, without "Bot ".
    :param intents: what the bot wants to receive, :class:`shardlib.Intents` or an int.
    :param shard_id: number of this shard, from 0.
    :param shard_count: number of the bot's shards.
    :param on_socket_connected: ``(shard)``: a socket is open; Hello has not come yet.
    :param on_socket_reconnected: ``(shard, resumed)``: a later connection reached RESUMED (True),
        or READY (False).
    :param on_socket_disconnected: ``(shard, code, closed_by_self)``: once for every
        on_socket_connected; code is None where none came.
    :param on_socket_heartbeat: ``(shard, ping)``: a heartbeat was acknowledged, after so many
        seconds.
    :param on_socket_dispatch: ``(shard, payload)``: every event, as the whole payload.
    :param on_socket_raw_message: ``(shard, payload)``: every payload, before it is acted on.
    :param on_socket_ready: ``(shard)``: READY was handled, a new session has begun.
    :param on_socket_error: ``(shard, error)``: what went wrong on the reader thread: a callback's
        exception, an unreadable message. The shard goes on.
    :param on_socket_closed: ``(shard, error)``: once, at the end of everything; None after
        :meth:`disconnect`.
    :param should_reconnect: False: the first lost connection closes the shard.
    :param large_threshold: 50 to 250, members from which a guild's offline ones are left out.
    :param presence: the presence to begin with, a dict as Update Presence has it.
    :param properties: connection properties of Identify instead of our own.
    :param compression: "zlib-stream", "zstd-stream", "payload" or None.
    :param session: a session to resume, see :class:`shardlib.Session`.
    :param json: a module with ``loads`` and ``dumps``.
    :param identify_gate: when to identify; by default one gate for all shards of the token.
    :param backoff: how long to wait between connections; not to be shared between shards.
    :param connect_timeout: seconds for name, TCP, proxy, TLS and WebSocket handshake together.
    :param hello_timeout: seconds from then to Hello.
    :param ready_timeout: seconds from Identify to READY, from Resume or the last replayed event to
        RESUMED.
    :param send_timeout: seconds that :meth:`send` may take.
    :param close_timeout: seconds that :meth:`disconnect` may take.
    :param max_payload: bytes, the largest message taken, inflated.
    :param ssl_context: for ``wss`` URLs, instead of Python's default one.
    :param proxy: an ``http://`` or ``socks5://`` URL; None for what the environment says.
    :param logger: instead of ``logging.getLogger("shardlib.shard.<id>")``.
    :raises ValueError: for an argument that can't be, saying which and why; TypeError likewise.
    """

    def __init__(
        self,
        token: str,
        intents: int,
        shard_id: int = 0,
        shard_count: int = 1,
        *,
        on_socket_connected: Callback | None = None,
        on_socket_reconnected: Callback | None = None,
        on_socket_disconnected: Callback | None = None,
        on_socket_heartbeat: Callback | None = None,
        on_socket_dispatch: Callback | None = None,
        on_socket_raw_message: Callback | None = None,
        on_socket_ready: Callback | None = None,
        on_socket_error: Callback | None = None,
        on_socket_closed: Callback | None = None,
        should_reconnect: bool = True,
        large_threshold: int | None = None,
        presence: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        compression: str | None = "zlib-stream",
        session: Session | None = None,
        json: JSONModule = ujson,
        identify_gate: IdentifyGate | None = None,
        backoff: Backoff | None = None,
        connect_timeout: float = 10.0,
        hello_timeout: float = 10.0,
        ready_timeout: float = 60.0,
        send_timeout: float = 10.0,
        close_timeout: float = 2.0,
        max_payload: int = 67108864,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    ) -> None:
        compressions.require(compression)
        check_proxy(proxy)
        check_type("should_reconnect", should_reconnect, bool)
        check_type("session", session, Session, optional=True)
        check_type("ssl_context", ssl_context, ssl.SSLContext, optional=True)
        check_type("max_payload", max_payload, int)
        if max_payload < 1:
            raise ValueError(f"max_payload is a number of bytes above 0, not {max_payload}")
        check_methods("json", json, "loads", "dumps")
        check_methods("identify_gate", identify_gate, "try_acquire", optional=True)
        check_methods("backoff", backoff, "next_delay", "reset", optional=True)
        check_methods("logger", logger, "log", "isEnabledFor", optional=True)

        self.on_socket_connected = check_callback("on_socket_connected", on_socket_connected)
        self.on_socket_reconnected = check_callback("on_socket_reconnected", on_socket_reconnected)
        self.on_socket_disconnected = check_callback(
            "on_socket_disconnected", on_socket_disconnected
        )
        self.on_socket_heartbeat = check_callback("on_socket_heartbeat", on_socket_heartbeat)
        self.on_socket_dispatch = check_callback("on_socket_dispatch", on_socket_dispatch)
        self.on_socket_raw_message = check_callback("on_socket_raw_message", on_socket_raw_message)
        self.on_socket_ready = check_callback("on_socket_ready", on_socket_ready)
        self.on_socket_error = check_callback("on_socket_error", on_socket_error)
        self.on_socket_closed = check_callback("on_socket_closed", on_socket_closed)

        self.token = token
        self.intents = intents
        self.shard_id = shard_id
        self.shard_count = shard_count
        self.should_reconnect = should_reconnect
        self.large_threshold = large_threshold
        self._presence = None if presence is None else payloads.check_presence(presence)
        self._properties = payloads.default_properties() if properties is None else properties
        self._compression = compression
        self._identify_payload()  # raises for whatever Identify would be refused for
        self._json = json
        self._gate = identify_gate if identify_gate is not None else default_gate(token)
        self._backoff = Backoff() if backoff is None else backoff
        self._connect_timeout = check_positive("connect_timeout", connect_timeout)
        self._hello_timeout = check_positive("hello_timeout", hello_timeout)
        self._ready_timeout = check_positive("ready_timeout", ready_timeout)
        self._send_timeout = check_positive("send_timeout", send_timeout)
        self._close_timeout = check_positive("close_timeout", close_timeout)
        self._max_payload = max_payload
        self._ssl_context = ssl_context
        self._proxy = proxy
        self.logger = logger or logging.getLogger(f"shardlib.shard.{shard_id}")
        self.socket_url = GATEWAY_URL
        self.socket_version = API_VERSION

        self._process_id = os.getpid()
        self._callbacks = Callbacks()

        # The one lock of the shard. It guards the fields of this paragraph and is held for moments:
        # never during I/O, a callback or a join. It is notified of every change that somebody may
        # be waiting for. Reentrant, since a signal handler may come while the main thread has it.
        self._changed = threading.Condition(threading.RLock())
        self._state = ShardState.DISCONNECTED
        self._thread: threading.Thread | None = None  # the reader; None while there is none
        self._wish: _Wish | None = None
        self._at_once = False  # the wish is a waiting user's: no back-off
        self._close_code = NORMAL_CLOSURE  # the one disconnect() was given
        self._persist: bool | None = None  # reinstantiate()'s no_fail; None: as should_reconnect
        self._restart: tuple[str, int] | None = None  # connect() called by a callback at the end
        self._first_attempt = False  # connect() waits for the outcome of it
        self._opened = 0  # sockets opened since connect()
        self._error: BaseException | None = None  # what closed the shard

        # Written by the reader only.
        self._session_id: str | None = None
        self._session_gateway: str | None = None
        self._last_sequence: int | None = None
        self._completed_sequence: int | None = None  # of the last event whose callbacks returned
        if session is not None:
            self._take_session(session)
        self._fatal: BaseException | None = None  # met in a callback or by the identify gate
        self._failures_at_session_gateway = 0
        self._unanswered_resumes = 0
        self._broken_at: tuple[str | None, int | None] | None = None
        self._invalid_session = False
        self._connection = self._new_connection(self.socket_url)

        self._stats = Stats()

    # What a user sees

    def __repr__(self) -> str:
        return f"<Shard {self.shard_id}/{self.shard_count} {self._state.value}>"

    @property
    def state(self) -> ShardState:
        """Where in its life the shard is."""
        return self._state

    @property
    def socket_active(self) -> bool:
        """Whether a socket is open."""
        return self._state in _SOCKET_OPEN

    @property
    def socket_identified(self) -> bool:
        """Whether Identify or Resume was sent on this connection."""
        return self._state in _IDENTIFIED

    @property
    def socket_reconnecting(self) -> bool:
        """Whether a connection was lost and the next one is not open yet."""
        return self._state is ShardState.WAITING or (
            self._state is ShardState.CONNECTING and self._opened > 0
        )

    @property
    def socket_disconnecting(self) -> bool:
        """Whether the shard is being closed for good."""
        return self._state is ShardState.CLOSING

    @property
    def session_id(self) -> str | None:
        """Of the current session, or None."""
        return self._session_id

    @property
    def session_gateway(self) -> str | None:
        """READY's ``resume_gateway_url``: where the current session is resumed, or None."""
        return self._session_gateway

    @property
    def last_sequence(self) -> int | None:
        """Sequence of the last event received in the current session, or None."""
        return self._last_sequence

    @property
    def session(self) -> Session | None:
        """What it takes to resume the current session after a restart of the process, or None.

        Its sequence is that of the last event whose callbacks have returned: an event in whose
        callback the process dies is replayed.
        """
        with self._changed:
            if self._session_id is None:
                return None
            return Session(
                session_id=self._session_id,
                sequence=self._completed_sequence,
                resume_gateway_url=self._session_gateway,
                shard_id=self.shard_id,
                shard_count=self.shard_count,
            )

    @property
    def socket_instance(self) -> websocket.WebSocket | None:
        """The live websocket-client object, or None. To look at: reading and sending are ours."""
        return self._connection.websocket

    @property
    def socket_thread(self) -> threading.Thread | None:
        """The reader thread, or None."""
        return self._thread

    @property
    def heartbeat_thread(self) -> threading.Thread | None:
        """The heartbeat thread of this connection, or None."""
        heartbeat = self._connection.heartbeat
        if heartbeat is None or heartbeat.thread is None or not heartbeat.thread.is_alive():
            return None
        return heartbeat.thread

    @property
    def heartbeat_interval(self) -> float | None:
        """Milliseconds, as this connection's Hello gave it, or None before."""
        heartbeat = self._connection.heartbeat
        return None if heartbeat is None else heartbeat.interval

    @property
    def heartbeat_acknowledged(self) -> bool:
        """False while a scheduled heartbeat of this connection waits for its acknowledgement."""
        heartbeat = self._connection.heartbeat
        return heartbeat is None or heartbeat.acknowledged

    @property
    def heartbeat_clock_time(self) -> float | None:
        """``time.perf_counter()`` of the last heartbeat sent on this connection, or None."""
        heartbeat = self._connection.heartbeat
        return None if heartbeat is None else heartbeat.clock_time

    @property
    def heartbeat_ping(self) -> float | None:
        """Seconds of the last round trip on this connection, or None."""
        heartbeat = self._connection.heartbeat
        return None if heartbeat is None else heartbeat.ping

    @property
    def zlib_buffer(self) -> bytes:
        """Bytes of a message that is not complete yet, of the current connection."""
        return self._connection.inflater.buffer()

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        stats = self._stats
        return dataclasses.replace(
            stats,
            events=stats.events.copy(),
            bytes_received=stats.bytes_received + self._connection.bytes_received,
            callback_seconds=self._callbacks.seconds,
        )

    # Listening

    def on(self, event: str) -> Callable[[_Function], _Function]:
        """Decorate a function to be called with ``(shard, data)`` for each event of a name.

        ::

            @shard.on("MESSAGE_CREATE")
            def greet(shard, message): ...

        :raises TypeError: where `event` is not a string, or what is decorated not a function.
        """
        check_type("event", event, str)

        def register(function: _Function) -> _Function:
            if not callable(function):
                raise TypeError(f"a function listens to {event}, not {type(function).__name__}")
            self._callbacks.add_listener(event.upper(), function)
            return function

        return register

    def off(self, event: str, function: Listener) -> None:
        """Undo :meth:`on`.

        :raises ValueError: where the function does not listen to the event.
        """
        check_type("event", event, str)
        self._callbacks.remove_listener(event.upper(), function)

    def wait_for(
        self, event: str, predicate: Predicate | None = None, timeout: float | None = None
    ) -> Any:
        """Block until an event comes, and return its data.

        :param predicate: called with the data, on the reader thread; what it finds false is passed
            over, what it raises is raised here.
        :param timeout: seconds.
        :raises TimeoutError: where no such event came in time.
        :raises ShardClosed: where the shard is closed, now or meanwhile.
        :raises ShardError: on the reader thread, which could not go on to receive the event.
        """
        self._check_process()
        check_type("event", event, str)
        check_callback("predicate", predicate)
        deadline = Deadline(check_timeout("timeout", timeout))
        self._refuse_on_own_thread("wait_for")
        waiter = Waiter(predicate)
        self._callbacks.add_waiter(event.upper(), waiter)
        try:
            in_time = self._wait(lambda: waiter.done or self._has_ended(), deadline)
        finally:
            self._callbacks.remove_waiter(event.upper(), waiter)
        if waiter.error is not None:
            raise waiter.error
        if waiter.done:
            return waiter.data
        if not in_time:
            raise TimeoutError(f"no {event.upper()} came within {timeout:g} seconds")
        raise self._why_ended()

    # Life

    def connect(self, socket_url: str = GATEWAY_URL, socket_version: int = API_VERSION) -> None:
        """Open a socket and start the reader; blocks until the socket is open.

        With a session left from before (given to the constructor, or kept by ``disconnect(4000)``)
        the shard resumes it, else it identifies. Where the first attempt fails, nothing is left
        running. A callback may call this after :meth:`disconnect`: the shard begins anew once it
        is closed.

        :param socket_url: where to connect, a ``ws://`` or ``wss://`` URL.
        :param socket_version: version of the Gateway's API.
        :raises ConnectionFailed: where the first attempt fails, within `connect_timeout`.
        :raises AlreadyConnected: where the shard is running.
        """
        self._check_process()
        gateway_url(socket_url, socket_version, self._compression)  # raises where it can't be
        with self._changed:
            if self._on_own_thread():
                if self._state not in _ENDING:
                    raise AlreadyConnected("the shard is connected; disconnect() first")
                self._restart = (socket_url, socket_version)
                return
            while self._thread is not None and self._state in _ENDING:
                self._changed.wait(_WAIT_SLICE)
            if self._thread is not None:
                raise AlreadyConnected("the shard is connected; disconnect() first")
            self._start(socket_url, socket_version)
        try:
            self._wait(lambda: not self._first_attempt, Deadline(None))
        except BaseException:  # Ctrl-C: nobody would know of the connection that is on its way
            self._wish_disconnect(NORMAL_CLOSURE)
            raise
        if self._opened == 0:
            raise self._why_ended()

    def disconnect(self, code: int | None = None) -> None:
        """Close for good. Blocks for `close_timeout` at most; on the reader thread not at all.

        No connection begins after it has returned. Where a callback doesn't return in time, the
        socket is closed and the reader ends when the callback does.

        :param code: None is 1000, which ends the session: the bot goes offline. A code from 4000
            to 4999 keeps it resumable for some minutes (see :attr:`session`).
        """
        self._check_process()
        if code is not None:
            check_type("code", code, int)
            if code not in _ENDS_SESSION and not 4000 <= code <= 4999:
                raise ValueError(f"code is 1000, 1001, or from 4000 to 4999, not {code}")
        if not self._wish_disconnect(NORMAL_CLOSURE if code is None else code):
            return
        if self._on_own_thread():
            return  # the reader says goodbye when the callback has returned
        # The larger part for the peer's answer, then what is left to end without it.
        if not self._wait(lambda: self._thread is None, Deadline(self._close_timeout * 0.75)):
            self._connection.abort()
            self._wait(lambda: self._thread is None, Deadline(self._close_timeout * 0.25))

    def reconnect(self) -> None:
        """Close with a resumable code, connect again and Resume; blocks until the socket is open.

        Where a connection is on its way already, this waits for that one. On the reader thread it
        returns at once, and the usual back-off applies. A shard that is not running is connected.

        :raises ShardClosed: where the shard was closed meanwhile; ConnectionFailed where it closed
            since it is not to reconnect.
        """
        self._check_process()
        self._renew(_Wish.RECONNECT)

    def resume(self) -> None:
        """Connect to :attr:`session_gateway` and Resume, as :meth:`reconnect` does.

        :raises NotReady: where there is no session to resume.
        """
        self._check_process()
        if self._session_id is None:
            raise NotReady("there is no session to resume; connect() begins one")
        self._renew(_Wish.RECONNECT)

    def reinstantiate(self, no_fail: bool | None = None) -> None:
        """Drop the session, connect to :attr:`socket_url` and Identify; else as :meth:`reconnect`.

        :param no_fail: True: keep trying until a session begins; False: the first failure closes
            the shard; None: as `should_reconnect` says.
        """
        self._check_process()
        check_type("no_fail", no_fail, bool, optional=True)
        self._renew(_Wish.REINSTANTIATE, no_fail)

    def identify(self) -> None:
        """Send Identify, where the reader has not done so yet: it does at Hello, at its turn.

        :raises NotReady: where no connection has received Hello.
        :raises AlreadyConnected: where Identify or Resume was sent on this connection.
        """
        self._check_process()
        connection = self._connection
        if self.socket_identified:
            raise AlreadyConnected(
                "Identify or Resume was sent on this connection; for a new session reinstantiate()"
            )
        if connection.heartbeat is None or not self.socket_active:
            raise NotReady("Identify follows Hello; connect() first")
        self._identify(connection)

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Block until events flow.

        :param timeout: seconds.
        :raises TimeoutError: where it took longer.
        :raises ShardClosed: where the shard is closed, now or meanwhile, with the reason.
        :raises ConnectionFailed: where the first attempt to connect failed.
        """
        self._check_process()
        deadline = Deadline(check_timeout("timeout", timeout))
        if not self._is_ready():
            self._refuse_on_own_thread("wait_until_ready")
        if not self._wait(lambda: self._is_ready() or self._has_ended(), deadline):
            raise TimeoutError(f"the shard was not ready within {timeout:g} seconds")
        if self._has_ended():
            raise self._why_ended()

    def join(self, timeout: float | None = None) -> None:
        """Block until the shard is closed and its reader has ended.

        :param timeout: seconds.
        :raises TimeoutError: where it goes on.
        :raises ShardClosed: the error that closed it, where it wasn't :meth:`disconnect`.
        """
        self._check_process()
        deadline = Deadline(check_timeout("timeout", timeout))
        self._refuse_on_own_thread("join")
        if not self._wait(lambda: self._thread is None, deadline):
            raise TimeoutError(f"the shard was not closed within {timeout:g} seconds")
        if self._error is not None:
            raise self._error

    def run_forever(
        self, socket_url: str = GATEWAY_URL, socket_version: int = API_VERSION
    ) -> None:
        """:meth:`connect`, then :meth:`join`. Ctrl-C disconnects and returns.

        :raises ShardError: as those two do.
        """
        try:
            self.connect(socket_url, socket_version)
            self.join()
        except KeyboardInterrupt:
            if self._error is not None:  # Ctrl-C as a callback met it: its own way out
                raise
            self.disconnect()

    def __enter__(self) -> Shard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disconnect()
        if error is None and self._error is not None:
            raise self._error

    # Sending

    def send(self, data: str, timeout: float | None = None) -> None:
        """Send a JSON string. When this returns, the system has all of it.

        Blocks while the shard is not READY, while the 120 sends a minute are used up, and while the
        peer takes no bytes. On the reader thread it doesn't wait for the first two, but raises.

        :param data: a payload, at most 4,096 bytes as UTF-8
            (https://docs.discord.com/developers/events/gateway#sending-events).
        :param timeout: seconds; None means `send_timeout`.
        :raises ValueError: where the data can't be sent, TypeError where it is no string; nothing
            was sent.
        :raises NotReady: where the shard is not READY in time, or the connection was lost in the
            middle: then it may or may not have arrived.
        :raises SendTimeout: where it could not be sent in time.
        :raises ShardClosed: where the shard is closed.
        """
        self._check_process()
        payload = payloads.check_send(data)
        presence = None
        if payload["op"] == Opcode.PRESENCE_UPDATE:
            presence = payloads.check_presence(payload.get("d") or {})
        self._send(data, check_timeout("timeout", timeout))
        if presence is not None:
            self._presence = presence  # with which every later Identify begins

    def update_presence(
        self,
        *,
        status: str = "online",
        activities: Iterable[Mapping[str, Any]] = (),
        since: int | None = None,
        afk: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Set the bot's presence; later sessions of this shard begin with it.

        :param status: "online", "dnd", "idle", "invisible" or "offline".
        :param activities: activity objects.
        :param since: milliseconds of Unix time since when the bot is idle, or None.
        :param afk: whether it is away.
        :param timeout: as for :meth:`send`, which says what is raised, too.
        """
        self._send_payload(
            payloads.presence_update(status=status, activities=activities, since=since, afk=afk),
            timeout,
        )

    def update_voice_state(
        self,
        guild_id: Snowflake,
        channel_id: Snowflake | None,
        *,
        self_mute: bool = False,
        self_deaf: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Join, move between, or leave (None) voice channels. Raises as :meth:`send` does."""
        self._send_payload(
            payloads.voice_state_update(
                guild_id, channel_id, self_mute=self_mute, self_deaf=self_deaf
            ),
            timeout,
        )

    def request_guild_members(
        self,
        guild_id: Snowflake,
        *,
        query: str | None = None,
        limit: int = 0,
        presences: bool = False,
        user_ids: Snowflake | Iterable[Snowflake] | None = None,
        nonce: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Ask for members, who come as GUILD_MEMBERS_CHUNK events. Raises as :meth:`send` does.

        :param query: what user names begin with; empty, or neither this nor `user_ids`: all.
        :param limit: how many; 1 to 100 with a query that is not empty.
        :param user_ids: one id or up to 100.
        :param nonce: at most 32 bytes; comes back in the chunks.
        """
        self._send_payload(
            payloads.request_guild_members(
                guild_id,
                query=query,
                limit=limit,
                presences=presences,
                user_ids=user_ids,
                nonce=nonce,
            ),
            timeout,
        )

    def request_soundboard_sounds(
        self, guild_ids: Iterable[Snowflake], *, timeout: float | None = None
    ) -> None:
        """Ask for guilds' sounds, which come as SOUNDBOARD_SOUNDS. Raises as :meth:`send` does."""
        self._send_payload(payloads.request_soundboard_sounds(guild_ids), timeout)

    def request_channel_info(
        self,
        guild_id: Snowflake,
        fields: Iterable[str] = payloads.CHANNEL_INFO_FIELDS,
        *,
        timeout: float | None = None,
    ) -> None:
        """Ask about a guild's channels; the answer is CHANNEL_INFO. Raises as :meth:`send` does."""
        self._send_payload(payloads.request_channel_info(guild_id, fields), timeout)

    def heartbeat(self, requested: bool = False) -> None:
        """Send a heartbeat now.

        :param requested: whether the Gateway asked for it. If not, and the scheduled one is still
            unacknowledged, the connection is a zombie: it is given up, and the session resumed.
        :raises NotReady: where no connection has received Hello.
        """
        self._check_process()
        check_type("requested", requested, bool)
        self._live_heartbeat().beat(requested)

    def heartbeat_in(self, milliseconds: float) -> None:
        """Send a heartbeat after so many milliseconds, and keep that pace on this connection.

        :raises NotReady: where no connection has received Hello.
        """
        self._check_process()
        self._live_heartbeat().reschedule(check_positive("milliseconds", milliseconds))

    # Wishes and waits: on any thread

    def _check_process(self) -> None:
        if os.getpid() != self._process_id:
            raise ForkedProcess(
                "this shard was made before the process was forked, and its threads and its "
                "connection are the parent's; make a new Shard in the child"
            )

    def _on_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _refuse_on_own_thread(self, method: str) -> None:
        if self._on_own_thread():
            raise ShardError(
                f"{method}() was called in a callback: it would wait for what can only happen "
                "after the callback has returned; call it on another thread"
            )

    def _has_ended(self) -> bool:
        return self._state is ShardState.CLOSED or self._error is not None

    def _why_ended(self) -> BaseException:
        return self._error or ShardClosed(None, "the shard was closed by disconnect()")

    def _wait(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Block until something is so. False where the time ran out first."""
        with self._changed:
            while not condition():
                left = deadline.remaining()
                if left == 0:
                    return False
                self._changed.wait(_WAIT_SLICE if left is None else min(left, _WAIT_SLICE))
            return True

    def _start(self, socket_url: str, socket_version: int) -> None:
        """Start the reader. Called with the lock held."""
        self._begin_life(socket_url, socket_version)
        self._first_attempt = True
        thread = threading.Thread(
            target=self._run, name=f"shard-{self.shard_id}-reader", daemon=True
        )
        self._thread = thread
        try:
            thread.start()
        except BaseException:  # the system has no thread to give
            self._thread = None
            self._state = ShardState.DISCONNECTED
            raise
        _running.add(self)

    def _begin_life(self, socket_url: str, socket_version: int) -> None:
        self.socket_url = socket_url
        self.socket_version = socket_version
        self._state = ShardState.CONNECTING
        self._wish = None
        self._persist = None
        self._restart = None
        self._opened = 0
        self._error = None
        self._fatal = None

    def _wish_disconnect(self, code: int) -> bool:
        """Ask the reader to close for good, and say goodbye to the peer. False: nothing to close.

        The first one's code counts.
        """
        with self._changed:
            self._restart = None
            if self._thread is None or self._state is ShardState.CLOSED:
                return False
            if self._wish is not _Wish.DISCONNECT:
                self._wish = _Wish.DISCONNECT
                self._close_code = code
            self._state = ShardState.CLOSING
            self._changed.notify_all()
            connection = self._connection
        if self._on_own_thread():
            return True
        if connection.websocket is None:
            connection.abort()  # an opening, if anything
        else:
            connection.send_close(self._close_code)  # the peer's answer wakes the reader
        return True

    def _renew(self, wish: _Wish, persist: bool | None = None) -> None:
        """Ask the reader for a new connection, and wait until it is open."""
        own = self._on_own_thread()
        with self._changed:
            running = self._thread is not None and not (own and self._state in _ENDING)
            if running and self._state in _ENDING:
                raise self._why_ended()
            if running:
                # A connection that is being made will do, if it begins as is wished.
                fits = wish is _Wish.RECONNECT or self._session_id is None
                if self._state in _ON_THE_WAY and fits:
                    opened = self._opened - (self._state is not ShardState.CONNECTING)
                else:
                    opened = self._opened
                    self._wish = max(wish, self._wish or wish)
                    self._persist = persist
                    self._at_once = not own
                    self._changed.notify_all()
                    if not own:
                        self._connection.give_up("a new connection was asked for")
        if not running:
            if wish is _Wish.REINSTANTIATE:
                self._drop_session()
            self.connect(self.socket_url, self.socket_version)
        elif not own:
            self._wait(lambda: self._opened > opened or self._has_ended(), Deadline(None))
            if self._has_ended():
                raise self._why_ended()

    def _live_heartbeat(self) -> Heartbeat:
        heartbeat = self._connection.heartbeat
        if heartbeat is None or not self.socket_active:
            raise NotReady("heartbeats begin with Hello; connect() first")
        return heartbeat

    def _send_payload(self, payload: Payload, timeout: float | None) -> None:
        self.send(payloads.encode(payload, self._json), timeout)

    def _send(self, data: str, timeout: float | None) -> None:
        deadline = Deadline(self._send_timeout if timeout is None else timeout)
        connection = self._ready_connection(deadline)
        while wait := connection.window.try_acquire():
            left = deadline.remaining()
            if self._on_own_thread() or (left is not None and left < wait):
                raise SendTimeout(
                    "nothing was sent: this connection's sends of the last minute are used up "
                    f"(Discord allows 120); there is room again in {wait:.1f} seconds"
                )
            self._wait(lambda: not self._is_ready(), Deadline(wait))
            connection = self._ready_connection(deadline)
        try:
            connection.send(data, deadline)
        except SendTimeout:
            raise
        except OSError as error:
            raise NotReady(
                f"the connection was lost while sending ({error}); whether the payload arrived is "
                "not known"
            ) from error

    def _is_ready(self) -> bool:
        return self._state is ShardState.READY

    def _ready_connection(self, deadline: Deadline) -> Connection:
        with self._changed:
            if not self._is_ready() and not self._has_ended():
                if self._thread is None or self._on_own_thread():
                    raise NotReady(f"nothing was sent: the shard is {self._state.value}, not ready")
                if not self._wait(lambda: self._is_ready() or self._has_ended(), deadline):
                    raise NotReady(
                        "nothing was sent: the shard did not become ready in time, it is "
                        f"{self._state.value}"
                    )
            if self._has_ended():
                raise self._why_ended()
            return self._connection

    # The life of the shard: on the reader thread

    def _run(self) -> None:
        """The reader thread."""
        while True:
            try:
                self._live()
                error = self._fatal
            except (ShardClosed, ConnectionFailed) as fatal:
                error = fatal
            except BaseException as unexpected:  # a fault of ours: loud, and never a deaf shard
                error = unexpected
                self._log(logging.CRITICAL, "the reader failed", exc_info=unexpected)
            if not self._end(error):
                return

    def _live(self) -> None:
        """One connection after the other.

        :raises ShardClosed: the reason for which none may follow.
        :raises ConnectionFailed: where the first could not be opened, or no other is wished.
        """
        while self._begin_connection():
            connection = self._connection
            lost = self._open_and_read(connection)
            fatal, delay = self._judge(connection, lost)
            with self._changed:
                self._set_state(ShardState.CLOSING if fatal else ShardState.WAITING)
                closed_by_self = self._wish is _Wish.DISCONNECT and self._fatal is None
            if lost.failure is None:
                code = self._close_code if closed_by_self else lost.code
                self._call(self.on_socket_disconnected, code, closed_by_self)
            if fatal is not None:
                raise fatal
            self._wait(lambda: self._wish is _Wish.DISCONNECT or self._at_once, Deadline(delay))

    def _begin_connection(self) -> bool:
        """Make the next connection the shard's. False where the shard is to be closed."""
        with self._changed:
            if self._wish is _Wish.DISCONNECT:
                return False
            if self._wish is _Wish.REINSTANTIATE:
                self._drop_session()
            self._wish = None
            self._at_once = False
            self._stats.bytes_received += self._connection.bytes_received
            self._connection = self._new_connection(self._next_url())
            self._set_state(ShardState.CONNECTING)
            return True

    def _next_url(self) -> str:
        if (
            self._session_gateway is not None
            and self._failures_at_session_gateway < MOST_FAILURES_AT_SESSION_GATEWAY
        ):
            return self._session_gateway
        return self.socket_url

    def _new_connection(self, url: str) -> Connection:
        return Connection(
            gateway_url(url, self.socket_version, self._compression),
            inflater=compressions.create_inflater(self._compression, self._max_payload),
            max_payload=self._max_payload,
            connect_timeout=self._connect_timeout,
            send_timeout=self._send_timeout,
            ssl_context=self._ssl_context,
            proxy=self._proxy,
        )

    def _open_and_read(self, connection: Connection) -> ConnectionLost:
        """One connection, from opening to closed. Returns how it ended."""
        self._log(logging.DEBUG, "connecting to %s", connection.url)
        try:
            connection.open()
        except ConnectionFailed as error:
            return ConnectionLost(None, str(error), error)
        with self._changed:
            self._first_attempt = False
            self._opened += 1
            self._stats.connections += 1
            self._set_state(ShardState.CONNECTED)
        connection.deadline = Deadline(self._hello_timeout)
        self._call(self.on_socket_connected)
        lost = self._read(connection)
        if self._wish is _Wish.DISCONNECT:
            connection.send_close(self._close_code)
            connection.close(Deadline(self._close_timeout))
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
                    self._handle_frame(frame_type, payload)
                    if not self._is_wanted(connection):
                        break
            except TimeoutError:
                self._overdue(connection)
            except BrokenStream as error:
                self._stream_broke(connection, error)
            except ConnectionLost as lost:
                ended = lost
        if connection.given_up is not None:  # whatever came of that
            return ConnectionLost(None, connection.given_up)
        return ended or ConnectionLost(None, "a new connection was asked for")

    def _is_wanted(self, connection: Connection) -> bool:
        return self._wish is None and connection.given_up is None

    def _handle_frame(self, frame_type: int, payload: bytes) -> None:
        if frame_type == FrameType.BINARY:
            self._handle_message(payload)
            return
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            self._report(UnreadableMessage(f"a text message is not UTF-8: {error}", payload))
        else:
            self._handle_message(text)

    def _overdue(self, connection: Connection) -> None:
        """What was expected by the connection's deadline has not come."""
        if connection.deadline is None or connection.deadline.remaining():
            return  # it was put off by another thread, in identify()
        if self._state is not ShardState.CONNECTED:
            connection.give_up(
                f"neither READY nor RESUMED came within {self._ready_timeout:g} seconds"
            )
        elif connection.heartbeat is None:
            connection.give_up(f"no Hello came within {self._hello_timeout:g} seconds")
        else:
            self._identify(connection)  # not late at all: the turn has come

    def _judge(
        self, connection: Connection, lost: ConnectionLost
    ) -> tuple[BaseException | None, float]:
        """What a lost connection means: the error that closes the shard, or the time to wait."""
        if lost.code is not None:
            fatal = fatal_error(lost.code, lost.reason, Intents(self.intents))
            if fatal is not None:
                return fatal, 0.0
        if self._wish is _Wish.DISCONNECT:
            return None, 0.0
        if self._first_attempt:
            return lost.failure, 0.0

        if connection.ready_at is None:
            self._failures_at_session_gateway += self._session_gateway is not None
            self._unanswered_resumes += connection.resumed_from is not None
        elif time.monotonic() - connection.ready_at >= self._backoff.cap:
            self._backoff.reset()  # it has held: the trouble before it is over
        if lost.code in _SESSION_LOST or self._unanswered_resumes >= MOST_UNANSWERED_RESUMES:
            self._drop_session()

        persist = self.should_reconnect if self._persist is None else self._persist
        if self._wish is None and not persist:
            return lost.failure or ShardClosed(lost.code, lost.reason), 0.0
        delay = self._backoff.next_delay()
        if self._invalid_session:
            self._invalid_session = False
            delay = max(delay, random.uniform(*INVALID_SESSION_DELAY))
        self._log(
            logging.INFO if lost.failure is None else logging.WARNING,
            "%s; %s in %.1f seconds",
            lost.failure or f"connection lost: {_describe(lost)}",
            "a new session" if self._session_id is None else "resuming",
            delay,
        )
        return None, delay

    def _end(self, error: BaseException | None) -> bool:
        """The end of everything. True where a callback has asked for a new beginning."""
        never_began = self._first_attempt and isinstance(error, ConnectionFailed)
        with self._changed:
            if error is None and self._close_code in _ENDS_SESSION:
                self._drop_session()
            self._error = error
            self._state = ShardState.DISCONNECTED if never_began else ShardState.CLOSED
            self._changed.notify_all()
        if not never_began:
            if error is None:
                self._log(logging.INFO, "closed")
            else:
                self._log(logging.ERROR, "closed: %s", error)
            self._call(self.on_socket_closed, error)
        with self._changed:
            self._first_attempt = False
            if self._restart is not None:
                self._begin_life(*self._restart)
                return True
            self._thread = None
            _running.discard(self)
            self._changed.notify_all()
            return False

    def _set_state(self, state: ShardState) -> None:
        with self._changed:
            # Once closing, a shard is only ever closed; and without a reader (_handle_message
            # called by itself) it has no connection to be in any state of.
            if self._thread is not None and self._state not in _ENDING:
                self._state = state
                self._changed.notify_all()

    # Messages: on the reader thread

    def _handle_message(self, message: bytes | str) -> None:
        """Inflate a WebSocket message, decode it, act on it, call back. The hot path.

        Needs no socket: the protocol can be tried without one.
        """
        connection = self._connection
        try:
            text = connection.inflater.inflate(message)
        except UnreadableMessage as error:
            self._report(error)
            return
        except BrokenStream as error:
            self._stream_broke(connection, error)
            return
        if text is None:
            return
        stats = self._stats
        stats.messages += 1
        stats.bytes_inflated += len(text)
        if (
            self.on_socket_dispatch is None
            and self.on_socket_raw_message is None
            and connection.resumed_from is None
        ):
            header = payloads.peek(text)
            if header is not None:
                event, sequence = header
                if event not in _PROTOCOL_EVENTS and not self._callbacks.wanted(event):
                    stats.events[event] += 1
                    self._note_sequence(sequence)
                    self._completed_sequence = self._last_sequence
                    return
        try:
            payload = payloads.decode(text, self._json)
        except UnreadableMessage as error:
            self._report(error)
            return
        if self.on_socket_raw_message is not None:
            self._call(self.on_socket_raw_message, payload)
        try:
            self._act(connection, payload)
        except ShardClosed as fatal:  # the identify gate's
            self._stop(fatal)
        except Exception as error:  # a payload of a shape that nobody has thought of
            self._report(error)

    def _act(self, connection: Connection, payload: Payload) -> None:
        opcode = payload["op"]
        if opcode == Opcode.DISPATCH:
            self._dispatch(connection, payload)
        elif opcode == Opcode.HEARTBEAT_ACK:
            heartbeat = connection.heartbeat
            if heartbeat is not None and heartbeat.acknowledge():
                self._call(self.on_socket_heartbeat, heartbeat.ping)
        elif opcode == Opcode.HEARTBEAT:
            if connection.heartbeat is not None:
                connection.heartbeat.beat(requested=True)
            else:  # asked before Hello: there is no rhythm yet, but an answer
                self._send_on(connection, payloads.heartbeat(self._last_sequence))
        elif opcode == Opcode.HELLO:
            self._hello(connection, payload.get("d"))
        elif opcode == Opcode.RECONNECT:
            connection.give_up("the Gateway asked for a new connection")
        elif opcode == Opcode.INVALID_SESSION:
            if payload.get("d") is not True:
                self._drop_session()
            self._invalid_session = self._session_id is None
            connection.give_up("the Gateway called the session invalid")

    def _hello(self, connection: Connection, data: Any) -> None:
        interval = data.get("heartbeat_interval") if isinstance(data, dict) else None
        try:
            interval = check_positive("heartbeat_interval", interval)
        except (TypeError, ValueError) as error:
            connection.give_up(f"Hello can't be used: {error}")
            return
        if connection.heartbeat is not None:  # a second Hello changes the pace, no more
            connection.heartbeat.reschedule(interval)
            return
        connection.window.reserve = heartbeat_reserve(interval)
        connection.heartbeat = Heartbeat(
            connection,
            self._callbacks,
            interval=interval,
            payload=lambda: payloads.encode(payloads.heartbeat(self._last_sequence), self._json),
            zombie=connection.give_up,
            warn=self._warn_of_callback,
        )
        if connection.websocket is None:
            return
        connection.heartbeat.start(f"shard-{self.shard_id}-heartbeat")
        if self._session_id is None:
            self._identify(connection)
        else:
            self._resume(connection, self._session_id)

    def _identify(self, connection: Connection) -> None:
        """Send Identify, or note when to ask the gate again. Also on a user's thread."""
        wait = self._gate.try_acquire(self.shard_id)
        if wait > 0:
            connection.deadline = Deadline(wait)
            return
        with self._changed:
            if self._state is not ShardState.CONNECTED:  # another thread was faster
                return
            self._set_state(ShardState.IDENTIFYING)
        connection.window.record()
        self._send_on(connection, self._identify_payload())
        connection.deadline = Deadline(self._ready_timeout)

    def _identify_payload(self) -> Payload:
        return payloads.identify(
            token=self.token,
            intents=self.intents,
            shard_id=self.shard_id,
            shard_count=self.shard_count,
            properties=self._properties,
            large_threshold=self.large_threshold,
            presence=self._presence,
            compress=self._compression == "payload",
        )

    def _resume(self, connection: Connection, session_id: str) -> None:
        self._set_state(ShardState.RESUMING)
        connection.resumed_from = self._last_sequence or 0
        connection.window.record()
        self._send_on(
            connection,
            payloads.resume(
                token=self.token, session_id=session_id, sequence=self._last_sequence or 0
            ),
        )
        connection.deadline = Deadline(self._ready_timeout)

    def _send_on(self, connection: Connection, payload: Payload) -> None:
        try:
            connection.send(payloads.encode(payload, self._json))
        except SendTimeout as error:
            connection.give_up(str(error))
        except OSError:
            pass  # the connection has ended, as the next read will find

    def _dispatch(self, connection: Connection, payload: Payload) -> None:
        event = payload.get("t")
        sequence = payload.get("s")
        if connection.resumed_from is not None and event not in _PROTOCOL_EVENTS:
            # A replay. Some repeat the last event that was seen; nobody wants it twice.
            if type(sequence) is int and sequence <= connection.resumed_from:
                self._stats.duplicates += 1
                return
            self._stats.replayed += 1
            connection.deadline = Deadline(self._ready_timeout)
        if isinstance(event, str):
            self._stats.events[event] += 1
        if event == "READY":
            self._ready(connection, payload)
        else:
            if type(sequence) is int:
                self._note_sequence(sequence)
            if event == "RESUMED":
                self._resumed(connection)
        if self.on_socket_dispatch is not None:
            self._call(self.on_socket_dispatch, payload)
        if isinstance(event, str):
            data = payload.get("d")
            for function in self._callbacks.listeners(event):
                self._call(function, data)
            for waiter in self._callbacks.waiters(event):
                self._offer(event, waiter, data)
        if self._fatal is None:  # else a callback did not return but raised its way out
            self._completed_sequence = self._last_sequence

    def _note_sequence(self, sequence: int) -> None:
        if self._last_sequence is None or sequence > self._last_sequence:
            self._last_sequence = sequence

    def _ready(self, connection: Connection, payload: Payload) -> None:
        data = payload.get("d")
        if not isinstance(data, dict):
            data = {}
        sequence = payload.get("s")
        session_id = data.get("session_id")
        with self._changed:
            self._session_id = None if session_id is None else str(session_id)
            self._session_gateway = self._acceptable_gateway(data.get("resume_gateway_url"))
            # No later Resume brings READY again: it counts as seen before its callbacks return.
            self._last_sequence = sequence if type(sequence) is int else None
            self._completed_sequence = self._last_sequence
        self._log(logging.INFO, "ready, session %s", session_id)
        self._begin_to_flow(connection)
        self._call(self.on_socket_ready)
        if self._opened > 1:
            self._stats.reconnects += 1
            self._call(self.on_socket_reconnected, False)

    def _acceptable_gateway(self, url: Any) -> str | None:
        """READY's resume_gateway_url, if the token may be sent there."""
        if url is None:
            return None
        try:
            gateway_url(url, self.socket_version, self._compression)
            if self.socket_url.startswith("wss:") and not url.startswith("wss:"):
                raise ValueError("it is not encrypted, and the connection it came over is")
        except (TypeError, ValueError) as error:
            self._log(logging.WARNING, "resume_gateway_url is of no use: %s", error)
            return None
        return str(url)

    def _resumed(self, connection: Connection) -> None:
        self._log(logging.INFO, "resumed, session %s", self._session_id)
        self._begin_to_flow(connection)
        self._stats.resumes += 1
        self._stats.reconnects += self._opened > 1
        self._call(self.on_socket_reconnected, True)

    def _begin_to_flow(self, connection: Connection) -> None:
        connection.deadline = None
        connection.resumed_from = None
        connection.ready_at = time.monotonic()
        self._failures_at_session_gateway = 0
        self._unanswered_resumes = 0
        self._persist = None
        self._set_state(ShardState.READY)

    def _drop_session(self) -> None:
        with self._changed:
            self._session_id = None
            self._session_gateway = None
            self._last_sequence = None
            self._completed_sequence = None
            self._failures_at_session_gateway = 0
            self._unanswered_resumes = 0

    def _take_session(self, session: Session) -> None:
        if (session.shard_id, session.shard_count) != (self.shard_id, self.shard_count):
            raise ValueError(
                f"session is one of shard {session.shard_id} of {session.shard_count}, and this is "
                f"shard {self.shard_id} of {self.shard_count}"
            )
        self._session_id = session.session_id
        self._session_gateway = session.resume_gateway_url
        self._last_sequence = self._completed_sequence = session.sequence

    def _stream_broke(self, connection: Connection, error: BrokenStream) -> None:
        """Nothing more can be read here. Resume, but not into the same trouble for ever."""
        self._report(error)
        place = (self._session_id, self._last_sequence)
        if self._broken_at == place:
            self._drop_session()
        self._broken_at = place
        connection.give_up(str(error))

    # The user's functions: on the reader thread

    def _call(self, function: Callback | None, *arguments: Any) -> None:
        """Call a user's function with the shard in front. What it raises ends nothing."""
        if function is None:
            return
        try:
            self._callbacks.call(function, self, *arguments)
        except Exception as error:
            self._report(error, function)
        except BaseException as error:  # SystemExit, KeyboardInterrupt: for join() to raise
            self._stop(error)

    def _offer(self, event: str, waiter: Waiter, data: Any) -> None:
        if waiter.offer(data):
            self._callbacks.remove_waiter(event, waiter)
            with self._changed:
                waiter.done = True
                self._changed.notify_all()

    def _report(self, error: Exception, function: Callback | None = None) -> None:
        """Log what went wrong, and tell on_socket_error."""
        if function is None:
            self._log(logging.WARNING, "%s", error)
        else:
            self._log(logging.ERROR, "the callback %s failed", _name(function), exc_info=error)
        if function is self.on_socket_error:
            return  # it has failed itself, and is not told of that
        self._call(self.on_socket_error, error)

    def _stop(self, error: BaseException) -> None:
        """Close the shard because of an error, which the user's waiting methods raise."""
        self._fatal = self._fatal or error
        self._wish_disconnect(RESUMABLE_CLOSE_CODE)

    def _warn_of_callback(self, running: Running) -> None:
        """A callback keeps the reader from reading. Told by the heartbeat thread."""
        frame = sys._current_frames().get(self._thread.ident or 0) if self._thread else None
        self._log(
            logging.WARNING,
            "the callback %s has been running for %.1f seconds, and no event can be received "
            "meanwhile; long work belongs on another thread. It is here:\n%s",
            _name(running.function),
            time.perf_counter() - running.since,
            "".join(traceback.format_stack(frame)).rstrip(),
        )

    def _log(self, level: int, message: str, *arguments: Any, exc_info: Any = None) -> None:
        try:
            self.logger.log(level, message, *arguments, exc_info=exc_info)
        except Exception:
            pass  # a logger that fails ends no session


_PROTOCOL_EVENTS = frozenset({"READY", "RESUMED"})  # on which the shard itself acts


def _describe(lost: ConnectionLost) -> str:
    if lost.code is None:
        return lost.reason
    return f"closed by the Gateway with code {lost.code} ({lost.reason or 'no reason given'})"


def _name(function: Callback) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


# The shards that have a reader. At exit they take leave while threads still can: a daemon thread
# that wakes up in an interpreter that is being torn down crashes, or writes noise on stderr.
_running: set[Shard] = set()


def _take_leave() -> None:
    """Close every shard as the interpreter exits; their sessions stay resumable."""
    deadline = Deadline(EXIT_TIMEOUT)
    leaving = [shard for shard in _running if shard._process_id == os.getpid()]
    for shard in leaving:
        shard._wish_disconnect(RESUMABLE_CLOSE_CODE)
    for shard in leaving:
        shard._wait(lambda shard=shard: shard._thread is None, deadline)  # type: ignore[misc]


atexit.register(_take_leave)
