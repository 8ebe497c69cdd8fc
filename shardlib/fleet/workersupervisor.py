"""WorkerSupervisor: the thread that owns the life of a worker.

It alone claims, renews and releases shards, and takes their events to Redis.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from shardlib.callbacks import Callbacks
from shardlib.deadline import Deadline
from shardlib.errors import (
    AuthenticationFailed,
    DisallowedIntents,
    InvalidAPIVersion,
    InvalidIntents,
    ShardError,
)
from shardlib.fleet.config import FleetConfig, read_config
from shardlib.fleet.connecting import Client, check_server
from shardlib.fleet.errors import FleetError, RedisAway, no_such_fleet
from shardlib.fleet.keeper import Keeper
from shardlib.fleet.keys import Keys
from shardlib.fleet.leases import Leases
from shardlib.fleet.roster import Roster
from shardlib.fleet.writer import Writer
from shardlib.gateway import RESUMABLE_CLOSE_CODE
from shardlib.lifecycle import PEERS_SHARE, Life, Request
from shardlib.managedshard import ManagedShard
from shardlib.managerlifecycle import ManagerLifecycle
from shardlib.running import LeftToParent
from shardlib.text import count

# Errors of one shard that every other one would meet, too: they are the token's, or the intents'.
_COMMON = (AuthenticationFailed, DisallowedIntents, InvalidAPIVersion, InvalidIntents)

# Seconds between looking whether the shards of a worker that ends are closed.
_LOOK = 0.01

# Seconds after which a Redis is asked again that did not answer.
_RETRY = 0.5


class Tools(NamedTuple):
    """What a worker uses in one life.

    :param leases: its shards.
    :param writer: of their events.
    :param roster: on which it stands.
    :param commands: what looks for commands, on a thread of its own.
    """

    leases: Leases
    writer: Writer
    roster: Roster
    commands: Keeper


class WorkerSupervisor:
    """The lives of a worker, as its thread lives them.

    :param callbacks: of the worker, which has no function of the user's, and writes the log.
    :param keys: of the fleet.
    :param connect: returns a client, and whether it is the worker's own.
    :param make_tools: makes what a life uses.
    :param lease: seconds.
    :param close_timeout: seconds that the shards and the writer may take to end.
    """

    def __init__(
        self,
        callbacks: Callbacks,
        keys: Keys,
        *,
        connect: Callable[[], tuple[Client, bool]],
        make_tools: Callable[[Life, Client, FleetConfig], Tools],
        lease: float,
        close_timeout: float,
    ) -> None:
        self._callbacks = callbacks
        self._lease = lease
        self._keys = keys
        self._connect = connect
        self._make_tools = make_tools
        self._close_timeout = close_timeout
        self.lifecycle = ManagerLifecycle(self._create_thread, self.all_shards)
        #: Of the current life, or of the last one; None before the first.
        self.tools: Tools | None = None
        # The life whose shards are to be handed over, and until when other workers have time.
        self._draining: tuple[Life, Deadline] | None = None
        self._away_since: float | None = None

    def all_shards(self) -> Iterable[ManagedShard]:
        """All shards that there are. Any thread."""
        tools = self.tools
        return () if tools is None else (*tools.leases.shards.values(), *tools.leases.closing)

    def stop(self, error: BaseException) -> None:
        """Close everything because of an error, which the waiting methods raise."""
        life = self.lifecycle.life
        life.stop(error, RESUMABLE_CLOSE_CODE, Deadline(self._close_timeout))

    def drain(self, deadline: Deadline) -> None:
        """Ask the thread to hand the shards over, and to end. Any thread.

        :param deadline: until when other workers have time to take them.
        """
        self._draining = self.lifecycle.latest, deadline
        self.lifecycle.ring()

    # One life

    def _create_thread(self, life: Life) -> threading.Thread:
        return threading.Thread(target=self._run, args=(life,), name="fleet-worker", daemon=True)

    def _run(self, life: Life) -> None:
        error: BaseException | None = None
        client, is_own = self._connect()
        try:
            error = self._keep(life, client)
        except LeftToParent:
            return
        except BaseException as unexpected:
            error = unexpected
            if not isinstance(error, (ShardError, OSError)):
                self._callbacks.log(
                    logging.CRITICAL,
                    "the worker's thread failed, which closes all its shards",
                    exc_info=error,
                )
        try:
            self._finish(life, error)
        finally:
            if is_own:
                client.close()
            if not life.is_closed:
                life.close(error)
            error = None  # its traceback refers to this frame: the two would be a cycle
            self.lifecycle.end(life)

    def _keep(self, life: Life, client: Client) -> BaseException | None:
        """Keep the shards until the life is to end. Returns the error that ends it."""
        self._callbacks.begin_life()
        self.tools = None
        self._away_since = None
        config = self._await_config(life, client)
        if config is None:
            return None
        tools = self.tools = self._make_tools(life, client, config)
        self._callbacks.log(
            logging.INFO, "this worker looks for shards, of %d in all", config.shard_count
        )
        tools.commands.start()
        while life.request is not Request.CLOSE:
            if (deadline := self._drain_deadline(life)) is not None:
                self._ask(tools.leases.drain)
                leases = tools.leases
                if not (leases.shards and leases.has_heirs) or deadline.remaining() == 0:
                    return None
            is_away = not self._ask(tools.leases.tend, tools.writer.write)
            error = self._look_for_errors(tools)
            if error is not None:
                return error
            if is_away:
                self._pause(life, _RETRY)
            else:
                if not tools.writer.has_some:
                    self.lifecycle.await_change(tools.leases.wait)
                time.sleep(tools.writer.wait)
        return None

    def _drain_deadline(self, life: Life) -> Deadline | None:
        if self._draining is None or self._draining[0] is not life:
            return None
        return self._draining[1]

    def _await_config(self, life: Life, client: Client) -> FleetConfig | None:
        """What the workers agree on; None if the life is to be closed before Redis has said so.

        :raises FleetError: if there is no such fleet, or Redis cannot be used.
        """
        risks: list[str] = []
        found: list[FleetConfig] = []

        def look() -> bool:
            risks[:] = check_server(client)
            config = read_config(client, self._keys)
            if config is not None:
                found.append(config)
            return True

        # A Redis that has just lost all is told again by the workers that live.
        told_by: Deadline | None = None
        while life.request is not Request.CLOSE and self._drain_deadline(life) is None:
            answers = self._ask(look, persist=False)
            if found:
                for risk in risks:
                    self._callbacks.log(logging.WARNING, "%s", risk)
                return found[0]
            if answers:
                told_by = told_by or Deadline(self._lease)
                if told_by.remaining() == 0:
                    raise no_such_fleet(self._keys.name)
            self._pause(life, _RETRY)
        return None

    def _ask(self, *functions: Callable[[], bool], persist: bool = True) -> bool:
        """Call functions that ask Redis. Returns False if that does not answer one of them.

        :param functions: each returns False if there was nothing to ask.
        :param persist: True to go on also if Redis refuses, and a person has to change something.
        """
        has_asked = False
        failure: FleetError | None = None
        for function in functions:
            try:
                has_asked |= function()
            except FleetError as error:
                if not persist and not isinstance(error, RedisAway):
                    raise
                failure = failure or error
        if failure is not None:
            self._note_away(failure)
        elif has_asked:
            self._note_back()
        return failure is None

    def _note_away(self, error: FleetError) -> None:
        if self.tools is not None:
            if isinstance(error, RedisAway):
                self.tools.leases.redis_is_away()
            else:  # it answers, if not as it should
                self.tools.leases.redis_is_back()
        if self._away_since is None:
            self._away_since = time.monotonic()
            level = logging.WARNING if isinstance(error, RedisAway) else logging.ERROR
            meanwhile = (
                "This worker waits until it answers"
                if self.tools is None
                else "The shards go on, and their events wait here"
            )
            self._callbacks.log(level, "%s. %s", error, meanwhile)

    def _note_back(self) -> None:
        tools, since = self.tools, self._away_since
        if since is None:
            return
        self._away_since = None
        self._callbacks.log(
            logging.INFO,
            "Redis answers again, after %s",
            count(round(time.monotonic() - since, 1), "second"),
        )
        if tools is not None:
            tools.leases.redis_is_back()

    def _pause(self, life: Life, seconds: float) -> None:
        self.lifecycle.wait(lambda: life.request is Request.CLOSE, Deadline(seconds))

    def _look_for_errors(self, tools: Tools) -> BaseException | None:
        """Note which shards were closed. Returns an error that closes all of them."""
        for shard_id, shard in tools.leases.shards.items():
            if not (shard.was_begun and shard.is_over) or shard.is_leaving or shard.is_fenced:
                continue
            error = shard.error
            if error is None:  # the user has closed it
                shard.leave()
            elif not isinstance(error, Exception) or isinstance(error, _COMMON):
                return error
            elif not shard.has_failed:
                shard.has_failed = True
                # Released, it would fail at another worker, with an Identify more each time.
                self._callbacks.log(
                    logging.ERROR,
                    "shard %d is closed, and its guilds are without the bot; this worker keeps it "
                    "so that no other tries in vain: %s",
                    shard_id,
                    error,
                )
        return None

    # Its end

    def _finish(self, life: Life, error: BaseException | None) -> None:
        if error is not None:
            life.begin_closing(error)
        tools = self.tools
        if tools is not None:
            tools.commands.stop()
            self._hand_all_over(life, tools)
            tools.commands.join(_RETRY)
        life.close(error)
        if life.error is None:
            self._callbacks.log(logging.INFO, "the worker has ended")
        elif isinstance(life.error, Exception):
            self._callbacks.log(logging.ERROR, "the worker has ended: %s", life.error)
        self._callbacks.end_life()

    def _hand_all_over(self, life: Life, tools: Tools) -> None:
        deadline = life.close_deadline or Deadline(self._close_timeout)
        # A part of the time is for releasing the shards whose events Redis does not take.
        left = deadline.remaining()
        deadline = Deadline(None if left is None else left * PEERS_SHARE)
        leases = tools.leases
        for shard in leases.shards.values():
            shard.leave()
        while (leases.shards or leases.closing) and deadline.remaining() != 0:
            is_away = not self._ask(tools.writer.write, leases.look_at_shards)
            if leases.shards or leases.closing:
                time.sleep(_RETRY / 5 if is_away else _LOOK)
        if leases.shards:
            self._callbacks.log(
                logging.WARNING,
                "%d events of %d shards are not in Redis; who claims the shards resumes from what "
                "is there",
                tools.writer.waiting,
                len(leases.shards),
            )
        with contextlib.suppress(FleetError):
            leases.release_all()
            tools.roster.leave()
