"""EventCounts: how often each event came."""

from __future__ import annotations

from collections import Counter

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
