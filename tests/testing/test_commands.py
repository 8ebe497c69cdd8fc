"""The commands that a client may send once it has a session, and their answers."""

from __future__ import annotations

from typing import Any

import pytest

from shardlib.gateway import Intents
from shardlib.testing import LocalGateway
from shardlib.testing.guild import Guild
from tests.testing.client import connected


def first_guild(gateway: LocalGateway) -> Guild:
    return next(iter(gateway.world.guilds.values()))


def ids(members: list[dict[str, Any]]) -> list[str]:
    return [member["user"]["id"] for member in members]


def test_a_heartbeat_is_acknowledged_and_remembered(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        client.send(1, 4)
        assert client.receive() == {"t": None, "s": None, "op": 11, "d": None}
        connection = local_gateway.wait_for_connection()
        beat = connection.expect(1)
        assert beat == {"op": 1, "d": 4}
        assert connection.opened_at < beat.time
        assert beat.connection is connection
        assert [payload["op"] for payload in connection.received] == [2, 1]


def test_a_presence_update_reaches_every_guild_and_is_remembered(
    local_gateway: LocalGateway,
) -> None:
    activity = {"name": "Chess", "type": 0}
    presence = {"status": "dnd", "afk": False, "since": None, "activities": [activity]}
    with connected(local_gateway) as client:
        client.ready()
        client.send(3, presence)
        for guild_id in local_gateway.world.guilds:
            update = client.event("PRESENCE_UPDATE")
            assert (update["guild_id"], update["status"]) == (guild_id, "dnd")
            assert update["user"]["id"] == local_gateway.world.user["id"]
        assert local_gateway.sessions[0].presence == presence
        client.send(3, {**presence, "status": "asleep"})
        assert client.close_code() == 4001


# discord.py and py-cord send 0.0 unless the bot is idle, hikari sends null or an integer.
@pytest.mark.parametrize("since", [None, 0, 0.0, 1_732_647_881_000.0])
def test_a_presence_may_have_a_whole_number_of_any_spelling(
    local_gateway: LocalGateway, since: float | None
) -> None:
    presence = {"status": "idle", "afk": False, "since": since, "activities": []}
    with connected(local_gateway) as client:
        client.ready()
        client.send(3, presence)
        assert client.event("PRESENCE_UPDATE")["status"] == "idle"
        assert local_gateway.sessions[0].presence == presence


def test_joining_and_leaving_voice_is_answered_with_voice_states(
    local_gateway: LocalGateway,
) -> None:
    guild = first_guild(local_gateway)
    channel_id = guild.voice_channels[1]["id"]
    request = {"guild_id": guild.id, "channel_id": channel_id, "self_mute": True}
    bot = local_gateway.world.user["id"]
    with connected(local_gateway) as client:
        client.ready()
        client.send(4, request)
        state = client.event("VOICE_STATE_UPDATE")
        assert (state["user_id"], state["channel_id"]) == (bot, channel_id)
        assert (state["self_mute"], state["self_deaf"]) == (True, False)
        server = client.event("VOICE_SERVER_UPDATE")
        assert server["guild_id"] == guild.id
        assert server["token"] and server["endpoint"]
        assert bot in guild.voice_states
        client.send(4, {**request, "channel_id": None})
        assert client.event("VOICE_STATE_UPDATE")["channel_id"] is None
        assert bot not in guild.voice_states
        client.send(4, {**request, "channel_id": guild.text_channels[0]["id"]})
        client.nothing_more()


@pytest.mark.local_gateway(guilds=1, members=2400)
def test_all_members_come_in_chunks(local_gateway: LocalGateway) -> None:
    guild = first_guild(local_gateway)
    request = {"guild_id": guild.id, "query": "", "limit": 0, "nonce": "n", "presences": True}
    with connected(local_gateway) as client:
        client.ready()
        client.send(8, request)
        chunks = [client.event("GUILD_MEMBERS_CHUNK") for _ in range(3)]
        assert [chunk["chunk_index"] for chunk in chunks] == [0, 1, 2]
        assert {chunk["chunk_count"] for chunk in chunks} == {3}
        assert {chunk["nonce"] for chunk in chunks} == {"n"}
        assert [len(chunk["members"]) for chunk in chunks] == [1000, 1000, 401]
        members = [member for chunk in chunks for member in chunk["members"]]
        assert ids(members) == list(guild.members)
        for chunk in chunks:
            present = {presence["user"]["id"] for presence in chunk["presences"]}
            assert present == set(ids(chunk["members"])) & set(guild.presences)


def test_all_members_of_a_guild_are_asked_for_every_30_seconds_at_most(
    local_gateway: LocalGateway,
) -> None:
    one, other, _ = local_gateway.world.guilds
    request = {"guild_id": one, "query": "", "limit": 0, "nonce": "n"}
    with connected(local_gateway) as client:
        client.ready()
        client.send(8, request)
        client.event("GUILD_MEMBERS_CHUNK")
        client.send(8, request)
        limited = client.event("RATE_LIMITED")
        assert limited["opcode"] == 8
        assert 29 < limited["retry_after"] <= 30
        assert limited["meta"] == {"guild_id": one, "nonce": "n"}
        client.send(8, {**request, "guild_id": other})
        client.event("GUILD_MEMBERS_CHUNK")
        local_gateway.clock.advance(30)
        client.send(8, request)
        client.event("GUILD_MEMBERS_CHUNK")


def test_all_members_need_the_intent(local_gateway: LocalGateway) -> None:
    guild = first_guild(local_gateway)
    with connected(local_gateway) as client:
        client.ready(Intents.GUILDS)
        client.send(8, {"guild_id": guild.id, "query": "", "limit": 0, "presences": True})
        chunk = client.event("GUILD_MEMBERS_CHUNK")
        assert ids(chunk["members"]) == [local_gateway.world.user["id"]]
        assert "presences" not in chunk


def test_members_are_found_by_the_beginning_of_a_name(local_gateway: LocalGateway) -> None:
    guild = first_guild(local_gateway)
    name = guild.members[guild.owner_id]["user"]["username"]
    with connected(local_gateway) as client:
        client.ready(Intents.GUILDS)
        client.send(8, {"guild_id": guild.id, "query": name[:3].upper(), "limit": 100})
        found = client.event("GUILD_MEMBERS_CHUNK")["members"]
        assert guild.owner_id in ids(found)
        for member in found:
            names = (member["user"]["username"], member["nick"] or "")
            assert any(each.casefold().startswith(name[:3]) for each in names)
        client.send(8, {"guild_id": guild.id, "query": "", "limit": 2})
        assert len(client.event("GUILD_MEMBERS_CHUNK")["members"]) == 2


@pytest.mark.local_gateway(guilds=1, members=150)
def test_a_query_brings_a_hundred_at_most(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready(Intents.GUILDS)
        for limit in (120, 0):
            query = "" if limit else "a"
            guild_id = first_guild(local_gateway).id
            client.send(8, {"guild_id": guild_id, "query": query, "limit": limit})
            assert len(client.event("GUILD_MEMBERS_CHUNK")["members"]) <= 100


def test_members_are_found_by_id_and_the_others_named_in_not_found(
    local_gateway: LocalGateway,
) -> None:
    guild = first_guild(local_gateway)
    with connected(local_gateway) as client:
        client.ready(Intents.GUILDS)
        client.send(8, {"guild_id": guild.id, "user_ids": [guild.owner_id, "5"], "nonce": "n" * 33})
        chunk = client.event("GUILD_MEMBERS_CHUNK")
        assert ids(chunk["members"]) == [guild.owner_id]
        assert chunk["not_found"] == ["5"]
        assert "nonce" not in chunk  # a nonce that is too long is ignored
        client.send(8, {"guild_id": guild.id, "user_ids": guild.owner_id})
        assert ids(client.event("GUILD_MEMBERS_CHUNK")["members"]) == [guild.owner_id]


def test_soundboard_sounds_come_for_each_guild_that_is_known(local_gateway: LocalGateway) -> None:
    guilds = list(local_gateway.world.guilds)
    with connected(local_gateway) as client:
        client.ready(Intents.GUILDS)
        client.send(31, {"guild_ids": [*guilds, "5"]})
        for guild_id in guilds:
            sounds = client.event("SOUNDBOARD_SOUNDS")
            assert sounds["guild_id"] == guild_id
            assert {sound["guild_id"] for sound in sounds["soundboard_sounds"]} == {guild_id}
        client.nothing_more()


def test_channel_info_holds_the_fields_that_were_asked_for(local_gateway: LocalGateway) -> None:
    guild = first_guild(local_gateway)
    with connected(local_gateway) as client:
        client.ready(Intents.GUILDS)
        client.send(43, {"guild_id": guild.id, "fields": ["status", "voice_start_time"]})
        info = client.event("CHANNEL_INFO")
        assert info["guild_id"] == guild.id
        (channel,) = info["channels"]
        assert channel["id"] == guild.voice_channels[0]["id"]
        assert set(channel) == {"id", "status", "voice_start_time"}
        client.send(43, {"guild_id": guild.id, "fields": ["status"]})
        assert set(client.event("CHANNEL_INFO")["channels"][0]) == {"id", "status"}


@pytest.mark.parametrize(
    ("opcode", "data"),
    [
        (3, {"status": "idle", "since": "now"}),
        (3, {"status": "idle", "since": 0.5}),
        (3, {"status": "idle", "since": True}),
        (3, {"status": "idle", "afk": 1}),
        (3, []),
        (4, {"guild_id": "x", "channel_id": None}),
        (4, {"guild_id": "1", "channel_id": True}),
        (4, {"guild_id": "1", "channel_id": "1", "self_mute": 1}),
        (8, {"query": "", "limit": 0}),
        (8, {"guild_id": "1"}),
        (8, {"guild_id": "1", "query": "", "user_ids": []}),
        (8, {"guild_id": "1", "query": "a"}),
        (8, {"guild_id": "1", "query": "a", "limit": -1}),
        (8, {"guild_id": "1", "query": 5, "limit": 1}),
        (8, {"guild_id": "1", "user_ids": ["x"]}),
        (8, {"guild_id": "1", "user_ids": ["1"], "presences": 1}),
        (31, {"guild_ids": "1"}),
        (31, {"guild_ids": ["x"]}),
        (43, {"guild_id": "1", "fields": ["topic"]}),
        (43, {"guild_id": "1"}),
    ],
)
def test_an_invalid_payload_for_an_opcode_is_closed_with_4001(
    local_gateway: LocalGateway, opcode: int, data: Any
) -> None:
    with connected(local_gateway) as client:
        client.ready()
        client.send(opcode, data)
        assert client.close_code() == 4001


@pytest.mark.local_gateway(guilds=2)
def test_requests_for_a_guild_of_another_shard_are_ignored(local_gateway: LocalGateway) -> None:
    other, own = local_gateway.world.guilds.values()
    with connected(local_gateway) as client:
        client.ready(shard=[1, 2])
        for guild in (other, own):
            client.send(8, {"guild_id": guild.id, "query": "", "limit": 0})
            client.send(4, {"guild_id": guild.id, "channel_id": guild.voice_channels[0]["id"]})
            client.send(31, {"guild_ids": [guild.id]})
            client.send(43, {"guild_id": guild.id, "fields": ["status"]})
        for event in (
            "GUILD_MEMBERS_CHUNK",
            "VOICE_STATE_UPDATE",
            "VOICE_SERVER_UPDATE",
            "SOUNDBOARD_SOUNDS",
            "CHANNEL_INFO",
        ):
            assert client.event(event)["guild_id"] == own.id
        client.send(3, {"status": "idle", "afk": False, "since": None, "activities": []})
        assert client.event("PRESENCE_UPDATE")["guild_id"] == own.id
        client.nothing_more()
    bot = local_gateway.world.user["id"]
    assert (bot in own.presences, bot in other.presences) == (True, False)
