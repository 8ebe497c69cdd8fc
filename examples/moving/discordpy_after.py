"""The bot of discordpy_before.py, with shardlib and requests.

DISCORD_TOKEN=... python examples/moving/discordpy_after.py
"""

import contextlib
import os
import threading
import time

import requests

from shardlib import Intents, Shard, ShardError
from shardlib.dispatch import Pool

API = os.environ.get("DISCORD_API", "https://discord.com/api/v10")
TOKEN = os.environ["DISCORD_TOKEN"]
HEADERS = {
    "Authorization": f"Bot {TOKEN}",
    "User-Agent": "DiscordBot (https://example.com/riddle, 1.0)",
}


def author(event: str, data: dict) -> object:
    return data.get("author", {}).get("id")


# A riddle takes a thread of the pool until it is answered. The messages of one author are
# handled in their order, and so is all that has no author.
pool = Pool(workers=8, key=author)
intents = Intents.default() | Intents.MESSAGE_CONTENT
bot = Shard(TOKEN, intents, dispatcher=pool, slow_callback=60)
guild_ids: set[str] = set()  # of what discord.py has as bot.guilds
ended = threading.Event()


def say(channel_id: str, text: str) -> None:
    while True:
        url = f"{API}/channels/{channel_id}/messages"
        answer = requests.post(url, json={"content": text}, headers=HEADERS, timeout=10)
        if answer.status_code != 429:
            return answer.raise_for_status()
        time.sleep(float(answer.headers["Retry-After"]))


def show_count() -> None:
    status = {"name": "Custom Status", "type": 4, "state": f"in {len(guild_ids)} servers"}
    bot.update_presence(activities=[status])


@bot.on("READY")
def ready(shard: Shard, data: dict) -> None:
    print("logged in as", data["user"]["username"], flush=True)
    guild_ids.clear()
    guild_ids.update(guild["id"] for guild in data["guilds"])
    show_count()


@bot.on("GUILD_CREATE")
def guild_create(shard: Shard, data: dict) -> None:
    guild_ids.add(data["id"])


@bot.on("GUILD_DELETE")
def guild_delete(shard: Shard, data: dict) -> None:
    if not data.get("unavailable"):  # an outage is not the end of a membership
        guild_ids.discard(data["id"])


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    if data["author"].get("bot") or data["content"] != "!riddle":
        return
    say(data["channel_id"], "What has keys, and opens no door?")

    def is_answer(other: dict) -> bool:
        same_author: bool = other["author"]["id"] == data["author"]["id"]
        return same_author and other["channel_id"] == data["channel_id"]

    try:
        answer = shard.wait_for("MESSAGE_CREATE", is_answer, timeout=30)
    except TimeoutError:
        say(data["channel_id"], "A piano.")
    else:
        right = "piano" in answer["content"].lower()
        say(data["channel_id"], "Right!" if right else "No, a piano.")


def show_count_every_minute() -> None:
    while not ended.wait(60):
        # Without a connection now, the next minute will do.
        with contextlib.suppress(ShardError):
            show_count()


threading.Thread(target=show_count_every_minute, daemon=True).start()
bot.run_forever(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
ended.set()
