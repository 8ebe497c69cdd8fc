"""What ReconnectPolicy decides after a loss: histories of steps, and the plans they lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shardlib import (
    AuthenticationFailed,
    Backoff,
    CloseCode,
    ConnectionFailed,
    Intents,
    ShardClosed,
)
from shardlib.currentsession import CurrentSession
from shardlib.loss import Cause, Loss
from shardlib.reconnect import (
    MOST_UNANSWERED_RESUMES,
    QUICK_LOSS,
    Reconnect,
    ReconnectPolicy,
    Stop,
)
from tests.support import FATAL

MAIN = "wss://gateway.discord.gg"
RESUME = "wss://resume.discord.gg"

HELD = 100.0  # seconds, longer than a connection must hold to count as kept
QUICK = 1.0  # seconds, shorter than that


def new_backoff(base: float = 1.0, cap: float = 60.0) -> Backoff:
    """A Backoff without jitter: by default 1, 2, 4 seconds and so on."""
    return Backoff(base, cap, random=lambda: 1.0)


class History:
    """Plays the reader: tells the policy what happens, and does what it decides."""

    def __init__(
        self,
        session: CurrentSession | None = None,
        *,
        socket_url: str = MAIN,
        should_reconnect: bool = True,
        backoff: Backoff | None = None,
        no_fail: bool | None = None,
    ) -> None:
        self.session = session or CurrentSession()
        self.now = 1000.0
        self.no_fail = no_fail
        self.awaited = True
        self.established_at: float | None = None
        self.opening_sent = False
        self.resuming = False
        self.replay_begun = False
        self.policy = ReconnectPolicy(
            socket_url=socket_url,
            should_reconnect=should_reconnect,
            backoff=backoff or new_backoff(),
            intents=Intents.all(),
            uniform=lambda least, most: most,
        )
        self.plan: Reconnect | Stop = self.policy.begin(self.session)

    def decisions(self, steps: list[Step]) -> list[Reconnect | Stop]:
        """Play the steps; return what the policy decides at each loss among them."""
        found = []
        for step in steps:
            plan = self.plan
            step(self)
            if self.plan is not plan:
                found.append(self.plan)
        return found


Step = Callable[[History], object]


def connected(history: History) -> None:
    """A socket was opened; neither Identify nor Resume is sent yet."""
    assert isinstance(history.plan, Reconnect)
    if not history.plan.resume:
        history.session = CurrentSession()
    history.awaited = False


def opened(history: History) -> None:
    """Identify or Resume was sent."""
    connected(history)
    assert isinstance(history.plan, Reconnect)
    history.opening_sent = True
    history.resuming = history.plan.resume


def ready(history: History) -> None:
    history.session = CurrentSession("abc", RESUME, 1, 1)
    history.resuming = False
    history.established_at = history.now
    history.no_fail = None


def resumed(history: History) -> None:
    history.resuming = False
    history.established_at = history.now
    history.no_fail = None


def other(history: History) -> None:
    """READY begins a session with another id."""
    ready(history)
    history.session.session_id = "another"


def missed(history: History) -> None:
    """An event of a replay was received."""
    history.replay_begun = True


def event(sequence: int) -> Step:
    return lambda history: history.session.receive(sequence)


def lost(cause: Cause, after: float = 0.0, **what: Any) -> Step:
    def step(history: History) -> None:
        history.now += after
        loss = Loss(cause, "why", **what)
        if loss.session_lost and cause is Cause.GATEWAY_ASKED:
            history.session = CurrentSession()  # as the reader does at once
        history.plan = history.policy.after(
            loss,
            history.session,
            history.now,
            awaited=history.awaited,
            established_at=history.established_at,
            opening_sent=history.opening_sent,
            resuming=history.resuming,
            replay_begun=history.replay_begun,
            no_fail=history.no_fail,
        )
        history.established_at = None
        history.opening_sent = history.resuming = history.replay_begun = False

    return step


def closed(code: int | None, after: float = 0.0) -> Step:
    return lost(Cause.CLOSED, after, code=code)


def refused(retry_after: float | None = None) -> Step:
    """No socket could be opened."""
    return lost(Cause.NOT_OPENED, failure=ConnectionFailed("refused", retry_after=retry_after))


def op7(after: float = 0.0) -> Step:
    return lost(Cause.GATEWAY_ASKED, after)


def op9(resumable: bool, after: float = 0.0) -> Step:
    return lost(Cause.GATEWAY_ASKED, after, session_lost=not resumable)


def broken(after: float = 0.0) -> Step:
    """The compressed stream, or a frame, could not be read."""
    return lost(Cause.UNREADABLE, after)


too_large = lost(Cause.UNREADABLE, limit=1000)
silent = lost(Cause.UNRESPONSIVE)


def resume(delay: float = 0.0, url: str = RESUME, least: float = 0.0) -> Reconnect:
    return Reconnect(url, True, delay, least)


def identify(delay: float = 0.0, least: float = 0.0) -> Reconnect:
    return Reconnect(MAIN, False, delay, least)


def saved(url: str | None = RESUME) -> CurrentSession:
    return CurrentSession("saved", url, 5, 5)


KEPT = [None, 1000, 1001, 1006, 1011, 3000, 4000, 4001, 4002, 4003, 4005, 4008, 4999, 65535]
ENDED = [4007, 4009]


def test_every_close_code_is_in_the_tables_of_this_file() -> None:
    assert {*CloseCode} <= {*KEPT, *ENDED, *FATAL}


@pytest.mark.parametrize("code", KEPT)
def test_a_close_code_that_keeps_the_session_is_followed_by_a_resume(code: int | None) -> None:
    steps = [opened, ready, closed(code, HELD), opened, closed(code), opened, resumed, closed(code)]
    assert History().decisions(steps) == [resume(), resume(1.0), resume()]


@pytest.mark.parametrize("code", ENDED)
def test_a_close_code_that_ends_the_session_is_followed_by_identify(code: int) -> None:
    steps = [opened, ready, closed(code, HELD), opened, closed(code), opened, ready, closed(code)]
    assert History().decisions(steps) == [identify(), identify(1.0), identify()]
    assert History(saved()).decisions([opened, closed(code)]) == [identify(1.0)]


@pytest.mark.parametrize("code", FATAL)
@pytest.mark.parametrize("steps", [[opened], [opened, ready]], ids=["before READY", "after"])
@pytest.mark.parametrize("no_fail", [None, True])
def test_a_fatal_close_code_stops_the_shard_with_its_error(
    code: int, steps: list[Step], no_fail: bool | None
) -> None:
    """no_fail does not matter: the next connection could only end the same way."""
    (plan,) = History(no_fail=no_fail).decisions([*steps, closed(code)])
    assert isinstance(plan, Stop)
    assert type(plan.error) is FATAL[code]
    assert isinstance(plan.error, ShardClosed) and plan.error.code == code


def test_close_code_4014_names_the_privileged_intents() -> None:
    (plan,) = History().decisions([opened, closed(4014)])
    assert isinstance(plan, Stop) and "MESSAGE_CONTENT" in str(plan.error)


FIRST_QUICK = [opened, ready, closed(1006, QUICK)]
QUICKLY_AGAIN = [opened, resumed, closed(1006, QUICK)]
ESTABLISHED = [opened, ready, lost(Cause.BROKEN_OFF, HELD)]
REFUSED_TO_MAIN = [refused(), refused(), refused()]


@pytest.mark.parametrize(
    "steps, expected",
    [
        pytest.param(steps, expected, id=name)
        for name, steps, expected in [
            # Losses after READY.
            ("reset", [opened, ready, lost(Cause.BROKEN_OFF, HELD)], [resume()]),
            ("a zombie", [opened, ready, lost(Cause.UNRESPONSIVE, HELD)], [resume()]),
            ("a fault", [opened, ready, lost(Cause.FAULT, HELD)], [resume()]),
            (
                "just long enough",
                [*FIRST_QUICK, opened, resumed, closed(1006, 10.0)],
                [resume()] * 2,
            ),
            ("quick, once", FIRST_QUICK, [resume()]),
            ("quick, twice", [*FIRST_QUICK, *QUICKLY_AGAIN], [resume(), resume(0.25)]),
            (
                "quick, again and again: at most 5 seconds late",
                [*FIRST_QUICK, *QUICKLY_AGAIN * 8],
                [resume(delay) for delay in (0, 0.25, 0.5, 1, 2, 4, 5, 5, 5)],
            ),
            (
                "quick, then kept, then quick",
                [*FIRST_QUICK, *QUICKLY_AGAIN, opened, resumed, closed(1006, HELD), *QUICKLY_AGAIN],
                [resume(), resume(0.25), resume(), resume()],
            ),
            (
                "quick, with a code that ends the session",
                [*FIRST_QUICK, opened, resumed, closed(4009, QUICK)],
                [resume(), identify(0.25)],
            ),
            # Failures.
            ("no READY", [opened, silent, opened, silent], [identify(1), identify(2)]),
            ("a fault before READY", [opened, lost(Cause.FAULT)], [identify(1)]),
            ("a gate's failure", [opened, lost(Cause.GATE_FAILED)], [identify(1)]),
            ("a reset before READY", [opened, lost(Cause.BROKEN_OFF)], [identify(1)]),
            (
                "failures end with READY, and so does what they have cost",
                [*ESTABLISHED, refused(), opened, resumed, closed(1006, HELD), refused()],
                [resume(), resume(1), resume(), resume(1)],
            ),
            (
                "failures, a connection that worked but a moment, a failure",
                [opened, silent, opened, silent, opened, ready, closed(1006, QUICK), refused()],
                [identify(1), identify(2), resume(), resume(1)],
            ),
            (
                "an outage: up to a minute",
                [*ESTABLISHED, *[refused()] * 9],
                [
                    resume(),
                    *(resume(delay) for delay in (1, 2)),
                    *(resume(delay, MAIN) for delay in (4, 8, 16, 32, 60, 60, 60)),
                ],
            ),
            (
                "the resume URL is tried again after RESUMED at the main one",
                [*ESTABLISHED, *REFUSED_TO_MAIN, opened, resumed, closed(1006, HELD)],
                [resume(), resume(1), resume(2), resume(4, MAIN), resume()],
            ),
            (
                "failures at the resume URL need not be the same",
                [*ESTABLISHED, refused(), opened, silent, opened, closed(1006)],
                [resume(), resume(1), resume(2), resume(4, MAIN)],
            ),
            # Retry-After.
            (
                "Retry-After is the least pause",
                [*ESTABLISHED, refused(30.0)],
                [resume(), resume(1, least=30)],
            ),
            (
                "Retry-After ends no back-off",
                [*ESTABLISHED, refused(0.0)],
                [resume(), resume(1)],
            ),
            (
                "Retry-After of a day is not believed",
                [*ESTABLISHED, refused(86400.0)],
                [resume(), resume(1, least=3600)],
            ),
            # Requests of the Gateway.
            ("op 7", [opened, ready, op7(HELD)], [resume()]),
            ("op 7 soon after READY", [opened, ready, op7(QUICK)], [resume()]),
            (
                "op 7 soon after READY, again and again",
                [opened, ready, op7(QUICK), *[opened, resumed, op7(QUICK)] * 2],
                [resume(), resume(0.25), resume(0.5)],
            ),
            (
                "op 7 before READY is no failure, but a second one is",
                [opened, op7(), opened, op7(), opened, op7()],
                [identify(), identify(1), identify(2)],
            ),
            (
                "op 7 instead of RESUMED",
                [*ESTABLISHED, opened, op7(), opened, op7()],
                [resume(), resume(), resume(1)],
            ),
            (
                "op 7 before READY, and later again",
                [opened, op7(), opened, ready, closed(1006, HELD), opened, op7()],
                [identify(), resume(), resume()],
            ),
            (
                "op 7 for ever counts against the URL, but not against the session",
                [*ESTABLISHED, *[opened, op7()] * 6],
                [
                    *(resume(delay) for delay in (0, 0, 1)),
                    *(resume(delay, MAIN) for delay in (2, 4, 8, 16)),
                ],
            ),
            (
                "a quick loss after one that had held and was ended by op 7",
                [*FIRST_QUICK, *QUICKLY_AGAIN * 3, opened, resumed, op7(HELD), *QUICKLY_AGAIN],
                [*(resume(delay) for delay in (0, 0.25, 0.5, 1)), resume(), resume()],
            ),
            ("op 9 true", [opened, ready, op9(True, HELD)], [resume()]),
            ("op 9 true instead of RESUMED", [*ESTABLISHED, opened, op9(True)], [resume()] * 2),
            ("op 9 false", [opened, ready, op9(False, HELD)], [identify(least=5)]),
            (
                "op 9 false instead of RESUMED",
                [*ESTABLISHED, opened, op9(False)],
                [resume(), identify(least=5)],
            ),
            (
                "op 9 false instead of READY, again and again",
                [opened, op9(False), opened, op9(False), opened, op9(False)],
                [identify(least=5), identify(1, least=5), identify(2, least=5)],
            ),
            # Requests of the user.
            (
                "a thread asks for a connection",
                [*FIRST_QUICK, opened, resumed, lost(Cause.USER_ASKED, immediate=True)],
                [resume(), resume()],
            ),
            (
                "a callback asks, again and again",
                [*FIRST_QUICK, *[opened, resumed, lost(Cause.USER_ASKED)] * 2],
                [resume(), resume(), resume(0.25)],
            ),
            (
                "a callback asks before READY",
                [opened, lost(Cause.USER_ASKED), opened, lost(Cause.USER_ASKED)],
                [identify(), identify()],
            ),
            (
                "reinstantiate()",
                [opened, ready, lost(Cause.USER_ASKED, HELD, session_lost=True, immediate=True)],
                [identify()],
            ),
            # Sessions that cannot be resumed.
            (
                "no Resume is answered",
                [*ESTABLISHED, *[opened, silent] * 5],
                [
                    resume(),
                    resume(1),
                    resume(2),
                    resume(4, MAIN),
                    resume(8, MAIN),
                    identify(16),
                ],
            ),
            (
                "a Resume is answered at last",
                [*ESTABLISHED, *[opened, silent] * 4, *QUICKLY_AGAIN, opened, silent],
                [
                    resume(),
                    resume(1),
                    resume(2),
                    resume(4, MAIN),
                    resume(8, MAIN),
                    resume(),
                    resume(1),
                ],
            ),
            (
                "an outage is no answer to a Resume, and costs no session",
                [*ESTABLISHED, *[refused()] * 5],
                [resume(), resume(1), resume(2), *(resume(delay, MAIN) for delay in (4, 8, 16))],
            ),
            (
                "broken twice at the same sequence",
                [opened, ready, broken(HELD), opened, resumed, broken(HELD)],
                [resume(), identify()],
            ),
            (
                "broken twice at the same sequence, within the replay",
                [opened, ready, broken(HELD), opened, broken()],
                [resume(), identify(1)],
            ),
            (
                "broken at two sequences",
                [opened, ready, broken(HELD), opened, resumed, event(2), broken(HELD)],
                [resume(), resume()],
            ),
            (
                "broken at the same sequence of two sessions",
                [opened, ready, broken(HELD), opened, closed(4009), opened, other, broken(HELD)],
                [resume(), identify(1), resume()],
            ),
            (
                "broken before Resume was sent, which says nothing of the session",
                [opened, ready, broken(HELD), *[connected, broken()] * 2, opened, resumed],
                [resume(), resume(1), resume(2)],
            ),
            (
                "too large before Identify was sent: no READY can be that large",
                [*[connected, too_large] * 3, opened, ready],
                [identify(1), identify(2), identify(4)],
            ),
            # READY larger than max_payload.
            ("READY is too large, once", [opened, too_large], [identify(1)]),
            (
                "READY is too large, twice with a READY between",
                [opened, too_large, opened, ready, closed(4009, HELD), opened, too_large],
                [identify(1), identify(), identify(1)],
            ),
            (
                "a replayed event is too large, twice: an Identify brings others",
                [*ESTABLISHED, opened, too_large, opened, too_large, opened, ready],
                [resume(), resume(1), identify(2)],
            ),
        ]
    ],
)
def test_each_loss_is_followed_by_the_expected_url_pause_and_session(
    steps: list[Step], expected: list[Reconnect]
) -> None:
    assert History().decisions(steps) == expected


def test_an_event_that_is_too_large_ends_no_more_than_two_sessions() -> None:
    """Row 66: READY is received, and then the same event, too large again in each session."""
    large = lost(Cause.UNREADABLE, limit=900)
    first = [opened, ready, large, opened, large]
    second = [opened, other, large, opened, large]
    *plans, last = History().decisions([*first, *second])
    assert plans == [resume(), identify(1.0), resume(0.25)]
    assert isinstance(last, Stop)
    assert "max_payload (900 bytes)" in str(last.error)


def test_messages_too_large_in_two_long_sessions_do_not_stop_the_shard() -> None:
    """Months may lie between the two messages."""
    large = lost(Cause.UNREADABLE, after=QUICK_LOSS, limit=900)
    again = lost(Cause.UNREADABLE, limit=900)
    plans = History().decisions(
        [opened, ready, large, opened, again, opened, other, large, opened, again]
    )
    assert not any(isinstance(plan, Stop) for plan in plans)


def test_a_ready_that_is_too_large_twice_stops_and_names_max_payload() -> None:
    """The next READY would be as large: connecting again would use up the day's Identifies."""
    *_, plan = History().decisions([opened, too_large, opened, too_large])
    assert isinstance(plan, Stop)
    assert isinstance(plan.error, ShardClosed) and plan.error.code is None
    assert "1000 bytes" in str(plan.error) and "max_payload" in str(plan.error)


