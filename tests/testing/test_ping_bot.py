"""A small bot, and tests of it."""

from typing import Any

import requests

from shardlib import Intents, Shard
from shardlib.testing import LocalGateway


def ping_bot(token: str, api: str) -> Shard:
    """The bot under test: it answers a message over HTTP, and the command /ping."""
    shard = Shard(token, Intents.all())

    @shard.on("MESSAGE_CREATE")
    def answer(shard: Shard, message: dict[str, Any]) -> None:
        if message["content"] == "!ping":
            url = f"{api}/channels/{message['channel_id']}/messages"
            headers = {"Authorization": f"Bot {token}"}
            requests.post(url, json={"content": "pong"}, headers=headers, timeout=10)

    @shard.on("INTERACTION_CREATE")
    def respond(shard: Shard, interaction: dict[str, Any]) -> None:
        url = f"{api}/interactions/{interaction['id']}/{interaction['token']}/callback"
        requests.post(url, json={"type": 4, "data": {"content": "pong"}}, timeout=10)

    return shard


def say(gateway: LocalGateway, content: str) -> None:
    """Let the owner of the first guild write in its first channel."""
    guild = next(iter(gateway.world.guilds.values()))
    gateway.send_message(guild.text_channels[0]["id"], guild.owner_id, content)


def test_the_bot_answers_a_ping(local_gateway: LocalGateway) -> None:
    with ping_bot(local_gateway.token, local_gateway.http_url) as shard:
        shard.connect(local_gateway.url)
        shard.wait_until_ready(timeout=10)
        say(local_gateway, "!ping")
        request = local_gateway.expect_request("POST", "/channels/{channel.id}/messages")
        assert request.json == {"content": "pong"}
        channel = local_gateway.world.channel(request.path.split("/")[2])
        assert [message["content"] for message in channel.messages] == ["!ping", "pong"]


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
