"""The examples of docs/testing.rst, which shows this file."""

import queue
from pathlib import Path
from typing import Any

import pytest
import requests

from shardlib import Backoff, GatewayBot, IdentifyGate, Intents, Shard, ShardManager, ShardsFailed
from shardlib.testing import LocalGateway
from tests.testing.recorded import messages, write
from tests.testing.test_ping_bot import ping_bot, say


# begin: bot
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


# end: bot


# begin: hears
def test_the_bot_hears_a_message(local_gateway: LocalGateway) -> None:
    heard: queue.Queue[str] = queue.Queue()
    with echo_bot(local_gateway.token, heard) as shard:
        shard.connect(local_gateway.url)
        shard.wait_until_ready(timeout=10)
        say(local_gateway, "hello")
        assert heard.get(timeout=10) == "hello"


# end: hears


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


# begin: command
def test_the_bot_answers_a_command(local_gateway: LocalGateway) -> None:
    application = local_gateway.world.application["id"]
    requests.post(
        f"{local_gateway.http_url}/applications/{application}/commands",
        json={"name": "ping", "description": "Answers."},
        headers={"Authorization": f"Bot {local_gateway.token}"},
        timeout=10,
    )
    with ping_bot(local_gateway.token, local_gateway.http_url) as shard:
        shard.connect(local_gateway.url)
        shard.wait_until_ready(timeout=10)
        interaction = local_gateway.invoke_command("ping")
        assert interaction.wait_for_message()["content"] == "pong"


# end: command


# begin: button
def test_the_bot_answers_a_button(local_gateway: LocalGateway) -> None:
    with ping_bot(local_gateway.token, local_gateway.http_url) as shard:
        shard.connect(local_gateway.url)
        shard.wait_until_ready(timeout=10)
        channel = next(iter(local_gateway.world.guilds.values())).text_channels[0]
        button = {"type": 2, "style": 1, "label": "Again", "custom_id": "again"}
        row: dict[str, Any] = {"type": 1, "components": [button]}
        requests.post(
            f"{local_gateway.http_url}/channels/{channel['id']}/messages",
            json={"content": "!", "components": [row]},
            headers={"Authorization": f"Bot {local_gateway.token}"},
            timeout=10,
        )
        pressed = local_gateway.use_component(channel.messages[-1], "again")
        assert pressed.wait_for_message()["content"] == "pong"


# end: button


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


# begin: shards
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


# end: shards


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "events.gz", messages(10))


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
