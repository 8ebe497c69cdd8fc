"""A worker of a fleet: ``python -m benchmarks.fleet``. It needs Redis; a server is started for it.

Processes with 16 shards each receive the same events, and take turns in several rounds: one that
does nothing with them, and one whose worker appends them to Redis; both once more with a function
that gets every event decoded. Each has a sender of its own, in another process. The first table
shows

in bulk     the events a second, as fast as they go, and the processor time of an event: of the
            process, and of Redis beside it
a second    the processor time of an event if so many come in a second, one at a time to one shard
            after the other; "beyond" is what the worker costs beyond receiving

Two consumers then read what the first worker writes, each for a group of its own. Of all rounds the
best one counts: a machine that is busy with something else makes each figure worse, and none
better. The redis-server writes its log once a second (``appendfsync everysec``).

The second table shows a worker and consumers while nothing comes: the commands a second are what
Redis counts, those inside of scripts too. The third shows how long shards are without an owner if
one of two workers is killed, until RESUMED, and if one drains; their gateway is shardlib's local
one, in a process of its own, and sends 10 events a second to each shard.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis

from benchmarks.client import memory
from benchmarks.kept import Run, add_output
from benchmarks.manager import Gateway
from benchmarks.plot import only, plot_bars
from benchmarks.sender import Sender
from benchmarks.stream import COMPRESSIONS, frames, messages, record
from benchmarks.table import show_versions
from shardlib import GatewayBot, Intents, Shard, ShardManager
from shardlib.fleet import Fleet
from tests.redis_server import RedisServer, executables

_SHARDS = 16
_TOKEN = "not-looked-at-by-the-sender"

# Events for each shard in one round: in bulk, and one at a time.
_BULK = 1000
_SLOW = 200

# Events a second, to all shards of the fleet whose workers are killed and drained.
_TRAFFIC = 160.0

# Seconds for which an idle process is watched at once.
_IDLE = 5.0

# Seconds between two looks whether all events have come; each look costs as much as some events.
_POLL = 0.02

# The most seconds that anything may take.
_PATIENCE = 120.0

# So that the log of Redis is appended to, and not written anew in the middle of a measurement.
_REDIS_OPTIONS = ("--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")

_COST = "microseconds of processor time for an event"

# Of each shard: more of them would only fill the memory.
_KEPT_EVENTS = 1000


@dataclasses.dataclass(frozen=True)
class Cost:
    """What some events have cost, or the time in which none came.

    :ivar seconds: until the last one was done with.
    :ivar processor: seconds of the process.
    :ivar events: how many.
    """

    seconds: float
    processor: float
    events: int

    @property
    def each(self) -> float:
        """Microseconds of processor time for each event."""
        return self.processor / self.events * 1e6

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


# The sender's process


def send(pipe: Connection, events: list[bytes], compression: str) -> None:
    """Accept the connections of all shards, and send each the next events when asked to.

    :param pipe: takes the URL, and brings how many events to send to each shard, and how many a
        second to all of them, 0 for as many as possible.
    :param events: READY and the events after it.
    :param compression: of the connections.
    """
    shards: list[socket.socket] = []
    first, ready, *others = frames(messages(events, compression), compression)
    with Sender() as sender:
        pipe.send(sender.url)
        while len(shards) < _SHARDS:
            shards.append(sender.accept())
            shards[-1].sendall(first)
            threading.Thread(target=_open, args=(shards[-1], ready), daemon=True).start()
        while True:
            count, rate = pipe.recv()
            now, others = others[:count], others[count:]
            if rate:
                _send_slowly(shards, now, rate)
            else:
                _send_in_bulk(shards, now)


def _open(shard: socket.socket, ready: bytes) -> None:
    """Answer Identify, and a close frame by the end of the connection."""
    shard.settimeout(None)
    shard.recv(4096)
    shard.sendall(ready)
    while shard.recv(4096)[:1] not in (b"\x88", b""):
        pass
    shard.close()


def _send_in_bulk(shards: list[socket.socket], events: list[bytes]) -> None:
    data = b"".join(events)
    threads = [threading.Thread(target=shard.sendall, args=(data,)) for shard in shards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send_slowly(shards: list[socket.socket], events: list[bytes], rate: float) -> None:
    began, sent = time.monotonic(), 0
    for event in events:
        for shard in shards:
            sent += 1
            time.sleep(max(0.0, began + sent / rate - time.monotonic()))
            shard.sendall(event)


# The processes that are measured


def receive(pipe: Connection, url: str, compression: str, decodes: bool) -> None:
    """Run a manager that does nothing with the events."""
    bot = ShardManager(
        _TOKEN,
        Intents.default(),
        _SHARDS,
        gateway_bot=GatewayBot(url, _SHARDS, 1000, 1000, 0.0, _SHARDS),
        compression=compression,
        **_callbacks(decodes),
    )
    bot.on("NO_SUCH_EVENT", lambda shard, data: None)
    bot.connect()
    bot.wait_until_ready(_PATIENCE)
    pipe.send(None)
    _answer(pipe, lambda: bot.stats.messages)


def work(
    pipe: Connection, url: str, compression: str, decodes: bool, redis_url: str, name: str
) -> None:
    """Run a worker. Sends the kB that a shard adds to the memory."""
    with Fleet(redis_url, name, keep_events=_KEPT_EVENTS) as fleet:
        worker = fleet.worker(
            _TOKEN, Intents.default(), compression=compression, **_callbacks(decodes)
        )
        fleet.shards()  # so that the modules are loaded, and a connection is open
        before = memory()
        worker.start(url)
        _wait_until(lambda: worker.stats.written >= _SHARDS)  # READY of each
        pipe.send((memory() - before) / _SHARDS)
        _answer(pipe, lambda: worker.stats.written)


def consume(pipe: Connection, redis_url: str, name: str, ordered: bool) -> None:
    """Run a consumer."""
    group = "ordered" if ordered else "unordered"
    with Fleet(redis_url, name, keep_events=_KEPT_EVENTS) as fleet:
        consumer = fleet.consumer(group, ordered=ordered, start="newest")
        consumer.get(0)  # claims the streams
        pipe.send(None)
        asker = threading.Thread(
            target=_answer, args=(pipe, lambda: consumer.stats.events), daemon=True
        )
        asker.start()
        for _ in consumer:
            pass


def _callbacks(decodes: bool) -> dict[str, Any]:
    return {"on_socket_dispatch": lambda shard, payload: None} if decodes else {}


def _answer(pipe: Connection, done: Callable[[], int]) -> None:
    """Tell what events cost, each time a number of them is announced.

    :param pipe: brings how many events come, and how many seconds they take at least; takes None
        when this is ready for them, and their Cost.
    :param done: returns how many events are done with.
    """
    while True:
        events, seconds = pipe.recv()
        _wait_for(pipe, events, seconds, done)


def _wait_for(pipe: Connection, events: int, seconds: float, done: Callable[[], int]) -> None:
    before = done()
    began, processor = time.perf_counter(), time.process_time()
    pipe.send(None)
    time.sleep(seconds)
    _wait_until(lambda: done() >= before + events)
    pipe.send(Cost(time.perf_counter() - began, time.process_time() - processor, events))


def own(pipe: Connection, url: str, token: str, redis_url: str, name: str) -> None:
    """Run a worker that tells when its shards come and go, and drains when told to."""
    lock = threading.Lock()

    def tell(shard: Shard, has_come: bool) -> None:
        with lock:
            pipe.send((shard.shard_id, has_come, time.perf_counter()))

    with Fleet(redis_url, name) as fleet:
        worker = fleet.worker(
            token,
            Intents.default(),
            on_socket_ready=lambda shard: tell(shard, True),
            on_socket_reconnected=lambda shard, resumed: tell(shard, True),
            on_socket_disconnected=lambda shard, code, closed_by_self: tell(shard, False),
        )
        worker.start(url)
        pipe.recv()
        worker.drain()


def _wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("what the benchmark waits for does not come")
        time.sleep(_POLL)


# The process of the command


class Part:
    """A function that runs in a process of its own.

    :param target: the function.
    :param arguments: of the function, after a pipe.
    """

    def __init__(self, target: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")  # a forked one would inherit all sockets
        self.pipe, there = context.Pipe()
        self._process = context.Process(target=target, args=(there, *arguments), daemon=True)
        self._process.start()
        there.close()

    def receive(self) -> Any:
        """What the function sends next.

        :raises TimeoutError: if that does not come in time.
        """
        if not self.pipe.poll(_PATIENCE):
            raise TimeoutError("a process of the benchmark does not answer")
        return self.pipe.recv()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.join()


def measure(
    sender: Part | None, measured: Sequence[Part], count: int, rate: float, seconds: float = 0.0
) -> list[Cost]:
    """Let events come, and return what they have cost each of some processes.

    :param sender: of the events, None for none.
    :param measured: the processes.
    :param count: of events for each shard.
    :param rate: how many a second to all shards, 0 for as many as possible.
    :param seconds: for which to measure at least.
    """
    events = count * _SHARDS
    for each in measured:
        each.pipe.send((events, events / rate if rate else seconds))
        each.receive()
    if sender is not None:
        sender.pipe.send((count, rate))
    return [each.receive() for each in measured]


class Server:
    """A redis-server, and what it tells of itself.

    :param server: it.
    """

    def __init__(self, server: RedisServer) -> None:
        self.url = server.url
        self._client = server.client()

    def make_fleet(self, name: str) -> None:
        """Make a fleet of 16 shards, all of which may identify at once."""
        with Fleet(self.url, name) as fleet:
            fleet.init(_SHARDS, max_concurrency=_SHARDS)

    @property
    def processor(self) -> float:
        """Seconds of processor time used."""
        usage: dict[str, Any] = self._client.info("cpu")
        return float(usage["used_cpu_user"]) + float(usage["used_cpu_sys"])

    @property
    def commands(self) -> int:
        """How many commands were carried out."""
        stats: dict[str, Any] = self._client.info("stats")
        return int(stats["total_commands_processed"])


@dataclasses.dataclass
class Figures:
    """The costs of a process, each with the seconds of processor time of Redis meanwhile.

    :ivar bulk: with events as fast as they go.
    :ivar slow: with so many events a second.
    """

    bulk: list[tuple[Cost, float]] = dataclasses.field(default_factory=list)
    slow: list[tuple[Cost, float]] = dataclasses.field(default_factory=list)


# What is kept: by title, the figure of each row.
Tables = dict[str, dict[str, float]]


def show_costs(server: Server, compression: str, rounds: int, rate: float) -> Tables:
    """Print the first table and the second, and return what is kept of them.

    :param server: the Redis.
    :param compression: of the connections.
    :param rounds: how often each process is measured.
    :param rate: events a second where they come one at a time.
    """
    events = record(2 + rounds * (_BULK + 3 * _SLOW))
    senders, parts = {}, {}
    for name, decodes in (("undecoded", False), ("decoded", True)):
        server.make_fleet(name)
        subjects: list[tuple[str, Callable[..., object], tuple[str, ...]]] = [
            (f"receiving, {name}", receive, ()),
            (f"worker, {name}", work, (server.url, name)),
        ]
        for title, target, more in subjects:
            senders[title] = Part(send, events, compression)
            parts[title] = Part(target, senders[title].receive(), compression, decodes, *more)
    kilobytes = [part.receive() for part in parts.values()][1]
    figures = {title: Figures() for title in parts}
    for _ in range(rounds):
        for title, part in parts.items():
            before = server.processor
            (cost,) = measure(senders[title], [part], _BULK, 0.0)
            figures[title].bulk.append((cost, server.processor - before))
        for title, part in parts.items():
            before = server.processor
            (cost,) = measure(senders[title], [part], _SLOW, rate)
            figures[title].slow.append((cost, server.processor - before))
    print(f"\n{'':25}  in bulk{'':36}{rate:g} a second")
    print(f"{'':25} events/s  us/event  x receiving  in Redis   us/event    beyond  in Redis")
    for name in ("undecoded", "decoded"):
        receiving = figures[f"receiving, {name}"]
        _show(f"receiving, {name}", receiving, None)
        _show(f"worker, {name}", figures[f"worker, {name}"], receiving)
    at_rate = f"at {rate:g} a second"
    tables: Tables = {
        "events a second, in bulk": {
            title: max(cost.rate for cost, _ in each.bulk) for title, each in figures.items()
        },
        f"{_COST}, in bulk": {title: _best(each.bulk) for title, each in figures.items()},
        f"{_COST}, {at_rate}": {title: _best(each.slow) for title, each in figures.items()},
        f"{_COST} in Redis, in bulk": {
            title: _in_redis(each.bulk) for title, each in figures.items() if "worker" in title
        },
        f"{_COST} in Redis, {at_rate}": {
            title: _in_redis(each.slow) for title, each in figures.items() if "worker" in title
        },
    }
    worker, sender = parts.pop("worker, undecoded"), senders.pop("worker, undecoded")
    for part in (*parts.values(), *senders.values()):
        part.kill()
    idle = {f"worker, {_SHARDS} shards": _idle(server, worker, 0.0)}
    ((_, commands),) = idle.values()
    for ordered in (True, False):
        title = f"consumer, {'ordered' if ordered else 'unordered'}"
        consumer = Part(consume, server.url, "undecoded", ordered)
        consumer.receive()
        costs = [measure(sender, [worker, consumer], _SLOW, rate)[1] for _ in range(rounds)]
        least = min(each.each for each in costs)
        tables[f"{_COST}, {at_rate}"][title] = least
        print(f"{title:25} {'':40} {least:9.1f}", flush=True)
        idle[title] = _idle(server, consumer, commands)
        consumer.kill()
    worker.kill()
    sender.kill()
    print(f"\n{'while nothing comes':25} of a core  commands/s")
    for title, (share, commands) in idle.items():
        print(f"{title:25} {share:9.2%} {commands:11.1f}")
    print(f"\n{kilobytes:.0f} kB of memory for each shard of a worker", flush=True)
    tables["% of a core, while nothing comes"] = {
        title: 100 * share for title, (share, _) in idle.items()
    }
    tables["commands a second in Redis, while nothing comes"] = {
        title: commands for title, (_, commands) in idle.items()
    }
    tables["kB of memory"] = {"each shard of a worker": kilobytes}
    return tables


def _show(title: str, figures: Figures, receiving: Figures | None) -> None:
    """Print a line of the first table."""
    rate = max(cost.rate for cost, _ in figures.bulk)
    bulk, slow = _best(figures.bulk), _best(figures.slow)
    ratio = beyond = in_redis = in_redis_slow = ""
    if receiving is not None:
        ratio = f"{bulk / _best(receiving.bulk):.2f}"
        beyond = f"{slow - _best(receiving.slow):.1f}"
        in_redis, in_redis_slow = (
            f"{_in_redis(each):.1f}" for each in (figures.bulk, figures.slow)
        )
    print(
        f"{title:25} {rate:8,.0f} {bulk:9.1f} {ratio:>12} {in_redis:>9} {slow:10.1f} {beyond:>9} "
        f"{in_redis_slow:>9}",
        flush=True,
    )


def _best(costs: list[tuple[Cost, float]]) -> float:
    return min(cost.each for cost, _ in costs)


def _in_redis(costs: list[tuple[Cost, float]]) -> float:
    """Microseconds of processor time of Redis for each event."""
    return min(seconds / cost.events for cost, seconds in costs) * 1e6


def _idle(server: Server, part: Part, others: float) -> tuple[float, float]:
    """The part of a core that a process takes while nothing comes, and the commands a second.

    :param others: commands a second of other processes.
    """
    before, began = server.commands, time.perf_counter()
    costs = [measure(None, [part], 0, 0.0, _IDLE)[0] for _ in range(4)]
    commands = (server.commands - before) / (time.perf_counter() - began)
    return min(each.processor / each.seconds for each in costs), commands - others


# Killing and draining


class Owner(Part):
    """A worker in a process of its own, and the shards that it has told of."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(own, *arguments)
        #: When each of its shards was READY or RESUMED.
        self.shards: dict[int, float] = {}
        #: When each of those that it had was closed.
        self.gone: dict[int, float] = {}

    def listen(self) -> None:
        """Take in what it has told."""
        while self.pipe.poll():
            try:
                shard_id, has_come, moment = self.pipe.recv()
            except EOFError:  # it has ended
                return
            if has_come:
                self.shards[shard_id] = moment
            else:
                self.shards.pop(shard_id, None)
                self.gone[shard_id] = moment


