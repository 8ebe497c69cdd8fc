"""Options: what a shard was made with, checked."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardlib import compression as compressions
from shardlib import payloads
from shardlib.checks import check_methods, check_positive, check_type
from shardlib.dial import check_proxy
from shardlib.limits import Backoff, IdentifyGate
from shardlib.payloads import JSONModule
from shardlib.session import Session


@dataclass(frozen=True, kw_only=True, repr=False)
class Options:
    """The arguments of :class:`shardlib.Shard` that are not callbacks; their meaning stands there.

    :raises ValueError: for an argument that can't be, saying which and why; TypeError likewise.
    """

    token: str
    intents: int
    shard_id: int
    shard_count: int
    should_reconnect: bool
    large_threshold: int | None
    presence: Mapping[str, Any] | None
    properties: Mapping[str, Any] | None
    compression: str | None
    session: Session | None
    json: JSONModule
    identify_gate: IdentifyGate | None
    backoff: Backoff | None
    connect_timeout: float
    hello_timeout: float
    ready_timeout: float
    send_timeout: float
    close_timeout: float
    max_payload: int
    ssl_context: ssl.SSLContext | None
    proxy: str | None
    logger: logging.Logger | logging.LoggerAdapter[Any] | None

    def __post_init__(self) -> None:
        check_methods("json", self.json, "loads", "dumps")
        self.identify(self.presence)
        check_type("should_reconnect", self.should_reconnect, bool)
        compressions.require(self.compression)
        check_type("session", self.session, Session, optional=True)
        if self.session is not None:
            self._check_session(self.session)
        check_methods("identify_gate", self.identify_gate, "try_acquire", optional=True)
        check_type("backoff", self.backoff, Backoff, optional=True)
        for name in (
            "connect_timeout",
            "hello_timeout",
            "ready_timeout",
            "send_timeout",
            "close_timeout",
        ):
            check_positive(name, getattr(self, name))
        check_type("max_payload", self.max_payload, int)
        check_positive("max_payload", self.max_payload)
        check_type("ssl_context", self.ssl_context, ssl.SSLContext, optional=True)
        check_proxy(self.proxy)
        check_methods("logger", self.logger, "log", optional=True)

    def _check_session(self, session: Session) -> None:
        if (session.shard_id, session.shard_count) != (self.shard_id, self.shard_count):
            raise ValueError(
                f"session is one of shard {session.shard_id} of {session.shard_count}, and this is "
                f"shard {self.shard_id} of {self.shard_count}"
            )

    def identify(self, presence: Mapping[str, Any] | None) -> str:
        """The Identify payload, as it is sent.

        :param presence: the one to begin with, which changes in the life of a shard.
        :raises ValueError: where the Gateway would refuse it, at each connection anew; TypeError
            likewise.
        """
        properties = self.properties
        payload = payloads.identify(
            token=self.token,
            intents=self.intents,
            shard_id=self.shard_id,
            shard_count=self.shard_count,
            properties=payloads.default_properties() if properties is None else properties,
            large_threshold=self.large_threshold,
            presence=presence,
            compress=self.compression == "payload",
        )
        text = payloads.encode(payload, self.json)
        try:
            payloads.check_send(text)
        except ValueError as error:
            raise ValueError(f"Identify, with properties and presence: {error}") from None
        return text
