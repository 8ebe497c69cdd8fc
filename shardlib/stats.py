"""Stats: what a shard has done so far, in numbers."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from shardlib.gateway import EVENTS

# Undocumented event names that are counted by themselves: a peer could make up any number of them.
MOST_NAMES = 1000

# Characters of the longest undocumented name that is counted by itself.
LONGEST_NAME = 100

OTHER = "(other)"
"""The name under which all events are counted whose own names are not kept."""


class EventCounts:
    """How often each event came, by name, in a bounded amount of memory. The reader adds."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, event: str) -> None:
        """Count one event."""
        counts = self._counts
        try:
            counts[event] += 1
        except KeyError:
            self._begin(event)

    def _begin(self, event: str) -> None:
        counts = self._counts
        if event not in EVENTS:
            unknown = len(counts) - len(EVENTS.intersection(counts)) - (OTHER in counts)
            if unknown >= MOST_NAMES or len(event) > LONGEST_NAME:
                event = OTHER
        counts[event] = counts.get(event, 0) + 1

    def snapshot(self) -> Counter[str]:
        """The counts as they are now. Any thread."""
        return Counter(dict(self._counts))


class Stats(NamedTuple):
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
    :param callback_seconds: seconds spent inside the user's functions.
    """

    messages: int
    bytes_received: int
    bytes_inflated: int
    events: Counter[str]
    connections: int
    reconnects: int
    resumes: int
    replayed: int
    duplicates: int
    gaps: int
    callback_seconds: float
