"""The arguments of the commands of a fleet."""

from __future__ import annotations

import argparse
from typing import Any

from shardlib.cli import commonarguments

REDIS = (
    "The URL of Redis is taken from --redis, or from the environment variable\n"
    "SHARDLIB_REDIS: a URL with a password belongs there, where it shows up neither in\n"
    "the shell's history nor in a list of processes."
)
"""Tells where the URL of Redis is taken from."""

_TOKEN = "The bot's token is taken from the environment variable DISCORD_TOKEN."
_EXTRA = 'It needs pip install "shardlib[redis]", and Redis 6.2 or later, or Valkey.'

_Commands = argparse._SubParsersAction


def add_commands(commands: _Commands[Any]) -> None:
    """Add the commands of a fleet to those of the program.

    :param commands: of the program.
    """
    _add_init(commands)
    _add_worker(commands)
    _add_events(commands)
    _add_drain(commands)


def add_fleet(parser: argparse._ActionsContainer, *, required: bool = True) -> None:
    """Add the arguments that name a fleet.

    :param parser: of a command.
    :param required: False if the command can do without a fleet.
    """
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="redis://, rediss:// or unix:// (default: that in the variable SHARDLIB_REDIS)",
    )
    parser.add_argument(
        "--name",
        type=commonarguments.name,
        required=required,
        help="the fleet's name, which stands in front of all its keys in Redis",
    )


def _add_init(commands: _Commands[Any]) -> None:
    parser = commands.add_parser(
        "init",
        help="begin a fleet: one bot over many machines, with Redis in the middle",
        description="Write to Redis what all workers of a fleet agree on, once, before the first\n"
        "worker starts: how many shards the bot has, and how many of them may identify at\n"
        "once. Discord is asked for these numbers, unless --shards gives them. Twice the\n"
        "same does no harm.",
        epilog=f"{REDIS}\n{_TOKEN}\n"
        f"With --shards no token is needed, and no HTTP request is made.\n{_EXTRA}\n\n"
        "Exit status: 0 if it stands in Redis; 1 if Discord or Redis gives no usable\n"
        "answer, or the fleet has another number of shards; 2 for bad arguments.\n\n"
        "examples:\n"
        "  shardlib init --redis redis://localhost --name mybot\n"
        "  shardlib init --redis redis://localhost --name mybot --shards 16\n",
    )
    add_fleet(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--shards",
        type=commonarguments.positive,
        metavar="N",
        help="the number of the bot's shards (default: what Discord recommends)",
    )
    commonarguments.add_api_url(which)
    parser.add_argument(
        "--max-concurrency",
        type=commonarguments.positive,
        metavar="N",
        help="how many shards may identify at once (default: what Discord says; 1 with --shards)",
    )
    parser.add_argument(
        "--session-start-limit",
        type=commonarguments.positive,
        metavar="N",
        help="sessions that the bot may start in 24 hours (default: what Discord says; 1000 with "
        "--shards)",
    )
    parser.add_argument(
        "--identify-interval",
        type=commonarguments.above_zero,
        metavar="S",
        help="seconds between two Identifies of one rate limit key (default: 5, as Discord wants)",
    )
    parser.set_defaults(run=_init, parser=parser)


def _add_worker(commands: _Commands[Any]) -> None:
    parser = commands.add_parser(
        "worker",
        help="run a share of a fleet's shards, on this machine",
        description="Run a share of a fleet's shards, and write their events to Redis. Any number\n"
        "of workers, on any number of machines, share the shards of a fleet: each takes\n"
        "those that no other has, and gives some away when another one comes. What it does\n"
        "is told on standard error.",
        epilog=f"{REDIS}\n{_TOKEN}\n{_EXTRA}\n\n"
        "SIGTERM and Ctrl-C hand the shards over to the other workers, a few at a time, and\n"
        "end the worker; a second signal ends it at once. Either way its sessions go on, in\n"
        "whichever worker takes the shards.\n\n"
        "Exit status: 0 after a signal; 1 after an error that ends the worker, for example\n"
        "if the token or the intents are refused, or Redis refuses the password; 2 for bad\n"
        "arguments. While Redis does not answer, the worker waits.\n\n"
        "examples:\n"
        "  shardlib worker --redis redis://localhost --name mybot --intents default\n"
        "  SHARDLIB_REDIS=rediss://:password@cache shardlib worker --name mybot \\\n"
        "      --intents guilds,guild_messages --forward MESSAGE_CREATE\n",
    )
    add_fleet(parser)
    commonarguments.add_intents(parser, None)
    parser.add_argument(
        "--most-shards",
        type=commonarguments.positive,
        metavar="N",
        help="take no more than N shards (default: any number)",
    )
    commonarguments.add_url(parser)
    parser.add_argument(
        "--forward",
        type=commonarguments.events,
        metavar="A,B",
        help="write only the events of these names to Redis (default: all)",
    )
    parser.add_argument(
        "--lease",
        type=commonarguments.above_zero,
        default=6.0,
        metavar="S",
        help="seconds after which others take over the shards of a worker that is not heard of; "
        "the same for all workers (default: 6)",
    )
    parser.add_argument(
        "--keep-events",
        type=commonarguments.positive,
        default=100_000,
        metavar="N",
        help="about how many events of each shard Redis keeps (default: 100000, some 80 MB)",
    )
    parser.add_argument(
        "--buffer",
        type=commonarguments.positive,
        default=5_000,
        metavar="N",
        help="events of each shard that wait here while Redis is away (default: 5000)",
    )
    parser.add_argument(
        "--replay-memory",
        type=commonarguments.seconds,
        default=5.0,
        metavar="S",
        help="seconds for which written events are remembered, for a Redis that loses its newest "
        "writes (default: 5)",
    )
    parser.add_argument(
        "--drain-timeout",
        type=commonarguments.seconds,
        default=60.0,
        metavar="S",
        help="seconds that the other workers have to take the shards over, after a signal; then "
        "the rest is let go all at once (default: 60)",
    )
    commonarguments.add_compression(parser)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show all of the log, and tracebacks"
    )
    parser.set_defaults(run=_worker, parser=parser)


