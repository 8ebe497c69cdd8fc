"""``shardlib shards``: how many shards Discord recommends, and how many sessions may be started."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from argparse import Namespace

from shardlib.cli.environment import api_address, bot_token, tell
from shardlib.cli.errors import UsageError
from shardlib.cli.largegateway import large_gateway
from shardlib.cli.terminal import DIM, Output, clock
from shardlib.gateway import API_URL, IDENTIFY_INTERVAL
from shardlib.gatewaybot import GatewayBot, fetch_gateway_bot
from shardlib.text import count, duration, printable


def run(arguments: Namespace) -> None:
    """Ask Discord, and print the answer. Ctrl-C ends the process meanwhile, see ``cli.main``.

    :param arguments: the parsed arguments of ``shardlib shards``.
    :raises UsageError: if DISCORD_TOKEN is not set or holds no token, or if DISCORD_API is no URL.
    :raises Failure: if a package that ``--local`` needs is missing.
    :raises ShardError: if there is no usable answer.
    :raises OSError: if standard output cannot be written.
    """
    gateway = large_gateway() if arguments.local else None
    token = bot_token("--local needs none") if gateway is None else gateway.token
    named = None if arguments.local else api_address(arguments)
    output = Output(sys.stdout)
    tell(named)
    with gateway or contextlib.nullcontext():
        url = API_URL if named is None else named.url
        if gateway is not None:
            url = gateway.http_url
        try:
            bot = fetch_gateway_bot(token, api_url=url)
        except ValueError as error:
            raise UsageError(str(error)) from error
    text = json.dumps(bot._asdict()) if arguments.json else _table(bot, output)
    try:
        output.write(text + "\n")
    except BrokenPipeError:
        pass  # the pipe has no reader any more, which is a usual end of the command


def _table(bot: GatewayBot, output: Output) -> str:
    rows = [
        ("Gateway", printable(bot.url)),
        ("Shards", f"{bot.shards} recommended"),
        ("Session starts", f"{bot.remaining} of {bot.total} left{_reset(bot)}"),
        ("Max concurrency", f"{bot.max_concurrency} every {count(IDENTIFY_INTERVAL, 'second')}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(output.style(name.ljust(width), DIM) + "  " + value for name, value in rows)


def _reset(bot: GatewayBot) -> str:
    if bot.reset_after == 0:
        return ""
    return f", all again in {duration(bot.reset_after)}, at {clock(time.time() + bot.reset_after)}"
