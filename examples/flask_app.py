"""A web page that shows the latest messages: a shard beside Flask, in one process.

    pip install flask
    DISCORD_TOKEN=... python examples/flask_app.py

The shard lives on threads of its own; Flask's request handlers only read what it has collected.
"""

import atexit
import os
from collections import deque

from flask import Flask, Response, jsonify

from shardlib import Intents, Shard

# Appending to a deque and copying it are one step each, so the two sides need no lock.
messages: deque[dict[str, str]] = deque(maxlen=50)

bot = Shard(os.environ["DISCORD_TOKEN"], Intents.GUILDS | Intents.GUILD_MESSAGES)


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    messages.append({"author": data["author"]["username"], "content": data["content"]})


def create_app() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def index() -> Response:
        latest = list(messages.copy())
        return jsonify(state=bot.state.value, ping=bot.heartbeat_ping, messages=latest)

    return app


if __name__ == "__main__":
    app = create_app()
    bot.start(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
    atexit.register(bot.disconnect)
    # No reloader: it would start everything twice, and two shards with one token.
    app.run(port=int(os.environ.get("PORT", "5000")), use_reloader=False)
