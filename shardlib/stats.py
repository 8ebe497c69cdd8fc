"""Stats: what a shard has done so far, in numbers; ManagerStats: what all shards have done."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from shardlib.state import ShardState

# Of these the total is the sum.
_COUNTERS = (
    "messages",
    "bytes_received",
    "bytes_inflated",
    "connections",
    "reconnects",
    "resumes",
    "replayed",
    "duplicates",
    "gaps",
    "callback_seconds",
    "waiting",
    "dropped",
)


@dataclass(frozen=True, slots=True)
class CallbackStats:
    """Calls of the user's functions that have returned.

    :param count: how many.
    :param total: seconds that they took together.
    :param longest: seconds that the longest one took.
    """

    count: int
    total: float
    longest: float

    def __add__(self, other: CallbackStats) -> CallbackStats:
        """The calls of both."""
        return CallbackStats(
            self.count + other.count,
            self.total + other.total,
            max(self.longest, other.longest),
        )


@dataclass(slots=True)
class Stats:
    """The counters of a shard, since it was made. What ``shard.stats`` gives is a snapshot.

    :param messages: Gateway messages received.
    :param bytes_received: bytes of handshakes and frames received, compressed as they came; of a
        ``wss`` connection after decryption, without what TLS itself adds.
    :param bytes_inflated: bytes of the messages after inflating.
    :param events: how often each event was dispatched, by name; of names that Discord does not
        document at most 1,000, and the rest under "(other)".
    :param connections: sockets opened.
    :param reconnects: connections that reached READY or RESUMED and were not the first of a life.
    :param resumes: connections that reached RESUMED, the first of a life included.
    :param replayed: events received between Resume and RESUMED.
    :param duplicates: events that a replay repeated; they were not delivered again.
    :param gaps: jumps of the sequence. At each the Gateway left out events, or only numbers.
    :param callback_seconds: seconds spent inside the user's functions, a running one included.
    :param callbacks: the calls of the user's functions that have returned, each counted under one
        name: a listener's under its event, an ``on_socket_...`` function's under its own name, and
        others under what they are, as the log says it: "the predicate of a wait_for()", "a handler
        of the logger", "loads() of the option json", "the identify gate". What the reader hands to
        a dispatcher or to an ``events()`` iterator counts, too, with the wait while that is full:
        "the wait for room in the Worker", "the loop that is to take 10000 waiting events of
        events()". What runs inside another of these functions counts as part of that one.
    :param waiting: events and callbacks that a dispatcher, or a consumer of ``events()``, has been
        given and is not done with.
    :param lag: seconds since the oldest of these was handed on, 0.0 if there is none.
    :param dropped: events and callbacks that a dispatcher has dropped.
    """

    messages: int = 0
    bytes_received: int = 0
    bytes_inflated: int = 0
    events: Counter[str] = dataclasses.field(default_factory=Counter)
    connections: int = 0
    reconnects: int = 0
    resumes: int = 0
    replayed: int = 0
    duplicates: int = 0
    gaps: int = 0
    callback_seconds: float = 0.0
    callbacks: dict[str, CallbackStats] = dataclasses.field(default_factory=dict)
    waiting: int = 0
    lag: float = 0.0
    dropped: int = 0

    def add(self, other: Stats) -> None:
        """Add the counters of another shard, or of the same shard before it was made anew.

        Numbers of events, calls and seconds are added. Of two longest calls the longer one stays,
        and of two values of `lag` the larger one.

        :param other: the counters to add; they stay as they are.
        """
        for name in _COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.events.update(other.events)
        for name, calls in other.callbacks.items():
            known = self.callbacks.get(name)
            self.callbacks[name] = calls if known is None else known + calls
        self.lag = max(self.lag, other.lag)


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One of a manager's shards, as it is at one moment.

    :param state: where in its life the shard is.
    :param ping: seconds of the last heartbeat's round trip, or None before the first.
    :param session_id: of the current session, or None.
    :param stats: the shard's counters.
    """

    state: ShardState
    ping: float | None
    session_id: str | None
    stats: Stats


@dataclass(slots=True)
class ManagerStats(Stats):
    """The counters of all shards of a manager together, and each shard's own. It is a snapshot.

    The counters are those of :class:`~shardlib.Stats`, added up as :meth:`shardlib.Stats.add` does:
    `lag` is the largest of any shard.

    :param shards: each shard by its number.
    """

    shards: dict[int, ShardInfo] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, shards: Mapping[int, ShardInfo]) -> ManagerStats:
        """Add the counters of shards up.

        :param shards: each shard by its number.
        :returns: a new object; those of the shards stay as they are.
        """
        total = cls(shards=dict(shards))
        for info in shards.values():
            total.add(info.stats)
        return total
