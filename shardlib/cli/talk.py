"""Talk: what a person types at ``shardlib gateway`` is said to the bot, whose answers are printed.

A typed line is a message of a member in the first text channel of the first guild; one that begins
with a slash invokes a command of the bot's.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shardlib.cli.statusline import StatusLine
from shardlib.cli.terminal import clock
from shardlib.text import printable

if TYPE_CHECKING:
    from shardlib.testing import GatewayInteraction, Guild, LocalGateway
    from shardlib.testing.channel import Message

# Seconds between two attempts to read a terminal to which another program belongs at present.
_BACKGROUND_INTERVAL = 1.0

# How many commands the user may have invoked of which answers to the user alone are still printed.
_MAX_INTERACTIONS = 20

# The newest messages of the bot's of which edits are printed, too.
_MAX_ANSWERS = 40

# The flags of messages that only one user sees, and of deferred responses (Message, "Flags").
_EPHEMERAL, _LOADING = 1 << 6, 1 << 7

# By option type, how the text of an option becomes its value; other types take the text.
_VALUES: dict[int, Callable[[str], Any]] = {
    4: int,
    5: lambda text: {"true": True, "false": False}[text.lower()],
    10: float,
}
_SUBCOMMAND_TYPES = (1, 2)
_SLASH_COMMAND = 1


class Talk:
    """Reads standard input, does what the lines say, and prints the bot's answers.

    Only the main thread may make a talk.

    :param gateway: the gateway that the bot is connected to.
    :param status: where the conversation is printed.
    """

    def __init__(self, gateway: LocalGateway, status: StatusLine) -> None:
        self._gateway = gateway
        self._status = status
        self._is_heard = False
        self._heard_until = 0
        self._answers: list[_Answer] = []
        # The ids of the messages for the user alone, which are in no channel.
        self._whispered_ids: set[str] = set()
        # Replaced as a whole, because two threads use the tuple.
        self._interactions: tuple[GatewayInteraction, ...] = ()
        if hasattr(signal, "SIGTTIN"):
            # A background job that reads its terminal is stopped by this signal. If the process
            # ignores the signal, reading fails instead.
            signal.signal(signal.SIGTTIN, signal.SIG_IGN)

    def start(self) -> None:
        """Begin to read, on a thread, if there is a standard input."""
        if sys.stdin is None:
            return
        threading.Thread(target=self._read, name="talk", daemon=True).start()

    # On the thread that reads

    def _read(self) -> None:
        for line in _lines(sys.stdin.fileno()):
            if not line.strip():
                continue
            try:
                self._say(line)
            except OSError:
                return  # standard output has no reader any more, which ends the command

    def _say(self, line: str) -> None:
        try:
            guild, channel_id, user_id = self._place()
            author = guild.members[user_id]["user"]["username"]
        except ValueError as error:
            self._print(str(error), typed=line)
            return
        self._print(f"{author}: {printable(line)}", typed=line)
        if not self._gateway.sessions:
            self._print("no bot is connected that could see this")
        self._listen(channel_id)
        try:
            if line.startswith("/"):
                name, options = self._parse(line, guild.id)
                interaction = self._gateway.invoke_command(
                    name, options, channel_id=channel_id, user_id=user_id
                )
                kept = self._interactions[1 - _MAX_INTERACTIONS :]
                self._interactions = (*kept, interaction)
            else:
                self._gateway.send_message(channel_id, user_id, line)
        except ValueError as error:
            self._print(printable(str(error)))

    def _place(self) -> tuple[Guild, str, str]:
        """Return the first guild, and the ids of its first text channel and of a member.

        :raises ValueError: if there is no such guild, channel or member.
        """
        guild = next(iter(self._gateway.world.guilds.values()), None)
        if guild is None or not guild.text_channels:
            raise ValueError("the bot is in no guild with a text channel in which you could write")
        bot_id = self._gateway.world.user["id"]
        members = [guild.owner_id, *guild.members]
        user_id = next((each for each in members if each in guild.members and each != bot_id), None)
        if user_id is None:
            raise ValueError(f"{guild.name} has no member but the bot who could write")
        return guild, guild.text_channels[0]["id"], user_id

    def _parse(self, line: str, guild_id: str) -> tuple[str, dict[str, Any]]:
        """Return the name of the command that a line invokes, and the options.

        :param line: for example ``/roll sides=20`` or ``/config set key="two words"``.
        :param guild_id: the guild in which the command is invoked.
        :raises ValueError: if a word is no option, or has only one quotation mark.
        """
        try:
            name, *words = shlex.split(line[1:]) or [""]
        except ValueError as error:
            raise ValueError(
                f'{error}: write a value with spaces or quotation marks as name="two words"'
            ) from None
        scopes = (guild_id, None)
        found = [
            each
            for scope in scopes
            for each in self._gateway.commands
            if (each["name"], each["type"], each.get("guild_id")) == (name, _SLASH_COMMAND, scope)
        ]
        known = _options(found[0]) if found else {}
        options: dict[str, Any] = {}
        values = options
        for word in words:
            option, has_value, text = word.partition("=")
            if has_value:
                values[option] = _value(known.get(option, {}).get("type"), text)
            elif known.get(word, {}).get("type") in _SUBCOMMAND_TYPES:
                known = _options(known[word])
                values[word] = values = {}
            else:
                raise ValueError(f"{word!r} is no option: write options as name=value")
        return name, options

    # The bot's answers

    def _listen(self, channel_id: str) -> None:
        """Begin to print what the bot writes in the channel, with the first line that is typed."""
        if not self._is_heard:
            self._is_heard = True
            messages = self._gateway.world.channel(channel_id).messages
            self._heard_until = max((int(message["id"]) for message in messages), default=0)
            threading.Thread(
                target=self._print_answers, args=(channel_id,), name="answers", daemon=True
            ).start()

    def _print_answers(self, channel_id: str) -> None:
        while True:
            with suppress(TimeoutError):
                # An answer that comes before _say() has noted the command is found a second later.
                new = self._gateway.wait_until(lambda: self._new_texts(channel_id), 1.0)
                try:
                    for text in new:
                        self._print(text)
                except OSError:
                    return  # as in _read()

    def _new_texts(self, channel_id: str) -> list[str]:
        """Return a text for each message of the bot's that is new, or was edited.

        The caller holds the gateway's lock.
        """
        bot = self._gateway.world.user
        for message in self._new_messages(channel_id):
            if message["author"]["id"] == bot["id"]:
                self._answers.append(_Answer(message))
        del self._answers[:-_MAX_ANSWERS]
        texts = (answer.news(bot["username"]) for answer in self._answers)
        return [text for text in texts if text is not None]

    def _new_messages(self, channel_id: str) -> list[Message]:
        """Return the messages since the last call: those of the channel, and those for the user."""
        new: list[Message] = []
        messages = self._gateway.world.channel(channel_id).messages
        for message in reversed(messages):
            if int(message["id"]) <= self._heard_until:
                break
            new.insert(0, message)
        if new:
            self._heard_until = int(new[-1]["id"])
        for interaction in self._interactions:
            for message in interaction.messages:
                if message["flags"] & _EPHEMERAL and message["id"] not in self._whispered_ids:
                    self._whispered_ids.add(message["id"])
                    new.append(message)
        return new

    def _print(self, text: str, *, typed: str | None = None) -> None:
        self._status.print(f"{clock(time.time())}  {text}", in_place_of=typed)


class _Answer:
    """A message of the bot's, and what was printed of it.

    :param message: the message object, which the bot may edit.
    """

    def __init__(self, message: Message) -> None:
        self.message = message
        self._printed: str | None = None

    def news(self, name: str) -> str | None:
        """Return what is to be printed; None if that was printed, or if the bot is "thinking".

        :param name: the bot's.
        """
        message = self.message
        content = printable(message["content"])
        others = [key for key in ("embeds", "components", "attachments") if message[key]]
        if others:
            content += f"{' ' if content else ''}({', '.join(others)})"
        if message["flags"] & _LOADING or content == self._printed:
            return None
        edited = "" if self._printed is None else " (edited)"
        whom = " (to you alone)" if message["flags"] & _EPHEMERAL else ""
        self._printed = content
        return f"{name}{whom}{edited}: {content}"


def _options(command: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {option["name"]: option for option in command.get("options") or ()}


def _value(kind: int | None, text: str) -> Any:
    """Return the value of an option; its text if that is no value, which the gateway then says."""
    try:
        return _VALUES[kind or 0](text)
    except (KeyError, ValueError):
        return text


def _lines(descriptor: int) -> Iterator[str]:
    """Yield the lines of standard input, without their ends, until its end.

    The function reads without a buffer, whose lock the interpreter would wait for at its exit.

    :param descriptor: of standard input.
    """
    begun = b""
    while True:
        try:
            data = os.read(descriptor, 4096)
        except BlockingIOError:  # another program has made the terminal or the pipe non-blocking
            select.select([descriptor], [], [])
            continue
        except OSError:
            if not os.isatty(descriptor):
                return
            time.sleep(_BACKGROUND_INTERVAL)  # the terminal belongs to another job at present
            continue
        if not data:
            break
        *lines, begun = (begun + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    if begun:
        yield begun.decode(errors="replace")
