"""Options: what a shard was made with, checked."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

from shardlib import compression as compressions
from shardlib.backoff import Backoff
from shardlib.checks import check_methods, check_positive, check_type
from shardlib.dial import check_proxy
from shardlib.identity import Identity
from shardlib.limits import Gate
from shardlib.payloads import JSONModule, Payload
from shardlib.sessiongate import SessionGate

if TYPE_CHECKING:
    from shardlib.session import Session


class Options:
    """The arguments of :class:`shardlib.Shard` that are not callbacks, where they are explained.

    :raises ValueError: if an argument has a value that cannot be used; the message says which and
        why.
    :raises TypeError: if an argument has the wrong type; the message says which.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        should_reconnect: bool,
        presence: Payload | None,
        compression: str | None,
        session: Session | None,
        json: JSONModule,
        identify_gate: Gate | None,
        session_gate: SessionGate | None,
        acknowledge: str,
        backoff: Backoff | None,
        connect_timeout: float,
        hello_timeout: float,
        ready_timeout: float,
        send_timeout: float,
        close_timeout: float,
        max_payload: int,
        ssl_context: ssl.SSLContext | None,
        proxy: str | None,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None,
        slow_callback: float | None,
    ) -> None:
        self.identity = identity
        self.should_reconnect = should_reconnect
        self.presence = presence  # a copy, as Identity.presence() returns it
        self.compression = compression
        self.session = session
        self.json = json
        self.identify_gate = identify_gate
        self.session_gate = session_gate
        self.acknowledge = acknowledge
        self.backoff = backoff
        self.connect_timeout = connect_timeout
        self.hello_timeout = hello_timeout
        self.ready_timeout = ready_timeout
        self.send_timeout = send_timeout
        self.close_timeout = close_timeout
        self.max_payload = max_payload
        self.ssl_context = ssl_context
        self.proxy = proxy
        self.logger = logger
        self.slow_callback = slow_callback
        self._check()

    def _check(self) -> None:
        check_type("should_reconnect", self.should_reconnect, bool)
        compressions.require(self.compression)
        if self.session is not None:
            from shardlib.session import Session  # here: dataclasses take a while to import

            check_type("session", self.session, Session)
        if self.session is not None:
            self._check_session(self.session)
        check_methods("identify_gate", self.identify_gate, "try_acquire", optional=True)
        check_methods("session_gate", self.session_gate, "may_resume", optional=True)
        check_type("acknowledge", self.acknowledge, str)
        if self.acknowledge not in ("callbacks", "manual"):
            raise ValueError(
                f'acknowledge must be "callbacks" or "manual", not {self.acknowledge!r}'
            )
        check_type("backoff", self.backoff, Backoff, optional=True)
        for name in (
            "connect_timeout",
            "hello_timeout",
            "ready_timeout",
            "send_timeout",
            "close_timeout",
        ):
            check_positive(name, getattr(self, name))
        if self.slow_callback is not None:
            check_positive("slow_callback", self.slow_callback)
        check_type("max_payload", self.max_payload, int)
        check_positive("max_payload", self.max_payload)
        check_type("ssl_context", self.ssl_context, ssl.SSLContext, optional=True)
        check_proxy(self.proxy)
        check_methods("logger", self.logger, "log", optional=True)

    def _check_session(self, session: Session) -> None:
        if (session.shard_id, session.shard_count) != (
            self.identity.shard_id,
            self.identity.shard_count,
        ):
            raise ValueError(
                f"session must be one of this shard, {self.identity.shard_id} of "
                f"{self.identity.shard_count}, not of shard {session.shard_id} of "
                f"{session.shard_count}; without a session a new one is begun"
            )
