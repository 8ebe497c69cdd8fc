"""Worker: the shards of a fleet that run in this process, as one object.

What is in this file runs on the threads of users. The worker's own thread is in
:mod:`shardlib.fleet.workersupervisor`; each shard has its two threads as ever.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import secrets
import socket
import weakref
from collections.abc import Callable, Container, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from shardlib.callbackfactory import create_callbacks
from shardlib.checks import check_at_least_one, check_not_negative, check_timeout
from shardlib.currentsession import CurrentSession
from shardlib.deadline import Deadline
from shardlib.fleet.commandrunner import INTERVAL, CommandRunner
from shardlib.fleet.commandscripts import CommandScripts
from shardlib.fleet.config import FleetConfig
from shardlib.fleet.connecting import Client
from shardlib.fleet.fleetevents import check_event_names
from shardlib.fleet.fleetgate import FleetGate
from shardlib.fleet.fleetshard import FleetShard
from shardlib.fleet.gatescripts import GateScripts
from shardlib.fleet.keeper import Keeper
from shardlib.fleet.keys import Keys
from shardlib.fleet.leases import Leases
from shardlib.fleet.outbox import Outbox
from shardlib.fleet.resuming import ResumeHosts, session_to_resume
from shardlib.fleet.roster import Roster
from shardlib.fleet.scripts import Claim, ShardScripts
from shardlib.fleet.workersupervisor import Tools, WorkerSupervisor
from shardlib.fleet.writer import Writer
from shardlib.gateway import (
    API_VERSION,
    GATEWAY_URL,
    RESUMABLE_CLOSE_CODE,
    gateway_url,
    misspelling_warning,
)
from shardlib.interrupts import has_interrupted_own_call, run_at_exit
from shardlib.lifecontrol import LifeControl
from shardlib.lifecycle import Beginning, Life
from shardlib.managedshard import ManagedShard
from shardlib.ownprocess import OwnProcess
from shardlib.payloads import hide_token
from shardlib.shard import EXIT_TIMEOUT, Shard
from shardlib.shardoptions import ShardOptions
from shardlib.stats import ShardInfo

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Seconds beyond a shard's close_timeout in which the events that wait are written.
_FLUSHING = 5.0

# Options of a shard that a worker sets itself, and why.
_OWN_OPTIONS = {
    "on_socket_text": "it takes the events to Redis",
    "acknowledge": "an event is done with when it is in Redis",
    "session_gate": "Redis says who may resume",
    "identify_gate": "Redis says who may identify",
    "should_reconnect": "its shards always do",
    "dispatcher": "the reader of each shard has to wait if Redis does",
}


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerStats:
    """The counters of a worker, since it was started. It is a snapshot.

    :param shards: the worker's shards by their number.
    :param waiting: events that wait for Redis.
    :param written: events that were appended.
    :param batches: in which they were appended.
    :param refused: batches that Redis has refused, since another worker had claimed the shard.
    :param regressions: how often Redis had lost newest events of a shard.
    """

    shards: Mapping[int, ShardInfo]
    waiting: int = 0
    written: int = 0
    batches: int = 0
    refused: int = 0
    regressions: int = 0


class Worker:
    """A part of a fleet's shards, which run in this process and write their events to Redis.

    :meth:`shardlib.fleet.Fleet.worker` makes it, and describes its arguments. One thread,
    ``fleet-worker``, claims shards and writes the events of all of them; another,
    ``fleet-commands``, carries out what :attr:`Fleet.commands` is asked for. Each shard has its two
    threads as ever. `on_socket_error` is called on ``fleet-commands``, too: with the error of a
    command that was not carried out.

    If the token or the intents are refused, or a callback raises SystemExit or KeyboardInterrupt,
    the worker ends, and releases its shards. Any other error closes one shard at most; the worker
    keeps that shard, and the log tells so.

    A method may be called from any thread and in any callback, unless its description says
    otherwise.
    """

    def __init__(
        self,
        connect: Callable[[], tuple[Client, bool]],
        keys: Keys,
        token: str,
        intents: int,
        most_shards: int | None,
        *,
        lease: float,
        keep_events: int,
        buffer: int,
        replay_memory: float,
        forward: Container[str] | None,
        **options: Unpack[ShardOptions],
    ) -> None:
        _check_options(options)
        if most_shards is not None:
            check_at_least_one("most_shards", most_shards)
        check_at_least_one("buffer", buffer)
        check_not_negative("replay_memory", replay_memory)
        if isinstance(forward, (str, bytes)) or not isinstance(forward, (Container, type(None))):
            raise TypeError(
                f"forward must be a set of the names of events, not {type(forward).__name__}"
            )
        names: object = forward  # a container may be no iterable
        if isinstance(names, Iterable):
            forward = check_event_names("forward", names)
        options.setdefault("slow_callback", None)  # a reader that waits for Redis is no fault
        # Never connected: it checks the arguments.
        template = ManagedShard(token, intents, **options)
        self._keys = keys
        self._token = token
        self._intents = intents
        self._most_shards = most_shards
        self._lease = lease
        self._keep_events = keep_events
        self._buffer = buffer
        self._replay_memory = replay_memory
        self._forward = forward
        self._options: dict[str, Any] = dict(options)
        self._compression = template.options.compression
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._process = OwnProcess(
            "this worker was made before the process was forked, and its threads and shards are "
            "the parent's; make a new one in the child"
        )
        self._callbacks = create_callbacks(
            self,
            options.get("logger") or logging.getLogger("shardlib.fleet"),
            None,
            lifecycle=lambda: self._lifecycle,
            session=CurrentSession,
            hide_token=lambda text: hide_token(text, token),
            stop=lambda error: self._supervisor.stop(error),
            slow_callback=None,
            thread_prefix="fleet-worker",
        )
        self._close_timeout = close_timeout = template.options.close_timeout + _FLUSHING
        self._supervisor = WorkerSupervisor(
            self._callbacks,
            keys,
            connect=connect,
            make_tools=self._make_tools,
            lease=lease,
            close_timeout=close_timeout,
        )
        self._lifecycle = self._supervisor.lifecycle
        self._control = LifeControl(
            self._lifecycle,
            self._callbacks,
            connect_timeout=template.options.connect_timeout,
            close_timeout=close_timeout,
            close_code=RESUMABLE_CLOSE_CODE,
            is_delivering=lambda: False,
            about_to_begin=lambda: None,
        )
        _workers[id(self)] = self

    def __repr__(self) -> str:
        """Its name, and how many shards it has. Never shows the token."""
        tools = self._supervisor.tools
        number = 0 if tools is None else len(tools.leases.shards)
        return f"<Worker {self._name} of fleet {self._keys.name!r}, {number} shards>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a Worker can be neither pickled nor copied: it owns threads")

    # What a user sees

    @property
    def name(self) -> str:
        """Its name, as :meth:`Fleet.shards` gives it: the host, the process, and a random part."""
        return self._name

    @property
    def shards(self) -> Mapping[int, Shard]:
        """The shards that the worker has now, by number; read-only.

        :meth:`~shardlib.Shard.disconnect` with a resumable code hands one over; so does the worker
        itself, when others join."""
        tools = self._supervisor.tools
        return MappingProxyType({}) if tools is None else tools.leases.shards

    @property
    def error(self) -> BaseException | None:
        """The error that has ended the worker; None while it runs, and after a usual end."""
        return self._lifecycle.latest.error

    @property
    def stats(self) -> WorkerStats:
        """A snapshot of the counters."""
        tools = self._supervisor.tools
        if tools is None:
            return WorkerStats({})
        shards = {
            shard_id: ShardInfo(shard.state, shard.heartbeat_ping, shard.session_id, shard.stats)
            for shard_id, shard in tools.leases.shards.items()
        }
        writer = tools.writer
        return WorkerStats(
            shards,
            waiting=writer.waiting,
            written=writer.written,
            batches=writer.batches,
            refused=writer.refused,
            regressions=writer.regressions,
        )

    # Its life

    def start(self, socket_url: str = GATEWAY_URL) -> None:
        """Begin to claim shards and to run them. Returns at once, and keeps trying.

        :param socket_url: where the shards connect, a URL.
        :raises ValueError: if `socket_url` cannot be one.
        :raises AlreadyConnected: if the worker runs.
        :raises ForkedProcess: in a process that was forked after the worker was made.
        """
        self._control.begin(self._beginning(socket_url))

    def run_forever(self, socket_url: str = GATEWAY_URL) -> None:
        """:meth:`start`, and block until the worker has ended. Ctrl-C does what :meth:`stop` does.

        :param socket_url: where the shards connect, a URL.
        :raises FleetError: if Redis cannot be used, or has no such fleet.
        :raises AuthenticationFailed: if Discord refuses the token.
        :raises ShardClosed: if Discord refuses the intents; the error is of one of its subclasses.
        :raises ValueError: as :meth:`start`.
        :raises AlreadyConnected: as :meth:`start`.
        :raises ForkedProcess: as :meth:`start`.
        """
        self._control.refuse_to_wait("run_forever", in_delivery=True)
        self._control.run(self._beginning(socket_url), self.stop)

    def drain(self, timeout: float = 60.0) -> None:
        """Hand all shards over to other workers, a few at a time, and end.

        A shard is closed such that its session can be resumed, its events are written, and it is
        released; so another worker resumes it within a second. The next shards follow when others
        have claimed those before. Blocks until the worker has ended; in a callback, and in a signal
        handler that has interrupted another call, it asks and returns at once.

        :param timeout: seconds after which the other shards are released all the same, as
            :meth:`stop` does. If no other worker lives, they are at once.
        :raises ValueError: if `timeout` is negative.
        :raises TypeError: if `timeout` is no number.
        """
        self._process.check()
        deadline = Deadline(check_timeout("timeout", timeout))
        life = self._lifecycle.latest
        self._supervisor.drain(deadline)
        if not self._must_not_wait():
            self._control.wait_for_end(life, Deadline(timeout + self._close_timeout))

    def stop(self, timeout: float = 10.0) -> None:
        """Close all shards at once, write their events, release them, and end.

        The sessions can be resumed for some minutes, by whichever worker claims the shards. Blocks
        until that is done, and for `timeout` at most; in a callback, and in a signal handler that
        has interrupted another call, it asks and returns at once.

        :param timeout: seconds.
        :raises ValueError: if `timeout` is negative.
        :raises TypeError: if `timeout` is no number.
        """
        self._process.check()
        deadline = Deadline(check_timeout("timeout", timeout))
        life = self._lifecycle.latest
        self._control.close(RESUMABLE_CLOSE_CODE, wait=False)
        if not self._must_not_wait():
            self._control.wait_for_end(life, deadline)

    def _must_not_wait(self) -> bool:
        """True in a callback, and in a handler that has interrupted another call."""
        return self._lifecycle.in_reader_thread() or has_interrupted_own_call()

    def join(self, timeout: float | None = None) -> None:
        """Block until the worker has ended.

        :param timeout: seconds; None waits without end.
        :raises TimeoutError: if it has not ended in time.
        :raises FleetError: if Redis cannot be used, or has no such fleet.
        :raises ShardClosed: if Discord has refused the token or the intents.
        :raises ShardError: in a callback.
        :raises ValueError: if `timeout` is negative.
        :raises TypeError: if `timeout` is no number.
        """
        self._process.check()
        self._control.join("the worker", Deadline(check_timeout("timeout", timeout)), timeout)

    # Beginning

    def _beginning(self, socket_url: str) -> Beginning:
        self._process.check()
        gateway_url(socket_url, API_VERSION, self._compression)  # raises if it can't be
        if isinstance(self._forward, frozenset):
            for name in sorted(self._forward):
                warning = misspelling_warning(name)
                if warning is not None:
                    self._callbacks.log(logging.WARNING, "%s", warning)
        return Beginning(socket_url, API_VERSION, awaited=False)

    def _make_tools(self, life: Life, client: Client, config: FleetConfig) -> Tools:
        keys, log = self._keys, self._callbacks.log
        scripts = ShardScripts(client, keys, lease=self._lease, keep_events=self._keep_events)
        roster = Roster(client, keys, self._name, self._most_shards, lease=self._lease)
        gate = FleetGate(GateScripts(client, keys), config, log)
        socket_url = life.beginning.socket_url
        hosts = ResumeHosts(socket_url)

        def make_shard(shard_id: int, lease_token: str, claim: Claim) -> FleetShard:
            session = session_to_resume(
                claim.session, shard_id, config.shard_count, hosts=hosts, log=log
            )
            outbox = Outbox(
                None if session is None else claim.session,
                shard_count=config.shard_count,
                buffer=self._buffer,
                replay_memory=self._replay_memory,
                ring=self._lifecycle.ring,
            )
            shard = FleetShard(
                self._token,
                self._intents,
                shard_id,
                config.shard_count,
                session=session,
                lease_token=lease_token,
                claim=claim,
                outbox=outbox,
                forward=self._forward,
                scripts=scripts,
                identify_gate=gate,
                **self._options,
            )
            shard.observe(self._lifecycle)
            return shard

        leases = Leases(
            client,
            keys,
            scripts,
            roster,
            name=self._name,
            config=config,
            lease=self._lease,
            make_shard=make_shard,
            start=lambda shard: shard.take_turn(socket_url),
            log=log,
        )
        writer = Writer(scripts, lambda: leases.shards, log)
        runner = CommandRunner(
            CommandScripts(client, keys),
            lambda: leases.shards,
            name=self._name,
            socket_url=socket_url,
            drain=lambda timeout: self._supervisor.drain(Deadline(timeout)),
            log=log,
            on_error=self._tell_command_failed,
        )
        return Tools(leases, writer, roster, Keeper(runner.run, INTERVAL, "fleet-commands"))

    def _tell_command_failed(self, shard: Shard, error: Exception) -> None:
        """Tell of a command that was not carried out, on the thread that was to do it."""
        self._callbacks.report(error, f"a command to shard {shard.shard_id} was not carried out: ")
        function = self._options.get("on_socket_error")
        if function is None:
            return
        try:
            function(shard, error)
        except Exception as failure:
            self._callbacks.log(
                logging.ERROR,
                "the callback on_socket_error failed, which closes nothing",
                exc_info=failure,
            )
        except BaseException as end:  # SystemExit, KeyboardInterrupt: for join() to raise
            self._supervisor.stop(end)

    # Processes

    def _close_at_exit(self, deadline: Deadline) -> None:
        if not self._process.is_parent and self._lifecycle.began:
            self._lifecycle.interpreter_exits()
            life = self._lifecycle.request_close(RESUMABLE_CLOSE_CODE, deadline)
            self._lifecycle.wait(lambda: life.ended, deadline)


def machine_of(name: str) -> str:
    """The host of the worker of a name."""
    return name.rsplit("-", 2)[0]


def _check_options(options: Mapping[str, Any]) -> None:
    """Check the names of options.

    :raises TypeError: if a shard has none of that name, or the worker sets it.
    """
    for name in options:
        if name in _OWN_OPTIONS:
            raise TypeError(f"worker() takes no {name}: {_OWN_OPTIONS[name]}")
        if name not in ShardOptions.__annotations__:
            raise TypeError(f"worker() got an unexpected keyword argument {name!r}")


# All workers there are. Those that run release their shards as the interpreter exits.
_workers: weakref.WeakValueDictionary[int, Worker] = weakref.WeakValueDictionary()


def _close_all_at_exit() -> None:
    """End every worker as the interpreter exits.

    This runs before the shards' own exit handler, which was registered first.
    """
    deadline = Deadline(EXIT_TIMEOUT)
    for reference in _workers.valuerefs():
        worker = reference()
        if worker is not None:
            worker._close_at_exit(deadline)


run_at_exit(_close_all_at_exit)
