"""The program ``shardlib``: its arguments, its commands, its exit status."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Literal, NoReturn

import shardlib
from shardlib.cli.errors import Failure, UsageError
from shardlib.cli.terminal import Output
from shardlib.errors import ShardError
from shardlib.gateway import (
    API_VERSION,
    COMPRESSIONS,
    SESSION_START_LIMIT,
    Intents,
    event_name,
    gateway_url,
)
from shardlib.text import printable


def run(arguments: Sequence[str] | None) -> int:
    """Run the command that the arguments name; return its exit status, 0 or 1.

    :param arguments: the arguments of the command line, without the program's name; None for those
        of the process.
    :raises SystemExit: with status 2 for bad arguments; with 0 after ``--help``.
    """
    parser = _Parser(
        prog="shardlib",
        description="Watch a Discord bot's events, or run a gateway of your own to test against.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"shardlib {shardlib.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_tail(commands)
    _add_shards(commands)
    _add_gateway(commands)
    _add_doctor(commands)
    namespace = parser.parse_args(arguments)
    try:
        namespace.run(namespace)
    except UsageError as error:
        namespace.parser.error(str(error))
    except (Failure, ShardError, OSError) as error:
        _print_error(str(error))
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print in one line what is wrong, without the usage, which --help prints; exit with 2."""
        _print_error(f"{message} (see {self.prog} --help)")
        sys.exit(2)


def _print_error(message: str) -> None:
    if sys.stderr is None:
        return
    try:
        Output(sys.stderr).write(f"shardlib: {printable(message)}\n")
    except OSError:
        pass  # standard error is a pipe without a reader


_Commands = argparse._SubParsersAction


def _add_tail(commands: _Commands[_Parser]) -> None:
    parser = commands.add_parser(
        "tail",
        help="print a bot's events, one line each",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Print a bot's events, one line each: the time, the event's sequence, its\n"
        "name, where it happened, and what it says. What happens to the connection is\n"
        "told on standard error. With --shards a line has the shard's number, too, and\n"
        "standard error tells the state of each shard: on a terminal in a table.",
        epilog="The bot's token is taken from the environment variable DISCORD_TOKEN, so that it\n"
        "shows up neither in the shell's history nor in a list of processes.\n\n"
        "Exit status: 0 after Ctrl-C, after --count events, and when the reader of a pipe\n"
        "has seen enough; 1 after an error that ends the connection for good, with\n"
        "--shards all of them, and if Discord does not let the shards start; 2 for bad\n"
        "arguments.\n\n"
        "examples:\n"
        "  shardlib tail --local\n"
        "  shardlib tail --intents guilds,guild_messages --events MESSAGE_CREATE\n"
        "  shardlib tail --json | jq .d.author.username\n"
        "  shardlib tail --shards auto\n"
        "  shardlib tail --shards auto --json | jq .shard\n\n"
        "many shards without Discord, from two terminals:\n"
        "  shardlib gateway --port 4000 --shards 8 --max-concurrency 4\n"
        "  DISCORD_TOKEN=... shardlib tail --url ws://127.0.0.1:4000/ \\\n"
        "      --api-url http://127.0.0.1:4000/api/v10 --shards auto\n",
        allow_abbrev=False,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--local",
        action="store_true",
        help="start a local gateway with some traffic, and connect to that; needs no token",
    )
    where.add_argument(
        "--url", type=_url, help="a ws:// or wss:// URL to connect to instead of Discord's"
    )
    parser.add_argument(
        "--events",
        type=_events,
        metavar="A,B",
        help="print only the events of these names, as MESSAGE_CREATE,READY",
    )
    parser.add_argument("--count", type=_positive, metavar="N", help="end after N printed events")
    parser.add_argument(
        "--json", action="store_true", help="print each event's payload as JSON, one a line"
    )
    parser.add_argument(
        "--intents",
        type=_intents,
        metavar="A,B",
        help="the intents to ask for: names as guilds,guild_messages, or default (all but the "
        "privileged ones), or all (the default with --local)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--shard",
        type=_shard,
        default=(0, 1),
        metavar="I/N",
        help="be shard number I, counted from 0, of N shards (default: 0/1)",
    )
    which.add_argument(
        "--shards",
        type=_shards_wanted,
        metavar="auto|N",
        help="be all shards of the bot: as many as Discord recommends, or N",
    )
    _add_api_url(parser)
    parser.add_argument(
        "--compression",
        type=_compression,
        default="zlib-stream",
        metavar="KIND",
        help="zlib-stream (the default), zstd-stream, payload or none",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="show every payload and connection attempt, heartbeats too",
    )
    parser.set_defaults(run=_tail, parser=parser)


