"""Which function answers a request: methods and path templates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from shardlib.testing.rest.errors import (
    BAD_REQUEST,
    INVALID_API_VERSION,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    ApiError,
)
from shardlib.testing.rest.forms import Kind, check, check_query, snowflake_error
from shardlib.testing.rest.multipart import File
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.request import ReceivedRequest
from shardlib.testing.validation import VERSIONS

# The parameters for each of which a route has a rate limit of its own (Rate Limits). A webhook has
# one by its token, too.
_MAJOR = ("channel_id", "guild_id", "webhook_id", "token")


@dataclass(frozen=True)
class Call:
    """A request, with the parameters of its path."""

    request: ReceivedRequest
    parameters: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.parameters[name]

    @property
    def major(self) -> tuple[str, ...]:
        """The major parameters of the path."""
        return tuple(self.parameters[name] for name in _MAJOR if name in self.parameters)

    def body(self, table: Kind) -> Any:
        """Return the JSON of the body, as its table reads it.

        :param table: what the body must look like.
        :raises ApiError: if the body is invalid.
        """
        return check(table, self._form[0])

    def files(self) -> list[File]:
        """Return the files of the body.

        :raises ApiError: if the body cannot be decoded.
        """
        return self._form[1]

    @cached_property
    def _form(self) -> tuple[Any, list[File]]:
        # Decoded once, because a body may have megabytes.
        return self.request.form()

    def query(self, **table: Kind) -> dict[str, Any]:
        """Return the known parameters of the query.

        :param table: the kind of each parameter.
        :raises ApiError: if a parameter is invalid.
        """
        return check_query(self.request.query, table)


@dataclass(frozen=True)
class Route:
    """One method and path, and the function that answers it.

    The function returns a value to encode as JSON, None for status 204 without a body, or a whole
    response.
    """

    method: str
    template: str
    handler: Callable[[Call], Any]
    limit: RateLimit
    #: Whether the request must carry the bot's token.
    needs_token: bool = True
    #: Whether the request counts against the limit of the token.
    counts_globally: bool = True


class Router:
    """Finds the route of a request.

    :param routes: all routes.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        # A literal part goes before a parameter: /messages/pins before /messages/{message_id}.
        ordered = sorted(
            routes, key=lambda route: [part[:1] == "{" for part in route.template.split("/")]
        )
        self._routes = [(_compile(route.template), route) for route in ordered]

    def find(self, request: ReceivedRequest) -> tuple[Route, Call]:
        """Return the route of a request, and the request with the parameters of the path.

        :param request: the request.
        :raises ApiError: if no route has the path, with status 404; if one has the path but not the
            method, with status 405; or if the target is no URL, or names an API version that
            Discord does not have, with status 400.
        """
        if not request.is_valid:
            raise ApiError(BAD_REQUEST)
        if request.version is not None and request.version not in VERSIONS:
            raise ApiError(INVALID_API_VERSION)
        method = "GET" if request.method == "HEAD" else request.method
        path_is_known = False
        for pattern, route in self._routes if request.is_for_api else ():
            match = pattern.fullmatch(request.path)
            if match is not None:
                path_is_known = True
                if route.method == method:
                    parts = {name: unquote(part) for name, part in match.groupdict().items()}
                    return route, Call(request, parts)
        raise ApiError(METHOD_NOT_ALLOWED if path_is_known else NOT_FOUND)


def check_ids(call: Call) -> None:
    """Check that each id in a path is a snowflake.

    :param call: the request and its parameters.
    :raises ApiError: if an id is no snowflake.
    """
    for name, value in call.parameters.items():
        if name.endswith("_id") and not (value.isascii() and value.isdecimal()):
            raise snowflake_error(name, value)


def check_template(template: str) -> None:
    """Check the path that a test gives, which no request can have with the prefix of the API.

    :param template: a path as for :func:`path_matches`.
    :raises ValueError: if the path is not as Discord documents paths.
    """
    if not template.startswith("/") or template.startswith("/api/"):
        raise ValueError(
            "path must be as Discord documents it, without /api and the version, such as "
            f"/channels/{{channel.id}}/messages, not {template!r}"
        )


def path_matches(template: str, path: str) -> bool:
    """Return whether a path is the one that a template describes.

    :param template: a path whose parts may be ``*``, or a name in braces, for any value.
    :param path: the path.
    """
    wanted, found = template.split("/"), path.split("/")
    return len(wanted) == len(found) and all(
        part == other or part == "*" or (part[:1] == "{" and part[-1:] == "}")
        for part, other in zip(wanted, found, strict=True)
    )


def _compile(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template))
