"""One queue of events that several shards feed, as a manager of shards offers it."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import AuthenticationFailed, Event, Events, Shard, ShardError
from shardlib.deadline import Deadline
from shardlib.events import EventQueue
from shardlib.lifecycle import Beginning, Lifecycle
from shardlib.testing import LocalGateway
from tests.reliability.storms import list_spots, press_ctrl_c, traces_instructions
from tests.shards import make_gateway, make_shard
from tests.support import AT_ONCE, NEVER, in_background, not_none, wait_until

SHARDS = 3


class Owner(Lifecycle):
    """The least that an owner of shards does: it observes them, and wakes their readers."""

    def __init__(self) -> None:
        self.shards: list[Shard] = []
        super().__init__(lambda life: threading.current_thread())
        self.begin_life()

    def begin_life(self) -> None:
        self.life = self.prepare(Beginning("ws://127.0.0.1", 10))
        self.life.established()

    def end_life(self, error: BaseException | None = None) -> None:
        if error is None:
            self.request_close(1000, Deadline(NEVER))
            for shard in self.shards:
                shard.disconnect()
        self.life.close(error)
        self.life.end()

    def add(self, shard: Shard) -> None:
        self.shards.append(shard)
        shard._lifecycle.observe(self)

    def in_reader_thread(self) -> bool:
        return any(shard._lifecycle.in_reader_thread() for shard in self.shards)

    def notify(self) -> None:
        super().notify()
        for shard in self.shards:
            shard._lifecycle.wake()

    def notified(self) -> None:
        self._waiters.notify()

    def changed(self) -> None:
        self._waiters.notify()


def feed(queue: EventQueue, shard: Shard) -> None:
    queue.add_feed(
        shard=shard,
        callbacks=shard._callbacks,
        lifecycle=shard._lifecycle,
        current_session=lambda: shard._reader.protocol.session,
    )


class Bot:
    """Shards of an owner, connected to a gateway of their own."""

    def __init__(self, gateway: LocalGateway) -> None:
        self.gateway = gateway
        self.owner = Owner()

    @property
    def shards(self) -> list[Shard]:
        return self.owner.shards

    def add_shard(self, shard_id: int) -> Shard:
        shard = make_shard(shard_id=shard_id, shard_count=SHARDS, close_timeout=NEVER)
        self.owner.add(shard)
        shard.connect(self.gateway.url)
        shard.wait_until_ready(10)
        return shard

    def events(
        self, *names: str, timeout: float | None = 10, maxsize: int = 10_000, shards: int = SHARDS
    ) -> Events:
        queue = EventQueue(names, timeout, maxsize, lifecycle=self.owner, owner="the bot")
        events = Events(queue)
        for shard in self.shards[:shards]:
            feed(queue, shard)
        return events

    def send(self, shard_id: int, *numbers: int, event: str = "USER_UPDATE") -> None:
        """Have the gateway send events to one shard."""
        for number in numbers:
            self.gateway.dispatch(event, {"n": number, "guild_id": str(shard_id << 22)})

    def send_to_all(self, *numbers: int) -> None:
        for number in numbers:
            for shard_id in range(SHARDS):
                self.send(shard_id, number)

    def fill(self, events: Events) -> None:
        """Send each shard more events than the iterator takes, until all readers wait."""
        self.send_to_all(*range(events._queue.maxsize + 5))
        wait_until(lambda: len(events._queue.held) == SHARDS)


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


@pytest.fixture
def bot(gateway: LocalGateway) -> Iterator[Bot]:
    bot = Bot(gateway)
    try:
        for shard_id in range(SHARDS):
            bot.add_shard(shard_id)
        yield bot
    finally:
        for shard in bot.shards:
            shard.disconnect()


@pytest.fixture
def hasty_interpreter() -> Iterator[None]:
    """Switch threads as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def by_shard(events: list[Event]) -> list[list[int]]:
    """The numbers of the events that each shard has received, in the order of the list."""
    found: list[list[int]] = [[] for _ in range(SHARDS)]
    for event in events:
        found[event.shard.shard_id].append(event.data["n"])
    return found


def waiting(events: Events) -> int:
    return len(events._queue)


# What it yields


def test_the_events_of_all_shards_come_in_order_for_each_shard(bot: Bot) -> None:
    events = bot.events("USER_UPDATE")
    bot.send_to_all(*range(100))
    got = [next(events) for _ in range(100 * SHARDS)]
    assert by_shard(got) == [list(range(100))] * SHARDS


def test_an_event_tells_which_shard_has_received_it(bot: Bot) -> None:
    events = bot.events("USER_UPDATE")
    bot.send(1, 7)
    shard = bot.shards[1]
    event = next(events)
    assert (event.data["n"], event.sequence, event.shard) == (7, shard.last_sequence, shard)


