"""Chaos: random faults of every kind, during which the shard must lose no event.

::

    python -m benchmarks.chaos --minutes 30 --seed 1

A run has many rounds. Each round connects a new shard to a new local gateway. While the gateway
sends events, one thread causes a fault every few milliseconds, and three threads use the shard as a
program does: they send, read the state, reconnect, begin new sessions, disconnect and connect. The
seed and the round's number decide the faults and the calls. Their timing also depends on the
machine. ``--round`` repeats a round, for instance a round that has found a problem. A round records
every event that the gateway issues, and checks that

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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shardlib import (
    AlreadyConnected,
    Backoff,
    CloseCode,
    ConnectionFailed,
    IdentifyGate,
    Intents,
    Shard,
    ShardError,
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
            *(f"PROBLEM {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


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
        # The id of the session that is alive at the end.
        self._final: str | None = None
        # A letter for each callback, in the order of the calls.
        self._callbacks: list[str] = []
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
        self._shard = Shard(
            self._gateway.token,
            Intents.all(),
            compression=rng.choice(COMPRESSIONS),
            identify_gate=IdentifyGate(interval=0.001, slack=0, daily_limit=10**9),
            backoff=Backoff(base=0.005, cap=0.05),
            connect_timeout=0.3,
            hello_timeout=0.3,
            ready_timeout=0.5,
            max_payload=MAX_PAYLOAD,
            ssl_context=self._gateway.ssl_context if self._gateway.url[2] == "s" else None,
            logger=logger,
            dispatcher=self._dispatcher,
            on_socket_connected=lambda shard: self._callbacks.append("c"),
            on_socket_ready=lambda shard: self._callbacks.append("y"),
            on_socket_reconnected=lambda shard, resumed: self._callbacks.append("r"),
            on_socket_disconnected=self._on_disconnected,
            on_socket_closed=lambda shard, error: self._callbacks.append("x"),
            on_socket_dispatch=self._on_dispatch,
        )

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
            self._final = self._shard.session_id
            began = time.monotonic()
            self._shard.disconnect()
            if time.monotonic() - began > 3:
                self._problem("disconnect() took longer than close_timeout")
            self._run_pending()
            waiting = self._shard.stats.waiting
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
                self._shard.connect(self._gateway.url)
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
            self._issue_some(rng.randint(1, 60))
            self._stop.wait(rng.expovariate(100))

    def _issue_some(self, count: int) -> None:
        sessions = self._gateway.sessions
        if sessions and sessions[-1].session_id == self._shard.session_id:
            session = sessions[-1]
            self._seen_sessions.add(session)
            for _ in range(count):
                number = self._issued[session.session_id]
                session.dispatch(EVENT, {"session": session.session_id, "number": number})
                self._issued[session.session_id] += 1

    def _strike(self, rng: random.Random) -> None:
        """Cause a fault every few milliseconds until the end of the round."""
        names = list(LIVE_FAULTS)
        weights = [weight for weight, _ in LIVE_FAULTS.values()]
        while not self._stop.wait(rng.expovariate(30)):
            kind = rng.random()
            if kind < 0.005:
                self._gateway.outage(rng.uniform(0.01, 0.2))
                self.figures.faults["outage"] += 1
            elif kind < 0.08:
                self._strike_next(rng)
            else:
                [name] = rng.choices(names, weights)
                self._strike_live(name, rng)

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
            if name in ("black hole", "stops reading"):
                self._unread.add(connections[-1])
            _apply(LIVE_FAULTS[name][1], connections[-1], rng)
            self.figures.faults[name] += 1

    def _check_no_other(self, connection: GatewayConnection) -> None:
        """Check, when Identify or Resume arrives, that no other connection is open.

        The gateway calls this on its thread.
        """
        others = [
            each
            for each in self._gateway.connections
            if each is not connection and each.close_code is None and each.is_open
        ]
        if set(others) - self._unread:
            self._problem(f"{connection} is not the only one in use: {others}")

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

    def _on_disconnected(self, shard: Shard, code: int | None, closed_by_self: bool) -> None:
        self._callbacks.append("d")
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

    def _use(self, rng: random.Random) -> None:
        """Call random methods of the shard, as a program does, and check what they raise."""
        calls: dict[str, tuple[float, Callable[[], object]]] = {
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
        """Begin another life, which resumes the session of this one."""
        self._shard.disconnect(4000)
        self._connect()

    def _read(self) -> None:
        shard = self._shard
        assert repr(shard) and shard.stats.messages >= 0
        for name in ("state", "socket_active", "session", "heartbeat_ping", "socket_instance"):
            getattr(shard, name)

    # The end.

    def _recover(self) -> None:
        """Stop all faults, and wait until the shard has received all events of its session."""
        self._gateway.clear_faults()
        self._gateway.restore()
        # Needed if a thread of the round has ended between disconnect() and connect().
        with contextlib.suppress(AlreadyConnected):
            self._connect()
        deadline = time.monotonic() + RECOVERY_TIME
        while time.monotonic() < deadline:
            if self._shard.session_id not in self._issued:
                self._issue_some(1)  # a new session, for which no event has been issued
            elif self._is_complete(self._shard.session_id):
                return
            self._run_pending()
            time.sleep(0.01)

    def _is_complete(self, session_id: str | None) -> bool:
        received = self._received.get(session_id or "", ())
        return len(received) >= self._issued[session_id or ""] > 0

    def _sum_up(self) -> None:
        figures = self.figures
        stats = self._shard.stats
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
        if not self._is_complete(self._final):
            lost = self._issued[self._final or ""] - len(self._received.get(self._final or "", ()))
            figures.lost += lost
            self._problem(
                f"session {self._final} is not complete, {lost} events short: {self._shard}"
            )
        for session in self._seen_sessions:
            if session.ended is not None and session.ended.startswith("resumed"):
                self._problem(f"{session}: the shard has resumed too early, or wrongly")
        callbacks = "".join(self._callbacks)
        if not re.fullmatch("((c(yr?|r)?d)*x)+", callbacks):
            self._problem(f"callbacks out of order: {callbacks}")
        if figures.lost or figures.duplicated or figures.out_of_order:
            self._problem("events were lost, duplicated or out of order")


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


def run(seed: int, minutes: float, dispatcher: str) -> Figures:
    """Run rounds until the time is over or a round finds a problem.

    Prints the figures so far once a minute.

    :param seed: decides the rounds.
    :param minutes: the minutes after which no new round begins.
    :param dispatcher: one of DISPATCHERS.
    :returns: the sum of all figures.
    """
    total = Figures()
    end = time.monotonic() + minutes * 60
    printed_at = time.monotonic()
    number = 0
    while time.monotonic() < end and not total.problems:
        total.add(Round(f"{seed}/{number}", dispatcher=dispatcher).run())
        number += 1
        if time.monotonic() - printed_at > 60:
            printed_at = time.monotonic()
            print(f"{total}\n", flush=True)
    if total.problems:
        print(
            f"to run the round again: --seed {seed} --round {number - 1} "
            f"--dispatcher '{dispatcher}'"
        )
    return total


def main() -> int:
    """Run the command; return its exit status, 1 if there was a problem."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, help="this round alone, once")
    parser.add_argument("--dispatcher", choices=DISPATCHERS, default="reader")
    options = parser.parse_args()
    # asyncio warns of each write after the client has ended the connection, which faults often do.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    if options.round is not None:
        figures = Round(f"{options.seed}/{options.round}", dispatcher=options.dispatcher).run()
    else:
        figures = run(options.seed, options.minutes, options.dispatcher)
    print(f"seed {options.seed}, callbacks by the {options.dispatcher}\n{figures}")
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
