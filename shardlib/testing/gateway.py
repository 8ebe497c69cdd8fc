"""LocalGateway, the object through which a test controls a gateway."""

from __future__ import annotations

import os
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

from shardlib.gateway import (
    IDENTIFY_INTERVAL,
    SEND_LIMIT,
    SESSION_START_LIMIT,
    Intents,
)
from shardlib.testing import tls as certificates
from shardlib.testing.channel import Message
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
from shardlib.testing.identify import Identification
from shardlib.testing.interaction import GatewayInteraction
from shardlib.testing.interactions import Interactions
from shardlib.testing.listeners import Listeners
from shardlib.testing.payloads import opcode_name
from shardlib.testing.recording import Recording
from shardlib.testing.replay import Replay, find_ready
from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.log import RequestLog
from shardlib.testing.rest.registry import CommandRegistry
from shardlib.testing.rest.request import ReceivedRequest
from shardlib.testing.rest.resources import make_api
from shardlib.testing.rest.router import check_template
from shardlib.testing.rules import Rules, check_minimum
from shardlib.testing.sessions import ReceivedIdentify, Sessions, SessionStarts
from shardlib.testing.thread import GatewayThread
from shardlib.testing.traffic import Traffic
from shardlib.testing.userside import UserSide
from shardlib.testing.world import World

_T = TypeVar("_T")

#: A fault's action. The action must not wait, because it runs on the gateway's thread.
Action: TypeAlias = Callable[[GatewayConnection], object]


