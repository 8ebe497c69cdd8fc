"""The HTTP requests that a client may make before, or instead of, opening a WebSocket."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from shardlib.testing.rules import Rules
from shardlib.testing.world import World

_ROUTE = re.compile(r"/api(?:/v(?P<version>[0-9]+))?(?P<path>/.*)")


class Api:
    """The part of Discord's HTTP API that clients use when they log in.

    Serves ``/api/v10/gateway`` and ``/api/v10/gateway/bot`` as Discord documents them, and the
    bot's user and application. Answers any other request with 404.

    :param rules: the gateway's rules.
    :param world: the bot's user and application.
    :param url: returns the gateway's URL.
    :param session_starts: returns the session start limit object.
    """

    def __init__(
        self,
        rules: Rules,
        world: World,
        url: Callable[[], str],
        session_starts: Callable[[], dict[str, int]],
    ) -> None:
        self._rules = rules
        self._world = world
        self._url = url
        self._session_starts = session_starts
        # The routes that need the token.
        self._routes: dict[str, Callable[[], dict[str, Any]]] = {
            "/gateway/bot": self._gateway_bot,
            "/users/@me": self._current_user,
            "/applications/@me": self._current_application,
            "/oauth2/applications/@me": self._current_application,
        }

    def answer(self, request: Request) -> Response:
        """Return the response to a plain ``GET``. The caller holds the gateway's lock.

        :param request: the client's request.
        """
        match = _ROUTE.fullmatch(urlsplit(request.path).path)
        path = match["path"] if match else ""
        if path == "/gateway":
            return json_response(200, {"url": self._url()})
        if path not in self._routes:
            return json_response(404, {"message": "404: Not Found", "code": 0})
        if request.headers.get("Authorization") != f"Bot {self._rules.token}":
            return json_response(401, {"message": "401: Unauthorized", "code": 0})
        return json_response(200, self._routes[path]())

    def _gateway_bot(self) -> dict[str, Any]:
        return {
            "url": self._url(),
            "shards": self._rules.recommended_shards,
            "session_start_limit": self._session_starts(),
        }

    def _current_user(self) -> dict[str, Any]:
        private = {
            "mfa_enabled": False,
            "locale": "en-US",
            "verified": True,
            "email": None,
            "flags": 0,
        }
        return {**self._world.user, **private}

    def _current_application(self) -> dict[str, Any]:
        user = self._world.user
        return {
            **self._world.application,
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
            "approximate_guild_count": len(self._world.guilds),
            "approximate_user_install_count": 0,
        }


def json_response(status: int, body: Any) -> Response:
    """Return a response that carries JSON.

    :param status: the HTTP status code.
    :param body: the value to encode as JSON.
    """
    return make_response(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def make_response(status: int, body: bytes, headers: dict[str, str]) -> Response:
    """Return a response after which the connection closes.

    :param status: the HTTP status code.
    :param body: the body.
    :param headers: headers to add. A header of the same name replaces ``Connection`` or
        ``Content-Length``.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        # A status code outside the standards, such as 520 from the proxy in front of Discord.
        phrase = "Unknown"
    all_headers = Headers({"Connection": "close", "Content-Length": str(len(body)), **headers})
    return Response(status, phrase, all_headers, body)
