"""Reactions, typing and pins over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from shardlib.gateway import Intents
from shardlib.testing import Channel, LocalGateway
from tests.testing.client import connected
from tests.testing.rest import Rest

pytestmark = pytest.mark.local_gateway(rate_limits=False)


def reactions(message: dict[str, Any], *parts: str) -> str:
    path = f"/channels/{message['channel_id']}/messages/{message['id']}/reactions"
    return "/".join((path, *(part if part == "@me" else quote(part, safe="") for part in parts)))


def test_a_reaction_is_told_and_counted(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    guild = local_gateway.world.guilds[channel["guild_id"]]
    message = local_gateway.send_message(channel["id"], guild.owner_id, "react!")
    bot = local_gateway.world.user["id"]
    custom = guild.emojis[0]
    path = f"/channels/{channel['id']}/messages/{message['id']}"
    with connected(local_gateway) as client:
        client.ready(Intents.GUILD_MESSAGE_REACTIONS)
        rest.call("PUT", reactions(message, "👍", "@me"), status=204)
        added = client.event("MESSAGE_REACTION_ADD")
        assert added["emoji"] == {"id": None, "name": "👍"}
        assert (added["user_id"], added["message_author_id"]) == (bot, guild.owner_id)
        assert added["member"]["user"]["id"] == bot
        rest.call("PUT", reactions(message, "👍", "@me"), status=204)  # again: nothing happens
        name = f"{custom['name']}:{custom['id']}"
        rest.call("PUT", reactions(message, name, "@me"), status=204)
        assert client.event("MESSAGE_REACTION_ADD")["emoji"]["id"] == custom["id"]
        counted = rest.call("GET", path)["reactions"]
        names = [(each["emoji"]["name"], each["count"], each["me"]) for each in counted]
        assert names == [("👍", 1, True), (custom["name"], 1, True)]
        users = rest.call("GET", reactions(message, "👍"))
        assert [user["id"] for user in users] == [bot]
        rest.call("DELETE", reactions(message, "👍", "@me"), status=204)
        assert client.event("MESSAGE_REACTION_REMOVE")["emoji"]["name"] == "👍"
        rest.call("DELETE", reactions(message, name), status=204)
        assert client.event("MESSAGE_REACTION_REMOVE_EMOJI")["emoji"]["id"] == custom["id"]
        rest.call("DELETE", reactions(message), status=204)
        cleared = client.event("MESSAGE_REACTION_REMOVE_ALL")
        assert cleared["message_id"] == message["id"]
    assert "reactions" not in rest.call("GET", path)


def test_what_is_no_emoji_is_unknown(rest: Rest, channel: Channel) -> None:
    message = rest.write(channel)
    for emoji in ("smile", "smile:5", "5", "ä", "日本"):
        assert rest.error("PUT", reactions(message, emoji, "@me")) == (400, 10014)
    for emoji in ("1\ufe0f\u20e3", "\u2139\ufe0f", "🇩🇪", "👩🏽\u200d🚀", "‼"):
        rest.call("PUT", reactions(message, emoji, "@me"), status=204)
    message["id"] = "5"
    assert rest.error("PUT", reactions(message, "👍", "@me")) == (404, 10008)


def test_the_reactions_of_others_cannot_be_removed_in_a_direct_message(
    local_gateway: LocalGateway, rest: Rest
) -> None:
    owner = next(iter(local_gateway.world.guilds.values())).owner_id
    message = rest.write(local_gateway.world.direct_channel(owner))
    rest.call("PUT", reactions(message, "👍", "@me"), status=204)
    for parts in ((), ("👍",), ("👍", owner)):
        assert rest.error("DELETE", reactions(message, *parts)) == (403, 50003)
    rest.call("DELETE", reactions(message, "👍", message["author"]["id"]), status=204)


def test_a_message_takes_twenty_different_reactions(rest: Rest, channel: Channel) -> None:
    message = rest.write(channel)
    for number in range(20):
        rest.call("PUT", reactions(message, chr(0x1F600 + number), "@me"), status=204)
    assert rest.error("PUT", reactions(message, "👍", "@me")) == (400, 30010)


def test_typing_is_told(local_gateway: LocalGateway, rest: Rest, channel: Channel) -> None:
    with connected(local_gateway) as client:
        client.ready(Intents.GUILD_MESSAGE_TYPING)
        rest.call("POST", f"/channels/{channel['id']}/typing", status=204)
        typing = client.event("TYPING_START")
    assert typing["user_id"] == local_gateway.world.user["id"]
    assert (typing["channel_id"], typing["guild_id"]) == (channel["id"], channel["guild_id"])


@pytest.mark.parametrize("prefix", ["pins", "messages/pins"])
def test_messages_are_pinned_and_unpinned(
    local_gateway: LocalGateway, rest: Rest, channel: Channel, prefix: str
) -> None:
    first, second = rest.write(channel, "1"), rest.write(channel, "2")
    path = f"/channels/{channel['id']}/{prefix}"
    with connected(local_gateway) as client:
        client.ready(Intents.GUILDS)
        for message in (first, second):
            rest.call("PUT", f"{path}/{message['id']}", status=204)
            assert client.event("CHANNEL_PINS_UPDATE")["last_pin_timestamp"] is not None
        items = rest.call("GET", f"/channels/{channel['id']}/messages/pins")
        assert [each["message"]["content"] for each in items["items"]] == ["2", "1"]
        assert items["has_more"] is False
        assert rest.call("GET", f"/channels/{channel['id']}/pins")[0]["pinned"] is True
        rest.call("DELETE", f"{path}/{second['id']}", status=204)
        client.event("CHANNEL_PINS_UPDATE")
    items = rest.call("GET", f"/channels/{channel['id']}/messages/pins?limit=1")
    assert [each["message"]["content"] for each in items["items"]] == ["1"]


def test_pins_come_in_pages(rest: Rest, channel: Channel) -> None:
    path = f"/channels/{channel['id']}/messages/pins"
    for number in range(3):
        message = rest.write(channel, str(number))
        rest.call("PUT", f"{path}/{message['id']}", status=204)
    first = rest.call("GET", f"{path}?limit=2")
    assert [each["message"]["content"] for each in first["items"]] == ["2", "1"]
    assert first["has_more"] is True
    before = quote(first["items"][-1]["pinned_at"])
    second = rest.call("GET", f"{path}?limit=2&before={before}")
    assert [each["message"]["content"] for each in second["items"]] == ["0"]
    assert second["has_more"] is False


def test_a_channel_has_so_many_pins(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    guild = local_gateway.world.guilds[channel["guild_id"]]
    for number in range(251):
        local_gateway.send_message(channel["id"], guild.owner_id, str(number))
    *pinned, last = channel.messages
    for message in pinned:
        channel.pin(message, message["timestamp"])
    path = f"/channels/{channel['id']}/messages/pins"
    assert rest.error("PUT", f"{path}/{last['id']}") == (400, 30003)
    rest.call("PUT", f"{path}/{pinned[0]['id']}", status=204)  # which is pinned already


def test_the_reaction_of_another_user_can_be_removed(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    user = local_gateway.world.guilds[channel["guild_id"]].owner_id
    message = rest.write(channel)
    emoji = {"id": None, "name": "👍"}
    channel.messages[0].add_reaction(user, emoji, local_gateway.world.user["id"])
    with connected(local_gateway) as client:
        client.ready(Intents.GUILD_MESSAGE_REACTIONS)
        rest.call("DELETE", reactions(message, "👍", user), status=204)
        assert client.event("MESSAGE_REACTION_REMOVE")["user_id"] == user
    assert channel.messages[0].reactors(emoji) == []
