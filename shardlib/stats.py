"""Stats: what a shard has done so far, in numbers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """The counters of a shard, since it was made. What ``shard.stats`` gives is a snapshot."""

    messages: int = 0
    """Gateway messages received."""
    bytes_received: int = 0
    """Bytes received, as they came over the wire: handshakes and frames, compressed."""
    bytes_inflated: int = 0
    """Length of the messages after inflating."""
    events: Counter[str] = dataclasses.field(default_factory=Counter)
    """How often each event was dispatched, by name."""
    connections: int = 0
    """Sockets opened."""
    reconnects: int = 0
    """Connections that reached READY or RESUMED when it wasn't the first time."""
    resumes: int = 0
    """Connections that reached RESUMED."""
    replayed: int = 0
    """Events received between Resume and RESUMED."""
    duplicates: int = 0
    """Events dropped since a replay repeated what had been received before."""
    callback_seconds: float = 0.0
    """Time spent inside the user's functions."""
