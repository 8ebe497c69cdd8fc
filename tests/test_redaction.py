"""What stays of an event when it is redacted, and that no secret does."""

from __future__ import annotations

from typing import Any

import pytest

from shardlib.redaction import Redactor, without_secrets

MESSAGE = {
    "id": "1575519088036282368",
    "channel_id": "1154767065211469837",
    "type": 0,
    "content": "call me: 0151 2345",
    "timestamp": "2026-11-26T14:30:22.317080+00:00",
    "edited_timestamp": None,
    "author": {
        "id": "32506573444087843",
        "username": "mary",
        "global_name": "Mary",
        "avatar": "b982792cf6b3b901e2baff8673f6825e",
        "discriminator": "0",
        "bot": False,
    },
    "member": {"nick": "Mary", "roles": ["1132361191218216962"], "deaf": False},
    "embeds": [{"type": "rich", "title": "Mary's page", "url": "https://example.org/mary"}],
    "attachments": [{"filename": "mary.png", "size": 1000}],
}


def redact(event: str, data: Any) -> Any:
    return Redactor().redact(event, data)


def test_what_people_wrote_is_replaced_and_the_rest_stays() -> None:
    redacted = redact("MESSAGE_CREATE", MESSAGE)
    for key in ("id", "channel_id", "type", "timestamp", "edited_timestamp"):
        assert redacted[key] == MESSAGE[key]
    assert redacted["author"]["id"] == "32506573444087843"
    assert redacted["author"]["discriminator"] == "0"
    assert redacted["author"]["bot"] is False
    assert redacted["member"]["roles"] == ["1132361191218216962"]
    assert redacted["embeds"][0]["type"] == "rich"
    assert redacted["embeds"][0]["url"].startswith("https://redacted.invalid/")
    assert redacted["attachments"][0]["size"] == 1000
    shown = repr(redacted).lower()
    # None of these can turn up by chance in the hexadecimal digits that stand in place of a text.
    for text in ("mary", "call me", "0151 2345", "example", "b982792cf6b3b901e2baff8673f6825e"):
        assert text not in shown


def test_equal_texts_become_equal_texts_of_the_same_length() -> None:
    redactor = Redactor()
    first = redactor.redact("MESSAGE_CREATE", MESSAGE)
    second = redactor.redact("MESSAGE_UPDATE", MESSAGE)
    assert first == second
    assert first["author"]["global_name"] == first["member"]["nick"]
    assert len(first["content"]) == len(MESSAGE["content"])  # type: ignore[arg-type]
    assert redact("MESSAGE_CREATE", MESSAGE) != first  # each recording has its own key


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("id", "mary"),
        ("some_field_of_next_year", "mary"),
        ("status", "having lunch with mary"),
        ("locale", "mary@example.org"),
        ("features", "mary"),
        ("type", "mary's"),
        ("content", "1575519088036282368"),
        ("content", "online"),
        ("timestamp", "at noon, mary"),
    ],
)
def test_a_field_is_kept_only_while_it_looks_as_documented(key: str, text: str) -> None:
    assert redact("EVENT", {key: text})[key] != text
    assert redact("EVENT", {key: [text]})[key] != [text]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("guild_id", "1132361191218216962"),
        ("removed_member_ids", ["1132361191218216962"]),
        ("permissions", "2248473465835073"),
        ("status", "dnd"),
        ("features", ["COMMUNITY", "NEWS"]),
        ("preferred_locale", "en-US"),
        ("joined_at", "2023-09-23T13:24:53.437000+00:00"),
    ],
)
def test_what_clients_need_to_work_is_kept(key: str, text: Any) -> None:
    assert redact("EVENT", {key: text}) == {key: text}


def test_digits_are_replaced_by_digits() -> None:
    assert redact("EVENT", {"code": "4242"})["code"].isdecimal()


def test_standard_emojis_are_kept_and_others_not() -> None:
    assert redact("EVENT", {"emoji": {"id": None, "name": "😂"}})["emoji"]["name"] == "😂"
    assert redact("EVENT", {"emoji": {"id": None, "name": "1️⃣"}})["emoji"]["name"] != "mary"
    assert redact("EVENT", {"emoji": {"id": "5", "name": "mary"}})["emoji"]["name"] != "mary"
    assert redact("EVENT", {"emoji": {"id": None, "name": "mary"}})["emoji"]["name"] != "mary"


def test_of_an_interaction_the_bots_own_names_are_kept_and_what_the_user_typed_is_not() -> None:
    interaction = {
        "id": "1",
        "data": {
            "id": "2",
            "name": "remind",
            "custom_id": "form",
            "options": [{"name": "text", "value": "dentist"}, {"name": "hour", "value": 14}],
            "resolved": {"users": {"5": {"id": "5", "username": "mary"}}},
        },
        "guild": {"id": "3", "features": [], "locale": "de"},
    }
    redacted = redact("INTERACTION_CREATE", interaction)["data"]
    assert (redacted["name"], redacted["custom_id"]) == ("remind", "form")
    assert [each["name"] for each in redacted["options"]] == ["text", "hour"]
    assert redacted["options"][0]["value"] != "dentist"
    assert redacted["options"][1]["value"] == 0
    assert redacted["resolved"]["users"]["5"]["username"] != "mary"


@pytest.mark.parametrize("data", [None, "text", 5, [], {"data": None}, {"data": "x"}])
def test_data_of_any_shape_is_redacted(data: Any) -> None:
    for event in ("INTERACTION_CREATE", "READY"):
        redact(event, data)
        without_secrets(event, data)


def test_secrets_are_removed_and_the_payload_stays_as_it_is() -> None:
    ready = {"session_id": "abc", "user": {"id": "1"}}
    interaction = {"id": "1", "token": "aW50ZXJh", "message": {"token": "b"}}
    assert without_secrets("READY", ready) == {"session_id": "removed", "user": {"id": "1"}}
    assert without_secrets("INTERACTION_CREATE", interaction) == {
        "id": "1",
        "token": "removed",
        "message": {"token": "removed"},
    }
    assert ready["session_id"] == "abc"
    assert interaction["token"] == "aW50ZXJh"
    voice = {"user_id": "1", "session_id": "abc"}
    assert without_secrets("VOICE_STATE_UPDATE", voice) == voice