def show_hand_overs(server: Server, rounds: int) -> Tables:
    """Print the third table, and return what is kept of it.

    :param server: the Redis.
    :param rounds: how often a worker is killed, and drains.
    """
    server.make_fleet("owners")
    gateway = Gateway(_SHARDS, _SHARDS)
    try:
        arguments = (gateway.recommend().url, gateway.token, server.url, "owners")
        owners = [Owner(*arguments), Owner(*arguments)]
        _await_shards(owners)
        gateway.send(_TRAFFIC)
        killed, drained, drains = [], [], []
        for number in range(2 * rounds):
            leaving, staying = owners
            _await_shards(owners)
            shard_ids, began = [*leaving.shards], time.perf_counter()
            if number % 2:
                leaving.pipe.send("drain")
            else:
                leaving.kill()
            _await_shards([staying])
            if number % 2:
                leaving.listen()
                drained += [staying.shards[each] - leaving.gone[each] for each in shard_ids]
                drains.append(max(staying.shards[each] for each in shard_ids) - began)
                leaving.kill()
            else:
                killed += [staying.shards[each] - began for each in shard_ids]
            owners = [staying, Owner(*arguments)]
        for owner in owners:
            owner.kill()
    finally:
        gateway.stop()
    print(f"\n{'seconds without an owner':25}    median   longest    shards")
    kept: dict[str, float] = {}
    for title, times in (("worker killed", killed), ("worker drained", drained)):
        print(f"{title:25} {statistics.median(times):9.2f} {max(times):9.2f} {len(times):9}")
        kept[f"{title}, median"] = statistics.median(times)
        kept[f"{title}, longest of {len(times)}"] = max(times)
    print(f"\na drain took {statistics.median(drains):.2f} s, the longest {max(drains):.2f}")
    kept["a whole drain, median"] = statistics.median(drains)
    return {"seconds until a shard is RESUMED elsewhere": kept}


