"""A test of a bot of four shards, of which one is refused."""

import pytest

from shardlib import GatewayBot, IdentifyGate, Intents, ShardManager, ShardsFailed
from shardlib.testing import LocalGateway


def test_the_others_go_on_when_one_shard_is_refused() -> None:
    with LocalGateway(shards=4, max_concurrency=4, identify_interval=0) as gateway:
        gateway.inject(lambda each: each.close(4011), instead_of="ready", shard_id=3)
        bot = ShardManager(
            gateway.token,
            Intents.default(),
            gateway_bot=GatewayBot(gateway.url, 4, 1000, 1000, 0.0, max_concurrency=4),
            identify_gate=IdentifyGate(4, interval=0.001, slack=0),
        )
        with bot:
            bot.connect()
            with pytest.raises(ShardsFailed) as failed:
                bot.wait_until_ready(timeout=10)
            assert list(failed.value.errors) == [3]
            bot.restart([3], timeout=10)
            bot.wait_until_ready(timeout=10)
