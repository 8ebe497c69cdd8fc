"""A test of a consumer of a fleet."""

from collections.abc import Iterator

import pytest

from shardlib import Intents
from shardlib.fleet import Fleet
from shardlib.testing import LocalGateway


@pytest.fixture
def fleet(local_gateway: LocalGateway, redis_url: str) -> Iterator[Fleet]:
    with Fleet(redis_url, "test", lease=1.0) as fleet:
        fleet.init(1, identify_interval=0.01)
        worker = fleet.worker(local_gateway.token, Intents.all())
        worker.start(local_gateway.url)
        yield fleet
        worker.stop()


def test_a_consumer_gets_a_message(local_gateway: LocalGateway, fleet: Fleet) -> None:
    with fleet.consumer("test", events={"READY", "MESSAGE_CREATE"}) as consumer:
        ready = consumer.get(timeout=20)
        assert ready is not None and ready.name == "READY"
        guild = next(iter(local_gateway.world.guilds.values()))
        local_gateway.send_message(guild.text_channels[0]["id"], guild.owner_id, "hello")
        message = consumer.get(timeout=20)
        assert message is not None and message.data["content"] == "hello"
