"""Shard: one session with Discord's Gateway, as an ordinary object.

Two threads serve a connected shard: the reader (:mod:`shardlib.reader`), which owns its life and
calls the user's functions, unless a dispatcher does, and the heartbeat (:mod:`shardlib.heartbeat`)
of each connection. What is in this file runs on the threads of users: the methods state requests,
wake the reader, and wait for what comes of them.
"""

from __future__ import annotations

import functools
import logging
import os
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

import ujson
import websocket

from shardlib import fetching, payloads
from shardlib.acknowledged import Acknowledged
from shardlib.backoff import Backoff
from shardlib.callbackfactory import create_callbacks
from shardlib.callbacks import Callbacks, Logger, Predicate, Waiter
from shardlib.checks import (
    check_at_least_one,
    check_callback,
    check_close_code,
    check_methods,
    check_positive,
    check_timeout,
    check_type,
)
from shardlib.connection import Connection
from shardlib.deadline import Deadline
from shardlib.errors import (
    AlreadyConnected,
    NotReady,
    SendTimeout,
    ShardError,
)
from shardlib.events import EventQueue, Events
from shardlib.fetching import GuildMembers, Line, Progress, VoiceUpdates
from shardlib.gateway import (
    API_VERSION,
    EVENTS,
    GATEWAY_URL,
    NORMAL_CLOSURE,
    RESUMABLE_CLOSE_CODE,
    SEND_LIMIT,
    Opcode,
    event_name,
    gateway_url,
    misspelling_warning,
)
from shardlib.heartbeat import Heartbeat
from shardlib.identity import Identity
from shardlib.interactive import earlier_definition_of
from shardlib.interrupts import has_interrupted_own_call, run_at_exit
from shardlib.lifecontrol import LifeControl
from shardlib.lifecycle import PEERS_SHARE, Beginning, Life, Request
from shardlib.limits import Gate
from shardlib.liveness import Latency
from shardlib.options import Options
from shardlib.ownprocess import OwnProcess
from shardlib.payloads import GatewayPayload, JSONModule, Payload, Snowflake
from shardlib.reader import Reader
from shardlib.running import Callback
from shardlib.sessiongate import SessionGate
from shardlib.state import IDENTIFIED, ON_THE_WAY, SOCKET_OPEN, ShardState
from shardlib.text import count, name_of, printable
from shardlib.transport import StreamBroken

if TYPE_CHECKING:
    from shardlib.currentsession import CurrentSession
    from shardlib.dispatcher import Dispatcher
    from shardlib.session import Session
    from shardlib.stats import Stats

# Seconds for all shards together to close while the interpreter exits.
EXIT_TIMEOUT = 0.5

_Function = TypeVar("_Function", bound=Callable[[Any, Any], object])
_Shard = TypeVar("_Shard", bound="Shard")

# The types of the functions that a shard calls. One that is annotated to take any dict will do for
# a payload, too.
OnSocketConnected = Callable[["Shard"], object]
OnSocketReconnected = Callable[["Shard", bool], object]
OnSocketDisconnected = Callable[["Shard", int | None, bool], object]
OnSocketHeartbeat = Callable[["Shard", float], object]
OnSocketDispatch = (
    Callable[["Shard", GatewayPayload], object] | Callable[["Shard", Payload], object]
)
OnSocketRawMessage = OnSocketDispatch
OnSocketText = (
    Callable[["Shard", str, int | None, bytes], object]
    | Callable[["Shard", str, int, bytes], object]
)
OnSocketBatch = Callable[["Shard", int], object]
OnSocketReady = Callable[["Shard"], object]
OnSocketError = Callable[["Shard", Exception], object]
OnSocketState = Callable[["Shard", ShardState], object]
OnSocketClosed = Callable[["Shard", BaseException | None], object]
Listener = Callable[["Shard", Any], object]

# The functions that a shard calls, and how many arguments each gets after the shard itself.
_CALLBACKS = {
    "on_socket_connected": 0,
    "on_socket_reconnected": 1,
    "on_socket_disconnected": 2,
    "on_socket_heartbeat": 1,
    "on_socket_dispatch": 1,
    "on_socket_raw_message": 1,
    "on_socket_text": 3,
    "on_socket_batch": 1,
    "on_socket_ready": 0,
    "on_socket_error": 1,
    "on_socket_state": 1,
    "on_socket_closed": 1,
}


