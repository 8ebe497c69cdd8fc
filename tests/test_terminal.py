"""What a person at a terminal sees: columns, and styles."""

from __future__ import annotations

import re

import pytest

from shardlib.cli.terminal import clip, columns, columns_of
from shardlib.testing import LocalGateway
from tests.command import Command
from tests.pseudoterminal import PseudoTerminal


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("plain", 5),
        ("日本語", 6),
        ("\N{FULLWIDTH LATIN SMALL LETTER F}", 2),
        ("🙂", 2),
        ("e\N{COMBINING ACUTE ACCENT}", 1),
        ("a\N{ZERO WIDTH JOINER}b", 2),
        ("é", 1),
    ],
    ids=["nothing", "ASCII", "wide", "full width", "emoji", "combining", "no width", "accented"],
)
def test_a_text_is_as_wide_as_a_terminal_draws_it(text: str, width: int) -> None:
    """Row 79."""
    assert columns_of(text) == width


@pytest.mark.parametrize(
    ("text", "width", "clipped"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("日本", 4, "日本"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("日本", 1, "…"),
    ],
)
def test_a_clipped_text_is_no_wider_than_it_may_be(text: str, width: int, clipped: str) -> None:
    assert clip(text, width) == clipped
    assert columns_of(clip(text, width)) <= width


def test_columns_stand_below_each_other_whatever_is_in_them() -> None:
    lines = [columns([(name, 10), ("|", 0)]) for name in ("guild", "日本語", "🙂🙂")]
    assert {columns_of(line) for line in lines} == {13}


def printed(terminal: PseudoTerminal, gateway: LocalGateway, **environment: str) -> bytes:
    """What ``tail`` prints on a terminal up to READY."""
    with Command(
        *("tail", "--url", gateway.url),
        token=gateway.token,
        environment={"TERM": "xterm", **environment},
        stdout=terminal.follower,
        stderr=terminal.follower,
    ) as command:
        terminal.read_until(b"GUILD_CREATE")
        command.interrupt()
        command.finish()
    return terminal.text


def test_tail_styles_its_lines_on_a_terminal(
    terminal: PseudoTerminal, local_gateway: LocalGateway
) -> None:
    text = printed(terminal, local_gateway)
    assert re.search(rb"\x1b\[2m\d\d:\d\d:\d\d +1\x1b\[0m\x1b\[1m  READY\x1b\[0m", text)
    assert re.search(rb"\x1b\[2m\d\d:\d\d:\d\d -- ready, session \w+\x1b\[0m", text)


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_tail_is_plain_if_the_user_says_so(
    variable: dict[str, str], terminal: PseudoTerminal, local_gateway: LocalGateway
) -> None:
    assert b"\x1b" not in printed(terminal, local_gateway, **variable)


def test_tail_is_plain_in_a_pipe(local_gateway: LocalGateway) -> None:
    url, token = local_gateway.url, local_gateway.token
    with Command("tail", "--url", url, "--count", "1", token=token) as command:
        command.read()
        command.finish()
    assert command.out and not any("\x1b" in line for line in [*command.out, *command.err])