# connect() waits for the first attempt


@pytest.mark.parametrize(
    "session, socket_url, expected",
    [
        (None, MAIN, Reconnect(MAIN, False)),
        (saved(), MAIN, Reconnect(RESUME, True)),
        (saved(None), MAIN, Reconnect(MAIN, True)),
        (saved("ws://resume.discord.gg"), MAIN, Reconnect(MAIN, True)),
        (saved("ws://127.0.0.1:80"), "ws://127.0.0.1", Reconnect("ws://127.0.0.1:80", True)),
        (saved(RESUME), "ws://127.0.0.1", Reconnect(RESUME, True)),
        (saved("https://resume.discord.gg"), MAIN, Reconnect(MAIN, True)),
    ],
    ids=["none", "saved", "without URL", "downgraded", "both in clear", "upgraded", "no gateway"],
)
def test_the_first_url_is_the_resume_url_unless_it_is_unusable(
    session: CurrentSession | None, socket_url: str, expected: Reconnect
) -> None:
    assert History(session, socket_url=socket_url).plan == expected


@pytest.mark.parametrize("should_reconnect", [True, False])
@pytest.mark.parametrize(
    "session", [None, saved(None), saved(MAIN)], ids=["none", "no URL", "main"]
)
def test_an_awaited_first_attempt_that_fails_is_the_only_one(
    should_reconnect: bool, session: CurrentSession | None
) -> None:
    history = History(session, should_reconnect=should_reconnect)
    failure = ConnectionFailed("refused")
    (plan,) = history.decisions([lost(Cause.NOT_OPENED, failure=failure)])
    assert plan == Stop(failure)


