"""The examples of docs/answering.rst and docs/slash-commands.rst, run against a local gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shardlib.testing import Channel, LocalGateway
from tests.examples import PATIENCE, ROOT, Example, WatchedExample
from tests.support import wait_until

ANSWERING = ["answer_requests.py", "answer_httpx.py", "answer_urllib.py"]
NEW_MESSAGE: dict[str, Any] = {"method": "POST", "path": "/channels/{channel.id}/messages"}


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(identify_interval=0) as gateway:
        yield gateway


def run(gateway: LocalGateway, name: str) -> WatchedExample:
    """Start an example, which gets no proxy in its way."""
    return WatchedExample(gateway, name, DISCORD_API=gateway.http_url, NO_PROXY="127.0.0.1")


def connected(gateway: LocalGateway) -> None:
    gateway.wait_for_connection(lambda connection: connection.session, PATIENCE)


def text_channels(gateway: LocalGateway) -> list[Channel]:
    return next(iter(gateway.world.guilds.values())).text_channels


def say(gateway: LocalGateway, channel: Channel, content: str) -> None:
    """Let the owner of the guild write in a channel."""
    gateway.send_message(channel["id"], gateway.world.guilds[channel["guild_id"]].owner_id, content)


def answers(gateway: LocalGateway, channel: Channel) -> list[str]:
    """What the bot has written in a channel."""
    own = gateway.world.user["id"]
    return [each["content"] for each in channel.messages if each["author"]["id"] == own]


@pytest.mark.parametrize("name", ANSWERING)
def test_six_pings_in_a_burst_are_all_answered(gateway: LocalGateway, name: str) -> None:
    channel = text_channels(gateway)[0]
    with run(gateway, name) as bot:
        connected(gateway)
        say(gateway, channel, "hello")
        for _ in range(6):
            say(gateway, channel, "!ping")
        wait_until(lambda: len(answers(gateway, channel)) == 6, PATIENCE, str(bot.lines))
        assert bot.interrupt() == 0
    assert answers(gateway, channel) == ["pong"] * 6
    assert [request.status for request in gateway.requests] == [200] * 5 + [429, 200]
    assert all(each.headers["user-agent"].startswith("DiscordBot (") for each in gateway.requests)
    # The log may tell that the wait was long.
    assert not any("Traceback" in line for line in bot.lines)


@pytest.mark.parametrize("name", ANSWERING)
def test_a_global_limit_holds_back_all_channels_while_the_shard_reads_on(
    gateway: LocalGateway, name: str
) -> None:
    limited = {"Retry-After": "1", "X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"}
    gateway.inject(
        lambda it: it.refuse(429, "error code: 1015", limited), instead_of="answer", **NEW_MESSAGE
    )
    first, second = text_channels(gateway)[:2]
    with run(gateway, name):
        connected(gateway)
        say(gateway, first, "!ping")
        refused = gateway.expect_request(**NEW_MESSAGE, timeout=PATIENCE)
        say(gateway, second, "!ping")
        again = gateway.expect_request(**NEW_MESSAGE, timeout=PATIENCE)
        later = gateway.expect_request(**NEW_MESSAGE, timeout=PATIENCE)
        wait_until(lambda: answers(gateway, second) == ["pong"], PATIENCE)
    assert first["id"] in again.path and second["id"] in later.path
    assert again.received_at - refused.received_at >= 1


@pytest.mark.parametrize("name", ANSWERING)
def test_what_discord_says_of_an_error_is_in_the_log(gateway: LocalGateway, name: str) -> None:
    body = '{"message": "Missing Permissions", "code": 50013}'
    gateway.inject(lambda it: it.refuse(403, body), instead_of="answer", **NEW_MESSAGE)
    channel = text_channels(gateway)[0]
    with run(gateway, name) as bot:
        connected(gateway)
        say(gateway, channel, "!ping")
        bot.wait_for(f"Discord says 403: {body}")
        say(gateway, channel, "!ping")
        wait_until(lambda: answers(gateway, channel) == ["pong"], PATIENCE)
        assert bot.interrupt() == 0
    assert not any(gateway.token in line for line in bot.lines)


def test_a_bot_that_waits_for_a_limit_ends_at_ctrl_c(gateway: LocalGateway) -> None:
    gateway.inject(
        lambda it: it.refuse(429, "", {"Retry-After": "3600"}), instead_of="answer", **NEW_MESSAGE
    )
    with run(gateway, "answer_requests.py") as bot:
        connected(gateway)
        say(gateway, text_channels(gateway)[0], "!ping")
        gateway.expect_request(**NEW_MESSAGE, timeout=PATIENCE)
        assert bot.interrupt() == 0


def test_a_slash_command_and_its_button_are_answered(gateway: LocalGateway) -> None:
    with run(gateway, "slash_commands.py") as bot:
        connected(gateway)
        message = gateway.invoke_command("ping").wait_for_message(PATIENCE)
        assert message["content"] == "pong"
        gateway.use_component(message, "again").wait_for_callback(PATIENCE)
        wait_until(lambda: message["content"] == "pong again", PATIENCE)
        gateway.use_component(message, "again").wait_for_callback(PATIENCE)
        assert bot.interrupt() == 0
    assert bot.lines == ["logged in as local-bot\n"]
    assert gateway.unhandled == []


def test_slow_commands_are_deferred_though_others_are_at_work(gateway: LocalGateway) -> None:
    with run(gateway, "slash_commands.py") as bot:
        connected(gateway)
        slow = [gateway.invoke_command("count", {"to": 2}) for _ in range(3)]
        assert [each.wait_for_callback(PATIENCE)["type"] for each in slow] == [5, 5, 5]
        assert gateway.invoke_command("ping").wait_for_message(PATIENCE)["content"] == "pong"
        for each in slow:
            original, last = each.wait_for_messages(2, PATIENCE)
            assert (original["content"], last["content"]) == ("2", "That was all.")
            assert last["flags"] == 64
        assert bot.interrupt() == 0
    assert bot.lines == ["logged in as local-bot\n"]


def test_the_tests_of_the_documentation_pass(gateway: LocalGateway) -> None:
    examples = ROOT / "examples"
    arguments = ("-q", "-c", "/dev/null", "--rootdir", str(examples))
    with Example(gateway, "-m", "pytest", *arguments, str(examples / "test_programs.py")) as run:
        assert run.process.wait(PATIENCE * 2) == 0, run.lines
    run.wait_for("3 passed")
