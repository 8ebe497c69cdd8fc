"""ReconnectPolicy: what the end of a connection means: when, where and how to go on, or an error.

No socket, thread, lock or clock is in here: a loss and the time go in, a decision comes out.
https://docs.discord.com/developers/events/gateway#resuming says when a session can be resumed, and
https://docs.discord.com/developers/topics/opcodes-and-status-codes what each close code means.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from shardlib.backoff import Backoff
from shardlib.checks import check_finite
from shardlib.currentsession import CurrentSession
from shardlib.errors import ShardClosed, fatal_error
from shardlib.gateway import (
    SESSION_ENDING_CLOSE_CODES,
    CloseCode,
    Intents,
    check_resume_url,
)
from shardlib.loss import Cause, Loss

# Failures in a row at the session's own URL, after which it is left for the one of connect().
MOST_FAILURES_AT_RESUME_URL = 3

# Resumes in a row that ended without an answer, after which the session is taken for lost.
MOST_UNANSWERED_RESUMES = 5

# Seconds, at random between the two, before the Identify that follows an Invalid Session.
INVALID_SESSION_DELAY = (1.0, 5.0)

# Seconds that a connection must have held to count as one that the Gateway meant to keep.
QUICK_LOSS = 10.0

# Seconds, the longest pause while connections work but are lost within QUICK_LOSS.
LONGEST_QUICK_PAUSE = 5.0

# Seconds, the longest pause while the Gateway or a callback asks for a new connection as soon as
# one works. It is no failure; this only keeps such a loop from running as fast as it can.
LONGEST_ASKED_PAUSE = 1.0

# Seconds, the longest Retry-After that is believed.
LONGEST_RETRY_AFTER = 3600.0

_SESSION_ENDED = frozenset(code for code in CloseCode if code.ends_session)
_ASKED = (Cause.GATEWAY_ASKED, Cause.USER_ASKED)


class Reconnect(NamedTuple):
    """Connect (again).

    :param url: where to.
    :param resume: True to resume the session, False to forget it and identify.
    :param delay: seconds to wait, which a user's request for a connection cuts short.
    :param least_delay: seconds that nothing cuts short but disconnect().
    :param fault: what the user's Backoff raised, so that the default one was asked; or None.
    """

    url: str
    resume: bool
    delay: float = 0.0
    least_delay: float = 0.0
    fault: Exception | None = None


class Stop(NamedTuple):
    """Close the shard.

    :param error: what to raise from the waiting methods; None after disconnect().
    :param resume: False to forget the session, which no later life could resume.
    """

    error: BaseException | None
    resume: bool = True


def after_disconnect(plan: Reconnect | Stop | None, code: int) -> Stop:
    """What follows if disconnect() is called while another plan waits.

    :param plan: that is not carried out; None if there was none.
    :param code: of our close frame.
    """
    resumable = plan is None or plan.resume
    return Stop(None, resume=resumable and code not in SESSION_ENDING_CLOSE_CODES)


class ReconnectPolicy:
    """The decisions of one life of a shard, from connect() to closed. Used by one thread.

    :param socket_url: the URL given to connect().
    :param should_reconnect: False: the first lost connection closes the shard.
    :param backoff: of the shard; it begins anew here.
    :param intents: to be named if the Gateway does not allow them.
    :param uniform: gives a random number between two others.
    """

    def __init__(
        self,
        *,
        socket_url: str,
        should_reconnect: bool,
        backoff: Backoff,
        intents: Intents,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._socket_url = socket_url
        self._should_reconnect = should_reconnect
        self._backoff = backoff
        self._intents = intents
        self._uniform = uniform
        self._is_first = True  # the attempt under way is the first of the life
        self._failures_at_resume_url = 0
        self._unanswered_resumes = 0
        # In a row: connections that worked and were lost, or given up on request, in QUICK_LOSS.
        self._quick_losses = 0
        self._quick_requests = 0
        self._asked_in_vain = 0  # in a row: the Gateway asked before READY or RESUMED
        self._broken_at: tuple[str | None, int | None] | None = None
        self._too_large = 0  # sessions in a row that a message larger than max_payload ended
        # The user's Backoff begins anew when it is asked next. It may fail: then the default one is
        # asked, and what was raised is told.
        self._backoff_begins = True
        self._default_backoff = Backoff()
        self._fault: Exception | None = None
        self._forget_failures()

    def begin(self, session: CurrentSession) -> Reconnect:
        """The first connection of the life, or one after which nothing is known of the last."""
        return self._reconnect(session, resume=session.session_id is not None)

    def reinstantiate(self, session: CurrentSession) -> Reconnect:
        """The user asked for a new session before the next connection began."""
        return self._reconnect(session, resume=False)

    def after(
        self,
        loss: Loss,
        session: CurrentSession,
        now: float,
        *,
        awaited: bool,
        established_at: float | None,
        opening_sent: bool,
        resuming: bool,
        replay_begun: bool,
        no_fail: bool | None,
    ) -> Reconnect | Stop:
        """What follows the end of a connection, or of an attempt at one.

        :param loss: why it ended.
        :param session: as it was then.
        :param now: seconds of a monotonic clock.
        :param awaited: True if connect() waits for the outcome: no socket was opened in this life.
        :param established_at: when READY or RESUMED came; None if neither did.
        :param opening_sent: True if Identify or Resume was sent.
        :param resuming: True if Resume was sent and RESUMED did not come.
        :param replay_begun: True if an event came after Resume that was missed before.
        :param no_fail: overrides `should_reconnect`; None does not.
        """
        is_first, self._is_first = self._is_first, False
        if established_at is not None:
            self._forget_failures()
        if loss.code is not None:
            fatal = fatal_error(loss.code, loss.reason, self._intents)
            if fatal is not None:
                return Stop(fatal)
        failure = loss.failure or loss.error
        if awaited and failure is not None and not no_fail:
            return self._after_first_attempt(failure, session)
        if established_at is not None and now - established_at >= QUICK_LOSS:
            self._too_large = 0
        if replay_begun:  # an answer, though not all of it
            self._unanswered_resumes = 0
        elif resuming and loss.cause not in _ASKED:
            self._unanswered_resumes += 1
        session_lost = self._is_session_lost(
            loss, session, established_at is None, opening_sent, resuming
        )
        resume = session.session_id is not None and not session_lost
        if self._too_large > 1:
            return Stop(
                ShardClosed(
                    None,
                    f"a message larger than max_payload ({loss.limit} bytes) ended two sessions in "
                    f"a row ({loss.reason}); make the shard with a larger max_payload",
                )
            )
        persists = self._should_reconnect if no_fail is None else no_fail
        if loss.cause is not Cause.USER_ASKED and not persists:
            error = loss.failure or ShardClosed(loss.code, loss.reason)
            return Stop(error, resume=not session_lost)
        tries_url = is_first and resume and no_fail is None and loss.failure is not None
        if tries_url and session.resume_gateway_url is not None:
            # The session, which is that of a life before, may name a host that is lost since.
            self._failures_at_resume_url = MOST_FAILURES_AT_RESUME_URL
            return self._reconnect(session, resume, least_delay=self._least_pause(loss))
        return self._reconnect(
            session,
            resume,
            0.0 if loss.immediate else self._pause(loss, established_at, now),
            self._least_pause(loss),
        )

    def _after_first_attempt(
        self, failure: BaseException, session: CurrentSession
    ) -> Reconnect | Stop:
        """Tell connect(), which waits, or try its URL: a session's own may name a lost host."""
        if self._url(session) == self._socket_url:
            return Stop(failure)
        self._failures_at_resume_url = MOST_FAILURES_AT_RESUME_URL
        return self._reconnect(session, resume=True)

    def _is_session_lost(
        self,
        loss: Loss,
        session: CurrentSession,
        failed: bool,
        opening_sent: bool,
        resuming: bool,
    ) -> bool:
        # Also if the Gateway asked for a new connection: at the session's own URL it may do so each
        # time, and take the Resume at the other.
        if failed and loss.cause not in (Cause.USER_ASKED, Cause.GATE_FAILED):
            self._failures_at_resume_url += 1
        broken_again = False
        # What came before Identify or Resume was sent is no part of a session.
        if loss.cause is Cause.UNREADABLE and opening_sent:
            broken_at = (session.session_id, session.last_sequence)
            broken_again = broken_at == self._broken_at
            self._broken_at = broken_at
            if loss.limit is not None and (broken_again or (failed and not resuming)):
                self._too_large += 1
        return (
            loss.session_lost
            or loss.code in _SESSION_ENDED
            or self._unanswered_resumes >= MOST_UNANSWERED_RESUMES
            or broken_again
        )

    # When

    def _forget_failures(self) -> None:
        self._failures_at_resume_url = 0
        self._unanswered_resumes = 0
        self._asked_in_vain = 0
        self._backoff_begins = True
        self._default_backoff.reset()
        self._default_backoff.next_delay()

    def _next_delay(self) -> float:
        """Seconds to wait after one more attempt that failed."""
        try:
            if self._backoff_begins:
                self._backoff.reset()
                self._backoff.next_delay()  # for the attempt that was due at once
                self._backoff_begins = False
            return max(0.0, check_finite("what next_delay() returns", self._backoff.next_delay()))
        except Exception as error:
            self._fault = error
            return self._default_backoff.next_delay()

    def _cap(self) -> float:
        try:
            return check_finite("cap", self._backoff.cap)
        except Exception as error:
            self._fault = error
            return self._default_backoff.cap

    def _pause(self, loss: Loss, established_at: float | None, now: float) -> float:
        """Seconds to wait, which grow with attempts that fail, that is, reach no READY."""
        if established_at is None:
            if loss.cause is Cause.USER_ASKED:
                return 0.0
            if loss.cause is Cause.GATEWAY_ASKED:
                self._asked_in_vain += 1
                if self._asked_in_vain == 1:
                    return 0.0
            return self._next_delay()
        asked = loss.cause in _ASKED
        quick = now - established_at < QUICK_LOSS
        self._quick_requests = self._quick_requests + 1 if quick and asked else 0
        if not quick:
            self._quick_losses = 0
        elif not asked:
            self._quick_losses += 1
        count = self._quick_requests if asked else self._quick_losses
        if count <= 1:
            return 0.0
        # A quarter of a second, then twice as much each time.
        longest = LONGEST_ASKED_PAUSE if asked else LONGEST_QUICK_PAUSE
        return min(longest, self._cap(), 0.25 * 2.0 ** min(count - 2, 10))

    def _least_pause(self, loss: Loss) -> float:
        pause = 0.0
        if loss.cause is Cause.GATEWAY_ASKED and loss.session_lost:
            pause = self._uniform(*INVALID_SESSION_DELAY)
        if loss.failure is not None and loss.failure.retry_after is not None:
            pause = min(loss.failure.retry_after, LONGEST_RETRY_AFTER)
        return pause

    # Where

    def _reconnect(
        self, session: CurrentSession, resume: bool, delay: float = 0.0, least_delay: float = 0.0
    ) -> Reconnect:
        url = self._url(session) if resume else self._socket_url
        fault, self._fault = self._fault, None
        return Reconnect(url, resume, delay, least_delay, fault)

    def _url(self, session: CurrentSession) -> str:
        if (
            session.resume_gateway_url is None
            or self._failures_at_resume_url >= MOST_FAILURES_AT_RESUME_URL
        ):
            return self._socket_url
        try:
            return check_resume_url(session.resume_gateway_url, self._socket_url)
        except ValueError:
            return self._socket_url  # a session from a file: the token would go out in clear
