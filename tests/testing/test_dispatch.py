"""Which session gets which event: intents, shards, message content."""

from __future__ import annotations

from typing import Any

import pytest

from shardlib.gateway import Intents
from shardlib.testing import LocalGateway
from shardlib.testing.intents import (
    DIRECT_EVENTS,
    GUILD_EVENTS,
    guild_id_of,
    required_intents,
    without_content,
)
from tests.testing.client import Client, connected

BOT = "42"
GUILD = {"guild_id": "7"}


@pytest.mark.parametrize("event", [event for events in GUILD_EVENTS.values() for event in events])
def test_every_event_in_a_guild_needs_one_of_its_intents(event: str) -> None:
    data = {"id": "7"} if event in ("GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE") else GUILD
    intents = [intent for intent, events in GUILD_EVENTS.items() if event in events]
    if event == "THREAD_MEMBERS_UPDATE":
        # The data concerns another member. test_events_about_the_bot_itself_need_fewer_intents
        # covers the bot.
        intents = [Intents.GUILD_MEMBERS]
    assert [intent for intent in Intents if intent & required_intents(event, data, BOT)] == intents


@pytest.mark.parametrize("event", [event for events in DIRECT_EVENTS.values() for event in events])
def test_every_direct_event_needs_its_intent(event: str) -> None:
    (intent,) = [intent for intent, events in DIRECT_EVENTS.items() if event in events]
    assert required_intents(event, {"channel_id": "1"}, BOT) == intent


@pytest.mark.parametrize(
    "event", ["READY", "INTERACTION_CREATE", "GUILD_MEMBERS_CHUNK", "VOICE_SERVER_UPDATE", "NEW"]
)
def test_events_outside_the_intent_tables_need_no_intent(event: str) -> None:
    assert required_intents(event, GUILD, BOT) == Intents(0)


@pytest.mark.parametrize(
    ("event", "data", "intents"),
    [
        ("GUILD_MEMBER_UPDATE", {"user": {"id": BOT}}, Intents(0)),
        ("GUILD_MEMBER_UPDATE", {"user": {"id": "43"}}, Intents.GUILD_MEMBERS),
        (
            "THREAD_MEMBERS_UPDATE",
            {"added_members": [{"user_id": BOT}]},
            Intents.GUILDS | Intents.GUILD_MEMBERS,
        ),
        (
            "THREAD_MEMBERS_UPDATE",
            {"removed_member_ids": [BOT]},
            Intents.GUILDS | Intents.GUILD_MEMBERS,
        ),
        ("THREAD_MEMBERS_UPDATE", {"removed_member_ids": ["43"]}, Intents.GUILD_MEMBERS),
    ],
    ids=["bot updated", "other updated", "bot added", "bot removed", "other removed"],
)
def test_events_about_the_bot_itself_need_fewer_intents(
    event: str, data: dict[str, Any], intents: Intents
) -> None:
    assert required_intents(event, {**GUILD, **data}, BOT) == intents


def message(**changes: Any) -> dict[str, Any]:
    return {
        **GUILD,
        "content": "secret",
        "embeds": [1],
        "attachments": [2],
        "components": [3],
        "poll": {},
        "mentions": [],
        "author": {"id": "1"},
        **changes,
    }


def test_message_content_is_hidden_without_its_intent() -> None:
    hidden = without_content("MESSAGE_CREATE", message(), BOT)
    assert hidden == {
        **GUILD,
        "content": "",
        "embeds": [],
        "attachments": [],
        "components": [],
        "mentions": [],
        "author": {"id": "1"},
    }
    executed = {**GUILD, "content": "x", "matched_content": "x"}
    hidden = without_content("AUTO_MODERATION_ACTION_EXECUTION", executed, BOT)
    assert hidden == {**GUILD, "content": "", "matched_content": ""}


@pytest.mark.parametrize(
    "shown",
    [
        message(author={"id": BOT}),
        message(mentions=[{"id": BOT}]),
        message(guild_id=None),
    ],
    ids=["own", "mentioned", "direct"],
)
def test_message_content_is_shown_to_the_bot_that_it_concerns(shown: dict[str, Any]) -> None:
    assert without_content("MESSAGE_CREATE", shown, BOT) is shown


