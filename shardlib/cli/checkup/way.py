"""Way: how the bot reaches the Gateway. Every check is about one way."""

from __future__ import annotations

import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

from shardlib.gateway import Intents, is_encrypted


class Way(NamedTuple):
    """How the bot reaches the Gateway.

    :param url: the URL of the Gateway.
    :param api_url: the base of the HTTP API; None to ask only the Gateway.
    :param token: the bot's token; None if there is none.
    :param intents: the intents for Identify.
    :param ssl_context: decides which certificates are trusted; None for Python's default.
    :param timeout: seconds for each check.
    """

    url: str
    api_url: str | None
    token: str | None
    intents: Intents
    ssl_context: ssl.SSLContext | None
    timeout: float

    @property
    def host(self) -> str:
        """The Gateway's host."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The Gateway's TCP port."""
        return urlsplit(self.url).port or (443 if self.is_encrypted else 80)

    @property
    def is_encrypted(self) -> bool:
        """Whether the URL asks for TLS."""
        return is_encrypted(self.url)
