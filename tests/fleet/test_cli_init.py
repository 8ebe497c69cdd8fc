"""``shardlib init``, and what all commands of a fleet say if Redis cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from shardlib.fleet import Fleet
from shardlib.fleet.config import FleetConfig, read_config
from shardlib.fleet.keys import Keys
from shardlib.testing import LocalGateway
from tests.command import Command, run_to_end
from tests.redis_server import HOST, RedisServer
from tests.support import TOKEN

_SECRET = "geheim-4711"

COMMANDS = [
    ("init", "--shards", "4"),
    ("worker", "--intents", "default"),
    ("events", "web"),
]


def run(server: RedisServer, *arguments: str, token: str | None = None) -> Command:
    return run_to_end(*arguments, "--redis", server.url, "--name", "mybot", token=token)


def error_of(command: Command, status: int = 1) -> str:
    """The one line that a command ends with."""
    assert command.status == status, command.err
    assert command.out == []
    assert not any("Traceback" in line for line in command.err)
    assert command.err[-1].startswith("shardlib: ")
    return command.err[-1]


def test_init_with_shards_needs_no_token_and_asks_nobody_else(
    redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    command = run(redis_server, "init", "--shards", "8", "--max-concurrency", "2")
    assert command.status == 0, command.err
    assert read_config(client, keys) == FleetConfig(8, 2, 1000, 5.0)
    assert command.out[:4] == [
        "Fleet            mybot",
        "Shards           8",
        "Max concurrency  2 every 5 seconds",
        "Session starts   1000 in 24 hours",
    ]
    assert command.out[-1].endswith("shardlib worker --name mybot --intents default")
    assert command.err == []


def test_init_takes_what_the_http_api_recommends(
    redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    with LocalGateway(shards=3, guilds=3, max_concurrency=2, session_start_limit=77) as gateway:
        arguments = ("init", "--api-url", gateway.http_url)
        command = run(redis_server, *arguments, token=gateway.token)
        assert command.status == 0
        assert command.out[3] == "Session starts   77 left of 77 in 24 hours"
        assert command.out[-1].endswith(f"--intents default --url {gateway.url}")
        assert read_config(client, keys) == FleetConfig(3, 2, 77, 5.0)
        others: tuple[str, ...] = ("--max-concurrency", "1", "--session-start-limit", "50")
        others += ("--identify-interval", "0.5")
        assert run(redis_server, *arguments, *others, token=gateway.token).status == 0
        assert read_config(client, keys) == FleetConfig(3, 1, 50, 0.5)
        assert "refused the token" in error_of(run(redis_server, *arguments, token=TOKEN))


def test_another_number_of_shards_is_refused(redis_server: RedisServer) -> None:
    assert run(redis_server, "init", "--shards", "2").status == 0
    assert run(redis_server, "init", "--shards", "2").status == 0
    line = error_of(run(redis_server, "init", "--shards", "4"))
    assert "'mybot' has 2 shards" in line and "another name" in line


def test_init_tells_what_is_risked_with_this_redis(
    forgetful_server: RedisServer,
) -> None:
    client = forgetful_server.client()
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    command = run(forgetful_server, "init", "--shards", "1")
    assert command.status == 0
    policy, log = command.err
    assert "maxmemory-policy is allkeys-lru" in policy and "noeviction" in policy
    assert "Set appendonly to yes" in log


@pytest.mark.parametrize("arguments", COMMANDS)
def test_without_redis_py_the_command_says_what_to_install(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError('No redis', name='redis')")
    command = run_to_end(
        *arguments,
        *("--redis", "redis://localhost", "--name", "mybot"),
        environment={"PYTHONPATH": str(tmp_path)},
        token=TOKEN,
    )
    assert 'pip install "shardlib[redis]"' in error_of(command)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_the_url_comes_from_the_environment_and_is_never_shown(
    redis_program: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with RedisServer(redis_program, tmp_path / "redis", "--requirepass", _SECRET) as server:
        for password in (f"{_SECRET}-wrong", f"{_SECRET}/x"):
            command = run_to_end(
                *(*arguments, "--name", "mybot"),
                environment={"SHARDLIB_REDIS": f"redis://:{password}@{HOST}:{server.port}"},
                token=TOKEN,
            )
            assert "password" in error_of(command, 2 if "/" in password else 1)
            assert _SECRET not in "\n".join(command.err)
        command = run_to_end(
            *("init", "--shards", "2", "--name", "mybot"),
            environment={"SHARDLIB_REDIS": f"redis://:{_SECRET}@{HOST}:{server.port}"},
        )
        assert command.status == 0
        assert _SECRET not in "\n".join(command.out + command.err)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("events", "web"), "there is no fleet 'mybot'"),
        (("worker", "--intents", "all", "--lease", "0.5"), "there is no fleet 'mybot'"),
    ],
)
def test_a_fleet_that_is_not_there_is_told_with_the_command_that_makes_it(
    redis_server: RedisServer, arguments: tuple[str, ...], says: str
) -> None:
    line = error_of(run(redis_server, *arguments, token=TOKEN))
    assert says in line and '"shardlib init"' in line


@pytest.mark.parametrize("arguments", [COMMANDS[0], COMMANDS[2]])
def test_an_absent_redis_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    command = run_to_end(*arguments, "--redis", f"redis://{HOST}:1", "--name", "mybot")
    assert "Look whether it runs" in error_of(command)
    assert len(command.err) == 1


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("init", "--name", "mybot", "--shards", "4"), "--redis or from the environment variable"),
        (("init", "--redis", "redis://h", "--shards", "4"), "required: --name"),
        (("init", "--redis", "redis://h", "--name", "my:bot", "--shards", "4"), "not 'my:bot'"),
        (("init", "--redis", "http://h", "--name", "mybot", "--shards", "4"), "--redis: url must"),
        (("init", "--redis", "redis://h", "--name", "mybot"), "--shards N needs none"),
        (("init", "--redis", "redis://h", "--name", "m", "--shards", "0"), "not 0"),
        (("worker", "--redis", "redis://h", "--name", "m"), "required: --intents"),
        (("worker", "--redis", "redis://h", "--name", "m", "--intents", "guild"), "'guild'"),
        (("worker", "--redis", "redis://h", "--name", "m", "--intents", "all"), "DISCORD_TOKEN"),
        (
            ("worker", "--redis", "redis://h", "--name", "m", "--intents", "all", "--lease", "0"),
            "above 0",
        ),
        (("events", "--redis", "redis://h", "--name", "m"), "required: GROUP"),
        (("events", "a b", "--redis", "redis://h", "--name", "m"), "'a b'"),
        (("events", "web", "--redis", "redis://h", "--name", "m", "--start", "now"), "'now'"),
    ],
)
def test_a_bad_argument_is_explained_in_one_line(arguments: tuple[str, ...], says: str) -> None:
    command = run_to_end(*arguments)
    assert says in error_of(command, 2)
    assert len(command.err) == 1


def test_a_fleet_made_by_the_command_is_the_librarys(redis_server: RedisServer) -> None:
    assert run(redis_server, "init", "--shards", "4").status == 0
    with Fleet(redis_server.url, "mybot") as fleet:
        assert len(fleet.shards()) == 4
