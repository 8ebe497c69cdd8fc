"""Answers !ping, with Python alone. DISCORD_TOKEN=... python examples/answer_urllib.py"""

import json
import os
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from shardlib import Intents, Shard
from shardlib.dispatch import Worker

API = os.environ.get("DISCORD_API", "https://discord.com/api/v10")
TOKEN = os.environ["DISCORD_TOKEN"]
HEADERS = {
    "Authorization": f"Bot {TOKEN}",
    "Content-Type": "application/json",
    # Discord refuses the User-Agent of urllib.
    "User-Agent": "DiscordBot (https://example.com/ping, 1.0)",
}


def call(method: str, path: str, body: Any = None) -> Any:
    """Ask Discord, and return its answer. After a 429 ask again, as soon as allowed."""
    data = None if body is None else json.dumps(body).encode()
    while True:
        try:
            with urlopen(
                Request(API + path, data, HEADERS, method=method), timeout=10
            ) as response:
                return json.loads(response.read() or "null")
        except HTTPError as error:
            with error:
                if error.code != 429:
                    text = error.read().decode()
                    raise RuntimeError(f"Discord says {error.code}: {text}") from None
            time.sleep(float(error.headers["Retry-After"]))


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
