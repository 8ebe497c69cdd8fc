"""The programs of docs/start.rst, run against a local gateway."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shardlib.testing import Channel, LocalGateway
from tests.examples import PATIENCE, ROOT, Example, WindowExample
from tests.support import wait_until
from tests.windows import needs_display

START = ROOT / "examples" / "start"


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(identify_interval=0) as gateway:
        yield gateway


def environment(gateway: LocalGateway) -> dict[str, str]:
    """What the programs need: the HTTP API, and no proxy in its way."""
    return {"DISCORD_API": gateway.http_url, "NO_PROXY": "127.0.0.1"}


def ask(gateway: LocalGateway, *questions: str) -> Channel:
    """Have the owner of a guild write in a channel, once the bot is ready."""
    gateway.wait_for_connection(lambda connection: connection.session, PATIENCE)
    guild = next(iter(gateway.world.guilds.values()))
    channel = guild.text_channels[0]
    for question in questions:
        gateway.send_message(channel["id"], guild.owner_id, question)
    return channel


def answers(channel: Channel) -> list[str]:
    contents = [str(message["content"]) for message in channel.messages]
    return [content for content in contents if content.startswith("I don't know, ")]


def test_the_bot_answers_questions_only_and_ends_with_sigterm(gateway: LocalGateway) -> None:
    with Example(gateway, "start/questions.py", **environment(gateway)) as bot:
        bot.wait_for("logged in as local-bot")
        channel = ask(gateway, "Good morning.", "Has the build passed?")
        wait_until(lambda: answers(channel), PATIENCE, str(bot.lines))
        bot.wait_for("local-bot: I don't know, ")
        bot.process.terminate()
        assert bot.process.wait(PATIENCE) == 0
    assert len(answers(channel)) == 1
    assert not any("Traceback" in line for line in bot.lines)
    assert gateway.all_connections[0].wait_closed(PATIENCE) == 1000


def test_the_bot_asks_for_a_token_that_is_missing() -> None:
    bot = START / "questions.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DISCORD_TOKEN", None)
    run = subprocess.run(
        [sys.executable, bot], env=environment, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    assert run.returncode == 1
    assert run.stderr == "Set the environment variable DISCORD_TOKEN to the bot's token.\n"


def test_closing_the_window_ends_the_bot_that_answers_in_it(
    gateway: LocalGateway, display: str | None
) -> None:
    variables = environment(gateway) | {"DISPLAY": needs_display(display)}
    with WindowExample(gateway, "start/window.py", **variables) as window:
        channel = ask(gateway, "Good morning.", "Has the build passed?", "Who made the tea?")
        wait_until(lambda: len(answers(channel)) == 2, PATIENCE, str(window.lines))
        window.take_picture("start_window.png")
        status, _ = window.close_window()
    assert status == 0
    assert not any("Traceback" in line for line in window.lines)
    assert gateway.all_connections[0].wait_closed(PATIENCE) == 1000


def test_ctrl_c_ends_the_bot_with_its_window(gateway: LocalGateway, display: str | None) -> None:
    variables = environment(gateway) | {"DISPLAY": needs_display(display)}
    with Example(gateway, "start/window.py", **variables) as window:
        window.wait_for("logged in as local-bot")
        assert window.interrupt() == 0
    assert not any("Traceback" in line for line in window.lines)
    assert gateway.all_connections[0].wait_closed(PATIENCE) == 1000


def test_the_test_of_the_bot_passes(gateway: LocalGateway) -> None:
    arguments = ("-q", "-c", "/dev/null", "--rootdir", str(START), str(START))
    with Example(gateway, "-m", "pytest", *arguments, **environment(gateway)) as run:
        assert run.process.wait(PATIENCE * 2) == 0, run.lines
    run.wait_for("1 passed")


def test_the_unit_of_systemd_runs_the_bot() -> None:
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(START / "questions.service")
    program = unit["Service"]["ExecStart"].split()[1]
    assert (START / program.rpartition("/")[2]).is_file()
