"""A program that was there before: its own threads, its own lock, its own thread pool.

    DISCORD_TOKEN=... python examples/legacy.py

Discord is one more source of work. Nothing else in the program changes: its pool calls
the callbacks, those of one channel in order, and its lock guards what it always did.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from shardlib import Intents, Shard
from shardlib.dispatch import Pool


class Ledger:
    """Counts lines by author, from whichever thread they come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, int] = {}

    def add(self, author: str) -> None:
        with self._lock:
            self._lines[author] = self._lines.get(author, 0) + 1

    def total(self) -> int:
        with self._lock:
            return sum(self._lines.values())


ledger = Ledger()
pool = ThreadPoolExecutor(4, thread_name_prefix="ledger")
enough = threading.Event()

bot = Shard(
    os.environ["DISCORD_TOKEN"],
    Intents.GUILDS | Intents.GUILD_MESSAGES,
    dispatcher=Pool(
        workers=2, key=lambda event, data: data.get("channel_id"), executor=pool
    ),
)


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    ledger.add(data["author"]["username"])
    if ledger.total() >= 10:
        enough.set()


with pool, bot:  # the bot ends first, then the pool
    bot.connect(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
    enough.wait()
print("lines:", ledger.total())
