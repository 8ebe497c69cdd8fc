"""ReshardedEvents: which of two shards delivers an event that comes to both, by tables."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from shardlib import reshardedevents
from shardlib.reshardedevents import Holder, Recorder, ReshardedEvents
from tests.support import wait_until

GUILD, OTHER = 1 << 22, 2 << 22


class Switch:
    """An old shard and a new one, and what they deliver."""

    def __init__(self, known: tuple[int, ...] = (GUILD, OTHER)) -> None:
        self.delivered = ReshardedEvents()
        self.awaited = {0, GUILD, OTHER}
        self.log: list[str] = []
        self.removed = False
        self.waits = 0
        self.old = Recorder(self.delivered, self.awaited.__contains__)
        self.new = Holder(
            self.delivered,
            wait=self._wait,
            wake=lambda: None,
            is_known=known.__contains__,
            remove=self._remove,
        )

    def _wait(self, until: Any) -> None:
        self.waits += 1

    def _remove(self) -> None:
        self.removed = True

    def event(self, who: str, event: str, data: Any) -> None:
        """An event comes to the "old" or the "new" shard."""
        screen = self.old if who == "old" else self.new
        name = f"{who} {data['n'] if isinstance(data, dict) and 'n' in data else event}"
        screen.put(event, json.dumps({"d": data}).encode(), lambda: self.log.append(name))
        self.read(who)

    def read(self, who: str) -> None:
        """The reader of a shard delivers what it may."""
        screen = self.old if who == "old" else self.new
        while (deliver := screen.take()) is not None:
            deliver()

    def run(self, steps: str) -> list[str]:
        """Run steps: "o1" and "n1" for an event 1 that comes to the old and to the new shard, "s"
        for the switch, "?" once all shards have handled what was issued."""
        for step in steps.split():
            if step == "s":
                self.delivered.switch()
                self.read("new")
            elif step == "?":
                self.delivered.forget(float("inf"))
            else:
                who = {"o": "old", "n": "new"}[step[0]]
                self.event(who, "MESSAGE_CREATE", {"guild_id": GUILD, "n": step[1:]})
        return self.log


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("o1", "o1"),
        ("n1", ""),
        ("n1 s", "n1"),
        ("n1 n2 n3 s n4", "n1 n2 n3 n4"),
        # Whichever is first, the old one delivers it.
        ("o1 n1 s", "o1"),
        ("n1 o1 s", "o1"),
        ("n1 n2 o1 s", "o1 n2"),
        ("n1 n2 o2 s", "o2 n1"),
        ("o1 s n1", "o1"),
        # After the switch the old one delivers nothing.
        ("n1 s o1", "n1"),
        ("s o1 n1", "n1"),
        # Events that are alike are counted.
        ("o1 o1 n1 n1 n1 s", "o1 o1 n1"),
        ("n1 n1 n1 o1 s", "o1 n1 n1"),
        ("o1 n1 n1 o1 n1 s", "o1 o1 n1"),
        # What the old one has delivered before the new one had a session stands for none.
        ("o1 n1 s", "o1"),
        ("o1 ? n1 s", "o1 n1"),
        ("o1 o1 n1 ? n1 s", "o1 o1 n1"),
        ("n1 ? o1 s", "o1"),
    ],
)
def test_each_event_is_delivered_once(steps: str, expected: str) -> None:
    assert Switch().run(steps) == [
        each.replace("o", "old ").replace("n", "new ") for each in expected.split()
    ]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("n1", True),
        ("o1", False),
        ("o1 ?", True),
        # The first may have been issued before the new one had its session. If so, then the second,
        # which comes to the new one first, has stood for the first.
        ("o1 n1 o1", False),
        ("o1 n1 n1 o1", False),
        ("o1 n1 o1 n1", False),
        ("o1 n1 ? o2 n2", False),
        ("o1 n1 o1 ?", True),
    ],
)
def test_what_was_delivered_is_certain_once_there_was_a_moment_without_events(
    steps: str, expected: bool
) -> None:
    switch = Switch()
    switch.run(steps)
    assert switch.delivered.is_certain(time.monotonic() + 1) is expected
    switch.delivered.forget(float("inf"))
    began = time.monotonic()
    switch.run("o3 n3 o4")
    assert switch.delivered.is_certain(began)


def test_of_an_event_that_comes_again_and_again_there_is_no_moment_without() -> None:
    switch = Switch()
    switch.run("o1 n1")
    asked_at = time.monotonic()
    switch.run("n1 o1")
    switch.delivered.forget(asked_at)
    assert not switch.delivered.is_certain(asked_at)


def test_no_more_than_so_many_events_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reshardedevents, "MOST_EVEN", 2)
    switch = Switch()
    switch.run("o1 n1 o2 n2 o3 n3 o4 n4")
    assert len(switch.delivered._tallies) == 2


def test_repeats_are_counted() -> None:
    switch = Switch()
    switch.run("o1 n1 n2 o2 n3 s")
    assert switch.delivered.repeats == 2


def test_events_with_other_data_or_another_name_are_other_events() -> None:
    switch = Switch()
    switch.event("old", "MESSAGE_CREATE", {"guild_id": GUILD, "n": 1})
    switch.event("new", "MESSAGE_UPDATE", {"guild_id": GUILD, "n": 1})
    switch.event("new", "MESSAGE_CREATE", {"guild_id": OTHER, "n": 1})
    switch.event("new", "MESSAGE_CREATE", {"n": 1, "guild_id": GUILD})  # the same, in other order
    switch.run("s")
    assert switch.log == ["old 1", "new 1", "new 1"]


@pytest.mark.parametrize("data", ["9" * 5000, "[" * 100_000 + "]" * 100_000])
def test_data_that_this_json_module_cannot_read_comes_twice_rather_than_never(data: str) -> None:
    switch = Switch()
    text = f'{{"t":"X","d":{data}}}'.encode()
    for who, screen in (("old", switch.old), ("new", switch.new)):
        screen.put("X", text, lambda who=who: switch.log.append(who))  # type: ignore[misc]
        switch.read(who)
    switch.run("s")
    assert switch.log == ["old", "new"]


def test_what_an_old_shard_delivers_before_the_new_one_identifies_is_not_kept() -> None:
    """A start takes minutes, and old shards go on all the while."""
    switch = Switch()
    switch.awaited.discard(GUILD)
    assert switch.run("o1") == ["old 1"]
    switch.awaited.add(GUILD)
    assert switch.run("n1 s") == ["old 1", "new 1"]


def test_what_a_new_shard_holds_is_known_again_though_its_session_was_lost() -> None:
    switch = Switch()
    switch.run("n1")
    switch.awaited.discard(GUILD)
    assert switch.run("o1 s") == ["old 1"]


@pytest.mark.parametrize("event", ["READY", "RESUMED"])
def test_an_event_of_the_session_is_each_sessions_own(event: str) -> None:
    switch = Switch()
    switch.event("old", event, {"guilds": []})
    switch.event("new", event, {"guilds": []})
    assert switch.log == [f"old {event}"]
    switch.run("s")
    assert switch.log == [f"old {event}", f"new {event}"]


@pytest.mark.parametrize(
    ("known", "events", "expected"),
    [
        # The first GUILD_CREATE of a guild that READY lists is no news, if an old shard has it.
        ((GUILD,), ["READY", "GUILD_CREATE"], []),
        ((), ["READY", "GUILD_CREATE"], ["GUILD_CREATE"]),
        ((GUILD,), ["READY", "GUILD_CREATE", "GUILD_CREATE"], ["GUILD_CREATE"]),
        ((GUILD,), ["GUILD_CREATE"], ["GUILD_CREATE"]),
        # The bot has left the guild, and comes back.
        ((GUILD,), ["READY", "GUILD_DELETE", "GUILD_CREATE"], ["GUILD_DELETE", "GUILD_CREATE"]),
        # Another session lists it again.
        ((GUILD,), ["READY", "GUILD_CREATE", "READY", "GUILD_CREATE"], []),
    ],
)
def test_what_a_guild_create_tells(
    known: tuple[int, ...], events: list[str], expected: list[str]
) -> None:
    switch = Switch(known)
    for event in events:
        guild = {"id": str(GUILD)}
        switch.event("new", event, {"guilds": [guild]} if event == "READY" else guild)
    switch.run("s")
    assert [each for each in switch.log if each != "new READY"] == [
        f"new {each}" for each in expected
    ]


def test_guild_create_is_the_same_whatever_the_session_asked_for() -> None:
    switch = Switch()
    switch.event("old", "GUILD_CREATE", {"id": str(GUILD), "members": [1, 2]})
    switch.event("new", "GUILD_CREATE", {"id": str(GUILD), "members": []})
    switch.run("s")
    assert switch.log == ["old GUILD_CREATE"]


def test_a_guild_that_had_an_outage_is_news_as_soon_as_no_more_are_expected() -> None:
    switch = Switch()
    switch.event("new", "READY", {"guilds": [{"id": str(GUILD)}, {"id": str(OTHER)}]})
    switch.event("new", "GUILD_CREATE", {"id": str(GUILD)})
    assert not switch.new.is_complete
    switch.new.expect_no_more()
    assert switch.new.is_complete
    switch.event("new", "GUILD_CREATE", {"id": str(OTHER)})
    switch.run("s")
    assert switch.log == ["new READY", "new GUILD_CREATE"]


@pytest.mark.parametrize("guilds", [None, "x", [None], [{}], [{"id": "x"}], {"id": 1}])
def test_a_ready_without_a_list_of_guilds_lists_none(guilds: Any) -> None:
    switch = Switch()
    switch.event("new", "READY", {"guilds": guilds})
    assert switch.new.is_complete


def test_the_session_is_not_done_with_events_that_are_held() -> None:
    switch = Switch()
    assert not switch.new.is_holding
    switch.run("n1 n2")
    assert switch.new.is_holding
    switch.run("o1 o2")
    assert not switch.new.is_holding
    switch.run("n3 s")
    assert not switch.new.is_holding


def test_the_screen_goes_when_all_was_delivered() -> None:
    switch = Switch()
    switch.run("n1")
    switch.delivered.switch()
    switch.new.finish()
    assert not switch.removed
    switch.read("new")
    assert switch.log == ["new 1"]
    assert switch.removed


def test_a_reader_that_holds_too_much_waits_until_an_old_shard_has_caught_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reshardedevents, "MOST_HELD", 10)
    woken = threading.Event()
    ledger = ReshardedEvents()

    def wait(until: Any) -> None:
        wait_until(lambda: woken.is_set() and until(), what="the old shard")

    holder = Holder(
        ledger, wait=wait, wake=woken.set, is_known=lambda guild: True, remove=lambda: None
    )
    recorder = Recorder(ledger, lambda guild: True)

    def text(number: int) -> bytes:
        return json.dumps({"d": {"n": number}}).encode()

    def read() -> None:
        for number in range(20):
            holder.put("X", text(number), lambda: None)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: len(holder.queue) == 10)
    for number in range(20):
        recorder.put("X", text(number), lambda: None)
        assert len(holder.queue) <= 10
    reader.join(10)
    assert not reader.is_alive()
    assert not holder.queue
