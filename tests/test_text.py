from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.text import printable


@given(st.text(st.characters()))
def test_anything_becomes_printable(text: str) -> None:
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
def test_what_is_more_than_a_character_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()), st.integers(0, 20))
def test_a_limit_cuts_between_characters_and_says_so(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown == printable(text[:limit]) + ("..." if len(text) > limit else "")
