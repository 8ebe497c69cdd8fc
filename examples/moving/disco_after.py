"""The plugin of disco_before.py, as a bot with shardlib and requests.

DISCORD_TOKEN=... python examples/moving/disco_after.py
"""

import os
import time

import requests

from shardlib import Intents, Shard
from shardlib.dispatch import Pool

API = os.environ.get("DISCORD_API", "https://discord.com/api/v10")
TOKEN = os.environ["DISCORD_TOKEN"]
HEADERS = {
    "Authorization": f"Bot {TOKEN}",
    "User-Agent": "DiscordBot (https://example.com/hello, 1.0)",
}

bot = Shard(TOKEN, Intents.GUILDS | Intents.GUILD_MESSAGES, dispatcher=Pool(workers=8))
mentions: set[str] = set()


def say(channel_id: str, text: str) -> None:
    while True:
        url = f"{API}/channels/{channel_id}/messages"
        answer = requests.post(url, json={"content": text}, headers=HEADERS, timeout=10)
        if answer.status_code != 429:
            return answer.raise_for_status()
        time.sleep(float(answer.headers["Retry-After"]))


@bot.on("READY")
def ready(shard: Shard, data: dict) -> None:
    mentions.update({f"<@{data['user']['id']}>", f"<@!{data['user']['id']}>"})


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    print(data["author"]["username"], "wrote:", data["content"], flush=True)
    # A message that mentions the bot has its content without the intent MESSAGE_CONTENT.
    words = data["content"].split()
    if len(words) == 3 and words[0] in mentions and words[1] == "hello":
        say(data["channel_id"], f"Hello, {words[2]}!")


bot.run_forever(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