def test_without_names_all_events_of_all_shards_come(bot: Bot) -> None:
    events = bot.events()
    for shard_id in range(SHARDS):
        bot.send(shard_id, shard_id, event="A_NEW_EVENT")
    assert sorted(next(events).data["n"] for _ in range(SHARDS)) == list(range(SHARDS))


def test_a_shard_that_is_added_later_feeds_the_queue_from_then_on(gateway: LocalGateway) -> None:
    bot = Bot(gateway)
    try:
        bot.add_shard(0)
        events = bot.events("USER_UPDATE")
        taking = in_background(lambda: [next(events) for _ in range(2)])
        wait_until(lambda: events._queue.waiting)
        shard = bot.add_shard(1)
        feed(events._queue, shard)
        bot.send(1, 1, 2)
        assert by_shard(taking.result(10)) == [[], [1, 2], []]  # type: ignore[arg-type]
        bot.send(0, 3)
        assert next(events).shard is bot.shards[0]
    finally:
        bot.owner.end_life()


def test_a_shard_that_is_added_to_a_closed_queue_forgets_it(bot: Bot) -> None:
    """Also if no event ever comes: at the next subscription."""
    events = bot.events("USER_UPDATE", shards=1)
    events.close()
    for _ in range(10):
        feed(events._queue, bot.shards[1])
    assert len(bot.shards[1]._callbacks._subscribers["USER_UPDATE"]) <= 2


def test_a_queue_keeps_no_shard_that_its_owner_has_replaced(gateway: LocalGateway) -> None:
    bot = Bot(gateway)
    bot.add_shard(0)
    events = bot.events("USER_UPDATE")
    gone = weakref.ref(bot.shards[0])
    bot.shards.pop().disconnect()
    gc.collect()
    assert gone() is None
    assert not events._queue._feeds
    events.close()


@pytest.mark.usefixtures("hasty_interpreter")
def test_each_event_goes_to_one_of_the_threads_that_share_the_queue(bot: Bot) -> None:
    events = bot.events("USER_UPDATE", maxsize=20)
    got: list[list[Event]] = [[], [], []]
    threads = [in_background(into.extend, events) for into in got]
    bot.send_to_all(*range(700))
    wait_until(lambda: sum(map(len, got)) == 700 * SHARDS, 15)
    bot.owner.end_life()
    for thread in threads:
        thread.result(10)
    together = by_shard(list(itertools.chain(*got)))
    assert [sorted(each) for each in together] == [list(range(700))] * SHARDS
    assert all(each == sorted(each) for into in got for each in by_shard(into))


# The owner's life


def test_the_iterator_ends_with_the_owners_life_after_what_was_received(bot: Bot) -> None:
    events = bot.events("USER_UPDATE")
    bot.send_to_all(1, 2)
    wait_until(lambda: waiting(events) == 2 * SHARDS)
    bot.owner.end_life()
    assert by_shard(list(events)) == [[1, 2]] * SHARDS
    assert list(events) == [] and events.poll() == []


def test_a_shard_that_begins_another_life_goes_on_feeding_the_queue(bot: Bot) -> None:
    events = bot.events("USER_UPDATE")
    bot.shards[1].disconnect()
    with pytest.raises(TimeoutError, match="^no USER_UPDATE came within 0 seconds$"):
        next(bot.events("USER_UPDATE", timeout=0))  # the owner's life has not ended
    bot.shards[1].connect(bot.gateway.url)
    bot.shards[1].wait_until_ready(10)
    bot.send_to_all(1)
    assert by_shard([next(events) for _ in range(SHARDS)]) == [[1]] * SHARDS


def test_an_error_that_ends_the_owners_life_is_raised_in_all_waiting_threads(bot: Bot) -> None:
    events = bot.events("USER_UPDATE")
    threads = [in_background(next, events) for _ in range(2)]
    wait_until(lambda: len(events._queue.waiting) == 2)
    bot.owner.end_life(AuthenticationFailed(4004, "no"))
    assert all(isinstance(thread.exception(10), AuthenticationFailed) for thread in threads)


def test_a_queue_of_one_life_takes_no_event_of_the_next(bot: Bot) -> None:
    old = bot.events("USER_UPDATE")
    bot.owner.life.close(None)
    bot.owner.life.end()
    between = bot.events("USER_UPDATE")
    bot.owner.begin_life()
    bot.send_to_all(1)
    assert by_shard([next(between) for _ in range(SHARDS)]) == [[1]] * SHARDS
    assert list(old) == []