def _add_shards(commands: _Commands[_Parser]) -> None:
    parser = commands.add_parser(
        "shards",
        help="print how many shards Discord recommends for a bot, and its limits",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Print what Discord answers to GET /gateway/bot: how many shards it\n"
        "recommends, how many sessions the bot may still start and when that number is\n"
        "reset, and how many shards may identify at once.",
        epilog="The bot's token is taken from the environment variable DISCORD_TOKEN.\n\n"
        "Exit status: 0 after the answer and after Ctrl-C; 1 if there is no usable answer;\n"
        "2 for bad arguments.\n\n"
        "examples:\n"
        "  shardlib shards\n"
        "  shardlib shards --json | jq .shards",
        allow_abbrev=False,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--local", action="store_true", help="ask a local gateway, started for it; needs no token"
    )
    _add_api_url(where)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_shards, parser=parser)


def _add_gateway(commands: _Commands[_Parser]) -> None:
    try:
        from shardlib.cli.faults import FORMAT
    except ImportError:  # running the command reports which package is missing
        FORMAT = ""
    parser = commands.add_parser(
        "gateway",
        help="run a local gateway for clients in any language",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run a local gateway: Discord's Gateway protocol on 127.0.0.1, with made-up\n"
        "guilds and traffic, to test a client of any language against. Ctrl-C ends it.",
        epilog=f"faults:\n\n{FORMAT}",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--port", type=_port, default=0, help="the port to listen at (default: any free one)"
    )
    parser.add_argument(
        "--tls",
        action="store_true",
        help="serve wss://, with a certificate of a throw-away authority",
    )
    parser.add_argument(
        "--guilds",
        type=_number,
        metavar="N",
        help="the number of the bot's guilds (default: 3, or one for each of more shards)",
    )
    parser.add_argument(
        "--rate",
        type=_rate,
        default=10.0,
        metavar="R",
        help="events a second, over all guilds; 0 for none (default: 10)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="a number from which guilds, members and token are made: the same S makes the same "
        "ones (default: 0)",
    )
    parser.add_argument(
        "--shards",
        type=_positive,
        default=1,
        metavar="N",
        help="the number of shards that GET /gateway/bot recommends (default: 1)",
    )
    parser.add_argument(
        "--max-concurrency",
        type=_positive,
        default=1,
        metavar="N",
        help="Identifies taken at once, of shards with different rate limit keys (default: 1)",
    )
    parser.add_argument(
        "--identify-interval",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="the least seconds between two Identifies of one rate limit key; 0 for no limit "
        "(default: 5)",
    )
    parser.add_argument(
        "--session-start-limit",
        type=_positive,
        default=SESSION_START_LIMIT,
        metavar="N",
        help="Identifies taken in 24 hours; the next one resets the token (default: "
        f"{SESSION_START_LIMIT})",
    )
    parser.add_argument(
        "--token",
        type=_token,
        metavar="TOKEN",
        help="the token that clients must show (default: one made from the seed)",
    )
    parser.add_argument(
        "--faults", metavar="FILE", help="a file that says what is to go wrong, and when; see below"
    )
    parser.set_defaults(run=_gateway, parser=parser)