@pytest.mark.parametrize("should_reconnect", [True, False])
def test_a_saved_session_whose_host_is_gone_is_resumed_at_the_main_url(
    should_reconnect: bool,
) -> None:
    history = History(saved(), should_reconnect=should_reconnect)
    failure = ConnectionFailed("refused")
    first, second = history.decisions([refused(), lost(Cause.NOT_OPENED, failure=failure)])
    assert first == resume(0, MAIN)
    assert second == Stop(failure)


def test_the_first_attempt_that_opens_a_socket_is_followed_by_others() -> None:
    assert History().decisions([opened, silent, refused()]) == [identify(1), identify(2)]


# should_reconnect and no_fail


@pytest.mark.parametrize(
    "steps, code, resumable",
    [
        ([opened, ready, closed(4000, HELD)], 4000, True),
        ([opened, ready, closed(4007, HELD)], 4007, False),
        ([opened, ready, closed(4009, HELD)], 4009, False),
        ([opened, ready, closed(None, HELD)], None, True),
        ([opened, ready, op7(HELD)], None, True),
        ([opened, ready, op9(True, HELD)], None, True),
        ([opened, ready, op9(False, HELD)], None, False),
        ([opened, ready, lost(Cause.UNRESPONSIVE, HELD)], None, True),
        ([opened, silent], None, True),
    ],
    ids=["4000", "4007", "4009", "no code", "op 7", "op 9 true", "op 9", "zombie", "no READY"],
)
def test_without_should_reconnect_the_first_loss_closes(
    steps: list[Step], code: int | None, resumable: bool
) -> None:
    (plan,) = History(should_reconnect=False).decisions(steps)
    assert isinstance(plan, Stop)
    assert isinstance(plan.error, ShardClosed)
    assert (plan.error.code, plan.error.reason) == (code, "why")
    assert plan.resume == resumable


