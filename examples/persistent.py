"""A bot that misses nothing while it is restarted: its session outlives the process.

    DISCORD_TOKEN=... python examples/persistent.py session.json

Stop it with Ctrl-C or SIGTERM and start it again: what was written meanwhile arrives first. Discord
keeps a session for some minutes; after that, a new one begins by itself.
"""

import contextlib
import os
import signal
import sys

from shardlib import Intents, Session, Shard

path = sys.argv[1]


def save(shard: Shard, ping: float | None = None) -> None:
    if shard.session is not None:
        shard.session.save(path)


bot = Shard(
    os.environ["DISCORD_TOKEN"],
    Intents.GUILDS | Intents.GUILD_MESSAGES,
    session=Session.load(path) if os.path.exists(path) else None,
    on_socket_ready=lambda shard: print("a new session", flush=True),
    on_socket_heartbeat=save,  # so that even a crash loses nothing
)


@bot.on("RESUMED")
def resumed(shard: Shard, data: dict) -> None:
    print("resumed: nothing was missed", flush=True)


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    print(data["author"]["username"], "wrote:", data["content"], flush=True)


signal.signal(signal.SIGTERM, signal.default_int_handler)  # as if it were Ctrl-C
try:
    with contextlib.suppress(KeyboardInterrupt):
        bot.connect(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
        bot.join()
finally:
    bot.disconnect(4000)  # unlike 1000, it leaves the session to be resumed
    save(bot)
