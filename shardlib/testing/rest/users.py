"""Users: the bot's own, others, the bot's guilds and its direct messages."""

from __future__ import annotations

from typing import Any

from shardlib.testing.channel import Channel
from shardlib.testing.guild import PERMISSIONS, Guild
from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.errors import (
    INVALID_RECIPIENT,
    UNKNOWN_MEMBER,
    UNKNOWN_USER,
    ApiError,
)
from shardlib.testing.rest.forms import Boolean, Field, Integer, Object, Snowflake
from shardlib.testing.rest.pages import page
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.router import Call, Route

_LIMIT = RateLimit("users", 30, 30.0)
_DIRECT_LIMIT = RateLimit("direct channels", 10, 10.0)

_CREATE_DIRECT = Object({"recipient_id": Field(Snowflake(), required=True)})


class Users:
    """The resource User.

    :param backend: the parts of the gateway.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("GET", "/users/@me", self._me, _LIMIT),
            Route("GET", "/users/@me/guilds", self._guilds, _LIMIT),
            Route("GET", "/users/@me/guilds/{guild_id}/member", self._member, _LIMIT),
            Route("POST", "/users/@me/channels", self._create_direct, _DIRECT_LIMIT),
            Route("GET", "/users/{user_id}", self._user, _LIMIT),
        ]

    def _me(self, call: Call) -> dict[str, Any]:
        private = {
            "mfa_enabled": False,
            "locale": "en-US",
            "verified": True,
            "email": None,
            "flags": 0,
        }
        return {**self._backend.world.user, **private}

    def _user(self, call: Call) -> dict[str, Any]:
        user = self._backend.world.find_user(call["user_id"])
        if user is None:
            raise ApiError(UNKNOWN_USER)
        return user

    def _member(self, call: Call) -> dict[str, Any]:
        member = self._backend.guild(call["guild_id"]).members.get(self._backend.world.user["id"])
        if member is None:
            raise ApiError(UNKNOWN_MEMBER)
        return member

    def _guilds(self, call: Call) -> list[dict[str, Any]]:
        query = call.query(
            before=Snowflake(), after=Snowflake(), limit=Integer(1, 200), with_counts=Boolean()
        )
        guilds = sorted(self._backend.world.guilds.values(), key=lambda guild: int(guild.id))
        found = page(guilds, lambda guild: guild.id, query, default=200)
        return [self._partial(guild, bool(query.get("with_counts"))) for guild in found]

    def _partial(self, guild: Guild, with_counts: bool) -> dict[str, Any]:
        whole = guild.guild_object()
        partial = {key: whole[key] for key in ("id", "name", "icon", "banner", "features")}
        partial["owner"] = guild.owner_id == self._backend.world.user["id"]
        partial["permissions"] = PERMISSIONS
        return {**partial, **guild.counts()} if with_counts else partial

    def _create_direct(self, call: Call) -> Channel:
        recipient_id = call.body(_CREATE_DIRECT)["recipient_id"]
        try:
            return self._backend.world.direct_channel(recipient_id)
        except ValueError:
            raise ApiError(INVALID_RECIPIENT) from None
