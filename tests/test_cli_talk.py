"""What is typed at ``shardlib gateway`` reaches the bot, and the bot's answers are printed."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from shardlib import Intents, Shard
from tests.command import PATIENCE, ROOT, Command, own_environment, run_to_end, wait_for
from tests.pseudoterminal import PseudoTerminal
from tests.support import TOKEN, wait_until
from tests.testing.recorded import QUIET

GATEWAY = ("gateway", "--rate", "0", "--token", TOKEN)

COMMANDS: list[dict[str, Any]] = [
    {"name": "ping", "type": 1, "description": "Answers."},
    {
        "name": "roll",
        "type": 1,
        "description": "Rolls.",
        "options": [
            {"name": "sides", "type": 4, "description": "How many.", "required": True},
            {"name": "loud", "type": 5, "description": "Whether."},
            {"name": "note", "type": 3, "description": "What for."},
        ],
    },
    {
        "name": "config",
        "type": 1,
        "description": "Settings.",
        "options": [
            {
                "name": "set",
                "type": 1,
                "description": "Sets.",
                "options": [{"name": "key", "type": 3, "description": "Which.", "required": True}],
            }
        ],
    },
]


@contextlib.contextmanager
def bot(url: str, api: str, printed: threading.Event | None = None) -> Iterator[Shard]:
    """A bot that answers ``!ping``, tells the options of its commands, and whispers at /ping.

    :param printed: set once the answer to /config was printed, which the bot then edits.
    """
    http = requests.Session()
    http.headers["Authorization"] = f"Bot {TOKEN}"
    http.trust_env = False
    intents = Intents.GUILDS | Intents.GUILD_MESSAGES | Intents.MESSAGE_CONTENT
    shard = Shard(TOKEN, intents, logger=QUIET)

    @shard.on("READY")
    def ready(shard: Shard, data: dict[str, Any]) -> None:
        application = data["application"]["id"]
        http.put(f"{api}/applications/{application}/commands", json=COMMANDS).raise_for_status()

    @shard.on("MESSAGE_CREATE")
    def message(shard: Shard, data: dict[str, Any]) -> None:
        if data["content"].startswith("!"):
            channel = f"{api}/channels/{data['channel_id']}/messages"
            http.post(channel, json={"content": "pong\n\x1b[2J"}).raise_for_status()

    @shard.on("INTERACTION_CREATE")
    def interaction(shard: Shard, data: dict[str, Any]) -> None:
        command = data["data"]
        whispers = command["name"] == "ping"
        answer = {
            "content": f"{command['name']} {command.get('options')}",
            "flags": 64 if whispers else 0,
        }
        url = f"{api}/interactions/{data['id']}/{data['token']}/callback"
        http.post(url, json={"type": 4, "data": answer}).raise_for_status()

        if command["name"] == "config" and printed is not None and printed.wait(PATIENCE):
            response = f"{api}/webhooks/{data['application_id']}/{data['token']}/messages/@original"
            http.patch(response, json={"content": "configured"}).raise_for_status()

    shard.start(url)
    shard.wait_until_ready(PATIENCE)
    try:
        yield shard
    finally:
        shard.disconnect()
        http.close()


def addresses(lines: list[str]) -> tuple[str, str]:
    return wait_for(lines, "Gateway ").split()[1], wait_for(lines, "HTTP API ").split()[2]


def say(command: Command, line: str) -> None:
    assert command.process.stdin is not None
    command.process.stdin.write(f"{line}\n".encode())
    command.process.stdin.flush()


def test_a_line_of_a_pipe_is_written_by_a_member_and_answered() -> None:
    with Command(*GATEWAY, stdin=subprocess.PIPE) as command:
        command.read()
        with bot(*addresses(command.out)):
            say(command, "!ping")
            asked = wait_for(command.out, ": !ping")
            assert re.fullmatch(r"\d\d:\d\d:\d\d  [a-z]+\.\d+: !ping", asked)
            answered = wait_for(command.out, "local-bot: ")
            assert answered.endswith("local-bot: pong\\n\\x1b[2J")
            assert command.process.stdin is not None
            command.process.stdin.close()  # which ends nothing
            wait_for(command.out, "sessions 1")
        wait_for(command.out, "sessions 0")
        command.interrupt()
        assert command.finish() == 0


def test_a_line_with_a_slash_invokes_a_command() -> None:
    printed = threading.Event()
    with Command(*GATEWAY, stdin=subprocess.PIPE) as command:
        command.read()
        with bot(*addresses(command.out), printed):
            wait_until(lambda: try_ping(command), PATIENCE, "the commands")
            say(command, "/roll sides=20 loud=true note='two words'")
            told = wait_for(command.out, "local-bot: roll ")
            for name, value in (("sides", 20), ("loud", True), ("note", "two words")):
                assert f"'name': '{name}'" in told
                assert f"'value': {value!r}" in told
            say(command, "/config set key=x")
            assert "'name': 'key'" in wait_for(command.out, "local-bot: config ")
            printed.set()
            wait_for(command.out, "local-bot (edited): configured")


def try_ping(command: Command) -> bool:
    """Invoke /ping; true once the bot has registered the command, and has answered."""
    say(command, "/ping")
    return any("local-bot (to you alone): ping None" in line for line in list(command.out))


# What a user types, and what the gateway says to it.
MISTAKES = {
    "/nothing": "the bot has registered no /nothing there; it has registered /",
    "/": "the bot has registered no / there",
    "/roll sides=many": "the option 'sides' of /roll must be a whole number, not 'many'",
    "/roll": "/roll needs the option 'sides'",
    "/roll sides": "'sides' is no option: write options as name=value",
    "/roll 'sides": "No closing quotation: write a value with spaces or quotation marks as",
}


def test_what_a_user_could_not_do_is_told_in_one_line() -> None:
    with Command(*GATEWAY, stdin=subprocess.PIPE) as command:
        command.read()
        with bot(*addresses(command.out)):
            wait_until(lambda: try_ping(command), PATIENCE, "the commands")
            for line, told in MISTAKES.items():
                say(command, line)
                wait_for(command.out, told)
        assert command.process.poll() is None


def test_without_a_bot_or_a_guild_this_is_told() -> None:
    with Command(*GATEWAY, stdin=subprocess.PIPE) as command:
        command.read()
        say(command, "hello")
        wait_for(command.out, "no bot is connected that could see this")
    with Command(*GATEWAY, "--guilds", "0", stdin=subprocess.PIPE) as command:
        command.read()
        say(command, "hello")
        wait_for(command.out, "the bot is in no guild")


def test_a_closed_standard_input_ends_nothing() -> None:
    shell = 'exec "$@" <&-'
    arguments = ["sh", "-c", shell, "sh", sys.executable, "-m", "shardlib", *GATEWAY]
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=own_environment(), stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert any("connections 0" in line for line in process.stdout)
        process.terminate()
        assert process.wait(PATIENCE) == 0


# In a terminal


def test_an_answer_in_a_terminal_stands_before_the_status(terminal: PseudoTerminal) -> None:
    terminal.resize(100, 30)
    with Command(
        *GATEWAY,
        stdin=terminal.follower,
        stdout=terminal.follower,
        environment={"TERM": "xterm"},
    ):
        terminal.read_until(b"connections 0")
        assert b"Type a message to the bot" in terminal.text
        with bot(*addresses(terminal.lines(100))):
            terminal.read_until(b"sessions 1")
            terminal.type("!ping\n")
            terminal.read_until(b"local-bot: pong")
            renewed = len(re.findall(rb"\x1b8", terminal.text))
            wait_until(
                lambda: (
                    terminal.read_some() and len(re.findall(rb"\x1b8", terminal.text)) > renewed + 1
                ),
                PATIENCE,
                "a renewed status",
            )
        lines = [line.rstrip() for line in terminal.lines(100)]
        asked = next(index for index, line in enumerate(lines) if line.endswith(": !ping"))
        assert "local-bot: pong" in lines[asked + 1]
        assert "connections 1" in lines[asked + 2]
        assert lines[asked + 3 :] == [""]
        assert "!ping" not in lines  # the text that was typed has become the message


# The leader of a session, whose terminal is standard input. The leader starts the command in the
# background, and moves the command into the foreground when the test says so.
LEADER = """
import fcntl, os, signal, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
command = subprocess.Popen(sys.argv[2:], preexec_fn=os.setpgrp)
os.read(int(sys.argv[1]), 1)
os.tcsetpgrp(0, command.pid)
os.read(int(sys.argv[1]), 1)
command.kill()
command.wait()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no jobs")
def test_a_job_in_the_background_is_not_stopped_and_reads_in_the_foreground(
    terminal: PseudoTerminal,
) -> None:
    reader, writer = os.pipe()
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER, str(reader), sys.executable, "-m", "shardlib", *GATEWAY],
        cwd=ROOT,
        env=own_environment(),
        stdin=terminal.follower,
        stdout=subprocess.PIPE,
        pass_fds=[reader],
        start_new_session=True,
        text=True,
    )
    assert leader.stdout is not None
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.extend(leader.stdout or ()))
    thread.start()
    try:
        url, _ = addresses(lines)
        assert run_to_end("tail", "--url", url, "--count", "1", token=TOKEN).status == 0
        os.write(writer, b"f")
        terminal.type("hello\n")
        wait_for(lines, ": hello")
    finally:
        os.close(writer)  # which ends the leader, wherever it is
        leader.wait(PATIENCE)
        thread.join(PATIENCE)
        leader.stdout.close()
        os.close(reader)
