"""A whole bot: it prints messages. DISCORD_TOKEN=... python examples/bot.py"""

import os

from shardlib import Intents, Shard

bot = Shard(os.environ["DISCORD_TOKEN"], Intents.GUILDS | Intents.GUILD_MESSAGES)


@bot.on("READY")
def ready(shard: Shard, data: dict) -> None:
    print("logged in as", data["user"]["username"], flush=True)
    shard.update_presence(activities=[{"name": "the door", "type": 3}])


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    print(data["author"]["username"], "wrote:", data["content"], flush=True)


bot.run_forever(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
