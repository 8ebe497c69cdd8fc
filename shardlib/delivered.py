"""Delivered: what the old shards have delivered while new ones take their place.

Events have no id. Two are taken for the same if they have the same name and the same data; of
several alike, as many are left out as the old shards have delivered since the new one identified.
"""

from __future__ import annotations

import collections
import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

# Seconds after the switch for which what an old shard has delivered is remembered: the network may
# bring the same to a new one that much later.
MEMORY = 30.0


class Delivered:
    """What the old shards have delivered. Their readers add, those of the new shards take out."""

    def __init__(self) -> None:
        # When each was delivered, by what tells it from others, the oldest first.
        self._times: dict[bytes, collections.deque[float]] = {}
        self._lock = threading.Lock()  # held for moments, on readers only
        self.repeats = 0  # events that came to an old shard and to a new one

    def add(self, event: str, data: Any, now: float) -> None:
        """Note that an old shard delivers an event.

        :param event: its name.
        :param data: its data.
        :param now: seconds of a monotonic clock.
        """
        key = _key(event, data)
        with self._lock:
            self._times.setdefault(key, collections.deque()).append(now)

    def take(self, event: str, data: Any, since: float) -> bool:
        """Take an event out, once, that was delivered since a time. False if there is none.

        :param event: its name.
        :param data: its data.
        :param since: seconds of the same clock: what was delivered before is another event.
        """
        key = _key(event, data)
        with self._lock:
            times = self._times.get(key, ())
            while times:
                if times.popleft() >= since:
                    self.repeats += 1
                    return True
        return False


def _key(event: str, data: Any) -> bytes:
    text = f"{event} {json.dumps(data, sort_keys=True)}"
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


class Recorder:
    """The screen of an old shard: it lets every event pass, and notes it.

    :param delivered: where.
    """

    def __init__(self, delivered: Delivered) -> None:
        self._delivered = delivered

    def admits(self, event: str, text: bytes) -> bool:
        """Note an event. The reader calls this before any callback.

        :param event: its name.
        :param text: the whole payload.
        """
        self._delivered.add(event, json.loads(text).get("d"), time.monotonic())
        return True


class Holder:
    """The screen of a new shard.

    :param delivered: what the old shards have delivered.
    :param wait: blocks the reader until :attr:`is_released`, or the shard is closed.
    :param identified_at: seconds of the monotonic clock, when Identify was sent.
    :param remove: takes this screen away.
    """

    def __init__(
        self,
        delivered: Delivered,
        *,
        wait: Callable[[Holder], object],
        identified_at: Callable[[], float],
        remove: Callable[[], object],
    ) -> None:
        self._delivered = delivered
        self._wait = wait
        self._identified_at = identified_at
        self._remove = remove
        self._ends_at = float("inf")
        self._snapshots: set[str] = set()  # guilds whose first GUILD_CREATE is no news
        self.is_released = False

    def release(self) -> None:
        """Let the reader go on. Any thread; the shard has to be woken afterwards."""
        self._ends_at = time.monotonic() + MEMORY
        self.is_released = True

    def admits(self, event: str, text: bytes) -> bool:
        """Wait, and tell whether an event is to be delivered. The reader calls this.

        :param event: its name.
        :param text: the whole payload.
        """
        if not self.is_released:
            self._wait(self)
            if not self.is_released:  # the shard is being closed: the old ones go on
                return False
        if time.monotonic() >= self._ends_at:
            self._remove()
            return True
        data = json.loads(text).get("d")
        if event == "READY":
            self._snapshots = {str(guild.get("id")) for guild in data.get("guilds", ())}
            return True
        if event == "GUILD_CREATE" and str(data.get("id")) in self._snapshots:
            self._snapshots.discard(str(data.get("id")))
            return False
        return not self._delivered.take(event, data, self._identified_at())
