"""ShardManager: all shards of a bot in one process, as one object.

What is in this file runs on the threads of users. The manager's own thread is in
:mod:`shardlib.supervisor`; each shard has its two threads as ever.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar, overload

from shardlib import payloads
from shardlib.callbackfactory import create_callbacks
from shardlib.callbacks import Predicate, Waiter
from shardlib.checks import (
    check_at_least_one,
    check_callback,
    check_close_code,
    check_not_negative,
    check_timeout,
    check_type,
)
from shardlib.currentsession import CurrentSession
from shardlib.deadline import Deadline
from shardlib.errors import (
    ConnectionFailed,
    NotReady,
    SendTimeout,
    ShardClosed,
    ShardError,
    ShardsFailed,
)
from shardlib.events import EventQueue, Events
from shardlib.gateway import (
    API_URL,
    API_VERSION,
    NORMAL_CLOSURE,
    RESUMABLE_CLOSE_CODE,
    event_name,
    gateway_url,
)
from shardlib.gatewaybot import (
    GatewayBot,
    GatewayBotRequest,
    check_api_url,
    check_gateway_bot,
)
from shardlib.interrupts import has_interrupted_own_call, run_at_exit, run_to_its_end
from shardlib.lifecontrol import LifeControl
from shardlib.lifecycle import CLOSED_BY_DISCONNECT, Beginning, Life
from shardlib.limits import Gate, default_gate
from shardlib.loss import Loss
from shardlib.managedshard import ManagedShard
from shardlib.ownprocess import OwnProcess
from shardlib.patientgate import PatientGate
from shardlib.payloads import Snowflake, hide_token
from shardlib.running import Callback
from shardlib.shard import EXIT_TIMEOUT, Shard
from shardlib.shardgroup import ShardGroup
from shardlib.supervisor import Supervisor
from shardlib.text import count

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from shardlib.session import Session
    from shardlib.sessionstore import SessionStore
    from shardlib.shardoptions import ShardOptions
    from shardlib.stats import ManagerStats, Stats

_Function = TypeVar("_Function", bound=Callable[[Any, Any], object])
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

# The manager's own callbacks, and how many arguments each gets, the manager included.
_CALLBACKS = {"on_all_ready": 1, "on_resharding_needed": 2}

# The options of a shard that a manager does not take, and what it has instead.
_OF_EACH_SHARD = {
    "shard_id": "shard_ids= runs a part of them",
    "session": "sessions= names a directory for all",
    "backoff": "it cannot be changed",
}

# Seconds beyond a shard's close_timeout in which the manager's thread notes that all are closed.
_CLOSING_GRACE = 1.0

# Shards that a message tells of, each.
_MOST_SHOWN = 3


def _of_the_guilds_shard(
    method: Callable[Concatenate[Shard, Snowflake, _Arguments], _Result],
) -> Callable[Concatenate[ShardManager, Snowflake, _Arguments], _Result]:
    """A method that calls the one of that name of the shard that has the guild."""

    @functools.wraps(method)
    def call(
        self: ShardManager,
        guild_id: Snowflake,
        *arguments: _Arguments.args,
        **options: _Arguments.kwargs,
    ) -> _Result:
        return method(self.shard_for(guild_id), guild_id, *arguments, **options)

    return call  # type: ignore[return-value]  # no type has both the name and the parameters


class ShardManager:
    """All shards of a bot in this process, or a part of them.

    ::

        bot = ShardManager(token, Intents.default(), sessions="sessions")

        @bot.on("MESSAGE_CREATE")
        def greet(shard, message): ...

        bot.run_forever()

    The constructor only checks and stores. :meth:`connect`, :meth:`start` and :meth:`run_forever`
    ask Discord how many shards it recommends and how many sessions the bot may start. Then they
    start the shards in buckets of `max_concurrency`, in order, each shard when its turn to identify
    is near (https://docs.discord.com/developers/events/gateway#sharding). A shard with a session to
    resume starts at once.

    Each shard has its own two threads; the manager has one, ``shard-manager``, which looks after
    them. Callbacks are called on the reader thread of their shard, so those of several shards run
    at the same time. If a `dispatcher` is given, it serves all shards, and also calls the manager's
    own callbacks, which run on the manager's thread otherwise. All callbacks are given to the
    constructor: unlike those of a :class:`Shard`, they cannot be assigned, nor be methods of a
    subclass.

    If the token or the intents are refused (close codes 4004, 4012, 4013, 4014), or a callback
    raises SystemExit or KeyboardInterrupt, all shards are closed. Any other error closes one shard
    at most, and the others go on. If errors have closed every shard, the manager is closed, too.

    A method may be called from any thread and in any callback, unless its description says
    otherwise. In a forked child, every method of a manager that was connected before raises
    :exc:`ForkedProcess`.

    :param token: the bot's token, a str without ``Bot`` in front.
    :param intents: what the bot wants to receive, :class:`shardlib.Intents` or an int.
    :param shard_count: number of the bot's shards, an int from 1; None for the number that Discord
        recommends. Discord makes the largest bots use a multiple of that.
    :param shard_ids: numbers of the shards to run here, ints from 0, if other processes run the
        rest; None for all. It needs `shard_count`.
    :param sessions: a directory in which the sessions are kept, a str or a path object: each is
        saved when it begins, every 5 seconds, and at :meth:`close`, and resumed at the next
        connect(), in another process, too. It is made if it is not there. None keeps none.
    :param gateway_bot: what Discord recommends, instead of asking: a :class:`GatewayBot`, or a
        function that returns one, for a program with an HTTP client of its own for example. The
        manager's thread calls it, and calls it again if it raises an OSError or a ShardError. What
        else it raises, and an answer that cannot be, close the manager, and the methods that wait
        raise it.
    :param api_url: the base of Discord's HTTP API, which is asked if `gateway_bot` is None, a str,
        as :func:`fetch_gateway_bot` takes it: :attr:`shardlib.testing.LocalGateway.http_url`, for
        example.
    :param identify_gate: when a shard may identify, an :class:`IdentifyGate` or any object with its
        ``try_acquire``, which several threads call; by default the one that all shards of the token
        in this process share. If it has an ``update``, it is told of Discord's limits, as
        :meth:`IdentifyGate.update` is, at each start and before :meth:`reshard` (without `total`,
        if it takes none); if it has an ``expected_wait``, a socket is opened when its turn is near,
        else when all shards of the bucket before have identified. A shard that the gate refuses
        because the day's sessions are nearly used up waits; a :class:`Shard` without a manager
        would be closed.
    :param on_all_ready: ``(manager)``: all shards are READY, for the first time in this life, or
        since :meth:`reshard`.
    :param on_resharding_needed: ``(manager, gateway_bot)``: Discord has closed a shard with 4010
        or 4011, so the guilds are to be divided among another number of shards; `gateway_bot` is
        what it recommends now. Called once for a number of shards. With
        ``on_resharding_needed=ShardManager.reshard`` the manager reshards at once, which uses up
        one of the day's sessions for each new shard.
    :param options: every ``on_socket_...`` callback and every option of :class:`Shard`, with the
        same meaning for each shard, but `shard_id`, `session` and `backoff`, of which each shard
        has its own.
    :raises ValueError: if an argument has a value that cannot be; the message says which and why.
    :raises TypeError: if an argument has the wrong type, or a callback cannot be called with what
        it will get.
    """

    def __init__(
        self,
        token: str,
        intents: int,
        shard_count: int | None = None,
        *,
        shard_ids: Iterable[int] | None = None,
        sessions: str | os.PathLike[str] | None = None,
        gateway_bot: GatewayBot | Callable[[], GatewayBot] | None = None,
        api_url: str = API_URL,
        identify_gate: Gate | None = None,
        on_all_ready: Callable[[ShardManager], object] | None = None,
        on_resharding_needed: Callable[[ShardManager, GatewayBot], object] | None = None,
        **options: Unpack[ShardOptions],
    ) -> None:
        _refuse_unknown(options)
        # Never connected. It has what all shards have alike: it checks the options, and keeps the
        # listeners and the presence for shards that are made later.
        self._template = ManagedShard(token, intents, identify_gate=identify_gate, **options)
        self._options: dict[str, Any] = dict(options)
        options_of_all = self._template.options
        self._shard_count = shard_count
        self._shard_ids = _check_shard_ids(shard_ids, shard_count)
        if isinstance(gateway_bot, GatewayBot):
            check_gateway_bot(gateway_bot)
        else:
            check_callback("gateway_bot", gateway_bot, 0)
        self._gateway_bot = gateway_bot
        self._api_url = check_api_url(api_url, options_of_all.proxy)
        self._logger = options.get("logger") or logging.getLogger("shardlib.manager")
        self._callbacks = create_callbacks(
            self,
            self._logger,
            options.get("dispatcher"),
            lifecycle=lambda: self._lifecycle,
            session=CurrentSession,
            hide_token=lambda text: hide_token(text, token),
            stop=lambda error: self._supervisor.stop(error),
            slow_callback=options_of_all.slow_callback,
            thread_prefix="shard-manager",
            meanwhile="no shard can be started meanwhile, and no session saved",
        )
        given = (on_all_ready, on_resharding_needed)
        for (name, arguments), function in zip(_CALLBACKS.items(), given, strict=True):
            check_callback(name, function, arguments)
            self._callbacks.assign(name, function, is_method=False)
        self._gate = PatientGate(identify_gate or default_gate(token), self._callbacks.log)
        self._store: SessionStore | None = None
        if sessions is not None:
            from shardlib.sessionstore import SessionStore  # here: few programs need it

            self._store = SessionStore(sessions, self._callbacks.log)
        # Guards what the shards have alike, while some are made: what is registered meanwhile must
        # reach them, too. Held for moments; reentrant, for a signal handler.
        self._lock = threading.RLock()
        self._reshardings: dict[object, None] = {}  # calls of reshard(), of which the first goes on
        self._past: tuple[Stats, ...] = ()  # of shards that others have replaced
        self._queues: list[EventQueue] = []
        self._waiters: list[tuple[str, Waiter]] = []
        self._process = OwnProcess(
            "this manager was connected before the process was forked, and its threads and "
            "shards are the parent's; make a new ShardManager in the child"
        )
        self._create_supervisor()
        _managers[id(self)] = self

    def _create_supervisor(self) -> None:
        options = self._template.options
        close_timeout = options.close_timeout + _CLOSING_GRACE
        self._supervisor = Supervisor(
            self._callbacks,
            ask=self._ask,
            make_group=self._begin_group,
            adopt=self._adopt,
            store=self._store,
            close_timeout=close_timeout,
        )
        self._lifecycle = self._supervisor.lifecycle
        self._control = LifeControl(
            self._lifecycle,
            self._callbacks,
            connect_timeout=options.connect_timeout,
            close_timeout=close_timeout,
            close_code=self._close_code(None),
            is_delivering=self._is_delivering,
            about_to_begin=lambda: None,
        )

    def _is_delivering(self) -> bool:
        """True on a thread of the dispatcher's, inside a callback of the manager's or a shard's."""
        return self._callbacks.in_delivery() or any(
            shard.is_delivering for shard in self._supervisor.all_shards()
        )

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for each in cls.__mro__:
            if each not in ShardManager.__mro__:  # those beside it count as well
                for name in vars(each):
                    _refuse_callback(name)

    if not TYPE_CHECKING:  # else any attribute could be assigned

        def __setattr__(self, name: str, value: Any) -> None:
            _refuse_callback(name)
            super().__setattr__(name, value)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a ShardManager can be neither pickled nor copied: it owns threads")

    # What a user sees

    def __repr__(self) -> str:
        """How many shards there are, and how many are ready. Never shows the token."""
        if self._process.is_parent:
            return "<ShardManager of the parent process>"
        group = self._group
        if group is None:
            return "<ShardManager, never connected>"
        shown = f"<ShardManager {count(len(group.shards), 'shard')}"
        if len(group.shards) < group.shard_count:
            shown += f" of {group.shard_count}"
        return f"{shown}, {group.ready} ready>"

    @property
    def _group(self) -> ShardGroup | None:
        groups = self._supervisor.groups
        return groups[0] if groups else None

    @property
    def shards(self) -> Mapping[int, Shard]:
        """The shards, by number; read-only, and empty before the first :meth:`connect`.

        Each may be used as any :class:`Shard`. One that you disconnect stays closed until
        :meth:`restart`, and no method waits for it; when all are closed, so is the manager.
        :meth:`reshard` replaces them all.
        """
        self._process.check()
        group = self._group
        return MappingProxyType({} if group is None else group.shards)

    @property
    def shard_count(self) -> int | None:
        """Number of the bot's shards, of which these may be a part; None if not yet known."""
        self._process.check()
        group = self._group
        return self._shard_count if group is None else group.shard_count

    def shard_for(self, guild_id: Snowflake) -> Shard:
        """The shard that receives a guild's events (direct messages come to shard 0).

        https://docs.discord.com/developers/events/gateway#sharding

        :param guild_id: the guild's id, an int or a str of digits.
        :raises NotReady: before the first :meth:`connect`, which finds out how many shards there
            are.
        :raises ValueError: if the id cannot be one, or belongs to a shard that runs elsewhere.
        :raises TypeError: if the id is neither an int nor a str.
        """
        self._process.check()
        number = int(payloads.check_snowflake("guild_id", guild_id))
        group = self._group
        if group is None:
            raise NotReady(
                "which shard has the guild is known when the number of shards is; connect() or "
                "start() first"
            )
        shard = group.shard_for(number)
        if shard is None:
            raise ValueError(
                f"guild {number} belongs to shard {group.shard_id_for(number)} of "
                f"{group.shard_count}, which another process runs"
            )
        return shard

    @property
    def stats(self) -> ManagerStats:
        """A snapshot: the sums of the counters of all shards, and each shard's state.

        The sums count the shards, too, that others have replaced: by :meth:`reshard`, or at a
        :meth:`connect` for which Discord has recommended another number.
        """
        self._process.check()
        from shardlib.stats import ManagerStats, ShardInfo  # here: dataclasses take long to import

        with self._lock:
            past, groups = self._past, self._supervisor.groups
        stats = ManagerStats.of(
            {
                shard_id: ShardInfo(
                    shard.state, shard.heartbeat_ping, shard.session_id, shard.stats
                )
                for group in groups[:1]
                for shard_id, shard in group.shards.items()
            }
        )
        for replaced in (*past, *(shard.stats for shard in _older_shards(groups))):
            stats.add(replaced)
        return stats

    # Listening

    @overload
    def on(self, event: str) -> Callable[[_Function], _Function]: ...

    @overload
    def on(self, event: str, function: _Function) -> _Function: ...

    def on(self, event: str, function: Callable[[Any, Any], object] | None = None) -> Any:
        """Call a function with ``(shard, data)`` for each event of a name, of every shard.

        As :meth:`Shard.on`, for all shards that there are and will be. Without a `dispatcher` it
        may be called on several threads at once, one for each shard.

        :param event: the name, a str.
        :param function: the function to call; without it, a decorator is returned.
        :returns: the function, unchanged.
        :raises ValueError: if no event can have such a name.
        :raises TypeError: if `event` is not a str, or the function cannot be called so.
        """
        self._process.check()
        add_to_template = self._template.on(event)

        def register(function: _Function) -> _Function:
            with self._lock:
                add_to_template(function)
                for shard in self._supervisor.all_shards():
                    shard.add_listener(event_name(event), function)
            return function

        return register if function is None else register(function)

    def off(self, event: str, function: Callback) -> None:
        """Undo one :meth:`on`. Never blocks.

        :param event: the name, a str in any case.
        :param function: the function that was given to :meth:`on`.
        :raises ValueError: if the function does not listen to the event.
        :raises TypeError: if `event` is not a str.
        """
        self._process.check()
        with self._lock:
            self._template.off(event, function)
            for shard in self._supervisor.all_shards():
                with contextlib.suppress(ValueError):  # shard.off() was called by hand
                    shard.off(event, function)

    def wait_for(
        self, event: str, predicate: Predicate | None = None, timeout: float | None = None
    ) -> Any:
        """Block until an event comes to any shard, and return its data.

        As :meth:`Shard.wait_for`; the predicate is called on the reader threads.

        :param event: the name, as for :meth:`on`.
        :param predicate: a function, called with the data; an event for which it returns something
            false is passed over. What it raises is raised here.
        :param timeout: seconds; None waits without end.
        :returns: the event's ``d``.
        :raises TimeoutError: if no such event came in time.
        :raises ShardError: if the manager was never connected, or what has closed it; in a
            callback, and in a signal handler that has interrupted another call.
        :raises SystemExit: if a callback raised it, and so closed all shards.
        :raises KeyboardInterrupt: if a callback raised it, and so closed all shards.
        :raises ValueError: if no event can have such a name, or `timeout` is negative.
        :raises TypeError: if an argument has the wrong type.
        """
        self._process.check()
        check_type("event", event, str)
        (name,) = self._template.wanted_events((event,))
        check_callback("predicate", predicate, 1)
        deadline = Deadline(check_timeout("timeout", timeout))
        life = self._control.begun_life("wait_for")
        self._control.refuse_to_wait("wait_for")
        waiter = Waiter(predicate)
        try:
            with self._lock:
                self._waiters.append((name, waiter))
                for shard in self._supervisor.all_shards():
                    shard.subscribe(waiter, name)
            in_time = self._lifecycle.wait_in(life, lambda: waiter.done, deadline)
        finally:
            with self._lock:
                self._waiters = [each for each in self._waiters if each[1] is not waiter]
                for shard in self._supervisor.all_shards():
                    shard.unsubscribe(waiter)
        if waiter.error is not None:
            raise waiter.error
        if waiter.done:
            return waiter.data
        if not in_time:
            raise TimeoutError(
                f"no {name} came within {count(timeout or 0, 'second')}; {self._progress()}"
            )
        raise life.closed_error()

    def events(self, *names: str, timeout: float | None = None, maxsize: int = 10_000) -> Events:
        """An iterator over the events of all shards, for the thread that asks for them.

        As :meth:`Shard.events`: the events of one shard come in their order, and ``event.shard``
        says whose an event is. If `maxsize` events wait, every shard that has another waits, too.
        The iterator goes on over :meth:`reshard`, and ends when the manager is closed.

        :param names: of the events, each a str as for :meth:`on`; none for all events.
        :param timeout: seconds that each next event is waited for; None waits without end.
        :param maxsize: how many events may wait, an int from 1.
        :returns: an :class:`~shardlib.Events` of :class:`~shardlib.Event` objects.
        :raises ValueError: if no event can have such a name, `timeout` is negative, or `maxsize` is
            below 1.
        :raises TypeError: if an argument has the wrong type.
        """
        self._process.check()
        wanted = self._template.wanted_events(names)
        check_timeout("timeout", timeout)
        check_at_least_one("maxsize", maxsize)
        queue = EventQueue(
            wanted,
            timeout,
            maxsize,
            lifecycle=self._lifecycle,
            owner="the manager",
            progress=self._progress,
        )
        events = Events(queue)  # first: it closes the queue if Ctrl-C comes now
        with self._lock:
            self._queues = [*(each for each in self._queues if not each.is_closed), queue]
            for shard in self._supervisor.all_shards():
                shard.feed(queue)
        return events

    # Life

    def connect(self, socket_url: str | None = None) -> None:
        """Ask Discord, check its limits, and begin to start the shards.

        Blocks until the first socket is open; :meth:`wait_until_ready` waits for all shards. If
        Discord does not answer, or no shard of the first bucket can connect, nothing is left
        running. A later shard that cannot connect goes on trying, and holds up no other. If the
        day's sessions are nearly used up and no shard has one to resume, this waits until Discord
        allows more, which can take hours.

        :param socket_url: where to connect, a ``ws://`` or ``wss://`` URL; None for the one that
            Discord names.
        :raises AuthenticationFailed: if the token is wrong.
        :raises HTTPFailed: if Discord answers something else than what was asked for.
        :raises SessionLimitReached: if Discord allows fewer new sessions than there are shards
            without a session to resume; none was started.
        :raises ConnectionFailed: if Discord cannot be reached, or a callback from before does not
            return.
        :raises AlreadyConnected: if the manager is running.
        :raises ShardsInUse: if another manager runs some of these shards, in this process or
            another, with the same directory of sessions.
        :raises ShardClosed: if :meth:`disconnect` is called meanwhile, or all shards of the first
            bucket are refused.
        :raises ShardError: in a signal handler that has interrupted another call; if eventlet has
            patched the process.
        :raises OSError: if the directory of the sessions cannot be used.
        :raises RuntimeError: if the system has no thread to give.
        :raises ValueError: if `socket_url` is no URL of a gateway.
        :raises TypeError: if `socket_url` is not a str.
        """
        self._begin(socket_url, awaited=True)

    def start(self, socket_url: str | None = None) -> None:
        """Begin as :meth:`connect` does, and return at once.

        If Discord does not answer, the manager goes on asking, after growing pauses, and the log
        tells of each. If another manager runs some of these shards, in this process or another,
        with the same directory of sessions, the manager waits until that has ended, and the log
        tells so. A shard that cannot connect goes on trying, too. A wrong token, and a limit that
        does not suffice for all shards, close the manager: :meth:`join` and the other methods that
        wait raise :exc:`AuthenticationFailed` and :exc:`SessionLimitReached`.

        :param socket_url: as for :meth:`connect`.
        :raises AlreadyConnected: if the manager is running.
        :raises ShardClosed: if :meth:`disconnect` is called meanwhile.
        :raises ShardError: if eventlet has patched the process.
        :raises OSError: if the directory of the sessions cannot be used.
        :raises RuntimeError: if the system has no thread to give.
        :raises ValueError: if `socket_url` is no URL of a gateway.
        :raises TypeError: if `socket_url` is not a str.
        """
        self._begin(socket_url, awaited=False)

    def wait_until_ready(
        self,
        timeout: float | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Block until every shard is READY.

        :param timeout: seconds; None waits without end.
        :param progress: ``(ready, total)``, called on the calling thread at first, and whenever
            another number of shards is ready. What it raises is raised here.
        :raises TimeoutError: if it takes longer; the message says what the others are doing.
        :raises ShardsFailed: if all shards are READY but those that were closed by an error.
        :raises ShardError: if the manager was never connected; if it is closed, with the reason; if
            not all shards are READY, also in a callback, and in a signal handler that has
            interrupted another call.
        :raises SystemExit: if a callback raised it, and so closed all shards.
        :raises KeyboardInterrupt: if a callback raised it, and so closed all shards.
        :raises ValueError: if `timeout` is negative.
        :raises TypeError: if an argument has the wrong type.
        """
        self._process.check()
        deadline = Deadline(check_timeout("timeout", timeout))
        check_callback("progress", progress, 2)
        life = self._control.begun_life("wait_until_ready")
        told: tuple[int, int] | None = None
        while not life.is_over:
            seen = ready, total, failed, is_told = self._seen(life)
            # Here: the life may be READY still, while the shard whose callback this is has lost its
            # connection.
            if not ready == total > 0:
                self._control.refuse_to_wait("wait_until_ready")
            if progress is not None and total and told != (ready, total):
                told = ready, total
                progress(ready, total)
            if ready == total > 0 and (is_told or self._is_in_callback()):
                return
            if failed and ready + failed == total and is_told and (errors := self._errors()):
                raise ShardsFailed(errors)
            if not self._await_change(life, seen, deadline):
                raise TimeoutError(
                    f"not all shards were ready within {count(timeout or 0, 'second')}; "
                    f"{self._progress()}"
                )
        self._control.refuse_to_wait("wait_until_ready")
        self._lifecycle.wait_in(life, lambda: life.is_closed, deadline)
        raise life.closed_error()

    def _await_change(self, life: Life, last: object, deadline: Deadline) -> bool:
        """Wait until :meth:`_seen` returns something else than it did."""
        lifecycle = self._lifecycle
        looked_at: object = None
        is_other = False

        def look() -> bool:
            nonlocal looked_at, is_other
            if not is_other and lifecycle.latest_change is not looked_at:
                looked_at = lifecycle.latest_change  # first, so that no change is missed
                is_other = self._seen(life) != last
            return is_other

        return lifecycle.wait_in(life, look, deadline)

    def _is_in_callback(self) -> bool:
        """True where waiting for the manager's own callbacks could lead nowhere."""
        return (
            self._lifecycle.in_reader_thread()
            or self._callbacks.in_delivery()
            or has_interrupted_own_call()
        )

    def _errors(self) -> dict[int, BaseException]:
        group = self._group
        return {} if group is None else group.errors

    def _seen(self, life: Life) -> tuple[int, int, int, bool]:
        """How many shards are READY, how many there are, and how many have failed.

        The last is True if the manager's own callbacks were told what there is to tell of them.
        """
        group = self._group
        if group is None or group.life is not life:
            return 0, 0, 0, False
        is_told = self._supervisor.has_told(group)
        return group.ready, group.expected, len(group.errors), is_told

    def _progress(self) -> str:
        """What the shards are doing that are not ready, in words for a message."""
        group, obstacle = self._group, self._supervisor.obstacle
        if group is None or obstacle is not None:
            return str(obstacle or "Discord has not said yet how many shards there are to be")
        late = [shard_id for shard_id, shard in group.shards.items() if not shard.is_ready]
        parts = [f"{group.ready} of {len(group.shards)} are ready"]
        parts += [f"shard {each} is {group.progress_of(each)}" for each in late[:_MOST_SHOWN]]
        shown = "; ".join(parts)
        if len(late) > _MOST_SHOWN:
            shown += f"; and {len(late) - _MOST_SHOWN} more"
        return shown

    def close(
        self,
        *,
        keep_sessions: bool | None = None,
        timeout: float = 5.0,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Close all shards, at the same time.

        Blocks the calling thread until all are closed, for about one `close_timeout` if peers do
        not answer, and for `timeout` at most; what is left then goes on closing. In a callback, and
        in a signal handler that has interrupted another call, it asks and returns at once.

        :param keep_sessions: a bool. True: the sessions can be resumed for some minutes, by the
            next connect(); False: they end, and the bot goes offline; None: True if the manager was
            given `sessions`.
        :param timeout: seconds.
        :param progress: ``(closed, total)``, called on the calling thread at first, and whenever
            another number of shards is closed. What it raises is raised here.
        :raises ValueError: if `timeout` is negative.
        :raises TypeError: if an argument has the wrong type.
        """
        self._process.check()
        check_type("keep_sessions", keep_sessions, bool, optional=True)
        deadline = Deadline(check_timeout("timeout", timeout))
        check_callback("progress", progress, 2)
        life = self._lifecycle.request_close(self._close_code(keep_sessions), deadline)
        if self._lifecycle.in_reader_thread() or has_interrupted_own_call():
            return
        shards = list(self._supervisor.all_shards())
        if progress is not None:
            self._tell_closed(life, shards, progress, deadline)
        self._control.wait_for_end(life, deadline)

    def _tell_closed(
        self,
        life: Life,
        shards: list[ManagedShard],
        progress: Callable[[int, int], object],
        deadline: Deadline,
    ) -> None:
        told = -1

        def closed() -> int:
            return sum(shard.has_ended for shard in shards)

        def has_changed() -> bool:  # the life ends without shards whose callbacks do not return
            return life.ended or closed() != told

        while self._lifecycle.wait(has_changed, deadline) and (now := closed()) != told:
            told = now
            progress(told, len(shards))

    def disconnect(self, code: int | None = None, *, wait: bool = True) -> None:
        """Close all shards, as :meth:`Shard.disconnect` closes one.

        :param code: an int, the close code of each connection: 1000 and 1001 end the sessions,
            those from 4000 to 4999 keep them; None as for :meth:`close`.
        :param wait: a bool; False: return before the shards are closed.
        :raises ValueError: if `code` is neither 1000, 1001 nor from 4000 to 4999.
        :raises TypeError: if `code` is not an int, or `wait` is not a bool.
        """
        self._process.check()
        check_close_code(code)
        check_type("wait", wait, bool)
        self._control.close(self._close_code(None) if code is None else code, wait=wait)

    def _close_code(self, keep_sessions: bool | None) -> int:
        if keep_sessions is None:
            keep_sessions = self._store is not None
        return RESUMABLE_CLOSE_CODE if keep_sessions else NORMAL_CLOSURE

    def join(self, timeout: float | None = None) -> None:
        """Block until all shards are closed.

        Returns at once if the manager was never connected.

        :param timeout: seconds; None waits without end.
        :raises TimeoutError: if the shards are not closed in time.
        :raises ShardsFailed: if errors have closed one shard after the other.
        :raises ShardError: the error that has closed all shards, if :meth:`close` has not; in a
            callback, and in a signal handler that has interrupted another call.
        :raises SystemExit: if a callback raised it, and so closed all shards.
        :raises KeyboardInterrupt: if a callback raised it, and so closed all shards.
        :raises ValueError: if `timeout` is negative.
        :raises TypeError: if `timeout` is no number.
        """
        self._process.check()
        self._control.join("the manager", Deadline(check_timeout("timeout", timeout)), timeout)

    def run_forever(self, socket_url: str | None = None) -> None:
        """:meth:`start`, then :meth:`join`. Ctrl-C closes all shards and returns.

        :param socket_url: as for :meth:`connect`.
        :raises AlreadyConnected: if the manager is running.
        :raises ShardsFailed: as :meth:`join`.
        :raises ShardError: as :meth:`join` and :meth:`start`.
        :raises SystemExit: as :meth:`join`.
        :raises KeyboardInterrupt: as :meth:`join`.
        :raises OSError: as :meth:`start`.
        :raises RuntimeError: as :meth:`start`.
        :raises ValueError: if `socket_url` is no URL of a gateway.
        :raises TypeError: if `socket_url` is not a str.
        """
        self._process.check()
        self._control.refuse_to_wait("run_forever", in_delivery=True)
        self._control.run(self._beginning(socket_url, awaited=False), self.disconnect)

    def restart(
        self,
        shard_ids: Iterable[int] | None = None,
        *,
        new_session: bool = False,
        pause: float = 0.0,
        timeout: float | None = None,
    ) -> None:
        """Connect shards anew, one after the other, each when the one before is READY again.

        A shard that was closed, by an error or by hand, begins again. Blocks the calling thread.

        :param shard_ids: numbers of the shards, in the order in which they restart; None for all
            but those that were closed by hand.
        :param new_session: a bool. False: resume the session, if there is one; True: begin a new
            one, which uses up one of the day's.
        :param pause: seconds to wait between two shards.
        :param timeout: seconds for all of it; None waits without end.
        :raises TimeoutError: if it takes longer; shards that were not reached are as they were.
        :raises NotReady: if the manager is not running.
        :raises ShardError: if a shard, or the manager, is closed meanwhile, or :meth:`reshard` has
            replaced the shards; in a callback, and in a signal handler that has interrupted another
            call.
        :raises ValueError: if `pause` or `timeout` is negative, or a number is none of a shard of
            this manager.
        :raises TypeError: if an argument has the wrong type.
        """
        self._process.check()
        check_type("new_session", new_session, bool)
        check_not_negative("pause", pause)
        deadline = Deadline(check_timeout("timeout", timeout))
        self._control.refuse_to_wait("restart", in_delivery=True)
        group, life = self._group, self._lifecycle.latest
        if group is None or group.life is not life or life.is_over:
            raise NotReady("nothing can be restarted: the manager is not running; connect() first")
        if shard_ids is None:
            ids = [each for each, shard in group.shards.items() if not shard.was_closed_by_hand]
        else:
            ids = _check_numbers(shard_ids)
        for shard_id in ids:
            if shard_id not in group.shards:
                raise ValueError(f"shard_ids has {shard_id!r}, which is no shard of this manager")
        self._callbacks.log(logging.INFO, "restarting %s", count(len(ids), "shard"))
        for place, shard_id in enumerate(ids):
            if place and pause:
                self._lifecycle.wait(
                    lambda: life.is_over or group is not self._group,
                    Deadline(pause).earlier(deadline),
                )
            if not self._restart(life, group, shard_id, new_session, deadline):
                raise TimeoutError(
                    f"{place} of {count(len(ids), 'shard')} restarted within "
                    f"{count(timeout or 0, 'second')}; shard {shard_id} is "
                    f"{group.progress_of(shard_id)}"
                )
        self._callbacks.log(logging.INFO, "%s restarted", count(len(ids), "shard"))

    def _restart(
        self, life: Life, group: ShardGroup, shard_id: int, new_session: bool, deadline: Deadline
    ) -> bool:
        """Restart one shard. False if it was not READY in time."""
        shard = group.shards[shard_id]
        self._lifecycle.wait_in(life, lambda: shard.was_begun, deadline)
        self._refuse_to_outlive(life, group, shard)
        if deadline.remaining() != 0:
            has_restarted = shard.request_restart(group.socket_url, new_session=new_session)
            self._refuse_to_outlive(life, group, shard)
            self._lifecycle.wait_in(life, lambda: shard.is_over or has_restarted(), deadline)
            if has_restarted():
                return True
        self._refuse_to_outlive(life, group, shard)
        if shard.is_over:
            raise shard.error or ShardClosed(None, CLOSED_BY_DISCONNECT)
        return False

    def _refuse_to_outlive(self, life: Life, group: ShardGroup, shard: ManagedShard) -> None:
        """Raise if the manager is being closed, or others have replaced its shards.

        The shard may have begun anew since the others were closed, and must not outlive that.
        """
        if life.is_over:
            if self._lifecycle.latest is life:  # else it is a shard of the life that follows
                shard.disconnect(wait=False)
            raise life.closed_error()
        if group is not self._group:
            shard.disconnect(wait=False)
            raise ShardError("the shards were not all restarted: reshard() has replaced them")

    def reshard(
        self, shard_count: int | GatewayBot | None = None, *, timeout: float | None = None
    ) -> None:
        """Divide the bot's guilds among another number of shards, while events go on.

        The new shards connect beside the old ones. When all of them are READY, the old ones close,
        and the new ones deliver what has come since; an event that both have received is delivered
        once. Discord gives events no id, so the manager compares their contents: two events that
        are alike to the letter may be taken for one. The first GUILD_CREATE of a guild that an old
        shard has told of is not delivered. READY is, and callbacks about connections and
        `on_socket_raw_message` are called for old and new shards alike. A shard that was replaced
        never connects again: its connect() and start() raise :exc:`ShardError`.

        Blocks the calling thread for some 5 seconds for each bucket of `max_concurrency` shards,
        and uses up one of the day's sessions for each new shard. It may be called in the manager's
        own callbacks, and in every callback that a `dispatcher` calls; in others it raises
        :exc:`ShardError`. If it fails, the old shards go on.

        :param shard_count: an int from 1, the new number; None for what Discord recommends now; or
            a :class:`GatewayBot`, for what that recommends.
        :param timeout: seconds until all new shards are READY; None waits without end.
        :raises SessionLimitReached: if Discord allows fewer new sessions than there are new shards.
        :raises TimeoutError: if the new shards are not READY in time.
        :raises ShardsFailed: if an error has closed a new shard.
        :raises ShardsInUse: if another manager runs as many shards with the same directory of
            sessions.
        :raises NotReady: if the manager is not running.
        :raises ConnectionFailed: if Discord was to be asked, and cannot be reached.
        :raises HTTPFailed: if Discord was asked, and answers something else.
        :raises ShardError: if the manager is closed meanwhile, or is resharding already; in the
            callbacks of a shard without a `dispatcher`, and in a signal handler that has
            interrupted another call.
        :raises ValueError: if `shard_count` is below 1, or is a GatewayBot with a value that cannot
            be; if `timeout` is negative; and if this manager runs a part of the shards, for which
            other processes would have to change, too.
        :raises TypeError: if an argument has the wrong type.
        """
        self._process.check()
        if isinstance(shard_count, GatewayBot):
            check_gateway_bot(shard_count)
        elif shard_count is not None:
            check_at_least_one("shard_count", shard_count)
        deadline = Deadline(check_timeout("timeout", timeout))
        if self._shard_ids is not None:
            raise ValueError(
                "a manager with shard_ids cannot reshard: the other processes divide the guilds "
                "as before; start all of them anew with another shard_count"
            )
        if not self._lifecycle.life.in_reader_thread():
            self._control.refuse_to_wait("reshard")
        life = self._lifecycle.latest
        old = self._group
        if old is None or old.life is not life or life.is_over:
            raise NotReady("nothing can be resharded: the manager is not running; connect() first")
        call = object()
        try:
            self._reshardings[call] = None  # in here: Ctrl-C may come before the next line
            first, *_ = list(self._reshardings)  # a list: other calls come and go meanwhile
            if first is not call:
                raise ShardError("the manager is resharding already; wait until that is done")
            self._reshard(life, old, shard_count, deadline)
        finally:
            self._reshardings.pop(call, None)

    def _reshard(
        self,
        life: Life,
        old: ShardGroup,
        shard_count: int | GatewayBot | None,
        deadline: Deadline,
    ) -> None:
        gateway_bot = shard_count if isinstance(shard_count, GatewayBot) else self._ask(life)
        if life.is_over:  # Discord may have taken its time
            raise life.closed_error()
        wanted = shard_count if isinstance(shard_count, int) else gateway_bot.shards
        if wanted == old.shard_count:
            self._callbacks.log(
                logging.WARNING,
                "there is nothing to reshard: the bot has %s",
                count(wanted, "shard"),
            )
            return
        shards = {each: self._make_shard(each, wanted, None) for each in range(wanted)}
        new = self._make_group(life, gateway_bot, shards, wanted)
        self._supervisor.check_limit(new, gateway_bot)
        self._callbacks.log(
            logging.INFO, "resharding from %d to %d shards", old.shard_count, new.shard_count
        )
        from shardlib.resharding import Resharding  # here: few programs need it

        resharding = Resharding(
            self._lifecycle,
            old,
            new,
            publish=self._adopt_instead_of,
            is_seen=lambda group: self.shards == group.shards,
            stop=self._supervisor.stop,
            log=self._callbacks.log,
            close_timeout=self._template.options.close_timeout + _CLOSING_GRACE,
        )
        store = self._store
        try:
            if store is not None:
                store.locks.acquire(life, new.shards, wanted)
            resharding.run(life, deadline)
        finally:
            if store is not None:
                left = old.shard_count if self._group is new else wanted
                # Else Ctrl-C could leave a file locked that nobody knows of.
                run_to_its_end(functools.partial(store.locks.release, life, left))
        self._shard_count = wanted
        self._callbacks.log(
            logging.INFO,
            "resharded from %d to %d shards; %s had come to both, and %s delivered once",
            old.shard_count,
            new.shard_count,
            count(resharding.repeats, "event"),
            "was" if resharding.repeats == 1 else "were",
        )

    def __enter__(self) -> ShardManager:
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

    def update_presence(
        self,
        *,
        status: str = "online",
        activities: Iterable[Mapping[str, Any]] = (),
        since: int | None = None,
        afk: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Set the presence of all shards; their later sessions, and later shards, begin with it.

        Shards that have not identified do so with it, and are not waited for. To each of the others
        it is sent, as :meth:`Shard.update_presence` does.

        :param status: "online", "dnd", "idle", "invisible" or "offline".
        :param activities: activity objects, dicts with ``name`` and ``type``.
        :param since: an int, milliseconds of Unix time since when the bot is idle, or None.
        :param afk: a bool, whether the bot is away.
        :param timeout: seconds for all shards together; None means `send_timeout` for each.
        :raises NotReady: if a shard is not READY in time; the others were told all the same.
        :raises SendTimeout: if it could not be sent to a shard in time, likewise.
        :raises ValueError: if an argument has a value that Discord does not document; nothing was
            sent.
        :raises TypeError: if an argument has the wrong type; nothing was sent.
        """
        self._process.check()
        deadline = Deadline(check_timeout("timeout", timeout))
        payload = payloads.presence_update(
            status=status, activities=activities, since=since, afk=afk
        )
        with self._lock:
            for shard in (self._template, *self._supervisor.all_shards()):
                shard.begin_with(payload["d"])
        shards = [shard for shard in self._supervisor.all_shards() if shard.has_identified]
        failures: list[tuple[ManagedShard, NotReady | SendTimeout]] = []
        for shard in shards:
            try:
                shard.send(payload, deadline.remaining())
            except (NotReady, SendTimeout) as error:
                failures.append((shard, error))
            except ShardError:
                pass  # it is closed; if it begins anew, it begins with the presence
        if failures:
            shard, failure = failures[0]
            raise type(failure)(
                f"{len(shards) - len(failures)} of {count(len(shards), 'shard')} have the "
                f"presence; shard {shard.shard_id}: {failure}"
            ) from failure

    update_voice_state = _of_the_guilds_shard(Shard.update_voice_state)
    request_guild_members = _of_the_guilds_shard(Shard.request_guild_members)
    request_channel_info = _of_the_guilds_shard(Shard.request_channel_info)
    fetch_guild_members = _of_the_guilds_shard(Shard.fetch_guild_members)
    fetch_channel_info = _of_the_guilds_shard(Shard.fetch_channel_info)
    join_voice = _of_the_guilds_shard(Shard.join_voice)

    # Beginning

    def _begin(self, socket_url: str | None, *, awaited: bool) -> None:
        self._process.check()
        self._control.begin(self._beginning(socket_url, awaited=awaited))

    def _beginning(self, socket_url: str | None, *, awaited: bool) -> Beginning:
        if socket_url is not None:  # raises if it can't be
            gateway_url(socket_url, API_VERSION, self._template.options.compression)
        if self._store is not None:
            self._store.prepare()
        return Beginning(socket_url or "", API_VERSION, awaited=awaited)

    # The manager's thread

    def _ask(self, life: Life) -> GatewayBot:
        """What Discord recommends. Blocks for ten seconds at most, unless the user's function does.

        :param life: which ends the request if it is to be closed.
        """
        source = self._gateway_bot
        if isinstance(source, GatewayBot):
            return source
        if source is None:
            request = GatewayBotRequest(
                self._template.token,
                self._api_url,
                ssl_context=self._template.options.ssl_context,
                proxy=self._template.options.proxy,
            )
            if not life.use(_Asking(request)):
                request.abort()  # the life was asked to close before it had what to interrupt
            try:
                return request.wait()
            except ConnectionFailed:
                if life.is_over:  # which has aborted the request
                    raise life.closed_error() from None
                raise
        answer = (
            self._callbacks.run("the function gateway_bot", source)
            if self._lifecycle.life.in_reader_thread()
            else source()
        )
        if not isinstance(answer, GatewayBot):
            raise TypeError(
                "the function gateway_bot must return a GatewayBot, as fetch_gateway_bot() does, "
                f"not {type(answer).__name__}"
            )
        return check_gateway_bot(answer)

    def _begin_group(self, life: Life, gateway_bot: GatewayBot) -> ShardGroup:
        """The shards of a life: those of the life before, with their sessions, if they fit."""
        shard_count = self._shard_count or gateway_bot.shards
        shard_ids = self._shard_ids or range(shard_count)
        group = self._group
        if self._store is not None:
            self._store.locks.acquire(life, shard_ids, shard_count)
        if group is not None and group.shard_count == shard_count:
            shards = group.shards
        else:
            sessions = {} if self._store is None else self._store.load(shard_ids, shard_count)
            shards = {
                shard_id: self._make_shard(shard_id, shard_count, sessions.get(shard_id))
                for shard_id in shard_ids
            }
        return self._make_group(life, gateway_bot, shards, shard_count)

    def _make_group(
        self,
        life: Life,
        gateway_bot: GatewayBot,
        shards: Mapping[int, ManagedShard],
        shard_count: int,
    ) -> ShardGroup:
        self._gate.update(gateway_bot)
        return ShardGroup(
            shards,
            shard_count,
            life=life,
            socket_url=life.beginning.socket_url or gateway_bot.url,
            gate=self._gate,
            max_concurrency=gateway_bot.max_concurrency,
        )

    def _make_shard(self, shard_id: int, shard_count: int, session: Session | None) -> ManagedShard:
        shard = ManagedShard(
            self._template.token,
            self._template.intents,
            shard_id,
            shard_count,
            session=session,
            identify_gate=self._gate,
            **self._options,
        )
        shard.observe(self._lifecycle)
        return shard

    def _adopt(self, *groups: ShardGroup) -> None:
        """Give the shards of groups what all have alike, and let all see them from now on."""
        with self._lock:
            shards = {shard for group in groups for shard in group.shards.values()}
            new = shards.difference(self._supervisor.all_shards())
            for shard in new:
                shard.begin_with(self._template.next_presence)
                shard.listen_like(self._template.listeners)
                for queue in self._queues:
                    shard.feed(queue)
                for name, waiter in self._waiters:
                    shard.subscribe(waiter, name)
            left = [group for group in self._supervisor.groups if group not in groups]
            gone = [shard for shard in _older_shards((groups[0], *left)) if shard not in shards]
            self._past = (*self._past, *(shard.stats for shard in gone))
            self._supervisor.publish(*groups)

    def _adopt_instead_of(self, group: ShardGroup, *groups: ShardGroup) -> bool:
        """:meth:`_adopt` instead of the group that users see. False if that is another meanwhile.

        It is in the next life, say: its shards must not be lost from sight.
        """
        with self._lock:
            if self._group is not group or self._lifecycle.life is not group.life:
                return False
            self._adopt(*groups)
            return True

    # Processes

    def _close_at_exit(self, deadline: Deadline) -> Callable[[], object]:
        """Ask all shards to close. Returns a function that waits until they are."""
        if self._process.is_parent or not self._lifecycle.began:
            return lambda: None
        self._lifecycle.interpreter_exits()
        life = self._lifecycle.request_close(RESUMABLE_CLOSE_CODE, deadline)
        return lambda: self._lifecycle.wait(lambda: life.ended, deadline)

    def _begin_in_forked_child(self) -> None:
        """Leave everything to the parent; or be the child's manager, if there was none yet."""
        if self._lifecycle.began:
            self._callbacks.leave_to_parent()
            if self._store is not None:
                self._store.locks.leave_to_parent()
            return
        self._lock = threading.RLock()
        # Those of the parent take nothing here: their queues would fill, and hold the shards up.
        self._queues, self._waiters = [], []
        self._callbacks.begin_in_forked_child()
        self._create_supervisor()
        self._process.take_over()


def _older_shards(groups: Sequence[ShardGroup]) -> Iterator[ManagedShard]:
    """The shards of those groups that the first one replaces, and not of one that replaces it."""
    for group in groups[1:]:
        if group.is_older(groups[0]):
            yield from group.shards.values()


def _check_numbers(shard_ids: Any) -> list[int]:
    """The numbers in `shard_ids`, an argument of the user's.

    :raises TypeError: if it is something else than a list of int.
    """
    if isinstance(shard_ids, (str, bytes)) or not isinstance(shard_ids, Iterable):
        raise TypeError(f"shard_ids must be a list of int, not {type(shard_ids).__name__}")
    numbers = list(shard_ids)
    for number in numbers:
        check_type("shard_ids", number, int)
    return numbers


class _Asking:
    """What a life that is to be closed interrupts: the request under way.

    :param request: to Discord.
    """

    def __init__(self, request: GatewayBotRequest) -> None:
        self._request = request

    def interrupt(self) -> None:
        self._request.abort()

    def fail(self, loss: Loss, code: int, deadline: Deadline) -> None:
        self._request.abort()


def _refuse_callback(name: str) -> None:
    """Refuse an attribute that looks like a callback, and would never be called.

    :raises AttributeError: if it does.
    """
    if name.startswith("on_socket_") or name in _CALLBACKS:
        raise AttributeError(
            f"a manager takes callbacks in its constructor only: ShardManager(..., {name}=...); "
            "on() adds a function for an event"
        )


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    """Check the names of options.

    :raises TypeError: if a shard has none of that name, or each shard of a manager has its own.
    """
    from shardlib.shardoptions import ShardOptions

    for name in options:
        if name in _OF_EACH_SHARD:
            raise TypeError(
                f"ShardManager() takes no {name}: each of its shards has its own; "
                f"{_OF_EACH_SHARD[name]}"
            )
        if name not in ShardOptions.__annotations__:
            raise TypeError(f"ShardManager() got an unexpected keyword argument {name!r}")


def _check_shard_ids(
    shard_ids: Iterable[int] | None, shard_count: int | None
) -> tuple[int, ...] | None:
    """The numbers of the shards to run, sorted; None for all."""
    if shard_count is not None:
        check_at_least_one("shard_count", shard_count)
    if shard_ids is None:
        return None
    numbers = _check_numbers(shard_ids)
    if shard_count is None:
        raise ValueError(
            "shard_ids needs shard_count: all processes must divide the guilds among the same "
            "number of shards"
        )
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError("shard_ids must have a number at least, and each once")
    for number in numbers:
        if not 0 <= number < shard_count:
            raise ValueError(f"shard_ids must be from 0 to {shard_count - 1}, not {number}")
    return tuple(sorted(numbers))


# All managers there are. Those that run save their sessions as the interpreter exits; those that
# never ran begin anew in a forked child.
_managers: weakref.WeakValueDictionary[int, ShardManager] = weakref.WeakValueDictionary()


def _all_managers() -> list[ShardManager]:
    return [manager for each in _managers.valuerefs() if (manager := each()) is not None]


def _close_all_at_exit() -> None:
    """Close every manager as the interpreter exits; their sessions stay resumable.

    This runs before the shards' own exit handler, which was registered first.
    """
    deadline = Deadline(EXIT_TIMEOUT)
    for wait in [manager._close_at_exit(deadline) for manager in _all_managers()]:
        wait()


def _begin_all_in_forked_child() -> None:
    for manager in _all_managers():
        manager._begin_in_forked_child()


run_at_exit(_close_all_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all_in_forked_child)
