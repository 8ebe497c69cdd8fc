from __future__ import annotations

import ujson

from shardlib.identity import Identity
from tests.support import TOKEN


def test_a_token_is_hidden_also_if_the_text_ends_in_the_middle_of_it() -> None:
    """A peer that repeats the token may be cut off, or cut what it says off."""
    identity = Identity(
        token=TOKEN,
        intents=0,
        shard_id=0,
        shard_count=1,
        properties=None,
        large_threshold=None,
        compress=False,
        json=ujson,
    )
    assert identity.hide_token(f"it said {TOKEN}.") == "it said ***."
    for length in range(8, len(TOKEN)):
        assert identity.hide_token(f"it said {TOKEN[:length]}") == "it said ***"
    assert identity.hide_token("it said nothing") == "it said nothing"
