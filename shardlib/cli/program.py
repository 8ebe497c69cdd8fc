"""The program ``shardlib``: its arguments, its commands, its exit status."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import shardlib
from shardlib.cli import commonarguments
from shardlib.cli.errors import Failure, UsageError
from shardlib.cli.fleetprogram import REDIS, add_commands, add_fleet
from shardlib.cli.terminal import Output
from shardlib.errors import ShardError
from shardlib.gateway import SESSION_START_LIMIT
from shardlib.text import printable


def run(arguments: Sequence[str] | None) -> int:
    """Run the command that the arguments name; return its exit status, 0 or 1.

    :param arguments: the arguments of the command line, without the program's name; None for those
        of the process.
    :raises SystemExit: with status 2 for bad arguments; with 0 after ``--help``.
    """
    parser = _Parser(
        prog="shardlib",
        description="Watch a Discord bot's events, run a bot over many machines, or run a gateway\n"
        "of your own to test against.",
    )
    parser.add_argument("--version", action="version", version=f"shardlib {shardlib.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_tail(commands)
    _add_shards(commands)
    _add_gateway(commands)
    _add_doctor(commands)
    _add_record(commands)
    add_commands(commands)
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
    """A parser whose texts keep their lines, and which takes no shortened options."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **arguments
        )

    def error(self, message: str) -> NoReturn:
        """Print in one line what is wrong, without the usage, which --help prints; exit with 2."""
        _print_error(f"{message} (see {self.prog} --help)")
        sys.exit(2)


def _print_error(message: str) -> None:
    with contextlib.suppress(OSError):  # standard error is closed, or no file
        Output(sys.stderr).write_last(f"shardlib: {printable(message)}\n")


_Commands = argparse._SubParsersAction


def _add_tail(commands: _Commands[_Parser]) -> None:
    parser = commands.add_parser(
        "tail",
        help="print a bot's events, one line each",
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
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--local",
        action="store_true",
        help="start a local gateway with some traffic, and connect to that; needs no token",
    )
    commonarguments.add_url(where)
    parser.add_argument(
        "--events",
        type=commonarguments.events,
        metavar="A,B",
        help="print only the events of these names, as MESSAGE_CREATE,READY",
    )
    parser.add_argument(
        "--count", type=commonarguments.positive, metavar="N", help="end after N printed events"
    )
    parser.add_argument(
        "--json", action="store_true", help="print each event's payload as JSON, one a line"
    )
    commonarguments.add_intents(parser, "default, and all with --local")
    which = parser.add_mutually_exclusive_group()
    commonarguments.add_shard(which)
    which.add_argument(
        "--shards",
        type=commonarguments.shards_wanted,
        metavar="auto|N",
        help="be all shards of the bot: as many as Discord recommends, or N",
    )
    commonarguments.add_api_url(parser)
    commonarguments.add_compression(parser)
    commonarguments.add_verbose(parser)
    parser.set_defaults(run=_tail, parser=parser)


def _add_shards(commands: _Commands[_Parser]) -> None:
    parser = commands.add_parser(
        "shards",
        help="print how many shards Discord recommends for a bot, or the shards of a fleet",
        description="Print what Discord answers to GET /gateway/bot: how many shards it\n"
        "recommends, how many sessions the bot may still start and when that number is\n"
        "reset, and how many shards may identify at once.\n\n"
        "With --name, print the shards of a fleet: the state of each, the round trip of its\n"
        "last heartbeat, the age of its session, the sequence of its last event, how many\n"
        "events Redis keeps, how many of these each group of consumers has not had, and\n"
        "which worker has the shard.",
        epilog="The bot's token is taken from the environment variable DISCORD_TOKEN. With --name\n"
        f"none is needed.\n{REDIS}\n\n"
        "Exit status: 0 after the answer and after Ctrl-C; 1 if there is no usable answer;\n"
        "2 for bad arguments.\n\n"
        "examples:\n"
        "  shardlib shards\n"
        "  shardlib shards --json | jq .shards\n"
        "  shardlib shards --redis redis://localhost --name mybot --watch\n"
        "  shardlib shards --name mybot --json | jq '.[] | select(.owner == null) | .shard_id'",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--local", action="store_true", help="ask a local gateway, started for it; needs no token"
    )
    commonarguments.add_api_url(where)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object; with --name an array of them"
    )
    fleet = parser.add_argument_group("the shards of a fleet")
    add_fleet(fleet, required=False)
    fleet.add_argument("--watch", action="store_true", help="look every second, until Ctrl-C")
    parser.set_defaults(run=_shards, parser=parser)


