"""Callbacks: the user's functions, and the one place where they are called.

All of them run on the reader thread, one after the other, in the order of the wire, while no lock
of the library's is held; :mod:`shardlib.dispatchedcallbacks` has those that run elsewhere. Each
call is made by :mod:`shardlib.running`, which counts its time: a connection is no zombie if its
acknowledgement is unread because a callback runs.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Collection, Mapping
from types import MethodType
from typing import Any, Protocol, TypeVar, Union

from shardlib.failurelog import SUMMARY_INTERVAL, FailureLog
from shardlib.outstanding import Outstanding
from shardlib.running import Callback
from shardlib.text import count, message_of, name_of, printable
from shardlib.watchdog import Watchdog

Predicate = Callable[[Any], object]
Logger = Union[logging.Logger, "logging.LoggerAdapter[Any]"]

_Result = TypeVar("_Result")

# Characters of a payload that a DEBUG line shows.
_MOST_SHOWN = 2000


# The tokens that a payload gives away: of an interaction, with which it is answered, and of a voice
# connection. Like the bot's, none has a quotation mark in it. Compiled when it is first needed.
_TOKEN_FIELD = r'("token"\s*:\s*)"[^"]*"?'


class Shown:
    """A payload in a DEBUG line: nothing is formatted unless the line is printed.

    :param text: as it was sent or received.
    :param hide: returns a text without the bot's token.
    """

    def __init__(self, text: str | bytes, hide: Callable[[str], str]) -> None:
        self._text = text
        self._hide = hide

    def __repr__(self) -> str:
        text = self._text
        if isinstance(text, bytes):
            text = text[: 4 * _MOST_SHOWN].decode(errors="replace")
        return printable(re.sub(_TOKEN_FIELD, r'\1"***"', self._hide(text)), _MOST_SHOWN)


class Subscriber(Protocol):
    """What looks at events on the reader thread, on behalf of another thread.

    :ivar what: what the user's function in it is, for the warning that it takes long.
    """

    what: str

    def offer(self, event: str, payload: Any) -> bool:
        """Look at an event. What this raises ends the reader.

        :param event: its name, as the payload had it before any callback saw it.
        :param payload: the whole of it.
        :returns: True if no later event is wanted.
        """


class Screen(Protocol):
    """What events pass through on the reader, before any callback. It may keep some back.

    :ivar is_holding: True while it keeps events back that are to be delivered later.
    """

    @property
    def is_holding(self) -> bool: ...

    def put(self, event: str, text: bytes, deliver: Callable[[], object]) -> None:
        """Take an event in; may block the reader.

        :param event: the event's name.
        :param text: the whole payload.
        :param deliver: calls the callbacks.
        """

    def take(self) -> Callable[[], object] | None:
        """What is to be delivered next, None if there is nothing yet."""


class Waiter:
    """One caller of wait_for(), blocked on another thread until its event comes."""

    what = "the predicate of a wait_for()"

    def __init__(self, predicate: Predicate | None) -> None:
        self._predicate = predicate
        self.data: Any = None
        self.error: BaseException | None = None
        self.done = False

    def offer(self, event: str, payload: Any) -> bool:
        """Look at an event, on the reader thread. True if it, or an error, was awaited."""
        try:
            data = payload.get("d")
            if self._predicate is not None and not self._predicate(data):
                return False
            self.data = data
        except BaseException as error:  # wait_for() raises what its predicate has raised
            self.error = error
        self.done = True
        return True


class Callbacks:
    """The ``on_socket_*`` functions, listeners and subscribers of a shard, and its logger.

    An Exception that a function raises is logged and told to on_socket_error, and the shard goes
    on; SystemExit and its like close the shard. The reader looks listeners up without a lock: a
    change replaces the tuple, and never alters it.

    :param shard: the first argument of each function.
    :param logger: the user's.
    :param hide_token: returns a text without the token.
    :param in_reader_thread: True on the reader thread.
    :param stop: called with what is meant to end the program (SystemExit and the like).
    :param notify: called after a subscriber got all that it wants.
    :param slow_callback: seconds after which the log tells of a call that has not returned, or
        None.
    :param thread_prefix: how the names of the threads begin that tell so.
    :param meanwhile: what cannot happen while a function runs on the reader thread, in words.
    """

    def __init__(
        self,
        shard: Any,
        logger: Logger,
        *,
        hide_token: Callable[[str], str],
        in_reader_thread: Callable[[], bool],
        stop: Callable[[BaseException], object],
        notify: Callable[[], object],
        slow_callback: float | None,
        thread_prefix: str,
        meanwhile: str,
    ) -> None:
        self._shard = shard
        self._logger = logger
        self._is_enabled_for = getattr(logger, "isEnabledFor", None)
        self._hide_token = hide_token
        self._in_reader_thread = in_reader_thread
        self._stop = stop
        self._notify = notify
        # Guards changes of the tables, and the count of what was dropped. Reentrant: a signal
        # handler may interrupt a change.
        self._lock = threading.RLock()
        # The on_socket_* functions, each with what calls it with the shard: a method of a subclass
        # is bound to the shard already.
        self._functions: dict[str, tuple[Callback, Callback]] = {}
        # What the reader asks for each event, derived from that table.
        self._on_dispatch: tuple[Callback, Callback] | None = None
        self.wants_payloads = False  # True if one of the functions looks at whole payloads
        self.wants_raw_payloads = False
        self.wants_texts = False
        self.wants_batches = False
        self._listeners: dict[str, tuple[Callback, ...]] = {}
        self._subscribers: dict[str, tuple[Subscriber, ...]] = {}
        self._subscribers_to_all: tuple[Subscriber, ...] = ()
        self.screen: Screen | None = None  # through which events pass
        self._has_to_notify = False  # a subscriber has something for a thread that waits
        self._abandoned: list[Subscriber] = []
        self.outstanding = Outstanding()  # what other threads are not done with
        self.dropped = 0  # deliveries of which a dispatcher has called no function
        self.watchdog = Watchdog(slow_callback, log=self.log, thread_prefix=thread_prefix)
        self._running = self.watchdog.add(meanwhile, self._on_raise)
        self.is_forked = False  # in a forked child: only the parent's reader goes on
        self._failures = FailureLog()

    # Any thread

    def begin_in_forked_child(self) -> None:
        """Let go of what is the parent's: a lock that one of its threads held, its subscribers."""
        self._lock = threading.RLock()
        self._subscribers = {}
        self._subscribers_to_all = ()
        self._derive_wants_payloads()
        self.outstanding.clear()

    def leave_to_parent(self) -> None:
        """In a forked child: a callback that is running is the last one of the child's."""
        self.is_forked = True
        self.watchdog.leave_to_parent()

    def assign(self, name: str, function: Callback | None, *, is_method: bool) -> None:
        """Set an ``on_socket_*`` function.

        :param name: of the function.
        :param function: to call from now on; None calls nothing.
        :param is_method: True for a method of a subclass, whose self is the shard.
        """
        with self._lock:
            functions = dict(self._functions)
            if function is None:
                functions.pop(name, None)
            else:
                bound = function if is_method else MethodType(function, self._shard)
                functions[name] = (function, bound)
            self._functions = functions
            self._on_dispatch = functions.get("on_socket_dispatch")
            self.wants_texts = "on_socket_text" in functions
            self.wants_batches = "on_socket_batch" in functions
            self._derive_wants_payloads()

    def _derive_wants_payloads(self) -> None:
        # A screen looks at each event, beside the reader's short cuts.
        self.wants_raw_payloads = (
            "on_socket_raw_message" in self._functions or self.screen is not None
        )
        self.wants_payloads = (
            self.wants_raw_payloads
            or self._on_dispatch is not None
            or bool(self._subscribers_to_all)
        )

    def has_function(self, name: str) -> bool:
        """True if there is an ``on_...`` function of a name."""
        return name in self._functions

    @property
    def listeners(self) -> Mapping[str, tuple[Callback, ...]]:
        """The functions that listen, by event, as they are now."""
        return dict(self._listeners)

    def add_listener(
        self, event: str, function: Callback, is_replaced: Callable[[Callback], bool]
    ) -> bool:
        """Call `function` for each `event` from now on.

        :param is_replaced: True for a listener whose place the function takes.
        :returns: True if there was one.
        """
        with self._lock:
            listeners = self._listeners.get(event, ())
            left = [each for each in listeners if not is_replaced(each)]
            replaced = [place for place, each in enumerate(listeners) if is_replaced(each)]
            left.insert(replaced[0] if replaced else len(left), function)
            self._listeners[event] = tuple(left)
        return bool(replaced)

    def remove_listener(self, event: str, function: Callback) -> None:
        """Undo one add_listener().

        :raises ValueError: if the function does not listen to the event.
        """
        with self._lock:
            left = list(self._listeners.get(event, ()))
            if function not in left:
                raise ValueError(f"{function!r} does not listen to {event}")
            left.remove(function)
            _replace(self._listeners, event, left)

    def subscribe(self, subscriber: Subscriber, events: Collection[str]) -> None:
        """Offer events to a subscriber from now on.

        :param subscriber: to offer them to.
        :param events: names of the events; none for all.
        """
        with self._lock:
            while self._abandoned:
                self.unsubscribe(self._abandoned.pop())
            for event in events:
                self._subscribers[event] = (*self._subscribers.get(event, ()), subscriber)
            if not events:
                self._subscribers_to_all = (*self._subscribers_to_all, subscriber)
                self._derive_wants_payloads()

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a subscriber, if it is still there."""
        with self._lock:
            for event, subscribers in list(self._subscribers.items()):
                if subscriber in subscribers:
                    left = [other for other in subscribers if other is not subscriber]
                    _replace(self._subscribers, event, left)
            if subscriber in self._subscribers_to_all:
                self._subscribers_to_all = tuple(
                    other for other in self._subscribers_to_all if other is not subscriber
                )
                self._derive_wants_payloads()

    def abandon(self, subscriber: Subscriber) -> None:
        """Forget a subscriber later, when another one comes; takes no lock, for finalisers.

        :param subscriber: whose offer() returns True from now on.
        """
        if subscriber not in self._abandoned:
            self._abandoned.append(subscriber)

    def set_screen(self, screen: Screen | None) -> None:
        """Have events pass through a screen; None for none."""
        with self._lock:
            self.screen = screen
            self._derive_wants_payloads()

    # The reader

    def begin_life(self) -> None:
        """Note that the calling thread is the reader from now on. Twice does no harm."""
        self._running.use_this_thread()
        self.watchdog.begin()

    def end_life(self) -> None:
        """Note that no callback comes any more. Doing so twice does no harm.

        Waits for reports that are being written on threads of their own, a second at most.
        """
        self.watchdog.end()

    def notify_later(self) -> None:
        """Notify the waiting threads at the next :meth:`flush`. For subscribers, on the reader."""
        self._has_to_notify = True

    def notify_batch(self, count: int) -> None:
        """Call on_socket_batch, if one read has brought any messages.

        :param count: of those that were handled.
        """
        if count and not self.is_forked:
            self.notify("on_socket_batch", count)

    def flush(self) -> None:
        """Wake the threads for which the messages of one read have brought something."""
        if self._has_to_notify:
            self._has_to_notify = False
            self._notify()

    def wants(self, event: str) -> bool:
        """True if a function listens to an event, or a thread waits for it."""
        return event in self._listeners or event in self._subscribers

    def notify(self, name: str, *arguments: Any) -> None:
        """Call the shard's ``on_socket_*`` function of a name, if there is one."""
        functions = self._functions
        if name in functions:
            function, bound = functions[name]
            self._running.call(function, bound, arguments, name, name)

    def hand_on_text(self, event: str, sequence: int | None, text: bytes) -> None:
        """Call on_socket_text, if :attr:`wants_texts`.

        :param event: the event's name.
        :param sequence: of the event, None if a Resume could not name it.
        :param text: the whole payload.
        """
        functions = self._functions
        if "on_socket_text" in functions:
            function, bound = functions["on_socket_text"]
            arguments = (event, sequence, text)
            self._running.call(function, bound, arguments, "on_socket_text", event)

    def dispatch(self, event: str | None, payload: Any) -> None:
        """Hand an event to on_socket_dispatch, to its listeners, and to its subscribers.

        :param event: its name, as the payload had it before any callback saw it; None for none.
        :param payload: the whole of it.
        """
        on_dispatch = self._on_dispatch
        if on_dispatch is not None:
            function, bound = on_dispatch
            self._running.call(function, bound, (payload,), "on_socket_dispatch", event)
        if event in self._listeners:
            for function in self._listeners.get(event, ()):
                arguments = (self._shard, payload.get("d"))
                self._running.call(function, function, arguments, event, event)
        if event in self._subscribers or self._subscribers_to_all:
            self._offer(event, payload)

    def _offer(self, event: str | None, payload: Any) -> None:
        if event is None:
            return
        for subscriber in (*self._subscribers.get(event, ()), *self._subscribers_to_all):
            if self.run(subscriber.what, subscriber.offer, event, payload, event=event):
                self.unsubscribe(subscriber)
                self._notify()

    def run(
        self,
        what: str,
        function: Callable[..., _Result],
        *arguments: Any,
        event: str | None = None,
    ) -> _Result:
        """Run a function that is the user's, or calls one, on the reader thread; count its time.

        :param what: what the user's function is, in words that the user knows, for the warning
            that it takes long.
        :param function: to run.
        :param arguments: of the function.
        :param event: for which the function runs, or None.
        :raises Exception: what the function raises.
        """
        if self._running.is_inside:  # a log handler inside a callback, for example
            return function(*arguments)
        result: _Result = self._running.call(what, function, arguments, what, event)
        return result

    def _on_raise(self, function: Callback | str, error: BaseException) -> bool:
        if isinstance(function, str):
            return False  # run() raises it
        if not isinstance(error, Exception):  # SystemExit, KeyboardInterrupt: for join() to raise
            self._stop(error)
            return True
        self._failed(function, error)
        return True

    def _failed(self, function: Callback, error: Exception) -> None:
        """Tell of a function's failure, on the thread that has called it."""
        self._tell_failure(f"the callback {name_of(function)}", _underlying(function), error)
        if function is not self._functions.get("on_socket_error", (None,))[0]:
            self.notify("on_socket_error", error)

    def _tell_failure(self, what: str, source: object, error: Exception) -> None:
        failures, in_full = self._failures.add(source)
        if in_full:
            self.log(logging.ERROR, "%s failed, which closes nothing", what, exc_info=error)
        elif failures:
            self.log(
                logging.ERROR,
                "%s failed %s more, the last time with %r; the log tells of later failures after "
                "%s at the earliest",
                what,
                count(failures, "time"),
                error,
                count(SUMMARY_INTERVAL, "second"),
            )

    def report(self, error: BaseException, context: str = "") -> None:
        """Log what went wrong outside the user's functions, and tell on_socket_error.

        :param error: what went wrong.
        :param context: what the log says before the error's own message.
        """
        failures, in_full = self._failures.add(type(error))  # a peer may send as much as it likes
        message = f"{context}{message_of(error)}"
        if in_full:
            self.log(logging.WARNING, "%s", message)
        elif failures:
            self.log(
                logging.WARNING,
                "%s; the same has happened %s more; the log tells of later ones after %s at the "
                "earliest",
                message,
                count(failures, "time"),
                count(SUMMARY_INTERVAL, "second"),
            )
        self.notify("on_socket_error", error)

    # What a dispatcher changes. Any thread

    def in_delivery(self) -> bool:
        """True on a thread of the dispatcher's, while it calls a function of this shard."""
        return False

    def are_done(self) -> bool:
        """True if the callbacks of a life that has ended have returned, or cannot be waited for."""
        return True

    def are_called_in(self, thread: int) -> bool:
        """True for the number of a thread of the dispatcher's."""
        return False

    def join_dispatcher(self, timeout: float | None) -> None:
        """Wait until threads of the dispatcher's own have ended, if no shard uses it any more.

        :param timeout: seconds, None for no limit.
        """

    # The log

    def is_debugging(self) -> bool:
        """True if the traffic is to be logged. Looked up each time: the level may change."""
        enabled = self._is_enabled_for
        try:
            return enabled is not None and bool(enabled(logging.DEBUG))
        except Exception:
            return False
        except BaseException as error:
            if not self._in_reader_thread() or self.is_forked:
                raise
            self._stop(error)
            return False

    def log(self, level: int, message: str, *arguments: Any, exc_info: Any = None) -> None:
        """Log with the user's logger, whose handlers are user code. Any thread but the heartbeat's.

        A logger that fails ends nothing; one that raises SystemExit or the like is a callback.
        """
        own = self._in_reader_thread()
        # A peer may repeat the token, in the reason of a close frame for example.
        arguments = tuple(
            self._hide_token(each) if isinstance(each, str) else each for each in arguments
        )
        try:
            if own:
                self.run("a handler of the logger", self._log, level, message, arguments, exc_info)
            else:
                self._log(level, message, arguments, exc_info)
        except Exception:
            pass
        except BaseException as error:
            if not own or self.is_forked:
                raise
            self._stop(error)

    def log_traffic(self, message: str, text: str | bytes) -> None:
        """Log a payload, if the traffic is to be logged.

        :param message: with one ``%r`` for the payload.
        :param text: as it was sent or received.
        """
        if self.is_debugging():
            self.log(logging.DEBUG, message, Shown(text, self._hide_token))

    def _log(self, level: int, message: str, arguments: tuple[Any, ...], exc_info: Any) -> None:
        self._logger.log(level, message, *arguments, exc_info=exc_info)

    # The heartbeat thread, and the reader's clock

    @property
    def seconds(self) -> float:
        """Time that the reader has spent in the user's functions, a running one included."""
        return self._running.seconds

    def warn_of_running(self) -> None:
        """Log once which function keeps the reader from reading, and where it is."""
        self.watchdog.judge(self._running)


def _underlying(function: Callback) -> object:
    """The function of a bound method, of which each look-up makes a new object."""
    try:
        return getattr(function, "__func__", function)
    except Exception:  # an object of the user's whose __getattr__ fails
        return function


def _replace(table: dict[str, tuple[Any, ...]], event: str, left: list[Any]) -> None:
    if left:
        table[event] = tuple(left)
    else:
        table.pop(event, None)