def test_messages_name_the_owner(bot: Bot) -> None:
    bot.owner.life.close(None)
    bot.owner.life.end()
    with pytest.raises(ShardError, match="never come: the bot is not connected"):
        next(bot.events("USER_UPDATE"))


# A full queue


def test_a_full_queue_holds_all_readers_back_and_nothing_is_lost(bot: Bot) -> None:
    events = bot.events("USER_UPDATE", maxsize=10)
    bot.fill(events)
    most = 0
    got: list[Event] = []
    for number in range(15, 200):
        bot.send_to_all(number)
    while len(got) < 200 * SHARDS:
        most = max(most, waiting(events))
        got.append(next(events))
    assert by_shard(got) == [list(range(200))] * SHARDS
    assert 10 <= most < 10 + SHARDS


def test_no_shard_fills_the_room_that_another_waits_for(bot: Bot) -> None:
    """Else a busy shard would keep a quiet one waiting for ever."""
    events = bot.events("USER_UPDATE", maxsize=10)
    bot.send(0, *range(15))
    wait_until(lambda: len(events._queue.held) == 1)
    assert next(events).data["n"] == 0
    bot.send(1, *range(15))
    wait_until(lambda: len(events._queue.held) == 2)
    assert waiting(events) == 9
    for _ in range(4):
        next(events)
    entries = events._queue.entries
    wait_until(lambda: {entry.event.shard for entry in list(entries)} == set(bot.shards[:2]))


def test_a_reader_goes_on_even_if_others_fill_the_room_before_it_looks(bot: Bot) -> None:
    events = bot.events("USER_UPDATE", maxsize=10)
    bot.send(0, *range(15))
    wait_until(lambda: events._queue.held)
    others = list(events._queue.entries)
    wake = bot.owner.notify

    def fill_and_wake() -> None:
        events._queue.entries.extend(others)
        wake()

    bot.owner.notify = fill_and_wake  # type: ignore[method-assign]
    events.poll(10)
    wait_until(lambda: waiting(events) == len(others) + 1)
    bot.owner.notify = wake  # type: ignore[method-assign]


def hear_into(numbers: list[int]) -> Callable[[Shard, Any], None]:
    return lambda shard, data: numbers.append(data["n"])


def leave_by_break(events: list[Events]) -> None:
    for _ in events.pop():
        break


def leave_by_close(events: list[Events]) -> None:
    events[0].close()


def leave_to_garbage(events: list[Events]) -> None:
    events.clear()
    gc.collect()


@pytest.mark.parametrize("maxsize", [1, 10])
@pytest.mark.parametrize("leave", [leave_by_break, leave_by_close, leave_to_garbage])
def test_who_leaves_a_full_queue_frees_all_readers_at_once(
    leave: Callable[[list[Events]], None], maxsize: int, bot: Bot
) -> None:
    heard: list[list[int]] = [[] for _ in range(SHARDS)]
    for shard, numbers in zip(bot.shards, heard, strict=True):
        shard.on("USER_UPDATE", hear_into(numbers))
    held = [bot.events("USER_UPDATE", maxsize=maxsize)]
    bot.fill(held[0])
    leave(held)
    wait_until(lambda: heard == [list(range(maxsize + 5))] * SHARDS)
    began = time.monotonic()
    bot.owner.end_life()
    assert time.monotonic() - began < AT_ONCE


def test_a_reader_that_finds_others_events_in_a_closed_queue_does_not_wait(bot: Bot) -> None:
    """Several readers may put an event each into a queue that is closed, before they drop it."""
    events = bot.events("USER_UPDATE", maxsize=1)
    bot.send(0, 1)
    wait_until(lambda: waiting(events) == 1)
    queue = events._queue
    left = list(queue.entries)
    events.close()
    queue.entries.extend(left)
    assert queue.has_room()


def test_the_thread_that_takes_events_may_wait_for_one_shard_behind_a_full_queue(
    bot: Bot,
) -> None:
    events = bot.events("USER_UPDATE", maxsize=2)
    bot.fill(events)
    bot.send(1, 1, event="WEBHOOKS_UPDATE")
    assert bot.shards[1].wait_for("WEBHOOKS_UPDATE", timeout=10)["n"] == 1
    assert len(events._queue.held) == SHARDS - 1  # the others wait on
    got = [next(events) for _ in range(7 * SHARDS)]
    assert by_shard(got) == [list(range(7))] * SHARDS


