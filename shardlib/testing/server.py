"""The local gateway itself: its listeners, its thread, and what a test orders it to do."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from shardlib.gateway import (
    IDENTIFY_INTERVAL,
    SEND_LIMIT,
    SESSION_START_LIMIT,
    Intents,
)

from . import tls as certificates
from .clock import Clock
from .commands import name_of
from .connection import GatewayConnection, ReceivedPayload
from .faults import Action, Fault, Faults
from .link import Link
from .sessions import Event, GatewaySession, Sessions
from .traffic import Traffic
from .world import World

_T = TypeVar("_T")

_logger = logging.getLogger("shardlib.testing")

#: How many received payloads the gateway remembers.
_HISTORY = 20_000

#: Seconds between two requests for all members of one guild (change log, "Introducing Rate
#: Limit When Requesting All Guild Members").
_ALL_MEMBERS_INTERVAL = 30.0


class LocalGateway:
    """Discord's Gateway on this machine, for tests and for trying things out.

    ::

        with LocalGateway() as gateway:
            shard = Shard(gateway.token, Intents.default())
            shard.connect(gateway.url)
            gateway.wait_for_connection().wait_until_ready()
            gateway.dispatch("MESSAGE_CREATE", {...})

    It speaks the documented protocol over real sockets, to any number of clients in any
    language, checks what they send, and does on command what Discord does now and then.  One
    daemon thread serves all connections; every method here may be called from any other
    thread, and none waits but those with a ``timeout``.

    :param token: the token clients must show; by default a new one for every gateway
    :param heartbeat_interval: milliseconds, as Hello gives it
    :param heartbeat_tolerance: seconds a heartbeat may be late until the connection is closed
    :param seed: of the world and its traffic
    :param guilds: how many guilds the bot is in
    :param members: how many members each has, beside the bot
    :param shards: the recommended number of shards, for ``/gateway/bot``
    :param tls: serve ``wss://``, with a certificate of a throw-away authority that
        :attr:`ssl_context` trusts
    :param host: the address to listen at
    :param port: 0 for any free one; :attr:`resume_url` always has one of its own
    :param allowed_intents: the privileged intents outside are answered with 4014
    :param max_concurrency: Identifies allowed for every ``identify_interval``
    :param identify_interval: seconds between two Identifies of a bucket, else op 9; 0 for none
    :param session_start_limit: Identifies a day until the token is reset
    :param session_timeout: seconds a session is kept for a Resume
    :param max_guilds_per_shard: more are answered with 4011
    :param send_limit: payloads a client may send in 60 seconds, else 4008; None for no limit
    :param replay_limit: events kept for a Resume; one that needs more is answered with op 9
    :param close_timeout: seconds to wait for a client's answer to a CLOSE frame
    :param receive_buffer: bytes the operating system takes for the gateway before it reads
        (``SO_RCVBUF``); small to see what a client does whose sends are stuck
    :param clock: the clock that all limits and timeouts go by
    :raises ValueError, TypeError: an argument makes no sense
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        heartbeat_interval: int = 41_250,
        heartbeat_tolerance: float = 5.0,
        seed: int = 0,
        guilds: int = 3,
        members: int = 20,
        shards: int = 1,
        tls: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        allowed_intents: Intents | None = None,
        max_concurrency: int = 1,
        identify_interval: float = IDENTIFY_INTERVAL,
        session_start_limit: int = SESSION_START_LIMIT,
        session_timeout: float = 300.0,
        max_guilds_per_shard: int = 2500,
        send_limit: int | None = SEND_LIMIT,
        replay_limit: int = 20_000,
        close_timeout: float = 2.0,
        receive_buffer: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        for name, value, least in (
            ("heartbeat_interval", heartbeat_interval, 1),
            ("guilds", guilds, 0),
            ("members", members, 0),
            ("shards", shards, 1),
            ("max_concurrency", max_concurrency, 1),
            ("replay_limit", replay_limit, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is at least {least}, not {value}")
        self.heartbeat_interval = heartbeat_interval
        self.heartbeat_tolerance = heartbeat_tolerance
        self.shards = shards
        self.allowed_intents = Intents.all() if allowed_intents is None else allowed_intents
        self.max_concurrency = max_concurrency
        self.identify_interval = identify_interval
        self.session_start_limit = session_start_limit
        self.session_timeout = session_timeout
        self.max_guilds_per_shard = max_guilds_per_shard
        self.send_limit = send_limit
        self.replay_limit = replay_limit
        self.close_timeout = close_timeout
        #: The clock all limits and timeouts go by; move it with ``gateway.clock.advance(300)``.
        self.clock = clock if clock is not None else Clock()
        #: The guilds, channels and members, see :class:`~shardlib.testing.World`.
        self.world = World(seed, guilds, members)
        #: The token that clients must show.
        self.token = token if token is not None else self.world.make_token()
        #: Bytes on the wire of all connections, and events dispatched to sessions, so far.
        self.bytes_received = 0
        self.bytes_sent = 0
        self.events_dispatched = 0

        self._tls = tls
        self._host = host
        self._ports = [port, 0]
        self._receive_buffer = receive_buffer
        # One lock for all that the gateway and its connections know.  Its holder never waits,
        # but in _changed.wait(), which lets go of it; the condition is notified when payloads
        # arrive and when connections and sessions come and go.  Reentrant, since a fault's
        # action, run with the lock held, calls the same methods as a test does.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._all_connections: list[GatewayConnection] = []
        # What wait_for_connection() has not returned yet.
        self._unclaimed: deque[GatewayConnection] = deque()
        # Of all connections together, and bounded, so that memory stays flat however many
        # connections beat for however long.
        self._received: deque[ReceivedPayload] = deque(maxlen=_HISTORY)
        self._sessions = Sessions(self)
        self._all_members_at: dict[str, float] = {}
        self._faults = Faults()
        self._traffic: Traffic | None = None
        # Everything of the gateway's thread.
        self._loop: _Loop | None = None
        self._thread: threading.Thread | None = None
        self._listeners: list[socket.socket] = []
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        state = self.url if self._thread is not None else "stopped"
        return f"<LocalGateway {state}>"

    # Start and stop.

    def start(self) -> LocalGateway:
        """Listen, and serve on a thread of its own; return the gateway.

        :raises OSError: the port is taken
        :raises RuntimeError: it is started already
        """
        if self._thread is not None:
            raise RuntimeError("the local gateway is started already")
        self._open_listeners()
        self._loop = _Loop(self.clock)
        self._loop.set_exception_handler(_report)
        self._thread = threading.Thread(target=self._run, name="local-gateway", daemon=True)
        self._thread.start()
        self.clock.subscribe(self._wake)
        return self

    def stop(self) -> None:
        """End every connection at once, without CLOSE frames, and the thread.

        Nothing is left afterwards, whatever the clients do.  Doing it twice does nothing.
        """
        thread = self._thread
        if thread is None:
            return
        if thread is threading.current_thread():
            raise RuntimeError("a fault's action cannot stop the gateway it runs on")
        self.clock.unsubscribe(self._wake)
        self._call_soon(self._shut_down)
        thread.join()
        self._thread = None
        self._loop = None

    def __enter__(self) -> LocalGateway:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # Where it is.

    @property
    def url(self) -> str:
        """The URL to connect to, ``ws://127.0.0.1:PORT/`` (``wss`` with TLS)."""
        return self._url("wss" if self._tls else "ws", self._ports[0])

    @property
    def resume_url(self) -> str:
        """What READY gives as ``resume_gateway_url``: the same gateway at another port."""
        return self._url("wss" if self._tls else "ws", self._ports[1])

    @property
    def http_url(self) -> str:
        """The base of the HTTP API on the same port, ``http://127.0.0.1:PORT/api/v10``."""
        return self._url("https" if self._tls else "http", self._ports[0]) + "api/v10"

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """A client's context that trusts the throw-away authority.

        :raises ValueError: the gateway does not speak TLS
        """
        if not self._tls:
            raise ValueError("this gateway does not speak TLS; make it with tls=True")
        return certificates.client_context()

    @property
    def ca_certificate(self) -> bytes:
        """The throw-away authority's certificate (PEM), for clients in other processes.

        :raises ValueError: the gateway does not speak TLS
        """
        if not self._tls:
            raise ValueError("this gateway does not speak TLS; make it with tls=True")
        return certificates.authority().cert_pem.bytes()

    def _url(self, scheme: str, port: int) -> str:
        return f"{scheme}://{self._host}:{port}/"

    # Who is there, and what they sent.

    @property
    def connections(self) -> list[GatewayConnection]:
        """The connections that are not over, oldest first."""
        with self._lock:
            return [each for each in self._all_connections if not each.is_closed]

    @property
    def all_connections(self) -> list[GatewayConnection]:
        """Every connection there ever was, oldest first; plain HTTP requests are none."""
        with self._lock:
            return list(self._all_connections)

    @property
    def sessions(self) -> list[GatewaySession]:
        """The sessions that are connected or may be resumed, oldest first."""
        with self._lock:
            return self._sessions.alive()

    @property
    def session_starts(self) -> dict[str, int]:
        """The session start limit object, as ``/gateway/bot`` gives it."""
        with self._lock:
            return {
                "total": self.session_start_limit,
                "remaining": self._sessions.starts_left(),
                "reset_after": self._sessions.resets_after(),
                "max_concurrency": self.max_concurrency,
            }

    def wait_for_connection(
        self,
        predicate: Callable[[GatewayConnection], object] | None = None,
        timeout: float = 5.0,
    ) -> GatewayConnection:
        """Wait for the next connection, and return it; each is returned once.

        :param predicate: says which connection will do; it is asked again whenever something
            happens, so ``lambda connection: connection.session`` waits for READY, too
        :param timeout: seconds
        :raises TimeoutError: none came in time
        """

        def look() -> GatewayConnection | None:
            for connection in self._unclaimed:
                if predicate is None or predicate(connection):
                    self._unclaimed.remove(connection)
                    return connection
            return None

        return self._wait(look, timeout, "connection")

    def expect(self, opcode: int, timeout: float = 5.0) -> ReceivedPayload:
        """Wait for the next payload with this opcode on any connection, and return it.

        Each payload is returned once; its ``connection`` tells where it came from.

        :param timeout: seconds
        :raises TimeoutError: none came in time
        """

        return self._wait(lambda: self._find(opcode, None), timeout, name_of(opcode))

    def wait_until(self, predicate: Callable[[], _T | None], timeout: float = 5.0) -> _T:
        """Wait until ``predicate()`` is true, and return what it returned.

        It is asked again whenever something happens at the gateway.

        :param timeout: seconds
        :raises TimeoutError: it did not become true in time
        """
        return self._wait(predicate, timeout, "what was waited for")

    # What it sends.

    def dispatch(self, event: str, data: Any, *, session: GatewaySession | None = None) -> int:
        """Send an event to every session that should get it; return how many these are.

        Intents decide, as documented, and shards: by the event's ``guild_id``, and shard 0
        where there is none.  Without ``MESSAGE_CONTENT`` a session gets messages without
        their content.  A session whose client is away gets it when it resumes.

        :param event: its name, as ``MESSAGE_CREATE``
        :param data: its ``d``
        :param session: only to this session, if intents and shard let it through
        :raises TypeError, ValueError: ``data`` cannot be written as JSON
        """
        described = Event(event, data, self.world.user["id"])
        with self._lock:
            if session is None:
                return self._issue(described, self._sessions.alive())
            return self._issue(described, [] if session.ended is not None else [session])

    def send_message(
        self, channel_id: str, author_id: str, content: str | None = None
    ) -> dict[str, Any]:
        """Have a member write in a channel: dispatch a MESSAGE_CREATE, and return its data.

        :param content: None for a sentence of the gateway's own
        :raises ValueError: there is no such channel, or no such member in its guild
        """
        with self._lock:
            channel = self.world.channel(channel_id)
            message = self.world.make_message(channel, author_id, content)
            self.dispatch("MESSAGE_CREATE", message)
            return message

    def traffic(self, rate: float | None = 10.0, mix: Mapping[str, float] | None = None) -> Traffic:
        """Send realistic events in the background until :meth:`Traffic.stop` or :meth:`stop`.

        :param rate: events a second; None for as many as the clients take
        :param mix: how often each event comes, relative to the others; by default
            :data:`shardlib.testing.TRAFFIC_MIX`
        :raises ValueError: a rate that is not positive, an event the gateway cannot make up
        """
        traffic = Traffic(self, rate, mix)
        with self._lock:
            if self._traffic is not None:
                self._traffic.stop()
            self._traffic = traffic
        traffic._start()
        return traffic

    # What goes wrong.

    def inject(
        self,
        action: Action | None = None,
        *,
        before: str | None = None,
        instead_of: str | None = None,
        connections: int | None = 1,
    ) -> None:
        """Let something go wrong with the next connections.

        The steps of a connection are "accept", "upgrade", "hello", "ready", "ack", "close";
        see :data:`shardlib.testing.STEPS`::

            gateway.inject(instead_of="hello")                        # stall: no Hello
            gateway.inject(lambda it: it.reset(), before="ready")     # RST after Identify
            gateway.inject(lambda it: it.refuse(502), instead_of="upgrade")
            gateway.inject(lambda it: it.slow(1), before="upgrade")   # 101, byte by byte
            gateway.inject(instead_of="close", connections=None)      # never answers CLOSE

        What is replaced can be caught up on with
        :meth:`~shardlib.testing.GatewayConnection.proceed`.

        :param action: called with the connection, on the gateway's thread: it must not wait
        :param before: the step that ``action`` comes before
        :param instead_of: the step that ``action`` (or nothing) takes the place of
        :param connections: how many connections it happens to; None for all from now on
        :raises ValueError: no such step, or not exactly one of ``before`` and ``instead_of``
        """
        if (before is None) == (instead_of is None):
            raise ValueError("give one of before and instead_of")
        step = before if before is not None else instead_of
        assert step is not None
        fault = Fault(step, action, instead_of is not None, connections)
        with self._lock:
            self._faults.add(fault)

    def clear_faults(self) -> None:
        """Forget the faults that no connection has met yet."""
        with self._lock:
            self._faults.clear()

    def outage(self, seconds: float | None = None) -> None:
        """Go away: reset every connection, and refuse new ones.

        :param seconds: come back by itself after so long; None: not before :meth:`restore`
        """
        self._call(self._close_listeners)
        with self._lock:
            for connection in self.connections:
                connection.reset()
        if seconds is not None:
            self._call_later(seconds, self._listen_again)

    def restore(self) -> None:
        """End an :meth:`outage`: listen again, at the same ports."""
        self._call(self._listen_again)

    # For the other parts of the package; the lock is held.

    def _wait(self, look: Callable[[], _T | None], timeout: float, what: str) -> _T:
        with self._lock:
            found = self._changed.wait_for(look, timeout)
            if not found:
                raise TimeoutError(f"no {what} within {timeout} s")
            return found

    def _issue(self, event: Event, sessions: Iterable[GatewaySession]) -> int:
        """Issue an event to those of the sessions that should get it; return how many."""
        reached = 0
        for session in sessions:
            if session.wants(event):
                session._issue(event.name, event.text(session._mask))
                reached += 1
        self.events_dispatched += reached
        return reached

    def _register(self, connection: GatewayConnection) -> None:
        self._all_connections.append(connection)
        self._unclaimed.append(connection)
        self._changed.notify_all()

    def _remember(self, payload: dict[str, Any], connection: GatewayConnection) -> None:
        self._received.append(ReceivedPayload(payload, connection))
        self._changed.notify_all()

    def _find(self, opcode: int, connection: GatewayConnection | None) -> ReceivedPayload | None:
        """Return the next payload for ``expect`` of a connection, or of the gateway (None)."""
        for payload in self._received:
            if (
                payload.get("op") == opcode
                and (connection is None or payload.connection is connection)
                and connection not in payload._returned_by
            ):
                payload._returned_by = (*payload._returned_by, connection)
                return payload
        return None

    def _take_all_members(self, guild_id: str) -> float:
        """Return 0.0 where all members of a guild may be asked for, else seconds to wait."""
        now = self.clock()
        last = self._all_members_at.get(guild_id)
        if last is not None and now - last < _ALL_MEMBERS_INTERVAL:
            return last + _ALL_MEMBERS_INTERVAL - now
        self._all_members_at[guild_id] = now
        return 0.0

    def _reset_token(self) -> None:
        """Do what Discord does after too many Identifies (Gateway, "Identifying")."""
        self.token += "-reset"
        for session in self._sessions.alive():
            connection = session.connection
            session._end("the token was reset")
            if connection is not None:
                connection.session = None
                connection._close(4004, "the token was reset")

    # The gateway's thread.

    def _call(self, callback: Callable[[], object]) -> None:
        """Have the gateway's thread call something, and return once it has."""
        if threading.current_thread() is self._thread:
            callback()
            return
        called = threading.Event()

        def call() -> None:
            try:
                callback()
            finally:
                called.set()

        self._call_soon(call)
        # With a deadline, since another thread may be stopping the gateway.
        called.wait(self.close_timeout)

    def _call_soon(self, callback: Callable[[], object]) -> None:
        """Have the gateway's thread call something; once it has ended, nothing happens."""
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:
                pass  # the loop is closed: the gateway has stopped meanwhile

    def _call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Have the gateway's thread call something later, by the gateway's clock."""
        loop = self._loop
        if loop is None:
            return
        # The moment is reckoned here and now: the clock may leap before the thread hears of it.
        due = loop.time() + seconds
        if threading.current_thread() is self._thread:
            loop.call_at(due, callback)
        else:
            self._call_soon(lambda: loop.call_at(due, callback))

    def _wake(self) -> None:
        """Look again at what is due: the clock was moved."""
        self._call_soon(lambda: None)

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        try:
            self._accept_all()
            loop.run_forever()
        finally:
            loop.close()

    def _open_listeners(self) -> None:
        try:
            for index, port in enumerate(self._ports):
                listener = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
                self._listeners.append(listener)
                listener.setblocking(False)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if self._receive_buffer is not None:
                    # Accepted sockets inherit it, and only so does the window start small.
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
                listener.bind((self._host, port))
                listener.listen(512)
                self._ports[index] = listener.getsockname()[1]
        except BaseException:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
            raise

    def _accept_all(self) -> None:
        assert self._loop is not None
        for index, listener in enumerate(self._listeners):
            self._loop.add_reader(listener, self._accept, listener, index == 1)

    def _accept(self, listener: socket.socket, at_resume_url: bool) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # it went away between select and accept
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            connection = GatewayConnection(self, at_resume_url=at_resume_url)
            connection._take_faults(accept=True)
        link = Link(self, connection)
        context = None
        if self._tls and not connection._deaf:
            context = certificates.server_context(self._host)
        assert self._loop is not None
        task = self._loop.create_task(self._open(link, client, context))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(
        self, link: Link, client: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        """Bring a connection as far as bytes can flow: through the TLS handshake."""
        assert self._loop is not None
        self._links.add(link)
        try:
            await self._loop.connect_accepted_socket(lambda: link, client, ssl=context)
        except (OSError, asyncio.CancelledError):
            # A client that speaks no TLS, distrusts the certificate, or went away.
            client.close()
            self._links.discard(link)

    def _close_listeners(self) -> None:
        assert self._loop is not None
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def _listen_again(self) -> None:
        if not self._listeners:
            self._open_listeners()
            self._accept_all()

    def _shut_down(self) -> None:
        assert self._loop is not None
        self._loop.create_task(self._end())

    async def _end(self) -> None:
        """Leave nothing behind: no socket, no transport, no task."""
        with self._lock:
            if self._traffic is not None:
                self._traffic.stop()
        self._close_listeners()
        # A task that is cancelled before it has begun would never close its socket.
        await asyncio.sleep(0)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in tuple(self._links):
            link._abort()
        # The transports close their sockets in callbacks that stand in line by now.
        while self._links:
            await asyncio.sleep(0)
        assert self._loop is not None
        self._loop.stop()


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that goes by the gateway's clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def time(self) -> float:
        return self._clock()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong on the gateway's thread: a bug in it, or in a fault's action."""
    error = context.get("exception")
    if isinstance(error, OSError):
        _logger.debug("a client's connection failed: %s", error)
    else:
        _logger.error("local gateway: %s", context.get("message"), exc_info=error)
