"""Everything at once, for a moment; ``benchmarks.chaos`` does it for as long as you like."""

from __future__ import annotations

import pytest

from benchmarks.chaos import Round


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(4))
def test_no_event_is_lost_repeated_or_out_of_order_amid_random_faults(seed: int) -> None:
    """All rows: faults of every kind at random, three threads that use the shard meanwhile."""
    figures = Round(f"suite/{seed}", seconds=3.0).run()

    assert figures.problems == []
    assert figures.received > 0
    assert sum(figures.faults.values()) > 0