def test_the_thread_that_takes_events_may_send_on_a_shard_that_has_to_connect_again(
    bot: Bot,
) -> None:
    events = bot.events("USER_UPDATE", maxsize=2)
    bot.fill(events)
    sessions = {session.shard[0]: session for session in bot.gateway.sessions}
    not_none(sessions[1].connection).drop()
    while bot.shards[1].stats.connections == 1:
        bot.shards[1].update_presence(timeout=20)
    got = [next(events) for _ in range(7 * SHARDS)]
    assert by_shard(got) == [list(range(7))] * SHARDS


def test_the_thread_that_takes_events_may_wait_for_the_owner_behind_a_full_queue(
    bot: Bot,
) -> None:
    events = bot.events("USER_UPDATE", maxsize=2)
    heard: set[Shard] = set()

    def listen(shard: Shard, data: Any) -> None:
        heard.add(shard)
        bot.owner.notify()

    for shard in bot.shards:
        shard.on("WEBHOOKS_UPDATE", listen)
    bot.fill(events)
    for shard_id in range(SHARDS):
        bot.send(shard_id, 1, event="WEBHOOKS_UPDATE")
    owner = bot.owner
    assert owner.wait_in(owner.life, lambda: len(heard) == SHARDS, Deadline(10))
    assert by_shard(events.poll()) == [list(range(7))] * SHARDS


def test_readers_go_on_while_a_thread_that_takes_events_waits_for_another_queue(bot: Bot) -> None:
    full = bot.events("USER_UPDATE", maxsize=2)
    bot.fill(full)
    with bot.events("WEBHOOKS_UPDATE") as other:
        for shard_id in range(SHARDS):
            bot.send(shard_id, shard_id, event="WEBHOOKS_UPDATE")
        assert sorted(next(other).data["n"] for _ in range(SHARDS)) == list(range(SHARDS))
    assert by_shard(full.poll()) == [list(range(7))] * SHARDS


def test_a_full_queue_that_one_reader_polls_in_a_callback_stops_no_reader_for_good(
    bot: Bot,
) -> None:
    events = bot.events("USER_UPDATE", maxsize=2)
    polled: list[Event] = []
    refused: list[ShardError] = []

    def listen(shard: Shard, data: Any) -> None:
        polled.extend(events.poll())
        with pytest.raises(ShardError, match="was asked for in a callback") as caught:
            next(events)
        refused.append(caught.value)

    bot.shards[0].on("TYPING_START", listen)
    bot.send(0, 0, event="TYPING_START")
    wait_until(lambda: refused)
    for number in range(50):
        bot.send_to_all(number)
        bot.send(0, number, event="TYPING_START")

    def poll_again() -> bool:
        bot.send(0, 0, event="TYPING_START")
        return len(polled) == 50 * SHARDS

    wait_until(poll_again)
    assert by_shard(polled) == [list(range(50))] * SHARDS


# The saved sessions


def test_an_event_counts_as_done_in_its_own_session_when_its_taker_asks_for_the_next(
    bot: Bot,
) -> None:
    def saved() -> list[int]:
        return [not_none(not_none(shard.session).sequence) for shard in bot.shards]

    events = bot.events("USER_UPDATE")
    before = saved()
    for sent, shard_id in enumerate([0, 1, 2, 1]):
        bot.send(shard_id, sent)
        wait_until(lambda: waiting(events) > sent)
    done = [0, 0, 0]
    for previous in [None, 0, 1, 2]:
        next(events)
        if previous is not None:
            done[previous] += 1
        # A shard is held back by its oldest event that is not done with.
        assert saved() == [one + other for one, other in zip(before, done, strict=True)]
    events.close()
    assert saved() == [before[0] + 1, before[1] + 2, before[2] + 1]
    assert not any(len(shard._callbacks.outstanding) for shard in bot.shards)


# Ctrl-C


@traces_instructions
@pytest.mark.parametrize("how", ["next", "poll"])
def test_ctrl_c_at_any_point_loses_no_event_and_returns_none_twice(how: str, bot: Bot) -> None:
    events = bot.events("USER_UPDATE", maxsize=4)  # full at once: readers wait for room, too
    got: list[Event] = []

    def take() -> None:
        if how == "next":
            got.append(next(events))
        else:
            got.extend(events.poll(2))

    bot.send_to_all(*range(10))
    wait_until(lambda: len(events._queue.held) == SHARDS)
    spots = list_spots(take)[1]
    sent = 10
    pressed = 0
    for spot in spots:
        bot.send_to_all(sent)
        sent += 1
        # If Ctrl-C came before the readers were woken, the next call wakes them.
        wait_until(lambda: waiting(events) >= 2 or events._queue.held)
        pressed += press_ctrl_c(spot, take)
    while len(got) < sent * SHARDS:
        got.append(next(events))
    assert by_shard(got) == [list(range(sent))] * SHARDS
    assert pressed > 10
