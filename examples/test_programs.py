"""Tests bots that are programs, in any language. python -m pytest test_programs.py"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from shardlib.testing import LocalGateway

FOLDER = Path(__file__).parent


@contextlib.contextmanager
def running(program: str, gateway: LocalGateway) -> Iterator[None]:
    """Run a bot of this file's folder, which is ready inside the block."""
    urls = {"DISCORD_GATEWAY": gateway.url, "DISCORD_API": gateway.http_url}
    environment = {**os.environ, **urls, "DISCORD_TOKEN": gateway.token}
    with subprocess.Popen([sys.executable, FOLDER / program], env=environment) as bot:
        try:
            gateway.wait_for_connection(lambda connection: connection.session, timeout=20)
            yield
        finally:
            bot.terminate()


def test_the_bot_answers_a_ping(local_gateway: LocalGateway) -> None:
    guild = next(iter(local_gateway.world.guilds.values()))
    channel = guild.text_channels[0]
    with running("answer_requests.py", local_gateway):
        local_gateway.send_message(channel["id"], guild.owner_id, "!ping")
        local_gateway.expect_request("POST", f"/channels/{channel['id']}/messages")
    assert [message["content"] for message in channel.messages] == ["!ping", "pong"]


def test_the_bot_answers_a_command_and_its_button(local_gateway: LocalGateway) -> None:
    with running("slash_commands.py", local_gateway):
        message = local_gateway.invoke_command("ping").wait_for_message()
        assert message["content"] == "pong"
        local_gateway.use_component(message, "again")
        local_gateway.wait_until(lambda: message["content"] == "pong again")


def test_the_bot_counts_as_far_as_the_option_says(local_gateway: LocalGateway) -> None:
    with running("slash_commands.py", local_gateway):
        interaction = local_gateway.invoke_command("count", {"to": 2})
        counted, last = interaction.wait_for_messages(2)
        assert (counted["content"], last["content"]) == ("2", "That was all.")
