"""A bot of as many shards as Discord recommends, which counts messages by server.

    DISCORD_TOKEN=... python examples/many_shards.py sessions

The sessions are kept in the directory of that name. Stop the bot with Ctrl-C or SIGTERM
and start it again within some minutes: all shards resume at once, and miss nothing.
"""

import contextlib
import os
import signal
import sys
import threading
from collections import Counter
from typing import Any

from shardlib import Intents, Shard, ShardManager, ShardsFailed

if len(sys.argv) != 2:
    sys.exit(f"usage: {sys.argv[0]} DIRECTORY, in which the sessions are kept")
bot = ShardManager(
    os.environ["DISCORD_TOKEN"],
    Intents.GUILDS | Intents.GUILD_MESSAGES,
    sessions=sys.argv[1],
    # The base of Discord's HTTP API, or of a local gateway's.
    api_url=os.environ.get("DISCORD_API", "https://discord.com/api/v10"),
)
messages: Counter[str] = Counter()
lock = threading.Lock()


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict[str, Any]) -> None:
    with lock:  # each shard calls this on a thread of its own
        messages[data["guild_id"]] += 1
        count = messages[data["guild_id"]]
    print(f"shard {shard.shard_id}: message {count} in {data['guild_id']}", flush=True)


def show_progress(ready: int, total: int) -> None:
    print(f"{ready} of {total} shards are ready", flush=True)


signal.signal(signal.SIGTERM, signal.default_int_handler)  # as if it were Ctrl-C
with contextlib.suppress(KeyboardInterrupt), bot:
    bot.start()
    try:
        bot.wait_until_ready(progress=show_progress)
    except ShardsFailed as error:  # unless all have failed, the others go on
        print(error, file=sys.stderr)
    while True:
        with contextlib.suppress(TimeoutError):
            bot.join(60)  # raises what has closed all shards, if it was an error
            break
        stats = bot.stats
        states = Counter(info.state.value for info in stats.shards.values())
        shown = ", ".join(f"{number} {state}" for state, number in states.items())
        print(f"{shown}; {stats.messages} events, {stats.resumes} resumes", flush=True)
