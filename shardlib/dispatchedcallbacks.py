"""DispatchedCallbacks: callbacks that a dispatcher calls, not the reader.

The reader hands each event, and each call of an ``on_socket_*`` function, to the dispatcher as a
:class:`shardlib.dispatcher.Delivery`. What asks in the name of a waiting thread (wait_for(),
events()) still looks at events on the reader: the thread that waits may be the one that runs the
callbacks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from shardlib.callbacks import Callbacks
from shardlib.currentsession import CurrentSession
from shardlib.dispatcher import Delivery, Dispatcher
from shardlib.failurelog import SUMMARY_INTERVAL, FailureLog
from shardlib.running import Callback, LeftToParent, Running
from shardlib.text import count

# Callbacks that come in between others, neither before nor after them in any way that matters.
_UNORDERED = frozenset({"on_socket_raw_message", "on_socket_heartbeat", "on_socket_error"})
# Callbacks that come as often as events do: a queue that is full need not take them.
_FREQUENT = _UNORDERED | {"on_socket_batch"}


class DispatchedCallbacks(Callbacks):
    """The callbacks of a shard with a dispatcher.

    :param dispatcher: that calls them.
    :param session: returns the session under way.
    :param wait_for_room: blocks the reader, see :meth:`shardlib.lifecycle.Lifecycle.wait_for_room`.
    :param shard: as for :class:`shardlib.callbacks.Callbacks`, as are the rest.
    """

    def __init__(
        self,
        shard: Any,
        *arguments: Any,
        dispatcher: Dispatcher,
        session: Callable[[], CurrentSession],
        wait_for_room: Callable[[Callable[[], bool], Callable[[int], bool]], object],
        **options: Any,
    ) -> None:
        super().__init__(shard, *arguments, **options)
        self._dispatcher = dispatcher
        # What the log says of a submit() that takes long.
        self._waiting = f"the wait for room in the {type(dispatcher).__name__}"
        if hasattr(dispatcher, "run_pending"):
            self._waiting += ", which its run_pending() makes,"
        self._session = session
        self._wait_for_room = wait_for_room
        self._has_to_flush = False  # something was submitted since the dispatcher's last flush()
        self._delivering: set[int] = set()  # numbers of the threads that are inside deliver()
        self._in_life = False
        self._last: Delivery | None = None  # the last one of a life that has ended
        # Deliveries that SystemExit or its like has ended: not done with, so that a program that
        # ends has them replayed.
        self._exited: dict[Delivery, None] = {}
        self._drops = FailureLog()
        self._runnings: dict[int, Running] = {}  # by number of the thread that calls

    # The reader

    def begin_life(self) -> None:
        super().begin_life()
        self._last = None
        for delivery in list(self._exited):  # the program has gone on all the same
            del self._exited[delivery]
            delivery.drop()
        if not self._in_life:
            self._in_life = True
            self._ask("begin", self._dispatcher.begin, self._shard)

    def end_life(self) -> None:
        if self._in_life:
            self._in_life = False
            self._last = self._create("", (), alone=True, can_be_dropped=False)
            self._submit(self._last)
            self._ask("end", self._dispatcher.end, self._shard)
            self.flush()
        super().end_life()

    def notify(self, name: str, *arguments: Any) -> None:
        thread = threading.get_ident()
        if thread in self._delivering:  # a callback has failed: on_socket_error
            self._call_function(self._runnings[thread], name, arguments, name)
        elif name in self._functions:
            self._submit(
                self._create(
                    name,
                    arguments,
                    alone=name not in _UNORDERED,
                    can_be_dropped=name in _FREQUENT,
                )
            )
            if name != "on_socket_raw_message":  # of which one read may bring many
                self.flush()

    def flush(self) -> None:
        super().flush()
        if self._has_to_flush:
            self._has_to_flush = False
            self._ask("flush", self._dispatcher.flush)

    def hand_on_text(self, event: str, sequence: int | None, text: bytes) -> None:
        # No event of the delivery's: its data, which a dispatcher may look at, is not decoded.
        self._submit(self._create("on_socket_text", (event, sequence, text)))

    def dispatch(self, event: str | None, payload: Any) -> None:
        # First those that wait: once submitted, other threads may change the data.
        self._offer(event, payload)
        listeners = () if event is None else self._listeners.get(event, ())
        if listeners or self._on_dispatch is not None:
            self._submit(
                self._create(
                    "on_socket_dispatch",
                    (payload,),
                    event=event,
                    data=payload.get("d"),
                    listeners=listeners,
                )
            )

    def _create(self, function: str, arguments: tuple[Any, ...], **options: Any) -> Delivery:
        return Delivery(self, self._shard, self._session(), function, arguments, **options)

    def _submit(self, delivery: Delivery) -> None:
        self.outstanding.add(delivery)
        error = self._ask("submit", self._dispatcher.submit, delivery)
        if isinstance(error, Exception):
            delivery.drop()
        elif error is not None:
            self._exited[delivery] = None
        self._has_to_flush = True  # last: submit() flushes what came before, if it has to wait

    def _ask(
        self, method: str, function: Callable[..., object], *arguments: Any
    ) -> BaseException | None:
        """Call a method of the dispatcher, which may be the user's. Returns what it has raised."""
        try:
            what = self._waiting if method == "submit" else f"{method}() of the dispatcher"
            self.run(what, function, *arguments)
        except Exception as error:
            # Not told to on_socket_error, which would be submitted, too, and fail likewise.
            self._tell_failure(f"{method}() of the dispatcher", method, error)
            return error
        except LeftToParent:
            raise
        except BaseException as error:
            self._stop(error)
            return error
        return None

    # Deliveries: the threads of the dispatcher

    def deliver(self, delivery: Delivery) -> None:
        """Call the callbacks of a delivery.

        :raises BaseException: what is no Exception; then the delivery is not done with.
        """
        if delivery not in self.outstanding or not delivery.claim():
            return  # it was called, or dropped, or is the parent's of this forked child
        thread = threading.get_ident()
        nested = thread in self._delivering
        try:
            self._delivering.add(thread)  # in here: Ctrl-C may come before the next line
            running = self._runnings.get(thread) or self._create_running(thread)
            name = delivery.function
            self._call_function(running, name, delivery.arguments, delivery.event or name)
            if delivery.event is not None and delivery.listeners:
                self._call_listeners(running, delivery.event, delivery)
        finally:
            if not nested:
                self._delivering.discard(thread)
        self._finish(delivery)

    def _call_function(
        self, running: Running, name: str, arguments: tuple[Any, ...], occasion: str
    ) -> None:
        functions = self._functions
        if name in functions:
            function, bound = functions[name]
            running.call(function, bound, arguments, name, occasion)

    def _call_listeners(self, running: Running, event: str, delivery: Delivery) -> None:
        for function in delivery.listeners:
            # Looked at now: off() may have been called since the event came.
            if function in self._listeners.get(event, ()):
                running.call(function, function, (self._shard, delivery.data), event, event)

    def _create_running(self, thread: int) -> Running:
        running = self.watchdog.add("the events behind it wait", self._on_raise_elsewhere)
        running.use_this_thread()
        self._runnings[thread] = running
        return running

    def _on_raise_elsewhere(self, function: Callback | str, error: BaseException) -> bool:
        if isinstance(function, str) or not isinstance(error, Exception):
            return False  # SystemExit, KeyboardInterrupt: what they mean is the dispatcher's to say
        self._failed(function, error)
        return True

    def _finish(self, delivery: Delivery) -> None:
        self.outstanding.finish(delivery)
        if delivery is self._last:
            self._notify()

    def drop(self, delivery: Delivery) -> None:
        """Be done with a delivery whose callbacks are not called. Any thread."""
        if delivery is not self._last and delivery in self.outstanding:
            self._tell_drop(delivery)
        self._finish(delivery)

    def _tell_drop(self, delivery: Delivery) -> None:
        with self._lock:
            self.dropped += 1
        drops, in_full = self._drops.add(self)
        if in_full:
            self.log(
                logging.WARNING,
                "an event was dropped before its callbacks were called: %s",
                delivery.event or delivery.function,
            )
        elif drops:
            self.log(
                logging.WARNING,
                "%s dropped before its callbacks were called, the last one %s; the log tells of "
                "later ones after %s at the earliest",
                count(drops, "event") + (" was" if drops == 1 else " were"),
                delivery.event or delivery.function,
                count(SUMMARY_INTERVAL, "second"),
            )

    def exit(self, delivery: Delivery, error: BaseException) -> None:
        """Close the shard because of an error that a callback has raised. Any thread."""
        self._exited[delivery] = None
        self._stop(error)

    def wait_for_room(self, has_room: Callable[[], bool]) -> None:
        """Block the reader until a queue has room."""
        self.flush()  # the thread that makes room may sleep
        self._wait_for_room(has_room, self._dispatcher.runs_in)

    def wake(self) -> None:
        """Let the reader look again whether a queue has room. Any thread."""
        self._notify()

    # Waiting for the end: any thread

    def in_delivery(self) -> bool:
        return threading.get_ident() in self._delivering

    def are_done(self) -> bool:
        """True if the callbacks of a life that has ended have returned, or cannot be waited for."""
        return (
            self._last is None
            or self._last not in self.outstanding
            or self._dispatcher.runs_in(threading.get_ident())
            or not self._dispatcher.is_running()
        )

    def are_called_in(self, thread: int) -> bool:
        return self._dispatcher.runs_in(thread)

    def join_dispatcher(self, timeout: float | None) -> None:
        if not self._dispatcher.runs_in(threading.get_ident()):
            self._dispatcher.join(timeout)

    def leave_to_parent(self) -> None:
        super().leave_to_parent()
        self.outstanding.clear()
        self._exited.clear()
        self._dispatcher.leave_to_parent()