def _await_shards(owners: list[Owner]) -> None:
    """Wait until some workers have all shards, each its share, and are at rest."""
    share = _SHARDS // len(owners)

    def have_their_shares() -> bool:
        for each in owners:
            each.listen()
        counts = [len(each.shards) for each in owners]
        return sum(counts) == _SHARDS and max(counts) <= share + 1

    _wait_until(have_their_shares)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="A worker of a fleet.")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--rate", type=float, default=800.0, metavar="N", help="events a second")
    parser.add_argument("--compression", choices=COMPRESSIONS, default=COMPRESSIONS[0])
    add_output(parser)
    arguments = parser.parse_args()
    run = Run("fleet")
    if not executables():
        sys.exit("no redis-server is installed")
    version, program = list(executables().items())[-1]
    show_versions(f"Redis {version}", f"redis-py {redis.__version__}")
    with tempfile.TemporaryDirectory() as place:
        with RedisServer(program, Path(place), *_REDIS_OPTIONS) as redis_server:
            tables = show_costs(
                Server(redis_server), arguments.compression, arguments.rounds, arguments.rate
            )
            tables |= show_hand_overs(Server(redis_server), arguments.rounds)
    run.finish(arguments, "fleet", tables, only(plot_bars, _COST, "seconds until"))


if __name__ == "__main__":
    main()
