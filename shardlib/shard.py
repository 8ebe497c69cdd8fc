"""Shard: one session with Discord's Gateway, as an ordinary object.

Two threads serve a connected shard: the reader (:mod:`shardlib.reader`), which owns its life and
calls the user's functions, and the heartbeat (:mod:`shardlib.heartbeat`) of each connection. What
is in this file runs on the threads of users: it states wishes, wakes the reader, and waits for what
comes of it.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import logging
import os
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import ujson
import websocket

from shardlib import payloads
from shardlib.callbacks import Callback, Callbacks, Logger, Predicate, Waiter
from shardlib.checks import check_callback, check_positive, check_timeout, check_type
from shardlib.connection import RESUMABLE_CLOSE_CODE, Connection
from shardlib.control import Control, Wish
from shardlib.deadline import Deadline
from shardlib.errors import AlreadyConnected, ForkedProcess, NotReady, SendTimeout, ShardError
from shardlib.gateway import API_VERSION, GATEWAY_URL, Opcode, gateway_url
from shardlib.heartbeat import Heartbeat
from shardlib.limits import Backoff, IdentifyGate
from shardlib.options import Options
from shardlib.payloads import JSONModule, Payload, Snowflake
from shardlib.protocol import Protocol
from shardlib.reader import ENDS_SESSION, Reader, create_connection
from shardlib.session import Session
from shardlib.state import ENDING, IDENTIFIED, ON_THE_WAY, SOCKET_OPEN, ShardState
from shardlib.stats import Stats

NORMAL_CLOSURE = 1000  # RFC 6455, section 7.4.1

# Seconds for all shards together to say goodbye while the interpreter exits.
EXIT_TIMEOUT = 0.5

_Function = TypeVar("_Function", bound=Callback)


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
    :param identify_gate: when to identify; by default one gate for all shards of the token. What it
        raises is told to on_socket_error, and it is asked again, on another connection.
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
        logger: Logger | None = None,
    ) -> None:
        self._options = options = Options(
            token=token,
            intents=intents,
            shard_id=shard_id,
            shard_count=shard_count,
            should_reconnect=should_reconnect,
            large_threshold=large_threshold,
            presence=presence,
            properties=properties,
            compression=compression,
            session=session,
            json=json,
            identify_gate=identify_gate,
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
        )
        self.on_socket_connected = check_callback("on_socket_connected", on_socket_connected, 1)
        self.on_socket_reconnected = check_callback(
            "on_socket_reconnected", on_socket_reconnected, 2
        )
        self.on_socket_disconnected = check_callback(
            "on_socket_disconnected", on_socket_disconnected, 3
        )
        self.on_socket_heartbeat = check_callback("on_socket_heartbeat", on_socket_heartbeat, 2)
        self.on_socket_dispatch = check_callback("on_socket_dispatch", on_socket_dispatch, 2)
        self.on_socket_raw_message = check_callback(
            "on_socket_raw_message", on_socket_raw_message, 2
        )
        self.on_socket_ready = check_callback("on_socket_ready", on_socket_ready, 1)
        self.on_socket_error = check_callback("on_socket_error", on_socket_error, 2)
        self.on_socket_closed = check_callback("on_socket_closed", on_socket_closed, 2)
        self.logger: Logger = logger or logging.getLogger(f"shardlib.shard.{shard_id}")

        self._process_id = os.getpid()
        self._stats = Stats()
        self._control = Control(create_connection(options, GATEWAY_URL, API_VERSION))
        self._callbacks = Callbacks(self, self.logger, self._control)
        self._protocol = Protocol(options, self._control, self._callbacks, self._stats)
        self._reader = Reader(options, self._control, self._callbacks, self._protocol, self._stats)
        _shards[self] = None

    # What a user sees

    def __repr__(self) -> str:
        return f"<Shard {self.shard_id}/{self.shard_count} {self.state.value}>"

    @property
    def token(self) -> str:
        """The bot's token."""
        return self._options.token

    @property
    def intents(self) -> int:
        """What the bot wants to receive."""
        return self._options.intents

    @property
    def shard_id(self) -> int:
        """Number of this shard, from 0."""
        return self._options.shard_id

    @property
    def shard_count(self) -> int:
        """Number of the bot's shards."""
        return self._options.shard_count

    @property
    def should_reconnect(self) -> bool:
        """Whether a lost connection is followed by another."""
        return self._options.should_reconnect

    @property
    def large_threshold(self) -> int | None:
        """Members from which a guild's offline ones are left out, or None for Discord's default."""
        return self._options.large_threshold

    @property
    def socket_url(self) -> str:
        """What connect() was given."""
        return self._control.socket_url

    @property
    def socket_version(self) -> int:
        """What connect() was given."""
        return self._control.socket_version

    @property
    def state(self) -> ShardState:
        """Where in its life the shard is."""
        return self._control.state

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
        return self.state is ShardState.WAITING or (
            self.state is ShardState.CONNECTING
            and self._control.opened > self._control.opened_before
        )

    @property
    def socket_disconnecting(self) -> bool:
        """Whether the shard is being closed for good."""
        return self.state is ShardState.CLOSING

    @property
    def session_id(self) -> str | None:
        """Of the current session, or None."""
        return self._protocol.session.session_id

    @property
    def session_gateway(self) -> str | None:
        """READY's ``resume_gateway_url``: where the current session is resumed, or None."""
        return self._protocol.session.gateway

    @property
    def last_sequence(self) -> int | None:
        """Sequence of the last event received in the current session, or None."""
        return self._protocol.session.last_sequence

    @property
    def session(self) -> Session | None:
        """What it takes to resume the current session after a restart of the process, or None.

        Its sequence is that of the last event whose callbacks have returned: an event in whose
        callback the process dies is replayed.
        """
        session = self._protocol.session
        if session.session_id is None:
            return None
        return Session(
            session_id=session.session_id,
            sequence=session.completed_sequence,
            resume_gateway_url=session.gateway,
            shard_id=self.shard_id,
            shard_count=self.shard_count,
        )

    @property
    def socket_instance(self) -> websocket.WebSocket | None:
        """The live websocket-client object, or None. To look at: reading and sending are ours."""
        return self._control.connection.websocket

    @property
    def socket_thread(self) -> threading.Thread | None:
        """The reader thread, or None."""
        return self._control.thread

    @property
    def heartbeat_thread(self) -> threading.Thread | None:
        """The heartbeat thread of this connection, or None."""
        heartbeat = self._control.connection.heartbeat
        if heartbeat is None or heartbeat.thread is None or not heartbeat.thread.is_alive():
            return None
        return heartbeat.thread

    @property
    def heartbeat_interval(self) -> float | None:
        """Milliseconds, as this connection's Hello gave it, or None before."""
        heartbeat = self._control.connection.heartbeat
        return None if heartbeat is None else heartbeat.interval

    @property
    def heartbeat_acknowledged(self) -> bool:
        """False while a scheduled heartbeat of this connection waits for its acknowledgement."""
        heartbeat = self._control.connection.heartbeat
        return heartbeat is None or heartbeat.acknowledged

    @property
    def heartbeat_clock_time(self) -> float | None:
        """``time.perf_counter()`` of the last heartbeat sent on this connection, or None."""
        heartbeat = self._control.connection.heartbeat
        return None if heartbeat is None else heartbeat.clock_time

    @property
    def heartbeat_ping(self) -> float | None:
        """Seconds of the last round trip on this connection, or None."""
        heartbeat = self._control.connection.heartbeat
        return None if heartbeat is None else heartbeat.ping

    @property
    def zlib_buffer(self) -> bytes:
        """Bytes of a message that is not complete yet, of the current connection."""
        self._check_process()  # reading it takes a lock
        return self._control.connection.inflater.buffer()

    @property
    def stats(self) -> Stats:
        """A snapshot of the counters."""
        return dataclasses.replace(
            self._stats,
            events=self._stats.events.copy(),
            bytes_received=self._control.connection.bytes_received,
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
        self._check_process()
        check_type("event", event, str)

        def register(function: _Function) -> _Function:
            if not callable(function):
                raise TypeError(f"a function listens to {event}, not {type(function).__name__}")
            check_callback(f"a listener to {event}", function, 2)
            self._callbacks.add_listener(event.upper(), function)
            return function

        return register

    def off(self, event: str, function: Callback) -> None:
        """Undo :meth:`on`.

        :raises ValueError: where the function does not listen to the event.
        """
        self._check_process()
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
        check_callback("predicate", predicate, 1)
        deadline = Deadline(check_timeout("timeout", timeout))
        self._refuse_on_own_thread("wait_for")
        waiter = Waiter(predicate)
        self._callbacks.add_waiter(event.upper(), waiter)
        try:
            in_time = self._control.wait(lambda: waiter.done or self._control.has_ended(), deadline)
        finally:
            self._callbacks.remove_waiter(event.upper(), waiter)
        if waiter.error is not None:
            raise waiter.error
        if waiter.done:
            return waiter.data
        if not in_time:
            raise TimeoutError(f"no {event.upper()} came within {timeout:g} seconds")
        raise self._control.why_ended()

    # Life

    def connect(self, socket_url: str = GATEWAY_URL, socket_version: int = API_VERSION) -> None:
        """Open a socket and start the reader; blocks until the socket is open.

        With a session left from before (given to the constructor, or kept by ``disconnect(4000)``)
        the shard resumes it, at :attr:`session_gateway` or, where that can't be reached, at
        `socket_url`; else it identifies. Where the first attempt fails, nothing is left running. A
        callback may call this after :meth:`disconnect`: the shard begins anew once it is closed.

        :param socket_url: where to connect, a ``ws://`` or ``wss://`` URL.
        :param socket_version: version of the Gateway's API.
        :raises ConnectionFailed: where the first attempt fails, within `connect_timeout`, or twice
            that where there are two URLs to try.
        :raises AlreadyConnected: where the shard is running.
        """
        self._check_process()
        # Raises where the arguments can't be.
        gateway_url(socket_url, socket_version, self._options.compression)
        self._begin(socket_url, socket_version, None)

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
            if code not in ENDS_SESSION and not 4000 <= code <= 4999:
                raise ValueError(f"code is 1000, 1001, or from 4000 to 4999, not {code}")
        if not self._control.wish_disconnect(NORMAL_CLOSURE if code is None else code):
            return
        if self._control.on_own_thread():
            return  # the reader says goodbye when the callback has returned
        # The larger part for the peer's answer, then what is left to end without it.
        timeout = self._options.close_timeout
        if not self._wait_until_gone(Deadline(timeout * 0.75)):
            self._control.connection.abort()
            self._wait_until_gone(Deadline(timeout * 0.25))

    def reconnect(self) -> None:
        """Close with a resumable code, connect again and Resume; blocks until the socket is open.

        Where a connection is on its way already, this waits for that one. On the reader thread it
        returns at once, and the usual back-off applies. A shard that is not running is connected.

        :raises ShardClosed: where the shard was closed meanwhile; ConnectionFailed where it closed
            since it is not to reconnect.
        """
        self._check_process()
        self._renew(Wish.RECONNECT)

    def resume(self) -> None:
        """Connect to :attr:`session_gateway` and Resume, as :meth:`reconnect` does.

        :raises NotReady: where there is no session to resume.
        """
        self._check_process()
        if self.session_id is None:
            raise NotReady("there is no session to resume; connect() begins one")
        self._renew(Wish.RECONNECT)

    def reinstantiate(self, no_fail: bool | None = None) -> None:
        """Drop the session, connect to :attr:`socket_url` and Identify; else as :meth:`reconnect`.

        :param no_fail: True: keep trying until a session begins; False: the first failure closes
            the shard; None: as `should_reconnect` says.
        """
        self._check_process()
        check_type("no_fail", no_fail, bool, optional=True)
        self._renew(Wish.REINSTANTIATE, no_fail)

    def identify(self) -> None:
        """Send Identify, where the reader has not done so yet: it does at Hello, at its turn.

        :raises NotReady: where no connection has received Hello.
        :raises AlreadyConnected: where Identify or Resume was sent on this connection.
        """
        self._check_process()
        connection = self._control.connection
        if self.socket_identified:
            raise AlreadyConnected(
                "Identify or Resume was sent on this connection; for a new session reinstantiate()"
            )
        if connection.heartbeat is None or not self.socket_active:
            raise NotReady("Identify follows Hello; connect() first")
        self._protocol.identify(connection)

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Block until events flow.

        :param timeout: seconds.
        :raises TimeoutError: where it took longer.
        :raises ShardClosed: where the shard is closed, now or meanwhile, with the reason.
        :raises ConnectionFailed: where the first attempt to connect failed.
        """
        self._check_process()
        deadline = Deadline(check_timeout("timeout", timeout))
        if not self._control.is_ready():
            self._refuse_on_own_thread("wait_until_ready")
        if not self._control.wait(
            lambda: self._control.is_ready() or self._control.has_ended(), deadline
        ):
            raise TimeoutError(f"the shard was not ready within {timeout:g} seconds")
        if self._control.has_ended():
            raise self._control.why_ended()

    def join(self, timeout: float | None = None) -> None:
        """Block until the shard is closed and its reader has ended.

        :param timeout: seconds.
        :raises TimeoutError: where it goes on.
        :raises ShardClosed: the error that closed it, where it wasn't :meth:`disconnect`.
        """
        self._check_process()
        deadline = Deadline(check_timeout("timeout", timeout))
        self._refuse_on_own_thread("join")
        if not self._wait_until_gone(deadline):
            raise TimeoutError(f"the shard was not closed within {timeout:g} seconds")
        if self._control.error is not None:
            raise self._control.why_ended()

    def run_forever(self, socket_url: str = GATEWAY_URL, socket_version: int = API_VERSION) -> None:
        """:meth:`connect`, then :meth:`join`. Ctrl-C disconnects and returns.

        :raises ShardError: as those two do.
        """
        try:
            self.connect(socket_url, socket_version)
            self.join()
        except KeyboardInterrupt:
            if self._control.error is not None:  # Ctrl-C as a callback met it: its own way out
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
        if error is None and self._control.error is not None:
            raise self._control.why_ended()

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
        sent = None
        if payload["op"] == Opcode.PRESENCE_UPDATE:
            presence = payloads.check_presence(payload.get("d") or {})
            self._options.identify(presence)  # raises where no later session could begin with it
            sent = functools.partial(self._protocol.keep_presence, presence)
        self._send(data, check_timeout("timeout", timeout), sent)

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

    def _refuse_on_own_thread(self, method: str) -> None:
        if self._control.on_own_thread():
            raise ShardError(
                f"{method}() was called in a callback: it would wait for what can only happen "
                "after the callback has returned; call it on another thread"
            )

    def _wait_until_gone(self, deadline: Deadline) -> bool:
        """Wait until the shard is closed, and its threads have left the list of threads."""
        threads = (self._control.thread, self.heartbeat_thread)
        if not self._control.wait(lambda: self._control.thread is None, deadline):
            return False
        for thread in threads:
            # Past its last line, only its end is to be noticed; unless it is the caller, in a log
            # handler of the user's on the heartbeat thread: nobody can join himself.
            if thread is not None and thread is not threading.current_thread():
                thread.join(deadline.remaining())
        return True

    def _begin(self, socket_url: str, socket_version: int, persist: bool | None) -> None:
        """Start the reader, and wait until a socket is open. What `persist` is, Control says."""
        with self._control.changed:
            if self._control.on_own_thread():
                if self.state not in ENDING:
                    raise AlreadyConnected("the shard is connected; disconnect() first")
                self._control.restart = (socket_url, socket_version, persist)
                return
            self._control.wait(
                lambda: self._control.thread is None or self.state not in ENDING, Deadline(None)
            )
            if self._control.thread is not None:
                raise AlreadyConnected("the shard is connected; disconnect() first")
            self._control.begin(socket_url, socket_version, persist)
            opened = self._control.opened
            self._control.first_attempt = True
            self._reader.start()
        try:
            self._control.wait(lambda: not self._control.first_attempt, Deadline(None))
        except BaseException:  # Ctrl-C: nobody would know of the connection that is on its way
            self._control.wish_disconnect(NORMAL_CLOSURE)
            raise
        if self._control.opened == opened:
            raise self._control.why_ended()

    def _renew(self, wish: Wish, persist: bool | None = None) -> None:
        """Ask the reader for a new connection, and wait until it is open."""
        control = self._control
        own = control.on_own_thread()
        with control.changed:
            running = control.thread is not None and not (own and self.state in ENDING)
            if running and self.state in ENDING:
                raise control.why_ended()
            connection = control.connection
            opened = control.opened
            # A connection that is being made will do, if it begins as is wished.
            on_the_way = self.state in ON_THE_WAY and (
                wish is Wish.RECONNECT or self.session_id is None
            )
            if running and wish is Wish.REINSTANTIATE:
                control.persist = persist  # for the connection on its way, too
            if on_the_way and self.socket_active:
                return  # its socket is open already
            if running and not on_the_way:
                control.wish = max(wish, control.wish or wish)
                control.at_once = control.at_once or not own
                control.changed.notify_all()
        if not running:
            if wish is Wish.REINSTANTIATE:
                self._protocol.drop_session()
            self._begin(self.socket_url, self.socket_version, persist)
        elif not own:
            if not on_the_way:
                connection.give_up("a new connection was asked for")
            control.wait(lambda: control.opened > opened or control.has_ended(), Deadline(None))
            if control.has_ended():
                raise control.why_ended()

    def _live_heartbeat(self) -> Heartbeat:
        heartbeat = self._control.connection.heartbeat
        if heartbeat is None or not self.socket_active:
            raise NotReady("heartbeats begin with Hello; connect() first")
        return heartbeat

    def _send_payload(self, payload: Payload, timeout: float | None) -> None:
        self.send(payloads.encode(payload, self._options.json), timeout)

    def _send(self, data: str, timeout: float | None, sent: Callable[[], object] | None) -> None:
        deadline = Deadline(self._options.send_timeout if timeout is None else timeout)
        connection = self._ready_connection(deadline)
        while wait := connection.window.try_acquire():
            left = deadline.remaining()
            if self._control.on_own_thread() or (left is not None and left < wait):
                raise SendTimeout(
                    "nothing was sent: this connection's sends of the last minute are used up "
                    f"(Discord allows 120); there is room again in {wait:.1f} seconds"
                )
            self._control.wait(lambda: not self._control.is_ready(), Deadline(wait))
            connection = self._ready_connection(deadline)
        try:
            connection.send(data, deadline, sent)
        except SendTimeout:
            raise
        except OSError as error:
            raise NotReady(
                f"the connection was lost while sending ({error}); whether the payload arrived is "
                "not known"
            ) from error

    def _ready_connection(self, deadline: Deadline) -> Connection:
        with self._control.changed:
            if not self._control.is_ready() and not self._control.has_ended():
                if self._control.thread is None or self._control.on_own_thread():
                    raise NotReady(f"nothing was sent: the shard is {self.state.value}, not ready")
                if not self._control.wait(
                    lambda: self._control.is_ready() or self._control.has_ended(), deadline
                ):
                    raise NotReady(
                        "nothing was sent: the shard did not become ready in time, it is "
                        f"{self.state.value}"
                    )
            if self._control.has_ended():
                raise self._control.why_ended()
            return self._control.connection

    def _handle_message(self, message: bytes | str) -> None:
        """Handle a WebSocket message as the reader does: inflate, decode, act, call back.

        Needs no socket, so that the protocol can be tried without one.
        """
        self._protocol.handle_message(message)


# All shards there are. Those with a reader take leave at exit while threads still can: a daemon
# thread that wakes up in an interpreter being torn down may crash, or write noise on stderr.
_shards: weakref.WeakKeyDictionary[Shard, None] = weakref.WeakKeyDictionary()


def _take_leave() -> None:
    """Close every shard as the interpreter exits; their sessions stay resumable."""
    deadline = Deadline(EXIT_TIMEOUT)
    # A list made at once: other threads may be making shards, over which a set would stumble.
    shards = [shard for reference in _shards.keyrefs() if (shard := reference()) is not None]
    ours = [shard._control for shard in shards if shard._process_id == os.getpid()]
    for control in ours:
        control.leaving = True
    for control in [each for each in ours if each.wish_disconnect(RESUMABLE_CLOSE_CODE)]:
        control.wait(lambda control=control: control.thread is None, deadline)  # type: ignore[misc]


atexit.register(_take_leave)
