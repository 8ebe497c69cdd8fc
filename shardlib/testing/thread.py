"""The gateway's thread, and the lock that guards the gateway's state."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from shardlib.testing.clock import Clock
from shardlib.text import count

_T = TypeVar("_T")

_logger = logging.getLogger("shardlib.testing")


class GatewayThread:
    """One daemon thread with an event loop, which serves all connections of a gateway.

    :attr:`lock` guards the state of the gateway, its connections and its sessions. A thread that
    holds the lock never waits, except in :meth:`wait`, which releases the lock meanwhile. The lock
    is reentrant, because a fault's action runs with the lock held, and calls the same methods as
    a test calls.

    Any thread may call the methods.

    :param clock: the clock of :meth:`call_later`.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._loop: _Loop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_started(self) -> bool:
        """True from :meth:`start` until :meth:`stop` returns."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: if the thread is started already.
        """
        if self._thread is not None:
            raise RuntimeError("the local gateway is started already")
        self._loop = _Loop(self.clock)
        self._loop.set_exception_handler(_report)
        self._thread = threading.Thread(
            target=_run, args=(self._loop,), name="local-gateway", daemon=True
        )
        self._thread.start()
        self.clock.subscribe(self._wake)

    def stop(self, clean_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End the thread, and wait until the thread has ended. A second call does nothing.

        :param clean_up: called on the thread, which awaits the result and then ends.
        :raises RuntimeError: if called on the thread, which cannot wait for its own end.
        """
        thread, loop = self._thread, self._loop
        if thread is None or loop is None:
            return
        if thread is threading.current_thread():
            raise RuntimeError(
                "a fault's action cannot stop its own gateway: call stop() on another thread"
            )

        async def end() -> None:
            try:
                await clean_up()
            finally:
                loop.stop()

        self.clock.unsubscribe(self._wake)
        self.call_soon(lambda: loop.create_task(end()))
        thread.join()
        self._thread = None
        self._loop = None

    # Waiting for a change of the gateway's state.

    def notify(self) -> None:
        """Make each thread in :meth:`wait` call its predicate again. The caller holds the lock."""
        self._changed.notify_all()

    def wait(self, predicate: Callable[[], _T | None], timeout: float, what: str) -> _T:
        """Wait until a function returns something true, and return that value.

        :param predicate: the function, called with the lock held, now and after each
            :meth:`notify`.
        :param timeout: seconds to wait.
        :param what: a name of what the caller waits for, for the message of the error.
        :raises TimeoutError: if the function returned nothing true in time.
        """
        with self.lock:
            result = self._changed.wait_for(predicate, timeout)
            if not result:
                raise TimeoutError(f"waited {count(timeout, 'second')} in vain for {what}")
            return result

    # Calling functions on the thread. Before start() and after stop(), these methods do nothing.

    def call(self, callback: Callable[[], object], timeout: float) -> None:
        """Call a function on the thread, and wait until the function has returned.

        :param callback: called without the lock.
        :param timeout: the most seconds to wait. If another thread stops the gateway meanwhile, the
            function may never be called.
        """
        if threading.current_thread() is self._thread:
            callback()
            return
        called = threading.Event()

        def call() -> None:
            try:
                callback()
            finally:
                called.set()

        self.call_soon(call)
        called.wait(timeout)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Schedule a call of a function on the thread.

        :param callback: called without the lock.
        """
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:
                pass  # another thread has stopped the gateway and closed the loop meanwhile

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Schedule a call of a function on the thread after a delay.

        :param seconds: the delay, by the gateway's clock.
        :param callback: called without the lock.
        """
        loop = self._loop
        if loop is None:
            return
        # Computed now, because a test may advance the clock before the thread calls call_at().
        due = loop.time() + seconds
        if threading.current_thread() is self._thread:
            loop.call_at(due, callback)
        else:
            self.call_soon(lambda: loop.call_at(due, callback))

    def _wake(self) -> None:
        """Wake the event loop, so that it reads the clock that a test has advanced."""
        self.call_soon(lambda: None)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that goes by the gateway's clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def time(self) -> float:
        return self._clock()


def _run(loop: _Loop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that a callback on the event loop has raised.

    An OSError comes from a client that has ended its connection, any other exception from a bug in
    the gateway or in a fault's action.
    """
    error = context.get("exception")
    if isinstance(error, OSError):
        _logger.debug("a client's connection failed: %s", error)
    else:
        _logger.error("local gateway: %s", context.get("message"), exc_info=error)
