"""Application commands over HTTP: registering, reading, changing, deleting, and their limits."""

from __future__ import annotations

from typing import Any

import pytest

from shardlib.testing import LocalGateway
from tests.testing.rest import Rest

pytestmark = pytest.mark.local_gateway(rate_limits=False)

PING = {"name": "ping", "description": "Answers."}


@pytest.fixture(params=["global", "guild"])
def path(request: pytest.FixtureRequest, local_gateway: LocalGateway) -> str:
    """The path of the commands of a scope."""
    world = local_gateway.world
    guild = f"/guilds/{next(iter(world.guilds))}" if request.param == "guild" else ""
    return f"/applications/{world.application['id']}{guild}/commands"


def test_a_command_lives(rest: Rest, path: str) -> None:
    assert rest.call("GET", path) == []
    made = rest.call("POST", path, PING, 201)
    assert (made["name"], made["type"], made["description"]) == ("ping", 1, "Answers.")
    assert ("guild_id" in made) is ("guilds" in path)
    again = rest.call("POST", path, {**PING, "description": "New."}, 200)
    assert again["id"] == made["id"] and again["version"] != made["version"]
    edited = rest.call("PATCH", f"{path}/{made['id']}", {"description": "Newer."})
    assert edited["name"] == "ping" and edited["description"] == "Newer."
    assert rest.call("GET", f"{path}/{made['id']}") == edited
    (listed,) = rest.call("GET", path)
    assert "name_localizations" not in listed
    assert rest.call("GET", f"{path}?with_localizations=true") == [edited]
    rest.call("DELETE", f"{path}/{made['id']}", status=204)
    assert rest.call("GET", path) == []
    for method in ("GET", "PATCH", "DELETE"):
        assert rest.error(method, f"{path}/{made['id']}", PING) == (404, 10063)


def test_overwriting_keeps_the_ids_of_known_names(rest: Rest, path: str) -> None:
    ping = rest.call("POST", path, PING, 201)
    rest.call("POST", path, {"name": "old", "description": "Goes."}, 201)
    user = {"name": "Greet Them", "type": 2}
    commands = rest.call("PUT", path, [user, {**PING, "nsfw": True}])
    assert [command["name"] for command in commands] == ["Greet Them", "ping"]
    assert commands[1]["id"] == ping["id"] and commands[1]["nsfw"] is True
    assert [command["name"] for command in rest.call("GET", path)] == ["Greet Them", "ping"]
    assert rest.call("PUT", path, []) == []


def option(**fields: Any) -> dict[str, Any]:
    return {"type": 3, "name": "a", "description": "b", **fields}


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({}, {"name": "BASE_TYPE_REQUIRED", "description": "BASE_TYPE_REQUIRED"}),
        ({"name": "Ping", "description": "a"}, {"name": "APPLICATION_COMMAND_INVALID_NAME"}),
        ({"name": "a b", "description": "a"}, {"name": "APPLICATION_COMMAND_INVALID_NAME"}),
        ({"name": "a" * 33, "description": "a"}, {"name": "BASE_TYPE_BAD_LENGTH"}),
        ({"name": "a", "description": "x" * 101}, {"description": "BASE_TYPE_MAX_LENGTH"}),
        ({"name": "a", "type": 9}, {"type": "BASE_TYPE_CHOICES"}),
        (
            {"name": "A", "type": 2, "description": "a"},
            {"": "APPLICATION_COMMAND_CONTEXT_MENU_DESCRIPTION_CANNOT_BE_SET"},
        ),
        ({**PING, "options": [option(type=12)]}, {"options.0.type": "BASE_TYPE_CHOICES"}),
        (
            {**PING, "options": [option(), option(name="b", required=True)]},
            {"options.1": "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID"},
        ),
        (
            {**PING, "options": [option(), option()]},
            {"options.1": "APPLICATION_COMMAND_OPTIONS_NAME_ALREADY_EXISTS"},
        ),
        (
            {**PING, "options": [option(name=str(number)) for number in range(26)]},
            {"options": "BASE_TYPE_MAX_LENGTH"},
        ),
        (
            {**PING, "options": [option(type=4, choices=[{"name": "a", "value": "x"}])]},
            {"options.0.choices.0.value": "NUMBER_TYPE_COERCE"},
        ),
        (
            {**PING, "options": [option(type=1, options=[option(type=2)])]},
            {"options.0.options.0.type": "BASE_TYPE_CHOICES"},
        ),
        (
            {**PING, "options": [option(type=1), option(name="b")]},
            {"options.1": "APPLICATION_COMMAND_OPTIONS_TYPE_INVALID"},
        ),
        (
            {
                **PING,
                "options": [option(choices=[{"name": "a", "value": value} for value in "ab"])],
            },
            {"options.0.choices.1": "APPLICATION_COMMAND_OPTIONS_CHOICE_NAME_ALREADY_EXISTS"},
        ),
        (
            {**PING, "name_localizations": {"de": "a", "xx": "b"}},
            {"name_localizations.xx": "BASE_TYPE_CHOICES"},
        ),
        (
            {**PING, "name_localizations": {"de": "Größe", "fr": "a b"}},
            {
                "name_localizations.de": "APPLICATION_COMMAND_INVALID_NAME",
                "name_localizations.fr": "APPLICATION_COMMAND_INVALID_NAME",
            },
        ),
        (
            {
                **PING,
                "options": [
                    option(
                        name=f"o{number}",
                        choices=[
                            {"name": f"{choice:02}" + "n" * 98, "value": "v" * 100}
                            for choice in range(25)
                        ],
                    )
                    for number in range(2)
                ],
            },
            {"": "APPLICATION_COMMAND_TOO_LARGE"},
        ),
    ],
)
def test_an_invalid_command_is_refused(
    rest: Rest, local_gateway: LocalGateway, body: Any, problems: dict[str, str]
) -> None:
    path = f"/applications/{local_gateway.world.application['id']}/commands"
    assert rest.problems("POST", path, body) == problems
    assert rest.call("GET", path) == []


