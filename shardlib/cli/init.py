"""``shardlib init``: say once what all workers of a fleet agree on."""

from __future__ import annotations

import sys
from argparse import Namespace

from shardlib.cli.environment import Address, api_address, bot_token, tell
from shardlib.cli.errors import UsageError
from shardlib.cli.fleets import REDIS_VARIABLE, find_fleet, log_lines
from shardlib.cli.terminal import DIM, Output
from shardlib.gateway import API_URL, GATEWAY_URL, IDENTIFY_INTERVAL, SESSION_START_LIMIT
from shardlib.gatewaybot import GatewayBot, fetch_gateway_bot
from shardlib.text import count


def run(arguments: Namespace) -> None:
    """Write the settings to Redis, and print them. Ctrl-C ends the process, see ``cli.main``.

    :param arguments: the parsed arguments of ``shardlib init``.
    :raises UsageError: if DISCORD_TOKEN is needed and not set, if DISCORD_API is no URL, or if
        there is no URL of Redis.
    :raises Failure: if a package that a fleet needs is missing.
    :raises ShardError: if Discord or Redis gives no usable answer, or if the fleet has another
        number of shards.
    :raises OSError: if standard output cannot be written.
    """
    output = Output(sys.stdout)
    log_lines()  # tells what is risked with this Redis
    with find_fleet(arguments) as fleet:
        api = api_address(arguments) if arguments.shards is None else None
        tell(api)
        bot = _ask(arguments, api) if arguments.shards is None else _as_given(arguments)
        interval = arguments.identify_interval or IDENTIFY_INTERVAL
        fleet.init(
            bot.shards,
            max_concurrency=bot.max_concurrency,
            session_start_limit=bot.total,
            # Only Discord knows it; the workers may have counted some already.
            remaining=bot.remaining if arguments.shards is None else None,
            reset_after=bot.reset_after,
            identify_interval=interval,
        )
    left = f"{bot.remaining} left of " if arguments.shards is None else ""
    rows = [
        ("Fleet", fleet.name),
        ("Shards", str(bot.shards)),
        ("Max concurrency", f"{bot.max_concurrency} every {count(interval, 'second')}"),
        ("Session starts", f"{left}{bot.total} in 24 hours"),
    ]
    # A gateway of one's own would not be found without its URL.
    where = f" --url {bot.url}" if api is not None else ""
    width = max(len(name) for name, _ in rows)
    lines = [output.style(name.ljust(width), DIM) + "  " + value for name, value in rows]
    lines += [
        "",
        "Start a worker, on as many machines as you like:",
        "",
        f"  DISCORD_TOKEN=... {REDIS_VARIABLE}=... "
        f"shardlib worker --name {fleet.name} --intents default{where}",
    ]
    try:
        output.write("\n".join(lines) + "\n")
    except BrokenPipeError:
        pass  # the pipe has no reader any more, which is a usual end of the command


def _as_given(arguments: Namespace) -> GatewayBot:
    """The numbers that the arguments give, in place of Discord's."""
    total = arguments.session_start_limit or SESSION_START_LIMIT
    return GatewayBot(
        url=GATEWAY_URL,
        shards=arguments.shards,
        total=total,
        remaining=total,
        reset_after=0.0,
        max_concurrency=arguments.max_concurrency or 1,
    )


def _ask(arguments: Namespace, api: Address | None) -> GatewayBot:
    """Discord's numbers, but for those that the arguments give."""
    token = bot_token("--shards N needs none")
    try:
        bot = fetch_gateway_bot(token, api_url=API_URL if api is None else api.url)
    except ValueError as error:
        raise UsageError(str(error)) from error
    total = arguments.session_start_limit or bot.total
    return bot._replace(
        total=total,
        remaining=min(bot.remaining, total),
        max_concurrency=arguments.max_concurrency or bot.max_concurrency,
    )
