"""Interactions: what a user does, and how a bot answers it over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shardlib.testing import Channel, Clock, GatewayInteraction, LocalGateway, World
from shardlib.testing.interactions import Interactions
from tests.testing.client import connected
from tests.testing.rest import Rest

pytestmark = pytest.mark.local_gateway(rate_limits=False)

ROLL = {
    "name": "roll",
    "description": "Rolls.",
    "options": [
        {
            "type": 4,
            "name": "sides",
            "description": "How many.",
            "required": True,
            "min_value": 2,
            "max_value": 100,
        },
        {
            "type": 3,
            "name": "colour",
            "description": "Of the dice.",
            "autocomplete": True,
            "min_length": 1,
        },
        {"type": 6, "name": "for", "description": "Whom."},
    ],
}


def register(rest: Rest, *commands: dict[str, Any]) -> None:
    application = rest.gateway.world.application["id"]
    rest.call("PUT", f"/applications/{application}/commands", list(commands))


def callback(rest: Rest, interaction: GatewayInteraction, kind: int, data: Any = None) -> None:
    path = f"/interactions/{interaction.id}/{interaction.token}/callback"
    rest.call("POST", path, {"type": kind, **({} if data is None else {"data": data})}, 204)


def callback_error(rest: Rest, interaction: GatewayInteraction, body: Any) -> tuple[int, int]:
    path = f"/interactions/{interaction.id}/{interaction.token}/callback"
    return rest.error("POST", path, body)


def webhook(interaction: GatewayInteraction, *parts: str) -> str:
    application = interaction.payload["application_id"]
    return "/".join((f"/webhooks/{application}/{interaction.token}", *parts))


@pytest.fixture
def roll(local_gateway: LocalGateway, rest: Rest) -> GatewayInteraction:
    """A user has invoked /roll."""
    register(rest, ROLL)
    return local_gateway.invoke_command("roll", {"sides": 6})


def test_a_test_sees_which_commands_are_registered_and_where(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    assert local_gateway.commands == []
    register(rest, ROLL)
    application = local_gateway.world.application["id"]
    place = f"/applications/{application}/guilds/{channel['guild_id']}/commands"
    rest.call("PUT", place, [ROLL])
    assert [(each["name"], each.get("guild_id")) for each in local_gateway.commands] == [
        ("roll", None),
        ("roll", channel["guild_id"]),
    ]


def test_a_command_reaches_the_bot_and_its_answer_the_channel(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    register(rest, ROLL)
    guild = local_gateway.world.guilds[channel["guild_id"]]
    one = [*guild.members][1]
    with connected(local_gateway) as client:
        client.ready()
        interaction = local_gateway.invoke_command(
            "roll", {"sides": 6, "for": one}, channel_id=channel["id"], user_id=one
        )
        event = client.event("INTERACTION_CREATE")
        assert event == json.loads(json.dumps(interaction.payload))
        assert event["data"]["options"] == [
            {"name": "sides", "type": 4, "value": 6},
            {"name": "for", "type": 6, "value": one},
        ]
        assert event["data"]["resolved"]["users"] == {one: guild.members[one]["user"]}
        assert event["member"]["user"]["id"] == one and event["guild_id"] == guild.id
        rest.session.headers.pop("Authorization")  # the interaction's token is enough
        callback(rest, interaction, 4, {"content": "rolled 3"})
        message = client.event("MESSAGE_CREATE")
    assert message["content"] == interaction.wait_for_message()["content"] == "rolled 3"
    assert message["type"] == 20
    assert message["interaction_metadata"]["id"] == interaction.id
    assert message["interaction_metadata"]["user"]["id"] == one
    assert message["application_id"] == message["webhook_id"]
    assert [each["id"] for each in channel.messages] == [message["id"]]
    assert interaction.wait_for_callback()["type"] == 4


def test_a_response_is_edited_followed_up_and_deleted(
    local_gateway: LocalGateway, rest: Rest, roll: GatewayInteraction
) -> None:
    assert rest.error("POST", webhook(roll), {"content": "early"}) == (404, 10015)
    callback(rest, roll, 4, {"content": "first"})
    with connected(local_gateway) as client:
        client.ready()
        original = webhook(roll, "messages", "@original")
        assert rest.call("GET", original)["content"] == "first"
        assert rest.call("PATCH", original, {"content": "edited"})["content"] == "edited"
        assert client.event("MESSAGE_UPDATE")["content"] == "edited"
        second = rest.call("POST", webhook(roll), {"content": "second"})
        assert client.event("MESSAGE_CREATE")["id"] == second["id"]
        path = webhook(roll, "messages", second["id"])
        assert rest.call("PATCH", path, {"content": "2"})["content"] == "2"
        assert rest.call("GET", path)["content"] == "2"
        client.event("MESSAGE_UPDATE")
        assert [each["content"] for each in roll.wait_for_messages(2)] == ["edited", "2"]
        for each in (path, original):
            rest.call("DELETE", each, status=204)
            client.event("MESSAGE_DELETE")
            assert rest.error("GET", each) == (404, 10008)
    assert roll.message is None and roll.messages == []


def test_a_deferred_response_is_loading_until_it_has_content(
    rest: Rest, roll: GatewayInteraction
) -> None:
    callback(rest, roll, 5)
    assert roll.message is not None and roll.message["flags"] == 128
    with pytest.raises(TimeoutError, match="a response to <GatewayInteraction"):
        roll.wait_for_message(timeout=0.01)
    first = rest.call("POST", webhook(roll), {"content": "at last"})
    assert first["id"] == roll.wait_for_message()["id"]
    assert (first["content"], first["flags"]) == ("at last", 0)
    second = rest.call("POST", webhook(roll), {"content": "more"})
    assert second["id"] != first["id"]
    assert second["message_reference"]["message_id"] == first["id"]


def test_an_ephemeral_response_is_in_no_channel(
    local_gateway: LocalGateway, rest: Rest, channel: Channel, roll: GatewayInteraction
) -> None:
    with connected(local_gateway) as client:
        client.ready()
        callback(rest, roll, 4, {"content": "psst", "flags": 64})
        assert rest.call("GET", webhook(roll, "messages", "@original"))["flags"] == 64
        rest.call("PATCH", webhook(roll, "messages", "@original"), {"content": "pst"})
        client.nothing_more()
    assert roll.wait_for_message()["content"] == "pst"
    assert channel.messages == []
    rest.call("DELETE", webhook(roll, "messages", "@original"), status=204)


def test_an_answer_comes_once_and_within_three_seconds(
    local_gateway: LocalGateway, rest: Rest, roll: GatewayInteraction
) -> None:
    body = {"type": 4, "data": {"content": "a"}}
    local_gateway.clock.advance(2.5)
    callback(rest, roll, 4, body["data"])
    assert callback_error(rest, roll, body) == (400, 40060)
    late = local_gateway.invoke_command("roll", {"sides": 6})
    local_gateway.clock.advance(3.5)
    assert callback_error(rest, late, body) == (404, 10062)
    assert late.callback is None
    assert rest.error("POST", "/interactions/5/x/callback", body) == (404, 10062)


def test_a_token_answers_its_own_interaction_only(
    local_gateway: LocalGateway, rest: Rest, roll: GatewayInteraction
) -> None:
    other = local_gateway.invoke_command("roll", {"sides": 6})
    path = f"/interactions/{other.id}/{roll.token}/callback"
    assert rest.error("POST", path, {"type": 5}) == (404, 10062)
    assert other.callback is None and roll.callback is None


def test_a_response_mentions_users_only_unless_it_asks_for_more(
    local_gateway: LocalGateway, rest: Rest, channel: Channel, roll: GatewayInteraction
) -> None:
    guild = local_gateway.world.guilds[channel["guild_id"]]
    content = f"<@{guild.owner_id}> <@&{guild.roles[2]['id']}> @everyone"
    callback(rest, roll, 4, {"content": content})
    mentions = ("mention_roles", "mention_everyone")
    message = roll.wait_for_message()
    assert [user["id"] for user in message["mentions"]] == [guild.owner_id]
    assert [message[key] for key in mentions] == [[], False]
    everyone = {"content": content, "allowed_mentions": {"parse": ["everyone"]}}
    follow_up = rest.call("POST", webhook(roll), everyone)
    assert [follow_up[key] for key in mentions] == [[], True]


def test_a_client_sets_no_flag_of_the_gateway(rest: Rest, roll: GatewayInteraction) -> None:
    callback(rest, roll, 4, {"content": "a", "flags": 4 | 128 | 1 << 40})
    assert roll.wait_for_message()["flags"] == 4


def test_the_gateway_remembers_the_newest_thousand_interactions() -> None:
    world = World(guilds=1)
    interactions = Interactions(world, Clock())
    guild = next(iter(world.guilds.values()))
    made = [
        interactions.make(2, {"name": "a", "type": 1}, guild.text_channels[0], guild.owner_id)
        for _ in range(1001)
    ]
    assert interactions.find(made[0].token) is None
    assert interactions.find(made[1].token) is made[1]


def test_the_token_is_valid_for_a_quarter_of_an_hour(
    local_gateway: LocalGateway, rest: Rest, roll: GatewayInteraction
) -> None:
    callback(rest, roll, 4, {"content": "a"})
    local_gateway.clock.advance(899)
    rest.call("POST", webhook(roll), {"content": "b"})
    local_gateway.clock.advance(2)
    assert rest.error("POST", webhook(roll), {"content": "c"}) == (401, 50027)
    assert rest.error("POST", "/webhooks/5/x", {"content": "c"}) == (404, 10015)


BUTTON = {"type": 2, "style": 1, "label": "a", "custom_id": "b"}
ROW_OF_BUTTON = {"type": 1, "components": [BUTTON]}


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({}, {"type": "BASE_TYPE_REQUIRED"}),
        ({"type": 3}, {"type": "BASE_TYPE_CHOICES"}),
        ({"type": 7, "data": {}}, {"type": "BASE_TYPE_CHOICES"}),
        ({"type": 8, "data": {"choices": []}}, {"type": "BASE_TYPE_CHOICES"}),
        ({"type": 4}, {"data": "BASE_TYPE_REQUIRED"}),
        ({"type": 4, "data": {"content": "x" * 2001}}, {"data.content": "BASE_TYPE_MAX_LENGTH"}),
        (
            {"type": 9, "data": {"custom_id": "a", "title": "x" * 46, "components": []}},
            {"data.title": "BASE_TYPE_BAD_LENGTH", "data.components": "BASE_TYPE_BAD_LENGTH"},
        ),
        (
            {"type": 9, "data": {"custom_id": "a", "title": "b", "components": [ROW_OF_BUTTON]}},
            {"data.components.0.components.0": "UNION_TYPE_CHOICES"},
        ),
    ],
)
def test_an_invalid_callback_is_refused_and_another_may_follow(
    rest: Rest, roll: GatewayInteraction, body: Any, problems: dict[str, str]
) -> None:
    path = f"/interactions/{roll.id}/{roll.token}/callback"
    assert rest.problems("POST", path, body) == problems
    callback(rest, roll, 4, {"content": "valid"})


def test_the_callback_tells_of_the_response_if_asked(rest: Rest, roll: GatewayInteraction) -> None:
    path = f"/interactions/{roll.id}/{roll.token}/callback?with_response=true"
    answer = rest.call("POST", path, {"type": 4, "data": {"content": "a"}})
    message = roll.wait_for_message()
    assert answer["interaction"] == {
        "id": roll.id,
        "type": 2,
        "response_message_id": message["id"],
        "response_message_loading": False,
        "response_message_ephemeral": False,
    }
    assert answer["resource"]["message"]["id"] == message["id"]


def test_a_callback_carries_files(rest: Rest, roll: GatewayInteraction) -> None:
    payload = {"type": 4, "data": {"attachments": [{"id": 0, "description": "d"}]}}
    response = rest.send(
        "POST",
        f"/interactions/{roll.id}/{roll.token}/callback",
        data={"payload_json": json.dumps(payload)},
        files={"files[0]": ("a.txt", b"text")},
    )
    assert response.status_code == 204, response.text
    (attachment,) = roll.wait_for_message()["attachments"]
    assert (attachment["filename"], attachment["description"]) == ("a.txt", "d")


def test_autocompletion(local_gateway: LocalGateway, rest: Rest, roll: GatewayInteraction) -> None:
    typed = local_gateway.autocomplete_command("roll", {"colour": "re"}, "colour")
    assert typed.payload["type"] == 4
    assert typed.payload["data"]["options"] == [
        {"name": "colour", "type": 3, "value": "re", "focused": True}
    ]
    with pytest.raises(ValueError, match="no 'colour', which the user is typing"):
        local_gateway.autocomplete_command("roll", {"sides": 6}, "colour")
    body = {"type": 4, "data": {"content": "no message"}}
    assert callback_error(rest, typed, body) == (400, 50035)
    callback(rest, typed, 8, {"choices": [{"name": "Red", "value": "red"}]})
    choices = typed.wait_for_callback()["data"]["choices"]
    assert [choice["value"] for choice in choices] == ["red"]
    assert rest.error("POST", webhook(typed), {"content": "no message"}) == (404, 10015)


def buttons(**fields: Any) -> list[dict[str, Any]]:
    menu = {
        "type": 3,
        "custom_id": "menu",
        "options": [{"label": "A", "value": "a"}, {"label": "B", "value": "b"}],
        "max_values": 2,
    }
    button = {"type": 2, "style": 1, "label": "Go", "custom_id": "go", **fields}
    return [
        {"type": 1, "components": [button]},
        {"type": 1, "components": [menu]},
        {"type": 1, "components": [{"type": 5, "custom_id": "who"}]},
    ]


def test_a_component_is_used_and_its_message_updated(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    rest.write(channel, "press", components=buttons())
    (message,) = channel.messages
    with connected(local_gateway) as client:
        client.ready()
        pressed = local_gateway.use_component(message, "go")
        event = client.event("INTERACTION_CREATE")
        assert event["type"] == 3
        assert (event["data"]["custom_id"], event["data"]["component_type"]) == ("go", 2)
        assert event["message"]["id"] == message["id"]
        callback(rest, pressed, 7, {"content": "pressed", "components": []})
        assert client.event("MESSAGE_UPDATE")["content"] == "pressed"
    assert message["content"] == "pressed" and message["components"] == []
    original = rest.call("GET", webhook(pressed, "messages", "@original"))
    assert original["id"] == message["id"]


def test_a_message_that_the_bot_received_is_refused_for_a_component(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    received = dict(rest.write(channel, "press", components=buttons()))
    with pytest.raises(TypeError, match=r"message must be one of .* not a plain dict"):
        local_gateway.use_component(received, "go")  # type: ignore[arg-type]


def test_an_interaction_that_no_bot_gets_says_so(
    local_gateway: LocalGateway, rest: Rest, roll: GatewayInteraction
) -> None:
    with pytest.raises(TimeoutError, match="which no bot has got: none was READY"):
        roll.wait_for_callback(timeout=0.01)
    with connected(local_gateway) as client:
        client.ready()
        again = local_gateway.invoke_command("roll", {"sides": 20})
        with pytest.raises(TimeoutError, match=r"an answer to <GatewayInteraction \d+ type=2>$"):
            again.wait_for_callback(timeout=0.01)


@pytest.mark.parametrize(
    ("custom_id", "values", "problem"),
    [
        ("off", None, "'off' is disabled"),
        ("go", ["a"], "'go' is a button, which has no values"),
        ("gone", None, "has no component 'gone'; it has 'off', 'go', 'menu', 'who'"),
        ("menu", None, "'menu' takes 1 to 2 values, not 0"),
        ("menu", ["a", "b", "a"], "'menu' takes 1 to 2 values, not 3"),
        ("menu", "ab", "'menu' has no value 'ab'; it has a, b"),
        ("who", ["5"], "there is no user 5"),
    ],
)
def test_what_a_user_could_not_do_with_a_component_is_an_error(
    local_gateway: LocalGateway,
    rest: Rest,
    channel: Channel,
    custom_id: str,
    values: Any,
    problem: str,
) -> None:
    off = {**BUTTON, "custom_id": "off", "disabled": True}
    rest.write(channel, components=[{"type": 1, "components": [off]}, *buttons()])
    with pytest.raises(ValueError, match=problem):
        local_gateway.use_component(channel.messages[0], custom_id, values)


def test_a_deferred_update_leaves_the_message_and_follow_ups_are_new(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    rest.write(channel, "select", components=buttons())
    (message,) = channel.messages
    owner = local_gateway.world.guilds[channel["guild_id"]].owner_id
    selected = local_gateway.use_component(message, "menu", ["b"])
    assert selected.payload["data"]["values"] == ["b"]
    callback(rest, selected, 6)
    assert rest.call("POST", webhook(selected), {"content": "b?"})["id"] != message["id"]
    rest.call("PATCH", webhook(selected, "messages", "@original"), {"content": "b!"})
    assert message["content"] == "b!"
    who = local_gateway.use_component(message, "who", [owner])
    assert list(who.payload["data"]["resolved"]["members"]) == [owner]


def test_a_response_that_was_deleted_in_its_channel_is_unknown(
    local_gateway: LocalGateway, rest: Rest, roll: GatewayInteraction
) -> None:
    callback(rest, roll, 4, {"content": "a", "components": [ROW_OF_BUTTON]})
    (message,) = roll.messages
    press = local_gateway.use_component(message, "b")
    path = f"/channels/{message['channel_id']}/messages/{message['id']}"
    rest.call("DELETE", path, status=204)
    original = webhook(roll) + "/messages/@original"
    assert rest.error("GET", original) == (404, 10008)
    assert rest.error("PATCH", original, {"content": "b"}) == (404, 10008)
    update = {"type": 7, "data": {"content": "b"}}
    path = f"/interactions/{press.id}/{press.token}/callback"
    assert rest.error("POST", path, update) == (404, 10008)


def test_a_modal_is_opened_and_sent(
    local_gateway: LocalGateway, rest: Rest, roll: GatewayInteraction
) -> None:
    name = {"type": 4, "custom_id": "name", "style": 1, "min_length": 2}
    pick = {"type": 3, "custom_id": "pick", "options": [{"label": "A", "value": "a"}]}
    preset = [{"label": "B", "value": "b", "default": True}, {"label": "C", "value": "c"}]
    modal = {
        "custom_id": "form",
        "title": "Form",
        "components": [
            {"type": 18, "label": "Name", "component": name},
            {"type": 18, "label": "Pick", "component": {**pick, "required": False}},
            {
                "type": 18,
                "label": "Preset",
                "component": {"type": 3, "custom_id": "preset", "options": preset},
            },
        ],
    }
    with pytest.raises(ValueError, match="not answered .* with a modal"):
        local_gateway.submit_modal(roll)
    callback(rest, roll, 9, modal)
    assert rest.error("GET", webhook(roll, "messages", "@original")) == (404, 10008)
    for values, problem in (
        ({"name": "x"}, "below min_length"),
        ({"nmae": "Ada"}, "has no 'nmae'; it has name, pick, preset"),
        ({"name": 5}, "the text of 'name' cannot be 5"),
        ({"name": "Ada", "pick": ["b"]}, "no value 'b'"),
    ):
        with pytest.raises(ValueError, match=problem):
            local_gateway.submit_modal(roll, values)
    sent = local_gateway.submit_modal(roll, {"name": "Ada", "pick": "a"})
    data = sent.payload["data"]
    assert (sent.payload["type"], data["custom_id"]) == (5, "form")
    fields = [label["component"] for label in data["components"]]
    assert fields[0]["value"] == "Ada" and fields[1]["values"] == ["a"]
    assert fields[2]["values"] == ["b"]
    assert callback_error(rest, sent, {"type": 9, "data": modal}) == (400, 50035)
    callback(rest, sent, 4, {"content": "Hello Ada"})
    assert sent.wait_for_message()["content"] == "Hello Ada"


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("rol", {}, "no /rol there; it has registered /roll, /tree"),
        ("roll", {}, "/roll needs the option 'sides'"),
        ("roll", {"sides": "6"}, "'sides' of /roll must be a whole number, not '6'"),
        ("roll", {"sides": True}, "must be a whole number, not True"),
        ("roll", {"sides": 1}, "below min_value, 2"),
        ("roll", {"sides": 101}, "above max_value, 100"),
        ("roll", {"sides": 6, "colour": ""}, "'' is below min_length, 1"),
        ("roll", {"side": 6}, "/roll has no option 'side'; it has sides"),
        ("roll", {"sides": 6, "for": "5"}, "there is no user 5"),
        ("tree", {}, "/tree takes one subcommand"),
        ("tree", {"plant": {"kind": "ash"}}, "/tree plant must be one of 'oak'"),
    ],
)
def test_what_a_user_could_not_do_is_an_error(
    local_gateway: LocalGateway, rest: Rest, name: str, options: dict[str, Any], problem: str
) -> None:
    kind = {
        "type": 3,
        "name": "kind",
        "description": "k",
        "choices": [{"name": "Oak", "value": "oak"}],
    }
    plant = {"type": 1, "name": "plant", "description": "p", "options": [kind]}
    register(rest, ROLL, {"name": "tree", "description": "t", "options": [plant]})
    with pytest.raises(ValueError, match=problem):
        local_gateway.invoke_command(name, options)


def test_subcommands_and_context_menus(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    plant = {"type": 1, "name": "plant", "description": "p"}
    garden = {"type": 2, "name": "garden", "description": "g", "options": [plant]}
    register(
        rest,
        {"name": "tree", "description": "t", "options": [garden]},
        {"name": "Greet", "type": 2},
        {"name": "Quote", "type": 3},
    )
    tree = local_gateway.invoke_command("tree", {"garden": {"plant": {}}})
    assert tree.payload["data"]["options"][0]["options"][0]["name"] == "plant"
    callback(rest, tree, 4, {"content": "a"})
    assert tree.wait_for_message()["interaction"]["name"] == "tree garden plant"
    owner = local_gateway.world.guilds[channel["guild_id"]].owner_id
    greet = local_gateway.invoke_command("Greet", kind=2, target_id=owner)
    assert list(greet.payload["data"]["resolved"]["users"]) == [owner]
    callback(rest, greet, 4, {"content": "Hi"})
    assert greet.wait_for_message()["type"] == 23
    message = rest.write(channel, "said")
    quote = local_gateway.invoke_command(
        "Quote", kind=3, target_id=message["id"], channel_id=channel["id"]
    )
    found = quote.payload["data"]["resolved"]["messages"][message["id"]]
    assert found["content"] == "said"
    with pytest.raises(ValueError, match="no /Greet there; it has .*user command 'Greet'"):
        local_gateway.invoke_command("Greet")
    for kind, target in ((2, None), (2, "5"), (3, "5")):
        with pytest.raises(ValueError, match="target_id"):
            local_gateway.invoke_command(
                "Greet" if kind == 2 else "Quote", kind=kind, target_id=target
            )


def test_a_guild_command_goes_before_a_global_one_and_is_not_in_direct_messages(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    register(rest, {"name": "both", "description": "global"})
    application = local_gateway.world.application["id"]
    path = f"/applications/{application}/guilds/{channel['guild_id']}/commands"
    mine = rest.call("POST", path, {"name": "both", "description": "guild"}, 201)
    rest.call("POST", path, {"name": "only", "description": "guild"}, 201)
    assert local_gateway.invoke_command("both").payload["data"]["id"] == mine["id"]
    owner = local_gateway.world.guilds[channel["guild_id"]].owner_id
    direct = local_gateway.world.direct_channel(owner)
    invoked = local_gateway.invoke_command("both", channel_id=direct["id"])
    assert invoked.payload["user"]["id"] == owner and "member" not in invoked.payload
    callback(rest, invoked, 4, {"content": "in private"})
    assert [message["content"] for message in direct.messages] == ["in private"]
    with pytest.raises(ValueError, match="no /only there; it has registered /both"):
        local_gateway.invoke_command("only", channel_id=direct["id"])


def test_the_interactions_of_traffic_can_be_answered(
    local_gateway: LocalGateway, rest: Rest
) -> None:
    with connected(local_gateway) as client:
        client.ready()
        traffic = local_gateway.traffic(20, {"INTERACTION_CREATE": 1})
        event = client.event("INTERACTION_CREATE")
        traffic.stop()
    path = f"/interactions/{event['id']}/{event['token']}/callback"
    rest.call("POST", path, {"type": 4, "data": {"content": "pong"}}, 204)
