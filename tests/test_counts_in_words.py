"""Numbers in messages: "1 second", and never "1 seconds"."""

from __future__ import annotations

import pytest

from shardlib.text import count
from tests.shards import make_gateway, make_shard


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (1, "1 second"),
        (1.0, "1 second"),
        (0.9999, "1 second"),
        (0, "0 seconds"),
        (0.5, "0.5 seconds"),
        (0.0125, "0.013 seconds"),
        (10.0, "10 seconds"),
        (100_000.0, "100000 seconds"),
        (10**400, f"{10**400} seconds"),
    ],
)
def test_count_puts_the_noun_in_the_right_form(number: float, shown: str) -> None:
    assert count(number, "second") == shown


def test_the_error_of_each_wait_tells_its_timeout() -> None:
    with make_gateway() as gateway, make_shard() as shard:
        gateway.inject(instead_of="hello")
        shard.connect(gateway.url)
        with pytest.raises(TimeoutError, match="^the shard was not ready within 1 second, it is"):
            shard.wait_until_ready(1)
        with pytest.raises(TimeoutError, match="^no READY came within 0.01 seconds; the shard is"):
            shard.wait_for("READY", timeout=0.01)
        with pytest.raises(TimeoutError, match=r"not closed within 0 seconds, .*disconnect\(\)"):
            shard.join(0)
        connection = gateway.wait_for_connection()
        with pytest.raises(TimeoutError, match="^waited 0.01 seconds in vain for the end of <Gat"):
            connection.wait_closed(0.01)
