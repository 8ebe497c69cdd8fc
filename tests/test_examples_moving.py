"""The examples of the pages on moving from other libraries: the bot there, and the bot here.

Both are used in the same way. What a bot that is written by hand with WebSocketApp does when
something goes wrong, which docs/moving-websocketapp.rst tells, is tested beside what shardlib does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardlib.testing import Channel, GatewayConnection, LocalGateway
from tests.examples import PATIENCE, ROOT, Example
from tests.interop.install import DIRECTORY
from tests.support import wait_until

HEARTBEAT, IDENTIFY, RESUME = 1, 2, 6
BY_HAND, WITH_SHARDLIB = "websocketapp_before.py", "websocketapp_after.py"


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> Iterator[LocalGateway]:
    """A gateway whose heartbeats are as far apart as Discord's, unless a test parametrizes it."""
    heartbeat_interval = getattr(request, "param", 41_250)
    with LocalGateway(identify_interval=0, heartbeat_interval=heartbeat_interval) as gateway:
        yield gateway


beating = pytest.mark.parametrize("gateway", [1000], indirect=True, ids=["1 s"])


def run(gateway: LocalGateway, name: str, **environment: str) -> Example:
    own = {"DISCORD_API": gateway.http_url, "NO_PROXY": "127.0.0.1"}
    return Example(gateway, f"moving/{name}", **own, **environment)


def connected(gateway: LocalGateway) -> GatewayConnection:
    return gateway.wait_for_connection(lambda connection: connection.session, PATIENCE)


def first_channel(gateway: LocalGateway) -> Channel:
    return next(iter(gateway.world.guilds.values())).text_channels[0]


def say(gateway: LocalGateway, content: str) -> None:
    """Let the owner of the first guild write in its first channel."""
    channel = first_channel(gateway)
    gateway.send_message(channel["id"], gateway.world.guilds[channel["guild_id"]].owner_id, content)


def answers(gateway: LocalGateway) -> list[str]:
    """What the bot has written there."""
    own = gateway.world.user["id"]
    messages = first_channel(gateway).messages
    return [each["content"] for each in messages if each["author"]["id"] == own]


def opcodes(connection: GatewayConnection) -> list[int]:
    return [each["op"] for each in list(connection.received)]


# WebSocketApp


@beating
@pytest.mark.parametrize("name", [BY_HAND, WITH_SHARDLIB])
def test_both_bots_print_messages(gateway: LocalGateway, name: str) -> None:
    with run(gateway, name) as bot:
        connection = connected(gateway)
        bot.wait_for("logged in as local-bot")
        say(gateway, "hello")
        bot.wait_for("wrote: hello")
        wait_until(lambda: HEARTBEAT in opcodes(connection), PATIENCE)


@pytest.mark.parametrize("name", [BY_HAND, WITH_SHARDLIB])
def test_only_shardlib_gets_what_was_said_while_it_was_away(
    gateway: LocalGateway, name: str
) -> None:
    with run(gateway, name) as bot:
        connection = connected(gateway)
        bot.wait_for("logged in")
        connection.reset()
        connection.wait_closed()
        say(gateway, "you were away")
        again = connected(gateway)
        wait_until(lambda: {IDENTIFY, RESUME} & {*opcodes(again)}, PATIENCE)
        say(gateway, "welcome back")
        bot.wait_for("welcome back")
        by_hand = name == BY_HAND
        assert (IDENTIFY if by_hand else RESUME) in opcodes(again)
        assert any("you were away" in line for line in list(bot.lines)) is not by_hand


@beating
@pytest.mark.parametrize("name", [BY_HAND, WITH_SHARDLIB])
def test_only_shardlib_leaves_a_connection_without_acknowledgements(
    gateway: LocalGateway, name: str
) -> None:
    with run(gateway, name) as bot:
        connection = connected(gateway)
        bot.wait_for("logged in")
        connection.acknowledge = False
        if name == WITH_SHARDLIB:
            assert connected(gateway) is not connection
        else:
            before = opcodes(connection).count(HEARTBEAT)
            wait_until(lambda: opcodes(connection).count(HEARTBEAT) >= before + 3, PATIENCE)
            assert gateway.connections == [connection]


