"""Outstanding: the sequence that a saved session has while the user's code is not done."""

from __future__ import annotations

from shardlib.currentsession import CurrentSession
from shardlib.outstanding import Handover, Outstanding


def hand_over(outstanding: Outstanding, session: CurrentSession, sequence: int) -> Handover:
    """An event as the reader hands it over: noted first, then counted by the session."""
    assert session.receive_next(sequence)
    handover = Handover(session)
    outstanding.add(handover)
    session.complete()
    return handover


def make_session(sequence: int = 10) -> CurrentSession:
    return CurrentSession("session", None, sequence, sequence)


def test_nothing_outstanding_is_what_the_reader_has_handed_on() -> None:
    session = make_session()
    assert Outstanding().completed_sequence(session) == 10


def test_the_sequence_is_below_the_oldest_whatever_order_they_end_in() -> None:
    outstanding, session = Outstanding(), make_session()
    first, second, third = (hand_over(outstanding, session, each) for each in (11, 12, 13))
    assert outstanding.completed_sequence(session) == 10
    outstanding.finish(second)
    assert outstanding.completed_sequence(session) == 10
    outstanding.finish(first)
    assert outstanding.completed_sequence(session) == 12
    outstanding.finish(third)
    assert outstanding.completed_sequence(session) == 13


def test_events_without_callbacks_count_once_those_before_them_are_done() -> None:
    outstanding, session = Outstanding(), make_session()
    first = hand_over(outstanding, session, 11)
    session.receive_next(12)
    session.complete()  # no function listens to it
    assert outstanding.completed_sequence(session) == 10
    outstanding.finish(first)
    assert outstanding.completed_sequence(session) == 12


def test_after_a_rewind_the_sequence_is_below_all_that_comes_again() -> None:
    """Of the events that waited before the rewind, only those before its sequence count."""
    outstanding, session = Outstanding(), make_session()
    waiting = [hand_over(outstanding, session, each) for each in (11, 12, 13, 14)]
    session.rewind(12)
    assert outstanding.completed_sequence(session) == 10
    again = [hand_over(outstanding, session, each) for each in (13, 14)]
    for each, done in zip(waiting, (11, 12, 12, 12), strict=True):
        outstanding.finish(each)
        assert outstanding.completed_sequence(session) == done
    for each, done in zip(again, (13, 14), strict=True):
        outstanding.finish(each)
        assert outstanding.completed_sequence(session) == done


def test_a_rewind_counts_before_the_first_event_comes_again() -> None:
    session = make_session()
    session.rewind(5)
    assert Outstanding().completed_sequence(session) == 5


def test_of_a_session_with_no_event_done_nothing_is_done() -> None:
    outstanding, session = Outstanding(), CurrentSession("session", None, 10, None)
    handover = hand_over(outstanding, session, 11)
    assert outstanding.completed_sequence(session) is None
    outstanding.finish(handover)
    assert outstanding.completed_sequence(session) == 11


def test_events_of_a_session_before_hold_nothing_back() -> None:
    outstanding, old, new = Outstanding(), make_session(500), make_session(1)
    hand_over(outstanding, old, 501)
    assert outstanding.completed_sequence(new) == 1


def test_length_and_lag_are_those_of_what_is_not_done() -> None:
    outstanding, session = Outstanding(), make_session()
    assert (len(outstanding), outstanding.lag) == (0, 0.0)
    first, second = (hand_over(outstanding, session, each) for each in (11, 12))
    assert len(outstanding) == 2
    lag = outstanding.lag
    outstanding.finish(first)
    outstanding.finish(first)
    assert len(outstanding) == 1
    outstanding.finish(second)
    assert (len(outstanding), outstanding.lag) == (0, 0.0)
    assert lag > 0
