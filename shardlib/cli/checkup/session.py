"""Checks of the bot: its token, its intents, and one session."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterator
from typing import Any

from shardlib.cli.checkup.finding import Finding, Grade
from shardlib.cli.checkup.network import milliseconds, since
from shardlib.cli.checkup.way import Way
from shardlib.errors import AuthenticationFailed, DisallowedIntents, ShardError
from shardlib.gateway import GATEWAY_URL
from shardlib.gatewaybot import GatewayBot, fetch_gateway_bot
from shardlib.shard import Shard
from shardlib.text import count, duration, printable

_HEARTBEATS = 3

_TOKEN_PAGE = "https://discord.com/developers/applications, at Bot"

_NO_TOKEN = Finding(
    "Token",
    Grade.FAILED,
    "the environment variable DISCORD_TOKEN is not set",
    f"Set it to the bot's token, from {_TOKEN_PAGE}; --local needs none",
)

# A finding says what the shard would log. Without a handler, logging itself would print errors.
_QUIET = logging.getLogger("shardlib.cli.checkup")
_QUIET.addHandler(logging.NullHandler())


def check_bot(way: Way) -> Iterator[Finding]:
    """Ask the HTTP API about the bot.

    :param way: how the bot reaches the Gateway.
    """
    if way.token is None:
        yield _NO_TOKEN
        yield Finding("Session starts", Grade.SKIPPED, "there is no token")
    elif way.api_url is None:
        why = "with --url alone no HTTP API is asked"
        yield Finding("Token", Grade.SKIPPED, f"{why}; READY will tell")
        yield Finding("Session starts", Grade.SKIPPED, why)
    else:
        yield from _ask(way, way.token, way.api_url)


def _ask(way: Way, token: str, api_url: str) -> Iterator[Finding]:
    begin = time.perf_counter()
    try:
        bot = fetch_gateway_bot(
            token, api_url=api_url, timeout=way.timeout, ssl_context=way.ssl_context
        )
    except (ShardError, ValueError) as error:
        yield Finding("Token", Grade.FAILED, str(error), _hint(error, way))
        yield Finding("Session starts", Grade.SKIPPED, "the HTTP API has not told")
        return
    told = f"accepted by GET /gateway/bot in {since(begin)}"
    yield Finding("Token", Grade.GOOD, told)
    yield _session_starts(bot)


def _session_starts(bot: GatewayBot) -> Finding:
    name = "Session starts"
    told = f"{bot.remaining} of {bot.total} left, {count(bot.shards, 'shard')} recommended"
    if bot.remaining > 1:
        return Finding(name, Grade.GOOD, told)
    return Finding(
        name,
        Grade.REMARK if bot.remaining else Grade.FAILED,
        told,
        f"They are reset in {duration(bot.reset_after)}. A bot that identifies more often has its "
        "token reset: look for a program that starts again and again",
    )


def check_session(way: Way) -> Iterator[Finding]:
    """Begin one session, which uses up one of the session starts, and end the session.

    :param way: how the bot reaches the Gateway; ``way.token`` is not None.
    """
    assert way.token is not None
    ready: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    pings: queue.SimpleQueue[float] = queue.SimpleQueue()
    shard = Shard(
        way.token,
        way.intents,
        ssl_context=way.ssl_context,
        should_reconnect=False,
        connect_timeout=way.timeout,
        close_timeout=1.0,
        logger=_QUIET,
        on_socket_heartbeat=lambda shard, ping: pings.put(ping),
    )
    shard.on("READY", lambda shard, data: ready.put(data))
    begin = time.perf_counter()
    try:
        shard.start(way.url)
        shard.wait_until_ready(way.timeout)
        yield _ready(ready.get(timeout=way.timeout), begin)
    except (ShardError, TimeoutError) as error:
        yield Finding("READY", Grade.FAILED, str(error), _hint(error, way))
        yield from skip_session("READY has failed", "Heartbeats", "Compression")
    else:
        yield _heartbeats(shard, pings, way.timeout)
        yield _compression(shard)
    finally:
        shard.disconnect()


def skip_session(why: str, *names: str) -> Iterator[Finding]:
    """Yield a finding for each check that is not made.

    :param why: the reason, in a few words.
    :param names: the names of the checks; by default all of :func:`check_session`.
    """
    for name in names or ("READY", "Heartbeats", "Compression"):
        yield Finding(name, Grade.SKIPPED, why)


def _ready(data: dict[str, Any], begin: float) -> Finding:
    name = printable(str(data["user"]["username"]), 40)
    guilds = count(len(data["guilds"]), "guild")
    told = f"{name} in {guilds}, {since(begin)} after the beginning"
    return Finding("READY", Grade.GOOD, told)


def _heartbeats(shard: Shard, pings: queue.SimpleQueue[float], timeout: float) -> Finding:
    name = "Heartbeats"
    taken: list[float] = []
    try:
        while len(taken) < _HEARTBEATS:
            shard.heartbeat()
            taken.append(pings.get(timeout=timeout))
    except (queue.Empty, ShardError) as error:
        told = str(error) or f"the Gateway has not acknowledged a heartbeat in {timeout:g} s"
        return Finding(
            name, Grade.FAILED, told, "The network, or a proxy in it, may hold messages back"
        )
    shown = ", ".join(milliseconds(ping) for ping in taken)
    return Finding(name, Grade.GOOD, f"acknowledged after {shown}")


def _compression(shard: Shard) -> Finding:
    stats = shard.stats
    told = (
        f"{stats.bytes_received:,} bytes received, {stats.bytes_inflated:,} inflated, "
        f"in {count(stats.messages, 'message')}"
    )
    return Finding("Compression", Grade.GOOD, told)


def _hint(error: Exception, way: Way) -> str:
    """Return what to do beyond what the error's message says; "" for nothing."""
    if isinstance(error, AuthenticationFailed):
        hint = f"Reset the token, and copy it anew: {_TOKEN_PAGE}"
        if way.url == GATEWAY_URL:
            return hint
        return f"{hint}. A local gateway has a token of its own, which shardlib gateway prints"
    if isinstance(error, DisallowedIntents):
        return (
            f"Allow the privileged intents of --intents: {_TOKEN_PAGE}, Privileged Gateway Intents"
        )
    return ""
