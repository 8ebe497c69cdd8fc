"""Discord's HTTP API: a request in, a response out."""

from __future__ import annotations

from collections.abc import Iterable

from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.errors import UNAUTHORIZED, ApiError
from shardlib.testing.rest.log import RequestLog
from shardlib.testing.rest.ratelimits import RateLimits
from shardlib.testing.rest.request import ReceivedRequest
from shardlib.testing.rest.response import Response, error_response, json_response
from shardlib.testing.rest.router import Call, Route, Router, check_ids


class Api:
    """Answers the requests of clients. The callers hold the gateway's lock.

    :param backend: the parts of the gateway that the API reads and changes.
    :param routes: the routes that the API has.
    :param log: remembers the requests that have no route.
    """

    def __init__(self, backend: Backend, routes: Iterable[Route], log: RequestLog) -> None:
        self._rules = backend.rules
        self._router = Router(routes)
        self._log = log
        self._limits = RateLimits(backend.clock)

    def answer(self, request: ReceivedRequest) -> Response:
        """Carry out a request, and return the response.

        :param request: the client's request.
        """
        try:
            route, call = self._router.find(request)
        except ApiError as error:
            self._log.add_unhandled(request)
            return error_response(error)
        headers: dict[str, str] = {}
        try:
            if route.needs_token and request.headers.get("authorization") != self._authorization:
                raise ApiError(UNAUTHORIZED)
            headers = self._count(route, call)
            check_ids(call)
            response = _to_response(route.handler(call))
        except ApiError as error:
            response = error_response(error)
        return Response(response.status, response.body, {**headers, **response.headers})

    @property
    def _authorization(self) -> str:
        return f"Bot {self._rules.token}"

    def _count(self, route: Route, call: Call) -> dict[str, str]:
        """Count a request against the rate limits; return the headers for its response."""
        if not self._rules.rate_limits:
            return {}
        if route.counts_globally:
            self._limits.count_globally()
        return self._limits.count(route.limit, call.major)


def _to_response(result: object) -> Response:
    if isinstance(result, Response):
        return result
    return Response(204) if result is None else json_response(200, result)
