"""Clients that nobody here wrote cannot tell the local gateway from Discord.

Each runs unmodified but for the URL, in a process of its own, with its own default compression:
it connects, gets READY and its guilds, receives messages, and survives everything that a gateway
does to a session.  What it did is checked at the gateway.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardlib import Intents, Shard
from shardlib.recording import Recorder
from shardlib.testing import GatewayConnection, LocalGateway, Recording
from tests.support import wait_until
from tests.testing.recorded import QUIET

from .bot import Bot, running
from .install import DIRECTORY

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

CLIENTS = Path(__file__).parent / "clients"


def python(library: str, program: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return command and environment for a Python client, or skip."""
    directory = DIRECTORY / library
    if not directory.is_dir():
        pytest.skip(f"{library} is not installed: python tests/interop/install.py python")
    command = [sys.executable, "-W", "ignore", str(CLIENTS / program), *arguments]
    return command, {"PYTHONPATH": str(directory)}


def node(library: str, program: str) -> tuple[list[str], dict[str, str]]:
    """Return command and environment for a Node.js client, or skip."""
    executable = shutil.which("node")
    modules = DIRECTORY / "npm" / "node_modules"
    if executable is None:
        pytest.skip("Node.js is not found")
    if not (modules / library).is_dir():
        pytest.skip(f"{library} is not installed: python tests/interop/install.py npm")
    return [executable, str(CLIENTS / program)], {"NODE_PATH": str(modules)}


@dataclass(frozen=True)
class Habits:
    """Where a client does not do what Discord's documentation (Gateway, "Resuming") says."""

    #: It always resumes at READY's ``resume_gateway_url``.
    uses_resume_url: bool = True
    #: It resumes after op 9 with ``d`` true.
    heeds_resumable: bool = True


WELL_BEHAVED = Habits()


@pytest.mark.parametrize(
    ("library", "habits"),
    [
        ("discord.py", WELL_BEHAVED),
        ("disnake", WELL_BEHAVED),
        ("nextcord", Habits(uses_resume_url=False)),
        ("py-cord", Habits(uses_resume_url=False)),
    ],
)
def test_the_family_of_discord_py(library: str, habits: Habits) -> None:
    module = "discord" if library in ("discord.py", "py-cord") else library
    command, environment = python(library, "discordpy_family.py", module)
    with make_gateway() as gateway:
        arguments = [gateway.http_url, gateway.url]
        with running(gateway, [*command, *arguments], environment) as bot:
            live(gateway, bot, habits)


def test_hikari() -> None:
    command, environment = python("hikari", "hikari_bot.py")
    with make_gateway() as gateway:
        with running(gateway, [*command, gateway.http_url], environment) as bot:
            live(gateway, bot, WELL_BEHAVED)


def test_interactions_py() -> None:
    command, environment = python("interactions.py", "interactions_bot.py")
    with make_gateway() as gateway:
        with running(gateway, [*command, gateway.http_url], environment) as bot:
            live(gateway, bot, Habits(uses_resume_url=False, heeds_resumable=False))


@pytest.mark.parametrize(
    ("library", "program"),
    [
        ("@discordjs/ws", "discordjs_ws.mjs"),
        ("discord.js", "discordjs_bot.mjs"),
        ("@discordeno/bot", "discordeno_bot.mjs"),
        ("oceanic.js", "oceanic_bot.cjs"),
    ],
)
def test_the_clients_of_node(library: str, program: str) -> None:
    command, environment = node(library, program)
    with make_gateway() as gateway:
        with running(gateway, [*command, gateway.http_url], environment) as bot:
            live(gateway, bot, WELL_BEHAVED)


def test_eris(tmp_path: Path) -> None:
    command, environment = node("eris", "eris_bot.cjs")
    with make_gateway(tls=True) as gateway:
        authority = tmp_path / "authority.pem"
        authority.write_bytes(gateway.ca_certificate)
        environment["NODE_EXTRA_CA_CERTS"] = str(authority)
        with running(gateway, [*command, gateway.http_url], environment) as bot:
            live(gateway, bot, Habits(heeds_resumable=False))


@pytest.mark.slow
def test_a_redacted_recording_of_50_000_events_is_played_to_discord_py(tmp_path: Path) -> None:
    path = tmp_path / "events.gz"
    record_traffic(path, 50_000)
    count = 0
    digest = hashlib.sha256()
    for event in Recording(path):
        if event.name != "READY":
            count += 1
            digest.update(json.dumps([event.name, event.data], sort_keys=True).encode())
    assert count >= 50_000
    command, environment = python("discord.py", "discordpy_listener.py")
    with LocalGateway(replay=path, speed=None) as gateway:
        arguments = [gateway.http_url, gateway.url, str(count)]
        with running(gateway, [*command, *arguments], environment) as bot:
            assert bot.expect("heard", timeout=170)["digest"] == digest.hexdigest()
            assert gateway.replay is not None
            gateway.replay.wait(10)
            (session,) = gateway.sessions
            assert session.resumes == 0


