"""A daemon: it may start before its network does, writes a log, and ends with SIGTERM.

    DISCORD_TOKEN=... python examples/daemon.py session.json

It goes on with the session of the process before it, so that a restart misses nothing.
"""

import logging
import os
import signal
import sys
import types

from shardlib import Intents, Session, Shard
from shardlib.dispatch import Worker

path = sys.argv[1]
logging.basicConfig(
    level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
)
log = logging.getLogger("daemon")

session = Session.load(path) if os.path.exists(path) else None

bot = Shard(
    os.environ["DISCORD_TOKEN"],
    Intents.GUILDS | Intents.GUILD_MESSAGES,
    session=session,
    dispatcher=Worker(),  # a slow message must not keep the next one from being received
)


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    log.info("%s wrote: %s", data["author"]["username"], data["content"])


def terminate(number: int, frame: types.FrameType | None) -> None:
    bot.disconnect(4000)  # unlike 1000, it leaves the session to be resumed


signal.signal(signal.SIGTERM, terminate)
bot.run_forever(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
if bot.session is not None:
    bot.session.save(path)
log.info("ended, the session is kept")
