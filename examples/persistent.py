"""A bot that misses nothing while it is restarted: its session outlives the process.

    DISCORD_TOKEN=... python examples/persistent.py session.json

Stop it with Ctrl-C or SIGTERM and start it again: what was written meanwhile arrives
first. Discord keeps a session for some minutes; after that, a new one begins by itself.
"""

import contextlib
import os
import signal
import sys

from shardlib import Intents, Session, Shard

path = sys.argv[1]


def load() -> Session | None:
    try:
        return Session.load(path)
    except (FileNotFoundError, ValueError) as error:  # the first time, or it was damaged
        print(error, "- a new session begins", file=sys.stderr)
        return None


def save(shard: Shard, *_: object) -> None:
    if shard.session is not None:
        shard.session.save(path)


# Saved at every heartbeat: after a crash, what came since the last one comes once more.
bot = Shard(
    os.environ["DISCORD_TOKEN"],
    Intents.GUILDS | Intents.GUILD_MESSAGES,
    session=load(),
    on_socket_ready=save,
    on_socket_reconnected=save,
    on_socket_heartbeat=save,
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
        bot.start(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
        bot.join()
finally:
    bot.disconnect(4000)  # unlike 1000, it leaves the session to be resumed
    save(bot)
