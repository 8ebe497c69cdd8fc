"""ManagedShard: a shard of a manager, with what the manager alone asks of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from shardlib.callbacks import Screen, Waiter
from shardlib.errors import AlreadyConnected, NotReady, ShardClosed, ShardError
from shardlib.gateway import API_VERSION, NORMAL_CLOSURE
from shardlib.interactive import earlier_definition_of
from shardlib.lifecycle import Beginning, Observer, Request
from shardlib.options import Options
from shardlib.running import Callback
from shardlib.shard import Shard
from shardlib.state import IDENTIFIED
from shardlib.watchdog import AWAITED_SWITCH

if TYPE_CHECKING:
    from shardlib.events import EventQueue


class ManagedShard(Shard):
    """A shard that a manager has made. Users see a Shard; what is added here is the manager's."""

    # Until the shard is started in a life of the manager, how its own last life went counts for
    # nothing.
    _awaits_turn = True
    _closes_before_turn = 0  # calls of disconnect() when the wait for the turn began

    _is_replaced = False  # for good, by shards of another number

    def observe(self, observer: Observer) -> None:
        """Tell the manager of each change of this shard's life. Before the shard begins."""
        self._lifecycle.observe(observer)

    def wake(self) -> None:
        """Let the threads look at their conditions that wait for this shard, its reader too."""
        self._lifecycle.wake()

    def interpreter_exits(self) -> None:
        """Note that the interpreter exits, before the manager closes the shard for that."""
        self._lifecycle.interpreter_exits()

    # Beginning

    def retire(self) -> None:
        """Close for good: other shards have taken this one's place, whoever still refers to it."""
        self._is_replaced = True  # first: what begins before the next line is closed by that
        self.disconnect(NORMAL_CLOSURE, wait=False)

    def _checked(self, beginning: Beginning) -> Beginning:
        if self._is_replaced:
            raise ShardError(
                f"reshard() has replaced this shard, number {self.shard_id} of {self.shard_count}: "
                "beside the new ones it would receive every event a second time. The manager's "
                "attribute shards has those that run"
            )
        return super()._checked(beginning)

    # Where its life is

    def await_turn(self) -> None:
        """Note that the manager, in a life that begins now, starts the shard later."""
        self._closes_before_turn = self._lifecycle.closes
        self._awaits_turn = True

    def take_turn(self, socket_url: str) -> None:
        """Start the shard, unless the user has closed it meanwhile, or starts it by hand."""
        if not self._was_closed_before_turn:
            with contextlib.suppress(AlreadyConnected, ShardClosed):
                self.start(socket_url)
        self._awaits_turn = False
        self._lifecycle.notify()  # restart() waits for this, and the start may have told already

    @property
    def was_begun(self) -> bool:
        """True once the shard was started in the manager's life."""
        return not self._awaits_turn

    @property
    def is_over(self) -> bool:
        """True if the shard does not run, and is not about to."""
        return self._lifecycle.latest.is_over

    @property
    def was_closed_by_hand(self) -> bool:
        """True if the user has closed this shard alone; it counts no more until a restart."""
        begun = self.was_begun or self._was_closed_before_turn
        return begun and self.is_over and self.error is None

    @property
    def _was_closed_before_turn(self) -> bool:
        return self._lifecycle.closes != self._closes_before_turn

    @property
    def has_ended(self) -> bool:
        """True if the reader has ended, too, or never began."""
        return self._lifecycle.latest.ended

    @property
    def is_ready(self) -> bool:
        """True while events flow."""
        return self._lifecycle.life.is_ready

    @property
    def has_identified(self) -> bool:
        """True once Identify was sent for the session that is under way."""
        return self.session_id is not None or self._lifecycle.life.state in IDENTIFIED

    @property
    def is_under_way(self) -> bool:
        """True from the start until the shard has identified, or has failed to for once."""
        life = self._lifecycle.life
        return not (life.state in IDENTIFIED or life.ends or life.is_over)

    @property
    def may_open(self) -> bool:
        """True unless its first attempt to connect in this life has failed.

        If it resumes, two: the first goes to the URL of its session, the second to the manager's.
        """
        session, ends = self.session, len(self._lifecycle.life.ends)
        tries_twice = session is not None and session.resume_gateway_url is not None
        if self.is_under_way or (tries_twice and ends < 2 and not self.is_over):
            return True
        return self.has_opened  # asked last: a shard that opens meanwhile is not under way either

    @property
    def has_opened(self) -> bool:
        """True once a socket was open in this life."""
        return self.was_begun and self._lifecycle.life.sockets_opened > 0

    @property
    def progress(self) -> str:
        """Where its life is, in words."""
        return self._lifecycle.life.progress() if self.was_begun else "waiting for its turn"

    @property
    def last_end(self) -> str | None:
        """How the last connection ended, in words, or None."""
        ends = self._lifecycle.life.ends
        return ends[-1] if ends else None

    @property
    def is_delivering(self) -> bool:
        """True on a thread of the dispatcher's, inside a callback of this shard."""
        return self._callbacks.in_delivery()

    def are_callbacks_done(self, is_waited_for_by: Callable[[Callable[[int], bool]], bool]) -> bool:
        """True if the callbacks of a life that has ended have returned, or cannot for now.

        :param is_waited_for_by: True if one of some threads waits for the manager, which then calls
            no callbacks.
        """
        callbacks = self._callbacks
        return callbacks.are_done() or is_waited_for_by(callbacks.are_called_in)

    @property
    def error(self) -> BaseException | None:
        """What has closed the shard for good in the manager's life, or None."""
        life = self._lifecycle.latest
        return life.error if self.was_begun and life.is_over else None

    def request_restart(self, socket_url: str, *, new_session: bool) -> Callable[[], bool]:
        """Ask for a new connection, without waiting for it.

        :param socket_url: where to connect if the shard is closed.
        :param new_session: True to begin a new session.
        :returns: a function that returns True while that connection, or a later one, is READY.
        """
        life = self._lifecycle.latest
        opened = self._lifecycle.sockets_opened
        if life.is_over:
            self._begin(Beginning(socket_url, API_VERSION, new_session=new_session, awaited=False))
        elif new_session:
            life.request_connection(Request.REINSTANTIATE, no_fail=None, immediate=True)
        elif self.is_ready:
            life.request_connection(Request.RECONNECT, no_fail=None, immediate=True)
        else:
            opened -= 1  # the connection that is on its way will do
        return lambda: self.is_ready and self._lifecycle.sockets_opened > opened

    # What is the same for all shards

    @property
    def options(self) -> Options:
        """What the shard was made with."""
        return self._options

    def begin_with(self, presence: Mapping[str, Any] | None) -> None:
        """Begin every later session with a presence."""
        if presence is not None:
            presence = self._options.identity.presence(presence, self._options.json)
        self._reader.keep_presence(presence)

    @property
    def next_presence(self) -> Mapping[str, Any] | None:
        """The presence with which the next session begins."""
        return self._reader.presence

    @property
    def listeners(self) -> Mapping[str, tuple[Callback, ...]]:
        """The functions that listen, by event, as they are now."""
        return self._callbacks.listeners

    def listen_like(self, listeners: Mapping[str, tuple[Callback, ...]]) -> None:
        """Have functions called that another shard's listen to."""
        for event, functions in listeners.items():
            for function in functions:
                self._callbacks.add_listener(event, function, lambda other: False)

    def wanted_events(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names of events as Discord writes them, checked, each once."""
        return self._wanted_events(names)

    def add_listener(self, event: str, function: Callback) -> None:
        """What :meth:`on` does for an event and a function that were checked."""
        self._callbacks.add_listener(event, function, earlier_definition_of(function))

    def set_screen(self, screen: Screen | None) -> None:
        """Have events pass through a screen; None for none."""
        self._callbacks.set_screen(screen)

    def hold(self, until: Callable[[], bool]) -> None:
        """Block the reader until a condition holds, or it is to do something else. On the reader.

        :param until: looked at again after each :meth:`wake`.
        """
        self._callbacks.flush()  # what it has handled may be awaited
        self._callbacks.run(
            AWAITED_SWITCH, self._lifecycle.wait_for_room, until, lambda thread: False
        )

    def ask_for_answer(self) -> Callable[[], bool]:
        """Have a heartbeat sent, whose answer comes behind all that the Gateway has sent before.

        :returns: a function that returns True once the answer was read, so that what came before
            has been handled; and also once the session goes on with another connection, or another
            session: RESUMED and READY come behind the rest, too. True for a shard that is over.
        """
        asked = self._reader.heartbeat
        clock_time = None if asked is None else asked.clock_time
        with contextlib.suppress(NotReady):
            self.heartbeat()

        def is_answered() -> bool:
            heartbeat = self._reader.heartbeat
            if self.is_over:
                return True
            if heartbeat is None or not self.is_ready:
                return False
            if heartbeat is not asked:
                return True
            return heartbeat.clock_time != clock_time and heartbeat.all_acknowledged

        return is_answered

    def subscribe(self, waiter: Waiter, event: str) -> None:
        """Offer events of a name to a thread that waits for one."""
        self._callbacks.subscribe(waiter, (event,))

    def unsubscribe(self, waiter: Waiter) -> None:
        """Undo :meth:`subscribe`, if that is still to be done."""
        self._callbacks.unsubscribe(waiter)

    def feed(self, queue: EventQueue) -> None:
        """Put the events that a queue wants into it, too."""
        queue.add_feed(
            shard=self,
            callbacks=self._callbacks,
            lifecycle=self._lifecycle,
            current_session=lambda: self._reader.protocol.session,
        )
