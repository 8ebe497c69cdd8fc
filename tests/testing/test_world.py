"""The world of a local gateway, and its traffic: every id in them refers to an object."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from shardlib.gateway import Intents
from shardlib.testing import TRAFFIC_MIX, Clock, Guild, LocalGateway, Traffic, World
from shardlib.testing.event_maker import EventMaker
from shardlib.testing.interactions import Interactions
from tests.support import wait_until
from tests.testing.client import connected


def maker(world: World, mix: Mapping[str, float]) -> EventMaker:
    """A maker of events that bots could answer."""
    return EventMaker(world, Interactions(world, Clock()), mix)


def picture(guild: Guild) -> dict[str, Any]:
    """GUILD_CREATE's data, without the session ids of voice states."""
    return {**guild.create_object(), "voice_states": sorted(guild.voice_states)}


def test_the_same_seed_makes_the_same_world() -> None:
    one, same, other = World(7), World(7), World(8)
    assert list(map(picture, one.guilds.values())) == list(map(picture, same.guilds.values()))
    assert one.user == same.user
    assert len({one.make_token() for _ in range(100)}) == 100
    assert list(one.guilds) != list(other.guilds)


def test_the_ids_of_a_world_are_unique_and_grow() -> None:
    world = World(guilds=5, members=30)
    ids = [world.user["id"]]
    for guild in world.guilds.values():
        ids.append(guild.id)
        ids += guild.channels
        ids += [role["id"] for role in guild.roles[1:]]
        ids += [emoji["id"] for emoji in guild.emojis]
        ids += [sound["sound_id"] for sound in guild.sounds]
        ids += [user_id for user_id in guild.members if user_id != world.user["id"]]
    assert len(ids) == len(set(ids))
    new = [world.new_id() for _ in range(1000)]
    assert sorted(map(int, new)) == list(map(int, new))
    assert not set(new) & set(ids)


@pytest.mark.parametrize("shards", [*range(1, 17), 32, 64])
def test_every_shard_has_a_guild_of_the_world(shards: int) -> None:
    guilds = World(guilds=64, members=1).guilds.values()
    assert {guild.shard_id(shards) for guild in guilds} == set(range(shards))


def check(guild: Guild) -> None:
    """Fail if an object of the guild refers to an id that does not exist."""
    roles = {role["id"] for role in guild.roles}
    assert guild.owner_id in guild.members
    assert set(guild.presences) <= set(guild.members)
    for user_id, member in guild.members.items():
        assert member["user"]["id"] == user_id
        assert set(member["roles"]) <= roles
    for user_id, state in guild.voice_states.items():
        assert user_id in guild.members
        assert state["channel_id"] in {channel["id"] for channel in guild.voice_channels}
    for channel in guild.channels.values():
        assert channel["parent_id"] is None or channel["parent_id"] in guild.channels


def test_a_new_world_refers_only_to_ids_that_exist() -> None:
    for guild in World(members=60).guilds.values():
        check(guild)


def test_guild_create_shows_the_members_that_intents_and_size_allow() -> None:
    world = World(guilds=1, members=100)
    (guild,) = world.guilds.values()
    everyone = guild.create_object(large_threshold=250)
    assert len(everyone["members"]) == everyone["member_count"] == 101
    assert not everyone["large"]
    notable = guild.create_object(large_threshold=50)
    assert notable["large"]
    assert len(notable["members"]) < 101
    online = {each["user"]["id"] for each in notable["presences"]}
    for member in notable["members"]:
        user_id = member["user"]["id"]
        assert (
            user_id in online or user_id in guild.voice_states or member["roles"] or member["nick"]
        )
    private = guild.create_object(with_presences=False)
    assert private["presences"] == []
    shown = {member["user"]["id"] for member in private["members"]}
    assert shown == {world.user["id"], *guild.voice_states}


def test_traffic_changes_the_world_and_keeps_it_consistent() -> None:
    world = World()
    seen = set()
    for event in maker(world, dict.fromkeys(TRAFFIC_MIX, 1.0)).make(4000):
        seen.add(event.name)
        if event.guild_id is not None:
            check(world.guilds[str(event.guild_id)])
    assert seen >= set(TRAFFIC_MIX)


