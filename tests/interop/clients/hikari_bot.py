"""A bot of hikari; run in a process of its own.  See discordpy_family.py."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import hikari

api_url = sys.argv[1]
bot: Any = hikari.GatewayBot(
    os.environ["DISCORD_TOKEN"], rest_url=api_url, intents=hikari.Intents.ALL, banner=None
)
starting: set[int] = set()


def tell(event: str, **details: Any) -> None:
    print(json.dumps({"event": event, **details}), flush=True)


@bot.listen(hikari.ShardReadyEvent)
async def on_ready(event: Any) -> None:
    starting.update(event.unavailable_guilds)


@bot.listen(hikari.GuildAvailableEvent)
async def on_guild(event: Any) -> None:
    starting.discard(event.guild_id)
    if not starting:
        guilds = bot.cache.get_guilds_view()
        members = {str(each): len(bot.cache.get_members_view_for_guild(each)) for each in guilds}
        tell("ready", guilds=members, user=str(bot.get_me().id))


@bot.listen(hikari.ShardResumedEvent)
async def on_resumed(event: Any) -> None:
    tell("resumed")


@bot.listen(hikari.MessageCreateEvent)
async def on_message(event: Any) -> None:
    tell("message", content=event.message.content)


bot.run(check_for_updates=False)
