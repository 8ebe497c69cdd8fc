"""Stats: what a shard has done so far, in numbers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass


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
