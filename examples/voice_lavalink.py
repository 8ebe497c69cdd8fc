"""Plays a track in a voice channel, by a server of Lavalink, until Ctrl-C.

    DISCORD_TOKEN=... python examples/voice_lavalink.py GUILD_ID CHANNEL_ID TRACK

TRACK is what Lavalink loads, the URL of a sound file for example. LAVALINK is the URL
of its server, LAVALINK_PASSWORD its password.
"""

import contextlib
import json
import os
import sys
import threading

import requests
import websocket

from shardlib import Intents, Shard

LAVALINK = os.environ.get("LAVALINK", "http://127.0.0.1:2333") + "/v4"
PASSWORD = os.environ.get("LAVALINK_PASSWORD", "youshallnotpass")


class Player:
    """Lavalink's player for one guild."""

    def __init__(self, user_id: str, guild_id: str) -> None:
        password = {"Authorization": PASSWORD}
        # One session for all requests: requests.patch() makes one for each, and ends it
        # in a finaliser, where Python would drop the KeyboardInterrupt of a Ctrl-C.
        self._http = requests.Session()
        self._http.headers.update(password)
        headers = {**password, "User-Id": user_id, "Client-Name": "example/1.0"}
        url = LAVALINK.replace("http", "ws", 1) + "/websocket"
        self._socket = websocket.create_connection(url, timeout=10, header=headers)
        session_id = json.loads(self._socket.recv())["sessionId"]
        self._url = f"{LAVALINK}/sessions/{session_id}/players/{guild_id}"
        self._socket.settimeout(None)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while text := self._socket.recv():
                print("Lavalink:", text, flush=True)  # a track has ended, for example

    def connect(self, state: dict, server: dict) -> None:
        """Hand over what Discord has said. Lavalink ignores what it knows already."""
        voice = {
            "token": server["token"],
            "endpoint": server["endpoint"],
            "sessionId": state["session_id"],
            "channelId": state["channel_id"],
        }
        self._patch({"voice": voice})

    def play(self, track: str) -> None:
        self._patch({"track": {"identifier": track}})

    def _patch(self, body: dict) -> None:
        self._http.patch(self._url, json=body, timeout=30).raise_for_status()

    def close(self) -> None:
        self._http.delete(self._url, timeout=10)


guild_id, channel_id, track = sys.argv[1:]
player = None
state: dict = {}
user_id = ""

with Shard(os.environ["DISCORD_TOKEN"], Intents.GUILD_VOICE_STATES) as shard:
    events = shard.events("READY", "VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE")
    shard.connect(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
    with contextlib.suppress(KeyboardInterrupt):
        for event in events:
            data = event.data
            if event.name == "READY":
                # A new session is in no channel: the bot joins, or joins again.
                user_id = data["user"]["id"]
                state, server = shard.join_voice(guild_id, channel_id)
                if player is None:
                    player = Player(user_id, guild_id)
                    player.connect(state, server)
                    player.play(track)
                else:
                    player.connect(state, server)
                print("in the channel", channel_id, flush=True)
            elif data["guild_id"] != guild_id or player is None:
                continue
            elif event.name == "VOICE_SERVER_UPDATE":
                if data["endpoint"] is not None:  # otherwise another server will follow
                    player.connect(state, data)
            elif data["user_id"] == user_id:
                state = data
                if state["channel_id"] is None:
                    print("somebody has disconnected the bot", flush=True)
                    break
                channel_id = state["channel_id"]  # the bot may have been moved
    if player is not None:
        player.close()
    shard.update_voice_state(guild_id, None)
