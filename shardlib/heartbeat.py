"""Heartbeat: the small thread that keeps one connection alive, and asks whether it is.

The thread runs no function of the user's, and neither a log handler nor a JSON module: a console
that stands still must not stop the heartbeats. Whatever ends the thread's loop gives the connection
up.
https://docs.discord.com/developers/events/gateway#sending-heartbeats
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from shardlib import payloads
from shardlib.connection import Connection
from shardlib.deadline import Deadline
from shardlib.errors import SendTimeout
from shardlib.liveness import SUSPEND_THRESHOLD, Due, Evidence, Latency, Liveness
from shardlib.loss import Cause, Loss
from shardlib.text import describe
from shardlib.transport import StreamBroken
from shardlib.waiting import Alarm
from shardlib.watchdog import Watchdog

# Seconds that the reader waits for this thread to end.
_TIME_TO_END = 1.0

# Seconds after which a heartbeat is tried again that was not sent and that the peer can do without.
_SEND_AGAIN_AFTER = 0.5

# Lines for the log that wait for the reader; older ones are dropped.
_MOST_NOTES = 100


class Heartbeat:
    """The heartbeats of one connection.

    :param connection: to beat on.
    :param interval: milliseconds, from Hello.
    :param last_sequence: gives the sequence to send, as it is then.
    :param callback_seconds: gives the seconds that the reader has spent in the user's functions.
    :param on_unanswered: called on the heartbeat thread when a busy reader may have left an
        acknowledgement unread; must return at once.
    :param watchdog: that looks, on the heartbeat thread, for functions of the user's that are
        stuck.
    """

    def __init__(
        self,
        connection: Connection,
        interval: float,
        *,
        last_sequence: Callable[[], int | None],
        callback_seconds: Callable[[], float],
        on_unanswered: Callable[[], object],
        watchdog: Watchdog,
    ) -> None:
        self._connection = connection
        self._last_sequence = last_sequence
        self._callback_seconds = callback_seconds
        self._on_unanswered = on_unanswered
        self._watchdog = watchdog
        self.clock_time: float | None = None  # time.perf_counter() of the last heartbeat sent
        self.thread: threading.Thread | None = None
        self._alarm = Alarm()  # rung when the plan changes, and by the watchdog
        self._stopped = False
        # Guards _liveness, held for moments. Reentrant, since a signal handler may come here while
        # the main thread holds it.
        self._lock = threading.RLock()
        self._liveness = Liveness(interval, time.monotonic(), random.random())
        #: The payloads sent, for the reader to take and to write into the log: this thread writes
        #: none. Changed under _lock, replaced as a whole.
        self.notes: tuple[str, ...] = ()
        connection.reserve_heartbeats(self._liveness.least_interval)

    # Any thread

    @property
    def interval(self) -> float:
        """Milliseconds, as Hello gave it."""
        return self._liveness.interval

    @property
    def acknowledged(self) -> bool:
        """False while a scheduled heartbeat waits for its acknowledgement."""
        return self._liveness.acknowledged

    @property
    def all_acknowledged(self) -> bool:
        """False while a heartbeat of any kind waits for its acknowledgement."""
        with self._lock:
            return self._liveness.all_acknowledged

    @property
    def latency(self) -> Latency:
        """The round trips so far."""
        with self._lock:
            return self._liveness.latency

    def stop(self) -> None:
        """End the loop, without waiting for it."""
        self._stopped = True
        self._alarm.ring()

    def change_pace(self, milliseconds: float) -> None:
        """Beat after that long, and from then on at that pace."""
        with self._lock:
            self._liveness.change_pace(milliseconds, time.monotonic())
        self._alarm.ring()

    def request(self, *, by_gateway: bool) -> None:
        """Send a heartbeat beside the scheduled ones, as soon as there is room for it.

        :param by_gateway: False if the user asks, which also judges the connection.
        """
        with self._lock:
            self._liveness.request(time.monotonic(), by_gateway=by_gateway)
        self._alarm.ring()

    # The reader

    def start(self, name: str) -> None:
        """Start the thread.

        :raises RuntimeError: if the system has no thread to give.
        """
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def change_interval(self, interval: float) -> None:
        """Take a second Hello in."""
        with self._lock:
            self._liveness.change_interval(interval, time.monotonic())
        self._connection.reserve_heartbeats(self._liveness.least_interval)
        self._alarm.ring()

    def acknowledge(self) -> float | None:
        """Take an acknowledgement in.

        :returns: seconds of the round trip, or None if no heartbeat waits for one.
        """
        with self._lock:
            return self._liveness.acknowledge(time.monotonic())

    def take_notes(self) -> tuple[str, ...]:
        """The payloads sent since this was called last."""
        with self._lock:
            notes, self.notes = self.notes, ()
        return notes

    def join(self) -> None:
        """Wait until the thread has ended, which :meth:`stop` and a lost connection bring about."""
        if self.thread is not None and self.thread.ident is not None:
            self.thread.join(_TIME_TO_END)

    # The heartbeat thread

    def _run(self) -> None:
        try:
            self._watchdog.attach(self._alarm)
            self._beat_until_stopped()
        except BaseException as error:
            self._fail(Cause.FAULT, f"the heartbeat failed: {describe(error)}", error)
        finally:
            try:
                try:
                    self._connection.abort()  # without heartbeats there is no connection
                finally:
                    self._watchdog.detach(self._alarm)
            except Exception:
                pass  # a second fault; the reader closes the socket in any case

    def _beat_until_stopped(self) -> None:
        # Seconds of the wall clock over the monotonic one, which may stand still while the machine
        # sleeps: a sleep adds to them, and whatever else wakes this thread does not hide that. If
        # the wall clock was merely set, a heartbeat leaves early, and its answer is due in seconds.
        ahead = time.time() - time.monotonic()
        while not self._stopped:
            with self._lock:
                next_due = self._liveness.next_due()
            now = time.monotonic()
            if now < next_due:
                self._alarm.wait(min(next_due - now, self._watchdog.look()))
                continue
            suspended = time.time() - ahead - next_due > SUSPEND_THRESHOLD
            with self._lock:
                due = self._liveness.due(now, suspended=suspended)
            if due is Due.NOTHING:
                continue
            if due is Due.SCHEDULED:
                ahead = time.time() - now
            evidence = self._gather_evidence()
            if due is not Due.BY_GATEWAY and self._is_zombie(now, evidence, due is Due.BY_USER):
                self._fail(Cause.UNRESPONSIVE, "the last heartbeat was not acknowledged")
            elif due is Due.SCHEDULED:
                self._beat_as_scheduled(now, evidence)
            else:
                self._beat_as_requested(now)

    def _gather_evidence(self) -> Evidence:
        # Asked first: what the reader takes in after that counts as received.
        reader_idle = self._liveness.acknowledged or self._connection.is_idle()
        return Evidence(self._connection.bytes_received, self._callback_seconds(), reader_idle)

    def _is_zombie(self, now: float, evidence: Evidence, by_user: bool) -> bool:
        if not evidence.reader_idle:
            self._on_unanswered()
        with self._lock:
            return not self._liveness.may_still_be_alive(now, evidence, by_user=by_user)

    def _beat_as_scheduled(self, now: float, evidence: Evidence) -> None:
        with self._lock:
            guaranteed = self._liveness.is_guaranteed(now)
            until_next = Deadline(self._liveness.next_scheduled - now)

        def before_sending() -> None:
            # The acknowledgement may be here before this thread goes on.
            self._liveness.send_scheduled(now, evidence, guaranteed=guaranteed)

        if guaranteed:
            self._send(before_sending, Deadline(self.interval / 1000), guaranteed=True)
        else:
            self._send(before_sending, until_next, guaranteed=False)

    def _beat_as_requested(self, now: float) -> None:
        until_next = Deadline(self._liveness.next_scheduled - now)
        wait = self._send(lambda: self._liveness.send_extra(now), until_next, guaranteed=False)
        if wait:
            with self._lock:
                self._liveness.extra_later(now + wait)

    def _send(
        self, before_sending: Callable[[], None], deadline: Deadline, *, guaranteed: bool
    ) -> float:
        """Send a heartbeat. Returns the seconds until there is room for one, 0.0 if it was sent."""
        text = payloads.heartbeat(self._last_sequence())

        def admitted() -> None:
            with self._lock:
                before_sending()
                self.notes = (*self.notes, text)[-_MOST_NOTES:]
            self.clock_time = time.perf_counter()

        try:
            return self._connection.send(
                text, deadline, urgent=guaranteed, counted=not guaranteed, admitted=admitted
            )
        except SendTimeout:
            if not guaranteed:  # one that can do without: the next scheduled one will tell
                return _SEND_AGAIN_AFTER
            self._fail(
                Cause.UNRESPONSIVE, "a heartbeat could not be sent: the Gateway takes no bytes"
            )
        except StreamBroken:
            return _SEND_AGAIN_AFTER  # the connection ends, which is the reader's to find out
        return 0.0

    def _fail(self, cause: Cause, reason: str, error: BaseException | None = None) -> None:
        self._stopped = True
        self._connection.fail(Loss(cause, reason, error=error))
