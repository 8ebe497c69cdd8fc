"""Messages over HTTP: writing, reading, editing, deleting, and the events that come of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shardlib.gateway import Intents
from shardlib.testing import Channel, LocalGateway
from tests.testing.client import connected
from tests.testing.rest import Rest, text_channel

pytestmark = pytest.mark.local_gateway(rate_limits=False)


def path(channel: Channel, *parts: str) -> str:
    return "/".join((f"/channels/{channel['id']}/messages", *parts))


def test_a_message_comes_back_as_an_event_with_the_same_id(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    with connected(local_gateway) as client:
        client.ready()
        message = rest.write(channel, "hello", nonce="n1", tts=False)
        event = client.event("MESSAGE_CREATE")
    assert message["content"] == "hello"
    assert message["author"] == local_gateway.world.user
    assert message["nonce"] == event["nonce"] == "n1"
    assert "guild_id" not in message and "member" not in message
    assert event["guild_id"] == channel["guild_id"]
    assert "user" not in event["member"]
    assert {key: event[key] for key in message} == message
    assert channel["last_message_id"] == message["id"]
    assert [each["id"] for each in local_gateway.world.channel(channel["id"]).messages] == [
        message["id"]
    ]


def test_only_sessions_with_the_intent_and_the_guild_get_the_event(
    local_gateway: LocalGateway, rest: Rest
) -> None:
    local_gateway.identify_interval = 0
    with connected(local_gateway) as other, connected(local_gateway) as right:
        ready = right.ready(shard=[1, 2])
        other.ready(Intents.GUILDS | Intents.DIRECT_MESSAGES, shard=[1, 2])
        guild = local_gateway.world.guilds[ready["guilds"][0]["id"]]
        message = rest.write(guild.text_channels[0])
        assert right.event("MESSAGE_CREATE")["id"] == message["id"]
        other.nothing_more()


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({"content": "x" * 2001}, {"content": "BASE_TYPE_MAX_LENGTH"}),
        ({"content": {}}, {"content": "STRING_TYPE_CONVERT"}),
        ({"content": "a", "tts": "perhaps"}, {"tts": "BOOLEAN_TYPE_CONVERT"}),
        ({"content": "a", "nonce": "n" * 26}, {"nonce": "BASE_TYPE_MAX_LENGTH"}),
        ({"content": "a", "flags": "x"}, {"flags": "NUMBER_TYPE_COERCE"}),
        ({"embeds": [{"title": "x" * 257}]}, {"embeds.0.title": "BASE_TYPE_MAX_LENGTH"}),
        ({"embeds": [{}]}, {"embeds.0.description": "BASE_TYPE_REQUIRED"}),
        ({"embeds": [{"title": "a"}] * 11}, {"embeds": "BASE_TYPE_MAX_LENGTH"}),
        ({"embeds": {}}, {"embeds": "LIST_TYPE_CONVERT"}),
        (
            {"embeds": [{"title": "a", "fields": [{"name": "n"}], "color": 1 << 24}]},
            {
                "embeds.0.fields.0.value": "BASE_TYPE_REQUIRED",
                "embeds.0.color": "NUMBER_TYPE_MAX",
            },
        ),
        (
            {"embeds": [{"description": "x" * 3001}, {"description": "x" * 3000}]},
            {"embeds": "MAX_EMBED_SIZE_EXCEEDED"},
        ),
        (
            {"content": "a", "allowed_mentions": {"parse": ["users"], "users": ["1"]}},
            {"allowed_mentions": "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE"},
        ),
        (
            {"content": "a", "allowed_mentions": {"parse": ["all"]}},
            {"allowed_mentions.parse.0": "BASE_TYPE_CHOICES"},
        ),
        (
            {"content": "a", "message_reference": {"message_id": "1"}},
            {"message_reference": "REPLIES_UNKNOWN_MESSAGE"},
        ),
        (
            {"components": [{"type": 1, "components": [{"type": 2, "style": 1, "label": "a"}]}]},
            {"components.0.components.0.custom_id": "BASE_TYPE_REQUIRED"},
        ),
        ({"components": [{"type": 99}]}, {"components.0.type": "BASE_TYPE_CHOICES"}),
        (
            {"content": "a", "attachments": [{"id": 0}]},
            {"attachments.0": "INVALID_ATTACHMENT"},
        ),
        (
            {"embeds": [{"title": "a", "url": "example.com", "timestamp": "yesterday"}]},
            {"embeds.0.url": "URL_TYPE_INVALID_URL", "embeds.0.timestamp": "DATE_TIME_TYPE_PARSE"},
        ),
        (
            {"embeds": [{"image": {"url": "file:///a"}, "footer": {"text": "a", "icon_url": "b"}}]},
            {
                "embeds.0.image.url": "URL_TYPE_INVALID_SCHEME",
                "embeds.0.footer.icon_url": "URL_TYPE_INVALID_URL",
            },
        ),
    ],
)
def test_an_invalid_field_is_named_by_its_path(
    rest: Rest, channel: Channel, body: Any, problems: dict[str, str]
) -> None:
    found = rest.problems("POST", path(channel), body)
    found.pop("components.0", None)
    assert found == problems
    assert channel.messages == []


@pytest.mark.parametrize("content", ["x" * 2000, "  " + "x" * 2000 + "\n"])
def test_a_message_of_two_thousand_characters_is_written(
    rest: Rest, channel: Channel, content: str
) -> None:
    assert rest.write(channel, content)["content"] == content.strip()


@pytest.mark.parametrize("body", [{}, {"content": ""}, {"content": "  "}, {"embeds": []}, None])
def test_an_empty_message_is_refused(rest: Rest, channel: Channel, body: Any) -> None:
    assert rest.error("POST", path(channel), body) == (400, 50006)


def test_what_does_not_exist_is_unknown(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    assert rest.error("POST", "/channels/5/messages", {"content": "a"}) == (404, 10003)
    assert rest.error("GET", path(channel, "5")) == (404, 10008)
    assert rest.error("DELETE", path(channel, "5")) == (404, 10008)
    assert rest.error("PATCH", path(channel, "5"), {"content": "a"}) == (404, 10008)
    assert rest.error("GET", path(channel, "last")) == (400, 50035)
    assert local_gateway.unhandled == []


def test_the_content_of_others_cannot_be_read_if_it_is_switched_off_for_the_bot(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    guild = next(iter(local_gateway.world.guilds.values()))
    bot = local_gateway.world.user
    direct = local_gateway.world.direct_channel(guild.owner_id)
    said = local_gateway.send_message(channel["id"], guild.owner_id, "a")
    local_gateway.send_message(channel["id"], guild.owner_id, f"<@{bot['id']}>")
    local_gateway.send_message(direct["id"], guild.owner_id, "c")
    rest.write(channel, "d")
    rest.call("PUT", path(channel, "pins", said["id"]), status=204)

    def contents() -> list[str]:
        (pin,) = rest.call("GET", path(channel, "pins"))["items"]
        found = rest.call("GET", path(channel)) + rest.call("GET", path(direct))
        found += [rest.call("GET", path(channel, said["id"])), pin["message"]]
        assert all("guild_id" not in message for message in found)
        return [message["content"] for message in found]

    assert contents() == ["d", f"<@{bot['id']}>", "a", "c", "a", "a"]
    local_gateway.allowed_intents = Intents.all() & ~Intents.MESSAGE_CONTENT
    assert contents() == ["d", f"<@{bot['id']}>", "", "c", "", ""]
    with connected(local_gateway) as client:
        client.ready(local_gateway.allowed_intents)
        reply = rest.write(channel, "e", message_reference={"message_id": said["id"]})
        event = client.event("MESSAGE_CREATE")
    for answer in (reply, event):
        assert (answer["content"], answer["referenced_message"]["content"]) == ("e", "")


def test_a_category_takes_no_messages(local_gateway: LocalGateway, rest: Rest) -> None:
    guild = next(iter(local_gateway.world.guilds.values()))
    (category, *_) = [each for each in guild.channels.values() if each["type"] == 4]
    assert rest.error("POST", path(category), {"content": "a"}) == (400, 50008)


def test_messages_are_listed_from_the_newest_to_the_oldest(rest: Rest, channel: Channel) -> None:
    ids = [rest.write(channel, str(number))["id"] for number in range(10)]

    def listed(query: str) -> list[int]:
        found = rest.call("GET", path(channel) + query)
        return [ids.index(message["id"]) for message in found]

    assert listed("") == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert listed("?limit=3") == [9, 8, 7]
    assert listed(f"?before={ids[5]}&limit=2") == [4, 3]
    assert listed(f"?after={ids[5]}&limit=2") == [7, 6]
    assert listed(f"?around={ids[5]}&limit=4") == [6, 5, 4, 3]
    assert listed(f"?around={ids[0]}&limit=3") == [2, 1, 0]
    for query in ("?limit=0", "?limit=101", "?limit=x", "?before=x", "?before=1&after=1"):
        assert rest.error("GET", path(channel) + query) == (400, 50035), query


def test_a_message_can_be_edited(local_gateway: LocalGateway, rest: Rest, channel: Channel) -> None:
    message = rest.write(channel, "helo", embeds=[{"title": "kept"}])
    member = next(iter(local_gateway.world.guilds.values())).owner_id
    with connected(local_gateway) as client:
        client.ready()
        edited = rest.call("PATCH", path(channel, message["id"]), {"content": f"hello <@{member}>"})
        event = client.event("MESSAGE_UPDATE")
    assert edited["content"] == event["content"] == f"hello <@{member}>"
    assert edited["edited_timestamp"] is not None and message["edited_timestamp"] is None
    assert [user["id"] for user in edited["mentions"]] == [member]
    assert edited["embeds"] == [{"title": "kept", "type": "rich"}]
    assert rest.call("GET", path(channel, message["id"])) == edited
    assert rest.error("PATCH", path(channel, message["id"]), {"content": "", "embeds": []}) == (
        400,
        50006,
    )


def test_a_message_of_another_user_cannot_be_edited(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    owner = next(iter(local_gateway.world.guilds.values())).owner_id
    message = local_gateway.send_message(channel["id"], owner, "mine")
    assert rest.error("PATCH", path(channel, message["id"]), {"content": "a"}) == (403, 50005)
    assert rest.call("PATCH", path(channel, message["id"]), {"flags": 4})["flags"] == 4
    rest.call("DELETE", path(channel, message["id"]), status=204)


def test_a_message_can_be_deleted(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    message = rest.write(channel)
    with connected(local_gateway) as client:
        client.ready()
        rest.call("DELETE", path(channel, message["id"]), status=204)
        assert client.event("MESSAGE_DELETE") == {
            "id": message["id"],
            "channel_id": channel["id"],
            "guild_id": channel["guild_id"],
        }
    assert rest.error("GET", path(channel, message["id"])) == (404, 10008)


def test_in_a_direct_message_the_bot_deletes_its_own_messages_only(
    local_gateway: LocalGateway, rest: Rest
) -> None:
    owner = next(iter(local_gateway.world.guilds.values())).owner_id
    direct = local_gateway.world.direct_channel(owner)
    own = rest.write(direct)
    other = local_gateway.send_message(direct["id"], owner, "a")
    assert rest.error("DELETE", path(direct, other["id"])) == (403, 50003)
    rest.call("DELETE", path(direct, own["id"]), status=204)


def test_messages_can_be_deleted_in_bulk(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    ids = [rest.write(channel)["id"] for _ in range(3)]
    bulk = path(channel, "bulk-delete")
    for wrong in ([], ids[:1], ids * 34):
        assert rest.error("POST", bulk, {"messages": wrong}) == (400, 50016)
    assert rest.error("POST", bulk, {"messages": ids[:1] * 2}) == (400, 50035)
    assert rest.error("POST", bulk, {"messages": ["5", ids[0]]}) == (400, 50034)
    unknown = str(int(ids[-1]) + 1000)
    with connected(local_gateway) as client:
        client.ready()
        rest.call("POST", bulk, {"messages": [*ids[:2], unknown]}, 204)
        event = client.event("MESSAGE_DELETE_BULK")
    assert event["ids"] == ids[:2]
    assert event["guild_id"] == channel["guild_id"]
    assert [message["id"] for message in channel.messages] == ids[2:]


def test_a_file_comes_as_an_attachment_whose_url_works(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    content = bytes(range(256)) * 300
    payload = {
        "content": "see",
        "attachments": [{"id": 0, "filename": "a b.bin", "description": "bytes"}],
    }
    with connected(local_gateway) as client:
        client.ready()
        response = rest.send(
            "POST",
            path(channel),
            data={"payload_json": json.dumps(payload)},
            files={"files[0]": ("x.bin", content, "application/x-test")},
        )
        assert response.status_code == 200, response.text
        (attachment,) = client.event("MESSAGE_CREATE")["attachments"]
    assert response.json()["attachments"] == [attachment]
    assert attachment["filename"] == "a b.bin"
    assert attachment["description"] == "bytes"
    assert attachment["size"] == len(content)
    assert attachment["content_type"] == "application/x-test"
    downloaded = rest.session.get(attachment["url"], headers={"Authorization": ""}, timeout=5)
    assert downloaded.content == content
    assert downloaded.headers["Content-Type"] == "application/x-test"
    request = local_gateway.expect_request("POST", "/channels/{channel.id}/messages")
    assert request.json == payload
    assert [(file.field, file.content) for file in request.files] == [("files[0]", content)]


def test_a_file_without_payload_json_and_a_field_beside_it(rest: Rest, channel: Channel) -> None:
    files = {"file": ("a.txt", b"text", "text/plain")}
    response = rest.send("POST", path(channel), data={"content": "c", "tts": "true"}, files=files)
    assert response.status_code == 200, response.text
    message = response.json()
    assert (message["content"], message["tts"]) == ("c", True)
    assert message["attachments"][0]["filename"] == "a.txt"


def test_odd_names_and_types_of_files_do_no_harm(rest: Rest, channel: Channel) -> None:
    body = (
        b"--b\r\nContent-Disposition: form-data; name=payload_json\r\n\r\n"
        b'{"attachments": [{"id": 0, "filename": "\\ud800/../a"}]}\r\n'
        b'--b\r\nContent-Disposition: form-data; name="files[0]"; filename="x"\r\n'
        b"Content-Type: a/b\x80\r\n\r\ntext\r\n--b--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = rest.send("POST", path(channel), data=body, headers=headers)
    assert response.status_code == 200, response.text
    (attachment,) = response.json()["attachments"]
    assert attachment["filename"] == "\ud800/../a"
    downloaded = rest.session.get(attachment["url"], timeout=5)
    assert downloaded.content == b"text"
    assert downloaded.headers["Content-Type"] == "application/octet-stream"


def test_an_edit_keeps_the_attachments_that_the_body_lists(rest: Rest, channel: Channel) -> None:
    files = {f"files[{index}]": (f"{index}.txt", b"text") for index in range(2)}
    first = rest.send("POST", path(channel), files=files).json()
    keep, drop = first["attachments"]
    response = rest.send(
        "PATCH",
        path(channel, first["id"]),
        data={"payload_json": '{"attachments": [{"id": "%s"}, {"id": 0}]}' % keep["id"]},
        files={"files[0]": ("new.txt", b"new")},
    )
    names = [attachment["filename"] for attachment in response.json()["attachments"]]
    assert names == [keep["filename"], "new.txt"]
    assert drop["filename"] not in names


def test_too_many_and_too_large_files_are_refused(rest: Rest, channel: Channel) -> None:
    many = {f"files[{index}]": ("a.txt", b"a") for index in range(11)}
    response = rest.send("POST", path(channel), files=many)
    assert (response.status_code, response.json()["code"]) == (400, 30015)
    large = {"files[0]": ("a.txt", b"a" * (10 * 1024 * 1024 + 1))}
    response = rest.send("POST", path(channel), files=large)
    assert (response.status_code, response.json()["code"]) == (413, 50045)


def test_a_reply_refers_to_its_message_and_mentions_the_author(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    owner = next(iter(local_gateway.world.guilds.values())).owner_id
    original = local_gateway.send_message(channel["id"], owner, "!ping")
    reference = {"message_id": original["id"]}
    reply = rest.write(channel, "pong", message_reference=reference)
    assert reply["type"] == 19
    assert reply["message_reference"] == {
        "type": 0,
        "message_id": original["id"],
        "channel_id": channel["id"],
        "guild_id": channel["guild_id"],
    }
    assert reply["referenced_message"]["content"] == "!ping"
    assert [user["id"] for user in reply["mentions"]] == [owner]
    quiet = rest.write(
        channel, "pong", message_reference=reference, allowed_mentions={"replied_user": False}
    )
    assert quiet["mentions"] == []
    other = next(iter(local_gateway.world.guilds[channel["guild_id"]].members))
    body = {"flags": V2, "components": [display(f"<@{other}>")], "message_reference": reference}
    version_2 = rest.call("POST", path(channel), body)
    assert [user["id"] for user in version_2["mentions"]] == [other, owner]
    plain = rest.write(
        channel, "a", message_reference={"message_id": "1", "fail_if_not_exists": False}
    )
    assert plain["type"] == 0 and "message_reference" not in plain


def test_a_forward_takes_a_snapshot(rest: Rest, channel: Channel) -> None:
    original = rest.write(channel, "far")
    reference = {"type": 1, "message_id": original["id"], "channel_id": channel["id"]}
    forward = rest.call("POST", path(channel), {"message_reference": reference})
    assert forward["content"] == ""
    assert forward["message_snapshots"][0]["message"]["content"] == "far"


def test_allowed_mentions_decide_whom_a_message_mentions(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    guild = local_gateway.world.guilds[channel["guild_id"]]
    one, two, *_ = guild.members
    role = guild.roles[2]["id"]
    content = f"<@{one}> <@!{two}> <@{one}> <@12> <@&{role}> <@&12> @everyone"

    def mentioned(**fields: Any) -> tuple[list[str], list[str], bool]:
        message = rest.write(channel, content, **fields)
        users = [user["id"] for user in message["mentions"]]
        return users, message["mention_roles"], message["mention_everyone"]

    assert mentioned() == ([one, two], [role], True)
    assert mentioned(allowed_mentions={"parse": []}) == ([], [], False)
    assert mentioned(allowed_mentions={"parse": ["roles"], "users": [two]}) == (
        [two],
        [role],
        False,
    )


def test_an_enforced_nonce_creates_one_message(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    first, again = (rest.write(channel, nonce=7, enforce_nonce=True) for _ in range(2))
    assert first == again and first["nonce"] == 7
    assert rest.write(channel, nonce=7)["id"] != first["id"]
    local_gateway.clock.advance(301)
    later = rest.write(channel, nonce=7, enforce_nonce=True)
    assert later["id"] != first["id"]


def test_what_was_uploaded_does_not_fill_the_memory(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    local_gateway.rate_limits = False
    for _ in range(10):
        path = f"/channels/{channel['id']}/messages"
        response = rest.send("POST", path, files={"files[0]": ("a", bytes(9_000_000))})
        assert response.status_code == 200
    assert sum(len(request.body) for request in local_gateway.requests) < 1 << 26
    first, *_, last = (message["attachments"][0]["url"] for message in channel.messages)
    statuses = [rest.session.get(url, timeout=5).status_code for url in (first, last)]
    assert statuses == [404, 200]


def test_a_direct_message_reaches_shard_zero(local_gateway: LocalGateway, rest: Rest) -> None:
    user = next(iter(local_gateway.world.guilds.values())).owner_id
    direct = rest.call("POST", "/users/@me/channels", {"recipient_id": user})
    assert direct["type"] == 1
    assert [each["id"] for each in direct["recipients"]] == [user]
    assert rest.call("POST", "/users/@me/channels", {"recipient_id": user}) == direct
    assert rest.error("POST", "/users/@me/channels", {"recipient_id": "5"}) == (400, 50033)
    with connected(local_gateway) as client:
        client.ready(Intents.DIRECT_MESSAGES)
        channel = local_gateway.world.channel(direct["id"])
        message = rest.write(channel, "psst")
        event = client.event("MESSAGE_CREATE")
        assert event["id"] == message["id"] and "guild_id" not in event
        sent = local_gateway.send_message(direct["id"], user, "yes?")
        assert client.event("MESSAGE_CREATE") == sent
        rest.call("DELETE", path(channel, message["id"]), status=204)
        assert client.event("MESSAGE_DELETE") == {
            "id": message["id"],
            "channel_id": direct["id"],
        }


def button(custom_id: str = "a", **fields: Any) -> dict[str, Any]:
    return {"type": 2, "style": 1, "label": "a", "custom_id": custom_id, **fields}


def menu(*values: str, custom_id: str = "m") -> dict[str, Any]:
    options = [{"label": value, "value": value} for value in values]
    return {"type": 3, "custom_id": custom_id, "options": options}


def row(*components: dict[str, Any]) -> dict[str, Any]:
    return {"type": 1, "components": list(components)}


def display(content: str = "a") -> dict[str, Any]:
    return {"type": 10, "content": content}


LINK = {"type": 2, "style": 5, "label": "a", "url": "https://example.com"}
TEXT_INPUT = {"type": 4, "custom_id": "t", "style": 1, "label": "a"}
V2 = 1 << 15


@pytest.mark.parametrize(
    ("component", "path_of_problem", "problem"),
    [
        (row(row(button())), "components.0.components.0.type", "BASE_TYPE_CHOICES"),
        (row(button(), menu("a")), "components.0.components.1", "COMPONENT_LAYOUT_WIDTH_EXCEEDED"),
        (
            row(menu("a"), menu("a", custom_id="n")),
            "components.0.components.1",
            "COMPONENT_LAYOUT_WIDTH_EXCEEDED",
        ),
        (row(TEXT_INPUT), "components", "UNION_TYPE_CHOICES"),
        (display(), "components.0", "UNION_TYPE_CHOICES"),
        (
            row(menu("a", "a")),
            "components.0.components.0.options.1.value",
            "SELECT_COMPONENT_OPTION_VALUE_DUPLICATED",
        ),
        (
            row({**LINK, "custom_id": "a"}),
            "components.0.components.0",
            "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE",
        ),
        (row({**LINK, "url": "a.b"}), "components.0.components.0.url", "URL_TYPE_INVALID_URL"),
    ],
)
def test_components_in_the_wrong_place_are_refused(
    rest: Rest, channel: Channel, component: dict[str, Any], path_of_problem: str, problem: str
) -> None:
    body = {"content": "a", "components": [component]}
    assert rest.problems("POST", path(channel), body) == {path_of_problem: problem}


@pytest.mark.parametrize(
    ("component", "path_of_problem", "problem"),
    [
        (button(), "components.0", "UNION_TYPE_CHOICES"),
        (
            {"type": 17, "components": [{"type": 17, "components": [display()]}]},
            "components.0.components.0.type",
            "BASE_TYPE_CHOICES",
        ),
        (
            {"type": 9, "components": [button()], "accessory": LINK},
            "components.0.components.0.type",
            "BASE_TYPE_CHOICES",
        ),
        (
            {"type": 9, "components": [display()], "accessory": menu("a")},
            "components.0.accessory.type",
            "BASE_TYPE_CHOICES",
        ),
        (
            {"type": 17, "components": [display("a" * 2001), display("a" * 2000)]},
            "components",
            "COMPONENT_DISPLAYABLE_TEXT_SIZE_EXCEEDED",
        ),
        (
            {"type": 13, "file": {"url": "https://example.com/a.txt"}},
            "components.0.file.url",
            "URL_TYPE_INVALID_SCHEME",
        ),
        (
            {"type": 18, "label": "a", "component": menu("a")},
            "components.0",
            "UNION_TYPE_CHOICES",
        ),
    ],
)
def test_components_v2_in_the_wrong_place_are_refused(
    rest: Rest, channel: Channel, component: dict[str, Any], path_of_problem: str, problem: str
) -> None:
    body = {"flags": V2, "components": [component]}
    assert rest.problems("POST", path(channel), body) == {path_of_problem: problem}


def test_a_message_with_components_v2_keeps_the_flag_and_mentions_by_its_texts(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    owner = next(iter(local_gateway.world.guilds.values())).owner_id
    section = {"type": 9, "components": [display(f"<@{owner}>")], "accessory": button()}
    components = [
        {"type": 17, "components": [section, row(menu("a", "b"))]},
        row(button("b"), LINK),
    ]
    body = {"flags": V2, "components": components}
    message = rest.call("POST", path(channel), body)
    assert [user["id"] for user in message["mentions"]] == [owner]
    edited = rest.call("PATCH", path(channel, message["id"]), {"components": [display("b")]})
    assert (edited["flags"], edited["mentions"]) == (V2, [])
    problems = rest.problems("PATCH", path(channel, message["id"]), {"content": "b"})
    assert problems == {"content": "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2"}


def test_components_come_back_with_ids(rest: Rest, channel: Channel) -> None:
    button = {"type": 2, "style": 1, "label": "a", "custom_id": "b"}
    message = rest.write(channel, components=[{"type": 1, "components": [button]}])
    (row,) = message["components"]
    assert (row["id"], row["components"][0]["id"]) == (1, 2)
    assert row["components"][0]["custom_id"] == "b"
    version_2 = {"flags": 1 << 15, "components": [{"type": 10, "content": "text"}]}
    assert rest.call("POST", path(channel), version_2)["components"][0]["content"] == "text"
    assert rest.problems("POST", path(channel), {**version_2, "content": "a"}) == {
        "content": "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2"
    }


def test_traffic_fills_the_channels(local_gateway: LocalGateway, rest: Rest) -> None:
    traffic = local_gateway.traffic(2000, {"MESSAGE_CREATE": 1})
    local_gateway.wait_until(lambda: traffic.events > 50)
    traffic.stop()
    channel = text_channel(local_gateway)
    listed = rest.call("GET", path(channel) + "?limit=100")
    assert listed and [each["id"] for each in listed] == [
        each["id"] for each in channel.messages[:-101:-1]
    ]