class _Rule(Generic[_T]):
    """A descriptor that makes one of the gateway's rules an attribute of the gateway."""

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

    The gateway speaks the documented protocol over real sockets, to any number of clients in any
    language, checks what the clients send, and causes on command the faults that Discord and
    networks cause now and then. One daemon thread serves all connections. Any other thread may
    call the methods; only a method with a ``timeout`` waits.

    :param token: the token that clients must send; by default a new token for every gateway.
    :param heartbeat_interval: milliseconds between two heartbeats, for Hello; 1 or more.
    :param heartbeat_tolerance: seconds that a heartbeat may be late before the gateway closes the
        connection.
    :param seed: a number that decides the world and the traffic: equal seeds make equal worlds.
    :param guilds: how many guilds the bot is in, 0 or more.
    :param members: how many members each guild has, beside the bot; 0 or more.
    :param shards: the number of shards that ``/gateway/bot`` recommends, 1 or more. If
        ``min_shards`` and ``shard_multiple`` do not allow this number, ``/gateway/bot`` recommends
        the next one that they allow.
    :param shard_multiple: the number of which the bot's number of shards must be a multiple, as
        Discord demands of large bots; 1 or more. If a shard with another shard count identifies,
        the gateway closes with 4010.
    :param min_shards: the least number of shards that the bot must have, 1 or more. If a shard with
        a lower shard count identifies, the gateway closes with 4011.
    :param tls: whether to serve ``wss://``, with a certificate of a throw-away authority that
        :attr:`ssl_context` trusts.
    :param host: the address to listen at.
    :param port: the port of :attr:`url`; 0 for any free port. :attr:`resume_url` always has any
        other free port.
    :param allowed_intents: the intents that are switched on for the bot, by default all. If an
        Identify has any other privileged intent, the gateway closes with 4014. Without
        ``MESSAGE_CONTENT`` messages of others have no content over HTTP either.
    :param max_concurrency: how many Identifies the gateway accepts in every ``identify_interval``,
        one for each rate limit key (``shard_id % max_concurrency``); 1 or more.
    :param identify_interval: the least seconds between two Identifies of one rate limit key; the
        gateway answers an earlier Identify with op 9. 0 for no limit.
    :param session_start_limit: how many Identifies the gateway accepts in the 24 hours that begin
        with the first Identify; then the gateway counts anew. At an Identify beyond the limit the
        gateway resets the token, as Discord does.
    :param session_timeout: seconds for which the gateway keeps the session of a disconnected
        client.
    :param max_guilds_per_shard: how many guilds a shard may have. If a shard with more guilds
        identifies, the gateway closes with 4011.
    :param send_limit: how many payloads a client may send in 60 seconds. If a client sends more,
        the gateway closes with 4008. None for no limit.
    :param replay_limit: how many events the gateway keeps for a Resume, 0 or more. The gateway
        answers a Resume that needs more events with op 9.
    :param keep_history: whether sessions that begin keep all events issued to them, for
        :attr:`GatewaySession.history`. The memory for these events grows until the gateway is
        dropped.
    :param resume_after_close: whether a client must close the session's former connection before
        the client sends Resume. If True, and a Resume arrives while the gateway still reads from
        the former connection, the gateway ends the session and answers with op 9. If False, the
        gateway moves the session to the new connection, and closes the former connection with 4000.
    :param close_timeout: seconds that the gateway waits for a client's answer to a CLOSE frame.
    :param rate_limits: whether the HTTP API limits the requests of each route, and those of the
        token to 50 a second, by the gateway's clock.
    :param receive_buffer: bytes that the operating system buffers for each connection between the
        client and the gateway (``SO_RCVBUF``); None for the system's default. With a small buffer
        and :meth:`GatewayConnection.stop_reading`, a client's sends soon block.
    :param clock: the clock of all limits and timeouts; by default a new clock.
    :param replay: a file that :class:`shardlib.recording.Recorder` or ``shardlib record`` wrote.
        The gateway plays it to each client that identifies, as the bot that was recorded, in place
        of READY and guilds of its own; see :attr:`replay`. ``guilds`` and ``members`` do not count.
    :param speed: how many seconds of the recording pass in one second of the clock, above 0; None
        to play as fast as each client reads.
    :raises ValueError: if a number is less than the least value named above, or if ``replay`` is no
        recording, or one of a session that had begun before.
    :raises RecordingDamaged: if ``replay`` is damaged before its READY. Of a recording that is cut
        later the gateway plays what can be read, and :meth:`Replay.wait` raises the error.
    :raises OSError: if ``replay`` cannot be read.
    """

    #: The token that clients must send.
    token = _Rule[str]()
    heartbeat_interval = _Rule[int]()
    heartbeat_tolerance = _Rule[float]()
    shards = _Rule[int]()
    shard_multiple = _Rule[int]()
    min_shards = _Rule[int]()
    allowed_intents = _Rule[Intents]()
    max_concurrency = _Rule[int]()
    identify_interval = _Rule[float]()
    session_start_limit = _Rule[int]()
    session_timeout = _Rule[float]()
    max_guilds_per_shard = _Rule[int]()
    send_limit = _Rule["int | None"]()
    replay_limit = _Rule[int]()
    keep_history = _Rule[bool]()
    resume_after_close = _Rule[bool]()
    close_timeout = _Rule[float]()
    rate_limits = _Rule[bool]()

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
        shard_multiple: int = 1,
        min_shards: int = 1,
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
        keep_history: bool = False,
        resume_after_close: bool = False,
        close_timeout: float = 2.0,
        rate_limits: bool = True,
        receive_buffer: int | None = None,
        clock: Clock | None = None,
        replay: str | os.PathLike[str] | None = None,
        speed: float | None = 1.0,
    ) -> None:
        check_minimum("guilds", guilds, 0)
        check_minimum("members", members, 0)
        if speed is not None and not speed > 0:
            raise ValueError(f"speed must be above 0, or None for the fastest, not {speed}")
        #: The clock of all limits and timeouts. ``gateway.clock.advance(300)`` moves the clock
        #: forward by 300 seconds.
        self.clock = clock if clock is not None else Clock()
        #: The guilds, channels and members, see :class:`~shardlib.testing.World`.
        self.world = World(seed, guilds, members) if replay is None else World(seed, guilds=0)
        recording = ready = None
        if replay is not None:
            recording = Recording(replay)
            ready = find_ready(recording)
            self.world.become(ready.data["user"], ready.data.get("application"))
        #: The arguments that a test may change while the gateway runs. Each of these arguments is
        #: an attribute of the gateway, too.
        self.rules = Rules(
            token=token if token is not None else self.world.make_token(),
            heartbeat_interval=heartbeat_interval,
            heartbeat_tolerance=heartbeat_tolerance,
            shards=shards,
            shard_multiple=shard_multiple,
            min_shards=min_shards,
            allowed_intents=Intents.all() if allowed_intents is None else allowed_intents,
            max_concurrency=max_concurrency,
            identify_interval=identify_interval,
            session_start_limit=session_start_limit,
            session_timeout=session_timeout,
            max_guilds_per_shard=max_guilds_per_shard,
            send_limit=send_limit,
            replay_limit=replay_limit,
            keep_history=keep_history,
            resume_after_close=resume_after_close,
            close_timeout=close_timeout,
            rate_limits=rate_limits,
        )
        self._tls = tls
        self._host = host
        self._thread = GatewayThread(self.clock)
        self._faults = Faults()
        self._byte_count = ByteCount()
        self._inbox = Inbox()
        self._all_connections: list[GatewayConnection] = []
        # The connections that wait_for_connection() has not returned.
        self._unclaimed: deque[GatewayConnection] = deque()
        self._sessions = Sessions(
            self.rules, self.clock, lambda session: GatewaySession(session, self._thread)
        )
        self._starts = SessionStarts(self.rules, self.clock)
        self._dispatcher = Dispatcher(self.world, self._sessions)
        self._traffic: Traffic | None = None
        #: The recording that the gateway plays, a :class:`~shardlib.testing.Replay`; None if the
        #: gateway plays none.
        self.replay: Replay | None = None
        if recording is not None and ready is not None:
            self.replay = Replay(
                recording,
                ready,
                speed,
                thread=self._thread,
                rules=self.rules,
                dispatcher=self._dispatcher,
                resume_url=lambda: self.resume_url,
            )
        identification = Identification(
            self.rules,
            self.clock,
            self.world,
            self._sessions,
            self._starts,
            lambda: self.resume_url,
            self.replay,
        )
        commands = Commands(
            self.rules, self.clock, self.world, self._dispatcher, identification, self._remember
        )
        self._requests = RequestLog()
        self._interactions = Interactions(self.world, self.clock)
        registry = CommandRegistry(self.world, self.clock)
        self._registry = registry
        self._users = UserSide(
            self.world, registry, self._interactions, self._dispatcher, self._thread
        )
        backend = Backend(
            rules=self.rules,
            world=self.world,
            clock=self.clock,
            dispatch=self._dispatcher.dispatch,
            url=lambda: self.url,
            http_url=lambda: self.http_url,
            session_starts=lambda: self.session_starts,
        )
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
                make_handle=lambda driver: GatewayConnection(driver, self._thread, self._inbox),
                register=self._register,
                receive=commands.receive,
                remember=self._requests.add,
                answer=make_api(backend, registry, self._interactions, self._requests).answer,
            ),
        )

    def __repr__(self) -> str:
        state = self.url if self._thread.is_started else "stopped"
        return f"<LocalGateway {state}>"

    # Start and stop.

    def start(self) -> LocalGateway:
        """Listen, and start the gateway's thread.

        :returns: the gateway.
        :raises OSError: if the port is taken, or if ``host`` is not an address of this machine.
        :raises RuntimeError: if the gateway is started already.
        """
        if self._thread.is_started:
            raise RuntimeError("the local gateway is started already")
        self._listeners.open()
        self._thread.start()
        self._thread.call_soon(self._listeners.accept_clients)
        return self

    def stop(self) -> None:
        """End every connection at once, without CLOSE frames, and end the gateway's thread.

        The gateway closes all its sockets, whatever the clients do. A second call does nothing.

        :raises RuntimeError: if a fault's action calls this method, on the gateway's thread.
        """
        self._thread.stop(self._shut_down)

    async def _shut_down(self) -> None:
        with self._thread.lock:
            if self._traffic is not None:
                self._traffic.stop()
            if self.replay is not None:
                self.replay.stop()
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

    # Addresses and certificates.

    @property
    def url(self) -> str:
        """The URL that clients connect to, ``ws://127.0.0.1:PORT/`` (``wss`` with TLS)."""
        return self._url("wss" if self._tls else "ws", self._listeners.ports[0])

    @property
    def resume_url(self) -> str:
        """The ``resume_gateway_url`` of READY: the same gateway at another port."""
        return self._url("wss" if self._tls else "ws", self._listeners.ports[1])

    @property
    def http_url(self) -> str:
        """The base of the HTTP API on the same port, ``http://127.0.0.1:PORT/api/v10``."""
        return self._url("https" if self._tls else "http", self._listeners.ports[0]) + "api/v10"

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """An SSL context for clients, which trusts the throw-away authority.

        :raises ValueError: if the gateway does not speak TLS.
        :raises ImportError: if the package trustme is missing.
        """
        self._require_tls()
        return certificates.client_context()

    @property
    def ca_certificate(self) -> bytes:
        """The throw-away authority's certificate, in PEM format, for clients in other processes.

        :raises ValueError: if the gateway does not speak TLS.
        :raises ImportError: if the package trustme is missing.
        """
        self._require_tls()
        return certificates.authority().cert_pem.bytes()

    def _require_tls(self) -> None:
        if not self._tls:
            raise ValueError("this gateway does not speak TLS; make it with tls=True")

    def _url(self, scheme: str, port: int) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{port}/"

    # Connections, sessions, and what the clients sent.

    @property
    def bytes_received(self) -> int:
        """Bytes received from all clients so far, below WebSocket and above TLS."""
        return self._byte_count.received

    @property
    def bytes_sent(self) -> int:
        """Bytes sent to all clients so far, below WebSocket and above TLS."""
        return self._byte_count.sent

    @property
    def events_dispatched(self) -> int:
        """Number of events dispatched to connected clients, counted once for each session.

        Events kept for the Resume of a disconnected client are not counted.
        """
        return self._dispatcher.count

    @property
    def connections(self) -> list[GatewayConnection]:
        """The connections that have not ended, oldest first."""
        with self._thread.lock:
            return [each for each in self._all_connections if not each.is_closed]

    @property
    def all_connections(self) -> list[GatewayConnection]:
        """All WebSocket connections so far, oldest first, including those that have ended."""
        with self._thread.lock:
            return list(self._all_connections)

    @property
    def sessions(self) -> list[GatewaySession]:
        """The sessions that are connected or that a Resume can continue, oldest first."""
        with self._thread.lock:
            return [session.handle for session in self._sessions.alive()]

    @property
    def all_sessions(self) -> list[GatewaySession]:
        """All sessions so far, oldest first, including those that have ended."""
        with self._thread.lock:
            return [session.handle for session in self._sessions.all()]

    def lose_session(self, session: GatewaySession | int, *, close_code: int | None = None) -> None:
        """Lose a session: the gateway answers each later Resume with op 9, ``d`` false.

        A connected client keeps getting events until the client disconnects, as at Discord, where a
        client learns of the loss when it resumes.

        :param session: the session; or the id of a shard, to lose all sessions of the shard,
            whatever their shard counts.
        :param close_code: the code with which the gateway closes the session's connection; None to
            leave the connection open.
        :raises ValueError: if there is no such session that a Resume could continue, or if no CLOSE
            frame may carry ``close_code``.
        """
        with self._thread.lock:
            lost = [
                each
                for each in self._sessions.alive()
                if each.handle is session or each.shard[0] == session
            ]
            if not lost:
                name = f"shard {session}" if isinstance(session, int) else repr(session)
                raise ValueError(f"{name} has no session that a Resume could continue")
            for each in lost:
                carrier = each.carrier
                each.lose()
                if close_code is not None and carrier is not None:
                    carrier.handle.close(close_code, "the session was lost")
            self._thread.notify()

    @property
    def identifies(self) -> list[ReceivedIdentify]:
        """The Identifies that arrived, oldest first, accepted or not.

        The list leaves out Identifies with a wrong token or an impossible shard, and those that are
        malformed. The gateway remembers the last 20,000.
        """
        with self._thread.lock:
            return list(self._starts.received)

    @property
    def session_starts(self) -> dict[str, int]:
        """The session start limit object, as ``/gateway/bot`` returns it.

        ``reset_after`` is in milliseconds: the time until the gateway counts anew, 0 if the gateway
        has counted no Identify yet.
        """
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
        timeout: float = 10.0,
    ) -> GatewayConnection:
        """Wait for the next connection, and return the connection.

        The method returns each connection once.

        :param predicate: called with a connection, returns something true to accept the
            connection. The gateway calls the predicate again after each change, so that
            ``lambda connection: connection.session`` waits for READY, too. None for any connection.
        :param timeout: seconds to wait.
        :raises TimeoutError: if no such connection was made in time.
        """

        def claim() -> GatewayConnection | None:
            for connection in self._unclaimed:
                if predicate is None or predicate(connection):
                    self._unclaimed.remove(connection)
                    return connection
            return None

        return self._thread.wait(claim, timeout, "a connection")

    def expect(self, opcode: int, timeout: float = 10.0) -> ReceivedPayload:
        """Wait for the next payload with an opcode on any connection, and return the payload.

        The method returns each payload once. The payload's attribute ``connection`` is the
        connection that the payload arrived on.

        :param opcode: the payload's ``op``.
        :param timeout: seconds to wait.
        :raises TimeoutError: if no such payload arrived in time.
        """
        return self._thread.wait(
            lambda: self._inbox.take(opcode, None), timeout, opcode_name(opcode)
        )

    def wait_until(self, predicate: Callable[[], _T | None], timeout: float = 10.0) -> _T:
        """Wait until a function returns something true, and return that value.

        :param predicate: the function. The gateway calls the function again after each change.
        :param timeout: seconds to wait.
        :raises TimeoutError: if the function returned nothing true in time.
        """
        return self._thread.wait(predicate, timeout, "the condition")

    def _register(self, connection: GatewayConnection) -> None:
        self._all_connections.append(connection)
        self._unclaimed.append(connection)
        self._thread.notify()

    def _remember(self, driver: ConnectionDriver, payload: dict[str, Any]) -> None:
        self._inbox.add(payload, driver.handle)
        self._thread.notify()

    # HTTP requests.

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The HTTP requests that arrived, oldest first, other than those for a WebSocket.

        The gateway remembers the last 2,000, and fewer if their bodies have more than 64 MiB.
        """
        with self._thread.lock:
            return list(self._requests.all)

    @property
    def unhandled(self) -> list[ReceivedRequest]:
        """The HTTP requests for what the gateway does not imitate, oldest first.

        The gateway has answered them with 404, with 405 if it knows the path with another method,
        or with 400 if there is no such version of the API. The gateway remembers the last 2,000,
        and fewer if their bodies have more than 64 MiB.
        """
        with self._thread.lock:
            return list(self._requests.unhandled)

    def expect_request(self, method: str, path: str, timeout: float = 10.0) -> ReceivedRequest:
        """Wait for the next HTTP request with a method and a path, and return the request.

        The method returns each request once. What the request asks for has been done by then,
        unless a fault delays or replaces the answer.

        :param method: the HTTP method.
        :param path: the path as Discord documents it, without ``/api`` and the version. A part may
            be ``*``, or a name in braces, for any value: ``/channels/{channel.id}/messages``.
        :param timeout: seconds to wait.
        :raises TimeoutError: if no such request arrived in time. The message names those that did.
        :raises ValueError: if ``path`` begins with ``/api``.
        """
        check_template(path)
        try:
            return self._thread.wait(
                lambda: self._requests.take(method, path), timeout, f"{method} {path}"
            )
        except TimeoutError as error:
            with self._thread.lock:
                others = self._requests.describe_expected()
            raise TimeoutError(f"{error}; {others}") from None

    # Sending events.

    def dispatch(self, event: str, data: Any, *, session: GatewaySession | None = None) -> int:
        """Send an event to every session whose intents and shard the event belongs to.

        Each intent brings certain events, as Discord documents. The event's guild decides its
        shard; an event without a ``guild_id`` belongs to shard 0. A session without
        ``MESSAGE_CONTENT`` gets messages without their content. A session whose client is
        disconnected gets the event when the client resumes.

        :param event: the event's name, for instance ``MESSAGE_CREATE``.
        :param data: the event's ``d``.
        :param session: the only session that may get the event; None for every session.
        :returns: the number of sessions that get the event.
        :raises TypeError: if ``data`` holds something that JSON cannot express.
        :raises ValueError: if ``data`` holds NaN or an infinity.
        """
        encoded = Event(event, data, self.world.user["id"])
        with self._thread.lock:
            sessions = self._sessions.alive()
            if session is not None:
                sessions = [each for each in sessions if each.handle is session]
            return self._dispatcher.issue(encoded, sessions)

    def send_message(
        self, channel_id: str, author_id: str, content: str | None = None
    ) -> dict[str, Any]:
        """Dispatch a MESSAGE_CREATE, as if a member wrote in a channel.

        :param channel_id: the channel's id.
        :param author_id: the member's user id.
        :param content: the text of the message; None for a random sentence.
        :returns: the message object, which is the event's ``d``.
        :raises ValueError: if the world has no such channel, or the channel's guild has no such
            member.
        """
        with self._thread.lock:
            channel = self.world.channel(channel_id)
            message = self.world.make_message(channel, author_id, content)
            self._dispatcher.dispatch("MESSAGE_CREATE", message)
            return message

    # What users do with the bot's commands.

    @property
    def commands(self) -> list[dict[str, Any]]:
        """The application commands that the bot has registered, as command objects.

        The global commands come first, and then those of each guild, which have a ``guild_id``.
        """
        with self._thread.lock:
            scopes = [None, *self.world.guilds]
            return [command for scope in scopes for command in self._registry.all(scope)]

    def invoke_command(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        *,
        kind: int = 1,
        channel_id: str | None = None,
        user_id: str | None = None,
        target_id: str | None = None,
    ) -> GatewayInteraction:
        """Let a user invoke a command that the bot has registered, and return the interaction.

        ::

            interaction = gateway.invoke_command("roll", {"sides": 20})
            assert "rolled" in interaction.wait_for_message()["content"]

        A command of the channel's guild goes before a global one of the same name.

        :param name: the command's name.
        :param options: the value of each option by its name: a string, a number, a boolean, or the
            id of a user, a channel or a role. A subcommand is an option, whose value is the dict of
            its options. None for no options.
        :param kind: the command type: 1 for a slash command, 2 for one on a user, 3 for one on a
            message.
        :param channel_id: the id of the channel; None for the first text channel of the first
            guild.
        :param user_id: the id of the user; None for the owner of the guild, or the other user of a
            direct message.
        :param target_id: the id of the user or the message, for a command on one.
        :raises ValueError: if the bot has registered no such command, if the command cannot take
            the options, or if there is no such channel, user or target.
        """
        with self._thread.lock:
            return self._users.invoke_command(
                name,
                options or {},
                kind=kind,
                channel_id=channel_id,
                user_id=user_id,
                target_id=target_id,
            )

    def autocomplete_command(
        self,
        name: str,
        options: Mapping[str, Any],
        focused: str,
        *,
        channel_id: str | None = None,
        user_id: str | None = None,
    ) -> GatewayInteraction:
        """Let a user type an option of a slash command, and return the interaction.

        ``interaction.wait_for_callback()["data"]["choices"]`` has the bot's suggestions.

        :param name: the command's name.
        :param options: the options so far, as for :meth:`invoke_command`.
        :param focused: the name of the option that the user is typing.
        :param channel_id: as for :meth:`invoke_command`.
        :param user_id: as for :meth:`invoke_command`.
        :raises ValueError: as :meth:`invoke_command` does.
        """
        with self._thread.lock:
            return self._users.invoke_command(
                name, options, kind=1, channel_id=channel_id, user_id=user_id, focused=focused
            )

    def use_component(
        self,
        message: Message,
        custom_id: str,
        values: Iterable[str] | None = None,
        *,
        user_id: str | None = None,
    ) -> GatewayInteraction:
        """Let a user press a button or select from a menu, and return the interaction.

        :param message: the message that has the component, from a channel's ``messages`` or from
            an interaction.
        :param custom_id: the component's ``custom_id``.
        :param values: what the user selects, values or ids, one text for one; None for a button, or
            to leave a menu as the bot made it.
        :param user_id: as for :meth:`invoke_command`.
        :raises ValueError: if the message has no such component, if the component is disabled or
            cannot take the values, or if there is no such user.
        :raises TypeError: if ``message`` is another dict, such as the one that the bot received.
        """
        with self._thread.lock:
            return self._users.use_component(message, custom_id, values, user_id)

    def submit_modal(
        self, interaction: GatewayInteraction, values: Mapping[str, Any] | None = None
    ) -> GatewayInteraction:
        """Let a user send the modal with which the bot answered, and return the new interaction.

        :param interaction: the interaction that the bot answered with a modal.
        :param values: by ``custom_id``, the text of a text input, whether a checkbox is checked, or
            what is selected, one text or a list. A component that is left out keeps the value that
            the bot gave.
        :raises ValueError: if the bot has not answered with a modal, if the modal has no such
            component, or if one cannot take its value.
        """
        with self._thread.lock:
            return self._users.submit_modal(interaction, values or {})

    def traffic(self, rate: float | None = 10.0, mix: Mapping[str, float] | None = None) -> Traffic:
        """Send realistic events in the background until :meth:`Traffic.stop` or :meth:`stop`.

        A second call ends the traffic of the first.

        :param rate: events a second, above 0; None for as many as the clients read.
        :param mix: by the name of each event to send, how often the gateway sends the event,
            relative to the others; None for :data:`~shardlib.testing.traffic.TRAFFIC_MIX`.
        :returns: the traffic, which counts its events and can be stopped.
        :raises ValueError: if ``rate`` is not above 0, if ``mix`` names an event that the gateway
            cannot make, or if the shares in ``mix`` are negative or all 0.
        """
        with self._thread.lock:
            traffic = Traffic(
                rate,
                mix,
                world=self.world,
                interactions=self._interactions,
                sessions=self._sessions,
                dispatcher=self._dispatcher,
                thread=self._thread,
            )
            if self._traffic is not None:
                self._traffic.stop()
            self._traffic = traffic
        return traffic

    # Faults.

    def inject(
        self,
        action: Action | None = None,
        *,
        before: str | None = None,
        instead_of: str | None = None,
        connections: int | None = 1,
        shard_id: int | None = None,
        method: str | None = None,
        path: str | None = None,
    ) -> None:
        """Cause a fault at one step of each of the next connections.

        The steps of a connection are "accept", "answer", "response", "upgrade", "hello", "ready",
        "replay", "ack" and "close"; :data:`~shardlib.testing.faults.STEPS` describes them::

            gateway.inject(instead_of="hello")  # a stall: the gateway sends no Hello
            gateway.inject(instead_of="close", connections=None)  # never answers CLOSE
            gateway.inject(GatewayConnection.reset, before="ready")  # RST after Identify
            gateway.inject(GatewayConnection.linger, before="close")  # never ends TCP
            gateway.inject(lambda connection: connection.refuse(502), instead_of="upgrade")
            gateway.inject(lambda connection: connection.slow(1), before="upgrade")
            busy = {"Retry-After": "1"}  # to GET /gateway/bot, say
            gateway.inject(lambda it: it.refuse(429, headers=busy), instead_of="answer")
            gateway.inject(lambda it: it.close(4010), instead_of="ready", shard_id=3)
            # The message is created, and the client does not learn of it.
            new = {"method": "POST", "path": "/channels/*/messages"}
            gateway.inject(lambda it: it.reset(), instead_of="response", **new)

        :meth:`GatewayConnection.proceed <shardlib.testing.GatewayConnection.proceed>` takes a
        replaced step later.

        :param action: called with the connection, on the gateway's thread, so that the action must
            not wait; None to do nothing, which only ``instead_of`` allows.
        :param before: the step before which the gateway calls ``action``.
        :param instead_of: the step that the gateway omits, to call ``action`` instead.
        :param connections: how many connections the fault strikes, 1 or more; None for every later
            connection. At "answer" and "response", each request counts as a connection.
        :param shard_id: the id of the shard whose connections the fault strikes, from its Identify
            or Resume on; the steps can be "ready", "replay", "ack" and "close". None for the
            connections of any shard.
        :param method: the HTTP method of the requests that the fault strikes, at the steps "answer"
            and "response"; None for any.
        :param path: the path of these requests, as for :meth:`expect_request`; None for any.
        :raises ValueError: if there is no such step, if not exactly one of ``before`` and
            ``instead_of`` is given, if the fault would do nothing, if ``connections`` is less than
            1, if ``shard_id`` is negative or does not go with the step, if ``method`` or
            ``path`` do not go with it, or if ``path`` begins with ``/api``.
        :raises TypeError: if ``action`` cannot be called.
        """
        if before is not None and instead_of is None:
            fault = Fault(before, action, False, connections, shard_id, method, path)
        elif instead_of is not None and before is None:
            fault = Fault(instead_of, action, True, connections, shard_id, method, path)
        else:
            raise ValueError(
                "give before or instead_of, one of the two: the step at which the fault happens"
            )
        with self._thread.lock:
            self._faults.add(fault)

    def clear_faults(self) -> None:
        """Remove the faults that have not yet struck a connection."""
        with self._thread.lock:
            self._faults.clear()

    def outage(self, seconds: float | None = None) -> None:
        """Begin an outage: reset every connection, those of HTTP too, and refuse new ones.

        :param seconds: how many seconds, by the gateway's clock, the outage lasts; None until
            :meth:`restore`.
        """
        self._thread.call(self._listeners.close_and_reset_clients, self.close_timeout)
        if seconds is not None:
            self._thread.call_later(seconds, self._listeners.reopen)

    def restore(self) -> None:
        """End an :meth:`outage`: listen again at the same ports."""
        self._thread.call(self._listeners.reopen, self.close_timeout)
