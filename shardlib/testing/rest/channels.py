"""Channels: reading them, typing in them, and pinned messages."""

from __future__ import annotations

import time
from typing import Any

from shardlib.testing.channel import Channel, Message
from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.errors import TOO_MANY_PINS, ApiError
from shardlib.testing.rest.forms import Integer, Text
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.router import Call, Route
from shardlib.testing.snowflakes import timestamp

_LIMIT = RateLimit("channels", 30, 10.0)
_TYPING_LIMIT = RateLimit("typing", 5, 5.0)
_PINS_LIMIT = RateLimit("pins", 5, 4.0)

# The most pinned messages of a channel (JSON error code 30003).
_MAX_PINS = 250


class Channels:
    """The requests of the resource Channel that read a channel, type in it, or pin messages.

    :param backend: the parts of the gateway.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the routes."""
        channel = "/channels/{channel_id}"
        routes = [
            Route("GET", channel, self._channel, _LIMIT),
            Route("POST", f"{channel}/typing", self._type, _TYPING_LIMIT),
            Route("GET", f"{channel}/pins", self._first_pins, _PINS_LIMIT),
            Route("GET", f"{channel}/messages/pins", self._pins, _PINS_LIMIT),
        ]
        # The path without /messages is the deprecated one.
        for pins in (f"{channel}/messages/pins/{{message_id}}", f"{channel}/pins/{{message_id}}"):
            routes.append(Route("PUT", pins, self._pin, _PINS_LIMIT))
            routes.append(Route("DELETE", pins, self._unpin, _PINS_LIMIT))
        return routes

    def _channel(self, call: Call) -> Channel:
        return self._backend.channel(call["channel_id"])

    def _type(self, call: Call) -> None:
        channel = self._backend.channel(call["channel_id"])
        user_id = self._backend.world.user["id"]
        typing: dict[str, Any] = {
            "user_id": user_id,
            "timestamp": int(time.time()),
            **self._backend.place(channel),
        }
        if not channel.is_direct:
            members = self._backend.world.guilds[channel["guild_id"]].members
            if user_id in members:
                typing["member"] = members[user_id]
        self._backend.dispatch("TYPING_START", typing)

    # Pins.

    def _first_pins(self, call: Call) -> list[dict[str, Any]]:
        pins = self._backend.channel(call["channel_id"]).pins
        return [self._backend.visible(message) for message, _ in pins[:50]]

    def _pins(self, call: Call) -> dict[str, Any]:
        query = call.query(before=Text(1), limit=Integer(1, 50))
        limit = query.get("limit", 50)
        before = query.get("before")
        pins = [
            {"pinned_at": at, "message": self._backend.visible(message)}
            for message, at in self._backend.channel(call["channel_id"]).pins
            if before is None or at < before
        ]
        return {"items": pins[:limit], "has_more": len(pins) > limit}

    def _pin(self, call: Call) -> None:
        message = self._backend.message(call["channel_id"], call["message_id"])
        channel = self._backend.channel(call["channel_id"])
        if len(channel.pins) >= _MAX_PINS and not message["pinned"]:
            raise ApiError(TOO_MANY_PINS)
        channel.pin(message, timestamp())
        self._tell(channel, message)

    def _unpin(self, call: Call) -> None:
        message = self._backend.message(call["channel_id"], call["message_id"])
        channel = self._backend.channel(call["channel_id"])
        channel.unpin(message)
        self._tell(channel, message)

    def _tell(self, channel: Channel, message: Message) -> None:
        pins = channel.pins
        update = {
            **self._backend.place(channel),
            "last_pin_timestamp": pins[0][1] if pins else None,
        }
        self._backend.dispatch("CHANNEL_PINS_UPDATE", update)
        self._backend.dispatch("MESSAGE_UPDATE", self._backend.world.message_event(message))
