"""A bot written by hand with websocket-client's WebSocketApp, as many have written one.

    DISCORD_TOKEN=... python examples/moving/websocketapp_before.py

It works until something goes wrong. websocketapp_after.py is the same bot.
"""

import json
import os
import threading
import time

import websocket

TOKEN = os.environ["DISCORD_TOKEN"]
URL = os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/")
INTENTS = (1 << 0) | (1 << 9) | (1 << 15)  # guilds, their messages, with content

sequence = None


def beat(ws: websocket.WebSocketApp, interval: float) -> None:
    while True:
        time.sleep(interval)
        ws.send(json.dumps({"op": 1, "d": sequence}))


def on_message(ws: websocket.WebSocketApp, message: str) -> None:
    global sequence
    payload = json.loads(message)
    if payload["s"] is not None:
        sequence = payload["s"]
    if payload["op"] == 10:
        interval = payload["d"]["heartbeat_interval"] / 1000
        threading.Thread(target=beat, args=(ws, interval), daemon=True).start()
        properties = {"os": "linux", "browser": "bot", "device": "bot"}
        identify = {"token": TOKEN, "intents": INTENTS, "properties": properties}
        ws.send(json.dumps({"op": 2, "d": identify}))
    elif payload["t"] == "READY":
        print("logged in as", payload["d"]["user"]["username"], flush=True)
    elif payload["t"] == "MESSAGE_CREATE":
        data = payload["d"]
        print(data["author"]["username"], "wrote:", data["content"], flush=True)


app = websocket.WebSocketApp(URL + "?v=10&encoding=json", on_message=on_message)
app.run_forever(reconnect=1)
