"""Answers !ping, with httpx. DISCORD_TOKEN=... python examples/answer_httpx.py"""

import os
import time
from typing import Any

import httpx

from shardlib import Intents, Shard
from shardlib.dispatch import Worker

TOKEN = os.environ["DISCORD_TOKEN"]

http = httpx.Client(
    base_url=os.environ.get("DISCORD_API", "https://discord.com/api/v10"),
    headers={
        "Authorization": f"Bot {TOKEN}",
        "User-Agent": "DiscordBot (https://example.com/ping, 1.0)",
    },
    timeout=10,
)


def call(method: str, path: str, body: Any = None) -> Any:
    """Ask Discord, and return its answer. After a 429 ask again, as soon as allowed."""
    while True:
        response = http.request(method, path, json=body)
        if response.is_success:
            return response.json() if response.content else None
        if response.status_code != 429:
            raise RuntimeError(f"Discord says {response.status_code}: {response.text}")
        time.sleep(float(response.headers["Retry-After"]))


# The worker's thread waits for Discord, and the shard goes on reading.
intents = Intents.GUILD_MESSAGES | Intents.DIRECT_MESSAGES | Intents.MESSAGE_CONTENT
bot = Shard(TOKEN, intents, dispatcher=Worker())


@bot.on("READY")
def ready(shard: Shard, data: dict) -> None:
    print("logged in as", data["user"]["username"], flush=True)


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    if data["content"] == "!ping" and not data["author"].get("bot"):
        call("POST", f"/channels/{data['channel_id']}/messages", {"content": "pong"})


bot.run_forever(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