def test_without_should_reconnect_a_reconnect_by_the_user_still_connects() -> None:
    history = History(should_reconnect=False)
    failure = ConnectionFailed("refused")
    asked = lost(Cause.USER_ASKED, HELD, immediate=True)
    plans = history.decisions([opened, ready, asked, lost(Cause.NOT_OPENED, failure=failure)])
    assert plans == [resume(), Stop(failure)]


def test_no_fail_keeps_trying_from_the_first_attempt_to_ready() -> None:
    history = History(should_reconnect=False, no_fail=True)
    steps = [refused(), refused(), opened, silent, opened, ready]
    assert history.decisions(steps) == [identify(1), identify(2), identify(4)]
    (plan,) = history.decisions([closed(4000)])
    assert isinstance(plan, Stop)


def test_no_fail_false_makes_the_first_failure_the_last() -> None:
    (plan,) = History(no_fail=False).decisions([opened, silent])
    assert isinstance(plan, Stop) and isinstance(plan.error, ShardClosed)


# The user's Backoff, fatal codes, and replays


def test_the_cap_of_the_backoff_bounds_the_pauses_after_quick_losses() -> None:
    steps = [*FIRST_QUICK, *QUICKLY_AGAIN * 3]
    history = History(backoff=new_backoff(base=0.01, cap=0.3))
    assert history.decisions(steps) == [resume(), resume(0.25), resume(0.3), resume(0.3)]


