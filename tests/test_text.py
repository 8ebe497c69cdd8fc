"""Text of others that is safe to show in a terminal or a log, errors in words, and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.text import duration, gist, message_of, printable, ranges


@given(st.text(st.characters()))
def test_printable_makes_any_text_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) is text.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\r\ntwo", r"one\r\ntwo"),
        ("\x1b[2J\x07\x00\x7f", r"\x1b[2J\x07\x00\x7f"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("\ufeff\u200b\U000e0041", r"\ufeff\u200b\U000e0041"),
        ("caf\u00e9 \u65e5\u672c \U0001f600", "caf\u00e9 \u65e5\u672c \U0001f600"),
    ],
)
def test_printable_escapes_control_and_format_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()), st.integers(0, 20))
def test_printable_with_a_limit_cuts_and_adds_dots(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown == printable(text[:limit]) + ("..." if len(text) > limit else "")


@pytest.mark.parametrize(
    "seconds, shown",
    [
        (0.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.0, "59 min 59 s"),
        (3600.0, "1 h 0 min"),
        (86_399.0, "23 h 59 min"),
        (172_799.0, "47 h 59 min"),
        (172_800.0, "2 days 0 h"),
        (94_690_000.0, "1095 days 22 h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    "numbers, shown",
    [([], ""), ([3], "3"), ([2, 0, 1], "0-2"), ([18, 0, 1, 3, 4, 5], "0-1, 3-5, 18")],
)
def test_ranges_of_numbers_are_told_by_their_ends(numbers: list[int], shown: str) -> None:
    assert ranges(numbers) == shown


class Speechless(Exception):
    """An exception of a user's that fails to say anything."""

    def __str__(self) -> str:
        raise ValueError("nothing to say")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("wrong"), "wrong"),
        (ValueError(), "ValueError()"),
        (KeyError("d"), "'d'"),
        (Speechless(), "Speechless"),
    ],
)
def test_message_of_any_error_says_something(error: Exception, message: str) -> None:
    assert message_of(error) == message


@pytest.mark.parametrize(
    "page, shown",
    [
        ("no <b>HTML</b>", "no <b>HTML</b>"),
        ('{"retry_after": 1}', '{"retry_after": 1}'),
        ("<html><title>\n Log in &amp; go</title><body>Welcome", "Log in & go"),
        ("<html><title></title><body><p>Blocked by</p> <b>policy</b>", "Blocked by policy"),
        ("<style>p {}</style><p>Blocked<script>let", "Blocked"),
        ("<p>cut off in a tag <a hre", "cut off in a tag"),
        ("", ""),
    ],
)
def test_the_gist_of_a_page_has_no_tags(page: str, shown: str) -> None:
    assert gist(page) == shown
