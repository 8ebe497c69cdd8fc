"""The thread that renews what would expire."""

from __future__ import annotations

import threading
import time

from shardlib.fleet.keeper import Keeper


def test_join_waits_for_the_call_that_is_under_way() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    keeper = Keeper(call, 0.001, "keeper")
    keeper.start()
    assert begun.wait(10)
    keeper.stop()
    keeper.join(0.01)
    assert not ended.is_set()
    threading.Timer(0.05, go_on.set).start()
    keeper.join(10)
    assert ended.is_set()


def test_join_right_after_start_waits_for_a_thread_that_is_about_to_start() -> None:
    for _ in range(100):
        keeper = Keeper(lambda: None, 10, "keeper")
        keeper.start()
        keeper.stop()
        began = time.monotonic()
        keeper.join(10)
        assert time.monotonic() - began < 5


def test_join_of_a_keeper_that_was_never_started_returns_at_once() -> None:
    Keeper(lambda: None, 10, "keeper").join(10)
