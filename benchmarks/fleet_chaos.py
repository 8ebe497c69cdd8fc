"""Chaos for a fleet: workers, consumers, Redis and the network fail at random, and nothing is lost.

::

    python -m benchmarks.fleet_chaos --minutes 30 --seed 1
    python -m benchmarks.fleet_chaos --minutes 30 --seed 1 --forgetful
    python -m benchmarks.fleet_chaos --minutes 30 --seed 1 --keep   # for the documentation

Sixteen shards of a local gateway run in four worker processes; two consumer processes share the
events, as one ordered group, and record each with its id. The gateway issues 500 events a second.
Every few seconds something fails: a worker or a consumer is killed, or stopped for a while; Redis
is killed, and loses its newest writes; it is stopped; the network between one process and Redis, or
between all of them and Redis, is cut, or lets nothing through; the gateway closes a connection, or
loses a session. With ``--forgetful`` Redis has no persistence, and forgets everything when it is
killed; that alone strikes when all else is well, since a worker that is killed together with such
a Redis leaves nobody who knows its sessions. The seed decides what fails, when, and for how long.
What that meets depends on the machine, too.

In the end everything is mended, the traffic ends, and the consumers catch up. The gateway knows
every event that it has issued. The command ends with status 1 unless

- each event of a session that lives was handled, and of a session that was lost each up to the last
  one handled: lost 0;
- no event was handled for the first time after a later one of its shard: out of order 0;
- an event that was handled again had the same id, so that a watermark for each shard drops it;
- a shard identified once, and once more for each session that the gateway has lost. A session of
  which nobody but a killed worker knew is told of, and is no violation: a worker that is killed
  between READY and its first write leaves no trace;
- a gap is marked in front of each such later session. The last events of a lost session may be gone
  with it, if its worker had failed, and nobody had received them;
- no process has ended by itself, and all shards recover.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import heapq
import itertools
import logging
import math
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from benchmarks.fleet_oracle import Issued, Verdict, judge
from benchmarks.fleet_processes import (
    EVENT,
    NAME,
    Network,
    Process,
    read_records,
    tag_of,
)
from benchmarks.kept import Run, add_output
from benchmarks.plot import plot_takeovers
from benchmarks.table import show_versions
from benchmarks.takeovers import Takeover, summary
from shardlib.fleet import Fleet, FleetError
from shardlib.fleet.leases import most_kept
from shardlib.testing import GatewaySession, LocalGateway
from tests.redis_server import RedisServer, executables

# Seconds.
TICK = 0.02
IDENTIFY_INTERVAL = 1.0
RECOVERY_TIME = 120.0
STOP = 20.0
LONGEST_PAUSE = 5.0
LONGEST_CUT = 15.0
LONGEST_OUTAGE = 10.0

# Bytes of the append-only file that a crash of Redis costs, at most: some two seconds of events.
LONGEST_TAIL = 400_000

CLOSE_CODES = (None, 1000, 1001, 1011, 3000, 4000, 4001, 4002, 4003, 4005, 4999)

# Why sessions end of which the gateway itself has made an end.
LOST = ("invalidated", "lost", "closed with 4007", "closed with 4009")

# Seconds after which the failure of a worker is no reason any more that events are missing.
TIME_TO_FORGET = 60.0

# Seconds within which a worker writes the first events of a session, if Redis is at hand.
TIME_TO_WRITE = 3.0


@dataclass(frozen=True)
class Setting:
    """What runs, and how often something fails.

    :param seed: decides what fails.
    :param seconds: for which things fail.
    :param interval: mean of the seconds between two faults.
    :param shards: how many.
    :param workers: how many processes.
    :param consumers: how many processes.
    :param rate: events a second, of all shards together.
    :param lease: seconds, of workers and consumers.
    :param replay_memory: seconds, of the workers.
    :param forgetful: True for a Redis without persistence.
    :param seen: True to have consumers read on after what they have recorded, whatever Redis says.
    :param faults: the kinds of faults; None for all.
    :param redis: the redis-server program; "" for the newest.
    """

    seed: int = 0
    seconds: float = 60.0
    interval: float = 4.0
    shards: int = 16
    workers: int = 4
    consumers: int = 2
    rate: float = 500.0
    lease: float = 6.0
    replay_memory: float = 5.0
    forgetful: bool = False
    seen: bool = False
    faults: tuple[str, ...] | None = None
    redis: str = ""


@dataclass
class Figures:
    """What happened in a run, and what must not have happened."""

    verdict: Verdict = field(default_factory=Verdict)
    faults: Counter[str] = field(default_factory=Counter)
    passed: int = 0  # faults that met something that had failed already
    takeovers: list[Takeover] = field(default_factory=list)
    sessions: int = 0
    lost_sessions: int = 0
    unknown_sessions: list[str] = field(default_factory=list)
    refused: int = 0
    resumes: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = self.verdict
        lines = [
            f"faults {self.faults.total()} of {len(self.faults)} kinds: "
            + ", ".join(f"{kind} {number}" for kind, number in sorted(self.faults.items())),
            f"passed over, since their victim was down already: {self.passed}",
            f"sessions {self.sessions}, of which the gateway has lost {self.lost_sessions}, and "
            f"{len(self.unknown_sessions)} were known to a killed worker only; resumes "
            f"{self.resumes}, Identifies refused as too early {self.refused}",
            f"events issued {verdict.issued}, handled {verdict.effects}, gone with their sessions "
            f"{verdict.gone.total()}, repeated with the same id {verdict.repeats}",
            f"gaps told: {dict(sorted(verdict.gaps.items()))}",
            f"lost {verdict.lost}, out of order {verdict.out_of_order}",
            "",
            f"{'seconds until a shard is READY or RESUMED elsewhere':52} "
            f"{'number':>6} {'median':>6} {'95 %':>6} {'99 %':>6} {'max':>6}",
            *self._rows(),
            *(f"KNOWN TO A KILLED WORKER ONLY {text}" for text in self.unknown_sessions),
            *(f"VIOLATION {text}" for text in self.problems),
        ]
        return "\n".join(lines)

    def _rows(self) -> Iterator[str]:
        for title, (number, seconds) in summary(self.takeovers).items():
            yield f"{title:52} {number:6} {' '.join(f'{each:6.2f}' for each in seconds)}"


class Interrupted(BaseException):
    """The command was told to end (SIGTERM)."""


class Chaos:
    """One run.

    :param setting: of the run.
    :param directory: empty, of the files of Redis, the records and the logs.
    :param tell: called with a line for each fault.
    """

    def __init__(
        self, setting: Setting, directory: Path, tell: Callable[[str], object] = lambda text: None
    ) -> None:
        self.setting = setting
        self.figures = Figures()
        self._directory = directory
        self._records = directory / "records"
        self._records.mkdir()
        self._tell_line = tell
        self._began = time.monotonic()
        self._next_progress = self._began + 60
        # What is to be done later: when, in which order, and what.
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._redis_state = "up"
        # The worker that has each shard, as the workers themselves say.
        self._owners: dict[int, Process] = {}
        # Shards whose worker has failed: when, in which way, and the worker.
        self._orphans: dict[int, tuple[float, str, Process]] = {}
        self._taken_over: list[tuple[int, float, float, str]] = []
        self._draining: set[Process] = set()
        self._lock = threading.Lock()  # of the three above
        # When Redis was away, or cannot have been reached by one process at least.
        self._outages: list[tuple[float, float]] = []
        self._away: dict[str, float] = {}  # outages that last, and since when
        self._worker_faults: list[float] = []
        # When the worker of a shard has failed, and of which.
        self._shard_faults: list[tuple[float, int]] = []
        self._traffic_ends = threading.Event()

    def run(self) -> Figures:
        """Run, and return the figures. Whatever happens, no process is left behind."""
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._await("all shards to start", self._is_whole)
            if self.figures.problems:
                return self.figures
            self._make_faults()
            self._mend()
            self._await("all shards to recover", self._is_whole)
            self._traffic_ends.set()
            self._await("the consumers to catch up", self._is_handled)
            self._judge()
        return self.figures

    # What runs

    def _start(self, stack: contextlib.ExitStack) -> None:
        setting = self.setting
        self._gateway = stack.enter_context(
            LocalGateway(
                guilds=setting.shards,
                members=1,
                shards=setting.shards,
                max_concurrency=4,
                identify_interval=IDENTIFY_INTERVAL,
                session_start_limit=10**9,
                heartbeat_interval=10_000,
                keep_history=True,
                replay_limit=100_000,
            )
        )
        self._clock_difference = time.monotonic() - self._gateway.clock()
        self._redis = stack.enter_context(
            RedisServer(
                setting.redis or [*executables().values()][-1],
                self._directory / "redis",
                *("--appendfsync", "everysec"),
                *("--auto-aof-rewrite-min-size", "32mb"),
                persistent=not setting.forgetful,
            )
        )
        self._fleet = stack.enter_context(Fleet(self._redis.url, NAME, lease=setting.lease))
        self._fleet.init(
            setting.shards,
            max_concurrency=self._gateway.max_concurrency,
            session_start_limit=10**9,
            identify_interval=IDENTIFY_INTERVAL,
        )
        lease = ["--lease", str(setting.lease)]
        gateway = [self._gateway.url, self._gateway.token]
        gateway += ["--replay-memory", str(setting.replay_memory)]
        seen = ["--seen"] if setting.seen else []
        self._workers = [
            self._make(stack, f"worker-{number}", ["worker", *gateway, *lease])
            for number in range(setting.workers)
        ]
        self._consumers = [
            self._make(
                *(stack, f"consumer-{number}"),
                ["consumer", str(self._records), f"consumer-{number}", *lease, *seen],
            )
            for number in range(setting.consumers)
        ]
        for process in self._processes:
            process.start()
        traffic = threading.Thread(target=self._issue, name="traffic")
        stack.callback(traffic.join)
        stack.callback(self._traffic_ends.set)
        traffic.start()

    def _make(self, stack: contextlib.ExitStack, name: str, arguments: list[str]) -> Process:
        network = Network(self._redis.port)
        stack.callback(network.close)
        process = Process(name, arguments, network, self._directory, self._hear)
        stack.callback(process.end)
        return process

    @property
    def _processes(self) -> list[Process]:
        return [*self._workers, *self._consumers]

    def _issue(self) -> None:
        """Issue events to all shards in turns."""
        began, issued = time.monotonic(), 0
        numbers: Counter[str] = Counter()
        content = "x" * 200
        while not self._traffic_ends.wait(TICK):
            newest = [*{each.shard[0]: each for each in self._gateway.sessions}.values()]
            due = int((time.monotonic() - began) * self.setting.rate) - issued
            issued += due
            for number in range(issued - due, issued) if newest else ():
                session = newest[number % len(newest)]
                session_id = session.session_id
                numbers[session_id] += 1
                data = {"session": session_id, "number": numbers[session_id], "content": content}
                session.dispatch(EVENT, data)

    # What the workers say

    def _hear(self, process: Process, words: list[str]) -> None:
        """Note what a worker says of one of its shards; on the thread that listens to it."""
        when, what, shard_id = float(words[0]), words[1], int(words[2])
        with self._lock:
            if what == "has":
                self._owners[shard_id] = process
                orphan = self._orphans.get(shard_id)
                if orphan is not None and when > orphan[0]:
                    del self._orphans[shard_id]
                    if process is not orphan[2] or orphan[1] == "worker killed":
                        self._taken_over.append((shard_id, orphan[0], when, orphan[1]))
            elif self._owners.get(shard_id) is process:
                del self._owners[shard_id]
                if process in self._draining:
                    self._orphans[shard_id] = (when, "worker drained", process)

    def _orphan(self, worker: Process, kind: str) -> None:
        now = time.monotonic()
        self._note_fault(worker, now)
        with self._lock:
            for shard_id, owner in [*self._owners.items()]:
                if owner is worker:
                    del self._owners[shard_id]
                    self._orphans.setdefault(shard_id, (now, kind, worker))

    def _note_fault(self, worker: Process, now: float) -> None:
        self._worker_faults.append(now)
        with self._lock:
            self._shard_faults += [(now, i) for i, each in self._owners.items() if each is worker]

    # Faults

    def _make_faults(self) -> None:
        """Carry out what fails, and what follows, in the order of time."""
        kinds = {
            kind: each
            for kind, each in self._kinds().items()
            if self.setting.faults is None or kind in self.setting.faults
        }
        rng = random.Random(f"fleet/{self.setting.seed}")
        begin, at = time.monotonic(), 0.0
        number = 0
        while True:
            at += rng.expovariate(1 / self.setting.interval)
            (kind,) = rng.choices([*kinds], [weight for weight, _ in kinds.values()])
            own = random.Random(f"fleet/{self.setting.seed}/{number}")
            number += 1
            if at > self.setting.seconds:
                self._do_until(begin + self.setting.seconds)
                return
            self._do_until(begin + at)
            began = time.monotonic()
            told = kinds[kind][1](own)
            if told is None:
                self.figures.passed += 1
            else:
                self.figures.faults[kind] += 1
                self._tell(f"{kind}: {told}")
            if kind == "redis forgets":
                begin += time.monotonic() - began  # nothing else was to fail meanwhile

    def _kinds(self) -> dict[str, tuple[float, Callable[[random.Random], str | None]]]:
        """How often each kind of fault comes, and what it does; it returns None if it cannot."""
        if self.setting.forgetful:
            death = {"redis forgets": (1.5, self._forget)}
        else:
            death = {
                "redis loses its newest writes": (1.5, lambda rng: self._kill_redis(rng, True)),
                "redis killed": (0.5, lambda rng: self._kill_redis(rng, False)),
            }
        return {
            "worker killed": (6, lambda rng: self._kill(rng, self._workers)),
            "worker stopped": (1.5, lambda rng: self._stop(rng, self._workers, STOP)),
            "worker drained": (1, lambda rng: self._drain(rng)),
            "consumer killed": (3, lambda rng: self._kill(rng, self._consumers)),
            "consumer stopped": (
                *(1,),
                lambda rng: self._stop(rng, self._consumers, rng.uniform(1.0, STOP)),
            ),
            **death,
            "redis stopped": (1, self._stop_redis),
            "worker cut off": (1.5, lambda rng: self._cut(rng, [rng.choice(self._workers)])),
            "consumer cut off": (1, lambda rng: self._cut(rng, [rng.choice(self._consumers)])),
            "all cut off": (0.5, lambda rng: self._cut(rng, self._processes)),
            "gateway closes": (4, self._close),
            "gateway loses a session": (1, self._lose),
        }

    def _do_later(self, seconds: float, function: Callable[[], object]) -> None:
        at = time.monotonic() + seconds
        heapq.heappush(self._later, (at, next(self._order), function))

    def _do_until(self, end: float) -> None:
        """Do what is due until a time comes."""
        while True:
            now = time.monotonic()
            if self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
                continue
            if now >= end:
                return
            self._look_after(now)
            due = self._later[0][0] if self._later else end
            time.sleep(min(0.5, max(0.0, min(due, end) - now)))

    def _look_after(self, now: float) -> None:
        for process in self._processes:
            if process.has_failed:
                self.figures.problems.append(f"{process.name} has ended by itself: see its log")
                process.end()
                process.start()
        if now > self._next_progress:
            self._next_progress += 60
            issued = sum(session.sequence for session in self._gateway.all_sessions)
            with self._lock:
                number = len(self._taken_over)
            self._tell(
                f"{self.figures.faults.total()} faults, about {issued} events, {number} takeovers"
            )

    def _tell(self, text: str) -> None:
        now = time.monotonic()
        self._tell_line(
            f"{time.strftime('%H:%M:%S')} {now - self._began:7.1f} s ({now:.2f}) {text}"
        )

    def _kill(self, rng: random.Random, processes: list[Process]) -> str | None:
        process, pause = rng.choice(processes), rng.uniform(0.5, LONGEST_PAUSE)
        if not process.is_running:
            return None
        if process in self._workers:
            self._orphan(process, "worker killed")
        process.end()
        self._do_later(pause, process.start)
        return f"{process.name}, for {pause:.1f} s"

    def _stop(self, rng: random.Random, processes: list[Process], seconds: float) -> str | None:
        process = rng.choice(processes)
        if not process.is_running:
            return None
        process.stop()
        if process in self._workers:
            self._orphan(process, "worker stopped")
        self._do_later(seconds, process.go_on)
        return f"{process.name}, for {seconds:.1f} s"

    def _drain(self, rng: random.Random) -> str | None:
        process, pause = rng.choice(self._workers), rng.uniform(0.5, LONGEST_PAUSE)
        if not process.is_running or not process.network.is_whole or self._redis_state != "up":
            return None
        with self._lock:
            self._draining.add(process)
        began = time.monotonic()
        process.end(signal.SIGTERM)
        with self._lock:
            self._draining.remove(process)
        self._do_later(pause, process.start)
        return f"{process.name} in {time.monotonic() - began:.1f} s"

    def _begin_outage(self, what: str) -> None:
        self._away[what] = time.monotonic()

    def _end_outage(self, what: str) -> None:
        since = self._away.pop(what, None)
        if since is not None:
            self._outages.append((since, time.monotonic()))

    def _kill_redis(self, rng: random.Random, loses: bool) -> str | None:
        pause, tail = rng.uniform(0.0, 3.0), rng.randint(1_000, LONGEST_TAIL)
        if self._redis_state != "up":
            return None
        self._begin_outage("redis")
        self._redis_state = "down"
        self._redis.kill()
        if loses:
            self._redis.cut_tail(tail)
        self._do_later(pause, self._start_redis)
        return f"down for {pause:.1f} s" + (f", and {tail} bytes are lost" if loses else "")

    def _start_redis(self) -> None:
        if self._redis_state == "down":
            self._redis.start()
            self._redis_state = "up"
            self._end_outage("redis")

    def _forget(self, rng: random.Random) -> str | None:
        """Restart a Redis without persistence, while all workers and consumers are well."""
        pause = rng.uniform(0.0, self.setting.replay_memory / 2)
        self._mend()
        self._await("all to be well before Redis forgets", self._is_settled)
        self._begin_outage("redis")
        self._redis.kill()
        time.sleep(pause)
        self._redis.start()
        self._end_outage("redis")
        self._await("Redis to be told again", self._is_whole)
        return f"down for {pause:.1f} s"

    def _stop_redis(self, rng: random.Random) -> str | None:
        seconds = rng.uniform(1.0, LONGEST_OUTAGE)
        if self._redis_state != "up":
            return None
        self._begin_outage("redis")
        self._redis.stop_answering()
        self._redis_state = "stopped"
        self._do_later(seconds, self._continue_redis)
        return f"for {seconds:.1f} s"

    def _continue_redis(self) -> None:
        if self._redis_state == "stopped":
            self._redis.answer_again()
            self._redis_state = "up"
            self._end_outage("redis")

    def _cut(self, rng: random.Random, processes: list[Process]) -> str | None:
        seconds, hangs = rng.uniform(1.0, LONGEST_CUT), rng.random() < 0.5
        processes = [process for process in processes if process.network.is_whole]
        if not processes:
            return None
        for process in processes:
            if process in self._workers:
                self._begin_outage(process.name)
                self._note_fault(process, time.monotonic())
            if hangs:
                process.network.hang()
            else:
                process.network.cut()
            self._do_later(seconds, functools.partial(self._restore, process))
        names = ", ".join(process.name for process in processes)
        return f"{names} {'hang' if hangs else 'refused'}, for {seconds:.1f} s"

    def _restore(self, process: Process) -> None:
        process.network.restore()
        self._end_outage(process.name)

    def _close(self, rng: random.Random) -> str | None:
        """Have the gateway end a connection whose session can be resumed."""
        session = self._connected(rng)
        code = rng.choice(CLOSE_CODES)
        way = rng.choice(("close", "op 7", "op 9", "drop", "reset"))
        connection = None if session is None else session.connection
        if session is None or connection is None:
            return None
        ways: dict[str, Callable[[], object]] = {
            "close": lambda: connection.close(code),
            "op 7": connection.reconnect,
            "op 9": lambda: connection.invalid_session(True),
            "drop": connection.drop,
            "reset": connection.reset,
        }
        with contextlib.suppress(ConnectionError):  # it has ended meanwhile
            ways[way]()
        return f"shard {session.shard[0]}, {way} {code if way == 'close' else ''}"

    def _lose(self, rng: random.Random) -> str | None:
        session = self._connected(rng)
        way = rng.choice(("op 9", "4009", "4007", "away"))
        connection = None if session is None else session.connection
        if session is None or connection is None:
            return None
        with contextlib.suppress(ConnectionError, ValueError):  # it has ended meanwhile
            if way == "op 9":
                connection.invalid_session(False)
            elif way == "away":
                self._gateway.lose_session(session)
                connection.drop()
            else:
                self._gateway.lose_session(session, close_code=int(way))
        return f"shard {session.shard[0]}, {way}"

    def _connected(self, rng: random.Random) -> GatewaySession | None:
        shard_id = rng.randrange(self.setting.shards)
        for session in self._gateway.sessions:
            if session.shard[0] == shard_id and session.connection is not None:
                return session
        return None

    # The end

    def _mend(self) -> None:
        """End all faults that last."""
        while self._later:  # what is restored, continued and started again
            heapq.heappop(self._later)[2]()
        for process in self._processes:
            assert process.is_running or process.has_failed, process.name

    def _await(self, what: str, condition: Callable[[], list[str]]) -> None:
        """Wait until nothing is left to wait for; what is left after some time is a problem."""
        deadline = time.monotonic() + RECOVERY_TIME
        while left := condition():
            if time.monotonic() > deadline:
                self.figures.problems.append(
                    f"waited {RECOVERY_TIME} s in vain for {what}: {'; '.join(left)}"
                )
                return
            self._do_until(time.monotonic() + 0.1)

    def _is_whole(self) -> list[str]:
        """What is missing until all shards are connected, and the consumers nearly up to date.

        Less than a second of events may be on its way. What consumers have not handled yet when a
        Redis without persistence ends is promised for the time of `replay_memory` only.
        """
        a_second = max(1.0, self.setting.rate / self.setting.shards)
        connected = {
            session.shard[0]: session for session in self._gateway.sessions if session.connection
        }
        missing = [f"shard {i}" for i in range(self.setting.shards) if i not in connected]
        if missing:
            return missing
        try:
            shards = self._fleet.shards()
            sequences = {each.shard_id: each.sequence for each in shards}
            missing = [f"owner of {each.shard_id}" for each in shards if each.owner is None]
        except (
            FleetError
        ) as error:  # it is away, or has not been told again how many shards there are
            return [str(error)]
        missing += [
            f"shard {shard_id} has {session.sequence}, and Redis {sequences[shard_id]}"
            for shard_id, session in connected.items()
            if not 0 <= session.sequence - sequences[shard_id] < 1 + a_second
        ]
        return missing or self._behind(a_second)

    def _is_settled(self) -> list[str]:
        """What is missing until all is whole, and no worker is about to hand shards over.

        Of a shard that one worker has released, and that no other has claimed, Redis alone knows.
        """
        missing = self._is_whole()
        if missing:
            return missing
        try:
            owners = Counter(each.owner for each in self._fleet.shards())
        except FleetError as error:
            return [str(error)]
        most = most_kept(math.ceil(self.setting.shards / self.setting.workers))
        return [f"{owner} has {number} shards" for owner, number in owners.items() if number > most]

    def _is_handled(self) -> list[str]:
        """What is missing until the consumers have handled all events."""
        return self._behind(0)

    def _behind(self, most: float) -> list[str]:
        """The shards of which the consumers have more events to handle than so many."""
        newest = {each.shard[0]: each for each in self._gateway.sessions}
        behind = []
        for shard_id, session in newest.items():
            *_, last = (each.sequence for each in session.history if each.name != "RESUMED")
            tail = self._last_handled(shard_id, session.session_id)
            if last - tail > most:
                behind.append(f"shard {shard_id} has {last}, and {tail} are handled")
        return behind

    def _last_handled(self, shard_id: int, session_id: str) -> int:
        """The sequence of the last event of a session that consumers have handled."""
        path = self._records / str(shard_id)
        if not path.exists():
            return 0
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 20_000))
            lines = file.read().decode().splitlines()[1:]
        found = [int(line.split()[2]) for line in lines if session_id in line]
        return max(found, default=0)

    # The verdict

    def _judge(self) -> None:
        figures = self.figures
        sessions: dict[int, list[GatewaySession]] = {i: [] for i in range(self.setting.shards)}
        for session in self._gateway.all_sessions:
            sessions[session.shard[0]].append(session)
        for shard_id, own in sessions.items():
            records = []
            with contextlib.suppress(FileNotFoundError):
                records = read_records(self._records, shard_id)
            issued = [_issued(session) for session in own]
            figures.verdict.add(judge(shard_id, issued, records))
            self._judge_sessions(shard_id, own)
        figures.problems += figures.verdict.problems
        figures.refused = sum(not each.accepted for each in self._gateway.identifies)
        figures.resumes = sum(each.resumes for each in self._gateway.all_sessions)
        for shard_id, failed, taken, kind in self._taken_over:
            is_alone = not self._others_failed(shard_id, failed, taken)
            minute = (failed - self._began) / 60
            figures.takeovers.append(Takeover(minute, taken - failed, kind, is_alone))

    def _judge_sessions(self, shard_id: int, sessions: list[GatewaySession]) -> None:
        """Look whether each session but the last was lost before the next one began."""
        figures = self.figures
        figures.sessions += len(sessions)
        if not sessions or sessions[-1].ended:
            figures.problems.append(f"shard {shard_id} has no session in the end: {sessions}")
        began = self._identified_at(shard_id)
        for session, begin, end in zip(sessions, began, began[1:], strict=False):
            if session.ended in LOST:
                figures.lost_sessions += 1
            elif self._was_unknown(begin, end):
                figures.unknown_sessions.append(f"{session}, which began at {begin:.2f}")
            else:
                figures.problems.append(
                    f"shard {shard_id} identified anew at {end:.2f}, though it had {session}"
                )

            gone = figures.verdict.gone[session.session_id]
            if gone:
                self._tell(f"{gone} events are gone with {session}, at {end:.2f}")
            if gone and not self._has_failed(shard_id, end):
                figures.problems.append(
                    f"{gone} events are gone with {session} at {end:.2f}; its worker was well"
                )

    def _has_failed(self, shard_id: int, end: float) -> bool:
        """True if a worker has failed that had a shard shortly before its session ended."""
        return any(
            failed_shard == shard_id and end - TIME_TO_FORGET < failed < end
            for failed, failed_shard in self._shard_faults
        )

    def _was_unknown(self, begin: float, end: float) -> bool:
        """True if a worker failed before it can have written that a session began."""
        for failed in self._worker_faults:
            if begin <= failed <= end:
                away = [min(until, failed) for since, until in self._outages if since < failed]
                if failed - max([begin, *away]) < TIME_TO_WRITE:
                    return True
        return False

    def _others_failed(self, shard_id: int, failed: float, taken: float) -> bool:
        lease = self.setting.lease
        return (
            any(since < taken and until > failed - 1 - lease for since, until in self._outages)
            or any(failed + lease - 1 < each < taken for each in self._worker_faults)
            or any(
                failed < each < taken for each in self._identified_at(shard_id)
            )  # its session was lost
        )

    def _identified_at(self, shard_id: int) -> list[float]:
        """When the sessions of a shard began."""
        return [
            each.time + self._clock_difference
            for each in self._gateway.identifies
            if each.shard_id == shard_id and each.accepted
        ]


def _issued(session: GatewaySession) -> Issued:
    events = {
        event.sequence: (event.name, tag_of(event.name, event.data))
        for event in session.history
        if event.name != "RESUMED"
    }
    return Issued(session.session_id, events, session.ended is None)


def _end(number: int, frame: object) -> NoReturn:
    raise Interrupted


def main() -> int:
    """Run the command; return its exit status, 1 if there was a violation."""
    default = Setting()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet_chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interval", type=float, default=default.interval, metavar="SECONDS")
    for name in ("shards", "workers", "consumers"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name), metavar="N")
    parser.add_argument("--rate", type=float, default=default.rate, metavar="EVENTS/S")
    parser.add_argument("--lease", type=float, default=default.lease, metavar="SECONDS")
    parser.add_argument("--replay-memory", type=float, metavar="SECONDS")
    parser.add_argument("--forgetful", action="store_true", help="Redis has no persistence")
    parser.add_argument(
        "--seen", action="store_true", help="consumers read on after what they have recorded"
    )
    parser.add_argument("--faults", nargs="+", metavar="KIND", help="these kinds alone")
    parser.add_argument(
        "--redis", choices=executables(), default=[*executables()][-1], help="its version"
    )
    parser.add_argument("--verbose", action="store_true", help="print each fault")
    add_output(parser)
    options = parser.parse_args()
    kept_run = Run("fleet_chaos")
    setting = Setting(
        seed=options.seed,
        seconds=options.minutes * 60,
        interval=options.interval,
        shards=options.shards,
        workers=options.workers,
        consumers=options.consumers,
        rate=options.rate,
        lease=options.lease,
        replay_memory=options.replay_memory or default.replay_memory,
        forgetful=options.forgetful,
        seen=options.seen,
        faults=tuple(options.faults) if options.faults else None,
        redis=executables()[options.redis],
    )
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each killed client
    signal.signal(signal.SIGTERM, _end)
    show_versions()
    print(f"Redis {options.redis}\n{setting}\n", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="fleet-chaos-"))
    faults = (directory / "faults.log").open("w")

    def tell(line: str) -> None:
        print(line, file=faults, flush=True)
        if options.verbose or " faults, " in line:
            print(line, flush=True)

    chaos = Chaos(setting, directory, tell)
    try:
        figures = chaos.run()
        print(figures)
        kept_run.finish(
            options,
            f"fleet_chaos-{'forgetful-' if options.forgetful else ''}{options.seed}",
            {
                **vars(figures),
                "verdict": vars(figures.verdict),
                "setting": vars(dataclasses.replace(setting, redis=options.redis)),
            },
            plot_takeovers,
        )
    except (KeyboardInterrupt, Interrupted):
        print("interrupted")
        return 130
    finally:
        faults.close()
        if chaos.figures.problems:
            print(f"records and logs are kept in {directory}")
        else:
            shutil.rmtree(directory)
    return 1 if chaos.figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
