"""What a bot reads over HTTP agrees with what the Gateway tells it."""

from __future__ import annotations

import pytest

from shardlib.testing import LocalGateway
from tests.testing.client import connected
from tests.testing.rest import Rest

pytestmark = pytest.mark.local_gateway(guilds=5, members=8, rate_limits=False)


def test_users(local_gateway: LocalGateway, rest: Rest) -> None:
    bot = local_gateway.world.user
    me = rest.call("GET", "/users/@me")
    assert (me["id"], me["bot"], me["username"]) == (bot["id"], True, bot["username"])
    guild = next(iter(local_gateway.world.guilds.values()))
    owner = guild.members[guild.owner_id]["user"]
    assert rest.call("GET", f"/users/{guild.owner_id}") == owner
    assert rest.error("GET", "/users/5") == (404, 10013)
    assert rest.error("GET", "/users/me") == (400, 50035)


def test_the_guilds_of_the_bot_come_in_pages(local_gateway: LocalGateway, rest: Rest) -> None:
    ids = sorted(local_gateway.world.guilds, key=int)

    def listed(query: str) -> list[int]:
        return [ids.index(each["id"]) for each in rest.call("GET", "/users/@me/guilds" + query)]

    assert listed("") == [0, 1, 2, 3, 4]
    assert listed(f"?after={ids[1]}&limit=2") == [2, 3]
    assert listed(f"?before={ids[4]}&limit=2") == [2, 3]
    first = rest.call("GET", "/users/@me/guilds?with_counts=true")[0]
    assert first["approximate_member_count"] == 9
    assert first["owner"] is False
    assert rest.error("GET", "/users/@me/guilds?limit=201") == (400, 50035)


def test_a_guild_and_what_is_in_it(local_gateway: LocalGateway, rest: Rest) -> None:
    with connected(local_gateway) as client:
        assert client.receive()["op"] == 10
        client.identify()
        client.event("READY")
        guild = client.event("GUILD_CREATE")
    path = f"/guilds/{guild['id']}"
    whole = rest.call("GET", path)
    assert {key: guild[key] for key in whole} == whole
    assert rest.call("GET", path + "?with_counts=true")["approximate_member_count"] == 9
    channels = rest.call("GET", f"{path}/channels")
    without_guild = [{k: v for k, v in each.items() if k != "guild_id"} for each in channels]
    assert without_guild == guild["channels"]
    assert rest.call("GET", f"/channels/{channels[0]['id']}") == channels[0]
    assert rest.call("GET", f"{path}/roles") == guild["roles"]
    assert rest.call("GET", f"{path}/roles/{guild['roles'][1]['id']}") == guild["roles"][1]
    assert rest.call("GET", f"{path}/emojis") == guild["emojis"]
    assert rest.call("GET", f"{path}/emojis/{guild['emojis'][0]['id']}") == guild["emojis"][0]
    assert rest.error("GET", f"{path}/roles/5") == (404, 10011)
    assert rest.error("GET", "/guilds/5") == (404, 10004)
    assert rest.error("GET", "/channels/5") == (404, 10003)


def test_members_come_in_pages_by_id_and_by_name(local_gateway: LocalGateway, rest: Rest) -> None:
    guild = next(iter(local_gateway.world.guilds.values()))
    ids = sorted(guild.members, key=int)
    path = f"/guilds/{guild.id}/members"
    assert len(rest.call("GET", path)) == 1
    listed = rest.call("GET", f"{path}?limit=3&after={ids[1]}")
    assert [member["user"]["id"] for member in listed] == ids[2:5]
    member = guild.members[ids[3]]
    assert rest.call("GET", f"{path}/{ids[3]}") == member
    name = member["user"]["username"]
    found = rest.call("GET", f"{path}/search", status=200)
    assert len(found) <= 1
    assert member in rest.call("GET", f"{path}/search?query={name}&limit=5")
    assert rest.error("GET", f"{path}/5") == (404, 10013)
    assert rest.error("GET", f"{path}?limit=1001") == (400, 50035)


@pytest.mark.local_gateway(guilds=1, members=150, rate_limits=False)
def test_a_search_finds_more_members_than_one_over_the_gateway(
    local_gateway: LocalGateway, rest: Rest
) -> None:
    guild = next(iter(local_gateway.world.guilds))
    assert len(rest.call("GET", f"/guilds/{guild}/members/search?limit=1000")) == 151
    with connected(local_gateway) as client:
        client.ready()
        client.send(8, {"guild_id": guild, "query": "", "limit": 1000})
        assert len(client.event("GUILD_MEMBERS_CHUNK")["members"]) == 100


def test_the_applications_of_a_start(local_gateway: LocalGateway, rest: Rest) -> None:
    application = rest.call("GET", "/oauth2/applications/@me")
    assert application == rest.call("GET", "/applications/@me")
    assert application["id"] == local_gateway.world.application["id"]
    assert rest.call("GET", "/soundboard-default-sounds") == []
    assert local_gateway.unhandled == []