def test_traffic_does_nothing_in_the_name_of_the_bot() -> None:
    world = World(members=2)
    bot_id = world.user["id"]
    channels = [channel for guild in world.guilds.values() for channel in guild.text_channels]
    own = [world.write_message(channel, world.user, "of the bot itself") for channel in channels]
    # Without MESSAGE_CREATE: the bot's messages stay the last ones until a message of a member.
    mix = {name: 1.0 for name in TRAFFIC_MIX if name != "MESSAGE_CREATE"}
    for event in maker(world, mix).make(2000):
        d = json.loads(event.text(Intents.all()))
        users = [d.get("author"), d.get("user"), (d.get("member") or {}).get("user")]
        assert bot_id not in [d.get("user_id"), *(user["id"] for user in users if user)], event
    assert [message["content"] for message in own] == ["of the bot itself"] * len(own)
    ids = [message["id"] for message in own]
    assert [channel.messages[0]["id"] for channel in channels] == ids


def test_traffic_of_a_guild_without_members_goes_on() -> None:
    world = World(members=0)
    assert len(maker(world, {"MESSAGE_CREATE": 1, "TYPING_START": 1}).make(50)) == 50


def test_traffic_reaches_a_client(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        traffic = local_gateway.traffic(rate=2000)
        payloads = [client.receive() for _ in range(300)]
        traffic.stop()
        assert [payload["s"] for payload in payloads] == list(range(5, 305))
        assert {payload["t"] for payload in payloads} >= {"MESSAGE_CREATE", "PRESENCE_UPDATE"}
        guilds = local_gateway.world.guilds
        for payload in payloads:
            if payload["t"] == "MESSAGE_CREATE":
                guild = guilds[payload["d"]["guild_id"]]
                assert payload["d"]["channel_id"] in guild.channels
                assert payload["d"]["content"]


def test_traffic_of_the_same_seed_has_the_same_events_in_the_same_guilds() -> None:
    one, same = (maker(World(seed=3), TRAFFIC_MIX).make(500) for _ in range(2))
    # Timestamps, and the ids made of them, differ.
    assert [(event.name, event.guild_id) for event in one] == [
        (event.name, event.guild_id) for event in same
    ]


def test_traffic_of_one_event_goes_on_past_one_round(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready(Intents.GUILD_MESSAGE_TYPING)
        traffic = local_gateway.traffic(rate=None, mix={"TYPING_START": 1})
        for _ in range(3000):  # more than one round
            client.event("TYPING_START")
        traffic.stop()
        assert traffic.events >= 3000


def test_traffic_waits_for_a_client_that_reads_nothing(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        traffic = local_gateway.traffic(rate=None)
        stopped_at = wait_until_it_rests(traffic)

        def goes_on() -> bool:
            client.raw_socket.recv(1 << 20)
            return traffic.events > stopped_at

        wait_until(goes_on)


def wait_until_it_rests(traffic: Traffic) -> int:
    """Wait until traffic has made no event for ten of its ticks; return how many it has made."""
    made, since = traffic.events, time.monotonic()

    def rests() -> bool:
        nonlocal made, since
        if traffic.events != made:
            made, since = traffic.events, time.monotonic()
        return made > 0 and time.monotonic() - since > 0.1

    wait_until(rests)
    return made


def test_traffic_begun_without_a_client_reaches_the_next_one(local_gateway: LocalGateway) -> None:
    local_gateway.traffic(rate=1000)
    with connected(local_gateway) as client:
        client.ready()
        client.receive()


@pytest.mark.parametrize(
    ("rate", "mix"),
    [(0, None), (-1, None), (1, {"NEW_THING": 1}), (1, {}), (1, {"TYPING_START": 0})],
    ids=["rate 0", "negative rate", "unknown event", "empty mix", "weight 0"],
)
def test_traffic_refuses_a_rate_or_mix_that_is_impossible(
    local_gateway: LocalGateway, rate: float, mix: dict[str, float] | None
) -> None:
    with pytest.raises(ValueError):
        local_gateway.traffic(rate=rate, mix=mix)


def test_the_default_traffic_mix_holds_every_event_that_can_be_made() -> None:
    with pytest.raises(ValueError, match="it can make up ") as caught:
        maker(World(), {"NEW_THING": 1})
    assert set(str(caught.value).partition("it can make up ")[2].split(", ")) == set(TRAFFIC_MIX)


def test_the_world_keeps_the_newest_messages_of_all_channels() -> None:
    world = World()
    guild = next(iter(world.guilds.values()))
    first, second, *_ = guild.text_channels
    world.make_message(first, guild.owner_id, "oldest")
    for number in range(10_000):
        world.make_message(second, guild.owner_id, str(number))
    assert first.messages == []
    assert len(second.messages) == 10_000
    world.make_message(first, guild.owner_id, "newest")
    assert second.messages[0]["content"] == "1"
