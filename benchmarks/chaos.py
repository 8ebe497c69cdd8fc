"""Chaos: everything goes wrong at once, for as long as you like, and nothing may be lost.

::

    python -m benchmarks.chaos --minutes 30 --seed 1

A run is a row of rounds. In each a new shard meets a new local gateway; events flow, a thread of
the gateway's lets something go wrong every few milliseconds, and threads of the user's send, read
the state, reconnect, begin new sessions, disconnect and connect meanwhile. The faults and the
user's acts follow from seed and round alone (their moments also from the machine), so that what a
round has found can be looked for again with ``--round``. The checker knows every event that the
gateway has issued:

- within a session none is lost, none comes twice, none out of order;
- in the session that is alive at the end, all have come;
- of two connections of the shard no two are in use at once, no session is resumed before the
  gateway has seen the end of its former connection, and none is left open at the end;
- the shard keeps to the send limit, however many heartbeats are asked for;
- callbacks come in their order: connected, ready or reconnected, disconnected, ..., closed once in
  a life;
- methods raise what they document and nothing else, and the reader never fails.
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
from shardlib.gateway import SEND_LIMIT
from shardlib.testing import GatewayConnection, GatewaySession, LocalGateway

EVENT = "CHAOS"
ROUND = 10.0  # seconds
COMPRESSIONS = ("zlib-stream", "zlib-stream", "zstd-stream", "payload", None)
# Without 4008: the gateway sends it only to a shard that has sent more than it may.
CLOSE_CODES = (None, 1000, 1001, 1011, 3000, 4000, 4001, 4002, 4003, 4005, 4999)
SESSION_ENDING = (4007, 4009)
SETTLE = 20.0  # seconds that recovery from everything may take at the end of a round
MAX_PAYLOAD = 1_000_000  # bytes, of the shard
LONG_INTERVAL = 2_000  # milliseconds; leaves room for heartbeats and more in the send limit
STORM = (300, 600)  # requests for a heartbeat; an answer to each would break the send limit
RETRY_AFTER = 1  # seconds

Fault = Callable[[GatewayConnection, random.Random], object]

# What can happen to a connection in use, and how often compared with the others.
LIVE_FAULTS: dict[str, tuple[float, Fault]] = {
    "drop": (6, lambda it, dice: it.drop()),
    "reset": (6, lambda it, dice: it.reset()),
    "black hole": (1, lambda it, dice: it.freeze()),
    "stops reading": (1, lambda it, dice: it.stop_reading()),
    "stops acknowledging": (2, lambda it, dice: setattr(it, "acknowledge", False)),
    "slow": (1, lambda it, dice: it.slow(dice.randint(2_000, 200_000))),
    "close": (8, lambda it, dice: it.close(dice.choice(CLOSE_CODES))),
    "close, session over": (1, lambda it, dice: it.close(dice.choice(SESSION_ENDING))),
    "op 7": (5, lambda it, dice: it.reconnect()),
    "op 9 true": (2, lambda it, dice: it.invalid_session(True)),
    "op 9 false": (0.1, lambda it, dice: it.invalid_session(False)),
    "op 1": (5, lambda it, dice: it.request_heartbeat()),
    "op 1 burst": (1, lambda it, dice: _request_heartbeats(it, dice.randint(*STORM))),
    "op 1 stream": (0.5, lambda it, dice: _request_heartbeats(it, dice.randint(*STORM), 0.001)),
    "unknown opcode": (2, lambda it, dice: it.send({"op": dice.randint(12, 99), "d": None})),
    "unknown event": (2, lambda it, dice: it.send({"op": 0, "t": "NEWER_THAN_US", "d": []})),
    "no JSON": (2, lambda it, dice: it.send_compressed('{"op":0,"d":')),
    "an array": (2, lambda it, dice: it.send_compressed("[1, 2]")),
    "lone surrogate": (2, lambda it, dice: it.send_compressed('{"op":0,"t":"X","d":"\\ud800"}')),
    "large integer": (2, lambda it, dice: it.send_compressed('{"op":0,"d":%s}' % ("9" * 4000))),
    "deep JSON": (1, lambda it, dice: it.send_compressed('{"op":0,"d":' + "[" * 100_000)),
    "bomb": (0.5, lambda it, dice: it.send_bomb(MAX_PAYLOAD + 1)),
    "corrupt stream": (2, lambda it, dice: it.send_corrupt()),
    "torn frame": (2, lambda it, dice: (it.send_bytes(b"\x82\x7e\xff\xff" + bytes(99)), it.drop())),
    "masked frame": (1, lambda it, dice: it.send_frame(2, b"masked", masked=True)),
    "reserved bit": (1, lambda it, dice: it.send_frame(1, b"{}", reserved=True)),
    "unknown frame": (1, lambda it, dice: it.send_frame(3, b"{}")),
    "fragmented ping": (1, lambda it, dice: it.send_frame(9, b"", fin=False)),
    "oversized frame": (1, lambda it, dice: it.send_bytes(b"\x82\x7f\x00" + b"\xff" * 7)),
    "half a close code": (1, lambda it, dice: it.send_frame(8, b"\x03")),
    "garbage": (1, lambda it, dice: it.send_bytes(dice.randbytes(dice.randint(1, 300)))),
    "ping": (3, lambda it, dice: it.send_frame(9, b"are you there")),
    "fragments": (3, lambda it, dice: it.fragment_messages(dice.randint(1, 40))),
    "bad UTF-8": (1, lambda it, dice: it.send_frame(1, b"\xff\xfe")),
}

# What can happen on the way to the next connection: (step, whether instead of it, what).
OPENING_FAULTS: dict[str, tuple[str, bool, Fault | None]] = {
    "is not served": ("accept", True, None),
    "reset when accepted": ("accept", True, lambda it, dice: it.reset()),
    "no 101": ("upgrade", True, None),
    "refused": (
        "upgrade",
        True,
        lambda it, dice: it.refuse(dice.choice((429, 502, 503, 520)), "<html>"),
    ),
    "429 with Retry-After": (
        "upgrade",
        True,
        lambda it, dice: it.refuse(429, headers={"Retry-After": str(RETRY_AFTER)}),
    ),
    "wrong 101": ("upgrade", True, lambda it, dice: it.accept_wrongly()),
    "garbage for 101": ("upgrade", True, lambda it, dice: it.send_bytes(dice.randbytes(200))),
    "slow 101": ("upgrade", False, lambda it, dice: it.slow(100)),
    "no Hello": ("hello", True, None),
    "op 7 for Hello": ("hello", True, lambda it, dice: it.reconnect()),
    "reset before Hello": ("hello", False, lambda it, dice: it.reset()),
    "op 1 before Hello": ("hello", False, lambda it, dice: it.request_heartbeat()),
    "no READY or RESUMED": ("ready", True, None),
    "op 9 true for READY": ("ready", True, lambda it, dice: it.invalid_session(True)),
    "drop before READY": ("ready", False, lambda it, dice: it.drop()),
    "close before READY": ("ready", False, lambda it, dice: it.close(dice.choice(CLOSE_CODES))),
    # Some of these are later than the shard's ready_timeout.
    "late replay": ("replay", True, lambda it, dice: it.proceed(after=dice.uniform(0.01, 0.7))),
    "close is not answered": ("close", True, None),
}


@dataclass
class Figures:
    """What happened in one round, or in all of them."""

    rounds: int = 0
    connections: int = 0
    resumes: int = 0
    sessions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    user_acts: Counter[str] = field(default_factory=Counter)
    issued: int = 0
    received: int = 0
    replayed: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        """Sum up."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        faults = sum(self.faults.values())
        lines = [
            f"rounds {self.rounds}, connections {self.connections}, resumes {self.resumes}, "
            f"sessions {self.sessions}",
            f"faults {faults} of {len(self.faults)} kinds: {_by_kind(self.faults)}",
            f"the user's acts: {_by_kind(self.user_acts)}",
            f"events issued {self.issued}, received {self.received}, "
            f"of which replayed {self.replayed}",
            f"lost {self.lost}, duplicated {self.duplicated}, out of order {self.out_of_order}",
            *(f"PROBLEM {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


class _Problems(logging.Handler):
    """Finds the records that no run may bring: the reader has failed."""

    def __init__(self, figures: Figures) -> None:
        super().__init__(level=logging.CRITICAL)
        self._figures = figures

    def emit(self, record: logging.LogRecord) -> None:
        self._figures.problems.append(self.format(record))


class Round:
    """One gateway, one shard, and what both went through.

    :param seed: of faults and acts.
    :param seconds: how long things go wrong, before all must be well again.
    """

    def __init__(self, seed: str, seconds: float = ROUND) -> None:
        self.figures = Figures(rounds=1)
        self._seed = seed
        self._seconds = seconds
        self._stop = threading.Event()
        self._issued: Counter[str] = Counter()  # by session
        self._received: dict[str, list[int]] = {}
        self._final: str | None = None  # the session that is alive at the end
        self._life: list[str] = []
        self._given_to_the_dogs: set[GatewayConnection] = set()  # they can't notice their end
        self._seen_sessions: set[GatewaySession] = set()
        self._struck: Counter[str] = Counter()  # opening faults, counted on the gateway's thread
        dice = self._dice("setting")
        self._gateway = LocalGateway(
            seed=dice.randint(0, 999),
            guilds=1,
            members=2,
            tls=dice.random() < 0.5,
            heartbeat_interval=dice.choice((300, LONG_INTERVAL)),
            identify_interval=0,
            session_start_limit=10**9,
            resume_after_close=dice.random() < 0.5,
            close_timeout=0.3,
        )
        if self._gateway.resume_after_close:
            self.figures.faults["gateway that resumes only after the close"] += 1
        self._lingers = dice.random() < 0.5
        logger = logging.getLogger("shardlib.chaos")
        logger.propagate = False
        self._problems = _Problems(self.figures)
        logger.handlers = [self._problems]
        self._callback_dice = self._dice("callbacks")
        self._shard = Shard(
            self._gateway.token,
            Intents.all(),
            compression=dice.choice(COMPRESSIONS),
            identify_gate=IdentifyGate(interval=0.001, daily_limit=10**9),
            backoff=Backoff(base=0.005, cap=0.05),
            connect_timeout=0.3,
            hello_timeout=0.3,
            ready_timeout=0.5,
            max_payload=MAX_PAYLOAD,
            ssl_context=self._gateway.ssl_context if self._gateway.url[2] == "s" else None,
            logger=logger,
            on_socket_connected=lambda shard: self._life.append("c"),
            on_socket_ready=lambda shard: self._life.append("y"),
            on_socket_reconnected=lambda shard, resumed: self._life.append("r"),
            on_socket_disconnected=self._on_disconnected,
            on_socket_closed=lambda shard, error: self._life.append("x"),
            on_socket_dispatch=self._on_dispatch,
        )

    def _dice(self, purpose: str) -> random.Random:
        return random.Random(f"{self._seed}/{purpose}")

    def run(self) -> Figures:
        """Go through it, and return what came of it."""
        threads = [
            threading.Thread(target=self._watched, args=(target, number), name=target.__name__)
            for number, target in enumerate((self._issue, self._break, *[self._use] * 3))
        ]
        with self._gateway:
            self._gateway.inject(self._check_alone, before="ready", connections=None)
            if self._lingers:
                self._gateway.inject(self._linger, before="close", connections=None)
            self._connect()
            for thread in threads:
                thread.start()
            time.sleep(self._seconds)
            self._stop.set()
            for thread in threads:
                thread.join(SETTLE)
                if thread.is_alive():
                    self._problem(f"{thread.name} hangs")
            self._recover()
            self._final = self._shard.session_id
            began = time.monotonic()
            self._shard.disconnect()
            if time.monotonic() - began > 3:
                self._problem("disconnect() took longer than close_timeout")
            self._check_nothing_is_left_open()
            self._check_send_limit()
            self._sum_up()
        return self.figures

    def _connect(self) -> None:
        """The first attempt of a life is the program's to repeat: something may go wrong in it."""
        for attempts_left in reversed(range(20)):
            try:
                self._shard.connect(self._gateway.url)
                return
            except ConnectionFailed:
                if not attempts_left:
                    raise

    def _problem(self, what: str) -> None:
        self.figures.problems.append(what)

    def _watched(self, target: Callable[[random.Random], None], number: int) -> None:
        """A thread of the round, whose own failure must not pass for silence."""
        try:
            target(self._dice(f"{target.__name__} {number}"))
        except BaseException:
            self._problem(traceback.format_exc())

    # The gateway's side.

    def _issue(self, dice: random.Random) -> None:
        """Events, in bursts."""
        while not self._stop.is_set():
            self._issue_some(dice.randint(1, 60))
            self._stop.wait(dice.expovariate(100))

    def _issue_some(self, count: int) -> None:
        sessions = self._gateway.sessions
        if sessions and sessions[-1].session_id == self._shard.session_id:
            session = sessions[-1]
            self._seen_sessions.add(session)
            for _ in range(count):
                number = self._issued[session.session_id]
                session.dispatch(EVENT, {"session": session.session_id, "number": number})
                self._issued[session.session_id] += 1

    def _break(self, dice: random.Random) -> None:
        """Faults, one every few milliseconds."""
        names = list(LIVE_FAULTS)
        weights = [weight for weight, _ in LIVE_FAULTS.values()]
        while not self._stop.wait(dice.expovariate(30)):
            kind = dice.random()
            if kind < 0.005:
                self._gateway.outage(dice.uniform(0.01, 0.2))
                self.figures.faults["outage"] += 1
            elif kind < 0.08:
                self._break_next(dice)
            else:
                [name] = dice.choices(names, weights)
                self._break_live(name, dice)

    def _break_next(self, dice: random.Random) -> None:
        name = dice.choice(list(OPENING_FAULTS))
        step, instead, fault = OPENING_FAULTS[name]
        own = random.Random(dice.random())  # used on the gateway's thread

        def strike(connection: GatewayConnection) -> None:
            self._struck[name] += 1
            if fault is not None:
                _try(fault, connection, own)

        if instead:
            self._gateway.inject(strike, instead_of=step)
        else:
            self._gateway.inject(strike, before=step)

    def _break_live(self, name: str, dice: random.Random) -> None:
        connections = [each for each in self._gateway.connections if each.is_open]
        if connections:
            if name in ("black hole", "stops reading"):
                self._given_to_the_dogs.add(connections[-1])
            _try(LIVE_FAULTS[name][1], connections[-1], dice)
            self.figures.faults[name] += 1

    def _check_alone(self, connection: GatewayConnection) -> None:
        """At Identify or Resume, on the gateway's thread: no other connection is left."""
        others = [
            each
            for each in self._gateway.connections
            if each is not connection and each.close_code is None and each.is_open
        ]
        if set(others) - self._given_to_the_dogs:
            self._problem(f"{connection} is not alone: {others}")

    def _linger(self, connection: GatewayConnection) -> None:
        """At a CLOSE frame, on the gateway's thread: TCP is the shard's to end."""
        self._struck["lingers after the close"] += 1
        connection.linger()

    def _check_nothing_is_left_open(self) -> None:
        """After disconnect(): the shard has ended TCP itself, also if the gateway lingers."""

        def left() -> set[GatewayConnection]:
            return set(self._gateway.connections) - self._given_to_the_dogs

        try:
            self._gateway.wait_until(lambda: not left(), timeout=2)
        except TimeoutError:
            self._problem(f"the shard has left open {left()}")

    def _check_send_limit(self) -> None:
        """No round takes a minute: all that came on a connection came within one."""
        if self._gateway.heartbeat_interval < LONG_INTERVAL:
            return  # scheduled heartbeats alone are more than the limit
        for connection in self._gateway.all_connections:
            count = len(connection.received)
            if count > SEND_LIMIT:
                self._problem(f"{count} payloads came on {connection} within a minute")

    # The user's side.

    def _on_disconnected(self, shard: Shard, code: int | None, by_self: bool) -> None:
        self._life.append("d")
        if code == CloseCode.RATE_LIMITED:
            self._problem("the shard has sent more than it may: closed with 4008")

    def _on_dispatch(self, shard: Shard, payload: dict[str, Any]) -> None:
        if payload.get("t") != EVENT:
            return
        data = payload["d"]
        self._received.setdefault(data["session"], []).append(data["number"])
        chance = self._callback_dice.random()
        if chance < 0.0002:
            shard.reconnect()
        elif chance < 0.001:
            time.sleep(chance * 20)
        elif chance < 0.002:
            raise ValueError("a callback's own")

    def _use(self, dice: random.Random) -> None:
        """What a program does with its shard, and what may come of it."""
        acts: dict[str, tuple[float, Callable[[], object]]] = {
            "send": (40, lambda: self._shard.update_presence(status="idle", timeout=0.2)),
            "read": (40, self._read),
            "begin again": (0.5, self._begin_again),
            "reconnect": (3, self._shard.reconnect),
            "heartbeat": (3, self._shard.heartbeat),
            "heartbeat_in": (2, lambda: self._shard.heartbeat_in(dice.randint(50, 300))),
            "resume": (1, self._shard.resume),
            "reinstantiate": (0.3, lambda: self._shard.reinstantiate(no_fail=True)),
            "wait_for": (2, lambda: self._shard.wait_for(EVENT, timeout=0.1)),
            "wait_until_ready": (5, lambda: self._shard.wait_until_ready(0.3)),
        }
        weights = [weight for weight, _ in acts.values()]
        while not self._stop.wait(dice.expovariate(100)):
            [name] = dice.choices(list(acts), weights)
            self.figures.user_acts[name] += 1
            try:
                acts[name][1]()
            except (ShardError, TimeoutError):
                pass  # as documented
            except Exception as error:
                self._problem(f"{name} raised {error!r}")

    def _begin_again(self) -> None:
        """Another life, with the session of this one."""
        self._shard.disconnect(4000)
        self._connect()

    def _read(self) -> None:
        shard = self._shard
        assert repr(shard) and shard.stats.messages >= 0
        for name in ("state", "socket_active", "session", "heartbeat_ping", "socket_instance"):
            getattr(shard, name)

    # The end.

    def _recover(self) -> None:
        """Nothing goes wrong any more: now all must come, and one event more."""
        self._gateway.clear_faults()
        self._gateway.restore()
        with contextlib.suppress(AlreadyConnected):  # else a thread was between two lives
            self._connect()
        deadline = time.monotonic() + SETTLE
        while time.monotonic() < deadline:
            if self._shard.session_id not in self._issued:
                self._issue_some(1)  # it has just begun
            elif self._is_complete(self._shard.session_id):
                return
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
            figures.out_of_order += sum(b < a for a, b in itertools.pairwise(numbers))
            figures.lost += max(numbers) + 1 - len(known)
        if not self._is_complete(self._final):
            got = len(self._received.get(self._final or "", ()))
            lost = self._issued[self._final or ""] - got
            figures.lost += lost
            self._problem(
                f"session {self._final} is not complete, {lost} events short: {self._shard}"
            )
        for session in self._seen_sessions:
            if session.ended is not None and session.ended.startswith("resumed"):
                self._problem(f"{session}: the shard has resumed too early, or wrongly")
        life = "".join(self._life)
        if not re.fullmatch("((c(yr?|r)?d)*x)+", life):
            self._problem(f"callbacks out of order: {life}")
        if figures.lost or figures.duplicated or figures.out_of_order:
            self._problem("events were not delivered as they should")


def _by_kind(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _request_heartbeats(connection: GatewayConnection, count: int, pause: float = 0.0) -> None:
    for _ in range(count):
        connection.request_heartbeat()
        if pause:  # a shard may answer once what comes at once
            time.sleep(pause)


def _try(fault: Fault, connection: GatewayConnection, dice: random.Random) -> None:
    try:
        fault(connection, dice)
    except ConnectionError:
        pass  # it was over already


def run(seed: int, minutes: float) -> Figures:
    """Round after round, printing the figures of all so far now and then."""
    total = Figures()
    end = time.monotonic() + minutes * 60
    told = time.monotonic()
    number = 0
    while time.monotonic() < end and not total.problems:
        total.add(Round(f"{seed}/{number}").run())
        number += 1
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{total}\n", flush=True)
    if total.problems:
        print(f"to look again: --seed {seed} --round {number - 1}")
    return total


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, help="this round alone, once")
    options = parser.parse_args()
    # The gateway's asyncio warns of what is sent to a client that has gone: here, all the time.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    if options.round is not None:
        figures = Round(f"{options.seed}/{options.round}").run()
    else:
        figures = run(options.seed, options.minutes)
    print(f"seed {options.seed}\n{figures}")
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
