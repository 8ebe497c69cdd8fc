"""The local gateway itself: what a test makes, looks at, and orders about."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

from shardlib.gateway import (
    IDENTIFY_INTERVAL,
    SEND_LIMIT,
    SESSION_START_LIMIT,
    Intents,
)
from shardlib.testing import tls as certificates
from shardlib.testing.clock import Clock
from shardlib.testing.commands import Commands
from shardlib.testing.connection import (
    GatewayConnection,
    GatewaySession,
    Inbox,
    ReceivedPayload,
)
from shardlib.testing.dispatcher import Dispatcher
from shardlib.testing.driver import ByteCount, ConnectionDriver, Environment
from shardlib.testing.events import Event
from shardlib.testing.faults import Fault, Faults
from shardlib.testing.http import Api
from shardlib.testing.identify import Identification
from shardlib.testing.listeners import Listeners
from shardlib.testing.payloads import name_of
from shardlib.testing.rules import Rules, check_least
from shardlib.testing.sessions import Sessions, SessionStarts
from shardlib.testing.thread import GatewayThread
from shardlib.testing.traffic import Traffic
from shardlib.testing.world import World

_T = TypeVar("_T")

#: What a fault does; called on the gateway's thread, so it must not wait.
Action: TypeAlias = Callable[[GatewayConnection], object]


class _Rule(Generic[_T]):
    """An attribute of the gateway whose value stands in the rules that its parts share."""

    def __set_name__(self, owner: type[LocalGateway], name: str) -> None:
        self._name = name

    def __get__(self, gateway: LocalGateway, owner: type[LocalGateway]) -> _T:
        value: _T = getattr(gateway.rules, self._name)
        return value

    def __set__(self, gateway: LocalGateway, value: _T) -> None:
        gateway.rules.change(self._name, value)


class LocalGateway:
    """Discord's Gateway on this machine, for tests and for trying things out.

    ::

        with LocalGateway() as gateway:
            shard = Shard(gateway.token, Intents.default())
            shard.connect(gateway.url)
            gateway.wait_for_connection().wait_until_ready()
            gateway.dispatch("MESSAGE_CREATE", {...})

    It speaks the documented protocol over real sockets, to any number of clients in any
    language, checks what they send, and does on command what Discord does now and then. One
    daemon thread serves all connections. Every method here may be called from any other thread;
    only a method with a ``timeout`` waits.

    :param token: the token clients must show; by default a new one for every gateway.
    :param heartbeat_interval: milliseconds, as Hello gives it.
    :param heartbeat_tolerance: seconds a heartbeat may be late until the connection is closed.
    :param seed: of the world and its traffic.
    :param guilds: how many guilds the bot is in.
    :param members: how many members each has, beside the bot.
    :param shards: the recommended number of shards, for ``/gateway/bot``.
    :param tls: serve ``wss://``, with a certificate of a throw-away authority that
        :attr:`ssl_context` trusts.
    :param host: the address to listen at.
    :param port: 0 for any free one; :attr:`resume_url` always has one of its own.
    :param allowed_intents: the privileged intents outside are answered with 4014.
    :param max_concurrency: Identifies allowed for every ``identify_interval``.
    :param identify_interval: seconds between two Identifies of a bucket, else op 9; 0 for none.
    :param session_start_limit: Identifies a day until the token is reset.
    :param session_timeout: seconds a session is kept for a Resume.
    :param max_guilds_per_shard: more are answered with 4011.
    :param send_limit: payloads a client may send in 60 seconds, else 4008; None for no limit.
    :param replay_limit: events kept for a Resume; one that needs more is answered with op 9.
    :param resume_after_close: whether a Resume must wait until the session's former connection is
        closed: one that comes while the gateway still reads from that connection ends the
        session, and is answered with op 9. Otherwise the session moves to the new connection, and
        the former one is closed with 4000.
    :param close_timeout: seconds to wait for a client's answer to a CLOSE frame.
    :param receive_buffer: bytes the operating system takes for the gateway before it reads
        (``SO_RCVBUF``); small to see what a client does whose sends are stuck.
    :param clock: the clock that all limits and timeouts go by.
    :raises ValueError: if a number is smaller than it can be.
    """

    #: The token that clients must show.
    token = _Rule[str]()
    heartbeat_interval = _Rule[int]()
    heartbeat_tolerance = _Rule[float]()
    shards = _Rule[int]()
    allowed_intents = _Rule[Intents]()
    max_concurrency = _Rule[int]()
    identify_interval = _Rule[float]()
    session_start_limit = _Rule[int]()
    session_timeout = _Rule[float]()
    max_guilds_per_shard = _Rule[int]()
    send_limit = _Rule["int | None"]()
    replay_limit = _Rule[int]()
    resume_after_close = _Rule[bool]()
    close_timeout = _Rule[float]()

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
        resume_after_close: bool = False,
        close_timeout: float = 2.0,
        receive_buffer: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_least("guilds", guilds, 0)
        check_least("members", members, 0)
        #: The clock all limits and timeouts go by; move it with ``gateway.clock.advance(300)``.
        self.clock = clock if clock is not None else Clock()
        #: The guilds, channels and members, see :class:`~shardlib.testing.World`.
        self.world = World(seed, guilds, members)
        #: Those of the arguments that may be changed while the gateway runs. Each is an attribute
        #: of the gateway, too.
        self.rules = Rules(
            token=token if token is not None else self.world.make_token(),
            heartbeat_interval=heartbeat_interval,
            heartbeat_tolerance=heartbeat_tolerance,
            shards=shards,
            allowed_intents=Intents.all() if allowed_intents is None else allowed_intents,
            max_concurrency=max_concurrency,
            identify_interval=identify_interval,
            session_start_limit=session_start_limit,
            session_timeout=session_timeout,
            max_guilds_per_shard=max_guilds_per_shard,
            send_limit=send_limit,
            replay_limit=replay_limit,
            resume_after_close=resume_after_close,
            close_timeout=close_timeout,
        )
        self._tls = tls
        self._host = host
        self._thread = GatewayThread(self.clock)
        self._faults = Faults()
        self._byte_count = ByteCount()
        self._inbox = Inbox()
        self._all_connections: list[GatewayConnection] = []
        # What wait_for_connection() has not returned yet.
        self._unclaimed: deque[GatewayConnection] = deque()
        self._sessions = Sessions(
            self.rules, self.clock, lambda session: GatewaySession(session, self._thread)
        )
        self._starts = SessionStarts(self.rules, self.clock)
        self._dispatcher = Dispatcher(self.world, self._sessions)
        self._traffic: Traffic | None = None
        identification = Identification(
            self.rules, self.world, self._sessions, self._starts, lambda: self.resume_url
        )
        commands = Commands(
            self.rules, self.clock, self.world, self._dispatcher, identification, self._remember
        )
        api = Api(self.rules, self.world, lambda: self.url, lambda: self.session_starts)
        self._listeners = Listeners(
            host,
            port,
            tls=tls,
            receive_buffer=receive_buffer,
            environment=Environment(
                thread=self._thread,
                rules=self.rules,
                faults=self._faults,
                byte_count=self._byte_count,
                represent=lambda driver: GatewayConnection(driver, self._thread, self._inbox),
                register=self._register,
                receive=commands.receive,
                answer=api.answer,
            ),
        )

    def __repr__(self) -> str:
        state = self.url if self._thread.is_started else "stopped"
        return f"<LocalGateway {state}>"

    # Start and stop.

    def start(self) -> LocalGateway:
        """Listen, and serve on a thread of its own; return the gateway.

        :raises OSError: if the port is taken.
        :raises RuntimeError: if it is started already.
        """
        if self._thread.is_started:
            raise RuntimeError("the local gateway is started already")
        self._listeners.open()
        self._thread.start()
        self._thread.call_soon(self._listeners.accept_clients)
        return self

    def stop(self) -> None:
        """End every connection at once, without CLOSE frames, and the thread.

        Nothing is left afterwards, whatever the clients do. A second call does nothing.

        :raises RuntimeError: if a fault's action calls it, on the gateway's own thread.
        """
        self._thread.stop(self._shut_down)

    async def _shut_down(self) -> None:
        with self._thread.lock:
            if self._traffic is not None:
                self._traffic.stop()
        await self._listeners.shut_down()

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
        return self._url("wss" if self._tls else "ws", self._listeners.ports[0])

    @property
    def resume_url(self) -> str:
        """What READY gives as ``resume_gateway_url``: the same gateway at another port."""
        return self._url("wss" if self._tls else "ws", self._listeners.ports[1])

    @property
    def http_url(self) -> str:
        """The base of the HTTP API on the same port, ``http://127.0.0.1:PORT/api/v10``."""
        return self._url("https" if self._tls else "http", self._listeners.ports[0]) + "api/v10"

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """A client's context that trusts the throw-away authority.

        :raises ValueError: if the gateway does not speak TLS.
        """
        self._require_tls()
        return certificates.client_context()

    @property
    def ca_certificate(self) -> bytes:
        """The throw-away authority's certificate (PEM), for clients in other processes.

        :raises ValueError: if the gateway does not speak TLS.
        """
        self._require_tls()
        return certificates.authority().cert_pem.bytes()

    def _require_tls(self) -> None:
        if not self._tls:
            raise ValueError("this gateway does not speak TLS; make it with tls=True")

    def _url(self, scheme: str, port: int) -> str:
        return f"{scheme}://{self._host}:{port}/"

    # Who is there, and what they sent.

    @property
    def bytes_received(self) -> int:
        """Bytes from the clients of all connections so far, below WebSocket and above TLS."""
        return self._byte_count.received

    @property
    def bytes_sent(self) -> int:
        """Bytes to the clients of all connections so far, below WebSocket and above TLS."""
        return self._byte_count.sent

    @property
    def events_dispatched(self) -> int:
        """Events sent to clients as they were dispatched, counted once for each session."""
        return self._dispatcher.count

    @property
    def connections(self) -> list[GatewayConnection]:
        """The connections that are not over, oldest first."""
        with self._thread.lock:
            return [each for each in self._all_connections if not each.is_closed]

    @property
    def all_connections(self) -> list[GatewayConnection]:
        """Every connection there ever was, oldest first; plain HTTP requests are none."""
        with self._thread.lock:
            return list(self._all_connections)

    @property
    def sessions(self) -> list[GatewaySession]:
        """The sessions that are connected or may be resumed, oldest first."""
        with self._thread.lock:
            return [session.handle for session in self._sessions.alive()]

    @property
    def session_starts(self) -> dict[str, int]:
        """The session start limit object, as ``/gateway/bot`` gives it."""
        with self._thread.lock:
            return {
                "total": self.session_start_limit,
                "remaining": self._starts.remaining(),
                "reset_after": self._starts.reset_after(),
                "max_concurrency": self.max_concurrency,
            }

    def wait_for_connection(
        self,
        predicate: Callable[[GatewayConnection], object] | None = None,
        timeout: float = 5.0,
    ) -> GatewayConnection:
        """Wait for the next connection, and return it; each is returned once.

        :param predicate: says which connection will do; it is asked again whenever something
            happens, so ``lambda connection: connection.session`` waits for READY, too.
        :param timeout: seconds.
        :raises TimeoutError: if none came in time.
        """

        def look() -> GatewayConnection | None:
            for connection in self._unclaimed:
                if predicate is None or predicate(connection):
                    self._unclaimed.remove(connection)
                    return connection
            return None

        return self._thread.wait(look, timeout, "a connection")

    def expect(self, opcode: int, timeout: float = 5.0) -> ReceivedPayload:
        """Wait for the next payload with this opcode on any connection, and return it.

        Each payload is returned once; its ``connection`` tells where it came from.

        :param opcode: the payload's ``op``.
        :param timeout: seconds.
        :raises TimeoutError: if none came in time.
        """
        return self._thread.wait(lambda: self._inbox.take(opcode, None), timeout, name_of(opcode))

    def wait_until(self, predicate: Callable[[], _T | None], timeout: float = 5.0) -> _T:
        """Wait until a function returns something true, and return that.

        :param predicate: the function; it is asked again whenever something happens at the
            gateway.
        :param timeout: seconds.
        :raises TimeoutError: if it did not become true in time.
        """
        return self._thread.wait(predicate, timeout, "the condition")

    def _register(self, connection: GatewayConnection) -> None:
        self._all_connections.append(connection)
        self._unclaimed.append(connection)
        self._thread.notify()

    def _remember(self, driver: ConnectionDriver, payload: dict[str, Any]) -> None:
        self._inbox.add(payload, driver.handle)
        self._thread.notify()

    # What it sends.

    def dispatch(self, event: str, data: Any, *, session: GatewaySession | None = None) -> int:
        """Send an event to every session that should get it; return how many these are.

        Intents decide, as documented, and shards: by the event's ``guild_id``, and shard 0
        for an event without one. Without ``MESSAGE_CONTENT`` a session gets messages without
        their content. A session whose client is away gets it when it resumes.

        :param event: its name, as ``MESSAGE_CREATE``.
        :param data: its ``d``.
        :param session: only to this session, if intents and shard let it through.
        :raises TypeError: if ``data`` holds something that JSON cannot express.
        :raises ValueError: if ``data`` holds NaN or an infinity.
        """
        described = Event(event, data, self.world.user["id"])
        with self._thread.lock:
            alive = self._sessions.alive()
            if session is not None:
                alive = [each for each in alive if each.handle is session]
            return self._dispatcher.issue(described, alive)

    def send_message(
        self, channel_id: str, author_id: str, content: str | None = None
    ) -> dict[str, Any]:
        """Have a member write in a channel: dispatch a MESSAGE_CREATE, and return its data.

        :param channel_id: the channel's id.
        :param author_id: the member's user id.
        :param content: what the member writes; None for a sentence of the gateway's own.
        :raises ValueError: if there is no such channel, or no such member in its guild.
        """
        with self._thread.lock:
            channel = self.world.channel(channel_id)
            message = self.world.make_message(channel, author_id, content)
            self._dispatcher.dispatch("MESSAGE_CREATE", message)
            return message

    def traffic(self, rate: float | None = 10.0, mix: Mapping[str, float] | None = None) -> Traffic:
        """Send realistic events in the background until :meth:`Traffic.stop` or :meth:`stop`.

        :param rate: events a second; None for as many as the clients take.
        :param mix: how often each event comes, relative to the others; by default
            :data:`shardlib.testing.TRAFFIC_MIX`.
        :raises ValueError: if the rate is not positive, or the gateway cannot make up an event.
        """
        with self._thread.lock:
            traffic = Traffic(
                rate,
                mix,
                world=self.world,
                sessions=self._sessions,
                dispatcher=self._dispatcher,
                thread=self._thread,
            )
            if self._traffic is not None:
                self._traffic.stop()
            self._traffic = traffic
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

        The steps of a connection are "accept", "upgrade", "hello", "ready", "replay", "ack",
        "close"; see :data:`shardlib.testing.STEPS`::

            gateway.inject(instead_of="hello")                        # stall: no Hello
            gateway.inject(lambda it: it.reset(), before="ready")     # RST after Identify
            gateway.inject(lambda it: it.refuse(502), instead_of="upgrade")
            gateway.inject(lambda it: it.slow(1), before="upgrade")   # 101, byte by byte
            gateway.inject(instead_of="close", connections=None)      # never answers CLOSE
            gateway.inject(lambda it: it.linger(), before="close")    # never ends TCP
            gateway.inject(lambda it: it.proceed(after=2), instead_of="replay")

        What is replaced can be caught up on with
        :meth:`~shardlib.testing.GatewayConnection.proceed`.

        :param action: called with the connection, on the gateway's thread: it must not wait.
        :param before: the step that ``action`` comes before.
        :param instead_of: the step that ``action`` (or nothing) takes the place of.
        :param connections: how many connections it happens to; None for all from now on.
        :raises ValueError: if there is no such step, or if not exactly one of ``before`` and
            ``instead_of`` is given.
        """
        if (before is None) == (instead_of is None):
            raise ValueError(
                "give before or instead_of, one of the two: the step at which the fault happens"
            )
        step = before if before is not None else instead_of
        assert step is not None
        fault = Fault(step, action, instead_of is not None, connections)
        with self._thread.lock:
            self._faults.add(fault)

    def clear_faults(self) -> None:
        """Forget the faults that no connection has met yet."""
        with self._thread.lock:
            self._faults.clear()

    def outage(self, seconds: float | None = None) -> None:
        """Go away: reset every connection, and refuse new ones.

        :param seconds: come back by itself after so long; None: not before :meth:`restore`.
        """
        self._thread.call(self._listeners.close, self.close_timeout)
        with self._thread.lock:
            for connection in self.connections:
                connection.reset()
        if seconds is not None:
            self._thread.call_later(seconds, self._listeners.reopen)

    def restore(self) -> None:
        """End an :meth:`outage`: listen again, at the same ports."""
        self._thread.call(self._listeners.reopen, self.close_timeout)
