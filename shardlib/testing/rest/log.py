"""The HTTP requests that a gateway has received."""

from __future__ import annotations

from shardlib.testing.rest.newest import Newest
from shardlib.testing.rest.request import ReceivedRequest
from shardlib.testing.rest.router import path_matches

# The most requests that the gateway remembers, and the most bytes of their bodies: a bot that
# uploads files would fill the memory within minutes.
_MAX_REMEMBERED = 2000
_MAX_BODIES = 64 * 1024 * 1024

# The most requests that the message of an error names.
_MAX_TOLD = 5


class RequestLog:
    """Remembers the newest requests. The callers hold the gateway's lock."""

    def __init__(self) -> None:
        #: All requests, oldest first.
        self.all: Newest[ReceivedRequest] = Newest(_MAX_REMEMBERED, _MAX_BODIES)
        #: Those that the gateway does not imitate, and answered with 404 or 405.
        self.unhandled: Newest[ReceivedRequest] = Newest(_MAX_REMEMBERED, _MAX_BODIES)
        # Those that take() has not returned.
        self._expected: Newest[ReceivedRequest] = Newest(_MAX_REMEMBERED, _MAX_BODIES)

    def add(self, request: ReceivedRequest) -> None:
        """Remember a request that has arrived.

        :param request: the request.
        """
        self.all.add(request, len(request.body))
        self._expected.add(request, len(request.body))

    def add_unhandled(self, request: ReceivedRequest) -> None:
        """Remember that the gateway does not imitate what a request asks for.

        :param request: the request.
        """
        self.unhandled.add(request, len(request.body))

    def describe_expected(self) -> str:
        """Tell which requests :meth:`take` has not returned, for the message of an error."""
        newest = list(self._expected)[-_MAX_TOLD:]
        if not newest:
            return "no other request is there that was not returned before"
        told = ", ".join(f"{each.method} {each.path} (status {each.status})" for each in newest)
        return f"other requests, the newest last: {told}"

    def take(self, method: str, path: str) -> ReceivedRequest | None:
        """Return the first request that was not returned before; None if there is none.

        :param method: the HTTP method.
        :param path: the path; a part may be ``*`` or a name in braces.
        """
        for request in self._expected:
            if request.method == method and path_matches(path, request.path):
                self._expected.remove(request)
                return request
        return None
