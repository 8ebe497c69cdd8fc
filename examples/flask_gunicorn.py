"""A web page that shows the latest messages: a shard in one of gunicorn's workers.

    pip install flask gunicorn
    cd examples
    DISCORD_TOKEN=... gunicorn --workers 2 flask_gunicorn:app

Every worker serves the page, and one of them runs the shard. Kill that one, with kill -9
even: the other goes on with its session. What the callbacks collect stands in a database,
for all workers.
"""

import contextlib
import os
import sqlite3

from flask import Flask, Response, jsonify

from shardlib import Intents, Session, Shard
from shardlib.embed import one_process

DIRECTORY = os.environ.get("STATE_DIRECTORY", os.getcwd())  # as systemd names it


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(os.path.join(DIRECTORY, "messages.sqlite"))
    connection.row_factory = sqlite3.Row
    connection.execute(
        "CREATE TABLE IF NOT EXISTS messages (id PRIMARY KEY, author, content)"
    )
    return connection


def remember(shard: Shard, data: dict) -> None:
    message = (data["id"], data["author"]["username"], data["content"])
    with contextlib.closing(database()) as connection, connection:
        # After a crash the last events come again.
        connection.execute("INSERT OR IGNORE INTO messages VALUES (?, ?, ?)", message)


def start(session: Session | None) -> Shard:
    token = os.environ["DISCORD_TOKEN"]
    bot = Shard(token, Intents.GUILDS | Intents.GUILD_MESSAGES, session=session)
    bot.on("MESSAGE_CREATE", remember)
    bot.start(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
    return bot


app = Flask(__name__)
keeper = one_process(os.path.join(DIRECTORY, "bot.lock"), start)


@app.get("/")
def index() -> Response:
    with contextlib.closing(database()) as connection:
        query = "SELECT author, content FROM messages ORDER BY rowid DESC LIMIT 50"
        latest = [dict(row) for row in connection.execute(query)]
    shard = keeper.shard  # None in the other workers
    return jsonify(
        process=os.getpid(), state=shard and shard.state.value, messages=latest
    )
