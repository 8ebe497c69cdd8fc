"""A bot that stores each message once, whenever it is killed and started again.

    DISCORD_TOKEN=... python examples/exactly_once.py messages.db

The messages and the session that they belong to are committed together. So what was not
committed when the process was killed was not done at all: the session that is loaded next
begins before it, and Discord sends it once more.
"""

import contextlib
import json
import os
import sqlite3
import sys

from shardlib import Intents, Session, Shard

# Made here, and used by the reader alone from then on.
database = sqlite3.connect(sys.argv[1], check_same_thread=False)
database.executescript(
    "CREATE TABLE IF NOT EXISTS messages (id TEXT, author TEXT);"
    "CREATE TABLE IF NOT EXISTS sessions (shard INTEGER PRIMARY KEY, session TEXT);"
)


def load() -> Session | None:
    row = database.execute("SELECT session FROM sessions").fetchone()
    return None if row is None else Session.from_dict(json.loads(row[0]))


def commit(shard: Shard, count: int) -> None:
    """Called when the callbacks of all that one read has brought have returned."""
    if shard.session is not None:
        text = json.dumps(shard.session.to_dict())
        database.execute("REPLACE INTO sessions VALUES (?, ?)", (shard.shard_id, text))
    database.commit()


intents = Intents.GUILDS | Intents.GUILD_MESSAGES
bot = Shard(os.environ["DISCORD_TOKEN"], intents, session=load(), on_socket_batch=commit)


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    values = (data["id"], data["author"]["username"])
    database.execute("INSERT INTO messages VALUES (?, ?)", values)


try:
    with contextlib.suppress(KeyboardInterrupt):
        bot.start(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
        bot.join()
finally:
    bot.disconnect(4000)  # unlike 1000, it leaves the session to be resumed