def _add_doctor(commands: _Commands[_Parser]) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check, step by step, whether a bot can reach the Gateway from here",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check what a bot needs to reach the Gateway, from Python and the clock to\n"
        "READY and heartbeats, and print a line for each check, with a hint where something\n"
        "is wrong. One session is begun and ended: that takes one of the bot's session\n"
        "starts.",
        epilog="The bot's token is taken from the environment variable DISCORD_TOKEN. It is sent\n"
        "to the HTTP API and to the Gateway only, and never printed.\n\n"
        "Exit status: 0 if nothing has failed, remarks or not; 1 if something has; 2 for bad\n"
        "arguments.\n\n"
        "examples:\n"
        "  shardlib doctor\n"
        "  shardlib doctor --local\n"
        "  shardlib doctor --intents guilds,message_content\n"
        "  shardlib doctor --json | jq '.findings[] | select(.grade == \"failed\")'",
        allow_abbrev=False,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--local", action="store_true", help="check against a local gateway; needs no token"
    )
    where.add_argument(
        "--url", type=_url, help="a ws:// or wss:// URL to connect to instead of Discord's"
    )
    _add_api_url(parser)
    parser.add_argument(
        "--intents",
        type=_intents,
        metavar="A,B",
        help="the intents to ask for: names as guilds,guild_messages, or default (all but the "
        "privileged ones, as without this option), or all",
    )
    parser.add_argument(
        "--timeout",
        type=_timeout,
        default=10.0,
        metavar="S",
        help="seconds that a check may take (default: 10)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_doctor, parser=parser)


def _add_api_url(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--api-url",
        type=_api_url,
        metavar="URL",
        help="the https:// base of another HTTP API to ask than Discord's; http:// for one of this "
        "machine",
    )


def _tail(arguments: argparse.Namespace) -> None:
    if arguments.local and arguments.api_url is not None:
        raise UsageError("--api-url is not allowed with --local, whose gateway has its own")
    if arguments.shards is not None:
        from shardlib.cli import manyshards

        manyshards.run(arguments)
        return
    if arguments.api_url is not None:
        raise UsageError("--api-url goes with --shards: a single shard asks no HTTP API")
    from shardlib.cli import tail

    tail.run(arguments)


def _shards(arguments: argparse.Namespace) -> None:
    from shardlib.cli import shards

    shards.run(arguments)


def _gateway(arguments: argparse.Namespace) -> None:
    from shardlib.cli import gateway

    gateway.run(arguments)


def _doctor(arguments: argparse.Namespace) -> None:
    if arguments.local and arguments.api_url is not None:
        raise UsageError("--api-url is not allowed with --local, whose gateway has its own")
    from shardlib.cli import doctor

    doctor.run(arguments)


# Types of arguments. argparse shows the message of an ArgumentTypeError, and of no other error.


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"it must be a number from 0 up, not {text!r}")
    return int(text)


def _positive(text: str) -> int:
    number = _number(text)
    if number == 0:
        raise argparse.ArgumentTypeError("it must be 1 or more, not 0")
    return number


def _port(text: str) -> int:
    number = _number(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"a port must be at most 65535, not {number}")
    return number


def _rate(text: str) -> float:
    return _from_zero(text, "a number of events a second")


def _seconds(text: str) -> float:
    return _from_zero(text, "a number of seconds from 0 up")


def _timeout(text: str) -> float:
    seconds = _seconds(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError("it must be above 0")
    return seconds


def _from_zero(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"it must be {what}, not {text!r}")
    return number


def _token(text: str) -> str:
    from shardlib.payloads import check_token  # here: it needs more than the command line does

    try:
        return check_token(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _events(text: str) -> frozenset[str]:
    try:
        return frozenset(event_name(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _intents(text: str) -> Intents:
    named = {"default": Intents.default, "all": Intents.all}
    if text.lower() in named:
        return named[text.lower()]()
    try:
        return Intents.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch("([0-9]+)/([0-9]+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(
            f"it must be a shard number, from 0, and a shard count, as 0/1 or 3/16, not {text!r}"
        )
    return int(match[1]), int(match[2])


def _shards_wanted(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return _positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"it must be auto, or a number from 1 up, not {text!r}"
        ) from None


def _api_url(text: str) -> str:
    from shardlib.gatewaybot import check_api_url  # here: only some commands need it

    try:
        return check_api_url(text, None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _compression(text: str) -> str | None:
    compression = None if text == "none" else text
    if compression not in COMPRESSIONS:
        known = ", ".join(kind or "none" for kind in COMPRESSIONS)
        raise argparse.ArgumentTypeError(f"it must be one of {known}, not {text!r}")
    return compression


def _url(text: str) -> str:
    try:
        gateway_url(text, API_VERSION, None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