def test_a_negative_delay_from_the_users_backoff_counts_as_zero() -> None:
    class Eager(Backoff):
        def next_delay(self) -> float:
            return -1.0

    assert History(backoff=Eager()).decisions([opened, silent]) == [identify()]


class FailingBackoff(Backoff):
    """Fails whenever it is asked."""

    def reset(self) -> None:
        raise LookupError("mine")

    next_delay = reset  # type: ignore[assignment]


@pytest.mark.parametrize("value", [None, "1", float("nan"), float("inf"), True], ids=repr)
def test_what_is_no_delay_is_told_and_the_default_backoff_is_asked(value: Any) -> None:
    class Nonsense(Backoff):
        def next_delay(self) -> Any:
            return value

    (plan,) = History(backoff=Nonsense()).decisions([opened, silent])
    assert isinstance(plan, Reconnect) and 0.5 <= plan.delay <= 1.0
    assert isinstance(plan.fault, (TypeError, ValueError))
    assert "next_delay()" in str(plan.fault)


def test_pauses_grow_and_nothing_else_changes_if_the_users_backoff_fails() -> None:
    history = History(saved(), backoff=FailingBackoff(), no_fail=True)
    steps = [refused(), refused(30.0), refused(), opened, closed(4009)]
    plans = [plan for plan in history.decisions(steps) if isinstance(plan, Reconnect)]
    assert all(isinstance(plan.fault, LookupError) for plan in plans)
    bounds = [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0)]
    for plan, (least, most) in zip(plans, bounds, strict=True):
        assert least <= plan.delay <= most
    assert [plan.least_delay for plan in plans] == [0.0, 30.0, 0.0, 0.0]
    assert [plan.resume for plan in plans] == [True, True, True, False]


