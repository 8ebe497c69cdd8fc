"""Random faults, for three seconds; ``benchmarks.chaos`` goes on for as long as it is told."""

from __future__ import annotations

import pytest

from benchmarks.chaos import DISPATCHERS, ManagerRound, Round


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("seed", "dispatcher"),
    [*((seed, "reader") for seed in range(4)), *enumerate(DISPATCHERS, start=4)],
)
def test_no_event_is_lost_repeated_or_out_of_order_amid_random_faults(
    seed: int, dispatcher: str
) -> None:
    """All rows: faults of every kind at random, while three threads use the shard."""
    figures = Round(f"suite/{seed}", seconds=3.0, dispatcher=dispatcher).run()

    assert figures.problems == []
    assert figures.without_connection
    assert min(figures.without_connection) > 0
    assert figures.received > 0
    assert sum(figures.faults.values()) > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "dispatcher"), [(0, "reader"), (1, "worker")])
def test_no_shard_of_eight_loses_repeats_or_mixes_up_an_event(seed: int, dispatcher: str) -> None:
    """All rows: faults at random on eight shards, while three threads use their manager."""
    figures = ManagerRound(f"suite/{seed}", 3.0, dispatcher, shards=8).run()

    assert figures.problems == []
    assert figures.received > 0
    assert sum(figures.faults.values()) > 0