@beating
@pytest.mark.parametrize("name", [BY_HAND, WITH_SHARDLIB])
def test_only_shardlib_begins_anew_after_an_invalid_session(
    gateway: LocalGateway, name: str
) -> None:
    with run(gateway, name) as bot:
        connection = connected(gateway)
        bot.wait_for("logged in")
        connection.invalid_session()
        if name == WITH_SHARDLIB:
            connected(gateway)
            say(gateway, "anybody there?")
            bot.wait_for("anybody there?")
        else:
            before = opcodes(connection).count(HEARTBEAT)
            wait_until(lambda: opcodes(connection).count(HEARTBEAT) >= before + 3, PATIENCE)
            say(gateway, "anybody there?")
            assert opcodes(connection).count(IDENTIFY) == 1
            assert (gateway.sessions, gateway.connections) == ([], [connection])


@pytest.mark.parametrize("gateway", [3000], indirect=True, ids=["3 s"])
@pytest.mark.parametrize("name", [BY_HAND, WITH_SHARDLIB])
def test_only_shardlib_keeps_the_pace_of_hello_after_reconnecting(
    gateway: LocalGateway, name: str
) -> None:
    with run(gateway, name):
        connection = connected(gateway)
        # The bot by hand is back before its next heartbeat, so that its thread survives.
        connection.expect(HEARTBEAT, PATIENCE)
        connection.reset()
        again = connected(gateway)
        beats = [again.expect(HEARTBEAT, PATIENCE).time for _ in range(5)]
        # The first heartbeat comes early. Two threads beat twice within an interval.
        pace = (beats[4] - beats[2]) / 2
        assert (pace < 2.25) is (name == BY_HAND)


@pytest.mark.parametrize("name", [BY_HAND, WITH_SHARDLIB])
def test_only_shardlib_ends_if_the_token_is_wrong(gateway: LocalGateway, name: str) -> None:
    with run(gateway, name, DISCORD_TOKEN="wrong") as bot:
        if name == WITH_SHARDLIB:
            assert bot.process.wait(PATIENCE) == 1
            bot.wait_for("AuthenticationFailed")
            assert len(gateway.all_connections) == 1
        else:
            wait_until(lambda: len(gateway.all_connections) >= 3, PATIENCE)
            assert IDENTIFY in opcodes(gateway.all_connections[1])


# discord.py


@pytest.mark.parametrize("name", ["discordpy_before.py", "discordpy_after.py"])
def test_both_bots_ask_a_riddle_and_show_in_how_many_servers_they_are(
    gateway: LocalGateway, name: str, tmp_path: Path
) -> None:
    environment = {}
    if name == "discordpy_before.py":
        # Python runs this file first. It says where Discord is.
        (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
        path = [str(tmp_path), str(ROOT), str(DIRECTORY / "discord.py")]
        environment["PYTHONPATH"] = os.pathsep.join(path)
        # It may be installed for another version of Python, which this one cannot import.
        variables = {**os.environ, "PYTHONPATH": path[-1]}
        trial = [sys.executable, "-c", "import discord"]
        if subprocess.run(trial, env=variables, capture_output=True).returncode:
            pytest.skip("discord.py is not installed for this Python")
    with run(gateway, name, **environment) as bot:
        connection = connected(gateway)
        bot.wait_for("logged in as local-bot")
        presence = connection.expect(3, PATIENCE)["d"]["activities"][0]
        assert (presence["type"], presence["state"]) == (4, "in 3 servers")
        say(gateway, "!riddle")
        question = "What has keys, and opens no door?"
        wait_until(lambda: answers(gateway) == [question], PATIENCE)
        # Neither bot hears an answer that comes before its wait_for().
        pause = threading.Event()
        while len(answers(gateway)) == 1:
            say(gateway, "A piano?")
            pause.wait(0.5)
        assert answers(gateway) == [question, "Right!"]


SITECUSTOMIZE = """
import os
import yarl
from discord import gateway, http

http.Route.BASE = os.environ["DISCORD_API"]
gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["DISCORD_GATEWAY"])
"""


# disco


def greet(gateway: LocalGateway, bot: Example) -> None:
    connected(gateway)
    say(gateway, f"<@{gateway.world.user['id']}> hello Ada")
    wait_until(lambda: answers(gateway) == ["Hello, Ada!"], PATIENCE, str(bot.lines))
    bot.wait_for("wrote: ")


def test_our_bot_answers_what_the_plugin_of_disco_does(gateway: LocalGateway) -> None:
    with run(gateway, "disco_after.py") as bot:
        greet(gateway, bot)
        say(gateway, "hello Ada")
        assert bot.interrupt() == 0
    assert answers(gateway) == ["Hello, Ada!"]
