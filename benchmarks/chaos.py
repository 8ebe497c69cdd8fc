"""Chaos: random faults of every kind, during which the shard must lose no event.

::

    python -m benchmarks.chaos --minutes 30 --seed 1
    python -m benchmarks.chaos --minutes 30 --seed 1 --shards 8
    python -m benchmarks.chaos --minutes 30 --seed 1 --keep   # for the documentation

A run has many rounds. Each round connects a new shard to a new local gateway; with ``--shards``, a
new manager of so many shards. While the gateway sends events, one thread causes a fault every few
milliseconds, and three threads use the shard, or the manager, as a program does: they send, read
the state, reconnect, restart shards, begin new sessions, iterate over events, disconnect and
connect. The seed and the round's number decide the faults and the calls. Their timing also depends
on the machine. ``--round`` repeats a round, for instance a round that has found a problem. A round
records every event that the gateway issues, and checks for each shard that

- within a session the shard loses no event, delivers none twice, and keeps their order;
- the shard has delivered all events of the session that is alive at the end;
- the shard never uses two connections at once, resumes no session before the gateway has seen the
  end of the session's former connection, and leaves no connection open at the end;
- the shard keeps to the send limit, however many heartbeats the gateway asks for;
- the shard calls callbacks in their order: connected, ready or reconnected, disconnected, ..., and
  closed once in a life;
- methods raise only the errors that they document, and the reader never fails.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import random
import re
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from benchmarks.kept import Run, add_output
from benchmarks.plot import ALL_PERCENTS, curve, plot_chaos
from benchmarks.table import percentile
from shardlib import (
    AlreadyConnected,
    Backoff,
    CloseCode,
    ConnectionFailed,
    GatewayBot,
    IdentifyGate,
    Intents,
    Opcode,
    Shard,
    ShardError,
    ShardManager,
    ShardState,
)
from shardlib.dispatch import Dispatcher, Mailbox, Pool, Worker
from shardlib.gateway import SEND_LIMIT
from shardlib.testing import GatewayConnection, GatewaySession, LocalGateway
from tests.reliability.support import CriticalRecords

EVENT = "CHAOS"
ROUND_SECONDS = 10.0
COMPRESSIONS = ("zlib-stream", "zlib-stream", "zstd-stream", "payload", None)
# Without 4008, which the gateway sends only to a shard that has exceeded the send limit.
CLOSE_CODES = (None, 1000, 1001, 1011, 3000, 4000, 4001, 4002, 4003, 4005, 4999)
SESSION_ENDING_CODES = (4007, 4009)
# The most seconds that the shard may take to recover at the end of a round.
RECOVERY_TIME = 20.0
# The shard's option, in bytes.
MAX_PAYLOAD = 1_000_000
# Milliseconds between heartbeats. With a shorter interval, heartbeats alone would use up the send
# limit.
LONG_INTERVAL = 2_000
# The least and the most requests for a heartbeat in a burst. A shard that answered each request
# would exceed the send limit.
BURST = (300, 600)
# The Retry-After of a refusal, in seconds.
RETRY_AFTER = 1
# Faults a second, of each shard; of the shards of a manager together, more would only queue up.
FAULT_RATE = 30
MOST_FAULTS = 60
# Seconds of the least and of the longest pause before a failed connection is tried again.
BACKOFF = (0.005, 0.05)
# The percentiles that the command prints, by the name that it gives them.
_PERCENTS = {"median": 50, "95 %": 95, "99 %": 99, "longest": 100}

Fault = Callable[[GatewayConnection, random.Random], object]

# The faults of a connection in use, each with its frequency relative to the others.
LIVE_FAULTS: dict[str, tuple[float, Fault]] = {
    "drop": (6, lambda connection, rng: connection.drop()),
    "reset": (6, lambda connection, rng: connection.reset()),
    "black hole": (1, lambda connection, rng: connection.freeze()),
    "stops reading": (1, lambda connection, rng: connection.stop_reading()),
    "stops acknowledging": (2, lambda connection, rng: setattr(connection, "acknowledge", False)),
    "slow": (1, lambda connection, rng: connection.slow(rng.randint(2_000, 200_000))),
    "close": (8, lambda connection, rng: connection.close(rng.choice(CLOSE_CODES))),
    "close, session over": (
        1,
        lambda connection, rng: connection.close(rng.choice(SESSION_ENDING_CODES)),
    ),
    "op 7": (5, lambda connection, rng: connection.reconnect()),
    "op 9 true": (2, lambda connection, rng: connection.invalid_session(True)),
    "op 9 false": (0.1, lambda connection, rng: connection.invalid_session(False)),
    "op 1": (5, lambda connection, rng: connection.request_heartbeat()),
    "op 1 burst": (1, lambda connection, rng: _request_heartbeats(connection, rng.randint(*BURST))),
    "op 1 stream": (
        0.5,
        lambda connection, rng: _request_heartbeats(connection, rng.randint(*BURST), 0.001),
    ),
    "unknown opcode": (
        2,
        lambda connection, rng: connection.send({"op": rng.randint(12, 99), "d": None}),
    ),
    "unknown event": (
        2,
        lambda connection, rng: connection.send({"op": 0, "t": "NEWER_THAN_US", "d": []}),
    ),
    "no JSON": (2, lambda connection, rng: connection.send_compressed('{"op":0,"d":')),
    "an array": (2, lambda connection, rng: connection.send_compressed("[1, 2]")),
    "lone surrogate": (
        2,
        lambda connection, rng: connection.send_compressed('{"op":0,"t":"X","d":"\\ud800"}'),
    ),
    "large integer": (
        2,
        lambda connection, rng: connection.send_compressed('{"op":0,"d":%s}' % ("9" * 4000)),
    ),
    "deep JSON": (
        1,
        lambda connection, rng: connection.send_compressed('{"op":0,"d":' + "[" * 100_000),
    ),
    "bomb": (0.5, lambda connection, rng: connection.send_bomb(MAX_PAYLOAD + 1)),
    "corrupt stream": (2, lambda connection, rng: connection.send_corrupt()),
    "torn frame": (
        2,
        lambda connection, rng: (
            connection.send_bytes(b"\x82\x7e\xff\xff" + bytes(99)),
            connection.drop(),
        ),
    ),
    "masked frame": (1, lambda connection, rng: connection.send_frame(2, b"masked", masked=True)),
    "reserved bit": (1, lambda connection, rng: connection.send_frame(1, b"{}", reserved=True)),
    "unknown frame": (1, lambda connection, rng: connection.send_frame(3, b"{}")),
    "fragmented ping": (1, lambda connection, rng: connection.send_frame(9, b"", fin=False)),
    "oversized frame": (
        1,
        lambda connection, rng: connection.send_bytes(b"\x82\x7f\x00" + b"\xff" * 7),
    ),
    "half a close code": (1, lambda connection, rng: connection.send_frame(8, b"\x03")),
    "garbage": (
        1,
        lambda connection, rng: connection.send_bytes(rng.randbytes(rng.randint(1, 300))),
    ),
    "ping": (3, lambda connection, rng: connection.send_frame(9, b"are you there")),
    "fragments": (3, lambda connection, rng: connection.fragment_messages(rng.randint(1, 40))),
    "bad UTF-8": (1, lambda connection, rng: connection.send_frame(1, b"\xff\xfe")),
}

# The faults of the next connection: the step, whether the fault replaces it, and the action.
OPENING_FAULTS: dict[str, tuple[str, bool, Fault | None]] = {
    "is not served": ("accept", True, None),
    "reset when accepted": ("accept", True, lambda connection, rng: connection.reset()),
    "no 101": ("upgrade", True, None),
    "refused": (
        "upgrade",
        True,
        lambda connection, rng: connection.refuse(rng.choice((429, 502, 503, 520)), "<html>"),
    ),
    "429 with Retry-After": (
        "upgrade",
        True,
        lambda connection, rng: connection.refuse(429, headers={"Retry-After": str(RETRY_AFTER)}),
    ),
    "wrong 101": ("upgrade", True, lambda connection, rng: connection.accept_wrongly()),
    "garbage for 101": (
        "upgrade",
        True,
        lambda connection, rng: connection.send_bytes(rng.randbytes(200)),
    ),
    "slow 101": ("upgrade", False, lambda connection, rng: connection.slow(100)),
    "no Hello": ("hello", True, None),
    "op 7 for Hello": ("hello", True, lambda connection, rng: connection.reconnect()),
    "reset before Hello": ("hello", False, lambda connection, rng: connection.reset()),
    "op 1 before Hello": ("hello", False, lambda connection, rng: connection.request_heartbeat()),
    "no READY or RESUMED": ("ready", True, None),
    "op 9 true for READY": (
        "ready",
        True,
        lambda connection, rng: connection.invalid_session(True),
    ),
    "drop before READY": ("ready", False, lambda connection, rng: connection.drop()),
    "close before READY": (
        "ready",
        False,
        lambda connection, rng: connection.close(rng.choice(CLOSE_CODES)),
    ),
    # Some of these delays are longer than the shard's ready_timeout.
    "late replay": (
        "replay",
        True,
        lambda connection, rng: connection.proceed(after=rng.uniform(0.01, 0.7)),
    ),
    "close is not answered": ("close", True, None),
}


@dataclass
class Figures:
    """Counts of what happened in one round, or in several rounds, and the problems found."""

    rounds: int = 0
    connections: int = 0
    resumes: int = 0
    sessions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    user_calls: Counter[str] = field(default_factory=Counter)
    issued: int = 0
    received: int = 0
    replayed: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    # Seconds from each loss of a connection in use until the shard was READY or RESUMED again.
    without_connection: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        """Add the figures of another round.

        :param other: the figures of that round.
        """
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        faults = sum(self.faults.values())
        lines = [
            f"rounds {self.rounds}, connections {self.connections}, resumes {self.resumes}, "
            f"sessions {self.sessions}",
            f"faults {faults} of {len(self.faults)} kinds: {_by_kind(self.faults)}",
            f"the user's calls: {_by_kind(self.user_calls)}",
            f"events issued {self.issued}, received {self.received}, "
            f"of which replayed {self.replayed}",
            f"lost {self.lost}, duplicated {self.duplicated}, out of order {self.out_of_order}",
            f"seconds without a connection: {self._waits()}",
            *(f"PROBLEM {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)

    def _waits(self) -> str:
        waits = self.without_connection
        if not waits:
            return "no connection was lost"
        return ", ".join(
            f"{name} {percentile(waits, each):.3f}" for name, each in _PERCENTS.items()
        )


@dataclass
class OverTime:
    """The figures after each round.

    :ivar minutes: since the run began.
    :ivar received: events received so far, as the others.
    :ivar wrong: events lost, duplicated or out of order.
    """

    minutes: list[float] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)

    def note(self, minutes: float, total: Figures) -> None:
        """Note the figures so far.

        :param minutes: since the run began.
        :param total: the figures of all rounds until now.
        """
        self.minutes.append(round(minutes, 2))
        self.received.append(total.received)
        self.faults.append(total.faults.total())
        self.wrong.append(total.lost + total.duplicated + total.out_of_order)


# Where the callbacks run, by the name that the command takes. The queues are so short that they are
# full now and then.
DISPATCHERS: dict[str, Callable[[], Dispatcher | None]] = {
    "reader": lambda: None,
    "mailbox": lambda: Mailbox(maxsize=50),
    "worker": lambda: Worker(maxsize=50),
    "pool": lambda: Pool(workers=4, maxsize=50),
    "keyed pool": lambda: Pool(workers=4, maxsize=50, key=_session_of),
}

# Dispatchers that promise no order of events.
UNORDERED = ("pool",)


def _session_of(event: str, data: Any) -> object:
    return data["session"] if event == EVENT else None


Calls = dict[str, tuple[float, Callable[[], object]]]


class Round:
    """One gateway and one shard, with the faults of the one and the calls of the other.

    :param seed: decides the options, the faults and the calls.
    :param seconds: for how many seconds the faults go on, before the shard must recover.
    :param dispatcher: one of DISPATCHERS.
    """

    def __init__(
        self, seed: str, seconds: float = ROUND_SECONDS, dispatcher: str = "reader"
    ) -> None:
        self.figures = Figures(rounds=1)
        self._seed = seed
        self._seconds = seconds
        self._in_order = dispatcher not in UNORDERED
        self._dispatcher = DISPATCHERS[dispatcher]()
        self._stop = threading.Event()
        # By session id, the number of events issued, and the numbers of the events received.
        self._issued: Counter[str] = Counter()
        self._received: dict[str, list[int]] = {}
        # The shards, each with the id of its session that is alive at the end.
        self._final: dict[Shard, str | None] = {}
        # A letter for each callback, in the order of the calls, by shard.
        self._callbacks: dict[int, list[str]] = {}
        # When each shard without a connection lost the one that it had last, by shard.
        self._lost_at: dict[int, float] = {}
        # Connections that the gateway does not read, so that the gateway cannot notice their end.
        self._unread: set[GatewayConnection] = set()
        self._seen_sessions: set[GatewaySession] = set()
        # Faults that struck on the gateway's thread.
        self._struck: Counter[str] = Counter()
        rng = self._rng("setting")
        self._gateway = LocalGateway(
            seed=rng.randint(0, 999),
            guilds=1,
            members=2,
            tls=rng.random() < 0.5,
            heartbeat_interval=rng.choice((300, LONG_INTERVAL)),
            identify_interval=0,
            session_start_limit=10**9,
            resume_after_close=rng.random() < 0.5,
            close_timeout=0.3,
        )
        if self._gateway.resume_after_close:
            self.figures.faults["gateway that resumes only after the close"] += 1
        self._lingers = rng.random() < 0.5
        logger = logging.getLogger("shardlib.chaos")
        logger.propagate = False
        logger.handlers = [CriticalRecords(self.figures.problems)]
        self._callback_rng = self._rng("callbacks")
        self._make(
            compression=rng.choice(COMPRESSIONS),
            connect_timeout=0.3,
            hello_timeout=0.3,
            ready_timeout=0.5,
            max_payload=MAX_PAYLOAD,
            ssl_context=self._gateway.ssl_context if self._gateway.url[2] == "s" else None,
            logger=logger,
            dispatcher=self._dispatcher,
            on_socket_connected=lambda shard: self._note(shard, "c"),
            on_socket_ready=lambda shard: self._note(shard, "y"),
            on_socket_reconnected=lambda shard, resumed: self._note(shard, "r"),
            on_socket_disconnected=self._on_disconnected,
            on_socket_closed=lambda shard, error: self._note(shard, "x"),
            on_socket_dispatch=self._on_dispatch,
        )

    # What is connected.

    def _make(self, **options: Any) -> None:
        """Make what the round connects.

        :param options: of each shard.
        """
        self._shard = Shard(
            self._gateway.token,
            Intents.all(),
            identify_gate=IdentifyGate(interval=0.001, slack=0, daily_limit=10**9),
            backoff=Backoff(*BACKOFF),
            **options,
        )

    @property
    def _bot(self) -> Shard | ShardManager:
        return self._shard

    @property
    def _shards(self) -> Mapping[int, Shard]:
        return {self._shard.shard_id: self._shard}

    def _restart_closed(self) -> None:
        """Start the shards again that the round's threads have left closed."""

    def _rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self._seed}/{purpose}")

    def run(self) -> Figures:
        """Run the round, and return the figures."""
        threads = [
            threading.Thread(target=self._run_thread, args=(target, number), name=target.__name__)
            for number, target in enumerate((self._issue, self._strike, *[self._use] * 3))
        ]
        with self._gateway:
            self._gateway.inject(self._check_no_other, before="ready", connections=None)
            if self._lingers:
                self._gateway.inject(self._linger, before="close", connections=None)
            self._connect()
            for thread in threads:
                thread.start()
            if isinstance(self._dispatcher, Mailbox):
                self._run_mailbox(self._dispatcher, time.monotonic() + self._seconds)
            else:
                time.sleep(self._seconds)
            self._stop.set()
            for thread in threads:
                self._join(thread)
            self._recover()
            self._final = {shard: shard.session_id for shard in self._shards.values()}
            began = time.monotonic()
            self._bot.disconnect()
            if time.monotonic() - began > 3:
                self._problem("disconnect() took longer than close_timeout")
            self._run_pending()
            waiting = self._bot.stats.waiting
            if waiting:
                self._problem(f"{waiting} callbacks were never called")
            self._check_nothing_is_left_open()
            self._check_send_limit()
            self._sum_up()
        return self.figures

    def _run_mailbox(self, mailbox: Mailbox, until: float) -> None:
        """Run a mailbox on this thread, as a program's loop does, with pauses between."""
        while time.monotonic() < until:
            mailbox.run_pending(max_seconds=0.01)
            time.sleep(0.002)

    def _run_pending(self) -> None:
        if isinstance(self._dispatcher, Mailbox):
            self._dispatcher.run_pending()

    def _join(self, thread: threading.Thread) -> None:
        deadline = time.monotonic() + RECOVERY_TIME
        while thread.is_alive() and time.monotonic() < deadline:
            thread.join(0.01)
            self._run_pending()
        if thread.is_alive():
            self._problem(f"{thread.name} hangs")

    def _connect(self) -> None:
        """Call connect() up to 20 times, since connect() raises if a fault hits its first try."""
        for attempts_left in reversed(range(20)):
            try:
                self._bot.connect(self._gateway.url)
                return
            except ConnectionFailed:
                if not attempts_left:
                    raise

    def _problem(self, problem: str) -> None:
        self.figures.problems.append(problem)

    def _run_thread(self, target: Callable[[random.Random], None], number: int) -> None:
        """Run a thread of the round, and report an exception in the thread as a problem."""
        try:
            target(self._rng(f"{target.__name__} {number}"))
        except BaseException:
            self._problem(traceback.format_exc())

    # The gateway's side.

    def _issue(self, rng: random.Random) -> None:
        """Issue events in bursts until the end of the round."""
        while not self._stop.is_set():
            shards = list(self._shards.values())
            if shards:
                self._issue_some(rng.choice(shards), rng.randint(1, 60))
            self._stop.wait(rng.expovariate(100))

    def _issue_some(self, shard: Shard, count: int) -> None:
        sessions = {each.session_id: each for each in self._gateway.sessions}
        session = sessions.get(shard.session_id or "")
        if session is not None:
            self._seen_sessions.add(session)
            if session.shard != (shard.shard_id, shard.shard_count):
                self._problem(f"{shard} has the session {session}")
            for _ in range(count):
                number = self._issued[session.session_id]
                session.dispatch(EVENT, {"session": session.session_id, "number": number})
                self._issued[session.session_id] += 1

    def _strike(self, rng: random.Random) -> None:
        """Cause a fault every few milliseconds until the end of the round."""
        names = list(LIVE_FAULTS)
        weights = [weight for weight, _ in LIVE_FAULTS.values()]
        rate = min(FAULT_RATE * len(self._shards), MOST_FAULTS)
        while not self._stop.wait(rng.expovariate(rate)):
            kind = rng.random()
            if kind < 0.002:
                self._lose_session(rng)
            elif kind < 0.005:
                self._gateway.outage(rng.uniform(0.01, 0.2))
                self.figures.faults["outage"] += 1
            elif kind < 0.08:
                self._strike_next(rng)
            else:
                [name] = rng.choices(names, weights)
                self._strike_live(name, rng)

    def _lose_session(self, rng: random.Random) -> None:
        """Have the gateway forget a session, which its shard learns at its next Resume."""
        sessions = self._gateway.sessions
        if sessions:
            with contextlib.suppress(ValueError):  # it has ended meanwhile
                self._gateway.lose_session(rng.choice(sessions))
                self.figures.faults["session lost"] += 1

    def _strike_next(self, rng: random.Random) -> None:
        name = rng.choice(list(OPENING_FAULTS))
        step, replaces_step, fault = OPENING_FAULTS[name]
        # The gateway's thread must not use this thread's rng, or the order of the two threads'
        # calls, which differs from run to run, would decide the faults.
        own_rng = random.Random(rng.random())

        def strike(connection: GatewayConnection) -> None:
            self._struck[name] += 1
            if fault is not None:
                _apply(fault, connection, own_rng)

        if replaces_step:
            self._gateway.inject(strike, instead_of=step)
        else:
            self._gateway.inject(strike, before=step)

    def _strike_live(self, name: str, rng: random.Random) -> None:
        connections = [each for each in self._gateway.connections if each.is_open]
        if connections:
            connection = rng.choice(connections[-len(self._shards) :])
            if name in ("black hole", "stops reading"):
                self._unread.add(connection)
            _apply(LIVE_FAULTS[name][1], connection, rng)
            self.figures.faults[name] += 1

    def _check_no_other(self, connection: GatewayConnection) -> None:
        """Check, when Identify or Resume arrives, that the shard has no other connection open.

        The gateway calls this on its thread.
        """
        shard_id = self._shard_id_on(connection)
        others = [
            each
            for each in self._gateway.connections
            if each is not connection
            and each.close_code is None
            and each.is_open
            and self._shard_id_on(each) == shard_id
        ]
        if set(others) - self._unread:
            self._problem(f"{connection} is not the only one in use: {others}")

    def _shard_id_on(self, connection: GatewayConnection) -> int | None:
        """The id of the shard whose connection it is. Of one shard, all are."""
        return self._shard.shard_id

    def _linger(self, connection: GatewayConnection) -> None:
        """Leave ending TCP to the shard.

        The gateway calls this on its thread, before the gateway answers a CLOSE frame.
        """
        self._struck["lingers after the close"] += 1
        connection.linger()

    def _check_nothing_is_left_open(self) -> None:
        """Check that disconnect() has ended TCP, even if the gateway leaves TCP open."""

        def open_connections() -> set[GatewayConnection]:
            return set(self._gateway.connections) - self._unread

        try:
            self._gateway.wait_until(lambda: not open_connections(), timeout=2)
        except TimeoutError:
            self._problem(f"the shard has left open {open_connections()}")

    def _check_send_limit(self) -> None:
        """Check that no connection carried more payloads than the limit for a minute.

        A round is shorter than a minute.
        """
        if self._gateway.heartbeat_interval < LONG_INTERVAL:
            return  # scheduled heartbeats alone exceed the limit
        for connection in self._gateway.all_connections:
            count = len(connection.received)
            if count > SEND_LIMIT:
                self._problem(f"{count} payloads arrived on {connection} within a minute")

    # The user's side.

    def _note(self, shard: Shard, callback: str) -> None:
        shard_id = shard.shard_id
        self._callbacks.setdefault(shard_id, []).append(callback)
        if callback == "d":
            self._lost_at.setdefault(shard_id, time.monotonic())
        elif callback in "yrx":
            lost_at = self._lost_at.pop(shard_id, None)
            if lost_at is not None and callback != "x":
                self.figures.without_connection.append(time.monotonic() - lost_at)

    def _on_disconnected(self, shard: Shard, code: int | None, closed_by_self: bool) -> None:
        self._note(shard, "d")
        if code == CloseCode.RATE_LIMITED:
            self._problem("the shard has exceeded the send limit: closed with 4008")

    def _on_dispatch(self, shard: Shard, payload: dict[str, Any]) -> None:
        if payload.get("t") != EVENT:
            return
        data = payload["d"]
        self._received.setdefault(data["session"], []).append(data["number"])
        chance = self._callback_rng.random()
        if chance < 0.0002:
            shard.reconnect()
        elif chance < 0.001:
            time.sleep(chance * 20)
        elif chance < 0.002:
            raise ValueError("a fault of the callback")

    def _calls(self, rng: random.Random) -> Calls:
        """The calls of a program, each with its frequency relative to the others."""
        return {
            "send": (40, lambda: self._shard.update_presence(status="idle", timeout=0.2)),
            "read": (40, self._read),
            "begin again": (0.5, self._begin_again),
            "reconnect": (3, self._shard.reconnect),
            "heartbeat": (3, self._shard.heartbeat),
            "heartbeat_in": (2, lambda: self._shard.heartbeat_in(rng.randint(50, 300))),
            "resume": (1, self._shard.resume),
            "reinstantiate": (0.3, lambda: self._shard.reinstantiate(no_fail=True)),
            "wait_for": (2, lambda: self._shard.wait_for(EVENT, timeout=0.1)),
            "wait_until_ready": (5, lambda: self._shard.wait_until_ready(0.3)),
        }

    def _use(self, rng: random.Random) -> None:
        """Call random methods, as a program does, and check what they raise."""
        calls = self._calls(rng)
        weights = [weight for weight, _ in calls.values()]
        while not self._stop.wait(rng.expovariate(100)):
            [name] = rng.choices(list(calls), weights)
            self.figures.user_calls[name] += 1
            try:
                calls[name][1]()
            except (ShardError, TimeoutError):
                pass  # documented
            except Exception as error:
                self._problem(f"{name} raised {error!r}")

    def _begin_again(self) -> None:
        """Begin another life, which resumes the sessions of this one."""
        self._bot.disconnect(4000)
        self._connect()

    def _read(self) -> None:
        assert repr(self._bot) and self._bot.stats.messages >= 0
        for shard in self._shards.values():
            for name in ("state", "socket_active", "session", "heartbeat_ping", "socket_instance"):
                getattr(shard, name)

    # The end.

    def _recover(self) -> None:
        """Stop all faults, and wait until each shard has received all events of its session."""
        self._gateway.clear_faults()
        self._gateway.restore()
        # Needed if a thread of the round has ended between disconnect() and connect().
        with contextlib.suppress(AlreadyConnected):
            self._connect()
        deadline = time.monotonic() + RECOVERY_TIME
        while time.monotonic() < deadline:
            self._restart_closed()
            shards = list(self._shards.values())
            for shard in shards:
                if shard.session_id not in self._issued:
                    self._issue_some(shard, 1)  # a new session, for which none has been issued
            if shards and all(self._is_complete(shard.session_id) for shard in shards):
                return
            self._run_pending()
            time.sleep(0.01)

    def _is_complete(self, session_id: str | None) -> bool:
        received = self._received.get(session_id or "", ())
        return len(received) >= self._issued[session_id or ""] > 0

    def _sum_up(self) -> None:
        figures = self.figures
        stats = self._bot.stats
        figures.faults += self._struck
        figures.connections = stats.connections
        figures.resumes = stats.resumes
        figures.replayed = stats.replayed
        figures.sessions = stats.events["READY"]
        figures.issued = sum(self._issued.values())
        for numbers in self._received.values():
            figures.received += len(numbers)
            known = set(numbers)
            figures.duplicated += len(numbers) - len(known)
            if self._in_order:
                figures.out_of_order += sum(b < a for a, b in itertools.pairwise(numbers))
            figures.lost += max(numbers) + 1 - len(known)
        for shard, final in self._final.items():
            if not self._is_complete(final):
                lost = self._issued[final or ""] - len(self._received.get(final or "", ()))
                figures.lost += lost
                self._problem(f"session {final} is not complete, {lost} events short: {shard}")
        for session in self._seen_sessions:
            if session.ended is not None and session.ended.startswith("resumed"):
                self._problem(f"{session}: the shard has resumed too early, or wrongly")
        for shard_id, letters in self._callbacks.items():
            callbacks = "".join(letters)
            if not re.fullmatch("((c(yr?|r)?d)*x)+", callbacks):
                self._problem(f"callbacks of shard {shard_id} out of order: {callbacks}")
        if figures.lost or figures.duplicated or figures.out_of_order:
            self._problem("events were lost, duplicated or out of order")


