"""What a bot asks for when it starts: the gateway's URL, its own user and its application."""

from __future__ import annotations

from typing import Any

from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.router import Call, Route

_LIMIT = RateLimit("login", 10, 1.0)


class Login:
    """``/gateway``, ``/gateway/bot``, and the application of the bot.

    :param backend: the parts of the gateway.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("GET", "/gateway", self._gateway, _LIMIT, needs_token=False),
            Route("GET", "/gateway/bot", self._gateway_bot, _LIMIT),
            Route("GET", "/applications/@me", self._application, _LIMIT),
            Route("GET", "/oauth2/applications/@me", self._application, _LIMIT),
            Route("GET", "/soundboard-default-sounds", lambda call: [], _LIMIT),
            Route("GET", "/sticker-packs", lambda call: {"sticker_packs": []}, _LIMIT),
        ]

    def _gateway(self, call: Call) -> dict[str, Any]:
        return {"url": self._backend.url()}

    def _gateway_bot(self, call: Call) -> dict[str, Any]:
        return {
            "url": self._backend.url(),
            "shards": self._backend.rules.recommended_shards,
            "session_start_limit": self._backend.session_starts(),
        }

    def _application(self, call: Call) -> dict[str, Any]:
        world = self._backend.world
        user = world.user
        return {
            **world.application,
            "name": user["username"],
            "icon": None,
            "description": "A bot of the local gateway.",
            "summary": "",
            "bot_public": False,
            "bot_require_code_grant": False,
            "verify_key": "0" * 64,
            "team": None,
            "owner": {**user, "bot": False},
            "bot": user,
            "hook": True,
            "tags": [],
            "redirect_uris": [],
            "interactions_endpoint_url": None,
            "role_connections_verification_url": None,
            "approximate_guild_count": len(world.guilds),
            "approximate_user_install_count": 0,
        }
