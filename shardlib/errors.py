"""Every exception that a user can meet, and what to do about it.

Bad arguments are :exc:`ValueError` or :exc:`TypeError`, and a wait that runs out is
:exc:`TimeoutError`; everything else is a :exc:`ShardError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from shardlib.gateway import CloseCode, Intents
from shardlib.text import count, duration, gist, message_of, printable

_REASON_SHOWN = 200  # characters of a close reason; WebSocket itself allows fewer bytes

_BODY_SHOWN = 200  # characters of an HTTP answer's body

_SHARDS_SHOWN = 10  # of those that have failed


class ShardError(Exception):
    """The base of all errors of this library.

    ``str()`` of an error is one printable line: text of a peer's in it is escaped.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ConnectionFailed(ShardError):
    """A connection could not be opened.

    :meth:`~shardlib.Shard.connect` raises it for its first attempt, after which no thread and no
    socket is left. If `should_reconnect` is False, a later attempt that fails closes the shard
    with it.

    :param message: why, a str.
    :param retry_after: seconds that the peer asked to wait before the next attempt, or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class HTTPFailed(ShardError):
    """The HTTP API answered :func:`~shardlib.fetch_gateway_bot`, but not with what was asked for.

    A wrong token is :class:`AuthenticationFailed`; no answer at all, or half of one, is
    :class:`ConnectionFailed`.

    :param status: the HTTP status code, an int. 200 if the body is not what Discord documents.
    :param body: the beginning of the answer's body, a str exactly as it was received; for a
        redirect, where it leads. So escape it before you print it, as ``str()`` of the error does.
    :param message: what was asked, and what is wrong with the answer, a str.
    :param retry_after: seconds that the server asked to wait before the next request, or None.
    """

    def __init__(
        self, status: int, body: str, message: str = "", *, retry_after: float | None = None
    ) -> None:
        super().__init__(status, body, message)
        self.status = status
        self.body = body
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        text = printable(self.message) or f"the HTTP API answered with status {self.status}"
        body = printable(gist(self.body), _BODY_SHOWN)
        return f"{text}; it says: {body}" if body else text


class SessionLimitReached(ShardError):
    """Discord lets the bot start fewer sessions until the next reset than its shards need.

    Nothing was connected. Discord resets the token of a bot that goes beyond the limit
    (https://docs.discord.com/developers/events/gateway#session-start-limit-object).

    :param needed: how many sessions would have been started, an int: one for each shard without a
        session to resume.
    :param remaining: how many Discord still allows, an int.
    :param reset_after: seconds, a float, until Discord allows the full number again, 0.0 if Discord
        has not said when.
    """

    def __init__(self, needed: int, remaining: int, reset_after: float) -> None:
        super().__init__(needed, remaining, reset_after)
        self.needed = needed
        self.remaining = remaining
        self.reset_after = reset_after

    def __str__(self) -> str:
        allowed = f"{self.remaining} more" if self.remaining else "no more"
        when = "Discord does not say when the full number is allowed again. Ask later"
        if self.reset_after > 0:
            again_in = duration(math.ceil(self.reset_after))
            when = f"the full number is allowed again in {again_in}. Wait until then"
        return (
            f"the bot needs {count(self.needed, 'new session')}, and Discord allows {allowed} for "
            f"now; {when}, and first stop what restarts the bot again and again: each start "
            "without saved sessions takes one for every shard"
        )


class ShardsFailed(ShardError):
    """Some of a bot's shards have ended because of an error each; the others go on.

    :param errors: the error of each of these shards, by shard number; at least one.
    :raises ValueError: if there is none.
    """

    def __init__(self, errors: Mapping[int, BaseException]) -> None:
        if not errors:
            raise ValueError("errors must have an error of at least one shard")
        self.errors = dict(sorted(errors.items()))
        super().__init__(self.errors)

    def __str__(self) -> str:
        failed = [f"{shard_id} ({type(error).__name__})" for shard_id, error in self.errors.items()]
        shown = ", ".join(failed[:_SHARDS_SHOWN])
        if len(failed) > _SHARDS_SHOWN:
            shown += f" and {len(failed) - _SHARDS_SHOWN} more"
        first, error = next(iter(self.errors.items()))
        return printable(
            f"{count(len(failed), 'shard')} failed: {shown}. Shard {first}: {message_of(error)}"
        )


class ShardsInUse(ShardError):
    """Another manager runs the same shards already, in this process or another.

    Two of them would resume each other's sessions without end. Nothing was connected.

    :param owners: which process runs each of these shards, by shard number, such as "process 4711
        on myhost"; at least one.
    :param shard_count: number of the bot's shards, an int.
    :param directory: the one that both were given as `sessions`, a str.
    """

    def __init__(self, owners: Mapping[int, str], shard_count: int, directory: str) -> None:
        self.owners = dict(sorted(owners.items()))
        self.shard_count = shard_count
        self.directory = directory
        super().__init__(self.owners, shard_count, directory)

    def __str__(self) -> str:
        shown = ", ".join(map(str, list(self.owners)[:_SHARDS_SHOWN]))
        if len(self.owners) > _SHARDS_SHOWN:
            shown += f" and {len(self.owners) - _SHARDS_SHOWN} more"
        shown = f"shard {shown}" if len(self.owners) == 1 else f"shards {shown}"
        verb = "is" if len(self.owners) == 1 else "are"
        who = " and ".join(dict.fromkeys(self.owners.values()))
        return printable(
            f"{shown} of {self.shard_count} {verb} running already, in {who}, with the same "
            f"directory of sessions, {self.directory!r}. Close that manager, or end that process; "
            "another bot needs a directory of its own"
        )


class NotReady(ShardError):
    """The shard has no session, or no Hello, that the call needs, and cannot wait for it.

    ``wait_until_ready()`` waits, on a thread that is not the shard's own.
    """


class AlreadyConnected(ShardError):
    """The shard is connected, or about to be; ``disconnect()`` first."""


class ForkedProcess(ShardError):
    """The shard belongs to the parent process; a child makes a shard of its own."""


class SendTimeout(ShardError, TimeoutError):
    """The payload could not be sent in time; the shard does not send it later."""


class UnreadableMessage(ShardError):
    """One message could not be read and was skipped; the messages after it can be read.

    on_socket_error is called with it.

    :param message: why, a str.
    :param text: what was received, a str or bytes.
    :param limit: the option ``max_payload``, in bytes, if the message is larger than that; None
        if the message was unreadable for another reason.
    """

    def __init__(self, message: str, text: str | bytes, *, limit: int | None = None) -> None:
        # `text` stays out of `args`: a traceback shows those, and a message can be megabytes.
        super().__init__(message)
        self.text = text
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.text), self.__dict__


class BrokenStream(ShardError):
    """Nothing more can be read from a connection; the shard resumes on a new one.

    on_socket_error is called with it.

    :param message: why, a str.
    :param limit: the option ``max_payload``, in bytes, if a message is larger than that; None if
        the stream broke for another reason.
    """

    def __init__(self, message: str, *, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit


class ShardClosed(ShardError):
    """The shard has ended for good, and connects again only by :meth:`~shardlib.Shard.connect`.

    The close codes stand at
    https://docs.discord.com/developers/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes.

    :param code: the WebSocket close code received, an int, or None if there was none.
    :param reason: what the Gateway, or this library, says about it, a str exactly as it was
        received; so escape it before you print it, as ``str()`` of the error does.
    """

    advice: ClassVar[str] = ""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        if self.code is None:
            what = printable(self.reason) or "the shard is closed"
        else:
            what = f"the Gateway closed the connection with code {self.code}"
            reason = printable(self.reason, _REASON_SHOWN) or meaning_of(self.code)
            if reason:
                what += f" ({reason})"
        advice = self._advice()
        return f"{what}: {advice}" if advice else what

    def _advice(self) -> str:
        return self.advice


class AuthenticationFailed(ShardClosed):
    """4004: the token is not valid."""

    advice = (
        "the bot token is wrong or was reset. Copy the current one from the Bot page of the "
        "Developer Portal, https://discord.com/developers/applications"
    )


class InvalidShard(ShardClosed):
    """4010: shard_id and shard_count do not fit."""

    advice = (
        "shard_id and shard_count do not fit; shard_id counts from 0 up to shard_count - 1, and "
        "all shards of a bot have one shard_count"
    )


class ShardingRequired(ShardClosed):
    """4011: the bot is in too many guilds for that many shards."""

    advice = (
        "the bot is in too many guilds for so few shards. Raise shard_count to what "
        "GET /gateway/bot recommends"
    )


class InvalidAPIVersion(ShardClosed):
    """4012: the Gateway does not speak that version."""

    advice = (
        "Discord does not support this version of the Gateway's API. Give connect() another "
        "socket_version; 10 is the default"
    )


class InvalidIntents(ShardClosed):
    """4013: the intents hold a bit that Discord does not know."""

    advice = (
        "the intents hold a bit that Discord does not know. Build them from shardlib.Intents "
        "instead of from numbers"
    )


class DisallowedIntents(ShardClosed):
    """4014: a privileged intent is not switched on for this bot.

    :param code: 4014.
    :param reason: what the Gateway says about it.
    :param intents: the :class:`~shardlib.Intents` that the shard asked for.
    """

    def __init__(self, code: int | None, reason: str = "", intents: Intents | None = None) -> None:
        super().__init__(code, reason)
        self.args = (code, reason, intents)
        self.intents = intents

    def _advice(self) -> str:
        asked = [
            intent.name
            for intent in Intents
            if intent.name and intent in Intents.privileged() & (self.intents or 0)
        ]
        which = f" ({', '.join(asked)})" if asked else ""
        return (
            f"the shard asks for privileged intents{which}, and not all of them are switched on "
            "for this bot. Switch them on at the Bot page of the Developer Portal, "
            "https://discord.com/developers/applications, or leave them out of intents"
        )


# CloseCode alone knows which codes are fatal; this table has the class of error for each.
_CLASSES: dict[int, type[ShardClosed]] = {
    CloseCode.AUTHENTICATION_FAILED: AuthenticationFailed,
    CloseCode.INVALID_SHARD: InvalidShard,
    CloseCode.SHARDING_REQUIRED: ShardingRequired,
    CloseCode.INVALID_API_VERSION: InvalidAPIVersion,
    CloseCode.INVALID_INTENTS: InvalidIntents,
}


def meaning_of(code: int | None) -> str:
    """What a close code of Discord's means, in a few words; "" for another one, or None.

    :param code: as received.
    """
    names = {int(each): each.name.replace("_", " ").lower() for each in CloseCode}
    return "" if code is None else names.get(code, "")


def fatal_error(code: int, reason: str, intents: Intents) -> ShardClosed | None:
    """The error for a close code after which no connection may follow, or None.

    :param code: as received.
    :param reason: as received.
    :param intents: those the shard asks for.
    """
    try:
        close_code = CloseCode(code)
    except ValueError:  # unknown codes are worth another connection
        return None
    if close_code.can_reconnect:
        return None
    if close_code is CloseCode.DISALLOWED_INTENTS:
        return DisallowedIntents(code, reason, intents)
    return _CLASSES[close_code](code, reason)
