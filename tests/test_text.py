"""printable(): text of others that is safe to show in a terminal or a log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.text import printable


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