class Shard:
    """One Gateway session of a bot.

    The constructor only checks and stores; no thread and no socket exists before :meth:`connect` or
    :meth:`start`. All callbacks are called on the reader thread, one at a time, in the order of the
    wire, unless a `dispatcher` calls them elsewhere. They may call every method of the shard, and
    use other shards as any thread may. A method may be called from any thread, unless its
    description says otherwise; a call in a signal handler that has interrupted another call of the
    library never waits, but returns or raises at once.

    "In a callback" means on the reader thread, in the descriptions of the methods. A callback that
    a dispatcher calls elsewhere may wait as any thread may: :meth:`join` and :meth:`run_forever`
    alone raise in it, too.

    A subclass may have its callbacks as methods, ``def on_socket_ready(self)``: self is the shard.
    A callback that is given to the constructor, or assigned, takes the place of the method.

    In a process that was forked after the shard's first connect(), every method and property but
    those of the constructor's arguments raises :exc:`ForkedProcess`; a shard that was never
    connected works in both processes. A shard can be neither pickled nor copied.

    :param token: the bot's token, a str without ``Bot`` in front.
    :param intents: what the bot wants to receive, :class:`shardlib.Intents` or an int
        (https://docs.discord.com/developers/events/gateway#gateway-intents).
    :param shard_id: number of this shard, an int from 0
        (https://docs.discord.com/developers/events/gateway#sharding).
    :param shard_count: number of the bot's shards, an int from 1.
    :param on_socket_connected: ``(shard)``: a socket is open; Hello has not come yet.
    :param on_socket_reconnected: ``(shard, resumed)``: a later connection reached RESUMED (True),
        or READY (False).
    :param on_socket_disconnected: ``(shard, code, closed_by_self)``: a connection has ended, once
        for every on_socket_connected; `code` is the int that the Gateway sent, or None;
        `closed_by_self` is True only after :meth:`disconnect`, and `code` is its code then.
    :param on_socket_heartbeat: ``(shard, ping)``: a heartbeat was acknowledged; `ping` is the round
        trip, a float in seconds.
    :param on_socket_dispatch: ``(shard, payload)``: every event, as the whole payload, a dict with
        ``op``, ``t``, ``s`` and ``d``.
    :param on_socket_raw_message: ``(shard, payload)``: every payload, before the shard acts on it;
        with a `dispatcher`, before or after that.
        The callbacks of one payload share one dict, so each sees what the one before changed in it;
        the shard itself has taken out what it needs before.
    :param on_socket_text: ``(shard, event, sequence, text)``: every event, READY and RESUMED
        included, without decoding it: its name, a str; its sequence, an int (None if a server other
        than Discord's gives none); the whole payload, bytes of JSON as the Gateway sent it. For
        programs that carry events on: the shard decodes only those that another function looks at.
        It comes before on_socket_dispatch.
    :param on_socket_batch: ``(shard, count)``: all messages that one read of the socket has brought
        were handled, `count` of them, an int from 1; their callbacks have returned. For what is
        better done for several events at once, writing to a database for example. At the end of a
        connection it comes before on_socket_disconnected. :attr:`session` does not wait for it: it
        counts an event when the event's own callbacks have returned.
    :param on_socket_ready: ``(shard)``: READY was handled, a new session has begun.
    :param on_socket_error: ``(shard, error)``: an Exception that ends nothing: what a callback
        raised, an unreadable message. The shard goes on.
    :param on_socket_state: ``(shard, state)``: the :class:`shardlib.ShardState` has changed, from
        CONNECTING at the beginning of a life to CLOSED or DISCONNECTED at its end: each change, in
        order, before the other callbacks that tell of it. :attr:`state` may be further on: another
        thread that calls :meth:`disconnect` makes it CLOSING, which the reader tells as soon as it
        can.
    :param on_socket_closed: ``(shard, error)``: once, at the end of a life; `error` is the
        exception that ended it, None after :meth:`disconnect`. It is not called if :meth:`connect`
        itself raises the failure of its first attempt.
    :param should_reconnect: a bool; False: the first lost connection closes the shard.
    :param large_threshold: an int from 50 to 250: guilds with more members come without those who
        are offline; None for Discord's default
        (https://docs.discord.com/developers/events/gateway-events#identify).
    :param presence: the presence to begin with, a dict with some of the fields of
        https://docs.discord.com/developers/events/gateway-events#update-presence. It is copied.
    :param properties: connection properties of Identify, a dict that is copied; None for the
        library's own
        (https://docs.discord.com/developers/events/gateway-events#identify).
    :param compression: "zlib-stream", "zstd-stream", "payload" or None
        (https://docs.discord.com/developers/events/gateway#encoding-and-compression).
    :param session: a :class:`shardlib.Session` to resume, of this shard of as many shards.
    :param json: a module with the functions ``loads``, which is called with bytes, and ``dumps``.
    :param identify_gate: when to identify, an :class:`shardlib.IdentifyGate` or any object with its
        ``try_acquire``; by default one gate for all shards of the token in this process. What it
        raises is told to on_socket_error, and the shard asks it again on another connection.
    :param session_gate: whether to resume, an object with the ``may_resume`` of a
        :class:`shardlib.SessionGate`, for programs whose processes hand sessions on to each other;
        None to resume whenever there is a session. It is asked on the reader before each Resume,
        and may block. False closes the shard with :exc:`ShardClosed`, by a code that leaves the
        session to be resumed. What it raises is told to on_socket_error, and the shard asks it
        again on another connection.
    :param acknowledge: "callbacks" or "manual", what :attr:`session` counts as done: an event whose
        callbacks have returned, or one that :meth:`acknowledge` was called for. "manual" is for
        programs whose callbacks hand events on to be stored elsewhere, later.
    :param backoff: how long to wait between attempts that fail, a :class:`shardlib.Backoff` that no
        other shard uses. What it raises is told to on_socket_error, and the default one is asked.
    :param connect_timeout: seconds for name, TCP, proxy, TLS and WebSocket handshake together.
    :param hello_timeout: seconds from an open socket to Hello.
    :param ready_timeout: seconds from Identify to READY, from Resume or the last replayed event to
        RESUMED.
    :param send_timeout: seconds that :meth:`send` may take.
    :param close_timeout: seconds that :meth:`disconnect` may take.
    :param max_payload: the largest message taken, an int in bytes, after inflating.
    :param ssl_context: an :class:`ssl.SSLContext` for ``wss`` URLs; None for Python's default,
        which is made again if the system's trusted certificates have changed (``SSL_CERT_FILE``,
        ``SSL_CERT_DIR``, or the files that OpenSSL was built for), or after a server's certificate
        was refused.
    :param proxy: an ``http://`` or ``socks5://`` URL; ``""`` for no proxy, whatever the
        environment says; None for the proxy that the environment names, if it names one:
        ``HTTPS_PROXY`` for ``wss``, ``HTTP_PROXY`` for ``ws``, ``ALL_PROXY`` for both, and
        ``NO_PROXY`` for the hosts that need none, in capitals or small letters (these come first);
        otherwise the settings of Windows or macOS. In ``NO_PROXY``, commas or spaces stand between
        domains, each for itself and all names below it (``example.org``, ``.example.org``,
        ``*.example.org``), addresses and networks (``10.0.0.0/8``, ``fd00::/8``), for URLs with an
        address in them, and ``*`` for all hosts. An entry with a port (``example.org:443``,
        ``[fd00::1]:443``) is for that port alone. This machine itself (``localhost``,
        ``127.0.0.1``) is always connected to without a proxy.
    :param logger: instead of ``logging.getLogger("shardlib.shard.<id>")``; an object with the
        method ``log`` of a :class:`logging.Logger`.
    :param dispatcher: where the callbacks are called: a Mailbox, a Worker or a Pool of
        :mod:`shardlib.dispatch`, which shards may share; None for the reader thread.
    :param slow_callback: seconds, a number above 0, after which the log tells, at WARNING, of a
        callback that has not returned, once: which one, on which event, and where it is; and again
        when it has returned. None: only if a heartbeat stays unanswered meanwhile.
    :raises ValueError: if an argument has a value that cannot be; the message says which and why.
    :raises TypeError: if an argument has the wrong type, or a callback cannot be called with what
        it will get, or is an ``async def``.
    """

    def __init__(
        self,
        token: str,
        intents: int,
        shard_id: int = 0,
        shard_count: int = 1,
        *,
        on_socket_connected: OnSocketConnected | None = None,
        on_socket_reconnected: OnSocketReconnected | None = None,
        on_socket_disconnected: OnSocketDisconnected | None = None,
        on_socket_heartbeat: OnSocketHeartbeat | None = None,
        on_socket_dispatch: OnSocketDispatch | None = None,
        on_socket_raw_message: OnSocketRawMessage | None = None,
        on_socket_text: OnSocketText | None = None,
        on_socket_batch: OnSocketBatch | None = None,
        on_socket_ready: OnSocketReady | None = None,
        on_socket_error: OnSocketError | None = None,
        on_socket_state: OnSocketState | None = None,
        on_socket_closed: OnSocketClosed | None = None,
        should_reconnect: bool = True,
        large_threshold: int | None = None,
        presence: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        compression: str | None = "zlib-stream",
        session: Session | None = None,
        json: JSONModule = ujson,
        identify_gate: Gate | None = None,
        session_gate: SessionGate | None = None,
        acknowledge: Literal["callbacks", "manual"] = "callbacks",
        backoff: Backoff | None = None,
        connect_timeout: float = 10.0,
        hello_timeout: float = 10.0,
        ready_timeout: float = 60.0,
        send_timeout: float = 10.0,
        close_timeout: float = 2.0,
        max_payload: int = 67108864,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        logger: Logger | None = None,
        dispatcher: Dispatcher | None = None,
        slow_callback: float | None = 5.0,
    ) -> None:
        check_methods("json", json, "loads", "dumps")
        identity = Identity(
            token=token,
            intents=intents,
            shard_id=shard_id,
            shard_count=shard_count,
            properties=properties,
            large_threshold=large_threshold,
            compress=compression == "payload",
            json=json,
        )
        self._options = Options(
            identity=identity,
            should_reconnect=should_reconnect,
            presence=identity.presence(presence, json),
            compression=compression,
            session=session,
            json=json,
            identify_gate=identify_gate,
            session_gate=session_gate,
            acknowledge=acknowledge,
            backoff=backoff,
            connect_timeout=connect_timeout,
            hello_timeout=hello_timeout,
            ready_timeout=ready_timeout,
            send_timeout=send_timeout,
            close_timeout=close_timeout,
            max_payload=max_payload,
            ssl_context=ssl_context,
            proxy=proxy,
            logger=logger,
            slow_callback=slow_callback,
        )
        self._logger: Logger = logger or logging.getLogger(f"shardlib.shard.{shard_id}")
        given = (
            on_socket_connected,
            on_socket_reconnected,
            on_socket_disconnected,
            on_socket_heartbeat,
            on_socket_dispatch,
            on_socket_raw_message,
            on_socket_text,
            on_socket_batch,
            on_socket_ready,
            on_socket_error,
            on_socket_state,
            on_socket_closed,
        )
        self._process = OwnProcess(
            "this shard was connected before the process was forked, and its threads and its "
            "connection are the parent's; make a new Shard in the child"
        )
        self._warned_events: frozenset[str] = frozenset()
        self._warned_of_twin = False
        self._told_of_replacement = False
        self._callbacks = self._create_callbacks(dispatcher)
        for (name, arguments), function in zip(_CALLBACKS.items(), given, strict=True):
            if function is not None:
                setattr(self, name, function)
            else:  # a subclass may have a method of that name
                try:
                    method = check_callback(name, getattr(self, name), arguments)
                except TypeError as error:
                    raise TypeError(
                        f"{error}; in a subclass self is the shard, which is not given again"
                    ) from None
                self._callbacks.assign(name, method, is_method=True)
        self._create_reader()
        _shards[id(self)] = self

    # The functions that are called: assigned, given to the constructor, or methods of a subclass.
    # A method is called with self instead of the shard as its first argument; so for type checkers
    # these are Any. Each may be assigned at any time; None calls nothing.

    on_socket_connected: Any = None
    on_socket_reconnected: Any = None
    on_socket_disconnected: Any = None
    on_socket_heartbeat: Any = None
    on_socket_dispatch: Any = None
    on_socket_raw_message: Any = None
    on_socket_text: Any = None
    on_socket_batch: Any = None
    on_socket_ready: Any = None
    on_socket_error: Any = None
    on_socket_state: Any = None
    on_socket_closed: Any = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in vars(cls):
            _check_callback_name(name)

    if not TYPE_CHECKING:  # else any attribute could be assigned

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "logger":
                raise AttributeError(
                    "a shard's logger cannot be replaced; give it to the constructor, "
                    "Shard(..., logger=...)"
                )
            if name.startswith("on_socket_"):
                _check_callback_name(name)
                if "_callbacks" not in vars(self):
                    raise AttributeError(
                        f"{name} can be assigned once Shard.__init__() was called; call "
                        "super().__init__() first"
                    )
                self._process.check()  # assigning takes a lock
                # A method of the subclass may come back, as tools for tests do it.
                is_method = name not in vars(self) and value == getattr(self, name)
                is_method = is_method and value is not None
                check_callback(name, value, _CALLBACKS[name] + (not is_method))
                self._callbacks.assign(name, value, is_method=is_method)
                if is_method:
                    return
            super().__setattr__(name, value)

        def __getattr__(self, name: str) -> NoReturn:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            if "_callbacks" not in vars(self):
                message += "; call super().__init__(token, intents, ...) first"
            raise AttributeError(message, name=name, obj=self)

        def __delattr__(self, name: str) -> None:
            if name in _CALLBACKS:
                self._process.check()  # assigning takes a lock
            super().__delattr__(name)
            if name in _CALLBACKS:  # what the class has of that name counts again
                self._callbacks.assign(name, getattr(self, name), is_method=True)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "a Shard can be neither pickled nor copied: it owns threads and a socket. Its session "
            "can be: save Shard.session, and make another Shard with it"
        )

    def _create_callbacks(self, dispatcher: Dispatcher | None) -> Callbacks:
        return create_callbacks(
            self,
            self._logger,
            dispatcher,
            lifecycle=lambda: self._lifecycle,
            session=lambda: self._reader.protocol.session,
            hide_token=self._options.identity.hide_token,
            stop=lambda error: self._reader.stop(error),
            slow_callback=self._options.slow_callback,
            thread_prefix=f"shard-{self.shard_id}",
        )

    def _create_reader(self) -> None:
        options = self._options
        self._reader = Reader(options, self._callbacks)
        self._lifecycle = self._reader.lifecycle
        session = self._reader.protocol.session
        self._acknowledged: Acknowledged | None = None
        if options.acknowledge == "manual":
            self._acknowledged = Acknowledged(session.session_id, session.last_sequence)
        self._control = LifeControl(
            self._lifecycle,
            self._callbacks,
            connect_timeout=options.connect_timeout,
            close_timeout=options.close_timeout,
            close_code=NORMAL_CLOSURE,
            is_delivering=self._callbacks.in_delivery,
            about_to_begin=self._warn_of_twin,
        )

    # What a user sees

    def __repr__(self) -> str:
        """The state, and what helps to find the session in a log. Never shows the token."""
        shown = f"Shard {self.shard_id}/{self.shard_count}"
        if self._process.is_parent:
            return f"<{shown} of the parent process>"
        life, session_id, ping = self._lifecycle.life, self.session_id, self.heartbeat_ping
        shown += f" {life.state.value}"
        if life.error is not None:
            shown += f": {type(life.error).__name__}"
        if session_id is not None:
            shown += f", session {printable(self._options.identity.hide_token(session_id), 40)}"
        if ping is not None and self.socket_active:
            shown += f", ping {ping * 1000:.0f} ms"
        return f"<{shown}>"

    @property
    def token(self) -> str:
        """The bot's token. No repr, log line or exception shows it."""
        return self._options.identity.token

    @property
    def intents(self) -> int:
        """What the bot wants to receive, as the constructor was given it."""
        return self._options.identity.intents

    @property
    def shard_id(self) -> int:
        """Number of this shard, from 0."""
        return self._options.identity.shard_id

    @property
    def shard_count(self) -> int:
        """Number of the bot's shards."""
        return self._options.identity.shard_count

    @property
    def should_reconnect(self) -> bool:
        """Whether a lost connection is followed by another."""
        return self._options.should_reconnect

    @property
    def large_threshold(self) -> int | None:
        """Members from which a guild's offline ones are left out, or None for Discord's default."""
        return self._options.identity.large_threshold

    @property
    def logger(self) -> Logger:
        """The logger that the constructor was given; ``shardlib.shard.<id>`` if it was given none.

        Another one cannot be assigned; give it to the constructor.
        """
        return self._logger

    @property
    def socket_url(self) -> str:
        """The URL that :meth:`connect` or :meth:`start` was given; Discord's before."""
        self._process.check()
        return self._lifecycle.latest.beginning.socket_url

    @property
    def socket_version(self) -> int:
        """The Gateway's API version that :meth:`connect` or :meth:`start` was given; 10 before."""
        self._process.check()
        return self._lifecycle.latest.beginning.socket_version

    @property
    def state(self) -> ShardState:
        """Where in its life the shard is. Reading it never blocks."""
        self._process.check()
        return self._lifecycle.life.state

    @property
    def socket_active(self) -> bool:
        """Whether a socket is open."""
        return self.state in SOCKET_OPEN

    @property
    def socket_identified(self) -> bool:
        """Whether Identify or Resume was sent on this connection."""
        return self.state in IDENTIFIED

    @property
    def socket_reconnecting(self) -> bool:
        """Whether a connection was lost and the next one is not open yet."""
        self._process.check()
        life = self._lifecycle.life
        state = life.state
        return state is ShardState.WAITING or (
            state is ShardState.CONNECTING and life.sockets_opened > 0
        )

    @property
    def socket_disconnecting(self) -> bool:
        """Whether the shard is being closed for good."""
        return self.state is ShardState.CLOSING

    @property
    def session_id(self) -> str | None:
        """The id of the current session, as READY gave it, or None."""
        self._process.check()
        return self._reader.protocol.session.session_id

    @property
    def session_gateway(self) -> str | None:
        """READY's ``resume_gateway_url``: where the current session is resumed, or None."""
        self._process.check()
        return self._reader.protocol.session.resume_gateway_url

    @property
    def last_sequence(self) -> int | None:
        """Sequence of the last event received in the current session, or None.

        After :meth:`rewind` it is less again, from Hello of the next connection on.
        """
        self._process.check()
        return self._reader.protocol.session.last_sequence

    @property
    def session(self) -> Session | None:
        """What it takes to resume the current session after a restart of the process, or None.

        Its sequence is that of the last event whose callbacks have returned, and with which the
        loops over :meth:`events` are done: an event in the middle of which the process dies is
        replayed (https://docs.discord.com/developers/events/gateway#preparing-to-resume). READY,
        which no Resume brings again, counts before its callbacks.

        With ``acknowledge="manual"`` its sequence is the one that :meth:`acknowledge` was called
        with, READY's too: before the first call there is None. The shard itself, when it has lost a
        connection, resumes after the last event that it has received, since what waits in this
        process to be acknowledged is not lost.
        """
        self._process.check()
        from shardlib.session import Session  # here: dataclasses take a while to import

        session = self._reader.protocol.session
        if session.session_id is None:
            return None
        if self._acknowledged is not None:
            sequence = self._acknowledged.sequence_of(session)
            if sequence is None:
                return None
        else:
            sequence = self._completed_sequence(session, session.session_id)
        return Session(
            session_id=session.session_id,
            sequence=sequence,
            resume_gateway_url=session.resume_gateway_url,
            shard_id=self.shard_id,
            shard_count=self.shard_count,
        )

    def _completed_sequence(self, session: CurrentSession, session_id: str) -> int | None:
        # Asked first: what is not there any more, the session itself heeds.
        rewound = self._reader.protocol.awaited_rewind(session_id)
        completed = self._callbacks.outstanding.completed_sequence(session)
        return completed if completed is None or rewound is None else min(completed, rewound)

    @property
    def socket_instance(self) -> websocket.WebSocket | None:
        """The live websocket-client object, or None. To look at: the shard reads and sends."""
        self._process.check()
        return self._reader.connection.websocket

    @property
    def socket_thread(self) -> threading.Thread | None:
        """The reader thread, or None if the shard is not running."""
        self._process.check()
        life = self._lifecycle.life
        return None if life.ended else life.thread

    @property
    def heartbeat_thread(self) -> threading.Thread | None:
        """The heartbeat thread of this connection, or None before Hello and after its end."""
        self._process.check()
        heartbeat = self._reader.heartbeat
        if heartbeat is None or heartbeat.thread is None or not heartbeat.thread.is_alive():
            return None
        return heartbeat.thread

    @property
    def heartbeat_interval(self) -> float | None:
        """Milliseconds, as this connection's Hello gave it, or None before."""
        self._process.check()
        heartbeat = self._reader.heartbeat
        return None if heartbeat is None else heartbeat.interval

    @property
    def heartbeat_acknowledged(self) -> bool:
        """False while a scheduled heartbeat of this connection waits for its acknowledgement."""
        self._process.check()
        heartbeat = self._reader.heartbeat
        return heartbeat is None or heartbeat.acknowledged

    @property
    def heartbeat_clock_time(self) -> float | None:
        """``time.perf_counter()`` of the last heartbeat sent on this connection, or None."""
        self._process.check()
        heartbeat = self._reader.heartbeat
        return None if heartbeat is None else heartbeat.clock_time

    @property
    def heartbeat_ping(self) -> float | None:
        """Seconds of the last round trip on this connection, or None."""
        return self.latency.last

    @property
    def latency(self) -> Latency:
        """The round trips of this connection's heartbeats, in seconds: last, mean, recent ones.

        All are empty before the first acknowledgement, and on each new connection.
        """
        self._process.check()
        heartbeat = self._reader.heartbeat
        return Latency(None, None, ()) if heartbeat is None else heartbeat.latency

    @property
    def zlib_buffer(self) -> bytes:
        """The bytes received of a message that is not complete yet, of the current connection."""
        self._process.check()
        return self._reader.connection.buffer()

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters, which count since the shard was made."""
        self._process.check()
        from shardlib.stats import CallbackStats, Stats  # here: dataclasses take a while to import

        reader = self._reader
        return Stats(
            messages=reader.messages,
            bytes_received=reader.bytes_received,
            bytes_inflated=reader.bytes_inflated,
            events=reader.events.snapshot(),
            connections=self._lifecycle.sockets_opened,
            reconnects=reader.reconnects,
            resumes=reader.resumes,
            replayed=reader.protocol.replayed,
            duplicates=reader.protocol.duplicates,
            gaps=reader.protocol.gaps,
            callback_seconds=self._callbacks.watchdog.seconds,
            callbacks={
                name: CallbackStats(*calls)
                for name, calls in self._callbacks.watchdog.calls().items()
            },
            waiting=len(self._callbacks.outstanding),
            lag=self._callbacks.outstanding.lag,
            dropped=self._callbacks.dropped,
        )

    # Listening

    @overload
    def on(self, event: str) -> Callable[[_Function], _Function]: ...

    @overload
    def on(self, event: str, function: _Function) -> _Function: ...

    def on(self, event: str, function: Listener | None = None) -> Any:
        """Call a function with ``(shard, data)`` for each event of a name.

        It is called on the reader thread, or where the shard's dispatcher calls callbacks.

        ::

            @shard.on("MESSAGE_CREATE")
            def greet(shard, message): ...

            shard.on("MESSAGE_CREATE", greet)

        All functions that listen to an event get the same object: what one of them changes in it,
        the next one sees. A function that was added twice is called twice. A name that looks like a
        misspelt one is told in the log, once, with the one that was probably meant. Never blocks.

        In an interactive session (Python's prompt, IPython, Jupyter) a function that is defined
        again at the prompt, or in a cell, and added again to the same event replaces the earlier
        one of its name; the log tells of it. Lambdas and functions inside functions do not.

        :param event: the name, a str, as
            https://docs.discord.com/developers/events/gateway-events#receive-events has it, in any
            case. Names that Discord does not document are taken, too, in upper case.
        :param function: the function to call; without it, a decorator is returned.
        :returns: the function, unchanged.
        :raises ValueError: if no event can have such a name, as "message"; the message tells of the
            nearest one.
        :raises TypeError: if `event` is not a str, if the function cannot be called with two
            arguments, or if it is an ``async def`` or a generator function, of which a call would
            run nothing.
        """
        self._process.check()
        check_type("event", event, str)
        name = event_name(event)

        def register(function: _Function) -> _Function:
            if function is None:
                raise TypeError(f"the listener to {event} must be a function, not None")
            check_callback(f"the listener to {name}", function, 2)
            self._warn_of_unknown(name)
            is_replaced = earlier_definition_of(function)
            if self._callbacks.add_listener(name, function, is_replaced):
                self._tell_of_replacement(name, function)
            return function

        return register if function is None else register(function)

    def _warn_of_unknown(self, event: str) -> None:
        """Tell once of a name that looks like a misspelt one."""
        if event in EVENTS or event in self._warned_events:
            return
        self._warned_events |= {event}
        warning = misspelling_warning(event)
        if warning is not None:
            self._callbacks.log(logging.WARNING, "%s", warning)

    def _tell_of_replacement(self, event: str, function: Callback) -> None:
        """Tell that a function listens in place of an earlier one; the first time, as a warning.

        Unless logging is set up, a person at a prompt sees warnings only. One says enough: a cell
        of a notebook may be run many times.
        """
        level = logging.INFO if self._told_of_replacement else logging.WARNING
        self._told_of_replacement = True
        self._callbacks.log(
            level,
            "%s listens to %s in place of the earlier function of that name: in an interactive "
            "session a function that is registered again replaces the one before",
            name_of(function),
            event,
        )

    def off(self, event: str, function: Callback) -> None:
        """Undo one :meth:`on`. Never blocks.

        :param event: the name, a str in any case.
        :param function: the function that was given to :meth:`on`.
        :raises ValueError: if the function does not listen to the event.
        :raises TypeError: if `event` is not a str.
        """
        self._process.check()
        check_type("event", event, str)
        self._callbacks.remove_listener(event.upper(), function)

    def wait_for(
        self, event: str, predicate: Predicate | None = None, timeout: float | None = None
    ) -> Any:
        """Block until an event comes, and return its data.

        Blocks the calling thread until then, or until the shard is closed. An event that came
        before this was called is not seen: for more than one event, :meth:`events` misses none.

        :param event: the name, as for :meth:`on`.
        :param predicate: a function, called with the data on the reader thread; an event for which
            it returns something false is passed over. What it raises is raised here.
        :param timeout: seconds; None waits without end.
        :returns: the event's ``d``.
        :raises TimeoutError: if no such event came in time.
        :raises ShardClosed: if the shard is closed, now or meanwhile.
        :raises ConnectionFailed: if the first attempt of a :meth:`connect` under way failed.
        :raises SystemExit: if a callback raised it, and so closed the shard.
        :raises KeyboardInterrupt: if a callback raised it, and so closed the shard.
        :raises ShardError: if the shard was never connected; in a callback, before whose return no
            event can be received; and in a signal handler that has interrupted another call.
        :raises ValueError: if no event can have such a name, or `timeout` is negative.
        :raises TypeError: if an argument has the wrong type, or `predicate` cannot be called with
            one argument.
        """
        self._process.check()
        check_type("event", event, str)
        name = event_name(event)
        check_callback("predicate", predicate, 1)
        deadline = Deadline(check_timeout("timeout", timeout))
        life = self._control.begun_life("wait_for")
        self._control.refuse_to_wait("wait_for")
        self._warn_of_unknown(name)
        waiter = Waiter(predicate)
        try:
            self._callbacks.subscribe(waiter, (name,))
            in_time = self._lifecycle.wait_in(life, lambda: waiter.done, deadline)
        finally:
            self._callbacks.unsubscribe(waiter)
        if waiter.error is not None:
            raise waiter.error
        if waiter.done:
            return waiter.data
        if not in_time:
            state = "" if life.is_ready else f"; the shard is {life.progress()}"
            raise TimeoutError(f"no {name} came within {count(timeout or 0, 'second')}{state}")
        raise life.closed_error()

    def events(self, *names: str, timeout: float | None = None, maxsize: int = 10_000) -> Events:
        """An iterator over events, for a script, a game or a REPL that asks for one after another.

        ::

            for event in shard.events("MESSAGE_CREATE", "MESSAGE_DELETE"):
                print(event.name, event.data)

        It has subscribed when this returns: what comes from then on is kept until it is asked for.
        So make it, send a request, and then ask for the answer. It is an iterator and a context
        manager, and its :meth:`~shardlib.Events.poll` returns what is there without waiting. What
        others do with :meth:`on` and :meth:`wait_for` is not changed by it.

        The iterator belongs to one connect(): to the running one, or, if there is none, to the
        next. It ends after :meth:`disconnect`, once it has yielded what was received before; an
        error that closes the shard is raised there, as by :meth:`join`.

        If `maxsize` events wait, the shard reads no further until half of them were taken: none is
        lost, and memory does not grow. It reads on while the thread that takes the events is inside
        a method that waits for the shard, :meth:`send` say. The log tells of a loop that takes
        nothing for long. ``break``, ``close()``, and losing the last reference to the iterator let
        the shard go on at once.

        In :attr:`session` an event counts as done when the thread that got it asks for the next
        one, or the iterator is closed. Ctrl-C loses no event: the next call returns it.

        Never blocks; asking for the next event does, for `timeout` at most. That raises

        - :exc:`TimeoutError` if no event came in time; the iterator can be used on,
        - the error that has closed the shard,
        - :exc:`ShardError` in a callback and in a signal handler that has interrupted another call,
          and if the shard is not connected and no thread is connecting it,
        - :exc:`ForkedProcess` in a process that was forked since.

        :param names: of the events, each a str as for :meth:`on`; none for all events.
        :param timeout: seconds that each next event is waited for; None waits without end.
        :param maxsize: how many events may wait, an int from 1.
        :returns: an :class:`~shardlib.Events` of :class:`~shardlib.Event` objects.
        :raises ValueError: if no event can have such a name, `timeout` is negative, or `maxsize` is
            below 1.
        :raises TypeError: if an argument has the wrong type.
        """
        self._process.check()
        check_timeout("timeout", timeout)
        check_at_least_one("maxsize", maxsize)
        wanted = self._wanted_events(names)
        queue = EventQueue(wanted, timeout, maxsize, lifecycle=self._lifecycle)
        events = Events(queue)  # first: it closes the queue if Ctrl-C comes now
        queue.add_feed(
            shard=self,
            callbacks=self._callbacks,
            lifecycle=self._lifecycle,
            current_session=lambda: self._reader.protocol.session,
        )
        return events

    def _wanted_events(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names of events as Discord writes them, checked, each once."""
        names = tuple(names)
        for name in names:
            check_type("names", name, str)
        wanted = tuple(dict.fromkeys(map(event_name, names)))
        for name in wanted:
            self._warn_of_unknown(name)
        return wanted

    # Life

    def connect(self, socket_url: str = GATEWAY_URL, socket_version: int = API_VERSION) -> None:
        """Open a socket and start the reader; blocks until the socket is open.

        With a session left from before (given to the constructor, or kept by ``disconnect(4000)``)
        the shard resumes it, at :attr:`session_gateway` or, if that can't be reached, at
        `socket_url`; else it identifies. If the first attempt fails, nothing is left running. A
        callback may call this after :meth:`disconnect`: it returns at once, and the shard begins
        anew when it is closed. No thread waits for the first attempt then: if it fails, the shard
        keeps trying, or, if `should_reconnect` is False, tells on_socket_closed of the failure.

        Blocks the calling thread for `connect_timeout` at most, twice that if there are two URLs to
        try. If a callback has not returned since the last :meth:`disconnect`, that is waited for
        first, for `connect_timeout` at most.

        :param socket_url: where to connect, a str, a ``ws://`` or ``wss://`` URL
            (https://docs.discord.com/developers/events/gateway#connecting).
        :param socket_version: version of the Gateway's API, an int.
        :raises ConnectionFailed: if the first attempt fails, or a callback from before does not
            return.
        :raises AlreadyConnected: if the shard is running.
        :raises ShardClosed: if :meth:`disconnect` is called meanwhile.
        :raises ShardError: in a signal handler that has interrupted another call, or one of
            ``threading.Thread.start()``, ``threading.enumerate()`` and ``active_count()``, without
            which no thread can start; and if eventlet has patched the process.
        :raises RuntimeError: if the system has no thread to give.
        :raises ValueError: if `socket_url` is no URL of a gateway, or `socket_version` no version.
        :raises TypeError: if an argument has the wrong type.
        """
        self._process.check()
        self._begin(Beginning(socket_url, socket_version))

    def start(self, socket_url: str = GATEWAY_URL, socket_version: int = API_VERSION) -> None:
        """Begin as :meth:`connect` does, without waiting for the first connection.

        The first attempt is treated like any later lost connection: if it fails, the shard keeps
        trying after growing pauses, and the log tells of each attempt. If `should_reconnect` is
        False, the failure closes the shard, is told to on_socket_closed, and is raised by
        :meth:`join` and the other methods that wait.

        Returns at once. If the shard is still being closed, by a callback after :meth:`disconnect`
        for example, it begins anew as soon as it is closed; until then only another
        :meth:`disconnect` prevents that. A signal handler may call this, too.

        :param socket_url: where to connect, as for :meth:`connect`.
        :param socket_version: version of the Gateway's API, as for :meth:`connect`.
        :raises AlreadyConnected: if the shard is running, or is to begin anew once it is closed.
        :raises ShardClosed: if :meth:`disconnect` is called meanwhile.
        :raises ShardError: if eventlet has patched the process.
        :raises RuntimeError: if the system has no thread to give.
        :raises ValueError: if `socket_url` is no URL of a gateway, or `socket_version` no version.
        :raises TypeError: if an argument has the wrong type.
        """
        self._process.check()
        self._begin(Beginning(socket_url, socket_version, awaited=False))

    def disconnect(self, code: int | None = None, *, wait: bool = True) -> None:
        """Close for good, from whatever state.

        Blocks the calling thread for `close_timeout` at most, whatever the peer does. In a
        callback, and in a signal handler that has interrupted another call, it asks the reader and
        returns at once. No connection begins after it has returned. If a callback doesn't return in
        time, the socket is closed, and the reader ends when the callback does. A shard that is not
        running stays as it is.

        With ``wait=False`` it returns at once on every thread; the shard is closed within
        `close_timeout` all the same, and :meth:`join` waits for that. So many shards whose peers do
        not answer are closed in the time of one::

            for shard in shards:
                shard.disconnect(wait=False)
            for shard in shards:
                shard.join()

        :param code: an int. None is 1000, which ends the session: the bot goes offline. A code from
            4000 to 4999 keeps it resumable for some minutes (see :attr:`session` and
            https://docs.discord.com/developers/events/gateway#initiating-a-disconnect).
        :param wait: a bool; False: return before the shard is closed.
        :raises ValueError: if `code` is neither 1000, 1001 nor from 4000 to 4999.
        :raises TypeError: if `code` is not an int, or `wait` is not a bool.
        """
        self._process.check()
        check_close_code(code)
        check_type("wait", wait, bool)
        self._control.close(NORMAL_CLOSURE if code is None else code, wait=wait)

    def reconnect(self) -> None:
        """Close with a resumable code, connect again and Resume; blocks until the socket is open.

        If a connection is on its way already, this waits for that one; if the shard is pausing, the
        pause ends. During an outage this waits without limit; :meth:`disconnect` ends the wait. In
        a callback, and in a signal handler that has interrupted another call, it asks the reader
        and returns at once. A shard that is not running is connected, as by :meth:`connect`.

        :raises ShardClosed: if the shard is closed meanwhile.
        :raises ConnectionFailed: if the new connection fails, and `should_reconnect` is False; or
            if the shard was not running, and its first attempt fails.
        :raises ShardError: if the shard is not running, in a signal handler that has interrupted
            another call.
        :raises AlreadyConnected: if the shard was not running, and another thread has connected it
            meanwhile.
        :raises RuntimeError: if the shard was not running, and the system has no thread to give.
        :raises SystemExit: if a callback raised it, and so closed the shard.
        :raises KeyboardInterrupt: if a callback raised it, and so closed the shard.
        """
        self._process.check()
        self._renew(Request.RECONNECT)

    def resume(self) -> None:
        """Connect to :attr:`session_gateway` and Resume, as :meth:`reconnect` does.

        It blocks and raises as that does, too: during an outage it waits without limit, until
        :meth:`disconnect` (https://docs.discord.com/developers/events/gateway#resuming).

        :raises NotReady: if there is no session to resume.
        :raises ShardClosed: as :meth:`reconnect`.
        :raises ConnectionFailed: as :meth:`reconnect`.
        :raises ShardError: as :meth:`reconnect`.
        :raises AlreadyConnected: as :meth:`reconnect`.
        :raises RuntimeError: as :meth:`reconnect`.
        """
        self._process.check()
        if self.session_id is None:
            raise NotReady("there is no session to resume; connect() begins one")
        self._renew(Request.RECONNECT)

    def acknowledge(self, session_id: str, sequence: int) -> None:
        """Note that all events of a session up to one are done with, for :attr:`session`.

        For a shard that was made with ``acknowledge="manual"``. One call counts for all earlier
        events, too. What to call it with later is known in on_socket_text: the sequence, and
        :attr:`session_id`. (A callback that a dispatcher calls may find the id of the next session
        there already; READY has that of its own.) Two calls are ignored: one for another session
        than the current one, since that may have ended meanwhile, and one with an earlier sequence
        than before. Never blocks.

        :param session_id: of the session in which the events came, a str.
        :param sequence: of the last of these events, an int from 0.
        :raises ValueError: if the session has not brought such a sequence yet, or it is negative.
        :raises TypeError: if an argument has the wrong type.
        :raises ShardError: if the shard was made with ``acknowledge="callbacks"``, the default.
        """
        self._process.check()
        check_type("session_id", session_id, str)
        session = self._reader.protocol.session
        is_current = session_id == session.session_id
        _check_sequence(sequence, session.highest_sequence if is_current else None)
        if self._acknowledged is None:
            raise ShardError(
                'acknowledge() needs a shard that was made with acknowledge="manual"; this one '
                "counts an event as done when its callbacks have returned"
            )
        if is_current:
            self._acknowledged.advance(session_id, sequence)

    def rewind(self, sequence: int) -> None:
        """Have the events after an earlier one of the current session delivered again.

        For a program whose database has lost its newest writes. The shard closes the connection
        with a resumable code, connects again and resumes from `sequence`; if a connection is on its
        way to Hello already, that one will do. The events come as in any replay, also those that
        were delivered before; of several calls the earliest sequence counts. :attr:`session` says
        `sequence` at once. What waits in a dispatcher or an :meth:`events` iterator is delivered
        before, and then again. If the Gateway does not keep the events any more, it ends the
        session, and a new one begins.

        Returns at once on every thread, unlike :meth:`reconnect`: the thread that stores the events
        may be the one that the reader waits for, because a queue between the two is full. A shard
        that is not running resumes from `sequence` at its next :meth:`connect`.

        :param sequence: of the last event that is not to come again, an int from 0 to the highest
            one that the session has brought.
        :raises NotReady: if there is no session to resume.
        :raises ValueError: if the session has not brought such a sequence yet, or it is negative.
        :raises TypeError: if `sequence` is not an int.
        """
        self._process.check()
        protocol = self._reader.protocol
        session = protocol.session
        _check_sequence(sequence, session.highest_sequence if session.session_id else None)
        if session.session_id is None:
            raise NotReady("there is no session to rewind; connect() begins one")
        protocol.rewind(session.session_id, sequence)
        if self._acknowledged is not None:
            self._acknowledged.rewind(session.session_id, sequence)
        life = self._lifecycle.life
        # Before its socket is open, no connection has carried the rewind out, and it will.
        if life.state in SOCKET_OPEN:
            life.request_connection(Request.REWIND, no_fail=None, immediate=False)

    def reinstantiate(self, no_fail: bool | None = None) -> None:
        """Drop the session, connect to :attr:`socket_url` and Identify; else as :meth:`reconnect`.

        It blocks and raises as that does, too: during an outage it waits without limit, until
        :meth:`disconnect`. Identifying is rationed: once in 5 seconds, and a thousand times a day
        (https://docs.discord.com/developers/events/gateway#identifying).

        :param no_fail: a bool or None. True: the shard keeps trying until a session begins; False:
            the first failure closes it; None: as `should_reconnect` says.
        :raises TypeError: if `no_fail` is neither a bool nor None.
        :raises ShardClosed: as :meth:`reconnect`.
        :raises ConnectionFailed: if the new connection fails, and `no_fail` is False, or is None
            and `should_reconnect` is False; or as :meth:`reconnect`.
        :raises ShardError: as :meth:`reconnect`.
        :raises AlreadyConnected: as :meth:`reconnect`.
        :raises RuntimeError: as :meth:`reconnect`.
        """
        self._process.check()
        check_type("no_fail", no_fail, bool, optional=True)
        self._renew(Request.REINSTANTIATE, no_fail)

    def identify(self) -> None:
        """Send Identify, if the reader has not done so yet: it does after Hello, at its turn.

        If the identify gate does not let the shard through yet, this returns, and the reader sends
        Identify when it does. A callback asks the gate and sends, as any thread does; a signal
        handler that has interrupted another call leaves Identify to the reader. Blocks the calling
        thread for `send_timeout` at most. What a gate of the user's raises is raised here, too.

        :raises NotReady: if no connection has received Hello.
        :raises AlreadyConnected: if Identify or Resume was sent on this connection.
        :raises ShardClosed: if the day's Identifies are nearly used up.
        """
        self._process.check()
        connection = self._reader.connection
        if self.socket_identified:
            raise AlreadyConnected(
                "Identify or Resume was sent on this connection already; reinstantiate() begins "
                "a new session"
            )
        if self._reader.heartbeat is None or not self.socket_active:
            raise NotReady(
                f"Identify follows Hello, which has not come: the shard is {self.state.value}; "
                "connect() first, and the shard identifies by itself"
            )
        # A signal handler leaves it to the reader, which identifies at its turn.
        if self._lifecycle.in_reader_thread() or not has_interrupted_own_call():
            self._reader.try_identify(connection)

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Block until the shard is READY, that is, events flow.

        :param timeout: seconds; None waits without end.
        :raises TimeoutError: if it takes longer; the message says how the last attempts ended.
        :raises ShardClosed: if the shard is closed, now or meanwhile, with the reason.
        :raises ConnectionFailed: if the first attempt to connect failed.
        :raises SystemExit: if a callback raised it, and so closed the shard.
        :raises KeyboardInterrupt: if a callback raised it, and so closed the shard.
        :raises ShardError: if the shard was never connected; if it isn't READY, also in a callback,
            and in a signal handler that has interrupted another call.
        :raises ValueError: if `timeout` is negative.
        :raises TypeError: if `timeout` is no number.
        """
        self._process.check()
        deadline = Deadline(check_timeout("timeout", timeout))
        life = self._control.begun_life("wait_until_ready")
        if life.is_ready:
            return
        self._control.refuse_to_wait("wait_until_ready")
        if not self._lifecycle.wait_in(life, lambda: life.is_ready, deadline):
            raise TimeoutError(
                f"the shard was not ready within {count(timeout or 0, 'second')}, it is "
                f"{life.progress()}"
            )
        if life.is_over:
            raise life.closed_error()

    def join(self, timeout: float | None = None) -> None:
        """Block until the shard is closed and its reader has ended.

        Returns at once for a shard that was never connected. Behind a callback that does not return
        it ends with :meth:`disconnect`.

        :param timeout: seconds; None waits without end.
        :raises TimeoutError: if the shard is not closed in time.
        :raises ShardClosed: the error that closed it, if :meth:`disconnect` did not. If
            `should_reconnect` is False, also the loss of a connection, with the close code that the
            Gateway sent, 4000 say, or None.
        :raises ConnectionFailed: if the first attempt to connect failed, or a later one, and
            `should_reconnect` is False.
        :raises SystemExit: if a callback raised it, and so closed the shard.
        :raises KeyboardInterrupt: if a callback raised it, and so closed the shard.
        :raises ShardError: in a callback, and in a signal handler that has interrupted another
            call.
        :raises ValueError: if `timeout` is negative.
        :raises TypeError: if `timeout` is no number.
        """
        self._process.check()
        deadline = Deadline(check_timeout("timeout", timeout))
        self._control.join("the shard", deadline, timeout)

    def run_forever(self, socket_url: str = GATEWAY_URL, socket_version: int = API_VERSION) -> None:
        """:meth:`start`, then :meth:`join`. Ctrl-C disconnects and returns.

        A gateway that cannot be reached yet is tried again, as after any lost connection: a program
        may be started before its network. It also returns after :meth:`disconnect` on another
        thread or in a signal handler, at whatever moment.

        :param socket_url: where to connect, as for :meth:`connect`.
        :param socket_version: version of the Gateway's API, as for :meth:`connect`.
        :raises ConnectionFailed: if an attempt to connect failed, the first one included, and
            `should_reconnect` is False.
        :raises AlreadyConnected: if the shard is running, or is to begin anew once it is closed.
        :raises ShardClosed: the error that closed the shard, if :meth:`disconnect` did not.
        :raises ShardError: in a callback, and in a signal handler that has interrupted another
            call.
        :raises RuntimeError: if the system has no thread to give.
        :raises SystemExit: if a callback raised it, and so closed the shard.
        :raises KeyboardInterrupt: if a callback raised it, and so closed the shard.
        :raises ValueError: if `socket_url` is no URL of a gateway, or `socket_version` no version.
        :raises TypeError: if an argument has the wrong type.
        """
        self._process.check()
        self._control.refuse_to_wait("run_forever", in_delivery=True)
        beginning = self._checked(Beginning(socket_url, socket_version, awaited=False))
        self._control.run(beginning, self.disconnect)

    def __enter__(self: _Shard) -> _Shard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.is_parent:
            return  # in a forked child there is nothing to close: it is all the parent's
        self._control.leave(self.disconnect, error)

    # Sending

    def send(self, data: str | Mapping[str, Any], timeout: float | None = None) -> None:
        """Send a payload, as a mapping or a JSON string. When this returns, the system has it all.

        Blocks the calling thread while the shard is not READY, while the 120 sends a minute are
        used up (https://docs.discord.com/developers/events/gateway#rate-limiting), and while the
        peer takes no bytes. If there will be no room among the 120 before the timeout, it raises at
        once; with ``timeout=70`` it waits in any case. In a callback it doesn't wait for the first
        two, but raises. In a signal handler that has interrupted another call it waits for nothing.

        A presence that was sent is the one with which later sessions of this shard begin.

        :param data: a payload with ``op`` and ``d``
            (https://docs.discord.com/developers/events/gateway#sending-events): a str of JSON, or a
            mapping, which the option `json` encodes; at most 4,096 bytes as UTF-8.
        :param timeout: seconds; None means `send_timeout`.
        :raises ValueError: if the data can't be sent, or `timeout` is negative; nothing was sent.
        :raises TypeError: if `data` is neither a str nor a mapping, or holds what cannot be written
            as JSON, or `timeout` is no number; nothing was sent.
        :raises NotReady: if the shard is not READY in time, or the connection is lost and the next
            one not READY in time; nothing was sent, unless the message says that this is not known,
            which only a fault of TLS can bring about.
        :raises SendTimeout: if the payload could not be sent in time, or a signal handler has
            interrupted another call.
        :raises ShardClosed: if the shard is closed, now or meanwhile.
        :raises ConnectionFailed: if it is closed since it could not connect.
        :raises SystemExit: if a callback raised it, and so closed the shard.
        :raises KeyboardInterrupt: if a callback raised it, and so closed the shard.
        """
        self._process.check()
        text = (
            payloads.encode(dict(data), self._options.json) if isinstance(data, Mapping) else data
        )
        payload = payloads.check_send(text)
        sent = None
        if payload["op"] == Opcode.PRESENCE_UPDATE:
            # Raises if no later session could begin with it.
            presence = self._options.identity.presence(payload.get("d") or {}, self._options.json)
            sent = functools.partial(self._reader.keep_presence, presence)
        self._send(text, check_timeout("timeout", timeout), sent)

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

        Blocks and raises as :meth:`send` does. The rules stand at
        https://docs.discord.com/developers/events/gateway-events#update-presence.

        :param status: "online", "dnd", "idle", "invisible" or "offline".
        :param activities: activity objects, dicts with ``name`` and ``type``.
        :param since: an int, milliseconds of Unix time since when the bot is idle, or None.
        :param afk: a bool, whether the bot is away.
        :param timeout: seconds, as for :meth:`send`.
        :raises ValueError: if an argument has a value that Discord does not document; nothing was
            sent.
        :raises TypeError: if an argument has the wrong type; nothing was sent.
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
        """Join a voice channel, move to another, or leave.

        Blocks and raises as :meth:`send` does; :meth:`join_voice` waits for what comes of it, too.
        The rules stand at
        https://docs.discord.com/developers/events/gateway-events#update-voice-state.

        :param guild_id: the guild's id, an int or a str of digits.
        :param channel_id: the channel's id likewise; None to leave.
        :param self_mute: a bool, whether the bot is mute.
        :param self_deaf: a bool, whether the bot is deaf.
        :param timeout: seconds, as for :meth:`send`.
        :raises ValueError: if an id cannot be one; nothing was sent.
        :raises TypeError: if an argument has the wrong type; nothing was sent.
        """
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
        """Ask for a guild's members, who come as GUILD_MEMBERS_CHUNK events, up to 1,000 in each.

        Blocks and raises as :meth:`send` does, and does not wait for the answer:
        :meth:`fetch_guild_members` does, and returns it. To take the chunks yourself, listen with
        :meth:`on` or :meth:`events` before asking. If Discord gets such a request too soon after
        another one, a RATE_LIMITED event comes instead, whose ``retry_after`` says when to ask
        again. The rules stand at
        https://docs.discord.com/developers/events/gateway-events#request-guild-members.

        :param guild_id: the guild's id, an int or a str of digits.
        :param query: a str with which user names begin; an empty one, or neither this nor
            `user_ids`, asks for all members.
        :param limit: an int, how many members; 1 to 100 with a query that is not empty, else 0 for
            all.
        :param presences: a bool, whether the members' presences come, too.
        :param user_ids: one id or up to 100, instead of `query`.
        :param nonce: a str of at most 32 bytes as UTF-8, which comes back in the chunks.
        :param timeout: seconds, as for :meth:`send`.
        :raises ValueError: if an argument has a value that Discord does not take, or `query` and
            `user_ids` are both given; nothing was sent.
        :raises TypeError: if an argument has the wrong type; nothing was sent.
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
        """Ask for guilds' soundboard sounds, which come as SOUNDBOARD_SOUNDS events, one a guild.

        Blocks and raises as :meth:`send` does, and does not wait for the answer, as
        :meth:`fetch_soundboard_sounds` does. The rules stand at
        https://docs.discord.com/developers/events/gateway-events#request-soundboard-sounds.

        :param guild_ids: the guilds' ids, each an int or a str of digits; at least one.
        :param timeout: seconds, as for :meth:`send`.
        :raises ValueError: if there is no id, or one that cannot be; nothing was sent.
        :raises TypeError: if an argument has the wrong type; nothing was sent.
        """
        self._send_payload(payloads.request_soundboard_sounds(guild_ids), timeout)

    def request_channel_info(
        self,
        guild_id: Snowflake,
        fields: Iterable[str] = payloads.CHANNEL_INFO_FIELDS,
        *,
        timeout: float | None = None,
    ) -> None:
        """Ask about a guild's channels; the answer comes as CHANNEL_INFO.

        Blocks and raises as :meth:`send` does, and does not wait for the answer, as
        :meth:`fetch_channel_info` does. The rules stand at
        https://docs.discord.com/developers/events/gateway-events#request-channel-info.

        :param guild_id: the guild's id, an int or a str of digits.
        :param fields: one or both of "status" and "voice_start_time".
        :param timeout: seconds, as for :meth:`send`.
        :raises ValueError: if `fields` has another field or none, or the id cannot be one; nothing
            was sent.
        :raises TypeError: if an argument has the wrong type; nothing was sent.
        """
        self._send_payload(payloads.request_channel_info(guild_id, fields), timeout)

    # Asking

    def fetch_guild_members(
        self,
        guild_id: Snowflake,
        *,
        query: str | None = None,
        limit: int = 0,
        presences: bool = False,
        user_ids: Snowflake | Iterable[Snowflake] | None = None,
        timeout: float | None = 60.0,
        progress: Progress | None = None,
    ) -> GuildMembers:
        """Ask for a guild's members, as :meth:`request_guild_members`, and return all of them.

        Blocks the calling thread until the last chunk has come, whatever else comes meanwhile. A
        connection that is lost and resumed in the middle costs nothing; in a new session, and if
        the request may have been lost, it is sent again. If Discord answers RATE_LIMITED (it gives
        all members of a guild once in 30 seconds), this waits for as long as that says, and asks
        again, or raises at once if that would be too late.

        :param guild_id: the guild's id, an int or a str of digits.
        :param query: a str with which user names begin; an empty one, or neither this nor
            `user_ids`, asks for all members, which needs the intent GUILD_MEMBERS.
        :param limit: an int, how many members; 1 to 100 with a query that is not empty, else 0 for
            all.
        :param presences: a bool, whether the members' presences come, too; needs the intent
            GUILD_PRESENCES.
        :param user_ids: one id or up to 100, instead of `query`.
        :param timeout: seconds for all of it; None waits without end.
        :param progress: ``(received, total)``, called on the calling thread after each chunk, of
            up to 1,000 members: how many have come, and how many there are. What it raises is
            raised here.
        :returns: a :class:`~shardlib.GuildMembers`, a list of member objects, with the attributes
            ``presences`` and ``not_found``.
        :raises TimeoutError: if not all chunks came in time; the message says how many did. If the
            bot is in no such guild, Discord answers nothing.
        :raises NotReady: if the shard is not READY in time; nothing was sent.
        :raises SendTimeout: if the request could not be sent in time.
        :raises ShardClosed: if the shard is closed, now or meanwhile.
        :raises ConnectionFailed: if it is closed since it could not connect.
        :raises SystemExit: if a callback raised it, and so closed the shard.
        :raises KeyboardInterrupt: if a callback raised it, and so closed the shard.
        :raises ShardError: if the shard was never connected; in a callback, before whose return no
            answer can be received; and in a signal handler that has interrupted another call.
        :raises ValueError: if an argument has a value that Discord does not take, or `query` and
            `user_ids` are both given; nothing was sent.
        :raises TypeError: if an argument has the wrong type; nothing was sent.
        """
        check_timeout("timeout", timeout)
        return fetching.fetch_guild_members(
            self._line("fetch_guild_members"),
            guild_id,
            query=query,
            limit=limit,
            presences=presences,
            user_ids=user_ids,
            timeout=timeout,
            progress=progress,
        )

    def fetch_soundboard_sounds(
        self, guild_ids: Iterable[Snowflake], *, timeout: float | None = 10.0
    ) -> dict[Snowflake, list[dict[str, Any]]]:
        """Ask for guilds' soundboard sounds, and return them.

        Blocks, asks again and raises as :meth:`fetch_guild_members` does.

        :param guild_ids: the guilds' ids, each an int or a str of digits; at least one.
        :param timeout: seconds for all of it; None waits without end.
        :returns: a dict: for each id, as it was given, a list of soundboard sound objects.
        :raises TimeoutError: if not all sounds came in time; the message says whose did not. If the
            bot is in no such guild, Discord answers nothing.
        :raises ValueError: if there is no id, or one that cannot be; nothing was sent.
        :raises TypeError: if an argument has the wrong type; nothing was sent.
        """
        check_timeout("timeout", timeout)
        return fetching.fetch_soundboard_sounds(
            self._line("fetch_soundboard_sounds"), guild_ids, timeout
        )

    def fetch_channel_info(
        self,
        guild_id: Snowflake,
        fields: Iterable[str] = payloads.CHANNEL_INFO_FIELDS,
        *,
        timeout: float | None = 10.0,
    ) -> list[dict[str, Any]]:
        """Ask about a guild's channels, and return what is known of them.

        Blocks, asks again and raises as :meth:`fetch_guild_members` does.

        :param guild_id: the guild's id, an int or a str of digits.
        :param fields: one or both of "status" and "voice_start_time".
        :param timeout: seconds for all of it; None waits without end.
        :returns: the ``channels`` of CHANNEL_INFO, a list of dicts with ``id`` and the fields.
        :raises TimeoutError: if the answer did not come in time. If the bot is in no such guild,
            Discord answers nothing.
        :raises ValueError: if `fields` has another field or none, or the id cannot be one; nothing
            was sent.
        :raises TypeError: if an argument has the wrong type; nothing was sent.
        """
        check_timeout("timeout", timeout)
        return fetching.fetch_channel_info(
            self._line("fetch_channel_info"), guild_id, fields, timeout
        )

    def join_voice(
        self,
        guild_id: Snowflake,
        channel_id: Snowflake,
        *,
        self_mute: bool = False,
        self_deaf: bool = False,
        timeout: float | None = 10.0,
    ) -> VoiceUpdates:
        """Join a voice channel, or move to it, and return what a voice library needs to connect.

        Blocks, asks again and raises as :meth:`fetch_guild_members` does. The bot's own state comes
        only with the intent GUILD_VOICE_STATES. Discord tells a server to those who join: a bot
        that is in the channel already leaves first, by ``update_voice_state(guild_id, None)``
        (https://docs.discord.com/developers/topics/voice-connections#retrieving-voice-server-information).

        :param guild_id: the guild's id, an int or a str of digits.
        :param channel_id: the channel's id, likewise.
        :param self_mute: a bool, whether the bot is mute.
        :param self_deaf: a bool, whether the bot is deaf.
        :param timeout: seconds for all of it; None waits without end.
        :returns: a :class:`~shardlib.VoiceUpdates`: the data of the bot's VOICE_STATE_UPDATE, with
            the ``session_id``, and that of VOICE_SERVER_UPDATE, with ``token`` and ``endpoint``.
        :raises TimeoutError: if the two did not come in time; the bot may have joined all the same.
        :raises ValueError: if an id cannot be one; nothing was sent.
        :raises TypeError: if an argument has the wrong type; nothing was sent.
        """
        if channel_id is None:
            raise TypeError("channel_id must be an int or a str of digits, not NoneType")
        check_timeout("timeout", timeout)
        return fetching.join_voice(
            self._line("join_voice"),
            guild_id,
            channel_id,
            self_mute=self_mute,
            self_deaf=self_deaf,
            timeout=timeout,
        )

    def heartbeat(self, requested: bool = False) -> None:
        """Have a heartbeat sent now, beside the scheduled ones.

        The heartbeat thread sends it, as soon as the send window has room for it; one heartbeat
        answers all calls that wait. Never blocks
        (https://docs.discord.com/developers/events/gateway#sending-heartbeats).

        :param requested: a bool, whether the Gateway asked for it. If not, and the last scheduled
            heartbeat has not been acknowledged for 5 seconds (or for Hello's interval, if that is
            shorter) though the reader has read all there is, the connection is a zombie: it is
            given up, and the session resumed.
        :raises NotReady: if no connection has received Hello.
        :raises TypeError: if `requested` is not a bool.
        """
        self._process.check()
        check_type("requested", requested, bool)
        self._live_heartbeat().request(by_gateway=requested)

    def heartbeat_in(self, milliseconds: float) -> None:
        """Send a heartbeat after so many milliseconds, and keep that pace on this connection.

        The next connection beats at the interval of its own Hello. Heartbeats that are quicker than
        Hello's interval share the send window with :meth:`send`; how long an acknowledgement may
        take still goes by Hello's interval. Never blocks.

        :param milliseconds: a number above 0.
        :raises NotReady: if no connection has received Hello.
        :raises ValueError: if `milliseconds` is not above 0, or is endless.
        :raises TypeError: if `milliseconds` is no number.
        """
        self._process.check()
        self._live_heartbeat().change_pace(check_positive("milliseconds", milliseconds))

    # Refusals: any thread

    def _begin_in_forked_child(self) -> None:
        """Leave the connection to the parent; or be the child's shard, if there was none yet."""
        if self._lifecycle.began:
            self._reader.leave_to_parent()
            return
        self._callbacks.begin_in_forked_child()
        self._create_reader()
        self._process.take_over()

    def _begin(self, beginning: Beginning) -> None:
        """Begin a life. If it is awaited, wait until its first socket is open."""
        self._control.begin(self._checked(beginning))

    def _checked(self, beginning: Beginning) -> Beginning:
        """Return the beginning of a life; raise if it can't be."""
        gateway_url(beginning.socket_url, beginning.socket_version, self._options.compression)
        return beginning

    def _warn_of_twin(self) -> None:
        """Tell once that another shard of this process receives the same events."""
        same = (self.token, self.shard_id, self.shard_count)
        if not self._warned_of_twin and any(
            other is not self and (other.token, other.shard_id, other.shard_count) == same
            for other in running_shards()
        ):
            self._warned_of_twin = True
            self._callbacks.log(
                logging.WARNING,
                "another Shard of this process is connected with the same token, shard_id and "
                "shard_count, so both receive every event; disconnect() the one that is not "
                "wanted: shardlib.running_shards() returns both, also one that no name refers to "
                "any more",
            )

    def _renew(self, request: Request, no_fail: bool | None = None) -> None:
        """Ask the reader for a new connection, and wait until it is open."""
        lifecycle = self._lifecycle
        life = lifecycle.latest
        own = lifecycle.in_reader_thread()
        if life.ended or (own and life.is_over):
            new_session = request is Request.REINSTANTIATE
            self._begin(life.beginning.renewed(no_fail, new_session))
            return
        if life.is_over:
            raise life.closed_error()
        waits = not own and not has_interrupted_own_call()
        opened = life.sockets_opened
        # A connection that is being made will do, if it begins as is wished.
        if request is Request.RECONNECT:
            joined = life.state in ON_THE_WAY
        else:
            joined = self.session_id is None and life.join_connection(no_fail)
        if not joined:
            life.request_connection(request, no_fail=no_fail, immediate=not own)
        elif life.state in SOCKET_OPEN:
            return  # its socket is open already
        if waits:
            lifecycle.wait_in(life, lambda: life.sockets_opened > opened, Deadline(None))
            if life.is_over:
                raise life.closed_error()

    def _live_heartbeat(self) -> Heartbeat:
        heartbeat = self._reader.heartbeat
        if heartbeat is None or not self.socket_active:
            raise NotReady(
                "heartbeats begin with Hello, which has not come: the shard is "
                f"{self.state.value}; connect() and wait_until_ready() first"
            )
        return heartbeat

    # Sending

    def _send_payload(self, payload: Payload, timeout: float | None) -> None:
        self.send(payloads.encode(payload, self._options.json), timeout)

    def _line(self, method: str) -> Line:
        """What a method needs that asks the Gateway and waits for the answer."""
        self._process.check()
        life = self._control.begun_life(method)
        self._control.refuse_to_wait(method)
        json = self._options.json
        from shardlib.fetching import Line  # here: few programs need it

        return Line(
            self._callbacks,
            self._lifecycle,
            life,
            session=lambda: self._reader.protocol.session,
            connection=lambda: self._reader.connection,
            send=lambda payload, timeout: self._send(payloads.encode(payload, json), timeout, None),
        )

    def _send(
        self, data: str, timeout: float | None, sent: Callable[[], object] | None
    ) -> Connection:
        """:meth:`send`; returns the connection that took the payload."""
        deadline = Deadline(self._options.send_timeout if timeout is None else timeout)
        if has_interrupted_own_call() and not self._lifecycle.in_reader_thread():
            raise SendTimeout(
                "nothing was sent: a signal handler can't send while the call that it has "
                "interrupted may be sending; let it set a flag, or send on another thread"
            )
        life = self._lifecycle.latest
        while True:
            connection = self._ready_connection(life, deadline)
            try:
                wait = connection.send(data, deadline, sent=sent)
            except SendTimeout:
                raise
            except StreamBroken as error:
                if isinstance(error.__cause__, ssl.SSLError):
                    raise NotReady(
                        f"the connection was lost while sending ({error}); whether the payload "
                        "arrived is not known"
                    ) from error
                # The system did not take all of the payload, so the Gateway has not got it. It goes
                # out on the next connection. A callback cannot wait for that.
                if self._lifecycle.in_reader_thread():
                    raise NotReady(
                        "nothing was sent: the connection was lost; send again when READY"
                    ) from None
                self._wait_for_another_connection(life, connection, deadline)
                if deadline.remaining() == 0:
                    raise NotReady("nothing was sent in time: the connection was lost") from None
                continue
            if not wait:
                self._reader.log_sent(data)
                return connection
            left = deadline.remaining()
            if self._lifecycle.in_reader_thread() or (left is not None and left < wait):
                raise SendTimeout(
                    "nothing was sent: this connection's sends of the last minute are used up "
                    f"(Discord allows {SEND_LIMIT}); there is room again in "
                    f"{count(round(wait, 1), 'second')}"
                )
            self._wait_for_another_connection(life, connection, Deadline(wait))

    def _wait_for_another_connection(
        self, life: Life, connection: Connection, deadline: Deadline
    ) -> None:
        """Wait until a connection is READY no more: the next one may be so already.

        Only the reader can notice that. If it waits for room in a queue that the calling thread
        empties, this lets it go on.
        """
        self._lifecycle.wait_in(
            life,
            lambda: not life.is_ready or self._reader.connection is not connection,
            deadline,
        )

    def _ready_connection(self, life: Life, deadline: Deadline) -> Connection:
        while True:
            # First: a connection that replaces this one meanwhile is not READY yet.
            connection = self._reader.connection
            if life.is_ready:
                return connection
            if life.is_over and self._lifecycle.began:
                raise life.closed_error()
            if self._lifecycle.in_reader_thread():
                raise NotReady(
                    f"nothing was sent: the shard is {life.state.value}, not ready, and a callback "
                    "cannot wait for that; send in on_socket_ready, or on another thread"
                )
            if life.ended:
                raise NotReady(
                    f"nothing was sent: the shard is {life.state.value}, not ready; connect() and "
                    "wait_until_ready() first"
                )
            if not self._lifecycle.wait_in(life, lambda: life.is_ready, deadline):
                raise NotReady(
                    "nothing was sent: the shard did not become ready in time, it is "
                    f"{life.progress()}"
                )

    def _handle_message(self, message: bytes | str) -> None:
        """Handle a WebSocket message as the reader does: inflate, decode, act, call back.

        Needs no socket, so that the protocol can be tried without one; not to be called while the
        shard is connected. The callbacks run on the calling thread.

        :param message: a whole WebSocket message, bytes if it is binary, str if it is text. One
            that cannot be read is told to on_socket_error, and raises nothing here.
        :raises TypeError: if `message` is neither bytes nor str.
        """
        if not isinstance(message, (bytes, str)):
            raise TypeError(f"message must be bytes or str, not {type(message).__name__}")
        self._process.check()
        self._reader.handle_message(message)


def _check_sequence(sequence: int, highest: int | None) -> None:
    """Check a sequence that the user names.

    :param highest: that the session has brought; None if that is not known.
    :raises ValueError: if it is negative, or higher.
    :raises TypeError: if it is not an int.
    """
    check_type("sequence", sequence, int)
    if sequence < 0 or (highest is not None and sequence > highest):
        most = (
            "" if highest is None else f" to {highest}, the last one that the session has brought"
        )
        raise ValueError(f"sequence must be from 0{most}, not {sequence}")


def _check_callback_name(name: str) -> None:
    """Check a name that is assigned, or that a subclass defines.

    :raises AttributeError: if it looks like a callback's and is none.
    """
    if name.startswith("on_socket_") and name not in _CALLBACKS:
        raise AttributeError(f"a shard has no callback {name!r}; it has {', '.join(_CALLBACKS)}")


# All shards there are. Those with a reader are closed at exit while threads still can: a daemon
# thread that wakes up in an interpreter being torn down may crash, or write noise on stderr.
_shards: weakref.WeakValueDictionary[int, Shard] = weakref.WeakValueDictionary()


def _shards_of_this_process() -> list[Shard]:
    # Of a list that is made in one step: other threads may make shards meanwhile, and a set that
    # changes cannot be gone through.
    shards = [shard for reference in _shards.valuerefs() if (shard := reference()) is not None]
    return [shard for shard in shards if not shard._process.is_parent]


def running_shards() -> list[Shard]:
    """The shards of this process that are connected, or try to be, oldest first.

    A running shard goes on though no name refers to it any more, as happens when a cell of a
    notebook that makes a shard is run again. To stop all::

        for shard in shardlib.running_shards():
            shard.disconnect()

    Any thread may call this; it never blocks.
    """
    return [shard for shard in _shards_of_this_process() if not shard._lifecycle.latest.is_over]


def _close_all_at_exit() -> None:
    """Close every shard as the interpreter exits; their sessions stay resumable."""
    deadline = Deadline(EXIT_TIMEOUT)
    shards = _shards_of_this_process()
    ours = [shard._lifecycle for shard in shards]
    for lifecycle in ours:
        lifecycle.interpreter_exits()
    lives = [lifecycle.request_close(RESUMABLE_CLOSE_CODE, deadline) for lifecycle in ours]
    peer_deadline = Deadline(EXIT_TIMEOUT * PEERS_SHARE)
    for lifecycle, life in zip(ours, lives, strict=True):
        lifecycle.close(life, deadline, peer_deadline)
    for shard in shards:  # a dispatcher may have callbacks left, on_socket_closed for one
        shard._lifecycle.wait(shard._callbacks.are_done, deadline)


run_at_exit(_close_all_at_exit)


def _begin_all_in_forked_child() -> None:
    for reference in _shards.valuerefs():
        shard = reference()
        if shard is not None:
            shard._begin_in_forked_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all_in_forked_child)
