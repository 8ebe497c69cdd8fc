"""ReshardedEvents: what old shards deliver, and what comes to the new ones that take their place.

Events have no id. Two are taken for the same if they have the same name and the same data; a
GUILD_CREATE, which may differ from session to session, if it is of the same guild. Of several
alike, each that an old shard delivers stands for one that comes to a new shard, whichever is first.
"""

from __future__ import annotations

import collections
import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

# Events that a new shard holds. If there are more, its reader waits, and the network keeps the
# rest: an old shard is far behind.
MOST_HELD = 10_000

# Events that are remembered after each had come to an old shard and to a new one: another that is
# alike may follow within moments.
MOST_EVEN = 10_000

# Events of a session, which no other session has.
_OWN_EVENTS = frozenset({"READY", "RESUMED"})

_Deliver = Callable[[], object]


class _Tally:
    """How often old shards have delivered an event that has not come to a new one.

    :param now: seconds of a monotonic clock.
    """

    __slots__ = ("changed_at", "count", "since")

    def __init__(self, now: float) -> None:
        self.count = 0
        self.since = now  # when an old shard has delivered one of these events first
        self.changed_at = now  # when one has come to any shard last

    def change(self, by: int, now: float) -> int:
        """Add to the count, and return it."""
        self.count += by
        self.changed_at = now
        return self.count


class _Held:
    """An event that a new shard holds.

    :param holder: of that shard.
    :param key: what tells the event from others, None if no other is like it.
    :param deliver: delivers it.
    """

    __slots__ = ("deliver", "holder", "key")

    def __init__(self, holder: Holder, key: bytes | None, deliver: _Deliver) -> None:
        self.holder = holder
        self.key = key
        self.deliver = deliver


class ReshardedEvents:
    """What the old shards have delivered, and what the new ones hold. All their readers come here.

    :ivar is_switched: True once the new shards deliver instead of the old ones.
    :ivar repeats: how many events came to an old shard and to a new one.
    """

    def __init__(self) -> None:
        self.is_switched = False
        self.repeats = 0
        # Guards all that follows, and the queues of the holders. Held for moments.
        self._lock = threading.Lock()
        # By key, what the old shards have delivered. A count of 0 does not tell that each event has
        # come to a new shard: of two that are alike, the later one may have come there before the
        # old shard got it, and so have stood for the earlier one.
        self._tallies: dict[bytes, _Tally] = {}
        # The keys whose count became 0, oldest first.
        self._even: collections.deque[bytes] = collections.deque()
        # By key, what the new ones hold that no old one has delivered, oldest first.
        self._held: dict[bytes, collections.deque[_Held]] = {}

    def deliver(self, key: bytes | None, now: float, *, is_awaited: bool) -> bool:
        """Note that an old shard is about to deliver an event.

        :param key: of the event.
        :param now: seconds of a monotonic clock.
        :param is_awaited: False if it can come to no new shard any more: then it is forgotten,
            unless it has come.
        :returns: False after the switch: a new shard is going to deliver it.
        """
        with self._lock:
            if self.is_switched:
                return False
            if key is None:
                return True
            if key not in self._held:
                if is_awaited:
                    self._tallies.setdefault(key, _Tally(now)).change(1, now)
                return True
            self.repeats += 1
            if key in self._tallies:
                self._tallies[key].change(0, now)
            alike = self._held[key]
            held = alike.popleft()
            if not alike:
                del self._held[key]
            del held.holder.queue[held]
        held.holder.wake()
        return True

    def hold(self, held: _Held, now: float) -> None:
        """Hold an event that has come to a new shard, unless an old one has delivered it.

        :param held: the event.
        :param now: seconds of the clock.
        """
        with self._lock:
            if held.key is not None and held.key in self._tallies:
                tally = self._tallies[held.key]
                is_repeat = tally.count > 0
                left = tally.change(-1 if is_repeat else 0, now)
                if is_repeat:
                    self.repeats += 1
                    if not left:
                        self._note_even(held.key)
                    return
            held.holder.queue[held] = None
            if held.key is not None and not self.is_switched:
                self._held.setdefault(held.key, collections.deque()).append(held)

    def take(self, holder: Holder) -> _Deliver | None:
        """Take out what a new shard is to deliver next, None if there is nothing yet."""
        with self._lock:
            if not self.is_switched or not holder.queue:
                return None
            held, _ = holder.queue.popitem(last=False)
            return held.deliver

    def switch(self) -> None:
        """Let the new shards deliver from now on, and the old ones no more."""
        with self._lock:
            self.is_switched = True
            self._held.clear()

    def _note_even(self, key: bytes) -> None:
        """Remember a key whose count has become 0, and forget the oldest of too many."""
        self._even.append(key)
        if len(self._even) > MOST_EVEN:
            oldest = self._even.popleft()
            tally = self._tallies.get(oldest)
            if tally is not None and not tally.count:
                del self._tallies[oldest]

    def forget(self, asked_at: float) -> None:
        """Forget what old shards have delivered that can come to no new one any more.

        That is what was issued before the new one had its session. It would be taken for the same
        as a later event that is alike.

        :param asked_at: seconds of the clock. All shards have handled what was issued before.
        """
        with self._lock:
            for key, tally in list(self._tallies.items()):
                if tally.changed_at < asked_at:
                    del self._tallies[key]

    def is_certain(self, caught_up_at: float) -> bool:
        """True if each event that an old shard has delivered has come to a new one, or will.

        False while events that are alike come so quickly that :meth:`forget` finds no moment
        between them.

        :param caught_up_at: seconds of the clock. What old shards have delivered since was issued
            when the new ones had their sessions.
        """
        with self._lock:
            return all(tally.since >= caught_up_at for tally in self._tallies.values())


