"""A bot of interactions.py; run in a process of its own.  See discordpy_family.py."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import interactions
from interactions.api.events import MessageCreate, RawGatewayEvent, Resume, WebsocketReady
from interactions.api.http.route import Route

# The only change: where Discord is.
Route.BASE = sys.argv[1]

bot: Any = interactions.Client(intents=interactions.Intents.ALL)
user = ""
starting: set[str] = set()
guilds: dict[str, int] = {}


def tell(event: str, **details: Any) -> None:
    print(json.dumps({"event": event, **details}), flush=True)


@interactions.listen(WebsocketReady)
async def on_ready(event: Any) -> None:
    global user
    user = event.data["user"]["id"]
    guilds.clear()
    starting.update(each["id"] for each in event.data["guilds"])


@interactions.listen("raw_guild_create")
async def on_guild(event: RawGatewayEvent) -> None:
    guilds[event.data["id"]] = len(event.data["members"])
    starting.discard(event.data["id"])
    if not starting:
        tell("ready", guilds=guilds, user=user)


@interactions.listen(Resume)
async def on_resumed() -> None:
    tell("resumed")


@interactions.listen(MessageCreate)
async def on_message(event: Any) -> None:
    tell("message", content=event.message.content)


for listener in (on_ready, on_guild, on_resumed, on_message):
    bot.add_listener(listener)
bot.start(os.environ["DISCORD_TOKEN"])