def test_a_fatal_code_is_fatal_if_the_users_backoff_fails() -> None:
    history = History(backoff=FailingBackoff())
    (plan,) = history.decisions([opened, ready, closed(4004, HELD)])
    assert isinstance(plan, Stop) and isinstance(plan.error, AuthenticationFailed)


def test_a_new_life_resets_the_backoff() -> None:
    """Both lives share the Backoff and the session."""
    backoff = new_backoff()
    first = History(saved(), backoff=backoff, no_fail=True)
    delays = [plan.delay for plan in first.decisions([refused()] * 4)]  # type: ignore[union-attr]
    assert delays == [1, 2, 4, 8]
    second = History(first.session, backoff=backoff, no_fail=True)
    assert second.plan == Reconnect(RESUME, True)
    assert second.decisions([refused()]) == [Reconnect(RESUME, True, 1)]


def test_the_first_attempt_that_fails_at_the_resume_url_is_repeated_at_once_at_the_other() -> None:
    history = History(saved())
    history.awaited = False  # start()
    assert history.plan == Reconnect(RESUME, True)
    assert history.decisions([refused()] * 2) == [Reconnect(MAIN, True), Reconnect(MAIN, True, 1)]


def test_reinstantiate_before_the_connection_begins_drops_the_session() -> None:
    history = History(saved())
    assert history.policy.reinstantiate(history.session) == identify()


def test_a_fatal_close_code_without_should_reconnect_keeps_its_error() -> None:
    (plan,) = History(should_reconnect=False).decisions([opened, ready, closed(4004, HELD)])
    assert isinstance(plan, Stop) and isinstance(plan.error, AuthenticationFailed)


def test_a_session_whose_replays_break_off_is_resumed_for_ever() -> None:
    plans = History(saved()).decisions([opened, missed, closed(1006)] * 20)
    assert all(isinstance(plan, Reconnect) and plan.resume for plan in plans)


def test_an_answered_resume_resets_the_count_of_unanswered_ones() -> None:
    unanswered = [opened, closed(1006)] * (MOST_UNANSWERED_RESUMES - 1)
    history = History(saved())
    history.decisions([*unanswered, opened, missed, closed(1006)])
    plans = history.decisions([*unanswered, opened, closed(1006)])
    assert [isinstance(plan, Reconnect) and plan.resume for plan in plans] == (
        [True] * (MOST_UNANSWERED_RESUMES - 1) + [False]
    )