class Recorder:
    """The screen of an old shard: it lets every event pass, and notes it.

    :param delivered: where.
    :param is_awaited: True for the id of a guild whose new shard has identified, so that its events
        come there, too; 0 for events of no guild.
    """

    is_holding = False

    def __init__(self, delivered: ReshardedEvents, is_awaited: Callable[[int], bool]) -> None:
        self._delivered = delivered
        self._is_awaited = is_awaited
        self._next: _Deliver | None = None

    def put(self, event: str, text: bytes, deliver: _Deliver) -> None:
        """Note an event.

        :param event: its name.
        :param text: the whole payload.
        :param deliver: delivers it.
        """
        data = _data(text)
        is_awaited = self._is_awaited(_guild_of(event, data))
        if self._delivered.deliver(_key(event, data), time.monotonic(), is_awaited=is_awaited):
            self._next = deliver

    def take(self) -> _Deliver | None:
        """What is to be delivered, once."""
        deliver, self._next = self._next, None
        return deliver


class Holder:
    """The screen of a new shard. It holds events until the switch, but those that are no news.

    The reader goes on meanwhile, so that the shard keeps its session like any other.

    :ivar queue: the events, oldest first; guarded by the lock of `delivered`.

    :param delivered: what the old shards have delivered.
    :param wait: blocks the reader until a condition holds, or it has something else to do.
    :param wake: lets the reader look at the condition again.
    :param is_known: True for the id of a guild that an old shard has told of.
    :param remove: takes this screen away.
    """

    def __init__(
        self,
        delivered: ReshardedEvents,
        *,
        wait: Callable[[Callable[[], bool]], object],
        wake: Callable[[], object],
        is_known: Callable[[int], bool],
        remove: Callable[[], object],
    ) -> None:
        self.queue: collections.OrderedDict[_Held, None] = collections.OrderedDict()
        self._wake = wake
        self._delivered = delivered
        self._wait = wait
        self._is_known = is_known
        self._remove = remove
        # Guilds of READY whose first GUILD_CREATE is still to come, and is no news.
        self._snapshots: set[int] = set()
        self._is_waiting = False  # for room
        self._is_done = False

    # The reader

    def put(self, event: str, text: bytes, deliver: _Deliver) -> None:
        """Take an event in.

        :param event: its name.
        :param text: the whole payload.
        :param deliver: delivers it.
        """
        data = _data(text)
        if event == "READY":
            self._snapshots = {guild for guild in _guilds_of(data) if self._is_known(guild)}
        elif event in ("GUILD_CREATE", "GUILD_DELETE"):
            guild = _guild_id(data)
            if guild in self._snapshots:
                self._snapshots.discard(guild)
                if event == "GUILD_CREATE":
                    return
        self._delivered.hold(_Held(self, _key(event, data), deliver), time.monotonic())
        if len(self.queue) >= MOST_HELD:
            self._is_waiting = True
            self._wait(self._has_room)
            self._is_waiting = False

    def take(self) -> _Deliver | None:
        """What is to be delivered next, None before the switch, and if nothing is left."""
        deliver = self._delivered.take(self)
        if deliver is None and self._is_done:
            self._remove()
        return deliver

    @property
    def is_holding(self) -> bool:
        """True while events are held, so that the session is not done with them."""
        return bool(self.queue)

    def _has_room(self) -> bool:
        return self._delivered.is_switched or len(self.queue) <= MOST_HELD // 2

    # Any thread

    def wake(self) -> None:
        """Let the reader go on, if it waits for room and there is some."""
        if self._is_waiting and self._has_room():
            self._wake()

    @property
    def is_complete(self) -> bool:
        """True once the guilds of READY that are no news have come."""
        return not self._snapshots

    def expect_no_more(self) -> None:
        """Take every later GUILD_CREATE for news: the guild was not available until then."""
        self._snapshots = set()

    def finish(self) -> None:
        """Remove this screen as soon as all was delivered."""
        self._is_done = True


def _data(text: bytes) -> Any:
    """The data of an event; None if this JSON module cannot read what the user's could."""
    try:
        return json.loads(text).get("d")
    except (ValueError, RecursionError):
        return None


def _key(event: str, data: Any) -> bytes | None:
    """What is the same for two events that are alike; None if no other is like this one."""
    if event in _OWN_EVENTS or data is None:
        return None
    if event == "GUILD_CREATE" and (guild := _guild_id(data)) is not None:
        data = guild
    try:
        text = f"{event} {json.dumps(data, sort_keys=True)}"
    except RecursionError:
        return None
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def _guild_of(event: str, data: Any) -> int:
    """The id of the guild of an event, 0 if it has none."""
    if event in ("GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE"):
        return _guild_id(data) or 0
    try:
        return int(data["guild_id"])
    except (KeyError, TypeError, ValueError):
        return 0


def _guilds_of(ready: Any) -> set[int]:
    guilds = ready.get("guilds") if isinstance(ready, dict) else None
    ids = map(_guild_id, guilds if isinstance(guilds, list) else ())
    return {guild for guild in ids if guild is not None}


def _guild_id(guild: Any) -> int | None:
    try:
        return int(guild["id"])
    except (KeyError, TypeError, ValueError):
        return None
