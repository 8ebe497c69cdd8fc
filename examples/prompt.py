"""The Gateway at Python's prompt.

    DISCORD_TOKEN=... python -i examples/prompt.py
    >>> shard
    <Shard 0/1 ready, session 4f0c..., ping 42 ms>
    >>> [event.name for event in events.poll()]
    ['READY', 'GUILD_CREATE', 'MESSAGE_CREATE']
    >>> shard.update_presence(status="idle")
    >>> message = shard.wait_for("MESSAGE_CREATE")

The shard works on threads of its own while the prompt waits. Define a listener again, and
it takes the place of the earlier one. Ctrl-D disconnects.
"""

import os

from shardlib import Intents, Shard

shard = Shard(os.environ["DISCORD_TOKEN"], Intents.GUILDS | Intents.GUILD_MESSAGES)
events = shard.events()  # from now on, until the prompt asks for them
shard.connect(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
shard.wait_until_ready(30)
print(f"{shard!r} is in the variable shard, its events in events")
