"""A web server of greenlets that shows the latest messages: a shard under gevent.

    pip install gevent
    DISCORD_TOKEN=... python examples/gevent_app.py

After patch_all() threads are greenlets, those of the shard, too. Its callbacks run on one
of them: they may sleep, ask a database, or open a web page, and the server goes on
meanwhile.
"""

from gevent import monkey

monkey.patch_all()  # before the imports whose threads and sockets it replaces

import json
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from shardlib import Intents, Shard

messages: deque[dict[str, str]] = deque(maxlen=50)

bot = Shard(os.environ["DISCORD_TOKEN"], Intents.GUILDS | Intents.GUILD_MESSAGES)


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    messages.append({"author": data["author"]["username"], "content": data["content"]})


def application(environ: dict, start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"state": bot.state.value, "messages": list(messages)}).encode()]


server = WSGIServer(
    ("127.0.0.1", int(os.environ.get("PORT", "5000"))), application, log=None
)
ended = Event()  # unlike server.stop(), it may come before the server has started
for number in (signal.SIGINT, signal.SIGTERM):
    gevent.signal_handler(number, ended.set)

with bot:
    bot.start(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
    server.start()
    print(f"serving on http://127.0.0.1:{server.server_port}", flush=True)
    ended.wait()
    server.stop()
