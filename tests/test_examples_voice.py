"""examples/voice_lavalink.py, between a local gateway and a stand-in of Lavalink.

The stand-in has the two things that the example uses, as Lavalink 4 documents them: the WebSocket
that names the session, and the player of a guild. It refuses what Lavalink refuses.
"""

from __future__ import annotations

import base64
import hashlib
import json
import queue
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shardlib.testing import Guild, LocalGateway
from tests.examples import PATIENCE, Example, WatchedExample
from tests.finaliser_watch import TOLD

PASSWORD = "a password"
TRACK = "http://127.0.0.1/track.ogg"


class Lavalink(BaseHTTPRequestHandler):
    """One request to the stand-in, whose server keeps what was asked for."""

    protocol_version = "HTTP/1.1"
    server: LavalinkServer

    def do_GET(self) -> None:
        assert self.path == "/v4/websocket"
        if not self._is_allowed():
            return
        self.server.user_id = self.headers["User-Id"]
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        for name, value in (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept),
        ):
            self.send_header(name, value)
        self.end_headers()
        ready = json.dumps({"op": "ready", "resumed": False, "sessionId": "one"}).encode()
        self.wfile.write(struct.pack("!BB", 0x81, len(ready)) + ready)
        self.wfile.flush()
        self.rfile.read()  # until the client has ended the connection
        self.close_connection = True

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._is_allowed():
            return
        voice = body.get("voice")
        names = ("token", "endpoint", "sessionId", "channelId")
        if voice is not None and not all(voice.get(name) for name in names):
            self._answer(400)
        else:
            self.server.asked.put(("PATCH", self.path, body))
            self._answer(200, b"{}")

    def do_DELETE(self) -> None:
        if self._is_allowed():
            self.server.asked.put(("DELETE", self.path, None))
            self._answer(204)

    def _is_allowed(self) -> bool:
        if self.headers["Authorization"] == PASSWORD:
            return True
        self._answer(401)
        return False

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class LavalinkServer(ThreadingHTTPServer):
    """The stand-in."""

    daemon_threads = False  # closing waits for the thread of each connection

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Lavalink)
        self.asked: queue.Queue[tuple[str, str, Any]] = queue.Queue()
        self.user_id: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def player(self, guild: Guild) -> str:
        return f"/v4/sessions/one/players/{guild.id}"

    def expect_voice(self, guild: Guild, token: str = "local-voice") -> dict[str, Any]:
        """Return the next voice state that is handed over with this token."""
        while True:
            method, path, body = self.asked.get(timeout=PATIENCE)
            assert (method, path) == ("PATCH", self.player(guild))
            voice: dict[str, Any] = body.get("voice", {})
            if voice.get("token") == token:
                return voice


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(identify_interval=0) as gateway:
        yield gateway


@pytest.fixture
def guild(gateway: LocalGateway) -> Guild:
    return next(iter(gateway.world.guilds.values()))


@pytest.fixture
def lavalink() -> Iterator[LavalinkServer]:
    with LavalinkServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def bot(gateway: LocalGateway, guild: Guild, lavalink: LavalinkServer) -> Iterator[Example]:
    """The example, which has joined the first voice channel and plays."""
    arguments = [guild.id, guild.voice_channels[0]["id"], TRACK]
    environment = {
        "LAVALINK": lavalink.url,
        "LAVALINK_PASSWORD": PASSWORD,
        "NO_PROXY": "127.0.0.1",
    }
    with WatchedExample(gateway, "voice_lavalink.py", *arguments, **environment) as bot:
        bot.wait_for("in the channel")
        yield bot


def own_voice_state(gateway: LocalGateway, guild: Guild) -> dict[str, Any] | None:
    return guild.voice_states.get(gateway.world.user["id"])


def move(gateway: LocalGateway, guild: Guild, channel_id: str | None) -> None:
    """Do what a moderator does who moves the bot, or disconnects it with None."""
    user_id = gateway.world.user["id"]
    session_id = guild.voice_states[user_id]["session_id"]
    state = guild.join_voice(user_id, channel_id, session_id=session_id)
    gateway.dispatch("VOICE_STATE_UPDATE", state)


def change_server(gateway: LocalGateway, guild: Guild, endpoint: str | None) -> None:
    """Do what Discord does if the voice server of a guild changes."""
    server = {"token": "another token", "guild_id": guild.id, "endpoint": endpoint}
    gateway.dispatch("VOICE_SERVER_UPDATE", server)


def test_it_hands_over_what_discord_says_then_plays_and_leaves_at_ctrl_c(
    gateway: LocalGateway, guild: Guild, lavalink: LavalinkServer, bot: Example
) -> None:
    session = gateway.sessions[0]
    assert lavalink.user_id == gateway.world.user["id"]
    assert lavalink.expect_voice(guild) == {
        "token": "local-voice",
        "endpoint": "voice.invalid:443",
        "sessionId": session.session_id,
        "channelId": guild.voice_channels[0]["id"],
    }
    played = ("PATCH", lavalink.player(guild), {"track": {"identifier": TRACK}})
    assert lavalink.asked.get(timeout=PATIENCE) == played
    lavalink.expect_voice(guild)  # again, for the event that join_voice() has taken its part from
    assert own_voice_state(gateway, guild) is not None
    assert bot.interrupt() == 0
    assert own_voice_state(gateway, guild) is None
    asked = [lavalink.asked.get_nowait() for _ in range(lavalink.asked.qsize())]
    assert asked[-1] == ("DELETE", lavalink.player(guild), None)
    assert not any("Traceback" in line or TOLD in line for line in bot.lines)


def test_a_bot_that_is_moved_hands_over_the_channel_and_the_new_token(
    gateway: LocalGateway, guild: Guild, lavalink: LavalinkServer, bot: Example
) -> None:
    other = guild.voice_channels[1]["id"]
    move(gateway, guild, other)
    change_server(gateway, guild, "other.invalid:443")
    voice = lavalink.expect_voice(guild, "another token")
    assert (voice["channelId"], voice["endpoint"]) == (other, "other.invalid:443")


def test_a_server_that_has_gone_away_is_not_handed_over_but_the_next_one_is(
    gateway: LocalGateway, guild: Guild, lavalink: LavalinkServer, bot: Example
) -> None:
    change_server(gateway, guild, None)
    change_server(gateway, guild, "other.invalid:443")
    voice = lavalink.expect_voice(guild, "another token")
    assert voice["endpoint"] == "other.invalid:443"
    assert bot.interrupt() == 0
    assert not any("400" in line for line in bot.lines)


def test_a_bot_that_is_disconnected_from_the_channel_ends(
    gateway: LocalGateway, guild: Guild, lavalink: LavalinkServer, bot: Example
) -> None:
    move(gateway, guild, None)
    bot.wait_for("somebody has disconnected the bot")
    assert bot.process.wait(PATIENCE) == 0


def test_after_a_new_session_the_bot_joins_again(
    gateway: LocalGateway, guild: Guild, lavalink: LavalinkServer, bot: Example
) -> None:
    first = lavalink.expect_voice(guild)["sessionId"]
    gateway.connections[0].invalid_session()
    second = lavalink.expect_voice(guild)["sessionId"]
    while second == first:  # what join_voice() has waited for comes to the loop, too
        second = lavalink.expect_voice(guild)["sessionId"]
    assert second == gateway.sessions[0].session_id
