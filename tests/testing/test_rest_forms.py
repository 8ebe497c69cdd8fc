"""Tables of fields, templates of paths, pages and mentions: all without a gateway."""

from __future__ import annotations

from typing import Any

import pytest

from shardlib.testing.mentions import ALL, ONLY_USERS, find_mentions
from shardlib.testing.rest.components import COMPONENT, number
from shardlib.testing.rest.errors import ApiError
from shardlib.testing.rest.forms import (
    Boolean,
    Field,
    Integer,
    Kind,
    ListOf,
    Number,
    Object,
    OneOf,
    Snowflake,
    Text,
    Timestamp,
    Url,
    check,
)
from shardlib.testing.rest.pages import page
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.request import ReceivedRequest
from shardlib.testing.rest.response import Response
from shardlib.testing.rest.router import Route, Router, path_matches
from tests.testing.rest import collect


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (Text(), "a", "a"),
        (Text(), 5, "5"),
        (Text(strip=True), " a ", "a"),
        (Integer(), "5", 5),
        (Integer(1, 5), 5, 5),
        (Number(), 0.5, 0.5),
        (Boolean(), "True", True),
        (Boolean(), "0", False),
        (Boolean(), False, False),
        (Snowflake(), 5, "5"),
        (Snowflake(), "5", "5"),
        (OneOf((1, 2)), 2, 2),
        (Url(99), " HTTPS://a.b/c?d=e#f ", "HTTPS://a.b/c?d=e#f"),
        (Url(99), "", ""),
        (Url(99, ("attachment",)), "attachment://a.png", "attachment://a.png"),
        *(
            (Timestamp(), text, text)
            for text in (
                "2026-11-26",
                "2026-11-26T14:34",
                "2026-11-26 14:34:00.516006+00:00",
                "2026-11-26T14:34:00.516Z",
                "2026-11-26T14:34:00-0800",
            )
        ),
        (ListOf(Integer()), ["1", 2], [1, 2]),
        (Object({"a": Integer()}), {"a": "1", "b": 2}, {"a": 1}),
        (Object({"a": Integer()}), {"a": None}, {"a": None}),
    ],
)
def test_values_are_read_as_discord_reads_them(kind: Kind, value: Any, read: Any) -> None:
    assert check(kind, value) == read


@pytest.mark.parametrize(
    ("kind", "value", "problems"),
    [
        (Text(), True, "STRING_TYPE_CONVERT"),
        (Text(2, 3), "a", "BASE_TYPE_BAD_LENGTH"),
        (Text(2), "a", "BASE_TYPE_MIN_LENGTH"),
        (Integer(), True, "NUMBER_TYPE_COERCE"),
        (Integer(), "1.5", "NUMBER_TYPE_COERCE"),
        (Integer(), "9" * 5000, "NUMBER_TYPE_COERCE"),
        (Integer(1), 0, "NUMBER_TYPE_MIN"),
        (Number(), "a", "NUMBER_TYPE_COERCE"),
        (Integer(), "1_0", "NUMBER_TYPE_COERCE"),
        (Snowflake(), " 5", "NUMBER_TYPE_COERCE"),
        (Url(3), "http://a.b", "BASE_TYPE_MAX_LENGTH"),
        (Url(99), "http://a b", "URL_TYPE_INVALID_URL"),
        (Url(99), "attachment://a", "URL_TYPE_INVALID_SCHEME"),
        (Timestamp(), 1764167640, "DATE_TIME_TYPE_PARSE"),
        (Timestamp(), "14:34", "DATE_TIME_TYPE_PARSE"),
        (Snowflake(), -1, "NUMBER_TYPE_COERCE"),
        (Snowflake(), 1 << 64, "NUMBER_TYPE_COERCE"),
        (OneOf((1, 2)), True, "BASE_TYPE_CHOICES"),
        (ListOf(Integer(), 1), [], "BASE_TYPE_MIN_LENGTH"),
        (Object({}), [], "MODEL_TYPE_CONVERT"),
    ],
)
def test_an_invalid_value_has_the_name_of_its_problem(
    kind: Kind, value: Any, problems: str
) -> None:
    with pytest.raises(ApiError) as caught:
        check(kind, value)
    found: dict[str, str] = {}
    collect(caught.value.body["errors"], "", found)
    assert found == {"": problems}