def record_traffic(path: Path, events: int) -> None:
    with LocalGateway(members=5) as gateway, Recorder(path, redact=True) as recorder:
        shard = Shard(
            gateway.token, Intents.all(), on_socket_dispatch=recorder.record, logger=QUIET
        )
        with shard:
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
            gateway.traffic(rate=None)
            wait_until(lambda: recorder.events > events, 100, f"{events} events")


def make_gateway(tls: bool = False) -> LocalGateway:
    # Heartbeats soon, so that there are some to be seen; and much patience with them, since
    # the clock will leap.
    return LocalGateway(heartbeat_interval=3000, heartbeat_tolerance=120, tls=tls, members=60)


def live(gateway: LocalGateway, bot: Bot, habits: Habits) -> None:
    """Live through a bot's life."""
    connection = gateway.wait_for_connection(lambda each: each.session, timeout=40)
    session = connection.session
    assert session is not None
    greeted(gateway, bot)
    hears(gateway, bot, "the first")
    connection.expect(1, timeout=10)
    losses: list[Callable[[GatewayConnection], None]] = [
        lambda it: it.reconnect(),
        lambda it: it.reset(),
        lambda it: it.drop(),
        lambda it: it.close(4000, "something unknown"),
    ]
    if habits.heeds_resumable:
        losses.append(lambda it: it.invalid_session(resumable=True))
    for loss in losses:
        connection = survives(gateway, bot, connection, loss, habits)
        assert connection.session is session

    endings = [False] if habits.heeds_resumable else [True, False]
    for resumable in endings:
        # A second Identify needs 5 seconds from the first, and all members are told only every
        # 30: let them have passed.
        gateway.clock.advance(30)
        connection = begins_anew(gateway, bot, connection, resumable)
    received = [payload for each in gateway.all_connections for payload in each.received]
    assert sum(payload["op"] == 2 for payload in received) == 1 + len(endings)


def survives(
    gateway: LocalGateway,
    bot: Bot,
    connection: GatewayConnection,
    loss: Callable[[GatewayConnection], None],
    habits: Habits,
) -> GatewayConnection:
    """Do something to the connection; the bot must resume the session, and miss nothing."""
    session = connection.session
    assert session is not None
    resumes = session.resumes
    loss(connection)
    # After op 9, @discordjs/ws may have resumed already, on the same connection.
    gateway.wait_until(
        lambda: session.connection is not connection or session.resumes > resumes, timeout=20
    )
    say(gateway, f"missed {resumes}")
    gateway.wait_until(lambda: session.resumes > resumes, timeout=20)
    assert session.resumes == resumes + 1
    resumed = session.connection
    assert resumed is not None
    # After op 9, @discordjs/ws resumes right where it is.
    assert resumed is connection or resumed.at_resume_url or not habits.uses_resume_url
    assert bot.expect("message")["content"] == f"missed {resumes}"
    hears(gateway, bot, f"after {resumes}")
    return resumed


def begins_anew(
    gateway: LocalGateway, bot: Bot, connection: GatewayConnection, resumable: bool
) -> GatewayConnection:
    """Invalidate the session; the bot must begin another."""
    former = connection.session
    connection.invalid_session(resumable)

    def begun() -> GatewayConnection | None:
        session = gateway.sessions[-1] if gateway.sessions else None
        return None if session is None or session is former else session.connection

    successor = gateway.wait_until(begun, timeout=40)
    greeted(gateway, bot)
    hears(gateway, bot, f"anew, {resumable}")
    return successor


def greeted(gateway: LocalGateway, bot: Bot) -> None:
    """The bot knows itself and its guilds."""
    ready = bot.expect("ready")
    assert ready["user"] == gateway.world.user["id"]
    assert set(ready["guilds"]) == set(gateway.world.guilds)


def say(gateway: LocalGateway, content: str) -> None:
    guild = next(iter(gateway.world.guilds.values()))
    gateway.send_message(guild.text_channels[0]["id"], guild.owner_id, content)


def hears(gateway: LocalGateway, bot: Bot, content: str) -> None:
    say(gateway, content)
    assert bot.expect("message")["content"] == content