def _add_gateway(commands: _Commands[_Parser]) -> None:
    try:
        from shardlib.cli.faults import FORMAT
    except ImportError:  # running the command reports which package is missing
        FORMAT = ""
    parser = commands.add_parser(
        "gateway",
        help="run a local gateway for clients in any language",
        description="Run a local gateway: Discord's Gateway protocol on 127.0.0.1, with made-up\n"
        "guilds and traffic, to test a client of any language against. Ctrl-C ends it.\n\n"
        "A line of standard input is a message of a member to the bot, and one that begins\n"
        "with / invokes a command of the bot's, with options as name=value. The bot's\n"
        "answers are printed.",
        epilog=f"faults:\n\n{FORMAT}",
    )
    parser.add_argument(
        "--port",
        type=commonarguments.port,
        default=0,
        help="the port to listen at (default: any free one)",
    )
    parser.add_argument(
        "--tls",
        action="store_true",
        help="serve wss://, with a certificate of a throw-away authority",
    )
    parser.add_argument(
        "--guilds",
        type=commonarguments.number,
        metavar="N",
        help="the number of the bot's guilds (default: 3, or one for each of more shards)",
    )
    parser.add_argument(
        "--rate",
        type=commonarguments.rate,
        metavar="R",
        help="events a second, over all guilds; 0 for none (default: 10, with --replay 0)",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="play a recording of shardlib record to each client, in place of made-up guilds",
    )
    parser.add_argument(
        "--speed",
        type=commonarguments.speed,
        metavar="X",
        help="how many seconds of the recording pass in one, or max for as fast as each client "
        "reads (default: 1)",
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
        type=commonarguments.positive,
        default=1,
        metavar="N",
        help="the number of shards that GET /gateway/bot recommends (default: 1)",
    )
    parser.add_argument(
        "--max-concurrency",
        type=commonarguments.positive,
        default=1,
        metavar="N",
        help="Identifies taken at once, of shards with different rate limit keys (default: 1)",
    )
    parser.add_argument(
        "--identify-interval",
        type=commonarguments.seconds,
        default=5.0,
        metavar="S",
        help="the least seconds between two Identifies of one rate limit key; 0 for no limit "
        "(default: 5)",
    )
    parser.add_argument(
        "--session-start-limit",
        type=commonarguments.positive,
        default=SESSION_START_LIMIT,
        metavar="N",
        help="Identifies taken in 24 hours; the next one resets the token (default: "
        f"{SESSION_START_LIMIT})",
    )
    parser.add_argument(
        "--no-rate-limits",
        dest="rate_limits",
        action="store_false",
        help="answer every request of the HTTP API, however many come",
    )
    parser.add_argument(
        "--token",
        type=commonarguments.token,
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
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--local", action="store_true", help="check against a local gateway; needs no token"
    )
    commonarguments.add_url(where)
    commonarguments.add_api_url(parser)
    commonarguments.add_intents(parser, "default")
    parser.add_argument(
        "--timeout",
        type=commonarguments.above_zero,
        default=10.0,
        metavar="S",
        help="seconds that a check may take (default: 10)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_doctor, parser=parser)


def _add_record(commands: _Commands[_Parser]) -> None:
    parser = commands.add_parser(
        "record",
        help="record a bot's events in a file, which a local gateway can play",
        description="Record a bot's events, each with its time, in a compressed file, until\n"
        "Ctrl-C. shardlib gateway --replay plays it to any client. The file never holds\n"
        "the bot's token, or another one.",
        epilog="The bot's token is taken from the environment variable DISCORD_TOKEN. Only the\n"
        "file's owner may read it. With --redact it can go into a bug report: names, messages,\n"
        "avatars and addresses are replaced, and every text that is not known to be harmless.\n"
        "Ids, times and numbers stay.\n\n"
        "If the command is killed, the file can be read up to the last second.\n\n"
        "Exit status: 0 after Ctrl-C, after --count events and after --minutes; 1 after an error\n"
        "that ends the connection for good, and if the file cannot be written; 2 for bad\n"
        "arguments, and if the file exists.\n\n"
        "examples:\n"
        "  shardlib record --redact --minutes 10 events.gz\n"
        "  shardlib gateway --replay events.gz --speed 10\n"
        "  zcat events.gz | jq -c 'select(.t == \"MESSAGE_CREATE\") | .d.content'",
    )
    parser.add_argument("file", metavar="FILE", help="a file that does not exist yet")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--local",
        action="store_true",
        help="start a local gateway with some traffic, and record that; needs no token",
    )
    commonarguments.add_url(where)
    parser.add_argument(
        "--redact", action="store_true", help="replace what people wrote, and their names"
    )
    parser.add_argument(
        "--count", type=commonarguments.positive, metavar="N", help="end after N events"
    )
    parser.add_argument(
        "--minutes", type=commonarguments.above_zero, metavar="M", help="end after M minutes"
    )
    commonarguments.add_intents(parser, "default, and all with --local")
    commonarguments.add_shard(parser)
    commonarguments.add_compression(parser)
    commonarguments.add_verbose(parser)
    parser.set_defaults(run=_record, parser=parser)


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
    if arguments.name is not None:
        if arguments.local or arguments.api_url is not None:
            raise UsageError("--local and --api-url do not go with --name: Redis is asked")
        from shardlib.cli import fleetshards

        fleetshards.run(arguments)
        return
    if arguments.redis is not None or arguments.watch:
        raise UsageError("--redis and --watch go with --name, the name of a fleet")
    from shardlib.cli import shards

    shards.run(arguments)


def _gateway(arguments: argparse.Namespace) -> None:
    from shardlib.cli import gateway

    gateway.run(arguments)


def _record(arguments: argparse.Namespace) -> None:
    from shardlib.cli import record

    record.run(arguments)


def _doctor(arguments: argparse.Namespace) -> None:
    if arguments.local and arguments.api_url is not None:
        raise UsageError("--api-url is not allowed with --local, whose gateway has its own")
    from shardlib.cli import doctor

    doctor.run(arguments)
