"""The HTTP requests that a gateway has received."""

from __future__ import annotations

from collections import deque

from shardlib.testing.rest.request import ReceivedRequest
from shardlib.testing.rest.router import path_matches

# The most requests that the gateway remembers, so that one that runs for days does not fill the
# memory.
_MAX_REMEMBERED = 2000

# The most requests that the message of an error names.
_MAX_TOLD = 5


class RequestLog:
    """Remembers the newest requests. The callers hold the gateway's lock."""

    def __init__(self) -> None:
        #: All requests, oldest first.
        self.all: deque[ReceivedRequest] = deque(maxlen=_MAX_REMEMBERED)
        #: Those that the gateway does not imitate, and answered with 404 or 405.
        self.unhandled: deque[ReceivedRequest] = deque(maxlen=_MAX_REMEMBERED)
        # Those that take() has not returned.
        self._expected: deque[ReceivedRequest] = deque(maxlen=_MAX_REMEMBERED)

    def add(self, request: ReceivedRequest) -> None:
        """Remember a request that has arrived.

        :param request: the request.
        """
        self.all.append(request)
        self._expected.append(request)

    def add_unhandled(self, request: ReceivedRequest) -> None:
        """Remember that the gateway does not imitate what a request asks for.

        :param request: the request.
        """
        self.unhandled.append(request)

    def describe_expected(self) -> str:
        """Tell which requests :meth:`take` has not returned, for the message of an error."""
        if not self._expected:
            return "no other request is there that was not returned before"
        newest = list(self._expected)[-_MAX_TOLD:]
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
