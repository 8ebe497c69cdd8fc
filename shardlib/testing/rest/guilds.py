"""Guilds, and their channels, members, roles and emojis. A client can only read all of them."""

from __future__ import annotations

from typing import Any

from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.errors import (
    UNKNOWN_EMOJI,
    UNKNOWN_MEMBER,
    UNKNOWN_ROLE,
    UNKNOWN_USER,
    ApiError,
)
from shardlib.testing.rest.forms import Boolean, Integer, Snowflake, Text
from shardlib.testing.rest.pages import page
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.router import Call, Route

_LIMIT = RateLimit("guilds", 30, 10.0)
_MEMBERS_LIMIT = RateLimit("members", 10, 10.0)


class Guilds:
    """The requests that read the resource Guild.

    :param backend: the parts of the gateway.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the routes."""
        guild = "/guilds/{guild_id}"
        return [
            Route("GET", guild, self._guild, _LIMIT),
            Route("GET", f"{guild}/channels", self._channels, _LIMIT),
            Route("GET", f"{guild}/threads/active", self._threads, _LIMIT),
            Route("GET", f"{guild}/members", self._members, _MEMBERS_LIMIT),
            Route("GET", f"{guild}/members/search", self._search, _MEMBERS_LIMIT),
            Route("GET", f"{guild}/members/{{user_id}}", self._member, _MEMBERS_LIMIT),
            Route("GET", f"{guild}/roles", self._roles, _LIMIT),
            Route("GET", f"{guild}/roles/{{role_id}}", self._role, _LIMIT),
            Route("GET", f"{guild}/emojis", self._emojis, _LIMIT),
            Route("GET", f"{guild}/emojis/{{emoji_id}}", self._emoji, _LIMIT),
        ]

    def _guild(self, call: Call) -> dict[str, Any]:
        guild = self._backend.guild(call["guild_id"])
        with_counts = call.query(with_counts=Boolean()).get("with_counts")
        return {**guild.guild_object(), **(guild.counts() if with_counts else {})}

    def _channels(self, call: Call) -> list[dict[str, Any]]:
        return list(self._backend.guild(call["guild_id"]).channels.values())

    def _threads(self, call: Call) -> dict[str, Any]:
        self._backend.guild(call["guild_id"])
        return {"threads": [], "members": []}

    def _members(self, call: Call) -> list[dict[str, Any]]:
        members = self._backend.guild(call["guild_id"]).members
        query = call.query(after=Snowflake(), limit=Integer(1, 1000))
        return page(
            sorted(members.values(), key=lambda member: int(member["user"]["id"])),
            lambda member: str(member["user"]["id"]),
            query,
            default=1,
        )

    def _search(self, call: Call) -> list[dict[str, Any]]:
        guild = self._backend.guild(call["guild_id"])
        query = call.query(query=Text(1), limit=Integer(1, 1000))
        limit = query.get("limit", 1)
        return guild.search(query.get("query") or "", limit)

    def _member(self, call: Call) -> dict[str, Any]:
        member = self._backend.guild(call["guild_id"]).members.get(call["user_id"])
        if member is None:
            known = self._backend.world.find_user(call["user_id"]) is not None
            raise ApiError(UNKNOWN_MEMBER if known else UNKNOWN_USER)
        return member

    def _roles(self, call: Call) -> list[dict[str, Any]]:
        return self._backend.guild(call["guild_id"]).roles

    def _role(self, call: Call) -> dict[str, Any]:
        for role in self._backend.guild(call["guild_id"]).roles:
            if role["id"] == call["role_id"]:
                return role
        raise ApiError(UNKNOWN_ROLE)

    def _emojis(self, call: Call) -> list[dict[str, Any]]:
        return self._backend.guild(call["guild_id"]).emojis

    def _emoji(self, call: Call) -> dict[str, Any]:
        for emoji in self._backend.guild(call["guild_id"]).emojis:
            if emoji["id"] == call["emoji_id"]:
                return emoji
        raise ApiError(UNKNOWN_EMOJI)
