"""Answers /ping, with a button, and /count, slowly, with requests.

    DISCORD_TOKEN=... python examples/slash_commands.py

respond() takes an interaction and returns the response to it, as the view of an
interactions endpoint does.
"""

import enum
import os
import time
from typing import Any

import requests

from shardlib import Intents, Shard
from shardlib.dispatch import Pool

API = os.environ.get("DISCORD_API", "https://discord.com/api/v10")
TOKEN = os.environ["DISCORD_TOKEN"]
HEADERS = {
    "Authorization": f"Bot {TOKEN}",
    "User-Agent": "DiscordBot (https://example.com/ping, 1.0)",
}


class InteractionType(enum.IntEnum):
    APPLICATION_COMMAND = 2
    MESSAGE_COMPONENT = 3


class InteractionResponseType(enum.IntEnum):
    CHANNEL_MESSAGE_WITH_SOURCE = 4
    DEFERRED_CHANNEL_MESSAGE_WITH_SOURCE = 5
    UPDATE_MESSAGE = 7


class InteractionResponseFlags(enum.IntFlag):
    EPHEMERAL = 1 << 6


NUMBER = {
    "type": 4,
    "name": "to",
    "description": "The last number.",
    "required": True,
    "min_value": 1,
    "max_value": 60,
}
COMMANDS = [
    {"name": "ping", "description": "Answers at once."},
    {"name": "count", "description": "Counts, one number a second.", "options": [NUMBER]},
]
BUTTON = {"type": 2, "style": 1, "label": "Again", "custom_id": "again"}


def call(method: str, path: str, body: Any = None, http: Any = requests) -> Any:
    """Ask Discord, and return its answer. After a 429 ask again, as soon as allowed."""
    while True:
        response = http.request(
            method, API + path, json=body, headers=HEADERS, timeout=10
        )
        if response.ok:
            return response.json() if response.content else None
        if response.status_code != 429:
            raise RuntimeError(f"Discord says {response.status_code}: {response.text}")
        time.sleep(float(response.headers["Retry-After"]))


def respond(interaction: dict) -> dict:
    """Return the response that Discord must have within three seconds."""
    if interaction["type"] == InteractionType.MESSAGE_COMPONENT:
        data = {"content": "pong again"}
        return {"type": InteractionResponseType.UPDATE_MESSAGE, "data": data}
    if interaction["data"]["name"] == "count":
        return {"type": InteractionResponseType.DEFERRED_CHANNEL_MESSAGE_WITH_SOURCE}
    return {
        "type": InteractionResponseType.CHANNEL_MESSAGE_WITH_SOURCE,
        "data": {"content": "pong", "components": [{"type": 1, "components": [BUTTON]}]},
    }


def follow_up(interaction: dict) -> None:
    """Do what takes its time, and put the result where the user sees "thinking..."."""
    webhook = f"/webhooks/{interaction['application_id']}/{interaction['token']}"
    last = interaction["data"]["options"][0]["value"]
    for number in range(1, last + 1):
        time.sleep(1)
        call("PATCH", f"{webhook}/messages/@original", {"content": str(number)})
    flags = InteractionResponseFlags.EPHEMERAL
    call("POST", webhook, {"content": "That was all.", "flags": flags})


# While a thread of the pool counts for one user, the others answer other users in time.
# The log tells of a callback that takes longer than any should.
bot = Shard(TOKEN, Intents.GUILDS, dispatcher=Pool(workers=8), slow_callback=120)


@bot.on("READY")
def ready(shard: Shard, data: dict) -> None:
    print("logged in as", data["user"]["username"], flush=True)


@bot.on("INTERACTION_CREATE")
def interact(shard: Shard, interaction: dict) -> None:
    response = respond(interaction)
    call(
        "POST",
        f"/interactions/{interaction['id']}/{interaction['token']}/callback",
        response,
    )
    if response["type"] == InteractionResponseType.DEFERRED_CHANNEL_MESSAGE_WITH_SOURCE:
        follow_up(interaction)


# The main thread keeps a session: requests.request() makes one for each request, and ends
# it in a finaliser, where Python would drop the KeyboardInterrupt of a Ctrl-C.
http = requests.Session()
application = call("GET", "/applications/@me", http=http)
call("PUT", f"/applications/{application['id']}/commands", COMMANDS, http=http)
bot.run_forever(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
