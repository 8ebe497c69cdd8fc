"""A script: it asks who owns a server, then prints the next messages there.

    DISCORD_TOKEN=... python examples/script_events.py 5 60

It ends after 5 messages, or after 60 seconds without one in any server, or with Ctrl-C.
The content of messages needs the Message Content Intent, which the Developer Portal
switches on.
"""

import contextlib
import itertools
import os
import sys

from shardlib import Intents, Shard

count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
quiet = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
intents = Intents.GUILDS | Intents.GUILD_MESSAGES | Intents.MESSAGE_CONTENT

with Shard(os.environ["DISCORD_TOKEN"], intents) as shard:
    # Made before connect(), these miss nothing. What comes meanwhile waits.
    guilds = shard.events("GUILD_CREATE", timeout=30)
    messages = shard.events("MESSAGE_CREATE", timeout=quiet)
    shard.connect(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))

    guild = next(guilds).data
    guilds.close()
    owners = shard.fetch_guild_members(guild["id"], user_ids=guild["owner_id"])
    for owner in owners:
        print(owner["user"]["username"], "owns", guild["name"], flush=True)

    here = (event.data for event in messages if event.data.get("guild_id") == guild["id"])
    with contextlib.suppress(KeyboardInterrupt):
        try:
            for data in itertools.islice(here, count):
                print(data["author"]["username"], "wrote:", data["content"], flush=True)
        except TimeoutError:
            print("all have been quiet for", quiet, "seconds", flush=True)
