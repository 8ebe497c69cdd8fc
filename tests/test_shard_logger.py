"""The logger of a shard: the constructor takes it, and nothing replaces it."""

from __future__ import annotations

import logging

import pytest

from tests.shards import make_shard


def test_assigning_a_logger_is_refused() -> None:
    shard = make_shard()
    assert shard.logger is logging.getLogger("shardlib.shard.0")
    given = logging.getLogger("given")
    with pytest.raises(AttributeError, match="give it to the constructor"):
        shard.logger = given  # type: ignore[misc]
    assert make_shard(logger=given).logger is given
