"""Supervisor: the thread that owns the life of a manager.

It alone asks Discord, makes the shards, starts them, notes which have failed, and saves their
sessions. Each shard's own reader does all the rest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from shardlib.backoff import Backoff
from shardlib.callbacks import Callbacks
from shardlib.deadline import Deadline
from shardlib.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    DisallowedIntents,
    InvalidAPIVersion,
    InvalidIntents,
    InvalidShard,
    SessionLimitReached,
    ShardError,
    ShardingRequired,
    ShardsFailed,
    ShardsInUse,
)
from shardlib.gateway import RESUMABLE_CLOSE_CODE
from shardlib.gatewaybot import GatewayBot
from shardlib.lifecycle import Life, Request
from shardlib.managedshard import ManagedShard
from shardlib.managerlifecycle import ManagerLifecycle
from shardlib.running import LeftToParent
from shardlib.shardgroup import ShardGroup
from shardlib.state import ShardState
from shardlib.text import count, describe

if TYPE_CHECKING:
    from shardlib.sessionstore import SessionStore

# Errors of one shard that every other one would meet, too: they are the token's, or the intents'.
COMMON = (AuthenticationFailed, DisallowedIntents, InvalidAPIVersion, InvalidIntents)

# Errors that say that the guilds are to be divided among another number of shards.
DIVISION = (InvalidShard, ShardingRequired)

# Seconds between two looks at which sessions have moved on, to save them.
SAVE_INTERVAL = 5.0

# Seconds between two looks whether another process has ended, of which nothing tells.
LOCK_INTERVAL = 0.2


class Supervisor:
    """The lives of a manager, as its thread lives them.

    :param callbacks: of the manager.
    :param ask: returns what Discord recommends.
    :param make_group: makes the shards of a life, and the way they start.
    :param adopt: calls :meth:`publish`, having given the shards what all have alike.
    :param store: of their sessions, None to keep them in memory only.
    :param close_timeout: seconds that the shards may take to close.
    """

    def __init__(
        self,
        callbacks: Callbacks,
        *,
        ask: Callable[[Life], GatewayBot],
        make_group: Callable[[Life, GatewayBot], ShardGroup],
        adopt: Callable[[ShardGroup], object],
        store: SessionStore | None,
        close_timeout: float,
    ) -> None:
        self._callbacks = callbacks
        self._ask = ask
        self._make_group = make_group
        self._adopt = adopt
        self._store = store
        self._close_timeout = close_timeout
        self.lifecycle = ManagerLifecycle(self._create_thread, self.all_shards)
        #: The group of the shards that users see, and one that is being formed or closed beside it.
        #: Replaced as a whole; empty before the first life.
        self.groups: tuple[ShardGroup, ...] = ()
        #: Why no shard could be started yet in this life, None if nothing has gone wrong.
        self.obstacle: Exception | None = None
        self._saved_ids: dict[tuple[int, int], str | None] = {}
        self._told: set[tuple[int, int]] = set()  # (shard_id, shard_count) of those that failed

    def all_shards(self) -> Iterator[ManagedShard]:
        """All shards that there are. Any thread."""
        for group in self.groups:
            yield from group.shards.values()

    def publish(self, *groups: ShardGroup) -> None:
        """Let all threads see groups from now on; users see the first."""
        self.groups = groups
        self.lifecycle.changed()

    def check_limit(self, group: ShardGroup, gateway_bot: GatewayBot) -> None:
        """Check that Discord allows as many new sessions as a group needs.

        :raises SessionLimitReached: if not.
        """
        if group.needed > gateway_bot.remaining:
            raise SessionLimitReached(group.needed, gateway_bot.remaining, gateway_bot.reset_after)

    def has_told(self, group: ShardGroup) -> bool:
        """True once the manager's callbacks were told what is to be told of a group as it is."""
        if any(isinstance(error, DIVISION) for error in group.errors.values()):
            return group.is_division_told
        return group.is_ready_told or bool(group.errors)

    def stop(self, error: BaseException) -> None:
        """Close everything because of an error, which the waiting methods raise."""
        life = self.lifecycle.life
        life.stop(error, RESUMABLE_CLOSE_CODE, Deadline(self._close_timeout))

    # One life

    def _create_thread(self, life: Life) -> threading.Thread:
        return threading.Thread(target=self._run, args=(life,), name="shard-manager", daemon=True)

    def _run(self, life: Life) -> None:
        """The manager's thread."""
        error: BaseException | None = None
        try:
            error = self._supervise(life)
        except LeftToParent:
            return
        except BaseException as unexpected:
            error = unexpected
            if isinstance(error, Exception) and not isinstance(error, (ShardError, OSError)):
                self._callbacks.log(
                    logging.CRITICAL,
                    "the manager's thread failed, which closes all shards",
                    exc_info=error,
                )
        try:
            self._finish(life, error)
        finally:
            if self._store is not None:
                self._store.locks.release(life)
            if not life.is_closed:
                life.close(error)
            error = None  # its traceback refers to this frame: the two would be a cycle
            self.lifecycle.end(life)

    def _supervise(self, life: Life) -> BaseException | None:
        """Look after the shards until the life is to end. Returns the error that ends it."""
        self._callbacks.begin_life()
        group = self._await_group(life)
        if group is None:
            return None
        self._adopt(group)
        self._callbacks.log(
            logging.INFO,
            "starting %s of %d, %d of them with a session to resume",
            count(len(group.shards), "shard"),
            group.shard_count,
            len(group.shards) - group.needed,
        )
        group.begin()
        next_save = time.monotonic() + SAVE_INTERVAL
        while life.request is not Request.CLOSE:
            group = self.groups[0]
            wait = group.start_due()
            # Asked first: a shard that ends after this has its error looked at in the next round.
            is_over = group.is_over
            error = self._look_for_errors(life, group, is_over=is_over)
            if error is not None:
                return error
            if group is not self.groups[0]:  # a callback, on this thread, has resharded
                continue
            if is_over:
                return None
            self._tell_progress(life, group)
            if self._store is not None:
                due = time.monotonic() >= next_save
                self._save_sessions(self._store, all_of_them=due)
                if due:
                    next_save = time.monotonic() + SAVE_INTERVAL
                left = max(0.0, next_save - time.monotonic())
                wait = left if wait is None else min(wait, left)
            self.lifecycle.await_change(wait)
        return None

    def _await_group(self, life: Life) -> ShardGroup | None:
        """Ask Discord until it answers and no other manager runs the shards, and make them.

        :returns: None if the life is to be closed before.
        """
        backoff = Backoff()
        backoff.next_delay()  # the first is none
        self.obstacle = None
        while life.request is None:
            if self.obstacle is not None:
                self._pause(life, self.obstacle, backoff.next_delay())
            try:
                gateway_bot = self._ask(life)
                group = self._make_group(life, gateway_bot)
            except (ShardError, OSError) as error:
                if isinstance(error, AuthenticationFailed) or life.first_attempt_awaited:
                    raise
                self.obstacle = error.with_traceback(None)  # whose frames refer to this one
            else:
                self.obstacle = None
                self.check_limit(group, gateway_bot)
                return group
        return None

    def _pause(self, life: Life, obstacle: Exception, delay: float) -> None:
        """Tell what has gone wrong, and wait; for another manager, until it has ended at most."""
        delay = max(delay, getattr(obstacle, "retry_after", None) or 0.0)
        deadline = Deadline(delay)
        shown = count(round(delay, 1), "second")
        if self._store is None or not isinstance(obstacle, ShardsInUse):
            self._callbacks.log(logging.WARNING, "%s; asking again in %s", obstacle, shown)
            self.lifecycle.wait(lambda: life.is_over, deadline)
            return
        self._callbacks.log(
            logging.WARNING,
            "%s. This manager waits until that has ended, and tells so again in %s",
            obstacle,
            shown,
        )
        while not self._store.locks.may_acquire(obstacle) and deadline.remaining() != 0:
            soon = Deadline(LOCK_INTERVAL).earlier(deadline)
            if self.lifecycle.wait(lambda: life.is_over, soon):
                break

    # Looking after the shards

    def _look_for_errors(
        self, life: Life, group: ShardGroup, *, is_over: bool
    ) -> BaseException | None:
        """Tell of shards that have failed. Returns an error that closes all of them."""
        errors = group.errors
        for error in errors.values():
            if not isinstance(error, Exception) or isinstance(error, COMMON):
                return error
        if life.first_attempt_awaited:
            self._note_first_socket(life, group)
            if life.first_attempt_awaited and (why := _why_none_opened(group)) is not None:
                return ConnectionFailed(why)
        if not is_over:
            self._tell_of_failures(group, errors)
        if not group.is_division_told:
            if any(isinstance(error, DIVISION) for error in errors.values()):
                self._tell_of_division(life)
                group.note_division_told()
                self.lifecycle.changed()  # wait_until_ready() waits for that
        if is_over and errors and group is self.groups[0]:  # else the callback has resharded
            return ShardsFailed(errors)
        return None

    def _tell_of_failures(self, group: ShardGroup, errors: Mapping[int, BaseException]) -> None:
        self._told &= {(shard_id, group.shard_count) for shard_id in errors}
        new = [each for each in errors if (each, group.shard_count) not in self._told]
        if not new:
            return
        self._told.update((shard_id, group.shard_count) for shard_id in new)
        shown = ", ".join(map(str, new))
        if any(isinstance(errors[shard_id], DIVISION) for shard_id in new):
            advice = "reshard() divides the guilds anew"
        else:
            advice = f"restart([{shown}]) begins anew"
        which = (
            f"shard {shown} of {group.shard_count} is closed, and its guilds are"
            if len(new) == 1
            else f"shards {shown} of {group.shard_count} are closed, and their guilds are"
        )
        self._callbacks.log(
            logging.ERROR, "%s without the bot; the others go on, and %s", which, advice
        )

    def _note_first_socket(self, life: Life, group: ShardGroup) -> None:
        if any(shard.has_opened for shard in group.shards.values()):
            life.socket_opened()

    def _tell_of_division(self, life: Life) -> None:
        if not self._callbacks.has_function("on_resharding_needed"):
            return
        try:
            gateway_bot = self._ask(life)
        except Exception as error:  # the user's function may raise anything
            self._callbacks.report(error, "Discord was to be asked how many shards are needed: ")
            return
        self._callbacks.notify("on_resharding_needed", gateway_bot)

    def _tell_progress(self, life: Life, group: ShardGroup) -> None:
        if life.sockets_opened == 0:
            self._note_first_socket(life, group)
        all_ready = group.ready == group.expected
        if all_ready is not life.is_ready:
            life.set_state(ShardState.READY if all_ready else ShardState.CONNECTED)
        if all_ready and not group.is_ready_told:
            self._callbacks.log(
                logging.INFO,
                "%s ready, after %.1f seconds",
                "the shard is" if group.expected == 1 else f"all {group.expected} shards are",
                group.age,
            )
            # From here on the callback is sure to be called, whatever close() does meanwhile: only
            # now wait_until_ready() returns. It does not wait for the callback, which may wait for
            # its thread.
            group.note_ready_told()
            self.lifecycle.changed()
            self._callbacks.notify("on_all_ready")

    def _save_sessions(self, store: SessionStore, *, all_of_them: bool = True) -> None:
        """Save the sessions that have changed; those that have just begun or ended, at least."""
        current = {(shard.shard_id, shard.shard_count): shard for shard in self.all_shards()}
        for key in self._saved_ids.keys() - current:  # of shards that others have replaced
            del self._saved_ids[key]
            store.forget(*key)
        for key, shard in current.items():
            session_id = shard.session_id
            if all_of_them or session_id != self._saved_ids.get(key):
                session = shard.session
                if session is None:
                    store.forget(*key)
                else:
                    store.save(session)
                self._saved_ids[key] = session_id

    # Its end

    def _finish(self, life: Life, error: BaseException | None) -> None:
        if error is not None:
            life.begin_closing(error)
        shards = list(self.all_shards())
        code = life.close_code or RESUMABLE_CLOSE_CODE
        # Without the locks, the sessions on the disk are those of another process.
        store = self._store
        if store is not None and not store.locks.are_held_by(life):
            store = None
        for shard in shards:  # a user who disconnects has asked them already
            shard.disconnect(code, wait=False)
        if store is not None and code >= RESUMABLE_CLOSE_CODE:
            # Again below, unless the interpreter exits before the peers have answered.
            self._save_sessions(store)
        # One that is not over was started since, by a callback of the user's for example.
        in_time = self.lifecycle.wait(
            lambda: all(
                not shard.is_over
                or (shard.has_ended and shard.are_callbacks_done(self.lifecycle.is_waited_for_by))
                for shard in shards
            ),
            Deadline(self._close_timeout),
        )
        if not in_time:
            left = [shard.shard_id for shard in shards if shard.is_over and not shard.has_ended]
            self._callbacks.log(
                logging.WARNING,
                "closing, but callbacks have not returned in time, of these shards: %s",
                ", ".join(map(str, left)) or "of a dispatcher",
            )
        again = [shard.shard_id for shard in shards if not shard.is_over]
        if again:
            self._callbacks.log(
                logging.WARNING,
                "closed, but the program has started shards again meanwhile, which go on without "
                "the manager: %s. close() of the manager, or disconnect() of each, closes them",
                ", ".join(map(str, again)),
            )
        if store is not None:
            self._save_sessions(store)
        life.close(error)
        if life.state is ShardState.CLOSED:
            if isinstance(life.error, Exception):
                self._callbacks.log(logging.ERROR, "all shards are closed: %s", life.error)
            elif life.error is None:
                if not again:
                    self._callbacks.log(logging.INFO, "all shards are closed")
            else:  # by a callback that ends the program
                self._callbacks.log(
                    logging.INFO,
                    "all shards are closed: a callback raised %s",
                    describe(life.error),
                )
        self._callbacks.end_life()


def _why_none_opened(group: ShardGroup) -> str | None:
    """Why no shard of those that were started could connect; None while one may."""
    begun = [
        shard for shard in group.shards.values() if shard.was_begun and not shard.was_closed_by_hand
    ]
    if any(shard.may_open for shard in begun):
        return None
    # One that the user closes at this moment has no reason to tell.
    whys = [why for shard in begun if (why := shard.last_end or shard.error)]
    return str(whys[0]) if whys else None
