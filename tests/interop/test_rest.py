"""Clients that nobody here wrote use the HTTP API of the local gateway as that of Discord.

Each bot writes, edits, reacts, uploads, deletes and runs into rate limits when a user says
``!all``, and registers a command that it answers, follows up and edits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardlib.testing import Channel, GatewayInteraction, LocalGateway

from .bot import Bot, running
from .test_clients import node, python

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]


@contextmanager
def writer(library: str) -> Iterator[tuple[LocalGateway, Bot]]:
    """A gateway with the bot of a library, which has started."""
    if library == "@discordjs/rest":
        command, environment = node(library, "discordjs_writer.mjs")
    else:
        program = library.replace(".", "") + "_writer.py"
        command, environment = python(library, program)
    with LocalGateway() as gateway:
        arguments = [gateway.http_url, *([gateway.url] if library == "discord.py" else [])]
        with running(gateway, [*command, *arguments], environment) as bot:
            bot.expect("ready")
            gateway.wait_for_connection(lambda each: each.session, timeout=40)
            yield gateway, bot


def say(gateway: LocalGateway, content: str) -> Channel:
    """Let the owner of the first guild write, and return the channel."""
    guild = next(iter(gateway.world.guilds.values()))
    channel = guild.text_channels[0]
    gateway.send_message(channel["id"], guild.owner_id, content)
    return channel


def contents(interaction: GatewayInteraction) -> list[str]:
    return [message["content"] for message in interaction.messages]


@pytest.mark.parametrize("library", ["discord.py", "hikari", "@discordjs/rest"])
def test_a_bot_writes_and_answers(library: str) -> None:
    with writer(library) as (gateway, bot):
        channel = say(gateway, "!all")
        written = bot.expect("written", timeout=60)
        assert written["content"] == "bytes"
        assert written["refused"] == [400, 50035]
        said, two, reply, uploaded = channel.messages
        assert (two["content"], two["embeds"][0]["description"]) == ("two", "d")
        assert two["edited_timestamp"] is not None
        assert [each["emoji"]["name"] for each in two["reactions"]] == ["👍"]
        assert (reply["type"], reply["message_reference"]["message_id"]) == (19, said["id"])
        assert uploaded["attachments"][0]["filename"] == "a.txt"
        gateway.expect_request("POST", "/channels/{channel.id}/typing")

        added = gateway.invoke_command("add", {"a": 2, "b": 3})
        gateway.wait_until(lambda: contents(added) == ["= 5", "even more"], timeout=20)
        assert added.callback is not None and added.callback["type"] == 5
        assert gateway.unhandled == []


def test_discord_py_shows_buttons_and_a_modal() -> None:
    with writer("discord.py") as (gateway, bot):
        asked = gateway.invoke_command("ask")
        asked.wait_for_callback()
        sent = gateway.submit_modal(asked, {"name": "Ada"})
        assert sent.wait_for_message()["content"] == "Hello Ada"

        owner = next(iter(gateway.world.guilds.values())).owner_id
        message = gateway.invoke_command("buttons", {"who": owner}).wait_for_message()
        assert message["content"] == owner
        bot.expect("shown")  # before that discord.py knows of no button
        gateway.use_component(message, "go").wait_for_callback()
        assert (message["content"], message["components"]) == ("pressed", [])

        secret = gateway.invoke_command("secret")
        gateway.expect_request("DELETE", "/webhooks/*/*/messages/@original")
        assert secret.messages == []


def test_discord_py_reads_and_writes_in_private() -> None:
    with writer("discord.py") as (gateway, bot):
        gateway.rate_limits = False
        channel = say(gateway, "!all")
        more = bot.expect("more", timeout=60)
        assert more["history"] == ["", "reply"] and more["pins"] == 1
        assert channel.pins[0][0]["content"] == "two"
        (direct,) = gateway.world.direct_channels.values()
        assert [message["content"] for message in direct.messages] == ["in private"]