@pytest.mark.parametrize("name", ["ping", "größe", "日本語", "नमस्ते", "สวัสดี", "a-b_c'd"])
def test_names_in_any_script_are_taken(rest: Rest, path: str, name: str) -> None:
    assert rest.call("POST", path, {**PING, "name": name}, 201)["name"] == name


def test_a_name_stands_once_in_an_overwrite(rest: Rest, path: str) -> None:
    assert rest.problems("PUT", path, [PING, PING]) == {
        "1.name": "APPLICATION_COMMANDS_DUPLICATE_NAME"
    }
    assert rest.problems("PUT", path, [PING, {}])["1.name"] == "BASE_TYPE_REQUIRED"


def test_an_edit_takes_no_name_that_is_in_use(rest: Rest, path: str) -> None:
    rest.call("POST", path, PING, 201)
    other = rest.call("POST", path, {**PING, "name": "pong"}, 201)
    problems = rest.problems("PATCH", f"{path}/{other['id']}", {"name": "ping"})
    assert problems == {"name": "APPLICATION_COMMANDS_DUPLICATE_NAME"}
    assert rest.call("PATCH", f"{path}/{other['id']}", {"name": "pong"})["name"] == "pong"


def test_a_scope_has_so_many_commands_of_a_type(rest: Rest, path: str) -> None:
    users = [{"name": str(number), "type": 2} for number in range(16)]
    assert rest.error("PUT", path, users) == (400, 30032)
    rest.call("PUT", path, users[:15])
    assert rest.error("POST", path, users[15]) == (400, 30032)
    rest.call("POST", path, {"name": "a", "type": 3}, 201)


def test_two_hundred_commands_can_be_created_a_day(
    local_gateway: LocalGateway, rest: Rest, path: str
) -> None:
    def commands(letter: str) -> list[dict[str, Any]]:
        return [{**PING, "name": f"{letter}{number}"} for number in range(100)]

    rest.call("PUT", path, commands("a"))
    rest.call("PUT", path, commands("b"))
    rest.call("PUT", path, commands("b"))  # known names create nothing
    assert rest.error("PUT", path, commands("c")) == (429, 30034)
    local_gateway.clock.advance(24 * 3600)
    rest.call("PUT", path, commands("c"))


def test_the_commands_of_other_applications_and_guilds_are_not_to_be_had(
    local_gateway: LocalGateway, rest: Rest
) -> None:
    application = local_gateway.world.application["id"]
    assert rest.error("GET", "/applications/5/commands") == (403, 20012)
    assert rest.error("GET", f"/applications/{application}/guilds/5/commands") == (404, 10004)