class ManagerRound(Round):
    """One gateway and a manager of several shards.

    :param seed: as for :class:`Round`, as are the rest.
    :param shards: how many.
    """

    def __init__(
        self,
        seed: str,
        seconds: float = ROUND_SECONDS,
        dispatcher: str = "reader",
        shards: int = 8,
    ) -> None:
        self._shard_count = shards
        super().__init__(seed, seconds, dispatcher)

    def run(self) -> Figures:
        # A manager takes no `backoff`, and the faults end after seconds.
        with mock.patch.object(Backoff.__init__, "__defaults__", BACKOFF):
            return super().run()

    def _make(self, **options: Any) -> None:
        self._gateway.max_concurrency = self._shard_count
        self._manager = ShardManager(
            self._gateway.token,
            Intents.all(),
            self._shard_count,
            gateway_bot=lambda: GatewayBot(
                self._gateway.url, self._shard_count, 10**6, 10**6, 0.0, self._shard_count
            ),
            identify_gate=IdentifyGate(self._shard_count, 0.001, slack=0, daily_limit=10**9),
            **options,
        )

    @property
    def _bot(self) -> Shard | ShardManager:
        return self._manager

    @property
    def _shards(self) -> Mapping[int, Shard]:
        return self._manager.shards

    def _restart_closed(self) -> None:
        closed = [
            shard_id
            for shard_id, shard in self._shards.items()
            if shard.state in (ShardState.CLOSED, ShardState.DISCONNECTED)
        ]
        with contextlib.suppress(ShardError, TimeoutError):  # tried again
            self._manager.restart(closed, timeout=1)

    def _shard_id_on(self, connection: GatewayConnection) -> int | None:
        for payload in reversed(connection.received):
            if payload["op"] == Opcode.IDENTIFY:
                shard_id: int = payload["d"]["shard"][0]
                return shard_id
            if payload["op"] == Opcode.RESUME:
                session_id = payload["d"]["session_id"]
                for session in self._gateway.all_sessions:
                    if session.session_id == session_id:
                        return session.shard[0]
        return None  # none was sent

    def _calls(self, rng: random.Random) -> Calls:
        manager = self._manager

        def any_shard() -> Shard:
            return manager.shards[rng.randrange(self._shard_count)]

        def restart(new_session: bool = False) -> None:
            shard_id = rng.randrange(self._shard_count)
            manager.restart([shard_id], new_session=new_session, timeout=0.5)

        def close_and_restart() -> None:
            shard_id = rng.randrange(self._shard_count)
            manager.shards[shard_id].disconnect(4000)
            manager.restart([shard_id], timeout=0.5)

        def listen_for_a_while() -> None:
            def listener(shard: Shard, data: Any) -> None: ...

            manager.on(EVENT, listener)
            manager.off(EVENT, listener)

        return {
            "send": (30, lambda: manager.update_presence(status="idle", timeout=0.2)),
            "read": (40, self._read),
            "begin again": (0.3, self._begin_again),
            "reconnect": (3, lambda: any_shard().reconnect()),
            "heartbeat": (3, lambda: any_shard().heartbeat()),
            "resume": (1, lambda: any_shard().resume()),
            "restart": (2, restart),
            "restart, new session": (0.3, lambda: restart(new_session=True)),
            "close and restart": (0.5, close_and_restart),
            "on and off": (5, listen_for_a_while),
            "events": (3, lambda: self._iterate(rng.randint(1, 200))),
            "wait_for": (2, lambda: manager.wait_for(EVENT, timeout=0.1)),
            "wait_until_ready": (5, lambda: manager.wait_until_ready(0.3)),
        }

    def _iterate(self, most: int) -> None:
        """Take events from an iterator, and check their order within each session."""
        last: dict[str, int] = {}
        with self._manager.events(EVENT, timeout=0.2, maxsize=20) as events:
            for event in itertools.islice(events, most):
                session, number = event.data["session"], event.data["number"]
                if number != last.get(session, number - 1) + 1:
                    self._problem(f"events() gave {number} after {last[session]} of {session}")
                last[session] = number