def test_a_session_gets_only_events_of_its_intents(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready(Intents.GUILD_MESSAGES)
        (guild, *_) = local_gateway.world.guilds
        assert local_gateway.dispatch("TYPING_START", {"guild_id": guild}) == 0
        assert local_gateway.dispatch("MESSAGE_DELETE", {"guild_id": guild, "id": "5"}) == 1
        assert client.event("MESSAGE_DELETE")["id"] == "5"
        client.nothing_more()


def test_a_session_without_message_content_gets_messages_without_content(
    local_gateway: LocalGateway,
) -> None:
    guild = next(iter(local_gateway.world.guilds.values()))
    channel = guild.text_channels[0]["id"]
    bot = local_gateway.world.user["id"]
    local_gateway.identify_interval = 0
    with connected(local_gateway) as blind, connected(local_gateway) as seeing:
        blind.ready(Intents.GUILD_MESSAGES)
        seeing.ready(Intents.GUILD_MESSAGES | Intents.MESSAGE_CONTENT)
        sent = local_gateway.send_message(channel, guild.owner_id, "a secret")
        assert seeing.event("MESSAGE_CREATE") == sent
        assert blind.event("MESSAGE_CREATE") == {**sent, "content": ""}
        local_gateway.send_message(channel, guild.owner_id, f"hello <@{bot}>")
        mentioned = blind.event("MESSAGE_CREATE")
        assert mentioned["content"] == f"hello <@{bot}>"
        assert [user["id"] for user in mentioned["mentions"]] == [bot]


@pytest.mark.parametrize(("version", "is_shown"), [(6, True), (9, True), (10, False)])
def test_before_version_10_messages_have_their_content_without_an_intent(
    local_gateway: LocalGateway, version: int, is_shown: bool
) -> None:
    guild = next(iter(local_gateway.world.guilds.values()))
    with connected(local_gateway, query=f"?v={version}") as client:
        client.ready(Intents.GUILD_MESSAGES)
        local_gateway.send_message(guild.text_channels[0]["id"], guild.owner_id, "a secret")
        assert client.event("MESSAGE_CREATE")["content"] == ("a secret" if is_shown else "")


@pytest.mark.local_gateway(allowed_intents=Intents.default())
def test_before_version_10_a_bot_that_may_not_read_content_gets_none(
    local_gateway: LocalGateway,
) -> None:
    guild = next(iter(local_gateway.world.guilds.values()))
    with connected(local_gateway, query="?v=9") as client:
        client.ready(Intents.GUILD_MESSAGES)
        local_gateway.send_message(guild.text_channels[0]["id"], guild.owner_id, "a secret")
        assert client.event("MESSAGE_CREATE")["content"] == ""


def test_without_the_guilds_intent_no_guild_create_is_sent(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready(Intents.GUILD_MESSAGES)
        client.nothing_more()


@pytest.mark.local_gateway(guilds=6, max_concurrency=3)
def test_shards_get_the_events_of_their_guilds(local_gateway: LocalGateway) -> None:
    clients = [Client(local_gateway) for _ in range(3)]
    for shard, client in enumerate(clients):
        guilds = [int(each["id"]) for each in client.ready(shard=[shard, 3])["guilds"]]
        assert len(guilds) == 2
        assert {(guild >> 22) % 3 for guild in guilds} == {shard}
    for guild_id in local_gateway.world.guilds:
        assert local_gateway.dispatch("GUILD_UPDATE", {"id": guild_id}) == 1
    local_gateway.dispatch("USER_UPDATE", {})
    for shard, client in enumerate(clients):
        for _ in range(2):
            assert (int(client.event("GUILD_UPDATE")["id"]) >> 22) % 3 == shard
    clients[0].event("USER_UPDATE")
    for client in clients:
        client.nothing_more()
        client.socket.shutdown()


@pytest.mark.local_gateway(guilds=6, identify_interval=0)
def test_sessions_of_two_shard_counts_get_the_same_events_each_by_its_own_count(
    local_gateway: LocalGateway,
) -> None:
    world = local_gateway.world
    shards = [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    clients = {shard: Client(local_gateway) for shard in shards}
    for shard, client in clients.items():
        client.ready(shard=list(shard))
    for guild in world.guilds.values():
        data = {"guild_id": guild.id, "user_id": "1", "channel_id": "2"}
        assert local_gateway.dispatch("TYPING_START", data) == 2
        local_gateway.send_message(guild.text_channels[0]["id"], guild.owner_id)
    assert local_gateway.dispatch("MESSAGE_CREATE", {"channel_id": "1", "content": "direct"}) == 2
    for (shard_id, shard_count), client in clients.items():
        for guild in world.guilds.values():
            if guild.shard_id(shard_count) == shard_id:
                assert client.event("TYPING_START")["guild_id"] == guild.id
                assert client.event("MESSAGE_CREATE")["guild_id"] == guild.id
        if shard_id == 0:
            assert client.event("MESSAGE_CREATE")["content"] == "direct"
        client.nothing_more()
        client.socket.shutdown()


@pytest.mark.local_gateway(guilds=6, identify_interval=0, keep_history=True)
def test_traffic_reaches_the_sessions_of_every_shard_count(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as one, connected(local_gateway) as two:
        one.ready(shard=[0, 1])
        two.ready(shard=[1, 2])
        whole, half = local_gateway.sessions
        traffic = local_gateway.traffic(2000)
        local_gateway.wait_until(lambda: traffic.events > 200)
        traffic.stop()
        expected = [
            event[1:]
            for event in whole.history[7:]
            if (guild_id_of(event.name, event.data) or 0) >> 22 & 1
        ]
        assert expected
        assert [event[1:] for event in half.history[4:]] == expected


def test_wait_until_looks_again_whenever_traffic_was_sent(local_gateway: LocalGateway) -> None:
    traffic = local_gateway.traffic(200)
    seen: list[int] = []

    def look() -> bool:
        seen.append(traffic.events)
        return traffic.events >= 100

    local_gateway.wait_until(look, timeout=20)
    assert len(seen) > 3


def test_an_event_can_be_dispatched_to_one_session(local_gateway: LocalGateway) -> None:
    local_gateway.identify_interval = 0
    with connected(local_gateway) as first, connected(local_gateway) as second:
        first.ready(0)
        second.ready(0)
        one, other = local_gateway.sessions
        assert local_gateway.dispatch("USER_UPDATE", {}, session=other) == 1
        # Session.dispatch() does not look at the intents.
        assert one.dispatch("TYPING_START", {"guild_id": "1"}) == 2
        first.event("TYPING_START")
        second.event("USER_UPDATE")
        first.nothing_more()
        second.nothing_more()


@pytest.mark.parametrize(
    "data",
    [None, [], "", 0, {"text": "ünï\u2028🎉"}, {"lone": "\ud800"}, {"big": 2**70}, {"path": "a/b"}],
    ids=["null", "list", "text", "0", "Unicode", "lone surrogate", "big number", "slash"],
)
def test_any_json_can_be_dispatched(local_gateway: LocalGateway, data: Any) -> None:
    with connected(local_gateway) as client:
        client.ready()
        local_gateway.dispatch("NEW_THING", data)
        assert client.receive() == {"t": "NEW_THING", "s": 5, "op": 0, "d": data}


@pytest.mark.parametrize("data", [float("nan"), {1, 2}, object()], ids=["NaN", "set", "object"])
def test_dispatch_refuses_data_that_is_no_json(local_gateway: LocalGateway, data: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        local_gateway.dispatch("NEW_THING", data)


def test_send_message_refuses_an_unknown_channel_or_member(local_gateway: LocalGateway) -> None:
    guild = next(iter(local_gateway.world.guilds.values()))
    with pytest.raises(ValueError, match="no channel 5"):
        local_gateway.send_message("5", guild.owner_id, "")
    with pytest.raises(ValueError, match="no member"):
        local_gateway.send_message(guild.text_channels[0]["id"], "5", "")
