"""Way: how the bot is to reach the Gateway, which is what is checked."""

from __future__ import annotations

import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

from shardlib.gateway import Intents, is_encrypted


class Way(NamedTuple):
    """How the bot is to reach the Gateway.

    :param url: of the Gateway.
    :param api_url: base of the HTTP API, None if only the Gateway is asked.
    :param token: of the bot, None if there is none.
    :param intents: to identify with.
    :param ssl_context: which certificates are trusted, None for Python's default.
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
        """True if the Gateway is reached by TLS."""
        return is_encrypted(self.url)
