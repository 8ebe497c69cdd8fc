"""A stranger's HTTP client, requests, with the base URL and the token of a local gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from shardlib.testing import Channel, LocalGateway


class Rest:
    """The HTTP API of a gateway, as a bot uses it."""

    def __init__(self, gateway: LocalGateway) -> None:
        self.gateway = gateway
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bot {gateway.token}"

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        """The response to a request."""
        return self.session.request(method, self.gateway.http_url + path, timeout=15, **options)

    def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """The decoded body of a response, whose status must be as given; None for no body."""
        options = {} if body is None else {"json": body}
        response = self.send(method, path, **options)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    def error(self, method: str, path: str, body: Any = None) -> tuple[int, int]:
        """Status and code of a response that must be an error."""
        response = self.send(method, path, **({} if body is None else {"json": body}))
        assert response.status_code >= 400, response.text
        return response.status_code, response.json()["code"]

    def problems(self, method: str, path: str, body: Any) -> dict[str, str]:
        """By the path of each invalid field, Discord's name of its problem."""
        error = self.call(method, path, body, 400)
        assert (error["code"], error["message"]) == (50035, "Invalid Form Body")
        found: dict[str, str] = {}
        collect(error["errors"], "", found)
        return found

    def write(self, channel: Channel, content: str = "hello", **fields: Any) -> Any:
        """Create a message, and return its object."""
        body = {"content": content, **fields}
        return self.call("POST", f"/channels/{channel['id']}/messages", body)


def collect(tree: dict[str, Any], path: str, found: dict[str, str]) -> None:
    """Put the code of each problem into a dict, by its path with dots."""
    for key, value in tree.items():
        if key == "_errors":
            (problem,) = value
            assert problem["message"]
            found[path] = problem["code"]
        else:
            collect(value, f"{path}.{key}" if path else key, found)


def text_channel(gateway: LocalGateway) -> Channel:
    """The first text channel of the first guild."""
    return next(iter(gateway.world.guilds.values())).text_channels[0]


@contextmanager
def rest_of(gateway: LocalGateway) -> Iterator[Rest]:
    """The API of a gateway; afterwards the client's connections are closed."""
    rest = Rest(gateway)
    with rest.session:
        yield rest
