"""The bot of websocketapp_before.py, with shardlib.

DISCORD_TOKEN=... python examples/moving/websocketapp_after.py
"""

import os

from shardlib import Intents, Shard

TOKEN = os.environ["DISCORD_TOKEN"]
URL = os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/")
INTENTS = Intents.GUILDS | Intents.GUILD_MESSAGES | Intents.MESSAGE_CONTENT

bot = Shard(TOKEN, INTENTS)


@bot.on("READY")
def ready(shard: Shard, data: dict) -> None:
    print("logged in as", data["user"]["username"], flush=True)


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    print(data["author"]["username"], "wrote:", data["content"], flush=True)


bot.run_forever(URL)