def _add_events(commands: _Commands[Any]) -> None:
    parser = commands.add_parser(
        "events",
        help="print a fleet's events as JSON, one a line",
        description="Print a fleet's events as JSON, one a line: each payload as Discord has sent\n"
        "it, with the number of its shard and its id. All consumers of a group share the\n"
        "events, in any number of processes, this command too; each group gets all of them.\n"
        "An event is acknowledged when it was printed: the next command goes on behind it.",
        epilog=f"{REDIS}\n{_EXTRA}\n\n"
        "An event that stood in the pipe when its reader ended counts as printed: with\n"
        "--count, the reader gets as many as it wants. An event has the same id however\n"
        "often it comes. An event named SHARDLIB_GAP says that events may be missing.\n\n"
        "Exit status: 0 after Ctrl-C, after --count events, and when the reader of a pipe\n"
        "has ended; 1 if Redis refuses, does not answer at first, or has no such fleet; 2\n"
        "for bad arguments. If Redis goes away later, the command waits for it.\n\n"
        "examples:\n"
        "  shardlib events web --redis redis://localhost --name mybot\n"
        "  shardlib events log --name mybot --events MESSAGE_CREATE | jq .d.content\n"
        "  shardlib events try --name mybot --start newest --count 10\n",
    )
    parser.add_argument(
        "group", type=commonarguments.name, metavar="GROUP", help="the group's name, of your choice"
    )
    add_fleet(parser)
    parser.add_argument(
        "--events",
        type=commonarguments.events,
        metavar="A,B",
        help="print only the events of these names, as MESSAGE_CREATE,READY; the others count as "
        "handled",
    )
    parser.add_argument(
        "--count", type=commonarguments.positive, metavar="N", help="end after N printed events"
    )
    parser.add_argument(
        "--start",
        choices=("oldest", "newest"),
        default="oldest",
        help="where a group begins that is new: at the oldest event that Redis keeps (the "
        "default), or with what comes from now on",
    )
    parser.set_defaults(run=_events, parser=parser)


def _add_drain(commands: _Commands[Any]) -> None:
    parser = commands.add_parser(
        "drain",
        help="have a worker of a fleet hand its shards over, and end",
        description="Have a worker hand all its shards over to the others, a few at a time, and\n"
        "end, on whichever machine it runs. No session is lost. The command waits until\n"
        "the worker has no shards any more; after Ctrl-C it waits no longer, and the worker\n"
        "goes on handing over.",
        epilog=f"{REDIS}\n{_EXTRA}\n\n"
        "What has started the worker must not start it again when it ends.\n\n"
        "Exit status: 0 when the worker has no shards, and after Ctrl-C; 1 if no such worker\n"
        "takes shards, or it does not hand them over, or if Redis gives no usable answer; 2\n"
        "for bad arguments.\n\n"
        "examples:\n"
        "  shardlib shards --redis redis://localhost --name mybot\n"
        "  shardlib drain blue-4711-9c31aa07 --redis redis://localhost --name mybot\n"
        "  shardlib drain blue --redis redis://localhost --name mybot\n",
    )
    parser.add_argument(
        "worker",
        metavar="WORKER",
        help='its name, as "shardlib shards" prints it; the name of its host, if it is the only '
        "worker there that has shards",
    )
    add_fleet(parser)
    parser.add_argument(
        "--timeout",
        type=commonarguments.seconds,
        default=60.0,
        metavar="S",
        help="seconds that the other workers have to take the shards over; then the rest is let "
        "go all at once (default: 60)",
    )
    parser.set_defaults(run=_drain, parser=parser)


# Each command is imported when it is run: some need packages that others do without.


def _init(arguments: argparse.Namespace) -> None:
    from shardlib.cli import init

    init.run(arguments)


def _worker(arguments: argparse.Namespace) -> None:
    from shardlib.cli import worker

    worker.run(arguments)


def _events(arguments: argparse.Namespace) -> None:
    from shardlib.cli import groupevents

    groupevents.run(arguments)


def _drain(arguments: argparse.Namespace) -> None:
    from shardlib.cli import drain

    drain.run(arguments)
