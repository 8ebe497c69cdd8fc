"""Answers every question. DISCORD_TOKEN=... python questions.py"""

import os
import signal
import sys

import requests

from shardlib import Intents, Shard
from shardlib.dispatch import Worker

GATEWAY = os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/")
API = os.environ.get("DISCORD_API", "https://discord.com/api/v10")
INTENTS = Intents.GUILDS | Intents.GUILD_MESSAGES | Intents.MESSAGE_CONTENT


def make_bot(token: str, api: str = API) -> Shard:
    headers = {
        "Authorization": f"Bot {token}",
        "User-Agent": "DiscordBot (https://example.com/questions, 1.0)",
    }
    # The worker's thread waits for the answer to be sent, and the shard goes on reading.
    bot = Shard(token, INTENTS, dispatcher=Worker())

    @bot.on("READY")
    def ready(shard: Shard, data: dict) -> None:
        print("logged in as", data["user"]["username"], flush=True)

    @bot.on("MESSAGE_CREATE")
    def message(shard: Shard, data: dict) -> None:
        author = data["author"]
        print(f"{author['username']}: {data['content']}", flush=True)
        if data["content"].endswith("?") and not author.get("bot"):
            url = f"{api}/channels/{data['channel_id']}/messages"
            answer = {"content": f"I don't know, {author['username']}."}
            response = requests.post(url, json=answer, headers=headers, timeout=10)
            response.raise_for_status()

    return bot


if __name__ == "__main__":
    if "DISCORD_TOKEN" not in os.environ:
        sys.exit("Set the environment variable DISCORD_TOKEN to the bot's token.")
    bot = make_bot(os.environ["DISCORD_TOKEN"])
    signal.signal(signal.SIGTERM, lambda number, frame: bot.disconnect())
    bot.run_forever(GATEWAY)