def _by_kind(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _request_heartbeats(connection: GatewayConnection, count: int, pause: float = 0.0) -> None:
    for _ in range(count):
        connection.request_heartbeat()
        if pause:  # without a pause, a shard may answer several requests with one heartbeat
            time.sleep(pause)


def _apply(fault: Fault, connection: GatewayConnection, rng: random.Random) -> None:
    """Call a fault, unless the connection ends before the fault has."""
    try:
        fault(connection, rng)
    except ConnectionError:
        pass  # the connection has ended


def make_round(seed: str, dispatcher: str, shards: int, seconds: float = ROUND_SECONDS) -> Round:
    """A round of one shard, or of a manager with several.

    :param seed: decides the options, the faults and the calls.
    :param dispatcher: one of DISPATCHERS.
    :param shards: how many.
    :param seconds: for how many seconds the faults go on.
    """
    if shards == 1:
        return Round(seed, seconds, dispatcher)
    return ManagerRound(seed, seconds, dispatcher, shards)


def run(seed: int, minutes: float, dispatcher: str, shards: int) -> tuple[Figures, OverTime]:
    """Run rounds until the time is over or a round finds a problem.

    Prints the figures so far once a minute.

    :param seed: decides the rounds.
    :param minutes: the minutes after which no new round begins.
    :param dispatcher: one of DISPATCHERS.
    :param shards: how many shards a round has.
    :returns: the sum of all figures, and how they came about.
    """
    total, over_time = Figures(), OverTime()
    began = printed_at = time.monotonic()
    end = began + minutes * 60
    number = 0
    while time.monotonic() < end and not total.problems:
        total.add(make_round(f"{seed}/{number}", dispatcher, shards).run())
        number += 1
        over_time.note((time.monotonic() - began) / 60, total)
        if time.monotonic() - printed_at > 60:
            printed_at = time.monotonic()
            print(f"{total}\n", flush=True)
    if total.problems:
        print(
            f"to run the round again: --seed {seed} --round {number - 1} "
            f"--dispatcher '{dispatcher}' --shards {shards}"
        )
    return total, over_time


def main() -> int:
    """Run the command; return its exit status, 1 if there was a problem."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, help="this round alone, once")
    parser.add_argument("--dispatcher", choices=DISPATCHERS, default="reader")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="of one manager")
    add_output(parser)
    options = parser.parse_args()
    kept_run = Run("chaos")
    # asyncio warns of each write after the client has ended the connection, which faults often do.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    if options.round is not None:
        seed = f"{options.seed}/{options.round}"
        figures = make_round(seed, options.dispatcher, options.shards).run()
    else:
        figures, over_time = run(options.seed, options.minutes, options.dispatcher, options.shards)
        kept_run.finish(
            options,
            f"chaos-{_words(options.shards).replace(' ', '-')}-{options.seed}",
            {
                **vars(figures),
                "seed": options.seed,
                "shards": options.shards,
                "over_time": vars(over_time),
                "losses": len(figures.without_connection),
                "without_connection": curve(figures.without_connection, ALL_PERCENTS),
            },
            plot_chaos,
        )
    print(
        f"seed {options.seed}, {_words(options.shards)}, callbacks by the {options.dispatcher}\n"
        f"{figures}"
    )
    return 1 if figures.problems else 0


def _words(shards: int) -> str:
    return f"{shards} shards" if shards > 1 else "one shard"


if __name__ == "__main__":
    sys.exit(main())
