"""Checks of the bot: its token, its intents, and one session."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import urlsplit

from shardlib.cli.checkup.finding import Finding, Grade, skip_after
from shardlib.cli.checkup.hints import DISCORD_STATUS
from shardlib.cli.checkup.network import milliseconds, since
from shardlib.cli.checkup.way import Way
from shardlib.errors import AuthenticationFailed, ConnectionFailed, ShardClosed, ShardError
from shardlib.gateway import GATEWAY_URL
from shardlib.gatewaybot import GatewayBot, fetch_gateway_bot
from shardlib.payloads import check_token
from shardlib.shard import Shard
from shardlib.text import count, duration, printable

_HEARTBEATS = 3

_NO_TOKEN = Finding(
    "Token",
    Grade.FAILED,
    "the environment variable DISCORD_TOKEN is not set",
    "Set it to the bot's token, from https://discord.com/developers/applications, at Bot; a "
    "service does not have the variables of your shell. --local needs none",
)

# A finding says what the shard would log. Without a handler, logging itself would print errors.
_QUIET = logging.getLogger("shardlib.cli.checkup")
_QUIET.addHandler(logging.NullHandler())


def check_bot(way: Way, failed: str | None) -> Generator[Finding, None, tuple[str | None, int]]:
    """Ask the HTTP API about the bot.

    :param way: how the bot reaches the Gateway.
    :param failed: the name of an earlier check that has failed, or None.
    :returns: the name of the check that has failed, or None; and the number of shards of the bot.
    """
    if way.token is None:
        yield _NO_TOKEN
        yield Finding("Session starts", Grade.SKIPPED, "there is no token")
        return "Token", 1
    try:
        check_token(way.token)
    except ValueError as error:
        yield Finding("Token", Grade.FAILED, str(error))
        yield Finding("Session starts", Grade.SKIPPED, "there is no token")
        return "Token", 1
    if way.api_url is None:
        why = "no HTTP API is named with the gateway, so none is asked"
        yield Finding("Token", Grade.SKIPPED, f"{why}; READY will tell")
        yield Finding("Session starts", Grade.SKIPPED, why)
        return None, 1
    begin = time.perf_counter()
    try:
        bot = fetch_gateway_bot(
            way.token, api_url=way.api_url, timeout=way.timeout, ssl_context=way.ssl_context
        )
    except (ShardError, ValueError) as error:  # the latter for a URL to which no token is sent
        if failed is not None and isinstance(error, ConnectionFailed):
            host = urlsplit(way.api_url).hostname
            told = f"{failed} has failed, and {host} cannot be asked either"
            yield Finding("Token", Grade.SKIPPED, told)
        else:
            yield Finding("Token", Grade.FAILED, str(error), _token_hint(error, way))
        yield Finding("Session starts", Grade.SKIPPED, "the HTTP API has not told")
        return "Token", 1
    yield Finding("Token", Grade.GOOD, f"accepted by GET /gateway/bot in {since(begin)}")
    finding = _session_starts(bot)
    yield finding
    return (finding.name if finding.grade is Grade.FAILED else None), bot.shards


def _token_hint(error: Exception, way: Way) -> str:
    if isinstance(error, ConnectionFailed):
        return (
            "The Gateway can be reached, but not the HTTP API, with which a bot answers: a "
            "firewall may allow the one host only"
        )
    return _local_token_hint(error, way)


def _local_token_hint(error: Exception, way: Way) -> str:
    if isinstance(error, AuthenticationFailed) and way.url != GATEWAY_URL:
        return "A local gateway has a token of its own, which shardlib gateway prints"
    return ""


def _session_starts(bot: GatewayBot) -> Finding:
    name = "Session starts"
    told = f"{bot.remaining} of {bot.total} left, {count(bot.shards, 'shard')} recommended"
    if bot.remaining > 1:
        return Finding(name, Grade.GOOD, told)
    reset = "The next one begins the 24 hours after which they are reset"
    if bot.reset_after:
        reset = f"They are reset in {duration(bot.reset_after)}"
    return Finding(
        name,
        Grade.REMARK if bot.remaining else Grade.FAILED,
        told,
        f"{reset}. A bot that identifies more often has its token reset: look for a program that "
        "starts again and again",
    )


def check_session(way: Way, shards: int) -> Iterator[Finding]:
    """Begin one session, which uses up one of the session starts, and end the session.

    :param way: how the bot reaches the Gateway; ``way.token`` is not None.
    :param shards: the number of shards of the bot, of which this is the first one's session: the
        Gateway refuses a large bot that identifies with fewer.
    """
    assert way.token is not None
    ready: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    pings: queue.SimpleQueue[float] = queue.SimpleQueue()
    shard = Shard(
        way.token,
        way.intents,
        shard_count=shards,
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
        yield _ready(ready.get(timeout=way.timeout), shards, begin)
    except (ShardError, TimeoutError) as error:
        yield Finding("READY", Grade.FAILED, str(error), _ready_hint(error, way))
        yield from skip_after("READY", "READY has failed")
    else:
        yield _heartbeats(shard, pings, way.timeout)
        yield _compression(shard)
    finally:
        shard.disconnect()


def _ready_hint(error: Exception, way: Way) -> str:
    if isinstance(error, TimeoutError):
        return (
            "The Gateway has taken the connection, and says no more. A proxy or a virus scanner "
            f"may hold messages back. If there is none, {DISCORD_STATUS}"
        )
    if isinstance(error, ShardClosed) and type(error) is not ShardClosed:
        return _local_token_hint(error, way)  # each of these says what to do
    return f"Try again in a minute; {DISCORD_STATUS}"


def _ready(data: dict[str, Any], shards: int, begin: float) -> Finding:
    name = printable(str(data["user"]["username"]), 40)
    guilds = count(len(data["guilds"]), "guild")
    of_shard = "" if shards == 1 else f" of shard 0 of {shards}"
    told = f"{name} in {guilds}{of_shard}, {since(begin)} after the beginning"
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
