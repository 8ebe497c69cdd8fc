"""Reads what a bot of discord.py gets; run in a process of its own.  See discordpy_family.py.

usage: discordpy_listener.py API_URL GATEWAY_URL COUNT   (the token in DISCORD_TOKEN)

It tells a digest of the first COUNT events after READY.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

import discord
import yarl
from discord import gateway, http

api_url, gateway_url, count = sys.argv[1:]
http.Route.BASE = api_url
gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway_url)

digest: Any = hashlib.sha256()
events = 0


class Bot(discord.Client):
    async def on_socket_raw_receive(self, message: str) -> None:
        global events
        payload = json.loads(message)
        if payload["op"] != 0 or payload["t"] in ("READY", "RESUMED"):
            return
        events += 1
        digest.update(json.dumps([payload["t"], payload["d"]], sort_keys=True).encode())
        if events == int(count):
            print(json.dumps({"event": "heard", "digest": digest.hexdigest()}), flush=True)


Bot(intents=discord.Intents.all(), enable_debug_events=True).run(os.environ["DISCORD_TOKEN"])
