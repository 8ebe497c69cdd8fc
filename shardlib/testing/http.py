"""The few HTTP answers a client needs before, or instead of, a WebSocket."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

if TYPE_CHECKING:
    from .server import LocalGateway

_ROUTE = re.compile(r"/api(?:/v(?P<version>[0-9]+))?(?P<path>/.*)")


def answer(gateway: LocalGateway, request: Request) -> Response:
    """Answer a plain ``GET``; the gateway's lock is held.

    ``/api/v10/gateway`` and ``/api/v10/gateway/bot`` as Discord documents them; the bot's user
    and application, since client libraries look at them when they log in; 404 for the rest.
    """
    match = _ROUTE.fullmatch(urlsplit(request.path).path)
    path = match["path"] if match else ""
    if path == "/gateway":
        return json_response(200, {"url": gateway.url})
    if path not in _ROUTES:
        return json_response(404, {"message": "404: Not Found", "code": 0})
    if request.headers.get("Authorization") != f"Bot {gateway.token}":
        return json_response(401, {"message": "401: Unauthorized", "code": 0})
    return json_response(200, _ROUTES[path](gateway))


def _gateway_bot(gateway: LocalGateway) -> dict[str, Any]:
    return {
        "url": gateway.url,
        "shards": gateway.shards,
        "session_start_limit": gateway.session_starts,
    }


def _current_user(gateway: LocalGateway) -> dict[str, Any]:
    private = {
        "mfa_enabled": False,
        "locale": "en-US",
        "verified": True,
        "email": None,
        "flags": 0,
    }
    return {**gateway.world.user, **private}


def _current_application(gateway: LocalGateway) -> dict[str, Any]:
    user = gateway.world.user
    return {
        **gateway.world.application,
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
        "approximate_guild_count": len(gateway.world.guilds),
        "approximate_user_install_count": 0,
    }


_ROUTES = {
    "/gateway/bot": _gateway_bot,
    "/users/@me": _current_user,
    "/applications/@me": _current_application,
    "/oauth2/applications/@me": _current_application,
}


def json_response(status: int, body: Any) -> Response:
    """Return a response that carries JSON."""
    return make_response(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def make_response(status: int, body: bytes, headers: dict[str, str]) -> Response:
    """Return a response after which the connection is closed."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        # Some that a proxy before Discord sends are in no standard: 520 and its like.
        phrase = "Unknown"
    everything = Headers(
        {"Connection": "close", "Content-Length": str(len(body)), **headers},
    )
    return Response(status, phrase, everything, body)
