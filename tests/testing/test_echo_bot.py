"""Tests of a bot that loses its connection."""

import queue
from pathlib import Path

import pytest

from shardlib import Backoff, IdentifyGate, Intents, Shard
from shardlib.testing import LocalGateway


def echo_bot(token: str, heard: queue.Queue[str]) -> Shard:
    """The bot under test: it only remembers what it hears."""
    # Reconnecting and identifying at once keeps the tests quick.
    shard = Shard(
        token,
        Intents.all(),
        backoff=Backoff(base=0.01, cap=0.1),
        identify_gate=IdentifyGate(interval=0.01, slack=0),
    )
    shard.on("MESSAGE_CREATE")(lambda shard, message: heard.put(message["content"]))
    return shard


def say(gateway: LocalGateway, content: str) -> None:
    """Let the owner of the first guild write in its first channel."""
    guild = next(iter(gateway.world.guilds.values()))
    gateway.send_message(guild.text_channels[0]["id"], guild.owner_id, content)


def test_the_bot_hears_a_message(local_gateway: LocalGateway) -> None:
    heard: queue.Queue[str] = queue.Queue()
    with echo_bot(local_gateway.token, heard) as shard:
        shard.connect(local_gateway.url)
        shard.wait_until_ready(timeout=10)
        say(local_gateway, "hello")
        assert heard.get(timeout=10) == "hello"


# begin: reset
def test_the_bot_misses_nothing_after_a_reset(local_gateway: LocalGateway) -> None:
    heard: queue.Queue[str] = queue.Queue()
    with echo_bot(local_gateway.token, heard) as shard:
        shard.connect(local_gateway.url)
        connection = local_gateway.wait_for_connection()
        session = connection.wait_until_ready()
        connection.reset()
        connection.wait_closed()
        say(local_gateway, "you were away")
        assert heard.get(timeout=10) == "you were away"
        assert session.resumes == 1


# end: reset


# begin: expires
def test_the_bot_begins_anew_without_its_session(local_gateway: LocalGateway) -> None:
    heard: queue.Queue[str] = queue.Queue()
    with echo_bot(local_gateway.token, heard) as shard:
        shard.connect(local_gateway.url)
        connection = local_gateway.wait_for_connection()
        first = connection.wait_until_ready()
        # The bot is held off with an outage while five minutes pass, in no time.
        local_gateway.outage()
        connection.wait_closed()
        local_gateway.clock.advance(301)
        assert local_gateway.sessions == []
        local_gateway.restore()
        again = local_gateway.wait_for_connection(lambda each: each.session, timeout=15)
        assert again.session is not first
        say(local_gateway, "hello again")
        assert heard.get(timeout=10) == "hello again"


# end: expires


# begin: marker
@pytest.mark.local_gateway(guilds=10, tls=True)
def test_many_guilds_over_tls(local_gateway: LocalGateway) -> None:
    assert local_gateway.url.startswith("wss://")
    context = local_gateway.ssl_context
    with Shard(local_gateway.token, Intents.GUILDS, ssl_context=context) as shard:
        shard.connect(local_gateway.url)
        shard.wait_until_ready(timeout=10)
        assert len(local_gateway.sessions) == 1


# end: marker


# begin: replay
def test_the_bot_hears_what_was_said_that_day(recording: Path) -> None:
    heard: queue.Queue[str] = queue.Queue()
    with LocalGateway(replay=recording, speed=None) as gateway:
        with echo_bot(gateway.token, heard) as shard:
            shard.connect(gateway.url)
            assert gateway.replay is not None
            gateway.replay.wait()
            assert heard.get(timeout=10).startswith("message number 0")


# end: replay
