"""Loss: why a connection ended. Whatever finds that out makes one, and the reader carries it on."""

from __future__ import annotations

import enum
from typing import NamedTuple

from shardlib.errors import ConnectionFailed, meaning_of
from shardlib.text import printable


class Cause(enum.Enum):
    """The kinds of ends that a connection can have."""

    NOT_OPENED = "it could not be opened"
    CLOSED = "the Gateway sent a close frame"
    BROKEN_OFF = "TCP ended, or was reset, without a close frame"
    UNRESPONSIVE = "the Gateway did not answer in time, or takes no bytes"
    UNREADABLE = "a message could not be taken in"
    FAULT = "an exception outside of any message"
    GATE_FAILED = "the identify gate or the session gate raised an exception"
    GATEWAY_ASKED = "Reconnect (op 7) or Invalid Session (op 9)"
    USER_ASKED = "rewind(), reconnect(), resume() or reinstantiate()"
    CLOSING = "disconnect()"


class Loss(NamedTuple):
    """Why a connection ended.

    :param cause: the kind of end.
    :param reason: in words, for people; of a close frame the reason it gave.
    :param code: the close code that was received, or None.
    :param failure: why the connection could not be opened, if that is the cause.
    :param error: what was raised, if an exception is the cause; to be told to the user.
    :param session_lost: True if the session cannot be resumed, or must not be.
    :param limit: max_payload in bytes, if a message was refused because it is larger.
    :param immediate: True if a thread waits for the next connection.
    """

    cause: Cause
    reason: str
    code: int | None = None
    failure: ConnectionFailed | None = None
    error: BaseException | None = None
    session_lost: bool = False
    limit: int | None = None
    immediate: bool = False

    def __str__(self) -> str:
        if self.failure is not None:
            return str(self.failure)
        if self.cause is Cause.CLOSED:
            code = "without a code" if self.code is None else f"with code {self.code}"
            reason = printable(self.reason, 200) or meaning_of(self.code)
            return f"closed by the Gateway {code} ({reason or 'no reason given'})"
        return printable(self.reason, 500)

    def because(self, reason: str) -> Loss:
        """The same for another reason, in words for people."""
        return self._replace(reason=reason)

    @property
    def peer_answers(self) -> bool:
        """True if the Gateway is there, so that its close frame is worth a wait."""
        return self.cause in (Cause.GATEWAY_ASKED, Cause.USER_ASKED, Cause.CLOSING)
