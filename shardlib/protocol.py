"""GatewayProtocol: what the Gateway's messages mean.

No socket, thread, lock, clock or callback is in here: a payload and the time go in; what is to be
delivered comes out; what is to be sent, told or given up waits in :attr:`GatewayProtocol.effects`
until the reader takes it.
https://docs.discord.com/developers/events/gateway#connections
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

from shardlib.checks import check_positive
from shardlib.currentsession import END_OF_SEQUENCES, CurrentSession
from shardlib.gateway import GATEWAY_URL, Opcode, check_resume_url
from shardlib.loss import Cause, Loss
from shardlib.payloads import Payload
from shardlib.text import count

PROTOCOL_EVENTS = frozenset({"READY", "RESUMED"})
"""The events on which the shard itself acts, so that they are decoded for it."""


class _Effect:
    """What the reader is to do. Effects of one kind are equal if they say the same."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, vars(self).values()))})"


class StartHeartbeat(_Effect):
    """Hello came: beat from now on, or at another pace if it is not the first.

    :param interval: milliseconds.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval


class Identify(_Effect):
    """Identify is due, as soon as the identify gate lets it through."""


class Resume(_Effect):
    """Resume is due, at once."""


class AnswerHeartbeat(_Effect):
    """The Gateway asked for a heartbeat."""


class Acknowledge(_Effect):
    """A heartbeat was acknowledged."""


class Established(_Effect):
    """READY (a new session) or RESUMED came: events flow.

    :param resumed: True after RESUMED.
    """

    def __init__(self, resumed: bool) -> None:
        self.resumed = resumed


class Warn(_Effect):
    """Something that the log should tell."""

    def __init__(self, text: str) -> None:
        self.text = text


Effect = (
    StartHeartbeat | Identify | Resume | AnswerHeartbeat | Acknowledge | Established | Warn | Loss
)


class Message(NamedTuple):
    """What the library itself needs of a payload, taken out before any callback sees it.

    :param opcode: the payload's ``op``.
    :param event: its ``t``, None if it has none that is a string.
    :param sequence: its ``s``, None if it has none that a Resume could name.
    :param data: of Hello, Invalid Session and READY a copy of what matters in ``d``; else None.
    """

    opcode: int
    event: str | None
    sequence: int | None
    data: Any


def extract(payload: Payload) -> Message:
    """Take out of a payload what the library needs, so that a callback may change the payload."""
    opcode = payload["op"]
    if opcode != Opcode.DISPATCH:
        data = payload.get("d")
        return Message(opcode, None, None, dict(data) if isinstance(data, Mapping) else data)
    event = payload.get("t")
    sequence = payload.get("s")
    if not isinstance(event, str):
        event = None
    if type(sequence) is not int or not 0 <= sequence < END_OF_SEQUENCES:
        sequence = None
    data = None
    if event == "READY":
        ready = payload.get("d")
        if not isinstance(ready, Mapping):
            ready = {}
        user = ready.get("user")
        user_id = user.get("id") if isinstance(user, Mapping) else None
        data = (ready.get("session_id"), ready.get("resume_gateway_url"), user_id)
    return Message(opcode, event, sequence, data)


class _Phase(enum.Enum):
    """How far a connection is on its way to a session."""

    HELLO = "Hello is awaited"
    SLOT = "the turn to identify is awaited"
    IDENTIFYING = "READY is awaited"
    RESUMING = "the replay, then RESUMED are awaited"
    ESTABLISHED = "events flow"


class GatewayProtocol:
    """The session, the opening of each connection, and the replay of missed events.

    The reader thread calls everything but :meth:`identify_sent`, which any thread may call that
    has won the right to identify, and :meth:`rewind` and :meth:`awaited_rewind`.

    :param session: to resume; an empty one if there is none.
    :param hello_timeout: seconds from an open socket to Hello.
    :param ready_timeout: seconds from Identify to READY, from Resume or the last replayed event to
        RESUMED.
    """

    def __init__(
        self, session: CurrentSession, *, hello_timeout: float, ready_timeout: float
    ) -> None:
        self.session = session
        self.effects: list[Effect] = []
        self.replayed = 0  # events between Resume and RESUMED
        self.duplicates = 0  # events dropped since a replay repeated them
        self.gaps = 0  # jumps of the sequence
        self._hello_timeout = hello_timeout
        self._ready_timeout = ready_timeout
        self._socket_url = GATEWAY_URL
        self._phase = _Phase.HELLO
        #: From the opening of a connection that has a session to resume, until READY or RESUMED.
        #: Meanwhile events are looked at twice: those before Resume was sent say nothing of the
        #: session, and those after it may repeat what was received before.
        self.resume_pending = False
        self._resumed_from = 0  # the sequence in Resume
        self.replay_begun = False  # the replay has brought an event that was missed
        # Of this connection: when Hello, and the answer after it, must have come. READY does not
        # end the wait for Hello: a connection without Hello would have no heartbeats, no verdict.
        self._hello_deadline: float | None = None
        self._answer_deadline: float | None = None
        # When the identify gate is to be asked again, or Resume is due; in the phase SLOT.
        self._open_at: float | None = None
        self._gap_told = False
        # What the next Resume is to bring again: session ids, each with the sequence before it. Any
        # thread appends; the reader takes them out.
        self._rewinds: list[tuple[str, int]] = []

    def next_deadline(self) -> float | None:
        """When :meth:`on_deadline` is to be called, on the clock of `now`; None for never."""
        hello, answer = self._hello_deadline, self._answer_deadline
        if self._open_at is not None and self._phase is _Phase.SLOT:
            answer = self._open_at
        if hello is None or answer is None:
            return answer if hello is None else hello
        return min(hello, answer)

    def drop_session(self) -> None:
        """Forget the session: it has ended, or cannot be resumed."""
        self.session = CurrentSession()

    def rewind(self, session_id: str, sequence: int) -> None:
        """Have the next Resume of a session name an earlier sequence. Any thread.

        :param session_id: of the session; without effect if another one has begun by then.
        :param sequence: of the last event that is not to be replayed.
        """
        self._rewinds.append((session_id, sequence))

    def awaited_rewind(self, session_id: str) -> int | None:
        """The sequence that the next Resume is to name because of a rewind. Any thread.

        :param session_id: of the session under way.
        :returns: None if no rewind waits for a Resume.
        """
        return min((each for of, each in list(self._rewinds) if of == session_id), default=None)

    def _carry_out_rewinds(self) -> None:
        rewinds = list(self._rewinds)
        for session_id, sequence in rewinds:
            if session_id == self.session.session_id:
                self.session.rewind(sequence)
        del self._rewinds[: len(rewinds)]  # last: until then a saved session heeds them

    def begin_connection(self, socket_url: str) -> None:
        """Forget what is left of the connection before: another one is about to be opened.

        :param socket_url: the URL given to connect(), which says how safe a resume URL must be.
        """
        self._socket_url = socket_url
        self._phase = _Phase.HELLO
        self.resume_pending = self.session.session_id is not None
        self.replay_begun = False
        self._hello_deadline = self._answer_deadline = self._open_at = None
        self._gap_told = False
        self.effects.clear()

    def opened(self, now: float) -> None:
        """Note that a socket was opened, so that Hello is due.

        :param now: seconds of a monotonic clock.
        """
        self._hello_deadline = now + self._hello_timeout

    def open_later(self, at: float) -> None:
        """Try to identify, or resume, again at a moment, of which :meth:`next_deadline` tells."""
        self._open_at = at  # without effect, if another thread has identified meanwhile

    def identify_sent(self, now: float) -> None:
        """Note that Identify is being sent."""
        # In this order: another thread may be looking for a deadline that has passed.
        self._answer_deadline = now + self._ready_timeout
        self._phase = _Phase.IDENTIFYING

    def resume_sent(self, now: float) -> None:
        """Note that Resume is being sent."""
        self._phase = _Phase.RESUMING
        self._resumed_from = self.session.resume_sequence
        self.replay_begun = False
        self._answer_deadline = now + self._ready_timeout

    def on_deadline(self, now: float) -> None:
        """Act if the Gateway's answer is late, or Identify or Resume is to be tried again."""
        if self._hello_deadline is not None and now >= self._hello_deadline:
            self._lose(
                Cause.UNRESPONSIVE, f"no Hello came within {count(self._hello_timeout, 'second')}"
            )
            return
        phase = self._phase  # looked at once: another thread may identify meanwhile
        due = self._open_at if phase is _Phase.SLOT else self._answer_deadline
        if due is None or now < due:
            return  # put off meanwhile
        if phase is _Phase.SLOT:
            self._open_at = None
            self.effects.append(self._opening())
        else:
            awaited = "RESUMED" if phase is _Phase.RESUMING else "READY"
            within = count(self._ready_timeout, "second")
            self._lose(Cause.UNRESPONSIVE, f"no {awaited} came within {within}")

    @property
    def opening_sent(self) -> bool:
        """True if Identify or Resume was sent, or READY came unasked for."""
        return self._phase not in (_Phase.HELLO, _Phase.SLOT)

    @property
    def resuming(self) -> bool:
        """True if Resume was sent and RESUMED did not come."""
        return self._phase is _Phase.RESUMING

    def take_effects(self) -> list[Effect]:
        """The effects that wait, to be carried out in their order; none is left."""
        effects, self.effects = self.effects, []
        return effects

    # Messages

    def receive(self, message: Message, now: float) -> bool:
        """Take a message in.

        :param message: as :func:`extract` returned it.
        :param now: seconds of a monotonic clock.
        :returns: True for an event that is to be delivered; after that the session is to be told by
            :meth:`CurrentSession.complete <shardlib.currentsession.CurrentSession.complete>`.
        """
        opcode = message.opcode
        if opcode == Opcode.DISPATCH:
            return self._dispatch(message, now)
        if opcode == Opcode.HEARTBEAT_ACK:
            self.effects.append(Acknowledge())
        elif opcode == Opcode.HEARTBEAT:
            self.effects.append(AnswerHeartbeat())
        elif opcode == Opcode.HELLO:
            self._hello(message.data)
        elif opcode == Opcode.RECONNECT:
            self._lose(Cause.GATEWAY_ASKED, "the Gateway asked for a new connection (op 7)")
        elif opcode == Opcode.INVALID_SESSION:
            resumable = message.data is True
            if not resumable:
                self.drop_session()
            reason = "the Gateway called the session invalid (op 9)"
            if self._phase is _Phase.IDENTIFYING:
                reason = (
                    "the Gateway refused Identify (op 9); perhaps another one with this token came "
                    "less than 5 seconds before"
                )
            self._lose(Cause.GATEWAY_ASKED, reason, session_lost=not resumable)
        return False

    def _lose(self, cause: Cause, reason: str, session_lost: bool = False) -> None:
        self.effects.append(Loss(cause, reason, session_lost=session_lost))

    def _hello(self, data: Any) -> None:
        interval = data.get("heartbeat_interval") if isinstance(data, Mapping) else None
        try:
            interval = check_positive("heartbeat_interval", interval)
        except (TypeError, ValueError) as error:
            self._lose(Cause.UNRESPONSIVE, f"the Gateway's Hello cannot be used: {error}")
            return
        self._hello_deadline = None
        self.effects.append(StartHeartbeat(interval))
        if self._phase is not _Phase.HELLO:
            return  # a second Hello changes the interval and nothing else
        self._phase = _Phase.SLOT
        self._carry_out_rewinds()
        self.effects.append(self._opening())

    def _opening(self) -> Effect:
        return Identify() if self.session.session_id is None else Resume()

    def _dispatch(self, message: Message, now: float) -> bool:
        event, sequence = message.event, message.sequence
        if event == "READY":
            self._ready(message, now)
            return True
        if self.resume_pending and self._phase is not _Phase.RESUMING:
            return True
        if self.resume_pending and event != "RESUMED":
            # A replay. Some servers begin with the last event that was received before.
            if sequence is not None and sequence <= self._resumed_from:
                self.duplicates += 1
                return False
            self.replayed += 1
            self.replay_begun = self.replay_begun or sequence is not None
            self._answer_deadline = now + self._ready_timeout
        missing = 0 if sequence is None else self.session.receive(sequence)
        if sequence is not None and missing:
            self._note_gap(sequence, missing)
        if event == "RESUMED" and self.resume_pending:  # else no Resume was sent
            self._establish(resumed=True)
        return True

    def _ready(self, message: Message, now: float) -> None:
        session_id, url, user_id = message.data
        if type(session_id) is int:  # from servers other than Discord's
            session_id = str(session_id)
        elif not isinstance(session_id, str) or not session_id:
            session_id = None
        if url is not None:
            try:
                url = check_resume_url(url, self._socket_url)
            except (TypeError, ValueError) as error:
                self.effects.append(
                    Warn(
                        f"the resume_gateway_url in READY cannot be used ({error}); a Resume "
                        "goes to the URL given to connect()"
                    )
                )
                url = None
        # No Resume brings READY again: it counts as seen before its callbacks return.
        self.session = CurrentSession(
            session_id,
            url,
            message.sequence,
            message.sequence,
            None if user_id is None else str(user_id),  # a number, from some servers
            message.sequence,
        )
        self._establish(resumed=False)

    def _establish(self, resumed: bool) -> None:
        self._phase = _Phase.ESTABLISHED
        self.resume_pending = False
        self._answer_deadline = None
        self.effects.append(Established(resumed))

    def _note_gap(self, sequence: int, missing: int) -> None:
        self.gaps += 1
        if not self._gap_told:
            self._gap_told = True
            self.effects.append(
                Warn(
                    f"the sequence jumped from {sequence - missing - 1} to {sequence}: the "
                    f"Gateway left out {count(missing, 'number')}, and perhaps as many events, "
                    "which no Resume brings back; stats.gaps counts all jumps, and the log tells "
                    "of the first on each connection"
                )
            )
