"""The gateway's thread, and the lock that guards what the gateway knows."""

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

    :attr:`lock` guards everything that the gateway, its connections and its sessions know. Its
    holder never waits, except in :meth:`wait`, which lets go of it meanwhile. It is reentrant:
    a fault's action runs with the lock held, and calls the same methods as a test does.

    Every method may be called from any thread.

    :param clock: the clock that :meth:`call_later` goes by.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._loop: _Loop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_started(self) -> bool:
        """True from :meth:`start` to the end of :meth:`stop`."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: if it is started already.
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
        """End the thread, and return once it has ended; a second call does nothing.

        :param clean_up: called and awaited on the thread, as the last thing it does.
        :raises RuntimeError: if the thread itself calls this: it cannot wait for its own end.
        """
        thread, loop = self._thread, self._loop
        if thread is None or loop is None:
            return
        if thread is threading.current_thread():
            raise RuntimeError("a fault's action cannot stop the gateway it runs on")

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

    # Waiting for what happens.

    def notify(self) -> None:
        """Have each thread in :meth:`wait` look again; the caller holds the lock."""
        self._changed.notify_all()

    def wait(self, look: Callable[[], _T | None], timeout: float, what: str) -> _T:
        """Wait until a function finds something, and return what it found.

        :param look: called with the lock held, now and after each :meth:`notify`.
        :param timeout: seconds.
        :param what: what is looked for, for the error's message.
        :raises TimeoutError: if ``look`` returned nothing true in time.
        """
        with self.lock:
            found = self._changed.wait_for(look, timeout)
            if not found:
                raise TimeoutError(f"waited {count(timeout, 'second')} in vain for {what}")
            return found

    # Having the thread do something. Before start() and after stop() it does nothing.

    def call(self, callback: Callable[[], object], timeout: float) -> None:
        """Have the thread call a function, and return once it has.

        :param callback: called without the lock.
        :param timeout: seconds after which to return anyway: another thread may be stopping the
            gateway.
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
        """Have the thread call a function.

        :param callback: called without the lock.
        """
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:
                pass  # the loop is closed: the gateway has stopped meanwhile

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        """Have the thread call a function later.

        :param seconds: how much later, by the gateway's clock.
        :param callback: called without the lock.
        """
        loop = self._loop
        if loop is None:
            return
        # The moment is reckoned here and now: the clock may leap before the thread hears of it.
        due = loop.time() + seconds
        if threading.current_thread() is self._thread:
            loop.call_at(due, callback)
        else:
            self.call_soon(lambda: loop.call_at(due, callback))

    def _wake(self) -> None:
        """Have the loop look again at what is due: the clock was moved."""
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
    """Log what went wrong on the gateway's thread: a bug in it, or in a fault's action."""
    error = context.get("exception")
    if isinstance(error, OSError):
        _logger.debug("a client's connection failed: %s", error)
    else:
        _logger.error("local gateway: %s", context.get("message"), exc_info=error)
