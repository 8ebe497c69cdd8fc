"""Heartbeat: the loop that keeps one connection alive, and judges it.

https://docs.discord.com/developers/events/gateway#sending-heartbeats
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from shardlib.callbacks import Callbacks, Running
from shardlib.connection import Connection
from shardlib.deadline import LONGEST_WAIT, Deadline
from shardlib.errors import SendTimeout

# Seconds within which an acknowledgement is expected where there is reason for doubt: the machine
# was asleep, or the user asks by hand. A healthy Gateway answers in a fraction of one.
PROBE = 5.0

# How far beyond the planned time a wake-up must be to mean that machine or process was stopped.
LATE = 5.0


class Heartbeat:
    """The heartbeats of one connection, sent by a thread of their own.

    :param callbacks: which may keep the reader from reading.
    :param interval: milliseconds, from Hello.
    :param payload: makes the heartbeat to send, with the last sequence as it is then.
    """

    def __init__(
        self,
        connection: Connection,
        callbacks: Callbacks,
        interval: float,
        payload: Callable[[], str],
    ) -> None:
        self._connection = connection
        self._callbacks = callbacks
        self._payload = payload
        self.interval = interval
        self.acknowledged = True
        self.clock_time: float | None = None  # time.perf_counter() of the last heartbeat sent
        self.ping: float | None = None  # seconds
        self.thread: threading.Thread | None = None
        # Guards the plan below; its owner is woken whenever the plan changes. Reentrant as a
        # signal handler of the user's may come here while the main thread is inside.
        self._changed = threading.Condition(threading.RLock())
        self._stopped = False
        self._period = interval / 1000
        self._due = time.monotonic() + self._period * random.random()
        # Of the scheduled heartbeat that waits for its acknowledgement:
        self._sent_at = 0.0  # time.monotonic()
        self._expected_at = 0.0  # time.monotonic() of the next one, as planned when it was sent
        self._callback_seconds = 0.0  # callbacks.seconds when it was sent
        self._bytes_received = 0  # connection.bytes_received when it was sent
        self._grace_used = False
        self._warned_of: Running | None = None

    def start(self, name: str) -> None:
        """Start the thread. Called by the reader, at Hello."""
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the loop, without waiting for it. Any thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def reschedule(self, milliseconds: float) -> None:
        """Beat after that long, and from then on at that pace. Any thread."""
        with self._changed:
            self._period = milliseconds / 1000
            self._due = time.monotonic() + self._period
            self._changed.notify_all()

    def beat(self, requested: bool) -> None:
        """Send a heartbeat now, on request of the Gateway or of the user. Any thread.

        It is no part of the schedule: whether it is acknowledged decides nothing. Where it was not
        requested, and the scheduled one has waited too long, the connection is a zombie instead.
        """
        patience = min(PROBE, self._period)
        if (
            not requested
            and not self.acknowledged
            and time.monotonic() - self._sent_at > patience
            and self._connection.is_idle()
        ):
            self._give_up("the last heartbeat was not acknowledged")
        else:
            self._send(None)

    def acknowledge(self) -> bool:
        """Take an acknowledgement in, on the reader thread. False where none was due."""
        if self.clock_time is None:
            return False
        self.ping = time.perf_counter() - self.clock_time
        self.acknowledged = True
        return True

    def _run(self) -> None:
        """The heartbeat thread."""
        wall_due = time.time()
        while True:
            with self._changed:
                while not self._stopped and (wait := self._due - time.monotonic()) > 0:
                    wall_due = time.time() + wait
                    self._changed.wait(min(wait, LONGEST_WAIT))
                if self._stopped:
                    return
                # Seen by the wall clock, since the monotonic one may stand still while a machine
                # sleeps. Where the wall clock was merely set, this costs an early heartbeat.
                late = time.time() - wall_due > LATE
                self._due += min(self._period, PROBE) if late else self._period
                if self._due < time.monotonic():  # nothing to make up for: one beat is enough
                    self._due = time.monotonic() + self._period
                deadline = Deadline(self._due - time.monotonic())
            self._tick(deadline)

    def _tick(self, deadline: Deadline) -> None:
        """What is due at the time to beat: the verdict, then the heartbeat."""
        if self.acknowledged:
            self._grace_used = False
            self._sent_at = time.monotonic()
            self._expected_at = self._due
            self._callback_seconds = self._callbacks.seconds
            self._bytes_received = self._connection.bytes_received
        elif not self._is_excused():
            self._give_up("the last heartbeat was not acknowledged")
            return
        self.acknowledged = False
        self._send(deadline)

    def _is_excused(self) -> bool:
        """Whether the acknowledgement may be on its way, or there and unread.

        Where the user's functions take most of the time, it may for as long as they do. Where
        bytes just keep coming, it should be among those of one more interval. Where nothing came
        since the heartbeat was sent, and the reader has read it all, there is nobody.
        """
        if time.monotonic() < self._expected_at:  # the pace was quickened meanwhile
            return True
        if self._connection.is_idle():
            if self._connection.bytes_received == self._bytes_received:
                return False
        else:
            running = self._callbacks.running
            if running is not None and running is not self._warned_of:
                self._warned_of = running
                self._callbacks.warn(running)
            if self._callbacks.seconds - self._callback_seconds > self._period / 2:
                return True
        grace, self._grace_used = not self._grace_used, True
        return grace

    def _send(self, deadline: Deadline | None) -> None:
        # Noted before sending: the acknowledgement may be here before this thread goes on.
        self.clock_time = time.perf_counter()
        try:
            self._connection.send(self._payload(), deadline)
        except SendTimeout:
            self._give_up("a heartbeat could not be sent, the peer takes no bytes")
        except OSError:
            pass  # the connection has ended, and the reader knows

    def _give_up(self, reason: str) -> None:
        self.stop()
        self._connection.give_up(reason)
