"""``DISCORD_GATEWAY`` and ``DISCORD_API`` stand in for ``--url`` and ``--api-url``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardlib.testing import LocalGateway
from tests.command import Command, run_to_end

# Nothing listens at this port: a command that connects there fails.
ELSEWHERE = {
    "DISCORD_GATEWAY": "ws://127.0.0.1:9/",
    "DISCORD_API": "http://127.0.0.1:9/api/v10",
}


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(identify_interval=0) as gateway:
        yield gateway


def variables(gateway: LocalGateway) -> dict[str, str]:
    return {"DISCORD_GATEWAY": gateway.url, "DISCORD_API": gateway.http_url}


def run(gateway: LocalGateway, environment: dict[str, str], *arguments: str) -> Command:
    return run_to_end(*arguments, token=gateway.token, environment=environment)


def test_tail_and_record_connect_where_the_variable_says(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    for arguments in (("tail",), ("record", str(tmp_path / "events.gz"))):
        command = run(gateway, variables(gateway), *arguments, "--count", "1")
        assert command.status == 0, command.err
        assert any(f"connecting to {gateway.url} (DISCORD_GATEWAY)" in line for line in command.err)


def test_tail_of_many_shards_takes_both_variables(gateway: LocalGateway) -> None:
    tail = ("tail", "--shards", "auto", "--count", "1")
    command = run(gateway, variables(gateway), *tail)
    assert command.status == 0, command.err
    text = "\n".join(command.err)
    assert f"asking {gateway.http_url} (DISCORD_API)" in text
    assert f"connecting to {gateway.url} (DISCORD_GATEWAY)" in text
    command = run(gateway, {"DISCORD_GATEWAY": gateway.url}, *tail)
    assert command.status == 2
    assert "DISCORD_GATEWAY with --shards needs --api-url or DISCORD_API, too" in command.err[0]


def test_shards_asks_where_the_variable_says(gateway: LocalGateway) -> None:
    command = run(gateway, variables(gateway), "shards", "--json")
    assert json.loads(command.out[0])["url"] == gateway.url
    assert command.err == [f"shardlib: asking {gateway.http_url} (DISCORD_API)"]


def test_doctor_checks_what_a_bot_with_the_same_environment_would_reach(
    gateway: LocalGateway,
) -> None:
    command = run(gateway, variables(gateway), "doctor")
    assert command.status == 0, command.out
    assert command.err == [
        f"shardlib: asking {gateway.url} (DISCORD_GATEWAY) and {gateway.http_url} (DISCORD_API)"
    ]


def test_doctor_with_the_gateway_alone_shows_its_token_to_nobody_else(
    gateway: LocalGateway,
) -> None:
    command = run(gateway, {"DISCORD_GATEWAY": gateway.url}, "doctor")
    assert command.status == 0, command.out
    (token,) = [line for line in command.out if "  Token " in line]
    assert token.startswith("skipped")


@pytest.mark.parametrize(
    "arguments",
    [
        ("tail", "--count", "1"),
        ("tail", "--shards", "auto", "--count", "1"),
        ("shards",),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_an_option_beats_the_variable_and_local_beats_both(
    gateway: LocalGateway, arguments: tuple[str, ...]
) -> None:
    url, api_url = ("--url", gateway.url), ("--api-url", gateway.http_url)
    options = {"shards": api_url, "doctor": (*url, *api_url), "tail": url}[arguments[0]]
    if "--shards" in arguments:
        options = (*url, *api_url)
    for given in (options, ("--local",)):
        command = run(gateway, ELSEWHERE, *arguments, *given)
        assert command.status == 0, command.err
        assert not any("DISCORD_" in line for line in command.err)


@pytest.mark.parametrize(
    ("variable", "value", "arguments"),
    [
        ("DISCORD_GATEWAY", "127.0.0.1:4000", ("tail",)),
        ("DISCORD_GATEWAY", "http://127.0.0.1:4000/", ("doctor",)),
        ("DISCORD_API", "ws://127.0.0.1:4000/", ("shards",)),
        ("DISCORD_API", "http://discord.com/api/v10", ("doctor",)),
    ],
)
def test_a_variable_that_holds_no_url_is_told_by_its_name(
    variable: str, value: str, arguments: tuple[str, ...]
) -> None:
    command = run_to_end(*arguments, token="some.bot.token", environment={variable: value})
    assert command.status == 2
    assert command.out == []
    assert command.err[0].startswith(f"shardlib: the environment variable {variable}: ")


def test_an_empty_variable_counts_as_none(gateway: LocalGateway) -> None:
    empty = {"DISCORD_GATEWAY": "", "DISCORD_API": ""}
    command = run(gateway, empty, "tail", "--url", gateway.url, "--count", "1")
    assert command.status == 0
    command = run(gateway, empty, "doctor", "--url", gateway.url)
    assert command.err == []