def test_all_problems_are_told_at_once() -> None:
    table = Object({"a": Field(Integer(), required=True), "b": ListOf(Object({"c": Text(0, 1)}))})
    with pytest.raises(ApiError) as caught:
        check(table, {"b": [{"c": "x"}, {"c": "xy"}]})
    found: dict[str, str] = {}
    collect(caught.value.body["errors"], "", found)
    assert found == {"a": "BASE_TYPE_REQUIRED", "b.1.c": "BASE_TYPE_MAX_LENGTH"}


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("/channels/*/messages", "/channels/1/messages", True),
        ("/channels/{channel.id}/messages", "/channels/1/messages", True),
        ("/channels/1/messages", "/channels/1/messages", True),
        ("/channels/*", "/channels/1/messages", False),
        ("/channels/*/messages", "/channels/1/typing", False),
    ],
)
def test_a_template_matches_part_by_part(template: str, path: str, matches: bool) -> None:
    assert path_matches(template, path) is matches


def test_a_literal_part_of_a_path_goes_before_a_parameter() -> None:
    limit = RateLimit("any", 1, 1.0)
    names = ("/users/{user_id}", "/users/@me", "/{any}/@me")
    routes = [Route("GET", name, lambda call: None, limit) for name in names]
    for ordered in (routes, routes[::-1]):
        router = Router(ordered)
        found = [
            router.find(ReceivedRequest("GET", f"/api{path}", {}, b""))[0].template
            for path in ("/users/@me", "/users/5", "/guilds/@me")
        ]
        assert found == ["/users/@me", "/users/{user_id}", "/{any}/@me"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, "abc"),
        ({"limit": 2}, "ab"),
        ({"after": "1"}, "bcd"),
        ({"before": "4", "limit": 2}, "bc"),
        ({"after": "1", "before": "3"}, "b"),
    ],
)
def test_pages_of_a_list(query: dict[str, Any], found: str) -> None:
    ids = {"a": "1", "b": "2", "c": "3", "d": "4"}
    assert "".join(page([*"abcd"], ids.__getitem__, query, default=3)) == found


def test_the_newest_page_of_a_list() -> None:
    ids = {"a": "1", "b": "2", "c": "3"}
    newest = [*page([*"abc"], ids.__getitem__, {}, default=2, newest=True)]
    assert newest == ["b", "c"]
    assert page([*"abc"], ids.__getitem__, {"after": "1"}, default=1, newest=True) == ["b"]


def test_mentions_follow_allowed_mentions() -> None:
    text = "<@1> <@&2> @here"
    assert find_mentions(text, ALL) == find_mentions(text, {**ALL, "users": ["1"]})
    found = find_mentions(text, ONLY_USERS)
    assert (found.users, found.roles, found.everyone) == (["1"], [], False)
    assert find_mentions("me@here.example <@x>", ALL).users == []


def test_components_without_an_id_get_a_free_one() -> None:
    row: dict[str, Any] = {
        "type": 1,
        "components": [
            {"type": 2, "style": 5, "url": "https://a.example", "id": 1},
            {"type": 2, "style": 1, "custom_id": "a"},
        ],
    }
    (row,) = number([check(COMPONENT, row)])
    assert [row["id"], *(each["id"] for each in row["components"])] == [2, 1, 3]


def test_a_request_shows_nothing_of_its_headers() -> None:
    request = ReceivedRequest("GET", "/api/v10/users/@me", {"authorization": "Bot secret"}, b"")
    assert "secret" not in repr(request)


def test_the_last_response_of_a_connection_closes_it() -> None:
    assert Response(520, b"x", {"Content-Length": "9", "Date": "now"}).serialize() == (
        b"HTTP/1.1 520 Unknown\r\nContent-Length: 9\r\nDate: now\r\nConnection: close\r\n\r\nx"
    )
