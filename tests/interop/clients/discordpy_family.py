"""A bot of discord.py, or of a library with the same face; run in a process of its own.

usage: discordpy_family.py MODULE API_URL GATEWAY_URL   (the token in DISCORD_TOKEN)

It prints one JSON object a line for what happens to it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

module, api_url, gateway_url = sys.argv[1:]
discord: Any = importlib.import_module(module)
http: Any = importlib.import_module(f"{module}.http")
gateway: Any = importlib.import_module(f"{module}.gateway")

# The only change: where Discord is. py-cord has another name for it.
http.Route.BASE = http.Route.API_BASE_URL = api_url
if hasattr(gateway.DiscordWebSocket, "DEFAULT_GATEWAY"):
    gateway.DiscordWebSocket.DEFAULT_GATEWAY = type(gateway.DiscordWebSocket.DEFAULT_GATEWAY)(
        gateway_url
    )


def tell(event: str, **details: Any) -> None:
    print(json.dumps({"event": event, **details}), flush=True)


class Bot(discord.Client):
    async def on_ready(self) -> None:
        members = {str(guild.id): len(guild.members) for guild in self.guilds}
        await self.change_presence(status=discord.Status.dnd)  # its "since" is 0.0
        tell("ready", guilds=members, user=str(self.user.id))

    async def on_resumed(self) -> None:
        tell("resumed")

    async def on_message(self, message: Any) -> None:
        tell("message", content=message.content)


Bot(intents=discord.Intents.all()).run(os.environ["DISCORD_TOKEN"])
