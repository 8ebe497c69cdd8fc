"""The Gateway at Python's prompt.

    DISCORD_TOKEN=... python -i examples/prompt.py

The shard works on threads of its own while the prompt waits. The content of messages
needs the Message Content Intent, which the Developer Portal switches on.
"""

import os

from shardlib import Intents, Shard

intents = Intents.GUILDS | Intents.GUILD_MESSAGES | Intents.MESSAGE_CONTENT
shard = Shard(os.environ["DISCORD_TOKEN"], intents)
events = shard.events()  # from now on, until the prompt asks for them
shard.connect(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
shard.wait_until_ready(30)
print(f"{shard!r} is in the variable shard, its events in events")
